// SPDX-License-Identifier: Apache-2.0
//! Counters of the API, by operation and status. Operations are at most 39 words, so cardinality is bounded.

use std::time::Duration;

use http::StatusCode;
use prometheus::HistogramOpts;
use prometheus::HistogramVec;
use prometheus::IntCounterVec;
use prometheus::Opts;
use prometheus::Registry;

/// The metric families of the API.
#[derive(Clone)]
pub struct ApiMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
}

impl ApiMetrics {
    /// Registers the families; once per registry.
    pub fn register(registry: &Registry) -> Result<ApiMetrics, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new(
                "pillion_api_requests_total",
                "App Mesh API requests answered, by operation and HTTP status.",
            ),
            &["operation", "status"],
        )?;
        let seconds = HistogramVec::new(
            HistogramOpts::new(
                "pillion_api_request_seconds",
                "Time from reading the head of an App Mesh API request to its answer.",
            )
            .buckets(vec![
                0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0,
            ]),
            &["operation"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(ApiMetrics { requests, seconds })
    }

    /// Counts one answer.
    pub fn count(&self, operation: &str, status: StatusCode, took: Duration) {
        self.requests
            .with_label_values(&[operation, status.as_str()])
            .inc();
        self.seconds
            .with_label_values(&[operation])
            .observe(took.as_secs_f64());
    }
}
