// SPDX-License-Identifier: Apache-2.0
//! One request and its answer: what layers learn about it on the way, kept in one place for those who tell of it at
//! the end. A [`Call`] goes down the stack, the [`Exchange`] stays with it; observers hear of the answer and of the
//! end exactly once.

mod event;
mod timer;

use std::cell::Cell;
use std::cell::OnceCell;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use std::time::SystemTime;

use http::HeaderValue;
use http::Method;
use http::Version;
use http::response;
use http::uri::Authority;
use http::uri::PathAndQuery;
use pillion_xds::listener::Direction;

use crate::cluster::Cluster;
use crate::cluster::Endpoint;
use crate::cluster::outlier;
use crate::cluster::outlier::Outcome;
use crate::connect::Place;
use crate::drain::Side;
use crate::error::Flags;
use crate::http::body::Body;
use crate::http::body::Lease;
use crate::http::guard::Edge;
use crate::route::Rule;
use crate::snapshot::Filter;
use crate::snapshot::chain::Chain;
use crate::snapshot::chain::Hello;
use crate::snapshot::chain::Http;
use crate::tls::session::Session;
use crate::worker::Held;
use crate::worker::Worker;

pub use event::Event;
pub use timer::Expired;
pub use timer::Timer;

/// What came in through which door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// A sidecar's inbound side: 15000 or `--listen`.
    Ingress,
    /// A sidecar's outbound side: 15001.
    Egress,
    /// A gateway's listener.
    Gateway,
}

/// A downstream connection.
#[derive(Debug)]
pub struct Connection {
    /// Number in this process.
    pub id: u64,
    /// How it came in.
    pub door: Door,
    /// The listener's resource name.
    pub listener: Box<str>,
    /// Who called.
    pub peer: SocketAddr,
    /// Their address, as `X-Forwarded-For` has it.
    pub forwarded: HeaderValue,
    /// Our end.
    pub local: SocketAddr,
    /// Where it was going, if it was redirected.
    pub original: Option<SocketAddr>,
    /// What filter chains are matched against.
    pub destination: SocketAddr,
    /// How it began.
    pub hello: Hello,
    /// What the handshake said, if TLS was terminated.
    pub tls: Option<Box<Session>>,
    /// Negotiated server name.
    pub server_name: Option<Box<str>>,
    /// The chain it is served by, looked up again when the configuration changes.
    pub served: RefCell<(u64, Rc<Served>)>,
    /// What its guard and its exchanges tell each other.
    pub edge: Arc<Edge>,
    /// Its chain is gone from the configuration.
    pub orphaned: Event,
}

/// A connection manager of one snapshot.
#[derive(Debug)]
pub struct Served {
    /// The snapshot.
    pub snapshot: Held,
    /// The filter chain.
    pub chain: Arc<Chain>,
    /// Whether the configuration no longer has this chain: the connection should end.
    pub stale: bool,
}

impl Served {
    /// The connection manager. Invariant: `Served` is only made of HTTP chains.
    pub fn http(&self) -> &Http {
        match &self.chain.filter {
            Filter::Http(http) => http,
            Filter::Tcp(_) => unreachable!("connections are served as HTTP only by HTTP chains"),
        }
    }
}

