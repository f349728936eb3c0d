// SPDX-License-Identifier: Apache-2.0
//! The store on ClickHouse, for any number of collectors. What makes it right without locks: a trace's row is made from
//! all of its spans and carries a version that only grows with them, so of two collectors that settle one trace at once
//! the one that saw more wins; and the map is counted from those rows, never kept beside them (docs/adr/008).
//! [`schema`] has the tables, [`settle`] writes rows, [`scan`] reads them, [`http`] and [`row_binary`] are the wire.

pub(crate) mod address;
mod http;
mod row_binary;
mod scan;
mod schema;
mod settle;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use serde_json::Value;

use crate::graph::Tallies;
use crate::graph::Totals;
use crate::span::Span;
use crate::span::TraceId;
use crate::store::Entry;
use crate::store::Page;
use crate::store::Scan;
use crate::store::Settled;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::StoredTrace;
use crate::store::Window;
use crate::store::clickhouse::address::Address;
use crate::store::clickhouse::http::Http;
use crate::store::clickhouse::row_binary::ReadError;
use crate::store::clickhouse::row_binary::Rows;
use crate::store::record;
use crate::summary::Summary;

const DAY_SECONDS: u64 = 86_400;
/// Arrivals are counted from 2024 on, in microseconds.
const FIRST_ARRIVAL_US: u64 = 1_704_067_200_000_000;

/// Why ClickHouse did not do what it was asked. The address in it has no password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClickHouseError {
    #[error("connect to {address}; see that ClickHouse runs and that this is its HTTP port")]
    Connect {
        address: String,
        source: std::io::Error,
    },
    #[error("speak HTTP with {address}")]
    Broken {
        address: String,
        source: hyper::Error,
    },
    #[error("{address} did not answer within {seconds} seconds")]
    Late { address: String, seconds: u64 },
    #[error("{address} refuses this user and password; check both in --store")]
    Login { address: String },
    #[error("{address} does not give this user the rights it needs: {text}")]
    Rights { address: String, text: String },
    #[error("{address} has no such database, or it was dropped; restart the collector to make it")]
    Database { address: String },
    #[error("{address} answered {status}: {text}")]
    Refused {
        address: String,
        status: u16,
        text: String,
    },
    #[error("{address} is ClickHouse {version}; 24.1 or later is needed")]
    TooOld { address: String, version: String },
    #[error(
        "the tables in {address} are of version {found}, this collector knows {ours}; run a collector as new as the one that made them"
    )]
    Newer {
        address: String,
        found: usize,
        ours: usize,
    },
    #[error("ClickHouse's answer is torn: expected {what}")]
    Answer { what: &'static str },
    #[error(
        "read the trusted roots for TLS; install ca-certificates or give a clickhouse:// address"
    )]
    Roots,
    #[error("start the thread that speaks with ClickHouse")]
    Runtime { source: std::io::Error },
}

impl From<ReadError<ClickHouseError>> for StoreError {
    fn from(error: ReadError<ClickHouseError>) -> StoreError {
        StoreError::ClickHouse(match error {
            ReadError::Source(error) => error,
            ReadError::Torn => ClickHouseError::Answer { what: "a row" },
        })
    }
}

pub(crate) struct ClickHouse {
    http: Http,
    retention: Duration,
    /// Of this process, in its marks.
    owner: String,
    /// The last arrival given out: they differ, and never run backwards.
    last_us: AtomicU64,
}

impl ClickHouse {
    /// Checks address, user and version, and makes or migrates the tables.
    pub(crate) fn open(address: Address, retention: Duration) -> Result<ClickHouse, StoreError> {
        let http = Http::new(address)?;
        schema::prepare(&http)?;
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Ok(ClickHouse {
            http,
            retention,
            owner: format!("{}-{}", std::process::id(), since.as_nanos()),
            last_us: AtomicU64::new(0),
        })
    }

    /// `many` numbers of arrival, the first of them returned: later than all before.
    fn arrivals(&self, now: SystemTime, many: usize) -> u64 {
        let since = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let us = us.saturating_sub(FIRST_ARRIVAL_US);
        let many = many as u64;
        let advance = |last: u64| Some(last.max(us) + many);
        let last = self
            .last_us
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, advance)
            .unwrap_or_default();
        last.max(us) + 1
    }

    fn insert(&self, table: &str, columns: &str, rows: Rows) -> Result<(), StoreError> {
        Ok(self.http.insert(table, columns, rows.0)?)
    }

    fn mark(&self, traces: &[TraceId], day: u16, now: SystemTime) -> Result<(), StoreError> {
        let at = self.arrivals(now, traces.len().max(1));
        let mut rows = Rows::default();
        for trace in traces {
            rows.u16(day);
            rows.text(&trace.to_string());
            rows.text(&self.owner);
            rows.u64(at * 2);
            rows.byte(0);
        }
        self.insert("unsettled", settle::MARK_COLUMNS, rows)
    }
}

/// As ClickHouse's `Date` counts them.
fn day_of(time: SystemTime) -> u16 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u16::try_from(since.as_secs() / DAY_SECONDS).unwrap_or(u16::MAX)
}

fn unhex(bytes: &[u8]) -> String {
    format!("unhex('{}')", hex::encode(bytes))
}

/// For `IN (…)`; ids are hex and need no escapes.
fn listed(traces: &[TraceId]) -> String {
    let quoted: Vec<String> = traces.iter().map(|id| format!("'{id}'")).collect();
    quoted.join(",")
}

fn trace_id(text: &[u8]) -> Result<TraceId, StoreError> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(StoreError::Record { what: "a trace id" })
}

