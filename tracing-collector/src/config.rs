// SPDX-License-Identifier: Apache-2.0
//! Settings: flags, the same from `PILLION_*`, checked into a [`Config`]. Read by `main`, held by `app`.

use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use pillion_runtime::listening::ExposedError;
use pillion_runtime::listening::require_loopback;
use serde_json::Value;
use serde_json::json;

use crate::daemon;
use crate::daemon::DaemonFile;
use crate::memory;
use crate::store::clickhouse::address::Address;
use crate::webhook::Webhook;

/// Where the X-Ray daemon listens unless told otherwise.
const DAEMON_ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2000);

const EXAMPLES: &str = "\
Examples:
  pillion-collector
      OTLP on 4317 and 4318, X-Ray on 2000, Zipkin on 9411, dashboard on http://127.0.0.1:8710/, traces in ./pillion-traces
  pillion-collector --store /var/lib/pillion/traces --retention 7d
      keeps a week of traces
  pillion-collector --xray-udp-addr 127.0.0.1:0 --xray-tcp-addr 127.0.0.1:0 --otlp-grpc-addr 127.0.0.1:0
      free ports; the first line on stdout names them

Then: AWS_XRAY_DAEMON_ADDRESS=127.0.0.1:2000 python app.py
      aws --endpoint-url http://127.0.0.1:8710 xray get-service-graph --start-time ... --end-time ...";

/// Here nobody can prove who they are: SDKs neither sign datagrams nor their questions about sampling.
const UNSIGNED_DOORS: [&str; 3] = ["--xray-udp-addr", "--xray-tcp-addr", "--admin-addr"];

/// Takes spans by OTLP and X-Ray, keeps traces, and answers with them, their service map and the dashboard.
#[derive(Clone, Debug, Parser)]
#[command(name = "pillion-collector", version, after_help = EXAMPLES)]
#[command(args_override_self = true, disable_version_flag = true)]
pub struct Args {
    /// OTLP over gRPC
    #[arg(long, env = "PILLION_OTLP_GRPC_ADDR", default_value = "127.0.0.1:4317")]
    otlp_grpc_addr: SocketAddr,
    /// OTLP over HTTP, protobuf and JSON
    #[arg(long, env = "PILLION_OTLP_HTTP_ADDR", default_value = "127.0.0.1:4318")]
    otlp_http_addr: SocketAddr,
    /// X-Ray daemon protocol: documents, one per datagram
    #[arg(long, short = 'b', alias = "bind", env = "PILLION_XRAY_UDP_ADDR", default_value = "127.0.0.1:2000", value_parser = parse_addr)]
    xray_udp_addr: SocketAddr,
    /// X-Ray daemon protocol: sampling for SDKs, documents by POST /TraceSegments
    #[arg(long, short = 't', alias = "bind-tcp", env = "PILLION_XRAY_TCP_ADDR", default_value = "127.0.0.1:2000", value_parser = parse_addr)]
    xray_tcp_addr: SocketAddr,
    /// Zipkin v2 spans in JSON
    #[arg(long, env = "PILLION_ZIPKIN_ADDR", default_value = "127.0.0.1:9411")]
    zipkin_addr: SocketAddr,
    /// X-Ray API, Jaeger query API, Pillion API and the dashboard
    #[arg(long, env = "PILLION_API_ADDR", default_value = "127.0.0.1:8710")]
    api_addr: SocketAddr,
    /// /ready /metrics /config
    #[arg(long, env = "PILLION_ADMIN_ADDR", default_value = "127.0.0.1:8712")]
    admin_addr: SocketAddr,
    /// Folder of the trace store, or clickhouse://<user>:<password>@<host>:8123/<database> (clickhouses:// for TLS), which
    /// any number of collectors may share
    #[arg(long, env = "PILLION_STORE", default_value = "pillion-traces", hide_env_values = true, value_parser = parse_store)]
    store: StorePlace,
    /// How long traces are kept after they arrived, such as 30d or 12h; whole UTC days are removed
    #[arg(long, env = "PILLION_RETENTION", default_value = "30d", value_parser = parse_duration)]
    retention: Duration,
    /// What this process may take of memory, such as 256MiB or 2GiB; beyond it senders are told to try again.
    /// By default three quarters of the machine's or the container's, at most 1GiB
    #[arg(long, env = "PILLION_MEMORY_LIMIT", value_parser = parse_bytes)]
    memory_limit: Option<u64>,
    /// The largest X-Ray document accepted over HTTP and TCP; a datagram has its own bound
    #[arg(long, env = "PILLION_MAX_DOCUMENT", default_value = "1MiB", value_parser = parse_bytes)]
    max_document: u64,
    /// How soon after its arrival a span is in lists and on the map, at the latest
    #[arg(long, env = "PILLION_SETTLE", default_value = "15s", value_parser = parse_duration)]
    settle: Duration,
    /// Where to POST what changes about insights of groups with NotificationsEnabled, as EventBridge delivers it
    #[arg(long, env = "PILLION_INSIGHT_WEBHOOK", value_parser = parse_insight_webhook)]
    insight_webhook: Option<Webhook>,
    /// Where to POST when alert rules (PUT /pillion/v1/alerts/<name>) begin and end to fire
    #[arg(long, env = "PILLION_ALERT_WEBHOOK", value_parser = parse_alert_webhook)]
    alert_webhook: Option<Webhook>,
    /// File of access keys (TOML, mode 0600, reloaded when it changes). With it the API port answers only who signs
    /// (AWS Signature Version 4) or sends HTTP Basic with key id and secret; OTLP and Zipkin doors beyond loopback
    /// take HTTP Basic
    #[arg(long, env = "PILLION_CREDENTIALS")]
    credentials: Option<PathBuf>,
    /// Listen beyond loopback although nobody who calls is authenticated
    #[arg(long, env = "PILLION_INSECURE", value_parser = clap::builder::FalseyValueParser::new())]
    insecure: bool,
    #[command(flatten)]
    daemon: DaemonFlags,
    /// The version of this program
    #[arg(long, short = 'V', short_alias = 'v', action = clap::ArgAction::Version)]
    version: Option<bool>,
}

