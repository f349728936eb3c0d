// SPDX-License-Identifier: Apache-2.0
//! What every Pillion process does alike: tasks and drain, listening and readiness, logs and metrics, span export,
//! the admin server. Knows neither meshes nor xDS; a module enters only when it is no one process's own business.
#![warn(missing_docs)]

pub mod admin;
pub mod listening;
pub mod serving;
pub mod signals;
pub mod spans;
pub mod tasks;
pub mod telemetry;
