// SPDX-License-Identifier: Apache-2.0
//! The canonical request head: what hyper lets through and a proxy must not (RFC 9112 section 3.2 and 6, RFC 9110
//! section 7.6). Pure; called by `http::server` for requests and `http::client` for responses. Framing headers never
//! pass: hyper writes them anew from the body.

use std::borrow::Cow;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::Version;
use http::header;
use http::request;
use http::uri::Authority;
use http::uri::PathAndQuery;
use http::uri::Scheme;

use crate::error::Failure;
use crate::error::Fault;
use crate::error::Flags;
use crate::error::Retry;

/// Header fields of a request, cookie crumbs counted one by one: many small ones cost more than their bytes.
pub const FIELDS: usize = 256;

/// A request that is refused before routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// No `Host`, or more than one, or one that is no `host[:port]`.
    #[error("host is missing, repeated or malformed")]
    Host,
    /// `Transfer-Encoding` other than the single token `chunked`, or beside HTTP/1.0.
    #[error("transfer-encoding is not the single token chunked")]
    TransferEncoding,
    /// `Content-Length` beside `Transfer-Encoding`: two answers to where the request ends (RFC 9112 6.1).
    #[error("content-length stands beside transfer-encoding")]
    Ambiguous,
    /// A line that does not end in CR LF, a folded one, or a chunk that is none.
    #[error("a line does not end in CR LF, is folded, or is no chunk size")]
    Line,
    /// A target with a fragment, which stays with the caller.
    #[error("request target has a fragment")]
    Fragment,
    /// Several `Content-Length` values.
    #[error("content-length is repeated with different values")]
    ContentLength,
    /// An expectation other than `100-continue`.
    #[error("expectation is not 100-continue")]
    Expect,
    /// A path that climbs above its root, holds NUL, or is no path.
    #[error("path is malformed")]
    Path,
    /// More header fields than [`FIELDS`].
    #[error("too many header fields")]
    Fields,
    /// A target of another scheme than `http` and `https`, or one without a path that is no `CONNECT`.
    #[error("request target is not of http or https")]
    Target,
    /// `CONNECT` where nothing tunnels, or with a target that is no `host:port`.
    #[error("CONNECT target is not host:port")]
    Connect,
}

impl Failure for HeadError {
    fn fault(&self) -> Fault {
        Fault::Downstream
    }

    fn retry(&self) -> Retry {
        Retry::Never
    }

    fn status(&self) -> StatusCode {
        match self {
            HeadError::Expect => StatusCode::EXPECTATION_FAILED,
            HeadError::Fields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            HeadError::Host
            | HeadError::TransferEncoding
            | HeadError::Ambiguous
            | HeadError::Line
            | HeadError::Fragment
            | HeadError::ContentLength
            | HeadError::Path
            | HeadError::Target
            | HeadError::Connect => StatusCode::BAD_REQUEST,
        }
    }

    fn flag(&self) -> Flags {
        Flags::DOWNSTREAM_PROTOCOL
    }

    fn text(&self) -> Cow<'static, str> {
        Cow::Owned(self.to_string())
    }

    fn details(&self) -> &'static str {
        "invalid_request_head"
    }
}

/// Where a request is going, told once from its target and `Host`.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host[:port]`.
    pub authority: Authority,
    /// The protocol asked for in `Upgrade`, when `Connection` nominates it too.
    pub upgrade: Option<HeaderValue>,
    /// Whether the caller takes trailers (`TE: trailers`).
    pub trailers: bool,
}

/// Headers that a `Connection` header must not remove: framing, routing, authentication, forwarding and trace
/// headers. Nominating them is an attack on the next hop (CVE-2026-26365 and its kin), so the nomination is void.
fn is_protected(name: &str) -> bool {
    matches!(
        name,
        "host"
            | "content-length"
            | "transfer-encoding"
            | "authorization"
            | "cookie"
            | "traceparent"
    ) || matches!(
        name,
        "tracestate" | "x-amzn-trace-id" | "x-request-id" | "forwarded" | "content-type" | "te"
    ) || name.starts_with("x-forwarded-")
        || name.starts_with("x-envoy-")
}