/// Flags of the X-Ray daemon, so that its command lines start a collector.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "As the X-Ray daemon")]
struct DaemonFlags {
    /// The daemon's configuration file: its addresses and log level hold where no flag says otherwise
    #[arg(long, short = 'c')]
    config: Option<PathBuf>,
    /// dev, debug, info, warn, error or prod
    #[arg(long, short = 'l')]
    log_level: Option<String>,
    /// Accepted, without effect: nothing is asked of EC2
    #[arg(long, short = 'o')]
    local_mode: bool,
    /// Accepted, without effect: everything stays here
    #[arg(long, short = 'n')]
    region: Option<String>,
    /// Accepted, without effect
    #[arg(long, short = 'a')]
    resource_arn: Option<String>,
    /// Accepted, without effect
    #[arg(long, short = 'r')]
    role_arn: Option<String>,
    /// Accepted, without effect
    #[arg(long, short = 'p')]
    proxy_address: Option<String>,
    /// Accepted, without effect: logs go to stderr
    #[arg(long, short = 'f')]
    log_file: Option<PathBuf>,
    /// Accepted, without effect: see --memory-limit
    #[arg(long, short = 'm')]
    buffer_memory: Option<u32>,
}

impl DaemonFlags {
    fn without_effect(&self) -> Vec<&'static str> {
        let set = [
            ("-o", self.local_mode),
            ("-n", self.region.is_some()),
            ("-a", self.resource_arn.is_some()),
            ("-r", self.role_arn.is_some()),
            ("-p", self.proxy_address.is_some()),
            ("-f", self.log_file.is_some()),
            ("-m", self.buffer_memory.is_some()),
        ];
        set.into_iter()
            .filter(|(_, set)| *set)
            .map(|(name, _)| name)
            .collect()
    }
}

/// Why the settings do not hold.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// An address beyond loopback.
    #[error(transparent)]
    Exposed(#[from] ExposedError),
    /// The daemon's file, or what stands in it.
    #[error("{0}")]
    Daemon(String),
}

