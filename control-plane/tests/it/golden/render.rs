// SPDX-License-Identifier: Apache-2.0
//! Resources as lines for people. Takes every type apart without `..`, so that no field escapes the golden files.

use std::fmt::Debug;
use std::fmt::Write;

use pillion_xds::cluster::Cluster;
use pillion_xds::cluster::Discovery;
use pillion_xds::endpoint::ClusterLoadAssignment;
use pillion_xds::listener::FilterChain;
use pillion_xds::listener::HttpConnectionManager;
use pillion_xds::listener::Listener;
use pillion_xds::listener::NetworkFilter;
use pillion_xds::listener::TcpProxy;
use pillion_xds::resource::Resource;
use pillion_xds::route::Action;
use pillion_xds::route::Forward;
use pillion_xds::route::Route;
use pillion_xds::route::RouteConfiguration;
use pillion_xds::route::RouteMatch;
use pillion_xds::route::VirtualHost;
use pillion_xds::route::WeightedCluster;

/// One resource, several lines.
pub(crate) fn resource(out: &mut String, resource: &Resource) {
    match resource {
        Resource::Cluster(it) => cluster(out, it),
        Resource::Endpoint(it) => line(out, 0, &format!("endpoints {}", assignment(it))),
        Resource::Listener(it) => listener(out, it),
        Resource::Route(it) => table(out, it),
        Resource::Secret(it) => line(out, 0, &format!("secret {}", it.name)),
    }
}

fn line(out: &mut String, depth: usize, text: &str) {
    writeln!(out, "{}{text}", "  ".repeat(depth)).expect("a string takes everything");
}

/// A line only where there is something to say.
fn some<T: Debug>(out: &mut String, depth: usize, name: &str, value: Option<T>) {
    if let Some(value) = value {
        line(out, depth, &format!("{name} {value:?}"));
    }
}

fn list<T>(values: &[T]) -> Option<&[T]> {
    (!values.is_empty()).then_some(values)
}

fn cluster(out: &mut String, it: &Cluster) {
    let Cluster {
        name,
        discovery,
        connect_timeout,
        protocol,
        tls,
        limits,
        outlier_detection,
        health_checks,
        dns_family,
        idle_timeout,
        labels,
    } = it;
    line(
        out,
        0,
        &format!("cluster {name} {protocol:?}, connect {connect_timeout:?}, dns {dns_family:?}"),
    );
    let found = match discovery {
        Discovery::Static(it) => format!("static {}", assignment(it)),
        Discovery::StrictDns(it) => format!("strict dns {}", assignment(it)),
        Discovery::LogicalDns(it) => format!("logical dns {}", assignment(it)),
        Discovery::Eds(name) => format!("eds {name:?}"),
        Discovery::OriginalDestination => "original destination".to_owned(),
    };
    line(out, 1, &found);
    let numbers = [
        limits.max_connections,
        limits.max_pending_requests,
        limits.max_requests,
        limits.max_retries,
    ];
    if numbers.iter().any(|number| *number != Some(2_147_483_647)) {
        line(out, 1, &format!("limits {limits:?}"));
    }
    some(out, 1, "tls", tls.as_ref());
    some(out, 1, "outliers", outlier_detection.as_ref());
    some(out, 1, "checks", list(health_checks));
    some(out, 1, "idle", idle_timeout.as_ref());
    some(out, 1, "labels", list(labels));
}

fn assignment(it: &ClusterLoadAssignment) -> String {
    let ClusterLoadAssignment {
        cluster_name,
        localities,
    } = it;
    let endpoints = localities.iter().flat_map(|locality| {
        assert_eq!(
            (locality.zone.as_str(), locality.priority, locality.weight),
            ("", 0, None)
        );
        &locality.endpoints
    });
    let endpoints: Vec<String> = endpoints
        .map(|it| format!("{}:{} {:?} {}", it.host, it.port, it.health, it.weight))
        .collect();
    format!("{cluster_name} [{}]", endpoints.join(", "))
}

fn listener(out: &mut String, it: &Listener) {
    let Listener {
        name,
        address,
        direction,
        original_destination,
        filter_chains,
        default_filter_chain,
    } = it;
    let original = if *original_destination {
        ", original destination"
    } else {
        ""
    };
    line(
        out,
        0,
        &format!("listener {name} {address} {direction:?}{original}"),
    );
    for it in filter_chains {
        chain(out, "chain", it);
    }
    if let Some(it) = default_filter_chain {
        chain(out, "default", it);
    }
}

