// SPDX-License-Identifier: Apache-2.0
//! Who may do what: signed requests of boto3, the AWS command line and our own signer against a file of keys.
#![expect(
    clippy::unwrap_used,
    reason = "here an unwrap that fails is a test that fails"
)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use pillion_sigv4::Identity;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::control_plane::ControlPlane;
use crate::http::Answer;
use crate::http::request;
use crate::shop;

const HOME: &str = "000000000000";
const OTHER: &str = "111122223333";

/// Keys of several kinds; the secret of each is `secret-of-<id>`.
pub(crate) fn write_keys(path: &Path, ids: &[&str]) {
    let mut text = String::new();
    for id in ids {
        text.push_str(&format!(
            "[[keys]]\naccess_key_id = \"{id}\"\nsecret_access_key = \"secret-of-{id}\"\n"
        ));
        text.push_str(match *id {
            "READER" => "permissions = [\"read\"]\n",
            "PROD" => "resources = [\"arn:aws:appmesh:*:*:mesh/prod*\"]\n",
            "OTHER" => "account = \"111122223333\"\n",
            _ => "",
        });
    }
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

pub(crate) struct Closed {
    pub(crate) control_plane: ControlPlane,
    pub(crate) keys: PathBuf,
    _folder: TempDir,
}

pub(crate) fn closed(more: &[&str]) -> Closed {
    let folder = TempDir::new().unwrap();
    let keys = folder.path().join("keys.toml");
    write_keys(&keys, &["ADMIN", "READER", "PROD", "OTHER"]);
    let mut args = vec!["--credentials", keys.to_str().unwrap()];
    args.extend(more);
    Closed {
        control_plane: ControlPlane::start_with(&args),
        keys,
        _folder: folder,
    }
}

impl Closed {
    /// A request signed with this key; `path` is whole.
    pub(crate) fn send(&self, id: &str, method: &str, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let api = self.control_plane.api;
        let uri = format!("http://{api}{path}");
        let head = http::Request::builder()
            .method(method)
            .uri(uri)
            .body(())
            .unwrap();
        let (mut head, ()) = head.into_parts();
        identity(id).sign(&mut head, body.as_bytes(), SystemTime::now());
        let headers: Vec<(&str, &str)> = head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        request(api, method, path, &headers, body.as_bytes()).unwrap()
    }

    fn put(&self, id: &str, path: &str, body: &Value) -> Answer {
        self.send(id, "PUT", &format!("/v20190125{path}"), body)
    }

    fn get(&self, id: &str, path: &str) -> Answer {
        self.send(id, "GET", &format!("/v20190125{path}"), &Value::Null)
    }
}

pub(crate) fn identity(id: &str) -> Identity {
    Identity {
        access_key_id: id.to_owned(),
        secret_access_key: format!("secret-of-{id}"),
        session_token: None,
        region: "us-east-1".to_owned(),
        service: "appmesh",
    }
}

#[test]
fn boto3_and_aws_sign_and_are_let_in_or_told_why_not_as_by_aws() {
    let closed = closed(&[]);
    let venv = crate::clients::venv();
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients/signed.py");
    let output = Command::new(venv.join("bin/python"))
        .arg(script)
        .arg(format!("http://{}", closed.control_plane.api))
        .arg(venv.join("bin/aws"))
        .output()
        .expect("python starts");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.trim_end().ends_with("all as by AWS"), "{out}");
}

#[test]
fn a_key_does_what_its_permissions_and_patterns_allow() {
    let closed = closed(&[]);
    let mesh = |name: &str| json!({"meshName": name});
    closed.put("ADMIN", "/meshes", &mesh("prod")).ok();
    closed.put("ADMIN", "/meshes", &mesh("test")).ok();
    let message = closed
        .put("READER", "/meshes", &mesh("x"))
        .refused(403, "ForbiddenException");
    assert_eq!(
        message,
        "User: READER is not authorized to perform: appmesh:CreateMesh on resource: arn:aws:appmesh:us-east-1:000000000000:mesh/x"
    );
    closed.get("READER", "/meshes/test").ok();
    closed.get("PROD", "/meshes/prod").ok();
    closed
        .put(
            "PROD",
            "/meshes/prod/virtualRouters",
            &json!({"virtualRouterName": "r", "spec": {}}),
        )
        .ok();
    closed
        .get("PROD", "/meshes/test")
        .refused(403, "ForbiddenException");
    let seen = closed.get("PROD", "/meshes").ok();
    assert_eq!(seen["meshes"].as_array().unwrap().len(), 1, "{seen}");
    let arn = "arn%3Aaws%3Aappmesh%3Aus-east-1%3A000000000000%3Amesh%2Ftest";
    closed
        .get("PROD", &format!("/tags?resourceArn={arn}"))
        .refused(403, "ForbiddenException");
    let tags = json!({"tags": [{"key": "a", "value": "b"}]});
    closed
        .put("READER", &format!("/tag?resourceArn={arn}"), &tags)
        .refused(403, "ForbiddenException");
}

