// SPDX-License-Identifier: Apache-2.0
//! A refused resource leaves the old one serving, and what still serves is not taken away.

use std::time::Duration;

use pillion_xds::cluster::CircuitBreakers;
use pillion_xds::cluster::Cluster;
use pillion_xds::cluster::Discovery;
use pillion_xds::cluster::DnsFamily;
use pillion_xds::cluster::UpstreamProtocol;
use pillion_xds::listener::Codec;
use pillion_xds::listener::Direction;
use pillion_xds::listener::FilterChain;
use pillion_xds::listener::FilterChainMatch;
use pillion_xds::listener::HttpConnectionManager;
use pillion_xds::listener::Listener;
use pillion_xds::listener::NetworkFilter;
use pillion_xds::listener::RouteSource;
use pillion_xds::route::Action;
use pillion_xds::route::Forward;
use pillion_xds::route::PathMatch;
use pillion_xds::route::Route;
use pillion_xds::route::RouteConfiguration;
use pillion_xds::route::RouteMatch;
use pillion_xds::route::VirtualHost;
use pillion_xds::route::WeightedCluster;

use super::*;
use crate::metrics::Metrics;

fn applier() -> Applier {
    Applier::new(Live::new(Snapshot::empty(Metrics::new(1, Vec::new()))))
}

fn versioned(version: &str, resource: Resource) -> Vec<Versioned> {
    vec![Versioned {
        version: version.to_owned(),
        resource,
    }]
}

fn cluster(name: &str) -> Resource {
    Resource::Cluster(Cluster {
        name: name.to_owned(),
        discovery: Discovery::Eds(None),
        connect_timeout: Duration::from_secs(1),
        protocol: UpstreamProtocol::Http1,
        tls: None,
        limits: CircuitBreakers::default(),
        outlier_detection: None,
        health_checks: Vec::new(),
        dns_family: DnsFamily::Auto,
        idle_timeout: None,
        labels: Vec::new(),
    })
}

fn table(name: &str, cluster: &str) -> Resource {
    let forward = Forward {
        clusters: vec![WeightedCluster {
            name: cluster.to_owned(),
            weight: 1,
        }],
        timeout: Duration::from_secs(15),
        idle_timeout: None,
        retry: None,
        rewrite: None,
        host_rewrite: None,
    };
    let matching = RouteMatch {
        path: PathMatch::Prefix("/".to_owned()),
        headers: Vec::new(),
        query: Vec::new(),
        grpc: false,
    };
    Resource::Route(RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: "all".to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![Route {
                name: "r".to_owned(),
                matching,
                action: Action::Forward(Box::new(forward)),
            }],
        }],
    })
}

fn listener(name: &str, routes: &str) -> Resource {
    let manager = HttpConnectionManager {
        stat_prefix: "egress".to_owned(),
        codec: Codec::Auto,
        routes: RouteSource::Rds(routes.to_owned()),
        access_logs: Vec::new(),
        use_remote_address: false,
        normalize_path: true,
        merge_slashes: true,
        upgrades: Vec::new(),
        stream_idle_timeout: None,
        strip_port: false,
    };
    Resource::Listener(Listener {
        name: name.to_owned(),
        address: "0.0.0.0:15001".parse().expect("an address"),
        direction: Direction::Outbound,
        original_destination: true,
        filter_chains: Vec::new(),
        default_filter_chain: Some(FilterChain {
            name: "http".to_owned(),
            matching: FilterChainMatch::default(),
            tls: None,
            filter: NetworkFilter::Http(Box::new(manager)),
        }),
    })
}

/// A cluster, a listener and the route table between them, in force.
fn serving() -> Applier {
    let mut applier = applier();
    assert_eq!(
        applier.apply(ResourceType::Cluster, versioned("1", cluster("a")), &[]),
        []
    );
    assert_eq!(
        applier.apply(
            ResourceType::Listener,
            versioned("1", listener("l", "r")),
            &[]
        ),
        []
    );
    assert_eq!(
        applier.apply(ResourceType::Route, versioned("1", table("r", "a")), &[]),
        []
    );
    applier
}

fn leads_to(applier: &Applier) -> Vec<String> {
    names::clusters(applier.resources())
        .into_iter()
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_route_to_no_such_cluster_is_refused_by_name_and_the_old_one_serves() {
    let mut applier = serving();
    let refused = applier.apply(
        ResourceType::Route,
        versioned("2", table("r", "no-such-cluster")),
        &[],
    );
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].name, "r");
    assert!(refused[0].why.contains("no-such-cluster"), "{refused:?}");
    assert_eq!(leads_to(&applier), ["a"]);
    assert_eq!(applier.versions(ResourceType::Route)["r"], "1");
}

#[test]
fn a_removed_cluster_stays_while_a_route_leads_to_it() {
    let mut applier = serving();
    applier.apply(ResourceType::Cluster, Vec::new(), &["a".to_owned()]);
    assert!(applier.live.current().cluster("a").is_some());
    applier.apply(ResourceType::Cluster, versioned("1", cluster("b")), &[]);
    applier.apply(ResourceType::Route, versioned("2", table("r", "b")), &[]);
    assert!(applier.live.current().cluster("a").is_none());
    assert!(applier.live.current().cluster("b").is_some());
}

#[test]
fn names_that_accepted_resources_mention_are_asked_for() {
    let applier = serving();
    assert_eq!(
        applier
            .wanted(ResourceType::Route)
            .into_iter()
            .collect::<Vec<_>>(),
        ["r"]
    );
    assert_eq!(
        applier
            .wanted(ResourceType::Endpoint)
            .into_iter()
            .collect::<Vec<_>>(),
        ["a"]
    );
}

#[test]
fn pending_names_what_is_missing_and_ends_with_the_last_answer() {
    let mut applier = applier();
    assert_eq!(applier.pending().len(), 2);
    applier.apply(ResourceType::Cluster, versioned("1", cluster("a")), &[]);
    applier.apply(
        ResourceType::Listener,
        versioned("1", listener("l", "r")),
        &[],
    );
    assert_eq!(applier.pending(), ["Route r", "Endpoint a"]);
    applier.apply(ResourceType::Route, versioned("1", table("r", "a")), &[]);
    // Told that there are none is an answer, too.
    applier.apply(ResourceType::Endpoint, Vec::new(), &["a".to_owned()]);
    assert_eq!(applier.pending(), Vec::<String>::new());
}

#[test]
fn what_was_accepted_can_be_applied_again_in_its_order() {
    let first = serving();
    let mut second = applier();
    for (kind, resources) in first.accepted() {
        assert_eq!(second.apply(kind, resources, &[]), []);
    }
    assert_eq!(second.accepted(), first.accepted());
    assert_eq!(leads_to(&second), ["a"]);
}
