// SPDX-License-Identifier: Apache-2.0
//! The immutable data-plane configuration, compiled once from checked resources, and [`Live`], which swaps it. A request
//! takes one snapshot and keeps it to its end. `compile` is called by `xds::apply`, `replace` by it alone; nothing here
//! touches a socket.

pub mod chain;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use foldhash::HashMap;
use pillion_xds::cluster as xds_cluster;
use pillion_xds::endpoint::ClusterLoadAssignment;
use pillion_xds::listener as xds_listener;
use pillion_xds::resource::Rejected;
use pillion_xds::route::RouteConfiguration;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::metrics::Metrics;
use crate::route::RouteTable;
use crate::tls;
use crate::tls::ClientTls;
use crate::tls::Material;
use crate::tls::Secrets;
use crate::tls::ServerTls;

pub use chain::Chain;
pub use chain::Filter;
pub use chain::Listener;

/// Every accepted resource, by type and name.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// LDS.
    pub listeners: BTreeMap<String, Arc<xds_listener::Listener>>,
    /// RDS.
    pub routes: BTreeMap<String, Arc<RouteConfiguration>>,
    /// CDS.
    pub clusters: BTreeMap<String, Arc<xds_cluster::Cluster>>,
    /// EDS, by cluster or service name.
    pub endpoints: BTreeMap<String, Arc<ClusterLoadAssignment>>,
    /// SDS, and this proxy's own identity.
    pub secrets: Secrets,
    /// From the SDS socket; `None` where none is configured.
    pub socket_secrets: Option<Secrets>,
}

impl Resources {
    /// Secrets by where they came from.
    pub fn material(&self) -> Material<'_> {
        Material {
            ads: &self.secrets,
            socket: self.socket_secrets.as_ref(),
        }
    }
}

/// The configuration that requests are served by.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts compiles; higher is newer.
    pub version: u64,
    metrics: Metrics,
    listeners: BTreeMap<String, Arc<Listener>>,
    routes: HashMap<String, Arc<RouteTable>>,
    clusters: HashMap<String, Arc<Cluster>>,
}

impl Snapshot {
    /// Nothing configured yet.
    pub fn empty(metrics: Metrics) -> Snapshot {
        let (routes, clusters) = (HashMap::default(), HashMap::default());
        Snapshot {
            version: 0,
            metrics,
            listeners: BTreeMap::new(),
            routes,
            clusters,
        }
    }

    /// Compiles everything once. A resource that does not compile is refused by name, and the one of that name in
    /// `previous`, if any, keeps serving. What has not changed is taken from `previous`: pools, marks and stats stay.
    pub fn compile(resources: &Resources, previous: &Snapshot) -> (Snapshot, Vec<Rejected>) {
        let mut rejected = Vec::new();
        let clusters = compile_clusters(resources, previous, &mut rejected);
        let routes = compile_routes(resources, previous, &mut rejected);
        let listeners = compile_listeners(resources, previous, &routes, &mut rejected);
        previous.metrics.retain_clusters(|name| {
            clusters.contains_key(name) || previous.clusters.contains_key(name)
        });
        let metrics = previous.metrics.clone();
        (
            Snapshot {
                version: previous.version + 1,
                metrics,
                listeners,
                routes,
                clusters,
            },
            rejected,
        )
    }

    /// A listener by resource name.
    pub fn listener(&self, name: &str) -> Option<&Arc<Listener>> {
        self.listeners.get(name)
    }

    /// All listeners, by name.
    pub fn listeners(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.listeners.values()
    }

    /// A cluster by name.
    pub fn cluster(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.clusters.get(name)
    }

