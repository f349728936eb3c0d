// SPDX-License-Identifier: Apache-2.0
//! What is shown: the progress bar, interim lines and the final report, as text or JSON. Called by `driver` while a
//! run goes on and by `main` at its end. Its JSON is a contract: `pillion demo` reads it.

use std::convert::Infallible;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::args::{Output, Plan};
use crate::driver::Summary;
use crate::tally::Tally;

#[derive(Debug, Serialize)]
struct Latency {
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    p99_9_ms: f64,
    max_ms: f64,
}

#[derive(Debug, Serialize)]
struct Kinds {
    connect: u64,
    timeout: u64,
    broken: u64,
    unfinished: u64,
    status_4xx: u64,
    status_5xx: u64,
}

#[derive(Debug, Serialize)]
struct Statuses {
    #[serde(rename = "1xx")]
    informational: u64,
    #[serde(rename = "2xx")]
    success: u64,
    #[serde(rename = "3xx")]
    redirection: u64,
    #[serde(rename = "4xx")]
    client_error: u64,
    #[serde(rename = "5xx")]
    server_error: u64,
}

#[derive(Debug, Serialize)]
struct Rate {
    asked: f64,
    reached: f64,
}

#[derive(Debug, Serialize)]
struct Late {
    connections_busy: u64,
    generator: u64,
}

/// One line of JSON; `event` is `interval` (what happened since the last) or `final` (the whole run).
#[derive(Debug, Serialize)]
struct Line<'a> {
    event: &'static str,
    at_s: f64,
    requests: u64,
    failures: u64,
    failures_by_kind: Kinds,
    statuses: Statuses,
    latency: Latency,
    rate: Rate,
    bytes: u64,
    late: Late,
    #[serde(skip_serializing_if = "Option::is_none")]
    unsent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interrupted: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<&'a str>,
}

impl Line<'_> {
    fn new(event: &'static str, at: Duration, asked: f64, window: Duration, tally: &Tally) -> Self {
        Self {
            event,
            at_s: round(at.as_secs_f64()),
            requests: tally.requests,
            failures: tally.failures(),
            failures_by_kind: Kinds {
                connect: tally.connect,
                timeout: tally.timeout,
                broken: tally.broken,
                unfinished: tally.unfinished,
                status_4xx: tally.class(4),
                status_5xx: tally.class(5),
            },
            statuses: Statuses {
                informational: tally.class(1),
                success: tally.class(2),
                redirection: tally.class(3),
                client_error: tally.class(4),
                server_error: tally.class(5),
            },
            latency: Latency {
                p50_ms: tally.quantile_ms(0.5),
                p90_ms: tally.quantile_ms(0.9),
                p99_ms: tally.quantile_ms(0.99),
                p99_9_ms: tally.quantile_ms(0.999),
                max_ms: tally.max_ms(),
            },
            rate: Rate {
                asked,
                reached: per_second(tally.requests, window),
            },
            bytes: tally.bytes_received,
            late: Late {
                connections_busy: tally.late_busy,
                generator: tally.late_generator,
            },
            unsent: None,
            interrupted: None,
            last_error: None,
        }
    }
}

/// Watches a run: takes what was measured every so often, shows it and adds it up.
pub(crate) struct Observer {
    totals: Tally,
    rate: f64,
    output: Output,
    interval: Option<Duration>,
    bar: ProgressBar,
}

const BAR_REFRESH: Duration = Duration::from_millis(250);

