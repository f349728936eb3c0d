// SPDX-License-Identifier: Apache-2.0
//! What was acknowledged is there: after a kill, on a full disk, and under a file-size limit.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::control_plane::BINARY;
use crate::control_plane::ControlPlane;
use crate::control_plane::command;
use crate::control_plane::flags;
use crate::control_plane::run;
use crate::control_plane::signal;
use crate::shop;

fn names(control_plane: &ControlPlane) -> BTreeSet<String> {
    let list = control_plane.get("/meshes/shop/virtualNodes").ok();
    let items = list["virtualNodes"].as_array().expect("a list");
    items
        .iter()
        .map(|item| item["virtualNodeName"].as_str().expect("a name").to_owned())
        .collect()
}

/// A node whose spec has some `kilobytes`.
fn heavy(name: &str, kilobytes: usize) -> Value {
    let backends: Vec<Value> = (0..kilobytes * 16)
        .map(|number| json!({"virtualService": {"virtualServiceName": format!("s{number:06}.local")}}))
        .collect();
    json!({"virtualNodeName": name, "spec": {"backends": backends}})
}

#[test]
fn everything_survives_kill_9_exactly_as_it_was_acknowledged() {
    let folder = TempDir::new().unwrap();
    let control_plane = ControlPlane::start_in(folder.path());
    shop::open(&control_plane);
    let tags = json!({"tags": [{"key": "k", "value": "v"}]});
    let arn = "arn:aws:appmesh:us-east-1:000000000000:mesh/shop";
    control_plane
        .put(&format!("/tag?resourceArn={arn}"), &tags)
        .ok();
    let before: Vec<Value> = shop::samples()
        .iter()
        .map(|sample| control_plane.get(&sample.item()).ok())
        .collect();
    control_plane.kill();

    let control_plane = ControlPlane::start_in(folder.path());
    for (sample, before) in shop::samples().iter().zip(before) {
        assert_eq!(control_plane.get(&sample.item()).ok(), before);
    }
    assert_eq!(
        control_plane.get(&format!("/tags?resourceArn={arn}")).ok(),
        tags
    );
}

#[test]
fn a_kill_in_the_middle_of_writes_loses_no_acknowledged_one() {
    let folder = TempDir::new().unwrap();
    let control_plane = ControlPlane::start_in(folder.path());
    control_plane
        .put("/meshes", &json!({"meshName": "shop"}))
        .ok();
    let acknowledged = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0.. {
                let body = heavy(&format!("n{number:04}"), 4).to_string();
                let path = "/v20190125/meshes/shop/virtualNodes";
                let answer =
                    crate::http::request(control_plane.api, "PUT", path, &[], body.as_bytes());
                match answer {
                    Ok(answer) if answer.status == 200 => {
                        acknowledged.store(number + 1, Ordering::SeqCst);
                    }
                    _ => return,
                }
            }
        });
        while acknowledged.load(Ordering::SeqCst) < 20 {
            std::thread::yield_now();
        }
        signal(&control_plane.pid(), "-KILL");
    });
    drop(control_plane);
    let kept = names(&ControlPlane::start_in(folder.path()));
    for number in 0..acknowledged.load(Ordering::SeqCst) {
        assert!(
            kept.contains(&format!("n{number:04}")),
            "n{number:04} was acknowledged"
        );
    }
}

/// Starts the binary under a limit on the size of any file it writes, as a full disk would limit it.
fn start_limited(folder: &Path, kilobytes: usize) -> ControlPlane {
    let mut limited = command("sh");
    limited
        .args([
            "-c",
            &format!("ulimit -f {}; exec \"$0\" \"$@\"", kilobytes * 2),
            BINARY,
        ])
        .args(flags(folder));
    ControlPlane::spawn(limited, folder)
}

#[test]
fn a_store_that_is_full_refuses_writes_serves_reads_and_recovers() {
    let folder = TempDir::new().unwrap();
    let control_plane = start_limited(folder.path(), 400);
    control_plane
        .put("/meshes", &json!({"meshName": "shop"}))
        .ok();
    let mut acknowledged = BTreeSet::new();
    let refused = loop {
        let name = format!("n{:03}", acknowledged.len());
        let answer = control_plane.put("/meshes/shop/virtualNodes", &heavy(&name, 20));
        if answer.status != 200 {
            break answer;
        }
        acknowledged.insert(name);
        assert!(acknowledged.len() < 100, "the limit must be met");
    };
    assert!(!acknowledged.is_empty());
    let message = refused.refused(503, "ServiceUnavailableException");
    assert!(
        message.contains("pillion.db") && message.contains("limit"),
        "{message}"
    );
    assert!(message.contains("nothing was changed"), "{message}");
    assert_eq!(refused.header("retry-after"), Some("5"));

    let again = control_plane.put("/meshes/shop/virtualNodes", &heavy("again", 20));
    again.refused(503, "ServiceUnavailableException");
    assert_eq!(
        names(&control_plane),
        acknowledged,
        "reads go on, nothing half written"
    );
    assert_eq!(control_plane.admin("/ready").status, 200);
    assert!(
        control_plane.terminate().success(),
        "the process outlives the failure"
    );

    let control_plane = ControlPlane::start_in(folder.path());
    assert_eq!(names(&control_plane), acknowledged);
    control_plane
        .put("/meshes/shop/virtualNodes", &heavy("after", 20))
        .ok();
}

fn refused_start(output: &Output, part: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(output.stdout.is_empty(), "no readiness line");
    assert!(error.contains(part), "{part} in {error}");
}

#[test]
fn a_second_process_on_the_same_store_is_refused() {
    let folder = TempDir::new().unwrap();
    let _first = ControlPlane::start_in(folder.path());
    refused_start(&run(&[], folder.path()), "another process has it open");
}

#[test]
fn a_file_of_something_else_is_left_alone() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("pillion.db");
    std::fs::write(
        &file,
        "Dear diary, this is no database at all. ".repeat(200),
    )
    .unwrap();
    let before = std::fs::read(&file).unwrap();
    refused_start(&run(&[], folder.path()), "not Pillion's");
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("missing");
    let output = run(&[], &missing);
    refused_start(&output, "missing/pillion.db");
    refused_start(&output, "folder exists");
}

#[test]
fn a_store_of_another_account_is_not_served_under_a_wrong_name() {
    let folder = TempDir::new().unwrap();
    let control_plane = ControlPlane::start_in(folder.path());
    control_plane.put("/meshes", &json!({"meshName": "m"})).ok();
    assert!(control_plane.terminate().success());
    let output = run(&["--account", "123456789012"], folder.path());
    refused_start(&output, "--account 000000000000");
}

#[test]
fn the_store_is_readable_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new().unwrap();
    let control_plane = ControlPlane::start_in(folder.path());
    control_plane.put("/meshes", &json!({"meshName": "m"})).ok();
    for name in ["pillion.db", "pillion.db-wal"] {
        let mode = std::fs::metadata(folder.path().join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}: it holds the authority's key");
    }
}
