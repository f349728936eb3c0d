// SPDX-License-Identifier: Apache-2.0
//! End-to-end cases: whole meshes of built programs, driven from outside.

mod comparison;
mod crossing;
mod demo;
mod deploy;
mod discovery;
mod gateway;
mod interception;
mod parity;
mod resilience;
mod rolling;
mod sampling;
mod shifting;
mod tcp;
mod upgrades;
mod walkthroughs;
