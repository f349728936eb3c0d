// SPDX-License-Identifier: Apache-2.0
//! What one worker does: accept, learn where a connection was going, choose its filter chain, terminate TLS, hand it to
//! HTTP or TCP. An accept error never ends the loop.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use pillion_xds::listener as xds;
use pillion_xds::listener::Codec;
use pillion_xds::listener::Direction;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::Command;
use super::SocketKind;
use super::SocketName;
use super::origin;
use super::sniff;
use crate::descriptors::Descriptor;
use crate::drain::Side;
use crate::drain::Stage;
use crate::exchange;
use crate::exchange::Connection;
use crate::exchange::Door;
use crate::exchange::Event;
use crate::exchange::Served;
use crate::http::client::Endpoints;
use crate::http::executor::spawn;
use crate::http::pool::Pools;
use crate::http::server;
use crate::http::stack;
use crate::http::stack::HttpService;
use crate::http::tunnel::Tunnels;
use crate::snapshot::Chain;
use crate::snapshot::Filter;
use crate::snapshot::Listener;
use crate::snapshot::chain::Hello;
use crate::stream::Stream;
use crate::tcp;
use crate::tls::session::Session;
use crate::tls::verify;
use crate::tls::verify::HandshakeFailure;
use crate::worker::Counted;
use crate::worker::Held;
use crate::worker::Shared;
use crate::worker::Worker;

/// A connection that comes before its configuration waits this long for it.
const UNCONFIGURED: Duration = Duration::from_secs(2);
/// After an accept error (`EMFILE`): long enough for descriptors to come free, short enough to go unnoticed.
const BREATH: Duration = Duration::from_millis(50);
/// Between two lines about accept errors of one socket.
const WARNING: Duration = Duration::from_secs(1);
/// When listeners close, a connection that has said nothing may take this long: its first bytes are under way.
const PATIENCE: Duration = Duration::from_millis(500);
/// Connections taken from the queue of a socket that closes: twice what it holds.
const QUEUE: usize = 8192;
const INGRESS_PORT: u16 = 15000;
const EGRESS_PORT: u16 = 15001;

pub(super) fn is_ingress(listener: &xds::Listener) -> bool {
    listener.direction == Direction::Inbound && listener.address.port() == INGRESS_PORT
}

pub(super) fn is_egress(listener: &xds::Listener) -> bool {
    listener.direction == Direction::Outbound && listener.address.port() == EGRESS_PORT
}

// A sidecar's two listeners are bound where the command line says, and not where they say.

/// Runs one worker until the drain cuts it.
pub(super) async fn run(index: usize, shared: Shared, mut commands: mpsc::Receiver<Command>) {
    let pools = Pools::new(index, shared.metrics.clone());
    let endpoints = Endpoints::new(pools, shared.metrics.clone());
    let tunnels = Tunnels::new(endpoints.clone());
    let stack = stack::build(endpoints);
    let worker = Rc::new(Worker::new(index, shared));
    let mut sockets: HashMap<SocketName, CancellationToken> = HashMap::new();
    let cut = worker.cut();
    tokio::pin!(cut);
    loop {
        let command = tokio::select! {
            command = commands.recv() => command,
            () = &mut cut => break,
        };
        match command {
            Some(Command::Listen {
                kind,
                side,
                socket,
                name,
            }) => {
                let stop = CancellationToken::new();
                if let Some(name) = name {
                    sockets.insert(name, stop.clone());
                }
                match TcpListener::from_std(socket) {
                    Ok(listener) => {
                        let door = Doorkeeper {
                            kind,
                            side,
                            last: RefCell::default(),
                            worker: Rc::clone(&worker),
                            stack: stack.clone(),
                            tunnels: tunnels.clone(),
                        };
                        spawn(&worker.shared.metrics, door.accept(listener, stop));
                    }
                    Err(error) => {
                        tracing::error!(%error, "a socket could not be listened on by its worker")
                    }
                }
            }
            Some(Command::Unlisten { name }) => {
                if let Some(stop) = sockets.remove(&name) {
                    stop.cancel();
                }
            }
            // Nobody will say more; what is open goes on until the cut.
            None => {
                cut.await;
                break;
            }
        }
    }
    // Connections see the cut themselves: one turn of the loop lets them end and write their lines.
    tokio::task::yield_now().await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    worker.logs.flush();
}

