// SPDX-License-Identifier: Apache-2.0
//! Tags of every kind, by ARN.

use serde_json::Value;
use serde_json::json;

use crate::control_plane::ControlPlane;
use crate::http::Answer;
use crate::shop;
use crate::shop::samples;

const MESH: &str = "arn:aws:appmesh:us-east-1:000000000000:mesh/shop";

fn tags(control_plane: &ControlPlane, arn: &str) -> Value {
    control_plane.get(&format!("/tags?resourceArn={arn}")).ok()["tags"].clone()
}

fn tag(control_plane: &ControlPlane, arn: &str, tags: &Value) -> Answer {
    control_plane.put(&format!("/tag?resourceArn={arn}"), &json!({"tags": tags}))
}

#[test]
fn every_kind_takes_tags_at_creation_and_later_without_a_new_version() {
    let control_plane = ControlPlane::start();
    for sample in samples() {
        let mut body = sample.body();
        body["tags"] = json!([{"key": "team", "value": "a"}, {"key": "empty", "value": ""}]);
        control_plane.put(sample.collection, &body).ok();
        let arn = format!(
            "arn%3Aaws%3Aappmesh%3Aus-east-1%3A000000000000%3A{}",
            sample.id
        );
        let added = json!([{"key": "team", "value": "b"}, {"key": "z", "value": "1"}]);
        assert_eq!(tag(&control_plane, &arn, &added).ok(), json!({}));
        let keys = json!({"tagKeys": ["empty", "never there"]});
        let untagged = control_plane.put(&format!("/untag?resourceArn={arn}"), &keys);
        assert_eq!(untagged.ok(), json!({}));
        assert_eq!(tags(&control_plane, &arn), added);
        let found = control_plane.get(&sample.item()).ok();
        assert_eq!(found["metadata"]["version"], 1);
    }
    control_plane.put("/meshes/shop", &json!({"spec": {}})).ok();
    assert_eq!(
        tags(&control_plane, MESH).as_array().unwrap().len(),
        2,
        "an update keeps tags"
    );
}

#[test]
fn a_resource_has_fifty_tags_and_no_more() {
    let control_plane = ControlPlane::start();
    shop::open(&control_plane);
    let many = |from: usize, to: usize| -> Value {
        (from..to)
            .map(|number| json!({"key": format!("k{number:02}"), "value": "v"}))
            .collect()
    };
    tag(&control_plane, MESH, &many(0, 50)).ok();
    tag(&control_plane, MESH, &many(0, 50)).ok();
    let message = tag(&control_plane, MESH, &many(50, 51)).refused(400, "TooManyTagsException");
    assert!(message.contains("50"), "{message}");

    let page = control_plane
        .get(&format!("/tags?resourceArn={MESH}&limit=30"))
        .ok();
    assert_eq!(page["tags"].as_array().unwrap().len(), 30);
    let next = page["nextToken"].as_str().unwrap();
    let path = format!("/tags?resourceArn={MESH}&limit=30&nextToken={next}");
    let rest = control_plane.get(&path).ok();
    assert_eq!(rest["tags"].as_array().unwrap().len(), 20);
    assert!(rest.get("nextToken").is_none());
    let over = control_plane.get(&format!("/tags?resourceArn={MESH}&limit=51"));
    assert!(over.refused(400, "BadRequestException").contains("limit"));
}

#[test]
fn an_arn_that_is_none_of_ours_is_missing_and_one_that_is_no_arn_is_wrong() {
    let control_plane = ControlPlane::start();
    shop::open(&control_plane);
    for arn in [
        "arn:aws:appmesh:us-east-1:000000000000:mesh/other",
        "arn:aws:appmesh:eu-west-1:000000000000:mesh/shop",
        "arn:aws:appmesh:us-east-1:999999999999:mesh/shop",
        "arn:aws:appmesh:us-east-1:000000000000:mesh/shop/virtualNode/gone",
    ] {
        tag(&control_plane, arn, &json!([])).refused(404, "NotFoundException");
    }
    for arn in [
        "",
        "mesh/shop",
        "arn:aws:s3:::bucket",
        "arn:aws:appmesh:us-east-1:000000000000:mesh",
    ] {
        let message = tag(&control_plane, arn, &json!([])).refused(400, "BadRequestException");
        assert!(message.starts_with("resourceArn: "), "{message}");
    }
}

#[test]
fn a_malformed_tag_request_is_told_every_fault() {
    let control_plane = ControlPlane::start();
    shop::open(&control_plane);
    let path = format!("/tag?resourceArn={MESH}");
    let body = json!({"tags": [{"key": ""}, {"key": "a", "value": "v".repeat(257)}], "more": 1});
    let message = control_plane
        .put(&path, &body)
        .refused(400, "BadRequestException");
    for part in [
        "tags[0].key",
        "tags[0].value",
        "tags[1].value",
        "more",
        "4 problems",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
    let message = control_plane
        .put(&path, &json!({}))
        .refused(400, "BadRequestException");
    assert_eq!(message, "tags: is required");
}
