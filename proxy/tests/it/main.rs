// SPDX-License-Identifier: Apache-2.0
//! Integration tests of the proxy.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admin;
mod config;
mod corpus;
mod drain;
mod edge;
mod exporters;
mod frames;
mod http;
mod http2;
mod ingress;
mod memory;
mod mtls;
mod pki;
mod plane;
mod pushes;
mod sds_server;
mod smuggling;
mod storm;
mod stream;
mod survival;
mod telemetry;
mod tls;
mod xds;
mod xds_proxy;
mod xds_server;
