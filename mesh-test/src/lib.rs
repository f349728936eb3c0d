// SPDX-License-Identifier: Apache-2.0
//! The harness of the end-to-end cases: starts the built programs, speaks to them over their public ports as a
//! stranger would, and ends them. Cases stand in `tests/it`; nothing depends on this crate.

pub mod asking;
pub mod client;
pub mod envoy;
pub mod eventually;
pub mod mesh;
pub mod names;
pub mod pod;
pub mod program;
pub mod python;
pub mod raw;
pub mod scripted;
pub mod upstream;
pub mod wire;
