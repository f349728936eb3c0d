// SPDX-License-Identifier: Apache-2.0
//! Opaque bytes between downstream and upstream: the same journey as a request's without HTTP. Half-close is passed on,
//! an idle pair is closed, and a drain waits for it.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use pillion_xds::route::WeightedCluster;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;

use crate::access_log::Line;
use crate::cluster::Cluster;
use crate::cluster::Endpoint;
use crate::cluster::outlier;
use crate::cluster::outlier::Outcome;
use crate::connect;
use crate::connect::Place;
use crate::error::Failure;
use crate::error::Flags;
use crate::exchange::Connection;
use crate::exchange::Door;
use crate::snapshot::chain::Tcp;
use crate::stream::Stream;
use crate::worker::Held;
use crate::worker::Worker;

/// One direction's buffer; 8 KiB ones cost 1.7 times the CPU on bulk.
const BUFFER: usize = 64 * 1024;
/// Envoy's idle limit of a TCP pair.
const DEFAULT_IDLE: Duration = Duration::from_secs(3600);

/// How a pair ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Both sides said all.
    Clean,
    /// One side broke.
    Broken,
    /// Nothing passed for too long.
    Idle,
    /// The drain's deadline.
    Cut,
}

/// Bytes that have passed, as they pass.
#[derive(Clone, Copy)]
pub struct Passed<'c> {
    /// Towards upstream.
    pub up: &'c Cell<u64>,
    /// Towards downstream.
    pub down: &'c Cell<u64>,
}

/// The cluster that `draw` (any random number) falls on.
pub fn draw(clusters: &[WeightedCluster], draw: u64) -> Option<&str> {
    let total: u64 = clusters
        .iter()
        .map(|cluster| u64::from(cluster.weight))
        .sum();
    let mut left = draw.checked_rem(total)?;
    for cluster in clusters {
        let weight = u64::from(cluster.weight);
        if left < weight {
            return Some(&cluster.name);
        }
        left -= weight;
    }
    None
}

/// Joins two streams until both directions have ended, nothing passes for `idle`, or the drain cuts them.
pub async fn relay<D, U>(
    downstream: D,
    upstream: U,
    idle: Option<Duration>,
    passed: Passed<'_>,
    worker: &Worker,
) -> Ended
where
    D: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let (down_read, down_write) = tokio::io::split(downstream);
    let (up_read, up_write) = tokio::io::split(upstream);
    let progress = Cell::new(Instant::now());
    let both = futures_util::future::try_join(
        pump(down_read, up_write, passed.up, &progress),
        pump(up_read, down_write, passed.down, &progress),
    );
    tokio::select! {
        joined = both => if joined.is_ok() { Ended::Clean } else { Ended::Broken },
        () = idle_for(idle.filter(|idle| !idle.is_zero()), &progress) => Ended::Idle,
        () = worker.cut() => Ended::Cut,
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    passed: &Cell<u64>,
    progress: &Cell<Instant>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let number = from.read(&mut buffer).await?;
        progress.set(Instant::now());
        if number == 0 {
            // The other direction may go on: this is a half-close, not an end.
            return to.shutdown().await;
        }
        to.write_all(&buffer[..number]).await?;
        to.flush().await?;
        passed.set(passed.get() + number as u64);
        progress.set(Instant::now());
    }
}

async fn idle_for(limit: Option<Duration>, progress: &Cell<Instant>) {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    loop {
        let over = progress.get() + limit;
        if Instant::now() >= over {
            return;
        }
        tokio::time::sleep_until(over.into()).await;
    }
}

/// Serves a connection by a TCP chain.
pub async fn serve(
    stream: Stream,
    tcp: &Tcp,
    connection: Rc<Connection>,
    snapshot: Held,
    worker: Rc<Worker>,
) {
    let counts = &tcp.stats.parts.at(worker.index);
    counts.cx_total.inc();
    counts.cx_active.inc();
    worker.shared.load.exchanges.fetch_add(1, Ordering::Relaxed);
    let story = Story::new();
    let cluster = draw(&tcp.proxy.clusters, worker.random())
        .and_then(|name| snapshot.cluster(name))
        .cloned();
    match cluster {
        Some(cluster) => {
            story.cluster.set(Some(Arc::clone(&cluster)));
            forward(stream, tcp, &connection, &cluster, &worker, &story).await;
        }
        None => {
            counts.cx_no_route.inc();
            story.flags.set(Flags::NO_ROUTE);
        }
    }
    counts.rx_bytes.add(story.up.get());
    counts.tx_bytes.add(story.down.get());
    counts.cx_active.dec();
    story.log(tcp, &connection, &worker);
    worker.shared.load.exchanges.fetch_sub(1, Ordering::Relaxed);
}

