// SPDX-License-Identifier: Apache-2.0
//! From the doors to the store: a queue bounded by bytes, and one writer that commits what has gathered in one go
//! (senders wait for that commit, not for one of their own) and settles traces in between. `receive` submits; `app`
//! starts the writer, which ends when the last door has gone.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use pillion_runtime::admin::Admin;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::catalog::Catalog;
use crate::metrics::Metrics;
use crate::metrics::Reason;
use crate::metrics::Source;
use crate::room::Account;
use crate::room::NoRoom;
use crate::room::Room;
use crate::service_metrics::ServiceMetrics;
use crate::span::Span;
use crate::span::TraceId;
use crate::store::Settled;
use crate::store::Store;
use crate::watch::Changed;

const QUEUE_BATCHES: usize = 8192;
/// Datagrams that wait for a store that is away, at most.
const MOST_HELD: usize = 4096;
/// Batches that one commit takes.
const GROUP: usize = 512;
/// Traces that one settling takes: bounds how long a commit waits behind it.
const SETTLE_AT_ONCE: usize = 512;
/// Settling rests between rounds: each rewrites the counts it touches, however few traces it settles.
const LONGEST_REST: Duration = Duration::from_millis(500);
const RETENTION_EVERY: Duration = Duration::from_secs(600);
const RETRY_SETTLE: Duration = Duration::from_secs(1);
/// How soon after space has returned the store takes again.
const RECOVER_EVERY: Duration = Duration::from_millis(500);

/// The doors' end.
#[derive(Clone)]
pub(crate) struct Pipeline {
    queue: mpsc::Sender<Batch>,
    room: Room,
    metrics: Metrics,
}

struct Batch {
    spans: Vec<Span>,
    source: Source,
    units: usize,
    done: oneshot::Sender<Result<(), NotStored>>,
    /// Held until the spans are stored.
    _account: Account,
}

/// Accepted, but the store failed; the sender should try again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the trace store did not take it: {0}")]
pub(crate) struct NotStored(String);

/// Resolves when the spans are safe.
pub(crate) struct Receipt(oneshot::Receiver<Result<(), NotStored>>);

impl Receipt {
    pub(crate) async fn stored(self) -> Result<(), NotStored> {
        self.0
            .await
            .unwrap_or_else(|_| Err(NotStored("it is shutting down".to_owned())))
    }
}

impl Pipeline {
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What every door charges for what it takes in.
    pub(crate) fn room(&self) -> &Room {
        &self.room
    }

    /// Takes `spans`, which count as `units` and are covered by `account`, or says at once that the queue is full.
    /// Whoever gets a receipt need not count: the writer does.
    pub(crate) fn submit(
        &self,
        source: Source,
        spans: Vec<Span>,
        units: usize,
        account: Account,
    ) -> Result<Receipt, NoRoom> {
        let (done, receipt) = oneshot::channel();
        let batch = Batch {
            spans,
            source,
            units,
            done,
            _account: account,
        };
        self.queue.try_send(batch).map_err(|_| NoRoom)?;
        self.metrics.queue_bytes.set(self.room.taken() as i64);
        Ok(Receipt(receipt))
    }
}

/// The store's end.
pub(crate) struct Writer {
    queue: mpsc::Receiver<Batch>,
    store: Arc<dyn Store>,
    metrics: Metrics,
    waiting: Waiting,
    room: Room,
    admin: Admin,
    observers: Observers,
    /// Whether the last append succeeded.
    healthy: bool,
    /// What came by datagram while the store took nothing. Its senders cannot be told to try again, so it waits here,
    /// charged to the room as ever, and goes with the next append that succeeds.
    held: Vec<Batch>,
}

/// How much the pipeline takes at once, and how soon it is done with it.
pub(crate) struct Bounds {
    pub(crate) room: Room,
    pub(crate) settle: Duration,
    /// Ids waiting to settle; beyond it the oldest settle at once.
    pub(crate) unsettled: usize,
}

/// Who is shown what was settled.
#[derive(Clone, Default)]
pub(crate) struct Observers {
    pub(crate) changed: Changed,
    pub(crate) catalog: Catalog,
    pub(crate) services: ServiceMetrics,
}

