// SPDX-License-Identifier: Apache-2.0
//! What a push keeps and what it changes.

use std::net::SocketAddr;
use std::time::Duration;

use pillion_xds::cluster::Discovery;
use pillion_xds::cluster::DnsFamily;
use pillion_xds::cluster::UpstreamProtocol;
use pillion_xds::cluster::UpstreamTls;
use pillion_xds::endpoint::Endpoint;
use pillion_xds::endpoint::Health;
use pillion_xds::endpoint::Locality;
use pillion_xds::route::VirtualHost;
use pillion_xds::secret::SecretSource;

use super::*;

fn assignment(hosts: &[&str]) -> ClusterLoadAssignment {
    let endpoint = |host: &&str| Endpoint {
        host: (*host).to_owned(),
        port: 80,
        health: Health::Healthy,
        weight: 1,
    };
    let endpoints = hosts.iter().map(endpoint).collect();
    let locality = Locality {
        zone: String::new(),
        priority: 0,
        weight: None,
        endpoints,
    };
    ClusterLoadAssignment {
        cluster_name: "c".to_owned(),
        localities: vec![locality],
    }
}

fn cluster(discovery: Discovery) -> xds_cluster::Cluster {
    xds_cluster::Cluster {
        name: "c".to_owned(),
        discovery,
        connect_timeout: Duration::from_secs(1),
        protocol: UpstreamProtocol::Http1,
        tls: None,
        limits: xds_cluster::CircuitBreakers::default(),
        outlier_detection: None,
        health_checks: Vec::new(),
        dns_family: DnsFamily::Auto,
        idle_timeout: None,
        labels: Vec::new(),
    }
}

fn with_cluster(config: xds_cluster::Cluster) -> Resources {
    let mut resources = Resources::default();
    resources.clusters.insert("c".to_owned(), Arc::new(config));
    resources
}

fn empty() -> Snapshot {
    Snapshot::empty(Metrics::new(1, Vec::new()))
}

fn good(resources: &Resources, previous: &Snapshot) -> Snapshot {
    let (snapshot, rejected) = Snapshot::compile(resources, previous);
    assert_eq!(rejected, Vec::new());
    snapshot
}

fn addresses(snapshot: &Snapshot) -> Vec<SocketAddr> {
    let set = snapshot.cluster("c").unwrap().set().unwrap();
    set.members()
        .iter()
        .map(|member| member.endpoint.addr)
        .collect()
}

#[test]
fn an_unchanged_cluster_is_the_same_cluster() {
    let resources = with_cluster(cluster(Discovery::Static(assignment(&["127.0.0.1"]))));
    let first = good(&resources, &empty());
    let second = good(&resources, &first);
    assert!(Arc::ptr_eq(
        first.cluster("c").unwrap(),
        second.cluster("c").unwrap()
    ));
    assert!(second.version > first.version);
}

#[test]
fn an_endpoint_that_stays_keeps_its_marks_and_pool_when_others_change() {
    let mut resources = with_cluster(cluster(Discovery::Eds(None)));
    resources.endpoints.insert(
        "c".to_owned(),
        Arc::new(assignment(&["127.0.0.1", "127.0.0.2"])),
    );
    let first = good(&resources, &empty());
    let before = Arc::clone(&first.cluster("c").unwrap().set().unwrap().members()[0].endpoint);
    resources.endpoints.insert(
        "c".to_owned(),
        Arc::new(assignment(&["127.0.0.1", "127.0.0.3"])),
    );
    let second = good(&resources, &first);
    assert!(Arc::ptr_eq(
        &before,
        &second.cluster("c").unwrap().set().unwrap().members()[0].endpoint
    ));
    assert_eq!(addresses(&second)[1], "127.0.0.3:80".parse().unwrap());
    let states =
        [&first, &second].map(|snapshot| Arc::clone(&snapshot.cluster("c").unwrap().state));
    assert!(Arc::ptr_eq(&states[0], &states[1]));
}

