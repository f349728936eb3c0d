// SPDX-License-Identifier: Apache-2.0
//! The route's timeout over the whole exchange, retries included, and the idle limit. Once the answer's head has left,
//! the body goes on under the same timer (`http::body::Tracked`).

use std::borrow::Cow;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;
use tower::Layer;
use tower::Service;
use tower::layer::layer_fn;

use super::ready_as_inner;
use crate::error::Failure;
use crate::error::Fault;
use crate::error::Flags;
use crate::error::Retry;
use crate::exchange::Call;
use crate::exchange::Exchange;
use crate::exchange::Expired;
use crate::http::stack::Answering;
use crate::http::stack::HttpService;
use crate::route::Action;

/// Envoy's stream idle timeout where the connection manager names none.
const DEFAULT_IDLE: Duration = Duration::from_secs(300);
pub(super) static EXPECTED: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// An exchange that took too long.
#[derive(Debug, thiserror::Error)]
pub enum DeadlineError {
    /// The route's timeout.
    #[error("no answer within the route's timeout")]
    Route,
    /// A try's timeout.
    #[error("no answer within the try's timeout")]
    Try,
    /// Nothing moved.
    #[error("stream stood still")]
    Idle {
        /// Whether it was the caller who had not finished.
        request_open: bool,
    },
}

impl Failure for DeadlineError {
    fn fault(&self) -> Fault {
        match self {
            DeadlineError::Idle { request_open: true } => Fault::Downstream,
            DeadlineError::Route | DeadlineError::Try | DeadlineError::Idle { .. } => {
                Fault::Upstream
            }
        }
    }

    fn retry(&self) -> Retry {
        match self {
            DeadlineError::Try => Retry::Reset,
            DeadlineError::Route | DeadlineError::Idle { .. } => Retry::Never,
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            DeadlineError::Idle { request_open: true } => StatusCode::REQUEST_TIMEOUT,
            DeadlineError::Route | DeadlineError::Try | DeadlineError::Idle { .. } => {
                StatusCode::GATEWAY_TIMEOUT
            }
        }
    }

    fn flag(&self) -> Flags {
        match self {
            DeadlineError::Idle { .. } => Flags::IDLE_TIMEOUT,
            DeadlineError::Route | DeadlineError::Try => Flags::UPSTREAM_TIMEOUT,
        }
    }

    fn text(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            DeadlineError::Idle { .. } => "stream timeout",
            DeadlineError::Route | DeadlineError::Try => "upstream request timeout",
        })
    }

    fn details(&self) -> &'static str {
        match self {
            DeadlineError::Idle { .. } => "stream_idle_timeout",
            DeadlineError::Route => "response_timeout",
            DeadlineError::Try => "upstream_per_try_timeout",
        }
    }
}

/// The layer.
pub fn layer<S>() -> impl Layer<S, Service = Deadline<S>> + Clone {
    layer_fn(|inner| Deadline { inner })
}

/// The service.
#[derive(Clone)]
pub struct Deadline<S> {
    inner: S,
}

impl<S: HttpService> Service<Call> for Deadline<S> {
    ready_as_inner!();

    fn call(&mut self, mut call: Call) -> Answering {
        set_timer(&mut call);
        let exchange = Rc::clone(&call.exchange);
        let mut answering = self.inner.call(call);
        Box::pin(async move {
            let mut over = false;
            let answer = poll_fn(|cx| {
                if let Poll::Ready(answer) = answering.as_mut().poll(cx) {
                    return Poll::Ready(answer);
                }
                exchange
                    .timer
                    .poll(&exchange.request_done, cx)
                    .map(|expired| {
                        over = true;
                        Err(expiry(&exchange, expired))
                    })
            })
            .await;
            // Dropping what is under way resets its stream before the caller hears of the timeout.
            drop(answering);
            // A caller who does not finish its request is no fault of the endpoint that waits for it.
            if over
                && exchange.request_done.is_set()
                && let Some(cluster) = exchange.cluster.get()
            {
                cluster
                    .state
                    .stats
                    .parts
                    .at(exchange.worker.index)
                    .counts
                    .rq_timeout
                    .inc();
                exchange.blame();
            }
            answer
        })
    }
}

fn expiry(exchange: &Exchange, expired: Expired) -> Box<dyn Failure> {
    Box::new(match expired {
        Expired::Deadline => DeadlineError::Route,
        Expired::Idle => DeadlineError::Idle {
            request_open: !exchange.request_done.is_set(),
        },
    })
}

fn set_timer(call: &mut Call) {
    let exchange = &call.exchange;
    let Some(Action::Forward(forward)) = exchange.rule.get().map(|rule| &rule.action) else {
        return;
    };
    let config = &forward.config;
    let on = |limit: Duration| (!limit.is_zero()).then_some(limit);
    let timeout = on(config.timeout);
    let manager = exchange.served.http().manager.stream_idle_timeout;
    let idle = on(config.idle_timeout.or(manager).unwrap_or(DEFAULT_IDLE));
    exchange.timer.set(timeout, idle);
    let per_try = config
        .retry
        .as_ref()
        .and_then(|retry| retry.per_try_timeout);
    let headers = call.request.headers_mut();
    match per_try.or(timeout) {
        Some(limit) => {
            let ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            headers.insert(EXPECTED.clone(), HeaderValue::from(ms));
        }
        None => {
            headers.remove(&EXPECTED);
        }
    }
}
