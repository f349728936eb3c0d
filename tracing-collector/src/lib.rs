// SPDX-License-Identifier: Apache-2.0
//! The tracing collector: spans in by OTLP and X-Ray, traces kept on disk, the service map, lists and documents out.
//! `main` is the program; everything else is reached through [`app`] and [`config`].
//!
//! `receive` → `convert` → `pipeline` → `store` on the way in; `store` → `trace` → `graph`, `summary` when a trace
//! settles; `query` on the way out, `filter` what is selected.

mod alerts;
pub mod app;
mod auth;
mod catalog;
pub mod config;
mod convert;
mod daemon;
mod filter;
mod graph;
mod insight;
mod memory;
mod metrics;
mod outward;
mod pipeline;
mod query;
mod receive;
mod rejects;
mod room;
mod service_metrics;
mod span;
mod store;
mod summary;
mod trace;
mod watch;
mod webhook;
