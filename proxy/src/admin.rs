// SPDX-License-Identifier: Apache-2.0
//! The admin server on 9901 with the Envoy paths that users scripted against, and the agent server on 9902. Reads
//! status, metrics and snapshots; changes nothing but the drain, the log level and the health answer.

mod agent;
mod certs;
pub mod door;
mod dump;
mod pages;
mod select;
mod stats;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::RawQuery;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use pillion_runtime::telemetry::LogLevel;
use tokio_util::sync::CancellationToken;

use crate::app::Afterwards;
use crate::app::Drain;
use crate::config::Config;
use crate::drain::BOTH;
use crate::drain::Side;
use crate::metrics::Metrics;
use crate::snapshot::Live;
use crate::xds::client::Control;
use crate::xds::status::Failing;
use crate::xds::status::State as ServerState;

/// What the pages show.
#[derive(Clone)]
pub struct Pages {
    pub(crate) config: Arc<Config>,
    pub(crate) control: Control,
    pub(crate) live: Live,
    pub(crate) metrics: Metrics,
    pub(crate) registry: prometheus::Registry,
    pub(crate) level: LogLevel,
    pub(crate) drain: Drain,
    pub(crate) addresses: Arc<dyn Fn() -> Vec<(String, SocketAddr)> + Send + Sync>,
    pub(crate) base: Arc<stats::Base>,
    /// Fired by `/quitquitquit`.
    pub(crate) quit: CancellationToken,
    pub(crate) agent: Arc<agent::Agent>,
}

/// What [`Pages`] are made of.
pub struct Parts {
    /// What holds.
    pub config: Arc<Config>,
    /// The stream and what it brought.
    pub control: Control,
    /// What serves.
    pub live: Live,
    /// Counts of the data path.
    pub metrics: Metrics,
    /// All families.
    pub registry: prometheus::Registry,
    /// Log level.
    pub level: LogLevel,
    /// Draining.
    pub drain: Drain,
    /// Bound sockets by name.
    pub addresses: Arc<dyn Fn() -> Vec<(String, SocketAddr)> + Send + Sync>,
}

impl Pages {
    /// From the parts that `app` wires.
    pub fn new(parts: Parts) -> Pages {
        Pages {
            config: parts.config,
            control: parts.control,
            live: parts.live,
            metrics: parts.metrics,
            registry: parts.registry,
            level: parts.level,
            drain: parts.drain,
            addresses: parts.addresses,
            base: Arc::default(),
            quit: CancellationToken::new(),
            agent: Arc::default(),
        }
    }
}

/// The admin server's paths.
pub fn admin(pages: Pages) -> Router {
    Router::new()
        .route("/", get(pages::index))
        .route("/ready", get(ready))
        .route("/server_info", get(pages::server_info))
        .route("/stats", get(stats::stats))
        .route("/stats/prometheus", get(stats::prometheus))
        .route("/metrics", get(stats::prometheus))
        .route("/clusters", get(pages::clusters))
        .route("/listeners", get(pages::listeners))
        .route("/certs", get(certs::certs))
        .route("/config", get(config))
        .route("/config_dump", get(dump::config_dump))
        .route("/logging", post(logging))
        .route("/drain_listeners", post(drain_listeners))
        .route("/healthcheck/fail", post(healthcheck_fail))
        .route("/healthcheck/ok", post(healthcheck_ok))
        .route("/reset_counters", post(stats::reset_counters))
        .route("/reopen_logs", post(reopen_logs))
        .route("/quitquitquit", post(quit))
        .route("/runtime", get(pages::runtime))
        .route("/memory", get(pages::memory))
        .route("/hot_restart_version", get(|| async { "disabled\n" }))
        .route("/help", get(pages::help))
        .with_state(pages)
}

/// The agent server's paths, all of them within its rate.
pub fn agent(pages: Pages) -> Router {
    let limited = axum::middleware::from_fn_with_state(pages.clone(), agent::limit);
    Router::new()
        .route("/status", get(agent::status))
        .route("/stats/prometheus", get(agent::stats))
        .route("/drain_listeners", post(agent::drain_listeners))
        .route("/enableLogging", post(agent::enable_logging))
        .layer(limited)
        .with_state(pages)
}

