// SPDX-License-Identifier: Apache-2.0
//! One upgrade, two spellings: `Upgrade` and 101 over HTTP/1.1 (RFC 9110 7.8), extended `CONNECT` and 200 over HTTP/2
//! (RFC 8441). Between the doors of the proxy it is always a `GET` with [`crate::exchange::Asked::upgrade`], answered
//! 101. Called by `http::server` for callers and by `http::client` for the called. Pure but for the random key.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::Version;
use http::header;
use http::request;
use http::response;
use hyper::ext::Protocol;
use rand::RngCore;

/// What RFC 6455 appends to a key before it is hashed.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

static KEY: HeaderName = header::SEC_WEBSOCKET_KEY;
static ACCEPT: HeaderName = header::SEC_WEBSOCKET_ACCEPT;

/// Reads an extended `CONNECT` as the upgrade it asks for; `None` for any other request.
pub fn unfold(head: &mut request::Parts) -> Option<HeaderValue> {
    if head.method != Method::CONNECT || head.version != Version::HTTP_2 {
        return None;
    }
    let protocol = head.extensions.remove::<Protocol>()?;
    let protocol = HeaderValue::from_bytes(protocol.as_ref()).ok()?;
    head.method = Method::GET;
    Some(protocol)
}

/// Asks for the upgrade over HTTP/2.
pub fn ask_http2(head: &mut request::Parts, protocol: &HeaderValue) {
    let Ok(protocol) = protocol.to_str() else {
        return;
    };
    head.method = Method::CONNECT;
    // Lower case, as the registry has it: HTTP/1.1 compares without case, HTTP/2 need not.
    let protocol = protocol.to_ascii_lowercase();
    head.extensions.insert(Protocol::from(protocol.as_str()));
}

/// Asks for the upgrade over HTTP/1.1. A caller of HTTP/2 sent no key, which a WebSocket server there insists on.
pub fn ask_http1(headers: &mut HeaderMap, protocol: &HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol.clone());
    if is_websocket(protocol) && !headers.contains_key(&KEY) {
        let mut nonce = [0; 16];
        rand::rng().fill_bytes(&mut nonce);
        if let Ok(key) = HeaderValue::from_str(&STANDARD.encode(nonce)) {
            headers.insert(KEY.clone(), key);
        }
    }
}

/// An answer over HTTP/2 in the spelling of HTTP/1.1. `key` is the caller's, which HTTP/2 servers need not answer.
pub fn answered_http2(answer: &mut response::Parts, key: Option<&HeaderValue>) {
    if answer.status != StatusCode::OK {
        return;
    }
    answer.status = StatusCode::SWITCHING_PROTOCOLS;
    if let Some(key) = key
        && !answer.headers.contains_key(&ACCEPT)
        && let Ok(accept) = HeaderValue::from_str(&accept(key))
    {
        answer.headers.insert(ACCEPT.clone(), accept);
    }
}

/// The head of an agreed upgrade as the caller must hear it. `keyed` tells whether the caller sent a key.
pub fn agree(answer: &mut response::Parts, version: Version, protocol: &HeaderValue, keyed: Keyed) {
    if version == Version::HTTP_2 {
        answer.status = StatusCode::OK;
        answer.headers.remove(header::CONNECTION);
        answer.headers.remove(header::UPGRADE);
        if keyed == Keyed::No {
            answer.headers.remove(&ACCEPT);
        }
        return;
    }
    let headers = &mut answer.headers;
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol.clone());
}

/// Whether a caller sent `Sec-WebSocket-Key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keyed {
    /// And waits for the answer to it.
    Yes,
    /// And would not know what the answer is to.
    No,
}

impl Keyed {
    /// What these headers say.
    pub fn of(headers: &HeaderMap) -> Keyed {
        if headers.contains_key(&KEY) {
            Keyed::Yes
        } else {
            Keyed::No
        }
    }
}

/// The key of a request that asks for an upgrade.
pub fn key(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(&KEY).cloned()
}

fn is_websocket(protocol: &HeaderValue) -> bool {
    protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
}

fn accept(key: &HeaderValue) -> String {
    let text = [key.as_bytes(), GUID.as_bytes()].concat();
    STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(request: http::request::Builder) -> request::Parts {
        request.body(()).unwrap().into_parts().0
    }

    fn answer(status: u16) -> response::Parts {
        http::Response::builder()
            .status(status)
            .body(())
            .unwrap()
            .into_parts()
            .0
    }

    #[test]
    fn the_accept_header_is_rfc_6455s_example() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn an_extended_connect_is_an_upgrade_and_a_plain_one_is_not() {
        let mut plain = parts(http::Request::connect("a:80").version(Version::HTTP_2));
        assert_eq!(unfold(&mut plain), None);
        let mut extended = parts(http::Request::connect("http://a/chat").version(Version::HTTP_2));
        extended
            .extensions
            .insert(Protocol::from_static("websocket"));
        assert_eq!(
            unfold(&mut extended),
            Some(HeaderValue::from_static("websocket"))
        );
        assert_eq!(extended.method, Method::GET);
    }

    #[test]
    fn a_key_is_made_where_the_caller_had_none_and_kept_where_it_had() {
        let protocol = HeaderValue::from_static("websocket");
        let mut headers = HeaderMap::new();
        ask_http1(&mut headers, &protocol);
        assert_eq!(headers[&KEY].len(), 24);
        let made = headers[&KEY].clone();
        ask_http1(&mut headers, &protocol);
        assert_eq!(headers[&KEY], made);
    }

    #[test]
    fn an_http2_answer_becomes_101_with_what_the_key_asks_for() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        let mut agreed = answer(200);
        answered_http2(&mut agreed, Some(&key));
        assert_eq!(agreed.status, 101);
        assert_eq!(agreed.headers[&ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let mut refused = answer(403);
        answered_http2(&mut refused, Some(&key));
        assert_eq!(refused.status, 403);
    }

    #[test]
    fn a_caller_over_http2_hears_200_and_no_connection_headers() {
        let mut agreed = answer(101);
        agreed
            .headers
            .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        agreed
            .headers
            .insert(&ACCEPT, HeaderValue::from_static("x"));
        let protocol = HeaderValue::from_static("websocket");
        agree(&mut agreed, Version::HTTP_2, &protocol, Keyed::No);
        assert_eq!((agreed.status, agreed.headers.len()), (StatusCode::OK, 0));
    }
}
