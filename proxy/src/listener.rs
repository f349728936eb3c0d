// SPDX-License-Identifier: Apache-2.0
//! The data path's doors: worker threads with a runtime each, sockets shared between them by `SO_REUSEPORT`, and the
//! drain. `app` starts it once; listeners of gateways are bound and unbound as configuration arrives.

mod accept;
mod gateway;
mod origin;
mod sniff;

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;
use pillion_runtime::listening;
use pillion_runtime::listening::BindError;
use pillion_runtime::spans::Spans;
use pillion_runtime::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::access_log;
use crate::cluster::outlier;
use crate::cluster::upkeep;
use crate::drain::BOTH;
use crate::drain::Drains;
use crate::drain::Side;
use crate::drain::Stage;
use crate::metrics::Metrics;
use crate::snapshot::Live;
use crate::worker::Load;
use crate::worker::Policy;
use crate::worker::Shared;

/// Commands waiting for one worker; it takes them between connections.
const COMMANDS: usize = 64;
/// A drain looks this often whether everything has ended.
const LOOK: Duration = Duration::from_millis(20);
/// Nobody connecting for this long means that callers have heard.
const QUIET: Duration = Duration::from_secs(1);

/// One `--listen`: a port of the workload's, bound here, whose app listens elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// What is bound.
    pub address: SocketAddr,
    /// The listener's port, as filter chains name it.
    pub port: u16,
    /// Where the app listens.
    pub app: SocketAddr,
}

/// Called with the names and addresses of sockets bound after the start.
pub type Announce = Arc<dyn Fn(&[(String, SocketAddr)]) + Send + Sync>;

/// Called when sockets are as a snapshot of this version wants them, but for those that could not be bound, each with
/// its reason.
pub type Settled = Arc<dyn Fn(u64, Vec<String>) + Send + Sync>;

/// What to bind, and how to behave.
#[derive(Clone)]
pub struct Settings {
    /// Transparent ingress.
    pub ingress: Option<SocketAddr>,
    /// Transparent and explicit egress.
    pub egress: Option<SocketAddr>,
    /// Explicit ingress.
    pub listens: Vec<Listen>,
    /// Where gateway listeners bind.
    pub gateway: IpAddr,
    /// Worker threads.
    pub workers: usize,
    /// Where ejections are logged.
    pub ejection_log: Arc<str>,
    /// `server` header, sampling; `local_apps` is filled from `listens`.
    pub policy: Policy,
    /// Told of gateway listeners.
    pub announce: Announce,
    /// Told how that went.
    pub settled: Settled,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            ingress: None,
            egress: None,
            listens: Vec::new(),
            gateway: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            workers: 1,
            ejection_log: Arc::from("/dev/null"),
            policy: Policy::default(),
            announce: Arc::new(|_| {}),
            settled: Arc::new(|_, _| {}),
        }
    }
}

