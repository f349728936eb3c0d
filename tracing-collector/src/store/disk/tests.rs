// SPDX-License-Identifier: Apache-2.0
//! The contract of `store`, kept by the disk store.

use std::collections::BTreeMap;
use std::path::Path;

use parking_lot::MappedRwLockReadGuard;
use parking_lot::RwLockReadGuard;
use proptest::prelude::*;

use super::*;
use crate::graph;
use crate::span::Kind;
use crate::span::Node;
use crate::store::PlacedBy;
use crate::store::disk::engine::DAY_SECONDS;
use crate::store::record;
use crate::trace::Trace;
use crate::trace::tests::span;

const EVER: Window = Window {
    start_us: 0,
    end_us: u64::MAX,
};

fn settings(path: &Path, days: u64) -> Settings {
    Settings {
        path: path.to_owned(),
        retention: Duration::from_secs(days * DAY_SECONDS),
        memory: 64 * 1024 * 1024,
    }
}

fn open(disk: &Disk) -> MappedRwLockReadGuard<'_, Engine> {
    RwLockReadGuard::map(disk.engine.read(), |engine| engine.as_ref().expect("open"))
}

fn store() -> (tempfile::TempDir, Disk) {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Disk::open(settings(folder.path(), 30)).expect("a store");
    (folder, disk)
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
            ..span(3, 2, "b")
        }),
    ]
}

fn recount(traces: &[(TraceId, Vec<Span>)], window: Window) -> BTreeMap<graph::Key, i64> {
    let mut totals = Totals::new();
    for (id, spans) in traces {
        for one in graph::contributions(&Trace::assemble(*id, spans.clone())) {
            if window.contains(one.end_us) {
                totals.entry(one.key.clone()).or_default().add(&one);
            }
        }
    }
    totals
        .into_iter()
        .map(|(key, counters)| (key, counters.total()))
        .collect()
}

fn counted(disk: &Disk, window: Window) -> BTreeMap<graph::Key, i64> {
    let totals = disk.graph(window).expect("a graph");
    totals
        .into_iter()
        .map(|(key, counters)| (key, counters.total()))
        .collect()
}

#[test]
fn a_late_span_replaces_what_its_trace_had_added() {
    let (_folder, disk) = store();
    let spans = call(1, 100);
    open(&disk).append_on(10, &spans[..2]).expect("appended");
    disk.settle(&[TraceId(1)]).expect("settled");
    assert!(counted(&disk, EVER).contains_key(&graph::Key::Node(Node::new("b", "remote"))));
    open(&disk).append_on(11, &spans[2..]).expect("appended");
    assert_eq!(disk.unsettled().expect("readable"), [TraceId(1)]);
    disk.settle(&[TraceId(1)]).expect("settled");
    disk.settle(&[TraceId(1)]).expect("settled again");
    assert_eq!(counted(&disk, EVER), recount(&[(TraceId(1), spans)], EVER));
    assert!(disk.unsettled().expect("readable").is_empty());
}

#[test]
fn retention_removes_whole_days_and_a_trace_lives_in_its_last_one() {
    let (_folder, disk) = store();
    let spans = call(1, 100);
    open(&disk).append_on(10, &call(2, 100)).expect("appended");
    open(&disk).append_on(10, &spans[..1]).expect("appended");
    open(&disk).append_on(11, &spans[1..]).expect("appended");
    disk.settle(&[TraceId(1), TraceId(2)]).expect("settled");
    assert_eq!(open(&disk).expire_days_before(11).expect("expired"), 1);
    assert_eq!(disk.trace(TraceId(1)).expect("readable").spans.len(), 3);
    assert!(disk.trace(TraceId(2)).expect("readable").spans.is_empty());
    assert_eq!(counted(&disk, EVER), recount(&[(TraceId(1), spans)], EVER));
}

