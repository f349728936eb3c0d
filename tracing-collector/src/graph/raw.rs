// SPDX-License-Identifier: Apache-2.0
//! The service map as X-Ray draws it: a node counts its own work, an edge what its caller measured, a `client` stands
//! before each root, and a call into silence gets an inferred node.

use std::collections::BTreeSet;

use crate::graph::CLIENT_TYPE;
use crate::graph::Contribution;
use crate::graph::Key;
use crate::span::Node;
use crate::trace::Trace;

pub(super) fn contributions(trace: &Trace) -> Vec<Contribution> {
    let ends = share_ends(trace);
    let mut found = Vec::new();
    for (at, share_end) in ends.into_iter().enumerate() {
        let Some(node) = trace.node(at) else { continue };
        if trace.is_entry(at) {
            found.extend(own_work(trace, at, node, share_end));
            found.extend(edge_by_callee(trace, at, node));
        }
        found.extend(calls(trace, at, node));
    }
    found
}

/// For each entry, when the last of its parts ended.
pub(crate) fn share_ends(trace: &Trace) -> Vec<u64> {
    let mut ends = vec![0; trace.spans.len()];
    for (at, span) in trace.spans.iter().enumerate() {
        if let (Some(share), Some(end)) = (trace.share(at), span.end_ns) {
            ends[share] = ends[share].max(end);
        }
    }
    ends
}

fn own_work(trace: &Trace, at: usize, node: &Node, share_end: u64) -> Option<Contribution> {
    let span = &trace.spans[at];
    let own = Contribution::of(Key::Node(node.clone()), span)?;
    let duration_us = share_end.saturating_sub(span.start_ns) / 1000;
    Some(Contribution {
        duration_us,
        root: trace.parent(at).is_none(),
        ..own
    })
}

/// Who called an entry whose call nobody measured.
pub(crate) fn caller(trace: &Trace, at: usize, node: &Node) -> Option<Node> {
    match trace.parent(at) {
        None => Some(Node::new(&node.name, CLIENT_TYPE)),
        Some(parent) if trace.spans[parent].calls.is_some() => None,
        Some(parent) => trace.node(parent).filter(|source| *source != node).cloned(),
    }
}

/// Where no caller measured the call, the callee's own times stand for it: before a root, and where a service's work
/// (not a call of it) is the parent, as between the two halves of a Lambda function.
fn edge_by_callee(trace: &Trace, at: usize, node: &Node) -> Option<Contribution> {
    let source = caller(trace, at, node)?;
    Contribution::of(
        Key::Edge {
            source,
            target: node.clone(),
        },
        &trace.spans[at],
    )
}

fn calls(trace: &Trace, at: usize, source: &Node) -> Vec<Contribution> {
    let span = &trace.spans[at];
    if span.calls.is_none() {
        return Vec::new();
    }
    let edge = |target: &Node| {
        Contribution::of(
            Key::Edge {
                source: source.clone(),
                target: target.clone(),
            },
            span,
        )
    };
    if let Some(target) = trace.inferred(at) {
        let node = Contribution::of(Key::Node(target.clone()), span);
        let node = node.map(|node| Contribution {
            inferred: true,
            ..node
        });
        return node.into_iter().chain(edge(target)).collect();
    }
    reached(trace, at).into_iter().filter_map(edge).collect()
}

/// The services that a call is known to have reached.
pub(crate) fn reached(trace: &Trace, at: usize) -> BTreeSet<&Node> {
    trace.spans[at]
        .calls
        .iter()
        .flat_map(|_| trace.entry_children(at))
        .filter_map(|child| trace.node(child))
        .collect()
}
