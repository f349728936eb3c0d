// SPDX-License-Identifier: Apache-2.0
//! Metrics by DogStatsD, as App Mesh's Envoy sent them: the registry's families under Envoy's dotted names with tags, by
//! datagram, every flush interval. Counters go as what was added since the last flush. Started by `app`; a request never
//! waits for it, and a datagram that nobody takes is lost.

use std::collections::HashMap;
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use prometheus::Registry;
use prometheus::proto::Metric;
use prometheus::proto::MetricFamily;
use prometheus::proto::MetricType;
use tokio::net::UdpSocket;
use tokio::net::UnixDatagram;
use tokio_util::sync::CancellationToken;

/// What passes any network in one piece.
const DATAGRAM: usize = 1400;
/// Words that are parts of Envoy's names by themselves; a longer one stands before a shorter one it begins with.
const WORDS: [&str; 19] = [
    "envoy",
    "pillion",
    "cluster_manager",
    "listener_manager",
    "cluster",
    "listener",
    "http",
    "tcp",
    "server",
    "control_plane",
    "cds",
    "lds",
    "eds",
    "sds",
    "ssl",
    "circuit_breakers",
    "outlier_detection",
    "health_check",
    "appmesh",
];

/// Where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `STATSD_ADDRESS` and `STATSD_PORT`.
    Udp(SocketAddr),
    /// `STATSD_SOCKET_PATH`.
    Unix(PathBuf),
}

/// Sends until the token fires, and once more then.
pub async fn keep(target: Target, every: Duration, registry: Registry, stop: CancellationToken) {
    let mut sender = Sender {
        target,
        socket: None,
    };
    let mut last = HashMap::new();
    let mut failing = false;
    while !stop.is_cancelled() {
        stop.run_until_cancelled(tokio::time::sleep(every)).await;
        for datagram in datagrams(&registry.gather(), &mut last) {
            let sent = sender.send(datagram.as_bytes()).await;
            match sent {
                Ok(()) => failing = false,
                Err(error) => {
                    if !failing {
                        tracing::warn!(target = ?sender.target, %error, "nobody takes the metrics by DogStatsD");
                    }
                    failing = true;
                    break;
                }
            }
        }
    }
}

enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

struct Sender {
    target: Target,
    socket: Option<Socket>,
}

impl Sender {
    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => self.open().await?,
        };
        match &socket {
            Socket::Udp(socket) => socket.send(bytes).await?,
            Socket::Unix(socket) => socket.send(bytes).await?,
        };
        // One that failed is opened anew next time.
        self.socket = Some(socket);
        Ok(())
    }

    async fn open(&self) -> io::Result<Socket> {
        match &self.target {
            Target::Udp(to) => {
                let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).await?;
                socket.connect(to).await?;
                Ok(Socket::Udp(socket))
            }
            Target::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                Ok(Socket::Unix(socket))
            }
        }
    }
}

/// Everything that has changed since `last`, packed.
fn datagrams(families: &[MetricFamily], last: &mut HashMap<String, f64>) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut push = |line: &str| {
        let full = all
            .last()
            .is_some_and(|text| text.len() + line.len() > DATAGRAM);
        if full {
            all.push(String::new());
        }
        if let Some(text) = all.last_mut() {
            text.push_str(line);
        }
    };
    for family in families {
        let name = dotted(family.name());
        for metric in family.get_metric() {
            let tags = tags(metric);
            let mut since = |key: &str, now: f64| {
                let before = last
                    .insert(format!("{name}{key}{tags}"), now)
                    .unwrap_or_default();
                now - before
            };
            match family.get_field_type() {
                MetricType::COUNTER => {
                    let added = since("", metric.get_counter().get_value());
                    if added > 0.0 {
                        push(&format!("{name}:{added}|c{tags}\n"));
                    }
                }
                MetricType::GAUGE => {
                    push(&format!(
                        "{name}:{}|g{tags}\n",
                        metric.get_gauge().get_value()
                    ));
                }
                MetricType::HISTOGRAM => times(metric, &mut since, |value, rate| {
                    push(&format!("{name}:{value}|ms|@{rate}{tags}\n"));
                }),
                MetricType::SUMMARY | MetricType::UNTYPED => {}
            }
        }
    }
    all.retain(|text| !text.is_empty());
    all
}

