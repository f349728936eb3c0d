// SPDX-License-Identifier: Apache-2.0
//! One downstream connection: hyper in, canonical requests down the stack, answers back. The one place where an error
//! becomes a response.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::Version;
use http::request;
use http::uri::Authority;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;

use super::body::Body;
use super::body::Received;
use super::executor::StreamExecutor;
use super::frames::Frames;
use super::guard::Cut;
use super::guard::Guard;
use super::head;
use super::head::HeadError;
use super::head::Target;
use super::pool;
use super::refused::PanickedError;
use super::refused::RefusedError;
use super::reply::close;
use super::reply::conclude;
use super::reply::finish;
use super::reply::reply;
use super::rest;
use super::stack::HttpService;
use super::tunnel;
use super::tunnel::Tunnels;
use super::upgrade;
use super::watch::Watch;
use crate::drain::Side;
use crate::drain::Stage;
use crate::error::Failure;
use crate::error::RequestError;
use crate::exchange::Asked;
use crate::exchange::Call;
use crate::exchange::Connection;
use crate::exchange::Door;
use crate::exchange::EndGuard;
use crate::exchange::Exchange;
use crate::layer;
use crate::memory;
use crate::memory::Level;
use crate::route::condition::is_grpc;
use crate::route::path;
use crate::stream::Stream;
use crate::worker::Worker;

/// Streams a caller may have open on one connection, Envoy's figure: long-lived gRPC streams of one channel share a
/// connection. Together they may have a connection window in and a send buffer each out.
const STREAMS: u32 = 1024;
/// One turn of the reactor, with room for a busy worker.
const LOOK: Duration = Duration::from_millis(10);
/// Streams that the caller may make us reset by breaking the protocol (CVE-2025-8671), in a connection's life.
const MISTAKES: usize = 256;
/// What hyper may read of an HTTP/1.1 request in one go.
pub(super) const READ_BUFFER: usize = 128 * 1024;
/// Bytes of a header list, both versions.
pub(super) const HEADERS: usize = 64 * 1024;

/// Serves one connection as HTTP until it ends, or the drain ends it.
pub async fn serve<S: HttpService>(
    stream: Stream,
    http2: bool,
    connection: Rc<Connection>,
    worker: Rc<Worker>,
    parts: (S, Tunnels),
) {
    let served = connection.served(&worker);
    let counts = &served.http().stats.parts.at(worker.index).counts;
    counts.cx_total.inc();
    counts.cx_active.inc();
    if connection.tls.is_some() {
        counts.cx_ssl_total.inc();
    }
    let (stack, tunnels) = parts;
    let (stream_window, connection_window) = windows(&worker);
    let front = Front {
        stack: RefCell::new(stack),
        tunnels,
        connection: Rc::clone(&connection),
        worker: Rc::clone(&worker),
    };
    let ended = if http2 {
        counts.cx_http2_total.inc();
        let mut serving = Box::pin(
            http2::Builder::new(StreamExecutor::new(worker.shared.metrics.clone()))
                .timer(TokioTimer::new())
                .initial_stream_window_size(stream_window)
                .initial_connection_window_size(connection_window)
                .max_send_buf_size(pool::SEND_BUFFER)
                .max_concurrent_streams(STREAMS)
                .max_local_error_reset_streams(MISTAKES)
                .max_header_list_size(HEADERS as u32)
                .enable_connect_protocol()
                .serve_connection(
                    TokioIo::new(Frames::new(stream, Arc::clone(&connection.edge))),
                    front,
                ),
        );
        // A caller that is here already is told to go (GOAWAY); one that comes later is served until listeners close.
        let side = connection.side();
        let until = if worker.stage(side) == Stage::Serving {
            Stage::Announcing
        } else {
            Stage::Closing
        };
        let leave = async {
            tokio::select! {
                () = worker.reaches(side, until) => {}
                () = connection.orphaned.wait() => {}
            }
        };
        let shut = http2::Connection::graceful_shutdown;
        until_drained(serving.as_mut(), shut, leave, &worker).await
    } else {
        counts.cx_http1_total.inc();
        let limits = worker.shared.policy.limits;
        let guard = Box::new(Guard::new(stream, Arc::clone(&connection.edge), limits));
        rest::serve(guard, front, &connection, &worker).await
    };
    counts.cx_active.dec();
    match connection.edge.cut() {
        Some(Cut::Head) => counts.rq_header_timeout.inc(),
        Some(Cut::Idle) => counts.cx_idle_timeout.inc(),
        Some(Cut::Body) | None => {}
    }
    if let Err(error) = ended {
        if error.is_parse() || refused_by_us(&error) {
            counts.cx_protocol_error.inc();
        }
        tracing::debug!(%error, "downstream connection ended");
    }
}

