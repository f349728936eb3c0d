// SPDX-License-Identifier: Apache-2.0
//! The record of one settled trace: its row and what it added to the map. Its id stands in the key.

use prost::Message;

use crate::graph::Contribution;
use crate::span::Http;
use crate::span::Node;
use crate::span::Outcome;
use crate::span::TraceId;
use crate::store::record::HttpRecord;
use crate::store::record::NodeRecord;
use crate::store::record::decode_key;
use crate::store::record::encode_key;
use crate::store::record::flags_in;
use crate::store::record::flags_out;
use crate::store::record::parts::PartsRecord;
use crate::store::record::parts::parts_in;
use crate::store::record::parts::parts_out;
use crate::store::record::place;
use crate::summary::Annotation;
use crate::summary::Evaluated;
use crate::summary::Summary;

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
    /// Absent in rows written before parts were kept; those are made anew from their spans when read.
    #[prost(message, optional, tag = "22")]
    parts: Option<PartsRecord>,
}

const OUTCOMES: [Outcome; 4] = [
    Outcome::Ok,
    Outcome::Error,
    Outcome::Throttle,
    Outcome::Fault,
];

fn nodes_out(nodes: &[Node]) -> Vec<NodeRecord> {
    nodes.iter().map(NodeRecord::from).collect()
}

fn nodes_in(records: Vec<NodeRecord>) -> Vec<Node> {
    records.into_iter().map(Node::from).collect()
}

/// A row as it was written before parts were kept.
#[cfg(test)]
pub(in crate::store) fn encode_trace_without_parts(evaluated: &Evaluated) -> Vec<u8> {
    let bytes = encode_trace(evaluated);
    let record = TraceRecord::decode(bytes.as_slice()).expect("just encoded");
    TraceRecord {
        parts: None,
        ..record
    }
    .encode_to_vec()
}

pub(in crate::store) fn encode_trace(evaluated: &Evaluated) -> Vec<u8> {
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
        parts: Some(parts_out(&summary.parts, &summary.causes)),
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

/// A row, and whether it has everything that rows have today.
pub(in crate::store) fn decode_trace(id: TraceId, bytes: &[u8]) -> Option<(Evaluated, bool)> {
    let record = TraceRecord::decode(bytes).ok()?;
    let annotation = |one: AnnotationRecord| {
        Some(Annotation {
            value: serde_json::from_str(&one.value).ok()?,
            key: one.key,
            nodes: nodes_in(one.nodes),
        })
    };
    let whole = record.parts.is_some();
    let (parts, causes) = parts_in(record.parts.unwrap_or_default())?;
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
        parts,
        causes,
    };
    let contributions = record
        .contributions
        .iter()
        .map(contribution_in)
        .collect::<Option<_>>()?;
    let evaluated = Evaluated {
        summary,
        contributions,
    };
    Some((evaluated, whole))
}
