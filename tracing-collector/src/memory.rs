// SPDX-License-Identifier: Apache-2.0
//! The memory of the whole process: what it may take, how that is divided, and the watch that closes the doors while
//! it is nearly used up. The divisions are each bounded by their owner; the watch is for what no owner counts.

use std::time::Duration;

use crate::metrics::Metrics;
use crate::room::Room;

/// Less than this no collector runs in.
pub(crate) const LEAST: u64 = 96 << 20;
const MOST_BY_DEFAULT: u64 = 1 << 30;
const WATCH_EVERY: Duration = Duration::from_millis(100);

/// Who gets what of the limit. The rest is for queries, settling, and the allocator.
pub(crate) struct Shares {
    pub(crate) intake: usize,
    pub(crate) store: u64,
    /// Ids of traces waiting to settle.
    pub(crate) unsettled: usize,
}

/// Bytes that one waiting id takes, in all tables it stands in.
const WAITING: u64 = 160;

impl Shares {
    pub(crate) fn of(limit: u64) -> Shares {
        let number = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Shares {
            intake: number(limit / 4),
            store: limit / 4,
            unsettled: number(limit / 16 / WAITING),
        }
    }
}

/// Three quarters of what there is, at most a gibibyte.
pub(crate) fn default_limit() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let container = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ]
    .into_iter()
    .filter_map(read)
    .find_map(|text| text.trim().parse::<u64>().ok());
    let machine = read("/proc/meminfo").and_then(|text| kibibytes(&text, "MemTotal:"));
    let there = container
        .into_iter()
        .chain(machine)
        .min()
        .unwrap_or(MOST_BY_DEFAULT);
    (there / 4 * 3).min(MOST_BY_DEFAULT)
}

/// Closes the doors above nine tenths of the limit, opens them again below eight.
pub(crate) async fn watch(limit: u64, room: Room, metrics: Metrics) {
    metrics
        .memory_limit
        .set(i64::try_from(limit).unwrap_or(i64::MAX));
    let mut ticks = tokio::time::interval(WATCH_EVERY);
    let mut closed = false;
    loop {
        ticks.tick().await;
        let Some(resident) = resident() else { return };
        metrics
            .memory_bytes
            .set(i64::try_from(resident).unwrap_or(i64::MAX));
        let close = resident > limit / 10 * if closed { 8 } else { 9 };
        if close != closed {
            closed = close;
            room.close(closed);
            if closed {
                tracing::warn!(
                    resident,
                    limit,
                    "near --memory-limit: senders are told to try again"
                );
            }
        }
    }
}

fn resident() -> Option<u64> {
    kibibytes(
        &std::fs::read_to_string("/proc/self/status").ok()?,
        "VmRSS:",
    )
}

/// The value of a line such as `VmRSS:  1234 kB`, in bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(number * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_from_the_kernels_own_words() {
        assert_eq!(
            kibibytes("Name:\tx\nVmRSS:\t    12 kB\n", "VmRSS:"),
            Some(12 * 1024)
        );
        assert!(resident().is_some_and(|bytes| bytes > 100_000));
    }

    #[test]
    fn the_shares_leave_a_third_to_everything_else() {
        let limit = 256 << 20;
        let shares = Shares::of(limit);
        let sum = shares.intake as u64 + shares.store + shares.unsettled as u64 * WAITING;
        assert!(sum < limit / 3 * 2, "{sum}");
    }
}
