// SPDX-License-Identifier: Apache-2.0
//! Outlier detection: endpoints that fail in a row leave the rotation for a while. Outcomes are recorded by the bottom
//! of the HTTP stack and by `tcp`; a sweep on the control runtime lets endpoints back in.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use pillion_xds::cluster::OutlierDetection;

use super::Cluster;
use super::Endpoint;
use super::balance::Set;
use crate::access_log::Writer;
use crate::access_log::time;

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
        cluster.state.ejected.notify_one();
        tracing::warn!(cluster = cluster.name(), endpoint = %endpoint.addr, failures, times, "endpoint ejected");
    }
}

/// One endpoint may always be out; more only up to the percentage.
fn has_room(set: &Set, detection: &OutlierDetection) -> bool {
    let (members, _, ejected) = set.census();
    ejected == 0 || (ejected + 1) * 100 <= members * u64::from(detection.max_ejection_percent)
}

/// The log of ejections and returns, one JSON object a line, in the form of Envoy's outlier detection event log
/// (envoyproxy.io, `data.cluster.v3.OutlierDetectionEvent`).
#[derive(Clone)]
pub struct Events {
    writer: Writer,
    path: Arc<str>,
}

impl Events {
    /// Written to this path.
    pub fn new(writer: Writer, path: Arc<str>) -> Events {
        Events { writer, path }
    }

    fn say(&self, cluster: &Cluster, endpoint: &Endpoint, action: &str, before: Option<Duration>) {
        let mut timestamp = String::new();
        time::format(time::DEFAULT, SystemTime::now(), &mut timestamp);
        let event = serde_json::json!({
            "type": "CONSECUTIVE_5XX",
            "timestamp": timestamp,
            "secs_since_last_action": before.map(|before| before.as_secs().to_string()),
            "cluster_name": cluster.name(),
            "upstream_url": endpoint.addr.to_string(),
            "action": action,
            "num_ejections": endpoint.ejections.load(Ordering::Relaxed),
            "enforced": true,
        });
        self.writer.say(&self.path, format!("{event}\n"));
    }
}

/// What the sweep knows of an endpoint: whether it is out, and since when.
struct Seen {
    id: u64,
    out: bool,
    since: Instant,
}

/// Lets endpoints back in when their time is over, and tells of both, until aborted.
pub async fn keep_swept(cluster: Arc<Cluster>, detection: OutlierDetection, events: Events) {
    let mut seen: Vec<Seen> = Vec::new();
    let mut ticks = tokio::time::interval(detection.interval.max(Duration::from_millis(10)));
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = cluster.state.ejected.notified() => {}
        }
        let Some(set) = cluster.set() else { continue };
        seen.retain(|one| {
            set.members()
                .iter()
                .any(|member| member.endpoint.id == one.id)
        });
        for member in set.members() {
            sweep(&cluster, &member.endpoint, &detection, &mut seen, &events);
        }
        cluster.count_members();
    }
}

fn sweep(
    cluster: &Cluster,
    endpoint: &Endpoint,
    detection: &OutlierDetection,
    seen: &mut Vec<Seen>,
    events: &Events,
) {
    if !endpoint.is_ejected() {
        return;
    }
    let now = Instant::now();
    let at = seen.iter().position(|one| one.id == endpoint.id);
    let known = at.map(|at| &mut seen[at]);
    let Some(one) = known.filter(|one| one.out) else {
        let before = at.map(|at| now.duration_since(seen[at].since));
        seen.retain(|one| one.id != endpoint.id);
        seen.push(Seen {
            id: endpoint.id,
            out: true,
            since: now,
        });
        events.say(cluster, endpoint, "EJECT", before);
        return;
    };
    let times = endpoint.ejections.load(Ordering::Relaxed).max(1);
    let been = now.duration_since(one.since);
    if been >= detection.base_ejection_time.saturating_mul(times) {
        *one = Seen {
            id: one.id,
            out: false,
            since: now,
        };
        endpoint.set_ejected(false);
        events.say(cluster, endpoint, "UNEJECT", Some(been));
        tracing::info!(cluster = cluster.name(), endpoint = %endpoint.addr, "endpoint is back");
    }
}
