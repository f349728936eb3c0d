// SPDX-License-Identifier: Apache-2.0
//! What App Mesh's variables say of tracers and sinks: the X-Ray daemon, sampling, DogStatsD. Called by the check of the
//! arguments.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;

use super::Env;
use super::PORT;
use super::Report;
use crate::sampling::Sampler;
use crate::statsd::Target;

/// Variables that turn a tracer on; App Mesh took one of them.
const TRACERS: [&str; 3] = [
    "ENABLE_ENVOY_XRAY_TRACING",
    "ENABLE_ENVOY_DATADOG_TRACING",
    "ENABLE_ENVOY_JAEGER_TRACING",
];
/// Traces a second that are kept whatever the rate, as App Mesh's rule file had it.
const FIXED_TARGET: u32 = 1;

/// What is sent where.
#[derive(Clone, Debug)]
pub struct Exporters {
    /// The X-Ray daemon, if segments go there.
    pub xray: Option<SocketAddr>,
    /// Which traces that begin here are kept.
    pub sampler: Arc<Sampler>,
    /// The X-Ray door of a collector whose sampling rules come before those.
    pub rules_from: Option<Uri>,
    /// Whether a caller's decision to keep a trace is followed; `None` leaves it to where the caller is.
    pub follow_caller: Option<bool>,
    /// DogStatsD.
    pub statsd: Option<Statsd>,
    /// App Mesh's own metrics beside Envoy's.
    pub metrics_extension: bool,
}

/// A DogStatsD sink.
#[derive(Clone, Debug)]
pub struct Statsd {
    /// Where to.
    pub target: Target,
    /// How often.
    pub every: Duration,
}

pub(super) fn check(rules_from: Option<&str>, env: Env<'_>, report: &mut Report) -> Exporters {
    let on: Vec<&'static str> = TRACERS
        .into_iter()
        .filter(|name| flag(name, false, env, report))
        .collect();
    if let [first, second, ..] = on[..] {
        let why = format!("only one tracer may be on, and {first} is");
        report.add(second, "1", why);
    }
    let xray = on.contains(&"ENABLE_ENVOY_XRAY_TRACING");
    Exporters {
        xray: xray.then(|| daemon(env, report)),
        sampler: Arc::new(sampler(xray, env, report)),
        rules_from: rules_from
            .filter(|text| !text.is_empty())
            .and_then(|text| door(text, report)),
        follow_caller: env("APPMESH_SET_TRACING_DECISION")
            .filter(|text| !text.is_empty())
            .map(|_| flag("APPMESH_SET_TRACING_DECISION", true, env, report)),
        statsd: flag("ENABLE_ENVOY_DOG_STATSD", false, env, report).then(|| statsd(env, report)),
        metrics_extension: metrics_extension(env, report),
    }
}

/// Spelled as App Mesh's agent took it.
pub(super) fn flag(
    setting: &'static str,
    default: bool,
    env: Env<'_>,
    report: &mut Report,
) -> bool {
    let written = env(setting).unwrap_or_default();
    match written.to_ascii_lowercase().as_str() {
        "" => default,
        "1" | "t" | "true" => true,
        "0" | "f" | "false" => false,
        _ => {
            report.add(setting, &written, "is neither 1 (true) nor 0 (false)");
            default
        }
    }
}

/// `127.0.0.1`, `127.0.0.1:2000` or `udp:127.0.0.1:2000`; App Mesh took no names here.
fn daemon(env: Env<'_>, report: &mut Report) -> SocketAddr {
    let setting = "XRAY_DAEMON_PORT";
    let port = report.parse(setting, env(setting).as_deref(), 2000, PORT);
    let setting = "AWS_XRAY_DAEMON_ADDRESS";
    let written = env(setting).unwrap_or_default();
    let udp = written
        .split_whitespace()
        .find_map(|word| word.strip_prefix("udp:"));
    let text = udp.unwrap_or(&written);
    if text.is_empty() {
        return SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    }
    let whole = text.parse::<SocketAddr>().ok();
    let found = whole.or_else(|| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, port)));
    found.unwrap_or_else(|| {
        let why = "is no IP address; give the daemon's, such as 127.0.0.1 or 127.0.0.1:2000";
        report.add(setting, &written, why);
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    })
}