impl Observers {
    fn observe(&self, settled: &[Settled]) {
        self.services.settled(settled);
        for one in settled {
            self.changed.note(&one.before);
            self.changed.note(&one.now.contributions);
        }
    }
}

/// `unsettled` are traces left over from the last run.
pub(crate) fn start(
    store: Arc<dyn Store>,
    metrics: Metrics,
    admin: Admin,
    (bounds, observers): (Bounds, Observers),
    unsettled: Vec<TraceId>,
) -> (Pipeline, Writer) {
    let (sender, queue) = mpsc::channel(QUEUE_BATCHES);
    let room = bounds.room;
    let mut waiting = Waiting::new(bounds.settle, bounds.unsettled);
    let now = Instant::now();
    for trace in unsettled {
        waiting.arrived(trace, now);
    }
    let pipeline = Pipeline {
        queue: sender,
        room: room.clone(),
        metrics: metrics.clone(),
    };
    (
        pipeline,
        Writer {
            queue,
            store,
            metrics,
            waiting,
            room,
            admin,
            observers,
            healthy: true,
            held: Vec::new(),
        },
    )
}

impl Writer {
    /// Until every door has gone and what they left is stored.
    pub(crate) async fn run(mut self) {
        let mut batches = Vec::with_capacity(GROUP);
        let mut expire_at = Instant::now();
        let mut recover_at = Instant::now();
        loop {
            let wake = self.waiting.next_due().unwrap_or(expire_at).min(expire_at);
            let wake = if self.healthy { wake } else { recover_at };
            tokio::select! {
                taken = self.queue.recv_many(&mut batches, GROUP) => {
                    if taken == 0 {
                        self.give_up_held();
                        break;
                    }
                    self.append(std::mem::take(&mut batches)).await;
                }
                () = tokio::time::sleep_until(wake) => {}
            }
            if !self.healthy {
                if Instant::now() >= recover_at {
                    self.recover().await;
                    recover_at = Instant::now() + RECOVER_EVERY;
                }
                continue;
            }
            self.settle().await;
            if Instant::now() >= expire_at {
                expire_at = Instant::now() + RETENTION_EVERY;
                self.expire().await;
            }
        }
    }

    async fn append(&mut self, batches: Vec<Batch>) {
        let store = Arc::clone(&self.store);
        let observers = self.observers.clone();
        let owed: Vec<(Source, usize)> = batches
            .iter()
            .map(|batch| (batch.source, batch.units))
            .collect();
        let joined = spawn_blocking(move || {
            let mut batches = batches;
            let counts: Vec<usize> = batches.iter().map(|batch| batch.spans.len()).collect();
            let mut spans: Vec<Span> = batches
                .iter_mut()
                .flat_map(|batch| std::mem::take(&mut batch.spans))
                .collect();
            let result = store
                .append(&spans, SystemTime::now())
                .map_err(|error| NotStored(chain(&error)));
            if result.is_ok() {
                observers.services.stored(&spans);
                observers.catalog.note(store.as_ref(), &spans);
            }
            let traces: Vec<TraceId> = spans.iter().map(|span| span.trace).collect();
            if result.is_err() {
                for (batch, count) in batches.iter_mut().zip(counts).rev() {
                    batch.spans = spans.split_off(spans.len() - count);
                }
            }
            (batches, traces, result)
        })
        .await;
        let Ok((batches, traces, result)) = joined else {
            tracing::error!("the store panicked; its batch was not acknowledged");
            owed.into_iter()
                .for_each(|(source, units)| self.not_stored(source, units));
            return;
        };
        match &result {
            Ok(()) => {
                let now = Instant::now();
                for trace in traces {
                    self.waiting.arrived(trace, now);
                }
                // Before anybody is answered: who reads zero after an answer may rely on it.
                self.metrics.unsettled.set(self.waiting.len() as i64);
            }
            Err(error) => {
                if self.healthy {
                    tracing::error!(
                        %error, batches = batches.len(),
                        "spans were not stored; it goes on by itself as soon as --store takes writes again"
                    );
                }
                self.set_healthy(false);
            }
        }
        for batch in batches {
            match &result {
                Ok(()) => self.metrics.stored(batch.source, batch.units),
                Err(_) if self.may_wait(&batch) => {
                    self.held.push(batch);
                    continue;
                }
                Err(_) => self.not_stored(batch.source, batch.units),
            }
            if batch.done.send(result.clone()).is_err() {
                tracing::trace!("a sender did not wait for its answer");
            }
        }
        self.metrics.queue_bytes.set(self.room.taken() as i64);
    }

