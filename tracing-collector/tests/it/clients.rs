// SPDX-License-Identifier: Apache-2.0
//! Unmodified clients of others, each a script that asserts and exits non-zero: boto3, the X-Ray SDK, OTel's SDK.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use crate::collector::Collector;

pub(crate) fn python() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace");
    let venv = std::env::var_os("PILLION_VENV")
        .map_or_else(|| workspace.join("target/venv"), PathBuf::from);
    let python = venv.join("bin/python");
    assert!(
        python.exists(),
        "{} is missing: run `cargo xtask setup`",
        python.display()
    );
    python
}

pub(crate) fn run(script: &str, arguments: &[String]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(script);
    let output = Command::new(python())
        .arg(path)
        .args(arguments)
        .env_remove("AWS_XRAY_DAEMON_ADDRESS")
        .env_remove("AWS_PROFILE")
        .output()
        .expect("python runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{script}\n{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

#[test]
fn boto3_puts_a_trace_and_reads_it_back_every_way() {
    let collector = Collector::start();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/scorekeep.json");
    run(
        "boto3_xray.py",
        &[
            format!("http://{}", collector.addr("api")),
            fixture.display().to_string(),
        ],
    );
}

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    path.display().to_string()
}

#[test]
fn boto3_selects_by_every_worked_filter_and_by_group() {
    let collector = Collector::start();
    let fixtures = ["scorekeep.json", "filters.json"].map(fixture);
    let mut arguments = vec![format!("http://{}", collector.addr("api"))];
    arguments.extend(fixtures);
    run("boto3_filters.py", &arguments);
}

#[test]
fn boto3_configures_rules_tags_and_settings_that_survive_a_kill() {
    let store = tempfile::tempdir().expect("a folder");
    for phase in ["configure", "again"] {
        let mut collector = Collector::start_on(store.path());
        let endpoint = format!("http://{}", collector.addr("api"));
        run("boto3_settings.py", &[endpoint, phase.to_owned()]);
        collector.kill();
    }
}

#[test]
fn the_x_ray_sdk_is_content_with_the_daemon_port_and_its_segments_arrive() {
    let collector = Collector::start();
    run(
        "xray_sdk.py",
        &[
            collector.addr("xray_udp").to_string(),
            format!("http://{}", collector.addr("api")),
        ],
    );
}

#[test]
fn the_otel_sdk_exports_over_grpc_and_http() {
    let collector = Collector::start();
    let arguments =
        ["otlp_grpc", "otlp_http", "api"].map(|door| format!("http://{}", collector.addr(door)));
    run("otel_sdk.py", &arguments);
}
