// SPDX-License-Identifier: Apache-2.0
//! One opened fjall database. Per UTC day of arrival there are five keyspaces, named `<day>.<letter>`:
//! `t` trace, span, complete? → span · `c` trace → row and contributions · `s` places in time → trace ·
//! `g` minute, key → counts · `u` traces with spans not settled; besides them `m`, what belongs to no day.
//! [`settle`] writes the last four, [`scan`] reads them. Once a write failed it reads only; `disk` opens it anew.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use fjall::Database;
use fjall::Keyspace;
use fjall::KeyspaceCreateOptions;
use fjall::PersistMode;
use parking_lot::RwLock;

use crate::span::Span;
use crate::span::SpanId;
use crate::span::TraceId;
use crate::store::Entry;
use crate::store::StoreError;
use crate::store::StoredTrace;
use crate::store::disk::Settings;
use crate::store::record;
use crate::summary::evaluate;
use crate::trace::Trace;

/// No reader wants more of one trace, and a stranger could send any number under one id.
const MAX_SPANS_PER_TRACE: usize = 50_000;
/// Nor more bytes of it, as they lie on disk.
const MAX_BYTES_PER_TRACE: usize = 16 * 1024 * 1024;
const LEAST_BUFFER: u64 = 4 * 1024 * 1024;
const MOST_BUFFER: u64 = 64 * 1024 * 1024;
pub(super) const DAY_SECONDS: u64 = 86_400;
const LETTERS: [&str; 5] = ["t", "c", "s", "g", "u"];

/// Days since the epoch.
pub(super) type Day = u32;

pub(super) struct Engine {
    pub(super) database: Database,
    /// `m`: kind, name → what is kept.
    kept: Keyspace,
    days: RwLock<BTreeMap<Day, Arc<DayKeyspaces>>>,
    pub(super) retention: Duration,
    memory: u64,
}

pub(super) struct DayKeyspaces {
    pub(super) spans: Keyspace,
    pub(super) rows: Keyspace,
    pub(super) places: Keyspace,
    pub(super) graph: Keyspace,
    pub(super) unsettled: Keyspace,
}

pub(super) fn writing(source: fjall::Error) -> StoreError {
    StoreError::Write { source }
}

pub(super) fn reading(source: fjall::Error) -> StoreError {
    StoreError::Read { source }
}

impl Engine {
    pub(super) fn open(settings: &Settings) -> Result<Engine, StoreError> {
        let path = &settings.path;
        let opening = |source| StoreError::Open {
            path: path.display().to_string(),
            source,
        };
        let database = Database::builder(path)
            .cache_size(settings.memory / 3)
            .open()
            .map_err(opening)?;
        let kept = database
            .keyspace("m", KeyspaceCreateOptions::default)
            .map_err(opening)?;
        let engine = Engine {
            database,
            kept,
            days: RwLock::default(),
            retention: settings.retention,
            memory: settings.memory,
        };
        for name in engine.database.list_keyspace_names() {
            let day = name.split_once('.').and_then(|(day, _)| day.parse().ok());
            if let Some(day) = day {
                engine.day(day).map_err(|error| match error {
                    StoreError::Write { source } => opening(source),
                    other => other,
                })?;
            }
        }
        Ok(engine)
    }

    /// The keyspaces of a day, made on first use.
    pub(super) fn day(&self, day: Day) -> Result<Arc<DayKeyspaces>, StoreError> {
        if let Some(found) = self.days.read().get(&day) {
            return Ok(Arc::clone(found));
        }
        let open = |letter: &str| {
            let buffer = (self.memory / 16).clamp(LEAST_BUFFER, MOST_BUFFER);
            let options = || KeyspaceCreateOptions::default().max_memtable_size(buffer);
            self.database
                .keyspace(&format!("{day}.{letter}"), options)
                .map_err(writing)
        };
        let [spans, rows, places, graph, unsettled] = LETTERS;
        let keyspaces = Arc::new(DayKeyspaces {
            spans: open(spans)?,
            rows: open(rows)?,
            places: open(places)?,
            graph: open(graph)?,
            unsettled: open(unsettled)?,
        });
        self.days.write().insert(day, Arc::clone(&keyspaces));
        Ok(keyspaces)
    }

    /// Oldest first.
    pub(super) fn all_days(&self) -> Vec<(Day, Arc<DayKeyspaces>)> {
        self.days
            .read()
            .iter()
            .map(|(day, keyspaces)| (*day, Arc::clone(keyspaces)))
            .collect()
    }

    pub(super) fn append_on(&self, day: Day, spans: &[Span]) -> Result<(), StoreError> {
        let keyspaces = self.day(day)?;
        let mut batch = self
            .database
            .batch()
            .durability(Some(PersistMode::SyncData));
        for span in spans {
            batch.insert(&keyspaces.spans, span_key(span), record::encode_span(span));
            batch.insert(
                &keyspaces.unsettled,
                &span.trace.0.to_be_bytes()[..],
                &[][..],
            );
        }
        batch.commit().map_err(writing)
    }

