// SPDX-License-Identifier: Apache-2.0
//! The spec of a gateway route: which edge requests it takes, to which virtual service, rewritten how.

use serde::{Deserialize, Serialize};

use crate::listener::Protocol;
use crate::matching::{HeaderCondition, Method, PathMatch, QueryParameter};

/// `GatewayRouteSpec`: the rules hold it to exactly one of the three route members; [`GatewayRouteSpec::rule`] says which.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRouteSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_route: Option<GrpcGatewayRoute>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http2_route: Option<HttpGatewayRoute>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_route: Option<HttpGatewayRoute>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
}

/// The one rule of a gateway route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatewayRule<'a> {
    /// `httpRoute` or `http2Route`.
    Http(&'a HttpGatewayRoute),
    Grpc(&'a GrpcGatewayRoute),
}

impl GatewayRouteSpec {
    /// The rule; `None` only for a spec that did not come from `parse_spec`.
    pub fn rule(&self) -> Option<GatewayRule<'_>> {
        (self
            .http_route
            .as_ref()
            .or(self.http2_route.as_ref())
            .map(GatewayRule::Http))
        .or(self.grpc_route.as_ref().map(GatewayRule::Grpc))
    }

    /// The protocol the rule speaks; `None` as in [`GatewayRouteSpec::rule`].
    pub fn protocol(&self) -> Option<Protocol> {
        (self.http_route.as_ref().map(|_| Protocol::Http))
            .or(self.http2_route.as_ref().map(|_| Protocol::Http2))
            .or(self.grpc_route.as_ref().map(|_| Protocol::Grpc))
    }

    /// The member that holds the rule: `httpRoute`.
    pub fn member(&self) -> Option<&'static str> {
        match self.protocol()? {
            Protocol::Http => Some("httpRoute"),
            Protocol::Http2 => Some("http2Route"),
            Protocol::Grpc => Some("grpcRoute"),
            Protocol::Tcp => None,
        }
    }

    /// The virtual service requests go to.
    pub fn target(&self) -> Option<&GatewayRouteTarget> {
        match self.rule()? {
            GatewayRule::Http(rule) => Some(&rule.action.target),
            GatewayRule::Grpc(rule) => Some(&rule.action.target),
        }
    }

    /// The gateway port the route is bound to, if it names one.
    pub fn match_port(&self) -> Option<u16> {
        match self.rule()? {
            GatewayRule::Http(rule) => rule.conditions.port,
            GatewayRule::Grpc(rule) => rule.conditions.port,
        }
    }
}

/// `HttpGatewayRoute` of the model, for `httpRoute` and `http2Route`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpGatewayRoute {
    pub action: HttpGatewayRouteAction,
    #[serde(rename = "match")]
    pub conditions: HttpGatewayRouteMatch,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpGatewayRouteAction {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<HttpGatewayRouteRewrite>,
    pub target: GatewayRouteTarget,
}

impl HttpGatewayRouteAction {
    /// Whether `Host` becomes the target's name; true when the spec says nothing.
    pub fn rewrites_hostname(&self) -> bool {
        rewrites(
            self.rewrite
                .as_ref()
                .and_then(|rewrite| rewrite.hostname.as_ref()),
        )
    }
}

/// Without a rewrite the matched prefix becomes `/` and the host the virtual service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpGatewayRouteRewrite {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<HostnameRewrite>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewrite>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<PrefixRewrite>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostnameRewrite {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_target_hostname: Option<DefaultRewrite>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathRewrite {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrefixRewrite {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_prefix: Option<DefaultRewrite>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DefaultRewrite {
    Enabled,
    Disabled,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRouteTarget {
    /// The port of the virtual service; needed when it has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    pub virtual_service: GatewayRouteVirtualService,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRouteVirtualService {
    pub virtual_service_name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpGatewayRouteMatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<Vec<HeaderCondition>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<HostnameMatch>,
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
}

/// The rules hold it to exactly one of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostnameMatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    /// As written, `.example.com` or `*.example.com` alike; see [`HostnameMatch::bare_suffix`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
}

impl HostnameMatch {
    /// The suffix without a leading `*`, as a comparison needs it.
    pub fn bare_suffix(&self) -> Option<&str> {
        self.suffix
            .as_deref()
            .map(|suffix| suffix.strip_prefix('*').unwrap_or(suffix))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrpcGatewayRoute {
    pub action: GrpcGatewayRouteAction,
    #[serde(rename = "match")]
    pub conditions: GrpcGatewayRouteMatch,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrpcGatewayRouteAction {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<GrpcGatewayRouteRewrite>,
    pub target: GatewayRouteTarget,
}

impl GrpcGatewayRouteAction {
    /// Whether `:authority` becomes the target's name; true when the spec says nothing.
    pub fn rewrites_hostname(&self) -> bool {
        rewrites(
            self.rewrite
                .as_ref()
                .and_then(|rewrite| rewrite.hostname.as_ref()),
        )
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrpcGatewayRouteRewrite {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<HostnameRewrite>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcGatewayRouteMatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<HostnameMatch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Vec<HeaderCondition>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
}

fn rewrites(hostname: Option<&HostnameRewrite>) -> bool {
    hostname.and_then(|hostname| hostname.default_target_hostname) != Some(DefaultRewrite::Disabled)
}
