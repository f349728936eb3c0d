// SPDX-License-Identifier: Apache-2.0
//! Settling in ClickHouse: rows made from whole traces. The order of steps is what makes it safe to be cut off anywhere
//! and to run beside another collector: marks are read before spans, so that those cleared are covered; places are
//! written before rows, and one that its row does not name is passed over; marks are cleared last.

use std::collections::HashMap;

use bytes::Bytes;

use crate::graph::Contribution;
use crate::graph::Key;
use crate::span::Span;
use crate::span::SpanId;
use crate::span::TraceId;
use crate::store::Settled;
use crate::store::StoreError;
use crate::store::StoredTrace;
use crate::store::clickhouse::ClickHouse;
use crate::store::clickhouse::SPAN_COLUMNS;
use crate::store::clickhouse::listed;
use crate::store::clickhouse::row_binary::Rows;
use crate::store::clickhouse::trace_id;
use crate::store::clickhouse::write_span;
use crate::store::places;
use crate::store::record;
use crate::summary::Evaluated;
use crate::summary::evaluate;
use crate::trace::Trace;

/// As the disk store's.
const MAX_SPANS_PER_TRACE: usize = 50_000;
const MAX_BYTES_PER_TRACE: usize = 16 * 1024 * 1024;
pub(super) const MARK_COLUMNS: &str = "Day, TraceId, Owner, Version, Settled";
const PLACE_COLUMNS: &str = "Day, Place, TraceId, Flags";
const ROW_COLUMNS: &str = "Day, TraceId, Version, Revision, Start, End, Name, EntryPoint, Services, Fault, Error, Throttle, Partial, \
     HttpMethod, HttpUrl, HttpStatus, `Counts.Kind`, `Counts.Source`, `Counts.SourceType`, `Counts.Target`, \
     `Counts.TargetType`, `Counts.End`, `Counts.Response`, `Counts.Duration`, `Counts.Outcome`, `Counts.Root`, \
     `Counts.Inferred`, `Counts.Between`, Record";

/// One trace as its spans lie there.
pub(super) struct Found {
    pub(super) id: TraceId,
    /// In order of arrival.
    pub(super) stored: StoredTrace,
    arrivals: Vec<(u64, u16)>,
    bytes: usize,
}

impl Found {
    fn new(id: TraceId) -> Found {
        Found {
            id,
            stored: StoredTrace::default(),
            arrivals: Vec::new(),
            bytes: 0,
        }
    }

    fn add(&mut self, span: SpanId, record: &Bytes, arrival: (u64, u16)) -> Result<(), StoreError> {
        self.bytes += record.len();
        if self.arrivals.len() >= MAX_SPANS_PER_TRACE || self.bytes > MAX_BYTES_PER_TRACE {
            self.stored.truncated = true;
            return Ok(());
        }
        let span = record::decode_span(self.id, span, record);
        self.stored
            .spans
            .push(span.ok_or(StoreError::Record { what: "a span" })?);
        self.arrivals.push(arrival);
        Ok(())
    }

    /// By arrival: the rows came by span.
    fn finish(mut self) -> Found {
        let mut both: Vec<((u64, u16), Span)> =
            self.arrivals.into_iter().zip(self.stored.spans).collect();
        both.sort_by_key(|(arrival, _)| *arrival);
        (self.arrivals, self.stored.spans) = both.into_iter().unzip();
        self
    }
}

/// One after the other, so that one is in memory at a time; those without spans are passed over.
pub(super) fn for_each_trace(
    store: &ClickHouse,
    traces: &[TraceId],
    mut work: impl FnMut(Found) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let sql = format!(
        "SELECT TraceId, SpanId, Arrived, toUInt32(toUInt16(Day)), Record FROM spans WHERE TraceId IN ({}) \
         ORDER BY TraceId, SpanId, Complete, Arrived",
        listed(traces)
    );
    let mut rows = store.http.rows(&sql)?;
    let mut open: Option<Found> = None;
    while rows.more()? {
        let id = trace_id(&rows.bytes()?)?;
        let span = rows.text()?;
        let span = SpanId::parse(&span).ok_or(StoreError::Record { what: "a span id" })?;
        let arrived = rows.u64()?;
        let day = u16::try_from(rows.u32()?).unwrap_or(u16::MAX);
        let record = rows.bytes()?;
        let mut found = match open.take() {
            Some(found) if found.id == id => found,
            Some(other) => {
                work(other.finish())?;
                Found::new(id)
            }
            None => Found::new(id),
        };
        found.add(span, &record, (arrived, day))?;
        open = Some(found);
    }
    open.map_or(Ok(()), |found| work(found.finish()))
}

