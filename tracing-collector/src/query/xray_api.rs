// SPDX-License-Identifier: Apache-2.0
//! The X-Ray API over HTTP: routes, bodies, error shapes. On the API port every operation that is implemented; on the
//! daemon's TCP port those that SDKs and daemons use, unsigned. Who may ask at all is `auth`'s to say.

mod operations;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::post;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::header::RETRY_AFTER;
use serde_json::Value;
use serde_json::json;
use tokio::task::spawn_blocking;

use crate::metrics::Metrics;
use crate::query::batch_traces;
use crate::query::declared;
use crate::query::groups;
use crate::query::insights;
use crate::query::kept::Kept;
use crate::query::retrieval::Retrievals;
use crate::query::sampling::Sampling;
use crate::query::sampling_rules;
use crate::query::service_graph;
use crate::query::tags;
use crate::query::time_series;
use crate::query::token::TokenError;
use crate::query::trace_graph;
use crate::query::trace_summaries;
use crate::query::window::WindowError;
use crate::query::xray_api::operations::OPERATIONS;
use crate::query::xray_api::operations::Offered;
use crate::query::xray_api::operations::Operation;
use crate::receive::RETRY_AFTER_SECONDS;
use crate::receive::documents::Documents;
use crate::receive::documents::PutError;
use crate::receive::documents::Read;
use crate::store::Store;
use crate::store::StoreError;

pub(crate) use self::operations::changes;
pub(super) use crate::span::ACCOUNT;
pub(super) use crate::span::REGION;
pub(super) const NOT_FOUND: &str = "ResourceNotFoundException";

/// Unsigned, so nothing that reads traces or changes settings.
const OF_DAEMON: [Operation; 4] = [
    Operation::PutTraceSegments,
    Operation::PutTelemetryRecords,
    Operation::GetSamplingRules,
    Operation::GetSamplingTargets,
];

/// What a client did wrong, or what we could not do.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Throttled(String),
    #[error("{0}; available here: {1}")]
    UnknownOperation(String, String),
    #[error("{0}")]
    TooLarge(String),
    /// Shown to the client without its cause, which is logged.
    #[error("the trace store could not be read")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Unavailable(String),
    /// An error of some operations only, by its name in the model.
    #[error("{message}")]
    Refused {
        kind: &'static str,
        message: String,
        resource: Option<String>,
    },
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> ApiError {
        ApiError::Invalid(error.to_string())
    }
}

impl From<WindowError> for ApiError {
    fn from(error: WindowError) -> ApiError {
        ApiError::Invalid(error.to_string())
    }
}

impl From<PutError> for ApiError {
    fn from(error: PutError) -> ApiError {
        let message = error.to_string();
        match error {
            PutError::Shape(_) => ApiError::Invalid(message),
            PutError::TooLarge(_) => ApiError::TooLarge(message),
            PutError::Busy(_) => ApiError::Throttled(message),
            PutError::Store(_) => ApiError::Unavailable(message),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, kind) = match &self {
            ApiError::Invalid(_) => (StatusCode::BAD_REQUEST, "InvalidRequestException"),
            ApiError::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "InvalidRequestException"),
            ApiError::Throttled(_) => (StatusCode::TOO_MANY_REQUESTS, "ThrottledException"),
            ApiError::UnknownOperation(..) => (StatusCode::NOT_FOUND, "UnknownOperationException"),
            ApiError::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, "InternalFailure"),
            ApiError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
            ApiError::Refused { kind, .. } if *kind == NOT_FOUND => (StatusCode::NOT_FOUND, *kind),
            ApiError::Refused { kind, .. } => (StatusCode::BAD_REQUEST, *kind),
        };
        if let ApiError::Store(error) = &self {
            tracing::error!(error = error as &dyn std::error::Error, "a query failed");
        }
        let mut body = json!({"Message": self.to_string()});
        if let ApiError::Refused {
            resource: Some(resource),
            ..
        } = &self
        {
            body["ResourceName"] = json!(resource);
        }
        let mut response = (status, axum::Json(body)).into_response();
        response
            .headers_mut()
            .insert("x-amzn-errortype", HeaderValue::from_static(kind));
        if matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        ) {
            response
                .headers_mut()
                .insert(RETRY_AFTER, RETRY_AFTER_SECONDS.into());
        }
        response
    }
}

