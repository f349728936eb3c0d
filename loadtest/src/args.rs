// SPDX-License-Identifier: Apache-2.0
//! The command line and its checked form, [`Plan`]. Called by `main`; opens no socket and reads no file but `--body @file`.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Parser, Subcommand, ValueEnum};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use crate::compare::Compare;

/// A load generator for HTTP and gRPC, and a comparison of our proxy with its peers.
#[derive(Debug, Parser)]
#[command(name = "pillion-loadtest", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Box<Run>),
    Compare(Box<Compare>),
}

const EXAMPLES: &str = "\
Examples:
  200 requests per second for 30 seconds, Poisson arrivals:
    pillion-loadtest run --rate 200 --duration 30s http://127.0.0.1:8080/

  Through a sidecar's explicit egress, as an application would call a backend:
    pillion-loadtest run --rate 50 --proxy http://127.0.0.1:15001 http://catalog.storefront.local/items

  HTTP/2 with prior knowledge, evenly spaced, POST with a body from a file:
    pillion-loadtest run --http2 --arrivals uniform --method POST \\
        --header 'content-type: application/json' --body @order.json http://127.0.0.1:8080/orders

  As many gRPC calls as 4 connections of 8 streams carry, with an empty message:
    pillion-loadtest run --grpc --closed --connections 4 --streams 8 http://127.0.0.1:8080/shop.Catalog/List

  One JSON object per second for another program, then a final one:
    pillion-loadtest run --output json --interval 1s http://127.0.0.1:8080/

Latency is counted from the moment a request was due, not from when it could be sent: a target that stalls shows
in every request that had to wait for it. Exit code: 0 all answered below 400, 1 some not, 2 bad usage.";

/// Send requests at a fixed rate and report what came back.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Run {
    /// What to request, for example http://127.0.0.1:8080/items
    url: String,
    /// Requests per second
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Send the next request as soon as one is answered, on every connection (and stream), instead of at a rate
    #[arg(long, conflicts_with = "rate")]
    closed: bool,
    /// How requests are spaced: as independent users would (poisson), or evenly
    #[arg(long, value_enum, default_value_t = Arrivals::Poisson)]
    arrivals: Arrivals,
    /// How long to measure (500ms, 30s, 5m)
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// How long to send at the same rate before measuring
    #[arg(long, default_value = "0s", value_parser = parse_duration)]
    warmup: Duration,
    /// Stop after this many requests, even if time is left
    #[arg(long)]
    requests: Option<u64>,
    /// Connections kept open; over HTTP/1.1 also the most requests in flight
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Speak HTTP/2 with prior knowledge
    #[arg(long)]
    http2: bool,
    /// Call a gRPC method: POST over HTTP/2, --body (or @file) is the message without its frame, grpc-status counts
    #[arg(long)]
    grpc: bool,
    /// The most requests in flight on one HTTP/2 connection
    #[arg(long, default_value_t = 100)]
    streams: usize,
    /// Give up on a request this long after sending it
    #[arg(long, default_value = "15s", value_parser = parse_duration)]
    timeout: Duration,
    /// Request method
    #[arg(long, short = 'X', default_value = "GET")]
    method: String,
    /// A request header, `name: value`; repeatable
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Request body: the text itself, or @file
    #[arg(long)]
    body: Option<String>,
    /// Send through this HTTP proxy (http://host:port) with absolute-form requests
    #[arg(long)]
    proxy: Option<String>,
    /// PEM file with the authorities to trust for an https:// target
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Accept any certificate of an https:// target
    #[arg(long)]
    insecure: bool,
    /// Threads to send with
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// What to print on standard output
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Also report every interval: a line of text, or one JSON object per line
    #[arg(long, value_parser = parse_duration)]
    interval: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arrivals {
    Poisson,
    Uniform,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    /// HTTP/2 with at most this many requests in flight per connection.
    Http2 {
        streams: usize,
    },
}

/// Where connections go and how they are secured.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) uri: Uri,
    /// Host and port to dial: the proxy's when there is one.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) trust: Option<Trust>,
}

/// What an `https://` target's certificate is checked against.
#[derive(Clone, Debug)]
pub(crate) enum Trust {
    Authorities(PathBuf),
    Anything,
}

/// The request that is sent over and over.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A command line that holds.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) target: Target,
    pub(crate) template: Template,
    pub(crate) protocol: Protocol,
    pub(crate) rate: f64,
    /// No timetable: `rate` says nothing.
    pub(crate) closed: bool,
    pub(crate) arrivals: Arrivals,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
    pub(crate) limit: u64,
    pub(crate) connections: usize,
    pub(crate) timeout: Duration,
    pub(crate) threads: usize,
    pub(crate) output: Output,
    pub(crate) interval: Option<Duration>,
}

const MAX_RATE: f64 = 1_000_000.0;
const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);
const MAX_CONNECTIONS: usize = 10_000;
const MAX_STREAMS: usize = 1_000;
const MAX_THREADS: usize = 256;

