// SPDX-License-Identifier: Apache-2.0
//! Jaeger's third query API, OTLP out: `/api/v3/services`, `/operations`, `/traces`, `/traces/{id}`. Parameters in camel
//! case or snake case, with or without `query.` before them; times RFC 3339.

use std::collections::BTreeMap;

use axum::Json;
use axum::Router;
use axum::extract::Path;
use axum::extract::Query;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::Value;
use serde_json::json;
use tokio::task::spawn_blocking;

use crate::convert::otlp;
use crate::query::jaeger::JaegerApi;
use crate::query::jaeger::Search;
use crate::query::jaeger::SearchError;
use crate::query::jaeger::find;
use crate::query::jaeger::one;
use crate::query::jaeger::v1;
use crate::span::TraceId;
use crate::trace::Trace;

type Pairs = Query<Vec<(String, String)>>;

pub(super) fn router(api: JaegerApi) -> Router {
    Router::new()
        .route("/api/v3/services", get(services))
        .route("/api/v3/operations", get(operations))
        .route("/api/v3/traces", get(search))
        .route("/api/v3/traces/{id}", get(trace))
        .with_state(api)
}

/// As the gateway of gRPC writes them.
fn refusal(error: SearchError) -> Response {
    let (status, code) = match &error {
        SearchError::Invalid(_) => (StatusCode::BAD_REQUEST, 3),
        SearchError::NotFound => (StatusCode::NOT_FOUND, 5),
        SearchError::Store(_) => return error.into_response(),
    };
    let body = json!({"error": {"grpcCode": code, "httpCode": status.as_u16(), "message": error.to_string(),
        "httpStatus": status.canonical_reason()}});
    (status, Json(body)).into_response()
}

async fn services(State(api): State<JaegerApi>) -> Json<Value> {
    Json(json!({"services": api.catalog.services()}))
}

async fn operations(State(api): State<JaegerApi>, Query(pairs): Pairs) -> Response {
    let pairs = plain(&pairs);
    let Some(service) = pairs.get("service").or(pairs.get("servicename")) else {
        let message = "malformed parameter service: it is required";
        return refusal(SearchError::Invalid(message.to_owned()));
    };
    let kind = pairs.get("spankind").filter(|kind| !kind.is_empty());
    let wanted = api.catalog.operations(service).into_iter();
    let listed: Vec<Value> = wanted
        .filter(|(_, of)| kind.is_none_or(|kind| kind == of))
        .map(|(name, kind)| json!({"name": name, "spanKind": kind}))
        .collect();
    Json(json!({"operations": listed})).into_response()
}

/// Without `query.`, underscores and case.
fn plain(pairs: &[(String, String)]) -> BTreeMap<String, String> {
    let name = |name: &str| {
        let name = name.strip_prefix("query.").unwrap_or(name);
        name.replace('_', "").to_ascii_lowercase()
    };
    pairs
        .iter()
        .map(|(key, value)| (name(key), value.clone()))
        .collect()
}

fn parse(pairs: &[(String, String)]) -> Result<Search, SearchError> {
    let given = plain(pairs);
    let text = |name: &str| given.get(name).filter(|value| !value.is_empty()).cloned();
    let at = |name: &str| {
        text(name)
            .map(|value| {
                epoch_us(&value).ok_or_else(|| {
                    SearchError::Invalid(format!(
                        "malformed parameter {name}: {value:?} is no RFC 3339 time"
                    ))
                })
            })
            .transpose()
    };
    let (start_us, end_us) = (at("starttimemin")?, at("starttimemax")?);
    if start_us.is_none() || end_us.is_none() {
        let message = "startTimeMin and startTimeMax are required";
        return Err(SearchError::Invalid(message.to_owned()));
    }
    let duration = |name: &str| {
        text(name)
            .map(|value| v1::duration_us(name, &value))
            .transpose()
    };
    let limit = text("searchdepth").or(text("numtraces"));
    let tags = text("attributes").map(|value| {
        serde_json::from_str::<BTreeMap<String, Value>>(&value).map_err(|_| {
            SearchError::Invalid("malformed parameter attributes: give a JSON object".to_owned())
        })
    });
    let tags = tags.transpose()?.unwrap_or_default();
    Ok(Search {
        service: text("servicename"),
        operation: text("operationname"),
        tags: tags
            .into_iter()
            .map(|(key, value)| (key, super::text(&value)))
            .collect(),
        min_us: duration("durationmin")?,
        max_us: duration("durationmax")?,
        start_us,
        end_us,
        limit: limit
            .map(|value| {
                value.parse().map_err(|_| {
                    SearchError::Invalid(format!("malformed parameter searchDepth: {value:?}"))
                })
            })
            .transpose()?,
    })
}

fn epoch_us(text: &str) -> Option<u64> {
    let at: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(at.as_microsecond()).ok()
}

async fn search(State(api): State<JaegerApi>, Query(pairs): Pairs) -> Response {
    let search = match parse(&pairs) {
        Ok(search) => search,
        Err(error) => return refusal(error),
    };
    let found = spawn_blocking(move || Ok(find(api.store.as_ref(), &search)?)).await;
    match found.unwrap_or_else(|_| Err(SearchError::Invalid("the query was cut off".to_owned()))) {
        Ok(traces) if traces.is_empty() => refusal(SearchError::NotFound),
        Ok(traces) => result(&traces),
        Err(error) => refusal(error),
    }
}

async fn trace(State(api): State<JaegerApi>, Path(text): Path<String>) -> Response {
    let id = match parse_id(&text) {
        Ok(id) => id,
        Err(error) => return refusal(error),
    };
    let found = spawn_blocking(move || one(api.store.as_ref(), id)).await;
    match found.unwrap_or_else(|_| Err(SearchError::Invalid("the query was cut off".to_owned()))) {
        Ok(trace) => result(&[trace]),
        Err(error) => refusal(error),
    }
}

/// In hex, or in base64 as JSON of protobuf writes bytes.
fn parse_id(text: &str) -> Result<TraceId, SearchError> {
    v1::parse_id(text).or_else(|error| {
        let bytes = STANDARD.decode(text).ok();
        let bytes = bytes.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
        bytes
            .map(u128::from_be_bytes)
            .filter(|id| *id != 0)
            .map(TraceId)
            .ok_or(error)
    })
}

fn result(traces: &[Trace]) -> Response {
    let resources: Vec<Value> = traces.iter().flat_map(resource_spans).collect();
    Json(json!({"result": {"resourceSpans": resources}})).into_response()
}

fn resource_spans(trace: &Trace) -> Vec<Value> {
    let mut services: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for (at, span) in trace.spans.iter().enumerate() {
        let service = trace.node(at).map_or("unknown", |node| node.name.as_str());
        services.entry(service).or_default().push(otlp::json(span));
    }
    services
        .into_iter()
        .map(|(service, spans)| {
            let name = json!({"key": "service.name", "value": {"stringValue": service}});
            json!({"resource": {"attributes": [name]}, "scopeSpans": [{"scope": {}, "spans": spans}]})
        })
        .collect()
}
