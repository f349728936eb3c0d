// SPDX-License-Identifier: Apache-2.0
//! The control plane of Pillion: the App Mesh API over a store, and the same resources as xDS for every proxy.
//! `main.rs` parses settings and calls [`app`]; nothing here knows the data path.

pub mod access;
pub mod ads;
pub mod api;
pub mod app;
pub mod config;
pub mod identity;
pub mod publish;
pub mod store;
pub mod translate;
