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
    match format.as_str() {
        "prometheus" => return exposition(&pages, filter.as_ref()),
        "" | "text" | "json" => {}
        other => {
            let why = format!("format {other:?} is unknown; use text, json or prometheus\n");
            return (StatusCode::BAD_REQUEST, why).into_response();
        }
    }
    let used = query(raw.as_deref(), "usedonly").is_some();
    let all = current(&pages).into_iter().filter(|(name, value)| {
        (!used || *value > 0) && filter.as_ref().is_none_or(|filter| filter.is_match(name))
    });
    if format == "json" {
        let all: Vec<_> = all
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        return pretty(&json!({"stats": all}));
    }
    let lines: String = all
        .map(|(name, value)| format!("{name}: {value}\n"))
        .collect();
    lines.into_response()
}

pub(super) async fn prometheus(State(pages): State<Pages>, RawQuery(raw): RawQuery) -> Response {
    match filter(raw.as_deref()) {
        Ok(filter) => exposition(&pages, filter.as_ref()),
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

fn exposition(pages: &Pages, filter: Option<&Regex>) -> Response {
    let mut text = telemetry::render(&pages.registry);
    if let Some(filter) = filter {
        text = text
            .lines()
            .filter(|line| filter.is_match(series_name(line)))
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