/// A mark that says a trace has something unsettled: whose, and when it was made.
struct Mark {
    trace: TraceId,
    owner: String,
    version: u64,
    day: u16,
}

fn marks(store: &ClickHouse, traces: &[TraceId]) -> Result<Vec<Mark>, StoreError> {
    let sql = format!(
        "SELECT TraceId, Owner, Version, toUInt32(toUInt16(Day)) FROM unsettled FINAL WHERE TraceId IN ({})",
        listed(traces)
    );
    let mut rows = store.http.rows(&sql)?;
    let mut found = Vec::new();
    while rows.more()? {
        found.push(Mark {
            trace: trace_id(&rows.bytes()?)?,
            owner: rows.text()?,
            version: rows.u64()?,
            day: u16::try_from(rows.u32()?).unwrap_or(u16::MAX),
        });
    }
    Ok(found)
}

/// Grows with every span that comes or is replaced, whoever adds it up.
fn versions(store: &ClickHouse, traces: &[TraceId]) -> Result<HashMap<TraceId, u128>, StoreError> {
    let sql = format!(
        "SELECT TraceId, toUInt128(sum(toUInt128(At))) FROM (SELECT TraceId, max(Arrived) AS At FROM spans \
         WHERE TraceId IN ({}) GROUP BY TraceId, SpanId, Complete) GROUP BY TraceId",
        listed(traces)
    );
    let mut rows = store.http.rows(&sql)?;
    let mut found = HashMap::new();
    while rows.more()? {
        found.insert(trace_id(&rows.bytes()?)?, rows.u128()?);
    }
    Ok(found)
}

/// The rows that count, each with its version.
pub(super) fn rows(
    store: &ClickHouse,
    traces: &[TraceId],
) -> Result<HashMap<TraceId, (u128, Evaluated)>, StoreError> {
    let sql = format!(
        "SELECT TraceId, Version, Record FROM trace_summaries FINAL WHERE TraceId IN ({})",
        listed(traces)
    );
    let mut rows = store.http.rows(&sql)?;
    let mut found = HashMap::new();
    while rows.more()? {
        let id = trace_id(&rows.bytes()?)?;
        let version = rows.u128()?;
        found.insert(id, (version, row(id, &rows.bytes()?)?));
    }
    Ok(found)
}

pub(super) fn row(id: TraceId, record: &[u8]) -> Result<Evaluated, StoreError> {
    let (row, _whole) = record::decode_trace(id, record).ok_or(StoreError::Record {
        what: "a trace's row",
    })?;
    Ok(row)
}

