// SPDX-License-Identifier: Apache-2.0
//! The contract of `store` as one suite. Each store's tests run [`CASES`], every case on a store that is empty; what a
//! case says is said of all stores.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::graph;
use crate::graph::Tally;
use crate::graph::Totals;
use crate::span::Kind;
use crate::span::Node;
use crate::span::Span;
use crate::span::TraceId;
use crate::store::PlacedBy;
use crate::store::Scan;
use crate::store::Store;
use crate::store::Window;
use crate::trace::Trace;
use crate::trace::tests::span;

/// Where a store lies.
pub(super) trait Place {
    /// What lies there, opened anew; whoever had it open before has gone.
    fn open(&self) -> Arc<dyn Store>;

    /// How many histories the recount is tried with; steps cost more where a server takes them.
    fn histories(&self) -> u32;
}

/// Days, for every store of this suite.
pub(super) const RETENTION: Duration = Duration::from_secs(30 * DAY);
const DAY: u64 = 86_400;

pub(super) type Case = fn(&dyn Place);

pub(super) const CASES: [Case; 8] = [
    a_late_span_replaces_what_its_trace_had_added,
    retention_removes_whole_days,
    pages_are_newest_first_and_hold_every_trace_once,
    what_was_acknowledged_is_there_after_a_reopening,
    what_is_kept_stays_until_it_is_forgotten,
    adjacent_windows_sum_to_the_whole,
    the_graph_of_some_traces_is_that_of_their_rows,
    the_map_equals_a_recount_after_any_history,
];

const EVER: Window = Window {
    start_us: 0,
    end_us: 100_000_000_000,
};

fn day(number: u64) -> SystemTime {
    // Far enough into the present for any engine's dates.
    SystemTime::UNIX_EPOCH + Duration::from_secs((20_000 + number) * DAY + 3600)
}

/// Trace `trace`: `a` calls `b`, ending `at` seconds after the epoch.
fn call(trace: u128, at: u64) -> Vec<Span> {
    let (start_ns, end_ns) = ((at * 1_000_000_000) - 500_000_000, Some(at * 1_000_000_000));
    let here = |one: Span| Span {
        trace: TraceId(trace),
        start_ns,
        end_ns,
        ..one
    };
    let mut failed = span(3, 2, "b");
    failed.flags.fault = at.is_multiple_of(3);
    vec![
        here(Span {
            entry: true,
            kind: Kind::Server,
            ..span(1, 0, "a")
        }),
        here(Span {
            calls: Some(Node::new("b", "remote")),
            ..span(2, 1, "a")
        }),
        here(Span {
            entry: true,
            kind: Kind::Server,
            ..failed
        }),
    ]
}

/// What the raw spans say, counted without any store. Bounds are left out: they may be wider than they need be.
fn recount(traces: &[(TraceId, Vec<Span>)], window: Window) -> Totals {
    let mut totals = Totals::new();
    for (id, spans) in traces {
        for one in graph::contributions(&Trace::assemble(*id, spans.clone())) {
            if window.contains(one.end_us) {
                totals.entry(one.key.clone()).or_default().add(&one);
            }
        }
    }
    without_bounds(totals)
}

fn without_bounds(mut totals: Totals) -> Totals {
    for counters in totals.values_mut() {
        counters.bounds = None;
    }
    totals
}

fn counted(store: &dyn Store, window: Window) -> Totals {
    without_bounds(store.graph(window).expect("a graph"))
}

fn append_and_settle(store: &dyn Store, traces: &[(TraceId, Vec<Span>)]) {
    let spans: Vec<Span> = traces.iter().flat_map(|(_, spans)| spans.clone()).collect();
    let ids: Vec<TraceId> = traces.iter().map(|(id, _)| *id).collect();
    store.append(&spans, day(10)).expect("appended");
    store.settle(&ids).expect("settled");
}

fn a_late_span_replaces_what_its_trace_had_added(place: &dyn Place) {
    let store = place.open();
    let spans = call(1, 100);
    store.append(&spans[..2], day(10)).expect("appended");
    store.settle(&[TraceId(1)]).expect("settled");
    let inferred = graph::Key::Node(Node::new("b", "remote"));
    assert!(counted(&*store, EVER).contains_key(&inferred));
    store.append(&spans[2..], day(11)).expect("appended");
    assert_eq!(store.unsettled().expect("readable"), [TraceId(1)]);
    let changed = store.settle(&[TraceId(1)]).expect("settled");
    assert!(!changed[0].before.is_empty() && changed[0].before != changed[0].now.contributions);
    assert_eq!(changed[0].now.summary.revision, 2);
    store.settle(&[TraceId(1)]).expect("settled again");
    assert_eq!(
        counted(&*store, EVER),
        recount(&[(TraceId(1), spans)], EVER)
    );
    assert!(store.unsettled().expect("readable").is_empty());
}