/// Checks a request head, takes out what is between us and the caller, and says where it goes. Afterwards the URI
/// holds path and query only.
pub fn admit(head: &mut request::Parts) -> Result<Target, HeadError> {
    if head.headers.len() > FIELDS {
        return Err(HeadError::Fields);
    }
    framing(head)?;
    let foreign = head
        .uri
        .scheme()
        .is_some_and(|scheme| *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS);
    let bare = head.uri.authority().is_some()
        && head.uri.scheme().is_none()
        && head.version != Version::HTTP_2;
    if head.method != Method::CONNECT && (foreign || bare) {
        return Err(HeadError::Target);
    }
    let authority = authority(head)?;
    let of_hop = has_hop_by_hop(&head.headers);
    let upgrade = if of_hop { upgrade(head) } else { None };
    let trailers = of_hop && mentions(&head.headers, &header::TE, "trailers");
    strip_hop_by_hop(&mut head.headers);
    head.headers.remove(header::EXPECT);
    head.headers.remove(header::HOST);
    let path = match (&head.method, head.uri.path_and_query()) {
        (&Method::CONNECT, _) | (_, None) => PathAndQuery::from_static("/"),
        (_, Some(path)) if path.as_str().starts_with('/') => path.clone(),
        (&Method::OPTIONS, Some(path)) if path == "*" => path.clone(),
        (_, Some(path)) if path.as_str().starts_with('?') => {
            format!("/{path}").parse().map_err(|_| HeadError::Path)?
        }
        _ => return Err(HeadError::Path),
    };
    head.uri = http::Uri::from(path);
    Ok(Target {
        authority,
        upgrade,
        trailers,
    })
}

fn framing(head: &mut request::Parts) -> Result<(), HeadError> {
    let headers = &mut head.headers;
    let framed = |name: &HeaderName| {
        matches!(
            name.as_str(),
            "transfer-encoding" | "content-length" | "expect"
        )
    };
    if !headers.keys().any(framed) {
        return Ok(());
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let alone = codings.next().is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        // hyper drops a length beside chunked before anyone sees it: `http::guard` has refused such a request already.
        if !alone || head.version != Version::HTTP_11 {
            return Err(HeadError::TransferEncoding);
        }
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    if let Some(first) = lengths.next()
        && lengths.any(|other| other != first)
    {
        return Err(HeadError::ContentLength);
    }
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::CONTENT_LENGTH);
    if headers
        .get(header::EXPECT)
        .is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        return Err(HeadError::Expect);
    }
    Ok(())
}

fn authority(head: &request::Parts) -> Result<Authority, HeadError> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() || (host.is_none() && head.version == Version::HTTP_11) {
        return Err(HeadError::Host);
    }
    // An absolute target, or `:authority`, goes before `Host` (RFC 9112 3.2.2, RFC 9113 8.3.1).
    if let Some(said) = head.uri.authority() {
        let absolute = head.uri.scheme().is_some() && head.version != Version::HTTP_2;
        let portless = said.port_u16().is_none_or(|port| port == 0);
        if head.method == Method::CONNECT && (absolute || portless) {
            return Err(HeadError::Connect);
        }
        // Over HTTP/2 the two must agree: a difference is only ever an attempt to be read twice.
        if head.version == Version::HTTP_2
            && host.is_some_and(|host| {
                !host
                    .as_bytes()
                    .eq_ignore_ascii_case(said.as_str().as_bytes())
            })
        {
            return Err(HeadError::Host);
        }
        return if is_host_port(said.as_str()) {
            Ok(said.clone())
        } else {
            Err(HeadError::Host)
        };
    }
    if head.method == Method::CONNECT {
        return Err(HeadError::Connect);
    }
    let said = host
        .and_then(|host| host.to_str().ok())
        .filter(|text| is_host_port(text))
        .ok_or(HeadError::Host)?;
    said.parse().map_err(|_| HeadError::Host)
}

/// `host[:port]` without userinfo: a registered name, IPv4, or bracketed IPv6.
fn is_host_port(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => (address, None),
            Some((address, after)) => match after.strip_prefix(':') {
                Some(port) => (address, Some(port)),
                None => return false,
            },
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let bracketed = text.starts_with('[');
    // RFC 3986's reg-name, but for percent-encoding and the comma: a list of hosts is two hosts.
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(&byte);
    let host_ok = if bracketed {
        host.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        host.bytes().all(letter)
    };
    let port_ok = port.is_none_or(|port| {
        !port.is_empty()
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok()
    });
    !host.is_empty() && host_ok && port_ok
}

fn upgrade(head: &request::Parts) -> Option<HeaderValue> {
    let asked =
        mentions(&head.headers, &header::CONNECTION, "upgrade") && head.version == Version::HTTP_11;
    let mut values = head.headers.get_all(header::UPGRADE).iter();
    let only = values.next().filter(|_| asked && values.next().is_none())?;
    // h2c is a protocol of this hop alone: passed on, it opens a tunnel past every rule.
    (!only.as_bytes().eq_ignore_ascii_case(b"h2c")).then(|| only.clone())
}

