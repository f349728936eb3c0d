// SPDX-License-Identifier: Apache-2.0
//! `/stats` in Envoy's text, JSON and Prometheus forms, and `/reset_counters`. Called by the admin and agent servers.

use std::collections::BTreeMap;
use std::collections::HashMap;

use axum::extract::RawQuery;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use parking_lot::Mutex;
use pillion_runtime::telemetry;
use regex::Regex;
use regex::RegexBuilder;
use serde_json::json;

use super::Pages;
use super::pretty;
use super::query;
use crate::xds::status::Kind;

/// Bound on a compiled `filter`; it comes from outside.
const REGEX_BYTES: usize = 1 << 20;

/// Values of counters when they were last reset. Prometheus series are not reset: there a counter only grows.
#[derive(Default)]
pub(crate) struct Base(Mutex<HashMap<String, u64>>);

pub(super) async fn stats(State(pages): State<Pages>, RawQuery(raw): RawQuery) -> Response {
    let filter = match filter(raw.as_deref()) {
        Ok(filter) => filter,
        Err(answer) => return *answer,
    };
    let format = query(raw.as_deref(), "format").unwrap_or_default();
    let used = query(raw.as_deref(), "usedonly").is_some();
    match format.as_str() {
        "prometheus" => return exposition(&pages, filter.as_ref(), used),
        "" | "text" | "json" => {}
        other => {
            let why = format!("format {other:?} is unknown; use text, json or prometheus\n");
            return (StatusCode::BAD_REQUEST, why).into_response();
        }
    }
    let all = current(&pages).into_iter().filter(|(name, value)| {
        (!used || *value > 0) && filter.as_ref().is_none_or(|filter| filter.is_match(name))
    });
    let times: Vec<_> = pages
        .metrics
        .times()
        .into_iter()
        .filter(|(name, values)| {
            (!used || values.is_some())
                && filter.as_ref().is_none_or(|filter| filter.is_match(name))
        })
        .collect();
    if format == "json" {
        let mut all: Vec<_> = all
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        all.extend((!times.is_empty()).then(|| histograms(&times)));
        return pretty(&json!({"stats": all}));
    }
    let mut lines: String = all
        .map(|(name, value)| format!("{name}: {value}\n"))
        .collect();
    lines.extend(times.iter().map(|(name, values)| match values {
        Some(values) => format!("{name}: {}\n", quantiles(values)),
        None => format!("{name}: No recorded values\n"),
    }));
    lines.into_response()
}

type Times = (String, Option<Vec<(f64, f64)>>);

/// Envoy's form: the value of the last interval, which is not kept here, and of the whole life.
fn quantiles(values: &[(f64, f64)]) -> String {
    let one = |(percent, value): &(f64, f64)| format!("P{percent}(nan,{})", rounded(*value));
    values.iter().map(one).collect::<Vec<String>>().join(" ")
}

fn rounded(ms: f64) -> f64 {
    (ms * 1000.0).round() / 1000.0
}

fn histograms(times: &[Times]) -> serde_json::Value {
    let shown = times.iter().find_map(|(_, values)| values.as_ref());
    let supported: Vec<f64> = shown
        .into_iter()
        .flatten()
        .map(|(percent, _)| *percent)
        .collect();
    let computed: Vec<_> = times
        .iter()
        .map(|(name, values)| {
            let values = values.iter().flatten();
            let values: Vec<_> = values
                .map(|(_, value)| json!({"interval": null, "cumulative": rounded(*value)}))
                .collect();
            json!({"name": name, "values": values})
        })
        .collect();
    json!({"histograms": {"supported_quantiles": supported, "computed_quantiles": computed}})
}

pub(super) async fn prometheus(State(pages): State<Pages>, RawQuery(raw): RawQuery) -> Response {
    match filter(raw.as_deref()) {
        Ok(filter) => {
            let used = query(raw.as_deref(), "usedonly").is_some();
            exposition(&pages, filter.as_ref(), used)
        }
        Err(answer) => *answer,
    }
}

