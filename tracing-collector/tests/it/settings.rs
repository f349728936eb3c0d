// SPDX-License-Identifier: Apache-2.0
//! Starting and ending: readiness, refusals, exit codes, admin pages.

use std::process::Command;
use std::process::Stdio;

use serde_json::Value;

use crate::collector::Collector;
use crate::collector::command;
use crate::collector::request;

#[test]
fn the_readiness_line_names_every_door_and_admin_agrees() {
    let collector = Collector::start();
    for name in [
        "otlp_grpc",
        "otlp_http",
        "xray_udp",
        "xray_tcp",
        "zipkin",
        "api",
        "admin",
    ] {
        assert_ne!(collector.addr(name).port(), 0, "{name}");
    }
    assert_eq!(
        collector.addr("xray_udp").port(),
        collector.addr("xray_tcp").port()
    );
    let admin = |path| request(collector.addr("admin"), "GET", path, &[], b"");
    assert_eq!(admin("/ready").status, 200);
    let config: Value = admin("/config").json();
    assert_eq!(
        (&config["settle_ms"], &config["retention_s"]),
        (&300.into(), &(30 * 86_400).into())
    );
    let metrics = String::from_utf8(admin("/metrics").body).expect("text");
    assert!(
        metrics.contains("pillion_collector_received_total{source=\"xray_udp\"} 0"),
        "{metrics}"
    );
}

#[test]
fn an_address_beyond_loopback_is_refused_with_the_way_out() {
    let output = Command::new(env!("CARGO_BIN_EXE_pillion-collector"))
        .args(["--api-addr", "0.0.0.0:0"])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(
        log.contains("--api-addr") && log.contains("--insecure"),
        "{log}"
    );
}

#[test]
fn a_wrong_setting_is_refused_with_what_is_understood() {
    let output = command()
        .args(["--retention", "soon"])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("30d"));
}

#[test]
fn a_store_that_another_process_holds_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let _first = Collector::start_on(folder.path());
    let output = command()
        .arg("--store")
        .arg(folder.path())
        .stdout(Stdio::null())
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(
        log.contains("--store") && log.contains("one process"),
        "{log}"
    );
}

#[test]
fn sigterm_drains_and_exits_with_zero() {
    let mut collector = Collector::start();
    collector.signal("-TERM");
    assert_eq!(collector.wait().code(), Some(0));
}

#[test]
fn the_x_ray_daemons_command_line_and_file_start_a_collector() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("cfg.yaml");
    let text = "Socket:\n  UDPAddress: \"127.0.0.1:0\"\n  TCPAddress: \"127.0.0.1:0\"\nConcurrency: 8\nLogging:\n  LogLevel: \"prod\"\nVersion: 2\n";
    std::fs::write(&file, text).expect("written");
    let file = file.display().to_string();
    let flags = [
        "-b",
        "127.0.0.1:0",
        "-t",
        "127.0.0.1:0",
        "-o",
        "-n",
        "eu-west-1",
        "-l",
        "dev",
        "-c",
        &file,
    ];
    let collector = Collector::start_with(&flags);
    assert_ne!(collector.addr("xray_udp").port(), 2000);
    assert_eq!(
        collector.addr("xray_udp").port(),
        collector.addr("xray_tcp").port()
    );
    for wrong in [
        ["-l", "loud"],
        ["-c", "/no/such/cfg.yaml"],
        ["-b", "nowhere"],
    ] {
        let output = command().args(wrong).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}
