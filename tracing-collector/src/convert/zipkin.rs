// SPDX-License-Identifier: Apache-2.0
//! Zipkin v2 JSON to spans, by way of the OTLP message that says the same: names, calls and outcomes are then read as
//! everywhere. Where client and server share one id (`shared`), the server's half gets an id of its own below it;
//! `trace` brings the server's children under that half.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use opentelemetry_proto::tonic::trace::v1::ScopeSpans;
use opentelemetry_proto::tonic::trace::v1::Span as OtlpSpan;
use opentelemetry_proto::tonic::trace::v1::Status;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde::Deserialize;
use sha2::Digest;
use sha2::Sha256;

use crate::convert::otlp;
use crate::convert::otlp::Converted;
use crate::trace::SHARED_ID;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ZipkinSpan {
    trace_id: String,
    id: String,
    parent_id: Option<String>,
    name: Option<String>,
    kind: Option<String>,
    /// Microseconds.
    timestamp: Option<f64>,
    duration: Option<f64>,
    local_endpoint: Option<Endpoint>,
    remote_endpoint: Option<Endpoint>,
    #[serde(default)]
    annotations: Option<Vec<Annotation>>,
    #[serde(default)]
    tags: Option<BTreeMap<String, String>>,
    shared: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    service_name: Option<String>,
    ipv4: Option<String>,
    ipv6: Option<String>,
    port: Option<u16>,
}

#[derive(Deserialize)]
struct Annotation {
    timestamp: f64,
    value: String,
}