fn retention_removes_whole_days(place: &dyn Place) {
    let store = place.open();
    let spans = call(1, 100);
    store.append(&call(2, 100), day(10)).expect("appended");
    store.append(&spans[..1], day(10)).expect("appended");
    store.append(&spans[1..], day(11)).expect("appended");
    store
        .settle(&[TraceId(1), TraceId(2)])
        .expect("both settled");
    let after = |days: u64| day(10 + days) + RETENTION;
    assert_eq!(store.expire(after(0)).expect("nothing is old enough"), 0);
    assert_eq!(store.expire(after(1)).expect("the tenth day goes"), 1);
    // The trace that went on into the eleventh is whole, the other one is gone, and the map says the same.
    assert_eq!(store.trace(TraceId(1)).expect("readable").spans.len(), 3);
    assert!(store.trace(TraceId(2)).expect("readable").spans.is_empty());
    assert_eq!(
        counted(&*store, EVER),
        recount(&[(TraceId(1), spans)], EVER)
    );
    assert_eq!(store.expire(after(2)).expect("the eleventh goes"), 1);
    assert!(counted(&*store, EVER).is_empty());
}

fn pages_are_newest_first_and_hold_every_trace_once(place: &dyn Place) {
    let store = place.open();
    let ids: Vec<TraceId> = (1..=9).map(TraceId).collect();
    // First an end in another minute, which the spans after it take back.
    let early: Vec<Span> = ids
        .iter()
        .flat_map(|id| call(id.0, 90).into_iter().take(1))
        .collect();
    store.append(&early, day(10)).expect("appended");
    store.settle(&ids).expect("settled");
    for on in 0..3 {
        let today = ids.iter().filter(|id| id.0 % 3 == on);
        let spans: Vec<Span> = today
            .flat_map(|id| call(id.0, 100 + 61 * id.0 as u64))
            .collect();
        store.append(&spans, day(10 + on as u64)).expect("appended");
    }
    store.settle(&ids).expect("settled");
    for by in [
        PlacedBy::Start,
        PlacedBy::IdTime,
        PlacedBy::Activity,
        PlacedBy::ServiceEnd,
    ] {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = store
                .summaries(&Scan {
                    window: EVER,
                    by,
                    after,
                    limit: 2,
                })
                .expect("a page");
            found.extend(page.summaries.iter().map(|summary| summary.id.0));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, [9, 8, 7, 6, 5, 4, 3, 2, 1], "{by:?}");
    }
}

fn what_was_acknowledged_is_there_after_a_reopening(place: &dyn Place) {
    let before = {
        let store = place.open();
        store.append(&call(1, 100), day(10)).expect("appended");
        store.settle(&[TraceId(1)]).expect("settled");
        store.append(&call(2, 100), day(10)).expect("appended");
        counted(&*store, EVER)
    };
    let store = place.open();
    assert_eq!(counted(&*store, EVER), before);
    assert_eq!(store.unsettled().expect("readable"), [TraceId(2)]);
    assert_eq!(
        store.trace(TraceId(2)).expect("readable").spans,
        call(2, 100)
    );
    assert!(store.trace(TraceId(3)).expect("readable").spans.is_empty());
}

fn what_is_kept_stays_until_it_is_forgotten(place: &dyn Place) {
    let store = place.open();
    let entries: [(&str, Option<&[u8]>); 2] = [("x", Some(b"1")), ("y'\\", Some(&[0, 255]))];
    store.keep("a", &entries).expect("kept");
    store.keep("ab", &[("z", Some(b"3"))]).expect("kept");
    store.keep("a", &[("x", None)]).expect("forgotten");
    drop(store);
    let found = place.open().kept("a").expect("read");
    assert_eq!(found, [("y'\\".to_owned(), vec![0, 255])]);
}

