// SPDX-License-Identifier: Apache-2.0
//! The bottom of the stack: one try. Enters the cluster's limits, picks an endpoint, takes a connection, sends, and
//! gives the answer with a body that holds what must be given back at its end.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Instant;

use http::HeaderName;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::StatusCode;
use http::Uri;
use http::Version;
use http::header;
use hyper::body::Incoming;
use pillion_xds::cluster::DnsFamily;
use pillion_xds::cluster::UpstreamProtocol;

use super::body;
use super::body::Body;
use super::body::Lease;
use super::head;
use super::pool::AcquireError;
use super::pool::Pool;
use super::pool::Pools;
use super::pool::Sender;
use super::pool::StreamGuard;
use super::send_error::SendError;
use super::stack::Answering;
use super::upgrade;
use crate::cluster::Cluster;
use crate::cluster::Endpoint;
use crate::cluster::outlier;
use crate::cluster::outlier::Outcome;
use crate::connect::Place;
use crate::connect::app_address;
use crate::error::Fault;
use crate::error::RequestError;
use crate::error::Retry;
use crate::exchange::Call;
use crate::exchange::Connection;
use crate::exchange::Exchange;
use crate::metrics::Metrics;

/// Destinations that requests name themselves, remembered so that their pools are found again.
const DESTINATIONS: usize = 1024;

type Destinations = RefCell<HashMap<(String, SocketAddr), Arc<Endpoint>>>;

/// The service below all layers.
#[derive(Clone)]
pub struct Endpoints {
    pools: Rc<Pools>,
    metrics: Metrics,
    destinations: Rc<Destinations>,
}

impl Endpoints {
    /// Over the pools of one worker.
    pub fn new(pools: Rc<Pools>, metrics: Metrics) -> Endpoints {
        Endpoints {
            pools,
            metrics,
            destinations: Rc::default(),
        }
    }

    /// The endpoint of the next try of `exchange`, for callers that need no HTTP on it as well.
    pub async fn pick(
        &self,
        exchange: &Exchange,
        cluster: &Arc<Cluster>,
    ) -> Result<Arc<Endpoint>, RequestError> {
        if cluster.is_original_destination() {
            return self.destination(exchange, cluster).await;
        }
        let avoid = exchange
            .upstream
            .borrow()
            .as_ref()
            .map(|endpoint| endpoint.id);
        let picked = cluster.pick(avoid, exchange.worker.index).await;
        picked.ok_or_else(|| {
            Box::new(SendError::NoHealthy {
                cluster: cluster.name().to_owned(),
            }) as RequestError
        })
    }

    async fn destination(
        &self,
        exchange: &Exchange,
        cluster: &Arc<Cluster>,
    ) -> Result<Arc<Endpoint>, RequestError> {
        let addr = match exchange.connection.original {
            Some(original) => original,
            None => named_destination(exchange).await?,
        };
        if is_ourselves(addr, &exchange.connection) {
            return Err(Box::new(SendError::Circle { endpoint: addr }));
        }
        let mut known = self.destinations.borrow_mut();
        if known.len() >= DESTINATIONS {
            known.clear();
        }
        let make = || Arc::new(Endpoint::at(addr, exchange.asked.authority.host()));
        Ok(Arc::clone(
            known
                .entry((cluster.name().to_owned(), addr))
                .or_insert_with(make),
        ))
    }
}

/// Whether a destination that the caller named is the socket it called.
fn is_ourselves(addr: SocketAddr, connection: &Connection) -> bool {
    let (ip, local) = (
        addr.ip().to_canonical(),
        connection.local.ip().to_canonical(),
    );
    addr.port() == connection.local.port()
        && (ip == local || ip.is_loopback() || ip.is_unspecified())
}

