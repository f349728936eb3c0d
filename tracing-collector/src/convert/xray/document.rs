// SPDX-License-Identifier: Apache-2.0
//! Spans to X-Ray documents, as BatchGetTraces returns them: one per segment with its parts embedded, one per inferred
//! segment, one per part whose parent has not come. Called by `query::traces`.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use sha2::Digest;
use sha2::Sha256;

use crate::span::Http;
use crate::span::Kind;
use crate::span::Node;
use crate::span::Span;
use crate::span::SpanId;
use crate::span::UNKNOWN_TYPE;
use crate::span::seconds;
use crate::trace::Trace;

/// Deeper parts become documents of their own: strangers decide the depth, and readers recurse.
const MAX_DEPTH: usize = 64;

/// Members of the document format that are kept as they came.
const KEPT: [&str; 11] = [
    "aws",
    "cause",
    "http",
    "links",
    "metadata",
    "namespace",
    "origin",
    "precursor_ids",
    "resource_arn",
    "service",
    "sql",
];

/// Drops what the document format does not know, and what spans hold in fields of their own.
pub(super) fn known(members: Map<String, Value>) -> Map<String, Value> {
    members
        .into_iter()
        .filter(|(name, value)| KEPT.contains(&name.as_str()) && !value.is_null())
        .collect()
}

/// One document and the id it is listed under.
pub(crate) struct Document {
    pub(crate) id: SpanId,
    pub(crate) json: Value,
}

/// Every document of a trace, entries first.
pub(crate) fn documents(trace: &Trace) -> Vec<Document> {
    let mut writer = Writer {
        trace,
        written: vec![false; trace.spans.len()],
    };
    let mut found: Vec<Document> = trace
        .entries()
        .collect::<Vec<_>>()
        .into_iter()
        .map(|at| writer.top(at))
        .collect();
    found.extend((0..trace.spans.len()).filter_map(|at| inferred(trace, at)));
    // What no entry holds: parts without a parent first, so that they hold their own parts, then circles and depths.
    for orphan in [true, false] {
        for at in 0..trace.spans.len() {
            if !writer.written[at] && (trace.parent(at).is_none() || !orphan) {
                found.push(writer.top(at));
            }
        }
    }
    found
}

struct Writer<'t> {
    trace: &'t Trace,
    written: Vec<bool>,
}

impl Writer<'_> {
    fn top(&mut self, at: usize) -> Document {
        let span = &self.trace.spans[at];
        let mut members = self.members(at, 0);
        members.insert("trace_id".to_owned(), json!(span.trace.xray()));
        if let Some(parent) = span.parent {
            members.insert("parent_id".to_owned(), json!(parent.to_string()));
        }
        if self.trace.is_entry(at) {
            self.as_segment(at, &mut members);
        } else {
            members.insert("type".to_owned(), json!("subsegment"));
        }
        Document {
            id: span.id,
            json: Value::Object(members),
        }
    }

    /// A segment is named for its service, and says what kind of thing it runs on.
    fn as_segment(&self, at: usize, members: &mut Map<String, Value>) {
        members.remove("namespace");
        if let Some(node) = self.trace.node(at) {
            members.insert("name".to_owned(), json!(node.name));
            if node.kind != UNKNOWN_TYPE {
                members.insert("origin".to_owned(), json!(node.kind));
            }
        }
    }

    fn members(&mut self, at: usize, depth: usize) -> Map<String, Value> {
        self.written[at] = true;
        let trace = self.trace;
        let mut members = own_members(&trace.spans[at]);
        if depth < MAX_DEPTH {
            let parts: Vec<usize> = trace
                .children(at)
                .iter()
                .copied()
                .filter(|child| !trace.is_entry(*child))
                .collect();
            let mut embedded = Vec::new();
            for part in parts {
                if !self.written[part] {
                    embedded.push(Value::Object(self.members(part, depth + 1)));
                }
            }
            if !embedded.is_empty() {
                members.insert("subsegments".to_owned(), Value::Array(embedded));
            }
        }
        members
    }
}

