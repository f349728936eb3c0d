// SPDX-License-Identifier: Apache-2.0
//! Writes a line per access log at the end of an exchange. Keeps only the header values that the formats ask for.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Version;
use http::response;
use tower::Layer;
use tower::Service;
use tower::layer::layer_fn;

use super::ready_as_inner;
use crate::access_log::Line;
use crate::access_log::Log;
use crate::exchange::Call;
use crate::exchange::Exchange;
use crate::exchange::Observer;
use crate::http::stack::Answering;
use crate::http::stack::HttpService;

/// The layer.
pub fn layer<S>() -> impl Layer<S, Service = AccessLog<S>> + Clone {
    layer_fn(|inner| AccessLog { inner })
}

/// The service.
#[derive(Clone)]
pub struct AccessLog<S> {
    inner: S,
}

impl<S: HttpService> Service<Call> for AccessLog<S> {
    ready_as_inner!();

    fn call(&mut self, call: Call) -> Answering {
        begin(&call.exchange, call.request.headers());
        self.inner.call(call)
    }
}

/// Also for requests that are refused before the stack.
pub fn begin(exchange: &Exchange, headers: &HeaderMap) {
    for log in &exchange.served.http().logs {
        exchange.observe(Rc::new(Entry {
            log: Arc::clone(log),
            request: values(&log.request_names, headers),
            response: RefCell::default(),
        }));
    }
}

type Values = Vec<Option<HeaderValue>>;

fn values(names: &[HeaderName], headers: &HeaderMap) -> Values {
    names
        .iter()
        .map(|name| headers.get(name).cloned())
        .collect()
}

struct Entry {
    log: Arc<Log>,
    request: Values,
    response: RefCell<Values>,
}

impl Observer for Entry {
    fn answered(&self, exchange: &Exchange, answer: &response::Parts) {
        self.response
            .replace(values(&self.log.response_names, &answer.headers));
        if let Some(status) = answer.headers.get("grpc-status") {
            exchange.grpc_status.replace(Some(status.clone()));
        }
    }

    fn ended(&self, exchange: &Exchange) {
        let connection = &exchange.connection;
        let asked = &exchange.asked;
        // As Envoy does, which rewrites in place: the host that was asked for is `x-envoy-original-host` to the application.
        let rewritten = exchange.rule.get().and_then(|rule| rule.host_rewrite());
        let authority = rewritten.unwrap_or(&asked.authority);
        let transport = exchange.transport.borrow();
        let grpc = exchange.grpc_status.borrow();
        let line = Line {
            start: exchange.wall,
            duration: exchange.started.elapsed(),
            request_duration: None,
            response_duration: exchange
                .answered_at
                .get()
                .map(|at| at.duration_since(exchange.started)),
            method: Some(asked.method.as_str()),
            path: Some(asked.path.as_str()),
            authority: Some(authority.as_str()).filter(|authority| !authority.is_empty()),
            scheme: asked.scheme,
            protocol: Some(protocol(asked.version)),
            status: exchange.status.get(),
            details: exchange.details.get(),
            flags: exchange.flags.get(),
            bytes_received: exchange.received.get(),
            bytes_sent: exchange.sent.get(),
            upstream: exchange.upstream_address(),
            cluster: exchange.cluster.get().map(|cluster| cluster.name()),
            transport_failure: transport.as_deref(),
            attempts: exchange.attempts.get(),
            remote: connection.peer,
            local: connection.local,
            server_name: connection.server_name.as_deref(),
            tls: connection.tls.as_deref(),
            route: exchange.rule.get().map(|rule| &*rule.name),
            connection: connection.id,
            trace_id: exchange.trace.get().map(|trace| trace.id),
            grpc_status: grpc.as_ref().and_then(|status| status.to_str().ok()),
            request: &self.request,
            response: &self.response.borrow(),
        };
        exchange.worker.logs.write(&self.log, &line);
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}
