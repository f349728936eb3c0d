// SPDX-License-Identifier: Apache-2.0
//! Promises of the built `pillion-collector`, kept over its sockets.

mod access;
mod alerts;
mod clickhouse;
mod clients;
mod collector;
mod dashboard;
mod garbage;
mod insights;
mod jaeger;
mod losses;
mod map;
mod otlp;
mod pressure;
mod restart;
#[path = "../clickhouse/server.rs"]
mod server;
mod settings;
mod xray;