impl Observer {
    pub(crate) fn new(plan: &Plan) -> Self {
        let shown =
            plan.output == Output::Text && plan.interval.is_none() && io::stderr().is_terminal();
        let length = plan.warmup + plan.duration;
        let bar = if shown {
            ProgressBar::new(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
        } else {
            ProgressBar::hidden()
        };
        let style = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {msg}")
            .expect("the template is valid");
        bar.set_style(style);
        Self {
            totals: Tally::new(),
            rate: asked(plan),
            output: plan.output,
            interval: plan.interval,
            bar,
        }
    }

    /// Runs until it is dropped, or until nobody reads standard output any more.
    pub(crate) async fn watch(
        &mut self,
        take: impl Fn() -> Tally,
        start: Instant,
    ) -> io::Result<Infallible> {
        let period = self.interval.unwrap_or(BAR_REFRESH);
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
        let mut last = Duration::ZERO;
        loop {
            ticks.tick().await;
            let (since, at) = (take(), start.elapsed());
            if self.interval.is_some() {
                self.emit_interval(&since, at, at - last)?;
            }
            last = at;
            self.totals.add(&since);
            self.bar
                .set_position(u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
            self.bar.set_message(format!(
                "{} sent, {} failed, p50 {:.1} ms, p99 {:.1} ms",
                self.totals.requests,
                self.totals.failures(),
                self.totals.quantile_ms(0.5),
                self.totals.quantile_ms(0.99)
            ));
        }
    }

    fn emit_interval(&self, since: &Tally, at: Duration, window: Duration) -> io::Result<()> {
        match self.output {
            Output::Json => emit_line(&Line::new("interval", at, self.rate, window, since)),
            Output::Text => writeln!(
                io::stdout(),
                "{:7.1} s  {:8.1} rps  {:5} failed  p50 {:.1} ms  p99 {:.1} ms",
                at.as_secs_f64(),
                per_second(since.requests, window),
                since.failures(),
                since.quantile_ms(0.5),
                since.quantile_ms(0.99)
            ),
        }
    }

    pub(crate) fn finish(mut self, rest: &Tally) -> Tally {
        self.bar.finish_and_clear();
        self.totals.add(rest);
        self.totals
    }
}

pub(crate) fn emit_final(plan: &Plan, summary: &Summary) -> io::Result<()> {
    match plan.output {
        Output::Json => {
            let at = plan.warmup + summary.window;
            emit_line(&Line {
                unsent: Some(summary.unsent),
                interrupted: Some(summary.interrupted),
                last_error: summary.last_error.as_deref(),
                ..Line::new("final", at, asked(plan), summary.window, &summary.totals)
            })
        }
        Output::Text => io::stdout().write_all(describe(plan, summary).as_bytes()),
    }
}

/// Nothing is asked of a closed loop.
fn asked(plan: &Plan) -> f64 {
    if plan.closed { 0.0 } else { plan.rate }
}

fn describe(plan: &Plan, summary: &Summary) -> String {
    let tally = &summary.totals;
    let mut text = format!(
        "{}{} {}\n\
         requests  {} in {:.1} s, {:.1} per second ({})\n\
         failures  {}{}\n\
         latency   p50 {:.2} ms  p90 {:.2} ms  p99 {:.2} ms  p99.9 {:.2} ms  max {:.2} ms\n\
         received  {} bytes\n",
        if summary.interrupted {
            "stopped early: "
        } else {
            ""
        },
        plan.template.method,
        plan.target.uri,
        tally.requests,
        summary.window.as_secs_f64(),
        per_second(tally.requests, summary.window),
        if plan.closed {
            "closed loop".to_owned()
        } else {
            format!("{} asked", plan.rate)
        },
        tally.failures(),
        kinds(tally),
        tally.quantile_ms(0.5),
        tally.quantile_ms(0.9),
        tally.quantile_ms(0.99),
        tally.quantile_ms(0.999),
        tally.max_ms(),
        tally.bytes_received,
    );
    if tally.late_busy > 0 || summary.unsent > 0 {
        text.push_str(&format!(
            "warning   {} requests left late and {} not at all, because every connection was waiting for an answer: \
             the target was too slow for this rate, or --connections {} is too few\n",
            tally.late_busy, summary.unsent, plan.connections
        ));
    }
    if tally.late_generator > 0 {
        text.push_str(&format!(
            "warning   {} requests left late although a connection was free: this machine cannot keep the rate; \
             lower --rate or raise --threads\n",
            tally.late_generator
        ));
    }
    text
}

fn kinds(tally: &Tally) -> String {
    let named: Vec<_> = [
        ("no connection", tally.connect),
        ("timed out", tally.timeout),
        ("broken off", tally.broken),
        ("unfinished", tally.unfinished),
        ("status 4xx", tally.class(4)),
        ("status 5xx", tally.class(5)),
    ]
    .into_iter()
    .filter(|(_, count)| *count > 0)
    .map(|(name, count)| format!("{count} {name}"))
    .collect();
    if named.is_empty() {
        String::new()
    } else {
        format!(" ({})", named.join(", "))
    }
}

fn emit_line(line: &Line<'_>) -> io::Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn per_second(count: u64, window: Duration) -> f64 {
    if window.is_zero() {
        return 0.0;
    }
    round(count as f64 / window.as_secs_f64())
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
