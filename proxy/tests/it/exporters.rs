// SPDX-License-Identifier: Apache-2.0
//! What the built proxy sends to daemons beside it: X-Ray segments and DogStatsD metrics, as App Mesh's Envoy did.

use std::path::Path;

use pillion_xds::listener as xds;
use pillion_xds::resource::Resource;
use serde_json::Value;
use tokio::net::UdpSocket;

use crate::plane;
use crate::plane::eventually;
use crate::xds::configure;
use crate::xds_proxy::Proxy;
use crate::xds_proxy::call;
use crate::xds_proxy::command;
use crate::xds_server::Ads;

async fn started(variables: &[(&str, &str)]) -> (Ads, Proxy) {
    let ads = Ads::start().await;
    let mut command = command(&ads.addr.to_string(), &[]);
    command.envs(variables.iter().copied());
    let proxy = Proxy::spawn(command).await;
    configure(&ads, plane::named("v1").await).await;
    proxy.live().await;
    (ads, proxy)
}

async fn daemon() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port().to_string();
    (socket, port)
}

async fn datagram(socket: &UdpSocket) -> String {
    let mut buffer = vec![0; 65536];
    let received = tokio::time::timeout(plane::LIMIT, socket.recv(&mut buffer)).await;
    let number = received.expect("a datagram in time").unwrap();
    String::from_utf8(buffer[..number].to_vec()).unwrap()
}

#[tokio::test]
async fn a_request_is_a_segment_to_the_xray_daemon() {
    let (socket, port) = daemon().await;
    let (_ads, proxy) = started(&[
        ("ENABLE_ENVOY_XRAY_TRACING", "1"),
        ("XRAY_DAEMON_PORT", &port),
        ("XRAY_SEGMENT_NAME", "shop/front"),
        ("XRAY_SAMPLING_RATE", "1"),
    ])
    .await;
    let head = "GET /a?b=1 HTTP/1.1\r\nHost: shop.local\r\nUser-Agent: agent/1\r\n\
                X-Amzn-Trace-Id: Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1\r\n\
                Connection: close\r\n\r\n";
    let answer = plane::raw(proxy.addr("egress"), head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let sent = datagram(&socket).await;
    let (header, document) = sent.split_once('\n').unwrap();
    assert_eq!(header, "{\"format\":\"json\",\"version\":1}");
    let segment: Value = serde_json::from_str(document).unwrap();
    for (pointer, wanted) in [
        ("/name", "shop/front"),
        ("/trace_id", "1-5759e988-bd862e3fe1be46a994272793"),
        ("/parent_id", "53995c3f42cd8ad8"),
        ("/origin", "AWS::AppMesh::Proxy"),
        ("/aws/app_mesh/mesh_name", "m"),
        ("/aws/app_mesh/virtual_node_name", "web"),
        ("/http/request/method", "GET"),
        ("/http/request/url", "http://shop.local/a"),
        ("/http/request/user_agent", "agent/1"),
        ("/annotations/component", "proxy"),
        ("/annotations/upstream_cluster", "a"),
        ("/annotations/response_flags", "-"),
        ("/annotations/request_size", "0"),
    ] {
        let found = segment.pointer(pointer).and_then(Value::as_str);
        assert_eq!(found, Some(wanted), "{pointer} in {segment}");
    }
    assert_eq!(segment["http"]["response"]["status"], 200);
    assert_eq!(segment["http"]["response"]["content_length"], 2);
    assert_eq!(segment["id"].as_str().unwrap().len(), 16);
    let time = |name: &str| segment[name].as_f64().unwrap();
    assert!(time("start_time") > 1e9 && time("end_time") >= time("start_time"));
    for absent in ["error", "fault", "throttle", "type"] {
        assert!(segment.get(absent).is_none(), "{absent} in {segment}");
    }
    // Nobody need be there: requests go on, losses are counted or gone with the network.
    drop(socket);
    for _ in 0..20 {
        assert_eq!(proxy.get("shop.local").await.0, 200);
    }
}

#[tokio::test]
async fn a_rule_file_decides_which_traces_are_kept() {
    let (socket, port) = daemon().await;
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules.json");
    let text = r#"{"version": 2, "rules": [{"host": "*", "http_method": "*", "url_path": "/kept*",
        "fixed_target": 0, "rate": 1.0}], "default": {"fixed_target": 0, "rate": 0.0}}"#;
    std::fs::write(&rules, text).unwrap();
    let (_ads, proxy) = started(&[
        ("ENABLE_ENVOY_XRAY_TRACING", "true"),
        ("AWS_XRAY_DAEMON_ADDRESS", &format!("127.0.0.1:{port}")),
        ("XRAY_SAMPLING_RULE_MANIFEST", rules.to_str().unwrap()),
    ])
    .await;
    for path in ["/dropped", "/kept/1"] {
        let head = format!("GET {path} HTTP/1.1\r\nHost: shop.local\r\nConnection: close\r\n\r\n");
        plane::raw(proxy.addr("egress"), head.as_bytes()).await;
    }
    let sent = datagram(&socket).await;
    assert!(sent.contains("http://shop.local/kept/1"), "{sent}");
}