#[test]
fn endpoints_are_new_when_the_protocol_changes_so_that_no_old_connection_is_used() {
    let old = cluster(Discovery::Static(assignment(&["127.0.0.1"])));
    let first = good(&with_cluster(old.clone()), &empty());
    let second = good(
        &with_cluster(xds_cluster::Cluster {
            protocol: UpstreamProtocol::Http2,
            ..old
        }),
        &first,
    );
    let id = |snapshot: &Snapshot| {
        snapshot.cluster("c").unwrap().set().unwrap().members()[0]
            .endpoint
            .id
    };
    assert_ne!(id(&first), id(&second));
}

#[test]
fn a_refused_cluster_is_named_and_the_last_good_one_serves() {
    let first = good(
        &with_cluster(cluster(Discovery::Static(assignment(&["127.0.0.1"])))),
        &empty(),
    );
    let bad = with_cluster(cluster(Discovery::Static(assignment(&["shop.local"]))));
    let (second, rejected) = Snapshot::compile(&bad, &first);
    assert_eq!(rejected[0].name, "c");
    assert!(
        rejected[0].why.contains("shop.local"),
        "{}",
        rejected[0].why
    );
    assert_eq!(addresses(&second), ["127.0.0.1:80".parse().unwrap()]);
}

#[test]
fn a_removed_cluster_is_gone() {
    let first = good(
        &with_cluster(cluster(Discovery::Static(assignment(&["127.0.0.1"])))),
        &empty(),
    );
    assert!(good(&Resources::default(), &first).cluster("c").is_none());
}

#[test]
fn a_secret_that_has_not_come_is_no_error_and_one_that_is_garbage_is() {
    let tls = UpstreamTls {
        certificate: Some(SecretSource::Ads("spiffe://t/n".to_owned())),
        validation: None,
        sni: None,
        alpn: Vec::new(),
    };
    let config = cluster(Discovery::Static(assignment(&["127.0.0.1"])));
    let mut resources = with_cluster(xds_cluster::Cluster {
        tls: Some(tls),
        ..config
    });
    let first = good(&resources, &empty());
    assert!(
        first
            .cluster("c")
            .unwrap()
            .tls
            .as_ref()
            .unwrap()
            .config
            .as_ref()
            .unwrap_err()
            .is_pending()
    );
    let value = pillion_xds::secret::SecretValue::Certificate {
        chain: "x".to_owned(),
        key: "y".to_owned(),
    };
    let secret = pillion_xds::secret::Secret {
        name: "spiffe://t/n".to_owned(),
        value,
    };
    resources
        .secrets
        .insert(secret.name.clone(), Arc::new(secret));
    let (_, rejected) = Snapshot::compile(&resources, &first);
    assert!(
        rejected[0].why.contains("spiffe://t/n"),
        "{}",
        rejected[0].why
    );
}

#[test]
fn a_table_that_does_not_compile_is_refused_and_the_old_one_stays() {
    let table = |domains: &[&str]| {
        let domains = domains.iter().map(|domain| (*domain).to_owned()).collect();
        let host = VirtualHost {
            name: "h".to_owned(),
            domains,
            routes: Vec::new(),
        };
        Arc::new(RouteConfiguration {
            name: "r".to_owned(),
            virtual_hosts: vec![host],
        })
    };
    let mut resources = Resources::default();
    resources.routes.insert("r".to_owned(), table(&["a"]));
    let first = good(&resources, &empty());
    resources.routes.insert("r".to_owned(), table(&["b", "b"]));
    let (second, rejected) = Snapshot::compile(&resources, &first);
    assert_eq!(rejected[0].name, "r");
    assert!(second.routes().next().unwrap().knows("a"));
}

#[tokio::test]
async fn a_replacement_wakes_subscribers_and_is_seen_at_once() {
    let live = Live::new(empty());
    let mut changes = live.subscribe();
    let generation = live.generation();
    live.replace(good(&Resources::default(), &live.current()));
    changes.changed().await.unwrap();
    assert_eq!(live.current().version, 1);
    assert_ne!(live.generation(), generation);
}