/// Whether an HTTP/2 connection ended because we had enough of what its caller sent: a flood, or broken frames.
fn refused_by_us(error: &hyper::Error) -> bool {
    let Some(source) = std::error::Error::source(error) else {
        return false;
    };
    if let Some(io) = source.downcast_ref::<std::io::Error>() {
        return io.kind() == std::io::ErrorKind::InvalidData;
    }
    let h2 = source.downcast_ref::<h2::Error>();
    h2.is_some_and(|h2| h2.is_go_away() && h2.is_library())
}

/// Until a kept connection is closed for the drain. What a caller has sent by then is in the kernel, and the reactor
/// needs a turn to see it: closing over it would reset the connection under a request.
pub(super) async fn last_look(worker: &Worker, side: Side) {
    worker.reaches(side, Stage::Closing).await;
    tokio::time::sleep(LOOK).await;
}

/// Windows of a new HTTP/2 connection: small while memory is short, since nothing makes them smaller later.
fn windows(worker: &Worker) -> (u32, u32) {
    match worker.ledger.level() {
        Level::Calm => (pool::STREAM_WINDOW, pool::CONNECTION_WINDOW),
        Level::Tight | Level::Scarce | Level::Full => (16 * 1024, 1024 * 1024),
    }
}

/// Drives a connection; asks it to end when it is to `leave`, and gives it up at the cut.
pub(super) async fn until_drained<C>(
    mut connection: Pin<&mut C>,
    shut: fn(Pin<&mut C>),
    leave: impl Future<Output = ()>,
    worker: &Worker,
) -> Result<(), hyper::Error>
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    let mut watch = Watch::default();
    // An HTTP/1.1 connection whose answer times out unread ends with it; HTTP/2 streams are watched one by one.
    tokio::select! {
        biased;
        ended = poll_fn(|cx| watch.poll(connection.as_mut(), cx)) => return ended.unwrap_or(Ok(())),
        () = leave => shut(connection.as_mut()),
    }
    tokio::select! {
        ended = poll_fn(|cx| watch.poll(connection.as_mut(), cx)) => ended.unwrap_or(Ok(())),
        () = worker.cut() => Ok(()),
    }
}

/// Takes the requests of one connection.
pub(super) struct Front<S> {
    stack: RefCell<S>,
    tunnels: Tunnels,
    connection: Rc<Connection>,
    worker: Rc<Worker>,
}

type Served = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>>>>;

