// SPDX-License-Identifier: Apache-2.0
//! Jaeger's first query API: `/api/services`, their operations, `/api/traces`, one trace, `/api/dependencies`. Times in
//! are microseconds, `endTs` and `lookback` of dependencies milliseconds.

use std::collections::BTreeMap;

use axum::Json;
use axum::Router;
use axum::extract::Path;
use axum::extract::Query;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use serde_json::Value;
use serde_json::json;
use tokio::task::spawn_blocking;

use crate::graph::CLIENT_TYPE;
use crate::graph::Key;
use crate::query::jaeger::JaegerApi;
use crate::query::jaeger::Search;
use crate::query::jaeger::SearchError;
use crate::query::jaeger::find;
use crate::query::jaeger::one;
use crate::query::jaeger::tags;
use crate::span::TraceId;
use crate::store::Window;
use crate::trace::Trace;

type Pairs = Query<Vec<(String, String)>>;

pub(super) fn router(api: JaegerApi) -> Router {
    Router::new()
        .route("/api/services", get(services))
        .route("/api/services/{service}/operations", get(operations_of))
        .route("/api/operations", get(operations))
        .route("/api/traces", get(search))
        .route("/api/traces/{id}", get(trace))
        .route("/api/dependencies", get(dependencies))
        .with_state(api)
}

impl IntoResponse for SearchError {
    fn into_response(self) -> Response {
        let status = match &self {
            SearchError::Invalid(_) => StatusCode::BAD_REQUEST,
            SearchError::NotFound => StatusCode::NOT_FOUND,
            SearchError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if let SearchError::Store(error) = &self {
            tracing::error!(error = error as &dyn std::error::Error, "a query failed");
        }
        let error = json!({"code": status.as_u16(), "msg": self.to_string()});
        let body = json!({"data": null, "total": 0, "limit": 0, "offset": 0, "errors": [error]});
        (status, Json(body)).into_response()
    }
}

fn answer(data: impl IntoIterator<Item = Value>) -> Json<Value> {
    let data: Vec<Value> = data.into_iter().collect();
    let total = data.len();
    Json(json!({"data": data, "total": total, "limit": 0, "offset": 0, "errors": null}))
}

async fn blocking<T: Send + 'static>(
    query: impl FnOnce() -> Result<T, SearchError> + Send + 'static,
) -> Result<T, SearchError> {
    let ran = spawn_blocking(query).await;
    ran.unwrap_or_else(|_| Err(SearchError::Invalid("the query was cut off".to_owned())))
}

async fn services(State(api): State<JaegerApi>) -> Json<Value> {
    answer(api.catalog.services().into_iter().map(Value::from))
}

async fn operations_of(State(api): State<JaegerApi>, Path(service): Path<String>) -> Json<Value> {
    let mut names: Vec<String> = api
        .catalog
        .operations(&service)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    names.dedup();
    answer(names.into_iter().map(Value::from))
}

async fn operations(
    State(api): State<JaegerApi>,
    Query(pairs): Pairs,
) -> Result<Json<Value>, SearchError> {
    let value = |name: &str| {
        pairs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
    };
    let service = value("service")
        .ok_or_else(|| SearchError::Invalid("parameter 'service' is required".to_owned()))?;
    let kind = value("spanKind").filter(|kind| !kind.is_empty());
    let listed = api.catalog.operations(service).into_iter();
    let wanted = listed.filter(|(_, of)| kind.is_none_or(|kind| kind == of));
    Ok(answer(wanted.map(
        |(name, kind)| json!({"name": name, "spanKind": kind}),
    )))
}

