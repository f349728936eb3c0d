// SPDX-License-Identifier: Apache-2.0
//! The one place where a failure becomes a response, and where every response gets its last dress before it leaves.
//! Called by `http::server`; decides nothing about who fails.

use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::Version;
use http::header;
use http_body::Body as _;

use super::body::Body;
use super::body::Tracked;
use crate::drain::Stage;
use crate::error::Failure;
use crate::error::grpc_status;
use crate::exchange::EndGuard;
use crate::exchange::Exchange;

/// The answer that a failure becomes.
pub(super) fn reply(exchange: &Exchange, error: &dyn Failure) -> Response<Body> {
    exchange.flag(error.flag());
    exchange.details.set(error.details());
    if let Some(transport) = error.transport() {
        exchange.transport.replace(Some(transport));
    }
    tracing::debug!(error = %error, fault = ?error.fault(), status = %error.status(), "answered locally");
    let mut text = error.text();
    if exchange.attempts.get() > 1 {
        text = text
            .replace(
                "headers. reset reason",
                "headers. retried and the latest reset reason",
            )
            .into();
    }
    let mut response = Response::new(Body::Empty);
    if error.overloaded() {
        response
            .headers_mut()
            .insert("x-envoy-overloaded", HeaderValue::from_static("true"));
    }
    if exchange.asked.grpc {
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        headers.insert(
            "grpc-status",
            HeaderValue::from(grpc_status(error.status())),
        );
        if let Ok(message) = HeaderValue::from_str(&percent_encoded(&text))
            && !text.is_empty()
        {
            headers.insert("grpc-message", message);
        }
        return response;
    }
    *response.status_mut() = error.status();
    if !text.is_empty() {
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        *response.body_mut() = Body::full(text.into_owned().into());
    }
    response
}

/// gRPC messages are percent-encoded beyond printable ASCII.
fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Dresses an answer that leaves, and tells the exchange.
pub(super) fn conclude(exchange: &Exchange, response: &mut Response<Body>) {
    if let Some(server) = &exchange.worker.shared.policy.server_header {
        response
            .headers_mut()
            .insert(header::SERVER, server.clone());
    }
    let side = exchange.connection.side();
    let leaving = exchange.served.stale || exchange.worker.stage(side) >= Stage::Announcing;
    if leaving && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        close(exchange, response);
    }
    let (parts, body) = std::mem::take(response).into_parts();
    exchange.answered(&parts);
    *response = Response::from_parts(parts, body);
}

/// Asks the caller to take the next request elsewhere.
pub(super) fn close(exchange: &Exchange, response: &mut Response<Body>) {
    if exchange.asked.version != Version::HTTP_2 {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// The answer with the body that ends the exchange.
pub(super) fn finish(end: EndGuard, mut response: Response<Body>) -> Response<Body> {
    conclude(&end.0, &mut response);
    if response.body().is_end_stream() {
        // Nothing more will pass: the exchange ends here, without a body to wait for.
        drop(end);
        return response;
    }
    response.map(|body| Tracked::ending(body, end))
}
