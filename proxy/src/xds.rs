// SPDX-License-Identifier: Apache-2.0
//! The control plane's side of the proxy: [`client`] keeps the stream, [`apply`] builds the next snapshot from what it
//! brings, [`names`] says what that asks for, [`sds`] asks a socket beside the proxy, [`status`] tells others how it goes. The last good configuration keeps
//! serving whatever happens here.

pub mod apply;
pub mod client;
pub mod join;
pub mod names;
pub mod sds;
pub mod status;
