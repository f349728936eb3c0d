// SPDX-License-Identifier: Apache-2.0
//! OTLP: every form in, the answers that the protocol asks for.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message;
use serde_json::Value;
use serde_json::json;
use tonic::codec::CompressionEncoding;

use crate::collector::Answer;
use crate::collector::Collector;

/// One server span; `trace` is its trace id.
pub(crate) fn export(trace: &str) -> Value {
    json!({"resourceSpans": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "app"}}]},
        "scopeSpans": [{"spans": [{
            "traceId": trace, "spanId": "eee19b7ec3c1b174", "name": "GET /", "kind": 2,
            "startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000000250000000",
            "attributes": [{"key": "http.response.status_code", "value": {"intValue": "200"}}],
        }]}],
    }]})
}

fn protobuf(trace: &str) -> ExportTraceServiceRequest {
    serde_json::from_value(export(trace)).expect("OTLP JSON")
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).expect("writing to memory");
    encoder.finish().expect("writing to memory")
}

fn post(collector: &Collector, content_type: &str, encoding: &str, body: &[u8]) -> Answer {
    let headers = [
        ("content-type", content_type),
        ("content-encoding", encoding),
    ];
    collector.send("otlp_http", "POST", "/v1/traces", &headers, body)
}

const TRACES: [&str; 5] = [
    "00000000000000000000000000000001",
    "00000000000000000000000000000002",
    "00000000000000000000000000000003",
    "ffffffffffffffffffffffffffffffff",
    "3fd23e70000000000000000000000005",
];

#[test]
fn json_protobuf_gzip_and_grpc_all_end_as_stored_spans_whatever_the_id() {
    let collector = Collector::start();
    let json_body = export(TRACES[0]).to_string();
    assert_eq!(
        post(
            &collector,
            "application/json",
            "identity",
            json_body.as_bytes()
        )
        .json(),
        json!({})
    );
    let json_gzip = gzip(export(TRACES[1]).to_string().as_bytes());
    assert_eq!(
        post(
            &collector,
            "application/json; charset=utf-8",
            "gzip",
            &json_gzip
        )
        .status,
        200
    );
    let answer = post(
        &collector,
        "application/x-protobuf",
        "identity",
        &protobuf(TRACES[2]).encode_to_vec(),
    );
    assert_eq!(
        answer.headers.get("content-type").map(String::as_str),
        Some("application/x-protobuf")
    );
    let decoded = ExportTraceServiceResponse::decode(answer.body.as_slice()).expect("protobuf");
    assert!(decoded.partial_success.is_none());
    let body = gzip(&protobuf(TRACES[3]).encode_to_vec());
    assert_eq!(
        post(&collector, "application/x-protobuf", "gzip", &body).status,
        200
    );
    grpc(&collector, protobuf(TRACES[4]));
    for trace in TRACES {
        let one = collector.get(&format!("/pillion/v1/traces/{trace}"));
        let span = &one["spans"][0];
        assert_eq!(
            (&span["service"], &span["duration_ms"]),
            (&json!("app"), &json!(250.0)),
            "{trace}"
        );
    }
    let stats = collector.stats();
    assert_eq!(
        (&stats["received"], &stats["stored"]),
        (&json!(5), &json!(5))
    );
}

fn grpc(collector: &Collector, request: ExportTraceServiceRequest) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let address = format!("http://{}", collector.addr("otlp_grpc"));
        let mut client = TraceServiceClient::connect(address)
            .await
            .expect("a connection")
            .send_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Gzip);
        let answer = client.export(request).await.expect("accepted").into_inner();
        assert!(answer.partial_success.is_none());
    });
}

#[test]
fn a_wrong_span_is_refused_alone_in_a_partial_success() {
    let collector = Collector::start();
    let mut mixed = export(TRACES[0]);
    let mut wrong = mixed["resourceSpans"][0]["scopeSpans"][0]["spans"][0].clone();
    wrong["spanId"] = json!("");
    mixed["resourceSpans"][0]["scopeSpans"][0]["spans"]
        .as_array_mut()
        .expect("a list")
        .push(wrong);
    let partial = post(
        &collector,
        "application/json",
        "",
        mixed.to_string().as_bytes(),
    )
    .json();
    assert_eq!(partial["partialSuccess"]["rejectedSpans"], "1");
    let message = partial["partialSuccess"]["errorMessage"]
        .as_str()
        .expect("a message");
    assert!(
        message.contains("spanId") && message.contains("GET /"),
        "{message}"
    );
    let counts = &collector.stats()["sources"]["otlp_http"];
    assert_eq!(
        (
            &counts["received"],
            &counts["stored"],
            &counts["rejected"]["invalid"]
        ),
        (&json!(2), &json!(1), &json!(1))
    );
}

#[test]
fn what_will_never_be_right_says_so_with_the_status_that_fits() {
    let collector = Collector::start();
    let large = vec![b' '; 17 * 1024 * 1024];
    for (content_type, encoding, body, status) in [
        ("text/plain", "", &b"{}"[..], 415),
        ("application/json", "br", b"{}", 415),
        ("application/json", "", b"{\"resourceSpans\": 7}", 400),
        ("application/x-protobuf", "", b"\xff\xff\xff", 400),
        ("application/json", "gzip", b"\x1f\x8b\x08damaged", 400),
        ("application/json", "", &large, 413),
        ("application/json", "gzip", &gzip(&large), 413),
    ] {
        let answer = post(&collector, content_type, encoding, body);
        assert_eq!(
            answer.status,
            status,
            "{content_type} {encoding} {} bytes",
            body.len()
        );
        if content_type != "application/x-protobuf" {
            assert!(
                answer.json()["message"]
                    .as_str()
                    .is_some_and(|message| !message.is_empty())
            );
        }
    }
    let stats = collector.stats();
    assert_eq!(
        (&stats["received"], &stats["rejected"], &stats["stored"]),
        (&json!(7), &json!(7), &json!(0))
    );
}