/// A data path that could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A thread or its runtime.
    #[error("start worker thread {index}")]
    Worker {
        /// Which.
        index: usize,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Which door a socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SocketKind {
    /// 15000.
    Ingress,
    /// 15001.
    Egress,
    /// `--listen`, for this port.
    Listen(u16),
    /// The listener resource of this name.
    Gateway(Arc<str>),
}

/// Names a socket that came with configuration, so that it can go with it.
pub(crate) type SocketName = Arc<str>;

/// What a worker is told.
pub(crate) enum Command {
    /// Accept from this socket; with a name, until told otherwise.
    Listen {
        kind: SocketKind,
        side: Side,
        socket: std::net::TcpListener,
        name: Option<SocketName>,
    },
    /// Accept no more from the socket of this name.
    Unlisten { name: SocketName },
}

/// The running data path.
pub struct DataPlane {
    addresses: Vec<(String, SocketAddr)>,
    gateways: gateway::Bound,
    drains: Drains,
    load: Arc<Load>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

/// Binds every socket and starts the workers. Runs on the control runtime, whose tasks (DNS, probes, log writer) go into
/// `tasks`.
pub fn start(
    live: &Live,
    mut settings: Settings,
    metrics: &Metrics,
    spans: Spans,
    tasks: &Tasks,
) -> Result<DataPlane, StartError> {
    let workers = settings.workers.max(1);
    settings.policy.local_apps.extend(
        settings
            .listens
            .iter()
            .map(|listen| (listen.port, listen.app)),
    );
    let drains = Drains::default();
    let log_writer = access_log::Writer::start(tasks, metrics);
    let events = outlier::Events::new(log_writer.clone(), Arc::clone(&settings.ejection_log));
    let load = Arc::new(Load::default());
    let shared = Shared {
        live: live.clone(),
        policy: Arc::new(settings.policy.clone()),
        metrics: metrics.clone(),
        spans,
        log_writer,
        load: Arc::clone(&load),
        stages: drains.stages(),
        memory: settings.policy.limits.memory / workers,
    };
    let sockets = bind_all(&settings, workers)?;
    let addresses: Vec<(String, SocketAddr)> = sockets
        .iter()
        .map(|(name, addr, _)| (name.clone(), *addr))
        .collect();
    let mut threads = Vec::new();
    let mut commands = Vec::new();
    for index in 0..workers {
        let (sender, receiver) = mpsc::channel(COMMANDS);
        threads.push(start_worker(index, shared.clone(), receiver)?);
        commands.push(sender);
    }
    for (_, _, bound) in sockets {
        for (sender, command) in commands.iter().zip(bound) {
            // A channel this new has room, and its worker has just been started.
            if sender.try_send(command).is_err() {
                tracing::error!("a worker ended before it could listen");
            }
        }
    }
    let gateways = gateway::Bound::default();
    let binder = gateway::Binder {
        live: live.clone(),
        doors: gateway::Doors {
            gateway: settings.gateway,
            ingress: addresses_named(&addresses, "ingress"),
            egress: addresses_named(&addresses, "egress"),
        },
        announce: Arc::clone(&settings.announce),
        settled: Arc::clone(&settings.settled),
        workers: commands,
        bound: gateways.clone(),
    };
    tasks.spawn_until_stopped("gateway-listeners", binder.run());
    tasks.spawn_until_stopped("cluster-upkeep", upkeep::keep(live.clone(), events));
    Ok(DataPlane {
        addresses,
        gateways,
        drains,
        load,
        threads: Mutex::new(threads),
    })
}

fn addresses_named(all: &[(String, SocketAddr)], name: &str) -> Option<SocketAddr> {
    all.iter()
        .find(|(found, _)| found == name)
        .map(|(_, addr)| *addr)
}

type BoundSockets = Vec<(String, SocketAddr, Vec<Command>)>;

fn bind_all(settings: &Settings, workers: usize) -> Result<BoundSockets, StartError> {
    let mut sockets = Vec::new();
    let fixed = [
        (
            settings.ingress,
            "--ingress-addr",
            "ingress",
            SocketKind::Ingress,
        ),
        (
            settings.egress,
            "--egress-addr",
            "egress",
            SocketKind::Egress,
        ),
    ];
    for (addr, setting, name, kind) in fixed {
        if let Some(addr) = addr {
            let (addr, bound) = bind_workers(setting, addr, workers, &kind)?;
            sockets.push((name.to_owned(), addr, bound));
        }
    }
    for listen in &settings.listens {
        let (addr, bound) = bind_workers(
            "--listen",
            listen.address,
            workers,
            &SocketKind::Listen(listen.port),
        )?;
        sockets.push((format!("listen:{}", listen.port), addr, bound));
    }
    Ok(sockets)
}

/// One socket per worker on the same address; the first decides what port 0 becomes.
fn bind_workers(
    setting: &'static str,
    addr: SocketAddr,
    workers: usize,
    kind: &SocketKind,
) -> Result<(SocketAddr, Vec<Command>), BindError> {
    let (at, sockets) = bind_each(addr, workers, |at| listening::bind_shared(setting, at))?;
    let side = match kind {
        SocketKind::Egress => Side::Outbound,
        SocketKind::Ingress | SocketKind::Listen(_) | SocketKind::Gateway(_) => Side::Inbound,
    };
    let command = |socket| Command::Listen {
        kind: kind.clone(),
        side,
        socket,
        name: None,
    };
    Ok((at, sockets.into_iter().map(command).collect()))
}

fn bind_each(
    addr: SocketAddr,
    workers: usize,
    bind: impl Fn(SocketAddr) -> Result<TcpListener, BindError>,
) -> Result<(SocketAddr, Vec<std::net::TcpListener>), BindError> {
    let mut at = addr;
    let mut sockets = Vec::new();
    for _ in 0..workers {
        let socket = bind(at)?;
        at = socket.local_addr().unwrap_or(at);
        match socket.into_std() {
            Ok(socket) => sockets.push(socket),
            Err(error) => {
                tracing::error!(%at, %error, "a bound socket could not be handed to its worker")
            }
        }
    }
    Ok((at, sockets))
}

fn start_worker(
    index: usize,
    shared: Shared,
    commands: mpsc::Receiver<Command>,
) -> Result<std::thread::JoinHandle<()>, StartError> {
    let failed = |source| StartError::Worker { index, source };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, accept::run(index, shared, commands));
        })
        .map_err(failed)
}

impl DataPlane {
    /// Sockets by the names of the readiness line: `ingress`, `egress`, `listen:<port>`, `gateway:<port>`.
    pub fn addresses(&self) -> Vec<(String, SocketAddr)> {
        let mut all = self.addresses.clone();
        all.extend(self.gateways.addresses());
        all
    }

    /// Requests, tunnels and TCP connections in flight.
    pub fn in_flight(&self) -> usize {
        self.load.exchanges.load(Ordering::Relaxed)
    }

    /// Asks callers to go elsewhere (`Connection: close`, GOAWAY) while still accepting.
    pub fn announce_drain(&self, sides: &[Side]) {
        self.drains.advance(sides, Stage::Announcing);
    }

    /// Takes that back, where nothing has been closed yet.
    pub fn relent(&self, side: Side) {
        self.drains.relent(side);
    }

    /// Closes listeners and idle connections; what is in flight goes on.
    pub fn close_listeners(&self, sides: &[Side]) {
        self.drains.advance(sides, Stage::Closing);
    }

    /// The whole drain: announces for `wait` (less, once nothing is in flight and nobody has connected for a second),
    /// closes, lets what is in flight finish until `limit` has passed in all, and ends the workers. Returns how many
    /// exchanges were cut off.
    pub async fn drain(&self, wait: Duration, limit: Duration) -> usize {
        let begun = Instant::now();
        self.announce_drain(BOTH);
        while begun.elapsed() < wait
            && (self.load.is_busy() || self.load.quiet_for() < QUIET || begun.elapsed() < QUIET)
        {
            tokio::time::sleep(LOOK).await;
        }
        self.close_listeners(BOTH);
        while begun.elapsed() < limit && (self.load.is_busy() || self.load.is_connected()) {
            tokio::time::sleep(LOOK).await;
        }
        let cut = self.in_flight();
        self.drains.advance(BOTH, Stage::Cut);
        let threads = std::mem::take(&mut *self.threads.lock());
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().all(|thread| thread.join().is_ok())
        });
        if !joined.await.unwrap_or(false) {
            tracing::error!("a worker thread ended with a panic");
        }
        cut
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.drains.advance(BOTH, Stage::Cut);
    }
}
