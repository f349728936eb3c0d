// SPDX-License-Identifier: Apache-2.0
//! Bodies of the data path: one concrete type, so that frames pass without virtual calls and nothing is buffered. The
//! outer kinds watch: `Received` a request body (end, bytes, progress), `Tracked` a response body (end of the exchange),
//! `Upstream` an upstream body (the connection goes back to its pool), `Replay` one that a retry may need again.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Instant;

use bytes::Bytes;
use http::HeaderValue;
use http::Method;
use http_body::Frame;
use http_body::SizeHint;
use hyper::body::Incoming;

use super::replay::ReplayReader;
use super::watch;
use crate::error::Flags;
use crate::exchange::EndGuard;
use crate::exchange::Exchange;
use crate::memory::Chunk;
use crate::memory::Tab;

/// A body that broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The other side did.
    #[error("body broke off")]
    Transport(#[source] hyper::Error),
    /// The exchange's deadline passed, or it stood still too long.
    #[error("exchange timed out while its body was passing")]
    TimedOut,
    /// A retry took the body over.
    #[error("body was taken over by another try")]
    TakenOver,
}

/// Any body.
#[derive(Default)]
pub enum Body {
    /// None.
    #[default]
    Empty,
    /// One piece.
    Full(Option<Bytes>),
    /// From the network.
    Incoming(Incoming),
    /// A request body under watch.
    Received(Box<Received>),
    /// An upstream body that holds its connection.
    Upstream(Box<Upstream>),
    /// The body that ends an exchange.
    Tracked(Box<Tracked>),
    /// A request body that can be sent again.
    Replay(ReplayReader),
}

impl Body {
    /// One piece, empty if it is.
    pub fn full(bytes: Bytes) -> Body {
        if bytes.is_empty() {
            Body::Empty
        } else {
            Body::Full(Some(bytes))
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Body::Empty => "Empty",
            Body::Full(_) => "Full",
            Body::Incoming(_) => "Incoming",
            Body::Received(_) => "Received",
            Body::Upstream(_) => "Upstream",
            Body::Tracked(_) => "Tracked",
            Body::Replay(_) => "Replay",
        })
    }
}

type Polled = Poll<Option<Result<Frame<Chunk>, BodyError>>>;

impl http_body::Body for Body {
    type Data = Chunk;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        match self.get_mut() {
            Body::Empty => Poll::Ready(None),
            Body::Full(bytes) => {
                Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes.into()))))
            }
            Body::Incoming(body) => poll_incoming(body, cx),
            Body::Received(body) => body.poll(cx),
            Body::Upstream(body) => body.poll(cx),
            Body::Tracked(body) => body.poll(cx),
            Body::Replay(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Empty => true,
            Body::Full(bytes) => bytes.is_none(),
            Body::Incoming(body) => body.is_end_stream(),
            Body::Received(body) => body.inner.is_end_stream(),
            Body::Upstream(body) => body.inner.is_end_stream(),
            Body::Tracked(body) => body.inner.is_end_stream(),
            Body::Replay(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Empty => SizeHint::with_exact(0),
            Body::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Body::Incoming(body) => body.size_hint(),
            Body::Received(body) => body.inner.size_hint(),
            Body::Upstream(body) => body.inner.size_hint(),
            Body::Tracked(body) => body.inner.size_hint(),
            Body::Replay(body) => body.size_hint(),
        }
    }
}

fn poll_incoming(body: &mut Incoming, cx: &mut Context<'_>) -> Polled {
    http_body::Body::poll_frame(Pin::new(body), cx)
        .map_ok(|frame| frame.map_data(Chunk::from))
        .map_err(BodyError::Transport)
}

fn data_len(frame: &Frame<Chunk>) -> u64 {
    frame.data_ref().map_or(0, |data| data.bytes().len() as u64)
}

/// Charges what passes to the body's tab.
fn charged(polled: Polled, tab: &mut Option<Arc<Tab>>, last: bool, exchange: &Exchange) -> Polled {
    polled.map_ok(|frame| {
        frame.map_data(|chunk| {
            chunk.charged(tab, last, || {
                Tab::open(&exchange.worker.ledger, &exchange.connection.edge)
            })
        })
    })
}

/// A request body on its way in.
pub struct Received {
    inner: Incoming,
    exchange: Rc<Exchange>,
    tab: Option<Arc<Tab>>,
}