/// What is told of a connection at its end.
struct Story {
    wall: SystemTime,
    started: Instant,
    up: Cell<u64>,
    down: Cell<u64>,
    flags: Cell<Flags>,
    upstream: Cell<Option<std::net::SocketAddr>>,
    cluster: Cell<Option<Arc<Cluster>>>,
    transport: Cell<Option<String>>,
}

impl Story {
    fn new() -> Story {
        Story {
            wall: SystemTime::now(),
            started: Instant::now(),
            up: Cell::new(0),
            down: Cell::new(0),
            flags: Cell::new(Flags::NONE),
            upstream: Cell::new(None),
            cluster: Cell::new(None),
            transport: Cell::new(None),
        }
    }

    fn log(self, tcp: &Tcp, connection: &Connection, worker: &Worker) {
        let cluster = self.cluster.take();
        let transport = self.transport.take();
        let line = Line {
            start: self.wall,
            duration: self.started.elapsed(),
            request_duration: None,
            response_duration: None,
            method: None,
            path: None,
            authority: None,
            scheme: "tcp",
            protocol: None,
            status: 0,
            details: "",
            flags: self.flags.get(),
            bytes_received: self.up.get(),
            bytes_sent: self.down.get(),
            upstream: self.upstream.get(),
            cluster: cluster.as_ref().map(|cluster| cluster.name()),
            transport_failure: transport.as_deref(),
            attempts: 1,
            remote: connection.peer,
            local: connection.local,
            server_name: connection.server_name.as_deref(),
            tls: connection.tls.as_deref(),
            route: None,
            connection: connection.id,
            trace_id: None,
            grpc_status: None,
            request: &[],
            response: &[],
        };
        for log in &tcp.logs {
            worker.logs.write(log, &line);
        }
    }
}

async fn forward(
    stream: Stream,
    tcp: &Tcp,
    connection: &Connection,
    cluster: &Arc<Cluster>,
    worker: &Worker,
    story: &Story,
) {
    let counts = &cluster.state.stats.parts.at(worker.index).counts;
    let Some(_place) = Place::take(cluster, worker.index) else {
        story.flags.set(Flags::OVERFLOW);
        return;
    };
    let picked = match connection.original {
        Some(addr) if cluster.is_original_destination() => Some(Arc::new(Endpoint::at(addr, ""))),
        _ => cluster.pick(None, worker.index).await,
    };
    let Some(endpoint) = picked else {
        story.flags.set(Flags::NO_HEALTHY);
        return;
    };
    story.upstream.set(Some(endpoint.addr));
    let addr = connect::app_address(connection, &endpoint, worker);
    let upstream = match connect::dial(cluster, addr, Some(counts)).await {
        Ok(upstream) => upstream,
        Err(error) => {
            outlier::record(cluster, &endpoint, Outcome::Bad);
            story.flags.set(error.flag());
            story.transport.set(error.transport());
            return;
        }
    };
    outlier::record(cluster, &endpoint, Outcome::Good);
    if let Some(original) = connection.original
        && connection.door == Door::Egress
        && connect::own::is_own(connection.peer, original)
    {
        tracing::error!(%original, "{}", connect::own::CIRCLE);
        story.flags.set(Flags::NO_ROUTE);
        return;
    }
    let idle = tcp.proxy.idle_timeout.unwrap_or(DEFAULT_IDLE);
    let passed = Passed {
        up: &story.up,
        down: &story.down,
    };
    let ended = relay(stream, upstream, Some(idle), passed, worker).await;
    if ended == Ended::Idle {
        tcp.stats.parts.at(worker.index).idle_timeout.inc();
        story.flags.set(Flags::IDLE_TIMEOUT);
    }
    counts.cx_tx_bytes.add(story.up.get());
    counts.cx_rx_bytes.add(story.down.get());
}
