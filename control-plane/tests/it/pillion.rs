// SPDX-License-Identifier: Apache-2.0
//! `/pillion/v1`: history and rollback, atomic apply, watch, fleet, explain, and the document that describes them.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use crate::control_plane::ControlPlane;
use crate::http::Answer;
use crate::http::request;
use crate::shop;

const NODE: &str = "arn:aws:appmesh:us-east-1:000000000000:mesh/shop/virtualNode/web";

fn ask(control_plane: &ControlPlane, method: &str, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let path = format!("/pillion/v1{path}");
    request(control_plane.api, method, &path, &[], body.as_bytes()).expect("an answer")
}

fn get(control_plane: &ControlPlane, path: &str) -> Value {
    ask(control_plane, "GET", path, &Value::Null).ok()
}

#[test]
fn every_change_is_remembered_and_an_old_version_can_be_brought_back() {
    let control_plane = ControlPlane::start();
    shop::open(&control_plane);
    let update = |host: &str| {
        let body = json!({"spec": shop::node(host)});
        control_plane
            .put("/meshes/shop/virtualNodes/web", &body)
            .ok()
    };
    update("two.local");
    update("three.local");
    let history = get(&control_plane, &format!("/history?resourceArn={NODE}"));
    let changes = history["changes"].as_array().unwrap();
    let told: Vec<_> = changes
        .iter()
        .map(|one| {
            (
                one["version"].as_u64().unwrap(),
                one["operation"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (3, "UpdateVirtualNode"),
            (2, "UpdateVirtualNode"),
            (1, "CreateVirtualNode")
        ]
    );
    assert_eq!(changes[0]["who"], "anonymous");
    assert_eq!(
        changes[0]["diff"],
        json!([{"path": "spec.serviceDiscovery.dns.hostname", "before": "two.local", "after": "three.local"}])
    );
    let restored = ask(
        &control_plane,
        "POST",
        "/rollback",
        &json!({"resourceArn": NODE, "version": 1}),
    )
    .ok();
    assert_eq!(restored["metadata"]["version"], 4);
    assert_eq!(restored["spec"], shop::node("web.local"));
    ask(
        &control_plane,
        "POST",
        "/rollback",
        &json!({"resourceArn": NODE, "version": 9}),
    )
    .refused(404, "NotFoundException");
    let all = get(&control_plane, "/history?limit=3");
    assert_eq!(all["changes"].as_array().unwrap().len(), 3);
    let older = get(
        &control_plane,
        &format!("/history?limit=3&before={}", all["before"]),
    );
    assert_eq!(older["changes"].as_array().unwrap().len(), 3);
}

#[test]
fn history_survives_kill_9_and_the_deletion_of_its_resource() {
    let folder = tempfile::TempDir::new().unwrap();
    let first = ControlPlane::start_in(folder.path());
    first.put("/meshes", &json!({"meshName": "m"})).ok();
    first.delete("/meshes/m").ok();
    first.kill();
    let second = ControlPlane::start_in(folder.path());
    let arn = "arn:aws:appmesh:us-east-1:000000000000:mesh/m";
    let history = get(&second, &format!("/history?resourceArn={arn}"));
    assert_eq!(history["changes"][0]["deleted"], true);
    assert_eq!(history["changes"][1]["operation"], "CreateMesh");
}

#[test]
fn an_apply_is_made_whole_or_not_at_all() {
    let control_plane = ControlPlane::start();
    let manifest: Vec<Value> = shop::samples()
        .iter()
        .map(|sample| {
            let mut document = sample.body();
            document["meshName"] = json!("shop");
            match sample.word {
                "route" => document["virtualRouterName"] = json!("split"),
                "gatewayRoute" => document["virtualGatewayName"] = json!("edge"),
                _ => {}
            }
            document
        })
        .collect();
    let dry = ask(
        &control_plane,
        "POST",
        "/apply?dryRun=true",
        &json!(manifest),
    )
    .ok();
    assert_eq!(
        (dry["changes"].as_array().unwrap().len(), &dry["dryRun"]),
        (7, &json!(true))
    );
    assert_eq!(control_plane.get("/meshes").ok()["meshes"], json!([]));

    let mut broken = manifest.clone();
    broken[3]["spec"] = shop::route("nobody", 1);
    let message =
        ask(&control_plane, "POST", "/apply", &json!(broken)).refused(400, "BadRequestException");
    assert!(
        message.contains("[3].spec.httpRoute.action.weightedTargets[0].virtualNode"),
        "{message}"
    );
    assert_eq!(control_plane.get("/meshes").ok()["meshes"], json!([]));

    let done = ask(&control_plane, "POST", "/apply", &json!(manifest)).ok();
    assert!(
        done["changes"]
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["action"] == "created"),
        "{done}"
    );
    let again = ask(&control_plane, "POST", "/apply", &json!(manifest)).ok();
    assert!(
        again["changes"]
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["action"] == "unchanged"),
        "{again}"
    );
    let revisions: Vec<Value> = get(&control_plane, "/history")["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["revision"].clone())
        .collect();
    assert_eq!(revisions, vec![json!(1); 7]);
}

#[test]
fn an_apply_can_change_together_what_cannot_change_alone() {
    let control_plane = ControlPlane::start();
    shop::open(&control_plane);
    let tcp = json!([{"portMapping": {"port": 8080, "protocol": "tcp"}}]);
    let mut node = shop::node("web.local");
    node["listeners"] = tcp.clone();
    let route =
        json!({"tcpRoute": {"action": {"weightedTargets": [{"virtualNode": "web", "weight": 1}]}}});
    let manifest = json!([
        {"meshName": "shop", "virtualNodeName": "web", "spec": node},
        {"meshName": "shop", "virtualRouterName": "split", "spec": {"listeners": tcp}},
        {"meshName": "shop", "virtualRouterName": "split", "routeName": "all", "spec": route},
    ]);
    let alone = json!([manifest[0]]);
    let message = ask(&control_plane, "POST", "/apply", &alone).refused(400, "BadRequestException");
    assert!(
        message.contains("mesh/shop/virtualRouter/split/route/all"),
        "{message}"
    );
    ask(&control_plane, "POST", "/apply", &manifest).ok();
    assert_eq!(
        control_plane.get("/meshes/shop/virtualNodes/web").ok()["metadata"]["version"],
        2
    );
}

#[test]
fn a_watch_tells_every_change_from_where_it_was_left() {
    let control_plane = ControlPlane::start();
    control_plane.put("/meshes", &json!({"meshName": "a"})).ok();
    control_plane.put("/meshes", &json!({"meshName": "b"})).ok();
    let mut stream = TcpStream::connect(control_plane.api).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
        .write_all(b"GET /pillion/v1/watch?since=1 HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut next = || loop {
        let line = lines.next().expect("it goes on").expect("in time");
        if line.starts_with('{') {
            return serde_json::from_str::<Value>(&line).expect("JSON");
        }
    };
    let arn = |name: &str| format!("arn:aws:appmesh:us-east-1:000000000000:mesh/{name}");
    assert_eq!(next()["arn"], arn("b"));
    control_plane.delete("/meshes/a").ok();
    let deleted = next();
    assert_eq!(
        (&deleted["arn"], &deleted["deleted"]),
        (&json!(arn("a")), &json!(true))
    );
}

#[test]
fn explain_tells_every_rule_that_was_tried_and_where_the_taken_one_leads() {
    let control_plane = ControlPlane::start();
    shop::open(&control_plane);
    let mut narrow = shop::route("web", 3);
    narrow["httpRoute"]["match"] =
        json!({"prefix": "/beta", "headers": [{"name": "x-beta", "match": {"exact": "yes"}}]});
    let body = json!({"routeName": "beta", "spec": narrow});
    control_plane
        .put("/meshes/shop/virtualRouter/split/routes", &body)
        .ok();
    let caller =
        json!({"backends": [{"virtualService": {"virtualServiceName": "web.shop.local"}}]});
    control_plane
        .put(
            "/meshes/shop/virtualNodes",
            &json!({"virtualNodeName": "caller", "spec": caller}),
        )
        .ok();
    let explain = |url: &str, headers: Value| {
        let body = json!({"source": "mesh/shop/virtualNode/caller", "method": "GET", "url": url, "headers": headers});
        ask(&control_plane, "POST", "/explain", &body).ok()["explanation"].clone()
    };
    let plain = explain("http://web.shop.local:8080/beta/x", json!({}));
    assert_eq!(plain["outcome"], "routed", "{plain}");
    assert_eq!(plain["tried"][0]["matched"], false, "{plain}");
    assert!(
        plain["tried"][0]["why"]
            .as_str()
            .unwrap()
            .contains("x-beta is absent"),
        "{plain}"
    );
    let target = &plain["chosen"]["clusters"][0];
    assert_eq!(target["share"], 1.0, "{plain}");
    assert_eq!(
        target["endpoints"]["hosts"][0]["host"], "web.local",
        "{plain}"
    );
    let beta = explain(
        "http://web.shop.local:8080/beta/x",
        json!({"X-Beta": "yes"}),
    );
    assert_eq!(beta["tried"][0]["matched"], true, "{beta}");
    assert_eq!(beta["notReached"].as_array().unwrap().len(), 1, "{beta}");
    let stranger = explain("http://nobody.local:8080/", json!({}));
    assert_eq!(stranger["chosen"]["route"], "mesh-allow-all", "{stranger}");
    let drop_all = json!({"spec": {"egressFilter": {"type": "DROP_ALL"}}});
    control_plane.put("/meshes/shop", &drop_all).ok();
    let stranger = explain("http://nobody.local:8080/", json!({}));
    let outcome = stranger["outcome"].as_str().unwrap();
    assert!(outcome.contains("no virtual host"), "{stranger}");
    let wrong = json!({"source": "mesh/shop/virtualRouter/split", "url": "http://x/"});
    ask(&control_plane, "POST", "/explain", &wrong).refused(400, "BadRequestException");
}

#[test]
fn everything_the_document_describes_is_there_and_nothing_else() {
    let control_plane = ControlPlane::start();
    let document = get(&control_plane, "/openapi.json");
    let golden: Value =
        serde_json::from_str(include_str!("../../src/api/pillion/openapi.json")).unwrap();
    assert_eq!(document, golden);
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 10);
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys() {
            if path.ends_with("/watch") {
                continue;
            }
            let path = path.replace("{id}", "none").replace("{mesh}", "none");
            let answer =
                request(control_plane.api, &method.to_uppercase(), &path, &[], b"").unwrap();
            assert_ne!(
                answer.header("x-amzn-errortype"),
                Some("UnknownOperationException"),
                "{method} {path}"
            );
            assert_ne!(answer.status, 405, "{method} {path}");
        }
    }
    ask(&control_plane, "GET", "/nothing", &Value::Null).refused(404, "UnknownOperationException");
}
