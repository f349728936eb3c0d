// SPDX-License-Identifier: Apache-2.0
//! A place among a cluster's connections, for those that no pool holds: TCP pairs, `CONNECT` tunnels, upgraded
//! connections. It is given back when it is dropped, and whoever waits for one in a pool may try.

use std::sync::Arc;

use crate::cluster::Cluster;
use crate::descriptors::Descriptor;
use crate::metrics::ClusterShard;

/// One connection in every count.
pub struct Place {
    cluster: Arc<Cluster>,
    worker: usize,
    _descriptor: Option<Descriptor>,
}

impl Place {
    /// Of a new connection; `None` at the cluster's limit, or when no file descriptor is left.
    pub fn take(cluster: &Arc<Cluster>, worker: usize) -> Option<Place> {
        let connections = &cluster.state.stats.connections;
        let overflow = || {
            cluster
                .state
                .stats
                .parts
                .at(worker)
                .counts
                .cx_overflow
                .inc()
        };
        if !connections.try_enter() {
            overflow();
            return None;
        }
        let Some(descriptor) = Descriptor::upstream() else {
            connections.leave();
            overflow();
            return None;
        };
        Some(Place::held(cluster, worker, Some(descriptor)))
    }

    /// Of a connection that has had one and left its pool: it is there, whatever the limit has become.
    pub fn keep(cluster: &Arc<Cluster>, worker: usize) -> Place {
        cluster.state.stats.connections.enter();
        Place::held(cluster, worker, Descriptor::upstream())
    }

    fn held(cluster: &Arc<Cluster>, worker: usize, descriptor: Option<Descriptor>) -> Place {
        let place = Place {
            cluster: Arc::clone(cluster),
            worker,
            _descriptor: descriptor,
        };
        place.counts().cx_active.inc();
        place
    }

    fn counts(&self) -> &ClusterShard {
        &self.cluster.state.stats.parts.at(self.worker).counts
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let counts = self.counts();
        counts.cx_active.dec();
        counts.cx_destroy.inc();
        self.cluster.state.stats.connections.leave();
        self.cluster.state.freed.notify_one();
    }
}