/// Whether a comma-separated list header names `token`.
pub fn mentions(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|found| found.eq_ignore_ascii_case(token))
}

fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Whether anything concerns one connection only. Most heads have nothing of the kind, and one look at their names costs
/// less than to ask for each.
fn has_hop_by_hop(headers: &HeaderMap) -> bool {
    let is_one = |name: &HeaderName| {
        matches!(
            name.as_str(),
            "connection" | "keep-alive" | "proxy-connection" | "http2-settings" | "upgrade" | "te"
        )
    };
    headers.keys().any(is_one)
}

/// Takes out what concerns one connection only, and what `Connection` nominates.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if !has_hop_by_hop(headers) {
        return;
    }
    if headers.contains_key(header::CONNECTION) {
        let nominated: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
            .map(str::to_ascii_lowercase)
            .filter(|name| !is_protected(name))
            .filter_map(|name| name.parse().ok())
            .collect();
        for name in nominated {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    for name in [
        &KEEP_ALIVE,
        &PROXY_CONNECTION,
        &HTTP2_SETTINGS,
        &header::UPGRADE,
        &header::TE,
    ] {
        headers.remove(name);
    }
}

/// Methods whose requests seldom have content, and of which no server expects a `Content-Length: 0`.
pub fn is_bodiless(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::DELETE | Method::TRACE | Method::CONNECT
    )
}

/// HTTP/2 may send a cookie in crumbs; beyond HTTP/2 it is one header again (RFC 9113 8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, whole);
    }
}

/// A response whose framing cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("response framing is ambiguous")]
pub struct FramingError;

