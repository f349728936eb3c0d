// SPDX-License-Identifier: Apache-2.0
//! Trace headers, W3C (`traceparent`) and X-Ray (`X-Amzn-Trace-Id`): read by grammar, written anew. Called by
//! `layer::trace`. Strangers' bytes come here: whatever does not parse is as if it were not there.

use std::fmt::Write;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
static AMZN: HeaderName = HeaderName::from_static("x-amzn-trace-id");
/// Longer ones are no trace header (W3C asks to carry 512 bytes of `tracestate`).
const LONGEST: usize = 1024;

/// What a caller said about the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// 128 bits; the first 32 are an epoch second when X-Ray made it.
    pub trace_id: u128,
    /// The caller's span, 0 if it only named the trace.
    pub parent_id: u64,
    /// The caller's decision, `None` if it left it to us.
    pub sampled: Option<bool>,
}

/// Reads either header. Where both parse and disagree, `traceparent` goes before the other.
pub fn extract(headers: &HeaderMap) -> Option<Context> {
    let text = |name: &HeaderName| {
        let value = headers.get(name)?.to_str().ok()?;
        (value.len() <= LONGEST).then_some(value)
    };
    text(&TRACEPARENT)
        .and_then(parse_traceparent)
        .or_else(|| text(&AMZN).and_then(parse_amzn))
}

/// Writes both headers for the span `span_id`, whose callee will be its child. A `tracestate` that no longer belongs
/// to a valid `traceparent` goes.
pub fn inject(headers: &mut HeaderMap, trace_id: u128, span_id: u64, sampled: bool) {
    if headers.contains_key(&TRACESTATE) && !state_belongs(headers, trace_id) {
        headers.remove(&TRACESTATE);
    }
    let flag = u8::from(sampled);
    let mut text = String::with_capacity(80);
    // Writing to a String cannot fail.
    let w3c = write!(text, "00-{trace_id:032x}-{span_id:016x}-{flag:02x}");
    debug_assert!(w3c.is_ok());
    set(headers, &TRACEPARENT, &text);
    text.clear();
    let (epoch, unique) = (trace_id >> 96, trace_id & ((1 << 96) - 1));
    let amzn = write!(
        text,
        "Root=1-{epoch:08x}-{unique:024x};Parent={span_id:016x};Sampled={flag}"
    );
    debug_assert!(amzn.is_ok());
    set(headers, &AMZN, &text);
}

/// Whether the state beside a `traceparent` is of this trace, and no longer than one is.
fn state_belongs(headers: &HeaderMap, trace_id: u128) -> bool {
    let states = headers.get_all(&TRACESTATE).iter();
    let parent = headers
        .get(&TRACEPARENT)
        .and_then(|text| text.to_str().ok());
    let named = parent.and_then(parse_traceparent);
    named.is_some_and(|context| context.trace_id == trace_id)
        && states.map(HeaderValue::len).sum::<usize>() <= LONGEST
}

/// Whether the caller sent `Sampled=?`: it wants to hear what was decided.
pub fn asks_for_decision(headers: &HeaderMap) -> bool {
    let value = headers.get(&AMZN).and_then(|value| value.to_str().ok());
    value.is_some_and(|text| {
        let mut fields = text.split(';').filter_map(|field| field.split_once('='));
        text.len() <= LONGEST
            && fields.any(|(key, value)| {
                key.trim().eq_ignore_ascii_case("sampled") && value.trim() == "?"
            })
    })
}

/// Answers such a caller.
pub fn tell_decision(headers: &mut HeaderMap, trace_id: u128, sampled: bool) {
    let (epoch, unique) = (trace_id >> 96, trace_id & ((1 << 96) - 1));
    let flag = u8::from(sampled);
    let text = format!("Root=1-{epoch:08x}-{unique:024x};Sampled={flag}");
    set(headers, &AMZN, &text);
}

