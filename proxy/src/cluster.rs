// SPDX-License-Identifier: Apache-2.0
//! A cluster at run time: its configuration, its endpoints, and the state that outlives a configuration change (stats,
//! levels in flight, turn of the balancer, DNS answers, ejections). Built by `snapshot`, picked from once per try.

pub mod balance;
pub mod budget;
pub mod dns;
pub mod health;
pub mod outlier;
pub mod upkeep;

use std::collections::HashMap;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use pillion_xds::cluster as xds;
use pillion_xds::endpoint::ClusterLoadAssignment;
use pillion_xds::endpoint::Health;
use tokio::sync::Notify;
use tokio::sync::watch;

use crate::metrics::ClusterStats;
use crate::metrics::Metrics;
use crate::tls::ClientTls;

/// Envoy's limit where none is said.
const DEFAULT_LIMIT: u32 = 1024;
/// Envoy's idle limit of a pooled connection.
const DEFAULT_IDLE: Duration = Duration::from_secs(3600);

/// One address of a cluster; the same value as long as the address stays, so marks and pools stay with it.
#[derive(Debug)]
pub struct Endpoint {
    /// Unique in this process; names its connection pool.
    pub id: u64,
    /// Where it listens.
    pub addr: SocketAddr,
    /// Host as configured.
    pub hostname: Box<str>,
    /// Availability zone.
    pub zone: Box<str>,
    /// Requests in flight.
    pub active: AtomicU32,
    /// Requests ever.
    pub total: AtomicU64,
    /// Failures in a row.
    pub failures: AtomicU32,
    /// Times ejected.
    pub ejections: AtomicU32,
    /// Out by outlier detection.
    ejected: AtomicBool,
    /// Out by active probes (or not yet in).
    unhealthy: AtomicBool,
}

impl Endpoint {
    fn new(addr: SocketAddr, hostname: &str, zone: &str) -> Endpoint {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Endpoint {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            addr,
            hostname: Box::from(hostname),
            zone: Box::from(zone),
            active: AtomicU32::new(0),
            total: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected: AtomicBool::new(false),
            unhealthy: AtomicBool::new(false),
        }
    }

    /// A destination that a request named itself.
    pub fn at(addr: SocketAddr, hostname: &str) -> Endpoint {
        Endpoint::new(addr, hostname, "")
    }

    /// Whether outlier detection keeps it out.
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// Whether its probes keep it out.
    pub fn is_unhealthy(&self) -> bool {
        self.unhealthy.load(Ordering::Relaxed)
    }

    /// Takes it out by outlier detection, or lets it in again; whether that changed anything.
    pub fn set_ejected(&self, out: bool) -> bool {
        mark(&self.ejected, out)
    }

    /// Takes it out by its probes, or lets it in again; whether that changed anything.
    pub fn set_unhealthy(&self, out: bool) -> bool {
        mark(&self.unhealthy, out)
    }

    /// Whether marks of this proxy keep it out.
    pub fn is_out(&self) -> bool {
        self.ejected.load(Ordering::Relaxed) || self.unhealthy.load(Ordering::Relaxed)
    }
}

/// Counts changes of marks, of any endpoint: a set that was found whole at some count is whole as long as it stands.
static MARKS: AtomicU64 = AtomicU64::new(1);

fn mark(flag: &AtomicBool, out: bool) -> bool {
    let changed = flag.swap(out, Ordering::Relaxed) != out;
    if changed {
        MARKS.fetch_add(1, Ordering::Release);
    }
    changed
}

/// An endpoint in a set, with what the control plane says of it.
#[derive(Clone, Debug)]
pub struct Member {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Lower is preferred.
    pub priority: u32,
    /// Relative.
    pub weight: u32,
    /// As the control plane knows it.
    pub health: Health,
}

/// What survives a configuration change.
#[derive(Debug)]
pub struct State {
    /// Counts and levels.
    pub stats: Arc<ClusterStats>,
    /// Retries it bears.
    pub budget: budget::Budget,
    /// Whose turn it is.
    pub turn: AtomicUsize,
    /// Endpoints by DNS.
    resolved: ArcSwapOption<balance::Set>,
    /// True once DNS has answered, well or not.
    answered: watch::Sender<bool>,
    /// A connection has ended: one that waits at the limit may try.
    pub freed: Notify,
    /// An endpoint has been ejected.
    pub ejected: Notify,
}

/// A cluster as one snapshot sees it.
#[derive(Debug)]
pub struct Cluster {
    /// As configured.
    pub config: Arc<xds::Cluster>,
    /// TLS to its endpoints.
    pub tls: Option<Arc<ClientTls>>,
    /// What outlives this snapshot.
    pub state: Arc<State>,
    assignment: Option<Arc<ClusterLoadAssignment>>,
    endpoints: Option<Arc<balance::Set>>,
    /// Telemetry name of the callee.
    pub peer: Option<Arc<str>>,
}

