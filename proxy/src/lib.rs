// SPDX-License-Identifier: Apache-2.0
//! The L7 sidecar and gateway as a library, so that `main.rs` stays a page and tests reach the parts. Arrows run
//! `main → app → doors (listener, xds, admin) → rooms (http, layer, cluster, tcp) → ground (snapshot, metrics, error)`.

pub mod access_log;
pub mod admin;
pub mod app;
pub mod cluster;
pub mod config;
pub mod connect;
pub mod descriptors;
pub mod drain;
pub mod error;
pub mod exchange;
pub mod http;
pub mod identity;
pub mod intercept;
pub mod layer;
pub mod limits;
pub mod listener;
pub mod memory;
pub mod metrics;
pub mod propagation;
pub mod route;
pub mod sampling;
pub mod snapshot;
pub mod state;
pub mod statsd;
pub mod stream;
pub mod tcp;
pub mod tls;
pub mod worker;
pub mod xds;
pub mod xray;