/// Where an explicit request goes that names its destination: absolute-form target, `CONNECT` target or `Host`.
async fn named_destination(exchange: &Exchange) -> Result<SocketAddr, RequestError> {
    let authority = &exchange.asked.authority;
    let port = authority
        .port_u16()
        .unwrap_or(if exchange.asked.scheme == "https" {
            443
        } else {
            80
        });
    let unresolved = || -> RequestError {
        Box::new(SendError::Unresolved {
            host: authority.host().to_owned(),
        })
    };
    let resolving = exchange
        .worker
        .resolver
        .resolve(authority.host(), DnsFamily::V4Preferred);
    let (found, _) = resolving.await.map_err(|_| unresolved())?;
    found
        .first()
        .map(|ip| SocketAddr::new(*ip, port))
        .ok_or_else(unresolved)
}

impl tower::Service<Call> for Endpoints {
    type Response = Response<Body>;
    type Error = RequestError;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Answering {
        let this = self.clone();
        Box::pin(async move { this.attempt(call).await })
    }
}

impl Endpoints {
    async fn attempt(&self, call: Call) -> Result<Response<Body>, RequestError> {
        let exchange = call.exchange;
        let cluster = Arc::clone(
            exchange
                .cluster
                .get()
                .expect("the route layer chose a cluster before this layer"),
        );
        let stats = &cluster.state.stats;
        let part = stats.parts.at(exchange.worker.index);
        if !stats.requests.try_enter() {
            part.counts.rq_pending_overflow.inc();
            return Err(overflow(&cluster, "requests"));
        }
        let mut flight = Flight::begin(&exchange, &cluster);
        let endpoint = self.pick(&exchange, &cluster).await?;
        exchange.upstream.replace(Some(Arc::clone(&endpoint)));
        flight.at(&endpoint);
        let sent = Instant::now();
        let result = self
            .send(&exchange, &cluster, &endpoint, call.request, flight)
            .await;
        match &result {
            Ok(response) => {
                part.codes.count(response.status());
                part.rq_time.observe(sent.elapsed());
                let good = !response.status().is_server_error();
                outlier::record(
                    &cluster,
                    &endpoint,
                    if good { Outcome::Good } else { Outcome::Bad },
                );
            }
            Err(error) if error.fault() == Fault::Upstream => {
                part.codes.count(error.status());
                if matches!(error.retry(), Retry::Reset | Retry::Refused) {
                    part.counts.rq_rx_reset.inc();
                }
                outlier::record(&cluster, &endpoint, Outcome::Bad);
            }
            Err(_) => {}
        }
        result
    }

    async fn send(
        &self,
        exchange: &Rc<Exchange>,
        cluster: &Arc<Cluster>,
        endpoint: &Arc<Endpoint>,
        request: Request<Body>,
        flight: Flight,
    ) -> Result<Response<Body>, RequestError> {
        let http2 = match cluster.config.protocol {
            UpstreamProtocol::Http1 => false,
            UpstreamProtocol::Http2 => true,
            UpstreamProtocol::UseDownstream => exchange.asked.version == Version::HTTP_2,
        };
        let at = app_address(&exchange.connection, endpoint, &exchange.worker);
        let pool = self.pools.of(cluster, endpoint);
        let sent = Instant::now();
        let mut request = upstream_request(exchange, request, http2)?;
        let asked = &exchange.asked;
        let key = asked
            .upgrade
            .as_ref()
            .and_then(|_| upgrade::key(request.headers()));
        loop {
            let acquired = if http2 {
                self.pools.acquire2(&pool, at).await
            } else {
                self.pools.acquire1(&pool, at).await
            };
            let checkout = acquired.map_err(|error| match error {
                AcquireError::Overflow => overflow(cluster, "connections or pending requests"),
                AcquireError::Connect(error) => Box::new(error),
            })?;
            let reused = checkout.reused;
            let (result, hold) = match checkout.sender {
                Sender::Http1(mut sender) => {
                    let result = sender.try_send_request(request).await;
                    (result, Hold::Http1(sender))
                }
                Sender::Http2(shared) => {
                    let stream = shared.enter();
                    let result = shared.sender.clone().try_send_request(request).await;
                    (result, Hold::Http2(stream))
                }
            };
            match result {
                Ok(response) => {
                    let response = if http2 && asked.upgrade.is_some() {
                        let (mut head, body) = response.into_parts();
                        upgrade::answered_http2(&mut head, key.as_ref());
                        Response::from_parts(head, body)
                    } else {
                        response
                    };
                    let held = Held {
                        hold,
                        pool,
                        exchange: Rc::clone(exchange),
                        metrics: self.metrics.clone(),
                        _flight: flight,
                    };
                    return answer(exchange, at, response, Box::new(held), sent);
                }
                Err(mut error) => match error.take_message() {
                    // Not a byte was sent, on a connection that had gone stale: a new one will do, and nobody notices.
                    Some(unsent) if reused => request = unsent,
                    // Sending failed on what was to be sent: hyper reports our own body's error as the connection's.
                    _ if exchange.request_broken.get() => {
                        return Err(Box::new(SendError::RequestBroken));
                    }
                    _ => return Err(send_error(at, error.into_error())),
                },
            }
        }
    }
}

