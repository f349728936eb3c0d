// SPDX-License-Identifier: Apache-2.0
//! What every decode needs: a refusal that knows the path of its field, the check that a field is unset, and the
//! wrappers of protobuf's well-known types. Decodes take their message apart without `..`, so that a field which a
//! newer protobuf brings does not compile until somebody decided about it.

use std::fmt::Debug;
use std::fmt::Display;
use std::time::Duration;

use prost::Name;

use crate::proto::Any;
use crate::proto::core;
use crate::proto::google::protobuf;
use crate::resource::Rejected;

/// The largest duration protobuf allows (about ten thousand years).
const MAX_SECONDS: u64 = 315_576_000_000;

/// Why a decode stopped: the path of the field, and what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    path: String,
    why: String,
}

pub(crate) type Checked<T> = Result<T, Refusal>;

impl Refusal {
    pub(crate) fn new(field: impl Display, why: impl Display) -> Refusal {
        Refusal {
            path: field.to_string(),
            why: why.to_string(),
        }
    }

    /// A field that changes behaviour and that Pillion does not have.
    pub(crate) fn unsupported(field: impl Display) -> Refusal {
        Refusal::new(field, "is not supported; leave it unset")
    }

    pub(crate) fn missing(field: impl Display) -> Refusal {
        Refusal::new(field, "is required")
    }

    /// As the refusal of the resource with this name.
    pub(crate) fn of(self, name: &str) -> Rejected {
        let name = if name.is_empty() { "?" } else { name };
        Rejected {
            name: name.to_owned(),
            why: format!("{} {}", self.path, self.why),
        }
    }
}

/// Puts the path of the enclosing message before the field's.
pub(crate) trait Under<T> {
    fn under(self, prefix: impl Display) -> Checked<T>;
}

impl<T> Under<T> for Checked<T> {
    fn under(self, prefix: impl Display) -> Checked<T> {
        self.map_err(|refusal| Refusal {
            path: format!("{prefix}.{}", refusal.path),
            why: refusal.why,
        })
    }
}

/// Refuses every named local that is not at its default.
macro_rules! refuse {
    ($($field:ident),+ $(,)?) => {
        $($crate::field::unset(stringify!($field), &$field)?;)+
    };
}
pub(crate) use refuse;

pub(crate) fn unset<T: Default + PartialEq>(field: &str, value: &T) -> Checked<()> {
    if *value == T::default() {
        Ok(())
    } else {
        Err(Refusal::unsupported(field))
    }
}

/// HTTP/2 with extended CONNECT (RFC 8441), which carries upgrades and which our proxy always speaks.
pub(crate) fn extended_connect() -> core::Http2ProtocolOptions {
    core::Http2ProtocolOptions {
        allow_connect: true,
        ..Default::default()
    }
}

/// What is asked of HTTP/2 besides, if anything.
pub(crate) fn beyond_extended_connect(
    options: Option<core::Http2ProtocolOptions>,
) -> Option<core::Http2ProtocolOptions> {
    let options = core::Http2ProtocolOptions {
        allow_connect: false,
        ..options?
    };
    (options != core::Http2ProtocolOptions::default()).then_some(options)
}

/// Every item decoded, with its index in the path of a refusal.
pub(crate) fn each<T, U>(
    field: &str,
    items: Vec<T>,
    decode: impl Fn(T) -> Checked<U>,
) -> Checked<Vec<U>> {
    let mut decoded = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        decoded.push(decode(item).under(format_args!("{field}[{index}]"))?);
    }
    Ok(decoded)
}

pub(crate) fn required<T>(field: &str, value: Option<T>) -> Checked<T> {
    value.ok_or_else(|| Refusal::missing(field))
}

pub(crate) fn not_empty(field: &str, value: String) -> Checked<String> {
    if value.is_empty() {
        Err(Refusal::missing(field))
    } else {
        Ok(value)
    }
}

/// The value of a protobuf enum, by its number.
pub(crate) fn named<E: TryFrom<i32>>(field: &str, value: i32) -> Checked<E> {
    E::try_from(value)
        .map_err(|_| Refusal::new(field, format_args!("{value} is not a known value")))
}

pub(crate) fn port(field: &str, value: u32) -> Checked<u16> {
    u16::try_from(value)
        .map_err(|_| Refusal::new(field, format_args!("{value} is not a port (0 to 65535)")))
}

// ---- wrappers

pub(crate) fn uint(value: u32) -> protobuf::UInt32Value {
    protobuf::UInt32Value { value }
}

pub(crate) fn flag(value: bool) -> protobuf::BoolValue {
    protobuf::BoolValue { value }
}

pub(crate) fn number(value: Option<protobuf::UInt32Value>) -> Option<u32> {
    value.map(|wrapped| wrapped.value)
}

pub(crate) fn truth(value: Option<protobuf::BoolValue>) -> Option<bool> {
    value.map(|wrapped| wrapped.value)
}

