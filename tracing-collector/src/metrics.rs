// SPDX-License-Identifier: Apache-2.0
//! Every metric family of the collector in one table. Counted in units of arrival: spans at the OTLP doors, documents
//! (and embedded parts that were refused) at the X-Ray ones. Each unit received ends as exactly one of stored, rejected
//! (its sender was told) and dropped (nobody could be told).

use std::sync::Arc;

use prometheus::GaugeVec;
use prometheus::IntCounter;
use prometheus::IntCounterVec;
use prometheus::IntGauge;
use prometheus::Opts;
use prometheus::Registry;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::rejects::Rejects;

/// A door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    OtlpGrpc,
    OtlpHttp,
    XrayUdp,
    XrayTcp,
    XrayApi,
    Zipkin,
}

impl Source {
    pub(crate) const ALL: [Source; 6] = [
        Source::OtlpGrpc,
        Source::OtlpHttp,
        Source::XrayUdp,
        Source::XrayTcp,
        Source::XrayApi,
        Source::Zipkin,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Source::OtlpGrpc => "otlp_grpc",
            Source::OtlpHttp => "otlp_http",
            Source::XrayUdp => "xray_udp",
            Source::XrayTcp => "xray_tcp",
            Source::XrayApi => "xray_api",
            Source::Zipkin => "zipkin",
        }
    }
}

/// Why something was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    /// Not the shape it should have.
    Invalid,
    /// Larger than is accepted.
    TooLarge,
    /// The queue was full; the sender may try again.
    QueueFull,
    /// The store did not take it.
    Store,
    /// The kernel's receive buffer was full.
    Kernel,
}

impl Reason {
    const ALL: [Reason; 5] = [
        Reason::Invalid,
        Reason::TooLarge,
        Reason::QueueFull,
        Reason::Store,
        Reason::Kernel,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Reason::Invalid => "invalid",
            Reason::TooLarge => "too_large",
            Reason::QueueFull => "queue_full",
            Reason::Store => "store",
            Reason::Kernel => "kernel",
        }
    }
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let family =
        IntCounterVec::new(Opts::new(name, help), labels).expect("the name is a literal and valid");
    registry
        .register(Box::new(family.clone()))
        .expect("every family has a name of its own");
    family
}

fn gauges(registry: &Registry, name: &str, help: &str) -> GaugeVec {
    let family =
        GaugeVec::new(Opts::new(name, help), &["alert"]).expect("the name is a literal and valid");
    registry
        .register(Box::new(family.clone()))
        .expect("every family has a name of its own");
    family
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    let gauge = IntGauge::new(name, help).expect("the name is a literal and valid");
    registry
        .register(Box::new(gauge.clone()))
        .expect("every family has a name of its own");
    gauge
}

/// What is told, and what others tell.
#[derive(Clone)]
struct Notices {
    webhooks: IntCounterVec,
    senders: IntCounterVec,
    alerts: GaugeVec,
    alert_values: GaugeVec,
}

impl Notices {
    fn new(registry: &Registry) -> Notices {
        Notices {
            webhooks: counters(
                registry,
                "pillion_collector_webhooks_total",
                "Notifications, by whether they were taken",
                &["taken"],
            ),
            senders: counters(
                registry,
                "pillion_collector_senders_segments_total",
                "What daemons and collectors said of themselves by PutTelemetryRecords",
                &["what"],
            ),
            alerts: gauges(
                registry,
                "pillion_collector_alert_firing",
                "1 while an alert rule fires",
            ),
            alert_values: gauges(
                registry,
                "pillion_collector_alert_value",
                "What an alert rule compares; NaN when too few requests say it",
            ),
        }
    }
}

