// SPDX-License-Identifier: Apache-2.0
//! The demo's traffic: what `pillion-loadtest` reports, line by line. Used by `demo`, which starts the program.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::demo::child::{LogTail, Output};

#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("pillion-loadtest ended without a report{log}")]
    NoReport { log: LogTail },
    #[error("pillion-loadtest said {line:?}")]
    Garbled {
        line: String,
        source: serde_json::Error,
    },
}

/// One line of its output: an interval, or the whole run.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Measured {
    event: Event,
    pub(crate) requests: u64,
    pub(crate) failures: u64,
    pub(crate) failures_by_kind: Kinds,
    pub(crate) latency: Latency,
    pub(crate) rate: Rate,
    #[serde(default)]
    pub(crate) last_error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Event {
    Interval,
    Final,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Kinds {
    pub(crate) connect: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Rate {
    pub(crate) reached: f64,
}

/// What `pillion-loadtest` is told.
pub(crate) fn arguments(url: &str, rate: f64, length: Duration) -> Vec<String> {
    let mut all: Vec<String> = [
        "run",
        "--output",
        "json",
        "--interval",
        "1s",
        "--connections",
        "32",
    ]
    .map(str::to_owned)
    .into();
    all.extend([
        "--rate".into(),
        rate.to_string(),
        "--duration".into(),
        format!("{}s", length.as_secs()),
    ]);
    all.push(url.to_owned());
    all
}

/// Hands every interval to `show` and returns the report of the whole run.
pub(crate) async fn follow(
    output: &mut Output,
    mut show: impl FnMut(&Measured),
) -> Result<Measured, LoadError> {
    while let Some(line) = output.line().await {
        let measured: Measured =
            serde_json::from_str(&line).map_err(|source| LoadError::Garbled { line, source })?;
        match measured.event {
            Event::Interval => show(&measured),
            Event::Final => return Ok(measured),
        }
    }
    Err(LoadError::NoReport { log: output.log() })
}
