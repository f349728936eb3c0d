// SPDX-License-Identifier: Apache-2.0
//! PutTraceSegments, on the daemon's TCP port and on the API: documents as strings in one JSON body. Good ones are
//! stored before the answer; bad ones are listed in it with their codes. Called by `query::xray_api`.

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use crate::convert::xray;
use crate::convert::xray::Refusal;
use crate::metrics::Metrics;
use crate::metrics::Reason;
use crate::metrics::Source;
use crate::pipeline::Pipeline;
use crate::receive::body;
use crate::receive::body::BodyError;
use crate::room::Account;
use crate::span::Span;

/// What both doors for documents need.
#[derive(Clone)]
pub(crate) struct Documents {
    pipeline: Pipeline,
    source: Source,
    max_document: usize,
}

/// The body of any X-Ray operation, inflated, and what it is charged to.
pub(crate) struct Read {
    pub(crate) bytes: Bytes,
    account: Account,
}

/// Nothing of the request was stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PutError {
    #[error("the request is not the shape of its operation: {0}")]
    Shape(String),
    #[error("{0}")]
    TooLarge(String),
    #[error("{0}")]
    Busy(String),
    #[error("{0}")]
    Store(String),
}

#[derive(Deserialize)]
struct Request {
    #[serde(rename = "TraceSegmentDocuments")]
    documents: Vec<String>,
}

impl Documents {
    pub(crate) fn new(pipeline: Pipeline, source: Source, max_document: usize) -> Documents {
        Documents {
            pipeline,
            source,
            max_document,
        }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        self.pipeline.metrics()
    }

    pub(crate) async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Read, PutError> {
        let whole = body::read(self.pipeline.room(), headers, body).await;
        let whole = whole.map_err(|error| {
            let message = error.to_string();
            match error {
                BodyError::TooLarge | BodyError::TooLargeInflated => PutError::TooLarge(message),
                BodyError::Busy(_) => PutError::Busy(message),
                BodyError::NotAsEncoded(..)
                | BodyError::Encoding(_)
                | BodyError::BrokeOff
                | BodyError::TooSlow => PutError::Shape(message),
            }
        })?;
        Ok(Read {
            bytes: whole.bytes,
            account: whole.account,
        })
    }

    /// Counts a request that could not be read.
    pub(crate) fn refuse(&self, error: &PutError) {
        let reason = match error {
            PutError::Shape(_) => Reason::Invalid,
            PutError::TooLarge(_) => Reason::TooLarge,
            PutError::Busy(_) => Reason::QueueFull,
            PutError::Store(_) => Reason::Store,
        };
        let metrics = self.pipeline.metrics();
        metrics.received(self.source, 1);
        metrics.rejected(self.source, reason, 1);
        metrics
            .rejects
            .note(self.source, reason, &error.to_string(), b"");
    }

    pub(crate) async fn put(&self, read: Read) -> Result<Value, PutError> {
        let request: Request = serde_json::from_slice(&read.bytes).map_err(|error| {
            let error = PutError::Shape(error.to_string());
            self.refuse(&error);
            error
        })?;
        let metrics = self.pipeline.metrics();
        let mut spans: Vec<Span> = Vec::new();
        let mut refused: Vec<Refusal> = Vec::new();
        let (mut good, mut too_large) = (0, 0);
        let rejects = &metrics.rejects;
        for document in &request.documents {
            let note = |refusal: &Refusal, reason| {
                rejects.note(self.source, reason, &refusal.message, document.as_bytes());
            };
            if let Some(refusal) = xray::too_large(document.as_bytes(), self.max_document) {
                too_large += 1;
                note(&refusal, Reason::TooLarge);
                refused.push(refusal);
                continue;
            }
            match xray::parse(document.as_bytes()) {
                Ok(parsed) => {
                    good += 1;
                    metrics.clamped(self.source, parsed.clamped);
                    spans.extend(parsed.spans);
                    for refusal in &parsed.refused {
                        note(refusal, Reason::Invalid);
                    }
                    refused.extend(parsed.refused);
                }
                Err(refusal) => {
                    note(&refusal, Reason::Invalid);
                    refused.push(refusal);
                }
            }
        }
        metrics.received(self.source, good + refused.len());
        metrics.rejected(self.source, Reason::TooLarge, too_large);
        metrics.rejected(self.source, Reason::Invalid, refused.len() - too_large);
        if good > 0 {
            let receipt = self
                .pipeline
                .submit(self.source, spans, good, read.account)
                .map_err(|full| {
                    metrics.rejected(self.source, Reason::QueueFull, good);
                    PutError::Busy(full.to_string())
                })?;
            receipt
                .stored()
                .await
                .map_err(|error| PutError::Store(error.to_string()))?;
        }
        Ok(json!({"UnprocessedTraceSegments": refused.iter().map(unprocessed).collect::<Vec<_>>()}))
    }
}

/// `Id` is absent when the document could not be read so far.
fn unprocessed(refusal: &Refusal) -> Value {
    let mut one = json!({"ErrorCode": refusal.code, "Message": refusal.message});
    if let Some(id) = &refusal.id {
        one["Id"] = json!(id);
    }
    one
}
