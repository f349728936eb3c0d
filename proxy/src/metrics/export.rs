// SPDX-License-Identifier: Apache-2.0
//! The stats as others read them: Prometheus families with Envoy's names and labels, and Envoy's plain stat names.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::atomic::Ordering;

use prometheus::core::Collector;
use prometheus::core::Desc;
use prometheus::proto;

use super::Metrics;
use super::stats::BOUNDS;
use super::stats::CODES;
use super::stats::ClusterStats;
use super::stats::Codes;
use super::stats::Histogram;
use super::stats::Kind;

/// One series before it is a family: scope, stat name, labels of its own, value.
struct Sample {
    scope: Scope,
    object: String,
    stat: String,
    label: Option<(&'static str, String)>,
    value: Value,
}

enum Value {
    Count(Kind, u64),
    Times {
        buckets: [u64; BOUNDS.len() + 1],
        sum_us: u64,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Cluster,
    Http,
    Tcp,
    Listener,
}

impl Scope {
    /// The first word of the stat name, and the label that names the object.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Scope::Cluster => ("cluster", "envoy_cluster_name"),
            Scope::Http => ("http", "envoy_http_conn_manager_prefix"),
            Scope::Tcp => ("tcp", "envoy_tcp_prefix"),
            Scope::Listener => ("listener", "envoy_listener_address"),
        }
    }
}

/// Sums the shards of one object into samples.
struct Sum {
    scope: Scope,
    object: String,
    counts: BTreeMap<&'static str, (Kind, u64)>,
    codes: Vec<u64>,
    classes: Vec<u64>,
    times: Vec<(&'static str, [u64; BOUNDS.len() + 1], u64)>,
    code_stat: &'static str,
}

impl Sum {
    fn new(scope: Scope, object: &str, code_stat: &'static str) -> Sum {
        let (counts, times) = (BTreeMap::new(), Vec::new());
        Sum {
            scope,
            object: object.to_owned(),
            counts,
            codes: Vec::new(),
            classes: Vec::new(),
            times,
            code_stat,
        }
    }

    fn add(&mut self, stat: &'static str, kind: Kind, value: u64) {
        let total = self.counts.entry(stat).or_insert((kind, 0));
        total.1 = total.1.wrapping_add(value);
    }

    fn add_codes(&mut self, codes: &Codes) {
        self.codes.resize(CODES.len() + 1, 0);
        self.classes.resize(6, 0);
        codes.each_code(|slot, count| self.codes[slot] += count);
        codes.each_class(|class, count| self.classes[class] += count);
    }

    fn add_times(&mut self, stat: &'static str, histogram: &Histogram) {
        if !self.times.iter().any(|(name, ..)| *name == stat) {
            self.times.push((stat, [0; BOUNDS.len() + 1], 0));
        }
        if let Some((_, buckets, sum_us)) = self.times.iter_mut().find(|(name, ..)| *name == stat) {
            histogram.add_to(buckets, sum_us);
        }
    }

