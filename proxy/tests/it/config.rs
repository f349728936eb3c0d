// SPDX-License-Identifier: Apache-2.0
//! What the built proxy says of its settings, before it does anything.

use crate::xds_proxy::Proxy;
use crate::xds_proxy::command;
use crate::xds_server::Ads;

#[tokio::test]
async fn every_problem_is_told_at_once_and_the_exit_code_is_2() {
    let output = command("nowhere", &["--listen", "8080"])
        .env("XRAY_SAMPLING_RATE", "7")
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    for part in [
        "APPMESH_XDS_ENDPOINT=\"nowhere\"",
        "--listen=\"8080\"",
        "XRAY_SAMPLING_RATE=\"7\"",
        "--help",
    ] {
        assert!(told.contains(part), "{part} in\n{told}");
    }
    assert!(output.stdout.is_empty());
}

#[tokio::test]
async fn help_names_flags_variables_and_defaults() {
    let output = command("127.0.0.1:1", &["--help"]).output().await.unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for part in [
        "--admin-addr",
        "PILLION_ADMIN_ADDR",
        "127.0.0.1:9901",
        "APPMESH_RESOURCE_ARN",
        "LISTENER_DRAIN_WAIT_TIME_S",
    ] {
        assert!(help.contains(part), "{part} in\n{help}");
    }
}

#[tokio::test]
async fn check_shows_what_holds_and_stops() {
    let output = command("127.0.0.1:8701", &["--check"])
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["node"]["id"], "mesh/m/virtualNode/web");
    assert_eq!(shown["xds"], "http://127.0.0.1:8701");
}

#[tokio::test]
async fn a_taken_port_fails_with_the_setting_and_the_way_out() {
    let ads = Ads::start().await;
    let taken = ads.addr.to_string();
    let output = command(&taken, &["--agent-addr", &taken])
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("--agent-addr") && told.contains("port 0"),
        "{told}"
    );
}

#[tokio::test]
async fn an_admin_port_for_strangers_needs_insistence() {
    let output = command("127.0.0.1:1", &["--admin-addr", "0.0.0.0:0"])
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("--admin-addr") && told.contains("--insecure"),
        "{told}"
    );
    let mut insisting = command("127.0.0.1:1", &["--admin-addr", "0.0.0.0:0"]);
    insisting.env("PILLION_INSECURE", "true");
    Proxy::spawn(insisting).await;
}

#[tokio::test]
async fn a_tracer_that_is_not_here_is_a_warning_that_names_what_is() {
    let mut with_datadog = command("127.0.0.1:1", &[]);
    with_datadog.env("ENABLE_ENVOY_DATADOG_TRACING", "1");
    let proxy = Proxy::spawn(with_datadog).await;
    crate::plane::eventually("it warns", || async {
        proxy.log().contains("ENABLE_ENVOY_DATADOG_TRACING=1")
            && proxy.log().contains("--collector")
    })
    .await;
}