/// Whether who was let in under `before` would be asked for the same now. Of a connection that was not, nobody knows
/// whether its peer has the certificate that is wanted since.
fn lets_in_alike(before: &Chain, now: &Chain) -> bool {
    match (&before.tls, &now.tls) {
        (Some(before), Some(now)) => {
            let (before, now) = (before.source(), now.source());
            before.validation == now.validation
                && before.require_client_certificate == now.require_client_certificate
        }
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// An address as `X-Forwarded-For` has it.
pub fn forwarded(peer: SocketAddr) -> HeaderValue {
    HeaderValue::from_str(&peer.ip().to_canonical().to_string())
        .expect("an address is visible ASCII")
}

impl Connection {
    /// Whose drain it heeds.
    pub fn side(&self) -> Side {
        match self.door {
            Door::Ingress | Door::Gateway => Side::Inbound,
            Door::Egress => Side::Outbound,
        }
    }

    /// Seen from the workload.
    pub fn direction(&self) -> Direction {
        match self.door {
            Door::Ingress | Door::Gateway => Direction::Inbound,
            Door::Egress => Direction::Outbound,
        }
    }

    /// The connection manager that the newest configuration has for this connection. Where it has none, the last one
    /// serves on with its own snapshot, and the connection ends with its next answer.
    pub fn served(&self, worker: &Worker) -> Rc<Served> {
        let (generation, snapshot) = worker.snapshot();
        let mut served = self.served.borrow_mut();
        if served.0 != generation {
            let chosen = snapshot
                .listener(&self.listener)
                .and_then(|listener| {
                    listener.choose(self.destination.ip(), self.destination.port(), &self.hello)
                })
                .filter(|chain| {
                    matches!(chain.filter, Filter::Http(_)) && lets_in_alike(&served.1.chain, chain)
                });
            let next = match chosen {
                Some(chain) => Served {
                    chain: Arc::clone(chain),
                    snapshot,
                    stale: false,
                },
                None => {
                    self.orphaned.set();
                    let last = &served.1;
                    Served {
                        chain: Arc::clone(&last.chain),
                        snapshot: Rc::clone(&last.snapshot),
                        stale: true,
                    }
                }
            };
            *served = (generation, Rc::new(next));
        }
        Rc::clone(&served.1)
    }
}

/// A trace as it concerns one exchange.
#[derive(Clone, Copy, Debug)]
pub struct Trace {
    /// Trace.
    pub id: u128,
    /// The span that the next hop's parent is.
    pub span_id: u64,
    /// Whether it is kept.
    pub sampled: bool,
}

/// Told of an exchange by the exchange.
pub trait Observer {
    /// The answer's head is about to leave, whoever made it.
    fn answered(&self, exchange: &Exchange, answer: &response::Parts);
    /// The last byte has left, or will not.
    fn ended(&self, exchange: &Exchange);
}

/// What is asked, as received (after normalisation).
#[derive(Clone, Debug)]
pub struct Asked {
    /// Method.
    pub method: Method,
    /// Version downstream speaks.
    pub version: Version,
    /// Path and query.
    pub path: PathAndQuery,
    /// Host.
    pub authority: Authority,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// What its head costs (`memory`).
    pub weight: usize,
    /// Whether the body is gRPC.
    pub grpc: bool,
    /// Whether the caller takes trailers.
    pub trailers: bool,
    /// The protocol to change to, if the connection manager allows it.
    pub upgrade: Option<HeaderValue>,
}

/// One request and its answer.
pub struct Exchange {
    /// The worker it runs on.
    pub worker: Rc<Worker>,
    /// The connection it came on.
    pub connection: Rc<Connection>,
    /// Configuration it is served by, to its end.
    pub served: Rc<Served>,
    /// When it began, for durations.
    pub started: Instant,
    /// When it began, for people.
    pub wall: SystemTime,
    /// What is asked.
    pub asked: Asked,
    /// The route taken.
    pub rule: OnceCell<Arc<Rule>>,
    /// The cluster chosen; stays for all tries.
    pub cluster: OnceCell<Arc<Cluster>>,
    /// The endpoint of the last try.
    pub upstream: RefCell<Option<Arc<Endpoint>>>,
    /// Tries so far.
    pub attempts: Cell<u32>,
    /// Status answered, 0 before.
    pub status: Cell<u16>,
    /// What went wrong.
    pub flags: Cell<Flags>,
    /// How the answer came about.
    pub details: Cell<&'static str>,
    /// What the transport said.
    pub transport: RefCell<Option<String>>,
    /// Bytes of the request body.
    pub received: Cell<u64>,
    /// Bytes of the response body.
    pub sent: Cell<u64>,
    /// The request's last byte has come.
    pub request_done: Event,
    /// The request's body broke off on its way in.
    pub request_broken: Cell<bool>,
    /// When the response head came.
    pub answered_at: Cell<Option<Instant>>,
    /// gRPC status of the answer's head or trailers.
    pub grpc_status: RefCell<Option<HeaderValue>>,
    /// Deadline and idle limit.
    pub timer: Timer,
    /// Trace.
    pub trace: Cell<Option<Trace>>,
    /// The try under way, until the next one or the end.
    pub attempt: RefCell<Option<Rc<dyn Observer>>>,
    /// What an upgraded exchange holds upstream until it ends.
    pub lease: RefCell<Option<Box<dyn Lease>>>,
    /// The place of its connection, if that is no pool's.
    pub place: RefCell<Option<Place>>,
    observers: RefCell<Vec<Rc<dyn Observer>>>,
}

/// Ends its exchange when dropped: whoever holds it last decides when that is.
pub struct EndGuard(pub Rc<Exchange>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Exchange {
    /// Begins one.
    pub fn begin(
        worker: Rc<Worker>,
        connection: Rc<Connection>,
        served: Rc<Served>,
        asked: Asked,
    ) -> EndGuard {
        worker.shared.load.exchanges.fetch_add(1, Ordering::Relaxed);
        connection.edge.enter();
        worker.ledger.charge(asked.weight);
        let started = Instant::now();
        EndGuard(Rc::new(Exchange {
            worker,
            connection,
            served,
            started,
            wall: SystemTime::now(),
            asked,
            rule: OnceCell::new(),
            cluster: OnceCell::new(),
            upstream: RefCell::new(None),
            attempts: Cell::new(0),
            status: Cell::new(0),
            flags: Cell::new(Flags::NONE),
            details: Cell::new(""),
            transport: RefCell::new(None),
            received: Cell::new(0),
            sent: Cell::new(0),
            request_done: Event::default(),
            request_broken: Cell::new(false),
            answered_at: Cell::new(None),
            grpc_status: RefCell::new(None),
            timer: Timer::new(started),
            trace: Cell::new(None),
            attempt: RefCell::new(None),
            lease: RefCell::new(None),
            place: RefCell::new(None),
            observers: RefCell::new(Vec::with_capacity(3)),
        }))
    }

    /// Adds one who wants to hear.
    pub fn observe(&self, observer: Rc<dyn Observer>) {
        self.observers.borrow_mut().push(observer);
    }

    /// Where the last try went.
    pub fn upstream_address(&self) -> Option<SocketAddr> {
        self.upstream
            .borrow()
            .as_ref()
            .map(|endpoint| endpoint.addr)
    }

    /// The endpoint of the try under way is at fault, although it said nothing.
    pub fn blame(&self) {
        if let (Some(cluster), Some(endpoint)) = (self.cluster.get(), &*self.upstream.borrow()) {
            outlier::record(cluster, endpoint, Outcome::Bad);
        }
    }

    /// Adds flags.
    pub fn flag(&self, flags: Flags) {
        self.flags.set(self.flags.get().with(flags));
    }

    /// A limit was reached while the answer was passing.
    pub fn expire(&self, expired: Expired) {
        let (flag, details) = match expired {
            Expired::Deadline => (Flags::UPSTREAM_TIMEOUT, "response_timeout"),
            Expired::Idle => (Flags::IDLE_TIMEOUT, "stream_idle_timeout"),
        };
        self.flag(flag);
        self.details.set(details);
    }

    /// The answer's head is about to leave.
    pub fn answered(&self, answer: &response::Parts) {
        self.status.set(answer.status.as_u16());
        self.answered_at.set(Some(Instant::now()));
        self.connection.edge.answer();
        for observer in self.observers.borrow().iter() {
            observer.answered(self, answer);
        }
        if let Some(attempt) = &*self.attempt.borrow() {
            attempt.answered(self, answer);
        }
    }

    fn end(&self) {
        // It holds the exchange in turn.
        drop(self.lease.take());
        drop(self.place.take());
        // The try ends before the exchange it belongs to, so that a child span never outlives its parent.
        if let Some(attempt) = self.attempt.take() {
            attempt.ended(self);
        }
        for observer in self.observers.take() {
            observer.ended(self);
        }
        self.connection.edge.leave();
        self.worker.ledger.release(self.asked.weight);
        self.worker
            .shared
            .load
            .exchanges
            .fetch_sub(1, Ordering::Relaxed);
    }
}

/// What goes down the stack.
pub struct Call {
    /// The request; its URI holds path and query only, its headers neither `Host` nor framing.
    pub request: http::Request<Body>,
    /// Its story.
    pub exchange: Rc<Exchange>,
}
