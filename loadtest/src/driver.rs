// SPDX-License-Identifier: Apache-2.0
//! The open loop: sends what is due over a fixed set of connections and records every outcome against its due time.
//! Called by `main`. A request that must wait for a connection waits on the clock of the measurement, so a stalled
//! target cannot hide behind the requests it kept from being sent (coordinated omission).

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::{Semaphore, TryAcquireError};
use tokio::task::JoinSet;
use tokio::time::Sleep;

use crate::args::{Plan, Protocol};
use crate::connection::{ConnectError, Connection, Dialer, ExchangeError};
use crate::pacer::Pacer;
use crate::report::Observer;
use crate::schedule::Schedule;
use crate::tally::{Delay, LATE, Outcome, Tally};

/// How long requests in flight may take after the user has stopped the run.
const STOP_GRACE: Duration = Duration::from_millis(500);

/// The finished measurement.
pub(crate) struct Summary {
    pub(crate) totals: Tally,
    /// What the counts are to be divided by.
    pub(crate) window: Duration,
    /// Requests that were due but never left, because no connection came free.
    pub(crate) unsent: u64,
    pub(crate) interrupted: bool,
    pub(crate) last_error: Option<String>,
}

/// What the workers share.
struct Run {
    plan: Plan,
    dialer: Dialer,
    start: Instant,
    due: Arc<Semaphore>,
    schedule: Mutex<Schedule>,
    /// Since the last report; the observer adds it up.
    tally: Mutex<Tally>,
    issued: AtomicU64,
    finished: AtomicU64,
    last_sent_us: AtomicU64,
    last_error: Mutex<Option<String>>,
}

pub(crate) async fn run(plan: &Plan) -> anyhow::Result<Summary> {
    let dialer = Dialer::resolve(plan).await?;
    let slots = match open(plan, &dialer).await {
        Ok(slots) => slots,
        Err(error) => return Ok(unreachable(error)),
    };
    let length = plan.warmup + plan.duration;
    let timetable = if plan.closed { Duration::ZERO } else { length };
    let schedule = Schedule::new(plan.arrivals, plan.rate, timetable, plan.limit);
    let run = Arc::new(Run {
        plan: plan.clone(),
        dialer,
        start: Instant::now(),
        due: Arc::new(Semaphore::new(0)),
        schedule: Mutex::new(schedule.clone()),
        tally: Mutex::new(Tally::new()),
        issued: AtomicU64::new(0),
        finished: AtomicU64::new(0),
        last_sent_us: AtomicU64::new(0),
        last_error: Mutex::new(None),
    });
    let mut workers = JoinSet::new();
    for slot in slots {
        for _ in 0..streams(plan.protocol) {
            workers.spawn(work(run.clone(), slot.clone()));
        }
    }
    let mut pacer =
        Pacer::start(schedule, run.start, run.due.clone()).context("start the pacer thread")?;
    let mut observer = Observer::new(plan);
    let interrupted = AtomicBool::new(false);
    tokio::select! {
        () = conduct(&run, &mut pacer, &mut workers) => {}
        () = stopped() => interrupted.store(true, Ordering::Relaxed),
        never = observer.watch(|| run.take_tally(), run.start) => match never? {},
    }
    let at_stop = run.start.elapsed();
    run.due.close();
    let settle = async { while workers.join_next().await.is_some() {} };
    // Whoever is still waiting after the grace is counted as unfinished.
    drop(tokio::time::timeout(STOP_GRACE, settle).await);
    workers.shutdown().await;
    pacer.join();
    Ok(run.summarize(
        observer.finish(&run.take_tally()),
        at_stop,
        interrupted.into_inner(),
    ))
}

/// Until every request that was due has been sent and answered, or until the timetable's end and one timeout more.
async fn conduct(run: &Run, pacer: &mut Pacer, workers: &mut JoinSet<()>) {
    // An error means that the pacer died, and then nothing more will come.
    drop((&mut pacer.finished).await);
    // One more permit for each worker: it finds the timetable empty and ends, after the backlog.
    run.due.add_permits(workers.len());
    let drain = async { while workers.join_next().await.is_some() {} };
    let most = run.plan.timeout
        + if run.plan.closed {
            run.length()
        } else {
            Duration::ZERO
        };
    drop(tokio::time::timeout(most, drain).await);
}

pub(crate) async fn stopped() {
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

fn streams(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Http1 => 1,
        Protocol::Http2 { streams } => streams,
    }
}

/// A connection that one worker owns, or that the streams of HTTP/2 share. The lock makes sure that only one of them
/// dials anew.
type Slot = Arc<tokio::sync::Mutex<Option<Connection>>>;

/// Opens every connection before the clock starts. Fails only if the first cannot be opened: then nobody is there.
async fn open(plan: &Plan, dialer: &Dialer) -> Result<Vec<Slot>, ConnectError> {
    let mut slots = vec![Arc::new(tokio::sync::Mutex::new(Some(
        dialer.connect().await?,
    )))];
    while slots.len() < plan.connections {
        let connection = dialer.connect().await.ok();
        slots.push(Arc::new(tokio::sync::Mutex::new(connection)));
    }
    Ok(slots)
}

/// A target that is not there is one failed request, not a run of them.
fn unreachable(error: ConnectError) -> Summary {
    let mut totals = Tally::new();
    totals.record(Outcome::Connect, Duration::ZERO);
    let last_error = Some(format!(
        "{:#}; is the target running?",
        anyhow::Error::new(error)
    ));
    Summary {
        totals,
        window: Duration::ZERO,
        unsent: 0,
        interrupted: false,
        last_error,
    }
}

