// SPDX-License-Identifier: Apache-2.0
//! Outlier detection: endpoints that fail in a row leave the rotation for a while. Outcomes are recorded by the bottom
//! of the HTTP stack and by `tcp`; a sweep on the control runtime lets endpoints back in.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use pillion_xds::cluster::OutlierDetection;

use super::Cluster;
use super::Endpoint;
use super::balance::Set;

/// How a try at an endpoint went, as outlier detection sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer below 500.
    Good,
    /// A 5xx, or no answer.
    Bad,
}

/// Records an outcome, and ejects the endpoint when it was one too many.
pub fn record(cluster: &Cluster, endpoint: &Endpoint, outcome: Outcome) {
    let Some(detection) = &cluster.config.outlier_detection else {
        return;
    };
    if outcome == Outcome::Good {
        // The plain load keeps the common case free of writes to a shared line.
        if endpoint.failures.load(Ordering::Relaxed) != 0 {
            endpoint.failures.store(0, Ordering::Relaxed);
        }
        return;
    }
    let failures = endpoint.failures.fetch_add(1, Ordering::Relaxed) + 1;
    if failures < detection.consecutive_5xx || endpoint.is_ejected() {
        return;
    }
    let Some(set) = cluster.set() else { return };
    if !has_room(&set, detection) {
        cluster.state.stats.control.ejections_overflow.add_shared(1);
        return;
    }
    if endpoint.set_ejected(true) {
        endpoint.failures.store(0, Ordering::Relaxed);
        let times = endpoint.ejections.fetch_add(1, Ordering::Relaxed) + 1;
        cluster.state.stats.control.ejections_total.add_shared(1);
        cluster.count_members();
        tracing::warn!(cluster = cluster.name(), endpoint = %endpoint.addr, failures, times, "endpoint ejected");
    }
}

/// One endpoint may always be out; more only up to the percentage.
fn has_room(set: &Set, detection: &OutlierDetection) -> bool {
    let (members, _, ejected) = set.census();
    ejected == 0 || (ejected + 1) * 100 <= members * u64::from(detection.max_ejection_percent)
}

/// Lets endpoints back in when their time is over, until aborted.
pub async fn keep_swept(cluster: Arc<Cluster>, detection: OutlierDetection) {
    let mut since: Vec<(u64, Instant)> = Vec::new();
    let mut ticks = tokio::time::interval(detection.interval.max(Duration::from_millis(10)));
    loop {
        ticks.tick().await;
        let Some(set) = cluster.set() else { continue };
        let now = Instant::now();
        since.retain(|(id, _)| set.members().iter().any(|member| member.endpoint.id == *id));
        for member in set.members() {
            let endpoint = &member.endpoint;
            if !endpoint.is_ejected() {
                continue;
            }
            let Some(at) = since.iter().position(|(id, _)| *id == endpoint.id) else {
                since.push((endpoint.id, now));
                continue;
            };
            let times = endpoint.ejections.load(Ordering::Relaxed).max(1);
            if now.duration_since(since[at].1) >= detection.base_ejection_time.saturating_mul(times)
            {
                since.swap_remove(at);
                endpoint.set_ejected(false);
                tracing::info!(cluster = cluster.name(), endpoint = %endpoint.addr, "endpoint is back");
            }
        }
        cluster.count_members();
    }
}