impl<S: HttpService> hyper::service::Service<Request<Incoming>> for Front<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Served;

    fn call(&self, request: Request<Incoming>) -> Served {
        let (mut parts, incoming) = request.into_parts();
        let admitted = self.admit(&mut parts);
        let served = self.connection.served(&self.worker);
        let (asked, refused) = match admitted {
            Ok(asked) => (asked, None),
            Err(error) => (self.unadmitted(&parts), Some(error)),
        };
        let end = Exchange::begin(
            Rc::clone(&self.worker),
            Rc::clone(&self.connection),
            served,
            asked,
        );
        let exchange = Rc::clone(&end.0);
        if let Some(error) = refused {
            // Nothing of the request is trusted: it is answered, its body is not read, and its connection closes.
            exchange.request_done.set();
            layer::access_log::begin(&exchange, &parts.headers);
            layer::metrics::begin(&exchange, Rc::new(layer::metrics::Counter));
            let mut response = reply(&exchange, &*error);
            close(&exchange, &mut response);
            return Box::pin(std::future::ready(Ok(finish(end, response))));
        }
        if exchange.asked.method == Method::CONNECT || exchange.asked.upgrade.is_some() {
            return self.change_protocols(parts, incoming, end);
        }
        let body = Received::watch(incoming, &exchange);
        let call = Call {
            request: Request::from_parts(parts, body),
            exchange,
        };
        let answering = self.ask(call);
        Box::pin(async move {
            let response = answering
                .await
                .unwrap_or_else(|error| reply(&end.0, &*error));
            Ok(finish(end, response))
        })
    }
}

impl<S: HttpService> Front<S> {
    /// Makes the head canonical and says what is asked.
    fn admit(&self, parts: &mut request::Parts) -> Result<Asked, Box<dyn Failure>> {
        let served = self.connection.served(&self.worker);
        let manager = &served.http().manager;
        let grpc = is_grpc(&parts.headers);
        if parts.version != Version::HTTP_2 {
            self.connection
                .edge
                .admit()
                .map_err(|error| -> Box<dyn Failure> { Box::new(error) })?;
        }
        if self.worker.ledger.level() == Level::Full {
            let counts = &served.http().stats.parts.at(self.worker.index).counts;
            counts.rq_overload_close.inc();
            return Err(Box::new(RefusedError::Overloaded));
        }
        let weight = memory::head(&parts.headers);
        let refused = |error: HeadError| -> Box<dyn Failure> { Box::new(error) };
        let extended = upgrade::unfold(parts);
        let mut target: Target = head::admit(parts).map_err(refused)?;
        target.upgrade = target.upgrade.or(extended);
        if parts.method == Method::CONNECT && self.connection.door != Door::Egress {
            return Err(Box::new(RefusedError::Connect));
        }
        let form = path::Form {
            dots: manager.normalize_path,
            slashes: manager.merge_slashes,
        };
        let normal = path::normalise(parts.uri.path(), form);
        if let Some(normal) = normal.map_err(|_| refused(HeadError::Path))? {
            let whole = match parts.uri.query() {
                Some(query) => format!("{normal}?{query}"),
                None => normal,
            };
            parts.uri = whole.parse().map_err(|_| refused(HeadError::Path))?;
        }
        if let Some(upgrade) = &target.upgrade {
            let passed = |known: &String| upgrade.as_bytes().eq_ignore_ascii_case(known.as_bytes());
            if !manager.upgrades.iter().any(passed) {
                return Err(Box::new(RefusedError::Upgrade));
            }
        }
        // What the target claims is not what the connection is: upstream trusts `X-Forwarded-Proto`.
        let https = self.connection.tls.is_some();
        Ok(Asked {
            method: parts.method.clone(),
            version: parts.version,
            path: parts
                .uri
                .path_and_query()
                .cloned()
                .unwrap_or(PathAndQuery::from_static("/")),
            authority: portless(target.authority, manager.strip_port),
            scheme: if https { "https" } else { "http" },
            weight,
            grpc,
            trailers: target.trailers,
            upgrade: target.upgrade,
        })
    }

