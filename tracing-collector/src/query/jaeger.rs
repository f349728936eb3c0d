// SPDX-License-Identifier: Apache-2.0
//! Jaeger's query API, for its own page, Grafana's data source and scripts: [`v1`] as `/api/…`, [`v3`] as `/api/v3/…`.
//! Both search the same way: newest traces first, the span that is asked for checked in each.

mod v1;
mod v3;

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::catalog::Catalog;
use crate::span::Span;
use crate::span::TraceId;
use crate::store::PlacedBy;
use crate::store::Scan;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::Window;
use crate::trace::Trace;

const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 1500;
const PAGE: usize = 250;
/// Rows and whole traces that one search looks at.
const MAX_ROWS: usize = 50_000;
const MAX_TRACES: usize = 5000;
const DEFAULT_LOOKBACK_US: u64 = 3_600_000_000;

#[derive(Clone)]
pub(crate) struct JaegerApi {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) catalog: Catalog,
}

impl JaegerApi {
    pub(crate) fn router(self) -> Router {
        v1::router(self.clone()).merge(v3::router(self))
    }
}

/// What a client asked wrongly, or what the store could not do.
#[derive(Debug, thiserror::Error)]
enum SearchError {
    #[error("{0}")]
    Invalid(String),
    #[error("trace not found")]
    NotFound,
    #[error("the trace store could not be read")]
    Store(#[from] StoreError),
}

/// A span that is wanted; every member that is set must hold for one and the same span.
#[derive(Clone, Debug, Default)]
struct Search {
    service: Option<String>,
    operation: Option<String>,
    tags: Vec<(String, String)>,
    min_us: Option<u64>,
    max_us: Option<u64>,
    start_us: Option<u64>,
    end_us: Option<u64>,
    limit: Option<usize>,
}

impl Search {
    fn window(&self) -> Window {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = u64::try_from(now.unwrap_or_default().as_micros()).unwrap_or(u64::MAX);
        let end_us = self.end_us.unwrap_or(now);
        Window {
            start_us: self
                .start_us
                .unwrap_or(end_us.saturating_sub(DEFAULT_LOOKBACK_US)),
            end_us: end_us.saturating_add(1),
        }
    }

    fn holds(&self, trace: &Trace, at: usize) -> bool {
        let span = &trace.spans[at];
        let took = span.duration_us().unwrap_or(0);
        let named = |wanted: &String| trace.node(at).is_some_and(|node| node.name == *wanted);
        let tags = || tags(span);
        self.service.as_ref().is_none_or(named)
            && self
                .operation
                .as_ref()
                .is_none_or(|wanted| *wanted == span.name)
            && self.min_us.is_none_or(|least| took >= least)
            && self.max_us.is_none_or(|most| took <= most)
            && (self.tags.is_empty() || {
                let tags = tags();
                self.tags
                    .iter()
                    .all(|(key, value)| tags.get(key).is_some_and(|found| text(found) == *value))
            })
    }
}

/// Newest first, in whole.
fn find(store: &dyn Store, search: &Search) -> Result<Vec<Trace>, StoreError> {
    let limit = search.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
    let mut scan = Scan {
        window: search.window(),
        by: PlacedBy::Start,
        after: None,
        limit: PAGE,
    };
    let (mut found, mut rows, mut read) = (Vec::new(), 0, 0);
    loop {
        let page = store.summaries(&scan)?;
        for row in &page.summaries {
            rows += 1;
            let service = search.service.as_ref();
            if service.is_some_and(|name| !row.nodes.iter().any(|node| node.name == *name)) {
                continue;
            }
            if found.len() >= limit || read >= MAX_TRACES {
                return Ok(found);
            }
            read += 1;
            let trace = Trace::assemble(row.id, store.trace(row.id)?.spans);
            if (0..trace.spans.len()).any(|at| search.holds(&trace, at)) {
                found.push(trace);
            }
        }
        scan.after = page.next;
        if scan.after.is_none() || found.len() >= limit || rows >= MAX_ROWS {
            return Ok(found);
        }
    }
}

fn one(store: &dyn Store, id: TraceId) -> Result<Trace, SearchError> {
    let stored = store.trace(id)?;
    if stored.spans.is_empty() {
        return Err(SearchError::NotFound);
    }
    Ok(Trace::assemble(id, stored.spans))
}

/// Everything of a span under the names that Jaeger's readers know.
fn tags(span: &Span) -> Map<String, Value> {
    let mut tags = span.attributes.clone();
    tags.extend(
        span.annotations
            .iter()
            .map(|(key, value)| (key.clone(), value.clone())),
    );
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            tags.entry(name).or_insert(value);
        }
    };
    put("span.kind", Some(json!(span.kind.name())));
    if let Some(http) = &span.http {
        put("http.method", http.method.as_ref().map(|one| json!(one)));
        put("http.url", http.url.as_ref().map(|one| json!(one)));
        put("http.status_code", http.status.map(|one| json!(one)));
    }
    if span.flags.fault || span.flags.error {
        put("error", Some(json!(true)));
    }
    tags
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