impl Run {
    /// All problems at once: a person fixes a command line in one go.
    pub(crate) fn check(self) -> Result<Plan, Vec<String>> {
        let mut problems = self.check_bounds();
        let method = Method::from_bytes(self.method.as_bytes())
            .map_err(|_| problems.push(format!("--method {:?}: not an HTTP method", self.method)));
        let headers = check_headers(&self.headers, &mut problems);
        let body = self.check_body(&mut problems);
        let target = self.check_target(&mut problems);
        let (Ok(method), Some(target)) = (method, target) else {
            return Err(problems);
        };
        if !problems.is_empty() {
            return Err(problems);
        }
        let protocol = if self.http2 || self.grpc {
            Protocol::Http2 {
                streams: self.streams,
            }
        } else {
            Protocol::Http1
        };
        let asked = if self.grpc {
            call(headers, &body)
        } else {
            (method, headers, body)
        };
        let template = shape(&target, protocol, self.proxy.is_some(), asked)
            .map_err(|problem| vec![problem])?;
        Ok(Plan {
            target,
            template,
            protocol,
            rate: self.rate,
            closed: self.closed,
            arrivals: self.arrivals,
            warmup: self.warmup,
            duration: self.duration,
            limit: self.requests.unwrap_or(u64::MAX),
            connections: self.connections,
            timeout: self.timeout,
            threads: self.threads,
            output: self.output,
            interval: self.interval,
        })
    }

    fn check_bounds(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut must = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        must(
            self.rate > 0.0 && self.rate <= MAX_RATE,
            format!(
                "--rate {}: must be above 0 and at most {MAX_RATE} requests per second",
                self.rate
            ),
        );
        must(
            !self.duration.is_zero(),
            "--duration 0s: must be above 0".into(),
        );
        must(
            self.duration + self.warmup <= MAX_DURATION,
            format!(
                "--duration {:?} with --warmup {:?}: together at most 24 hours",
                self.duration, self.warmup
            ),
        );
        for (setting, value, most) in [
            ("--connections", self.connections, MAX_CONNECTIONS),
            ("--streams", self.streams, MAX_STREAMS),
            ("--threads", self.threads, MAX_THREADS),
        ] {
            must(
                (1..=most).contains(&value),
                format!("{setting} {value}: must be 1 to {most}"),
            );
        }
        must(
            self.requests != Some(0),
            "--requests 0: must be at least 1".into(),
        );
        must(
            !self.timeout.is_zero(),
            "--timeout 0s: must be above 0".into(),
        );
        must(
            self.interval
                .is_none_or(|interval| interval >= Duration::from_millis(100)),
            "--interval: must be at least 100ms".into(),
        );
        problems
    }

    fn check_body(&self, problems: &mut Vec<String>) -> Bytes {
        let Some(body) = &self.body else {
            return Bytes::new();
        };
        let Some(path) = body.strip_prefix('@') else {
            return Bytes::from(body.clone());
        };
        std::fs::read(path).map_or_else(
            |cause| {
                problems.push(format!("--body @{path}: read the file: {cause}"));
                Bytes::new()
            },
            Bytes::from,
        )
    }

    fn check_target(&self, problems: &mut Vec<String>) -> Option<Target> {
        let before = problems.len();
        let uri = check_url("URL", &self.url, &["http", "https"], problems);
        let proxy = self
            .proxy
            .as_ref()
            .map(|proxy| check_url("--proxy", proxy, &["http"], problems));
        let secure = uri.as_ref().and_then(Uri::scheme_str) == Some("https");
        let trust = match (&self.ca, self.insecure) {
            _ if !secure => None,
            (_, true) => Some(Trust::Anything),
            (Some(path), false) => Some(Trust::Authorities(path.clone())),
            (None, false) => {
                problems.push(format!(
                    "{}: an https:// target needs --ca <pem file>, or --insecure to accept any certificate",
                    self.url
                ));
                None
            }
        };
        if secure && proxy.is_some() {
            problems.push("--proxy: works with http:// targets only".into());
        }
        if problems.len() > before {
            return None;
        }
        let uri = uri?;
        let dialled = proxy.flatten().unwrap_or_else(|| uri.clone());
        let port = dialled.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let host = dialled.host()?.trim_matches(['[', ']']).to_owned();
        Some(Target {
            uri,
            host,
            port,
            trust,
        })
    }
}

