// SPDX-License-Identifier: Apache-2.0
//! HTTP on the data path: `server` takes requests off a connection and gives answers back, `stack` lists the layers
//! between, `client` sends to an endpoint over pooled connections.

pub mod body;
pub mod client;
pub mod executor;
mod frames;
pub mod guard;
pub mod head;
mod paced;
pub mod pool;
mod refused;
pub mod replay;
mod reply;
mod rest;
pub mod send_error;
pub mod server;
pub mod stack;
pub mod tunnel;
pub mod upgrade;
mod watch;
mod wire;