/// What holds, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) otlp_grpc_addr: SocketAddr,
    pub(crate) otlp_http_addr: SocketAddr,
    pub(crate) xray_udp_addr: SocketAddr,
    pub(crate) xray_tcp_addr: SocketAddr,
    pub(crate) zipkin_addr: SocketAddr,
    pub(crate) api_addr: SocketAddr,
    pub(crate) admin_addr: SocketAddr,
    pub(crate) store: StorePlace,
    pub(crate) retention: Duration,
    pub(crate) settle: Duration,
    pub(crate) memory_limit: u64,
    pub(crate) max_document: u64,
    pub(crate) insight_webhook: Option<Webhook>,
    pub(crate) alert_webhook: Option<Webhook>,
    pub(crate) credentials: Option<PathBuf>,
    pub(crate) insecure: bool,
}

impl Args {
    /// The filter that the daemon's flag or file asks for, for logs.
    pub fn log_level(&self) -> Option<&'static str> {
        let file = self.daemon.config.as_ref();
        let file = file.and_then(|path| DaemonFile::read(path).ok());
        let named = self.daemon.log_level.clone();
        let named = named.or(file.and_then(|file| file.logging.log_level));
        named.as_deref().and_then(daemon::level)
    }

    /// A flag wins over the file, and the file over a default.
    fn read_daemon_file(&mut self) -> Result<(), ConfigError> {
        let wrong = |message: String| ConfigError::Daemon(message);
        if let Some(level) = &self.daemon.log_level
            && daemon::level(level).is_none()
        {
            return Err(wrong(format!(
                "--log-level is {level:?}; give dev, debug, info, warn, error or prod"
            )));
        }
        let mut unused = self.daemon.without_effect();
        if let Some(path) = &self.daemon.config {
            let file = DaemonFile::read(path).map_err(|error| {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                wrong(format!("{error}: {}", cause.unwrap_or_default()))
            })?;
            unused.extend(file.without_effect());
            let addresses = [
                (
                    "Socket.UDPAddress",
                    &file.socket.udp,
                    &mut self.xray_udp_addr,
                ),
                (
                    "Socket.TCPAddress",
                    &file.socket.tcp,
                    &mut self.xray_tcp_addr,
                ),
            ];
            for (member, given, addr) in addresses {
                if let Some(given) = given.as_ref().filter(|_| *addr == DAEMON_ADDR) {
                    *addr = parse_addr(given).map_err(|why| wrong(format!("{member}: {why}")))?;
                }
            }
        }
        if !unused.is_empty() {
            tracing::warn!(
                settings = unused.join(", "),
                "settings of the X-Ray daemon that have no effect here"
            );
        }
        Ok(())
    }

    /// Every problem at once.
    pub fn check(mut self) -> Result<Config, Vec<ConfigError>> {
        self.read_daemon_file().map_err(|error| vec![error])?;
        let addresses = [
            ("--otlp-grpc-addr", self.otlp_grpc_addr),
            ("--otlp-http-addr", self.otlp_http_addr),
            ("--xray-udp-addr", self.xray_udp_addr),
            ("--xray-tcp-addr", self.xray_tcp_addr),
            ("--zipkin-addr", self.zipkin_addr),
            ("--api-addr", self.api_addr),
            ("--admin-addr", self.admin_addr),
        ];
        let exposed: Vec<ConfigError> = addresses
            .into_iter()
            .filter_map(|(setting, addr)| {
                let trusted = self.insecure
                    || (self.credentials.is_some() && !UNSIGNED_DOORS.contains(&setting));
                let checked = require_loopback(setting, addr, trusted);
                checked.err().map(ConfigError::from)
            })
            .collect();
        if !exposed.is_empty() {
            return Err(exposed);
        }
        Ok(Config {
            otlp_grpc_addr: self.otlp_grpc_addr,
            otlp_http_addr: self.otlp_http_addr,
            xray_udp_addr: self.xray_udp_addr,
            xray_tcp_addr: self.xray_tcp_addr,
            zipkin_addr: self.zipkin_addr,
            api_addr: self.api_addr,
            admin_addr: self.admin_addr,
            store: self.store,
            retention: self.retention,
            settle: self.settle,
            memory_limit: self
                .memory_limit
                .unwrap_or_else(memory::default_limit)
                .max(memory::LEAST),
            max_document: self.max_document,
            insight_webhook: self.insight_webhook,
            alert_webhook: self.alert_webhook,
            credentials: self.credentials,
            insecure: self.insecure,
        })
    }
}

