// SPDX-License-Identifier: Apache-2.0
//! What a wrong request is told: every fault, where it is, and never a crash.

use std::net::TcpStream;

use serde_json::Value;
use serde_json::json;

use crate::control_plane::ControlPlane;
use crate::http::garbage;
use crate::http::request;
use crate::shop;

const NODES: &str = "/meshes/shop/virtualNodes";

#[test]
fn every_problem_of_a_document_comes_in_one_answer_with_its_path() {
    let control_plane = ControlPlane::start();
    shop::open(&control_plane);
    let body = json!({
        "virtualNodeNam": "n",
        "clientToken": "not a token",
        "spec": {
            "listeners": [{"portMapping": {"port": 70000, "protocol": "htp"}, "timeouts": {}}],
            "serviceDiscovery": {"dns": {"hostname": 7}}
        }
    });
    let message = control_plane
        .put(NODES, &body)
        .refused(400, "BadRequestException");
    for path in [
        "virtualNodeNam: ",
        "virtualNodeName: ",
        "clientToken: ",
        "spec.listeners[0].portMapping.port: ",
        "spec.listeners[0].portMapping.protocol: ",
        "spec.listeners[0].timeouts: ",
        "spec.serviceDiscovery.dns.hostname: ",
    ] {
        assert!(message.contains(path), "{path} in {message}");
    }
}

#[test]
fn a_reference_to_nothing_is_refused_where_it_stands() {
    let control_plane = ControlPlane::start();
    shop::open(&control_plane);
    let refused = |path: &str, body: &Value| {
        control_plane
            .put(path, body)
            .refused(400, "BadRequestException")
    };
    let body = json!({"routeName": "r", "spec": shop::route("nobody", 1)});
    let message = refused("/meshes/shop/virtualRouter/split/routes", &body);
    assert!(
        message.contains("spec.httpRoute.action.weightedTargets[0].virtualNode: "),
        "{message}"
    );
    let body = json!({"spec": shop::route("nobody", 1)});
    refused("/meshes/shop/virtualRouter/split/routes/all", &body);
    let provider = json!({"provider": {"virtualNode": {"virtualNodeName": "nobody"}}});
    let body = json!({"virtualServiceName": "s", "spec": provider});
    let message = refused("/meshes/shop/virtualServices", &body);
    assert!(
        message.contains("spec.provider.virtualNode.virtualNodeName: "),
        "{message}"
    );
    let target = json!({"target": {"virtualService": {"virtualServiceName": "nobody"}}});
    let spec = json!({"httpRoute": {"match": {"prefix": "/"}, "action": target}});
    let body = json!({"gatewayRouteName": "g", "spec": spec});
    let message = refused("/meshes/shop/virtualGateway/edge/gatewayRoutes", &body);
    assert!(message.contains("nobody"), "{message}");
}

#[test]
fn an_update_that_would_break_a_route_is_refused_and_names_the_route() {
    let control_plane = ControlPlane::start();
    shop::open(&control_plane);
    let refused = |path: &str, spec: Value, route: &str| {
        let answer = control_plane.put(path, &json!({"spec": spec}));
        let message = answer.refused(400, "BadRequestException");
        assert!(message.contains(route), "{message}");
    };
    let route = "mesh/shop/virtualRouter/split/route/all";
    let tcp = json!({"listeners": [{"portMapping": {"port": 8080, "protocol": "tcp"}}]});
    refused("/meshes/shop/virtualRouters/split", tcp.clone(), route);
    let mut node = shop::node("web.local");
    node["listeners"] = tcp["listeners"].clone();
    refused("/meshes/shop/virtualNodes/web", node, route);
    let mut two = shop::node("web.local");
    let second = json!({"portMapping": {"port": 9090, "protocol": "http"}});
    two["listeners"] = json!([two["listeners"][0], second]);
    refused("/meshes/shop/virtualNodes/web", two, route);
    let mut moved = shop::node("web.local");
    moved["listeners"][0]["portMapping"]["port"] = json!(9090);
    control_plane
        .put("/meshes/shop/virtualNodes/web", &json!({"spec": moved}))
        .ok();
}

