// SPDX-License-Identifier: Apache-2.0
//! The App Mesh API over HTTP: restJson1, all 38 operations, for unmodified SDKs. Here a request becomes an operation and
//! an outcome an answer; rules are in [`write`] and `pillion-config`, the store behind [`Live`]. Never waits for a proxy.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::HeaderName;
use http::HeaderValue;
use http::Request;
use http::StatusCode;
use http::header;
use serde_json::Value;
use uuid::Uuid;

pub mod body;
pub mod call;
pub mod document;
pub mod draft;
pub mod error;
pub mod json;
pub mod metrics;
pub mod operations;
pub mod page;
pub mod query;
pub mod tags;
pub mod token;
pub mod write;

use crate::store::Live;
use call::Call;
use error::ApiError;
use error::ErrorType;
use metrics::ApiMetrics;
use query::Query;
use write::Owner;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// What every operation works on.
pub struct Api {
    live: Arc<Live>,
    owner: Owner,
    metrics: ApiMetrics,
}

impl Api {
    /// The API of one account in one region.
    pub fn new(live: Arc<Live>, owner: Owner, metrics: ApiMetrics) -> Api {
        Api {
            live,
            owner,
            metrics,
        }
    }

    /// Everything on `--api-addr`.
    pub fn router(self) -> Router {
        Router::new()
            .route("/", axum::routing::get(about))
            .fallback(answer)
            .with_state(Arc::new(self))
            .layer(axum::middleware::map_response(stamp))
    }
}

async fn about() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "Pillion control plane {version}: the AWS App Mesh API (2019-01-25) is under {}/\n",
        call::PREFIX
    )
}

/// SDKs show the id to people who ask what became of a request; where none was logged, a fresh one does.
async fn stamp(mut response: Response) -> Response {
    if !response.headers().contains_key(REQUEST_ID) {
        let id = HeaderValue::from_str(&Uuid::new_v4().to_string());
        response
            .headers_mut()
            .insert(REQUEST_ID, id.expect("a UUID is hex digits and hyphens"));
    }
    response
}

async fn answer(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    let began = Instant::now();
    let id = Uuid::new_v4().to_string();
    let call = Call::find(request.method(), request.uri().path());
    let operation = call
        .as_ref()
        .map_or_else(|_| "Unknown".to_owned(), Call::operation);
    let outcome = match call {
        Ok(call) => api.perform(&call, &operation, request).await,
        Err(no_call) => {
            // The body is read all the same, so that the client gets to read the answer.
            body::read(request.into_body()).await.ok();
            Err(no_call.into())
        }
    };
    let mut response = match outcome {
        Ok(document) => json_response(StatusCode::OK, &document),
        Err(error) => {
            log(&error, &operation, &id);
            refusal(&error)
        }
    };
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    api.metrics
        .count(&operation, response.status(), began.elapsed());
    response
}

impl Api {
    async fn perform(
        &self,
        call: &Call,
        operation: &str,
        request: Request<Body>,
    ) -> Result<Value, ApiError> {
        let (head, body) = request.into_parts();
        let bytes = body::read(body).await?;
        let query = Query::parse(head.uri.query())?;
        if call.takes_mesh_owner()
            && let Some(owner) = query.get("meshOwner")
        {
            self.check_mesh_owner(owner, call.mesh())?;
        }
        match call {
            Call::Create(of) => self.create(of, operation, &bytes).await,
            Call::List(of) => self.list(of, &query),
            Call::Describe(key) => self.describe(key),
            Call::Update(key) => self.update(key, operation, &bytes).await,
            Call::Delete(key) => self.delete(key).await,
            Call::ListTagsForResource => self.list_tags(&query),
            Call::TagResource => self.tag(&query, &bytes).await,
            Call::UntagResource => self.untag(&query, &bytes).await,
        }
    }

    /// A mesh of another account is one we do not have; nothing is shared with us.
    fn check_mesh_owner(&self, owner: &str, mesh: &str) -> Result<(), ApiError> {
        if let Err(problem) = pillion_config::tags::check_mesh_owner(owner) {
            return Err(ApiError::problems(&[problem]));
        }
        if owner == self.owner.account {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorType::NotFound,
            format!(
                "Mesh {mesh} of account {owner} does not exist here; this control plane serves account {}",
                self.owner.account
            ),
        ))
    }
}

fn json_response(status: StatusCode, document: &Value) -> Response {
    let mut response = Response::new(Body::from(document.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

fn refusal(error: &ApiError) -> Response {
    let mut response = json_response(error.kind.status(), &error.document());
    let headers = response.headers_mut();
    headers.insert(ERROR_TYPE, HeaderValue::from_static(error.kind.name()));
    if let Some(seconds) = error.kind.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(allow) = error.allow {
        headers.insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    response
}

fn log(error: &ApiError, operation: &str, id: &str) {
    let (kind, message) = (error.kind.name(), &error.message);
    if error.kind.status().is_server_error() {
        let inner = error.inner.as_deref().map(chain).unwrap_or_default();
        tracing::error!(operation, id, kind, message, inner, "request failed");
    } else {
        tracing::debug!(operation, id, kind, message, "request refused");
    }
}

fn chain(error: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