    /// Sends a call down the stack. A panic there is this request's failure: what it held goes with it, and what
    /// outlives it is Cells and counters.
    fn ask(
        &self,
        call: Call,
    ) -> impl Future<Output = Result<Response<Body>, RequestError>> + use<S> {
        let metrics = self.worker.shared.metrics.clone();
        #[cfg(debug_assertions)]
        let injected = call.request.headers().contains_key("x-pillion-debug-panic");
        let called = catch_unwind(AssertUnwindSafe(|| self.stack.borrow_mut().call(call)));
        async move {
            let outcome = match called {
                Ok(answering) => {
                    let answering = async {
                        #[cfg(debug_assertions)]
                        assert!(!injected, "injected by x-pillion-debug-panic");
                        answering.await
                    };
                    AssertUnwindSafe(answering).catch_unwind().await
                }
                Err(panic) => Err(panic),
            };
            outcome.unwrap_or_else(|_| {
                metrics.process().panics.add_shared(1);
                tracing::error!("a panic ended a request; please report it with the lines above");
                Err(Box::new(PanickedError) as RequestError)
            })
        }
    }

    /// What can be said of a request that was refused, for the log.
    fn unadmitted(&self, parts: &request::Parts) -> Asked {
        Asked {
            method: parts.method.clone(),
            version: parts.version,
            path: parts
                .uri
                .path_and_query()
                .cloned()
                .unwrap_or(PathAndQuery::from_static("/")),
            authority: parts
                .uri
                .authority()
                .cloned()
                .unwrap_or(Authority::from_static("-")),
            scheme: if self.connection.tls.is_some() {
                "https"
            } else {
                "http"
            },
            weight: 0,
            grpc: is_grpc(&parts.headers),
            trailers: false,
            upgrade: None,
        }
    }

    /// `CONNECT` and upgrades: the answer decides whether bytes flow on afterwards.
    fn change_protocols(&self, parts: request::Parts, incoming: Incoming, end: EndGuard) -> Served {
        let exchange = Rc::clone(&end.0);
        let mut request = Request::from_parts(parts, incoming);
        let downstream = hyper::upgrade::on(&mut request);
        let tunnels = self.tunnels.clone();
        if exchange.asked.method == Method::CONNECT {
            exchange.request_done.set();
            let (parts, _) = request.into_parts();
            return Box::pin(async move {
                layer::access_log::begin(&exchange, &parts.headers);
                layer::metrics::begin(&exchange, Rc::new(layer::metrics::Counter));
                let response = match tunnels.open(&exchange, &parts.headers).await {
                    Ok(upstream) => {
                        let mut response = Response::new(Body::Empty);
                        conclude(&exchange, &mut response);
                        exchange.connection.edge.tunnel();
                        tunnel::connect(end, downstream, upstream);
                        response
                    }
                    Err(error) => finish(end, reply(&exchange, &*error)),
                };
                Ok(response)
            });
        }
        let (parts, incoming) = request.into_parts();
        let keyed = upgrade::Keyed::of(&parts.headers);
        let body = Received::watch(incoming, &exchange);
        let call = Call {
            request: Request::from_parts(parts, body),
            exchange,
        };
        let answering = self.ask(call);
        Box::pin(async move {
            let mut response = answering
                .await
                .unwrap_or_else(|error| reply(&end.0, &*error));
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                if end.0.asked.version == Version::HTTP_2 && response.status().is_success() {
                    response = reply(&end.0, &RefusedError::Unagreed);
                }
                return Ok(finish(end, response));
            }
            let upstream = hyper::upgrade::on(&mut response);
            let exchange = Rc::clone(&end.0);
            let (mut head, _) = response.into_parts();
            if let Some(protocol) = &exchange.asked.upgrade {
                upgrade::agree(&mut head, exchange.asked.version, protocol, keyed);
            }
            let mut response = Response::from_parts(head, Body::Empty);
            conclude(&exchange, &mut response);
            exchange.connection.edge.tunnel();
            tunnel::upgrade(end, downstream, upstream);
            Ok(response)
        })
    }
}

/// A gateway's callers name the port they came by; for the mesh behind it that port means nothing.
fn portless(authority: Authority, strip: bool) -> Authority {
    match authority.port() {
        Some(_) if strip => authority.host().parse().unwrap_or(authority),
        _ => authority,
    }
}
