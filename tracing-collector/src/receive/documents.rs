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
use crate::metrics::Reason;
use crate::metrics::Source;
use crate::pipeline::Pipeline;
use crate::receive::body::BodyError;
use crate::receive::body::Reading;
use crate::span::Span;

/// What both doors for documents need.
#[derive(Clone)]
pub(crate) struct Documents {
    pipeline: Pipeline,
    reading: Reading,
    source: Source,
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
    pub(crate) fn new(pipeline: Pipeline, source: Source) -> Documents {
        Documents {
            pipeline,
            reading: Reading::new(),
            source,
        }
    }

    /// The body of any X-Ray operation, bounded and inflated.
    pub(crate) async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Bytes, PutError> {
        self.reading
            .read(headers, body)
            .await
            .map_err(|error| match error {
                BodyError::TooLarge | BodyError::TooLargeInflated => {
                    PutError::TooLarge(error.to_string())
                }
                BodyError::Busy => PutError::Busy(error.to_string()),
                BodyError::NotGzip(_) | BodyError::Encoding(_) | BodyError::BrokeOff => {
                    PutError::Shape(error.to_string())
                }
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
        self.pipeline.metrics().received(self.source, 1);
        self.pipeline.metrics().rejected(self.source, reason, 1);
    }

    pub(crate) async fn put(&self, bytes: &[u8]) -> Result<Value, PutError> {
        let request: Request = serde_json::from_slice(bytes).map_err(|error| {
            let error = PutError::Shape(error.to_string());
            self.refuse(&error);
            error
        })?;
        let metrics = self.pipeline.metrics();
        let mut spans: Vec<Span> = Vec::new();
        let mut refused: Vec<Refusal> = Vec::new();
        let mut good = 0;
        for document in &request.documents {
            match xray::parse(document.as_bytes()) {
                Ok(parsed) => {
                    good += 1;
                    metrics.clamped(self.source, parsed.clamped);
                    spans.extend(parsed.spans);
                    refused.extend(parsed.refused);
                }
                Err(refusal) => refused.push(refusal),
            }
        }
        metrics.received(self.source, good + refused.len());
        metrics.rejected(self.source, Reason::Invalid, refused.len());
        if good > 0 {
            let receipt = self
                .pipeline
                .submit(self.source, spans, good, bytes.len())
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
