// SPDX-License-Identifier: Apache-2.0
//! How the control plane's stream goes: connected or not, what was taken and what refused, and whether this proxy is
//! ready. Written by `client`; read by the admin and agent servers and by the metrics registry.

use std::sync::Arc;
use std::time::Instant;
use std::time::SystemTime;

use parking_lot::Mutex;
use pillion_xds::resource::ResourceType;
use pillion_xds::resource::UPDATE_ORDER;
use prometheus::core::Collector;
use prometheus::core::Desc;
use prometheus::proto;

/// Clones share it.
#[derive(Clone)]
pub struct Status {
    inner: Arc<Mutex<Inner>>,
    started: Instant,
    labels: Arc<[(String, String)]>,
    desc: Arc<Desc>,
}

#[derive(Default)]
struct Inner {
    connected: bool,
    disconnected_at: Option<SystemTime>,
    ready: bool,
    draining: bool,
    failing: bool,
    last_error: Option<String>,
    pending: Vec<String>,
    /// The configuration that `pending` speaks of, and the one whose sockets stand.
    configured: Option<u64>,
    settled: u64,
    unbound: Vec<String>,
    kinds: [Counts; UPDATE_ORDER.len()],
    identity: Identity,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    attempt: u64,
    success: u64,
    rejected: u64,
    failure: u64,
}

/// The certificate of this proxy.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Times it was issued.
    pub issued: u64,
    /// Times it could not be.
    pub failed: u64,
    /// Seconds since 1970 at which it ends.
    pub not_after: i64,
}

/// Envoy's words for the state of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Serving.
    Live,
    /// Going.
    Draining,
    /// No clusters yet.
    PreInitializing,
    /// Something that was configured is still missing.
    Initializing,
}

impl State {
    /// As `/ready` and `/server_info` say it.
    pub fn word(self) -> &'static str {
        match self {
            State::Live => "LIVE",
            State::Draining => "DRAINING",
            State::PreInitializing => "PRE_INITIALIZING",
            State::Initializing => "INITIALIZING",
        }
    }

    fn number(self) -> u64 {
        match self {
            State::Live => 0,
            State::Draining => 1,
            State::PreInitializing => 2,
            State::Initializing => 3,
        }
    }
}

/// What a response led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it is in force.
    Applied,
    /// Some of it was refused.
    Refused,
}

impl Inner {
    fn look(&mut self) {
        let settled = self
            .configured
            .is_some_and(|version| self.settled >= version);
        self.ready |= settled && self.pending.is_empty() && self.unbound.is_empty();
    }
}

impl Status {
    /// Before the first stream. `labels` go on every series.
    pub fn new(labels: Vec<(String, String)>) -> Result<Status, prometheus::Error> {
        let help = "Whether the control plane's stream is open.".to_owned();
        let desc = Desc::new(
            "envoy_control_plane_connected_state".to_owned(),
            help,
            Vec::new(),
            Default::default(),
        )?;
        let inner = Inner {
            disconnected_at: Some(SystemTime::now()),
            ..Inner::default()
        };
        Ok(Status {
            inner: Arc::new(Mutex::new(inner)),
            started: Instant::now(),
            labels: labels.into(),
            desc: Arc::new(desc),
        })
    }

    pub(super) fn connected(&self) {
        let mut inner = self.inner.lock();
        inner.connected = true;
        inner.disconnected_at = None;
        inner.last_error = None;
        inner
            .kinds
            .iter_mut()
            .for_each(|counts| counts.attempt += 1);
    }

    pub(super) fn disconnected(&self, why: &str) {
        let mut inner = self.inner.lock();
        if inner.connected || inner.disconnected_at.is_none() {
            inner.disconnected_at = Some(SystemTime::now());
        }
        inner.connected = false;
        inner.last_error = Some(why.to_owned());
        inner
            .kinds
            .iter_mut()
            .for_each(|counts| counts.failure += 1);
    }

    pub(super) fn updated(&self, kind: ResourceType, outcome: Outcome) {
        let mut inner = self.inner.lock();
        let counts = &mut inner.kinds[slot(kind)];
        match outcome {
            Outcome::Applied => counts.success += 1,
            Outcome::Refused => counts.rejected += 1,
        }
    }

