// SPDX-License-Identifier: Apache-2.0
//! Counts requests and answers of the connection manager, as downstream sees them. What a cluster sees is counted at
//! the bottom of the stack, per try.

use std::rc::Rc;

use http::StatusCode;
use http::Version;
use http::response;
use tower::Layer;
use tower::Service;
use tower::layer::layer_fn;

use super::ready_as_inner;
use crate::error::Flags;
use crate::exchange::Call;
use crate::exchange::Exchange;
use crate::exchange::Observer;
use crate::http::stack::Answering;
use crate::http::stack::HttpService;

/// The layer.
pub fn layer<S>() -> impl Layer<S, Service = Metrics<S>> + Clone {
    layer_fn(|inner| Metrics {
        inner,
        counter: Rc::new(Counter),
    })
}

/// The service.
#[derive(Clone)]
pub struct Metrics<S> {
    inner: S,
    counter: Rc<Counter>,
}

impl<S: HttpService> Service<Call> for Metrics<S> {
    ready_as_inner!();

    fn call(&mut self, call: Call) -> Answering {
        begin(&call.exchange, Rc::clone(&self.counter));
        self.inner.call(call)
    }
}

/// Also for requests that are refused before the stack.
pub fn begin(exchange: &Exchange, counter: Rc<Counter>) {
    let counts = &exchange
        .served
        .http()
        .stats
        .parts
        .at(exchange.worker.index)
        .counts;
    counts.rq_total.inc();
    counts.rq_active.inc();
    if exchange.asked.version == Version::HTTP_2 {
        counts.rq_http2_total.inc();
    } else {
        counts.rq_http1_total.inc();
    }
    exchange.observe(counter);
}

/// Has nothing of its own: all exchanges share it.
#[derive(Debug, Default)]
pub struct Counter;

impl Observer for Counter {
    fn answered(&self, _: &Exchange, _: &response::Parts) {}

    fn ended(&self, exchange: &Exchange) {
        let part = exchange.served.http().stats.parts.at(exchange.worker.index);
        part.counts.rq_active.dec();
        part.counts.rq_completed.inc();
        part.rq_time.observe(exchange.started.elapsed());
        let (received, sent) = (exchange.received.get(), exchange.sent.get());
        part.counts.rx_bytes.add(received);
        part.counts.tx_bytes.add(sent);
        if exchange.asked.grpc {
            part.counts.rq_grpc_total.inc();
        }
        if let Some(cluster) = exchange.cluster.get() {
            let counts = &cluster.state.stats.parts.at(exchange.worker.index).counts;
            counts.cx_tx_bytes.add(received);
            counts.cx_rx_bytes.add(sent);
        }
        if let Ok(status) = StatusCode::from_u16(exchange.status.get()) {
            part.codes.count(status);
        }
        let flags = exchange.flags.get();
        for (flag, count) in [
            (Flags::DOWNSTREAM_TERMINATED, &part.counts.rq_rx_reset),
            (Flags::NO_ROUTE, &part.counts.no_route),
            (Flags::NO_CLUSTER, &part.counts.no_cluster),
            (Flags::IDLE_TIMEOUT, &part.counts.rq_idle_timeout),
        ] {
            if flags.has(flag) {
                count.inc();
            }
        }
    }
}
