// SPDX-License-Identifier: Apache-2.0
//! The layers of the HTTP stack, a file each. `http::stack` lists them in order.

pub mod access_log;
pub mod deadline;
pub mod headers;
pub mod metrics;
pub mod retry;
pub mod route;
pub mod trace;

/// The part of a `tower::Service` that every layer here has alike: readiness is the inner service's, and there is
/// nothing to wait for.
macro_rules! ready_as_inner {
    () => {
        type Response = http::Response<$crate::http::body::Body>;
        type Error = $crate::error::RequestError;
        type Future = $crate::http::stack::Answering;

        fn poll_ready(
            &mut self,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), $crate::error::RequestError>> {
            self.inner.poll_ready(cx)
        }
    };
}

use ready_as_inner;