pub(super) fn overflow(cluster: &Cluster, limit: &'static str) -> RequestError {
    Box::new(SendError::Overflow {
        cluster: cluster.name().to_owned(),
        limit,
    })
}

static SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");

fn upstream_request(
    exchange: &Exchange,
    request: Request<Body>,
    http2: bool,
) -> Result<Request<Body>, RequestError> {
    let (mut parts, body) = request.into_parts();
    let rewritten = exchange.rule.get().and_then(|rule| rule.host_rewrite());
    let authority = rewritten.unwrap_or(&exchange.asked.authority).clone();
    if exchange.asked.version == Version::HTTP_2 {
        head::join_cookies(&mut parts.headers);
    }
    if http2 {
        if let Some(protocol) = &exchange.asked.upgrade {
            upgrade::ask_http2(&mut parts, protocol);
        }
        let mut uri = parts.uri.into_parts();
        uri.scheme = exchange.asked.scheme.parse().ok();
        uri.authority = Some(authority);
        parts.uri = Uri::from_parts(uri).unwrap_or_default();
        parts.version = Version::HTTP_2;
        if exchange.asked.trailers {
            parts
                .headers
                .insert(header::TE, HeaderValue::from_static("trailers"));
        }
    } else {
        parts.version = Version::HTTP_11;
        // Servers that want a length of every method that may have content answer 411 without one (RFC 9110 8.6).
        if http_body::Body::is_end_stream(&body) && !head::is_bodiless(&parts.method) {
            parts
                .headers
                .insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            parts.headers.insert(header::HOST, host);
        }
        if let Some(protocol) = &exchange.asked.upgrade {
            upgrade::ask_http1(&mut parts.headers, protocol);
        }
    }
    Ok(Request::from_parts(parts, body))
}

fn answer(
    exchange: &Exchange,
    endpoint: SocketAddr,
    response: Response<Incoming>,
    lease: Box<Held>,
    sent: Instant,
) -> Result<Response<Body>, RequestError> {
    let (mut parts, incoming) = response.into_parts();
    let broken = |why: &str| -> RequestError {
        Box::new(SendError::Protocol {
            endpoint,
            why: why.to_owned(),
        })
    };
    if parts.status == StatusCode::SWITCHING_PROTOCOLS && exchange.asked.upgrade.is_none() {
        return Err(broken("101 to a request that did not ask for it"));
    }
    head::admit_response(
        parts.status,
        &mut parts.headers,
        &exchange.asked.method,
        parts.version,
    )
    .map_err(|error| broken(&error.to_string()))?;
    let upgraded = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    parts.version = Version::HTTP_11;
    if parts.status != StatusCode::SWITCHING_PROTOCOLS {
        parts
            .headers
            .insert(SERVICE_TIME.clone(), body::service_time(sent));
    }
    exchange.timer.progress();
    exchange.details.set("via_upstream");
    if upgraded {
        // What is held is held by the bytes that follow, to their end. An HTTP/1.1 connection has left its pool by now.
        if let (Hold::Http1(_), Some(cluster)) = (&lease.hold, exchange.cluster.get()) {
            let place = Place::keep(cluster, exchange.worker.index);
            exchange.place.replace(Some(place));
        }
        exchange.lease.replace(Some(lease));
        return Ok(Response::from_parts(parts, Body::Empty));
    }
    Ok(Response::from_parts(
        parts,
        body::Upstream::holding(incoming, lease),
    ))
}

