// SPDX-License-Identifier: Apache-2.0
//! Requests, failures and times per call and per operation, under the names that Grafana's service graph draws
//! (`traces_service_graph_*`, `traces_spanmetrics_*`), with the last trace of each bucket as exemplar. Calls are counted
//! when a trace settles, operations when a span is stored; both from every span, sampled away later or not.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::extract::State;
use axum::middleware::Next;
use axum::response::IntoResponse;
use axum::response::Response;
use http::HeaderValue;
use http::header::ACCEPT;
use http::header::CONTENT_TYPE;
use parking_lot::Mutex;

use crate::graph::CLIENT_TYPE;
use crate::graph::Contribution;
use crate::graph::Key;
use crate::span::Outcome;
use crate::span::Span;
use crate::span::TraceId;
use crate::store::Settled;

/// Further names are counted under this one.
const OTHER: &str = "other";
const MOST_SERIES: usize = 3000;
const CALL_BUCKETS: [f64; 8] = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8];
const SPAN_BUCKETS: [f64; 14] = [
    0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192,
    16.384,
];
const OPENMETRICS: &str = "application/openmetrics-text";
const MAX_PAGE: usize = 64 * 1024 * 1024;

#[derive(Clone, Default)]
pub(crate) struct ServiceMetrics(Arc<Mutex<Families>>);

#[derive(Default)]
struct Families {
    /// Client, server, connection type.
    calls: BTreeMap<[String; 3], CallSeries>,
    /// Service, operation, kind, status.
    spans: BTreeMap<[String; 4], Times>,
}

#[derive(Default)]
struct CallSeries {
    failed: u64,
    client: Times,
    server: Times,
}

#[derive(Default)]
struct Times {
    count: u64,
    sum: f64,
    /// By bucket, the one beyond the last included; not cumulative.
    buckets: Vec<Bucket>,
}

#[derive(Clone, Default)]
struct Bucket {
    count: u64,
    last: Option<Exemplar>,
}

#[derive(Clone, Copy)]
struct Exemplar {
    trace: TraceId,
    seconds: f64,
    at: f64,
}

impl Times {
    fn observe(&mut self, bounds: &[f64], one: Exemplar) {
        self.buckets.resize(bounds.len() + 1, Bucket::default());
        let at = bounds.iter().position(|bound| one.seconds <= *bound);
        let bucket = &mut self.buckets[at.unwrap_or(bounds.len())];
        bucket.count += 1;
        bucket.last = Some(one);
        self.count += 1;
        self.sum += one.seconds;
    }
}

impl ServiceMetrics {
    pub(crate) fn stored(&self, spans: &[Span]) {
        let mut families = self.0.lock();
        for span in spans {
            let (Some(service), Some(us), Some(end)) =
                (&span.service, span.duration_us(), span.end_ns)
            else {
                continue;
            };
            let failed = span.flags.fault || span.flags.error;
            let status = if failed {
                "STATUS_CODE_ERROR"
            } else {
                "STATUS_CODE_UNSET"
            };
            let kind = format!("SPAN_KIND_{}", span.kind.name().to_ascii_uppercase());
            let full = families.spans.len() >= MOST_SERIES;
            let mut labels = [
                service.name.clone(),
                span.name.clone(),
                kind,
                status.to_owned(),
            ];
            if full && !families.spans.contains_key(&labels) {
                OTHER.clone_into(&mut labels[0]);
                OTHER.clone_into(&mut labels[1]);
            }
            let one = Exemplar {
                trace: span.trace,
                seconds: us as f64 / 1e6,
                at: end as f64 / 1e9,
            };
            families
                .spans
                .entry(labels)
                .or_default()
                .observe(&SPAN_BUCKETS, one);
        }
    }

    pub(crate) fn settled(&self, settled: &[Settled]) {
        let mut families = self.0.lock();
        for one in settled {
            let kinds = kinds(&one.now.contributions);
            for call in fresh(&one.before, &one.now.contributions) {
                let Key::Calls { source, target } = &call.key else {
                    continue;
                };
                families.call(
                    source,
                    target,
                    (kinds.get(target.as_str()), one.now.summary.id),
                    call,
                );
            }
        }
    }

    /// Both families, after the page that is there already.
    pub(crate) fn on_metrics_page(&self, admin: Router) -> Router {
        admin.layer(axum::middleware::from_fn_with_state(self.clone(), append))
    }

    fn render(&self, exemplars: bool) -> String {
        let mut text = String::new();
        self.0
            .lock()
            .render(&mut text, exemplars)
            .unwrap_or_default();
        text
    }
}