/// Each with a value that asks for something, and a word of what is answered instead.
const REPLACED: [(&str, &str, &str); 19] = [
    ("ENABLE_ENVOY_DATADOG_TRACING", "1", "--collector"),
    ("ENVOY_CONFIG_FILE", "/envoy.yaml", "control plane"),
    ("ENVOY_RESOURCES_CONFIG_FILE", "/r.yaml", "control plane"),
    (
        "ENVOY_TRACING_CFG_FILE",
        "/t.yaml",
        "ENABLE_ENVOY_XRAY_TRACING",
    ),
    ("ENVOY_STATS_CONFIG_FILE", "/s.yaml", "/stats?filter="),
    (
        "ENVOY_STATS_SINKS_CFG_FILE",
        "/k.yaml",
        "ENABLE_ENVOY_DOG_STATSD",
    ),
    ("ENVOY_ADMIN_ACCESS_LOG_FILE", "/tmp/a.log", "loopback"),
    ("ENVOY_ENABLE_TCP_POOL_IDLE_TIMEOUT", "1", "no like here"),
    ("MAX_REQUESTS_PER_IO_CYCLE", "5", "no like here"),
    ("APPMESH_FIPS_ENDPOINT", "1", "APPMESH_XDS_ENDPOINT"),
    ("APPMESH_DUALSTACK_ENDPOINT", "1", "APPMESH_XDS_ENDPOINT"),
    ("APPMESH_PREVIEW", "1", "APPMESH_XDS_ENDPOINT"),
    ("APPMESH_SIGNING_NAME", "appmesh-preview", "--xds-ca"),
    ("APPNET_ENVOY_RESTART_COUNT", "3", "orchestrator"),
    ("PID_POLL_INTERVAL_MS", "200", "orchestrator"),
    ("HC_POLL_INTERVAL_MS", "5000", "/status"),
    (
        "APPNET_AGENT_POLL_ENVOY_READINESS_INTERVAL_S",
        "5",
        "/ready",
    ),
    ("ENABLE_STATS_SNAPSHOT", "1", "/stats/prometheus"),
    ("APPNET_ENVOY_LOG_DESTINATION", "/var/log", "stderr"),
];

#[tokio::test]
async fn every_variable_without_effect_is_answered_with_what_takes_its_place() {
    let mut all = command("127.0.0.1:1", &[]);
    all.envs(REPLACED.iter().map(|(name, value, _)| (name, value)));
    let proxy = Proxy::spawn(all).await;
    for (name, value, instead) in REPLACED {
        crate::plane::eventually(&format!("{name} is answered"), || async {
            let told = format!("{name}={value}: ");
            let log = proxy.log();
            let line = log.lines().find(|line| line.contains(&told));
            line.is_some_and(|line| line.contains("WARN") && line.contains(instead))
        })
        .await;
    }
    // One that asks for nothing is not worth a line.
    let mut off = command("127.0.0.1:1", &[]);
    off.env("ENABLE_ENVOY_JAEGER_TRACING", "0")
        .env("AWS_REGION", "us-east-1")
        .env("ENABLE_ENVOY_STATS_TAGS", "1");
    let proxy = Proxy::spawn(off).await;
    crate::plane::eventually("it has started", || async {
        proxy.log().contains("effective configuration")
    })
    .await;
    assert!(!proxy.log().contains("JAEGER"), "{}", proxy.log());
}

/// Each with a value, and where in `--check` it shows as what.
const EFFECTIVE: [(&str, &str, &str, &str); 19] = [
    (
        "APPMESH_RESOURCE_CLUSTER",
        "shop",
        "/node/cluster",
        "\"shop\"",
    ),
    (
        "APPMESH_SDS_SOCKET_PATH",
        "/run/a.sock",
        "/sds",
        "\"unix:///run/a.sock\"",
    ),
    (
        "APPMESH_METRIC_EXTENSION_VERSION",
        "1",
        "/metrics_extension",
        "true",
    ),
    ("ENVOY_LOG_LEVEL", "critical", "/log_filter", "\"error\""),
    (
        "ENVOY_OUTLIER_DETECTION_EVENT_LOG_PATH",
        "/var/log/ejections",
        "/ejection_log",
        "\"/var/log/ejections\"",
    ),
    (
        "ENVOY_INITIAL_FETCH_TIMEOUT",
        "9",
        "/initial_fetch_timeout_s",
        "9",
    ),
    (
        "ENVOY_ADMIN_MODE",
        "uds",
        "/admin_socket",
        "\"/tmp/envoy_admin.sock\"",
    ),
    (
        "APPNET_AGENT_ADMIN_MODE",
        "uds",
        "/agent_socket",
        "\"/run/agent.sock\"",
    ),
    (
        "APPNET_AGENT_ADMIN_UDS_PATH",
        "/run/agent.sock",
        "/agent_socket",
        "\"/run/agent.sock\"",
    ),
    (
        "ENABLE_ENVOY_XRAY_TRACING",
        "1",
        "/xray_daemon",
        "\"10.0.0.7:2001\"",
    ),
    (
        "AWS_XRAY_DAEMON_ADDRESS",
        "10.0.0.7",
        "/xray_daemon",
        "\"10.0.0.7:2001\"",
    ),
    (
        "XRAY_DAEMON_PORT",
        "2001",
        "/xray_daemon",
        "\"10.0.0.7:2001\"",
    ),
    ("XRAY_SAMPLING_RATE", "0.25", "/sampling_rate", "0.25"),
    ("XRAY_SEGMENT_NAME", "s", "/service_name", "\"s\""),
    (
        "ENABLE_ENVOY_DOG_STATSD",
        "1",
        "/statsd",
        "\"Udp(10.0.0.8:9125)\"",
    ),
    (
        "STATSD_ADDRESS",
        "10.0.0.8",
        "/statsd",
        "\"Udp(10.0.0.8:9125)\"",
    ),
    ("STATSD_PORT", "9125", "/statsd", "\"Udp(10.0.0.8:9125)\""),
    ("LISTENER_DRAIN_WAIT_TIME_S", "30", "/drain_wait_s", "30"),
    (
        "AWS_REGION",
        "eu-west-1",
        "/node/id",
        "\"mesh/m/virtualNode/web\"",
    ),
];