struct Doorkeeper<S> {
    kind: SocketKind,
    side: Side,
    /// The listener found last, where it can go away: who connected before it went is served by it.
    last: RefCell<Option<(Held, Arc<Listener>)>>,
    worker: Rc<Worker>,
    stack: S,
    tunnels: Tunnels,
}

impl<S: HttpService> Doorkeeper<S> {
    async fn accept(self, listener: TcpListener, stop: CancellationToken) {
        let this = Rc::new(self);
        let _open = Counted::one(&this.worker.shared.load, |load| &load.doors);
        let closing = this.worker.reaches(this.side, Stage::Closing);
        tokio::pin!(closing);
        let mut warned: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
                () = &mut closing => break,
            };
            match accepted {
                Ok((socket, peer)) => this.take(socket, peer),
                Err(error) => {
                    this.worker
                        .shared
                        .metrics
                        .process()
                        .accept_errors
                        .add_shared(1);
                    let quiet = warned.is_some_and(|at| at.elapsed() < WARNING);
                    if !quiet {
                        warned = Some(Instant::now());
                        tracing::warn!(%error, "accept failed; going on");
                    }
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
        this.take_queue(listener);
    }

    /// Whoever has connected and not been accepted would be reset with the socket: the queue is emptied first.
    fn take_queue(self: &Rc<Self>, listener: TcpListener) {
        let Ok(queue) = listener.into_std() else {
            return;
        };
        for _ in 0..QUEUE {
            let accepted = match queue.accept() {
                Ok((socket, peer)) => socket.set_nonblocking(true).map(|()| (socket, peer)),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(_) => return,
            };
            let accepted =
                accepted.and_then(|(socket, peer)| Ok((TcpStream::from_std(socket)?, peer)));
            match accepted {
                Ok((socket, peer)) => self.take(socket, peer),
                Err(error) => tracing::debug!(%error, "a last connection was lost"),
            }
        }
    }

    fn take(self: &Rc<Self>, socket: TcpStream, peer: SocketAddr) {
        let shared = &self.worker.shared;
        shared.load.connected();
        let counted = Counted::one(&shared.load, |load| &load.connections);
        let this = Rc::clone(self);
        spawn(&shared.metrics, async move {
            this.connected(socket, peer).await;
            drop(counted);
        });
    }

    async fn connected(self: Rc<Self>, socket: TcpStream, peer: SocketAddr) {
        let Some(_descriptor) = Descriptor::downstream() else {
            if let Some((_, listener)) = self.find() {
                let counts = listener.stats.parts.at(self.worker.index);
                counts.cx_overflow.inc();
            }
            tracing::debug!(%peer, "closed at once: no file descriptor is left for it");
            return;
        };
        if let Err(error) = self.serve(socket, peer).await {
            tracing::debug!(%peer, %error, "connection closed before it was served");
        }
    }

    async fn serve(&self, socket: TcpStream, peer: SocketAddr) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let local = socket.local_addr()?;
        let original = origin::original(&self.kind, &socket, local);
        if self.kind == SocketKind::Egress && original.is_none() {
            origin::welcome(peer, local, &self.worker.shared.policy)?;
        }
        let Some((snapshot, listener)) = self.listener().await else {
            return Err(io::Error::other(
                "no listener is configured for this socket",
            ));
        };
        let counts = listener.stats.parts.at(self.worker.index);
        counts.cx_total.inc();
        counts.cx_active.inc();
        let destination = self.destination(local, original, &listener);
        let way = Way {
            peer,
            local,
            original,
            destination,
        };
        let result = self
            .by_chain(Stream::Tcp(socket), way, snapshot, &listener)
            .await;
        counts.cx_active.dec();
        counts.cx_destroy.inc();
        result
    }