    /// All clusters, in no order.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.clusters.values()
    }

    /// All route tables, in no order.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<RouteTable>> {
        self.routes.values()
    }

    /// Whether a certificate, key or trust file in use has changed on disk; compiling again then takes the new ones.
    pub fn files_changed(&self) -> bool {
        self.client_tls().any(|tls| tls.files_changed())
            || self.server_tls().any(|tls| tls.files_changed())
    }

    /// Whether any certificate, key or root comes from a file.
    pub fn wants_files(&self) -> bool {
        self.client_tls().any(|tls| tls.wants_files())
            || self.server_tls().any(|tls| tls.wants_files())
    }

    /// Files that certificates, keys and roots in use were read from.
    pub fn key_files(&self) -> BTreeSet<PathBuf> {
        let clients = self.client_tls().flat_map(|tls| tls.files());
        let servers = self.server_tls().flat_map(|tls| tls.files());
        clients.chain(servers).map(Path::to_owned).collect()
    }

    /// Certificates that this proxy shows.
    pub fn certificates(&self) -> impl Iterator<Item = CertificateDer<'static>> {
        let clients = self.client_tls().filter_map(|tls| tls.certificate());
        let servers = self.server_tls().filter_map(|tls| tls.certificate());
        clients.chain(servers).cloned()
    }

    fn client_tls(&self) -> impl Iterator<Item = &Arc<ClientTls>> {
        self.clusters.values().filter_map(|one| one.tls.as_ref())
    }

    fn server_tls(&self) -> impl Iterator<Item = &Arc<ServerTls>> {
        let chains = self.listeners.values().flat_map(|one| one.chains());
        chains.filter_map(|chain| chain.tls.as_ref())
    }
}

fn compile_clusters(
    resources: &Resources,
    previous: &Snapshot,
    rejected: &mut Vec<Rejected>,
) -> HashMap<String, Arc<Cluster>> {
    let mut clusters = HashMap::default();
    for (name, config) in &resources.clusters {
        let before = previous.clusters.get(name);
        match compile_cluster(config, resources, before, &previous.metrics) {
            Ok(cluster) => {
                clusters.insert(name.clone(), cluster);
            }
            Err(why) => {
                rejected.push(Rejected {
                    name: name.clone(),
                    why,
                });
                clusters.extend(before.map(|kept| (name.clone(), Arc::clone(kept))));
            }
        }
    }
    clusters
}

fn compile_cluster(
    config: &Arc<xds_cluster::Cluster>,
    resources: &Resources,
    before: Option<&Arc<Cluster>>,
    metrics: &Metrics,
) -> Result<Arc<Cluster>, String> {
    check_endpoints(config)?;
    let assignment = match &config.discovery {
        xds_cluster::Discovery::Eds(service) => resources
            .endpoints
            .get(service.as_deref().unwrap_or(&config.name))
            .cloned(),
        _ => None,
    };
    if let Some(assignment) = &assignment {
        literals_only(assignment, "endpoints")?;
    }
    let tls = upstream_tls(config, before, resources.material(), metrics)?;
    if let Some(before) = before
        && before.is_current(config, assignment.as_ref())
        && same(before.tls.as_ref(), tls.as_ref())
    {
        return Ok(Arc::clone(before));
    }
    Ok(Arc::new(Cluster::new(
        Arc::clone(config),
        tls,
        assignment,
        before.map(Arc::as_ref),
        metrics,
    )))
}

fn same(before: Option<&Arc<ClientTls>>, now: Option<&Arc<ClientTls>>) -> bool {
    match (before, now) {
        (Some(before), Some(now)) => Arc::ptr_eq(before, now),
        (None, None) => true,
        _ => false,
    }
}

fn check_endpoints(config: &xds_cluster::Cluster) -> Result<(), String> {
    match &config.discovery {
        xds_cluster::Discovery::Static(assignment) => literals_only(assignment, "load_assignment"),
        _ => Ok(()),
    }
}

fn literals_only(assignment: &ClusterLoadAssignment, field: &str) -> Result<(), String> {
    let endpoints = assignment
        .localities
        .iter()
        .flat_map(|locality| &locality.endpoints);
    match endpoints
        .map(|endpoint| &endpoint.host)
        .find(|host| host.parse::<std::net::IpAddr>().is_err())
    {
        Some(host) => Err(format!(
            "{field}: {host:?} is no IP address; a hostname needs type STRICT_DNS or LOGICAL_DNS"
        )),
        None => Ok(()),
    }
}

