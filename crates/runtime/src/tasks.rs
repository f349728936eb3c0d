// SPDX-License-Identifier: Apache-2.0
//! Named tasks with an end: every background task of a process belongs to one [`Tasks`], hears its stop token, and is
//! awaited (or cut off, and counted) by `drain`.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// The tasks of one process. Clones share them.
#[derive(Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Tasks {
        Tasks::default()
    }

    /// Runs `task` until it ends by itself; it should watch [`Tasks::stop`]. The name goes into its logs.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker
            .spawn(task.instrument(tracing::info_span!("task", of = name)));
    }

    /// Runs `task` until it ends or the stop token fires, whichever is first: for loops with nothing to put away.
    pub fn spawn_until_stopped<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        self.spawn(name, async move {
            stop.run_until_cancelled(task).await;
        });
    }

    /// The token that [`Tasks::drain`] fires.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Fires the stop token and waits for every task, at most for `limit`. Returns how many were still running.
    pub async fn drain(&self, limit: Duration) -> usize {
        self.stop.cancel();
        self.tracker.close();
        match tokio::time::timeout(limit, self.tracker.wait()).await {
            Ok(()) => 0,
            Err(_) => self.tracker.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn drain_waits_for_a_task_that_heeds_the_token() {
        let tasks = Tasks::new();
        let stop = tasks.stop();
        tasks.spawn("heeds", async move { stop.cancelled().await });
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, 0);
    }

    #[tokio::test]
    async fn drain_counts_what_it_had_to_leave() {
        let tasks = Tasks::new();
        tasks.spawn("deaf", std::future::pending());
        assert_eq!(tasks.drain(Duration::from_millis(5)).await, 1);
    }

    #[tokio::test]
    async fn a_loop_spawned_until_stopped_ends_at_drain() {
        let tasks = Tasks::new();
        tasks.spawn_until_stopped("loop", std::future::pending());
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, 0);
    }
}
