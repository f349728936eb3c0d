// SPDX-License-Identifier: Apache-2.0
//! Drives the built `pillion-loadtest` against small servers of our own and checks what it reports.
#![expect(
    clippy::unwrap_used,
    reason = "here an unwrap that fails is a test that fails"
)]

mod target;

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::target::{Stall, Target};

fn loadtest(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pillion-loadtest"));
    command
        .arg("run")
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs to the end: exit code, the JSON lines, standard error.
async fn report(arguments: &[&str]) -> (i32, Vec<Value>, String) {
    let mut command = loadtest(&[arguments, &["--output", "json"]].concat());
    let output = tokio::time::timeout(Duration::from_secs(60), command.output())
        .await
        .expect("the run ends by itself")
        .unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let errors = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), lines, errors)
}

#[tokio::test]
async fn the_rate_asked_for_is_the_rate_the_target_sees() {
    let target = Target::start().await;
    let url = target.url("/items");
    let (code, lines, errors) = report(&[&url, "--rate", "500", "--duration", "2s"]).await;
    assert_eq!((code, lines.len()), (0, 1), "{errors}");
    let last = &lines[0];
    // 1000 expected, standard deviation sqrt(1000) = 32.
    let requests = last["requests"].as_u64().unwrap();
    assert!((800..1200).contains(&requests), "{last}");
    assert_eq!(requests, target.requests());
    assert_eq!(last["failures"], 0);
    assert_eq!(last["statuses"]["2xx"], requests);
    assert_eq!(last["bytes"].as_u64().unwrap(), requests * 2);
    assert_eq!(last["rate"]["asked"], 500.0);
    let reached = last["rate"]["reached"].as_f64().unwrap();
    assert!((reached - requests as f64 / 2.0).abs() < 1.0, "{last}");
}

#[tokio::test]
async fn a_stall_of_the_target_shows_in_every_request_that_had_to_wait() {
    // One connection, 100 requests per second, and one answer that takes a second: some hundred requests were due
    // meanwhile. A closed loop would report one slow request in three hundred and a p90 of nothing.
    let target = Target::start_stalling(Stall::once(50, Duration::from_secs(1))).await;
    let url = target.url("/");
    let arguments = [
        &url,
        "--rate=100",
        "--arrivals=uniform",
        "--duration=3s",
        "--connections=1",
    ];
    let (code, lines, errors) = report(&arguments).await;
    assert_eq!(code, 0, "{errors}");
    let last = &lines[0];
    assert_eq!(last["requests"], 300);
    let ms = |name: &str| last["latency"][name].as_f64().unwrap();
    assert!(ms("max_ms") >= 1000.0, "{last}");
    assert!(ms("p90_ms") > 500.0, "waiting requests are hidden: {last}");
    assert!(ms("p50_ms") < 500.0, "{last}");
    assert!(
        last["late"]["connections_busy"].as_u64().unwrap() > 50,
        "{last}"
    );
}

#[tokio::test]
async fn a_target_that_stops_answering_ends_in_timeouts_and_requests_never_sent() {
    let target = Target::start_stalling(Stall::from(0, Duration::from_secs(3600))).await;
    let url = target.url("/");
    let arguments = [
        &url,
        "--rate=50",
        "--arrivals=uniform",
        "--duration=1s",
        "--connections=2",
        "--timeout=400ms",
    ];
    let begun = Instant::now();
    let (code, lines, errors) = report(&arguments).await;
    assert_eq!(code, 1, "{errors}");
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "the run is bounded in time"
    );
    let last = &lines[0];
    assert!(
        last["failures_by_kind"]["timeout"].as_u64().unwrap() >= 4,
        "{last}"
    );
    let (sent, unsent) = (
        last["requests"].as_u64().unwrap(),
        last["unsent"].as_u64().unwrap(),
    );
    assert_eq!(
        sent + unsent,
        50,
        "every due request is accounted for: {last}"
    );
    assert!(unsent > 0, "{last}");
}

