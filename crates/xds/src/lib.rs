// SPDX-License-Identifier: Apache-2.0
//! The xDS wire, both directions: checked types with encode and decode side by side, and subscription state for
//! both ends of a stream. Used by the control plane (encode) and the proxy (decode). Knows no App Mesh word, opens no socket.
#![warn(missing_docs)]
#![allow(
    deprecated,
    reason = "strict decodes take whole messages apart, and must refuse deprecated fields by name too"
)]

pub mod cluster;
pub mod endpoint;
mod field;
pub mod listener;
mod ordered;
pub mod proto;
pub mod resource;
pub mod route;
pub mod secret;
pub mod signing;
pub mod subscription;
mod tls;