    pub(super) fn expire_days_before(&self, first_kept: Day) -> Result<usize, StoreError> {
        let gone: Vec<(Day, Arc<DayKeyspaces>)> = self
            .all_days()
            .into_iter()
            .take_while(|(day, _)| *day < first_kept)
            .collect();
        for (day, keyspaces) in &gone {
            // Out of readers' sight first, so that none begins on a keyspace that is going.
            self.days.write().remove(day);
            for keyspace in [
                &keyspaces.spans,
                &keyspaces.rows,
                &keyspaces.places,
                &keyspaces.graph,
                &keyspaces.unsettled,
            ] {
                self.database
                    .delete_keyspace(keyspace.clone())
                    .map_err(writing)?;
            }
        }
        Ok(gone.len())
    }
}

impl DayKeyspaces {
    /// Adds this day's spans of a trace; says whether all of them fitted.
    pub(super) fn read_spans(&self, id: TraceId, into: &mut Vec<Span>) -> Result<bool, StoreError> {
        let mut bytes = 0;
        for pair in self.spans.prefix(id.0.to_be_bytes()) {
            let (key, value) = pair.into_inner().map_err(reading)?;
            bytes += value.len();
            if into.len() >= MAX_SPANS_PER_TRACE || bytes > MAX_BYTES_PER_TRACE {
                return Ok(false);
            }
            let span = parse_span_key(&key).and_then(|span| record::decode_span(id, span, &value));
            into.push(span.ok_or(StoreError::Record { what: "a span" })?);
        }
        Ok(true)
    }

    /// Rows of before parts were kept get them from the trace's spans, which lie in the same day.
    pub(super) fn row(&self, id: TraceId) -> Result<Option<crate::summary::Evaluated>, StoreError> {
        let Some(bytes) = self.rows.get(id.0.to_be_bytes()).map_err(reading)? else {
            return Ok(None);
        };
        let (mut row, whole) = record::decode_trace(id, &bytes).ok_or(StoreError::Record {
            what: "a trace's row",
        })?;
        if !whole {
            let mut spans = Vec::new();
            self.read_spans(id, &mut spans)?;
            let anew = evaluate(&Trace::assemble(id, spans), 0, false).summary;
            row.summary.parts = anew.parts;
            row.summary.causes = anew.causes;
        }
        Ok(Some(row))
    }
}

impl Engine {
    pub(super) fn unsettled(&self) -> Result<Vec<TraceId>, StoreError> {
        // One that went on past midnight is marked in two days.
        let mut found = BTreeSet::new();
        for (_, keyspaces) in self.all_days() {
            for pair in keyspaces.unsettled.iter() {
                let key = pair.key().map_err(reading)?;
                found.insert(trace_id(&key).ok_or(StoreError::Record {
                    what: "an unsettled mark",
                })?);
            }
        }
        Ok(found.into_iter().collect())
    }

    pub(super) fn trace(&self, id: TraceId) -> Result<StoredTrace, StoreError> {
        let mut stored = StoredTrace::default();
        for (_, keyspaces) in self.all_days() {
            stored.truncated |= !keyspaces.read_spans(id, &mut stored.spans)?;
        }
        Ok(stored)
    }

    pub(super) fn expire(&self, now: SystemTime) -> Result<usize, StoreError> {
        let oldest = now
            .checked_sub(self.retention)
            .unwrap_or(SystemTime::UNIX_EPOCH);
        self.expire_days_before(day_of(oldest))
    }

    pub(super) fn kept(&self, kind: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let prefix = kept_key(kind, "");
        let mut found = Vec::new();
        for pair in self.kept.prefix(&prefix) {
            let (key, value) = pair.into_inner().map_err(reading)?;
            let name = key.get(prefix.len()..).unwrap_or_default();
            found.push((String::from_utf8_lossy(name).into_owned(), value.to_vec()));
        }
        Ok(found)
    }

    pub(super) fn keep(&self, kind: &str, entries: &[Entry<'_>]) -> Result<(), StoreError> {
        let mut batch = self
            .database
            .batch()
            .durability(Some(PersistMode::SyncData));
        for (name, value) in entries {
            let key = kept_key(kind, name);
            match value {
                Some(value) => batch.insert(&self.kept, key, *value),
                None => batch.remove(&self.kept, key),
            }
        }
        batch.commit().map_err(writing)
    }
}

/// No kind has a zero byte in it, so none is the beginning of another.
pub(super) fn kept_key(kind: &str, name: &str) -> Vec<u8> {
    [kind.as_bytes(), &[0], name.as_bytes()].concat()
}

pub(super) fn day_of(time: SystemTime) -> Day {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    Day::try_from(seconds / DAY_SECONDS).unwrap_or(Day::MAX)
}

/// Complete and in progress are two keys: neither overwrites the other, whichever comes first.
fn span_key(span: &Span) -> Vec<u8> {
    let mut key = Vec::with_capacity(25);
    key.extend(span.trace.0.to_be_bytes());
    key.extend(span.id.0.to_be_bytes());
    key.push(u8::from(span.complete()));
    key
}

fn parse_span_key(key: &[u8]) -> Option<SpanId> {
    let bytes: [u8; 8] = key.get(16..24)?.try_into().ok()?;
    Some(SpanId(u64::from_be_bytes(bytes)))
}

pub(super) fn trace_id(bytes: &[u8]) -> Option<TraceId> {
    bytes.try_into().ok().map(u128::from_be_bytes).map(TraceId)
}