#[test]
fn a_flood_of_problems_gets_a_short_answer_that_counts_them() {
    let control_plane = ControlPlane::start();
    shop::open(&control_plane);
    let listeners: Vec<Value> = (0..20_000)
        .map(|_| json!({"portMappin": "x".repeat(20)}))
        .collect();
    let body = json!({"virtualNodeName": "n", "spec": {"listeners": listeners}});
    let message = control_plane
        .put(NODES, &body)
        .refused(400, "BadRequestException");
    assert!(
        message.len() < 20_000 && message.contains(" more"),
        "{} bytes",
        message.len()
    );
    let body = json!({"virtualNodeName": "n", "x".repeat(1_000_000): 1, "spec": {}});
    let message = control_plane
        .put(NODES, &body)
        .refused(400, "BadRequestException");
    assert!(message.len() < 20_000, "{} bytes", message.len());
}

#[test]
fn a_member_that_stands_twice_is_refused() {
    let control_plane = ControlPlane::start();
    let body = br#"{"meshName": "m", "spec": {"egressFilter": {"type": "DROP_ALL", "type": "ALLOW_ALL"}}}"#;
    let answer = control_plane.send("PUT", "/meshes", body);
    let message = answer.refused(400, "BadRequestException");
    assert!(message.contains("`type` stands twice"), "{message}");
}

#[test]
fn names_and_tags_that_would_mean_something_else_are_refused() {
    let control_plane = ControlPlane::start();
    let refused = |body: Value| {
        control_plane
            .put("/meshes", &body)
            .refused(400, "BadRequestException")
    };
    for name in ["..", ".", "a/b", "shop@000000000000"] {
        assert!(
            refused(json!({"meshName": name})).starts_with("meshName: "),
            "{name}"
        );
    }
    let tags = json!([{"key": "AWS:owner", "value": "me"}]);
    assert!(refused(json!({"meshName": "m", "tags": tags})).starts_with("tags[0].key: "));
}

#[test]
fn a_mesh_router_or_gateway_that_is_missing_is_a_404() {
    let control_plane = ControlPlane::start();
    shop::open(&control_plane);
    let route = json!({"routeName": "r", "spec": shop::route("web", 1)});
    for path in [
        "/meshes/none/virtualRouter/split/routes",
        "/meshes/shop/virtualRouter/none/routes",
    ] {
        let message = control_plane
            .put(path, &route)
            .refused(404, "NotFoundException");
        assert!(message.contains("none"), "{message}");
    }
    for path in [
        "/meshes/shop/virtualRouter/none/routes/all",
        "/meshes/shop/virtualNodes/none",
    ] {
        let message = control_plane.get(path).refused(404, "NotFoundException");
        assert!(message.contains("none"), "{message}");
    }
}

#[test]
fn a_backend_may_name_what_comes_later() {
    let control_plane = ControlPlane::start();
    control_plane
        .put("/meshes", &json!({"meshName": "shop"}))
        .ok();
    let backends = json!([{"virtualService": {"virtualServiceName": "later.local"}}]);
    let body = json!({"virtualNodeName": "n", "spec": {"backends": backends}});
    control_plane.put(NODES, &body).ok();
}

#[test]
fn json_that_is_none_is_told_by_line_and_column() {
    let control_plane = ControlPlane::start();
    let refused = |body: &[u8]| {
        control_plane
            .send("PUT", "/meshes", body)
            .refused(400, "BadRequestException")
    };
    let message = refused(b"{\n \"meshName\": \"m\",\n}");
    assert!(message.contains("line 3 column 1"), "{message}");
    assert!(refused(b"").contains("empty"));
    assert!(refused(b"[1]").contains("object"));
    assert!(refused(b"\"m\"").contains("object"));
    refused(&[0xff, 0xfe, 0x00]);
    refused("[".repeat(100_000).as_bytes());
    refused(format!("{{\"meshName\":{}", "{\"a\":".repeat(50_000)).as_bytes());
}

#[test]
fn any_content_type_will_do() {
    let control_plane = ControlPlane::start();
    for (number, kind) in ["text/plain", "application/x-amz-json-1.1", "nonsense", ""]
        .iter()
        .enumerate()
    {
        let body = format!("{{\"meshName\":\"m{number}\"}}");
        let answer = request(
            control_plane.api,
            "PUT",
            "/v20190125/meshes",
            &[("content-type", kind)],
            body.as_bytes(),
        );
        answer.unwrap().ok();
    }
}