/// Makes a response head canonical. `Content-Length` stays only where there is no body to count: answers to `HEAD`
/// and 304.
pub fn admit_response(
    status: StatusCode,
    headers: &mut HeaderMap,
    method: &Method,
    version: Version,
) -> Result<(), FramingError> {
    if let Some(coding) = headers.get(header::TRANSFER_ENCODING) {
        let alone = headers.get_all(header::TRANSFER_ENCODING).iter().count() == 1
            && coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if !alone || version != Version::HTTP_11 || headers.contains_key(header::CONTENT_LENGTH) {
            return Err(FramingError);
        }
        headers.remove(header::TRANSFER_ENCODING);
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    if let Some(first) = lengths.next()
        && lengths.any(|other| other != first)
    {
        return Err(FramingError);
    }
    let bodiless = method == Method::HEAD || status == StatusCode::NOT_MODIFIED;
    if !bodiless {
        headers.remove(header::CONTENT_LENGTH);
    } else if let Some(length) = headers.remove(header::CONTENT_LENGTH) {
        headers.insert(header::CONTENT_LENGTH, length);
    }
    strip_hop_by_hop(headers);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(
        build: impl FnOnce(http::request::Builder) -> http::request::Builder,
    ) -> request::Parts {
        build(http::Request::builder().uri("/"))
            .body(())
            .unwrap()
            .into_parts()
            .0
    }

    fn refused(build: impl FnOnce(http::request::Builder) -> http::request::Builder) -> HeadError {
        admit(&mut head(build)).unwrap_err()
    }

    #[test]
    fn a_request_keeps_its_headers_and_names_its_host() {
        let mut parts = head(|request| {
            request
                .uri("/a?b")
                .header("host", "shop:80")
                .header("x-a", "1")
        });
        let target = admit(&mut parts).unwrap();
        assert_eq!(target.authority, "shop:80");
        assert_eq!(parts.uri, "/a?b");
        assert_eq!(parts.headers.get("x-a").unwrap(), "1");
        assert!(!parts.headers.contains_key("host"));
    }

    #[test]
    fn a_missing_repeated_or_malformed_host_is_refused() {
        assert_eq!(refused(|request| request), HeadError::Host);
        assert_eq!(
            refused(|request| request.header("host", "a").header("host", "a")),
            HeadError::Host
        );
        for host in [
            "a,b", "a b", "a/b", "a:80a", "a:", "u@a", "", "[::1", "a:99999", "[zz]",
        ] {
            assert_eq!(
                refused(|request| request.header("host", host)),
                HeadError::Host,
                "{host:?}"
            );
        }
    }

    #[test]
    fn an_ipv6_host_is_a_host() {
        assert!(admit(&mut head(|request| request.header("host", "[::1]:80"))).is_ok());
    }

    #[test]
    fn an_absolute_target_goes_before_host() {
        let mut parts = head(|request| request.uri("http://shop/a").header("host", "evil"));
        let target = admit(&mut parts).unwrap();
        assert_eq!(
            (target.authority.as_str(), parts.uri.to_string().as_str()),
            ("shop", "/a")
        );
    }

    #[test]
    fn userinfo_in_a_target_is_refused() {
        assert_eq!(
            refused(|request| request.uri("http://u@shop/").header("host", "shop")),
            HeadError::Host
        );
    }

    #[test]
    fn http2_authority_and_host_must_agree() {
        let h2 = |host: &'static str| {
            head(|request| {
                request
                    .version(Version::HTTP_2)
                    .uri("http://shop/")
                    .header("host", host)
            })
        };
        assert_eq!(admit(&mut h2("evil")).unwrap_err(), HeadError::Host);
        assert!(admit(&mut h2("shop")).is_ok());
    }

    #[test]
    fn only_a_single_chunked_token_is_a_transfer_encoding() {
        for coding in [
            "gzip, chunked",
            ",chunked",
            "chunked, chunked",
            "identity",
            "chunked;a=b",
        ] {
            let error = refused(|request| {
                request
                    .header("host", "a")
                    .header("transfer-encoding", coding)
            });
            assert_eq!(error, HeadError::TransferEncoding, "{coding}");
        }
        let mut parts = head(|request| {
            request
                .header("host", "a")
                .header("transfer-encoding", "chunked")
        });
        admit(&mut parts).unwrap();
        assert!(!parts.headers.contains_key("transfer-encoding"));
    }

    #[test]
    fn http_1_0_has_no_transfer_encoding() {
        let error = refused(|request| {
            request
                .version(Version::HTTP_10)
                .header("host", "a")
                .header("transfer-encoding", "chunked")
        });
        assert_eq!(error, HeadError::TransferEncoding);
    }

    #[test]
    fn an_unknown_expectation_is_refused_and_100_continue_is_ours() {
        assert_eq!(
            refused(|request| request.header("host", "a").header("expect", "magic")),
            HeadError::Expect
        );
        let mut parts =
            head(|request| request.header("host", "a").header("expect", "100-continue"));
        admit(&mut parts).unwrap();
        assert!(!parts.headers.contains_key("expect"));
    }

    #[test]
    fn nominated_headers_go_and_protected_ones_stay() {
        let mut parts = head(|request| {
            request
                .header("host", "a")
                .header("connection", "close, X-Hop, authorization, x-forwarded-for")
                .header("x-hop", "1")
                .header("keep-alive", "5")
                .header("proxy-connection", "close")
                .header("authorization", "secret")
                .header("x-forwarded-for", "9.9.9.9")
        });
        admit(&mut parts).unwrap();
        for gone in ["connection", "x-hop", "keep-alive", "proxy-connection"] {
            assert!(!parts.headers.contains_key(gone), "{gone}");
        }
        assert!(
            parts.headers.contains_key("authorization")
                && parts.headers.contains_key("x-forwarded-for")
        );
    }

    #[test]
    fn an_upgrade_is_seen_only_when_nominated_and_never_h2c() {
        let asked = |connection: &'static str, upgrade: &'static str| {
            let mut parts = head(|request| {
                request
                    .header("host", "a")
                    .header("connection", connection)
                    .header("upgrade", upgrade)
            });
            let target = admit(&mut parts).unwrap();
            assert!(!parts.headers.contains_key("upgrade"));
            target.upgrade
        };
        assert!(asked("Upgrade", "websocket").is_some());
        assert!(asked("close", "websocket").is_none());
        assert!(asked("Upgrade, HTTP2-Settings", "h2c").is_none());
    }

    #[test]
    fn a_response_to_head_keeps_its_length_and_others_lose_it() {
        let answer = |method: Method| {
            let mut headers = HeaderMap::new();
            headers.insert("content-length", HeaderValue::from_static("5"));
            admit_response(StatusCode::OK, &mut headers, &method, Version::HTTP_11).unwrap();
            headers.contains_key("content-length")
        };
        assert!(answer(Method::HEAD) && !answer(Method::GET));
    }

    #[test]
    fn a_response_with_an_unknown_coding_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert(
            "transfer-encoding",
            HeaderValue::from_static("gzip, chunked"),
        );
        assert!(
            admit_response(StatusCode::OK, &mut headers, &Method::GET, Version::HTTP_11).is_err()
        );
    }
}