/// Where spans go.
pub(super) fn collector(written: Option<&str>, report: &mut Report) -> Option<String> {
    let written = written.filter(|text| !text.is_empty())?;
    let parsed = written.parse::<Uri>().ok();
    let known =
        |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some();
    if !parsed.as_ref().is_some_and(known) {
        let why = "is not a URL; give the OTLP gRPC address as http://host:4317";
        report.add("--collector", written, why);
    }
    Some(written.to_owned())
}

fn door(written: &str, report: &mut Report) -> Option<Uri> {
    let parsed = written.parse::<Uri>().ok();
    let known = |uri: &Uri| uri.scheme_str() == Some("http") && uri.host().is_some();
    let found = parsed.filter(known);
    if found.is_none() {
        let why = "is not a URL; give the collector's X-Ray TCP address as http://host:2000";
        report.add("--sampling", written, why);
    }
    found
}

fn sampler(xray: bool, env: Env<'_>, report: &mut Report) -> Sampler {
    let rate = env("XRAY_SAMPLING_RATE").filter(|text| !text.is_empty());
    let hint = "is not a share from 0 to 1, such as 0.05";
    let share = report.parse("XRAY_SAMPLING_RATE", rate.as_deref(), 0.05_f64, hint);
    if !(0.0..=1.0).contains(&share) {
        report.add("XRAY_SAMPLING_RATE", &rate.unwrap_or_default(), hint);
    }
    let plain = Sampler::new(if xray { FIXED_TARGET } else { 0 }, share.clamp(0.0, 1.0));
    let setting = "XRAY_SAMPLING_RULE_MANIFEST";
    let Some(path) = env(setting).filter(|path| !path.is_empty()) else {
        return plain;
    };
    let read = std::fs::read_to_string(&path).map_err(|error| {
        format!("cannot be read ({error}); give a sampling rule file of version 2")
    });
    match read.and_then(|json| Sampler::parse(&json)) {
        Ok(sampler) => sampler,
        Err(why) => {
            report.add(setting, &path, why);
            plain
        }
    }
}

fn statsd(env: Env<'_>, report: &mut Report) -> Statsd {
    let setting = "STATSD_PORT";
    let port = report.parse(setting, env(setting).as_deref(), 8125, PORT);
    let setting = "STATSD_ADDRESS";
    let hint = "is no IP address; give the agent's, such as 127.0.0.1";
    let ip = report.parse(
        setting,
        env(setting).as_deref(),
        Ipv4Addr::LOCALHOST.into(),
        hint,
    );
    let path = env("STATSD_SOCKET_PATH").filter(|path| !path.is_empty());
    let target = match path {
        Some(path) => Target::Unix(PathBuf::from(path)),
        None => Target::Udp(SocketAddr::new(ip, port)),
    };
    let setting = "ENVOY_STATS_FLUSH_INTERVAL";
    let written = env(setting).filter(|text| !text.is_empty());
    let every = written
        .as_deref()
        .map_or(Some(Duration::from_secs(5)), duration);
    let every = every.unwrap_or_else(|| {
        let why = "is no time from 100ms to 1h; give it as 5s or 500ms";
        report.add(setting, written.as_deref().unwrap_or_default(), why);
        Duration::from_secs(5)
    });
    Statsd { target, every }
}

/// `500ms`, `5s`, `1m`, or seconds alone.
fn duration(text: &str) -> Option<Duration> {
    let digits = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let ms = match unit {
        "ms" => 1,
        "s" | "" => 1000,
        "m" => 60_000,
        _ => return None,
    };
    let time = Duration::from_millis(number.checked_mul(ms)?);
    (Duration::from_millis(100)..=Duration::from_secs(3600))
        .contains(&time)
        .then_some(time)
}

fn metrics_extension(env: Env<'_>, report: &mut Report) -> bool {
    let setting = "APPMESH_METRIC_EXTENSION_VERSION";
    match env(setting).unwrap_or_default().as_str() {
        "" | "0" => false,
        "1" => true,
        other => {
            report.add(
                setting,
                other,
                "is no version of the metrics extension; the one there is, is 1",
            );
            false
        }
    }
}
