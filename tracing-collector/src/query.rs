// SPDX-License-Identifier: Apache-2.0
//! Answers: the X-Ray API ([`xray_api`] routes; a file per operation), the Pillion API, the dashboard's files. Reads the
//! store; writes PutTraceSegments through `receive`, and what operators configure through [`kept`].

mod batch_traces;
pub(crate) mod dashboard;
mod declared;
mod groups;
pub(crate) mod insights;
pub(crate) mod jaeger;
pub(crate) mod kept;
pub(crate) mod pillion_api;
mod retrieval;
mod sampling;
mod sampling_rules;
mod service_graph;
mod tags;
mod time_series;
mod token;
mod trace_graph;
mod trace_summaries;
mod window;
pub(crate) mod xray_api;

use std::time::SystemTime;

/// Epoch seconds, to the millisecond.
pub(crate) fn now() -> f64 {
    now_seconds()
}

/// As X-Ray writes times, to the millisecond.
fn now_seconds() -> f64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    since.as_millis() as f64 / 1e3
}
