// SPDX-License-Identifier: Apache-2.0
//! App Mesh's own metrics, version 1 (`envoy_appmesh_*`): few series, per workload and per target, made from the counts
//! that Envoy's names show in full. Registered by `app` when `APPMESH_METRIC_EXTENSION_VERSION=1` asks for it.

use std::collections::BTreeMap;
use std::collections::HashMap;

use prometheus::core::Collector;
use prometheus::core::Desc;
use prometheus::proto;

use super::Metrics;
use super::export;
use super::stats::BOUNDS;
use super::stats::ClusterStats;
use super::stats::Kind;
use crate::snapshot::Live;

/// See the module.
pub struct Extension {
    metrics: Metrics,
    live: Live,
    labels: Vec<(String, String)>,
    desc: Desc,
}

type Families = BTreeMap<&'static str, (proto::MetricType, Vec<proto::Metric>)>;

impl Extension {
    /// `labels` name the workload: `Mesh`, and `VirtualNode` or `VirtualGateway`.
    pub fn new(
        metrics: Metrics,
        live: Live,
        labels: Vec<(String, String)>,
    ) -> Result<Extension, prometheus::Error> {
        let help = "App Mesh's metrics extension.".to_owned();
        let name = "envoy_appmesh_RequestCount".to_owned();
        let desc = Desc::new(name, help, Vec::new(), HashMap::new())?;
        Ok(Extension {
            metrics,
            live,
            labels,
            desc,
        })
    }

    fn workload(&self, families: &mut Families) {
        let mut sums: BTreeMap<&'static str, u64> = BTreeMap::new();
        let mut add = |stat, value| {
            let sum = sums.entry(stat).or_default();
            *sum = sum.wrapping_add(value);
        };
        for stats in self.metrics.inner.listeners.lock().values() {
            for part in stats.parts.iter() {
                add("active", part.cx_active.get());
                add("new", part.cx_total.get());
            }
        }
        for stats in self.metrics.inner.http.lock().values() {
            for part in stats.parts.iter() {
                add("requests", part.counts.rq_total.get());
                add("grpc", part.counts.rq_grpc_total.get());
                add("bytes", part.counts.rx_bytes.get());
                add("bytes", part.counts.tx_bytes.get());
            }
        }
        for stats in self.metrics.inner.tcp.lock().values() {
            for part in stats.parts.iter() {
                add("bytes", part.rx_bytes.get());
                add("bytes", part.tx_bytes.get());
            }
        }
        for (name, stat, kind) in [
            ("envoy_appmesh_ActiveConnectionCount", "active", Kind::Gauge),
            ("envoy_appmesh_NewConnectionCount", "new", Kind::Counter),
            ("envoy_appmesh_ProcessedBytes", "bytes", Kind::Counter),
            ("envoy_appmesh_RequestCount", "requests", Kind::Counter),
            ("envoy_appmesh_GrpcRequestCount", "grpc", Kind::Counter),
        ] {
            let value = sums.get(stat).copied().unwrap_or_default();
            let labels = export::pairs(&self.labels);
            put(families, name, kind, export::single(kind, value, labels));
        }
    }

    fn target(&self, families: &mut Families, labels: &[(String, String)], stats: &ClusterStats) {
        let (mut requests, mut bytes) = (0, 0);
        let mut classes = [0; 6];
        let mut buckets = [0; BOUNDS.len() + 1];
        let mut sum_us = 0;
        for part in stats.parts.iter() {
            requests += part.counts.rq_total.get();
            bytes += part.counts.cx_rx_bytes.get() + part.counts.cx_tx_bytes.get();
            part.codes
                .each_class(|class, count| classes[class] += count);
            part.rq_time.add_to(&mut buckets, &mut sum_us);
        }
        for (name, value) in [
            ("envoy_appmesh_RequestCountPerTarget", requests),
            ("envoy_appmesh_TargetProcessedBytes", bytes),
            ("envoy_appmesh_HTTPCode_Target_2XX_Count", classes[2]),
            ("envoy_appmesh_HTTPCode_Target_3XX_Count", classes[3]),
            ("envoy_appmesh_HTTPCode_Target_4XX_Count", classes[4]),
            ("envoy_appmesh_HTTPCode_Target_5XX_Count", classes[5]),
        ] {
            let metric = export::single(Kind::Counter, value, export::pairs(labels));
            put(families, name, Kind::Counter, metric);
        }
        let mut metric = proto::Metric::from_label(export::pairs(labels));
        metric.set_histogram(export::histogram(&buckets, sum_us));
        families
            .entry("envoy_appmesh_TargetResponseTime")
            .or_insert((proto::MetricType::HISTOGRAM, Vec::new()))
            .1
            .push(metric);
    }
}

fn put(families: &mut Families, name: &'static str, kind: Kind, metric: proto::Metric) {
    let kind = match kind {
        Kind::Counter => proto::MetricType::COUNTER,
        Kind::Gauge => proto::MetricType::GAUGE,
    };
    families
        .entry(name)
        .or_insert((kind, Vec::new()))
        .1
        .push(metric);
}

impl Collector for Extension {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let mut families = Families::new();
        self.workload(&mut families);
        for cluster in self.live.current().clusters() {
            let label = |wanted: &str| {
                let found = cluster.config.labels.iter().find(|(key, _)| key == wanted);
                found.map(|(_, value)| value.clone())
            };
            // Only egress clusters have one: `<mesh>/<node>`.
            let Some(target) = label("target") else {
                continue;
            };
            let node = target.rsplit('/').next().unwrap_or_default().to_owned();
            let mut labels = self.labels.clone();
            labels.push(("TargetVirtualNode".to_owned(), node));
            if let Some(service) = label("virtual_service") {
                labels.push(("TargetVirtualService".to_owned(), service));
            }
            self.target(&mut families, &labels, &cluster.state.stats);
        }
        families
            .into_iter()
            .map(|(name, (kind, metrics))| export::family(name.to_owned(), kind, metrics))
            .collect()
    }
}