    async fn by_chain(
        &self,
        stream: Stream,
        way: Way,
        snapshot: Held,
        listener: &Arc<Listener>,
    ) -> io::Result<()> {
        let counts = listener.stats.parts.at(self.worker.index);
        let (ip, port) = (way.destination.ip(), way.destination.port());
        let (hello, stream) = if listener.needs_hello(ip, port) {
            Box::pin(self.unless_closing(sniff::hello(stream))).await?
        } else {
            (Hello::default(), stream)
        };
        let Some(chain) = listener.choose(ip, port, &hello).cloned() else {
            counts.no_filter_chain.inc();
            return Err(io::Error::other("no filter chain matches"));
        };
        let (stream, secured) = Box::pin(self.secure(stream, &chain, listener)).await?;
        let connection = self.connection(way, hello, secured, &snapshot, (&chain, listener));
        match &chain.filter {
            Filter::Tcp(tcp) => {
                let worker = Rc::clone(&self.worker);
                Box::pin(tcp::serve(stream, tcp, connection, snapshot, worker)).await
            }
            Filter::Http(http) => {
                let (http2, stream) = match http.manager.codec {
                    Codec::Http1 => (false, stream),
                    Codec::Http2 => (true, stream),
                    Codec::Auto => Box::pin(self.unless_closing(version(stream))).await?,
                };
                origin::no_circle(way.peer, way.original)?;
                let parts = (self.stack.clone(), self.tunnels.clone());
                server::serve(stream, http2, connection, Rc::clone(&self.worker), parts).await;
            }
        }
        Ok(())
    }

    /// A connection that has not said anything is not waited for long when listeners close; one that has just been made
    /// is about to.
    async fn unless_closing<T>(&self, looking: impl Future<Output = T>) -> io::Result<T> {
        tokio::select! {
            seen = looking => Ok(seen),
            () = self.closed_for(PATIENCE) => Err(io::Error::other("listeners are closing")),
        }
    }

    async fn closed_for(&self, time: Duration) {
        self.worker.reaches(self.side, Stage::Closing).await;
        tokio::time::sleep(time).await;
    }

