// SPDX-License-Identifier: Apache-2.0
//! The record of one span. Its trace and its id stand in the key.

use prost::Message;
use serde_json::Map;
use serde_json::Value;

use crate::span::Http;
use crate::span::Kind;
use crate::span::Node;
use crate::span::Proxy;
use crate::span::Span;
use crate::span::SpanId;
use crate::span::TraceId;
use crate::store::record::HttpRecord;
use crate::store::record::NodeRecord;
use crate::store::record::flags_in;
use crate::store::record::flags_out;
use crate::store::record::place;

#[derive(Clone, PartialEq, Message)]
struct SpanRecord {
    #[prost(fixed64, tag = "1")]
    parent: u64,
    #[prost(uint32, tag = "2")]
    kind: u32,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(message, optional, tag = "4")]
    service: Option<NodeRecord>,
    #[prost(bool, tag = "5")]
    entry: bool,
    #[prost(message, optional, tag = "6")]
    calls: Option<NodeRecord>,
    #[prost(fixed64, tag = "7")]
    start_ns: u64,
    #[prost(fixed64, optional, tag = "8")]
    end_ns: Option<u64>,
    #[prost(uint32, tag = "9")]
    flags: u32,
    #[prost(message, optional, tag = "10")]
    http: Option<HttpRecord>,
    #[prost(string, optional, tag = "11")]
    user: Option<String>,
    #[prost(string, optional, tag = "12")]
    proxy_node: Option<String>,
    /// JSON objects, empty for none.
    #[prost(string, tag = "13")]
    annotations: String,
    #[prost(string, tag = "14")]
    attributes: String,
    #[prost(string, tag = "15")]
    document: String,
    /// Whether `parent` holds: zero is an id like another in X-Ray documents.
    #[prost(bool, tag = "16")]
    has_parent: bool,
}

const KINDS: [Kind; 5] = [
    Kind::Internal,
    Kind::Server,
    Kind::Client,
    Kind::Producer,
    Kind::Consumer,
];
fn object_out(object: &Map<String, Value>) -> String {
    if object.is_empty() {
        String::new()
    } else {
        serde_json::to_string(object).unwrap_or_default()
    }
}

fn object_in(text: &str) -> Option<Map<String, Value>> {
    if text.is_empty() {
        Some(Map::new())
    } else {
        serde_json::from_str(text).ok()
    }
}

pub(in crate::store) fn encode_span(span: &Span) -> Vec<u8> {
    let annotations: Map<String, Value> = span.annotations.clone().into_iter().collect();
    let record = SpanRecord {
        parent: span.parent.map_or(0, |parent| parent.0),
        has_parent: span.parent.is_some(),
        kind: place(&KINDS, &span.kind),
        name: span.name.clone(),
        service: span.service.as_ref().map(NodeRecord::from),
        entry: span.entry,
        calls: span.calls.as_ref().map(NodeRecord::from),
        start_ns: span.start_ns,
        end_ns: span.end_ns,
        flags: flags_out(span.flags),
        http: span.http.as_ref().map(HttpRecord::from),
        user: span.user.clone(),
        proxy_node: span.proxy.as_ref().map(|proxy| proxy.node.clone()),
        annotations: object_out(&annotations),
        attributes: object_out(&span.attributes),
        document: object_out(&span.document),
    };
    record.encode_to_vec()
}

pub(in crate::store) fn decode_span(trace: TraceId, id: SpanId, bytes: &[u8]) -> Option<Span> {
    let record = SpanRecord::decode(bytes).ok()?;
    Some(Span {
        trace,
        id,
        parent: record.has_parent.then_some(SpanId(record.parent)),
        kind: *KINDS.get(record.kind as usize)?,
        name: record.name,
        service: record.service.map(Node::from),
        entry: record.entry,
        calls: record.calls.map(Node::from),
        start_ns: record.start_ns,
        end_ns: record.end_ns,
        flags: flags_in(record.flags),
        http: record.http.map(Http::from),
        user: record.user,
        proxy: record.proxy_node.map(|node| Proxy { node }),
        annotations: object_in(&record.annotations)?.into_iter().collect(),
        attributes: object_in(&record.attributes)?,
        document: object_in(&record.document)?,
    })
}
