// SPDX-License-Identifier: Apache-2.0
//! Every error the API answers with, in App Mesh's shape: a modelled type in `x-amzn-errortype`, the message in the body.
//! The one place that knows statuses. What the caller need not see stays in `inner`, for the log.

use http::StatusCode;
use pillion_config::Problem;
use serde_json::Value;
use serde_json::json;

use super::call::NoCall;
use crate::store::StoreError;
use crate::store::live::Refusal;
use crate::store::live::WriteError;

/// Longest message: a megabyte of nonsense gets an answer that a terminal can show.
const MAX_MESSAGE: usize = 16 * 1024;
/// Most problems told of; who has more has the same one over and over.
const MAX_PROBLEMS: usize = 100;
/// Of one problem, which may quote what was sent.
const MAX_PROBLEM: usize = 1024;

/// The exceptions of the model that this API raises, and the few answers the model has no word for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    /// Malformed, or against a rule.
    BadRequest,
    /// The resource, or what it lives under.
    NotFound,
    /// Name taken, or token reused.
    Conflict,
    /// Signed by somebody who may not do this.
    Forbidden,
    /// Not signed, or not well: the type AWS answers with.
    Unauthenticated(&'static str),
    /// A quota of the installation.
    LimitExceeded,
    /// Still referred to.
    ResourceInUse,
    /// More than a resource may carry.
    TooManyTags,
    /// Come back later: too many at once.
    TooManyRequests,
    /// Come back later: the store cannot write.
    ServiceUnavailable,
    /// Our own mistake.
    InternalServerError,
    /// Not in the model: no such path. The name is the protocol's own.
    UnknownOperation,
    /// Not in the model: path known, method not.
    MethodNotAllowed,
    /// In the model as a bad request; the status says more.
    BodyTooLarge,
    /// In the model as a bad request; the status says more.
    BodyTooSlow,
}

impl ErrorType {
    /// As in `x-amzn-errortype`.
    pub fn name(self) -> &'static str {
        match self {
            ErrorType::BadRequest | ErrorType::BodyTooLarge | ErrorType::BodyTooSlow => {
                "BadRequestException"
            }
            ErrorType::NotFound => "NotFoundException",
            ErrorType::Conflict => "ConflictException",
            ErrorType::Forbidden => "ForbiddenException",
            ErrorType::Unauthenticated(name) => name,
            ErrorType::LimitExceeded => "LimitExceededException",
            ErrorType::ResourceInUse => "ResourceInUseException",
            ErrorType::TooManyTags => "TooManyTagsException",
            ErrorType::TooManyRequests => "TooManyRequestsException",
            ErrorType::ServiceUnavailable => "ServiceUnavailableException",
            ErrorType::InternalServerError => "InternalServerErrorException",
            ErrorType::UnknownOperation | ErrorType::MethodNotAllowed => {
                "UnknownOperationException"
            }
        }
    }

    /// The status that goes with it.
    pub fn status(self) -> StatusCode {
        match self {
            ErrorType::BadRequest | ErrorType::TooManyTags | ErrorType::LimitExceeded => {
                StatusCode::BAD_REQUEST
            }
            ErrorType::Forbidden | ErrorType::Unauthenticated(_) => StatusCode::FORBIDDEN,
            ErrorType::NotFound | ErrorType::UnknownOperation => StatusCode::NOT_FOUND,
            ErrorType::Conflict | ErrorType::ResourceInUse => StatusCode::CONFLICT,
            ErrorType::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            ErrorType::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorType::InternalServerError => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorType::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            ErrorType::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorType::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
        }
    }

    /// Seconds for `Retry-After`, where coming back is the remedy.
    pub fn retry_after(self) -> Option<u32> {
        match self {
            ErrorType::TooManyRequests => Some(1),
            ErrorType::ServiceUnavailable => Some(5),
            _ => None,
        }
    }
}