/// What is known of the parties of a trace: their type, and whether they sent nothing.
fn kinds(contributions: &[Contribution]) -> HashMap<&str, (&str, bool)> {
    let mut found = HashMap::new();
    for one in contributions {
        if let Key::Party(node) = &one.key {
            found.insert(node.name.as_str(), (node.kind.as_str(), one.inferred));
        }
    }
    found
}

/// What a trace adds that it had not added before: counters never go back.
fn fresh<'c>(before: &[Contribution], now: &'c [Contribution]) -> Vec<&'c Contribution> {
    let same = |one: &Contribution| (one.key.clone(), one.end_us, one.response_us);
    let mut known: HashMap<_, usize> = HashMap::new();
    for one in before {
        *known.entry(same(one)).or_default() += 1;
    }
    let mut fresh = Vec::new();
    for one in now {
        match known.get_mut(&same(one)) {
            Some(left) if *left > 0 => *left -= 1,
            _ => fresh.push(one),
        }
    }
    fresh
}

impl Families {
    fn call(
        &mut self,
        source: &str,
        target: &str,
        (kind, trace): (Option<&(&str, bool)>, TraceId),
        one: &Contribution,
    ) {
        let outside = source == CLIENT_TYPE;
        let connection = match kind {
            Some((kind, _)) if kind.starts_with("Database::") || kind.contains("DynamoDB") => {
                "database"
            }
            Some((kind, _)) if kind.starts_with("AWS::SQS") || kind.starts_with("AWS::SNS") => {
                "messaging_system"
            }
            Some((_, true)) => "virtual_node",
            _ if outside => "virtual_node",
            _ => "",
        };
        let client = if outside { "user" } else { source };
        let mut labels = [client, target, connection].map(str::to_owned);
        if self.calls.len() >= MOST_SERIES && !self.calls.contains_key(&labels) {
            labels = [OTHER, OTHER, ""].map(str::to_owned);
        }
        let series = self.calls.entry(labels).or_default();
        series.failed += u64::from(one.outcome != Outcome::Ok);
        let at = |us: u64| Exemplar {
            trace,
            seconds: us as f64 / 1e6,
            at: one.end_us as f64 / 1e6,
        };
        series.client.observe(&CALL_BUCKETS, at(one.response_us));
        let served = one.response_us.saturating_sub(one.between_us.unwrap_or(0));
        series.server.observe(&CALL_BUCKETS, at(served));
    }

    fn render(&self, text: &mut String, exemplars: bool) -> std::fmt::Result {
        let page = Page { exemplars };
        let call = |labels: &[String; 3]| {
            let [client, server, connection] = labels.each_ref().map(|label| escaped(label));
            format!("client=\"{client}\",server=\"{server}\",connection_type=\"{connection}\"")
        };
        let graph = "traces_service_graph_request";
        page.head(
            text,
            &format!("{graph}_total"),
            "counter",
            "Calls between services",
        )?;
        for (labels, series) in &self.calls {
            writeln!(
                text,
                "{graph}_total{{{}}} {}",
                call(labels),
                series.client.count
            )?;
        }
        page.head(
            text,
            &format!("{graph}_failed_total"),
            "counter",
            "Calls that failed",
        )?;
        for (labels, series) in &self.calls {
            writeln!(
                text,
                "{graph}_failed_total{{{}}} {}",
                call(labels),
                series.failed
            )?;
        }
        for (side, of) in [("client", 0), ("server", 1)] {
            let name = format!("{graph}_{side}_seconds");
            page.head(
                text,
                &name,
                "histogram",
                "Times of calls as this side measured them",
            )?;
            for (labels, series) in &self.calls {
                let times = if of == 0 {
                    &series.client
                } else {
                    &series.server
                };
                page.times(text, (&name, &call(labels)), times, &CALL_BUCKETS)?;
            }
        }
        let span = |labels: &[String; 4]| {
            let [service, name, kind, status] = labels.each_ref().map(|label| escaped(label));
            format!(
                "service=\"{service}\",span_name=\"{name}\",span_kind=\"{kind}\",status_code=\"{status}\""
            )
        };
        let name = "traces_spanmetrics_calls_total";
        page.head(text, name, "counter", "Spans of operations")?;
        for (labels, times) in &self.spans {
            writeln!(text, "{name}{{{}}} {}", span(labels), times.count)?;
        }
        let name = "traces_spanmetrics_latency";
        page.head(text, name, "histogram", "Times of operations in seconds")?;
        for (labels, times) in &self.spans {
            page.times(text, (name, &span(labels)), times, &SPAN_BUCKETS)?;
        }
        Ok(())
    }
}

