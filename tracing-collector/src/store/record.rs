// SPDX-License-Identifier: Apache-2.0
//! What stands on disk: protobuf messages of the store's own, so that fields can be added and old days stay readable.
//! Field numbers are never reused. Only `store::disk` knows this file.

use prost::Message;
use serde_json::Map;
use serde_json::Value;

use crate::graph::Contribution;
use crate::graph::Key;
use crate::graph::counters::Bounds;
use crate::graph::counters::Counters;
use crate::span::Flags;
use crate::span::Http;
use crate::span::Kind;
use crate::span::Node;
use crate::span::Outcome;
use crate::span::Proxy;
use crate::span::Span;
use crate::span::SpanId;
use crate::span::TraceId;
use crate::summary::Annotation;
use crate::summary::Evaluated;
use crate::summary::Summary;

#[derive(Clone, PartialEq, Message)]
struct NodeRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    kind: String,
}

#[derive(Clone, PartialEq, Message)]
struct HttpRecord {
    #[prost(string, optional, tag = "1")]
    method: Option<String>,
    #[prost(string, optional, tag = "2")]
    url: Option<String>,
    #[prost(uint32, optional, tag = "3")]
    status: Option<u32>,
    #[prost(string, optional, tag = "4")]
    user_agent: Option<String>,
    #[prost(string, optional, tag = "5")]
    client_ip: Option<String>,
}

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

