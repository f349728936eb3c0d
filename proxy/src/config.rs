// SPDX-License-Identifier: Apache-2.0
//! Bootstrap: who this proxy is, where its control plane is, what it binds. [`Args`] is what was written (flags, and
//! the same settings from the environment), [`Config`] is what holds after [`Args::check`], which finds every problem
//! at once. All behaviour beyond this comes over xDS. App Mesh's own variables are read with their old meaning; those
//! that ask for what Pillion does another way are answered with a warning that names the way.

mod appmesh;
mod exporters;
mod node;
mod size;

use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;

pub use appmesh::AgentLimits;
pub use appmesh::Sockets;
pub use appmesh::warnings;
pub use exporters::Exporters;
pub use exporters::Statsd;
pub use node::Node;

const ADMIN_PORT: u16 = 9901;
const AGENT_PORT: u16 = 9902;
/// `ENVOY_CONCURRENCY` beyond this is a slip of the keyboard.
const MAX_WORKERS: usize = 1024;

/// The L7 sidecar and gateway of a Pillion mesh.
#[derive(Debug, Default, Parser)]
#[command(version, about, after_help = appmesh::HELP)]
pub struct Args {
    /// Which virtual node or gateway this proxy is: an ARN, or mesh/<mesh>/virtualNode/<name>
    #[arg(long, env = "APPMESH_RESOURCE_ARN", value_name = "ARN")]
    pub resource_arn: Option<String>,
    /// The control plane's xDS port: host:port, http://…, https://… or unix:///path
    #[arg(long, env = "APPMESH_XDS_ENDPOINT", value_name = "ENDPOINT")]
    pub xds_endpoint: Option<String>,
    /// PEM bundle that an https:// control plane is checked against
    #[arg(long, env = "PILLION_XDS_CA", value_name = "FILE")]
    pub xds_ca: Option<PathBuf>,
    /// Admin server with Envoy's paths [default: 127.0.0.1:9901]
    #[arg(long, env = "PILLION_ADMIN_ADDR", value_name = "ADDR")]
    pub admin_addr: Option<String>,
    /// Agent server: status, drain, metrics [default: 127.0.0.1:9902]
    #[arg(long, env = "PILLION_AGENT_ADDR", value_name = "ADDR")]
    pub agent_addr: Option<String>,
    /// Where redirected inbound connections arrive [default: 0.0.0.0:15000]
    #[arg(long, env = "PILLION_INGRESS_ADDR", value_name = "ADDR")]
    pub ingress_addr: Option<String>,
    /// Where outbound connections arrive, redirected or explicit (HTTP_PROXY) [default: 0.0.0.0:15001, where explicit
    /// calls are taken from this machine only]
    #[arg(long, env = "PILLION_EGRESS_ADDR", value_name = "ADDR")]
    pub egress_addr: Option<String>,
    /// Address that gateway listeners bind, each on its port [default: 0.0.0.0]
    #[arg(long, env = "PILLION_GATEWAY_ADDR", value_name = "IP")]
    pub gateway_addr: Option<String>,
    /// Bind a virtual node's listener port and forward to the app: [ip:]port=app-address (repeatable)
    #[arg(
        long,
        env = "PILLION_LISTEN",
        value_name = "PORT=ADDR",
        value_delimiter = ','
    )]
    pub listen: Vec<String>,
    /// The collector's OTLP gRPC address; without it no spans are exported
    #[arg(long, env = "PILLION_COLLECTOR", value_name = "URL")]
    pub collector: Option<String>,
    /// The collector's X-Ray TCP address; its sampling rules then decide which traces that begin here are kept
    #[arg(long, env = "PILLION_SAMPLING", value_name = "URL")]
    pub sampling: Option<String>,
    /// Keeps the last good configuration here, and starts from it when the control plane is away
    #[arg(long, env = "PILLION_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// The join token shown to the control plane, read again for each stream (`pillion token create` makes one)
    #[arg(long, env = "PILLION_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Worker threads [default: ENVOY_CONCURRENCY, else one per core]
    #[arg(long, env = "PILLION_WORKERS", value_name = "N")]
    pub workers: Option<String>,
    /// Bytes of requests and answers under way that the proxy may hold, such as 128MiB; beyond it new ones are 503 [default: 64MiB]
    #[arg(long, env = "PILLION_MEMORY_LIMIT", value_name = "BYTES")]
    pub memory_limit: Option<String>,
    /// The `server` header of answers; empty passes upstream's through [default: envoy]
    #[arg(long, env = "PILLION_SERVER_HEADER", value_name = "VALUE")]
    pub server_header: Option<String>,
    /// Allow admin and agent beyond loopback though nothing authenticates their callers
    #[arg(long, env = "PILLION_INSECURE", value_parser = clap::builder::FalseyValueParser::new())]
    pub insecure: bool,
    /// Check the settings, print what holds, and exit
    #[arg(long)]
    pub check: bool,
    /// Something else than running the proxy
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What else the program does.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Redirect the app's connections to the proxy (iptables), or stop doing so
    Intercept(crate::intercept::Args),
}

