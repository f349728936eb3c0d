// SPDX-License-Identifier: Apache-2.0
//! Closes what has been idle too long, and forgets pools of endpoints that are gone. Started by `pool` with its first
//! pool, ends with its last; a proxy at rest is woken seldom.

use std::rc::Weak;
use std::time::Duration;

use super::Pool;
use super::Pools;

/// Between sweeps while something pooled is used,
const SWEEP: Duration = Duration::from_secs(1);
/// and while nothing is, unless a connection's time is over before.
const SWEEP_AT_REST: Duration = Duration::from_secs(10);

pub(super) async fn keep_swept(pools: Weak<Pools>) {
    let mut pause = SWEEP;
    loop {
        tokio::time::sleep(pause).await;
        let Some(pools) = pools.upgrade() else { return };
        let mut all = pools.pools.borrow_mut();
        pause = SWEEP_AT_REST;
        all.retain(|_, pool| {
            pause = pause.min(sweep(pool));
            pool.endpoint.strong_count() > 0
        });
        if all.is_empty() {
            pools.sweeping.set(false);
            return;
        }
    }
}

/// Returns how long the pool may be left alone.
fn sweep(pool: &Pool) -> Duration {
    let limit = pool.cluster.borrow().idle_timeout();
    let wanted = pool.waiting.get() == 0 && pool.state().stats.connections.is_open();
    let mut idle = pool.idle.borrow_mut();
    idle.retain(|idle| !wanted && idle.sender.is_ready() && idle.since.elapsed() < limit);
    pool.shared
        .borrow_mut()
        .retain(|connection| !connection.sender.is_closed());
    if pool.used.take() {
        return SWEEP;
    }
    let left = idle
        .iter()
        .map(|idle| limit.saturating_sub(idle.since.elapsed()));
    left.min().unwrap_or(SWEEP_AT_REST).max(SWEEP)
}
