// SPDX-License-Identifier: Apache-2.0
//! Picks the rule and the cluster, once per request, from the snapshot the request holds. Below here nobody asks for
//! configuration again. Direct responses end here.

use std::borrow::Cow;
use std::future::ready;
use std::sync::Arc;

use http::HeaderMap;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::Uri;
use http::header;
use tower::Layer;
use tower::Service;
use tower::layer::layer_fn;

use super::ready_as_inner;
use crate::error::Failure;
use crate::error::Fault;
use crate::error::Flags;
use crate::error::RequestError;
use crate::error::Retry;
use crate::exchange::Call;
use crate::exchange::Exchange;
use crate::http::body::Body;
use crate::http::stack::Answering;
use crate::http::stack::HttpService;
use crate::route::Action;
use crate::route::NoMatch;
use crate::route::Rule;
use crate::route::condition::Asked;

/// A request without a way.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// No virtual host or no route for it.
    #[error("no route for {authority}{path}")]
    NotFound {
        /// Host asked for.
        authority: String,
        /// Path asked for.
        path: String,
        /// What was missing.
        missing: NoMatch,
    },
    /// The route names a cluster that is not there, or gives every one the weight zero.
    #[error("route {route} leads to no cluster")]
    NoCluster {
        /// The route.
        route: String,
    },
}

impl Failure for RouteError {
    fn fault(&self) -> Fault {
        match self {
            RouteError::NotFound { .. } => Fault::Downstream,
            RouteError::NoCluster { .. } => Fault::Local,
        }
    }

    fn retry(&self) -> Retry {
        Retry::Never
    }

    fn status(&self) -> StatusCode {
        match self {
            RouteError::NotFound { .. } => StatusCode::NOT_FOUND,
            RouteError::NoCluster { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn flag(&self) -> Flags {
        match self {
            RouteError::NotFound { .. } => Flags::NO_ROUTE,
            RouteError::NoCluster { .. } => Flags::NO_CLUSTER,
        }
    }

    fn text(&self) -> Cow<'static, str> {
        Cow::Borrowed("")
    }

    fn details(&self) -> &'static str {
        match self {
            RouteError::NotFound { .. } => "route_not_found",
            RouteError::NoCluster { .. } => "cluster_not_found",
        }
    }
}

/// The layer.
pub fn layer<S>() -> impl Layer<S, Service = Route<S>> + Clone {
    layer_fn(|inner| Route { inner })
}

/// The service.
#[derive(Clone)]
pub struct Route<S> {
    inner: S,
}

impl<S: HttpService> Service<Call> for Route<S> {
    ready_as_inner!();

    fn call(&mut self, mut call: Call) -> Answering {
        match direct(&mut call) {
            Ok(None) => self.inner.call(call),
            Ok(Some(answer)) => Box::pin(ready(Ok(answer))),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }
}

/// Finds the rule for an exchange and, for a forward, its cluster; both are then the exchange's.
pub fn choose<'e>(
    exchange: &'e Exchange,
    headers: &HeaderMap,
) -> Result<&'e Arc<Rule>, RequestError> {
    let asked = &exchange.asked;
    let not_found = |missing| -> RequestError {
        let (authority, path) = (asked.authority.to_string(), asked.path.path().to_owned());
        Box::new(RouteError::NotFound {
            authority,
            path,
            missing,
        })
    };
    let http = exchange.served.http();
    let table = http
        .table
        .as_ref()
        .ok_or_else(|| not_found(NoMatch::Host))?;
    let authority = asked.authority.as_str();
    let question = Asked {
        path: asked.path.path(),
        query: asked.path.query(),
        method: asked.method.as_str(),
        scheme: scheme(exchange, headers),
        authority,
        headers,
    };
    let rule = table.first_match(authority, &question).map_err(not_found)?;
    let rule = exchange.rule.get_or_init(|| Arc::clone(rule));
    if let Action::Forward(forward) = &rule.action {
        let name = forward.draw(exchange.worker.random());
        let cluster = name.and_then(|name| exchange.served.snapshot.cluster(name));
        let Some(cluster) = cluster else {
            return Err(Box::new(RouteError::NoCluster {
                route: rule.name.to_string(),
            }));
        };
        exchange.cluster.get_or_init(|| Arc::clone(cluster));
    }
    Ok(rule)
}

/// What `scheme` conditions see. Behind an edge it is what the edge said, as in Envoy; at the edge what the connection is.
fn scheme<'h>(exchange: &Exchange, headers: &'h HeaderMap) -> &'h str {
    let said = headers.get("x-forwarded-proto").map(HeaderValue::as_bytes);
    match said.filter(|_| !exchange.served.http().manager.use_remote_address) {
        Some(b"http") => "http",
        Some(b"https") => "https",
        Some(_) | None => exchange.asked.scheme,
    }
}

/// Routes the call, and rewrites it for the way it takes; the answer, if the rule is one.
fn direct(call: &mut Call) -> Result<Option<Response<Body>>, RequestError> {
    let rule = choose(&call.exchange, call.request.headers())?;
    let forward = match &rule.action {
        Action::Forward(forward) => forward,
        Action::Respond { status, body } => {
            call.exchange.details.set("direct_response");
            return Ok(Some(respond(*status, body.clone())));
        }
    };
    let path = &call.exchange.asked.path;
    if let Some(changed) = forward.rewritten(path.path(), path.query())
        && let Ok(uri) = changed.parse::<Uri>()
    {
        if let Ok(original) = HeaderValue::from_str(path.as_str()) {
            call.request
                .headers_mut()
                .insert("x-envoy-original-path", original);
        }
        *call.request.uri_mut() = uri;
    }
    if forward.host_rewrite.is_some()
        && let Ok(original) = HeaderValue::from_str(call.exchange.asked.authority.as_str())
    {
        call.request
            .headers_mut()
            .insert("x-envoy-original-host", original);
    }
    Ok(None)
}

fn respond(status: u16, body: bytes::Bytes) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if !body.is_empty() {
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        *response.body_mut() = Body::full(body);
    }
    response
}
