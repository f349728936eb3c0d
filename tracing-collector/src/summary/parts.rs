// SPDX-License-Identifier: Apache-2.0
//! The parts of a trace that a filter may speak of one by one: each service's own work, and each call on an edge of the
//! map. Pure; part of a trace's row.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::graph::raw;
use crate::span::Flags;
use crate::span::Http;
use crate::span::Node;
use crate::span::Span;
use crate::trace::Trace;

/// What a trace has beyond this cannot be filtered by.
const MAX_PARTS: usize = 1000;
const MAX_ANNOTATIONS: usize = 50;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    /// The caller, when this is a call; `None` for a service's own work.
    pub(crate) source: Option<Node>,
    pub(crate) node: Node,
    pub(crate) flags: Flags,
    pub(crate) complete: bool,
    pub(crate) inferred: bool,
    pub(crate) root: bool,
    pub(crate) end_us: u64,
    pub(crate) response_us: Option<u64>,
    pub(crate) duration_us: Option<u64>,
    pub(crate) http: Option<Http>,
    pub(crate) user: Option<String>,
    pub(crate) instance: Option<String>,
    pub(crate) zone: Option<String>,
    pub(crate) arn: Option<String>,
    pub(crate) annotations: Vec<(String, Value)>,
}

pub(super) fn parts(trace: &Trace) -> Vec<Part> {
    let ends = raw::share_ends(trace);
    let mut shares = annotations_by_share(trace);
    let root = trace.root();
    let mut found = Vec::new();
    for (at, end_ns) in ends.into_iter().enumerate() {
        if found.len() >= MAX_PARTS {
            break;
        }
        let Some(node) = trace.node(at) else { continue };
        let span = &trace.spans[at];
        if trace.is_entry(at) {
            let own = Part {
                root: root == Some(at),
                duration_us: span
                    .complete()
                    .then(|| end_ns.saturating_sub(span.start_ns) / 1000),
                annotations: shares.remove(&at).unwrap_or_default(),
                ..part(None, node, span)
            };
            found.extend(raw::caller(trace, at, node).map(|source| Part {
                source: Some(source),
                ..own.clone()
            }));
            found.push(own);
        }
        let mut call = |target: &Node| {
            found.push(Part {
                annotations: annotations(span),
                ..part(Some(node), target, span)
            });
        };
        raw::reached(trace, at).into_iter().for_each(&mut call);
        if let Some(target) = trace.inferred(at) {
            call(target);
            found.push(Part {
                inferred: true,
                ..part(None, target, span)
            });
        }
    }
    found.truncate(MAX_PARTS);
    found
}

fn part(source: Option<&Node>, node: &Node, span: &Span) -> Part {
    let aws = |path: [&str; 2]| {
        let value = span.document.get("aws")?.get(path[0])?.get(path[1])?;
        value.as_str().map(str::to_owned)
    };
    Part {
        source: source.cloned(),
        node: node.clone(),
        flags: span.flags,
        complete: span.complete(),
        inferred: false,
        root: false,
        end_us: span.end_ns.unwrap_or(span.start_ns) / 1000,
        response_us: span.duration_us(),
        duration_us: span.duration_us(),
        http: span.http.clone(),
        user: span.user.clone(),
        instance: aws(["ec2", "instance_id"]),
        zone: aws(["ec2", "availability_zone"]),
        arn: span
            .document
            .get("resource_arn")
            .and_then(Value::as_str)
            .map(str::to_owned),
        annotations: Vec::new(),
    }
}

fn annotations(span: &Span) -> Vec<(String, Value)> {
    span.annotations
        .iter()
        .take(MAX_ANNOTATIONS)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// What was noted anywhere in a service's share is noted of its work.
fn annotations_by_share(trace: &Trace) -> BTreeMap<usize, Vec<(String, Value)>> {
    let mut found: BTreeMap<usize, Vec<(String, Value)>> = BTreeMap::new();
    for (at, span) in trace.spans.iter().enumerate() {
        if span.annotations.is_empty() {
            continue;
        }
        if let Some(share) = trace.share(at) {
            let all = found.entry(share).or_default();
            all.extend(annotations(span));
            all.truncate(MAX_ANNOTATIONS);
        }
    }
    found
}
