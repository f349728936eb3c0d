// SPDX-License-Identifier: Apache-2.0
//! The clock: a thread of its own that lets one request go whenever one is due. Used by `driver`.
//!
//! A thread, because tokio's timer counts whole milliseconds and would add up to one to every latency. What is due is
//! a number of permits in a semaphore, not a queue: a target that stalls for an hour costs no memory.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, oneshot};

use crate::schedule::Schedule;

/// Longest sleep: how soon a stopped run is noticed.
const NAP: Duration = Duration::from_millis(50);

pub(crate) struct Pacer {
    thread: JoinHandle<()>,
    /// Resolves when the last request has been let go.
    pub(crate) finished: oneshot::Receiver<()>,
}

impl Pacer {
    /// Ends by itself after the last due time, or soon after `due` is closed.
    pub(crate) fn start(
        schedule: Schedule,
        start: Instant,
        due: Arc<Semaphore>,
    ) -> std::io::Result<Self> {
        let (finish, finished) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("pacer".into())
            .spawn(move || {
                pace(schedule, start, &due);
                // The receiver is gone when the run was stopped first.
                finish.send(()).unwrap_or_default();
            })?;
        Ok(Self { thread, finished })
    }

    /// Blocks for at most one nap.
    pub(crate) fn join(self) {
        // A panic there has already been printed, and the permits it did not give show as a rate not reached.
        drop(self.thread.join());
    }
}

fn pace(schedule: Schedule, start: Instant, due: &Semaphore) {
    let mut schedule = schedule.peekable();
    while !due.is_closed() {
        let now = start.elapsed();
        let mut ready = 0;
        while schedule.next_if(|at| *at <= now).is_some() {
            ready += 1;
        }
        if ready > 0 {
            due.add_permits(ready);
        }
        let Some(next) = schedule.peek() else { return };
        std::thread::sleep(next.saturating_sub(start.elapsed()).min(NAP));
    }
}
