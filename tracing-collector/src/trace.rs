// SPDX-License-Identifier: Apache-2.0
//! Spans of one trace put together, whatever order they arrived in: who is whose child, whose work each span is, what
//! begins a service's share, which calls ended at something that sent nothing. Pure. The service map, the summaries
//! and the documents are all read off this one arrangement, so that they cannot disagree.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde_json::Value;

use crate::span::Node;
use crate::span::Span;
use crate::span::SpanId;
use crate::span::TraceId;

/// Positions index [`Trace::spans`].
pub(crate) struct Trace {
    pub(crate) id: TraceId,
    /// Sorted by start, then id: the arrangement does not depend on arrival.
    pub(crate) spans: Vec<Span>,
    parent: Vec<Option<usize>>,
    children: Vec<Vec<usize>>,
    /// The span whose `service` a span's work belongs to.
    owner: Vec<Option<usize>>,
    entry: Vec<bool>,
    /// The nearest entry at or above a span.
    share: Vec<Option<usize>>,
}

impl Trace {
    /// `spans` in order of arrival: a later complete span replaces an earlier one of its id, and one in progress never
    /// replaces a complete one.
    pub(crate) fn assemble(id: TraceId, spans: Vec<Span>) -> Trace {
        let spans = merge(spans);
        let place: HashMap<SpanId, usize> = spans
            .iter()
            .enumerate()
            .map(|(at, span)| (span.id, at))
            .collect();
        let halves = shared_halves(&spans);
        let parent: Vec<Option<usize>> = spans
            .iter()
            .enumerate()
            .map(|(at, span)| {
                let id = span.parent?;
                let half = span.service.as_ref().and_then(|own| halves.get(&(id, own)));
                half.filter(|half| **half != at)
                    .or(place.get(&id))
                    .copied()
                    .filter(|parent| *parent != at)
            })
            .collect();
        let mut children = vec![Vec::new(); spans.len()];
        for (at, parent) in parent.iter().enumerate() {
            if let Some(parent) = parent {
                children[*parent].push(at);
            }
        }
        let owner = nearest(&parent, |at| spans[at].service.is_some());
        let mut trace = Trace {
            id,
            spans,
            parent,
            children,
            owner,
            entry: Vec::new(),
            share: Vec::new(),
        };
        trace.entry = (0..trace.spans.len())
            .map(|at| trace.begins_share(at))
            .collect();
        trace.share = nearest(&trace.parent, |at| trace.entry[at]);
        trace
    }

    /// Besides spans that say so: a span whose parent is another service's work (its own server span is missing), and
    /// a proxy's call whose cause sent nothing.
    fn begins_share(&self, at: usize) -> bool {
        let span = &self.spans[at];
        if span.entry {
            return true;
        }
        match (&span.service, self.parent[at]) {
            (None, _) => false,
            (Some(_), None) => span.proxy.is_some(),
            (Some(own), Some(parent)) => self.node(parent).is_some_and(|other| other != own),
        }
    }

    pub(crate) fn parent(&self, at: usize) -> Option<usize> {
        self.parent[at]
    }

    pub(crate) fn children(&self, at: usize) -> &[usize] {
        &self.children[at]
    }

    pub(crate) fn is_entry(&self, at: usize) -> bool {
        self.entry[at]
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.spans.len()).filter(|at| self.entry[*at])
    }

    pub(crate) fn entry_children(&self, at: usize) -> impl Iterator<Item = usize> + '_ {
        self.children[at]
            .iter()
            .copied()
            .filter(|child| self.entry[*child])
    }

    /// The entry a span is part of.
    pub(crate) fn share(&self, at: usize) -> Option<usize> {
        self.share[at]
    }

    /// Whose work the span is; unknown for a part whose parents have not come.
    pub(crate) fn node(&self, at: usize) -> Option<&Node> {
        self.owner[at].and_then(|owner| self.spans[owner].service.as_ref())
    }

    /// The span that a proxy's mark would stand on, for parts sent alone as well.
    pub(crate) fn owner(&self, at: usize) -> Option<&Span> {
        self.owner[at].map(|owner| &self.spans[owner])
    }

    /// Whom a call reached when nothing came from there.
    pub(crate) fn inferred(&self, at: usize) -> Option<&Node> {
        self.spans[at]
            .calls
            .as_ref()
            .filter(|_| self.entry_children(at).next().is_none())
    }

    /// Whether some entry says that nobody called it: then the trace's beginning is here.
    pub(crate) fn has_beginning(&self) -> bool {
        self.entries().any(|at| self.spans[at].parent.is_none())
    }

    /// The entry without a parent in the trace that began first; what users mean by "the request".
    pub(crate) fn root(&self) -> Option<usize> {
        self.entries()
            .find(|at| self.parent[*at].is_none())
            .or_else(|| self.entries().next())
    }
}