#[test]
fn a_key_that_is_removed_from_the_file_opens_nothing_a_moment_later() {
    let closed = closed(&[]);
    closed.get("READER", "/meshes").ok();
    write_keys(&closed.keys, &["ADMIN"]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while closed.get("READER", "/meshes").status == 200 {
        assert!(Instant::now() < deadline, "the file is not read again");
        std::thread::sleep(Duration::from_millis(50));
    }
    closed
        .get("READER", "/meshes")
        .refused(403, "UnrecognizedClientException");
    closed.get("ADMIN", "/meshes").ok();
}

#[test]
fn a_shared_mesh_is_seen_by_all_and_changed_by_each_in_their_own_parts() {
    let closed = closed(&[]);
    for sample in shop::samples() {
        closed.put("ADMIN", sample.collection, &sample.body()).ok();
    }
    let at_home = format!("meshOwner={HOME}");
    closed
        .get("OTHER", &format!("/meshes/shop?{at_home}"))
        .refused(404, "NotFoundException");
    closed
        .get("OTHER", "/meshes/shop")
        .refused(404, "NotFoundException");
    let accounts = json!({"accounts": [OTHER]});
    closed
        .send("ADMIN", "PUT", "/pillion/v1/meshes/shop/shares", &accounts)
        .ok();

    let seen = closed.get("OTHER", &format!("/meshes/shop?{at_home}")).ok();
    assert_eq!(seen["metadata"]["meshOwner"], HOME);
    assert_eq!(
        closed.get("OTHER", "/meshes").ok()["meshes"][0]["meshName"],
        "shop"
    );
    let node = json!({"virtualNodeName": "theirs", "spec": shop::node("theirs.local")});
    let made = closed
        .put(
            "OTHER",
            &format!("/meshes/shop/virtualNodes?{at_home}"),
            &node,
        )
        .ok();
    assert_eq!(made["metadata"]["resourceOwner"], OTHER);
    assert_eq!(
        made["metadata"]["arn"],
        format!("arn:aws:appmesh:us-east-1:{OTHER}:mesh/shop/virtualNode/theirs")
    );
    let spec = json!({"spec": shop::node("new.local")});
    closed
        .put(
            "OTHER",
            &format!("/meshes/shop/virtualNodes/web?{at_home}"),
            &spec,
        )
        .refused(403, "ForbiddenException");
    closed
        .put("ADMIN", "/meshes/shop/virtualNodes/theirs", &spec)
        .refused(403, "ForbiddenException");
    let gateway = json!({"virtualGatewayName": "g", "spec": {"listeners": []}});
    closed
        .put(
            "OTHER",
            &format!("/meshes/shop/virtualGateways?{at_home}"),
            &gateway,
        )
        .refused(403, "ForbiddenException");
    closed
        .send(
            "ADMIN",
            "DELETE",
            "/v20190125/meshes/shop/virtualNodes/theirs",
            &Value::Null,
        )
        .ok();

    // Names are each account's own.
    closed
        .put("OTHER", "/meshes", &json!({"meshName": "shop"}))
        .ok();
    assert_eq!(
        closed.get("OTHER", "/meshes/shop").ok()["metadata"]["meshOwner"],
        OTHER
    );
    closed
        .get("OTHER", "/meshes/shop/virtualNodes/web")
        .refused(404, "NotFoundException");
    closed
        .get("ADMIN", &format!("/meshes/shop@{OTHER}"))
        .refused(404, "NotFoundException");
    closed
        .get("ADMIN", &format!("/meshes/shop?meshOwner={OTHER}"))
        .refused(404, "NotFoundException");
}

#[test]
fn who_asks_too_often_is_told_to_wait_and_others_are_not() {
    let closed = closed(&["--rate-limit", "5"]);
    let hurried = (0..20)
        .map(|_| closed.get("ADMIN", "/meshes"))
        .find(|answer| answer.status != 200);
    let hurried = hurried.expect("20 requests within a second");
    hurried.refused(429, "TooManyRequestsException");
    assert_eq!(hurried.header("retry-after"), Some("1"));
    closed.get("READER", "/meshes").ok();
}

#[test]
fn quotas_are_those_of_the_setting() {
    let control_plane =
        ControlPlane::start_with(&["--quota", "meshes=1,virtual-nodes=1,backends=1"]);
    control_plane.put("/meshes", &json!({"meshName": "m"})).ok();
    let message = control_plane
        .put("/meshes", &json!({"meshName": "n"}))
        .refused(400, "LimitExceededException");
    assert!(message.contains("--quota meshes"), "{message}");
    let backend = |name: &str| json!({"virtualService": {"virtualServiceName": name}});
    let two = json!({"virtualNodeName": "a", "spec": {"backends": [backend("x"), backend("y")]}});
    control_plane
        .put("/meshes/m/virtualNodes", &two)
        .refused(400, "LimitExceededException");
    control_plane
        .put(
            "/meshes/m/virtualNodes",
            &json!({"virtualNodeName": "a", "spec": {}}),
        )
        .ok();
    control_plane
        .put(
            "/meshes/m/virtualNodes",
            &json!({"virtualNodeName": "b", "spec": {}}),
        )
        .refused(400, "LimitExceededException");
}

#[test]
fn beyond_loopback_the_apis_open_with_credentials_alone() {
    let folder = TempDir::new().unwrap();
    let keys = folder.path().join("keys.toml");
    write_keys(&keys, &["ADMIN"]);
    let keys = keys.to_str().unwrap();
    let control_plane = ControlPlane::start_with(&["--credentials", keys, "--insecure"]);
    let api = request(control_plane.api, "GET", "/v20190125/meshes", &[], b"").unwrap();
    api.refused(403, "MissingAuthenticationTokenException");
    let watch = request(control_plane.api, "GET", "/pillion/v1/watch", &[], b"").unwrap();
    watch.refused(403, "MissingAuthenticationTokenException");
}
