// SPDX-License-Identifier: Apache-2.0
//! Spans as OTLP's JSON writes them, for readers who asked for that form.

use serde_json::Value;
use serde_json::json;

use crate::span::Kind;
use crate::span::Span;

/// One span, without its resource.
pub(crate) fn json(span: &Span) -> Value {
    let kind = match span.kind {
        Kind::Internal => 1,
        Kind::Server => 2,
        Kind::Client => 3,
        Kind::Producer => 4,
        Kind::Consumer => 5,
    };
    let attributes: Vec<Value> = span
        .annotations
        .iter()
        .chain(
            span.attributes
                .iter()
                .filter(|(key, _)| !span.annotations.contains_key(*key)),
        )
        .map(|(key, value)| json!({"key": key, "value": any_value(value)}))
        .collect();
    let failed = span.flags.fault || span.flags.error;
    let mut found = json!({
        "traceId": span.trace.to_string(), "spanId": span.id.to_string(), "name": span.name, "kind": kind,
        "startTimeUnixNano": span.start_ns.to_string(), "attributes": attributes,
        "status": {"code": if failed { 2 } else { 0 }},
    });
    if let Some(end) = span.end_ns {
        found["endTimeUnixNano"] = json!(end.to_string());
    }
    if let Some(parent) = span.parent {
        found["parentSpanId"] = json!(parent.to_string());
    }
    found
}

fn any_value(value: &Value) -> Value {
    match value {
        Value::Bool(value) => json!({"boolValue": value}),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => json!({"intValue": whole.to_string()}),
            None => json!({"doubleValue": number}),
        },
        Value::String(text) => json!({"stringValue": text}),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            json!({"stringValue": value.to_string()})
        }
    }
}
