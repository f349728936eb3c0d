// SPDX-License-Identifier: Apache-2.0
//! What the wire promises: what is encoded decodes to the same, bytes from outside never panic, what would be ignored
//! is refused by name, and both ends of a stream agree.

mod decoding;
mod envoy;
mod round_trip;
mod strategies;
mod streams;
