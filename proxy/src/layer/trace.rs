// SPDX-License-Identifier: Apache-2.0
//! Continues or begins the trace. A hop that takes requests in (sidecar ingress, gateway) is a server span; every try
//! it sends out (sidecar egress, gateway) is a client span. Headers going on name the newest span. Records leave through
//! a bounded queue that never blocks.

use std::borrow::Cow;
use std::cell::Cell;
use std::rc::Rc;
use std::time::SystemTime;

use http::HeaderMap;
use http::HeaderValue;
use http::header;
use http::response;
use pillion_runtime::spans::Attribute;
use pillion_runtime::spans::Kind;
use pillion_runtime::spans::SpanRecord;
use tower::Layer;
use tower::Service;
use tower::layer::layer_fn;

use super::ready_as_inner;
use crate::error::Flags;
use crate::exchange::Call;
use crate::exchange::Door;
use crate::exchange::Exchange;
use crate::exchange::Observer;
use crate::exchange::Trace as TraceState;
use crate::http::stack::Answering;
use crate::http::stack::HttpService;
use crate::propagation;
use crate::sampling::Asked;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The layer of the hop.
pub fn layer<S>() -> impl Layer<S, Service = Trace<S>> + Clone {
    layer_fn(|inner| Trace { inner })
}

/// The layer of its tries.
pub fn attempts<S>() -> impl Layer<S, Service = Attempts<S>> + Clone {
    layer_fn(|inner| Attempts { inner })
}

/// The hop's service.
#[derive(Clone)]
pub struct Trace<S> {
    inner: S,
}

impl<S: HttpService> Service<Call> for Trace<S> {
    ready_as_inner!();

    fn call(&mut self, mut call: Call) -> Answering {
        if !call.exchange.worker.shared.spans.enabled() {
            return self.inner.call(call);
        }
        let asks = propagation::asks_for_decision(call.request.headers());
        begin(&call.exchange, call.request.headers_mut());
        let trace = call.exchange.trace.get().filter(|_| asks);
        let answering = self.inner.call(call);
        match trace {
            None => answering,
            Some(trace) => Box::pin(async move {
                let mut answer = answering.await;
                if let Ok(response) = &mut answer {
                    propagation::tell_decision(response.headers_mut(), trace.id, trace.sampled);
                }
                answer
            }),
        }
    }
}

fn begin(exchange: &Exchange, headers: &mut HeaderMap) {
    let worker = &exchange.worker;
    let context = propagation::extract(headers);
    let said = context.and_then(|context| context.sampled);
    // A stranger who may say "keep it" would fill the store and outshout every rule.
    let outside = exchange.connection.door == Door::Gateway;
    let said = said.filter(|keep| match worker.shared.policy.follow_caller {
        Some(follow) => follow,
        None => !(*keep && outside),
    });
    let sampled = said.unwrap_or_else(|| keeps(exchange));
    let id = context.map_or_else(
        || {
            let random = (u128::from(worker.random()) << 64) | u128::from(worker.random());
            propagation::new_trace_id(exchange.wall, random)
        },
        |context| context.trace_id,
    );
    let parent_id = context.map_or(0, |context| context.parent_id);
    let takes_in = exchange.connection.door != Door::Egress;
    // An unsampled hop names no span of its own: the chain of parents stays whole for whoever does record.
    let span_id = if takes_in && sampled {
        worker.random().max(1)
    } else {
        parent_id
    };
    exchange.trace.set(Some(TraceState {
        id,
        span_id,
        sampled,
    }));
    let named = if span_id == 0 {
        worker.random().max(1)
    } else {
        span_id
    };
    propagation::inject(headers, id, named, sampled);
    if takes_in && sampled {
        exchange.observe(Rc::new(Hop {
            span_id,
            parent_id,
            user_agent: headers.get(header::USER_AGENT).cloned(),
            forwarded: headers.contains_key(X_FORWARDED_FOR),
        }));
    }
}

/// Whether a trace that begins here is kept.
fn keeps(exchange: &Exchange) -> bool {
    let worker = &exchange.worker;
    let asked = Asked {
        host: exchange.asked.authority.as_str(),
        method: exchange.asked.method.as_str(),
        path: exchange.asked.path.path(),
    };
    let now = exchange
        .wall
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let sampler = &worker.shared.policy.sampling;
    sampler.keeps(asked, now.as_secs(), |share| worker.chance(share))
}

struct Hop {
    span_id: u64,
    parent_id: u64,
    user_agent: Option<HeaderValue>,
    forwarded: bool,
}

impl Observer for Hop {
    fn answered(&self, _: &Exchange, _: &response::Parts) {}

    fn ended(&self, exchange: &Exchange) {
        let mut attributes = common(exchange, "inbound", self.user_agent.as_ref());
        outcome(&mut attributes, exchange.status.get(), exchange.flags.get());
        let peer = exchange.connection.peer.ip().to_canonical();
        attributes.push(Attribute::new("client.address", peer.to_string()));
        if self.forwarded {
            attributes.push(Attribute::new("pillion.x_forwarded_for", true));
        }
        record(
            exchange,
            attributes,
            Timing {
                span_id: self.span_id,
                parent_id: self.parent_id,
                kind: Kind::Server,
                start: exchange.wall,
                end: SystemTime::now(),
                error: is_error(exchange.status.get()),
            },
        );
    }
}

/// The tries' service.
#[derive(Clone)]
pub struct Attempts<S> {
    inner: S,
}

impl<S: HttpService> Service<Call> for Attempts<S> {
    ready_as_inner!();

