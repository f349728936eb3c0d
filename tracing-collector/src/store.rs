// SPDX-License-Identifier: Apache-2.0
//! The contract of a trace store; [`disk`] keeps it for one collector, [`clickhouse`] for any number of them, and
//! `contract` is the suite that both pass. Called by `pipeline` (one writer per process) and `query` (many readers). All
//! calls block and belong on a thread that may.
//!
//! - `append` returns when its spans survive the death of the process and of the machine.
//! - A span is known by trace and id. One that comes again replaces what was there; one in progress never replaces a
//!   complete one. So appending is idempotent, and the order of appends does not matter.
//! - A trace with spans that were appended and not settled is listed by `unsettled`, also after a restart.
//! - `settle` makes the trace's row anew and replaces what it added to the map, in one step: after a crash both are old
//!   or both are new, and the map is always the sum over all rows.
//! - A trace lives in the UTC day in which something last arrived for it. `expire` removes whole days.
//! - Where several collectors share a store, any of them may settle any trace, at the same time too: what counts is the
//!   settling that saw most of its spans. A trace whose last span somebody appended and settled is settled right.

pub(crate) mod clickhouse;
#[cfg(test)]
mod contract;
pub(crate) mod disk;
mod places;
mod record;

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::graph::Contribution;
use crate::graph::Tallies;
use crate::graph::Totals;
use crate::span::Span;
use crate::span::TraceId;
use crate::summary::Evaluated;
use crate::summary::Summary;

pub(crate) trait Store: Send + Sync + 'static {
    /// `now` is when they arrived.
    fn append(&self, spans: &[Span], now: SystemTime) -> Result<(), StoreError>;

    /// Each once, whoever appended.
    fn unsettled(&self) -> Result<Vec<TraceId>, StoreError>;

    /// Concurrent with readers, in one process never with `append` or itself; no id twice. Returns what changed, trace by trace.
    fn settle(&self, traces: &[TraceId]) -> Result<Vec<Settled>, StoreError>;

    /// In order of arrival, for [`crate::trace::Trace::assemble`]. Settled or not; empty when unknown.
    fn trace(&self, id: TraceId) -> Result<StoredTrace, StoreError>;

    /// Sums over everything that ended in the window, to the microsecond.
    fn graph(&self, window: Window) -> Result<Totals, StoreError>;

    /// The same over settled traces that are `wanted` alone.
    fn graph_of(
        &self,
        window: Window,
        wanted: &dyn Fn(&Summary) -> bool,
    ) -> Result<Totals, StoreError>;

    /// The same from minute `first` to minute `last`, both whole, one by one; of every trace or of those `wanted`.
    fn tallies(
        &self,
        minutes: (u32, u32),
        wanted: Option<&dyn Fn(&Summary) -> bool>,
    ) -> Result<BTreeMap<u32, Tallies>, StoreError>;

    /// Settled traces, newest first.
    fn summaries(&self, scan: &Scan) -> Result<Page, StoreError>;

    /// Removes the days that ended before `now` less the retention; says how many.
    fn expire(&self, now: SystemTime) -> Result<usize, StoreError>;

    /// After a write failed: makes it take writes again if it can, with everything that was acknowledged.
    fn recover(&self) -> Result<(), StoreError>;

    /// What was kept of a kind, by name. It belongs to no day and does not expire.
    fn kept(&self, kind: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// Keeps by name or, without a value, forgets; durable when it returns.
    fn keep(&self, kind: &str, entries: &[Entry<'_>]) -> Result<(), StoreError>;
}

/// A name and what is kept under it.
pub(crate) type Entry<'e> = (&'e str, Option<&'e [u8]>);

/// Microseconds since the epoch, `start` included, `end` not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) start_us: u64,
    pub(crate) end_us: u64,
}

impl Window {
    pub(crate) fn contains(self, us: u64) -> bool {
        (self.start_us..self.end_us).contains(&us)
    }
}

/// What places a trace in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlacedBy {
    /// When it began.
    Start,
    /// The seconds in its id if they lie within the retention of its start, else its start.
    IdTime,
    /// Any moment between start and end.
    Activity,
    /// The end of any of its services' own work.
    ServiceEnd,
}

#[derive(Clone, Debug)]
pub(crate) struct Scan {
    pub(crate) window: Window,
    pub(crate) by: PlacedBy,
    /// Where the last page ended.
    pub(crate) after: Option<Vec<u8>>,
    pub(crate) limit: usize,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    pub(crate) summaries: Vec<Summary>,
    /// Where the next page begins, if there may be one.
    pub(crate) next: Option<Vec<u8>>,
}

/// What settling made of one trace.
#[derive(Clone, Debug)]
pub(crate) struct Settled {
    /// What it had added to the map until then.
    pub(crate) before: Vec<Contribution>,
    pub(crate) now: Evaluated,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct StoredTrace {
    pub(crate) spans: Vec<Span>,
    /// Whether it has more spans than are ever read at once.
    pub(crate) truncated: bool,
}

/// The store could not do what it was asked; what was acknowledged before is safe.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("open the trace store {path}; one process at a time may hold it")]
    Open { path: String, source: fjall::Error },
    #[error("the trace store is closed after a failed write; it opens by itself as soon as it can")]
    Closed,
    #[error("write to {path}: make room on its disk, or see that it is writable")]
    NoRoom {
        path: String,
        source: std::io::Error,
    },
    #[error("write to the trace store")]
    Write { source: fjall::Error },
    #[error("read from the trace store")]
    Read { source: fjall::Error },
    #[error("read a record of the trace store: {what} is damaged")]
    Record { what: &'static str },
    #[error(transparent)]
    ClickHouse(#[from] clickhouse::ClickHouseError),
}
