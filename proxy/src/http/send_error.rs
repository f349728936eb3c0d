// SPDX-License-Identifier: Apache-2.0
//! How a try can fail at the bottom of the stack, and what each failure becomes.

use std::borrow::Cow;
use std::net::SocketAddr;

use http::StatusCode;

use crate::error::Failure;
use crate::error::Fault;
use crate::error::Flags;
use crate::error::Retry;
use crate::error::reset_text;

/// A try without an answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The cluster has no endpoint that takes traffic.
    #[error("cluster {cluster} has no healthy endpoint")]
    NoHealthy {
        /// Cluster name.
        cluster: String,
    },
    /// A limit of the cluster.
    #[error("cluster {cluster} is at its limit of {limit}")]
    Overflow {
        /// Cluster name.
        cluster: String,
        /// Which one.
        limit: &'static str,
    },
    /// The connection ended before an answer.
    #[error("connection to {endpoint} ended before an answer")]
    Terminated {
        /// Where to.
        endpoint: SocketAddr,
        /// What hyper said.
        source: hyper::Error,
    },
    /// The stream was reset.
    #[error("stream to {endpoint} was reset")]
    Reset {
        /// Where to.
        endpoint: SocketAddr,
        /// Whether before any work.
        refused: bool,
    },
    /// What came is no answer that can be passed on.
    #[error("answer of {endpoint} breaks the protocol: {why}")]
    Protocol {
        /// Where to.
        endpoint: SocketAddr,
        /// What was wrong.
        why: String,
    },
    /// The request's body broke off on its way in: whoever was called is not at fault.
    #[error("the request body broke off before its end")]
    RequestBroken,
    /// The name in the request does not resolve.
    #[error("destination {host} does not resolve")]
    Unresolved {
        /// The name.
        host: String,
    },
    /// The name in the request means this very proxy.
    #[error("destination {endpoint} is this proxy itself")]
    Circle {
        /// Where it would go.
        endpoint: SocketAddr,
    },
}

impl Failure for SendError {
    fn fault(&self) -> Fault {
        match self {
            SendError::Overflow { .. } | SendError::NoHealthy { .. } => Fault::Local,
            SendError::Unresolved { .. } | SendError::RequestBroken | SendError::Circle { .. } => {
                Fault::Downstream
            }
            SendError::Terminated { .. } | SendError::Reset { .. } | SendError::Protocol { .. } => {
                Fault::Upstream
            }
        }
    }

    fn retry(&self) -> Retry {
        match self {
            SendError::Reset { refused: true, .. } => Retry::Refused,
            SendError::Terminated { .. } | SendError::Reset { .. } | SendError::Protocol { .. } => {
                Retry::Reset
            }
            SendError::NoHealthy { .. }
            | SendError::Overflow { .. }
            | SendError::RequestBroken
            | SendError::Circle { .. }
            | SendError::Unresolved { .. } => Retry::Never,
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            SendError::Protocol { .. } => StatusCode::BAD_GATEWAY,
            SendError::RequestBroken => StatusCode::BAD_REQUEST,
            SendError::Circle { .. } => StatusCode::LOOP_DETECTED,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn flag(&self) -> Flags {
        match self {
            SendError::NoHealthy { .. } | SendError::Unresolved { .. } => Flags::NO_HEALTHY,
            SendError::Overflow { .. } => Flags::OVERFLOW,
            SendError::Circle { .. } => Flags::NO_ROUTE,
            SendError::Terminated { .. } => Flags::UPSTREAM_TERMINATED,
            SendError::Reset { .. } => Flags::UPSTREAM_RESET,
            SendError::Protocol { .. } => Flags::UPSTREAM_PROTOCOL,
            // `http::body::Received` flagged it when it happened, and knows how it broke.
            SendError::RequestBroken => Flags::NONE,
        }
    }

    fn text(&self) -> Cow<'static, str> {
        let reason = match self {
            SendError::NoHealthy { .. } | SendError::Unresolved { .. } => {
                return Cow::Borrowed("no healthy upstream");
            }
            SendError::RequestBroken => return Cow::Borrowed("Bad Request"),
            SendError::Circle { .. } => return Cow::Owned(self.to_string()),
            SendError::Overflow { .. } => "overflow",
            SendError::Terminated { .. } => "connection termination",
            SendError::Reset { refused: true, .. } => "remote refused stream reset",
            SendError::Reset { refused: false, .. } => "remote reset",
            SendError::Protocol { .. } => "protocol error",
        };
        Cow::Owned(reset_text(reason, false))
    }

    fn details(&self) -> &'static str {
        match self {
            SendError::NoHealthy { .. } => "no_healthy_upstream",
            SendError::Unresolved { .. } => "dns_resolution_failure",
            SendError::RequestBroken => "request_body_broken",
            SendError::Circle { .. } => "destination_is_this_proxy",
            SendError::Overflow { .. } => "upstream_reset_before_response_started{overflow}",
            SendError::Terminated { .. } => {
                "upstream_reset_before_response_started{connection_termination}"
            }
            SendError::Reset { refused: true, .. } => {
                "upstream_reset_before_response_started{remote_refused_stream_reset}"
            }
            SendError::Reset { refused: false, .. } => {
                "upstream_reset_before_response_started{remote_reset}"
            }
            SendError::Protocol { .. } => "upstream_reset_before_response_started{protocol_error}",
        }
    }

    fn overloaded(&self) -> bool {
        matches!(self, SendError::Overflow { .. })
    }

    fn transport(&self) -> Option<String> {
        match self {
            SendError::Protocol { why, .. } => Some(why.clone()),
            _ => None,
        }
    }
}
