// SPDX-License-Identifier: Apache-2.0
//! The process itself: settings, readiness, admin pages, exit codes.

use std::net::TcpListener;

use serde_json::json;
use tempfile::TempDir;

use crate::control_plane::BINARY;
use crate::control_plane::ControlPlane;
use crate::control_plane::command;
use crate::control_plane::run;

#[test]
fn sigterm_drains_and_exits_0() {
    let control_plane = ControlPlane::start();
    control_plane.put("/meshes", &json!({"meshName": "m"})).ok();
    assert_eq!(control_plane.terminate().code(), Some(0));
}

#[test]
fn beyond_loopback_needs_insistence() {
    let folder = TempDir::new().unwrap();
    for flag in ["--api-addr", "--xds-addr", "--admin-addr"] {
        let output = command(BINARY)
            .args([flag, "0.0.0.0:0"])
            .current_dir(folder.path())
            .output();
        let output = output.unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(
            error.contains(flag) && error.contains("--insecure"),
            "{error}"
        );
    }
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 0, "no store is made by a refused start");
}

#[test]
fn wrong_settings_exit_2_and_name_the_way_out() {
    let folder = TempDir::new().unwrap();
    for (args, part) in [
        (["--account", "12"], "12 digits"),
        (["--store", "mysql://db"], "sqlite:<path>"),
        (["--region", "Mars"], "eu-west-1"),
        (["--credentials", "keys.toml"], "--credentials"),
    ] {
        let output = command(BINARY)
            .args(args)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(part), "{part} in {error}");
    }
}

#[test]
fn a_taken_port_is_named_with_its_setting() {
    let folder = TempDir::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let output = command(BINARY)
        .args([
            "--xds-addr",
            "127.0.0.1:0",
            "--admin-addr",
            "127.0.0.1:0",
            "--api-addr",
            &addr,
        ])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("--api-addr") && error.contains(&addr),
        "{error}"
    );
}

#[test]
fn settings_come_from_the_environment_too_and_help_says_so() {
    let folder = TempDir::new().unwrap();
    let mut from_environment = command(BINARY);
    from_environment
        .env("PILLION_API_ADDR", "127.0.0.1:0")
        .env("PILLION_XDS_ADDR", "127.0.0.1:0")
        .env("PILLION_ADMIN_ADDR", "127.0.0.1:0")
        .env(
            "PILLION_STORE",
            format!("sqlite:{}", folder.path().join("a.db").display()),
        )
        .env("PILLION_ACCOUNT", "123456789012")
        .env("PILLION_REGION", "eu-west-1");
    let control_plane = ControlPlane::spawn(from_environment, folder.path());
    let mesh = control_plane.put("/meshes", &json!({"meshName": "m"})).ok();
    assert_eq!(
        mesh["metadata"]["arn"],
        "arn:aws:appmesh:eu-west-1:123456789012:mesh/m"
    );

    let help = run(&["--help"], folder.path());
    assert_eq!(help.status.code(), Some(0));
    let help = String::from_utf8_lossy(&help.stdout);
    for part in [
        "PILLION_STORE",
        "sqlite:pillion.db",
        "127.0.0.1:8701",
        "Examples:",
        "--insecure",
    ] {
        assert!(help.contains(part), "{part}");
    }
}

#[test]
fn admin_tells_readiness_settings_and_what_was_asked_how_often() {
    let control_plane = ControlPlane::start();
    control_plane.put("/meshes", &json!({"meshName": "m"})).ok();
    control_plane
        .put("/meshes", &json!({"meshName": "m"}))
        .refused(409, "ConflictException");
    control_plane
        .get("/nowhere")
        .refused(404, "UnknownOperationException");
    assert_eq!(control_plane.admin("/ready").status, 200);
    assert_eq!(
        control_plane.admin("/config").ok()["account"],
        "000000000000"
    );
    assert_eq!(control_plane.admin("/fleet").status, 200);
    let metrics = control_plane.admin("/metrics").text();
    for line in [
        r#"pillion_api_requests_total{operation="CreateMesh",status="200"} 1"#,
        r#"pillion_api_requests_total{operation="CreateMesh",status="409"} 1"#,
        r#"pillion_api_requests_total{operation="Unknown",status="404"} 1"#,
        r#"pillion_api_request_seconds_count{operation="CreateMesh"} 2"#,
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}