#[tokio::test]
async fn metrics_go_by_dogstatsd_with_tags() {
    let (socket, port) = daemon().await;
    let (_ads, proxy) = started(&[
        ("ENABLE_ENVOY_DOG_STATSD", "1"),
        ("STATSD_PORT", &port),
        ("ENVOY_STATS_FLUSH_INTERVAL", "100ms"),
        ("APPMESH_METRIC_EXTENSION_VERSION", "1"),
    ])
    .await;
    assert_eq!(proxy.get("shop.local").await.0, 200);
    let mut missing = vec![
        "envoy.cluster.upstream_rq_total:1|c|#envoy.cluster_name:a,appmesh.mesh:m,appmesh.virtual_node:web",
        "envoy.http.downstream_rq_xx:1|c|#envoy.http_conn_manager_prefix:egress,envoy.response_code_class:2,appmesh.mesh:m",
        "envoy.appmesh.RequestCount:1|c|#Mesh:m,VirtualNode:web",
        "envoy.control_plane.connected_state:1|g|#",
        "envoy.cluster.upstream_rq_time:",
    ];
    let begun = std::time::Instant::now();
    while !missing.is_empty() {
        assert!(begun.elapsed() < plane::LIMIT, "never sent: {missing:?}");
        let sent = datagram(&socket).await;
        assert!(sent.len() <= 1400, "{}", sent.len());
        let has = |wanted: &&str| sent.lines().any(|line| line.starts_with(*wanted));
        missing.retain(|wanted| !has(wanted));
    }
}

#[tokio::test]
async fn the_metrics_extension_is_on_the_agents_page() {
    let (_ads, proxy) = started(&[("APPMESH_METRIC_EXTENSION_VERSION", "1")]).await;
    assert_eq!(proxy.get("shop.local").await.0, 200);
    // The agent answers ten a second; what is beyond is not what is looked for.
    eventually("the request is counted", || async {
        let path = "/stats/prometheus?usedonly&filter=metrics_extension";
        let answer = call(proxy.addr("agent"), "GET", "localhost", path).await;
        let text = answer.unwrap().1;
        text.contains("envoy_appmesh_RequestCount{Mesh=\"m\",VirtualNode=\"web\"} 1")
            && text.contains("envoy_appmesh_NewConnectionCount{")
            && !text.contains("envoy_cluster_")
    })
    .await;
}

/// The egress listener with an access log of this path.
fn logging(path: &str) -> Resource {
    let mut manager = plane::manager("egress", "r");
    manager.access_logs = vec![xds::AccessLog {
        path: path.to_owned(),
        format: xds::AccessLogFormat::Text("%REQ(:PATH)%\n".to_owned()),
    }];
    let default = plane::chain("default", xds::NetworkFilter::Http(Box::new(manager)));
    Resource::Listener(xds::Listener {
        default_filter_chain: Some(default),
        ..plane::egress_listener()
    })
}

#[tokio::test]
async fn a_log_that_is_moved_away_goes_on_in_a_new_file() {
    let (ads, proxy) = started(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    ads.push("l2", &[logging(path.to_str().unwrap())]).await;
    let lines = |path: &Path| std::fs::read_to_string(path).map_or(0, |text| text.lines().count());
    let written = || async {
        eventually("a line is written", || async { lines(&path) > 0 }).await;
    };
    let ask = || async { assert_eq!(proxy.get("shop.local").await.0, 200) };
    eventually("the log is open", || async {
        ask().await;
        path.exists()
    })
    .await;
    written().await;
    std::fs::rename(&path, dir.path().join("access.log.1")).unwrap();
    ask().await;
    written().await;
}

#[tokio::test]
async fn a_log_that_nobody_reads_stalls_no_request_and_no_exit() {
    let (ads, mut proxy) = started(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stalled");
    // Opening a pipe waits for a reader, who never comes.
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    ads.push("l2", &[logging(path.to_str().unwrap())]).await;
    for _ in 0..50 {
        assert_eq!(proxy.get("shop.local").await.0, 200);
    }
    proxy.terminate();
    assert_eq!(proxy.ended().await, Some(0), "{}", proxy.log());
}

#[tokio::test]
async fn a_caller_that_asks_hears_whether_its_trace_is_kept() {
    let (_socket, port) = daemon().await;
    let (_ads, proxy) = started(&[
        ("ENABLE_ENVOY_XRAY_TRACING", "1"),
        ("XRAY_DAEMON_PORT", &port),
        ("XRAY_SAMPLING_RATE", "1"),
    ])
    .await;
    let root = "Root=1-5759e988-bd862e3fe1be46a994272793";
    for (said, answered) in [("Sampled=?", true), ("Sampled=0", false)] {
        let head = format!(
            "GET / HTTP/1.1\r\nHost: shop.local\r\nX-Amzn-Trace-Id: {root};{said}\r\nConnection: close\r\n\r\n"
        );
        let answer = plane::raw(proxy.addr("egress"), head.as_bytes()).await;
        let line = format!("x-amzn-trace-id: {root};Sampled=1");
        assert_eq!(answer.contains(&line), answered, "{said}: {answer}");
    }
}
