// SPDX-License-Identifier: Apache-2.0
//! OTLP over HTTP: `POST /v1/traces`, protobuf or JSON, answered in kind. 400 for what will never be right, 413 and 415
//! for what to send otherwise, 429 and 503 with Retry-After for what to send again.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use http::HeaderMap;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http::header::RETRY_AFTER;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use serde_json::Value;
use serde_json::json;

use crate::metrics::Reason;
use crate::metrics::Source;
use crate::pipeline::Pipeline;
use crate::receive::RETRY_AFTER_SECONDS;
use crate::receive::body;
use crate::receive::body::BodyError;
use crate::receive::otlp_grpc::Refused;
use crate::receive::otlp_grpc::accept;

pub(crate) fn router(pipeline: Pipeline) -> Router {
    Router::new()
        .route("/v1/traces", post(traces))
        .with_state(pipeline)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Protobuf,
    Json,
}

impl Form {
    fn of(headers: &HeaderMap) -> Option<Form> {
        let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let kind = value.split(';').next()?.trim();
        match kind.to_ascii_lowercase().as_str() {
            "application/x-protobuf" | "application/protobuf" => Some(Form::Protobuf),
            "application/json" => Some(Form::Json),
            _ => None,
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Form::Protobuf => "application/x-protobuf",
            Form::Json => "application/json",
        }
    }
}

/// `google.rpc.Status`, which OTLP asks for in error bodies.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

const INVALID_ARGUMENT: i32 = 3;
const RESOURCE_EXHAUSTED: i32 = 8;
const UNAVAILABLE: i32 = 14;

