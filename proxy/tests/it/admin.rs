// SPDX-License-Identifier: Apache-2.0
//! The admin and agent servers of the built proxy: what App Mesh users scripted against.

use std::time::Duration;

use serde_json::Value;

use crate::plane::eventually;
use crate::plane::named;
use crate::xds::configure;
use crate::xds_proxy::Proxy;
use crate::xds_proxy::call;
use crate::xds_server::Ads;

async fn live() -> (Ads, Proxy) {
    let ads = Ads::start().await;
    let proxy = Proxy::start(ads.addr, &[]).await;
    configure(&ads, named("v1").await).await;
    proxy.live().await;
    (ads, proxy)
}

#[tokio::test]
async fn the_task_definitions_health_check_finds_its_line() {
    let (_ads, proxy) = live().await;
    // curl -s http://localhost:9901/server_info | grep state | grep -q LIVE
    let info = proxy.admin("GET", "/server_info").await.1;
    assert!(
        info.lines()
            .any(|line| line.contains("state") && line.contains("LIVE")),
        "{info}"
    );
    assert_eq!(
        proxy.admin("POST", "/healthcheck/fail").await,
        (200, "OK\n".to_owned())
    );
    assert_eq!(proxy.admin("GET", "/ready").await.0, 503);
    assert_eq!(proxy.admin("POST", "/healthcheck/ok").await.0, 200);
    assert_eq!(
        proxy.admin("GET", "/ready").await,
        (200, "LIVE\n".to_owned())
    );
}

#[tokio::test]
async fn stats_filter_in_every_format() {
    let (_ads, proxy) = live().await;
    proxy.get("shop.local").await;
    let text = proxy
        .admin("GET", "/stats?filter=%5Ecluster%5C.a%5C.&usedonly")
        .await
        .1;
    assert!(
        !text.is_empty()
            && text
                .lines()
                .all(|line| line.starts_with("cluster.a.") && !line.ends_with(": 0")),
        "{text}"
    );
    let json: Value = serde_json::from_str(
        &proxy
            .admin("GET", "/stats?format=json&filter=server.live")
            .await
            .1,
    )
    .unwrap();
    assert_eq!(json["stats"][0]["name"], "server.live");
    for path in ["/stats?format=prometheus", "/stats/prometheus"] {
        let text = proxy.admin("GET", path).await.1;
        assert!(
            text.contains("envoy_control_plane_connected_state{"),
            "{text}"
        );
        assert!(text.contains("appmesh_virtual_node=\"web\""), "{text}");
    }
    assert_eq!(proxy.admin("GET", "/stats?filter=(").await.0, 400);
    assert_eq!(proxy.admin("GET", "/stats?format=xml").await.0, 400);
}

#[tokio::test]
async fn reset_counters_zeroes_counters_and_leaves_levels() {
    let (_ads, proxy) = live().await;
    let value = |text: &str, name: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name}: ")))
            .map(str::to_owned);
        line.and_then(|line| {
            line.rsplit(' ')
                .next()
                .and_then(|number| number.parse::<u64>().ok())
        })
    };
    proxy.get("shop.local").await;
    let before = proxy.admin("GET", "/stats").await.1;
    assert!(
        value(&before, "cluster.a.upstream_rq_total") > Some(0),
        "{before}"
    );
    assert_eq!(proxy.admin("POST", "/reset_counters").await.0, 200);
    let after = proxy.admin("GET", "/stats").await.1;
    assert_eq!(value(&after, "cluster.a.upstream_rq_total"), Some(0));
    assert_eq!(value(&after, "cluster.a.membership_total"), Some(1));
    assert_eq!(value(&after, "control_plane.connected_state"), Some(1));
}

#[tokio::test]
async fn config_dump_names_resources_with_versions_in_envoys_outline() {
    let (_ads, proxy) = live().await;
    let dump: Value = serde_json::from_str(&proxy.admin("GET", "/config_dump").await.1).unwrap();
    let configs = dump["configs"].as_array().unwrap();
    let find = |kind: &str| {
        configs
            .iter()
            .find(|config| config["@type"].as_str().unwrap().ends_with(kind))
            .unwrap()
    };
    let clusters = find("ClustersConfigDump");
    assert_eq!(clusters["dynamic_active_clusters"][0]["version_info"], "c1");
    assert_eq!(
        clusters["dynamic_active_clusters"][0]["cluster"]["name"],
        "a"
    );
    let routes = find("RoutesConfigDump");
    assert_eq!(
        routes["dynamic_route_configs"][0]["route_config"]["virtual_hosts"][0]["domains"][0],
        "shop.local"
    );
    assert_eq!(
        find("ListenersConfigDump")["dynamic_listeners"][0]["active_state"]["version_info"],
        "l1"
    );
    assert_eq!(
        find("BootstrapConfigDump")["bootstrap"]["node"]["id"],
        "mesh/m/virtualNode/web"
    );
}

