// SPDX-License-Identifier: Apache-2.0
//! Upstream connections of one worker, by endpoint: idle HTTP/1.1 connections, shared HTTP/2 connections. Connections
//! are driven by local tasks; limits are the cluster's and hold over all workers. Called by `http::client` only.

use std::cell::Cell;
use std::cell::RefCell;
use std::future::Future;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

use foldhash::HashMap;
use hyper::client::conn::http1;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::sync::Notify;

mod guards;
mod sweep;

use guards::ConnectionGuard;
use guards::OpeningGuard;
use guards::PendingGuard;
use guards::Waiting;

use super::body::Body;
use super::executor::LocalExecutor;
use super::executor::spawn;
use super::paced::Paced;
use crate::cluster::Cluster;
use crate::cluster::Endpoint;
use crate::cluster::State;
use crate::connect;
use crate::connect::ConnectError;
use crate::metrics::Metrics;
use crate::stream::Stream;

/// Streams on one HTTP/2 connection before another is opened, where the peer allows as many.
const STREAMS: u32 = 100;
/// Streams on a connection whose peer has not yet said how many it allows.
const UNSETTLED: usize = 1;
/// A peer's SETTINGS follow its preface; who has not sent them by then is taken to allow [`UNSETTLED`].
const SETTLING: Duration = Duration::from_millis(100);
/// Small stream windows under a large connection window: a slow reader holds little, and h2's budget for small frames
/// (half the connection window) is never spent by streams that stand still.
pub const STREAM_WINDOW: u32 = 64 * 1024;
/// See [`STREAM_WINDOW`].
pub const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Upstream, where callers who stand still share a connection with others: h2 ends a connection when small frames that
/// nobody takes cost more than half of this, at 256 bytes a frame. Twenty streams of five-byte messages may stand still.
const UPSTREAM_WINDOW: u32 = 128 * 1024 * 1024;
/// What hyper reads of an HTTP/1.1 answer in one go at most: an answer that stands still holds no more.
const READ_BUFFER: usize = 64 * 1024;
/// Bytes a stream may have waiting to be written.
pub const SEND_BUFFER: usize = 64 * 1024;

/// A connection that could not be had.
#[derive(Debug)]
pub enum AcquireError {
    /// A limit of the cluster.
    Overflow,
    /// No connection came about.
    Connect(ConnectError),
}

/// A connection for one request.
pub enum Sender {
    /// For this request alone.
    Http1(http1::SendRequest<Body>),
    /// Shared with others.
    Http2(Rc<Shared2>),
}

/// A sender, and whether its connection served before: then the peer may have closed it meanwhile.
pub struct Checkout {
    /// The sender.
    pub sender: Sender,
    /// Not new.
    pub reused: bool,
}

/// An HTTP/2 connection.
pub struct Shared2 {
    /// Clones send on it.
    pub sender: http2::SendRequest<Body>,
    active: Cell<u32>,
    /// Driven by a task of its own until it ends; kept here because it alone knows how many streams the peer allows.
    connection: Rc<RefCell<Option<Connection2>>>,
}

type Connection2 = http2::Connection<TokioIo<Stream>, Body, LocalExecutor>;

impl Shared2 {
    /// Streams that the peer allows now. One that allows none still gets one: it waits there, and no connection more is
    /// opened for it.
    fn room(&self) -> u32 {
        u32::try_from(self.allowed()).map_or(STREAMS, |allowed| allowed.clamp(1, STREAMS))
    }

    fn allowed(&self) -> usize {
        let connection = self.connection.borrow();
        connection
            .as_ref()
            .map_or(UNSETTLED, Connection2::current_max_send_streams)
    }

    /// Waits until the peer has said how many streams it allows. hyper tells of it only when asked.
    async fn settled(&self) {
        let begun = Instant::now();
        while self.allowed() == UNSETTLED && !self.sender.is_closed() && begun.elapsed() < SETTLING
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// One stream more, until the guard goes.
    pub fn enter(self: &Rc<Shared2>) -> StreamGuard {
        self.active.set(self.active.get() + 1);
        StreamGuard(Rc::clone(self))
    }
}

/// Drives a connection to its end, which comes when all its senders are gone.
async fn drive(connection: Rc<RefCell<Option<Connection2>>>) -> Result<(), hyper::Error> {
    let ended = poll_fn(|cx| match &mut *connection.borrow_mut() {
        Some(connection) => Pin::new(connection).poll(cx),
        None => Poll::Ready(Ok(())),
    })
    .await;
    connection.take();
    ended
}

/// A stream under way.
pub struct StreamGuard(Rc<Shared2>);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
    }
}

struct Idle {
    sender: http1::SendRequest<Body>,
    since: Instant,
}

/// Connections to one endpoint.
pub struct Pool {
    cluster: RefCell<Arc<Cluster>>,
    endpoint: std::sync::Weak<Endpoint>,
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Vec<Rc<Shared2>>>,
    opening: RefCell<Option<Rc<Opening>>>,
    waiting: Cell<u32>,
    returned: Notify,
    /// Used since the last sweep.
    used: Cell<bool>,
}

