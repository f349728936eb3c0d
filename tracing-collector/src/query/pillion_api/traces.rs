// SPDX-License-Identifier: Apache-2.0
//! Traces as JSON for the dashboard: a row of a list, and one trace as a flat list of spans.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::graph::calls::party_name;
use crate::span::Outcome;
use crate::span::TraceId;
use crate::span::seconds;
use crate::store::StoredTrace;
use crate::summary::Summary;
use crate::trace::Trace;

pub(super) fn summary(one: &Summary) -> Value {
    let http = one.http.as_ref();
    json!({
        "id": one.id.to_string(),
        "xray_id": one.id.xray(),
        "start": seconds(one.start_us),
        "duration_ms": milliseconds((one.end_us - one.start_us) * 1000),
        "response_ms": one.response_us.map(|us| milliseconds(us * 1000)),
        "name": one.name,
        "root_service": one.entry_party,
        "method": http.and_then(|http| http.method.as_ref()),
        "url": http.and_then(|http| http.url.as_ref()),
        "status": http.and_then(|http| http.status),
        "outcome": one.flags.outcome().name(),
        // Whether something failed that the root recovered from.
        "worst": one.worst.outcome().name(),
        "services": one.parties,
        "spans": one.spans,
        "partial": one.partial,
        "truncated": one.truncated,
    })
}

pub(super) fn flat(id: TraceId, stored: StoredTrace) -> Value {
    let trace = Trace::assemble(id, stored.spans);
    let start = trace.spans.first().map_or(0, |span| span.start_ns);
    let end = trace
        .spans
        .iter()
        .filter_map(|span| span.end_ns)
        .max()
        .unwrap_or(start);
    let spans: Vec<Value> = (0..trace.spans.len()).map(|at| span(&trace, at)).collect();
    json!({
        "id": id.to_string(),
        "xray_id": id.xray(),
        "start": seconds(start / 1000),
        "duration_ms": milliseconds(end.saturating_sub(start)),
        "truncated": stored.truncated,
        "spans": spans,
    })
}

fn span(trace: &Trace, at: usize) -> Value {
    let one = &trace.spans[at];
    let outcome = one.flags.outcome();
    let http = one.http.as_ref();
    json!({
        "id": one.id.to_string(),
        "parent": one.parent.map(|parent| parent.to_string()),
        "name": one.name,
        "service": party_name(trace, at),
        "node": trace.node(at).map(|node| &node.name),
        "type": trace.node(at).map(|node| &node.kind),
        "kind": one.kind.name(),
        "calls": one.calls.as_ref().map(|node| &node.name),
        "start": seconds(one.start_ns / 1000),
        "start_ns": one.start_ns.to_string(),
        "end": one.end_ns.map(|end| seconds(end / 1000)),
        "duration_ms": one.end_ns.map(|end| milliseconds(end.saturating_sub(one.start_ns))),
        "in_progress": !one.complete(),
        "outcome": outcome.name(),
        "status": http.and_then(|http| http.status),
        "message": if outcome == Outcome::Ok { None } else { message(one.document.get("cause")) },
        "is_proxy": one.proxy.is_some(),
        "proxy": one.proxy.is_some(),
        "attributes": attributes(trace, at),
    })
}

/// Of the first exception.
fn message(cause: Option<&Value>) -> Option<&str> {
    cause?.get("exceptions")?.get(0)?.get("message")?.as_str()
}

/// Everything else that is known, under one roof.
fn attributes(trace: &Trace, at: usize) -> Value {
    let span = &trace.spans[at];
    let mut all = span.attributes.clone();
    all.extend(
        span.annotations
            .iter()
            .map(|(key, value)| (key.clone(), value.clone())),
    );
    let members: Map<String, Value> = span
        .document
        .iter()
        .filter(|(name, _)| *name != "name")
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    all.extend(members);
    if let Some(user) = &span.user {
        all.insert("user".to_owned(), json!(user));
    }
    Value::Object(all)
}

/// To the microsecond.
fn milliseconds(ns: u64) -> f64 {
    (ns / 1000) as f64 / 1000.0
}
