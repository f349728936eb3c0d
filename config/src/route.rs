// SPDX-License-Identifier: Apache-2.0
//! The spec of a route: which requests it takes, to which targets by weight, with which retries and timeouts.

use serde::{Deserialize, Serialize};

use crate::listener::{Duration, HttpTimeout, Protocol, TcpTimeout};
use crate::matching::{HeaderCondition, Method, PathMatch, QueryParameter};

/// `RouteSpec`: the rules hold it to exactly one of the four route members; [`RouteSpec::rule`] says which.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_route: Option<GrpcRoute>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http2_route: Option<HttpRoute>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_route: Option<HttpRoute>,
    /// 0 is looked at first; routes without one come after all that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_route: Option<TcpRoute>,
}

/// The one rule of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule<'a> {
    /// `httpRoute` or `http2Route`.
    Http(&'a HttpRoute),
    Grpc(&'a GrpcRoute),
    Tcp(&'a TcpRoute),
}

impl RouteSpec {
    /// The rule; `None` only for a spec that did not come from `parse_spec`.
    pub fn rule(&self) -> Option<Rule<'_>> {
        (self
            .http_route
            .as_ref()
            .or(self.http2_route.as_ref())
            .map(Rule::Http))
        .or(self.grpc_route.as_ref().map(Rule::Grpc))
        .or(self.tcp_route.as_ref().map(Rule::Tcp))
    }

    /// The protocol the rule speaks; `None` as in [`RouteSpec::rule`].
    pub fn protocol(&self) -> Option<Protocol> {
        (self.http_route.as_ref().map(|_| Protocol::Http))
            .or(self.http2_route.as_ref().map(|_| Protocol::Http2))
            .or(self.grpc_route.as_ref().map(|_| Protocol::Grpc))
            .or(self.tcp_route.as_ref().map(|_| Protocol::Tcp))
    }

    /// The member that holds the rule: `httpRoute`.
    pub fn member(&self) -> Option<&'static str> {
        self.protocol().map(|protocol| match protocol {
            Protocol::Http => "httpRoute",
            Protocol::Http2 => "http2Route",
            Protocol::Grpc => "grpcRoute",
            Protocol::Tcp => "tcpRoute",
        })
    }

    /// Where requests go.
    pub fn targets(&self) -> &[WeightedTarget] {
        match self.rule() {
            Some(Rule::Http(rule)) => &rule.action.weighted_targets,
            Some(Rule::Grpc(rule)) => &rule.action.weighted_targets,
            Some(Rule::Tcp(rule)) => &rule.action.weighted_targets,
            None => &[],
        }
    }

    /// The router port the route is bound to, if it names one.
    pub fn match_port(&self) -> Option<u16> {
        match self.rule()? {
            Rule::Http(rule) => rule.conditions.port,
            Rule::Grpc(rule) => rule.conditions.port,
            Rule::Tcp(rule) => rule.conditions.as_ref()?.port,
        }
    }
}

/// `HttpRoute` of the model, for `httpRoute` and `http2Route`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRoute {
    pub action: RouteAction,
    #[serde(rename = "match")]
    pub conditions: HttpRouteMatch,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_policy: Option<RetryPolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HttpTimeout>,
}

/// All conditions must hold; none at all matches every request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteMatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<Vec<HeaderCondition>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query_parameters: Option<Vec<QueryParameter>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scheme {
    Http,
    Https,
}

/// `HttpRouteAction`, `GrpcRouteAction` and `TcpRouteAction` of the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteAction {
    pub weighted_targets: Vec<WeightedTarget>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WeightedTarget {
    /// The listener of the virtual node; needed when it has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    pub virtual_node: String,
    /// 0 to 100, relative to the other targets.
    pub weight: u8,
}

/// `HttpRetryPolicy` and `GrpcRetryPolicy` of the model; only the latter has gRPC events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryPolicy {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_retry_events: Option<Vec<GrpcRetryEvent>>,
    /// Free strings in the model; the known ones are `server-error`, `gateway-error`, `client-error`, `stream-error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_retry_events: Option<Vec<String>>,
    /// Without the first attempt.
    pub max_retries: u64,
    /// Bounds the first attempt too.
    pub per_retry_timeout: Duration,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_retry_events: Option<Vec<TcpRetryEvent>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GrpcRetryEvent {
    Cancelled,
    DeadlineExceeded,
    Internal,
    ResourceExhausted,
    Unavailable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TcpRetryEvent {
    ConnectionError,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRoute {
    pub action: RouteAction,
    #[serde(rename = "match")]
    pub conditions: GrpcRouteMatch,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_policy: Option<RetryPolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HttpTimeout>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRouteMatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Vec<HeaderCondition>>,
    /// Only together with `service_name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpRoute {
    pub action: RouteAction,
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub conditions: Option<TcpRouteMatch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<TcpTimeout>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpRouteMatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}