fn set(headers: &mut HeaderMap, name: &HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// A trace id as X-Ray wants it: the epoch second, then 96 random bits.
pub fn new_trace_id(now: SystemTime, random: u128) -> u128 {
    let epoch = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    (u128::from(epoch & 0xffff_ffff) << 96) | (random >> 32)
}

fn parse_traceparent(text: &str) -> Option<Context> {
    let mut parts = text.trim().split('-');
    let (version, trace, parent, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let version_known = version == "00";
    // A later version may append fields; version 00 may not, and ff is none.
    if version.len() != 2
        || version == "ff"
        || !is_lower_hex(version)
        || (version_known && parts.next().is_some())
    {
        return None;
    }
    if trace.len() != 32 || parent.len() != 16 || flags.len() != 2 {
        return None;
    }
    if ![trace, parent, flags].into_iter().all(is_lower_hex) {
        return None;
    }
    let trace_id = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
    let parent_id = u64::from_str_radix(parent, 16).ok().filter(|id| *id != 0)?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    Some(Context {
        trace_id,
        parent_id,
        sampled: Some(flags & 1 == 1),
    })
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// `Root=1-<8>-<24>;Parent=<16>;Sampled=0|1|?`, any order, any case, blanks allowed, further fields skipped.
fn parse_amzn(text: &str) -> Option<Context> {
    let (mut trace_id, mut parent_id, mut sampled) = (None, 0, None);
    for field in text.split(';') {
        let Some((key, value)) = field.split_once('=') else {
            continue;
        };
        let (key, value) = (key.trim(), value.trim());
        if key.eq_ignore_ascii_case("root") {
            trace_id = parse_root(value);
        } else if key.eq_ignore_ascii_case("parent") {
            parent_id = parse_hex(value, 16)
                .and_then(|id| u64::try_from(id).ok())
                .unwrap_or(0);
        } else if key.eq_ignore_ascii_case("sampled") {
            sampled = match value {
                "1" => Some(true),
                "0" => Some(false),
                _ => None,
            };
        }
    }
    Some(Context {
        trace_id: trace_id?,
        parent_id,
        sampled,
    })
}

fn parse_root(value: &str) -> Option<u128> {
    let rest = value.strip_prefix("1-")?;
    let (epoch, unique) = rest.split_once('-')?;
    let id = (parse_hex(epoch, 8)? << 96) | parse_hex(unique, 24)?;
    (id != 0).then_some(id)
}

fn parse_hex(text: &str, digits: usize) -> Option<u128> {
    let hex = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    const W3C: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read() {
        let context = extract(&headers(&[("traceparent", W3C)])).unwrap();
        assert_eq!(context.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!(
            (context.parent_id, context.sampled),
            (0xb7ad_6b71_6920_3331, Some(true))
        );
    }

    #[test]
    fn an_amazon_header_is_read_in_any_order_with_blanks() {
        let text = "Sampled=0; Parent=53995c3f42cd8ad8 ;Lineage=a:1; root=1-5759e988-bd862e3fe1be46a994272793";
        let context = extract(&headers(&[("x-amzn-trace-id", text)])).unwrap();
        assert_eq!(context.trace_id, 0x5759_e988_bd86_2e3f_e1be_46a9_9427_2793);
        assert_eq!(
            (context.parent_id, context.sampled),
            (0x5399_5c3f_42cd_8ad8, Some(false))
        );
    }

    #[test]
    fn a_load_balancer_s_root_alone_names_the_trace_and_leaves_the_rest_to_us() {
        let context = extract(&headers(&[(
            "x-amzn-trace-id",
            "Root=1-5759e988-bd862e3fe1be46a994272793",
        )]))
        .unwrap();
        assert_eq!((context.parent_id, context.sampled), (0, None));
    }

    #[test]
    fn traceparent_goes_before_the_other() {
        let both = headers(&[
            ("traceparent", W3C),
            (
                "x-amzn-trace-id",
                "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=0",
            ),
        ]);
        assert_eq!(extract(&both).unwrap().parent_id, 0xb7ad_6b71_6920_3331);
    }

    #[test]
    fn a_malformed_traceparent_falls_back_to_the_other() {
        let both = headers(&[
            ("traceparent", "00-xyz"),
            (
                "x-amzn-trace-id",
                "Root=1-5759e988-bd862e3fe1be46a994272793",
            ),
        ]);
        assert!(extract(&both).is_some());
    }

    #[test]
    fn garbage_is_as_if_absent() {
        let long = format!(
            "Root=1-5759e988-bd862e3fe1be46a994272793;x={}",
            "y".repeat(2000)
        );
        for text in [
            "",
            "Root=1-5759e988",
            "Root=1-5759e988-zz862e3fe1be46a994272793",
            long.as_str(),
        ] {
            assert_eq!(
                extract(&headers(&[("x-amzn-trace-id", text)])),
                None,
                "{text}"
            );
        }
        for text in [
            "00-0-0-0",
            &W3C.to_uppercase(),
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(extract(&headers(&[("traceparent", text)])), None, "{text}");
        }
    }

    #[test]
    fn both_headers_written_read_back_the_same() {
        let mut map = HeaderMap::new();
        inject(&mut map, 0x1234_5678_0000_0000_0000_0000_0000_0001, 7, true);
        let w3c = extract(&map).unwrap();
        map.remove(&TRACEPARENT);
        assert_eq!(extract(&map), Some(w3c));
        let text = map.get(&AMZN).unwrap();
        assert_eq!(
            text,
            "Root=1-12345678-000000000000000000000001;Parent=0000000000000007;Sampled=1"
        );
    }

    #[test]
    fn a_new_trace_id_begins_with_the_epoch_second() {
        let now = UNIX_EPOCH + std::time::Duration::from_secs(0x5759_e988);
        assert_eq!(new_trace_id(now, u128::MAX) >> 96, 0x5759_e988);
    }
}