#[derive(Clone)]
pub(crate) struct XrayApi {
    documents: Documents,
    store: Arc<dyn Store>,
    sampling: Sampling,
    kept: Kept,
    retrievals: Retrievals,
    offered: Arc<[Offered]>,
}

impl XrayApi {
    pub(crate) fn new(documents: Documents, store: Arc<dyn Store>, kept: Kept) -> XrayApi {
        XrayApi {
            documents,
            kept,
            store,
            sampling: Sampling::default(),
            retrievals: Retrievals::default(),
            offered: OPERATIONS.into(),
        }
    }

    /// The same sampling state behind the daemon's port, with its own door for documents.
    pub(crate) fn for_daemon_port(&self, documents: Documents) -> XrayApi {
        XrayApi {
            documents,
            offered: OPERATIONS
                .into_iter()
                .filter(|(operation, ..)| OF_DAEMON.contains(operation))
                .collect(),
            ..self.clone()
        }
    }

    pub(crate) fn router(self) -> Router {
        let mut router = Router::new();
        for (operation, _, path) in self.offered.iter().copied() {
            let handler = move |State(api): State<XrayApi>, headers: HeaderMap, body: Body| async move {
                api.answer(operation, &headers, body).await
            };
            router = router.route(path, post(handler));
        }
        router.route("/", post(by_target)).with_state(self)
    }

    fn unknown(&self, what: String) -> ApiError {
        let offered: Vec<&str> = self.offered.iter().map(|(_, name, _)| *name).collect();
        ApiError::UnknownOperation(what, offered.join(", "))
    }

    async fn answer(&self, operation: Operation, headers: &HeaderMap, body: Body) -> Response {
        let read = match self.documents.read(headers, body).await {
            Ok(read) => read,
            Err(error) => {
                if operation == Operation::PutTraceSegments {
                    self.documents.refuse(&error);
                }
                return ApiError::from(error).into_response();
            }
        };
        match self.run(operation, read).await {
            Ok(answer) => axum::Json(answer).into_response(),
            Err(error) => error.into_response(),
        }
    }

    async fn run(&self, operation: Operation, read: Read) -> Result<Value, ApiError> {
        if operation == Operation::PutTraceSegments {
            return Ok(self.documents.put(read).await?);
        }
        let request = if read.bytes.trim_ascii().is_empty() {
            json!({})
        } else {
            parse(&read.bytes)?
        };
        let api = self.clone();
        let query = move || api.query(operation, &request);
        spawn_blocking(query)
            .await
            .unwrap_or_else(|_| Err(ApiError::Unavailable("the query was cut off".to_owned())))
    }
}

impl XrayApi {
    /// Blocks: all of it reads the store.
    fn query(&self, operation: Operation, request: &Value) -> Result<Value, ApiError> {
        let (store, kept) = (self.store.as_ref(), &self.kept);
        match operation {
            Operation::BatchGetTraces => batch_traces::answer(store, request),
            Operation::GetTraceSummaries => {
                trace_summaries::answer(store, &groups::filters(kept)?, request)
            }
            Operation::GetTraceGraph => trace_graph::answer(store, request),
            Operation::GetServiceGraph => {
                service_graph::answer(store, groups::selected(kept, request)?.as_ref(), request)
            }
            Operation::GetTimeSeriesServiceStatistics => {
                time_series::answer(store, groups::selected(kept, request)?.as_ref(), request)
            }
            Operation::GetSamplingRules => sampling_rules::list(kept, request),
            Operation::GetSamplingTargets => self.sampling.targets(kept, request),
            Operation::GetSamplingStatisticSummaries => self.sampling.summaries(request),
            Operation::CreateSamplingRule => sampling_rules::create(kept, request),
            Operation::UpdateSamplingRule => sampling_rules::update(kept, request),
            Operation::DeleteSamplingRule => sampling_rules::delete(kept, request),
            Operation::CreateGroup => groups::create(kept, request),
            Operation::GetGroup => groups::get(kept, request),
            Operation::GetGroups => groups::list(kept, request),
            Operation::UpdateGroup => groups::update(kept, request),
            Operation::DeleteGroup => groups::delete(kept, request),
            Operation::TagResource => tags::tag(kept, request),
            Operation::UntagResource => tags::untag(kept, request),
            Operation::ListTagsForResource => tags::list(kept, request),
            Operation::PutEncryptionConfig => declared::put_encryption(kept, request),
            Operation::GetEncryptionConfig => declared::encryption(kept),
            Operation::PutResourcePolicy => declared::put_policy(kept, request),
            Operation::DeleteResourcePolicy => declared::delete_policy(kept, request),
            Operation::ListResourcePolicies => declared::policies(kept),
            Operation::GetIndexingRules => declared::indexing_rules(kept),
            Operation::UpdateIndexingRule => declared::update_indexing_rule(kept, request),
            Operation::GetTraceSegmentDestination => declared::destination(kept),
            Operation::UpdateTraceSegmentDestination => declared::update_destination(kept, request),
            Operation::StartTraceRetrieval => self.retrievals.start(request),
            Operation::ListRetrievedTraces => self.retrievals.traces(store, request),
            Operation::GetRetrievedTracesGraph => self.retrievals.graph(store, request),
            Operation::CancelTraceRetrieval => self.retrievals.cancel(request),
            Operation::GetInsight => insights::get(kept, request),
            Operation::GetInsightEvents => insights::events(kept, request),
            Operation::GetInsightImpactGraph => insights::impact_graph(store, kept, request),
            Operation::GetInsightSummaries => insights::summaries(store, kept, request),
            Operation::PutTelemetryRecords => telemetry(self.documents.metrics(), request),
            Operation::PutTraceSegments => unreachable!("answered before, it is not a query"),
        }
    }
}

