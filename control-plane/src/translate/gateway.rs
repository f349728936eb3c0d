// SPDX-License-Identifier: Apache-2.0
//! Route tables of gateways: gateway routes by host, each laid over the routes of its virtual service. Pure.
//!
//! A gateway's limit on an exchange was the largest among the routes behind a virtual service, because the request
//! still met its own route's limit on the second hop. Folded into one hop, each route simply keeps its own.

use std::collections::BTreeMap;

use pillion_config::gateway_route::DefaultRewrite;
use pillion_config::gateway_route::GatewayRule;
use pillion_config::gateway_route::HostnameMatch;
use pillion_config::gateway_route::HttpGatewayRoute;
use pillion_config::graph::GatewayRouteView;
use pillion_config::graph::GatewayView;
use pillion_xds::route::PathMatch;
use pillion_xds::route::Route;
use pillion_xds::route::RouteConfiguration;
use pillion_xds::route::RouteMatch;
use pillion_xds::route::VirtualHost;

use super::callee;
use super::callee::Callee;
use super::cluster::Clusters;
use super::compose;
use super::compose::Gate;
use super::compose::PathChange;
use super::route;

/// The hosts a gateway route takes. Ordered from the most to the least specific.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    Exact(String),
    /// With its leading dot, if it was written with one.
    Suffix(String),
    Any,
}

impl Host {
    fn of(spec: Option<&HostnameMatch>) -> Host {
        match (
            spec.and_then(|spec| spec.exact.as_deref()),
            spec.and_then(HostnameMatch::bare_suffix),
        ) {
            (Some(exact), _) => Host::Exact(exact.to_ascii_lowercase()),
            (None, Some(suffix)) => Host::Suffix(suffix.to_ascii_lowercase()),
            (None, None) => Host::Any,
        }
    }

    fn domain(&self) -> String {
        match self {
            Host::Exact(host) => host.clone(),
            Host::Suffix(suffix) => format!("*{suffix}"),
            Host::Any => "*".to_owned(),
        }
    }

    /// Whether every host that `narrower` takes is one of ours.
    fn includes(&self, narrower: &Host) -> bool {
        match (self, narrower) {
            (Host::Any, _) => true,
            (Host::Suffix(suffix), Host::Exact(host) | Host::Suffix(host)) => {
                host.ends_with(suffix.as_str())
            }
            (Host::Exact(one), Host::Exact(other)) => one == other,
            (Host::Suffix(_) | Host::Exact(_), _) => false,
        }
    }
}

