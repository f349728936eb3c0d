// SPDX-License-Identifier: Apache-2.0
//! BatchGetTraces: whole traces as documents. Any number of ids up to a bound in one call, in pages by size.

use serde_json::Value;
use serde_json::json;

use crate::convert::xray::document::documents;
use crate::query::token;
use crate::query::xray_api::ApiError;
use crate::span::TraceId;
use crate::span::seconds;
use crate::store::Store;
use crate::trace::Trace;

const OPERATION: &str = "BatchGetTraces";
const MAX_IDS: usize = 1000;
/// A page ends after the trace that passes this many bytes of documents.
const PAGE_BYTES: usize = 8 * 1024 * 1024;

pub(super) fn answer(store: &dyn Store, request: &Value) -> Result<Value, ApiError> {
    let ids = request.get("TraceIds").and_then(Value::as_array);
    let ids =
        ids.ok_or_else(|| ApiError::Invalid("TraceIds is required, a list of ids".to_owned()))?;
    if ids.len() > MAX_IDS {
        return Err(ApiError::Invalid(format!(
            "TraceIds has {} ids; at most {MAX_IDS}",
            ids.len()
        )));
    }
    let from = token::position(token::redeem(OPERATION, request)?)?;
    let (mut traces, mut unknown) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    let mut next = None;
    for (at, given) in ids.iter().enumerate().skip(from) {
        if bytes > PAGE_BYTES {
            next = Some(at);
            break;
        }
        let id: Option<TraceId> = given.as_str().and_then(|text| text.parse().ok());
        let stored = id
            .map(|id| store.trace(id))
            .transpose()?
            .filter(|stored| !stored.spans.is_empty());
        match id.zip(stored) {
            None => unknown.push(given.clone()),
            Some((id, stored)) => {
                let trace = one(&Trace::assemble(id, stored.spans), stored.truncated);
                bytes += trace.bytes;
                traces.push(trace.json);
            }
        }
    }
    let mut answer = json!({"Traces": traces, "UnprocessedTraceIds": unknown});
    if let Some(next) = next {
        answer["NextToken"] = json!(token::issue(OPERATION, request, &token::at_position(next)));
    }
    Ok(answer)
}

struct Written {
    json: Value,
    bytes: usize,
}

fn one(trace: &Trace, truncated: bool) -> Written {
    let start = trace.spans.first().map_or(0, |span| span.start_ns / 1000);
    let end = trace
        .spans
        .iter()
        .filter_map(|span| span.end_ns)
        .max()
        .map_or(start, |end| end / 1000);
    let mut bytes = 0;
    let segments: Vec<Value> = documents(trace)
        .into_iter()
        .map(|document| {
            let text = document.json.to_string();
            bytes += text.len();
            json!({"Id": document.id.to_string(), "Document": text})
        })
        .collect();
    let json = json!({
        "Id": trace.id.xray(), "Duration": seconds(end.saturating_sub(start)), "LimitExceeded": truncated,
        "Segments": segments,
    });
    Written { json, bytes }
}