#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) registry: Registry,
    pub(crate) rejects: Arc<Rejects>,
    received: IntCounterVec,
    rejected: IntCounterVec,
    dropped: IntCounterVec,
    stored: IntCounterVec,
    clamped: IntCounterVec,
    notices: Notices,
    pub(crate) queue_bytes: IntGauge,
    pub(crate) unsettled: IntGauge,
    pub(crate) store_up: IntGauge,
    pub(crate) memory_bytes: IntGauge,
    pub(crate) memory_limit: IntGauge,
    pub(crate) settled: IntCounter,
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let registry = Registry::new();
        let family = |name, help, labels: &[&str]| counters(&registry, name, help, labels);
        let gauge = |name, help| gauge(&registry, name, help);
        let settled = counters(
            &registry,
            "pillion_collector_settled_total",
            "Times a trace was counted into the map",
            &[],
        );
        let both = ["source", "reason"];
        let metrics = Metrics {
            received: family(
                "pillion_collector_received_total",
                "Spans or documents that arrived",
                &["source"],
            ),
            rejected: family(
                "pillion_collector_rejected_total",
                "Refused, and the sender was told",
                &both,
            ),
            dropped: family(
                "pillion_collector_dropped_total",
                "Lost, and nobody could be told",
                &both,
            ),
            stored: family(
                "pillion_collector_stored_total",
                "Written to the store",
                &["source"],
            ),
            clamped: family(
                "pillion_collector_clamped_total",
                "Ended before they started; stored with no duration",
                &["source"],
            ),
            notices: Notices::new(&registry),
            queue_bytes: gauge(
                "pillion_collector_queue_bytes",
                "Bytes accepted and not yet stored",
            ),
            unsettled: gauge(
                "pillion_collector_unsettled_traces",
                "Traces waiting to be counted into the map",
            ),
            store_up: gauge(
                "pillion_collector_store_up",
                "1 while the store takes writes",
            ),
            memory_bytes: gauge(
                "pillion_collector_memory_bytes",
                "Resident memory of this process",
            ),
            memory_limit: gauge(
                "pillion_collector_memory_limit_bytes",
                "What --memory-limit allows it",
            ),
            settled: settled.with_label_values::<&str>(&[]),
            registry: registry.clone(),
            rejects: Arc::default(),
        };
        // A family without children is invisible; zero is what a reader should see.
        metrics.store_up.set(1);
        for source in Source::ALL {
            metrics.received(source, 0);
            metrics.stored(source, 0);
        }
        metrics
    }

    pub(crate) fn received(&self, source: Source, units: usize) {
        self.received
            .with_label_values(&[source.name()])
            .inc_by(units as u64);
    }

    pub(crate) fn rejected(&self, source: Source, reason: Reason, units: usize) {
        self.rejected
            .with_label_values(&[source.name(), reason.name()])
            .inc_by(units as u64);
    }

    pub(crate) fn dropped(&self, source: Source, reason: Reason, units: usize) {
        self.dropped
            .with_label_values(&[source.name(), reason.name()])
            .inc_by(units as u64);
    }

    pub(crate) fn stored(&self, source: Source, units: usize) {
        self.stored
            .with_label_values(&[source.name()])
            .inc_by(units as u64);
    }

    pub(crate) fn clamped(&self, source: Source, units: usize) {
        self.clamped
            .with_label_values(&[source.name()])
            .inc_by(units as u64);
    }

    pub(crate) fn alert(&self, name: &str, firing: bool, value: Option<f64>) {
        let firing = if firing { 1.0 } else { 0.0 };
        self.notices.alerts.with_label_values(&[name]).set(firing);
        let value = value.unwrap_or(f64::NAN);
        self.notices
            .alert_values
            .with_label_values(&[name])
            .set(value);
    }

    pub(crate) fn forget_alert(&self, name: &str) {
        for family in [&self.notices.alerts, &self.notices.alert_values] {
            // One that was never looked at has no line to remove.
            family.remove_label_values(&[name]).unwrap_or_default();
        }
    }

    /// What a sender says of itself.
    pub(crate) fn sender(&self, what: &str, segments: u64) {
        self.notices
            .senders
            .with_label_values(&[what])
            .inc_by(segments);
    }

    pub(crate) fn webhook(&self, taken: bool) {
        let taken = if taken { "true" } else { "false" };
        self.notices.webhooks.with_label_values(&[taken]).inc();
    }

    /// The same counts as JSON, for `/pillion/v1/stats`.
    pub(crate) fn stats(&self) -> Value {
        let mut sources = Map::new();
        let mut sums = [0; 4];
        for source in Source::ALL {
            let reasons = |family: &IntCounterVec| -> Map<String, Value> {
                let count = |reason: &Reason| {
                    family
                        .with_label_values(&[source.name(), reason.name()])
                        .get()
                };
                Reason::ALL
                    .iter()
                    .map(|reason| (reason.name().to_owned(), json!(count(reason))))
                    .filter(|(_, count)| count != 0)
                    .collect()
            };
            let sum = |reasons: &Map<String, Value>| {
                reasons.values().filter_map(Value::as_u64).sum::<u64>()
            };
            let (rejected, dropped) = (reasons(&self.rejected), reasons(&self.dropped));
            let received = self.received.with_label_values(&[source.name()]).get();
            let stored = self.stored.with_label_values(&[source.name()]).get();
            for (total, part) in
                sums.iter_mut()
                    .zip([received, stored, sum(&rejected), sum(&dropped)])
            {
                *total += part;
            }
            let one = json!({"received": received, "stored": stored, "rejected": rejected, "dropped": dropped});
            sources.insert(source.name().to_owned(), one);
        }
        let [received, stored, rejected, dropped] = sums;
        json!({
            "received": received, "stored": stored, "rejected": rejected, "dropped": dropped,
            "queue_bytes": self.queue_bytes.get(), "unsettled_traces": self.unsettled.get(), "sources": sources,
        })
    }
}