#[test]
fn pages_are_newest_first_and_together_hold_every_trace_once() {
    let (_folder, disk) = store();
    let ids: Vec<TraceId> = (1..=9).map(TraceId).collect();
    for id in &ids {
        let day = 10 + u32::try_from(id.0 % 3).expect("small");
        open(&disk)
            .append_on(day, &call(id.0, 100 + 61 * id.0 as u64))
            .expect("appended");
    }
    disk.settle(&ids).expect("settled");
    for by in [
        PlacedBy::Start,
        PlacedBy::IdTime,
        PlacedBy::Activity,
        PlacedBy::ServiceEnd,
    ] {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = disk
                .summaries(&Scan {
                    window: EVER_MINUTES,
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

const EVER_MINUTES: Window = Window {
    start_us: 0,
    end_us: 10_000_000_000,
};

#[test]
fn what_was_appended_and_settled_is_there_after_a_reopening() {
    let folder = tempfile::tempdir().expect("a folder");
    let before = {
        let disk = Disk::open(settings(folder.path(), 30)).expect("a store");
        disk.append(&call(1, 100)).expect("appended");
        disk.settle(&[TraceId(1)]).expect("settled");
        disk.append(&call(2, 100)).expect("appended");
        counted(&disk, EVER)
    };
    let disk = Disk::open(settings(folder.path(), 30)).expect("the store again");
    assert_eq!(counted(&disk, EVER), before);
    assert_eq!(disk.unsettled().expect("readable"), [TraceId(2)]);
    assert_eq!(disk.trace(TraceId(2)).expect("readable").spans.len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn adjacent_windows_sum_to_the_whole_wherever_they_are_cut(
        ends in proptest::collection::vec(1_u64..400, 1..12),
        cut_us in 0_u64..400_000_000,
    ) {
        let (_folder, disk) = store();
        let traces: Vec<(TraceId, Vec<Span>)> =
            ends.iter().zip(1..).map(|(end, id)| (TraceId(id), call(id, *end))).collect();
        for (id, spans) in &traces {
            open(&disk).append_on(10, spans).expect("appended");
            disk.settle(&[*id]).expect("settled");
        }
        let halves = [Window { start_us: 0, end_us: cut_us }, Window { start_us: cut_us, end_us: u64::MAX }];
        for window in [halves[0], halves[1], EVER] {
            prop_assert_eq!(counted(&disk, window), recount(&traces, window));
        }
    }
}

#[test]
fn a_row_of_before_parts_were_kept_has_them_when_it_is_read() {
    let (_folder, disk) = store();
    disk.append(&call(7, 100)).expect("appended");
    disk.settle(&[TraceId(7)]).expect("settled");
    let (_, day) = open(&disk).all_days().pop().expect("a day");
    let whole = day.row(TraceId(7)).expect("read").expect("there");
    assert!(!whole.summary.parts.is_empty());
    let old = record::encode_trace_without_parts(&whole);
    assert!(
        record::decode_trace(TraceId(7), &old).is_some_and(|(row, _)| row.summary.parts.is_empty())
    );
    day.rows
        .insert(TraceId(7).0.to_be_bytes(), old)
        .expect("written");
    assert_eq!(day.row(TraceId(7)).expect("read"), Some(whole));
}

#[test]
fn the_graph_of_all_traces_one_by_one_is_the_graph_and_of_none_is_empty() {
    let (_folder, disk) = store();
    for (trace, at) in [(1, 100), (2, 130), (3, 200)] {
        disk.append(&call(trace, at)).expect("appended");
        disk.settle(&[TraceId(trace)]).expect("settled");
    }
    let cut = Window {
        start_us: 0,
        end_us: 150_000_000,
    };
    for window in [EVER, cut] {
        let all = disk.graph_of(window, &|_| true).expect("read");
        assert!(!all.is_empty());
        assert_eq!(all, disk.graph(window).expect("read"));
    }
    assert!(disk.graph_of(EVER, &|_| false).expect("read").is_empty());
}

#[test]
fn what_is_kept_is_there_after_a_reopening_and_forgotten_when_told() {
    let (folder, disk) = store();
    disk.keep("a", "x", Some(b"1")).expect("kept");
    disk.keep("a", "y", Some(b"2")).expect("kept");
    disk.keep("ab", "z", Some(b"3")).expect("kept");
    disk.keep("a", "x", None).expect("forgotten");
    drop(disk);
    let disk = Disk::open(settings(folder.path(), 1)).expect("a store");
    let found = disk.kept("a").expect("read");
    assert_eq!(found, [("y".to_owned(), b"2".to_vec())]);
}
