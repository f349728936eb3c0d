// SPDX-License-Identifier: Apache-2.0
//! What one trace adds to the service map, as a list of [`Contribution`]s: [`raw`] as X-Ray draws it, [`calls`] with
//! each proxy and its app as one. Pure. The store adds them up per minute and takes them back when a trace changes, so
//! a total is always what a recount would give.

pub(crate) mod calls;
pub(crate) mod counters;
pub(crate) mod raw;

use std::collections::BTreeMap;

use crate::graph::counters::Counters;
use crate::span::Node;
use crate::span::Outcome;
use crate::span::Span;
use crate::trace::Trace;

/// What a count is about. The first two are X-Ray's view, the others the collapsed one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    Node(Node),
    Edge { source: Node, target: Node },
    Party(Node),
    Calls { source: String, target: String },
}

/// One ended entity, counted once under one key, in the minute in which it ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Contribution {
    pub(crate) key: Key,
    pub(crate) end_us: u64,
    pub(crate) response_us: u64,
    /// With asynchronous parts that outlast the response; for nodes.
    pub(crate) duration_us: u64,
    pub(crate) outcome: Outcome,
    pub(crate) root: bool,
    pub(crate) inferred: bool,
    /// Of a call, the time between its two ends: proxies and wire.
    pub(crate) between_us: Option<u64>,
}

impl Contribution {
    /// `span` counted under `key` by its own times; `None` while it is in progress, for that counts in nothing.
    fn of(key: Key, span: &Span) -> Option<Contribution> {
        let end_us = span.end_ns? / 1000;
        let response_us = span.duration_us()?;
        Some(Contribution {
            key,
            end_us,
            response_us,
            duration_us: response_us,
            outcome: span.flags.outcome(),
            root: false,
            inferred: false,
            between_us: None,
        })
    }

    pub(crate) fn minute(&self) -> u32 {
        minute(self.end_us)
    }
}

/// Minutes since the epoch; the year 10137 is far enough.
pub(crate) fn minute(us: u64) -> u32 {
    u32::try_from(us / 60_000_000).unwrap_or(u32::MAX)
}

/// The type of the node that stands for whoever called from outside.
pub(crate) const CLIENT_TYPE: &str = "client";

/// Everything `trace` adds to both views, in an order that does not depend on arrival.
pub(crate) fn contributions(trace: &Trace) -> Vec<Contribution> {
    let mut all = raw::contributions(trace);
    all.extend(calls::contributions(trace));
    all
}

/// Outcomes alone: what is left of counts where times do not matter. Throttles are errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) ok: i64,
    pub(crate) error: i64,
    pub(crate) fault: i64,
}

impl Tally {
    pub(crate) fn total(self) -> i64 {
        self.ok + self.error + self.fault
    }

    #[must_use]
    pub(crate) fn plus(self, other: Tally) -> Tally {
        Tally {
            ok: self.ok + other.ok,
            error: self.error + other.error,
            fault: self.fault + other.fault,
        }
    }

    pub(crate) fn of(outcome: Outcome) -> Tally {
        let mut tally = Tally::default();
        match outcome {
            Outcome::Ok => tally.ok = 1,
            Outcome::Error | Outcome::Throttle => tally.error = 1,
            Outcome::Fault => tally.fault = 1,
        }
        tally
    }
}

impl From<&Counters> for Tally {
    fn from(counters: &Counters) -> Tally {
        Tally {
            ok: counters.ok,
            error: counters.error + counters.throttle,
            fault: counters.fault,
        }
    }
}

/// Of X-Ray's view, by node and edge.
pub(crate) type Tallies = BTreeMap<Key, Tally>;

/// Counts by key over some window.
pub(crate) type Totals = BTreeMap<Key, Counters>;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::convert::xray;
    use crate::span::TraceId;

    const SCOREKEEP: &str = include_str!("../tests/fixtures/scorekeep.json");

    fn scorekeep() -> Vec<Span> {
        let documents: Vec<serde_json::Value> =
            serde_json::from_str(SCOREKEEP).expect("the fixture is JSON");
        documents
            .iter()
            .flat_map(|document| {
                xray::parse(document.to_string().as_bytes())
                    .expect("valid")
                    .spans
            })
            .collect()
    }

    fn totals(spans: Vec<Span>) -> Totals {
        let mut totals = Totals::new();
        let id: TraceId = "1-59602603-23fc5b688855d396af79b496"
            .parse()
            .expect("an id");
        for contribution in contributions(&Trace::assemble(id, spans)) {
            totals
                .entry(contribution.key.clone())
                .or_default()
                .add(&contribution);
        }
        totals
    }

    proptest! {
        #[test]
        fn any_order_of_arrival_and_any_duplicate_gives_an_equal_graph(
            order in Just((0..scorekeep().len()).collect::<Vec<_>>()).prop_shuffle(),
            again in proptest::collection::vec(0..scorekeep().len(), 0..6),
        ) {
            let spans = scorekeep();
            let shuffled: Vec<Span> = order.into_iter().chain(again).map(|at| spans[at].clone()).collect();
            prop_assert_eq!(totals(shuffled), totals(spans));
        }
    }
}