async fn traces(State(pipeline): State<Pipeline>, headers: HeaderMap, body: Body) -> Response {
    let Some(form) = Form::of(&headers) else {
        let message = "content-type must be application/x-protobuf or application/json";
        return refuse(
            &pipeline,
            Form::Json,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Reason::Invalid,
            message,
        );
    };
    let whole = match body::read(pipeline.room(), &headers, body).await {
        Ok(whole) => whole,
        Err(error) => return refuse_body(&pipeline, form, &error),
    };
    let request = match decode(form, &whole.bytes) {
        Ok(request) => request,
        Err(message) => {
            return refuse(
                &pipeline,
                form,
                StatusCode::BAD_REQUEST,
                Reason::Invalid,
                &message,
            );
        }
    };
    match accept(&pipeline, Source::OtlpHttp, request, whole.account).await {
        Ok(answer) => accepted(form, &answer),
        Err(Refused::Busy(why)) => error(form, StatusCode::TOO_MANY_REQUESTS, &why),
        Err(Refused::Store(why)) => error(form, StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}

fn decode(form: Form, bytes: &Bytes) -> Result<ExportTraceServiceRequest, String> {
    match form {
        Form::Protobuf => ExportTraceServiceRequest::decode(bytes.clone())
            .map_err(|error| format!("the body is no protobuf ExportTraceServiceRequest: {error}")),
        Form::Json => serde_json::from_slice(bytes)
            .or_else(|error| lenient(bytes).ok_or(error))
            .map_err(|error| {
                format!("the body is no OTLP JSON ExportTraceServiceRequest: {error}")
            }),
    }
}

/// Proto3 JSON allows null for anything that is not set, and leaves out empty lists; the generated types know neither.
/// Tried second, for few senders write so.
fn lenient(bytes: &[u8]) -> Option<ExportTraceServiceRequest> {
    let mut value: Value = serde_json::from_slice(bytes).ok()?;
    normalize(&mut value);
    serde_json::from_value(value).ok()
}

fn normalize(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            for (name, member) in members {
                if let (Some(list), true) = (
                    member.as_object_mut(),
                    name == "arrayValue" || name == "kvlistValue",
                ) {
                    list.entry("values").or_insert_with(|| json!([]));
                }
                normalize(member);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(normalize),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn accepted(form: Form, answer: &ExportTraceServiceResponse) -> Response {
    let body = match form {
        Form::Protobuf => answer.encode_to_vec(),
        Form::Json => {
            let partial = answer.partial_success.as_ref().map(|partial| {
                json!({"partialSuccess": {
                    "rejectedSpans": partial.rejected_spans.to_string(), "errorMessage": partial.error_message}})
            });
            partial
                .unwrap_or_else(|| json!({}))
                .to_string()
                .into_bytes()
        }
    };
    (StatusCode::OK, [(CONTENT_TYPE, form.content_type())], body).into_response()
}

fn refuse_body(pipeline: &Pipeline, form: Form, error: &BodyError) -> Response {
    let (status, reason) = error.answer();
    refuse(pipeline, form, status, reason, &error.to_string())
}

/// A body that nobody could look into counts as one.
fn refuse(
    pipeline: &Pipeline,
    form: Form,
    status: StatusCode,
    reason: Reason,
    message: &str,
) -> Response {
    let metrics = pipeline.metrics();
    metrics.received(Source::OtlpHttp, 1);
    metrics.rejected(Source::OtlpHttp, reason, 1);
    metrics.rejects.note(Source::OtlpHttp, reason, message, b"");
    error(form, status, message)
}

fn error(form: Form, status: StatusCode, message: &str) -> Response {
    let code = match status {
        StatusCode::TOO_MANY_REQUESTS => RESOURCE_EXHAUSTED,
        StatusCode::SERVICE_UNAVAILABLE => UNAVAILABLE,
        _ => INVALID_ARGUMENT,
    };
    let body = match form {
        Form::Protobuf => RpcStatus {
            code,
            message: message.to_owned(),
        }
        .encode_to_vec(),
        Form::Json => json!({"code": code, "message": message})
            .to_string()
            .into_bytes(),
    };
    let mut response = (status, [(CONTENT_TYPE, form.content_type())], body).into_response();
    if code != INVALID_ARGUMENT {
        response
            .headers_mut()
            .insert(RETRY_AFTER, RETRY_AFTER_SECONDS.into());
    }
    response
}

#[cfg(test)]
mod tests {
    use http::Request;
    use tower::ServiceExt;

    use super::*;
    use crate::pipeline;

    #[tokio::test]
    async fn a_full_queue_is_429_with_retry_after_and_is_counted() {
        let pipeline = pipeline::tests::full();
        let metrics = pipeline.metrics().clone();
        let body = json!({"resourceSpans": [{"scopeSpans": [{"spans": [{
            "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "op",
            "startTimeUnixNano": "1", "endTimeUnixNano": "2"}]}]}]});
        let request = Request::post("/v1/traces")
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()));
        let answer = router(pipeline)
            .oneshot(request.expect("a request"))
            .await
            .expect("an answer");
        assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.headers()[RETRY_AFTER], "1");
        let counts = &metrics.stats()["sources"]["otlp_http"];
        assert_eq!(
            (&counts["received"], &counts["rejected"]),
            (&json!(1), &json!({"queue_full": 1}))
        );
    }

    #[test]
    fn nulls_and_empty_lists_left_out_are_json_as_proto3_allows_it() {
        let bytes = Bytes::from(
            json!({"resourceSpans": [{"resource": null, "scopeSpans": [{"spans": [{
                "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "parentSpanId": null,
                "name": "op", "attributes": [{"key": "a", "value": {"arrayValue": {}}}]}]}]}]})
            .to_string(),
        );
        let request = decode(Form::Json, &bytes).expect("readable");
        assert_eq!(request.resource_spans[0].scope_spans[0].spans[0].name, "op");
    }

    proptest::proptest! {
        #[test]
        fn no_body_is_a_panic(
            changes in proptest::collection::vec((0..400usize, proptest::prelude::any::<u8>()), 0..6),
            noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        ) {
            let good = json!({"resourceSpans": [{"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "a"}}]},
                "scopeSpans": [{"spans": [{"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174",
                    "name": "op", "kind": 3, "startTimeUnixNano": "1", "endTimeUnixNano": "2", "status": {"code": 2},
                    "attributes": [{"key": "http.response.status_code", "value": {"intValue": "503"}}]}]}]}]});
            let mut bytes = good.to_string().into_bytes();
            for (at, byte) in changes {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            for (form, bytes) in [(Form::Json, bytes), (Form::Json, noise.clone()), (Form::Protobuf, noise)] {
                if let Ok(request) = decode(form, &Bytes::from(bytes)) {
                    let spans: usize = request.resource_spans.iter().flat_map(|one| &one.scope_spans).map(|one| one.spans.len()).sum();
                    let converted = crate::convert::otlp::convert(request.resource_spans);
                    proptest::prop_assert_eq!(converted.spans.len() + converted.refused, spans);
                }
            }
        }
    }
}
