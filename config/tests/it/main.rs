// SPDX-License-Identifier: Apache-2.0
//! What the crate promises as a whole: the table is the published model, types and table agree, whole documents get
//! their exact reports.

#![allow(clippy::unwrap_used, reason = "a test that meets None has failed")]

mod generated;
mod specs;
mod table;