/// A value of the query string; `Some("")` for a bare key.
pub(crate) fn query(raw: Option<&str>, key: &str) -> Option<String> {
    let pairs = raw.unwrap_or_default().split('&');
    let mut found = pairs.filter_map(|pair| match pair.split_once('=') {
        Some((name, value)) => (name == key).then_some(value),
        None => (pair == key).then_some(""),
    });
    found.next().map(percent_decoded)
}

/// Undoes `%41` and `+`; what does not decode stays as it is.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail
            .get(..2)
            .and_then(|pair| std::str::from_utf8(pair).ok());
        let decoded = hex.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match (first, decoded) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// JSON as Envoy prints it: a member a line, so that `grep state` finds what it always found.
pub(crate) fn pretty(value: &serde_json::Value) -> Response {
    let text = format!("{value:#}\n");
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

async fn ready(State(pages): State<Pages>) -> Response {
    let state = pages.control.status.state();
    let code = if state == ServerState::Live {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mut text = format!("{}\n", state.word());
    if code != StatusCode::OK {
        for unbound in pages.control.status.unbound() {
            text.push_str(&unbound);
            text.push('\n');
        }
    }
    (code, text).into_response()
}

async fn config(State(pages): State<Pages>) -> Response {
    pretty(&pages.config.to_json())
}

/// Envoy's names of levels.
fn our_level(level: &str) -> &str {
    match level {
        "warning" => "warn",
        "critical" => "error",
        other => other,
    }
}

async fn logging(State(pages): State<Pages>, RawQuery(raw): RawQuery) -> Response {
    if let Some(level) = query(raw.as_deref(), "level").or_else(|| query(raw.as_deref(), "paths")) {
        let filter = our_level(&level);
        if let Err(error) = pages.level.set(filter) {
            return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response();
        }
        tracing::info!(filter, "log level changed");
    }
    format!("active loggers:\n  all: {}\n", pages.level.get()).into_response()
}

async fn drain_listeners(
    State(pages): State<Pages>,
    RawQuery(raw): RawQuery,
) -> (StatusCode, &'static str) {
    let asked = |key| query(raw.as_deref(), key).is_some();
    let sides = if asked("inboundonly") {
        &[Side::Inbound]
    } else {
        BOTH
    };
    match (asked("graceful"), asked("skip_exit")) {
        (true, true) => pages.drain.gracefully(sides, Afterwards::Stay),
        (true, false) => pages.drain.gracefully(sides, Afterwards::Close),
        (false, true) => {
            let why = "skip_exit says what follows a graceful drain; ask for ?graceful&skip_exit\n";
            return (StatusCode::BAD_REQUEST, why);
        }
        (false, false) => pages.drain.at_once(sides),
    }
    (StatusCode::OK, "OK\n")
}

/// Every write looks whether its file is still the one of that name: there is nothing left to do.
async fn reopen_logs() -> &'static str {
    "OK\n"
}

async fn quit(State(pages): State<Pages>) -> &'static str {
    pages.quit.cancel();
    "OK\n"
}

async fn healthcheck_fail(State(pages): State<Pages>) -> &'static str {
    pages.control.status.set_failing(Failing::Yes);
    pages.drain.while_failing(Failing::Yes);
    "OK\n"
}

async fn healthcheck_ok(State(pages): State<Pages>) -> &'static str {
    pages.control.status.set_failing(Failing::No);
    pages.drain.while_failing(Failing::No);
    "OK\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_key_is_there_and_a_value_is_decoded() {
        assert_eq!(query(Some("graceful"), "graceful").as_deref(), Some(""));
        assert_eq!(
            query(Some("a=1&filter=%5Ecluster%5C.+x"), "filter").as_deref(),
            Some("^cluster\\. x")
        );
        assert_eq!(
            query(Some("filter=100%"), "filter").as_deref(),
            Some("100%")
        );
        assert_eq!(query(None, "filter"), None);
    }
}
