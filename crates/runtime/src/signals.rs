// SPDX-License-Identifier: Apache-2.0
//! The signals that ask a process to drain. Listened for before the readiness line: whoever reads it may ask at once.

use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

/// SIGTERM and SIGINT from the moment of [`Termination::listen`] on; one that came before it is asked for is kept.
pub struct Termination {
    term: Signal,
    int: Signal,
}

impl Termination {
    /// From now on the two signals no longer end the process by themselves.
    pub fn listen() -> Termination {
        let take = |kind| signal(kind).expect("a tokio runtime with signals is running");
        Termination {
            term: take(SignalKind::terminate()),
            int: take(SignalKind::interrupt()),
        }
    }

    /// Resolves at the next of the two, with its name for the log.
    pub async fn asked(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_that_comes_before_anybody_waits_is_not_lost() {
        let mut termination = Termination::listen();
        let me = std::process::id().to_string();
        let sent = std::process::Command::new("kill")
            .args(["-TERM", &me])
            .status();
        assert!(sent.expect("kill is everywhere").success());
        assert_eq!(termination.asked().await, "SIGTERM");
    }
}