/// The table of the gateway's listener on `port`, and what could not be said in it.
pub fn routes(
    view: &GatewayView<'_>,
    port: u16,
    callees: &[Callee<'_>],
    clusters: &Clusters,
) -> (RouteConfiguration, Vec<String>) {
    let on_port = view
        .routes
        .iter()
        .filter(|route| route.spec.match_port().is_none_or(|wanted| wanted == port));
    let mut findings = Vec::new();
    let mut folded: Vec<(Host, Vec<Route>)> = Vec::new();
    for one in on_port {
        let Some((host, gate)) = gate(one) else {
            continue;
        };
        let (routes, left_out) =
            compose::compose(&gate, &inner(one, callees, clusters, &mut findings));
        findings.extend(left_out);
        folded.push((host, routes));
    }
    // A proxy settles on one virtual host before it looks at routes. For a gateway route without host to be tried after
    // one with a host, it must stand in that host's table as well.
    let hosts: BTreeMap<String, &Host> = folded
        .iter()
        .map(|(host, _)| (host.domain(), host))
        .collect();
    let virtual_hosts = hosts.into_iter().map(|(domain, host)| VirtualHost {
        name: domain.clone(),
        domains: vec![domain],
        routes: folded
            .iter()
            .filter(|(other, _)| other.includes(host))
            .flat_map(|(_, routes)| routes.clone())
            .collect(),
    });
    let table = RouteConfiguration {
        name: route::ingress_name(port),
        virtual_hosts: virtual_hosts.collect(),
    };
    (table, findings)
}

/// The routes of the virtual service behind a gateway route, on the port it means.
fn inner(
    one: &GatewayRouteView<'_>,
    callees: &[Callee<'_>],
    clusters: &Clusters,
    findings: &mut Vec<String>,
) -> Vec<Route> {
    let name = &one.target.virtual_service.virtual_service_name;
    let callee = callees.iter().find(|callee| callee.name == name);
    let found = callee.and_then(|callee| {
        let wanted = one.port?;
        callee
            .ports
            .iter()
            .find(|port| port.mapping == wanted)
            .map(|port| (callee, port))
    });
    match found {
        Some((callee, port)) if port.mapping.protocol.is_http() => {
            route::routes(callee, port, clusters)
        }
        Some((_, port)) => {
            let number = port.mapping.port;
            findings.push(format!(
                "gateway route {:?}: {name:?} speaks tcp on {number}, a gateway speaks HTTP",
                one.name
            ));
            Vec::new()
        }
        None => {
            findings.push(format!(
                "gateway route {:?}: {name:?} is not there or has no such port; answered 404",
                one.name
            ));
            Vec::new()
        }
    }
}

fn gate(one: &GatewayRouteView<'_>) -> Option<(Host, Gate)> {
    let service = one.target.virtual_service.virtual_service_name.clone();
    let (hostname, matching, path, rewrites_host) = match one.spec.rule()? {
        GatewayRule::Http(spec) => {
            let matching = http_match(spec);
            let change = path_change(spec, &matching.path);
            (
                spec.conditions.hostname.as_ref(),
                matching,
                change,
                spec.action.rewrites_hostname(),
            )
        }
        GatewayRule::Grpc(spec) => {
            let matching = RouteMatch {
                path: callee::grpc_path(spec.conditions.service_name.as_deref(), None),
                headers: callee::header_matches(spec.conditions.metadata.as_deref()),
                query: Vec::new(),
                grpc: true,
            };
            (
                spec.conditions.hostname.as_ref(),
                matching,
                PathChange::Keep,
                spec.action.rewrites_hostname(),
            )
        }
    };
    let host_rewrite = rewrites_host.then_some(service);
    Some((
        Host::of(hostname),
        Gate {
            name: one.name.to_owned(),
            matching,
            path,
            host_rewrite,
        },
    ))
}

fn http_match(spec: &HttpGatewayRoute) -> RouteMatch {
    let conditions = &spec.conditions;
    let mut headers = Vec::new();
    if let Some(method) = conditions.method {
        headers.push(callee::exact_header(":method", method.word()));
    }
    headers.extend(callee::header_matches(conditions.headers.as_deref()));
    RouteMatch {
        path: callee::path_match(conditions.path.as_ref(), conditions.prefix.as_deref()),
        headers,
        query: callee::query_matches(conditions.query_parameters.as_deref()),
        grpc: false,
    }
}

/// By default a matched prefix becomes `/`; a whole path is kept unless the spec gives another.
fn path_change(spec: &HttpGatewayRoute, matched: &PathMatch) -> PathChange {
    let rewrite = spec.action.rewrite.as_ref();
    if let Some(exact) = rewrite
        .and_then(|rewrite| rewrite.path.as_ref())
        .and_then(|path| path.exact.clone())
    {
        return PathChange::Whole(exact);
    }
    if !matches!(matched, PathMatch::Prefix(_)) {
        return PathChange::Keep;
    }
    match rewrite.and_then(|rewrite| rewrite.prefix.as_ref()) {
        Some(prefix) if prefix.value.is_some() => {
            PathChange::Prefix(prefix.value.clone().unwrap_or_default())
        }
        Some(prefix) if prefix.default_prefix == Some(DefaultRewrite::Disabled) => PathChange::Keep,
        Some(_) | None => PathChange::Prefix("/".to_owned()),
    }
}