struct Page {
    exemplars: bool,
}

impl Page {
    fn head(&self, text: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}")
    }

    fn times(
        &self,
        text: &mut String,
        (name, labels): (&str, &str),
        times: &Times,
        bounds: &[f64],
    ) -> std::fmt::Result {
        let bounds = bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        let mut count = 0;
        for (bound, bucket) in bounds.zip(&times.buckets) {
            count += bucket.count;
            write!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}")?;
            if let (true, Some(last)) = (self.exemplars, bucket.last) {
                let Exemplar { trace, seconds, at } = last;
                write!(text, " # {{trace_id=\"{trace}\"}} {seconds} {at:.3}")?;
            }
            text.push('\n');
        }
        writeln!(
            text,
            "{name}_sum{{{labels}}} {}\n{name}_count{{{labels}}} {count}",
            times.sum
        )
    }
}

fn escaped(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// Exemplars need OpenMetrics, which Prometheus asks for when it wants them.
async fn append(State(metrics): State<ServiceMetrics>, request: Request, next: Next) -> Response {
    let ours = request.uri().path() == "/metrics";
    let accepted = request
        .headers()
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok());
    let open = accepted.is_some_and(|accepted| accepted.contains(OPENMETRICS));
    let response = next.run(request).await;
    if !ours || !response.status().is_success() {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, MAX_PAGE).await else {
        return (
            http::StatusCode::INTERNAL_SERVER_ERROR,
            "the page is too large\n",
        )
            .into_response();
    };
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    text.push_str(&metrics.render(open));
    if open {
        text = openmetrics(&text);
        let kind =
            HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
        head.headers.insert(CONTENT_TYPE, kind);
    }
    head.headers.remove(http::header::CONTENT_LENGTH);
    Response::from_parts(head, Body::from(text))
}

/// There a counter's family has no `_total`, and the page an end.
fn openmetrics(text: &str) -> String {
    let counters: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix("_total counter"))
        .collect();
    let mut open = String::with_capacity(text.len());
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        let family = match (words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP" | "TYPE"), Some(family)) => family.strip_suffix("_total"),
            _ => None,
        };
        match family.filter(|family| counters.contains(family)) {
            Some(family) => open.push_str(&line.replacen(&format!("{family}_total"), family, 1)),
            None => open.push_str(line),
        }
        open.push('\n');
    }
    open.push_str("# EOF\n");
    open
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::tests::span;

    #[test]
    fn an_operation_is_counted_with_its_last_trace_beside_its_bucket() {
        let metrics = ServiceMetrics::default();
        metrics.stored(&[span(1, 0, "we\"b")]);
        let classic = metrics.render(false);
        let labels = "service=\"we\\\"b\",span_name=\"we\\\"b\",span_kind=\"SPAN_KIND_INTERNAL\",status_code=\"STATUS_CODE_UNSET\"";
        let line = format!("traces_spanmetrics_latency_bucket{{{labels},le=\"1.024\"}} 1");
        assert!(classic.lines().any(|one| one == line), "{classic}");
        let open = openmetrics(&metrics.render(true));
        let id = format!("{:032x}", 1);
        assert!(
            open.contains(&format!("{line} # {{trace_id=\"{id}\"}} 1 2.000\n")),
            "{open}"
        );
        assert!(open.contains("# TYPE traces_spanmetrics_calls counter\n"));
        assert!(open.ends_with("# EOF\n"));
    }

    #[test]
    fn names_without_end_are_counted_together() {
        let metrics = ServiceMetrics::default();
        let spans: Vec<Span> = (0..MOST_SERIES + 10)
            .map(|number| span(1, 0, &format!("s{number}")))
            .collect();
        metrics.stored(&spans);
        let families = metrics.0.lock();
        assert_eq!(families.spans.len(), MOST_SERIES + 1);
        let counted: u64 = families.spans.values().map(|times| times.count).sum();
        assert_eq!(counted, spans.len() as u64);
    }

    #[test]
    fn what_was_added_before_is_not_added_again() {
        let one = |end_us: u64| Contribution {
            key: Key::Calls {
                source: "a".to_owned(),
                target: "b".to_owned(),
            },
            end_us,
            response_us: 1,
            duration_us: 1,
            outcome: Outcome::Ok,
            root: false,
            inferred: false,
            between_us: None,
        };
        let now = [one(1), one(1), one(2)];
        assert_eq!(fresh(&[one(1)], &now), [&now[1], &now[2]]);
    }
}
