// SPDX-License-Identifier: Apache-2.0
//! Span export in the background: finished spans go into a bounded queue and leave in batches by OTLP, or one by one as
//! datagrams of the caller's form. Recording never blocks and never fails; what does not fit is dropped and counted. The
//! collector may be away: batches are retried a little, then dropped and counted.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use opentelemetry::InstrumentationScope;
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanContext;
use opentelemetry::trace::SpanId;
use opentelemetry::trace::SpanKind;
use opentelemetry::trace::Status;
use opentelemetry::trace::TraceFlags;
use opentelemetry::trace::TraceId;
use opentelemetry::trace::TraceState;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use opentelemetry_sdk::trace::SpanExporter as _;
use prometheus::core::Collector;
use prometheus::core::Desc;
use prometheus::proto::MetricFamily;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use crate::tasks::Tasks;

/// Spans waiting for export; at 1 KiB a span, a few MiB at the most.
const QUEUE: usize = 8192;
const BATCH: usize = 512;
/// A span waits at most this long for company.
const LINGER: Duration = Duration::from_millis(500);
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Waits between attempts at one batch.
const RETRY_AFTER: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

pub use opentelemetry::KeyValue as Attribute;
pub use opentelemetry::trace::SpanKind as Kind;

/// One finished span.
#[derive(Clone, Debug)]
pub struct SpanRecord {
    /// Trace.
    pub trace_id: u128,
    /// This span.
    pub span_id: u64,
    /// Its parent, 0 for a root.
    pub parent_id: u64,
    /// Server or client.
    pub kind: SpanKind,
    /// Low-cardinality name.
    pub name: Cow<'static, str>,
    /// Begin.
    pub start: SystemTime,
    /// End.
    pub end: SystemTime,
    /// Semantic-convention names where there is one.
    pub attributes: Vec<KeyValue>,
    /// Whether it failed.
    pub error: bool,
}

/// Where finished spans go. Clones share one queue.
#[derive(Clone)]
pub struct Spans {
    queue: Option<mpsc::Sender<SpanRecord>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    exported: AtomicU64,
    dropped: AtomicU64,
}

/// An exporter that could not be built.
#[derive(Debug, thiserror::Error)]
#[error(
    "export spans to {collector}: {source}; give the collector's OTLP gRPC address as http://host:4317"
)]
pub struct SpansError {
    collector: String,
    source: opentelemetry_otlp::ExporterBuildError,
}

impl Spans {
    /// Records into nothing: no collector is configured.
    pub fn off() -> Spans {
        Spans {
            queue: None,
            counts: Arc::default(),
        }
    }

    /// Exports to `collector` (`http://host:4317`) with these resource attributes, in a task of `tasks`.
    pub fn start(
        collector: &str,
        resource: Vec<KeyValue>,
        tasks: &Tasks,
    ) -> Result<Spans, SpansError> {
        let mut exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(collector)
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .map_err(|source| SpansError {
                collector: collector.to_owned(),
                source,
            })?;
        exporter.set_resource(&Resource::builder_empty().with_attributes(resource).build());
        let (queue, receiver) = mpsc::channel(QUEUE);
        let spans = Spans {
            queue: Some(queue),
            counts: Arc::default(),
        };
        let counts = Arc::clone(&spans.counts);
        let stop = tasks.stop();
        tasks.spawn("span-export", async move {
            export(receiver, exporter, counts, stop).await;
        });
        Ok(spans)
    }

