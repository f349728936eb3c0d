// SPDX-License-Identifier: Apache-2.0
//! Reading by time: the map of a window, and pages of traces, by the places in which they are listed.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::iter::Peekable;
use std::iter::Rev;

use fjall::Iter;

use crate::graph::Key;
use crate::graph::Tallies;
use crate::graph::Tally;
use crate::graph::Totals;
use crate::graph::counters::Counters;
use crate::graph::minute;
use crate::store::Page;
use crate::store::Scan;
use crate::store::StoreError;
use crate::store::Window;
use crate::store::disk::engine::DayKeyspaces;
use crate::store::disk::engine::Engine;
use crate::store::disk::engine::reading;
use crate::store::places::CONTRIBUTES;
use crate::store::places::bound;
use crate::store::places::limits;
use crate::store::places::listed_here;
use crate::store::places::parse_place;
use crate::store::record;
use crate::summary::Summary;

const MINUTE_US: u64 = 60_000_000;
pub(super) fn graph(engine: &Engine, window: Window) -> Result<Totals, StoreError> {
    let mut totals = Totals::new();
    if window.start_us >= window.end_us {
        return Ok(totals);
    }
    for (_, keyspaces) in engine.all_days() {
        day_graph(&keyspaces, window, &mut totals)?;
    }
    Ok(totals)
}

/// Whole minutes are sums already. Of a minute that the window cuts, rows that lie inside by their own bounds count as
/// they are; for the others the traces of that minute are counted one by one.
fn day_graph(
    keyspaces: &DayKeyspaces,
    window: Window,
    totals: &mut Totals,
) -> Result<(), StoreError> {
    let (first, last) = (minute(window.start_us), minute(window.end_us - 1));
    let upper = last.saturating_add(1).to_be_bytes();
    let mut cut: HashMap<u32, BTreeSet<Key>> = HashMap::new();
    for pair in keyspaces.graph.range(first.to_be_bytes()..upper) {
        let (at, key, counters) = parse_count(pair)?;
        if inside(at, &counters, window) {
            totals.entry(key).or_default().merge(&counters);
        } else {
            cut.entry(at).or_default().insert(key);
        }
    }
    for (at, keys) in cut {
        count_minute(keyspaces, at, &keys, window, totals)?;
    }
    Ok(())
}

/// Trace by trace, for sums by minute say nothing of single traces.
pub(super) fn graph_of(
    engine: &Engine,
    window: Window,
    wanted: &dyn Fn(&Summary) -> bool,
) -> Result<Totals, StoreError> {
    let mut totals = Totals::new();
    if window.start_us >= window.end_us {
        return Ok(totals);
    }
    let (first, last) = (minute(window.start_us), minute(window.end_us - 1));
    let range = bound(b'm', u64::from(first))..bound(b'm', u64::from(last) + 1);
    for (_, keyspaces) in engine.all_days() {
        for pair in keyspaces.places.range(range.clone()) {
            let (place, flags) = pair.into_inner().map_err(reading)?;
            if flags.first().is_none_or(|flags| flags & CONTRIBUTES == 0) {
                continue;
            }
            let (at, id) = parse_place(&place)?;
            let row = keyspaces.row(id)?.filter(|row| wanted(&row.summary));
            for one in row.iter().flat_map(|row| &row.contributions) {
                if u64::from(one.minute()) == at && window.contains(one.end_us) {
                    totals.entry(one.key.clone()).or_default().add(one);
                }
            }
        }
    }
    Ok(totals)
}

/// Minute by minute; only those in which something ended.
pub(super) fn tallies(
    engine: &Engine,
    (first, last): (u32, u32),
    wanted: Option<&dyn Fn(&Summary) -> bool>,
) -> Result<BTreeMap<u32, Tallies>, StoreError> {
    let mut found: BTreeMap<u32, Tallies> = BTreeMap::new();
    let mut add = |at: u32, key: Key, tally: Tally| {
        if matches!(key, Key::Node(_) | Key::Edge { .. }) {
            let sum = found.entry(at).or_default().entry(key).or_default();
            *sum = sum.plus(tally);
        }
    };
    let after = last.saturating_add(1);
    for (_, keyspaces) in engine.all_days() {
        let Some(wanted) = wanted else {
            for pair in keyspaces
                .graph
                .range(first.to_be_bytes()..after.to_be_bytes())
            {
                let (at, key, counters) = parse_count(pair)?;
                add(at, key, Tally::from(&counters));
            }
            continue;
        };
        let range = bound(b'm', u64::from(first))..bound(b'm', u64::from(after));
        for pair in keyspaces.places.range(range) {
            let (place, flags) = pair.into_inner().map_err(reading)?;
            if flags.first().is_none_or(|flags| flags & CONTRIBUTES == 0) {
                continue;
            }
            let (at, id) = parse_place(&place)?;
            let row = keyspaces.row(id)?.filter(|row| wanted(&row.summary));
            for one in row.iter().flat_map(|row| &row.contributions) {
                if u64::from(one.minute()) == at {
                    add(one.minute(), one.key.clone(), Tally::of(one.outcome));
                }
            }
        }
    }
    Ok(found)
}

