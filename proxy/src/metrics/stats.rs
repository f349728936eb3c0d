// SPDX-License-Identifier: Apache-2.0
//! The counters themselves: a struct per scope, each field with Envoy's stat name beside it.

use std::fmt;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;

use super::Count;
use super::Sharded;

/// Whether a stat only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

macro_rules! stats {
    ($(#[$about:meta])* $name:ident { $($field:ident = $kind:ident $stat:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Default)]
        #[allow(missing_docs, reason = "each field is the Envoy stat named beside it")]
        pub struct $name { $(pub $field: Count,)* }

        impl $name {
            pub(super) fn each(&self, mut see: impl FnMut(&'static str, Kind, u64)) {
                $(see($stat, Kind::$kind, self.$field.get());)*
            }
        }
    };
}

stats! {
    /// One worker's counts of one cluster.
    ClusterShard {
        cx_total = Counter "upstream_cx_total",
        cx_active = Gauge "upstream_cx_active",
        cx_connect_fail = Counter "upstream_cx_connect_fail",
        cx_connect_timeout = Counter "upstream_cx_connect_timeout",
        cx_overflow = Counter "upstream_cx_overflow",
        cx_destroy = Counter "upstream_cx_destroy",
        cx_http1_total = Counter "upstream_cx_http1_total",
        cx_http2_total = Counter "upstream_cx_http2_total",
        cx_none_healthy = Counter "upstream_cx_none_healthy",
        cx_rx_bytes = Counter "upstream_cx_rx_bytes_total",
        cx_tx_bytes = Counter "upstream_cx_tx_bytes_total",
        rq_total = Counter "upstream_rq_total",
        rq_active = Gauge "upstream_rq_active",
        rq_completed = Counter "upstream_rq_completed",
        rq_pending_total = Counter "upstream_rq_pending_total",
        rq_pending_overflow = Counter "upstream_rq_pending_overflow",
        rq_cancelled = Counter "upstream_rq_cancelled",
        rq_timeout = Counter "upstream_rq_timeout",
        rq_per_try_timeout = Counter "upstream_rq_per_try_timeout",
        rq_rx_reset = Counter "upstream_rq_rx_reset",
        rq_tx_reset = Counter "upstream_rq_tx_reset",
        rq_retry = Counter "upstream_rq_retry",
        rq_retry_success = Counter "upstream_rq_retry_success",
        rq_retry_limit_exceeded = Counter "upstream_rq_retry_limit_exceeded",
        rq_retry_overflow = Counter "upstream_rq_retry_overflow",
        lb_healthy_panic = Counter "lb_healthy_panic",
        ssl_handshake = Counter "ssl.handshake",
        ssl_session_reused = Counter "ssl.session_reused",
        ssl_connection_error = Counter "ssl.connection_error",
        ssl_no_certificate = Counter "ssl.no_certificate",
        ssl_fail_verify_san = Counter "ssl.fail_verify_san",
        ssl_fail_verify_error = Counter "ssl.fail_verify_error",
        ssl_fail_verify_no_cert = Counter "ssl.fail_verify_no_cert",
        health_attempt = Counter "health_check.attempt",
        health_success = Counter "health_check.success",
        health_failure = Counter "health_check.failure",
        ejections_total = Counter "outlier_detection.ejections_enforced_total",
        ejections_overflow = Counter "outlier_detection.ejections_overflow",
        dns_success = Counter "update_success",
        dns_failure = Counter "update_failure",
    }
}

stats! {
    /// One worker's counts of the connection managers with one stat prefix.
    HttpShard {
        cx_total = Counter "downstream_cx_total",
        cx_active = Gauge "downstream_cx_active",
        cx_http1_total = Counter "downstream_cx_http1_total",
        cx_http2_total = Counter "downstream_cx_http2_total",
        cx_ssl_total = Counter "downstream_cx_ssl_total",
        cx_protocol_error = Counter "downstream_cx_protocol_error",
        cx_idle_timeout = Counter "downstream_cx_idle_timeout",
        cx_upgrades_total = Counter "downstream_cx_upgrades_total",
        cx_upgrades_active = Gauge "downstream_cx_upgrades_active",
        rq_total = Counter "downstream_rq_total",
        rq_active = Gauge "downstream_rq_active",
        rq_completed = Counter "downstream_rq_completed",
        rq_http1_total = Counter "downstream_rq_http1_total",
        rq_http2_total = Counter "downstream_rq_http2_total",
        rq_grpc_total = Counter "downstream_rq_grpc_total",
        rx_bytes = Counter "downstream_cx_rx_bytes_total",
        tx_bytes = Counter "downstream_cx_tx_bytes_total",
        rq_rx_reset = Counter "downstream_rq_rx_reset",
        rq_timeout = Counter "downstream_rq_timeout",
        rq_overload_close = Counter "downstream_rq_overload_close",
        rq_header_timeout = Counter "downstream_rq_header_timeout",
        rq_idle_timeout = Counter "downstream_rq_idle_timeout",
        no_route = Counter "no_route",
        no_cluster = Counter "no_cluster",
    }
}

stats! {
    /// One worker's counts of one listener.
    ListenerShard {
        cx_overflow = Counter "downstream_cx_overflow",
        cx_total = Counter "downstream_cx_total",
        cx_active = Gauge "downstream_cx_active",
        cx_destroy = Counter "downstream_cx_destroy",
        no_filter_chain = Counter "no_filter_chain_match",
        ssl_handshake = Counter "ssl.handshake",
        ssl_session_reused = Counter "ssl.session_reused",
        ssl_no_certificate = Counter "ssl.no_certificate",
        ssl_connection_error = Counter "ssl.connection_error",
        ssl_fail_verify_san = Counter "ssl.fail_verify_san",
        ssl_fail_verify_error = Counter "ssl.fail_verify_error",
        ssl_fail_verify_no_cert = Counter "ssl.fail_verify_no_cert",
    }
}

stats! {
    /// One worker's counts of the TCP proxies with one stat prefix.
    TcpShard {
        cx_total = Counter "downstream_cx_total",
        cx_active = Gauge "downstream_cx_active",
        cx_no_route = Counter "downstream_cx_no_route",
        rx_bytes = Counter "downstream_cx_rx_bytes_total",
        tx_bytes = Counter "downstream_cx_tx_bytes_total",
        idle_timeout = Counter "idle_timeout",
    }
}

/// Status codes that get a series of their own; the rest share `other` (their class is always exact).
pub(super) const CODES: [u16; 36] = [
    100, 101, 200, 201, 202, 203, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405,
    406, 408, 409, 410, 412, 413, 415, 417, 422, 429, 431, 500, 501, 502, 503, 504, 505,
];

/// Answers by code and by class.
#[derive(Debug)]
pub struct Codes {
    codes: [Count; CODES.len() + 1],
    classes: [Count; 5],
}

impl Default for Codes {
    fn default() -> Codes {
        Codes {
            codes: std::array::from_fn(|_| Count::default()),
            classes: Default::default(),
        }
    }
}

impl Codes {
    /// Counts an answer.
    pub fn count(&self, status: StatusCode) {
        let slot = CODES.binary_search(&status.as_u16()).unwrap_or(CODES.len());
        self.codes[slot].inc();
        if let Some(class) = self
            .classes
            .get(usize::from(status.as_u16() / 100).wrapping_sub(1))
        {
            class.inc();
        }
    }

    pub(super) fn each_code(&self, mut see: impl FnMut(usize, u64)) {
        self.codes
            .iter()
            .enumerate()
            .for_each(|(slot, count)| see(slot, count.get()));
    }

    pub(super) fn each_class(&self, mut see: impl FnMut(usize, u64)) {
        self.classes
            .iter()
            .enumerate()
            .for_each(|(class, count)| see(class + 1, count.get()));
    }
}

/// Upper bounds in milliseconds, Envoy's.
pub(super) const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Durations by Envoy's buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Count; BOUNDS.len() + 1],
    sum_us: Count,
}

impl Histogram {
    /// Counts a duration.
    pub fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let ms = took.as_secs_f64() * 1000.0;
        let slot = BOUNDS
            .iter()
            .position(|bound| ms <= *bound)
            .unwrap_or(BOUNDS.len());
        self.buckets[slot].inc();
        self.sum_us.add(us);
    }

    pub(super) fn add_to(&self, buckets: &mut [u64; BOUNDS.len() + 1], sum_us: &mut u64) {
        for (total, bucket) in buckets.iter_mut().zip(&self.buckets) {
            *total += bucket.get();
        }
        *sum_us += self.sum_us.get();
    }
}

