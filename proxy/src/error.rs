// SPDX-License-Identifier: Apache-2.0
//! What every failure of the request path can say about itself: whose fault, which retry condition it meets, which
//! answer it becomes. The errors stand beside the operations that return them and implement [`Failure`]; only
//! `http::server` turns one into a response.

use std::borrow::Cow;

use http::StatusCode;

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The caller's.
    Downstream,
    /// The called one's.
    Upstream,
    /// Ours: configuration or limits.
    Local,
}

/// Which of Envoy's reset conditions a failure meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// None: trying again would not help or would do harm.
    Never,
    /// No connection came about (`connect-failure`).
    Connect,
    /// The stream was refused before any work (`refused-stream`).
    Refused,
    /// The exchange broke off without an answer, a try's timeout included (`reset`).
    Reset,
}

/// A failure of the request path.
pub trait Failure: std::error::Error {
    /// Whose fault.
    fn fault(&self) -> Fault;
    /// Whether and why to try again.
    fn retry(&self) -> Retry;
    /// The status of the local answer.
    fn status(&self) -> StatusCode;
    /// Envoy's response flag for logs and spans.
    fn flag(&self) -> Flags;
    /// Envoy's body text of the local answer.
    fn text(&self) -> Cow<'static, str> {
        Cow::Borrowed("")
    }
    /// Envoy's response code details.
    fn details(&self) -> &'static str;
    /// Whether the answer carries `x-envoy-overloaded`.
    fn overloaded(&self) -> bool {
        false
    }
    /// What the transport said, for `UPSTREAM_TRANSPORT_FAILURE_REASON`.
    fn transport(&self) -> Option<String> {
        None
    }
}

/// Any failure of the request path.
pub type RequestError = Box<dyn Failure>;

/// Envoy's response flags, a set, in the order in which Envoy prints them: the retry layer speaks before what ended the
/// last try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u32);

macro_rules! flags {
    ($($name:ident = $bit:literal, $short:literal, $about:literal;)*) => {
        impl Flags {
            $(#[doc = $about] pub const $name: Flags = Flags(1 << $bit);)*
            const ALL: &'static [(Flags, &'static str)] = &[$((Flags::$name, $short)),*];
        }
    };
}

flags! {
    RETRY_LIMIT = 4, "URX", "Retry limit exceeded.";
    NO_HEALTHY = 0, "UH", "No healthy upstream.";
    CONNECT_FAILURE = 1, "UF", "Upstream connection failure.";
    OVERFLOW = 2, "UO", "Upstream overflow.";
    NO_ROUTE = 3, "NR", "No route.";
    NO_CLUSTER = 5, "NC", "No cluster found.";
    UPSTREAM_TERMINATED = 6, "UC", "Upstream connection termination.";
    UPSTREAM_RESET = 7, "UR", "Upstream remote reset.";
    UPSTREAM_TIMEOUT = 8, "UT", "Upstream request timeout.";
    IDLE_TIMEOUT = 9, "SI", "Stream idle timeout.";
    DOWNSTREAM_TERMINATED = 10, "DC", "Downstream connection termination.";
    DOWNSTREAM_PROTOCOL = 11, "DPE", "Downstream protocol error.";
    UPSTREAM_PROTOCOL = 12, "UPE", "Upstream protocol error.";
}

impl Flags {
    /// None.
    pub const NONE: Flags = Flags(0);

    /// Both sets.
    pub fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether `other` is in this set.
    pub fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Comma-separated short names, `-` for none.
    pub fn text(self) -> Cow<'static, str> {
        let mut names = Flags::ALL
            .iter()
            .filter(|(flag, _)| self.has(*flag))
            .map(|(_, short)| *short);
        match (names.next(), names.next()) {
            (None, _) => Cow::Borrowed("-"),
            (Some(only), None) => Cow::Borrowed(only),
            (Some(first), Some(second)) => {
                let rest = names.fold(String::new(), |all, name| all + "," + name);
                Cow::Owned(format!("{first},{second}{rest}"))
            }
        }
    }
}

/// The gRPC status that an HTTP status stands for (gRPC's http-grpc-status-mapping, which makes 504 UNAVAILABLE, as
/// Envoy answers).
pub fn grpc_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// Envoy's text for an exchange that broke off before response headers.
pub fn reset_text(reason: &str, retried: bool) -> String {
    let latest = if retried {
        "retried and the latest reset reason: "
    } else {
        "reset reason: "
    };
    format!("upstream connect error or disconnect/reset before headers. {latest}{reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_print_as_envoy_lists_them() {
        assert_eq!(Flags::NONE.text(), "-");
        assert_eq!(Flags::NO_ROUTE.text(), "NR");
        assert_eq!(
            Flags::CONNECT_FAILURE.with(Flags::RETRY_LIMIT).text(),
            "URX,UF"
        );
    }

    #[test]
    fn no_answer_in_time_is_unavailable_to_grpc() {
        assert_eq!(grpc_status(StatusCode::GATEWAY_TIMEOUT), 14);
        assert_eq!(grpc_status(StatusCode::SERVICE_UNAVAILABLE), 14);
    }
}
