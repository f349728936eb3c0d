// SPDX-License-Identifier: Apache-2.0
//! The agent's pages: `/status`, metrics, the drain and a log level that goes back by itself, ten requests a second at
//! the most, as of the agent that used to be process 1 in App Mesh's image. There is no second process here, so it
//! speaks of this one.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use axum::extract::RawQuery;
use axum::extract::Request;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::IntoResponse;
use axum::response::Response;
use parking_lot::Mutex;
use serde_json::json;

use super::Pages;
use super::our_level;
use super::pretty;
use super::query;
use super::stats as plain;
use crate::xds::status::State as ServerState;

/// Requests a second, and how many may come at once.
const RATE: f64 = 10.0;
const BURST: f64 = 20.0;

/// What the agent's pages remember.
#[derive(Default)]
pub(crate) struct Agent {
    /// Tokens left, and when they were counted.
    bucket: Mutex<Option<(f64, Instant)>>,
    /// Counts levels that were asked for: an older one does not go back over a newer one.
    levels: AtomicU64,
}

impl Agent {
    fn admits(&self, now: Instant) -> bool {
        let mut bucket = self.bucket.lock();
        let (left, since) = bucket.unwrap_or((BURST, now));
        let left = (left + now.duration_since(since).as_secs_f64() * RATE).min(BURST);
        let admits = left >= 1.0;
        *bucket = Some((if admits { left - 1.0 } else { left }, now));
        admits
    }
}

/// 429 beyond the rate.
pub(super) async fn limit(State(pages): State<Pages>, request: Request, next: Next) -> Response {
    if pages.agent.admits(Instant::now()) {
        return next.run(request).await;
    }
    let why = format!("more than {RATE} requests a second; ask less often\n");
    (StatusCode::TOO_MANY_REQUESTS, why).into_response()
}

pub(super) async fn status(State(pages): State<Pages>) -> Response {
    let status = &pages.control.status;
    let state = status.state();
    let live = state == ServerState::Live;
    let since = status.disconnected_since();
    let limit = pages.config.agent_limits.disconnected;
    let away = since.and_then(|since| SystemTime::now().duration_since(since).ok());
    let healthy = live && away.is_none_or(|away| away < limit);
    pretty(&json!({
        "healthStatus": if healthy { "HEALTHY" } else { "UNHEALTHY" },
        "agentUptime": status.uptime_s().to_string(),
        "envoyPid": std::process::id().to_string(),
        "envoyState": state.word(),
        "envoyRestartCount": "0",
        "managementServerConnectionStatus": if since.is_none() { "CONNECTED" } else { "DISCONNECTED" },
        "managementServerDisconnectedTimestamp": since.map(seconds),
        "managementServerLastError": status.last_error(),
        "envoyReadinessState": if live { "READY" } else { "NOT_READY" },
        "initialConfigUpdateStatus": if status.pending().is_empty() { "SUCCEEDED" } else { "PENDING" },
        "pending": status.pending(),
        "connectionsInFlight": pages.drain.in_flight(),
    }))
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// `filter=metrics_extension` leaves App Mesh's own; anything else is as on the admin port.
pub(super) async fn stats(State(pages): State<Pages>, RawQuery(raw): RawQuery) -> Response {
    if query(raw.as_deref(), "filter").as_deref() != Some("metrics_extension") {
        return plain::prometheus(State(pages), RawQuery(raw)).await;
    }
    if !pages.config.exporters.metrics_extension {
        let why = "the metrics extension is off; set APPMESH_METRIC_EXTENSION_VERSION=1\n";
        return (StatusCode::BAD_REQUEST, why).into_response();
    }
    let used = query(raw.as_deref(), "usedonly").map_or("", |_| "&usedonly");
    let raw = format!("filter=^envoy_appmesh_{used}");
    plain::prometheus(State(pages), RawQuery(Some(raw))).await
}

/// The agent took this one form.
pub(super) async fn drain_listeners(
    State(pages): State<Pages>,
    RawQuery(raw): RawQuery,
) -> Response {
    if raw.as_deref() != Some("inboundonly") {
        let why = "only /drain_listeners?inboundonly is taken here; others on the admin port\n";
        return (StatusCode::BAD_REQUEST, why).into_response();
    }
    super::drain_listeners(State(pages), RawQuery(raw))
        .await
        .into_response()
}

pub(super) async fn enable_logging(
    State(pages): State<Pages>,
    RawQuery(raw): RawQuery,
) -> Response {
    let Some(level) = query(raw.as_deref(), "level") else {
        let why = "needs ?level=, such as debug\n";
        return (StatusCode::BAD_REQUEST, why).into_response();
    };
    let before = pages.config.log_filter.clone();
    if let Err(error) = pages.level.set(our_level(&level)) {
        return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response();
    }
    let after = pages.config.agent_limits.logging_reset;
    tracing::info!(level, reset_in_s = after.as_secs(), "log level changed");
    go_back(pages, before, after);
    "OK\n".into_response()
}

fn go_back(pages: Pages, before: String, after: Duration) {
    let number = pages.agent.levels.fetch_add(1, Ordering::Relaxed) + 1;
    let tasks = pages.drain.tasks();
    tasks.spawn_until_stopped("log-level", async move {
        tokio::time::sleep(after).await;
        let newest = pages.agent.levels.load(Ordering::Relaxed) == number;
        if newest && pages.level.set(&before).is_ok() {
            tracing::info!(level = before, "log level went back");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_ten_a_second() {
        let agent = Agent::default();
        let begun = Instant::now();
        let admitted = |at: f64| {
            let now = begun + Duration::from_secs_f64(at);
            (0..100).filter(|_| agent.admits(now)).count()
        };
        assert_eq!(admitted(0.0), 20);
        assert_eq!(admitted(1.01), 10);
        assert_eq!(admitted(60.0), 20);
    }
}