    /// What the configuration of this version still misses; once nothing is, and every socket stands, the proxy stays
    /// ready.
    pub fn set_pending(&self, pending: Vec<String>, version: u64) {
        let mut inner = self.inner.lock();
        inner.pending = pending;
        inner.configured = Some(version);
        inner.look();
    }

    /// The sockets of this version stand, but for these.
    pub fn set_settled(&self, version: u64, unbound: Vec<String>) {
        let mut inner = self.inner.lock();
        inner.settled = version;
        inner.unbound = unbound;
        inner.look();
    }

    /// Ready without configuration: the initial fetch has taken too long.
    pub fn give_up_waiting(&self) {
        self.inner.lock().ready = true;
    }

    pub(crate) fn identity_issued(&self, not_after: i64) {
        let identity = &mut self.inner.lock().identity;
        identity.issued += 1;
        identity.not_after = not_after;
    }

    pub(crate) fn identity_failed(&self) {
        self.inner.lock().identity.failed += 1;
    }

    /// Draining has begun.
    pub fn set_draining(&self) {
        self.inner.lock().draining = true;
    }

    /// What `/healthcheck/fail` and `/healthcheck/ok` ask for.
    pub fn set_failing(&self, failing: Failing) {
        self.inner.lock().failing = failing == Failing::Yes;
    }

    /// The state now.
    pub fn state(&self) -> State {
        let inner = self.inner.lock();
        if inner.draining || inner.failing {
            State::Draining
        } else if inner.ready {
            State::Live
        } else if inner.kinds[slot(ResourceType::Cluster)].success == 0 {
            State::PreInitializing
        } else {
            State::Initializing
        }
    }

    /// What is still missing.
    pub fn pending(&self) -> Vec<String> {
        let inner = self.inner.lock();
        inner
            .pending
            .iter()
            .chain(&inner.unbound)
            .cloned()
            .collect()
    }

    /// Ports of the configuration that could not be bound, each with the reason.
    pub fn unbound(&self) -> Vec<String> {
        self.inner.lock().unbound.clone()
    }

    /// Whether the stream is open, and since when it is not.
    pub fn disconnected_since(&self) -> Option<SystemTime> {
        self.inner.lock().disconnected_at
    }

    /// Why the stream ended or did not begin.
    pub fn last_error(&self) -> Option<String> {
        self.inner.lock().last_error.clone()
    }

    /// This proxy's certificate.
    pub fn identity(&self) -> Identity {
        self.inner.lock().identity.clone()
    }

    /// How long the process runs, in seconds.
    pub fn uptime_s(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// Envoy's plain stat names, and which of them are gauges.
    pub fn stats(&self) -> Vec<(String, u64, Kind)> {
        let state = self.state().number();
        let uptime = self.uptime_s();
        let inner = self.inner.lock();
        let mut all = vec![
            (
                "control_plane.connected_state".to_owned(),
                u64::from(inner.connected),
                Kind::Gauge,
            ),
            ("server.live".to_owned(), u64::from(state == 0), Kind::Gauge),
            ("server.state".to_owned(), state, Kind::Gauge),
            ("server.uptime".to_owned(), uptime, Kind::Gauge),
            (
                "server.memory_allocated".to_owned(),
                resident_bytes(),
                Kind::Gauge,
            ),
            (
                "pillion.identity.issued".to_owned(),
                inner.identity.issued,
                Kind::Counter,
            ),
            (
                "pillion.identity.failed".to_owned(),
                inner.identity.failed,
                Kind::Counter,
            ),
        ];
        for kind in UPDATE_ORDER {
            let counts = inner.kinds[slot(kind)];
            let prefix = prefix(kind);
            for (stat, value) in [
                (
                    "update_attempt",
                    counts.attempt + counts.success + counts.rejected,
                ),
                ("update_success", counts.success),
                ("update_rejected", counts.rejected),
                ("update_failure", counts.failure),
            ] {
                all.push((format!("{prefix}.{stat}"), value, Kind::Counter));
            }
        }
        all
    }
}

/// Whether `/healthcheck/fail` is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// `/healthcheck/fail`.
    Yes,
    /// `/healthcheck/ok`.
    No,
}