pub(super) fn settle(store: &ClickHouse, traces: &[TraceId]) -> Result<Vec<Settled>, StoreError> {
    if traces.is_empty() {
        return Ok(Vec::new());
    }
    let marks = marks(store, traces)?;
    let versions = versions(store, traces)?;
    let mut old = rows(store, traces)?;
    let mut settled = Vec::with_capacity(traces.len());
    let (mut moved, mut placed, mut made) = (Rows::default(), Rows::default(), Rows::default());
    for_each_trace(store, traces, |found| {
        let before = old.remove(&found.id);
        let version = versions.get(&found.id).copied().unwrap_or_default();
        let newest = found
            .arrivals
            .iter()
            .map(|(_, day)| *day)
            .max()
            .unwrap_or_default();
        if let Some((known, row)) = before.as_ref().filter(|(known, _)| *known >= version) {
            tracing::trace!(version = %known, "settled elsewhere");
            settled.push(Settled {
                before: row.contributions.clone(),
                now: row.clone(),
            });
            return Ok(());
        }
        // Retention drops days, so a trace that goes on past midnight goes as a whole to the later one.
        for (span, (arrived, day)) in found.stored.spans.iter().zip(&found.arrivals) {
            if *day < newest {
                write_span(&mut moved, span, newest, *arrived);
            }
        }
        let revision = before
            .as_ref()
            .map_or(1, |(_, row)| row.summary.revision.saturating_add(1));
        let trace = Trace::assemble(found.id, found.stored.spans);
        let row = evaluate(&trace, revision, found.stored.truncated);
        for (place, flags) in places::places(&row, store.retention) {
            placed.u16(newest);
            placed.bytes(&place);
            placed.text(&found.id.to_string());
            placed.byte(flags.first().copied().unwrap_or_default());
        }
        write_row(&mut made, &row, newest, version);
        settled.push(Settled {
            before: before.map(|(_, row)| row.contributions).unwrap_or_default(),
            now: row,
        });
        Ok(())
    })?;
    store.insert("spans", SPAN_COLUMNS, moved)?;
    store.insert("trace_places", PLACE_COLUMNS, placed)?;
    store.insert("trace_summaries", ROW_COLUMNS, made)?;
    let mut cleared = Rows::default();
    for mark in marks {
        cleared.u16(mark.day);
        cleared.text(&mark.trace.to_string());
        cleared.text(&mark.owner);
        cleared.u64(mark.version + 1);
        cleared.byte(1);
    }
    store.insert("unsettled", MARK_COLUMNS, cleared)?;
    Ok(settled)
}

fn write_row(rows: &mut Rows, row: &Evaluated, day: u16, version: u128) {
    let summary = &row.summary;
    let time = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
    rows.u16(day);
    rows.text(&summary.id.to_string());
    rows.u128(version);
    rows.u32(summary.revision);
    rows.i64(time(summary.start_us));
    rows.i64(time(summary.end_us));
    rows.text(&summary.name);
    rows.text(summary.entry_point.as_ref().map_or("", |node| &node.name));
    rows.array(&summary.nodes, |rows, node| rows.text(&node.name));
    rows.flag(summary.flags.fault);
    rows.flag(summary.flags.error);
    rows.flag(summary.flags.throttle);
    rows.flag(summary.partial);
    let http = summary.http.clone().unwrap_or_default();
    rows.text(http.method.as_deref().unwrap_or_default());
    rows.text(http.url.as_deref().unwrap_or_default());
    rows.u16(http.status.unwrap_or_default());
    let counts = &row.contributions;
    let key = |one: &Contribution| names(&one.key);
    rows.array(counts, |rows, one| rows.byte(key(one).0));
    rows.array(counts, |rows, one| rows.text(&key(one).1[0]));
    rows.array(counts, |rows, one| rows.text(&key(one).1[1]));
    rows.array(counts, |rows, one| rows.text(&key(one).1[2]));
    rows.array(counts, |rows, one| rows.text(&key(one).1[3]));
    rows.array(counts, |rows, one| rows.u64(one.end_us));
    rows.array(counts, |rows, one| rows.u64(one.response_us));
    rows.array(counts, |rows, one| rows.u64(one.duration_us));
    rows.array(counts, |rows, one| rows.byte(one.outcome as u8));
    rows.array(counts, |rows, one| rows.flag(one.root));
    rows.array(counts, |rows, one| rows.flag(one.inferred));
    rows.array(counts, |rows, one| {
        rows.i64(one.between_us.map_or(-1, time));
    });
    rows.bytes(&record::encode_trace(row));
}

/// What kind of key, then source, its type, target, its type.
fn names(key: &Key) -> (u8, [String; 4]) {
    let none = String::new;
    match key.clone() {
        Key::Node(node) => (0, [node.name, node.kind, none(), none()]),
        Key::Edge { source, target } => (1, [source.name, source.kind, target.name, target.kind]),
        Key::Party(node) => (2, [node.name, node.kind, none(), none()]),
        Key::Calls { source, target } => (3, [source, none(), target, none()]),
    }
}
