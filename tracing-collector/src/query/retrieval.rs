// SPDX-License-Identifier: Apache-2.0
//! Retrieval of traces by token: StartTraceRetrieval, ListRetrievedTraces, GetRetrievedTracesGraph,
//! CancelTraceRetrieval. Nothing needs to be fetched from anywhere, so a retrieval is complete when it starts; the token
//! only remembers which traces were asked for, in memory, for an hour.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use serde_json::json;
use sha2::Digest;
use sha2::Sha256;
use tokio::time::Instant;

use crate::convert::otlp;
use crate::convert::xray::document::documents;
use crate::query::now_seconds;
use crate::query::token;
use crate::query::trace_graph::graph_of;
use crate::query::trace_graph::ids;
use crate::query::window::window;
use crate::query::xray_api::ApiError;
use crate::query::xray_api::NOT_FOUND;
use crate::query::xray_api::time;
use crate::span::Span;
use crate::span::TraceId;
use crate::span::seconds;
use crate::store::Store;
use crate::trace::Trace;

const MAX_IDS: usize = 100;
const KEPT_FOR: Duration = Duration::from_secs(3600);
const MAX_RETRIEVALS: usize = 1000;
const TRACES_PER_PAGE: usize = 5;
const SPANS_PER_TRACE: usize = 100;
const SERVICES_PER_PAGE: usize = 1000;

#[derive(Clone, Default)]
pub(super) struct Retrievals {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    begun: u64,
    by_token: BTreeMap<String, Retrieval>,
}

#[derive(Clone)]
struct Retrieval {
    at: Instant,
    ids: Vec<TraceId>,
    cancelled: bool,
}

impl Retrieval {
    fn status(&self) -> &'static str {
        if self.cancelled {
            "CANCELLED"
        } else {
            "COMPLETE"
        }
    }

    fn ids(&self) -> &[TraceId] {
        if self.cancelled { &[] } else { &self.ids }
    }
}

impl Retrievals {
    pub(super) fn start(&self, request: &Value) -> Result<Value, ApiError> {
        let ids = ids(request, MAX_IDS)?;
        window(time(request, "StartTime")?, time(request, "EndTime")?)?;
        let mut state = self.state.lock();
        let now = Instant::now();
        state
            .by_token
            .retain(|_, one| now.duration_since(one.at) <= KEPT_FOR);
        if state.by_token.len() >= MAX_RETRIEVALS {
            return Err(ApiError::Throttled(format!(
                "{MAX_RETRIEVALS} retrievals began within the hour; try again later"
            )));
        }
        state.begun += 1;
        let digest = Sha256::digest(format!("{} {}", state.begun, now_seconds()));
        let token = hex::encode(&digest[..16]);
        let retrieval = Retrieval {
            at: now,
            ids,
            cancelled: false,
        };
        state.by_token.insert(token.clone(), retrieval);
        Ok(json!({"RetrievalToken": token}))
    }

    pub(super) fn cancel(&self, request: &Value) -> Result<Value, ApiError> {
        let token = self.find(request)?.0;
        if let Some(one) = self.state.lock().by_token.get_mut(token) {
            one.cancelled = true;
        }
        Ok(json!({}))
    }

    fn find<'r>(&self, request: &'r Value) -> Result<(&'r str, Retrieval), ApiError> {
        let token = request.get("RetrievalToken").and_then(Value::as_str);
        let token =
            token.ok_or_else(|| ApiError::Invalid("RetrievalToken is required".to_owned()))?;
        let found = self.state.lock().by_token.get(token).cloned();
        let found = found.filter(|one| Instant::now().duration_since(one.at) <= KEPT_FOR);
        found
            .map(|one| (token, one))
            .ok_or_else(|| ApiError::Refused {
                kind: NOT_FOUND,
                message:
                    "RetrievalToken: there is no such retrieval, or it ended an hour after it began"
                        .to_owned(),
                resource: Some(token.to_owned()),
            })
    }

    pub(super) fn traces(&self, store: &dyn Store, request: &Value) -> Result<Value, ApiError> {
        const OPERATION: &str = "ListRetrievedTraces";
        let retrieval = self.find(request)?.1;
        let format = match request.get("TraceFormat").and_then(Value::as_str) {
            None | Some("XRAY") => "XRAY",
            Some("OTEL") => "OTEL",
            Some(other) => {
                return Err(ApiError::Invalid(format!(
                    "TraceFormat is {other:?}; give XRAY or OTEL"
                )));
            }
        };
        let from = token::position(token::redeem(OPERATION, request)?)?;
        // A place counts parts of traces: a large trace is several.
        let (mut at, mut found, mut more) = (0, Vec::new(), false);
        for id in retrieval.ids() {
            let spans = spans(store, *id, format)?;
            for part in spans.parts.chunks(SPANS_PER_TRACE) {
                if at >= from && found.len() < TRACES_PER_PAGE {
                    found.push(json!({"Id": id.xray(), "Duration": spans.duration, "Spans": part}));
                } else if at >= from {
                    more = true;
                }
                at += 1;
            }
        }
        let mut answer = json!({
            "RetrievalStatus": retrieval.status(), "TraceFormat": format, "Traces": found,
        });
        if more {
            let next = token::at_position(from + TRACES_PER_PAGE);
            answer["NextToken"] = json!(token::issue(OPERATION, request, &next));
        }
        Ok(answer)
    }

    pub(super) fn graph(&self, store: &dyn Store, request: &Value) -> Result<Value, ApiError> {
        const OPERATION: &str = "GetRetrievedTracesGraph";
        let retrieval = self.find(request)?.1;
        let from = token::position(token::redeem(OPERATION, request)?)?;
        let services = graph_of(store, retrieval.ids())?;
        let page = services.iter().skip(from).take(SERVICES_PER_PAGE);
        let page: Vec<Value> = page
            .map(|service| json!({"Service": service, "Links": []}))
            .collect();
        let mut answer = json!({"RetrievalStatus": retrieval.status(), "Services": page});
        if from + SERVICES_PER_PAGE < services.len() {
            let next = token::at_position(from + SERVICES_PER_PAGE);
            answer["NextToken"] = json!(token::issue(OPERATION, request, &next));
        }
        Ok(answer)
    }
}

struct Spans {
    parts: Vec<Value>,
    duration: f64,
}

fn spans(store: &dyn Store, id: TraceId, format: &str) -> Result<Spans, ApiError> {
    let trace = Trace::assemble(id, store.trace(id)?.spans);
    let start = trace.spans.first().map_or(0, |span| span.start_ns);
    let end = trace.spans.iter().filter_map(|span| span.end_ns).max();
    let duration = seconds(end.unwrap_or(start).saturating_sub(start) / 1000);
    let parts = if format == "OTEL" {
        let span =
            |one: &Span| json!({"Id": one.id.to_string(), "Document": otel(one).to_string()});
        trace.spans.iter().map(span).collect()
    } else {
        documents(&trace)
            .into_iter()
            .map(|one| json!({"Id": one.id.to_string(), "Document": one.json.to_string()}))
            .collect()
    };
    Ok(Spans { parts, duration })
}

/// One span with whose it is.
fn otel(span: &Span) -> Value {
    let mut found = otlp::json(span);
    if let Some(service) = &span.service {
        found["resource"] = json!({"attributes": [
            {"key": "service.name", "value": {"stringValue": service.name}},
        ]});
    }
    found
}
