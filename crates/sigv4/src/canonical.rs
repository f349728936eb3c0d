// SPDX-License-Identifier: Apache-2.0
//! The texts that both ends must agree on to the byte: canonical request, string to sign, signing key. Rules:
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>. The path is encoded
//! twice, as for every service but S3.

use aws_lc_rs::digest;
use aws_lc_rs::hmac;
use http::HeaderMap;
use http::Uri;
use http::header;

pub(crate) const ALGORITHM: &str = "AWS4-HMAC-SHA256";
pub(crate) const TERMINATOR: &str = "aws4_request";

/// One request as far as its signature covers it, the payload's hash excepted.
pub(crate) struct Covered<'a> {
    pub(crate) method: &'a str,
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    /// Names in lower case.
    pub(crate) signed: &'a [&'a str],
}

impl Covered<'_> {
    /// The canonical request, up to the hash of the payload. Every name in `signed` must have a value.
    pub(crate) fn canonical(&self) -> String {
        let mut text = String::with_capacity(512);
        text.push_str(self.method);
        text.push('\n');
        text.push_str(&path(self.uri.path()));
        text.push('\n');
        text.push_str(&query(self.uri.query().unwrap_or_default()));
        text.push('\n');
        for name in self.signed {
            text.push_str(name);
            text.push(':');
            text.push_str(&value(self.uri, self.headers, name).unwrap_or_default());
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&self.signed.join(";"));
        text.push('\n');
        text
    }
}

/// A header as it is signed: all its lines, each trimmed and its runs of spaces made one. Over HTTP/2 the host stands
/// in the URI. `None` where there is no such header.
pub(crate) fn value(uri: &Uri, headers: &HeaderMap, name: &str) -> Option<String> {
    if name == header::HOST.as_str() && !headers.contains_key(header::HOST) {
        return uri
            .authority()
            .map(|authority| authority.as_str().to_owned());
    }
    if !headers.contains_key(name) {
        return None;
    }
    let lines: Vec<String> = headers
        .get_all(name)
        .iter()
        .map(|line| {
            let line = String::from_utf8_lossy(line.as_bytes());
            line.split(' ')
                .filter(|word| !word.is_empty())
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    Some(lines.join(","))
}

/// Dot segments and double slashes resolved, then encoded once more than it came.
fn path(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    let mut text = String::from("/");
    text.push_str(&encode(segments.join("/").as_bytes(), b"/"));
    if !segments.is_empty() && path.ends_with('/') {
        text.push('/');
    }
    text
}

/// Parameters in the order of their encoded names, then values, without the signature itself.
fn query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (encode(&decode(name), b""), encode(&decode(value), b""))
        })
        .filter(|(name, _)| name != "X-Amz-Signature")
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join("&")
}

/// Percent-decoding that leaves alone what is not encoded well: the signature then does not match, which is answer enough.
pub(crate) fn decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'%', [high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or_default();
                bytes.push((digit(*high) * 16 + digit(*low)) as u8);
                rest = after;
            }
            _ => bytes.push(*first),
        }
    }
    bytes
}

/// RFC 3986: everything but unreserved characters and those in `kept`, in upper-case hex.
pub(crate) fn encode(bytes: &[u8], kept: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) || kept.contains(byte) {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}

/// `date/region/service/aws4_request`.
pub(crate) fn scope(date: &str, region: &str, service: &str) -> String {
    format!("{date}/{region}/{service}/{TERMINATOR}")
}

pub(crate) fn string_to_sign(time: &str, scope: &str, canonical: &str) -> String {
    format!(
        "{ALGORITHM}\n{time}\n{scope}\n{}",
        sha256(canonical.as_bytes())
    )
}

/// The key of one day, region and service.
pub(crate) fn signing_key(secret: &str, date: &str, region: &str, service: &str) -> hmac::Key {
    let mut key = hmac::Key::new(hmac::HMAC_SHA256, format!("AWS4{secret}").as_bytes());
    for part in [date, region, service, TERMINATOR] {
        let tag = hmac::sign(&key, part.as_bytes());
        key = hmac::Key::new(hmac::HMAC_SHA256, tag.as_ref());
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_resolved_and_encoded_once_more() {
        for (sent, signed) in [
            ("", "/"),
            ("/", "/"),
            ("//a//b/", "/a/b/"),
            ("/a/./b/../c", "/a/c"),
            ("/v20190125/meshes/a%2Fb", "/v20190125/meshes/a%252Fb"),
            ("/a:b", "/a%3Ab"),
        ] {
            assert_eq!(path(sent), signed, "{sent}");
        }
    }

    #[test]
    fn parameters_are_sorted_and_the_signature_is_no_part_of_itself() {
        assert_eq!(
            query("b=2&a=%7e&a=1&c&X-Amz-Signature=ff"),
            "a=1&a=~&b=2&c="
        );
        assert_eq!(query("arn=arn:aws:x%2Fy"), "arn=arn%3Aaws%3Ax%2Fy");
    }

    #[test]
    fn a_header_of_several_lines_and_spaces_is_one_value() {
        let mut headers = HeaderMap::new();
        headers.append("x-a", "  1   2 ".parse().expect("a value"));
        headers.append("x-a", "3".parse().expect("a value"));
        let uri = Uri::from_static("https://mesh.local:8700/x");
        assert_eq!(value(&uri, &headers, "x-a").as_deref(), Some("1 2,3"));
        assert_eq!(
            value(&uri, &headers, "host").as_deref(),
            Some("mesh.local:8700")
        );
        assert_eq!(value(&uri, &headers, "x-b"), None);
    }
}
