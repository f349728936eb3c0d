// SPDX-License-Identifier: Apache-2.0
//! The one table of the data path's metrics, under the names Envoy gave them. Counters are sharded: each worker writes
//! its own shard without contention, and a scrape sums them. Read as Prometheus families (through the registry) and as
//! Envoy's plain stat names (`/stats`).

mod export;
pub mod extension;
mod quantiles;
mod stats;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

pub use stats::ClusterPart;
pub use stats::ClusterShard;
pub use stats::ClusterStats;
pub use stats::Histogram;
pub use stats::HttpStats;
pub use stats::InFlight;
pub use stats::ListenerStats;
pub use stats::TcpStats;

/// A count or a level. Invariant: a shard is written by one thread only (`inc`, `dec`), so load and store suffice and
/// no cache line is fought over; `add_shared` is for what several threads write.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Some more.
    pub fn add(&self, number: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(number),
            Ordering::Relaxed,
        );
    }

    /// One less (levels only).
    pub fn dec(&self) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_sub(1),
            Ordering::Relaxed,
        );
    }

    /// Some more, from any thread.
    pub fn add_shared(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    /// As it stands.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One value per worker, each on cache lines of its own.
pub struct Sharded<T> {
    shards: Box<[Aligned<T>]>,
}

#[repr(align(128))]
#[derive(Default)]
struct Aligned<T>(T);

impl<T: Default> Sharded<T> {
    fn new(workers: usize) -> Sharded<T> {
        Sharded {
            shards: (0..workers.max(1)).map(|_| Aligned::default()).collect(),
        }
    }

    /// The shard of one worker.
    pub fn at(&self, worker: usize) -> &T {
        &self.shards[worker % self.shards.len()].0
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.shards.iter().map(|shard| &shard.0)
    }
}

impl<T> fmt::Debug for Sharded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sharded({})", self.shards.len())
    }
}

/// All metrics of the data path. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    inner: Arc<Inner>,
}

type Table<T> = Mutex<BTreeMap<Box<str>, Arc<T>>>;

#[derive(Debug)]
struct Inner {
    workers: usize,
    labels: Vec<(String, String)>,
    clusters: Table<ClusterStats>,
    http: Table<HttpStats>,
    tcp: Table<TcpStats>,
    listeners: Table<ListenerStats>,
    process: Process,
}

/// What belongs to no listener and no cluster; written by any thread.
#[derive(Debug, Default)]
pub struct Process {
    /// Panics that ended a connection.
    pub panics: Count,
    /// Access log lines lost to a full queue.
    pub access_log_dropped: Count,
    /// Access log lines written.
    pub access_log_written: Count,
    /// Certificates, keys or bundles that could not take the place of the last good ones.
    pub key_material_refused: Count,
    /// Accept errors (`EMFILE` and the like).
    pub accept_errors: Count,
}

impl Metrics {
    /// For this many workers; `labels` go on every Prometheus series (`appmesh_mesh`, …).
    pub fn new(workers: usize, labels: Vec<(String, String)>) -> Metrics {
        let inner = Inner {
            workers,
            labels,
            clusters: Mutex::default(),
            http: Mutex::default(),
            tcp: Mutex::default(),
            listeners: Mutex::default(),
            process: Process::default(),
        };
        Metrics {
            inner: Arc::new(inner),
        }
    }

    /// Shows them in `registry`.
    pub fn register(&self, registry: &prometheus::Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(export::Families::new(self.clone())?))
    }

    /// Of a cluster, the same for the same name across configuration changes.
    pub fn cluster(&self, name: &str) -> Arc<ClusterStats> {
        entry(&self.inner.clusters, name, || {
            ClusterStats::new(name, self.inner.workers)
        })
    }

    /// Of the connection managers with this stat prefix.
    pub fn http(&self, prefix: &str) -> Arc<HttpStats> {
        entry(&self.inner.http, prefix, || {
            HttpStats::new(self.inner.workers)
        })
    }

    /// Of the TCP proxies with this stat prefix.
    pub fn tcp(&self, prefix: &str) -> Arc<TcpStats> {
        entry(&self.inner.tcp, prefix, || {
            TcpStats::new(self.inner.workers)
        })
    }

    /// Of a listener, by its configured address (`0.0.0.0_15000`).
    pub fn listener(&self, address: std::net::SocketAddr) -> Arc<ListenerStats> {
        let name = address.to_string().replace(':', "_");
        let name = match address.ip() {
            std::net::IpAddr::V4(ip) => format!("{ip}_{}", address.port()),
            std::net::IpAddr::V6(_) => name,
        };
        entry(&self.inner.listeners, &name, || {
            ListenerStats::new(self.inner.workers)
        })
    }

    /// Of the process.
    pub fn process(&self) -> &Process {
        &self.inner.process
    }

    /// Forgets clusters that no configuration names any more, so that their series end.
    pub fn retain_clusters(&self, named: impl Fn(&str) -> bool) {
        self.inner.clusters.lock().retain(|name, _| named(name));
    }

    /// Every time under Envoy's plain name with its quantiles, sorted; `None` where nothing was timed yet.
    pub fn times(&self) -> BTreeMap<String, Option<Vec<(f64, f64)>>> {
        let all = export::plain_times(self).into_iter();
        all.map(|(name, buckets)| (name, quantiles::of(&buckets)))
            .collect()
    }

    /// Every stat under Envoy's plain name, sorted.
    pub fn stats(&self) -> Vec<(String, u64)> {
        export::plain(self)
    }
}

fn entry<T>(table: &Table<T>, name: &str, make: impl FnOnce() -> T) -> Arc<T> {
    let mut table = table.lock();
    if let Some(found) = table.get(name) {
        return Arc::clone(found);
    }
    let made = Arc::new(make());
    table.insert(Box::from(name), Arc::clone(&made));
    made
}