async fn search(
    State(api): State<JaegerApi>,
    Query(pairs): Pairs,
) -> Result<Json<Value>, SearchError> {
    let ids: Vec<&String> = pairs
        .iter()
        .filter(|(key, _)| key == "traceID")
        .map(|(_, id)| id)
        .collect();
    if !ids.is_empty() {
        let ids = ids
            .into_iter()
            .map(|id| parse_id(id))
            .collect::<Result<Vec<_>, _>>()?;
        let found = blocking(move || {
            let traces = ids.iter().map(|id| one(api.store.as_ref(), *id));
            Ok(traces
                .filter_map(Result::ok)
                .map(|trace| shape(&trace))
                .collect::<Vec<_>>())
        });
        return Ok(answer(found.await?));
    }
    let search = parse(&pairs)?;
    let found = blocking(move || {
        let traces = find(api.store.as_ref(), &search)?;
        Ok(traces.iter().map(shape).collect::<Vec<_>>())
    });
    Ok(answer(found.await?))
}

async fn trace(
    State(api): State<JaegerApi>,
    Path(id): Path<String>,
) -> Result<Json<Value>, SearchError> {
    let id = parse_id(&id)?;
    let found = blocking(move || Ok(shape(&one(api.store.as_ref(), id)?)));
    Ok(answer(vec![found.await?]))
}

/// Jaeger leaves out leading zeros.
pub(super) fn parse_id(text: &str) -> Result<TraceId, SearchError> {
    let padded = if text.len() < 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        format!("{text:0>32}")
    } else {
        text.to_owned()
    };
    padded
        .parse()
        .map_err(|error| SearchError::Invalid(format!("{error}")))
}

fn parse(pairs: &[(String, String)]) -> Result<Search, SearchError> {
    let mut search = Search::default();
    let wrong = |name: &str, value: &str, what: &str| {
        SearchError::Invalid(format!("parameter '{name}' is {value:?}; give {what}"))
    };
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        let whole = || {
            value
                .parse::<u64>()
                .map_err(|_| wrong(name, value, "a whole number"))
        };
        match name.as_str() {
            "service" => search.service = Some(value.clone()),
            "operation" if value != "all" => search.operation = Some(value.clone()),
            "start" => search.start_us = Some(whole()?),
            "end" => search.end_us = Some(whole()?),
            "limit" => search.limit = Some(whole()? as usize),
            "minDuration" => search.min_us = Some(duration_us(name, value)?),
            "maxDuration" => search.max_us = Some(duration_us(name, value)?),
            "tags" => {
                let tags: BTreeMap<String, Value> = serde_json::from_str(value)
                    .map_err(|_| wrong(name, value, "a JSON object of strings"))?;
                let pairs = tags
                    .iter()
                    .map(|(key, value)| (key.clone(), super::text(value)));
                search.tags.extend(pairs);
            }
            "tag" => {
                let pair = value
                    .split_once(':')
                    .ok_or_else(|| wrong(name, value, "key:value"))?;
                search.tags.push((pair.0.to_owned(), pair.1.to_owned()));
            }
            // `lookback` says in words what start and end say in numbers.
            _ => {}
        }
    }
    if search.service.is_none() {
        let message = "parameter 'service' is required";
        return Err(SearchError::Invalid(message.to_owned()));
    }
    Ok(search)
}

/// Go's spelling: `1.5s`, `100ms`, `250us`.
pub(super) fn duration_us(name: &str, text: &str) -> Result<u64, SearchError> {
    let wrong = || {
        let message =
            format!("parameter '{name}' is {text:?}; give a duration such as 1.5s, 100ms or 250us");
        SearchError::Invalid(message)
    };
    let split = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let us = match unit {
        "ns" => 0.001,
        "us" | "µs" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        "h" => 3600e6,
        _ => return Err(wrong()),
    };
    Ok((number * us) as u64)
}

fn tag((key, value): (&String, &Value)) -> Value {
    let kind = match value {
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => "string",
    };
    let value = if kind == "string" {
        json!(super::text(value))
    } else {
        value.clone()
    };
    json!({"key": key, "type": kind, "value": value})
}