impl Config {
    /// For `/config` and the log.
    pub(crate) fn effective(&self) -> Value {
        json!({
            "otlp_grpc_addr": self.otlp_grpc_addr.to_string(),
            "otlp_http_addr": self.otlp_http_addr.to_string(),
            "xray_udp_addr": self.xray_udp_addr.to_string(),
            "xray_tcp_addr": self.xray_tcp_addr.to_string(),
            "zipkin_addr": self.zipkin_addr.to_string(),
            "api_addr": self.api_addr.to_string(),
            "admin_addr": self.admin_addr.to_string(),
            "store": self.store.to_string(),
            "retention_s": self.retention.as_secs(),
            "settle_ms": self.settle.as_millis() as u64,
            "memory_limit_bytes": self.memory_limit,
            "max_document_bytes": self.max_document,
            "insight_webhook": self.insight_webhook.as_ref().map(Webhook::host),
            "alert_webhook": self.alert_webhook.as_ref().map(Webhook::host),
            "credentials": self.credentials.as_ref().map(|path| path.display().to_string()),
            "insecure": self.insecure,
        })
    }
}

/// Where traces are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StorePlace {
    Folder(PathBuf),
    ClickHouse(Address),
}

/// Without a password.
impl fmt::Display for StorePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StorePlace::Folder(path) => write!(f, "{}", path.display()),
            StorePlace::ClickHouse(address) => write!(f, "{address}"),
        }
    }
}

fn parse_store(text: &str) -> Result<StorePlace, String> {
    match Address::parse(text) {
        Some(address) => address
            .map(StorePlace::ClickHouse)
            .map_err(|error| error.to_string()),
        None if text.contains("://") => Err(format!(
            "{text:?} is neither a folder nor clickhouse://…; no other store is known"
        )),
        None => Ok(StorePlace::Folder(PathBuf::from(text))),
    }
}

/// `250ms`, `15s`, `5m`, `12h`, `30d`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "{text:?} is no duration; give a whole number above 0 and a unit, such as 15s, 5m, 12h or 30d"
        )
    };
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(milliseconds)
        .filter(|total| *total > 0)
        .map(Duration::from_millis)
        .ok_or_else(wrong)
}

fn parse_insight_webhook(text: &str) -> Result<Webhook, String> {
    Webhook::parse("--insight-webhook", text).map_err(|error| error.to_string())
}

fn parse_alert_webhook(text: &str) -> Result<Webhook, String> {
    Webhook::parse("--alert-webhook", text).map_err(|error| error.to_string())
}

/// As Go writes addresses: without a host, every one is meant.
fn parse_addr(text: &str) -> Result<SocketAddr, String> {
    let whole = if text.starts_with(':') {
        format!("0.0.0.0{text}")
    } else {
        text.replacen("localhost:", "127.0.0.1:", 1)
    };
    whole
        .parse()
        .map_err(|_| format!("{text:?} is no address; give IP:port, such as 127.0.0.1:2000"))
}

/// `65536`, `64KiB`, `1MiB`, `2GiB`; `k`, `m`, `g` and their like mean the same.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "{text:?} is no size; give a whole number above 0 and a unit, such as 64KiB, 256MiB or 2GiB"
        )
    };
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let bytes = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(bytes)
        .filter(|total| *total > 0)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        assert_eq!(parse_duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        for wrong in [
            "",
            "15",
            "s",
            "0s",
            "1.5h",
            "3w",
            "99999999999999999999d",
            "999999999999999999d",
        ] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_a_number_and_a_unit() {
        assert_eq!(parse_bytes("65536"), Ok(65_536));
        assert_eq!(parse_bytes("256MiB"), Ok(256 << 20));
        assert_eq!(parse_bytes("2g"), Ok(2 << 30));
        for wrong in ["", "0", "1.5GiB", "MiB", "3x", "99999999999g"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_exposed_address_is_named_in_one_report() {
        let args =
            |more: &[&str]| Args::parse_from(["x", "--api-addr", "0.0.0.0:0"].iter().chain(more));
        let problems = args(&["--xray-udp-addr", "0.0.0.0:0"])
            .check()
            .expect_err("two are exposed");
        let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(
            text[0].contains("--xray-udp-addr") && text[1].contains("--api-addr"),
            "{text:?}"
        );
        assert!(args(&["--insecure"]).check().is_ok());
    }
}
