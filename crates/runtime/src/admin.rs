// SPDX-License-Identifier: Apache-2.0
//! The admin server: `/ready`, `/metrics` and `/config`, merged with what a process adds of its own.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus::Registry;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::serving;
use crate::serving::Bounds;
use crate::telemetry;

/// What the common pages show.
#[derive(Clone)]
pub struct Admin {
    ready: Arc<AtomicBool>,
    registry: Registry,
    config: Arc<Value>,
}

impl Admin {
    /// `config` is the effective configuration, without secrets. Not ready until [`Admin::set_ready`].
    pub fn new(registry: Registry, config: Value) -> Admin {
        Admin {
            ready: Arc::new(AtomicBool::new(false)),
            registry,
            config: Arc::new(config),
        }
    }

    /// What `/ready` answers from now on.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// The common pages, to be merged with a process's own.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .route("/config", get(config))
            .with_state(self.clone())
    }
}

async fn ready(State(admin): State<Admin>) -> impl IntoResponse {
    if admin.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "LIVE\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "NOT READY\n")
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        telemetry::render(&admin.registry),
    )
}

async fn config(State(admin): State<Admin>) -> impl IntoResponse {
    Json(admin.config.as_ref().clone())
}

/// Serves `router` until the token fires; open connections may finish their request.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    serving::serve(listener, router, Bounds::default(), stop).await;
}