fn shape(trace: &Trace) -> Value {
    let id = trace.id.to_string();
    let mut processes: BTreeMap<&str, String> = BTreeMap::new();
    let mut spans = Vec::new();
    for (at, span) in trace.spans.iter().enumerate() {
        let service = trace.node(at).map_or("unknown", |node| node.name.as_str());
        let number = processes.len() + 1;
        let process = processes
            .entry(service)
            .or_insert_with(|| format!("p{number}"));
        let parent = span.parent.map(
            |parent| json!({"refType": "CHILD_OF", "traceID": id, "spanID": parent.to_string()}),
        );
        spans.push(json!({
            "traceID": id, "spanID": span.id.to_string(), "flags": 1, "operationName": span.name,
            "references": parent.into_iter().collect::<Vec<_>>(), "startTime": span.start_ns / 1000,
            "duration": span.duration_us().unwrap_or(0), "tags": tags(span).iter().map(tag).collect::<Vec<_>>(),
            "logs": logs(span), "processID": process, "warnings": null,
        }));
    }
    let processes: BTreeMap<String, Value> = processes
        .into_iter()
        .map(|(service, process)| (process, json!({"serviceName": service, "tags": []})))
        .collect();
    json!({"traceID": id, "spans": spans, "processes": processes, "warnings": null})
}

/// Exceptions, as Jaeger's page shows them.
fn logs(span: &crate::span::Span) -> Vec<Value> {
    let exceptions = span
        .document
        .get("cause")
        .and_then(|cause| cause.get("exceptions"));
    let exceptions = exceptions.and_then(Value::as_array).into_iter().flatten();
    let at = span.end_ns.unwrap_or(span.start_ns) / 1000;
    let log = |exception: &Value| {
        let field = |key: &str, value: &Value| {
            value
                .as_str()
                .map(|text| json!({"key": key, "type": "string", "value": text}))
        };
        let fields = [
            Some(json!({"key": "event", "type": "string", "value": "exception"})),
            field("exception.type", &exception["type"]),
            field("exception.message", &exception["message"]),
        ];
        json!({"timestamp": at, "fields": fields.into_iter().flatten().collect::<Vec<_>>()})
    };
    exceptions.map(log).collect()
}

async fn dependencies(
    State(api): State<JaegerApi>,
    Query(pairs): Pairs,
) -> Result<Json<Value>, SearchError> {
    let number = |name: &str| {
        let value = pairs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value);
        value
            .map(|value| {
                let wrong = format!("parameter '{name}' is {value:?}; give milliseconds");
                value
                    .parse::<u64>()
                    .map_err(|_| SearchError::Invalid(wrong))
            })
            .transpose()
    };
    let end = number("endTs")?
        .ok_or_else(|| SearchError::Invalid("parameter 'endTs' is required".to_owned()))?;
    let lookback = number("lookback")?.unwrap_or(86_400_000);
    let window = Window {
        start_us: end.saturating_sub(lookback).saturating_mul(1000),
        end_us: end.saturating_mul(1000),
    };
    let totals = blocking(move || Ok(api.store.graph(window)?)).await?;
    let mut calls: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for (key, counters) in &totals {
        if let Key::Edge { source, target } = key
            && source.kind != CLIENT_TYPE
        {
            *calls.entry((&source.name, &target.name)).or_default() += counters.total();
        }
    }
    let links = calls.into_iter().map(
        |((parent, child), count)| json!({"parent": parent, "child": child, "callCount": count}),
    );
    Ok(answer(links))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_gos_spelling() {
        assert_eq!(duration_us("minDuration", "1.5s").ok(), Some(1_500_000));
        assert_eq!(duration_us("minDuration", "250us").ok(), Some(250));
        for wrong in ["", "s", "5", "5 parsecs", "1.2.3s"] {
            assert!(duration_us("minDuration", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_short_id_is_padded() {
        assert_eq!(parse_id("a1").ok(), Some(TraceId(0xa1)));
        assert!(parse_id("xyz").is_err());
    }
}