#[tokio::test]
async fn clusters_and_listeners_keep_envoys_lines() {
    let (_ads, proxy) = live().await;
    let clusters = proxy.admin("GET", "/clusters").await.1;
    assert!(
        clusters.contains("a::default_priority::max_connections::1024"),
        "{clusters}"
    );
    assert!(
        clusters
            .lines()
            .any(|line| line.starts_with("a::127.0.0.1:")
                && line.ends_with("::health_flags::healthy")),
        "{clusters}"
    );
    let listeners = proxy.admin("GET", "/listeners").await.1;
    assert!(
        listeners.contains(&format!("egress::{}", proxy.addr("egress"))),
        "{listeners}"
    );
}

#[tokio::test]
async fn the_log_level_changes_by_post_and_nonsense_is_refused() {
    let (_ads, proxy) = live().await;
    let (status, text) = proxy.admin("POST", "/logging?level=debug").await;
    assert!(status == 200 && text.contains("debug"), "{text}");
    let (status, text) = proxy.admin("POST", "/logging?level=loud").await;
    assert!(
        status == 400 && text.contains("loud") && text.contains("trace"),
        "{text}"
    );
    assert_eq!(proxy.admin("GET", "/logging?level=trace").await.0, 405);
}

#[tokio::test]
async fn draining_inbound_by_the_agent_closes_it_and_keeps_admin() {
    let (_ads, proxy) = live().await;
    assert_eq!(
        call(
            proxy.addr("agent"),
            "POST",
            "localhost",
            "/drain_listeners?inboundonly"
        )
        .await
        .unwrap()
        .0,
        200
    );
    eventually("ingress is closed", || async {
        tokio::net::TcpStream::connect(proxy.addr("ingress"))
            .await
            .is_err()
    })
    .await;
    assert_eq!(proxy.admin("GET", "/stats?filter=server").await.0, 200);
}

#[tokio::test]
async fn a_graceful_drain_keeps_serving_for_the_wait() {
    let (_ads, proxy) = live().await;
    assert_eq!(
        proxy.admin("POST", "/drain_listeners?graceful").await.0,
        200
    );
    assert_eq!(proxy.get("shop.local").await, (200, "v1".to_owned()));
    eventually("it closes after the wait", || async {
        tokio::net::TcpStream::connect(proxy.addr("egress"))
            .await
            .is_err()
    })
    .await;
}

#[tokio::test]
async fn sigterm_drains_an_idle_proxy_early_and_exits_0() {
    let (_ads, mut proxy) = live().await;
    let begun = std::time::Instant::now();
    proxy.terminate();
    assert_eq!(proxy.ended().await, Some(0), "{}", proxy.log());
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "nobody was there to wait for"
    );
}

#[tokio::test]
async fn the_agent_tells_how_the_control_plane_is() {
    let (ads, proxy) = live().await;
    let status = async || -> Value {
        let text = call(proxy.addr("agent"), "GET", "localhost", "/status")
            .await
            .unwrap()
            .1;
        serde_json::from_str(&text).unwrap()
    };
    let now = status().await;
    assert_eq!(
        (&now["healthStatus"], &now["envoyState"]),
        (&"HEALTHY".into(), &"LIVE".into())
    );
    assert_eq!(now["managementServerConnectionStatus"], "CONNECTED");
    ads.stop();
    eventually("it is told", || async {
        status().await["managementServerConnectionStatus"] == "DISCONNECTED"
    })
    .await;
    assert_eq!(
        status().await["healthStatus"],
        "HEALTHY",
        "the last configuration serves"
    );
}

