// SPDX-License-Identifier: Apache-2.0
//! The App Mesh vocabulary: resource names, the seven specs, every constraint on them, and the graph they form.
//!
//! The control plane checks API documents with it and translates its views; the CLI reads manifests with it.
//! Pure: no I/O, no clock, no xDS. The usual way in is [`parse_spec`] for one document and [`Resources`] for a mesh.

pub mod check;
pub mod gateway_route;
pub mod graph;
pub mod listener;
pub mod logging;
pub mod manifest;
pub mod matching;
pub mod mesh;
pub mod name;
pub mod problem;
pub mod route;
pub mod rules;
pub mod shapes;
pub mod spec;
pub mod tags;
pub mod tls;
pub mod virtual_gateway;
pub mod virtual_node;
pub mod virtual_router;
pub mod virtual_service;

pub use graph::Resources;
pub use name::{Kind, ResourceKey};
pub use problem::Problem;
pub use spec::{Spec, parse_spec};
