// SPDX-License-Identifier: Apache-2.0
//! Logs and metrics as every process has them: logs on stderr (text on a terminal, JSON elsewhere), a level that can be
//! changed while running, Prometheus text. No process names the subscriber or the encoder itself.

use std::io::IsTerminal;

use prometheus::Encoder;
use prometheus::Registry;
use prometheus::TextEncoder;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// Changes the log filter of the running process.
#[derive(Clone)]
pub struct LogLevel {
    handle: reload::Handle<EnvFilter, tracing_subscriber::Registry>,
}

/// A filter that does not parse.
#[derive(Debug, thiserror::Error)]
#[error(
    "log filter {filter:?} is not understood; use a level (error, warn, info, debug, trace) or target=level pairs"
)]
pub struct LogFilterError {
    filter: String,
}

impl LogLevel {
    /// Replaces the filter, such as `debug` or `pillion_proxy::xds=trace,info`.
    pub fn set(&self, filter: &str) -> Result<(), LogFilterError> {
        let wrong = || LogFilterError {
            filter: filter.to_owned(),
        };
        let parsed = parse(filter).ok_or_else(wrong)?;
        self.handle.reload(parsed).map_err(|_| wrong())
    }

    /// The filter in force.
    pub fn get(&self) -> String {
        self.handle
            .with_current(ToString::to_string)
            .unwrap_or_default()
    }
}

/// Bare words that are no level would be taken for targets and silence everything: they are refused instead.
fn parse(filter: &str) -> Option<EnvFilter> {
    let known = |word: &str| {
        let word = word.trim();
        word.contains('=') || ["off", "error", "warn", "info", "debug", "trace"].contains(&word)
    };
    if !filter.split(',').all(known) {
        return None;
    }
    EnvFilter::try_new(filter).ok()
}

/// Starts logging on stderr. `RUST_LOG` wins over `default_filter`. Called once, first thing in `main`.
pub fn init_logging(default_filter: &str) -> LogLevel {
    let filter = std::env::var("RUST_LOG")
        .ok()
        .and_then(|text| parse(&text))
        .or_else(|| parse(default_filter))
        .unwrap_or_else(|| EnvFilter::new("info"));
    let (filter, handle) = reload::Layer::new(filter);
    let terminal = std::io::stderr().is_terminal();
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let subscriber = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // A second init (tests in one process) keeps the first subscriber; the handle then changes nothing.
    let started = if terminal {
        subscriber.with(layer.with_ansi(colour)).try_init()
    } else {
        subscriber.with(layer.json().flatten_event(true)).try_init()
    };
    if started.is_err() {
        tracing::debug!("logging was already started");
    }
    LogLevel { handle }
}

/// Every metric of the registry as Prometheus text.
pub fn render(registry: &Registry) -> String {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&registry.gather(), &mut text) {
        Ok(()) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) => format!("# metrics could not be encoded: {error}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_and_target_pairs_are_filters() {
        assert!(parse("debug").is_some());
        assert!(parse("pillion_proxy::xds=trace,info").is_some());
    }

    #[test]
    fn a_misspelt_level_is_refused_not_taken_for_a_target() {
        assert!(parse("debgu").is_none());
    }
}
