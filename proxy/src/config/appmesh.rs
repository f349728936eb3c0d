// SPDX-License-Identifier: Apache-2.0
//! App Mesh's environment variables: those that have a meaning here, and those whose place something else has taken.
//! Called by the check of the arguments, and by `main` for the warnings.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::time::Duration;

use super::Env;
use super::PORT;
use super::Report;
use super::XdsEndpoint;

pub(super) const HELP: &str = "\
Examples:
  APPMESH_RESOURCE_ARN=mesh/shop/virtualNode/web APPMESH_XDS_ENDPOINT=127.0.0.1:8701 pillion-proxy
      the sidecar of web: the application sends to 127.0.0.1:15001 as its HTTP proxy
  pillion-proxy --resource-arn mesh/shop/virtualNode/web --xds-endpoint 127.0.0.1:8701 --listen 8080=127.0.0.1:3000
      no redirection: the sidecar itself listens on 8080 and hands on to the application on 3000

App Mesh's variables keep their meaning:
  APPMESH_RESOURCE_ARN          older: APPMESH_RESOURCE_NAME, APPMESH_VIRTUAL_NODE_NAME
  APPMESH_RESOURCE_CLUSTER      node.cluster [default: the ARN]
  APPMESH_XDS_ENDPOINT          the control plane
  APPMESH_SDS_SOCKET_PATH       unix socket of an SDS server, such as a SPIRE agent's
  ENVOY_LOG_LEVEL               trace, debug, info, warning, error, critical, off [default: info]
  ENVOY_CONCURRENCY             worker threads [default: cores]
  ENVOY_ADMIN_ACCESS_PORT       [default: 9901]
  ENVOY_INITIAL_FETCH_TIMEOUT   seconds; 0 waits for ever [default: 0]
  XRAY_SAMPLING_RATE            share of new traces that are kept, 0 to 1 [default: 0.05]
  XRAY_SEGMENT_NAME             name in traces [default: <mesh>/<node>]
  LISTENER_DRAIN_WAIT_TIME_S    5 to 110 [default: 20]
  APPNET_AGENT_HTTP_PORT        [default: 9902]
  APPNET_AGENT_HTTP_BIND_ADDRESS [default: 127.0.0.1]

Exit codes: 0 drained, 1 failed, 2 bad usage or configuration.";

/// Settings of behaviour that App Mesh had in the environment.
pub(super) struct Behaviour {
    pub(super) sampling: f64,
    pub(super) drain_wait: Duration,
    pub(super) initial_fetch_timeout: Duration,
    pub(super) log_filter: String,
}

pub(super) fn behaviour(env: Env<'_>, report: &mut Report) -> Behaviour {
    let rate = env("XRAY_SAMPLING_RATE").filter(|text| !text.is_empty());
    let hint = "is not a share from 0 to 1, such as 0.05";
    let mut sampling = report.parse("XRAY_SAMPLING_RATE", rate.as_deref(), 0.05_f64, hint);
    if !(0.0..=1.0).contains(&sampling) {
        report.add("XRAY_SAMPLING_RATE", &rate.unwrap_or_default(), hint);
        sampling = 0.05;
    }
    let mut seconds = |name, default, bounds| {
        let written = env(name).filter(|text| !text.is_empty());
        Duration::from_secs(report.bounded(name, written.as_deref(), default, bounds))
    };
    let drain_wait = seconds("LISTENER_DRAIN_WAIT_TIME_S", 20, (5, 110));
    let initial_fetch_timeout = seconds("ENVOY_INITIAL_FETCH_TIMEOUT", 0, (0, 86_400));
    let log_filter = log_filter(env("ENVOY_LOG_LEVEL").as_deref(), report);
    Behaviour {
        sampling,
        drain_wait,
        initial_fetch_timeout,
        log_filter,
    }
}

/// Envoy's level names; `critical` has no like and becomes `error`.
fn log_filter(level: Option<&str>, report: &mut Report) -> String {
    let level = level.unwrap_or("info");
    let ours = match level.to_ascii_lowercase().as_str() {
        "trace" => "trace",
        "debug" => "debug",
        "info" | "" => "info",
        "warning" | "warn" => "warn",
        "error" | "critical" => "error",
        "off" => "off",
        _ => {
            let why = "is no level; use trace, debug, info, warning, error, critical or off";
            report.add("ENVOY_LOG_LEVEL", level, why);
            "info"
        }
    };
    ours.to_owned()
}