#[test]
fn a_large_document_is_taken_and_a_huge_one_is_told_the_limit() {
    let control_plane = ControlPlane::start();
    control_plane
        .put("/meshes", &json!({"meshName": "shop"}))
        .ok();
    let backends: Vec<Value> = (0..16_000)
        .map(|number| json!({"virtualService": {"virtualServiceName": format!("service-{number:08}.apps.local")}}))
        .collect();
    let body = json!({"virtualNodeName": "n", "spec": {"backends": backends}});
    assert!(body.to_string().len() > 1_000_000);
    control_plane.put(NODES, &body).ok();
    assert_eq!(
        control_plane.get("/meshes/shop/virtualNodes/n").ok()["spec"],
        body["spec"]
    );

    let mut wrong = body.clone();
    wrong["spec"]["backends"] = (0..30_000).map(|_| json!({"x": 1})).collect();
    let message = control_plane
        .put(NODES, &wrong)
        .refused(400, "BadRequestException");
    assert!(
        message.ends_with(" more") && message.len() < 70_000,
        "cut, and says so"
    );

    let huge = vec![b' '; 3 << 20];
    let message = control_plane
        .send("PUT", NODES, &huge)
        .refused(413, "BadRequestException");
    assert!(message.contains("2097152 bytes"), "{message}");
    let huge = vec![b'x'; 3 << 20];
    control_plane
        .send("PUT", "/nowhere", &huge)
        .refused(404, "UnknownOperationException");
}

#[test]
fn paths_and_methods_that_do_not_exist_answer_in_shape() {
    let control_plane = ControlPlane::start();
    for path in [
        "/mesh",
        "/meshes/m/virtualRouters/r/routes",
        "/meshes//virtualNodes",
        "/tags/x",
    ] {
        control_plane
            .get(path)
            .refused(404, "UnknownOperationException");
    }
    for (method, path, allow) in [
        ("DELETE", "/meshes", "GET, PUT"),
        ("POST", "/meshes/m", "GET, PUT, DELETE"),
        ("PUT", "/tags", "GET"),
        ("GET", "/tag", "PUT"),
    ] {
        let answer = control_plane.send(method, path, b"");
        answer.refused(405, "UnknownOperationException");
        assert_eq!(answer.header("allow"), Some(allow));
    }
    control_plane
        .get("/meshes/%zz")
        .refused(400, "BadRequestException");
    control_plane
        .get("/meshes?limit=%zz")
        .refused(400, "BadRequestException");
}

#[test]
fn every_answer_carries_a_request_id_of_its_own() {
    let control_plane = ControlPlane::start();
    let mut ids: Vec<String> = [
        "/v20190125/meshes",
        "/v20190125/meshes/none",
        "/nowhere",
        "/",
    ]
    .iter()
    .map(|path| {
        let answer = request(control_plane.api, "GET", path, &[], b"").unwrap();
        answer.header("x-amzn-requestid").expect(path).to_owned()
    })
    .collect();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    let about = request(control_plane.api, "GET", "/", &[], b"").unwrap();
    assert!(about.text().contains("App Mesh"));
}

#[test]
fn a_mesh_owner_is_an_account_and_only_ours_has_meshes_here() {
    let control_plane = ControlPlane::start();
    shop::open(&control_plane);
    control_plane
        .get("/meshes/shop?meshOwner=000000000000")
        .ok();
    control_plane
        .get("/meshes/shop?meshOwner=123456789012")
        .refused(404, "NotFoundException");
    let message = control_plane
        .get("/meshes/shop/virtualNodes?meshOwner=12")
        .refused(400, "BadRequestException");
    assert!(message.starts_with("meshOwner: "), "{message}");
    control_plane.get("/meshes?meshOwner=12").ok();
}

#[test]
fn bytes_that_are_no_http_and_callers_that_hang_up_do_no_harm() {
    let control_plane = ControlPlane::start();
    let noise: Vec<u8> = (0..100_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for bytes in [
        noise.as_slice(),
        b"GET / HTTP/9.9\r\n\r\n",
        b"PUT /v20190125/meshes HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n{",
        b"PUT /v20190125/meshes HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ngarbage",
        b"\0",
    ] {
        garbage(control_plane.api, bytes);
        drop(TcpStream::connect(control_plane.api).unwrap());
    }
    assert_eq!(control_plane.get("/meshes").ok(), json!({"meshes": []}));
}