async fn work(run: Arc<Run>, slot: Slot) {
    let mut patience = Patience::new();
    loop {
        let Some((at, cause)) = run.next().await else {
            return;
        };
        let sent = run.start.elapsed();
        run.last_sent_us.fetch_max(micros(sent), Ordering::Relaxed);
        let ended = patience.within(run.plan.timeout, send(&run, &slot)).await;
        let outcome = ended.unwrap_or_else(|| {
            run.blame(format!("no answer within {:?}", run.plan.timeout));
            Outcome::Timeout
        });
        let latency = run.start.elapsed().saturating_sub(at);
        run.finished.fetch_add(1, Ordering::Relaxed);
        if at >= run.plan.warmup {
            let mut tally = lock(&run.tally);
            tally.record(outcome, latency);
            if sent.saturating_sub(at) > LATE {
                tally.delayed(cause);
            }
        }
    }
}

/// One request on the slot's connection. HTTP/1.1 takes the connection out for that long: dropped halfway by a timeout,
/// it closes, so that a late answer cannot be taken for the next one's. A connection that the target closed while it was idle is replaced once: it
/// is no failure of the target to close what nobody used.
async fn send(run: &Run, slot: &Slot) -> Outcome {
    for _ in 0..2 {
        let mut held = slot.lock().await;
        let mut connection = match held.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => match run.dialer.connect().await {
                Ok(connection) => connection,
                Err(error) => {
                    run.blame(format!("{:#}", anyhow::Error::new(error)));
                    return Outcome::Connect;
                }
            },
        };
        if let Some(shared) = connection.share() {
            *held = Some(shared);
        }
        drop(held);
        match connection.exchange(&run.plan.template).await {
            Ok((status, bytes)) => {
                if run.plan.protocol == Protocol::Http1 {
                    *slot.lock().await = Some(connection);
                }
                if status >= 400 {
                    run.blame(format!("answered with status {status}"));
                }
                return Outcome::Answered { status, bytes };
            }
            Err(ExchangeError::Unsent) => {}
            Err(error) => {
                run.blame(format!("{:#}", anyhow::Error::new(error)));
                return Outcome::Broken;
            }
        }
    }
    run.blame("the target closes every connection before a request can be sent".into());
    Outcome::Broken
}

impl Run {
    /// When the next request is due, and what made it late if it is; `None` when there is no next one.
    async fn next(&self) -> Option<(Duration, Delay)> {
        if self.plan.closed {
            let at = self.start.elapsed();
            let within = at < self.length() && !self.due.is_closed();
            let counted = || self.issued.fetch_add(1, Ordering::Relaxed) < self.plan.limit;
            if within && counted() {
                return Some((at, Delay::Generator));
            }
            return None;
        }
        let cause = match self.due.try_acquire() {
            // Somebody was due already: every connection was taken until now.
            Ok(permit) => {
                permit.forget();
                Delay::ConnectionsBusy
            }
            Err(TryAcquireError::Closed) => return None,
            Err(TryAcquireError::NoPermits) => {
                self.due.acquire().await.ok()?.forget();
                Delay::Generator
            }
        };
        let at = lock(&self.schedule).next()?;
        self.issued.fetch_add(1, Ordering::Relaxed);
        Some((at, cause))
    }

    fn length(&self) -> Duration {
        self.plan.warmup + self.plan.duration
    }

    fn take_tally(&self) -> Tally {
        std::mem::replace(&mut *lock(&self.tally), Tally::new())
    }

    fn blame(&self, cause: String) {
        *lock(&self.last_error) = Some(cause);
    }

    fn summarize(&self, mut totals: Tally, at_stop: Duration, interrupted: bool) -> Summary {
        // A closed loop counts the one that its limit refuses as well.
        let issued = self.issued.load(Ordering::Relaxed).min(self.plan.limit);
        for _ in self.finished.load(Ordering::Relaxed)..issued {
            totals.record(Outcome::Unfinished, Duration::ZERO);
        }
        let last_sent = Duration::from_micros(self.last_sent_us.load(Ordering::Relaxed));
        let until = if interrupted || (self.plan.closed && issued >= self.plan.limit) {
            at_stop
        } else if issued >= self.plan.limit {
            last_sent + Duration::from_secs_f64(1.0 / self.plan.rate)
        } else {
            last_sent.max(self.plan.warmup + self.plan.duration)
        };
        let was_due = until.min(self.plan.warmup + self.plan.duration);
        let unsent = lock(&self.schedule)
            .by_ref()
            .take_while(|at| *at <= was_due)
            .count();
        Summary {
            totals,
            window: until.saturating_sub(self.plan.warmup),
            unsent: unsent as u64,
            interrupted,
            last_error: lock(&self.last_error).take(),
        }
    }
}

/// A timeout that costs one timer per `limit`, not one per request: the timer is left running from request to
/// request, and is moved only when it fires before its time.
struct Patience(Pin<Box<Sleep>>);

impl Patience {
    fn new() -> Self {
        Self(Box::pin(tokio::time::sleep(Duration::ZERO)))
    }

    async fn within<T>(&mut self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        let deadline = tokio::time::Instant::now() + limit;
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = self.0.as_mut() => {
                    if tokio::time::Instant::now() >= deadline {
                        return None;
                    }
                    self.0.as_mut().reset(deadline);
                }
            }
        }
    }
}

/// A worker that panicked leaves whole numbers behind: every change is a single addition.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn patience_counts_from_each_request_and_not_from_the_last_timer() {
        let limit = Duration::from_millis(300);
        let mut patience = Patience::new();
        let short = tokio::time::sleep(limit / 2);
        assert_eq!(patience.within(limit, short).await, Some(()));
        let begun = Instant::now();
        let never = std::future::pending::<()>();
        assert_eq!(patience.within(limit, never).await, None);
        assert!(begun.elapsed() >= limit);
    }
}
