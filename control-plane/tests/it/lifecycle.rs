// SPDX-License-Identifier: Apache-2.0
//! Create, describe, update, delete: versions, uids, echoes, and what stands in the way of a delete.

use serde_json::Value;
use serde_json::json;

use crate::control_plane::ControlPlane;
use crate::shop;
use crate::shop::samples;

#[test]
fn every_kind_goes_through_its_life_unwrapped_and_numbered() {
    let control_plane = ControlPlane::start();
    for sample in samples() {
        let created = control_plane.put(sample.collection, &sample.body()).ok();
        assert_eq!(created[sample.name_member], sample.name);
        assert_eq!(created["meshName"], "shop");
        assert_eq!(created["spec"], sample.spec);
        assert_eq!(created["status"], json!({"status": "ACTIVE"}));
        let metadata = &created["metadata"];
        let arn = format!("arn:aws:appmesh:us-east-1:000000000000:{}", sample.id);
        assert_eq!(metadata["arn"], json!(arn));
        assert_eq!(metadata["version"], 1);
        assert_eq!(metadata["meshOwner"], "000000000000");
        assert_eq!(metadata["resourceOwner"], "000000000000");
        assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
        assert_eq!(metadata["createdAt"], metadata["lastUpdatedAt"]);
        assert!(
            metadata["createdAt"].as_f64().unwrap() > 1.7e9,
            "epoch seconds"
        );

        assert_eq!(control_plane.get(&sample.item()).ok(), created);
        let updated = control_plane
            .put(&sample.item(), &json!({"spec": sample.spec}))
            .ok();
        assert_eq!(
            updated["metadata"]["version"], 2,
            "an equal spec is an update too"
        );
        assert_eq!(updated["metadata"]["uid"], metadata["uid"]);
        assert_eq!(updated["metadata"]["createdAt"], metadata["createdAt"]);
    }
    for sample in samples().iter().rev() {
        let deleted = match sample.word {
            // In the teardown order of App Mesh users a service goes before what provides it.
            "route" | "virtualRouter" | "virtualNode" | "mesh" => continue,
            _ => control_plane.delete(&sample.item()).ok(),
        };
        assert_gone(&control_plane, sample, &deleted);
    }
    for word in ["route", "virtualRouter", "virtualNode", "mesh"] {
        let all = samples();
        let sample = all.iter().find(|sample| sample.word == word).unwrap();
        let deleted = control_plane.delete(&sample.item()).ok();
        assert_gone(&control_plane, sample, &deleted);
    }
}

fn assert_gone(control_plane: &ControlPlane, sample: &shop::Sample, deleted: &Value) {
    assert_eq!(deleted["metadata"]["version"], 3, "delete counts as well");
    assert_eq!(deleted["status"]["status"], "DELETED");
    assert_eq!(deleted["spec"], sample.spec);
    for answer in [
        control_plane.get(&sample.item()),
        control_plane.delete(&sample.item()),
        control_plane.put(&sample.item(), &json!({"spec": sample.spec})),
    ] {
        answer.refused(404, "NotFoundException");
    }
}

#[test]
fn a_name_used_again_is_another_resource() {
    let control_plane = ControlPlane::start();
    let create = || control_plane.put("/meshes", &json!({"meshName": "m"})).ok();
    let first = create();
    control_plane.delete("/meshes/m").ok();
    let second = create();
    assert_ne!(first["metadata"]["uid"], second["metadata"]["uid"]);
    assert_eq!(second["metadata"]["version"], 1);
}

#[test]
fn a_spec_is_echoed_as_it_was_written() {
    let control_plane = ControlPlane::start();
    let mesh = control_plane.put("/meshes", &json!({"meshName": "m"})).ok();
    assert_eq!(mesh["spec"], json!({}), "no spec is the empty one");
    let mut spec = shop::node("n.local");
    spec["backends"] = json!([]);
    spec["logging"] = Value::Null;
    let node = control_plane
        .put(
            "/meshes/m/virtualNodes",
            &json!({"virtualNodeName": "n", "spec": spec}),
        )
        .ok();
    assert_eq!(node["spec"]["backends"], json!([]));
    assert!(node["spec"].get("logging").is_none(), "null is absent");
    assert!(
        node["spec"]["serviceDiscovery"]["dns"]
            .get("responseType")
            .is_none()
    );
}

