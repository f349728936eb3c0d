// SPDX-License-Identifier: Apache-2.0
//! App Mesh's environment variables: those that have a meaning here, and those whose place something else has taken.
//! Called by the check of the arguments, and by `main` for the warnings.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
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
  ENABLE_ENVOY_XRAY_TRACING     1 sends X-Ray segments to a daemon, where no --collector is given
  XRAY_DAEMON_PORT              [default: 2000]; AWS_XRAY_DAEMON_ADDRESS [default: 127.0.0.1]
  XRAY_SAMPLING_RATE            share of new traces that are kept, 0 to 1 [default: 0.05]
  XRAY_SAMPLING_RULE_MANIFEST   sampling rule file of version 2
  XRAY_SEGMENT_NAME             name in traces [default: <mesh>/<node>]
  APPMESH_SET_TRACING_DECISION  0 decides anew whatever the caller said; 1 follows callers from outside too
  ENABLE_ENVOY_DOG_STATSD       1 sends metrics to STATSD_ADDRESS [127.0.0.1], STATSD_PORT [8125], or STATSD_SOCKET_PATH
  ENVOY_STATS_FLUSH_INTERVAL    [default: 5s]
  APPMESH_METRIC_EXTENSION_VERSION  1 adds envoy_appmesh_* metrics
  ENVOY_OUTLIER_DETECTION_EVENT_LOG_PATH  ejections as JSON lines [default: /dev/stdout]
  ENVOY_ADMIN_MODE              tcp, or uds for /tmp/envoy_admin.sock
  ENVOY_ADMIN_ACCESS_ENABLE_IPV6  1 binds ::1
  LISTENER_DRAIN_WAIT_TIME_S    5 to 110 [default: 20]
  APPNET_AGENT_HTTP_PORT        [default: 9902]
  APPNET_AGENT_HTTP_BIND_ADDRESS [default: 127.0.0.1]
  APPNET_AGENT_ADMIN_MODE       tcp, or uds for APPNET_AGENT_ADMIN_UDS_PATH [/var/run/ecs/appnet_admin.sock]
  APPNET_AGENT_LOGGING_RESET_TIMEOUT  seconds a level of /enableLogging holds [default: 300]
  HC_DISCONNECTED_TIMEOUT_S     unhealthy when the control plane is away longer [default: 604800]

Exit codes: 0 drained, 1 failed, 2 bad usage or configuration.";

/// Where admin and agent are reached when it is not by TCP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    /// `ENVOY_ADMIN_MODE=uds`.
    pub admin: Option<PathBuf>,
    /// `APPNET_AGENT_ADMIN_MODE=uds`.
    pub agent: Option<PathBuf>,
}

/// The agent's times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentLimits {
    /// Without control plane for longer it calls itself unhealthy.
    pub disconnected: Duration,
    /// A log level that was asked for goes back after this.
    pub logging_reset: Duration,
}

/// Settings of behaviour that App Mesh had in the environment.
pub(super) struct Behaviour {
    pub(super) drain_wait: Duration,
    pub(super) initial_fetch_timeout: Duration,
    pub(super) log_filter: String,
    pub(super) ejection_log: Arc<str>,
    pub(super) sockets: Sockets,
    pub(super) agent_limits: AgentLimits,
}

pub(super) fn behaviour(env: Env<'_>, report: &mut Report) -> Behaviour {
    let mut seconds = |name, default, bounds| {
        let written = env(name).filter(|text| !text.is_empty());
        Duration::from_secs(report.bounded(name, written.as_deref(), default, bounds))
    };
    let drain_wait = seconds("LISTENER_DRAIN_WAIT_TIME_S", 20, (5, 110));
    let initial_fetch_timeout = seconds("ENVOY_INITIAL_FETCH_TIMEOUT", 0, (0, 86_400));
    let agent_limits = AgentLimits {
        disconnected: seconds("HC_DISCONNECTED_TIMEOUT_S", 604_800, (3600, 604_800)),
        logging_reset: seconds("APPNET_AGENT_LOGGING_RESET_TIMEOUT", 300, (1, 86_400)),
    };
    let log_filter = log_filter(env("ENVOY_LOG_LEVEL").as_deref(), report);
    let admin = socket(
        "ENVOY_ADMIN_MODE",
        None,
        "/tmp/envoy_admin.sock",
        env,
        report,
    );
    let path = Some("APPNET_AGENT_ADMIN_UDS_PATH");
    let default = "/var/run/ecs/appnet_admin.sock";
    let agent = socket("APPNET_AGENT_ADMIN_MODE", path, default, env, report);
    Behaviour {
        drain_wait,
        initial_fetch_timeout,
        log_filter,
        ejection_log: env("ENVOY_OUTLIER_DETECTION_EVENT_LOG_PATH")
            .filter(|path| !path.is_empty())
            .map_or_else(|| Arc::from("/dev/stdout"), Arc::from),
        sockets: Sockets { admin, agent },
        agent_limits,
    }
}