/// What senders say of themselves, losses above all; what was lost here is counted here.
fn telemetry(metrics: &Metrics, request: &Value) -> Result<Value, ApiError> {
    const COUNTS: [(&str, &str); 4] = [
        ("SegmentsReceivedCount", "received"),
        ("SegmentsSentCount", "sent"),
        ("SegmentsSpilloverCount", "spillover"),
        ("SegmentsRejectedCount", "rejected"),
    ];
    let records = request.get("TelemetryRecords").and_then(Value::as_array);
    let records = records
        .ok_or_else(|| ApiError::Invalid("TelemetryRecords is required, a list".to_owned()))?;
    for record in records {
        time(record, "Timestamp")?;
        for (member, what) in COUNTS {
            let count = record.get(member).and_then(Value::as_u64).unwrap_or(0);
            metrics.sender(what, count);
        }
        let errors = record
            .get("BackendConnectionErrors")
            .and_then(Value::as_object);
        let errors = errors
            .into_iter()
            .flatten()
            .filter_map(|(_, count)| count.as_u64());
        metrics.sender("backend_error", errors.sum());
    }
    Ok(json!({}))
}

fn parse(bytes: &[u8]) -> Result<Value, ApiError> {
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|error| ApiError::Invalid(format!("the request is not JSON: {error}")))?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(ApiError::Invalid(
            "the request is not a JSON object".to_owned(),
        ))
    }
}

/// `X-Amz-Target: <prefix>.<operation>`, as older clients write.
async fn by_target(State(api): State<XrayApi>, headers: HeaderMap, body: Body) -> Response {
    let target = headers
        .get("x-amz-target")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let name = target.rsplit('.').next().unwrap_or_default();
    match api.offered.iter().find(|(_, offered, _)| *offered == name) {
        Some((operation, ..)) => api.answer(*operation, &headers, body).await,
        None => api
            .unknown(format!("no operation {name:?} (header X-Amz-Target)"))
            .into_response(),
    }
}

/// For a path that is no operation.
pub(crate) fn no_such_operation(api: &XrayApi, method: &Method, path: &str) -> Response {
    api.unknown(format!("no operation at {method} {path}"))
        .into_response()
}

/// A required epoch time.
pub(super) fn time(request: &Value, name: &'static str) -> Result<(&'static str, f64), ApiError> {
    match request.get(name) {
        None | Some(Value::Null) => Err(ApiError::Invalid(format!("{name} is required"))),
        Some(value) => value
            .as_f64()
            .map(|seconds| (name, seconds))
            .ok_or_else(|| {
                ApiError::Invalid(format!("{name} is {value}; give epoch seconds as a number"))
            }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_error_does_not_tell_strangers_about_the_disk() {
        let error = ApiError::Store(StoreError::Record { what: "a span" });
        assert_eq!(error.to_string(), "the trace store could not be read");
    }
}