#[tokio::test]
async fn a_refused_port_is_a_failure_that_names_the_address() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap().to_string();
    drop(closed);
    let (code, lines, errors) = report(&[&format!("http://{address}/"), "--duration=30s"]).await;
    assert_eq!(code, 1);
    assert_eq!(lines[0]["failures_by_kind"]["connect"], 1);
    assert!(
        errors.contains(&address) && errors.contains("refused"),
        "{errors}"
    );
}

#[tokio::test]
async fn failing_statuses_are_failures_by_class() {
    let target = Target::start().await;
    let url = target.url("/status/503");
    let (code, lines, _) = report(&[&url, "--rate=100", "--duration=500ms"]).await;
    assert_eq!(code, 1);
    assert_eq!(lines[0]["failures"], lines[0]["requests"]);
    assert_eq!(
        lines[0]["failures_by_kind"]["status_5xx"],
        lines[0]["requests"]
    );
    assert_eq!(lines[0]["last_error"], "answered with status 503");
}

#[tokio::test]
async fn intervals_and_the_warmup_add_up() {
    let target = Target::start().await;
    let url = target.url("/");
    let arguments = [
        &url,
        "--rate=200",
        "--arrivals=uniform",
        "--warmup=500ms",
        "--duration=1s",
        "--interval=300ms",
    ];
    let (code, lines, errors) = report(&arguments).await;
    assert_eq!(code, 0, "{errors}");
    let (last, intervals) = lines.split_last().unwrap();
    assert!(intervals.len() >= 3, "{lines:?}");
    assert!(intervals.iter().all(|line| line["event"] == "interval"));
    assert_eq!(
        (&last["event"], &last["requests"]),
        (&"final".into(), &200.into())
    );
    assert_eq!(
        target.requests(),
        300,
        "the warm-up is sent and not counted"
    );
    let shown: u64 = intervals
        .iter()
        .map(|line| line["requests"].as_u64().unwrap())
        .sum();
    assert!(shown <= 200 && shown > 0);
}

#[tokio::test]
async fn http2_carries_many_requests_on_one_connection_with_method_headers_and_body() {
    let target = Target::start().await;
    let url = target.url("/echo");
    let arguments = [
        &url,
        "--http2",
        "--rate=200",
        "--duration=1s",
        "--connections=1",
        "--method=POST",
        "--header=x-colour: blue",
        "--body=hello",
    ];
    let (code, lines, errors) = report(&arguments).await;
    assert_eq!(code, 0, "{errors}");
    assert_eq!(target.connections(), 1);
    let seen = target.last();
    assert_eq!(seen.line, "POST HTTP/2.0 /echo");
    assert_eq!(seen.colour.as_deref(), Some("blue"));
    let requests = lines[0]["requests"].as_u64().unwrap();
    assert_eq!(lines[0]["bytes"].as_u64().unwrap(), requests * 5);
}

#[tokio::test]
async fn a_proxy_gets_the_absolute_form() {
    let target = Target::start().await;
    let proxy = target.url("");
    let arguments = [
        "http://catalog.storefront.local/items",
        "--proxy",
        &proxy,
        "--requests=3",
    ];
    let (code, _, errors) = report(&arguments).await;
    assert_eq!(code, 0, "{errors}");
    let seen = target.last();
    assert_eq!(
        seen.line,
        "GET HTTP/1.1 http://catalog.storefront.local/items"
    );
    assert_eq!(seen.host.as_deref(), Some("catalog.storefront.local"));
    assert_eq!(target.requests(), 3);
}