fn upstream_tls(
    config: &xds_cluster::Cluster,
    before: Option<&Arc<Cluster>>,
    material: Material<'_>,
    metrics: &Metrics,
) -> Result<Option<Arc<ClientTls>>, String> {
    let Some(source) = &config.tls else {
        return Ok(None);
    };
    let kept = before
        .filter(|before| before.config.protocol == config.protocol)
        .and_then(|before| before.tls.as_ref());
    if let Some(kept) = kept.filter(|kept| kept.is_current(source, material)) {
        return Ok(Some(Arc::clone(kept)));
    }
    let alpn: &[&str] = match config.protocol {
        xds_cluster::UpstreamProtocol::Http2 => &["h2"],
        xds_cluster::UpstreamProtocol::Http1 | xds_cluster::UpstreamProtocol::UseDownstream => &[],
    };
    let built = tls::client(source, material, alpn, kept.map(Arc::as_ref));
    tell_refused(&config.name, built.refused.as_ref(), metrics);
    match &built.config {
        Err(error) if !error.is_pending() => Err(format!("transport_socket: {error}")),
        _ => Ok(Some(Arc::new(built))),
    }
}

/// New key material that is of no use is told of once, by whom it was for.
fn tell_refused(context: &str, refused: Option<&tls::TlsError>, metrics: &Metrics) {
    if let Some(error) = refused {
        metrics.process().key_material_refused.add_shared(1);
        tracing::warn!(
            context,
            reason = %error,
            "new key material refused; the last good one serves"
        );
    }
}

fn compile_routes(
    resources: &Resources,
    previous: &Snapshot,
    rejected: &mut Vec<Rejected>,
) -> HashMap<String, Arc<RouteTable>> {
    let mut routes = HashMap::default();
    for (name, source) in &resources.routes {
        let before = previous.routes.get(name);
        let kept =
            before.filter(|table| Arc::ptr_eq(table.source(), source) || table.source() == source);
        let table = match kept {
            Some(kept) => Some(Arc::clone(kept)),
            None => match RouteTable::compile(Arc::clone(source)) {
                Ok(table) => Some(Arc::new(table)),
                Err(refused) => {
                    rejected.push(refused);
                    before.cloned()
                }
            },
        };
        routes.extend(table.map(|table| (name.clone(), table)));
    }
    routes
}

fn compile_listeners(
    resources: &Resources,
    previous: &Snapshot,
    routes: &HashMap<String, Arc<RouteTable>>,
    rejected: &mut Vec<Rejected>,
) -> BTreeMap<String, Arc<Listener>> {
    let mut listeners = BTreeMap::new();
    let room = chain::Room {
        routes,
        material: resources.material(),
        metrics: &previous.metrics,
    };
    for (name, source) in &resources.listeners {
        let before = previous.listeners.get(name);
        let listener = match Listener::compile(source, before.map(Arc::as_ref), &room) {
            Ok(listener) => Some(Arc::new(listener)),
            Err(why) => {
                rejected.push(Rejected {
                    name: name.clone(),
                    why,
                });
                // The kept listener still follows its route tables: they may have changed on their own.
                let source = before.map(|before| Arc::clone(&before.source));
                source
                    .and_then(|source| {
                        Listener::compile(&source, before.map(Arc::as_ref), &room).ok()
                    })
                    .map(Arc::new)
                    .or_else(|| before.cloned())
            }
        };
        listeners.extend(listener.map(|listener| (name.clone(), listener)));
    }
    listeners
}

/// The configuration in force. Clones share it; only `xds::apply` replaces it.
#[derive(Clone)]
pub struct Live {
    inner: Arc<Inner>,
}

struct Inner {
    current: ArcSwap<Snapshot>,
    replaced: AtomicU64,
    changed: watch::Sender<u64>,
}

impl Live {
    /// Begins with `snapshot`.
    pub fn new(snapshot: Snapshot) -> Live {
        let (changed, _) = watch::channel(0);
        let current = ArcSwap::from_pointee(snapshot);
        Live {
            inner: Arc::new(Inner {
                current,
                replaced: AtomicU64::new(0),
                changed,
            }),
        }
    }

    /// The configuration now.
    pub fn current(&self) -> Arc<Snapshot> {
        self.inner.current.load_full()
    }

    /// How often it was replaced: a cheap way to see whether a held snapshot is still the newest.
    pub fn generation(&self) -> u64 {
        self.inner.replaced.load(Ordering::Acquire)
    }

    /// Puts the next one in force: requests that begin from now on see it, those under way keep theirs.
    pub fn replace(&self, next: Snapshot) {
        let version = next.version;
        self.inner.current.store(Arc::new(next));
        self.inner.replaced.fetch_add(1, Ordering::Release);
        self.inner.changed.send_replace(version);
    }

    /// Wakes at each replacement, with the new version.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }
}

#[cfg(test)]
mod tests;
