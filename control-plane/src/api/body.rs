// SPDX-License-Identifier: Apache-2.0
//! Bodies of requests: read whole within bounds, parsed, their outermost members picked out. The content type is not
//! looked at: clients send several, and the bytes speak for themselves.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use bytes::BytesMut;
use http_body_util::BodyExt;
use pillion_config::Problem;
use serde_json::Map;
use serde_json::Value;

use super::error::ApiError;
use super::error::ErrorType;
use super::json::Unique;

/// Largest body that is taken; the largest spec the model's limits allow is far smaller.
pub const MAX_BODY: usize = 2 * 1024 * 1024;

/// Read and thrown away beyond that, so that a client in the middle of sending gets to read the answer.
const MAX_DISCARDED: usize = 16 * 1024 * 1024;

/// Longest time a body may take to arrive.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Of a member's name in a message.
const MAX_NAME: usize = 100;

/// Reads the whole body.
pub async fn read(body: Body) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(TIME_LIMIT, collect(body)).await {
        Ok(read) => read,
        Err(_) => Err(ApiError::new(
            ErrorType::BodyTooSlow,
            format!("the body did not arrive within {} s", TIME_LIMIT.as_secs()),
        )),
    }
}

async fn collect(mut body: Body) -> Result<Bytes, ApiError> {
    let mut kept = BytesMut::new();
    let mut seen = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError {
            inner: Some(error.into()),
            ..ApiError::new(ErrorType::BadRequest, "the body broke off before its end")
        })?;
        let Ok(chunk) = frame.into_data() else {
            continue;
        };
        seen += chunk.len();
        if seen > MAX_BODY + MAX_DISCARDED {
            break;
        }
        if seen <= MAX_BODY {
            kept.extend_from_slice(&chunk);
        }
    }
    if seen > MAX_BODY {
        return Err(ApiError::new(
            ErrorType::BodyTooLarge,
            format!("the body is larger than {MAX_BODY} bytes, the most this API takes"),
        ));
    }
    Ok(kept.freeze())
}

/// The outermost object. `null` members are as good as absent.
pub fn parse(bytes: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let bad = |message: String| ApiError::new(ErrorType::BadRequest, message);
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(bad(
            "the body is empty; this operation takes a JSON object".to_owned()
        ));
    }
    let Unique(document) = serde_json::from_slice(bytes)
        .map_err(|error| bad(format!("the body is not valid JSON: {error}")))?;
    match document {
        Value::Object(mut members) => {
            members.retain(|_, value| !value.is_null());
            Ok(members)
        }
        Value::Array(_) => Err(bad("the body must be a JSON object, is an array".to_owned())),
        other => Err(bad(format!("the body must be a JSON object, is {other}"))),
    }
}

/// Members other than `known`, which a typo may have made.
pub fn unknown_members(members: &Map<String, Value>, known: &[&str]) -> Vec<Problem> {
    members
        .keys()
        .filter(|name| !known.contains(&name.as_str()))
        .map(|name| {
            let known = known.join(", ");
            let name: String = name.chars().take(MAX_NAME).collect();
            Problem::new(name, format!("is unknown; known here: {known}"))
        })
        .collect()
}

/// A member that must be a string if it is there.
pub fn text<'a>(
    members: &'a Map<String, Value>,
    name: &str,
    problems: &mut Vec<Problem>,
) -> Option<&'a str> {
    let value = members.get(name)?;
    let text = value.as_str();
    if text.is_none() {
        let found = match value {
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::Array(_) => "a list",
            Value::Null | Value::String(_) | Value::Object(_) => "an object",
        };
        problems.push(Problem::new(name, format!("must be a string, is {found}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_json_is_told_by_line_and_column() {
        let error = parse(b"{\n  \"spec\": {,}\n}").expect_err("not JSON");
        assert!(
            error.message.contains("line 2 column 12"),
            "{}",
            error.message
        );
    }

    #[test]
    fn what_is_no_object_is_refused_by_what_it_is() {
        for (body, found) in [
            ("[]", "an array"),
            ("\"x\"", "\"x\""),
            ("7", "7"),
            (" \n", "empty"),
        ] {
            let error = parse(body.as_bytes()).expect_err("no object");
            assert!(error.message.contains(found), "{}", error.message);
        }
    }

    #[test]
    fn a_deep_document_is_refused_not_recursed_into() {
        let body = "[".repeat(1_000_000);
        assert!(parse(body.as_bytes()).is_err());
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_not_kept() {
        let error = read(Body::from(vec![b' '; MAX_BODY + 1]))
            .await
            .expect_err("too large");
        assert_eq!(error.kind, ErrorType::BodyTooLarge);
        let whole = read(Body::from(vec![b' '; MAX_BODY]))
            .await
            .expect("just fits");
        assert_eq!(whole.len(), MAX_BODY);
    }
}
