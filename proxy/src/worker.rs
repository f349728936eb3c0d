// SPDX-License-Identifier: Apache-2.0
//! What every connection of one worker thread shares: the configuration it holds, its shards of metrics and logs, its
//! random numbers. Nothing here is fought over by threads; `Load` alone is shared, for the drain.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use http::HeaderValue;
use pillion_runtime::spans::Spans;
use rand::Rng;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::access_log::Buffers;
use crate::cluster::dns::Resolver;
use crate::drain::Side;
use crate::drain::Stage;
use crate::drain::Stages;
use crate::limits::Limits;
use crate::memory::Ledger;
use crate::metrics::Metrics;
use crate::sampling::Sampler;
use crate::snapshot::Live;
use crate::snapshot::Snapshot;

/// A snapshot held by a worker: cloned per request without touching an atomic that other workers touch.
pub type Held = Rc<Arc<Snapshot>>;

/// Settings of the data path that do not come by xDS.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The `server` header of every answer; `None` leaves upstream's.
    pub server_header: Option<HeaderValue>,
    /// Which traces that begin here are kept.
    pub sampling: Arc<Sampler>,
    /// Whether a caller's decision to keep a trace is followed. Left open, that of a caller in the mesh is; from outside,
    /// at a gateway, only the one not to.
    pub follow_caller: Option<bool>,
    /// Where the app listens, by the port that was asked for (`--listen`).
    pub local_apps: HashMap<u16, SocketAddr>,
    /// What a stranger may ask of us.
    pub limits: Limits,
    /// Whether explicit egress serves other machines too.
    pub open_egress: bool,
}

impl Default for Policy {
    fn default() -> Policy {
        let server_header = Some(HeaderValue::from_static("envoy"));
        Policy {
            server_header,
            sampling: Arc::new(Sampler::new(0, 0.05)),
            follow_caller: None,
            local_apps: HashMap::new(),
            limits: Limits::default(),
            open_egress: false,
        }
    }
}

/// What is in flight in the whole process.
#[derive(Debug)]
pub struct Load {
    /// Requests, tunnels and TCP connections.
    pub exchanges: AtomicUsize,
    /// Downstream connections.
    pub connections: AtomicUsize,
    /// Sockets that are accepted from.
    pub doors: AtomicUsize,
    started: Instant,
    last_connected_ms: AtomicU64,
}

impl Default for Load {
    fn default() -> Load {
        Load {
            exchanges: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            doors: AtomicUsize::new(0),
            started: Instant::now(),
            last_connected_ms: AtomicU64::new(0),
        }
    }
}

impl Load {
    /// Notes that somebody connected.
    pub fn connected(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_connected_ms.store(now, Ordering::Relaxed);
    }

    /// How long nobody has connected.
    pub fn quiet_for(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(
            self.last_connected_ms.load(Ordering::Relaxed),
        ))
    }

    /// Whether anybody is connected, or could be: the queue of a socket that is still open is not known.
    pub fn is_connected(&self) -> bool {
        self.doors.load(Ordering::Relaxed) > 0 || self.connections.load(Ordering::Relaxed) > 0
    }

    /// Whether anything is in flight.
    pub fn is_busy(&self) -> bool {
        self.exchanges.load(Ordering::Relaxed) > 0
    }
}

/// One more of something, as long as it is held.
pub struct Counted {
    load: Arc<Load>,
    what: fn(&Load) -> &AtomicUsize,
}

impl Counted {
    /// One more.
    pub fn one(load: &Arc<Load>, what: fn(&Load) -> &AtomicUsize) -> Counted {
        what(load).fetch_add(1, Ordering::Relaxed);
        let load = Arc::clone(load);
        Counted { load, what }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.what)(&self.load).fetch_sub(1, Ordering::Relaxed);
    }
}

/// What workers are made from; shared by all of them.
#[derive(Clone)]
pub struct Shared {
    /// The configuration.
    pub live: Live,
    /// Settings.
    pub policy: Arc<Policy>,
    /// Metrics.
    pub metrics: Metrics,
    /// Finished spans go here.
    pub spans: Spans,
    /// Access log lines go here.
    pub log_writer: crate::access_log::Writer,
    /// What is in flight.
    pub load: Arc<Load>,
    /// How far the drain has come.
    pub stages: Stages,
    /// A worker's share of the memory that requests may hold.
    pub memory: usize,
}

/// One worker thread's view.
pub struct Worker {
    /// Which shard of the metrics is ours.
    pub index: usize,
    /// What all workers share.
    pub shared: Shared,
    /// What this worker's requests hold.
    pub ledger: Arc<Ledger>,
    /// Log lines of this worker.
    pub logs: Rc<Buffers>,
    /// For destinations that are named by the request itself.
    pub resolver: Resolver,
    held: RefCell<(u64, Held)>,
    random: RefCell<SmallRng>,
}

impl Worker {
    /// On its own thread.
    pub fn new(index: usize, shared: Shared) -> Worker {
        let held = (shared.live.generation(), Rc::new(shared.live.current()));
        Worker {
            index,
            ledger: Arc::new(Ledger::new(shared.memory)),
            logs: Rc::new(Buffers::new(shared.log_writer.clone())),
            resolver: Resolver::system(),
            held: RefCell::new(held),
            random: RefCell::new(SmallRng::from_os_rng()),
            shared,
        }
    }

    /// The newest snapshot, and a number that tells it from others.
    pub fn snapshot(&self) -> (u64, Held) {
        let generation = self.shared.live.generation();
        let mut held = self.held.borrow_mut();
        if held.0 != generation {
            *held = (generation, Rc::new(self.shared.live.current()));
        }
        (held.0, Rc::clone(&held.1))
    }

    /// How far the drain of this side has come.
    pub fn stage(&self, side: Side) -> Stage {
        self.shared.stages.stage(side)
    }

    /// Waits until the drain of this side has come so far.
    pub async fn reaches(&self, side: Side, stage: Stage) {
        self.shared.stages.reaches(side, stage).await;
    }

    /// Waits until what is left is cut off, which both sides are at once.
    pub async fn cut(&self) {
        self.reaches(Side::Inbound, Stage::Cut).await;
    }

    /// A random number.
    pub fn random(&self) -> u64 {
        self.random.borrow_mut().random()
    }

    /// True with this probability.
    pub fn chance(&self, share: f64) -> bool {
        share >= 1.0 || (share > 0.0 && self.random.borrow_mut().random_bool(share))
    }
}
