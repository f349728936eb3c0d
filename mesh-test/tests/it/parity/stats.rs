// SPDX-License-Identifier: Apache-2.0
//! The names of the counters that App Mesh's documents, walkthroughs and dashboards ask for: where a stock Envoy has one,
//! ours has it under the same name. Values are not compared; what they count is other tests' matter.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use mesh_test::client;

/// Ends of names, after their scope.
const WATCHED: [&str; 44] = [
    "control_plane.connected_state",
    "lds.update_success",
    "lds.update_rejected",
    "cds.update_success",
    "cds.update_rejected",
    ".downstream_rq_1xx",
    ".downstream_rq_2xx",
    ".downstream_rq_3xx",
    ".downstream_rq_4xx",
    ".downstream_rq_5xx",
    ".downstream_rq_active",
    ".downstream_rq_total",
    ".downstream_cx_total",
    ".downstream_cx_active",
    ".upstream_cx_active",
    ".upstream_cx_total",
    ".upstream_cx_connect_fail",
    ".upstream_rq_total",
    ".upstream_rq_active",
    ".upstream_rq_pending_active",
    ".upstream_rq_pending_overflow",
    ".upstream_rq_timeout",
    ".upstream_rq_retry",
    ".upstream_rq_retry_success",
    ".upstream_rq_retry_limit_exceeded",
    ".upstream_rq_5xx",
    ".circuit_breakers.default.cx_open",
    ".circuit_breakers.default.rq_open",
    ".circuit_breakers.default.rq_pending_open",
    ".circuit_breakers.default.rq_retry_open",
    ".outlier_detection.ejections_active",
    ".outlier_detection.ejections_enforced_total",
    ".lb_healthy_panic",
    ".membership_healthy",
    ".membership_total",
    ".health_check.healthy",
    ".health_check.success",
    ".ssl.handshake",
    ".ssl.no_certificate",
    ".ssl.fail_verify_san",
    "server.live",
    "server.state",
    "server.uptime",
    "server.memory_allocated",
];
/// What Envoy has of itself, by worker thread, or a second time under another prefix.
const BESIDES: [&str; 9] = [
    "cluster.xds.",
    "listener.admin.",
    "http.admin.",
    "http.async-client.",
    ".worker_",
    "_15000.http.",
    "_15001.http.",
    ".external.",
    ".retry.",
];

/// The watched names that the proxy at this admin port has.
pub(crate) async fn names(admin: SocketAddr) -> anyhow::Result<BTreeSet<String>> {
    let text = client::get(admin, "localhost", "/stats").await?.text();
    let names = text.lines().filter_map(|line| line.split_once(": "));
    let watched = |name: &&str| {
        WATCHED.iter().any(|end| name.ends_with(end))
            && !BESIDES.iter().any(|part| name.contains(part))
    };
    Ok(names
        .map(|(name, _)| name)
        .filter(watched)
        .map(str::to_owned)
        .collect())
}

/// Fails with the names that only Envoy has.
pub(crate) fn judge(theirs: &BTreeSet<String>, ours: &BTreeSet<String>) -> anyhow::Result<()> {
    anyhow::ensure!(theirs.len() > WATCHED.len(), "Envoy has only {theirs:?}");
    let missing: Vec<&String> = theirs.difference(ours).collect();
    anyhow::ensure!(missing.is_empty(), "/stats lacks {missing:#?}");
    Ok(())
}