    fn call(&mut self, mut call: Call) -> Answering {
        let exchange = &call.exchange;
        let trace = exchange
            .trace
            .get()
            .filter(|trace| trace.sampled && exchange.connection.door != Door::Ingress);
        let Some(trace) = trace else {
            return self.inner.call(call);
        };
        let attempt = Rc::new(Attempt {
            span_id: exchange.worker.random().max(1),
            parent_id: trace.span_id,
            number: exchange.attempts.get(),
            start: SystemTime::now(),
            user_agent: call.request.headers().get(header::USER_AGENT).cloned(),
            outcome: Cell::new(None),
        });
        if let Some(before) = exchange
            .attempt
            .replace(Some(Rc::clone(&attempt) as Rc<dyn Observer>))
        {
            before.ended(exchange);
        }
        propagation::inject(call.request.headers_mut(), trace.id, attempt.span_id, true);
        let answering = self.inner.call(call);
        Box::pin(async move {
            let answer = answering.await;
            let (status, flags) = match &answer {
                Ok(response) => (response.status().as_u16(), Flags::NONE),
                Err(error) => (error.status().as_u16(), error.flag()),
            };
            attempt
                .outcome
                .set(Some((status, flags, SystemTime::now())));
            answer
        })
    }
}

struct Attempt {
    span_id: u64,
    parent_id: u64,
    number: u32,
    start: SystemTime,
    user_agent: Option<HeaderValue>,
    outcome: Cell<Option<(u16, Flags, SystemTime)>>,
}

impl Observer for Attempt {
    fn answered(&self, exchange: &Exchange, answer: &response::Parts) {
        // A try cut off by the deadline has no outcome of its own: what the caller is told is what it came to.
        if self.outcome.get().is_none() {
            self.outcome.set(Some((
                answer.status.as_u16(),
                exchange.flags.get(),
                SystemTime::now(),
            )));
        }
    }

    fn ended(&self, exchange: &Exchange) {
        let superseded = exchange.attempts.get() != self.number;
        let (status, flags, at) =
            self.outcome
                .get()
                .unwrap_or((0, exchange.flags.get(), SystemTime::now()));
        let flags = if superseded {
            flags
        } else {
            flags.with(exchange.flags.get())
        };
        let mut attributes = common(exchange, "outbound", self.user_agent.as_ref());
        outcome(&mut attributes, status, flags);
        if self.number > 1 {
            attributes.push(Attribute::new(
                "http.request.resend_count",
                i64::from(self.number - 1),
            ));
        }
        if exchange.connection.door == Door::Gateway {
            attributes.push(Attribute::new("pillion.part", true));
        }
        if let Some(peer) = exchange
            .cluster
            .get()
            .and_then(|cluster| cluster.peer.as_ref())
        {
            attributes.push(Attribute::new("peer.service", peer.to_string()));
        }
        record(
            exchange,
            attributes,
            Timing {
                span_id: self.span_id,
                parent_id: self.parent_id,
                kind: Kind::Client,
                start: self.start,
                end: if superseded { at } else { SystemTime::now() },
                error: is_error(status),
            },
        );
    }
}

fn is_error(status: u16) -> bool {
    status == 0 || status >= 500
}

fn common(
    exchange: &Exchange,
    direction: &'static str,
    user_agent: Option<&HeaderValue>,
) -> Vec<Attribute> {
    let asked = &exchange.asked;
    let mut attributes = Vec::with_capacity(18);
    attributes.push(Attribute::new("pillion.direction", direction));
    attributes.push(Attribute::new(
        "http.request.method",
        asked.method.as_str().to_owned(),
    ));
    attributes.push(Attribute::new("url.path", asked.path.path().to_owned()));
    attributes.push(Attribute::new("url.scheme", asked.scheme));
    attributes.push(Attribute::new(
        "server.address",
        asked.authority.to_string(),
    ));
    if let Some(agent) = user_agent.and_then(|agent| agent.to_str().ok()) {
        attributes.push(Attribute::new("user_agent.original", agent.to_owned()));
    }
    let sizes = [
        ("http.request.body.size", exchange.received.get()),
        ("http.response.body.size", exchange.sent.get()),
    ];
    for (name, size) in sizes {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        attributes.push(Attribute::new(name, size));
    }
    if let Some(upstream) = exchange.upstream_address() {
        attributes.push(Attribute::new("network.peer.address", upstream.to_string()));
    }
    if let Some(rule) = exchange.rule.get() {
        attributes.push(Attribute::new("pillion.route", rule.name.to_string()));
    }
    if let Some(cluster) = exchange.cluster.get() {
        attributes.push(Attribute::new(
            "pillion.upstream_cluster",
            cluster.name().to_owned(),
        ));
    }
    attributes
}

fn outcome(attributes: &mut Vec<Attribute>, status: u16, flags: Flags) {
    if status > 0 {
        attributes.push(Attribute::new(
            "http.response.status_code",
            i64::from(status),
        ));
    }
    attributes.push(Attribute::new(
        "pillion.response_flags",
        flags.text().into_owned(),
    ));
}

struct Timing {
    span_id: u64,
    parent_id: u64,
    kind: Kind,
    start: SystemTime,
    end: SystemTime,
    error: bool,
}

fn record(exchange: &Exchange, attributes: Vec<Attribute>, timing: Timing) {
    let Some(trace) = exchange.trace.get() else {
        return;
    };
    let method = exchange.asked.method.as_str();
    let name = match exchange.rule.get() {
        Some(rule) => Cow::Owned(format!("{method} {}", rule.name)),
        None => Cow::Owned(method.to_owned()),
    };
    exchange.worker.shared.spans.try_record(SpanRecord {
        trace_id: trace.id,
        span_id: timing.span_id,
        parent_id: timing.parent_id,
        kind: timing.kind,
        name,
        start: timing.start,
        end: timing.end,
        attributes,
        error: timing.error,
    });
}