/// A gRPC call: the message behind a byte that says it is not compressed and four with its length.
fn call(mut headers: HeaderMap, message: &Bytes) -> (Method, HeaderMap, Bytes) {
    let grpc = HeaderValue::from_static("application/grpc");
    headers.entry(http::header::CONTENT_TYPE).or_insert(grpc);
    headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
    let length = u32::try_from(message.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    (
        Method::POST,
        headers,
        [&[0], &length[..], message].concat().into(),
    )
}

fn check_url(
    setting: &str,
    text: &str,
    schemes: &[&str],
    problems: &mut Vec<String>,
) -> Option<Uri> {
    let wanted = schemes.join(":// or ");
    match text.parse::<Uri>() {
        Ok(uri)
            if uri.host().is_some() && uri.scheme_str().is_some_and(|s| schemes.contains(&s)) =>
        {
            Some(uri)
        }
        Ok(_) => {
            problems.push(format!(
                "{setting} {text:?}: must begin with {wanted}:// and name a host"
            ));
            None
        }
        Err(cause) => {
            problems.push(format!("{setting} {text:?}: {cause}"));
            None
        }
    }
}

fn check_headers(lines: &[String], problems: &mut Vec<String>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        let parsed = line.split_once(':').and_then(|(name, value)| {
            let name = name.trim().parse::<HeaderName>().ok()?;
            Some((name, HeaderValue::from_str(value.trim()).ok()?))
        });
        match parsed {
            Some((name, value)) => drop(headers.append(name, value)),
            None => problems.push(format!("--header {line:?}: must read `name: value`")),
        }
    }
    headers
}

/// RFC 9112 section 3.2: origin form to the target itself, absolute form to a proxy. HTTP/2 has no request line;
/// there a `Host` header of the user becomes `:authority` (RFC 9113 section 8.3.1).
fn shape(
    target: &Target,
    protocol: Protocol,
    proxied: bool,
    (method, mut headers, body): (Method, HeaderMap, Bytes),
) -> Result<Template, String> {
    let mut parts = target.uri.clone().into_parts();
    if parts.path_and_query.is_none() {
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    }
    let authority = parts
        .authority
        .as_ref()
        .map_or_else(String::new, ToString::to_string);
    match protocol {
        Protocol::Http2 { .. } => {
            if let Some(host) = headers.remove(http::header::HOST) {
                let named = http::uri::Authority::try_from(host.as_bytes())
                    .map_err(|cause| format!("--header host: {cause}"))?;
                parts.authority = Some(named);
            }
        }
        Protocol::Http1 => {
            if !headers.contains_key(http::header::HOST) {
                let host = HeaderValue::from_str(&authority)
                    .map_err(|cause| format!("URL host: {cause}"))?;
                headers.insert(http::header::HOST, host);
            }
            if !proxied {
                parts.scheme = None;
                parts.authority = None;
            }
        }
    }
    let uri = Uri::from_parts(parts).map_err(|cause| format!("URL: {cause}"))?;
    Ok(Template {
        method,
        uri,
        headers,
        body,
    })
}

/// `500ms`, `30s`, `5m`, `1h`; a bare number is refused, because nobody agrees on what it would mean.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let at = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let scale = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => {
            return Err(format!(
                "{text:?}: give a number and a unit, such as 500ms, 30s, 5m or 1h"
            ));
        }
    };
    number
        .parse::<f64>()
        .ok()
        .and_then(|value| Duration::try_from_secs_f64(value * scale).ok())
        .ok_or_else(|| format!("{text:?}: {number:?} is not a length of time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &[&str]) -> Result<Plan, Vec<String>> {
        let Command::Run(run) = Cli::try_parse_from([&["pillion-loadtest", "run"], line].concat())
            .unwrap()
            .command
        else {
            panic!("run is run");
        };
        run.check()
    }

    #[test]
    fn a_length_of_time_needs_a_unit() {
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "30", "s", "1.2.3s", "-1s", "1e400s", "1d"] {
            assert!(parse_duration(wrong).is_err(), "{wrong} was taken");
        }
    }

    #[test]
    fn every_problem_of_a_command_line_is_reported_at_once() {
        let problems = check(&[
            "ftp://x/",
            "--rate",
            "0",
            "--connections",
            "0",
            "--header",
            "broken",
        ])
        .unwrap_err();
        assert_eq!(problems.len(), 4, "{problems:?}");
    }

    #[test]
    fn the_target_itself_gets_origin_form_and_a_proxy_absolute_form() {
        let direct = check(&["http://shop:81/a?b"]).unwrap();
        assert_eq!(direct.template.uri, "/a?b");
        assert_eq!(direct.template.headers["host"], "shop:81");
        let proxied = check(&["http://shop/a", "--proxy", "http://127.0.0.1:15001"]).unwrap();
        assert_eq!(proxied.template.uri, "http://shop/a");
        assert_eq!(
            (proxied.target.host.as_str(), proxied.target.port),
            ("127.0.0.1", 15001)
        );
    }

    #[test]
    fn over_http2_a_host_header_becomes_the_authority() {
        let plan = check(&["http://127.0.0.1:9/a", "--http2", "--header", "host: shop"]).unwrap();
        assert_eq!(plan.template.uri, "http://shop/a");
        assert!(plan.template.headers.is_empty());
    }

    #[test]
    fn an_https_target_must_say_whom_it_trusts() {
        assert!(check(&["https://shop/"]).unwrap_err()[0].contains("--ca"));
        assert!(check(&["https://shop/", "--insecure"]).is_ok());
    }
}