/// An HTTP/2 connection coming about, which others wait for.
#[derive(Default)]
struct Opening {
    done: crate::exchange::Event,
    failed: RefCell<Option<ConnectError>>,
}

/// All pools of one worker.
pub struct Pools {
    worker: usize,
    metrics: Metrics,
    pools: RefCell<HashMap<u64, Rc<Pool>>>,
    sweeping: Cell<bool>,
}

impl Pools {
    /// None yet.
    pub fn new(worker: usize, metrics: Metrics) -> Rc<Pools> {
        let pools = RefCell::new(HashMap::default());
        Rc::new(Pools {
            worker,
            metrics,
            pools,
            sweeping: Cell::new(false),
        })
    }

    /// The pool of an endpoint.
    pub fn of(self: &Rc<Pools>, cluster: &Arc<Cluster>, endpoint: &Arc<Endpoint>) -> Rc<Pool> {
        if let Some(pool) = self.pools.borrow().get(&endpoint.id) {
            // A newer cluster value may carry newer TLS: new connections must use it.
            if !Arc::ptr_eq(&pool.cluster.borrow(), cluster) {
                pool.cluster.replace(Arc::clone(cluster));
            }
            pool.used.set(true);
            return Rc::clone(pool);
        }
        let pool = Rc::new(Pool {
            cluster: RefCell::new(Arc::clone(cluster)),
            endpoint: Arc::downgrade(endpoint),
            idle: RefCell::default(),
            shared: RefCell::default(),
            opening: RefCell::new(None),
            waiting: Cell::new(0),
            returned: Notify::new(),
            used: Cell::new(true),
        });
        self.pools
            .borrow_mut()
            .insert(endpoint.id, Rc::clone(&pool));
        if !self.sweeping.replace(true) {
            spawn(&self.metrics, sweep::keep_swept(Rc::downgrade(self)));
        }
        pool
    }

    /// A connection for one HTTP/1.1 request.
    pub async fn acquire1(
        &self,
        pool: &Rc<Pool>,
        addr: std::net::SocketAddr,
    ) -> Result<Checkout, AcquireError> {
        if let Some(sender) = pool.pop() {
            return Ok(Checkout {
                sender: Sender::Http1(sender),
                reused: true,
            });
        }
        let _pending = self.pending(pool)?;
        let state = pool.state();
        loop {
            let freed = state.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if state.stats.connections.try_enter() {
                let guard = ConnectionGuard::new(pool, self.worker)?;
                let sender = self
                    .open1(pool, addr, guard)
                    .await
                    .map_err(AcquireError::Connect)?;
                return Ok(Checkout {
                    sender: Sender::Http1(sender),
                    reused: false,
                });
            }
            state.stats.parts.at(self.worker).counts.cx_overflow.inc();
            let _waiting = Waiting::new(pool);
            tokio::select! {
                () = freed => {}
                () = pool.returned.notified() => {}
            }
            if let Some(sender) = pool.pop() {
                return Ok(Checkout {
                    sender: Sender::Http1(sender),
                    reused: true,
                });
            }
        }
    }

    /// A shared HTTP/2 connection with room for a stream.
    pub async fn acquire2(
        &self,
        pool: &Rc<Pool>,
        addr: std::net::SocketAddr,
    ) -> Result<Checkout, AcquireError> {
        if let Some(shared) = pool.with_room() {
            return Ok(Checkout {
                sender: Sender::Http2(shared),
                reused: true,
            });
        }
        let _pending = self.pending(pool)?;
        loop {
            let opening = pool.opening.borrow().clone();
            let Some(opening) = opening else {
                return self.open2(pool, addr).await;
            };
            opening.done.wait().await;
            if let Some(error) = opening.failed.borrow().clone() {
                return Err(AcquireError::Connect(error));
            }
            if let Some(shared) = pool.with_room() {
                return Ok(Checkout {
                    sender: Sender::Http2(shared),
                    reused: false,
                });
            }
        }
    }

    fn pending(&self, pool: &Rc<Pool>) -> Result<PendingGuard, AcquireError> {
        let state = pool.state();
        let stats = &state.stats;
        let counts = &stats.parts.at(self.worker).counts;
        if !stats.pending.try_enter() {
            counts.rq_pending_overflow.inc();
            return Err(AcquireError::Overflow);
        }
        counts.rq_pending_total.inc();
        Ok(PendingGuard(pool.cluster()))
    }

