// SPDX-License-Identifier: Apache-2.0
//! Copies of a store, from one kind into the other, and its formats, forward and back; all through the built binary.

use std::process::Output;

use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::control_plane::BINARY;
use crate::control_plane::ControlPlane;
use crate::control_plane::command;
use crate::envoy::eventually;
use crate::postgres::Postgres;
use crate::replicas::replica;
use crate::shop;

fn tend(args: &[&str]) -> Output {
    command(BINARY)
        .args(args)
        .output()
        .expect("the binary is built")
}

fn done(args: &[&str]) {
    let output = tend(args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
}

fn refused(args: &[&str], part: &str) {
    let output = tend(args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(part), "{part} in {error}");
}

fn everything(control_plane: &ControlPlane) -> Vec<Value> {
    shop::samples()
        .iter()
        .map(|sample| control_plane.get(&sample.item()).ok())
        .collect()
}

fn history(control_plane: &ControlPlane) -> Value {
    let path = "/pillion/v1/history?limit=100";
    let answer = crate::http::request(control_plane.api, "GET", path, &[], b"");
    answer.expect("an answer").ok()
}

#[test]
fn a_backup_of_a_running_file_is_restored_into_a_database_that_serves_the_same() {
    let folder = TempDir::new().expect("a folder");
    let control_plane = ControlPlane::start_in(folder.path());
    shop::open(&control_plane);
    let (before, told) = (everything(&control_plane), history(&control_plane));
    let file = format!("sqlite:{}", folder.path().join("pillion.db").display());
    let copy = folder.path().join("copy").display().to_string();
    done(&["backup", "--store", &file, "--to", &copy]);
    refused(&["backup", "--store", &file, "--to", &copy], "make ");

    let postgres = Postgres::start();
    done(&["restore", "--store", &postgres.url(), "--from", &copy]);
    let (restored, _log) = replica(&postgres);
    assert_eq!(everything(&restored), before);
    assert_eq!(history(&restored), told);

    // Into what is not empty only with insistence; a replica that runs takes it up.
    restored.put("/meshes", &json!({"meshName": "later"})).ok();
    let into = ["restore", "--store", &postgres.url(), "--from", &copy];
    refused(&into, "--replace");
    let whole = std::fs::read_to_string(&copy).expect("a backup");
    let half = folder.path().join("half").display().to_string();
    std::fs::write(&half, &whole[..whole.len() / 2]).expect("a file");
    refused(
        &[
            "restore",
            "--store",
            &postgres.url(),
            "--from",
            &half,
            "--replace",
        ],
        "of the backup is not as it was written",
    );
    assert_eq!(restored.get("/meshes/later").status, 200, "all or nothing");
    done(&[into.as_slice(), &["--replace"]].concat());
    eventually("the replica takes it up", || {
        (restored.get("/meshes/later").status == 404).then_some(())
    });
    assert_eq!(everything(&restored), before);
    restored.put("/meshes", &json!({"meshName": "again"})).ok();
}

#[test]
fn a_file_goes_back_to_every_earlier_format_and_forward_again_with_its_resources() {
    let folder = TempDir::new().expect("a folder");
    let file = format!("sqlite:{}", folder.path().join("pillion.db").display());
    let control_plane = ControlPlane::start_in(folder.path());
    shop::open(&control_plane);
    let before = everything(&control_plane);
    assert!(control_plane.terminate().success());
    for format in ["2", "1"] {
        done(&["migrate", "--store", &file, "--to", format]);
        let control_plane = ControlPlane::start_in(folder.path());
        assert_eq!(everything(&control_plane), before);
        control_plane
            .put("/meshes", &json!({"meshName": format!("m{format}")}))
            .ok();
        let kept = history(&control_plane)["changes"]
            .as_array()
            .expect("a list")
            .len();
        assert_eq!(kept > 1, format == "2", "format 1 had no history");
        assert!(control_plane.terminate().success());
    }
    refused(
        &["migrate", "--store", &file, "--to", "99"],
        "there is no format 99",
    );
}

#[test]
fn a_database_is_migrated_under_a_running_replica() {
    let postgres = Postgres::start();
    let (control_plane, _log) = replica(&postgres);
    shop::open(&control_plane);
    let before = everything(&control_plane);
    done(&["migrate", "--store", &postgres.url(), "--to", "1"]);
    assert_eq!(everything(&control_plane), before, "reads go on");
    control_plane
        .put("/meshes", &json!({"meshName": "m"}))
        .refused(503, "ServiceUnavailableException");
    // What a newer version does when it starts.
    done(&["migrate", "--store", &postgres.url(), "--to", "3"]);
    eventually("writes go on", || {
        let answer = control_plane.put("/meshes", &json!({"meshName": "m"}));
        (answer.status == 200).then_some(())
    });
    assert_eq!(everything(&control_plane), before);
}
