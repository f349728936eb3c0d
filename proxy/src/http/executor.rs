// SPDX-License-Identifier: Apache-2.0
//! Tasks of a worker: local to its thread, and guarded, so that a panic ends one connection and is counted.

use std::future::Future;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;

use futures_util::FutureExt;

use super::watch::Watch;
use crate::metrics::Metrics;

/// Spawns hyper's tasks on the worker's `LocalSet`.
#[derive(Clone, Debug)]
pub struct LocalExecutor {
    metrics: Metrics,
}

impl LocalExecutor {
    /// Counts panics in `metrics`.
    pub fn new(metrics: Metrics) -> LocalExecutor {
        LocalExecutor { metrics }
    }
}

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        spawn(&self.metrics, async {
            task.await;
        });
    }
}

/// Spawns the streams of a downstream HTTP/2 connection: one whose answer times out unread is dropped, which resets it.
#[derive(Clone, Debug)]
pub struct StreamExecutor {
    metrics: Metrics,
}

impl StreamExecutor {
    /// Counts panics in `metrics`.
    pub fn new(metrics: Metrics) -> StreamExecutor {
        StreamExecutor { metrics }
    }
}

impl<F: Future + 'static> hyper::rt::Executor<F> for StreamExecutor {
    fn execute(&self, task: F) {
        spawn(&self.metrics, async {
            let mut task = pin!(task);
            let mut watch = Watch::default();
            poll_fn(|cx| watch.poll(task.as_mut(), cx)).await;
        });
    }
}

/// Runs a task of this worker to its end, or to its panic.
pub fn spawn(metrics: &Metrics, task: impl Future<Output = ()> + 'static) {
    let metrics = metrics.clone();
    tokio::task::spawn_local(async move {
        // The task's state goes with it: nothing that outlives a panic is left half changed but by Cells and counters.
        if AssertUnwindSafe(task).catch_unwind().await.is_err() {
            metrics.process().panics.add_shared(1);
            tracing::error!("a panic ended a connection; please report it with the lines above");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_its_own_task_only_and_is_counted() {
        let metrics = Metrics::new(1, Vec::new());
        let local = tokio::task::LocalSet::new();
        let (done, finished) = tokio::sync::oneshot::channel();
        let counted = metrics.clone();
        local
            .run_until(async move {
                spawn(&counted, async { panic!("injected") });
                tokio::task::yield_now().await;
                spawn(
                    &counted,
                    async move { done.send(7).expect("the test waits") },
                );
                assert_eq!(finished.await, Ok(7));
            })
            .await;
        assert_eq!(metrics.process().panics.get(), 1);
    }
}
