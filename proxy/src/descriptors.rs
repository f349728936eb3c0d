// SPDX-License-Identifier: Apache-2.0
//! The process's file descriptors as a budget: the soft limit is raised to the hard one at the start, and connections
//! leave some free, so that admin, xDS and logs work when strangers have taken the rest. Called by `main`, by doors for
//! each connection and by pools for each upstream one; never on the path of a request.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;

/// For sockets that are no traffic (admin, xDS, export), logs, key files, DNS.
const KEPT: u64 = 64;

static LIMIT: AtomicU64 = AtomicU64::new(u64::MAX);
static DOWNSTREAM: AtomicU64 = AtomicU64::new(0);
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Raises the soft limit to the hard one, and lets connections have what remains beside [`KEPT`].
pub fn raise() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| (soft, hard))
    });
    match raised {
        Ok((soft, hard)) => {
            // A limit so small that it leaves nothing is shared half and half.
            let traffic = hard.saturating_sub(KEPT).max(hard / 2);
            LIMIT.store(traffic, Ordering::Relaxed);
            tracing::info!(was = soft, now = hard, connections = traffic, "open files");
        }
        Err(error) => tracing::warn!(
            %error,
            "the limit of open files could not be raised; set it with ulimit -n or LimitNOFILE="
        ),
    }
}

/// One descriptor of a connection, until it is dropped.
#[derive(Debug)]
pub struct Descriptor {
    downstream: bool,
}

impl Descriptor {
    /// For a caller; callers may take half, so that what they ask for can be asked upstream.
    pub fn downstream() -> Option<Descriptor> {
        let limit = LIMIT.load(Ordering::Relaxed);
        if DOWNSTREAM.fetch_add(1, Ordering::Relaxed) >= limit / 2 {
            DOWNSTREAM.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        take(true, limit)
    }

    /// For a connection to an endpoint.
    pub fn upstream() -> Option<Descriptor> {
        take(false, LIMIT.load(Ordering::Relaxed))
    }
}

fn take(downstream: bool, limit: u64) -> Option<Descriptor> {
    let before = TAKEN.fetch_add(1, Ordering::Relaxed);
    let descriptor = Descriptor { downstream };
    // One too many gives itself back by its drop.
    (before < limit).then_some(descriptor)
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        TAKEN.fetch_sub(1, Ordering::Relaxed);
        if self.downstream {
            DOWNSTREAM.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