    fn may_wait(&self, batch: &Batch) -> bool {
        batch.source == Source::XrayUdp && self.held.len() < MOST_HELD && !self.room.half_taken()
    }

    fn set_healthy(&mut self, healthy: bool) {
        if self.healthy != healthy {
            self.healthy = healthy;
            self.admin.set_ready(healthy);
            self.metrics.store_up.set(i64::from(healthy));
        }
    }

    /// After a failed write, until the store takes writes again.
    async fn recover(&mut self) {
        let store = Arc::clone(&self.store);
        match spawn_blocking(move || store.recover()).await {
            Ok(Ok(())) => {
                tracing::info!(held = self.held.len(), "the store takes writes again");
                self.set_healthy(true);
                let held = std::mem::take(&mut self.held);
                if !held.is_empty() {
                    self.append(held).await;
                }
            }
            Ok(Err(error)) => {
                tracing::debug!(error = %chain(&error), "the store does not take writes yet")
            }
            Err(error) => tracing::error!(%error, "recovering the store panicked"),
        }
    }

    /// At the end: what still waits for the store is lost, and counted.
    fn give_up_held(&mut self) {
        for batch in std::mem::take(&mut self.held) {
            self.not_stored(batch.source, batch.units);
        }
    }

    /// A datagram's sender cannot be told.
    fn not_stored(&self, source: Source, units: usize) {
        if source == Source::XrayUdp {
            self.metrics.dropped(source, Reason::Store, units);
        } else {
            self.metrics.rejected(source, Reason::Store, units);
        }
    }

    async fn settle(&mut self) {
        let due = self.waiting.take_due(Instant::now(), SETTLE_AT_ONCE);
        self.metrics
            .unsettled
            .set((self.waiting.len() + due.len()) as i64);
        if due.is_empty() {
            return;
        }
        let store = Arc::clone(&self.store);
        let traces = due.clone();
        let settled = spawn_blocking(move || store.settle(&traces)).await;
        match settled {
            Ok(Ok(settled)) => {
                self.metrics.settled.inc_by(due.len() as u64);
                self.observers.observe(&settled);
            }
            Ok(Err(error)) => {
                tracing::error!(error = %chain(&error), "traces were not settled; trying again");
                self.waiting.put_back(due, Instant::now() + RETRY_SETTLE);
                self.set_healthy(false);
            }
            Err(error) => {
                tracing::error!(%error, traces = due.len(), "settling panicked; left for the next start");
            }
        }
        self.metrics.unsettled.set(self.waiting.len() as i64);
    }