/// What a stat is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

fn slot(kind: ResourceType) -> usize {
    match kind {
        ResourceType::Secret => 0,
        ResourceType::Cluster => 1,
        ResourceType::Endpoint => 2,
        ResourceType::Listener => 3,
        ResourceType::Route => 4,
    }
}

/// Where Envoy counts a type. Route tables and endpoints are counted per manager and cluster there; here once.
fn prefix(kind: ResourceType) -> &'static str {
    match kind {
        ResourceType::Secret => "sds",
        ResourceType::Cluster => "cluster_manager.cds",
        ResourceType::Endpoint => "eds",
        ResourceType::Listener => "listener_manager.lds",
        ResourceType::Route => "rds",
    }
}

/// Memory of this process; 0 where the system does not say.
fn resident_bytes() -> u64 {
    const PAGE: u64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default() * PAGE
}

impl Collector for Status {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let families = self.stats().into_iter().map(|(name, value, kind)| {
            let mut metric = proto::Metric::from_label(self.label_pairs());
            #[allow(
                clippy::cast_precision_loss,
                reason = "the exposition format has no other number"
            )]
            let value = value as f64;
            let mut family = proto::MetricFamily::default();
            match kind {
                Kind::Counter => {
                    let mut counter = proto::Counter::default();
                    counter.set_value(value);
                    metric.set_counter(counter);
                    family.set_field_type(proto::MetricType::COUNTER);
                }
                Kind::Gauge => {
                    let mut gauge = proto::Gauge::default();
                    gauge.set_value(value);
                    metric.set_gauge(gauge);
                    family.set_field_type(proto::MetricType::GAUGE);
                }
            }
            family.set_help(format!("Envoy stat {name}"));
            family.set_name(match name.strip_prefix("pillion.") {
                Some(own) => format!("pillion_proxy_{}", own.replace('.', "_")),
                None => format!("envoy_{}", name.replace('.', "_")),
            });
            family.set_metric(vec![metric]);
            family
        });
        families.collect()
    }
}

impl Status {
    fn label_pairs(&self) -> Vec<proto::LabelPair> {
        let pair = |(name, value): &(String, String)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name(name.clone());
            pair.set_value(value.clone());
            pair
        };
        self.labels.iter().map(pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_live_when_nothing_is_missing_and_stays_so() {
        let status = Status::new(Vec::new()).expect("a valid description");
        assert_eq!(status.state(), State::PreInitializing);
        status.updated(ResourceType::Cluster, Outcome::Applied);
        status.set_settled(0, Vec::new());
        assert_eq!(status.state(), State::Initializing, "nothing configured");
        status.set_pending(vec!["Listener resources".to_owned()], 1);
        assert_eq!(status.state(), State::Initializing);
        status.set_settled(1, Vec::new());
        assert_eq!(status.state(), State::Initializing);
        status.set_pending(Vec::new(), 2);
        assert_eq!(status.state(), State::Initializing, "its sockets come");
        status.set_settled(2, vec!["port 80 is taken".to_owned()]);
        assert_eq!(status.state(), State::Initializing, "one did not");
        assert_eq!(status.pending(), ["port 80 is taken"]);
        status.set_settled(2, Vec::new());
        assert_eq!(status.state(), State::Live);
        status.set_pending(vec!["Route r".to_owned()], 3);
        assert_eq!(status.state(), State::Live);
        status.set_failing(Failing::Yes);
        assert_eq!(status.state(), State::Draining);
        status.set_failing(Failing::No);
        assert_eq!(status.state(), State::Live);
    }

    #[test]
    fn a_refusal_counts_as_rejected_under_envoys_name() {
        let status = Status::new(Vec::new()).expect("a valid description");
        status.updated(ResourceType::Listener, Outcome::Refused);
        let stats = status.stats();
        let value = |name: &str| {
            stats
                .iter()
                .find(|(stat, ..)| stat == name)
                .map(|(_, value, _)| *value)
        };
        assert_eq!(value("listener_manager.lds.update_rejected"), Some(1));
        assert_eq!(value("control_plane.connected_state"), Some(0));
    }
}