    async fn secure(
        &self,
        stream: Stream,
        chain: &Chain,
        listener: &Listener,
    ) -> io::Result<(Stream, Option<Secured>)> {
        let Some(tls) = &chain.tls else {
            return Ok((stream, None));
        };
        let counts = listener.stats.parts.at(self.worker.index);
        let config = tls
            .config
            .as_ref()
            .map_err(|error| io::Error::other(error.to_string()))?;
        let limit = self.worker.shared.policy.limits.handshake;
        let acceptor = TlsAcceptor::from(Arc::clone(config));
        let handshake = async { tls.admit(acceptor.accept(stream).await?) };
        let stream = match tokio::time::timeout(limit, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                match verify::classify(&error) {
                    HandshakeFailure::San => counts.ssl_fail_verify_san.inc(),
                    HandshakeFailure::Chain => counts.ssl_fail_verify_error.inc(),
                    HandshakeFailure::NoCertificate => counts.ssl_fail_verify_no_cert.inc(),
                    HandshakeFailure::Connection => counts.ssl_connection_error.inc(),
                }
                return Err(error);
            }
            Err(_) => {
                counts.ssl_connection_error.inc();
                return Err(io::ErrorKind::TimedOut.into());
            }
        };
        counts.ssl_handshake.inc();
        let state = stream.session();
        if state.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
            counts.ssl_session_reused.inc();
        }
        if state.peer_certificates().is_none() {
            counts.ssl_no_certificate.inc();
        }
        let secured = Secured {
            session: Session::of(state),
            server_name: stream.server_name().map(Box::from),
        };
        Ok((Stream::Tls(Box::new(stream)), Some(secured)))
    }

    fn connection(
        &self,
        way: Way,
        hello: Hello,
        secured: Option<Secured>,
        snapshot: &Held,
        (chain, listener): (&Arc<Chain>, &Arc<Listener>),
    ) -> Rc<Connection> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let served = Served {
            snapshot: Rc::clone(snapshot),
            chain: Arc::clone(chain),
            stale: false,
        };
        let (tls, server_name) = match secured {
            Some(secured) => (Some(Box::new(secured.session)), secured.server_name),
            None => (None, None),
        };
        Rc::new(Connection {
            id: NUMBER.fetch_add(1, Ordering::Relaxed),
            door: self.door(listener),
            listener: Box::from(listener.name()),
            peer: way.peer,
            forwarded: exchange::forwarded(way.peer),
            local: way.local,
            original: way.original,
            destination: way.destination,
            tls,
            server_name: server_name.or_else(|| hello.server_name.clone()),
            hello,
            // No generation is as high: the first request looks the chain up.
            served: (u64::MAX, Rc::new(served)).into(),
            edge: Arc::default(),
            orphaned: Event::default(),
        })
    }

    fn door(&self, listener: &Listener) -> Door {
        match &self.kind {
            SocketKind::Ingress | SocketKind::Listen(_) => Door::Ingress,
            SocketKind::Egress => Door::Egress,
            SocketKind::Gateway(_) if listener.source.direction == Direction::Outbound => {
                Door::Egress
            }
            SocketKind::Gateway(_) => Door::Gateway,
        }
    }

    fn destination(
        &self,
        local: SocketAddr,
        original: Option<SocketAddr>,
        listener: &Listener,
    ) -> SocketAddr {
        match self.kind {
            SocketKind::Ingress => original.unwrap_or(local),
            // Wherever the command line has put it, an explicit call is one to the listener's own port.
            SocketKind::Egress => original
                .unwrap_or_else(|| SocketAddr::new(local.ip(), listener.source.address.port())),
            SocketKind::Listen(port) => SocketAddr::new(local.ip(), port),
            SocketKind::Gateway(_) => SocketAddr::new(local.ip(), listener.source.address.port()),
        }
    }

    /// The listener of this socket in the newest configuration, waited for a little while there is none.
    async fn listener(&self) -> Option<(Held, Arc<Listener>)> {
        if let Some(found) = self.find() {
            return Some(found);
        }
        let mut changes = self.worker.shared.live.subscribe();
        let waiting = async {
            loop {
                if let Some(found) = self.find() {
                    return Some(found);
                }
                changes.changed().await.ok()?;
            }
        };
        tokio::time::timeout(UNCONFIGURED, waiting)
            .await
            .ok()
            .flatten()
    }

    fn find(&self) -> Option<(Held, Arc<Listener>)> {
        let (_, snapshot) = self.worker.snapshot();
        let listener = match &self.kind {
            SocketKind::Ingress | SocketKind::Listen(_) => snapshot
                .listeners()
                .find(|listener| is_ingress(&listener.source)),
            SocketKind::Egress => snapshot
                .listeners()
                .find(|listener| is_egress(&listener.source)),
            SocketKind::Gateway(name) => snapshot.listener(name),
        };
        let Some(listener) = listener.filter(|listener| listener.is_warm()).cloned() else {
            return self.last.borrow().clone();
        };
        let found = (snapshot, listener);
        if matches!(self.kind, SocketKind::Gateway(_)) {
            self.last.replace(Some(found.clone()));
        }
        Some(found)
    }
}

/// HTTP/2 by ALPN or preface.
async fn version(stream: Stream) -> (bool, Stream) {
    if let Stream::Tls(tls) = &stream {
        match tls.session().alpn_protocol() {
            Some(b"h2") => return (true, stream),
            Some(b"http/1.1") => return (false, stream),
            _ => {}
        }
    }
    sniff::is_http2(stream).await
}

/// From where to where.
#[derive(Clone, Copy)]
struct Way {
    peer: SocketAddr,
    local: SocketAddr,
    original: Option<SocketAddr>,
    destination: SocketAddr,
}

struct Secured {
    session: Session,
    server_name: Option<Box<str>>,
}