    async fn open1(
        &self,
        pool: &Rc<Pool>,
        addr: std::net::SocketAddr,
        guard: ConnectionGuard,
    ) -> Result<http1::SendRequest<Body>, ConnectError> {
        let stream = connect::dial(&pool.cluster(), addr, Some(guard.counts())).await?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(READ_BUFFER)
            .handshake::<TokioIo<Paced>, Body>(TokioIo::new(Paced::new(stream)))
            .await
            .map_err(|source| ConnectError::Http {
                endpoint: addr,
                source: Arc::new(source),
            })?;
        guard.counts().cx_http1_total.inc();
        spawn(&self.metrics, async move {
            // Its error reaches the request through the sender; here only the count matters.
            let ended = connection.with_upgrades().await;
            tracing::trace!(?ended, "upstream HTTP/1.1 connection ended");
            drop(guard);
        });
        Ok(sender)
    }

    async fn open2(
        &self,
        pool: &Rc<Pool>,
        addr: std::net::SocketAddr,
    ) -> Result<Checkout, AcquireError> {
        let opening = OpeningGuard::new(pool);
        let state = pool.state();
        if !state.stats.connections.try_enter() {
            state.stats.parts.at(self.worker).counts.cx_overflow.inc();
            // What there is takes more streams than its peer has allowed so far: they wait their turn there.
            return match pool.least_busy() {
                Some(shared) => Ok(Checkout {
                    sender: Sender::Http2(shared),
                    reused: true,
                }),
                None => Err(AcquireError::Overflow),
            };
        }
        let guard = ConnectionGuard::new(pool, self.worker)?;
        match self.handshake2(pool, addr, guard).await {
            Ok(shared) => {
                pool.shared.borrow_mut().push(Rc::clone(&shared));
                // This request goes at once; those behind it choose a connection when they know what this one takes.
                let settling = Rc::clone(&shared);
                spawn(&self.metrics, async move {
                    settling.settled().await;
                    drop(opening);
                });
                Ok(Checkout {
                    sender: Sender::Http2(shared),
                    reused: false,
                })
            }
            Err(error) => {
                opening.fail(error.clone());
                Err(AcquireError::Connect(error))
            }
        }
    }

    async fn handshake2(
        &self,
        pool: &Rc<Pool>,
        addr: std::net::SocketAddr,
        guard: ConnectionGuard,
    ) -> Result<Rc<Shared2>, ConnectError> {
        let stream = connect::dial(&pool.cluster(), addr, Some(guard.counts())).await?;
        let (sender, connection) = http2::Builder::new(LocalExecutor::new(self.metrics.clone()))
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(UPSTREAM_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(64 * 1024)
            .initial_max_send_streams(UNSETTLED)
            .handshake::<TokioIo<Stream>, Body>(TokioIo::new(stream))
            .await
            .map_err(|source| ConnectError::Http {
                endpoint: addr,
                source: Arc::new(source),
            })?;
        guard.counts().cx_http2_total.inc();
        let shared = Rc::new(Shared2 {
            sender,
            active: Cell::new(0),
            connection: Rc::new(RefCell::new(Some(connection))),
        });
        let driven = drive(Rc::clone(&shared.connection));
        spawn(&self.metrics, async move {
            let ended = driven.await;
            tracing::trace!(?ended, "upstream HTTP/2 connection ended");
            drop(guard);
        });
        Ok(shared)
    }
}

impl Pool {
    fn cluster(&self) -> Arc<Cluster> {
        Arc::clone(&self.cluster.borrow())
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.cluster.borrow().state)
    }

    fn pop(&self) -> Option<http1::SendRequest<Body>> {
        let limit = self.cluster.borrow().idle_timeout();
        let mut idle = self.idle.borrow_mut();
        while let Some(last) = idle.pop() {
            if last.sender.is_ready() && last.since.elapsed() < limit {
                return Some(last.sender);
            }
        }
        None
    }

    fn with_room(&self) -> Option<Rc<Shared2>> {
        let mut shared = self.shared.borrow_mut();
        shared.retain(|connection| !connection.sender.is_closed());
        shared
            .iter()
            .filter(|connection| connection.active.get() < connection.room())
            .min_by_key(|connection| connection.active.get())
            .cloned()
    }

    fn least_busy(&self) -> Option<Rc<Shared2>> {
        let shared = self.shared.borrow();
        shared
            .iter()
            .min_by_key(|connection| connection.active.get())
            .cloned()
    }

    /// Takes a connection back after a clean exchange.
    pub fn put_back(self: &Rc<Pool>, mut sender: http1::SendRequest<Body>, metrics: &Metrics) {
        if sender.is_ready() {
            self.keep(sender);
        } else if !sender.is_closed() {
            // hyper has seen the end of the response but not yet turned round: a moment, seldom more.
            let pool = Rc::clone(self);
            spawn(metrics, async move {
                if sender.ready().await.is_ok() {
                    pool.keep(sender);
                }
            });
        }
    }

    fn keep(&self, sender: http1::SendRequest<Body>) {
        let state = self.state();
        // At the limit a connection that nobody here waits for is in another worker's way.
        if self.waiting.get() == 0
            && state.stats.connections.is_open()
            && state.stats.pending.now() > 0
        {
            return;
        }
        self.idle.borrow_mut().push(Idle {
            sender,
            since: Instant::now(),
        });
        self.returned.notify_one();
    }
}