impl Cluster {
    /// A cluster for the next snapshot. `assignment` is its EDS answer, if it is an EDS cluster and one has come;
    /// `previous` the cluster of this name before.
    pub fn new(
        config: Arc<xds::Cluster>,
        tls: Option<Arc<ClientTls>>,
        assignment: Option<Arc<ClusterLoadAssignment>>,
        previous: Option<&Cluster>,
        metrics: &Metrics,
    ) -> Cluster {
        let state = match previous.filter(|previous| keeps_state(&previous.config, &config)) {
            Some(previous) => Arc::clone(&previous.state),
            None => Arc::new(State::new(metrics.cluster(&config.name))),
        };
        state.set_limits(&config.limits);
        let known = previous
            .filter(|previous| speaks_alike(&previous.config, &config))
            .and_then(Cluster::set);
        let from = match &config.discovery {
            xds::Discovery::Static(assignment) => Some(assignment),
            xds::Discovery::Eds(_) => assignment.as_deref(),
            xds::Discovery::StrictDns(_)
            | xds::Discovery::LogicalDns(_)
            | xds::Discovery::OriginalDestination => None,
        };
        let probed = !config.health_checks.is_empty();
        let endpoints =
            from.map(|assignment| Arc::new(literal_set(assignment, known.as_deref(), probed)));
        let peer = config
            .labels
            .iter()
            .find(|(key, _)| key == "target")
            .map(|(_, value)| Arc::from(value.as_str()));
        let cluster = Cluster {
            config,
            tls,
            state,
            assignment,
            endpoints,
            peer,
        };
        cluster.clear_marks();
        cluster.count_members();
        cluster
    }

    /// Name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Whether building it again from these would give the same.
    pub fn is_current(
        &self,
        config: &Arc<xds::Cluster>,
        assignment: Option<&Arc<ClusterLoadAssignment>>,
    ) -> bool {
        (Arc::ptr_eq(&self.config, config) || self.config == *config)
            && self.assignment.as_ref() == assignment
    }

    /// The endpoints now; `None` when none are known yet.
    pub fn set(&self) -> Option<Arc<balance::Set>> {
        self.endpoints
            .clone()
            .or_else(|| self.state.resolved.load_full())
    }

    /// Whether endpoints come by DNS from here.
    pub fn is_dns(&self) -> bool {
        matches!(
            self.config.discovery,
            xds::Discovery::StrictDns(_) | xds::Discovery::LogicalDns(_)
        )
    }

    /// Whether requests go where the connection was going.
    pub fn is_original_destination(&self) -> bool {
        matches!(self.config.discovery, xds::Discovery::OriginalDestination)
    }

    /// The endpoint of the next try, after the first DNS answer if need be; `None` when nobody is there. `avoid` is an
    /// endpoint to pass over where there is another.
    pub async fn pick(&self, avoid: Option<u64>, worker: usize) -> Option<Arc<Endpoint>> {
        let mut set = self.set();
        if set.is_none() && self.is_dns() {
            self.first_answer().await;
            set = self.set();
        }
        let turn = self.state.turn.fetch_add(1, Ordering::Relaxed);
        let picked = set.and_then(|set| set.pick(turn, avoid));
        let counts = &self.state.stats.parts.at(worker).counts;
        match &picked {
            None => counts.cx_none_healthy.inc(),
            Some(picked) if picked.panic => counts.lb_healthy_panic.inc(),
            Some(_) => {}
        }
        picked.map(|picked| picked.endpoint)
    }

    /// Waits for the first DNS answer, at most as long as a connect may take.
    async fn first_answer(&self) {
        let mut answered = self.state.answered.subscribe();
        // Neither a late answer nor a stopped resolver is an error here: the pick then finds nobody.
        let waited =
            tokio::time::timeout(self.config.connect_timeout, answered.wait_for(|done| *done))
                .await;
        tracing::trace!(
            cluster = self.name(),
            in_time = waited.is_ok(),
            "waited for the first DNS answer"
        );
    }

    /// How long a pooled connection may sit unused.
    pub fn idle_timeout(&self) -> Duration {
        self.config.idle_timeout.unwrap_or(DEFAULT_IDLE)
    }

    /// Marks whose cause is no longer configured must not keep an endpoint out for ever.
    fn clear_marks(&self) {
        let Some(set) = self.set() else { return };
        for member in set.members() {
            if self.config.health_checks.is_empty() {
                member.endpoint.set_unhealthy(false);
            }
            if self.config.outlier_detection.is_none() {
                member.endpoint.set_ejected(false);
            }
        }
    }

