// SPDX-License-Identifier: Apache-2.0
//! Tasks of a worker: local to its thread, and guarded, so that a panic ends one connection and is counted.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

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