/// A bucket's new observations go as one in its middle that stands for so many.
fn times(
    metric: &Metric,
    since: &mut impl FnMut(&str, f64) -> f64,
    mut each: impl FnMut(f64, f64),
) {
    let (mut lower, mut below) = (0.0, 0);
    for bucket in metric.get_histogram().get_bucket() {
        let (upper, so_far) = (bucket.upper_bound(), bucket.cumulative_count());
        #[allow(clippy::cast_precision_loss, reason = "counts of one bucket")]
        let added = since(&upper.to_string(), (so_far - below) as f64);
        if added > 0.0 {
            each(f64::midpoint(lower, upper), 1.0 / added);
        }
        (lower, below) = (upper, so_far);
    }
}

/// `envoy_cluster_ssl_handshake` is `envoy.cluster.ssl.handshake`.
fn dotted(name: &str) -> String {
    let mut out = String::new();
    let mut rest = name;
    while let Some((word, after)) = WORDS
        .iter()
        .find_map(|word| Some((word, rest.strip_prefix(word)?.strip_prefix('_')?)))
    {
        out.push_str(word);
        out.push('.');
        rest = after;
    }
    out.push_str(rest);
    out.replace("circuit_breakers.default_", "circuit_breakers.default.")
}

fn tags(metric: &Metric) -> String {
    let mut text = String::new();
    for label in metric.get_label() {
        let sign = if text.is_empty() { "|#" } else { "," };
        let name = label.name();
        let name = match name.split_once('_') {
            Some((word @ ("envoy" | "appmesh"), rest)) => format!("{word}.{rest}"),
            _ => name.to_owned(),
        };
        let value = label.value().replace([',', '|', '\n'], "_");
        let written = write!(text, "{sign}{name}:{value}");
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_envoys_dots() {
        for (name, wanted) in [
            (
                "envoy_cluster_upstream_rq_total",
                "envoy.cluster.upstream_rq_total",
            ),
            ("envoy_cluster_ssl_handshake", "envoy.cluster.ssl.handshake"),
            (
                "envoy_cluster_circuit_breakers_default_cx_open",
                "envoy.cluster.circuit_breakers.default.cx_open",
            ),
            (
                "envoy_cluster_manager_cds_update_success",
                "envoy.cluster_manager.cds.update_success",
            ),
            ("envoy_http_downstream_rq_xx", "envoy.http.downstream_rq_xx"),
            ("envoy_appmesh_RequestCount", "envoy.appmesh.RequestCount"),
        ] {
            assert_eq!(dotted(name), wanted);
        }
    }

    #[test]
    fn counters_go_as_what_was_added() {
        let registry = Registry::new();
        let counter = prometheus::IntCounter::new("envoy_http_x", "x").expect("a name");
        registry.register(Box::new(counter.clone())).expect("once");
        let mut last = HashMap::new();
        counter.inc_by(3);
        assert_eq!(
            datagrams(&registry.gather(), &mut last),
            ["envoy.http.x:3|c\n"]
        );
        assert!(datagrams(&registry.gather(), &mut last).is_empty());
        counter.inc();
        assert_eq!(
            datagrams(&registry.gather(), &mut last),
            ["envoy.http.x:1|c\n"]
        );
    }

    #[test]
    fn times_go_as_observations_that_stand_for_many() {
        let registry = Registry::new();
        let options =
            prometheus::HistogramOpts::new("envoy_cluster_t", "t").buckets(vec![10.0, 20.0]);
        let histogram = prometheus::Histogram::with_opts(options).expect("a name");
        registry
            .register(Box::new(histogram.clone()))
            .expect("once");
        (0..4).for_each(|_| histogram.observe(12.0));
        let sent = datagrams(&registry.gather(), &mut HashMap::new());
        assert_eq!(sent, ["envoy.cluster.t:15|ms|@0.25\n"]);
    }

    #[test]
    fn a_datagram_stays_small() {
        let registry = Registry::new();
        let family = prometheus::IntGaugeVec::new(
            prometheus::Opts::new("envoy_server_g", "g"),
            &["envoy_name"],
        )
        .expect("a name");
        registry.register(Box::new(family.clone())).expect("once");
        (0..200).for_each(|index| family.with_label_values(&[&format!("n{index}")]).set(1));
        let sent = datagrams(&registry.gather(), &mut HashMap::new());
        assert!(sent.len() > 1 && sent.iter().all(|text| text.len() <= DATAGRAM));
        assert!(
            sent[0].starts_with("envoy.server.g:1|g|#envoy.name:n0\n"),
            "{}",
            sent[0]
        );
    }
}