/// What holds.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who this proxy is.
    pub node: Node,
    /// Where the control plane is.
    pub xds: XdsEndpoint,
    /// Where secrets of `sds` sources come from that the control plane does not serve.
    pub sds: Option<XdsEndpoint>,
    /// Admin server.
    pub admin: SocketAddr,
    /// Agent server.
    pub agent: SocketAddr,
    /// Transparent ingress.
    pub ingress: SocketAddr,
    /// Egress, transparent and explicit.
    pub egress: SocketAddr,
    /// Whether that address was asked for, and so serves whoever reaches it.
    pub open_egress: bool,
    /// Where gateway listeners bind, each on its own port.
    pub gateway: IpAddr,
    /// Explicit ingress.
    pub listen: Vec<Listen>,
    /// Where spans go.
    pub collector: Option<String>,
    /// Last good configuration.
    pub state_dir: Option<PathBuf>,
    /// Join token.
    pub token_file: Option<PathBuf>,
    /// Worker threads.
    pub workers: usize,
    /// Bytes that requests and answers under way may hold.
    pub memory_limit: usize,
    /// `server` header of answers.
    pub server_header: Option<String>,
    /// Tracers and sinks of App Mesh's variables.
    pub exporters: Exporters,
    /// Unix sockets that take the place of the admin and the agent address.
    pub sockets: Sockets,
    /// What the agent answers by.
    pub agent_limits: AgentLimits,
    /// `service.name` of spans.
    pub service_name: String,
    /// How long listeners keep accepting while draining.
    pub drain_wait: Duration,
    /// After this the proxy calls itself ready without configuration; zero waits for ever.
    pub initial_fetch_timeout: Duration,
    /// Filter of the log.
    pub log_filter: String,
    /// Where ejections are logged.
    pub ejection_log: Arc<str>,
    /// Admin and agent may be reachable from other machines.
    pub insecure: bool,
}

/// One `--listen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// What is bound.
    pub bind: SocketAddr,
    /// Where the app really listens.
    pub app: SocketAddr,
}

/// Where the control plane is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdsEndpoint {
    /// For the channel.
    pub uri: String,
    /// Roots for TLS.
    pub ca: Option<PathBuf>,
}

/// Something wrong with the settings: which one, its value, and what would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Flag or variable.
    pub setting: &'static str,
    /// As written; empty if absent.
    pub value: String,
    /// What is wrong and what would do.
    pub why: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.value.is_empty() {
            write!(f, "{}: {}", self.setting, self.why)
        } else {
            write!(f, "{}={:?}: {}", self.setting, self.value, self.why)
        }
    }
}

/// Collects problems, so that all are told at once.
#[derive(Default)]
pub(crate) struct Report {
    problems: Vec<Problem>,
}

impl Report {
    pub(crate) fn add(&mut self, setting: &'static str, value: &str, why: impl Into<String>) {
        self.problems.push(Problem {
            setting,
            value: value.to_owned(),
            why: why.into(),
        });
    }

    /// The parsed value, or the default with a problem noted.
    fn parse<T: FromStr>(
        &mut self,
        setting: &'static str,
        value: Option<&str>,
        default: T,
        hint: &str,
    ) -> T {
        let Some(value) = value else { return default };
        match value.trim().parse() {
            Ok(parsed) => parsed,
            Err(_) => {
                self.add(setting, value, hint);
                default
            }
        }
    }

    /// A number within bounds.
    fn bounded(
        &mut self,
        setting: &'static str,
        value: Option<&str>,
        default: u64,
        bounds: (u64, u64),
    ) -> u64 {
        let (least, most) = bounds;
        let hint = format!("is not a number from {least} to {most}");
        let parsed = self.parse(setting, value, default, &hint);
        if value.is_some() && !(least..=most).contains(&parsed) {
            self.add(setting, value.unwrap_or_default(), hint);
            return default;
        }
        parsed
    }
}