    /// Publishes how many endpoints there are and how many take traffic.
    pub fn count_members(&self) {
        let (members, healthy, ejected) = self.set().map_or((0, 0, 0), |set| set.census());
        let stats = &self.state.stats;
        stats.members.store(members, Ordering::Relaxed);
        stats.healthy.store(healthy, Ordering::Relaxed);
        stats.ejected.store(ejected, Ordering::Relaxed);
    }
}

/// Stats and limits stay with the name; DNS answers and marks only while it is found and spoken to in the same way.
fn keeps_state(before: &xds::Cluster, now: &xds::Cluster) -> bool {
    std::mem::discriminant(&before.discovery) == std::mem::discriminant(&now.discovery)
        && (!is_dns(now)
            || (before.discovery == now.discovery
                && before.dns_family == now.dns_family
                && speaks_alike(before, now)))
}

fn is_dns(cluster: &xds::Cluster) -> bool {
    matches!(
        cluster.discovery,
        xds::Discovery::StrictDns(_) | xds::Discovery::LogicalDns(_)
    )
}

/// Whether open connections of the one serve the other: protocol and TLS (not its key material) are the same.
fn speaks_alike(before: &xds::Cluster, now: &xds::Cluster) -> bool {
    before.protocol == now.protocol && before.tls == now.tls
}

impl State {
    fn new(stats: Arc<ClusterStats>) -> State {
        let (answered, _) = watch::channel(false);
        State {
            stats,
            budget: budget::Budget::default(),
            turn: AtomicUsize::new(0),
            resolved: ArcSwapOption::empty(),
            answered,
            freed: Notify::new(),
            ejected: Notify::new(),
        }
    }

    fn set_limits(&self, limits: &xds::CircuitBreakers) {
        self.stats
            .connections
            .set_limit(limits.max_connections.unwrap_or(DEFAULT_LIMIT));
        self.stats
            .pending
            .set_limit(limits.max_pending_requests.unwrap_or(DEFAULT_LIMIT));
        self.stats
            .requests
            .set_limit(limits.max_requests.unwrap_or(DEFAULT_LIMIT));
        let retries = match limits.retry_budget {
            Some(_) => u32::MAX,
            None => limits.max_retries.unwrap_or(3),
        };
        self.stats.retries.set_limit(retries);
        self.budget.set(budget::of(limits));
    }

    /// Takes DNS answers: `(address, hostname, priority, weight, zone)`. An empty list changes nothing: the last good
    /// answer keeps serving.
    pub fn resolve_to(&self, answers: &[dns::Answer], unhealthy_first: bool) {
        if !answers.is_empty() {
            let known = self.resolved.load_full();
            let known = known.as_deref().map(index).unwrap_or_default();
            let members = answers
                .iter()
                .map(|answer| Member {
                    endpoint: endpoint_for(
                        &known,
                        answer.addr,
                        &answer.hostname,
                        &answer.zone,
                        unhealthy_first,
                    ),
                    priority: answer.priority,
                    weight: answer.weight,
                    health: answer.health,
                })
                .collect();
            self.resolved
                .store(Some(Arc::new(balance::Set::new(members))));
        }
        self.answered.send_replace(true);
    }
}

type Known<'s> = HashMap<SocketAddr, &'s Arc<Endpoint>>;

fn index(set: &balance::Set) -> Known<'_> {
    set.members()
        .iter()
        .map(|member| (member.endpoint.addr, &member.endpoint))
        .collect()
}

fn endpoint_for(
    known: &Known<'_>,
    addr: SocketAddr,
    host: &str,
    zone: &str,
    unhealthy_first: bool,
) -> Arc<Endpoint> {
    if let Some(endpoint) = known.get(&addr) {
        return Arc::clone(endpoint);
    }
    let endpoint = Endpoint::new(addr, host, zone);
    endpoint.set_unhealthy(unhealthy_first);
    Arc::new(endpoint)
}

fn literal_set(
    assignment: &ClusterLoadAssignment,
    known: Option<&balance::Set>,
    probed: bool,
) -> balance::Set {
    let known = known.map(index).unwrap_or_default();
    let mut members = Vec::new();
    for locality in &assignment.localities {
        for endpoint in &locality.endpoints {
            // Hostnames in literal clusters were refused when the snapshot was compiled.
            let Ok(ip) = endpoint.host.parse::<IpAddr>() else {
                continue;
            };
            let addr = SocketAddr::new(ip, endpoint.port);
            members.push(Member {
                endpoint: endpoint_for(&known, addr, &endpoint.host, &locality.zone, probed),
                priority: locality.priority,
                weight: endpoint.weight,
                health: endpoint.health,
            });
        }
    }
    balance::Set::new(members)
}
