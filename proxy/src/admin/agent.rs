// SPDX-License-Identifier: Apache-2.0
//! `/status` of the agent that used to be process 1 in App Mesh's image. There is no second process here, so it speaks
//! of this one.

use std::time::SystemTime;

use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use super::Pages;
use super::pretty;
use crate::xds::status::State as ServerState;

pub(super) async fn status(State(pages): State<Pages>) -> Response {
    let status = &pages.control.status;
    let state = status.state();
    let live = state == ServerState::Live;
    let since = status.disconnected_since();
    pretty(&json!({
        "healthStatus": if live { "HEALTHY" } else { "UNHEALTHY" },
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