fn chain(out: &mut String, word: &str, it: &FilterChain) {
    let FilterChain {
        name,
        matching,
        tls,
        filter,
    } = it;
    line(out, 1, &format!("{word} {name}"));
    let conditions = [
        matching.destination_port.map(|port| format!("port {port}")),
        list(&matching.prefix_ranges).map(|ranges| format!("ranges {ranges:?}")),
        list(&matching.server_names).map(|names| format!("sni {names:?}")),
        matching.transport.map(|transport| format!("{transport:?}")),
        list(&matching.application_protocols).map(|protocols| format!("{protocols:?}")),
    ];
    let conditions: Vec<String> = conditions.into_iter().flatten().collect();
    line(out, 2, &format!("when [{}]", conditions.join(", ")));
    some(out, 2, "tls", tls.as_ref());
    match filter {
        NetworkFilter::Http(it) => http(out, it),
        NetworkFilter::Tcp(TcpProxy {
            stat_prefix,
            clusters,
            idle_timeout,
            access_logs,
        }) => {
            line(
                out,
                2,
                &format!(
                    "tcp {stat_prefix} to {}, idle {idle_timeout:?}",
                    weights(clusters)
                ),
            );
            some(out, 2, "logs", list(access_logs));
        }
    }
}

fn http(out: &mut String, it: &HttpConnectionManager) {
    let HttpConnectionManager {
        stat_prefix,
        codec,
        routes,
        access_logs,
        use_remote_address,
        normalize_path,
        merge_slashes,
        upgrades,
        stream_idle_timeout,
        strip_port,
    } = it;
    let flags = [
        ("edge", use_remote_address),
        ("normalize", normalize_path),
        ("merge slashes", merge_slashes),
        ("strip port", strip_port),
    ];
    let flags: Vec<&str> = flags
        .into_iter()
        .filter(|(_, set)| **set)
        .map(|(name, _)| name)
        .collect();
    line(
        out,
        2,
        &format!(
            "http {stat_prefix} {codec:?} {routes:?}, {}, upgrades {upgrades:?}",
            flags.join(", ")
        ),
    );
    some(out, 2, "stream idle", stream_idle_timeout.as_ref());
    some(out, 2, "logs", list(access_logs));
}

fn table(out: &mut String, it: &RouteConfiguration) {
    let RouteConfiguration {
        name,
        virtual_hosts,
    } = it;
    line(out, 0, &format!("routes {name}"));
    for VirtualHost {
        name,
        domains,
        routes,
    } in virtual_hosts
    {
        line(out, 1, &format!("host {name} {domains:?}"));
        for it in routes {
            route(out, it);
        }
    }
}

fn route(out: &mut String, it: &Route) {
    let Route {
        name,
        matching,
        action,
    } = it;
    let RouteMatch {
        path,
        headers,
        query,
        grpc,
    } = matching;
    line(
        out,
        2,
        &format!("{name}: {path:?}{}", if *grpc { " grpc" } else { "" }),
    );
    for header in headers {
        let not = if header.invert { "not " } else { "" };
        line(out, 4, &format!("{not}{} {:?}", header.name, header.value));
    }
    for one in query {
        line(out, 4, &format!("?{} {:?}", one.name, one.exact));
    }
    match action {
        Action::Respond { status, body } => line(out, 3, &format!("answer {status} {body:?}")),
        Action::Forward(it) => {
            let Forward {
                clusters,
                timeout,
                idle_timeout,
                retry,
                rewrite,
                host_rewrite,
            } = it.as_ref();
            line(
                out,
                3,
                &format!(
                    "to {}, timeout {timeout:?}, idle {idle_timeout:?}",
                    weights(clusters)
                ),
            );
            some(out, 3, "retry", retry.as_ref());
            some(out, 3, "rewrite", rewrite.as_ref());
            some(out, 3, "host", host_rewrite.as_ref());
        }
    }
}

fn weights(clusters: &[WeightedCluster]) -> String {
    let clusters: Vec<String> = clusters
        .iter()
        .map(|it| format!("{} ({})", it.name, it.weight))
        .collect();
    clusters.join(" + ")
}
