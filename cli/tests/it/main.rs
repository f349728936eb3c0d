// SPDX-License-Identifier: Apache-2.0
//! Drives the built `pillion`. The whole demo needs the other programs and is tested in `mesh-test`.
#![expect(
    clippy::unwrap_used,
    reason = "here an unwrap that fails is a test that fails"
)]

mod family;
mod mesh_api;

use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::mesh_api::MeshApi;

const SOUND: &str = "\
meshName: shop
spec: {}
---
meshName: shop
virtualRouterName: web
spec:
  listeners: [{portMapping: {port: 8080, protocol: http}}]
---
meshName: shop
virtualRouterName: web
routeName: all
spec:
  httpRoute:
    match: {prefix: /}
    action: {weightedTargets: [{virtualNode: web, weight: 1}]}
---
meshName: shop
virtualNodeName: web
spec:
  listeners: [{portMapping: {port: 8080, protocol: http}}]
  serviceDiscovery: {dns: {hostname: web.local}}
";

fn pillion(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pillion"))
        .args(arguments)
        .output()
        .unwrap()
}

fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn file(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_taken_port_is_named_with_its_purpose_and_the_way_out() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let (code, out, errors) = said(&pillion(&["demo", "--port-base", &port.to_string()]));
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        errors.contains(&format!("port {port} (control plane, mesh API) is taken")),
        "{errors}"
    );
    assert!(errors.contains("--port-base"), "{errors}");
}

#[test]
fn missing_programs_are_named_with_the_command_that_builds_them() {
    let dir = tempfile::tempdir().unwrap();
    let alone = dir.path().join("pillion");
    std::fs::copy(env!("CARGO_BIN_EXE_pillion"), &alone).unwrap();
    let output = Command::new(alone)
        .args(["demo", "--port-base", "0"])
        .output()
        .unwrap();
    let (code, _, errors) = said(&output);
    assert_eq!(code, 1);
    for part in [
        "pillion-control-plane",
        "pillion-collector",
        "pillion-proxy",
        "pillion-loadtest",
        "cargo build",
    ] {
        assert!(errors.contains(part), "no {part} in {errors}");
    }
}

#[test]
fn json_without_an_end_is_bad_usage() {
    let (code, _, errors) = said(&pillion(&["demo", "--output", "json"]));
    assert_eq!(code, 2);
    assert!(errors.contains("--for"), "{errors}");
}

#[test]
fn a_sound_manifest_has_no_problem() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = file(&dir, "mesh.yaml", SOUND);
    let (code, out, errors) = said(&pillion(&["validate", "-f", manifest.to_str().unwrap()]));
    assert_eq!(
        (code, out.as_str()),
        (0, "4 resources, no problem\n"),
        "{errors}"
    );
}

#[test]
fn every_problem_is_named_with_its_file_and_path() {
    let dir = tempfile::tempdir().unwrap();
    let port = file(&dir, "port.yaml", &SOUND.replace("port: 8080", "port: 0"));
    let typo = file(
        &dir,
        "typo.json",
        r#"{"meshName": "m", "spec": {"egresFilter": {}}}"#,
    );
    let (port, typo) = (port.to_str().unwrap(), typo.to_str().unwrap());
    let (code, out, _) = said(&pillion(&["validate", "-f", port, "-f", typo]));
    assert_eq!(code, 1);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 3, "{out}");
    assert!(
        lines[0].starts_with(port) && lines[0].contains("spec.listeners[0].portMapping.port"),
        "{out}"
    );
    assert!(
        lines[2].starts_with(typo) && lines[2].contains("egresFilter"),
        "{out}"
    );
}

#[test]
fn a_route_to_a_node_that_is_not_there_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = file(
        &dir,
        "mesh.yaml",
        &SOUND.replace("virtualNode: web", "virtualNode: wbe"),
    );
    let (code, out, _) = said(&pillion(&["validate", "-f", manifest.to_str().unwrap()]));
    assert_eq!(code, 1);
    assert!(out.contains("wbe"), "{out}");
}

