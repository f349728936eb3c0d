// SPDX-License-Identifier: Apache-2.0
//! The signals that ask a process to drain.

use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

/// Resolves at SIGTERM or SIGINT, with its name for the log.
pub async fn terminated() -> &'static str {
    let mut term =
        signal(SignalKind::terminate()).expect("a tokio runtime with signals is running");
    let mut int = signal(SignalKind::interrupt()).expect("a tokio runtime with signals is running");
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    }
}