impl Received {
    /// Watches `inner` for its exchange. A request without body is done at once.
    pub fn watch(inner: Incoming, exchange: &Rc<Exchange>) -> Body {
        if http_body::Body::is_end_stream(&inner) {
            exchange.request_done.set();
            return Body::Empty;
        }
        Body::Received(Box::new(Received {
            inner,
            exchange: Rc::clone(exchange),
            tab: None,
        }))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Polled {
        if let Some(tab) = &self.tab {
            ready!(tab.poll_room(cx));
        }
        let polled = poll_incoming(&mut self.inner, cx);
        if let Poll::Ready(frame) = &polled {
            self.exchange.timer.progress();
            if let Some(Ok(frame)) = frame {
                self.exchange
                    .received
                    .set(self.exchange.received.get() + data_len(frame));
            }
            if let Some(Err(BodyError::Transport(error))) = frame {
                self.exchange.request_broken.set(true);
                self.exchange.flag(breakage(error));
            }
            if frame.is_none() || http_body::Body::is_end_stream(&self.inner) {
                self.exchange.request_done.set();
            }
        }
        let last = http_body::Body::is_end_stream(&self.inner);
        charged(polled, &mut self.tab, last, &self.exchange)
    }
}

/// How a request body broke: what is malformed is a protocol error, anything else is a caller who went away.
fn breakage(error: &hyper::Error) -> Flags {
    let malformed = std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .is_some_and(|io| {
            matches!(
                io.kind(),
                std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData
            )
        });
    if malformed {
        Flags::DOWNSTREAM_PROTOCOL
    } else {
        Flags::DOWNSTREAM_TERMINATED
    }
}

/// What is kept until an upstream body has ended.
pub trait Lease {
    /// The body ended cleanly: the connection may serve another request.
    fn release(self: Box<Self>);
}

/// An upstream body with what it holds.
pub struct Upstream {
    inner: Incoming,
    lease: Option<Box<dyn Lease>>,
}

impl Upstream {
    /// Holds `lease` until `inner` has ended; dropping it earlier gives the lease up.
    pub fn holding(inner: Incoming, lease: Box<dyn Lease>) -> Body {
        if http_body::Body::is_end_stream(&inner) {
            lease.release();
            return Body::Empty;
        }
        Body::Upstream(Box::new(Upstream {
            inner,
            lease: Some(lease),
        }))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Polled {
        let polled = poll_incoming(&mut self.inner, cx);
        let ended = match &polled {
            Poll::Ready(None) => true,
            Poll::Ready(Some(Ok(_))) => http_body::Body::is_end_stream(&self.inner),
            Poll::Ready(Some(Err(_))) | Poll::Pending => false,
        };
        if ended && let Some(lease) = self.lease.take() {
            lease.release();
        }
        polled
    }
}

/// The body that downstream gets. Its end is the exchange's.
pub struct Tracked {
    inner: Body,
    exchange: Rc<Exchange>,
    tab: Option<Arc<Tab>>,
    clean: bool,
    _end: EndGuard,
}

impl Tracked {
    /// Ends the exchange with `inner`.
    pub fn ending(inner: Body, end: EndGuard) -> Body {
        let exchange = Rc::clone(&end.0);
        watch::begin(&exchange);
        Body::Tracked(Box::new(Tracked {
            inner,
            exchange,
            tab: None,
            clean: false,
            _end: end,
        }))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Polled {
        let taken = self.exchange.connection.edge.poll_taken(cx).is_ready();
        let room = |tab: &Arc<Tab>| tab.poll_room(cx).is_ready();
        if !taken || !self.tab.as_ref().is_none_or(room) {
            return self.poll_timer(cx);
        }
        let polled = http_body::Body::poll_frame(Pin::new(&mut self.inner), cx);
        match &polled {
            Poll::Pending => return self.poll_timer(cx),
            Poll::Ready(None) => self.clean = true,
            Poll::Ready(Some(Ok(frame))) => {
                self.exchange.timer.progress();
                self.exchange
                    .sent
                    .set(self.exchange.sent.get() + data_len(frame));
                // Nothing comes after trailers, so nobody asks for the end.
                self.clean = frame.is_trailers();
                if let Some(status) = frame
                    .trailers_ref()
                    .and_then(|trailers| trailers.get("grpc-status"))
                {
                    self.exchange
                        .grpc_status
                        .replace(Some(HeaderValue::clone(status)));
                }
            }
            Poll::Ready(Some(Err(error))) => {
                self.clean = true;
                // A request that broke takes its upstream connection with it: the answer's end is not the answerer's.
                if !self.exchange.request_broken.get() {
                    // A message that its framing says is not whole is a broken protocol to Envoy, and to its users' alarms.
                    let (flag, details) = match error {
                        BodyError::Transport(cause) if incomplete(cause) => (
                            Flags::UPSTREAM_PROTOCOL,
                            "upstream_reset_after_response_started{protocol_error}",
                        ),
                        _ => (
                            Flags::UPSTREAM_TERMINATED,
                            "upstream_reset_after_response_started",
                        ),
                    };
                    self.exchange.flag(flag);
                    self.exchange.details.set(details);
                }
            }
        }
        let last = http_body::Body::is_end_stream(&self.inner);
        charged(polled, &mut self.tab, last, &self.exchange)
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Polled {
        let Poll::Ready(expired) = self.exchange.timer.poll(&self.exchange.request_done, cx) else {
            return Poll::Pending;
        };
        self.clean = true;
        // Dropping the upstream body resets its stream.
        self.inner = Body::Empty;
        self.exchange.expire(expired);
        Poll::Ready(Some(Err(BodyError::TimedOut)))
    }
}

/// Whether an HTTP/1.1 connection ended within a message.
fn incomplete(error: &hyper::Error) -> bool {
    let early = |cause: &(dyn std::error::Error + 'static)| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|cause| cause.kind() == std::io::ErrorKind::UnexpectedEof)
    };
    error.is_incomplete_message() || std::error::Error::source(error).is_some_and(early)
}

impl Drop for Tracked {
    fn drop(&mut self) {
        watch::end(&self.exchange);
        let flags = self.exchange.flags.get();
        let expired = flags.has(Flags::UPSTREAM_TIMEOUT) || flags.has(Flags::IDLE_TIMEOUT);
        // hyper drops a body whose declared length has passed without asking it for its end.
        // Of an answer to HEAD it takes no body at all.
        let bodiless = self.exchange.asked.method == Method::HEAD;
        if !self.clean && !bodiless && !expired && !http_body::Body::is_end_stream(&self.inner) {
            self.exchange.flag(Flags::DOWNSTREAM_TERMINATED);
            self.exchange.details.set("downstream_remote_disconnect");
        }
    }
}

/// When a try's response head came, for `x-envoy-upstream-service-time`.
pub fn service_time(sent: Instant) -> HeaderValue {
    let ms = u64::try_from(sent.elapsed().as_millis()).unwrap_or(u64::MAX);
    HeaderValue::from(ms)
}
