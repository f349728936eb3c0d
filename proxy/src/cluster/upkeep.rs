// SPDX-License-Identifier: Apache-2.0
//! The background work that clusters need: DNS, ejection sweeps, active probes. One task watches the configuration and
//! keeps a task per need; a cluster that goes or changes loses its tasks. Runs on the control runtime.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::Cluster;
use super::dns;
use super::health;
use super::outlier;
use crate::snapshot::Live;
use crate::snapshot::Snapshot;

/// Keeps every cluster of the current configuration attended to, until aborted.
pub async fn keep(live: Live, events: outlier::Events) {
    let resolver = dns::Resolver::system();
    let mut changes = live.subscribe();
    let mut attended: HashMap<String, (Arc<Cluster>, JoinSet<()>)> = HashMap::new();
    loop {
        let snapshot = live.current();
        refresh(&mut attended, &snapshot, &resolver, &events);
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn refresh(
    attended: &mut HashMap<String, (Arc<Cluster>, JoinSet<()>)>,
    snapshot: &Snapshot,
    resolver: &dns::Resolver,
    events: &outlier::Events,
) {
    // Dropping a JoinSet aborts its tasks.
    attended.retain(|name, (before, _)| {
        snapshot.cluster(name).is_some_and(|now| {
            Arc::ptr_eq(&now.state, &before.state)
                && now.config == before.config
                // An EDS cluster's endpoints are part of the cluster: probes and sweeps must see the new ones.
                && (now.is_dns() || Arc::ptr_eq(now, before))
        })
    });
    for cluster in snapshot.clusters() {
        if attended.contains_key(cluster.name()) {
            continue;
        }
        let mut tasks = JoinSet::new();
        if cluster.is_dns() {
            tasks.spawn(dns::keep_resolved(Arc::clone(cluster), resolver.clone()));
        }
        if let Some(detection) = &cluster.config.outlier_detection {
            let (cluster, events) = (Arc::clone(cluster), events.clone());
            tasks.spawn(outlier::keep_swept(cluster, detection.clone(), events));
        }
        for check in &cluster.config.health_checks {
            tasks.spawn(health::keep_probing(Arc::clone(cluster), check.clone()));
        }
        if !tasks.is_empty() {
            attended.insert(cluster.name().to_owned(), (Arc::clone(cluster), tasks));
        }
    }
}
