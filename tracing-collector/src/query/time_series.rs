// SPDX-License-Identifier: Apache-2.0
//! GetTimeSeriesServiceStatistics: the graph in periods. A service selector sums nodes, an edge selector edges; without
//! a selector it is the calls from outside, so that their total is the number of requests.

use serde_json::Value;
use serde_json::json;

use crate::filter::EntitySelector;
use crate::filter::Filter;
use crate::filter::Selector;
use crate::graph;
use crate::graph::CLIENT_TYPE;
use crate::graph::Key;
use crate::graph::Totals;
use crate::graph::counters::Counters;
use crate::insight::Band;
use crate::query::insights;
use crate::query::service_graph::histogram;
use crate::query::service_graph::statistics;
use crate::query::token;
use crate::query::window::window;
use crate::query::xray_api::ApiError;
use crate::query::xray_api::time;
use crate::span::seconds;
use crate::store::Store;
use crate::store::Window;

const OPERATION: &str = "GetTimeSeriesServiceStatistics";
const DEFAULT_PERIOD: u64 = 60;
/// Periods looked at for one page, empty ones included.
const PAGE: usize = 1440;

pub(super) fn answer(
    store: &dyn Store,
    group: Option<&Filter>,
    request: &Value,
) -> Result<Value, ApiError> {
    let window = window(time(request, "StartTime")?, time(request, "EndTime")?)?;
    let period_us = period(request)?.saturating_mul(1_000_000);
    let selector = selector(request)?;
    let forecast = request.get("ForecastStatistics").and_then(Value::as_bool) == Some(true);
    if forecast && selector.is_none() {
        let message = "ForecastStatistics needs an EntitySelectorExpression with an id";
        return Err(ApiError::Invalid(message.to_owned()));
    }
    let from = token::position(token::redeem(OPERATION, request)?)?;
    let first = window.start_us / period_us;
    let count = usize::try_from((window.end_us - 1) / period_us - first + 1).unwrap_or(usize::MAX);
    let to = from.saturating_add(PAGE).min(count);
    let edges = !matches!(selector, Some(EntitySelector::Service(_)));
    let mut found = Vec::new();
    for number in from..to {
        let start_us = (first + number as u64) * period_us;
        let part = Window {
            start_us: start_us.max(window.start_us),
            end_us: start_us.saturating_add(period_us).min(window.end_us),
        };
        let totals = match group {
            None => store.graph(part)?,
            Some(filter) => store.graph_of(part, &|one| filter.matches(one, &[]))?,
        };
        let sum = sum(&totals, selector.as_ref());
        if sum.total() > 0 {
            let kind = if edges {
                "EdgeSummaryStatistics"
            } else {
                "ServiceSummaryStatistics"
            };
            let mut one = json!({
                "Timestamp": seconds(start_us), kind: statistics(&sum),
                "ResponseTimeHistogram": histogram(&sum.responses),
            });
            if let (true, Some(EntitySelector::Service(selector))) = (forecast, &selector) {
                let band = expected(store, group, selector, (start_us, sum.total()))?;
                one["ServiceForecastStatistics"] = json!({
                    "FaultCountHigh": band.high.ceil() as i64, "FaultCountLow": band.low.floor() as i64,
                });
            }
            found.push(one);
        }
    }
    let mut answer =
        json!({"TimeSeriesServiceStatistics": found, "ContainsOldGroupVersions": false});
    if to < count {
        answer["NextToken"] = json!(token::issue(OPERATION, request, &token::at_position(to)));
    }
    Ok(answer)
}

/// How many faults the hours before a period make one expect in it.
fn expected(
    store: &dyn Store,
    group: Option<&Filter>,
    selector: &Selector,
    (start_us, requests): (u64, i64),
) -> Result<Band, ApiError> {
    let minute = graph::minute(start_us);
    let detector = insights::detect(store, group, (minute, minute), minute)?;
    let nodes = detector
        .nodes()
        .find(|node| selector.selects(node))
        .cloned();
    let expectation = nodes.and_then(|node| detector.expectation(&node).cloned());
    Ok(expectation.unwrap_or_default().band(requests))
}

fn period(request: &Value) -> Result<u64, ApiError> {
    match request.get("Period") {
        None | Some(Value::Null) => Ok(DEFAULT_PERIOD),
        Some(value) => value.as_u64().filter(|period| *period > 0).ok_or_else(|| {
            ApiError::Invalid(format!(
                "Period is {value}; give a whole number of seconds above 0"
            ))
        }),
    }
}

fn selector(request: &Value) -> Result<Option<EntitySelector>, ApiError> {
    let text = request
        .get("EntitySelectorExpression")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if text.trim().is_empty() {
        return Ok(None);
    }
    EntitySelector::parse(text)
        .map(Some)
        .map_err(|error| ApiError::Invalid(format!("EntitySelectorExpression {error}")))
}

fn sum(totals: &Totals, selector: Option<&EntitySelector>) -> Counters {
    let mut sum = Counters::default();
    for (key, counters) in totals {
        let wanted = match (key, selector) {
            (Key::Node(node), Some(EntitySelector::Service(wanted))) => wanted.selects(node),
            (Key::Edge { source, target }, Some(EntitySelector::Edge(from, to))) => {
                from.selects(source) && to.selects(target)
            }
            (Key::Edge { source, .. }, None) => source.kind == CLIENT_TYPE,
            _ => false,
        };
        if wanted {
            sum.merge(counters);
        }
    }
    sum
}