/// The attribute of a server span that was sent under its caller's id, with that id: its own service's spans name it so.
pub(crate) const SHARED_ID: &str = "zipkin.shared_id";

fn shared_halves(spans: &[Span]) -> HashMap<(SpanId, &Node), usize> {
    let mut halves = HashMap::new();
    for (at, span) in spans.iter().enumerate() {
        let id = span.attributes.get(SHARED_ID).and_then(Value::as_str);
        if let (Some(id), Some(own)) = (id.and_then(SpanId::parse), &span.service) {
            halves.insert((id, own), at);
        }
    }
    halves
}

/// One span per id, sorted.
fn merge(spans: Vec<Span>) -> Vec<Span> {
    let mut by_id: HashMap<SpanId, Span> = HashMap::with_capacity(spans.len());
    for span in spans {
        match by_id.entry(span.id) {
            Entry::Vacant(slot) => {
                slot.insert(span);
            }
            Entry::Occupied(mut slot) => {
                if span.complete() || !slot.get().complete() {
                    slot.insert(span);
                }
            }
        }
    }
    let mut spans: Vec<Span> = by_id.into_values().collect();
    spans.sort_by_key(|span| (span.start_ns, span.id));
    spans
}

/// For each position the nearest one at or above it that `is`. Parent links come from strangers and may form circles.
fn nearest(parent: &[Option<usize>], is: impl Fn(usize) -> bool) -> Vec<Option<usize>> {
    let mut found: Vec<Option<usize>> = vec![None; parent.len()];
    let mut visited = vec![false; parent.len()];
    for start in 0..parent.len() {
        let mut path = Vec::new();
        let mut at = Some(start);
        let end = loop {
            match at {
                None => break None,
                Some(here) if visited[here] => break found[here],
                Some(here) => {
                    visited[here] = true;
                    path.push(here);
                    if is(here) {
                        break Some(here);
                    }
                    at = parent[here];
                }
            }
        };
        for here in path {
            found[here] = end;
        }
    }
    found
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::span::Flags;
    use crate::span::Kind;

    /// A complete span of `service`, 1 to 2 seconds after the epoch.
    pub(crate) fn span(id: u64, parent: u64, service: &str) -> Span {
        Span {
            trace: TraceId(1),
            id: SpanId(id),
            parent: (parent != 0).then_some(SpanId(parent)),
            kind: Kind::Internal,
            name: service.to_owned(),
            service: (!service.is_empty()).then(|| Node::new(service, "unknown")),
            entry: false,
            calls: None,
            start_ns: 1_000_000_000,
            end_ns: Some(2_000_000_000),
            flags: Flags::default(),
            http: None,
            user: None,
            proxy: None,
            annotations: Default::default(),
            attributes: Default::default(),
            document: Default::default(),
        }
    }

    fn at(trace: &Trace, id: u64) -> usize {
        trace
            .spans
            .iter()
            .position(|span| span.id == SpanId(id))
            .expect("the span is in the trace")
    }

    #[test]
    fn a_late_span_in_progress_never_demotes_a_complete_one() {
        let complete = span(1, 0, "a");
        let open = Span {
            end_ns: None,
            ..span(1, 0, "a")
        };
        for order in [vec![complete.clone(), open.clone()], vec![open, complete]] {
            let trace = Trace::assemble(TraceId(1), order);
            assert_eq!(trace.spans.len(), 1);
            assert!(trace.spans[0].complete());
        }
    }

    #[test]
    fn a_part_sent_alone_belongs_to_whoever_its_parent_belongs_to() {
        let trace = Trace::assemble(
            TraceId(1),
            vec![
                span(3, 2, ""),
                span(2, 1, ""),
                Span {
                    entry: true,
                    ..span(1, 0, "a")
                },
            ],
        );
        assert_eq!(
            trace.node(at(&trace, 3)).map(|node| node.name.as_str()),
            Some("a")
        );
        assert_eq!(trace.share(at(&trace, 3)), Some(at(&trace, 1)));
    }

    #[test]
    fn a_child_of_another_service_begins_a_share_even_without_a_server_span() {
        let trace = Trace::assemble(
            TraceId(1),
            vec![
                Span {
                    entry: true,
                    ..span(1, 0, "a")
                },
                span(2, 1, "b"),
            ],
        );
        assert!(trace.is_entry(at(&trace, 2)));
    }

    #[test]
    fn circles_of_parents_end_and_own_nothing() {
        let trace = Trace::assemble(
            TraceId(1),
            vec![span(1, 2, ""), span(2, 1, ""), span(3, 3, "")],
        );
        assert!((0..3).all(|at| trace.node(at).is_none() && trace.share(at).is_none()));
        assert_eq!(trace.root(), None);
    }
}
