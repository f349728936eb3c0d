// SPDX-License-Identifier: Apache-2.0
//! The doors: bytes in, an answer out, every unit counted. They know transports and answer codes; shapes are
//! `convert`'s, storing is `pipeline`'s.

mod body;
pub(crate) mod whole_body {
    //! What a signature is proved over, charged like every body.
    pub(crate) use super::body::Wire;
    pub(crate) use super::body::wire;
}
pub(crate) mod documents;
pub(crate) mod otlp_grpc;
pub(crate) mod otlp_http;
pub(crate) mod xray_udp;
pub(crate) mod zipkin;

/// What clients are asked to wait when the queue is full.
pub(crate) const RETRY_AFTER_SECONDS: u64 = 1;