/// `uds` asks for a socket in place of the port.
fn socket(
    mode: &'static str,
    path: Option<&'static str>,
    default: &str,
    env: Env<'_>,
    report: &mut Report,
) -> Option<PathBuf> {
    let written = env(mode).unwrap_or_default();
    match written.to_ascii_lowercase().as_str() {
        "" | "tcp" => None,
        "uds" => {
            let given = path.and_then(env).filter(|path| !path.is_empty());
            Some(PathBuf::from(given.as_deref().unwrap_or(default)))
        }
        _ => {
            report.add(mode, &written, "is neither tcp nor uds");
            None
        }
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
        "Zipkin spans are not sent; give --collector: Pillion's collector or an OpenTelemetry one, for Jaeger takes OTLP",
    ),
    ("ENVOY_CONFIG_FILE", BOOTSTRAP),
    ("ENVOY_RESOURCES_CONFIG_FILE", BOOTSTRAP),
    (
        "ENVOY_TRACING_CFG_FILE",
        "Envoy tracing files are not read; give --collector, or ENABLE_ENVOY_XRAY_TRACING=1",
    ),
    (
        "ENVOY_STATS_CONFIG_FILE",
        "Envoy stats files are not read; filter with /stats?filter=",
    ),
    (
        "ENVOY_STATS_SINKS_CFG_FILE",
        "Envoy sink files are not read; use ENABLE_ENVOY_DOG_STATSD=1, or scrape /stats/prometheus on the admin port",
    ),
    (
        "ENVOY_ADMIN_ACCESS_LOG_FILE",
        "admin requests are not logged; the admin port answers on loopback only",
    ),
    ("ENVOY_ENABLE_TCP_POOL_IDLE_TIMEOUT", RUNTIME),
    ("MAX_REQUESTS_PER_IO_CYCLE", RUNTIME),
    ("APPMESH_FIPS_ENDPOINT", ENDPOINT),
    ("APPMESH_DUALSTACK_ENDPOINT", ENDPOINT),
    ("APPMESH_PREVIEW", ENDPOINT),
    (
        "APPMESH_SIGNING_NAME",
        "calls to the control plane are not signed with SigV4; a TLS endpoint (https://) and --xds-ca tell it who it is",
    ),
    ("APPNET_ENVOY_RESTART_COUNT", ONE_PROCESS),
    ("PID_POLL_INTERVAL_MS", ONE_PROCESS),
    (
        "HC_POLL_INTERVAL_MS",
        "nothing is polled: /status on the agent port reads the state itself",
    ),
    ("APPNET_AGENT_POLL_ENVOY_READINESS_INTERVAL_S", READINESS),
    ("APPNET_AGENT_POLL_ENVOY_READINESS_TIMEOUT_S", READINESS),
    (
        "ENABLE_STATS_SNAPSHOT",
        "snapshots of stats are not taken; scrape /stats/prometheus on the agent port",
    ),
    (
        "APPNET_ENVOY_LOG_DESTINATION",
        "the log goes to stderr; let the container runtime carry it",
    ),
    (
        "APPNET_ENABLE_RELAY_MODE_FOR_XDS",
        "there is no relay; the control plane is APPMESH_XDS_ENDPOINT",
    ),
];

const BOOTSTRAP: &str = "Envoy bootstraps are not read; configuration comes from the control plane";
const RUNTIME: &str = "is a runtime flag of Envoy and has no like here";
const ENDPOINT: &str = "endpoints of AWS are not used; the control plane is APPMESH_XDS_ENDPOINT";
const ONE_PROCESS: &str =
    "there is no second process to start again; let the orchestrator restart the container";
const READINESS: &str = "the agent command is not here; ask /ready on the admin port";

/// A warning for each variable that asks for what is not here.
pub fn warnings(env: Env<'_>) -> Vec<String> {
    let mut all = Vec::new();
    for (name, instead) in REPLACED {
        let value = env(name).unwrap_or_default();
        if !matches!(value.to_ascii_lowercase().as_str(), "" | "0" | "false") {
            all.push(format!("{name}={value}: {instead}"));
        }
    }
    all
}