/// `/run/spire/sockets/agent.sock`, which need not be there yet.
pub(super) fn sds_socket(env: Env<'_>, report: &mut Report) -> Option<XdsEndpoint> {
    let setting = "APPMESH_SDS_SOCKET_PATH";
    let written = env(setting).filter(|text| !text.is_empty())?;
    let path = written.strip_prefix("unix://").unwrap_or(&written);
    if !path.starts_with('/') {
        let why = "is no absolute path; give the SDS server's socket, such as /run/spire/sockets/agent.sock";
        report.add(setting, &written, why);
    }
    Some(XdsEndpoint {
        uri: format!("unix://{path}"),
        ca: None,
    })
}

pub(super) fn agent_addr(env: Env<'_>, report: &mut Report, port: u16) -> SocketAddr {
    let setting = "APPNET_AGENT_HTTP_PORT";
    let port = report.parse(setting, env(setting).as_deref(), port, PORT);
    let setting = "APPNET_AGENT_HTTP_BIND_ADDRESS";
    let ip: IpAddr = Ipv4Addr::LOCALHOST.into();
    let written = env(setting);
    let bare = written.as_deref().map(|text| text.trim_matches(['[', ']']));
    let ip = report.parse(setting, bare, ip, "is not an IP address");
    SocketAddr::new(ip, port)
}

/// Variables that ask for what is not here, and what takes its place. A value of `0` or `false` asks for nothing.
const REPLACED: &[(&str, &str)] = &[
    (
        "ENABLE_ENVOY_DATADOG_TRACING",
        "Datadog's tracer is not built in; give --collector and let the collector, or an OpenTelemetry one, export to Datadog",
    ),
    (
        "ENABLE_ENVOY_JAEGER_TRACING",
        "Zipkin spans are not sent; give --collector: Pillion's collector answers Jaeger's query API",
    ),
    (
        "ENABLE_ENVOY_XRAY_TRACING",
        "spans go by OTLP, not to an X-Ray daemon; give --collector: Pillion's collector answers the X-Ray API",
    ),
    (
        "ENABLE_ENVOY_DOG_STATSD",
        "DogStatsD is not sent; scrape /stats/prometheus on the admin port",
    ),
    (
        "XRAY_SAMPLING_RULE_MANIFEST",
        "sampling rule files are not read; use XRAY_SAMPLING_RATE",
    ),
    (
        "ENVOY_CONFIG_FILE",
        "Envoy bootstraps are not read; configuration comes from the control plane",
    ),
    (
        "ENVOY_RESOURCES_CONFIG_FILE",
        "Envoy bootstraps are not read; configuration comes from the control plane",
    ),
    (
        "ENVOY_TRACING_CFG_FILE",
        "Envoy tracing files are not read; give --collector",
    ),
    (
        "ENVOY_STATS_CONFIG_FILE",
        "Envoy stats files are not read; filter with /stats?filter=",
    ),
    (
        "ENVOY_STATS_SINKS_CFG_FILE",
        "stats sinks are not built in; scrape /stats/prometheus on the admin port",
    ),
    (
        "APPMESH_FIPS_ENDPOINT",
        "AWS endpoints are not used; the control plane is APPMESH_XDS_ENDPOINT",
    ),
    (
        "APPMESH_DUALSTACK_ENDPOINT",
        "AWS endpoints are not used; the control plane is APPMESH_XDS_ENDPOINT",
    ),
    (
        "APPMESH_PREVIEW",
        "there is no preview channel; the control plane is APPMESH_XDS_ENDPOINT",
    ),
];

/// A warning for each variable that asks for what is not here.
pub fn warnings(env: Env<'_>) -> Vec<String> {
    let mut all = Vec::new();
    for (name, instead) in REPLACED {
        let value = env(name).unwrap_or_default();
        if !matches!(value.to_ascii_lowercase().as_str(), "" | "0" | "false") {
            all.push(format!("{name}={value}: {instead}"));
        }
    }
    for (name, plain) in [
        ("ENVOY_ADMIN_MODE", "tcp"),
        ("APPNET_AGENT_ADMIN_MODE", "tcp"),
    ] {
        let value = env(name).unwrap_or_default();
        if !value.is_empty() && value != plain {
            all.push(format!(
                "{name}={value}: only tcp is served; see --admin-addr and --agent-addr"
            ));
        }
    }
    all
}
