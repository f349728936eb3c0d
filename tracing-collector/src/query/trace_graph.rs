// SPDX-License-Identifier: Apache-2.0
//! GetTraceGraph: the service graph of named traces, counted from their spans, settled or not.

use serde_json::Value;
use serde_json::json;

use crate::graph;
use crate::graph::Totals;
use crate::query::service_graph::services;
use crate::query::token;
use crate::query::xray_api::ApiError;
use crate::span::TraceId;
use crate::store::Store;
use crate::trace::Trace;

const OPERATION: &str = "GetTraceGraph";
const MAX_IDS: usize = 1000;
const PAGE: usize = 500;

pub(super) fn answer(store: &dyn Store, request: &Value) -> Result<Value, ApiError> {
    let from = token::position(token::redeem(OPERATION, request)?)?;
    let services = graph_of(store, &ids(request, MAX_IDS)?)?;
    let mut answer = json!({"Services": services.iter().skip(from).take(PAGE).collect::<Vec<_>>()});
    if from + PAGE < services.len() {
        let next = token::issue(OPERATION, request, &token::at_position(from + PAGE));
        answer["NextToken"] = json!(next);
    }
    Ok(answer)
}

/// What `TraceIds` lists, each once; a wrong one is named.
pub(super) fn ids(request: &Value, most: usize) -> Result<Vec<TraceId>, ApiError> {
    let given = request.get("TraceIds").and_then(Value::as_array);
    let given =
        given.ok_or_else(|| ApiError::Invalid("TraceIds is required, a list of ids".to_owned()))?;
    if given.len() > most {
        return Err(ApiError::Invalid(format!(
            "TraceIds has {} ids; at most {most}",
            given.len()
        )));
    }
    let mut ids = Vec::new();
    for one in given {
        let id: TraceId = one
            .as_str()
            .unwrap_or_default()
            .parse()
            .map_err(|error| ApiError::Invalid(format!("TraceIds: {error}")))?;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

pub(super) fn graph_of(store: &dyn Store, ids: &[TraceId]) -> Result<Vec<Value>, ApiError> {
    let mut totals = Totals::new();
    for id in ids {
        let trace = Trace::assemble(*id, store.trace(*id)?.spans);
        for one in graph::contributions(&trace) {
            totals.entry(one.key.clone()).or_default().add(&one);
        }
    }
    Ok(services(&totals))
}