    fn into_samples(self, out: &mut Vec<Sample>) {
        let sample = |stat: &str, label, value| Sample {
            scope: self.scope,
            object: self.object.clone(),
            stat: stat.to_owned(),
            label,
            value,
        };
        for (stat, (kind, value)) in &self.counts {
            out.push(sample(stat, None, Value::Count(*kind, *value)));
        }
        for (slot, count) in self
            .codes
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
        {
            let code = CODES
                .get(slot)
                .map_or_else(|| "other".to_owned(), ToString::to_string);
            out.push(sample(
                self.code_stat,
                Some(("envoy_response_code", code)),
                Value::Count(Kind::Counter, *count),
            ));
        }
        let class_stat = format!("{}_xx", self.code_stat);
        for (class, count) in self.classes.iter().enumerate().skip(1) {
            let label = Some(("envoy_response_code_class", class.to_string()));
            out.push(sample(
                &class_stat,
                label,
                Value::Count(Kind::Counter, *count),
            ));
        }
        for (stat, buckets, sum_us) in &self.times {
            out.push(sample(
                stat,
                None,
                Value::Times {
                    buckets: *buckets,
                    sum_us: *sum_us,
                },
            ));
        }
    }
}

fn samples(metrics: &Metrics) -> Vec<Sample> {
    let mut out = Vec::new();
    for (name, stats) in metrics.inner.clusters.lock().iter() {
        cluster(name, stats).into_samples(&mut out);
    }
    for (prefix, stats) in metrics.inner.http.lock().iter() {
        let mut sum = Sum::new(Scope::Http, prefix, "downstream_rq");
        for part in stats.parts.iter() {
            part.counts
                .each(|stat, kind, value| sum.add(stat, kind, value));
            sum.add_codes(&part.codes);
            sum.add_times("downstream_rq_time", &part.rq_time);
        }
        // Envoy keeps classes only for what downstream saw.
        sum.codes.clear();
        sum.into_samples(&mut out);
    }
    for (prefix, stats) in metrics.inner.tcp.lock().iter() {
        let mut sum = Sum::new(Scope::Tcp, prefix, "");
        stats
            .parts
            .iter()
            .for_each(|part| part.each(|stat, kind, value| sum.add(stat, kind, value)));
        sum.into_samples_without_codes(&mut out);
    }
    for (address, stats) in metrics.inner.listeners.lock().iter() {
        let mut sum = Sum::new(Scope::Listener, address, "");
        stats
            .parts
            .iter()
            .for_each(|part| part.each(|stat, kind, value| sum.add(stat, kind, value)));
        sum.into_samples_without_codes(&mut out);
    }
    out
}

impl Sum {
    fn into_samples_without_codes(mut self, out: &mut Vec<Sample>) {
        self.codes.clear();
        self.classes.clear();
        self.into_samples(out);
    }
}

fn cluster(name: &str, stats: &ClusterStats) -> Sum {
    let mut sum = Sum::new(Scope::Cluster, name, "upstream_rq");
    for part in stats.parts.iter() {
        part.counts
            .each(|stat, kind, value| sum.add(stat, kind, value));
        sum.add_codes(&part.codes);
        sum.add_times("upstream_rq_time", &part.rq_time);
    }
    stats
        .control
        .each(|stat, kind, value| sum.add(stat, kind, value));
    let mut gauge = |stat, value| sum.add(stat, Kind::Gauge, value);
    gauge("upstream_rq_pending_active", u64::from(stats.pending.now()));
    gauge(
        "circuit_breakers.default.cx_open",
        u64::from(stats.connections.is_open()),
    );
    gauge(
        "circuit_breakers.default.rq_open",
        u64::from(stats.requests.is_open()),
    );
    gauge(
        "circuit_breakers.default.rq_pending_open",
        u64::from(stats.pending.is_open()),
    );
    gauge(
        "circuit_breakers.default.rq_retry_open",
        u64::from(stats.retries.is_open()),
    );
    gauge("membership_total", stats.members.load(Ordering::Relaxed));
    gauge("membership_healthy", stats.healthy.load(Ordering::Relaxed));
    gauge(
        "health_check.healthy",
        stats.healthy.load(Ordering::Relaxed),
    );
    gauge(
        "outlier_detection.ejections_active",
        stats.ejected.load(Ordering::Relaxed),
    );
    sum
}

/// Envoy's plain names: `cluster.<name>.upstream_rq_total`, codes and classes spelled out.
pub(super) fn plain(metrics: &Metrics) -> Vec<(String, u64)> {
    let mut all: Vec<(String, u64)> = samples(metrics)
        .into_iter()
        .filter_map(|sample| {
            let Value::Count(_, value) = sample.value else {
                return None;
            };
            let (scope, _) = sample.scope.words();
            let stat = match &sample.label {
                Some(("envoy_response_code_class", class)) => {
                    sample.stat.replace("_xx", &format!("_{class}xx"))
                }
                Some((_, code)) => format!("{}_{code}", sample.stat),
                None => sample.stat,
            };
            Some((format!("{scope}.{}.{stat}", sample.object), value))
        })
        .collect();
    let process = metrics.process();
    all.push(("server.panics".to_owned(), process.panics.get()));
    all.push((
        "server.accept_errors".to_owned(),
        process.accept_errors.get(),
    ));
    all.push((
        "server.key_material_refused".to_owned(),
        process.key_material_refused.get(),
    ));
    all.push((
        "access_logs.written".to_owned(),
        process.access_log_written.get(),
    ));
    all.push((
        "access_logs.dropped".to_owned(),
        process.access_log_dropped.get(),
    ));
    all.sort();
    all
}

/// Times under Envoy's plain names, by bucket.
pub(super) fn plain_times(metrics: &Metrics) -> Vec<(String, [u64; BOUNDS.len() + 1])> {
    let times = samples(metrics).into_iter().filter_map(|sample| {
        let Value::Times { buckets, .. } = sample.value else {
            return None;
        };
        let (scope, _) = sample.scope.words();
        Some((
            format!("{scope}.{}.{}", sample.object, sample.stat),
            buckets,
        ))
    });
    times.collect()
}

/// The families, as the Prometheus registry collects them.
pub(super) struct Families {
    metrics: Metrics,
    desc: Desc,
}

impl Families {
    pub(super) fn new(metrics: Metrics) -> Result<Families, prometheus::Error> {
        let about = "Panics that ended a connection.".to_owned();
        let desc = Desc::new(
            "pillion_proxy_panics_total".to_owned(),
            about,
            Vec::new(),
            HashMap::new(),
        )?;
        Ok(Families { metrics, desc })
    }
}

impl Collector for Families {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let mut families: BTreeMap<String, (proto::MetricType, Vec<proto::Metric>)> =
            BTreeMap::new();
        for sample in samples(&self.metrics) {
            let (name, kind, metric) = self.series(&sample);
            families
                .entry(name)
                .or_insert((kind, Vec::new()))
                .1
                .push(metric);
        }
        let process = self.metrics.process();
        for (name, count) in [
            ("pillion_proxy_panics_total", &process.panics),
            ("pillion_proxy_accept_errors_total", &process.accept_errors),
            (
                "pillion_proxy_key_material_refused_total",
                &process.key_material_refused,
            ),
            (
                "pillion_proxy_access_log_written_total",
                &process.access_log_written,
            ),
            (
                "pillion_proxy_access_log_dropped_total",
                &process.access_log_dropped,
            ),
        ] {
            let metric = counter(count.get(), self.labels(&[]));
            families.insert(name.to_owned(), (proto::MetricType::COUNTER, vec![metric]));
        }
        families
            .into_iter()
            .map(|(name, (kind, metrics))| family(name, kind, metrics))
            .collect()
    }
}

