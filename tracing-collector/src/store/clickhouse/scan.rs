// SPDX-License-Identifier: Apache-2.0
//! Reading from ClickHouse by time: which traces, from their places; then sums over their rows, made by the server, or
//! the rows themselves where a filter has to see them.

use std::collections::BTreeMap;

use crate::graph::Key;
use crate::graph::Tallies;
use crate::graph::Tally;
use crate::graph::Totals;
use crate::graph::counters::Bounds;
use crate::graph::counters::Counters;
use crate::graph::counters::Histogram;
use crate::graph::minute;
use crate::span::Node;
use crate::span::TraceId;
use crate::store::Page;
use crate::store::Scan;
use crate::store::StoreError;
use crate::store::Window;
use crate::store::clickhouse::ClickHouse;
use crate::store::clickhouse::http::Answer;
use crate::store::clickhouse::row_binary::Reader;
use crate::store::clickhouse::settle;
use crate::store::clickhouse::trace_id;
use crate::store::clickhouse::unhex;
use crate::store::places;
use crate::store::places::CONTRIBUTES;
use crate::store::places::limits;
use crate::store::places::listed_here;
use crate::store::places::parse_place;
use crate::summary::Evaluated;
use crate::summary::Summary;

/// Places read at once, at most: each costs a row.
const MOST_PLACES: usize = 1000;

/// The newest rows of traces of which something ended in these minutes.
fn of_minutes((first, last): (u32, u32)) -> String {
    let (from, to) = places::minutes(first, last);
    format!(
        "trace_summaries FINAL WHERE TraceId IN (SELECT TraceId FROM trace_places WHERE Place >= {} AND Place < {} \
         AND bitAnd(Flags, {CONTRIBUTES}) != 0)",
        unhex(&from),
        unhex(&to)
    )
}

fn minutes_of(window: Window) -> (u32, u32) {
    (minute(window.start_us), minute(window.end_us - 1))
}

fn key(
    kind: u8,
    [source, source_type, target, target_type]: [String; 4],
) -> Result<Key, StoreError> {
    Ok(match kind {
        0 => Key::Node(Node::new(source, source_type)),
        1 => Key::Edge {
            source: Node::new(source, source_type),
            target: Node::new(target, target_type),
        },
        2 => Key::Party(Node::new(source, source_type)),
        3 => Key::Calls { source, target },
        _ => {
            return Err(StoreError::Record {
                what: "the kind of a count",
            });
        }
    })
}

fn read_key(rows: &mut Reader<Answer<'_>>) -> Result<Key, StoreError> {
    let kind = rows.byte()?;
    key(
        kind,
        [rows.text()?, rows.text()?, rows.text()?, rows.text()?],
    )
}

fn read_histogram(rows: &mut Reader<Answer<'_>>) -> Result<Histogram, StoreError> {
    let mut buckets = Vec::new();
    for _ in 0..rows.length()? {
        buckets.push(rows.u64()?);
    }
    let mut histogram = Histogram::default();
    let counts = rows.length()?;
    for bucket in buckets.into_iter().take(counts) {
        histogram.put(bucket, rows.i64()?);
    }
    Ok(histogram)
}

/// Buckets of three significant digits, as `graph::counters` cuts them.
const BUCKETS: &str =
    "sumMap([{} - {} % intExp10(greatest(length(toString({})), 3) - 3)], [toInt64(1)])";

pub(super) fn graph(store: &ClickHouse, window: Window) -> Result<Totals, StoreError> {
    let mut totals = Totals::new();
    if window.start_us >= window.end_us {
        return Ok(totals);
    }
    let sql = format!(
        "SELECT K, S, ST, T, TT, toInt64(countIf(O = 0)), toInt64(countIf(O = 1)), toInt64(countIf(O = 2)), \
         toInt64(countIf(O = 3)), toInt64(sum(R)), toInt64(sum(Root)), toInt64(sum(Guessed)), toInt64(sumIf(B, B >= 0)), \
         toInt64(countIf(B >= 0)), {}, {}, min(E - least(R, E)), min(E), max(E) \
         FROM (SELECT `Counts.Kind` AS KK, `Counts.Source` AS SS, `Counts.SourceType` AS STT, `Counts.Target` AS TA, \
         `Counts.TargetType` AS TAT, `Counts.End` AS EE, `Counts.Response` AS RR, `Counts.Duration` AS DD, \
         `Counts.Outcome` AS OO, `Counts.Root` AS RO, `Counts.Inferred` AS II, `Counts.Between` AS BB FROM {}) \
         ARRAY JOIN KK AS K, SS AS S, STT AS ST, TA AS T, TAT AS TT, EE AS E, RR AS R, DD AS D, OO AS O, RO AS Root, \
         II AS Guessed, BB AS B WHERE E >= {} AND E < {} GROUP BY K, S, ST, T, TT",
        BUCKETS.replace("{}", "R"),
        BUCKETS.replace("{}", "D"),
        of_minutes(minutes_of(window)),
        window.start_us,
        window.end_us
    );
    let mut rows = store.http.rows(&sql)?;
    while rows.more()? {
        let key = read_key(&mut rows)?;
        let counters = Counters {
            ok: rows.i64()?,
            error: rows.i64()?,
            throttle: rows.i64()?,
            fault: rows.i64()?,
            response_us: rows.i64()?,
            roots: rows.i64()?,
            inferred: rows.i64()?,
            between_us: rows.i64()?,
            between_count: rows.i64()?,
            responses: read_histogram(&mut rows)?,
            durations: read_histogram(&mut rows)?,
            bounds: Some(Bounds {
                first_start_us: rows.u64()?,
                first_end_us: rows.u64()?,
                last_end_us: rows.u64()?,
            }),
        };
        totals.insert(key, counters);
    }
    Ok(totals)
}