fn own_members(span: &Span) -> Map<String, Value> {
    let mut members = span.document.clone();
    let mut put = |name: &str, value: Value| {
        members.insert(name.to_owned(), value);
    };
    put("id", json!(span.id.to_string()));
    // OTLP operations have names that are no names of documents; `convert::otlp` says what to write.
    if !span.document.contains_key("name") {
        put("name", json!(span.name));
    }
    put("start_time", json!(seconds(span.start_ns / 1000)));
    match span.end_ns {
        Some(end) => put("end_time", json!(seconds(end / 1000))),
        None => put("in_progress", json!(true)),
    }
    for (name, set) in [
        ("fault", span.flags.fault),
        ("error", span.flags.error),
        ("throttle", span.flags.throttle),
    ] {
        if set {
            put(name, json!(true));
        }
    }
    if let Some(user) = &span.user {
        put("user", json!(user));
    }
    if !span.annotations.is_empty() {
        put("annotations", json!(span.annotations));
    }
    if !span.attributes.is_empty() {
        put("metadata", json!({"default": span.attributes}));
    }
    if let Some(http) = span
        .http
        .as_ref()
        .filter(|_| !span.document.contains_key("http"))
    {
        put("http", http_member(http));
    }
    if span.kind == Kind::Client && !span.document.contains_key("namespace") {
        put("namespace", json!("remote"));
    }
    members
}

fn http_member(http: &Http) -> Value {
    let mut request = Map::new();
    for (name, value) in [
        ("method", &http.method),
        ("url", &http.url),
        ("user_agent", &http.user_agent),
        ("client_ip", &http.client_ip),
    ] {
        if let Some(value) = value {
            request.insert(name.to_owned(), json!(value));
        }
    }
    let mut members = Map::from_iter([("request".to_owned(), Value::Object(request))]);
    if let Some(status) = http.status {
        members.insert("response".to_owned(), json!({"status": status}));
    }
    Value::Object(members)
}

/// The segment that a silent callee would have sent, as far as its caller knows it.
fn inferred(trace: &Trace, at: usize) -> Option<Document> {
    let Node { kind, .. } = trace.inferred(at)?;
    let span = &trace.spans[at];
    let id = inferred_id(span);
    let mut members = own_members(span);
    for part in [
        "annotations",
        "metadata",
        "namespace",
        "user",
        "cause",
        "links",
    ] {
        members.remove(part);
    }
    members.insert("id".to_owned(), json!(id.to_string()));
    members.insert("trace_id".to_owned(), json!(span.trace.xray()));
    members.insert("parent_id".to_owned(), json!(span.id.to_string()));
    members.insert("origin".to_owned(), json!(kind));
    members.insert("inferred".to_owned(), json!(true));
    Some(Document {
        id,
        json: Value::Object(members),
    })
}

/// Stable, so that a reader who asks twice sees one segment.
fn inferred_id(span: &Span) -> SpanId {
    let mut hash = Sha256::new();
    hash.update(span.trace.0.to_be_bytes());
    hash.update(span.id.0.to_be_bytes());
    let digest = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    SpanId(u64::from_be_bytes(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::TraceId;
    use crate::trace::tests::span;

    #[test]
    fn parts_sent_alone_are_embedded_and_orphans_stay_documents_of_their_own() {
        let spans = vec![
            Span {
                entry: true,
                ..span(1, 0, "a")
            },
            span(2, 1, ""),
            span(3, 2, ""),
            span(4, 9, ""),
        ];
        let found = documents(&Trace::assemble(TraceId(1), spans));
        assert_eq!(found.len(), 2);
        assert_eq!(
            found[0].json["subsegments"][0]["subsegments"][0]["id"],
            "0000000000000003"
        );
        assert_eq!(found[1].json["type"], "subsegment");
    }

    #[test]
    fn every_span_is_in_exactly_one_document_however_deep_or_circular_its_parents() {
        let mut spans = vec![
            Span {
                entry: true,
                ..span(1, 0, "a")
            },
            span(1001, 1002, ""),
            span(1002, 1001, ""),
        ];
        spans.extend((2..=300).map(|id| span(id, id - 1, "")));
        let found = documents(&Trace::assemble(TraceId(1), spans));
        let text: String = found
            .iter()
            .map(|document| document.json.to_string())
            .collect();
        assert_eq!(text.matches("\"id\":").count(), 302);
    }
}
