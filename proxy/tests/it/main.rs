// SPDX-License-Identifier: Apache-2.0
//! Integration tests of the proxy.

mod admin;
mod config;
mod http;
mod plane;
mod xds;
mod xds_proxy;
mod xds_server;