/// Reads the body of `POST /api/v2/spans`. A span that is no span of Zipkin's refuses the body; one whose ids or times
/// are wrong refuses itself.
pub(crate) fn convert(bytes: &[u8]) -> Result<Converted, serde_json::Error> {
    let spans: Vec<ZipkinSpan> = serde_json::from_slice(bytes)?;
    let mut services: BTreeMap<String, Vec<OtlpSpan>> = BTreeMap::new();
    for span in spans {
        let service = span
            .local_endpoint
            .as_ref()
            .and_then(|local| local.service_name.clone());
        services
            .entry(service.unwrap_or_default())
            .or_default()
            .push(span.otlp());
    }
    let resources = services.into_iter().map(|(service, spans)| {
        let named = (!service.is_empty()).then(|| pair("service.name", service));
        ResourceSpans {
            resource: Some(Resource {
                attributes: named.into_iter().collect(),
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }
    });
    Ok(otlp::convert(resources.collect()))
}

impl ZipkinSpan {
    fn otlp(self) -> OtlpSpan {
        let kind = match self.kind.as_deref() {
            Some("CLIENT") => SpanKind::Client,
            Some("SERVER") => SpanKind::Server,
            Some("PRODUCER") => SpanKind::Producer,
            Some("CONSUMER") => SpanKind::Consumer,
            _ => SpanKind::Internal,
        };
        let start = nanoseconds(self.timestamp.unwrap_or(0.0));
        let tags = self.tags.unwrap_or_default();
        let failed = tags
            .get("error")
            .filter(|text| text.as_str() != "false")
            .cloned();
        let mut attributes: Vec<KeyValue> = tags
            .into_iter()
            .map(|(key, value)| pair(&key, value))
            .collect();
        let remote = self.remote_endpoint.unwrap_or_default();
        let remote_ip = remote.ipv4.or(remote.ipv6);
        if kind == SpanKind::Server {
            attributes.extend(remote_ip.map(|ip| pair("client.address", ip)));
        } else {
            attributes.extend(remote.service_name.map(|name| pair("peer.service", name)));
            attributes.extend(remote_ip.map(|ip| pair("network.peer.address", ip)));
            let port = remote
                .port
                .map(|port| pair("network.peer.port", port.to_string()));
            attributes.extend(port);
        }
        let trace_id = hex_of(&format!("{:0>32}", self.trace_id));
        let (mut span_id, mut parent) = (hex_of(&self.id), self.parent_id.as_deref().map(hex_of));
        if self.shared == Some(true) && kind == SpanKind::Server {
            attributes.push(pair(SHARED_ID, self.id.clone()));
            let below = Sha256::digest([trace_id.as_slice(), &span_id].concat());
            parent = Some(std::mem::replace(&mut span_id, below[..8].to_vec()));
        }
        OtlpSpan {
            trace_id,
            span_id,
            parent_span_id: parent.unwrap_or_default(),
            name: self.name.unwrap_or_default(),
            kind: kind.into(),
            start_time_unix_nano: start,
            end_time_unix_nano: start + nanoseconds(self.duration.unwrap_or(0.0)),
            attributes,
            events: self.annotations.into_iter().flatten().map(event).collect(),
            status: failed.map(|message| Status {
                message,
                code: StatusCode::Error.into(),
            }),
            ..OtlpSpan::default()
        }
    }
}

/// Not the bytes of an id when it is none: conversion then refuses it by its length.
fn hex_of(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap_or_default()
}

fn nanoseconds(us: f64) -> u64 {
    if (0.0..9e15).contains(&us) {
        us as u64 * 1000
    } else {
        0
    }
}

fn event(annotation: Annotation) -> Event {
    Event {
        time_unix_nano: nanoseconds(annotation.timestamp),
        name: annotation.value,
        ..Event::default()
    }
}

fn pair(key: &str, value: String) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(value)),
        }),
        ..KeyValue::default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::trace::Trace;

    #[test]
    fn two_halves_under_one_id_are_a_call_and_who_took_it_and_children_go_with_theirs() {
        let one = |service: &str, id: &str, parent: Option<&str>, kind: &str, shared: bool| {
            json!({"traceId": "5982fe77008310cc", "id": id, "parentId": parent, "name": "get", "kind": kind,
                "timestamp": 1_700_000_000_000_000u64, "duration": 1000, "shared": shared,
                "localEndpoint": {"serviceName": service}})
        };
        let body = json!([
            one("web", "00000000000000a1", None, "CLIENT", false),
            one("cart", "00000000000000a1", None, "SERVER", true),
            one(
                "cart",
                "00000000000000a2",
                Some("00000000000000a1"),
                "CLIENT",
                false
            ),
        ]);
        let converted = convert(body.to_string().as_bytes()).expect("Zipkin's");
        assert_eq!((converted.spans.len(), converted.refused), (3, 0));
        let trace = Trace::assemble(converted.spans[0].trace, converted.spans);
        assert_eq!(trace.spans.len(), 3);
        let at = |service: &str, kind| {
            let is = |span: &crate::span::Span| {
                span.kind == kind
                    && span
                        .service
                        .as_ref()
                        .is_some_and(|node| node.name == service)
            };
            trace.spans.iter().position(is).expect("it is there")
        };
        let server = at("cart", crate::span::Kind::Server);
        assert_eq!(
            trace.parent(server),
            Some(at("web", crate::span::Kind::Client))
        );
        assert_eq!(
            trace.parent(at("cart", crate::span::Kind::Client)),
            Some(server)
        );
    }

    #[test]
    fn tags_status_and_remote_ends_are_read_as_otlps() {
        let body = json!([{"traceId": "463ac35c9f6413ad48485a3953bb6124", "id": "a2fb4a1d1a96d312", "kind": "CLIENT",
            "timestamp": 1_700_000_000_000_000u64, "duration": 5, "remoteEndpoint": {"serviceName": "db"},
            "tags": {"http.status_code": "503", "http.method": "GET"}}]);
        let converted = convert(body.to_string().as_bytes()).expect("Zipkin's");
        let span = &converted.spans[0];
        assert!(span.flags.fault);
        assert_eq!(
            span.calls.as_ref().map(|node| node.name.as_str()),
            Some("db")
        );
        assert_eq!(span.duration_us(), Some(5));
    }

    #[test]
    fn a_span_with_wrong_ids_refuses_only_itself() {
        let body = json!([{"traceId": "zz", "id": "1", "timestamp": 1}, {"traceId": "1", "id": "00000000000000a1", "timestamp": 1}]);
        let converted = convert(body.to_string().as_bytes()).expect("Zipkin's");
        assert_eq!((converted.spans.len(), converted.refused), (1, 1));
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(convert(&bytes).map_or(0, |converted| converted.spans.len()) < 100);
        }
    }
}