/// One worker's part of a cluster's stats.
#[derive(Debug, Default)]
pub struct ClusterPart {
    /// Counters and levels.
    pub counts: ClusterShard,
    /// Answers.
    pub codes: Codes,
    /// From sending to response headers.
    pub rq_time: Histogram,
}

/// A level that all workers share because a limit looks at it.
#[derive(Debug)]
pub struct InFlight {
    now: AtomicU32,
    limit: AtomicU32,
}

impl Default for InFlight {
    fn default() -> InFlight {
        InFlight {
            now: AtomicU32::new(0),
            limit: AtomicU32::new(u32::MAX),
        }
    }
}

impl InFlight {
    /// The limit from now on; what is in flight above it stays.
    pub fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Enters if there is room.
    pub fn try_enter(&self) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        if self.now.fetch_add(1, Ordering::Relaxed) < limit {
            return true;
        }
        self.leave();
        false
    }

    /// Enters, whatever the limit.
    pub fn enter(&self) {
        self.now.fetch_add(1, Ordering::Relaxed);
    }

    /// Leaves again.
    pub fn leave(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many are in flight.
    pub fn now(&self) -> u32 {
        self.now.load(Ordering::Relaxed)
    }

    /// Whether the limit is reached.
    pub fn is_open(&self) -> bool {
        self.now() >= self.limit.load(Ordering::Relaxed)
    }
}