#[test]
fn an_update_replaces_the_whole_spec_except_that_a_mesh_without_one_keeps_its_own() {
    let control_plane = ControlPlane::start();
    shop::open(&control_plane);
    let router = control_plane
        .put("/meshes/shop/virtualNodes/web", &json!({"spec": {}}))
        .ok();
    assert_eq!(router["spec"], json!({}));
    let mesh = control_plane.put("/meshes/shop", &json!({})).ok();
    assert_eq!(mesh["spec"], json!({"egressFilter": {"type": "ALLOW_ALL"}}));
    let mesh = control_plane.put("/meshes/shop", &json!({"spec": {}})).ok();
    assert_eq!(mesh["spec"], json!({}));
    assert_eq!(mesh["metadata"]["version"], 3);
}

#[test]
fn names_travel_percent_encoded() {
    let control_plane = ControlPlane::start();
    control_plane
        .put("/meshes", &json!({"meshName": "mäsh 1%"}))
        .ok();
    let body = json!({"virtualServiceName": "*.apps:8080", "spec": {}});
    let path = "/meshes/m%C3%A4sh%201%25/virtualServices";
    let created = control_plane.put(path, &body).ok();
    assert_eq!(created["meshName"], "mäsh 1%");
    let found = control_plane.get(&format!("{path}/%2A.apps%3A8080")).ok();
    assert_eq!(found["virtualServiceName"], "*.apps:8080");
}

#[test]
fn what_is_referred_to_cannot_be_deleted() {
    let control_plane = ControlPlane::start();
    shop::open(&control_plane);
    let refused = |path: &str| {
        control_plane
            .delete(path)
            .refused(409, "ResourceInUseException")
    };
    assert!(refused("/meshes/shop").contains("please delete"));
    assert!(refused("/meshes/shop/virtualNodes/web").contains("target of one or more routes"));
    assert!(refused("/meshes/shop/virtualRouters/split").contains("routes"));
    assert!(refused("/meshes/shop/virtualServices/web.shop.local").contains("GATEWAY_ROUTE"));
    assert!(refused("/meshes/shop/virtualGateways/edge").contains("gateway routes"));
    control_plane
        .delete("/meshes/shop/virtualRouter/split/routes/all")
        .ok();
    assert!(refused("/meshes/shop/virtualRouters/split").contains("provider"));
    control_plane.delete("/meshes/shop/virtualNodes/web").ok();
}

#[test]
fn a_service_that_is_only_a_backend_may_be_deleted() {
    let control_plane = ControlPlane::start();
    control_plane.put("/meshes", &json!({"meshName": "m"})).ok();
    let service = json!({"virtualServiceName": "s.local", "spec": {}});
    control_plane
        .put("/meshes/m/virtualServices", &service)
        .ok();
    let backends = json!([{"virtualService": {"virtualServiceName": "s.local"}}]);
    let node = json!({"virtualNodeName": "n", "spec": {"backends": backends}});
    control_plane.put("/meshes/m/virtualNodes", &node).ok();
    control_plane
        .delete("/meshes/m/virtualServices/s.local")
        .ok();
}

#[test]
fn writers_at_once_leave_no_dangling_reference() {
    let control_plane = ControlPlane::start();
    shop::open(&control_plane);
    for round in 0..30 {
        let node = format!("n{round}");
        let body = json!({"virtualNodeName": node, "spec": shop::node("n.local")});
        control_plane.put("/meshes/shop/virtualNodes", &body).ok();
        let item = format!("/meshes/shop/virtualNodes/{node}");
        let body = json!({"routeName": node, "spec": shop::route(&node, 1)});
        let (deleted, routed) = std::thread::scope(|scope| {
            let deleted = scope.spawn(|| control_plane.delete(&item));
            let routed =
                scope.spawn(|| control_plane.put("/meshes/shop/virtualRouter/split/routes", &body));
            (deleted.join().unwrap(), routed.join().unwrap())
        });
        match (deleted.status, routed.status) {
            (200, 400) | (409, 200) => {}
            (deleted, routed) => panic!("round {round}: delete {deleted}, route {routed}"),
        }
    }
}