pub(super) const SPAN_COLUMNS: &str = "Day, Timestamp, TraceId, SpanId, ParentSpanId, SpanName, SpanKind, ServiceName, \
     SpanAttributes, Duration, StatusCode, Complete, Arrived, Record";

fn write_span(rows: &mut Rows, span: &Span, day: u16, arrived: u64) {
    rows.u16(day);
    rows.i64(i64::try_from(span.start_ns).unwrap_or(i64::MAX));
    rows.text(&span.trace.to_string());
    rows.text(&span.id.to_string());
    rows.text(&span.parent.map(|id| id.to_string()).unwrap_or_default());
    rows.text(&span.name);
    rows.text(span.kind.name());
    rows.text(span.service.as_ref().map_or("", |node| &node.name));
    let sent = span
        .attributes
        .iter()
        .filter(|(key, _)| !span.annotations.contains_key(*key));
    let attributes: Vec<(&String, &Value)> = span.annotations.iter().chain(sent).collect();
    rows.array(&attributes, |rows, (key, value)| {
        rows.text(key);
        match value {
            Value::String(text) => rows.text(text),
            other => rows.text(&other.to_string()),
        }
    });
    rows.u64(
        span.end_ns
            .map_or(0, |end| end.saturating_sub(span.start_ns)),
    );
    let failed = span.flags.fault || span.flags.error || span.flags.throttle;
    rows.text(if failed { "Error" } else { "Unset" });
    rows.flag(span.complete());
    rows.u64(arrived);
    rows.bytes(&record::encode_span(span));
}

impl Store for ClickHouse {
    fn append(&self, spans: &[Span], now: SystemTime) -> Result<(), StoreError> {
        let day = day_of(now);
        let mut traces: Vec<TraceId> = spans.iter().map(|span| span.trace).collect();
        traces.sort_unstable();
        traces.dedup();
        // Marks first: one without spans costs a look, spans without a mark would never be counted.
        self.mark(&traces, day, now)?;
        let first = self.arrivals(now, spans.len());
        let mut rows = Rows::default();
        for (span, arrived) in spans.iter().zip(first..) {
            write_span(&mut rows, span, day, arrived);
        }
        self.insert("spans", SPAN_COLUMNS, rows)
    }

    fn unsettled(&self) -> Result<Vec<TraceId>, StoreError> {
        let mut rows = self
            .http
            .rows("SELECT DISTINCT TraceId FROM unsettled FINAL")?;
        let mut found = Vec::new();
        while rows.more()? {
            found.push(trace_id(&rows.bytes()?)?);
        }
        Ok(found)
    }

    fn settle(&self, traces: &[TraceId]) -> Result<Vec<Settled>, StoreError> {
        settle::settle(self, traces)
    }

    fn trace(&self, id: TraceId) -> Result<StoredTrace, StoreError> {
        let mut found = StoredTrace::default();
        settle::for_each_trace(self, &[id], |one| {
            found = one.stored;
            Ok(())
        })?;
        Ok(found)
    }

    fn graph(&self, window: Window) -> Result<Totals, StoreError> {
        scan::graph(self, window)
    }

    fn graph_of(
        &self,
        window: Window,
        wanted: &dyn Fn(&Summary) -> bool,
    ) -> Result<Totals, StoreError> {
        scan::graph_of(self, window, wanted)
    }

    fn tallies(
        &self,
        minutes: (u32, u32),
        wanted: Option<&dyn Fn(&Summary) -> bool>,
    ) -> Result<BTreeMap<u32, Tallies>, StoreError> {
        scan::tallies(self, minutes, wanted)
    }

    fn summaries(&self, scan: &Scan) -> Result<Page, StoreError> {
        scan::summaries(self, scan)
    }

    fn expire(&self, now: SystemTime) -> Result<usize, StoreError> {
        let oldest = now
            .checked_sub(self.retention)
            .unwrap_or(SystemTime::UNIX_EPOCH);
        let first_kept = day_of(oldest);
        let mut days = std::collections::BTreeSet::new();
        for table in schema::DAILY {
            let sql = format!(
                "SELECT DISTINCT partition FROM system.parts WHERE database = currentDatabase() \
                 AND table = '{table}' AND active AND toUInt16(toDate(partition)) < {first_kept}"
            );
            let mut rows = self.http.rows(&sql)?;
            let mut gone = Vec::new();
            while rows.more()? {
                gone.push(rows.text()?);
            }
            for day in gone {
                self.http
                    .execute(&format!("ALTER TABLE {table} DROP PARTITION '{day}'"))?;
                days.insert(day);
            }
        }
        Ok(days.len())
    }

    fn recover(&self) -> Result<(), StoreError> {
        Ok(schema::prepare(&self.http)?)
    }

    fn kept(&self, kind: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let kind = unhex(kind.as_bytes());
        let sql = format!("SELECT Name, Value FROM kept FINAL WHERE Kind = {kind} ORDER BY Name");
        let mut rows = self.http.rows(&sql)?;
        let mut found = Vec::new();
        while rows.more()? {
            found.push((rows.text()?, rows.bytes()?.to_vec()));
        }
        Ok(found)
    }

    fn keep(&self, kind: &str, entries: &[Entry<'_>]) -> Result<(), StoreError> {
        let first = self.arrivals(SystemTime::now(), entries.len());
        let mut rows = Rows::default();
        for ((name, value), version) in entries.iter().zip(first..) {
            rows.text(kind);
            rows.text(name);
            rows.bytes(value.unwrap_or_default());
            rows.u64(version);
            rows.flag(value.is_none());
        }
        self.insert("kept", "Kind, Name, Value, Version, Gone", rows)
    }
}

#[cfg(test)]
pub(crate) mod tests;