/// The environment, so that tests bring their own.
pub type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

impl Args {
    /// Everything that is wrong, or what holds.
    pub fn check(&self, env: Env<'_>) -> Result<Config, Vec<Problem>> {
        let mut report = Report::default();
        let node = node::check(self.resource_arn.as_deref(), env, &mut report);
        let xds = self.check_xds(&mut report);
        let sds = appmesh::sds_socket(env, &mut report);
        let exporters = exporters::check(self.sampling.as_deref(), env, &mut report);
        let admin_port = report.parse(
            "ENVOY_ADMIN_ACCESS_PORT",
            env("ENVOY_ADMIN_ACCESS_PORT").as_deref(),
            ADMIN_PORT,
            PORT,
        );
        let agent = appmesh::agent_addr(env, &mut report, AGENT_PORT);
        let ipv6 = exporters::flag("ENVOY_ADMIN_ACCESS_ENABLE_IPV6", false, env, &mut report);
        let loopback = |port| {
            let ip: IpAddr = if ipv6 {
                Ipv6Addr::LOCALHOST.into()
            } else {
                Ipv4Addr::LOCALHOST.into()
            };
            SocketAddr::from((ip, port))
        };
        let anywhere = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let mut addr = |setting, value: &Option<String>, default| {
            report.parse(setting, value.as_deref(), default, ADDR)
        };
        let admin = addr("--admin-addr", &self.admin_addr, loopback(admin_port));
        let agent = addr("--agent-addr", &self.agent_addr, agent);
        let ingress = addr("--ingress-addr", &self.ingress_addr, anywhere(15000));
        let egress = addr("--egress-addr", &self.egress_addr, anywhere(15001));
        let hint = "is not an IP address; ports come from the gateway's listeners";
        let gateway = report.parse(
            "--gateway-addr",
            self.gateway_addr.as_deref(),
            Ipv4Addr::UNSPECIFIED.into(),
            hint,
        );
        let listen = self.check_listen(&mut report);
        let workers = self.check_workers(env, &mut report);
        let collector = exporters::collector(self.collector.as_deref(), &mut report);
        let memory_limit = size::memory_limit(self.memory_limit.as_deref(), &mut report);
        let server = self.server_header.as_deref().unwrap_or("envoy");
        let behaviour = appmesh::behaviour(env, &mut report);
        let (Some(node), Some(xds), true) = (node, xds, report.problems.is_empty()) else {
            return Err(report.problems);
        };
        let service_name = env("XRAY_SEGMENT_NAME")
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| node.service_name());
        Ok(Config {
            node,
            xds,
            sds,
            admin,
            agent,
            ingress,
            egress,
            open_egress: self.egress_addr.is_some(),
            gateway,
            listen,
            collector,
            state_dir: self.state_dir.clone(),
            token_file: self.token_file.clone(),
            workers,
            memory_limit,
            server_header: Some(server.to_owned()).filter(|name| !name.is_empty()),
            exporters,
            sockets: behaviour.sockets,
            agent_limits: behaviour.agent_limits,
            service_name,
            drain_wait: behaviour.drain_wait,
            initial_fetch_timeout: behaviour.initial_fetch_timeout,
            log_filter: behaviour.log_filter,
            ejection_log: behaviour.ejection_log,
            insecure: self.insecure,
        })
    }

    fn check_xds(&self, report: &mut Report) -> Option<XdsEndpoint> {
        let setting = "APPMESH_XDS_ENDPOINT";
        let Some(written) = self.xds_endpoint.as_deref().filter(|text| !text.is_empty()) else {
            report.add(
                setting,
                "",
                "is required; give the control plane's xDS port, such as 127.0.0.1:8701",
            );
            return None;
        };
        let uri = if written.contains("://") {
            written.to_owned()
        } else {
            format!("http://{written}")
        };
        let (scheme, rest) = uri.split_once("://").unwrap_or_default();
        let has_port = || {
            let authority = uri
                .parse::<http::Uri>()
                .ok()
                .and_then(|uri| uri.authority().cloned());
            authority.is_some_and(|authority| authority.port_u16().is_some())
        };
        let wrong = match scheme {
            "unix" => (!rest.starts_with('/'))
                .then_some("needs an absolute path: unix:///run/pillion/xds.sock"),
            "http" | "https" if !has_port() => {
                Some("is not host:port, http://host:port or https://host:port")
            }
            "https" if self.xds_ca.is_none() => Some(
                "needs the authority's roots to check the control plane against; give --xds-ca <file>",
            ),
            "http" | "https" => None,
            _ => Some("has an unknown scheme; use http, https or unix"),
        };
        if let Some(why) = wrong {
            report.add(setting, written, why);
            return None;
        }
        Some(XdsEndpoint {
            ca: self.xds_ca.clone().filter(|_| scheme == "https"),
            uri,
        })
    }

    fn check_listen(&self, report: &mut Report) -> Vec<Listen> {
        let mut all: Vec<Listen> = Vec::new();
        for written in self.listen.iter().filter(|text| !text.trim().is_empty()) {
            match parse_listen(written.trim()) {
                Ok(listen)
                    if all
                        .iter()
                        .any(|other| other.bind.port() == listen.bind.port()) =>
                {
                    report.add(
                        "--listen",
                        written,
                        "binds a port that another --listen has",
                    );
                }
                Ok(listen) => all.push(listen),
                Err(why) => report.add("--listen", written, why),
            }
        }
        all
    }

    fn check_workers(&self, env: Env<'_>, report: &mut Report) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let concurrency = env("ENVOY_CONCURRENCY").filter(|value| value != "-1");
        let (setting, written) = match &self.workers {
            Some(workers) => ("--workers", Some(workers.clone())),
            None => ("ENVOY_CONCURRENCY", concurrency),
        };
        let cores = u64::try_from(cores).unwrap_or(1);
        let most = MAX_WORKERS as u64;
        let workers = report.bounded(setting, written.as_deref(), cores, (1, most));
        usize::try_from(workers).unwrap_or(1)
    }
}