/// An answer that is not 200.
#[derive(Debug, thiserror::Error)]
#[error("{}: {message}", .kind.name())]
pub struct ApiError {
    /// Which exception.
    pub kind: ErrorType,
    /// For the caller.
    pub message: String,
    /// For `Allow`, where the method was wrong.
    pub allow: Option<&'static str>,
    /// For the log.
    #[source]
    pub inner: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ApiError {
    /// An error with nothing more to log than the caller is told.
    pub fn new(kind: ErrorType, message: impl Into<String>) -> ApiError {
        ApiError {
            kind,
            message: cut(message.into(), MAX_MESSAGE + 100),
            allow: None,
            inner: None,
        }
    }

    /// All findings in one answer.
    pub fn problems(problems: &[Problem]) -> ApiError {
        ApiError::new(ErrorType::BadRequest, in_one_message(problems))
    }

    /// The body.
    pub fn document(&self) -> Value {
        json!({"__type": self.kind.name(), "message": self.message})
    }
}

/// `path: what`, or `N problems: path: what; path: what`.
pub fn in_one_message(problems: &[Problem]) -> String {
    let mut message = match problems.len() {
        0 | 1 => String::new(),
        count => format!("{count} problems: "),
    };
    for (index, problem) in problems.iter().enumerate() {
        let text = cut(problem.to_string(), MAX_PROBLEM);
        if index >= MAX_PROBLEMS || message.len() + text.len() > MAX_MESSAGE {
            message.push_str(&format!("and {} more", problems.len() - index));
            break;
        }
        message.push_str(&text);
        if index + 1 < problems.len() {
            message.push_str("; ");
        }
    }
    message
}

/// At most so many bytes, marked where some are left out.
fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
    }
    text
}

impl From<NoCall> for ApiError {
    fn from(error: NoCall) -> ApiError {
        let kind = match &error {
            NoCall::UnknownPath { .. } => ErrorType::UnknownOperation,
            NoCall::WrongMethod { .. } => ErrorType::MethodNotAllowed,
            NoCall::Undecodable { .. } => ErrorType::BadRequest,
        };
        let allow = match &error {
            NoCall::WrongMethod { allow, .. } => Some(*allow),
            NoCall::UnknownPath { .. } | NoCall::Undecodable { .. } => None,
        };
        ApiError {
            allow,
            ..ApiError::new(kind, error.to_string())
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> ApiError {
        match refusal {
            Refusal::BadRequest(message) => ApiError::new(ErrorType::BadRequest, message),
            Refusal::NotFound(message) => ApiError::new(ErrorType::NotFound, message),
            Refusal::Conflict(message) => ApiError::new(ErrorType::Conflict, message),
            Refusal::InUse(message) => ApiError::new(ErrorType::ResourceInUse, message),
            Refusal::TooManyTags(message) => ApiError::new(ErrorType::TooManyTags, message),
            Refusal::Forbidden(message) => ApiError::new(ErrorType::Forbidden, message),
            Refusal::LimitExceeded(message) => ApiError::new(ErrorType::LimitExceeded, message),
        }
    }
}

impl From<pillion_sigv4::Refusal> for ApiError {
    fn from(refusal: pillion_sigv4::Refusal) -> ApiError {
        ApiError::new(
            ErrorType::Unauthenticated(refusal.name()),
            refusal.to_string(),
        )
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        let message = if error.outcome_is_unknown() {
            format!(
                "{error}; whether the change was made is not known: read it back, or send the request again with the \
                 same clientToken, which makes it once"
            )
        } else {
            format!("{error}; nothing was changed, so send the request again once that is done")
        };
        ApiError {
            inner: Some(Box::new(error)),
            ..ApiError::new(ErrorType::ServiceUnavailable, message)
        }
    }
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> ApiError {
        match error {
            WriteError::Refused(refusal) => refusal.into(),
            WriteError::Failed(error) => error.into(),
            WriteError::Overloaded => ApiError::new(
                ErrorType::TooManyRequests,
                format!("{error}; send the request again in a second"),
            ),
            WriteError::Stopping => ApiError::new(
                ErrorType::ServiceUnavailable,
                format!("{error}; nothing was changed, send the request again once it is back"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_problem_stands_alone_and_several_are_counted() {
        let one = [Problem::new("spec", "is required")];
        assert_eq!(in_one_message(&one), "spec: is required");
        let two = [Problem::new("a", "is odd"), Problem::new("b", "is even")];
        assert_eq!(in_one_message(&two), "2 problems: a: is odd; b: is even");
    }

    #[test]
    fn a_flood_of_problems_is_cut_and_counted() {
        let many: Vec<Problem> = (0..10_000)
            .map(|index| Problem::new(format!("spec.listeners[{index}]"), "is unknown"))
            .collect();
        let message = in_one_message(&many);
        assert!(message.len() < MAX_MESSAGE + 100);
        let long = Problem::new("spec", "ü".repeat(1_000_000));
        assert!(in_one_message(&[long]).len() < MAX_PROBLEM + 10);
        assert!(message.starts_with("10000 problems: "), "{message}");
        assert!(message.ends_with("and 9900 more"), "{message}");
    }
}
