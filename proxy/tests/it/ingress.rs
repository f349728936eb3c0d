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
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("ejections");
    let path: Arc<str> = log.to_str().unwrap().into();
    let plane = Plane::start_with(
        egress(vec![cluster], vec![route_to("/", forward(&[("a", 1)]))]),
        None,
        |settings| settings.ejection_log = path,
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
    let events = || {
        let written = std::fs::read_to_string(&log).unwrap_or_default();
        let said = |line: &str| {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            let field = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            assert_eq!(field("cluster_name"), "a");
            assert_eq!(event["num_ejections"], 1);
            (field("action"), field("upstream_url"))
        };
        written.lines().map(said).collect::<Vec<_>>()
    };
    let at = bad.to_string();
    let wanted = ["EJECT", "UNEJECT"].map(|action| (action.to_owned(), at.clone()));
    eventually("both are logged", || async { events() == wanted }).await;
}

/// Two of three are out: fewer than half are left, so health is not believed and all are used.
#[tokio::test]
async fn when_most_endpoints_are_ejected_all_are_used_again() {
    let failing = || app(|_| async { text(500, "bad") });
    let (one, two) = (failing().await, failing().await);
    let cluster = Cluster {
        outlier_detection: Some(OutlierDetection {
            consecutive_5xx: 1,
            interval: Duration::from_secs(60),
            base_ejection_time: Duration::from_secs(60),
            max_ejection_percent: 100,
        }),
        ..static_cluster("a", &[one, two, named("good").await])
    };
    let plane = Plane::start(
        egress(vec![cluster], vec![route_to("/", forward(&[("a", 1)]))]),
        None,
    );
    for _ in 0..3 {
        body(send(plane.egress(), get("/")).await).await;
    }
    assert_eq!(
        plane.stat("cluster.a.outlier_detection.ejections_active"),
        2
    );
    let panics = plane.stat("cluster.a.lb_healthy_panic");
    let mut good = 0;
    for _ in 0..9 {
        good += u32::from(body(send(plane.egress(), get("/")).await).await == "good");
    }
    assert_eq!(good, 3, "each gets its share");
    assert_eq!(plane.stat("cluster.a.lb_healthy_panic") - panics, 9);
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

fn probed(probe: Probe, endpoints: &[SocketAddr]) -> Cluster {
    Cluster {
        health_checks: vec![HealthCheck {
            probe,
            interval: Duration::from_millis(50),
            timeout: Duration::from_secs(2),
            healthy_threshold: 1,
            unhealthy_threshold: 1,
        }],
        ..static_cluster("a", endpoints)
    }
}

#[tokio::test]
async fn a_tcp_probe_tells_who_listens_from_who_does_not() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = gone.local_addr().unwrap();
    drop(gone);
    let cluster = probed(Probe::Tcp, &[named("here").await, dead]);
    let plane = Plane::start(
        egress(vec![cluster], vec![route_to("/", forward(&[("a", 1)]))]),
        None,
    );
    plane
        .eventually_stat("cluster.a.membership_healthy", 1)
        .await;
    for _ in 0..4 {
        assert_eq!(body(send(plane.egress(), get("/")).await).await, "here");
    }
    let back = tokio::net::TcpListener::bind(dead).await.unwrap();
    plane
        .eventually_stat("cluster.a.membership_healthy", 2)
        .await;
    drop(back);
}

#[tokio::test]
async fn an_http2_probe_speaks_http2() {
    let asked = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&asked);
    let app = app(move |request| {
        *seen.lock() = Some((request.version(), request.uri().path().to_owned()));
        async { text(200, "well") }
    })
    .await;
    let probe = Probe::Http {
        path: "/ping".to_owned(),
        http2: true,
    };
    let plane = Plane::start(
        egress(
            vec![probed(probe, &[app])],
            vec![route_to("/", forward(&[("a", 1)]))],
        ),
        None,
    );
    plane
        .eventually_stat("cluster.a.membership_healthy", 1)
        .await;
    let wanted = (http::Version::HTTP_2, "/ping".to_owned());
    assert_eq!(asked.lock().clone(), Some(wanted));
}

#[tokio::test]
async fn a_grpc_probe_asks_the_health_service() {
    let app = app(|request| async move {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        text(200, &[0, 0, 0, 0, 2, 8, 1][..])
    })
    .await;
    let cluster = probed(Probe::Grpc, &[app]);
    let plane = Plane::start(
        egress(vec![cluster], vec![route_to("/", forward(&[("a", 1)]))]),
        None,
    );
    plane
        .eventually_stat("cluster.a.membership_healthy", 1)
        .await;
}