#[derive(Clone, PartialEq, Message)]
struct ContributionRecord {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(uint64, tag = "2")]
    end_us: u64,
    #[prost(uint64, tag = "3")]
    response_us: u64,
    #[prost(uint64, tag = "4")]
    duration_us: u64,
    #[prost(uint32, tag = "5")]
    outcome: u32,
    #[prost(bool, tag = "6")]
    root: bool,
    #[prost(bool, tag = "7")]
    inferred: bool,
    #[prost(uint64, optional, tag = "8")]
    between_us: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct AnnotationRecord {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
    #[prost(message, repeated, tag = "3")]
    nodes: Vec<NodeRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct TraceRecord {
    #[prost(uint64, tag = "1")]
    start_us: u64,
    #[prost(uint64, tag = "2")]
    end_us: u64,
    #[prost(uint64, optional, tag = "3")]
    response_us: Option<u64>,
    #[prost(uint32, tag = "4")]
    flags: u32,
    #[prost(uint32, tag = "5")]
    worst: u32,
    #[prost(bool, tag = "6")]
    partial: bool,
    #[prost(message, optional, tag = "7")]
    http: Option<HttpRecord>,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(message, optional, tag = "9")]
    entry_point: Option<NodeRecord>,
    #[prost(message, repeated, tag = "10")]
    nodes: Vec<NodeRecord>,
    #[prost(string, repeated, tag = "11")]
    parties: Vec<String>,
    #[prost(string, optional, tag = "12")]
    entry_party: Option<String>,
    #[prost(message, repeated, tag = "13")]
    annotations: Vec<AnnotationRecord>,
    /// As annotations: the user is the key.
    #[prost(message, repeated, tag = "14")]
    users: Vec<AnnotationRecord>,
    #[prost(string, repeated, tag = "15")]
    instances: Vec<String>,
    #[prost(string, repeated, tag = "16")]
    zones: Vec<String>,
    #[prost(string, repeated, tag = "17")]
    arns: Vec<String>,
    #[prost(uint32, tag = "18")]
    spans: u32,
    #[prost(bool, tag = "19")]
    truncated: bool,
    #[prost(uint32, tag = "20")]
    revision: u32,
    #[prost(message, repeated, tag = "21")]
    contributions: Vec<ContributionRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct CountersRecord {
    #[prost(sint64, repeated, tag = "1")]
    sums: Vec<i64>,
    #[prost(uint64, repeated, tag = "2")]
    response_buckets: Vec<u64>,
    #[prost(sint64, repeated, tag = "3")]
    response_counts: Vec<i64>,
    #[prost(uint64, repeated, tag = "4")]
    duration_buckets: Vec<u64>,
    #[prost(sint64, repeated, tag = "5")]
    duration_counts: Vec<i64>,
    #[prost(uint64, repeated, tag = "6")]
    bounds: Vec<u64>,
}

impl From<&Node> for NodeRecord {
    fn from(node: &Node) -> NodeRecord {
        NodeRecord {
            name: node.name.clone(),
            kind: node.kind.clone(),
        }
    }
}

impl From<NodeRecord> for Node {
    fn from(record: NodeRecord) -> Node {
        Node {
            name: record.name,
            kind: record.kind,
        }
    }
}

impl From<&Http> for HttpRecord {
    fn from(http: &Http) -> HttpRecord {
        HttpRecord {
            method: http.method.clone(),
            url: http.url.clone(),
            status: http.status.map(u32::from),
            user_agent: http.user_agent.clone(),
            client_ip: http.client_ip.clone(),
        }
    }
}

impl From<HttpRecord> for Http {
    fn from(record: HttpRecord) -> Http {
        Http {
            method: record.method,
            url: record.url,
            status: record.status.and_then(|status| u16::try_from(status).ok()),
            user_agent: record.user_agent,
            client_ip: record.client_ip,
        }
    }
}

fn flags_out(flags: Flags) -> u32 {
    u32::from(flags.fault) | u32::from(flags.error) << 1 | u32::from(flags.throttle) << 2
}

fn flags_in(bits: u32) -> Flags {
    Flags {
        fault: bits & 1 != 0,
        error: bits & 2 != 0,
        throttle: bits & 4 != 0,
    }
}

const KINDS: [Kind; 5] = [
    Kind::Internal,
    Kind::Server,
    Kind::Client,
    Kind::Producer,
    Kind::Consumer,
];
const OUTCOMES: [Outcome; 4] = [
    Outcome::Ok,
    Outcome::Error,
    Outcome::Throttle,
    Outcome::Fault,
];

fn place<T: PartialEq>(all: &[T], one: &T) -> u32 {
    all.iter()
        .position(|other| other == one)
        .map_or(0, |at| at as u32)
}

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

pub(super) fn encode_span(span: &Span) -> Vec<u8> {
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

pub(super) fn decode_span(trace: TraceId, id: SpanId, bytes: &[u8]) -> Option<Span> {
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

/// Kind, then each part with its length before it.
pub(super) fn encode_key(key: &Key) -> Vec<u8> {
    let (kind, parts) = match key {
        Key::Node(node) => (0, vec![&node.name, &node.kind]),
        Key::Edge { source, target } => (
            1,
            vec![&source.name, &source.kind, &target.name, &target.kind],
        ),
        Key::Party(node) => (2, vec![&node.name, &node.kind]),
        Key::Calls { source, target } => (3, vec![source, target]),
    };
    let mut bytes = vec![kind];
    for part in parts {
        bytes.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend(part.as_bytes());
    }
    bytes
}

pub(super) fn decode_key(bytes: &[u8]) -> Option<Key> {
    let (kind, mut rest) = bytes.split_first()?;
    let mut part = || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (text, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        rest = after;
        String::from_utf8(text.to_vec()).ok()
    };
    Some(match kind {
        0 => Key::Node(Node {
            name: part()?,
            kind: part()?,
        }),
        1 => Key::Edge {
            source: Node {
                name: part()?,
                kind: part()?,
            },
            target: Node {
                name: part()?,
                kind: part()?,
            },
        },
        2 => Key::Party(Node {
            name: part()?,
            kind: part()?,
        }),
        3 => Key::Calls {
            source: part()?,
            target: part()?,
        },
        _ => return None,
    })
}

fn nodes_out(nodes: &[Node]) -> Vec<NodeRecord> {
    nodes.iter().map(NodeRecord::from).collect()
}

fn nodes_in(records: Vec<NodeRecord>) -> Vec<Node> {
    records.into_iter().map(Node::from).collect()
}

pub(super) fn encode_trace(evaluated: &Evaluated) -> Vec<u8> {
    let Summary {
        id: _,
        flags,
        worst,
        ..
    } = evaluated.summary;
    let summary = evaluated.summary.clone();
    let annotation = |one: &Annotation| AnnotationRecord {
        key: one.key.clone(),
        value: one.value.to_string(),
        nodes: nodes_out(&one.nodes),
    };
    let user = |(user, nodes): &(String, Vec<Node>)| AnnotationRecord {
        key: user.clone(),
        value: String::new(),
        nodes: nodes_out(nodes),
    };
    let record = TraceRecord {
        start_us: summary.start_us,
        end_us: summary.end_us,
        response_us: summary.response_us,
        flags: flags_out(flags),
        worst: flags_out(worst),
        partial: summary.partial,
        http: summary.http.as_ref().map(HttpRecord::from),
        name: summary.name,
        entry_point: summary.entry_point.as_ref().map(NodeRecord::from),
        nodes: nodes_out(&summary.nodes),
        parties: summary.parties,
        entry_party: summary.entry_party,
        annotations: summary.annotations.iter().map(annotation).collect(),
        users: summary.users.iter().map(user).collect(),
        instances: summary.instances,
        zones: summary.zones,
        arns: summary.arns,
        spans: summary.spans,
        truncated: summary.truncated,
        revision: summary.revision,
        contributions: evaluated
            .contributions
            .iter()
            .map(contribution_out)
            .collect(),
    };
    record.encode_to_vec()
}

fn contribution_out(one: &Contribution) -> ContributionRecord {
    ContributionRecord {
        key: encode_key(&one.key),
        end_us: one.end_us,
        response_us: one.response_us,
        duration_us: one.duration_us,
        outcome: place(&OUTCOMES, &one.outcome),
        root: one.root,
        inferred: one.inferred,
        between_us: one.between_us,
    }
}

fn contribution_in(record: &ContributionRecord) -> Option<Contribution> {
    Some(Contribution {
        key: decode_key(&record.key)?,
        end_us: record.end_us,
        response_us: record.response_us,
        duration_us: record.duration_us,
        outcome: *OUTCOMES.get(record.outcome as usize)?,
        root: record.root,
        inferred: record.inferred,
        between_us: record.between_us,
    })
}

pub(super) fn decode_trace(id: TraceId, bytes: &[u8]) -> Option<Evaluated> {
    let record = TraceRecord::decode(bytes).ok()?;
    let annotation = |one: AnnotationRecord| {
        Some(Annotation {
            value: serde_json::from_str(&one.value).ok()?,
            key: one.key,
            nodes: nodes_in(one.nodes),
        })
    };
    let summary = Summary {
        id,
        start_us: record.start_us,
        end_us: record.end_us,
        response_us: record.response_us,
        flags: flags_in(record.flags),
        worst: flags_in(record.worst),
        partial: record.partial,
        http: record.http.map(Http::from),
        name: record.name,
        entry_point: record.entry_point.map(Node::from),
        nodes: nodes_in(record.nodes),
        parties: record.parties,
        entry_party: record.entry_party,
        annotations: record
            .annotations
            .into_iter()
            .map(annotation)
            .collect::<Option<_>>()?,
        users: record
            .users
            .into_iter()
            .map(|one| (one.key, nodes_in(one.nodes)))
            .collect(),
        instances: record.instances,
        zones: record.zones,
        arns: record.arns,
        spans: record.spans,
        truncated: record.truncated,
        revision: record.revision,
    };
    let contributions = record
        .contributions
        .iter()
        .map(contribution_in)
        .collect::<Option<_>>()?;
    Some(Evaluated {
        summary,
        contributions,
    })
}

pub(super) fn encode_counters(counters: &Counters) -> Vec<u8> {
    let (response_buckets, response_counts) = counters.responses.buckets().unzip();
    let (duration_buckets, duration_counts) = counters.durations.buckets().unzip();
    let bounds = counters.bounds.map(|bounds| {
        vec![
            bounds.first_start_us,
            bounds.first_end_us,
            bounds.last_end_us,
        ]
    });
    let record = CountersRecord {
        sums: vec![
            counters.ok,
            counters.error,
            counters.throttle,
            counters.fault,
            counters.response_us,
            counters.roots,
            counters.inferred,
            counters.between_us,
            counters.between_count,
        ],
        response_buckets,
        response_counts,
        duration_buckets,
        duration_counts,
        bounds: bounds.unwrap_or_default(),
    };
    record.encode_to_vec()
}

pub(super) fn decode_counters(bytes: &[u8]) -> Option<Counters> {
    let record = CountersRecord::decode(bytes).ok()?;
    let &[
        ok,
        error,
        throttle,
        fault,
        response_us,
        roots,
        inferred,
        between_us,
        between_count,
    ] = record.sums.get(..9)?
    else {
        return None;
    };
    let bounds = match record.bounds[..] {
        [first_start_us, first_end_us, last_end_us] => Some(Bounds {
            first_start_us,
            first_end_us,
            last_end_us,
        }),
        _ => None,
    };
    let mut counters = Counters {
        ok,
        error,
        throttle,
        fault,
        response_us,
        roots,
        inferred,
        between_us,
        between_count,
        bounds,
        ..Counters::default()
    };
    for (bucket, count) in record
        .response_buckets
        .into_iter()
        .zip(record.response_counts)
    {
        counters.responses.put(bucket, count);
    }
    for (bucket, count) in record
        .duration_buckets
        .into_iter()
        .zip(record.duration_counts)
    {
        counters.durations.put(bucket, count);
    }
    Some(counters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::xray;
    use crate::summary::evaluate;
    use crate::trace::Trace;

    #[test]
    fn spans_rows_and_counts_come_back_as_they_were_written() {
        let documents: Vec<Value> =
            serde_json::from_str(include_str!("../../tests/fixtures/scorekeep.json"))
                .expect("JSON");
        let spans: Vec<Span> = documents
            .iter()
            .flat_map(|document| {
                xray::parse(document.to_string().as_bytes())
                    .expect("valid")
                    .spans
            })
            .collect();
        for span in &spans {
            assert_eq!(
                decode_span(span.trace, span.id, &encode_span(span)).as_ref(),
                Some(span)
            );
        }
        let evaluated = evaluate(&Trace::assemble(spans[0].trace, spans), 3, true);
        let id = evaluated.summary.id;
        assert_eq!(
            decode_trace(id, &encode_trace(&evaluated)).as_ref(),
            Some(&evaluated)
        );
        let mut counters = Counters::default();
        for contribution in &evaluated.contributions {
            counters.add(contribution);
        }
        assert_eq!(decode_counters(&encode_counters(&counters)), Some(counters));
    }

    #[test]
    fn damaged_bytes_are_no_record() {
        assert_eq!(decode_key(&[1, 0, 0, 0, 9, b'a']), None);
        assert_eq!(decode_counters(&[0xff]), None);
        assert!(decode_trace(TraceId(1), &[0xff]).is_none());
    }
}