#[tokio::test]
async fn times_are_printed_as_quantiles() {
    let (_ads, proxy) = live().await;
    let line = || async {
        let path = "/stats?filter=%5Ecluster%5C.a%5C.upstream_rq_time%24";
        proxy.admin("GET", path).await.1
    };
    assert_eq!(
        line().await,
        "cluster.a.upstream_rq_time: No recorded values\n"
    );
    proxy.get("shop.local").await;
    let text = line().await;
    assert!(
        text.contains(": P0(nan,") && text.contains(" P99.5(nan,") && text.contains(" P100(nan,"),
        "{text}"
    );
    let path = "/stats?format=json&filter=%5Ecluster%5C.a%5C.upstream_rq_time%24";
    let json: Value = serde_json::from_str(&proxy.admin("GET", path).await.1).unwrap();
    let times = &json["stats"][0]["histograms"];
    assert_eq!(times["supported_quantiles"][3], 75.0);
    assert_eq!(
        times["computed_quantiles"][0]["name"],
        "cluster.a.upstream_rq_time"
    );
}

#[tokio::test]
async fn config_dump_shows_the_part_that_is_asked_for() {
    let (_ads, proxy) = live().await;
    let path = "/config_dump?resource=dynamic_active_clusters&mask=cluster.name&name_regex=a";
    let dump: Value = serde_json::from_str(&proxy.admin("GET", path).await.1).unwrap();
    assert_eq!(
        dump,
        serde_json::json!({"configs": [{"cluster": {"name": "a"}}]})
    );
    let none = proxy.admin("GET", "/config_dump?resource=nothing").await;
    assert_eq!(none.0, 404, "{}", none.1);
}

#[tokio::test]
async fn what_changes_something_is_asked_by_post() {
    let (_ads, proxy) = live().await;
    for path in [
        "/quitquitquit",
        "/drain_listeners",
        "/healthcheck/fail",
        "/healthcheck/ok",
        "/reset_counters",
        "/reopen_logs",
        "/logging",
    ] {
        assert_eq!(proxy.admin("GET", path).await.0, 405, "{path}");
    }
    for path in ["/help", "/runtime", "/memory", "/hot_restart_version", "/"] {
        assert_eq!(proxy.admin("GET", path).await.0, 200, "{path}");
    }
    assert_eq!(proxy.admin("POST", "/reopen_logs").await.0, 200);
}

#[tokio::test]
async fn quitquitquit_drains_and_exits_zero() {
    let (_ads, mut proxy) = live().await;
    assert_eq!(proxy.admin("POST", "/quitquitquit").await.0, 200);
    assert_eq!(proxy.ended().await, Some(0), "{}", proxy.log());
}

#[tokio::test]
async fn the_agent_takes_ten_a_second_and_one_form_of_drain() {
    let (_ads, proxy) = live().await;
    let agent = |method, path| call(proxy.addr("agent"), method, "localhost", path);
    assert_eq!(
        agent("POST", "/drain_listeners?graceful").await.unwrap().0,
        400
    );
    assert_eq!(
        agent("POST", "/enableLogging?level=loud").await.unwrap().0,
        400
    );
    assert_eq!(
        agent("POST", "/enableLogging?level=debug").await.unwrap().0,
        200
    );
    let logging = proxy.admin("POST", "/logging").await.1;
    assert!(logging.contains("debug"), "{logging}");
    let mut refused = 0;
    for _ in 0..40 {
        refused += u32::from(agent("GET", "/status").await.unwrap().0 == 429);
    }
    assert!(refused > 0);
    assert_eq!(
        proxy.admin("GET", "/ready").await.0,
        200,
        "admin has no rate"
    );
}

#[tokio::test]
async fn a_level_of_the_agent_goes_back_by_itself() {
    let ads = Ads::start().await;
    let mut command = crate::xds_proxy::command(&ads.addr.to_string(), &[]);
    command.env("APPNET_AGENT_LOGGING_RESET_TIMEOUT", "1");
    let proxy = Proxy::spawn(command).await;
    let path = "/enableLogging?level=trace";
    let asked = call(proxy.addr("agent"), "POST", "localhost", path).await;
    assert_eq!(asked.unwrap().0, 200);
    eventually("it is info again", || async {
        let logging = proxy.admin("POST", "/logging").await.1;
        logging.contains("all: info")
    })
    .await;
}

#[tokio::test]
async fn admin_and_agent_answer_on_sockets_where_uds_is_asked_for() {
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let ads = Ads::start().await;
    // What an earlier life left behind is taken away.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut command = crate::xds_proxy::command(&ads.addr.to_string(), &[]);
    command.env("APPNET_AGENT_ADMIN_MODE", "uds");
    command.env("APPNET_AGENT_ADMIN_UDS_PATH", &path);
    let proxy = Proxy::spawn(command).await;
    assert!(!proxy.has("agent"), "no port is open for it");
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    let request = b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("healthStatus"), "{answer}");
}
