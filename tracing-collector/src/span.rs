// SPDX-License-Identifier: Apache-2.0
//! The one [`Span`]: what every door turns its bytes into and what every screen is drawn from. Made by `convert`,
//! kept by `store`, read by `trace` and `query`. It has no serialised form of its own: disk records and JSON answers
//! have types where they are written.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde_json::Map;
use serde_json::Value;

/// Any 128 bits but zero. Nothing is read into the first four bytes: SDKs of today draw all of it at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TraceId(pub(crate) u128);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SpanId(pub(crate) u64);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no trace id: give 1-<8 hex>-<24 hex> or 32 hex digits, not all zero")]
pub(crate) struct TraceIdError(String);

impl TraceId {
    /// The seconds that X-Ray SDKs write into the first four bytes; random in any other id.
    pub(crate) fn epoch(self) -> u32 {
        (self.0 >> 96) as u32
    }

    /// `1-<8 hex>-<24 hex>`.
    pub(crate) fn xray(self) -> String {
        let hex = self.to_string();
        let (epoch, rest) = hex.split_at(8);
        format!("1-{epoch}-{rest}")
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for TraceId {
    type Err = TraceIdError;

    fn from_str(text: &str) -> Result<TraceId, TraceIdError> {
        let digits = match text.as_bytes() {
            [b'1', b'-', rest @ ..] if rest.len() == 33 && rest[8] == b'-' => {
                text[2..].replacen('-', "", 1)
            }
            other if other.len() == 32 => text.to_owned(),
            _ => return Err(TraceIdError(text.to_owned())),
        };
        hex(&digits)
            .and_then(|digits| u128::from_str_radix(digits, 16).ok())
            .filter(|id| *id != 0)
            .map(TraceId)
            .ok_or_else(|| TraceIdError(text.to_owned()))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl SpanId {
    /// Sixteen hex digits.
    pub(crate) fn parse(text: &str) -> Option<SpanId> {
        let digits = hex(text).filter(|text| text.len() == 16)?;
        u64::from_str_radix(digits, 16).ok().map(SpanId)
    }
}

/// `from_str_radix` alone would take a leading `+`.
fn hex(text: &str) -> Option<&str> {
    text.bytes()
        .all(|byte| byte.is_ascii_hexdigit())
        .then_some(text)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Internal,
    Server,
    Client,
    Producer,
    Consumer,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Internal => "internal",
            Kind::Server => "server",
            Kind::Client => "client",
            Kind::Producer => "producer",
            Kind::Consumer => "consumer",
        }
    }
}

/// A node of the service map: a name and a type, `unknown` when nobody said.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) kind: String,
}

impl Node {
    pub(crate) fn new(name: impl Into<String>, kind: impl Into<String>) -> Node {
        Node {
            name: name.into(),
            kind: kind.into(),
        }
    }
}

/// Every account that is not configured is this one.
pub(crate) const ACCOUNT: &str = "000000000000";

/// And every region this one.
pub(crate) const REGION: &str = "us-east-1";

/// The type of a node of which nobody said what it is.
pub(crate) const UNKNOWN_TYPE: &str = "unknown";

/// The type of a node that is a mesh proxy.
pub(crate) const PROXY_TYPE: &str = "AWS::AppMesh::Proxy";

/// How a span ended. Flags compound in documents; a count takes exactly one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) fault: bool,
    pub(crate) error: bool,
    pub(crate) throttle: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    Error,
    Throttle,
    Fault,
}

impl Flags {
    /// A fault hides an error, a throttle is an error of its own kind.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Flags { fault: true, .. } => Outcome::Fault,
            Flags { throttle: true, .. } => Outcome::Throttle,
            Flags { error: true, .. } => Outcome::Error,
            Flags { .. } => Outcome::Ok,
        }
    }

    pub(crate) fn of_status(status: u16) -> Flags {
        Flags {
            fault: (500..600).contains(&status),
            error: (400..500).contains(&status),
            throttle: status == 429,
        }
    }
}

