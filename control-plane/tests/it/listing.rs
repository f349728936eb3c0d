// SPDX-License-Identifier: Apache-2.0
//! Lists: the shape of their items, pages, tokens.

use std::collections::BTreeSet;

use serde_json::Value;
use serde_json::json;

use crate::control_plane::ControlPlane;
use crate::shop;
use crate::shop::samples;

#[test]
fn every_list_shows_references_without_uid_spec_or_status() {
    let control_plane = ControlPlane::start();
    shop::open(&control_plane);
    for sample in samples() {
        let list = control_plane.get(sample.collection).ok();
        let items = list[sample.list_member].as_array().expect("a list");
        assert_eq!(items.len(), 1);
        let members: BTreeSet<&str> = items[0]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let mut expected = BTreeSet::from([
            "arn",
            "createdAt",
            "lastUpdatedAt",
            "meshName",
            "meshOwner",
            "resourceOwner",
            "version",
            sample.name_member,
        ]);
        match sample.word {
            "route" => expected.insert("virtualRouterName"),
            "gatewayRoute" => expected.insert("virtualGatewayName"),
            _ => false,
        };
        assert_eq!(members, expected, "{}", sample.word);
        assert!(list.get("nextToken").is_none());
    }
}

fn meshes(control_plane: &ControlPlane, count: usize) {
    for number in 0..count {
        let body = json!({"meshName": format!("m{number:03}")});
        control_plane.put("/meshes", &body).ok();
    }
}

fn names(page: &Value) -> Vec<String> {
    let items = page["meshes"].as_array().expect("a list");
    items
        .iter()
        .map(|item| item["meshName"].as_str().expect("a name").to_owned())
        .collect()
}

#[test]
fn pages_cover_a_list_once_while_it_changes() {
    let control_plane = ControlPlane::start();
    meshes(&control_plane, 7);
    let mut seen = Vec::new();
    let mut path = "/meshes?limit=3".to_owned();
    loop {
        let page = control_plane.get(&path).ok();
        seen.extend(names(&page));
        if seen.len() == 3 {
            // The one the token points at goes away, and one appears that was passed already.
            control_plane.delete("/meshes/m002").ok();
            control_plane
                .put("/meshes", &json!({"meshName": "m000a"}))
                .ok();
        }
        let Some(token) = page.get("nextToken").and_then(Value::as_str) else {
            break;
        };
        path = format!("/meshes?limit=3&nextToken={token}");
    }
    let expected: Vec<String> = (0..7).map(|number| format!("m{number:03}")).collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_page_has_a_hundred_items_unless_asked_for_fewer() {
    let control_plane = ControlPlane::start();
    meshes(&control_plane, 101);
    let page = control_plane.get("/meshes").ok();
    assert_eq!(names(&page).len(), 100);
    let token = page["nextToken"].as_str().unwrap();
    let rest = control_plane
        .get(&format!("/meshes?nextToken={token}"))
        .ok();
    assert_eq!(names(&rest), ["m100"]);
    assert!(rest.get("nextToken").is_none());
    for limit in ["0", "101", "-1", "x", "1.5"] {
        let answer = control_plane.get(&format!("/meshes?limit={limit}"));
        let message = answer.refused(400, "BadRequestException");
        assert!(
            message.starts_with("limit: ") && message.contains(limit),
            "{message}"
        );
    }
}

#[test]
fn a_token_fits_only_its_own_list() {
    let control_plane = ControlPlane::start();
    meshes(&control_plane, 2);
    let page = control_plane.get("/meshes?limit=1").ok();
    let token = page["nextToken"].as_str().unwrap();
    for path in [
        format!("/meshes/m000/virtualNodes?nextToken={token}"),
        "/meshes?nextToken=garbage".to_owned(),
        format!("/meshes?nextToken={token}x"),
    ] {
        let message = control_plane.get(&path).refused(400, "BadRequestException");
        assert!(message.starts_with("nextToken: "), "{message}");
    }
}

#[test]
fn a_list_of_what_is_missing_is_not_empty_but_missing() {
    let control_plane = ControlPlane::start();
    shop::open(&control_plane);
    for (path, missing) in [
        ("/meshes/none/virtualNodes", "none"),
        ("/meshes/none/virtualRouter/split/routes", "none"),
        ("/meshes/shop/virtualRouter/gone/routes", "gone"),
        ("/meshes/shop/virtualGateway/gone/gatewayRoutes", "gone"),
    ] {
        let message = control_plane.get(path).refused(404, "NotFoundException");
        assert!(message.contains(missing), "{message}");
    }
}