    /// Sends each span as a datagram to `to`, made by `encode` (`None`: it cannot be sent), in a task of `tasks`.
    pub fn datagrams(
        to: SocketAddr,
        encode: impl Fn(&SpanRecord) -> Option<Vec<u8>> + Send + 'static,
        tasks: &Tasks,
    ) -> Spans {
        let (queue, mut receiver) = mpsc::channel(QUEUE);
        let spans = Spans {
            queue: Some(queue),
            counts: Arc::default(),
        };
        let counts = Arc::clone(&spans.counts);
        let stop = tasks.stop();
        tasks.spawn("span-datagrams", async move {
            let mut socket = None;
            loop {
                let span: Option<SpanRecord> = tokio::select! {
                    span = receiver.recv() => span,
                    // After the stop what is queued still goes.
                    () = stop.cancelled() => receiver.try_recv().ok(),
                };
                let Some(span) = span else { return };
                let sent = match encode(&span) {
                    Some(bytes) => send_datagram(&mut socket, to, &bytes).await,
                    None => false,
                };
                let count = if sent {
                    &counts.exported
                } else {
                    &counts.dropped
                };
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        spans
    }

    /// Whether anything is exported; a hot path may skip building records when not.
    pub fn enabled(&self) -> bool {
        self.queue.is_some()
    }

    /// Takes a finished span, or drops and counts it when the queue is full.
    pub fn try_record(&self, span: SpanRecord) {
        if let Some(queue) = &self.queue
            && queue.try_send(span).is_err()
        {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Spans the collector took.
    pub fn exported(&self) -> u64 {
        self.counts.exported.load(Ordering::Relaxed)
    }

    /// Spans lost to a full queue or an absent collector.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }
}

/// Losses are visible where every other figure of the process is.
impl Collector for Spans {
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let of = |name: &str, help: &str, count: u64| {
            let counter = prometheus::IntCounter::new(name, help).expect("a literal name is valid");
            counter.inc_by(count);
            counter.collect()
        };
        let sent = of(
            "pillion_spans_exported_total",
            "Spans the collector took",
            self.exported(),
        );
        let lost = of(
            "pillion_spans_dropped_total",
            "Spans lost to a full queue or an absent collector",
            self.dropped(),
        );
        sent.into_iter().chain(lost).collect()
    }
}

/// A socket that failed is opened anew for the next one: nobody may have listened for a while.
async fn send_datagram(socket: &mut Option<UdpSocket>, to: SocketAddr, bytes: &[u8]) -> bool {
    if socket.is_none() {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        *socket = UdpSocket::bind(any).await.ok();
    }
    let sent = match socket {
        Some(socket) => socket.send_to(bytes, to).await.is_ok(),
        None => false,
    };
    if !sent {
        *socket = None;
    }
    sent
}

async fn export(
    mut queue: mpsc::Receiver<SpanRecord>,
    exporter: SpanExporter,
    counts: Arc<Counts>,
    stop: tokio_util::sync::CancellationToken,
) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let open = tokio::select! {
            taken = queue.recv_many(&mut batch, BATCH) => taken > 0,
            () = stop.cancelled() => false,
        };
        if !open {
            break;
        }
        // Company for a lone span: fewer, larger exports cost less on both ends.
        let full =
            async { while batch.len() < BATCH && queue.recv_many(&mut batch, BATCH).await > 0 {} };
        tokio::select! {
            _ = tokio::time::timeout(LINGER, full) => {}
            () = stop.cancelled() => {}
        }
        send(&exporter, &mut batch, &counts, &stop).await;
    }
    queue.close();
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        send(&exporter, &mut batch, &counts, &stop).await;
    }
}

async fn send(
    exporter: &SpanExporter,
    batch: &mut Vec<SpanRecord>,
    counts: &Counts,
    stop: &tokio_util::sync::CancellationToken,
) {
    let spans: Vec<SpanData> = batch.drain(..).map(span_data).collect();
    let number = spans.len() as u64;
    let mut waits = RETRY_AFTER.iter();
    loop {
        match exporter.export(spans.clone()).await {
            Ok(()) => {
                counts.exported.fetch_add(number, Ordering::Relaxed);
                return;
            }
            Err(error) => {
                let wait = waits.next().filter(|_| !stop.is_cancelled());
                let Some(wait) = wait else {
                    counts.dropped.fetch_add(number, Ordering::Relaxed);
                    tracing::warn!(%error, spans = number, "spans dropped: the collector did not take them");
                    return;
                };
                tokio::select! {
                    () = tokio::time::sleep(*wait) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
    }
}

fn span_data(span: SpanRecord) -> SpanData {
    let context = SpanContext::new(
        TraceId::from(span.trace_id),
        SpanId::from(span.span_id),
        TraceFlags::SAMPLED,
        false,
        TraceState::default(),
    );
    SpanData {
        span_context: context,
        parent_span_id: SpanId::from(span.parent_id),
        parent_span_is_remote: true,
        span_kind: span.kind,
        name: span.name,
        start_time: span.start,
        end_time: span.end,
        attributes: span.attributes,
        dropped_attributes_count: 0,
        events: Default::default(),
        links: Default::default(),
        status: if span.error {
            Status::error("")
        } else {
            Status::Unset
        },
        instrumentation_scope: InstrumentationScope::builder("pillion").build(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_span_that_finds_the_queue_full_is_counted_in_the_metrics() {
        let (queue, _receiver) = mpsc::channel(1);
        let spans = Spans {
            queue: Some(queue),
            counts: Arc::default(),
        };
        let registry = prometheus::Registry::new();
        registry
            .register(Box::new(spans.clone()))
            .expect("registered once");
        let span = SpanRecord {
            trace_id: 1,
            span_id: 1,
            parent_id: 0,
            kind: SpanKind::Server,
            name: "GET all".into(),
            start: SystemTime::UNIX_EPOCH,
            end: SystemTime::UNIX_EPOCH,
            attributes: Vec::new(),
            error: false,
        };
        for _ in 0..3 {
            spans.try_record(span.clone());
        }
        let text = crate::telemetry::render(&registry);
        assert!(text.contains("pillion_spans_dropped_total 2"), "{text}");
    }
}
