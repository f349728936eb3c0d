// SPDX-License-Identifier: Apache-2.0
//! Rules within one listener, and among the listeners of one resource.

use std::collections::BTreeSet;

use super::{At, Findings};

const PROTOCOLS: [&str; 4] = ["http", "tcp", "http2", "grpc"];

/// Who listens must be found.
pub(super) fn needs_discovery(spec: &At<'_>, found: &mut Findings) {
    let listens = spec
        .get("listeners")
        .is_some_and(|listeners| listeners.items().next().is_some());
    if listens && !spec.has("serviceDiscovery") {
        found.push(
            &spec.would_be("serviceDiscovery"),
            "is required since the spec has listeners",
        );
    }
}

pub(super) fn ports_differ(spec: &At<'_>, found: &mut Findings) {
    let mut seen = BTreeSet::new();
    for listener in spec.get("listeners").iter().flat_map(At::items) {
        let port = listener
            .get("portMapping")
            .and_then(|mapping| mapping.get("port"));
        if let Some((at, port)) = port.as_ref().and_then(|at| Some((at, at.value.as_i64()?)))
            && !seen.insert(port)
        {
            found.push(at, format!("{port} is taken by another listener"));
        }
    }
}

/// Pool, timeout and health check must speak of the protocol and port that the listener has.
pub(super) fn agrees_with_protocol(listener: &At<'_>, found: &mut Findings) {
    let mapping = listener.get("portMapping");
    let protocol = mapping
        .as_ref()
        .and_then(|m| m.get("protocol"))
        .and_then(|p| p.text());
    if let Some(protocol) = protocol.filter(|protocol| PROTOCOLS.contains(protocol)) {
        for member in ["connectionPool", "timeout"] {
            let Some(union) = listener.get(member) else {
                continue;
            };
            for key in union
                .given(&PROTOCOLS)
                .into_iter()
                .filter(|key| *key != protocol)
            {
                found.push(
                    &union.would_be(key),
                    format!("must be {protocol}, the protocol of the listener"),
                );
            }
        }
    }
    if let Some(check) = listener.get("healthCheck") {
        let port = mapping
            .as_ref()
            .and_then(|m| m.get("port"))
            .and_then(|p| p.value.as_i64());
        health_check(&check, port, protocol, found);
    }
}

fn health_check(check: &At<'_>, port: Option<i64>, protocol: Option<&str>, found: &mut Findings) {
    let own_port = check.get("port").and_then(|at| at.value.as_i64());
    if let (Some(own), Some(port)) = (own_port, port)
        && own != port
    {
        found.push(
            &check.would_be("port"),
            format!("must be {port}, the port of the listener, is {own}"),
        );
    }
    let own_protocol = check.get("protocol").and_then(|at| at.text());
    if own_protocol == Some("grpc") && matches!(protocol, Some("http" | "tcp")) {
        found.push(
            &check.would_be("protocol"),
            "GRPC HealthCheck requires listener type of HTTP2 or GRPC.",
        );
    }
    if let Some(own) = own_protocol.filter(|own| matches!(*own, "tcp" | "grpc"))
        && check.has("path")
    {
        found.push(
            &check.would_be("path"),
            format!("is only for http and http2 health checks, this one is {own}"),
        );
    }
}
