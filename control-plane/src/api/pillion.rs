// SPDX-License-Identifier: Apache-2.0
//! `/pillion/v1`: what App Mesh could not say. History, rollback, atomic apply, watch, fleet, explain, join tokens and
//! shares, for the same callers under the same permissions. `openapi.json` beside this file describes it all.

mod apply;
mod authority;
mod explain;
mod history;
mod people;
mod watch;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::extract::State;
use axum::response::Response;
use axum::routing::delete;
use axum::routing::get;
use axum::routing::post;
use bytes::Bytes;
use http::HeaderValue;
use http::Request;
use http::header;
use pillion_config::Problem;
use serde_json::Value;
use serde_json::json;

use super::Api;
use super::Asked;
use super::body;
use super::error::ApiError;
use super::query::Query;
use crate::access::Wish;

/// The description that is served, and that tests hold the routes against.
const OPENAPI: &str = include_str!("pillion/openapi.json");

/// One request that was let in.
struct Call {
    api: Arc<Api>,
    asked: Asked,
    query: Query,
    bytes: Bytes,
}

pub(super) fn router() -> Router<Arc<Api>> {
    // Not nested: nesting rewrites the path, and the path is signed.
    Router::new()
        .route("/pillion/v1/openapi.json", get(openapi))
        .route("/pillion/v1/history", get(history))
        .route("/pillion/v1/rollback", post(rollback))
        .route("/pillion/v1/apply", post(apply))
        .route("/pillion/v1/watch", get(watch::stream))
        .route("/pillion/v1/fleet", get(fleet))
        .route("/pillion/v1/explain", post(explain))
        .route("/pillion/v1/tokens", get(tokens).post(token))
        .route("/pillion/v1/tokens/{id}", delete(revoke))
        .route("/pillion/v1/authority", get(authority).post(rotate))
        .route("/pillion/v1/authority/bundle", get(bundle))
        .route("/pillion/v1/meshes/{mesh}/shares", get(shares).put(share))
}

async fn openapi() -> Response {
    let mut response = Response::new(Body::from(OPENAPI));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

async fn history(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    answer(api, "History", request, |call| async move {
        history::list(&call).await
    })
    .await
}

async fn rollback(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    answer(api, "Rollback", request, |call| async move {
        history::rollback(&call).await
    })
    .await
}

async fn apply(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    answer(api, "Apply", request, |call| async move {
        apply::apply(&call).await
    })
    .await
}

async fn fleet(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    answer(api, "Fleet", request, |call| async move {
        Ok(people::fleet(&call))
    })
    .await
}

async fn explain(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    answer(api, "Explain", request, |call| async move {
        explain::explain(&call)
    })
    .await
}

async fn authority(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    answer(api, "DescribeAuthority", request, |call| async move {
        authority::describe(&call)
    })
    .await
}

async fn rotate(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    answer(api, "RotateAuthority", request, |call| async move {
        authority::step(&call).await
    })
    .await
}

/// Public keys for other trust domains to fetch, who have no keys of ours to sign with.
async fn bundle(State(api): State<Arc<Api>>) -> Response {
    super::json_response(http::StatusCode::OK, &api.custody.ring().spiffe_bundle())
}

async fn tokens(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    answer(api, "ListTokens", request, |call| async move {
        Ok(people::tokens(&call))
    })
    .await
}

async fn token(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    answer(api, "CreateToken", request, |call| async move {
        people::create_token(&call).await
    })
    .await
}

async fn revoke(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Response {
    let work = |call: Call| async move { people::revoke_token(&call, &id).await };
    answer(api, "RevokeToken", request, work).await
}

async fn shares(
    State(api): State<Arc<Api>>,
    Path(mesh): Path<String>,
    request: Request<Body>,
) -> Response {
    let work = |call: Call| async move { people::shares(&call, &mesh) };
    answer(api, "GetShares", request, work).await
}

async fn share(
    State(api): State<Arc<Api>>,
    Path(mesh): Path<String>,
    request: Request<Body>,
) -> Response {
    let work = |call: Call| async move { people::share(&call, &mesh).await };
    answer(api, "PutShares", request, work).await
}

async fn answer<F, W>(
    api: Arc<Api>,
    operation: &'static str,
    request: Request<Body>,
    work: W,
) -> Response
where
    W: FnOnce(Call) -> F,
    F: Future<Output = Result<Value, ApiError>>,
{
    let began = Instant::now();
    let outcome = match enter(&api, operation, request).await {
        Ok(call) => work(call).await,
        Err(error) => Err(error),
    };
    api.reply(outcome, operation, began)
}

async fn enter(api: &Arc<Api>, operation: &str, request: Request<Body>) -> Result<Call, ApiError> {
    let (caller, uri, bytes) = api.admit(request).await?;
    Ok(Call {
        api: Arc::clone(api),
        asked: Asked {
            caller,
            operation: operation.to_owned(),
        },
        query: Query::parse(uri.query())?,
        bytes,
    })
}

impl Call {
    /// The body as a document with these members and no others.
    fn body(&self, known: &[&str]) -> Result<Value, ApiError> {
        let members = body::parse(&self.bytes)?;
        let problems = body::unknown_members(&members, known);
        if problems.is_empty() {
            Ok(Value::Object(members))
        } else {
            Err(ApiError::problems(&problems))
        }
    }

    /// A whole number of the query.
    fn number(&self, name: &str, default: u64, most: u64) -> Result<u64, ApiError> {
        let Some(text) = self.query.get(name) else {
            return Ok(default);
        };
        text.parse()
            .ok()
            .filter(|number| *number <= most)
            .ok_or_else(|| {
                problem(
                    name,
                    format!("must be a whole number up to {most}, is `{text:.40}`"),
                )
            })
    }

    fn may(&self, wish: Wish, arn: &str) -> bool {
        self.asked.caller.may(wish, arn)
    }
}

fn problem(path: &str, message: impl Into<String>) -> ApiError {
    ApiError::problems(&[Problem::new(path, message)])
}

/// A member that must be a text.
fn text<'v>(body: &'v Value, name: &str) -> Result<&'v str, ApiError> {
    match body.get(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(problem(name, "must be a string")),
        None => Err(problem(name, "is required")),
    }
}

fn at(ms: i64) -> Value {
    json!(super::document::seconds(ms))
}
