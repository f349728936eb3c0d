// SPDX-License-Identifier: Apache-2.0
//! The collector's own API under `/pillion/v1`, for the dashboard, the demo and scripts: the collapsed map, lists of
//! traces, one trace flat, intake counts. Times in are epoch seconds, durations out are milliseconds.

mod alerts;
mod list;
mod map;
mod traces;

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::Router;
use axum::extract::Path;
use axum::extract::Query;
use axum::extract::State;
use axum::extract::rejection::QueryRejection;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use http::HeaderValue;
use http::StatusCode;
use http::header::CACHE_CONTROL;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use tokio::task::spawn_blocking;

use crate::alerts::Alerts;
use crate::metrics::Metrics;
use crate::query::groups;
use crate::query::kept::Kept;
use crate::query::window::window;
use crate::span::TraceId;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::Window;

/// What is shown when no window was asked for.
const DEFAULT_SECONDS: f64 = 300.0;

#[derive(Clone)]
pub(crate) struct PillionApi {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) metrics: Metrics,
    pub(crate) kept: Kept,
}

impl PillionApi {
    pub(crate) fn router(self, alerts: Alerts) -> Router {
        Router::new()
            .route("/pillion/v1/map", get(map_page))
            .route("/pillion/v1/traces", get(trace_list))
            .route("/pillion/v1/traces/{id}", get(trace_page))
            .route("/pillion/v1/stats", get(stats))
            .route("/pillion/v1/rejects", get(rejects))
            .with_state(self)
            .merge(alerts::router(alerts))
    }
}

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("{0}")]
    Invalid(String),
    #[error("there is no trace {0}: it has not arrived, or it is older than the retention")]
    NoTrace(String),
    #[error("the trace store could not be read")]
    Store(#[from] StoreError),
    #[error("the query was cut off")]
    CutOff,
}

impl IntoResponse for AskError {
    fn into_response(self) -> Response {
        let status = match &self {
            AskError::Invalid(_) => StatusCode::BAD_REQUEST,
            AskError::NoTrace(_) => StatusCode::NOT_FOUND,
            AskError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
            AskError::CutOff => StatusCode::SERVICE_UNAVAILABLE,
        };
        if let AskError::Store(error) = &self {
            tracing::error!(error = error as &dyn std::error::Error, "a query failed");
        }
        (status, Json(json!({"message": self.to_string()}))).into_response()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    start: Option<f64>,
    end: Option<f64>,
    collapse: Option<bool>,
    limit: Option<usize>,
    next: Option<String>,
    service: Option<String>,
    outcome: Option<String>,
    filter: Option<String>,
    min_ms: Option<f64>,
    max_ms: Option<f64>,
}

impl Asked {
    fn check(query: Result<Query<Asked>, QueryRejection>) -> Result<(Asked, Window), AskError> {
        let Query(asked) = query.map_err(|rejection| {
            AskError::Invalid(format!(
                "{}; known: start, end (epoch seconds), collapse, limit, next, service, outcome, filter, min_ms, max_ms",
                rejection.body_text()
            ))
        })?;
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64();
        let end = asked.end.unwrap_or(now);
        let start = asked.start.unwrap_or((end - DEFAULT_SECONDS).max(0.0));
        let window = window(("start", start), ("end", end))
            .map_err(|error| AskError::Invalid(error.to_string()))?;
        Ok((asked, window))
    }
}

type Answer = Result<Response, AskError>;

fn fresh(value: Value) -> Response {
    let mut response = Json(value).into_response();
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn blocking<T: Send + 'static>(
    query: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, AskError> {
    Ok(spawn_blocking(query)
        .await
        .map_err(|_| AskError::CutOff)??)
}

async fn map_page(
    State(api): State<PillionApi>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Answer {
    let (asked, window) = Asked::check(query)?;
    let totals = blocking(move || api.store.graph(window)).await?;
    let view = if asked.collapse.unwrap_or(true) {
        map::collapsed(&totals)
    } else {
        map::raw(&totals)
    };
    Ok(fresh(view))
}

async fn trace_list(
    State(api): State<PillionApi>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Answer {
    let (asked, window) = Asked::check(query)?;
    let question = list::Question::check(&asked, window)?;
    let found = blocking(move || {
        let groups = groups::filters(&api.kept)?;
        list::find(api.store.as_ref(), &groups, question)
    });
    Ok(fresh(found.await?.page()))
}

async fn trace_page(State(api): State<PillionApi>, Path(text): Path<String>) -> Answer {
    let id: TraceId = text
        .parse()
        .map_err(|error| AskError::Invalid(format!("{error}")))?;
    let stored = blocking(move || api.store.trace(id)).await?;
    if stored.spans.is_empty() {
        return Err(AskError::NoTrace(text));
    }
    Ok(fresh(traces::flat(id, stored)))
}

async fn rejects(State(api): State<PillionApi>) -> Response {
    fresh(json!({"rejects": api.metrics.rejects.list()}))
}

async fn stats(State(api): State<PillionApi>) -> Response {
    fresh(api.metrics.stats())
}