    async fn expire(&self) {
        let store = Arc::clone(&self.store);
        match spawn_blocking(move || store.expire(SystemTime::now())).await {
            Ok(Ok(0)) => {}
            Ok(Ok(days)) => tracing::info!(days, "removed days beyond the retention"),
            Ok(Err(error)) => {
                tracing::error!(error = %chain(&error), "days beyond the retention were not removed")
            }
            Err(error) => tracing::error!(%error, "removing old days panicked"),
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Which traces settle when. A trace is due when nothing has come for a third of the settle time, and in any case
/// before its oldest news is as old as that: so lists and map are never staler than promised.
struct Waiting {
    most: usize,
    quiet: Duration,
    latest: Duration,
    traces: HashMap<TraceId, Due>,
    /// One entry per trace in `traces`; when its time comes the trace is due or moves back to its real time.
    queue: VecDeque<(Instant, TraceId)>,
    rest: Duration,
    resting_until: Instant,
}

#[derive(Clone, Copy)]
struct Due {
    first: Instant,
    last: Instant,
}

impl Waiting {
    fn new(settle: Duration, most: usize) -> Waiting {
        Waiting {
            most,
            quiet: settle / 3,
            latest: settle * 9 / 10,
            traces: HashMap::new(),
            queue: VecDeque::new(),
            rest: (settle / 20).min(LONGEST_REST),
            resting_until: Instant::now(),
        }
    }

    fn len(&self) -> usize {
        self.traces.len()
    }

    fn arrived(&mut self, trace: TraceId, now: Instant) {
        match self.traces.entry(trace) {
            std::collections::hash_map::Entry::Occupied(mut slot) => slot.get_mut().last = now,
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(Due {
                    first: now,
                    last: now,
                });
                self.queue.push_back((now + self.quiet, trace));
            }
        }
    }

    fn put_back(&mut self, traces: Vec<TraceId>, now: Instant) {
        for trace in traces {
            self.arrived(trace, now);
        }
    }

    fn next_due(&self) -> Option<Instant> {
        if self.traces.len() > self.most {
            return Some(Instant::now());
        }
        self.queue
            .front()
            .map(|(at, _)| (*at).max(self.resting_until))
    }

    /// The queue stays sorted: everything is pushed at `now + quiet`, or later by one recheck.
    fn take_due(&mut self, now: Instant, at_most: usize) -> Vec<TraceId> {
        let mut due = Vec::new();
        let mut again = Vec::new();
        if now < self.resting_until && self.traces.len() <= self.most {
            return due;
        }
        while due.len() < at_most {
            let crowded = self.traces.len() > self.most;
            let Some((at, trace)) = self.queue.front().copied() else {
                break;
            };
            if at > now && !crowded {
                break;
            }
            self.queue.pop_front();
            let Some(state) = self.traces.get(&trace) else {
                continue;
            };
            let real = (state.last + self.quiet).min(state.first + self.latest);
            if real <= now || crowded {
                self.traces.remove(&trace);
                due.push(trace);
            } else {
                again.push((real, trace));
            }
        }
        if due.len() < at_most {
            self.resting_until = now + self.rest;
        }
        for entry in again {
            let place = self.queue.partition_point(|(at, _)| *at <= entry.0);
            self.queue.insert(place, entry);
        }
        due
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One that has no room.
    pub(crate) fn full() -> Pipeline {
        let (queue, _) = mpsc::channel(1);
        Pipeline {
            queue,
            room: {
                let room = Room::new(0);
                room.close(true);
                room
            },
            metrics: Metrics::new(),
        }
    }

    const SETTLE: Duration = Duration::from_secs(15);

    #[tokio::test]
    async fn a_quiet_trace_is_due_after_a_third_of_the_settle_time() {
        let mut waiting = Waiting::new(SETTLE, 500);
        let now = Instant::now();
        waiting.arrived(TraceId(1), now);
        assert!(waiting.take_due(now + Duration::from_secs(4), 9).is_empty());
        assert_eq!(
            waiting.take_due(now + Duration::from_secs(5), 9),
            [TraceId(1)]
        );
        assert_eq!(waiting.len(), 0);
    }

    #[tokio::test]
    async fn a_trace_that_never_rests_is_due_before_its_news_is_older_than_promised() {
        let mut waiting = Waiting::new(SETTLE, 500);
        let start = Instant::now();
        let mut settled_at = None;
        for second in 0..15 {
            let now = start + Duration::from_secs(second);
            waiting.arrived(TraceId(1), now);
            if !waiting.take_due(now, 9).is_empty() {
                settled_at.get_or_insert(second);
            }
        }
        assert_eq!(settled_at, Some(14));
    }

    #[tokio::test]
    async fn one_settling_takes_a_bounded_number() {
        let mut waiting = Waiting::new(SETTLE, 500);
        let now = Instant::now();
        for id in 1..=10 {
            waiting.arrived(TraceId(id), now);
        }
        let later = now + SETTLE;
        assert_eq!(waiting.take_due(later, 4).len(), 4);
        assert!(waiting.next_due().is_some_and(|due| due <= later));
    }

    #[test]
    fn a_full_queue_says_so_at_once() {
        let (queue, _receiver) = mpsc::channel(1);
        let pipeline = Pipeline {
            queue,
            room: Room::new(1024),
            metrics: Metrics::new(),
        };
        let submit = || pipeline.submit(Source::OtlpHttp, Vec::new(), 1, pipeline.room.account());
        assert!(submit().is_ok());
        assert_eq!(submit().err(), Some(NoRoom));
    }
}