/// A record of `g`.
fn parse_count(pair: fjall::Guard) -> Result<(u32, Key, Counters), StoreError> {
    let damaged = || StoreError::Record {
        what: "a minute's counts",
    };
    let (key, value) = pair.into_inner().map_err(reading)?;
    let (at, key) = key.split_first_chunk::<4>().ok_or_else(damaged)?;
    let key = record::decode_key(key).ok_or_else(damaged)?;
    let counters = record::decode_counters(&value).ok_or_else(damaged)?;
    Ok((u32::from_be_bytes(*at), key, counters))
}

fn inside(at: u32, counters: &Counters, window: Window) -> bool {
    let start = u64::from(at) * MINUTE_US;
    let whole = window.start_us <= start && start + MINUTE_US <= window.end_us;
    let bounded = || {
        counters
            .bounds
            .is_some_and(|b| window.contains(b.first_end_us) && window.contains(b.last_end_us))
    };
    whole || bounded()
}

fn count_minute(
    keyspaces: &DayKeyspaces,
    at: u32,
    keys: &BTreeSet<Key>,
    window: Window,
    totals: &mut Totals,
) -> Result<(), StoreError> {
    for pair in keyspaces.places.prefix(bound(b'm', u64::from(at))) {
        let (place, flags) = pair.into_inner().map_err(reading)?;
        if flags.first().is_none_or(|flags| flags & CONTRIBUTES == 0) {
            continue;
        }
        let (_, id) = parse_place(&place)?;
        let Some(row) = keyspaces.row(id)? else {
            continue;
        };
        for one in &row.contributions {
            if one.minute() == at && window.contains(one.end_us) && keys.contains(&one.key) {
                totals.entry(one.key.clone()).or_default().add(one);
            }
        }
    }
    Ok(())
}

/// One day's places, newest first.
struct Source {
    keyspaces: std::sync::Arc<DayKeyspaces>,
    places: Peekable<Rev<Places>>,
}

/// A fjall iterator with its pairs read out.
struct Places(Iter);

type Pair = Result<(Vec<u8>, Vec<u8>), StoreError>;

fn read_out(pair: fjall::Guard) -> Pair {
    pair.into_inner()
        .map(|(key, value)| (key.to_vec(), value.to_vec()))
        .map_err(reading)
}

impl Iterator for Places {
    type Item = Pair;

    fn next(&mut self) -> Option<Pair> {
        self.0.next().map(read_out)
    }
}

impl DoubleEndedIterator for Places {
    fn next_back(&mut self) -> Option<Pair> {
        self.0.next_back().map(read_out)
    }
}

pub(super) fn summaries(engine: &Engine, scan: &Scan) -> Result<Page, StoreError> {
    let mut page = Page::default();
    if scan.window.start_us >= scan.window.end_us || scan.limit == 0 {
        return Ok(page);
    }
    let (from, to) = limits(scan);
    if from >= to {
        return Ok(page);
    }
    let mut sources: Vec<Source> = engine
        .all_days()
        .into_iter()
        .map(|(_, keyspaces)| Source {
            places: Places(keyspaces.places.range(from.clone()..to.clone()))
                .rev()
                .peekable(),
            keyspaces,
        })
        .collect();
    while let Some(newest) = newest(&mut sources) {
        let Some(pair) = sources[newest].places.next() else {
            break;
        };
        let (key, flags) = pair?;
        let (time, id) = parse_place(&key)?;
        let row = sources[newest].keyspaces.row(id)?;
        if let Some(row) =
            row.filter(|row| listed_here(row, scan, time, flags.first().copied().unwrap_or(0)))
        {
            page.summaries.push(row.summary);
            if page.summaries.len() == scan.limit {
                page.next = Some(key);
                break;
            }
        }
    }
    Ok(page)
}

/// The source whose next place is the latest. An unreadable one comes first, to be reported.
fn newest(sources: &mut [Source]) -> Option<usize> {
    let mut best: Option<(usize, Vec<u8>)> = None;
    for (at, source) in sources.iter_mut().enumerate() {
        match source.places.peek() {
            Some(Err(_)) => return Some(at),
            Some(Ok((key, _))) if best.as_ref().is_none_or(|(_, other)| key > other) => {
                best = Some((at, key.clone()));
            }
            Some(Ok(_)) | None => {}
        }
    }
    best.map(|(at, _)| at)
}