#[tokio::test]
async fn an_https_target_is_held_to_the_authority_given() {
    let (target, certificate) = Target::start_tls().await;
    let ca = std::env::temp_dir().join(format!("pillion-loadtest-{}.pem", target.port()));
    std::fs::write(&ca, certificate).unwrap();
    let ca = ca.to_str().unwrap();
    let (named, numbered) = (
        format!("https://localhost:{}/", target.port()),
        format!("https://127.0.0.1:{}/", target.port()),
    );
    let (code, _, errors) = report(&[&named, "--requests=3", "--ca", ca, "--http2"]).await;
    assert_eq!((code, target.requests()), (0, 3), "{errors}");
    let (code, _, errors) = report(&[&numbered, "--requests=3", "--ca", ca]).await;
    assert_eq!(
        (code, target.requests()),
        (1, 3),
        "the certificate does not name 127.0.0.1"
    );
    assert!(errors.contains("TLS handshake"), "{errors}");
    let (code, _, errors) = report(&[&numbered, "--requests=3", "--insecure"]).await;
    assert_eq!((code, target.requests()), (0, 6), "{errors}");
    std::fs::remove_file(ca).unwrap();
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_replaced_without_a_failure() {
    let target = Target::start_closing_after_each().await;
    let url = target.url("/");
    let arguments = [
        &url,
        "--rate=50",
        "--arrivals=uniform",
        "--duration=1s",
        "--connections=2",
    ];
    let (code, lines, errors) = report(&arguments).await;
    assert_eq!(code, 0, "{errors}");
    assert_eq!((&lines[0]["requests"], target.requests()), (&50.into(), 50));
}

#[tokio::test]
async fn sigint_ends_the_run_and_prints_what_was_measured() {
    let target = Target::start().await;
    let url = target.url("/");
    let mut child: Child = loadtest(&[
        &url,
        "--rate=100",
        "--duration=1h",
        "--output=json",
        "--interval=200ms",
    ])
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next_line().await.unwrap().unwrap();
    assert!(first.contains("\"interval\""), "{first}");
    let kill = std::process::Command::new("kill")
        .args(["-INT", &child.id().unwrap().to_string()])
        .status();
    assert!(kill.unwrap().success());
    let mut last = first;
    while let Some(line) = lines.next_line().await.unwrap() {
        last = line;
    }
    let last: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(
        (&last["event"], &last["interrupted"]),
        (&"final".into(), &true.into())
    );
    assert!(last["requests"].as_u64().unwrap() > 0);
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_wrong_command_line_names_every_setting_and_exits_2() {
    let (code, lines, errors) =
        report(&["http://127.0.0.1:1/", "--rate=-1", "--header=nonsense"]).await;
    assert_eq!((code, lines.len()), (2, 0));
    assert!(
        errors.contains("--rate -1") && errors.contains("--header \"nonsense\""),
        "{errors}"
    );
}

#[tokio::test]
async fn the_text_report_is_what_stays_on_standard_output() {
    let target = Target::start().await;
    let output = loadtest(&[&target.url("/"), "--requests=5"])
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("requests  5 in") && text.contains("p99.9"),
        "{text}"
    );
    assert!(
        !text.contains('\u{1b}'),
        "no escape codes without a terminal"
    );
    assert!(
        output.stderr.is_empty(),
        "no progress bar without a terminal"
    );
}

#[tokio::test]
async fn a_comparison_of_unknown_things_names_all_of_them() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pillion-loadtest"));
    let arguments = [
        "compare",
        "--workload=h3",
        "--peers=squid",
        "--rounds=0",
        "--also=x",
    ];
    let output = command.args(arguments).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8(output.stderr).unwrap();
    for named in [
        "--workload h3",
        "h1-16",
        "--peers squid",
        "--rounds 0",
        "--also x",
    ] {
        assert!(errors.contains(named), "{named} in {errors}");
    }
}

#[tokio::test]
async fn a_closed_loop_asks_again_as_soon_as_it_is_answered_and_stops_at_its_limit() {
    let target = Target::start().await;
    let url = target.url("/");
    let arguments = [
        &url,
        "--closed",
        "--connections=2",
        "--requests=500",
        "--duration=10s",
    ];
    let (code, lines, errors) = report(&arguments).await;
    assert_eq!(code, 0, "{errors}");
    assert_eq!(lines[0]["requests"], 500);
    assert_eq!(target.requests(), 500);
    assert!(lines[0]["at_s"].as_f64().unwrap() < 10.0, "{}", lines[0]);
}