impl Families {
    fn labels(&self, own: &[(&str, &str)]) -> Vec<proto::LabelPair> {
        let shared = self
            .metrics
            .inner
            .labels
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        own.iter().copied().chain(shared).map(pair).collect()
    }

    fn series(&self, sample: &Sample) -> (String, proto::MetricType, proto::Metric) {
        let (scope, object_label) = sample.scope.words();
        let name = format!("envoy_{scope}_{}", sample.stat.replace('.', "_"));
        let mut own = vec![(object_label, sample.object.as_str())];
        if let Some((label, value)) = &sample.label {
            own.push((label, value));
        }
        let labels = self.labels(&own);
        match &sample.value {
            Value::Count(kind, value) => {
                let of_kind = match kind {
                    Kind::Counter => proto::MetricType::COUNTER,
                    Kind::Gauge => proto::MetricType::GAUGE,
                };
                (name, of_kind, single(*kind, *value, labels))
            }
            Value::Times { buckets, sum_us } => {
                let mut metric = proto::Metric::from_label(labels);
                metric.set_histogram(histogram(buckets, *sum_us));
                (name, proto::MetricType::HISTOGRAM, metric)
            }
        }
    }
}

fn pair((name, value): (&str, &str)) -> proto::LabelPair {
    let mut pair = proto::LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

pub(super) fn pairs(labels: &[(String, String)]) -> Vec<proto::LabelPair> {
    let labels = labels.iter();
    labels
        .map(|(name, value)| pair((name.as_str(), value.as_str())))
        .collect()
}

pub(super) fn single(kind: Kind, value: u64, labels: Vec<proto::LabelPair>) -> proto::Metric {
    if kind == Kind::Counter {
        return counter(value, labels);
    }
    let mut gauge = proto::Gauge::default();
    gauge.set_value(number(value));
    let mut metric = proto::Metric::from_label(labels);
    metric.set_gauge(gauge);
    metric
}

/// Prometheus counts in floats; above 2^53 the last digits are lost, which is 285 years at a million a second.
#[allow(
    clippy::cast_precision_loss,
    reason = "the exposition format has no other number"
)]
fn number(value: u64) -> f64 {
    value as f64
}

