// SPDX-License-Identifier: Apache-2.0
//! Strangers' bytes at every door: the collector lives, counts, and goes on.

use std::io::Write;
use std::net::TcpStream;

use serde_json::json;

use crate::collector::Collector;
use crate::collector::eventually;
use crate::collector::segment;

/// Reproducible noise (xorshift).
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

#[test]
fn garbage_datagrams_are_counted_and_a_good_one_after_them_is_stored() {
    let collector = Collector::start();
    let header = b"{\"format\":\"json\",\"version\":1}\n";
    let mut sent = 0;
    for seed in 0..200 {
        let mut datagram = if seed % 2 == 0 {
            header.to_vec()
        } else {
            Vec::new()
        };
        datagram.extend(noise(seed, 1 + seed as usize * 7));
        collector.datagram(&datagram);
        sent += 1;
    }
    for text in [
        "",
        "\n",
        "{}\n{}",
        "{\"format\":\"json\",\"version\":1}\n",
        "{\"format\":\"json\",\"version\":1}\n[]",
    ] {
        collector.datagram(text.as_bytes());
        sent += 1;
    }
    let deep = format!(
        "{}{}",
        "{\"format\":\"json\",\"version\":1}\n",
        "[".repeat(60_000)
    );
    collector.datagram(deep.as_bytes());
    sent += 1;
    let good = segment(1, "app", 1.0);
    collector.datagram(format!("{{\"format\": \"JSON\", \"version\": 1}}\n{good}").as_bytes());
    let counts = eventually("everything counted", || {
        let counts = collector.stats()["sources"]["xray_udp"].clone();
        (counts["stored"] == 1 && counts["received"] == sent + 1).then_some(counts)
    });
    assert_eq!(counts["rejected"], json!({"invalid": sent}));
}

#[test]
fn garbage_on_every_tcp_door_ends_connections_not_the_collector() {
    let collector = Collector::start();
    for door in ["otlp_grpc", "otlp_http", "xray_tcp", "api", "admin"] {
        for seed in 0..10 {
            let mut stream = TcpStream::connect(collector.addr(door)).expect("a connection");
            // The other side may hang up in the middle of it.
            stream.write_all(&noise(seed, 4096)).unwrap_or_default();
        }
    }
    for seed in 0..50 {
        let body = noise(seed, 500);
        for content_type in ["application/json", "application/x-protobuf"] {
            let answer = collector.send(
                "otlp_http",
                "POST",
                "/v1/traces",
                &[("content-type", content_type)],
                &body,
            );
            assert_eq!(answer.status, 400, "{content_type} {seed}");
        }
        let answer = collector.send("api", "POST", "/TraceSegments", &[], &body);
        assert_eq!(answer.status, 400, "{seed}");
    }
    let deep = format!("{{\"resourceSpans\":{}", "[".repeat(100_000));
    let headers = [("content-type", "application/json")];
    assert_eq!(
        collector
            .send("otlp_http", "POST", "/v1/traces", &headers, deep.as_bytes())
            .status,
        400
    );
    collector.put(&[segment(1, "app", 1.0)]);
    let stats = collector.stats();
    assert_eq!(
        (&stats["received"], &stats["rejected"], &stats["stored"]),
        (&json!(152), &json!(151), &json!(1))
    );
}

#[test]
fn wrong_questions_to_our_own_api_are_answered_with_what_is_right() {
    let collector = Collector::start();
    for (path, status, part) in [
        ("/pillion/v1/map?start=x", 400, "epoch seconds"),
        ("/pillion/v1/map?begin=1", 400, "start, end"),
        (
            "/pillion/v1/map?start=2&end=1",
            400,
            "end must be after start",
        ),
        ("/pillion/v1/traces/zz", 400, "32 hex"),
        (
            "/pillion/v1/traces/00000000000000000000000000000001",
            404,
            "retention",
        ),
    ] {
        let answer = collector.send("api", "GET", path, &[], b"");
        assert_eq!(answer.status, status, "{path}");
        let message = answer.json()["message"]
            .as_str()
            .expect("a message")
            .to_owned();
        assert!(message.contains(part), "{path}: {message}");
    }
}