/// Accepts an unset flag, or one that says what holds anyway.
pub(crate) fn only(field: &str, value: Option<protobuf::BoolValue>, holds: Holds) -> Checked<()> {
    let holds = holds == Holds::True;
    if truth(value).is_none_or(|value| value == holds) {
        return Ok(());
    }
    Err(Refusal::new(
        field,
        format_args!("{} is not supported; leave it unset", !holds),
    ))
}

/// What is so without a flag.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    True,
    False,
}

pub(crate) fn encode_duration(value: Duration) -> protobuf::Duration {
    let seconds = value.as_secs().min(MAX_SECONDS);
    protobuf::Duration {
        seconds: i64::try_from(seconds).expect("bounded by MAX_SECONDS"),
        nanos: i32::try_from(value.subsec_nanos()).expect("below one second"),
    }
}

pub(crate) fn duration(
    field: &str,
    value: Option<protobuf::Duration>,
) -> Checked<Option<Duration>> {
    let Some(protobuf::Duration { seconds, nanos }) = value else {
        return Ok(None);
    };
    let wrong = || {
        Refusal::new(
            field,
            format_args!("{seconds}s and {nanos}ns is not a duration of zero or more"),
        )
    };
    let seconds = u64::try_from(seconds)
        .ok()
        .filter(|seconds| *seconds <= MAX_SECONDS)
        .ok_or_else(wrong)?;
    let nanos = u32::try_from(nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)
        .ok_or_else(wrong)?;
    Ok(Some(Duration::new(seconds, nanos)))
}

// ---- Any

pub(crate) fn pack<T: Name>(message: &T) -> Any {
    Any {
        type_url: T::type_url(),
        value: message.encode_to_vec(),
    }
}

pub(crate) fn unpack<T: Name + Default>(field: &str, any: &Any) -> Checked<T> {
    if any.type_url != T::type_url() {
        return Err(Refusal::new(
            field,
            format_args!("is {}; only {} is supported", any.type_url, T::type_url()),
        ));
    }
    T::decode(any.value.as_slice())
        .map_err(|error| Refusal::new(field, format_args!("does not decode: {error}")))
}

// ---- ConfigSource and DataSource

pub(crate) fn ads() -> core::ConfigSource {
    core::ConfigSource {
        resource_api_version: core::ApiVersion::V3.into(),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource {},
        )),
        ..Default::default()
    }
}

/// Refuses every source of configuration but the stream it came by. How long to wait for the first answer
/// (`initial_fetch_timeout`) is a setting of the proxy, not of the resource.
pub(crate) fn from_ads(field: &str, source: Option<core::ConfigSource>) -> Checked<()> {
    let core::ConfigSource {
        authorities,
        initial_fetch_timeout: _,
        resource_api_version,
        config_source_specifier,
    } = required(field, source)?;
    let check = || {
        refuse!(authorities);
        if resource_api_version == core::ApiVersion::V2 as i32 {
            return Err(Refusal::new("resource_api_version", "must be V3"));
        }
        Ok(())
    };
    check().under(field)?;
    match config_source_specifier {
        Some(core::config_source::ConfigSourceSpecifier::Ads(_)) => Ok(()),
        _ => Err(Refusal::new(field, "must be ads")),
    }
}

pub(crate) fn inline(text: &str) -> core::DataSource {
    specified(core::data_source::Specifier::InlineString(text.to_owned()))
}

pub(crate) fn file(path: &str) -> core::DataSource {
    specified(core::data_source::Specifier::Filename(path.to_owned()))
}

fn specified(specifier: core::data_source::Specifier) -> core::DataSource {
    core::DataSource {
        watched_directory: None,
        specifier: Some(specifier),
    }
}

/// The text that stands in the resource itself.
pub(crate) fn inline_text(field: &str, source: Option<core::DataSource>) -> Checked<String> {
    let core::DataSource {
        watched_directory,
        specifier,
    } = required(field, source)?;
    unset("watched_directory", &watched_directory).under(field)?;
    match specifier {
        Some(core::data_source::Specifier::InlineString(text)) => Ok(text),
        Some(core::data_source::Specifier::InlineBytes(bytes)) => String::from_utf8(bytes)
            .map_err(|_| Refusal::new(field, "inline_bytes is not UTF-8 text")),
        _ => Err(Refusal::new(field, "must be inline_string or inline_bytes")),
    }
}

/// The path of the file that holds it.
pub(crate) fn file_name(field: &str, source: Option<core::DataSource>) -> Checked<String> {
    let core::DataSource {
        watched_directory: _, // our proxy watches every file it reads
        specifier,
    } = required(field, source)?;
    match specifier {
        Some(core::data_source::Specifier::Filename(path)) if !path.is_empty() => Ok(path),
        _ => Err(Refusal::new(field, "must be a filename")),
    }
}
