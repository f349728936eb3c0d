// SPDX-License-Identifier: Apache-2.0
//! Answers: the X-Ray API ([`xray_api`] routes; a file per operation), the Pillion API, the dashboard's files. Reads the
//! store, writes nothing but PutTraceSegments through `receive`.

mod batch_traces;
pub(crate) mod dashboard;
pub(crate) mod pillion_api;
mod sampling;
mod service_graph;
mod token;
mod trace_summaries;
mod window;
pub(crate) mod xray_api;
