// SPDX-License-Identifier: Apache-2.0
//! `clientToken`: a request sent twice is done once.

use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::control_plane::ControlPlane;
use crate::shop;

fn mesh(token: &str, filter: &str) -> Value {
    json!({"meshName": "m", "clientToken": token, "spec": {"egressFilter": {"type": filter}}})
}

#[test]
fn a_create_sent_again_gets_the_first_answer() {
    let control_plane = ControlPlane::start();
    let first = control_plane.put("/meshes", &mesh("t-1", "DROP_ALL")).ok();
    let again = control_plane.put("/meshes", &mesh("t-1", "DROP_ALL")).ok();
    assert_eq!(again, first);
    let spaced = br#"{ "spec": {"egressFilter": {"type":"DROP_ALL"}}, "clientToken":"t-1", "meshName":"m" }"#;
    assert_eq!(control_plane.send("PUT", "/meshes", spaced).ok(), first);
    let other = control_plane.put("/meshes", &mesh("t-1", "ALLOW_ALL"));
    let message = other.refused(409, "ConflictException");
    assert!(message.contains("clientToken t-1"), "{message}");
    let taken = control_plane.put("/meshes", &mesh("t-2", "DROP_ALL"));
    assert!(
        taken
            .refused(409, "ConflictException")
            .contains("already exists")
    );
}

#[test]
fn an_update_sent_again_bumps_no_version_even_after_later_ones() {
    let control_plane = ControlPlane::start();
    shop::open(&control_plane);
    let path = "/meshes/shop/virtualRouter/split/routes/all";
    let body =
        |token: &str, weight| json!({"clientToken": token, "spec": shop::route("web", weight)});
    let first = control_plane.put(path, &body("a", 10)).ok();
    assert_eq!(control_plane.put(path, &body("a", 10)).ok(), first);
    assert_eq!(first["metadata"]["version"], 2);
    control_plane.put(path, &body("b", 20)).ok();
    assert_eq!(
        control_plane.put(path, &body("a", 10)).ok(),
        first,
        "a late replay changes nothing"
    );
    let now = control_plane.get(path).ok();
    assert_eq!(now["metadata"]["version"], 3);
    assert_eq!(now["spec"], shop::route("web", 20));
    control_plane
        .put(path, &body("a", 30))
        .refused(409, "ConflictException");
}

#[test]
fn a_token_is_remembered_across_a_kill() {
    let folder = TempDir::new().unwrap();
    let control_plane = ControlPlane::start_in(folder.path());
    let first = control_plane.put("/meshes", &mesh("t", "DROP_ALL")).ok();
    control_plane.kill();
    let control_plane = ControlPlane::start_in(folder.path());
    assert_eq!(
        control_plane.put("/meshes", &mesh("t", "DROP_ALL")).ok(),
        first
    );
}

#[test]
fn a_refused_request_does_not_use_up_its_token() {
    let control_plane = ControlPlane::start();
    let body = json!({"virtualServiceName": "s", "clientToken": "t", "spec": {}});
    control_plane
        .put("/meshes/m/virtualServices", &body)
        .refused(404, "NotFoundException");
    control_plane.put("/meshes", &json!({"meshName": "m"})).ok();
    control_plane.put("/meshes/m/virtualServices", &body).ok();
}

#[test]
fn the_same_request_sent_at_once_many_times_is_done_once() {
    let control_plane = ControlPlane::start();
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let sent: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| control_plane.put("/meshes", &mesh("t", "DROP_ALL")).ok()))
            .collect();
        sent.into_iter().map(|sent| sent.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| *answer == answers[0]));
}

#[test]
fn a_token_has_its_own_rules() {
    let control_plane = ControlPlane::start();
    for token in [json!(""), json!("a b"), json!("x".repeat(37)), json!(7)] {
        let body = json!({"meshName": "m", "clientToken": token});
        let message = control_plane
            .put("/meshes", &body)
            .refused(400, "BadRequestException");
        assert!(message.starts_with("clientToken: "), "{message}");
    }
}
