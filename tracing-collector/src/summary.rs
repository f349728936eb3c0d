// SPDX-License-Identifier: Apache-2.0
//! A trace in one row: everything a list of traces shows or selects by. Pure; made when a trace settles, kept by the
//! store, read by `query`.

pub(crate) mod causes;
pub(crate) mod parts;

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde_json::Value;

use crate::graph;
use crate::graph::Contribution;
use crate::span::Flags;
use crate::span::Http;
use crate::span::Node;
use crate::span::TraceId;
use crate::summary::causes::Causes;
use crate::summary::parts::Part;
use crate::trace::Trace;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) id: TraceId,
    pub(crate) start_us: u64,
    /// The latest end; the start while nothing has ended.
    pub(crate) end_us: u64,
    /// Of the root alone.
    pub(crate) response_us: Option<u64>,
    /// Of the root alone, but for the throttle, which any span may raise.
    pub(crate) flags: Flags,
    /// Whether anything in it failed, root or not.
    pub(crate) worst: Flags,
    pub(crate) partial: bool,
    pub(crate) http: Option<Http>,
    pub(crate) name: String,
    pub(crate) entry_point: Option<Node>,
    pub(crate) nodes: Vec<Node>,
    /// Names of the collapsed view.
    pub(crate) parties: Vec<String>,
    pub(crate) entry_party: Option<String>,
    pub(crate) annotations: Vec<Annotation>,
    pub(crate) users: Vec<(String, Vec<Node>)>,
    pub(crate) instances: Vec<String>,
    pub(crate) zones: Vec<String>,
    pub(crate) arns: Vec<String>,
    pub(crate) spans: u32,
    pub(crate) truncated: bool,
    pub(crate) revision: u32,
    /// What filters ask about, part by part.
    pub(crate) parts: Vec<Part>,
    pub(crate) causes: Causes,
}

impl Summary {
    /// The work of the service that began the trace.
    pub(crate) fn root_part(&self) -> Option<&Part> {
        self.parts
            .iter()
            .find(|part| part.root && part.source.is_none())
    }
}

/// One key with one of its values, and who set it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Annotation {
    pub(crate) key: String,
    pub(crate) value: Value,
    pub(crate) nodes: Vec<Node>,
}

/// A trace as the store keeps it once settled: its row, and what it added to the map.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Evaluated {
    pub(crate) summary: Summary,
    pub(crate) contributions: Vec<Contribution>,
}

/// Values of one annotation key beyond this are left out of the row.
const MAX_ANNOTATIONS: usize = 200;

pub(crate) fn evaluate(trace: &Trace, revision: u32, truncated: bool) -> Evaluated {
    let summary = Summary {
        revision,
        truncated,
        ..summarize(trace)
    };
    Evaluated {
        summary,
        contributions: graph::contributions(trace),
    }
}

fn summarize(trace: &Trace) -> Summary {
    let root = trace.root();
    let start_us = trace.spans.first().map_or(0, |span| span.start_ns / 1000);
    let end_us = trace
        .spans
        .iter()
        .filter_map(|span| span.end_ns)
        .max()
        .map_or(start_us, |end| end / 1000);
    let span = root.map(|root| &trace.spans[root]);
    let throttle = trace.spans.iter().any(|span| span.flags.throttle);
    let nodes: BTreeSet<Node> = (0..trace.spans.len())
        .flat_map(|at| {
            [
                trace.is_entry(at).then(|| trace.node(at)).flatten(),
                trace.inferred(at),
            ]
        })
        .flatten()
        .cloned()
        .collect();
    Summary {
        id: trace.id,
        start_us,
        end_us: end_us.max(start_us),
        response_us: span.and_then(|span| span.duration_us()),
        flags: Flags {
            throttle,
            ..span.map(|span| span.flags).unwrap_or_default()
        },
        worst: Flags {
            fault: trace.spans.iter().any(|span| span.flags.fault),
            error: trace.spans.iter().any(|span| span.flags.error),
            throttle,
        },
        partial: trace.spans.iter().any(|span| !span.complete()),
        http: span.and_then(|span| span.http.clone()),
        name: span
            .or(trace.spans.first())
            .map(|span| span.name.clone())
            .unwrap_or_default(),
        entry_point: root.and_then(|root| trace.node(root)).cloned(),
        nodes: nodes.into_iter().collect(),
        parties: graph::calls::party_names(trace).into_iter().collect(),
        entry_party: root.and_then(|root| graph::calls::party_name(trace, root)),
        annotations: annotations(trace),
        users: users(trace),
        instances: platform(trace, &["ec2", "instance_id"]),
        zones: platform(trace, &["ec2", "availability_zone"]),
        arns: arns(trace),
        spans: u32::try_from(trace.spans.len()).unwrap_or(u32::MAX),
        truncated: false,
        revision: 0,
        parts: parts::parts(trace),
        causes: causes::causes(trace),
    }
}

fn annotations(trace: &Trace) -> Vec<Annotation> {
    // By its text, for JSON numbers have no order.
    let mut found: BTreeMap<(String, String), (Value, BTreeSet<Node>)> = BTreeMap::new();
    for (at, span) in trace.spans.iter().enumerate() {
        for (key, value) in &span.annotations {
            if found.len() >= MAX_ANNOTATIONS {
                break;
            }
            let slot = found
                .entry((key.clone(), value.to_string()))
                .or_insert_with(|| (value.clone(), BTreeSet::new()));
            slot.1.extend(trace.node(at).cloned());
        }
    }
    found
        .into_iter()
        .map(|((key, _), (value, nodes))| Annotation {
            key,
            value,
            nodes: nodes.into_iter().collect(),
        })
        .collect()
}

fn users(trace: &Trace) -> Vec<(String, Vec<Node>)> {
    let mut found: BTreeMap<String, BTreeSet<Node>> = BTreeMap::new();
    for (at, span) in trace.spans.iter().enumerate() {
        if let Some(user) = &span.user {
            found
                .entry(user.clone())
                .or_default()
                .extend(trace.node(at).cloned());
        }
    }
    found
        .into_iter()
        .map(|(user, nodes)| (user, nodes.into_iter().collect()))
        .collect()
}

fn platform(trace: &Trace, path: &[&str]) -> Vec<String> {
    let at = |span: &crate::span::Span| {
        let mut value = span.document.get("aws")?;
        for step in path {
            value = value.get(step)?;
        }
        value.as_str().map(str::to_owned)
    };
    let found: BTreeSet<String> = trace.spans.iter().filter_map(at).collect();
    found.into_iter().collect()
}

fn arns(trace: &Trace) -> Vec<String> {
    let arn = |span: &crate::span::Span| {
        span.document
            .get("resource_arn")?
            .as_str()
            .map(str::to_owned)
    };
    let found: BTreeSet<String> = trace.spans.iter().filter_map(arn).collect();
    found.into_iter().collect()
}
