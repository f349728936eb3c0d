// SPDX-License-Identifier: Apache-2.0
//! Why a request goes no further than the connection it came on. Used by `http::server`, which says when.

use http::StatusCode;

use crate::error::Failure;
use crate::error::Fault;
use crate::error::Flags;
use crate::error::Retry;

/// An upgrade that the connection manager does not pass on, or a method it does not know here.
#[derive(Debug, thiserror::Error)]
pub(super) enum RefusedError {
    /// `Upgrade` to a protocol that is not configured.
    #[error("upgrade to this protocol is not configured")]
    Upgrade,
    /// `CONNECT` on the inbound side.
    #[error("CONNECT is for the outbound side")]
    Connect,
    /// Success without the upgrade: over HTTP/2 it would read as one.
    #[error("the upgrade was answered, but not agreed to")]
    Unagreed,
    /// What is under way holds all the memory there is for it.
    #[error("requests under way hold all of --memory-limit")]
    Overloaded,
}

impl Failure for RefusedError {
    fn fault(&self) -> Fault {
        match self {
            RefusedError::Upgrade | RefusedError::Connect | RefusedError::Unagreed => {
                Fault::Downstream
            }
            RefusedError::Overloaded => Fault::Local,
        }
    }

    fn retry(&self) -> Retry {
        Retry::Never
    }

    fn status(&self) -> StatusCode {
        match self {
            RefusedError::Upgrade => StatusCode::FORBIDDEN,
            RefusedError::Unagreed => StatusCode::BAD_GATEWAY,
            RefusedError::Connect => StatusCode::METHOD_NOT_ALLOWED,
            RefusedError::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn flag(&self) -> Flags {
        Flags::NONE
    }

    fn details(&self) -> &'static str {
        match self {
            RefusedError::Upgrade | RefusedError::Unagreed => "upgrade_failed",
            RefusedError::Connect => "connect_not_allowed",
            RefusedError::Overloaded => "overload",
        }
    }

    fn overloaded(&self) -> bool {
        matches!(self, RefusedError::Overloaded)
    }
}

/// A panic of ours while it answered: the request's end, and nobody else's.
#[derive(Debug, thiserror::Error)]
#[error("the request met a defect of the proxy")]
pub(super) struct PanickedError;

impl Failure for PanickedError {
    fn fault(&self) -> Fault {
        Fault::Local
    }

    fn retry(&self) -> Retry {
        Retry::Never
    }

    fn status(&self) -> StatusCode {
        StatusCode::INTERNAL_SERVER_ERROR
    }

    fn flag(&self) -> Flags {
        Flags::NONE
    }

    fn details(&self) -> &'static str {
        "internal_error"
    }
}
