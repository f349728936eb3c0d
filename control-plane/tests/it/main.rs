// SPDX-License-Identifier: Apache-2.0
//! The control plane from outside: the built binary over HTTP, and the contract of its store.

mod access;
mod authority;
mod backups;
mod clients;
mod control_plane;
mod durability;
mod envoy;
mod golden;
mod http;
mod idempotency;
mod kills;
mod lifecycle;
mod listing;
mod pillion;
mod postgres;
mod process;
mod refusals;
mod replicas;
mod shop;
mod store_contract;
mod tagging;
mod xds;