pub(crate) const ADDR: &str =
    "is not an address; give ip:port, such as 127.0.0.1:9901 (port 0 picks a free one)";
pub(crate) const PORT: &str = "is not a port (0 to 65535)";

/// `[ip:]port=app`.
fn parse_listen(written: &str) -> Result<Listen, String> {
    let shape = || "is not [ip:]port=app-address, such as 8080=127.0.0.1:9080".to_owned();
    let (bound, app) = written.split_once('=').ok_or_else(shape)?;
    let bind = match bound.parse::<SocketAddr>() {
        Ok(bind) => bind,
        Err(_) => SocketAddr::from((
            Ipv4Addr::UNSPECIFIED,
            bound.parse::<u16>().map_err(|_| shape())?,
        )),
    };
    let app: SocketAddr = app.parse().map_err(|_| shape())?;
    if bind.port() == 0 {
        return Err(
            "needs the virtual node's listener port, which names what is forwarded".to_owned(),
        );
    }
    if app == bind || (app.port() == bind.port() && bind.ip().is_unspecified()) {
        return Err("forwards to itself; let the app listen elsewhere".to_owned());
    }
    Ok(Listen { bind, app })
}

impl Config {
    /// What holds, for `/config_dump`, `--check` and the log.
    pub fn to_json(&self) -> serde_json::Value {
        let listen: Vec<String> = self
            .listen
            .iter()
            .map(|listen| format!("{}={}", listen.bind, listen.app))
            .collect();
        serde_json::json!({
            "node": {"id": self.node.id, "cluster": self.node.cluster},
            "xds": self.xds.uri,
            "sds": self.sds.as_ref().map(|sds| &sds.uri),
            "admin": self.admin.to_string(),
            "agent": self.agent.to_string(),
            "ingress": self.ingress.to_string(),
            "egress": self.egress.to_string(),
            "gateway": self.gateway.to_string(),
            "listen": listen,
            "collector": self.collector,
            "state_dir": self.state_dir,
            "token_file": self.token_file,
            "workers": self.workers,
            "memory_limit_bytes": self.memory_limit,
            "server_header": self.server_header,
            "sampling_rate": self.exporters.sampler.rate(),
            "sampling": self.exporters.rules_from.as_ref().map(ToString::to_string),
            "xray_daemon": self.exporters.xray,
            "statsd": self.exporters.statsd.as_ref().map(|statsd| format!("{:?}", statsd.target)),
            "metrics_extension": self.exporters.metrics_extension,
            "admin_socket": self.sockets.admin,
            "agent_socket": self.sockets.agent,
            "service_name": self.service_name,
            "drain_wait_s": self.drain_wait.as_secs(),
            "initial_fetch_timeout_s": self.initial_fetch_timeout.as_secs(),
            "log_filter": self.log_filter,
            "ejection_log": &*self.ejection_log,
        })
    }
}

#[cfg(test)]
mod tests;