fn for_each_row(
    store: &ClickHouse,
    minutes: (u32, u32),
    mut work: impl FnMut(&Evaluated),
) -> Result<(), StoreError> {
    let sql = format!("SELECT TraceId, Record FROM {}", of_minutes(minutes));
    let mut rows = store.http.rows(&sql)?;
    while rows.more()? {
        let id = trace_id(&rows.bytes()?)?;
        work(&settle::row(id, &rows.bytes()?)?);
    }
    Ok(())
}

pub(super) fn graph_of(
    store: &ClickHouse,
    window: Window,
    wanted: &dyn Fn(&Summary) -> bool,
) -> Result<Totals, StoreError> {
    let mut totals = Totals::new();
    if window.start_us >= window.end_us {
        return Ok(totals);
    }
    for_each_row(store, minutes_of(window), |row| {
        if wanted(&row.summary) {
            for one in &row.contributions {
                if window.contains(one.end_us) {
                    totals.entry(one.key.clone()).or_default().add(one);
                }
            }
        }
    })?;
    Ok(totals)
}

pub(super) fn tallies(
    store: &ClickHouse,
    (first, last): (u32, u32),
    wanted: Option<&dyn Fn(&Summary) -> bool>,
) -> Result<BTreeMap<u32, Tallies>, StoreError> {
    let mut found: BTreeMap<u32, Tallies> = BTreeMap::new();
    let mut add = |at: u32, key: Key, tally: Tally| {
        let sum = found.entry(at).or_default().entry(key).or_default();
        *sum = sum.plus(tally);
    };
    if let Some(wanted) = wanted {
        for_each_row(store, (first, last), |row| {
            let chosen = wanted(&row.summary);
            for one in row.contributions.iter().filter(|_| chosen) {
                let of_graph = matches!(one.key, Key::Node(_) | Key::Edge { .. });
                if of_graph && (first..=last).contains(&one.minute()) {
                    add(one.minute(), one.key.clone(), Tally::of(one.outcome));
                }
            }
        })?;
        return Ok(found);
    }
    let sql = format!(
        "SELECT toUInt32(intDiv(E, 60000000)) AS M, K, S, ST, T, TT, toInt64(countIf(O = 0)), \
         toInt64(countIf(O = 1 OR O = 2)), toInt64(countIf(O = 3)) \
         FROM (SELECT `Counts.Kind` AS KK, `Counts.Source` AS SS, `Counts.SourceType` AS STT, `Counts.Target` AS TA, \
         `Counts.TargetType` AS TAT, `Counts.End` AS EE, `Counts.Outcome` AS OO FROM {}) \
         ARRAY JOIN KK AS K, SS AS S, STT AS ST, TA AS T, TAT AS TT, EE AS E, OO AS O \
         WHERE K < 2 AND intDiv(E, 60000000) BETWEEN {first} AND {last} GROUP BY M, K, S, ST, T, TT",
        of_minutes((first, last)),
    );
    let mut rows = store.http.rows(&sql)?;
    while rows.more()? {
        let at = rows.u32()?;
        let key = read_key(&mut rows)?;
        let tally = Tally {
            ok: rows.i64()?,
            error: rows.i64()?,
            fault: rows.i64()?,
        };
        add(at, key, tally);
    }
    Ok(found)
}

/// Places newest first; one that its trace's row no longer names was left by an older row and is passed over.
pub(super) fn summaries(store: &ClickHouse, scan: &Scan) -> Result<Page, StoreError> {
    let mut page = Page::default();
    if scan.window.start_us >= scan.window.end_us || scan.limit == 0 {
        return Ok(page);
    }
    let (from, mut to) = limits(scan);
    let at_once = (scan.limit * 2).clamp(16, MOST_PLACES);
    while from < to {
        let found = read_places(store, &from, &to, at_once)?;
        let ids: Vec<TraceId> = found.iter().map(|(_, _, id)| *id).collect();
        if ids.is_empty() {
            break;
        }
        let mut rows = settle::rows(store, &ids)?;
        let whole = found.len() == at_once;
        for (place, flags, id) in found {
            let (time, _) = parse_place(&place)?;
            to.clone_from(&place);
            let listed = rows.get(&id).is_some_and(|(_, row)| {
                let current = places::places(row, store.retention);
                current.iter().any(|(key, _)| *key == place) && listed_here(row, scan, time, flags)
            });
            if !listed {
                continue;
            }
            if let Some((_, row)) = rows.remove(&id) {
                page.summaries.push(row.summary);
            }
            if page.summaries.len() == scan.limit {
                page.next = Some(place);
                return Ok(page);
            }
        }
        if !whole {
            break;
        }
    }
    Ok(page)
}

type Place = (Vec<u8>, u8, TraceId);

fn read_places(
    store: &ClickHouse,
    from: &[u8],
    to: &[u8],
    limit: usize,
) -> Result<Vec<Place>, StoreError> {
    let sql = format!(
        "SELECT Place, groupBitOr(Flags), any(TraceId) FROM trace_places WHERE Place >= {} AND Place < {} \
         GROUP BY Place ORDER BY Place DESC LIMIT {limit}",
        unhex(from),
        unhex(to)
    );
    let mut rows = store.http.rows(&sql)?;
    let mut found = Vec::new();
    while rows.more()? {
        found.push((
            rows.bytes()?.to_vec(),
            rows.byte()?,
            trace_id(&rows.bytes()?)?,
        ));
    }
    Ok(found)
}