/// Stats of one cluster, and its levels in flight.
pub struct ClusterStats {
    /// The cluster.
    pub name: Box<str>,
    /// By worker.
    pub parts: Sharded<ClusterPart>,
    /// What no worker owns: health checks, ejections, DNS.
    pub control: ClusterShard,
    /// TCP connections.
    pub connections: InFlight,
    /// Requests waiting for a connection.
    pub pending: InFlight,
    /// Requests.
    pub requests: InFlight,
    /// Retries.
    pub retries: InFlight,
    /// Endpoints known.
    pub members: AtomicU64,
    /// Endpoints that take traffic.
    pub healthy: AtomicU64,
    /// Endpoints out by outlier detection.
    pub ejected: AtomicU64,
}

impl ClusterStats {
    pub(super) fn new(name: &str, workers: usize) -> ClusterStats {
        ClusterStats {
            name: Box::from(name),
            parts: Sharded::new(workers),
            control: ClusterShard::default(),
            connections: InFlight::default(),
            pending: InFlight::default(),
            requests: InFlight::default(),
            retries: InFlight::default(),
            members: AtomicU64::new(0),
            healthy: AtomicU64::new(0),
            ejected: AtomicU64::new(0),
        }
    }

    /// Requests ever, however often each was tried.
    pub fn first_tries(&self) -> u64 {
        let counts = self.parts.iter().map(|part| &part.counts);
        let (tries, retries) = counts.fold((0, 0), |(tries, retries), counts| {
            (
                tries + counts.rq_total.get(),
                retries + counts.rq_retry.get(),
            )
        });
        u64::saturating_sub(tries, retries)
    }
}

impl fmt::Debug for ClusterStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterStats({})", self.name)
    }
}

/// One worker's part of a connection manager's stats.
#[derive(Debug, Default)]
pub struct HttpPart {
    /// Counters and levels.
    pub counts: HttpShard,
    /// Answers.
    pub codes: Codes,
    /// From first byte to last.
    pub rq_time: Histogram,
}

/// Stats of the connection managers with one prefix.
#[derive(Debug)]
pub struct HttpStats {
    /// By worker.
    pub parts: Sharded<HttpPart>,
}

impl HttpStats {
    pub(super) fn new(workers: usize) -> HttpStats {
        HttpStats {
            parts: Sharded::new(workers),
        }
    }
}

/// Stats of a listener.
#[derive(Debug)]
pub struct ListenerStats {
    /// By worker.
    pub parts: Sharded<ListenerShard>,
}

impl ListenerStats {
    pub(super) fn new(workers: usize) -> ListenerStats {
        ListenerStats {
            parts: Sharded::new(workers),
        }
    }
}

/// Stats of the TCP proxies with one prefix.
#[derive(Debug)]
pub struct TcpStats {
    /// By worker.
    pub parts: Sharded<TcpShard>,
}

impl TcpStats {
    pub(super) fn new(workers: usize) -> TcpStats {
        TcpStats {
            parts: Sharded::new(workers),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_for_the_search() {
        assert!(CODES.is_sorted());
    }

    #[test]
    fn a_limit_lets_exactly_so_many_in() {
        let level = InFlight::default();
        level.set_limit(2);
        assert!(level.try_enter() && level.try_enter() && !level.try_enter());
        assert!(level.is_open());
        level.leave();
        assert!(level.try_enter());
    }

    #[test]
    fn a_rare_code_counts_in_its_class() {
        let codes = Codes::default();
        codes.count(StatusCode::IM_A_TEAPOT);
        let mut classes = Vec::new();
        codes.each_class(|class, count| classes.push((class, count)));
        assert_eq!(classes[3], (4, 1));
    }
}