#[tokio::test]
async fn every_variable_with_effect_shows_in_what_holds() {
    let mut command = command("127.0.0.1:8701", &["--check"]);
    command.envs(EFFECTIVE.iter().map(|(name, value, ..)| (name, value)));
    let output = command.output().await.unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for (name, _, pointer, wanted) in EFFECTIVE {
        let found = shown.pointer(pointer).map(ToString::to_string);
        assert_eq!(found.as_deref(), Some(wanted), "{name} in {shown}");
    }
}

#[tokio::test]
async fn every_variable_with_a_bad_value_is_refused_by_name() {
    let bad = [
        ("APPMESH_SDS_SOCKET_PATH", "agent.sock"),
        ("APPMESH_METRIC_EXTENSION_VERSION", "2"),
        ("APPMESH_SET_TRACING_DECISION", "maybe"),
        ("ENVOY_LOG_LEVEL", "loud"),
        ("ENVOY_ADMIN_ACCESS_PORT", "99999"),
        ("ENVOY_ADMIN_ACCESS_ENABLE_IPV6", "6"),
        ("ENVOY_ADMIN_MODE", "pipe"),
        ("ENVOY_INITIAL_FETCH_TIMEOUT", "soon"),
        ("ENABLE_ENVOY_XRAY_TRACING", "on"),
        ("XRAY_SAMPLING_RATE", "5"),
        ("XRAY_SAMPLING_RULE_MANIFEST", "/nowhere.json"),
        ("ENABLE_ENVOY_DOG_STATSD", "yes"),
        ("LISTENER_DRAIN_WAIT_TIME_S", "1"),
        ("APPNET_AGENT_ADMIN_MODE", "pipe"),
        ("APPNET_AGENT_HTTP_PORT", "x"),
        ("APPNET_AGENT_HTTP_BIND_ADDRESS", "here"),
        ("APPNET_AGENT_LOGGING_RESET_TIMEOUT", "x"),
        ("HC_DISCONNECTED_TIMEOUT_S", "5"),
    ];
    let mut command = command("127.0.0.1:8701", &[]);
    command.envs(bad);
    let output = command.output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    for (name, value) in bad {
        assert!(
            told.contains(&format!("{name}={value:?}")),
            "{name} in\n{told}"
        );
    }
}

#[tokio::test]
async fn two_tracers_at_once_are_refused() {
    let mut command = command("127.0.0.1:8701", &[]);
    command.env("ENABLE_ENVOY_XRAY_TRACING", "1");
    command.env("ENABLE_ENVOY_JAEGER_TRACING", "1");
    let output = command.output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("only one tracer may be on"), "{told}");
}