pub(super) async fn reset_counters(State(pages): State<Pages>) -> &'static str {
    let counters = raw_stats(&pages)
        .into_iter()
        .filter(|(_, (_, kind))| *kind == Kind::Counter);
    *pages.base.0.lock() = counters.map(|(name, (value, _))| (name, value)).collect();
    "OK\n"
}

fn filter(raw: Option<&str>) -> Result<Option<Regex>, Box<Response>> {
    let Some(pattern) = query(raw, "filter").filter(|pattern| !pattern.is_empty()) else {
        return Ok(None);
    };
    match RegexBuilder::new(&pattern).size_limit(REGEX_BYTES).build() {
        Ok(regex) => Ok(Some(regex)),
        Err(error) => {
            let why = format!("filter {pattern:?} is no regular expression: {error}\n");
            Err(Box::new((StatusCode::BAD_REQUEST, why).into_response()))
        }
    }
}

fn exposition(pages: &Pages, filter: Option<&Regex>, used: bool) -> Response {
    let mut text = telemetry::render(&pages.registry);
    if filter.is_some() || used {
        text = text
            .lines()
            .filter(|line| filter.is_none_or(|filter| filter.is_match(series_name(line))))
            .filter(|line| !used || !line.ends_with(" 0"))
            .map(|line| format!("{line}\n"))
            .collect();
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// The family that a line of the exposition is about.
fn series_name(line: &str) -> &str {
    let line = line
        .strip_prefix("# HELP ")
        .or_else(|| line.strip_prefix("# TYPE "))
        .unwrap_or(line);
    line.split(['{', ' ']).next().unwrap_or_default()
}

fn current(pages: &Pages) -> BTreeMap<String, u64> {
    let base = pages.base.0.lock();
    raw_stats(pages)
        .into_iter()
        .map(|(name, (value, _))| {
            let from = base.get(&name).copied().unwrap_or_default();
            (name, value.saturating_sub(from))
        })
        .collect()
}

fn raw_stats(pages: &Pages) -> BTreeMap<String, (u64, Kind)> {
    let data = pages.metrics.stats().into_iter().map(|(name, value)| {
        let kind = kind_of(&name);
        (name, (value, kind))
    });
    let control = pages
        .control
        .status
        .stats()
        .into_iter()
        .map(|(name, value, kind)| (name, (value, kind)));
    let snapshot = pages.live.current();
    let levels = [
        (
            "cluster_manager.active_clusters",
            snapshot.clusters().count(),
        ),
        (
            "listener_manager.total_listeners_active",
            snapshot.listeners().count(),
        ),
    ];
    let levels = levels.map(|(name, number)| (name.to_owned(), (number as u64, Kind::Gauge)));
    let days = super::certs::days_left(&snapshot).map(|days| {
        let name = "server.days_until_first_cert_expiring".to_owned();
        (name, (days, Kind::Gauge))
    });
    data.chain(control).chain(levels).chain(days).collect()
}

/// Envoy's gauges among the plain names of the data path.
fn kind_of(name: &str) -> Kind {
    const LEVELS: [&str; 5] = [
        "_active",
        ".ejections_active",
        "membership_",
        "circuit_breakers.",
        "health_check.healthy",
    ];
    if LEVELS.iter().any(|level| name.contains(level)) {
        Kind::Gauge
    } else {
        Kind::Counter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_told_from_counters_by_envoys_names() {
        for level in [
            "cluster.c.upstream_rq_active",
            "cluster.c.membership_total",
            "cluster.c.circuit_breakers.default.cx_open",
            "cluster.c.upstream_rq_pending_active",
        ] {
            assert_eq!(kind_of(level), Kind::Gauge, "{level}");
        }
        assert_eq!(kind_of("cluster.c.upstream_rq_total"), Kind::Counter);
        assert_eq!(kind_of("http.ingress.downstream_rq_2xx"), Kind::Counter);
    }

    #[test]
    fn a_line_belongs_to_its_family() {
        assert_eq!(
            series_name("# TYPE envoy_server_live gauge"),
            "envoy_server_live"
        );
        assert_eq!(
            series_name("envoy_server_live{a=\"b\"} 1"),
            "envoy_server_live"
        );
    }
}