fn adjacent_windows_sum_to_the_whole(place: &dyn Place) {
    let store = place.open();
    let traces: Vec<(TraceId, Vec<Span>)> = (1..=12)
        .map(|id| (TraceId(id), call(id, 30 * id as u64 + 5)))
        .collect();
    append_and_settle(&*store, &traces);
    for cut_us in [1, 60_000_000, 125_000_000, 125_000_001, 211_500_000] {
        let (start, end) = (EVER.start_us, EVER.end_us);
        for (start_us, end_us) in [(start, cut_us), (cut_us, end)] {
            let window = Window { start_us, end_us };
            assert_eq!(
                counted(&*store, window),
                recount(&traces, window),
                "{window:?}"
            );
        }
    }
    let tallies = store.tallies((0, 5), None).expect("read");
    assert_eq!(
        tallies,
        store.tallies((0, 5), Some(&|_| true)).expect("read")
    );
    let sum = tallies.values().flat_map(BTreeMap::values);
    let sum = sum.fold(Tally::default(), |sum, one| sum.plus(*one));
    let window = Window {
        start_us: 0,
        end_us: 360_000_000,
    };
    let raw = recount(&traces, window).into_iter();
    let raw = raw.filter(|(key, _)| matches!(key, graph::Key::Node(_) | graph::Key::Edge { .. }));
    let raw = raw.fold(Tally::default(), |sum, (_, one)| {
        sum.plus(Tally::from(&one))
    });
    assert_eq!(sum, raw);
}

fn the_graph_of_some_traces_is_that_of_their_rows(place: &dyn Place) {
    let store = place.open();
    let traces: Vec<(TraceId, Vec<Span>)> = [(1, 100), (2, 130), (3, 200)]
        .map(|(id, at)| (TraceId(id), call(id, at)))
        .into();
    append_and_settle(&*store, &traces);
    let all = store.graph_of(EVER, &|_| true).expect("read");
    assert_eq!(without_bounds(all), recount(&traces, EVER));
    let second = store
        .graph_of(EVER, &|one| one.id == TraceId(2))
        .expect("read");
    assert_eq!(without_bounds(second), recount(&traces[1..2], EVER));
    assert!(store.graph_of(EVER, &|_| false).expect("read").is_empty());
}

/// What may happen to a store, in any order.
#[derive(Clone, Debug)]
enum Step {
    /// Span `span` of trace `trace` arrives, once more perhaps, on day `day`.
    Arrive { trace: usize, span: usize, day: u64 },
    /// Some of what is unsettled settles.
    Settle(usize),
    /// The process dies and is started again.
    Restart,
}

const TRACES: usize = 4;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let arrive = (0..TRACES, 0..3_usize, 10..12_u64).prop_map(|(trace, span, day)| Step::Arrive {
        trace,
        span,
        day,
    });
    let one =
        prop_oneof![6 => arrive, 2 => (1..TRACES).prop_map(Step::Settle), 1 => Just(Step::Restart)];
    proptest::collection::vec(one, 1..24)
}

fn the_map_equals_a_recount_after_any_history(place: &dyn Place) {
    let mut runner = TestRunner::new(ProptestConfig {
        cases: place.histories(),
        failure_persistence: None,
        // Each history builds on those before it, so a shorter one is another one.
        max_shrink_iters: 0,
        ..ProptestConfig::default()
    });
    // One store for all histories, each with traces of its own: what one leaves must not disturb the next.
    let told = std::cell::RefCell::new((0_u128, Vec::new()));
    let history = |steps: Vec<Step>| {
        let (first, mut all) = {
            let mut told = told.borrow_mut();
            told.0 += TRACES as u128;
            (told.0, told.1.clone())
        };
        let mut store = place.open();
        let mut arrived: BTreeMap<TraceId, Vec<Span>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Arrive {
                    trace,
                    span,
                    day: at,
                } => {
                    let id = first + trace as u128;
                    let one = call(id, 60 * (trace as u64 + 1) + 1)[span].clone();
                    store
                        .append(std::slice::from_ref(&one), day(at))
                        .expect("appended");
                    arrived.entry(TraceId(id)).or_default().push(one);
                }
                Step::Settle(some) => {
                    let waiting = store.unsettled().expect("readable");
                    store
                        .settle(&waiting[..waiting.len().min(some)])
                        .expect("settled");
                }
                Step::Restart => {
                    drop(store);
                    store = place.open();
                }
            }
        }
        let waiting = store.unsettled().expect("readable");
        store.settle(&waiting).expect("settled");
        all.extend(arrived);
        let (found, wanted) = (counted(&*store, EVER), recount(&all, EVER));
        told.borrow_mut().1 = all;
        prop_assert_eq!(found, wanted);
        Ok(())
    };
    runner.run(&steps(), history).expect("every history");
}
