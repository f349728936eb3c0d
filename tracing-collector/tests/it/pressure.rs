// SPDX-License-Identifier: Apache-2.0
//! Too much, too slowly, no disk: every door stays open to others, and what failed goes on by itself.

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;

use serde_json::json;

use crate::collector::Collector;
use crate::collector::eventually;
use crate::collector::segment;
use crate::collector::total;

#[test]
fn hundreds_of_bodies_that_never_end_shut_no_door() {
    let collector = Collector::start();
    let mut slow = Vec::new();
    for (door, path) in [
        ("otlp_http", "/v1/traces"),
        ("api", "/TraceSegments"),
        ("xray_tcp", "/TraceSegments"),
    ] {
        for _ in 0..120 {
            let mut stream = TcpStream::connect(collector.addr(door)).expect("a connection");
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n{{"
            );
            stream.write_all(head.as_bytes()).expect("sent");
            slow.push(stream);
        }
    }
    for door in ["api", "xray_tcp"] {
        let body = json!({"TraceSegmentDocuments": [segment(1, "app", 0.1).to_string()]});
        let answer = collector.send(
            door,
            "POST",
            "/TraceSegments",
            &[],
            body.to_string().as_bytes(),
        );
        assert_eq!(answer.status, 200, "{door}");
    }
    let headers = [("content-type", "application/json")];
    let answer = collector.send("otlp_http", "POST", "/v1/traces", &headers, b"{}");
    assert_eq!(answer.status, 200);
}

#[test]
fn a_body_larger_than_the_memory_that_is_left_is_told_to_come_again() {
    let collector = Collector::start_with(&["--memory-limit", "96MiB"]);
    let body = vec![b' '; 12 << 20];
    let headers = [("content-type", "application/json")];
    let answer = collector.send("otlp_http", "POST", "/v1/traces", &headers, &body);
    assert_eq!(
        (answer.status, answer.headers["retry-after"].as_str()),
        (429, "1")
    );
    let counts = &collector.stats()["sources"]["otlp_http"];
    assert_eq!(counts["rejected"], json!({"queue_full": 1}));
}

#[test]
fn a_document_beyond_max_document_is_refused_alone_with_its_code() {
    let collector = Collector::start_with(&["--max-document", "2KiB"]);
    let mut large = segment(1, "app", 0.1);
    large["metadata"] = json!({"default": {"padding": "x".repeat(3000)}});
    let answer = collector.put(&[large, segment(2, "app", 0.1)]);
    let refused = answer["UnprocessedTraceSegments"]
        .as_array()
        .expect("a list");
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0]["ErrorCode"], "SegmentTooLarge");
    let rejects = collector.get("/pillion/v1/rejects");
    let newest = &rejects["rejects"][0];
    assert_eq!(
        (&newest["source"], &newest["reason"]),
        (&json!("xray_api"), &json!("too_large"))
    );
    assert!(
        newest["message"]
            .as_str()
            .is_some_and(|text| text.contains("--max-document"))
    );
}

/// No file of the collector may grow beyond `bytes`: what a full disk is to it.
fn limit_files(collector: &Collector, bytes: &str) {
    let status = Command::new("prlimit")
        .args([
            "--pid",
            &collector.pid().to_string(),
            &format!("--fsize={bytes}:unlimited"),
        ])
        .status()
        .expect("prlimit runs (Debian: util-linux)");
    assert!(status.success());
}

#[test]
fn after_a_full_disk_it_goes_on_by_itself_with_everything_acknowledged() {
    let store = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_unharmed_by_file_limits(store.path());
    let put = |number: u64| {
        let body = json!({"TraceSegmentDocuments": [segment(number, "app", 0.1).to_string()]});
        let body = body.to_string();
        collector
            .send("api", "POST", "/TraceSegments", &[], body.as_bytes())
            .status
    };
    let ready = || collector.send("admin", "GET", "/ready", &[], b"").status;
    let acknowledged: Vec<u64> = (0..20).filter(|number| put(*number) == 200).collect();
    assert_eq!(acknowledged.len(), 20);
    limit_files(&collector, "64");
    eventually("writes fail", || (put(100) == 503).then_some(()));
    assert_eq!(ready(), 503);
    assert_eq!(put(101), 503);
    // What there is can be read meanwhile.
    let ids: Vec<_> = acknowledged
        .iter()
        .map(|number| segment(*number, "app", 0.1)["trace_id"].clone())
        .collect();
    let read =
        || collector.post("/Traces", &json!({"TraceIds": ids}))["UnprocessedTraceIds"].clone();
    assert_eq!(read(), json!([]));
    limit_files(&collector, "unlimited");
    eventually("it takes again", || (put(102) == 200).then_some(()));
    assert_eq!(ready(), 200);
    assert_eq!(read(), json!([]));
    eventually("the map is the recount", || {
        (total(&collector.map(), "client", "app")? >= 21).then_some(())
    });
}