fn counter(value: u64, labels: Vec<proto::LabelPair>) -> proto::Metric {
    let mut counter = proto::Counter::default();
    counter.set_value(number(value));
    let mut metric = proto::Metric::from_label(labels);
    metric.set_counter(counter);
    metric
}

pub(super) fn histogram(buckets: &[u64; BOUNDS.len() + 1], sum_us: u64) -> proto::Histogram {
    let mut total = 0;
    let mut out = Vec::with_capacity(BOUNDS.len());
    for (bound, count) in BOUNDS.iter().zip(buckets) {
        total += count;
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(total);
        out.push(bucket);
    }
    let mut histogram = proto::Histogram::default();
    histogram.set_sample_count(total + buckets[BOUNDS.len()]);
    histogram.set_sample_sum(number(sum_us) / 1000.0);
    histogram.set_bucket(out);
    histogram
}

pub(super) fn family(
    name: String,
    kind: proto::MetricType,
    metrics: Vec<proto::Metric>,
) -> proto::MetricFamily {
    let mut family = proto::MetricFamily::default();
    family.set_help(format!("Envoy stat {name}"));
    family.set_name(name);
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn envoy_names_come_out_in_both_forms() {
        let metrics = Metrics::new(2, vec![("appmesh_mesh".to_owned(), "m".to_owned())]);
        let registry = prometheus::Registry::new();
        metrics.register(&registry).unwrap();
        let stats = metrics.cluster("c");
        stats.parts.at(0).counts.rq_total.inc();
        stats.parts.at(1).counts.rq_total.add(2);
        stats
            .parts
            .at(1)
            .codes
            .count(StatusCode::SERVICE_UNAVAILABLE);
        metrics
            .http("ingress")
            .parts
            .at(0)
            .codes
            .count(StatusCode::OK);

        let plain: BTreeMap<String, u64> = metrics.stats().into_iter().collect();
        assert_eq!(plain["cluster.c.upstream_rq_total"], 3);
        assert_eq!(plain["cluster.c.upstream_rq_503"], 1);
        assert_eq!(plain["cluster.c.upstream_rq_5xx"], 1);
        assert_eq!(plain["http.ingress.downstream_rq_2xx"], 1);
        let text = pillion_runtime::telemetry::render(&registry);
        for line in [
            "envoy_cluster_upstream_rq_total{appmesh_mesh=\"m\",envoy_cluster_name=\"c\"} 3",
            "envoy_cluster_upstream_rq{appmesh_mesh=\"m\",envoy_cluster_name=\"c\",envoy_response_code=\"503\"} 1",
            "envoy_http_downstream_rq_xx{appmesh_mesh=\"m\",envoy_http_conn_manager_prefix=\"ingress\",envoy_response_code_class=\"2\"} 1",
        ] {
            let mut parts: Vec<&str> = line.split(['{', '}', ',']).collect();
            parts.sort_unstable();
            let found = text.lines().any(|have| {
                let mut have: Vec<&str> = have.split(['{', '}', ',']).collect();
                have.sort_unstable();
                have == parts
            });
            assert!(found, "{line} in\n{text}");
        }
    }
}