#[test]
fn apply_sends_everything_at_once_and_tells_what_became_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = file(&dir, "mesh.yaml", SOUND);
    let api = MeshApi::start(
        "200 OK",
        r#"{"dryRun": true, "changes": [
            {"action": "unchanged", "arn": "arn:aws:appmesh:r:1:mesh/shop", "version": 1, "diff": []},
            {"action": "updated", "arn": "arn:aws:appmesh:r:1:mesh/shop/virtualNode/web", "version": 2,
             "diff": [{"path": "spec.a", "before": 1, "after": 2}]}]}"#,
    );
    let path = manifest.to_str().unwrap();
    let output = pillion(&["apply", "-f", path, "--dry-run", "--endpoint", &api.url()]);
    let (code, out, errors) = said(&output);
    assert_eq!(code, 0, "{errors}");
    assert_eq!(
        out,
        "unchanged mesh/shop\nwould be updated mesh/shop/virtualNode/web\n    spec.a: 1 -> 2\n"
    );
    let asked = api.asked();
    assert_eq!(asked.len(), 1);
    let sent = asked[0]
        .strip_prefix("POST /pillion/v1/apply?dryRun=true ")
        .unwrap();
    let sent: Vec<serde_json::Value> = serde_json::from_str(sent).unwrap();
    assert_eq!(
        (
            sent.len(),
            &sent[3]["routeName"],
            &sent[3]["virtualRouterName"]
        ),
        (4, &"all".into(), &"web".into())
    );
}

#[test]
fn a_refusal_is_told_in_the_words_of_the_control_plane() {
    let api = MeshApi::start(
        "403 Forbidden",
        r#"{"message": "Missing Authentication Token"}"#,
    );
    let output = pillion(&["fleet", "--endpoint", &api.url()]);
    let (code, _, errors) = said(&output);
    assert_eq!(code, 1);
    assert!(
        errors.contains("403") && errors.contains("Missing Authentication Token"),
        "{errors}"
    );
}

#[test]
fn keys_of_the_environment_sign_every_request() {
    let api = MeshApi::start("200 OK", r#"{"token": "pillion-join.a.b"}"#);
    let output = Command::new(env!("CARGO_BIN_EXE_pillion"))
        .args([
            "token",
            "--endpoint",
            &api.url(),
            "create",
            "arn:aws:appmesh:r:1:mesh/m/virtualNode/n",
            "--days",
            "2",
        ])
        .env("AWS_ACCESS_KEY_ID", "AKID")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .output()
        .unwrap();
    assert_eq!(said(&output).1, "pillion-join.a.b\n");
    let asked = api.asked();
    assert!(
        asked[0].starts_with("POST /pillion/v1/tokens signed "),
        "{asked:?}"
    );
    assert!(asked[0].contains("\"lifetimeSeconds\":172800"), "{asked:?}");
}

#[test]
fn every_verb_shows_examples() {
    for verb in ["apply", "explain", "history", "rollback", "fleet", "token"] {
        let (code, out, _) = said(&pillion(&[verb, "--help"]));
        assert!(code == 0 && out.contains("Example"), "{verb}: {out}");
    }
}

#[test]
fn apply_changes_nothing_when_a_manifest_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = file(&dir, "mesh.yaml", &SOUND.replace("port: 8080", "port: 0"));
    let api = MeshApi::start("200 OK", "{}");
    let output = pillion(&[
        "apply",
        "-f",
        manifest.to_str().unwrap(),
        "--endpoint",
        &api.url(),
    ]);
    let (code, _, errors) = said(&output);
    assert_eq!(code, 1);
    assert!(errors.contains("nothing was applied"), "{errors}");
    assert_eq!(api.asked(), Vec::<String>::new());
}