fn send_error(endpoint: SocketAddr, error: hyper::Error) -> RequestError {
    if let Some(reason) = h2_reset(&error) {
        return Box::new(SendError::Reset {
            endpoint,
            refused: reason == h2::Reason::REFUSED_STREAM,
        });
    }
    if error.is_parse() {
        return Box::new(SendError::Protocol {
            endpoint,
            why: error.to_string(),
        });
    }
    Box::new(SendError::Terminated {
        endpoint,
        source: error,
    })
}

fn h2_reset(error: &hyper::Error) -> Option<h2::Reason> {
    let source = std::error::Error::source(error)?;
    let h2 = source.downcast_ref::<h2::Error>()?;
    // A broken socket, or a GOAWAY for cause, is the connection's end and not the stream's.
    if h2.is_go_away() && h2.is_remote() && h2.reason() == Some(h2::Reason::NO_ERROR) {
        // The peer leaves and says that it has not begun this stream (RFC 9113, 6.8): as good as refused.
        return Some(h2::Reason::REFUSED_STREAM);
    }
    (h2.is_reset() && h2.is_remote())
        .then(|| h2.reason())
        .flatten()
}

enum Hold {
    Http1(hyper::client::conn::http1::SendRequest<Body>),
    Http2(#[allow(dead_code, reason = "its drop gives the stream's place free")] StreamGuard),
}

/// What an answer holds until its body has ended.
struct Held {
    hold: Hold,
    pool: Rc<Pool>,
    exchange: Rc<Exchange>,
    metrics: Metrics,
    _flight: Flight,
}

impl Lease for Held {
    fn release(self: Box<Self>) {
        let Held {
            hold,
            pool,
            exchange,
            metrics,
            ..
        } = *self;
        // An answer that came before the request was through leaves the connection in doubt: it is not used again.
        if let Hold::Http1(sender) = hold
            && exchange.request_done.is_set()
        {
            pool.put_back(sender, &metrics);
        }
    }
}

/// A request in flight to a cluster, in every count.
struct Flight {
    cluster: Arc<Cluster>,
    endpoint: Option<Arc<Endpoint>>,
    worker: usize,
}

impl Flight {
    /// Of a request that has entered the limit.
    fn begin(exchange: &Exchange, cluster: &Arc<Cluster>) -> Flight {
        let worker = exchange.worker.index;
        let counts = &cluster.state.stats.parts.at(worker).counts;
        counts.rq_total.inc();
        counts.rq_active.inc();
        Flight {
            cluster: Arc::clone(cluster),
            endpoint: None,
            worker,
        }
    }

    fn at(&mut self, endpoint: &Arc<Endpoint>) {
        endpoint.active.fetch_add(1, Ordering::Relaxed);
        endpoint.total.fetch_add(1, Ordering::Relaxed);
        self.endpoint = Some(Arc::clone(endpoint));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let stats = &self.cluster.state.stats;
        stats.requests.leave();
        let counts = &stats.parts.at(self.worker).counts;
        counts.rq_active.dec();
        counts.rq_completed.inc();
        if let Some(endpoint) = &self.endpoint {
            endpoint.active.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
