// SPDX-License-Identifier: Apache-2.0
//! Doors: `--listen`, gateway listeners that come and go, clusters by DNS, ejection and probes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use pillion_xds::cluster::Cluster;
use pillion_xds::cluster::Discovery;
use pillion_xds::cluster::HealthCheck;
use pillion_xds::cluster::OutlierDetection;
use pillion_xds::cluster::Probe;
use pillion_xds::cluster::UpstreamProtocol;
use pillion_xds::listener::Direction;
use pillion_xds::listener::Listener;
use pillion_xds::listener::NetworkFilter;
use tokio::net::TcpStream;

use crate::plane::*;

#[tokio::test]
async fn listen_serves_the_virtual_port_from_the_app_s_own_address() {
    let chain = chain_for_port(8080, NetworkFilter::Http(Box::new(manager("ingress", "r"))));
    let plane = Plane::start(
        ingress(vec![chain], UpstreamProtocol::Http1),
        Some(named("app").await),
    );
    assert_eq!(body(send(plane.listen(), get("/")).await).await, "app");
    assert_eq!(plane.stat("listener.0.0.0.0_15000.downstream_cx_total"), 1);
}

#[tokio::test]
async fn a_port_without_chain_is_closed_and_counted() {
    let chain = chain_for_port(9999, NetworkFilter::Http(Box::new(manager("ingress", "r"))));
    let plane = Plane::start(
        ingress(vec![chain], UpstreamProtocol::Http1),
        Some(named("app").await),
    );
    assert_eq!(
        raw(plane.listen(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await,
        ""
    );
    plane
        .eventually_stat("listener.0.0.0.0_15000.no_filter_chain_match", 1)
        .await;
}

#[tokio::test]
async fn connect_is_for_the_outbound_side() {
    let chain = chain_for_port(8080, NetworkFilter::Http(Box::new(manager("ingress", "r"))));
    let plane = Plane::start(
        ingress(vec![chain], UpstreamProtocol::Http1),
        Some(named("app").await),
    );
    let answer = raw(
        plane.listen(),
        b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
}

#[tokio::test]
async fn a_connection_that_comes_before_its_configuration_waits_for_it() {
    let app = named("app").await;
    let mut plane = Plane::start(Default::default(), Some(app));
    let early = tokio::spawn(send(plane.listen(), get("/")));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let chain = chain_for_port(8080, NetworkFilter::Http(Box::new(manager("ingress", "r"))));
    plane.push(|resources| *resources = ingress(vec![chain], UpstreamProtocol::Http1));
    assert_eq!(early.await.unwrap().status(), 200);
}

fn gateway(port: u16) -> Listener {
    let mut manager = manager("ingress", "r");
    manager.use_remote_address = true;
    Listener {
        name: "lds_ingress_0.0.0.0_port_1".to_owned(),
        address: SocketAddr::from(([0, 0, 0, 0], port)),
        direction: Direction::Inbound,
        original_destination: false,
        filter_chains: vec![chain("http", NetworkFilter::Http(Box::new(manager)))],
        default_filter_chain: None,
    }
}

#[tokio::test]
async fn a_gateway_listener_is_bound_announced_and_unbound_as_configuration_says() {
    let app = app(|request| async move {
        let headers = request.headers();
        let internal = headers.contains_key("x-envoy-internal-thing");
        text(
            200,
            format!(
                "{} {internal}",
                headers["x-forwarded-for"].to_str().unwrap()
            ),
        )
    })
    .await;
    let heard: Arc<Mutex<Vec<(String, SocketAddr)>>> = Arc::default();
    let announced = Arc::clone(&heard);
    let resources = egress(
        vec![static_cluster("a", &[app])],
        vec![route_to("/", forward(&[("a", 1)]))],
    );
    let mut plane = Plane::start_with(resources, None, move |settings| {
        settings.announce = Arc::new(move |bound| announced.lock().extend_from_slice(bound));
    });
    let port = nobody().await.port();
    plane.push(|resources| add_listener(resources, gateway(port)));
    eventually("the gateway is announced", || async {
        !heard.lock().is_empty()
    })
    .await;
    let bound = SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(*heard.lock(), [(format!("gateway:{port}"), bound)]);
    assert!(
        plane
            .plane
            .addresses()
            .contains(&(format!("gateway:{port}"), bound))
    );

    let mut request = get("/");
    request
        .headers_mut()
        .insert("x-envoy-internal-thing", "1".parse().unwrap());
    request
        .headers_mut()
        .insert("x-forwarded-for", "9.9.9.9".parse().unwrap());
    assert_eq!(
        body(send(bound, request).await).await,
        "9.9.9.9,127.0.0.1 false"
    );

    plane.push(|resources| drop(resources.listeners.remove("lds_ingress_0.0.0.0_port_1")));
    eventually("the port is closed", || async {
        TcpStream::connect(bound).await.is_err()
    })
    .await;
}

#[tokio::test]
async fn names_resolve_and_literals_need_no_name_server() {
    let app = named("found").await;
    let mut cluster = static_cluster("a", &[app]);
    let Discovery::Static(assignment) = cluster.discovery else {
        unreachable!("made so")
    };
    cluster.discovery = Discovery::StrictDns(assignment);
    let plane = Plane::start(
        egress(vec![cluster], vec![route_to("/", forward(&[("a", 1)]))]),
        None,
    );
    assert_eq!(body(send(plane.egress(), get("/")).await).await, "found");
}

#[tokio::test]
async fn localhost_resolves_by_the_hosts_file() {
    let app = named("found").await;
    let mut cluster = static_cluster("a", &[app]);
    let Discovery::Static(mut assignment) = cluster.discovery else {
        unreachable!("made so")
    };
    assignment.localities[0].endpoints[0].host = "localhost".to_owned();
    cluster.discovery = Discovery::LogicalDns(assignment);
    let plane = Plane::start(
        egress(vec![cluster], vec![route_to("/", forward(&[("a", 1)]))]),
        None,
    );
    assert_eq!(body(send(plane.egress(), get("/")).await).await, "found");
}

#[tokio::test]
async fn an_endpoint_that_fails_in_a_row_is_ejected_and_comes_back() {
    let broken = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&broken);
    let bad = app(move |_| {
        let status = if state.load(Ordering::SeqCst) {
            500
        } else {
            200
        };
        async move { text(status, "bad") }
    })
    .await;
    let cluster = Cluster {
        outlier_detection: Some(OutlierDetection {
            consecutive_5xx: 3,
            interval: Duration::from_millis(50),
            base_ejection_time: Duration::from_millis(400),
            max_ejection_percent: 50,
        }),
        ..static_cluster("a", &[bad, named("good").await])
    };
    let plane = Plane::start(
        egress(vec![cluster], vec![route_to("/", forward(&[("a", 1)]))]),
        None,
    );
    for _ in 0..6 {
        body(send(plane.egress(), get("/")).await).await;
    }
    assert_eq!(
        plane.stat("cluster.a.outlier_detection.ejections_active"),
        1
    );
    for _ in 0..4 {
        assert_eq!(body(send(plane.egress(), get("/")).await).await, "good");
    }
    broken.store(false, Ordering::SeqCst);
    eventually("the endpoint is back", || async {
        let response = send(plane.egress(), get("/")).await;
        (response.status().as_u16(), body(response).await) == (200, "bad".to_owned())
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_fails_its_probe_leaves_until_it_passes() {
    let well = Arc::new(AtomicBool::new(false));
    let state = Arc::clone(&well);
    let sick = app(move |request| {
        let probe = request.uri().path() == "/health";
        let status = if probe && !state.load(Ordering::SeqCst) {
            503
        } else {
            200
        };
        async move { text(status, "sick") }
    })
    .await;
    let cluster = Cluster {
        health_checks: vec![HealthCheck {
            probe: Probe::Http {
                path: "/health".to_owned(),
                http2: false,
            },
            interval: Duration::from_millis(50),
            timeout: Duration::from_secs(2),
            healthy_threshold: 2,
            unhealthy_threshold: 2,
        }],
        ..static_cluster("a", &[sick, named("well").await])
    };
    let plane = Plane::start(
        egress(vec![cluster], vec![route_to("/", forward(&[("a", 1)]))]),
        None,
    );
    plane
        .eventually_stat("cluster.a.membership_healthy", 1)
        .await;
    for _ in 0..4 {
        assert_eq!(body(send(plane.egress(), get("/")).await).await, "well");
    }
    well.store(true, Ordering::SeqCst);
    plane
        .eventually_stat("cluster.a.membership_healthy", 2)
        .await;
}

#[tokio::test]
async fn a_grpc_probe_asks_the_health_service() {
    let app = app(|request| async move {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        text(200, &[0, 0, 0, 0, 2, 8, 1][..])
    })
    .await;
    let cluster = Cluster {
        health_checks: vec![HealthCheck {
            probe: Probe::Grpc,
            interval: Duration::from_millis(50),
            timeout: Duration::from_secs(2),
            healthy_threshold: 1,
            unhealthy_threshold: 1,
        }],
        ..static_cluster("a", &[app])
    };
    let plane = Plane::start(
        egress(vec![cluster], vec![route_to("/", forward(&[("a", 1)]))]),
        None,
    );
    plane
        .eventually_stat("cluster.a.membership_healthy", 1)
        .await;
}
