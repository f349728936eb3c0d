// SPDX-License-Identifier: Apache-2.0
//! Version, nonce, ACK and NACK for both ends of a stream, both protocols. No sockets: requests and responses go in and
//! come out as messages, so every rule is tested without a network. The control plane's `ads` drives [`server`], the
//! proxy's `xds::client` drives [`client`].

pub mod client;
pub mod server;

use std::collections::BTreeMap;

/// Version by resource name, of one type.
pub type Versions = BTreeMap<String, String>;

/// The name that asks for everything.
pub const WILDCARD: &str = "*";
