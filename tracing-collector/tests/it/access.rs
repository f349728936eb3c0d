// SPDX-License-Identifier: Apache-2.0
//! With a file of keys nobody asks unproved; without one, on loopback, everybody may.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::clients::python;
use crate::clients::run;
use crate::collector::Collector;

const KEYS: &str = r#"
[[keys]]
access_key_id = "AKIAWRITER"
secret_access_key = "writer-secret"

[[keys]]
access_key_id = "AKIAREADER"
secret_access_key = "reader-secret"
permissions = ["read"]

[[keys]]
access_key_id = "AKIAMESHES"
secret_access_key = "mesh-secret"
resources = ["arn:aws:appmesh:*:*:mesh/*"]
"#;

fn keys(folder: &tempfile::TempDir) -> PathBuf {
    let path = folder.path().join("keys.toml");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .expect("a file");
    file.write_all(KEYS.as_bytes()).expect("written");
    path
}

/// `reader:reader-secret`.
const READER: (&str, &str) = ("authorization", "Basic QUtJQVJFQURFUjpyZWFkZXItc2VjcmV0");

#[test]
fn boto3_and_the_aws_cli_prove_who_they_are_and_do_no_more_than_their_keys_allow() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = keys(&folder);
    let collector = Collector::start_with(&["--credentials", &path.display().to_string()]);
    let aws = python().with_file_name("aws");
    run(
        "boto3_signed.py",
        &[
            format!("http://{}", collector.addr("api")),
            aws.display().to_string(),
        ],
    );
}

#[test]
fn pages_and_the_other_query_apis_take_basic_and_say_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = keys(&folder);
    let collector = Collector::start_with(&["--credentials", &path.display().to_string()]);
    for path in [
        "/",
        "/pillion/v1/map",
        "/pillion/v1/rejects",
        "/api/services",
        "/api/v3/services",
    ] {
        let answer = collector.send("api", "GET", path, &[], b"");
        assert_eq!(answer.status, 401, "{path}");
        assert!(
            answer.headers["www-authenticate"].starts_with("Basic"),
            "{path}"
        );
        let answer = collector.send("api", "GET", path, &[READER], b"");
        assert_eq!(answer.status, 200, "{path}");
        let wrong = ("authorization", "Basic QUtJQVJFQURFUjp4");
        assert_ne!(
            collector.send("api", "GET", path, &[wrong], b"").status,
            200,
            "{path}"
        );
    }
    // Reading is all that this key may do.
    let answer = collector.send(
        "api",
        "POST",
        "/CreateGroup",
        &[READER],
        b"{\"GroupName\":\"x\"}",
    );
    assert_eq!(answer.status, 403);
    // SDKs ask for sampling unsigned, and senders on this machine are taken as they come.
    assert_eq!(
        collector
            .send("xray_tcp", "POST", "/GetSamplingRules", &[], b"{}")
            .status,
        200
    );
    let json = [("content-type", "application/json")];
    assert_eq!(
        collector
            .send("otlp_http", "POST", "/v1/traces", &json, b"{}")
            .status,
        200
    );
}

#[test]
fn with_keys_the_doors_that_can_ask_for_proof_may_be_exposed_and_the_others_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = keys(&folder).display().to_string();
    let collector =
        Collector::start_with(&["--credentials", &path, "--otlp-http-addr", "0.0.0.0:0"]);
    let json = ("content-type", "application/json");
    let send = |headers: &[(&str, &str)]| {
        let mut addr = collector.addr("otlp_http");
        addr.set_ip([127, 0, 0, 1].into());
        crate::collector::request(addr, "POST", "/v1/traces", headers, b"{}").status
    };
    assert_ne!(send(&[json]), 200);
    let writer = ("authorization", "Basic QUtJQVdSSVRFUjp3cml0ZXItc2VjcmV0");
    assert_eq!(send(&[json, writer]), 200);
    let output = Command::new(env!("CARGO_BIN_EXE_pillion-collector"))
        .args(["--credentials", &path, "--xray-udp-addr", "0.0.0.0:0"])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(2));
}
