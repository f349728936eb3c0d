// SPDX-License-Identifier: Apache-2.0
//! What a pool's figures count for as long as somebody holds it: who waits, who is pending, which connection is open
//! and who opens one. Dropping a guard is the only way a figure goes down.

use std::rc::Rc;
use std::sync::Arc;

use super::AcquireError;
use super::Opening;
use super::Pool;
use crate::cluster::Cluster;
use crate::connect::ConnectError;
use crate::descriptors::Descriptor;

pub(super) struct Waiting<'p>(&'p Rc<Pool>);

impl<'p> Waiting<'p> {
    pub(super) fn new(pool: &'p Rc<Pool>) -> Waiting<'p> {
        pool.waiting.set(pool.waiting.get() + 1);
        Waiting(pool)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

pub(super) struct PendingGuard(pub(super) Arc<Cluster>);

impl Drop for PendingGuard {
    fn drop(&mut self) {
        self.0.state.stats.pending.leave();
    }
}

/// A connection that counts, from before its connect to after its end.
pub(super) struct ConnectionGuard {
    cluster: Arc<Cluster>,
    worker: usize,
    descriptor: Option<Descriptor>,
}

impl ConnectionGuard {
    /// Of a connection that has entered the cluster's limit; there must be a file descriptor for it as well.
    pub(super) fn new(pool: &Rc<Pool>, worker: usize) -> Result<ConnectionGuard, AcquireError> {
        let guard = ConnectionGuard {
            cluster: pool.cluster(),
            worker,
            descriptor: Descriptor::upstream(),
        };
        guard.counts().cx_active.inc();
        if guard.descriptor.is_some() {
            return Ok(guard);
        }
        guard.counts().cx_overflow.inc();
        Err(AcquireError::Overflow)
    }

    pub(super) fn counts(&self) -> &crate::metrics::ClusterShard {
        &self.cluster.state.stats.parts.at(self.worker).counts
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let counts = self.counts();
        counts.cx_active.dec();
        counts.cx_destroy.inc();
        self.cluster.state.stats.connections.leave();
        self.cluster.state.freed.notify_one();
    }
}

/// Whoever opens an HTTP/2 connection, so that others wait for it; gone, however it ends.
pub(super) struct OpeningGuard {
    pool: Rc<Pool>,
    pub(super) opening: Rc<Opening>,
}

impl OpeningGuard {
    pub(super) fn new(pool: &Rc<Pool>) -> OpeningGuard {
        let opening = Rc::new(Opening::default());
        pool.opening.replace(Some(Rc::clone(&opening)));
        let pool = Rc::clone(pool);
        OpeningGuard { pool, opening }
    }

    pub(super) fn fail(&self, error: ConnectError) {
        self.opening.failed.replace(Some(error));
    }
}

impl Drop for OpeningGuard {
    fn drop(&mut self) {
        self.pool.opening.replace(None);
        self.opening.done.set();
    }
}
