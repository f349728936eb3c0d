// SPDX-License-Identifier: Apache-2.0
//! Zipkin's `POST /api/v2/spans`, JSON: what App Mesh's Jaeger option and Zipkin's reporters send. Answered 202 when
//! stored.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::post;
use http::HeaderMap;
use http::StatusCode;
use http::header::RETRY_AFTER;

use crate::convert::zipkin;
use crate::metrics::Reason;
use crate::metrics::Source;
use crate::pipeline::Pipeline;
use crate::receive::RETRY_AFTER_SECONDS;
use crate::receive::body;
use crate::receive::otlp_grpc::Refused;
use crate::receive::otlp_grpc::take;

pub(crate) fn router(pipeline: Pipeline) -> Router {
    Router::new()
        .route("/api/v2/spans", post(spans))
        .with_state(pipeline)
}

async fn spans(State(pipeline): State<Pipeline>, headers: HeaderMap, body: Body) -> Response {
    let whole = match body::read(pipeline.room(), &headers, body).await {
        Ok(whole) => whole,
        Err(error) => {
            let (status, reason) = error.answer();
            return refuse(&pipeline, status, reason, &error.to_string());
        }
    };
    let converted = match zipkin::convert(&whole.bytes) {
        Ok(converted) => converted,
        Err(error) => {
            let message = format!("the body is no list of Zipkin v2 spans in JSON: {error}");
            return refuse(
                &pipeline,
                StatusCode::BAD_REQUEST,
                Reason::Invalid,
                &message,
            );
        }
    };
    let (refused, reason) = (converted.refused, converted.reason.clone());
    match take(&pipeline, Source::Zipkin, converted, Ok(()), whole.account).await {
        Ok(()) if refused > 0 => {
            let reason = reason.map(|reason| reason.to_string()).unwrap_or_default();
            let message = format!("{refused} spans were refused: {reason}");
            plain(StatusCode::ACCEPTED, &message)
        }
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(Refused::Busy(why)) => plain(StatusCode::TOO_MANY_REQUESTS, &why),
        Err(Refused::Store(why)) => plain(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}

/// A body that nobody could look into counts as one.
fn refuse(pipeline: &Pipeline, status: StatusCode, reason: Reason, why: &str) -> Response {
    let metrics = pipeline.metrics();
    metrics.received(Source::Zipkin, 1);
    metrics.rejected(Source::Zipkin, reason, 1);
    metrics.rejects.note(Source::Zipkin, reason, why, b"");
    plain(status, why)
}

fn plain(status: StatusCode, why: &str) -> Response {
    let mut response = (status, format!("{why}\n")).into_response();
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