impl Outcome {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Error => "error",
            Outcome::Throttle => "throttle",
            Outcome::Fault => "fault",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Http {
    pub(crate) method: Option<String>,
    pub(crate) url: Option<String>,
    pub(crate) status: Option<u16>,
    pub(crate) user_agent: Option<String>,
    pub(crate) client_ip: Option<String>,
}

/// What a mesh proxy says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proxy {
    pub(crate) node: String,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) trace: TraceId,
    pub(crate) id: SpanId,
    pub(crate) parent: Option<SpanId>,
    pub(crate) kind: Kind,
    /// The operation, or in X-Ray's words the name of the segment or subsegment.
    pub(crate) name: String,
    /// Whose work this is; `None` for a part sent alone, which belongs to whoever its parent belongs to.
    pub(crate) service: Option<Node>,
    /// Whether it begins its service's share of the trace.
    pub(crate) entry: bool,
    /// Whom it calls, when it is a call.
    pub(crate) calls: Option<Node>,
    pub(crate) start_ns: u64,
    /// `None` while in progress.
    pub(crate) end_ns: Option<u64>,
    pub(crate) flags: Flags,
    pub(crate) http: Option<Http>,
    pub(crate) user: Option<String>,
    pub(crate) proxy: Option<Proxy>,
    /// Scalars that a search may name.
    pub(crate) annotations: BTreeMap<String, Value>,
    /// Everything else its sender said, as sent.
    pub(crate) attributes: Map<String, Value>,
    /// Members that only a reader of the whole document wants, in their document spelling.
    pub(crate) document: Map<String, Value>,
}

impl Span {
    pub(crate) fn complete(&self) -> bool {
        self.end_ns.is_some()
    }

    /// Microseconds from start to end; nothing while in progress.
    pub(crate) fn duration_us(&self) -> Option<u64> {
        self.end_ns
            .map(|end| end.saturating_sub(self.start_ns) / 1000)
    }
}

/// Epoch seconds as X-Ray writes them. Microseconds below 2^53 make the division exact to the last digit shown.
pub(crate) fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_id_is_read_in_both_spellings_and_written_in_both() {
        let xray: TraceId = "1-59602603-23fc5b688855d396af79b496"
            .parse()
            .expect("the X-Ray form");
        let w3c: TraceId = "5960260323fc5b688855d396af79b496"
            .parse()
            .expect("the W3C form");
        assert_eq!(xray, w3c);
        assert_eq!(xray.xray(), "1-59602603-23fc5b688855d396af79b496");
        assert_eq!(xray.epoch(), 1_499_473_411);
    }

    #[test]
    fn ids_of_the_wrong_shape_are_refused() {
        for text in [
            "",
            "1-31363133-6e7a5b688855d396af79b49",
            "2-59602603-23fc5b688855d396af79b496",
            "00000000000000000000000000000000",
            "1-+9602603-23fc5b688855d396af79b496",
            "1-5960260é-23fc5b688855d396af79b49",
        ] {
            assert!(text.parse::<TraceId>().is_err(), "{text}");
        }
        assert_eq!(SpanId::parse("+94fcc8747581230"), None);
        assert_eq!(
            SpanId::parse("194fcc8747581230"),
            Some(SpanId(0x194f_cc87_4758_1230))
        );
    }

    #[test]
    fn a_fault_hides_an_error_and_a_throttle_is_counted_apart() {
        assert_eq!(
            Flags {
                fault: true,
                error: true,
                throttle: true
            }
            .outcome(),
            Outcome::Fault
        );
        assert_eq!(Flags::of_status(429).outcome(), Outcome::Throttle);
        assert_eq!(Flags::of_status(404).outcome(), Outcome::Error);
        assert_eq!(Flags::of_status(302).outcome(), Outcome::Ok);
    }
}
