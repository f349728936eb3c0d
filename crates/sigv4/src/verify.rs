// SPDX-License-Identifier: Apache-2.0
//! Checking a signed request, in header or query (presigned) form. In two steps, since the signature covers the body:
//! [`Claim::read`] on the head, [`Claim::prove`] with the payload. Says who signed, not what they may do.

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use aws_lc_rs::hmac;
use http::HeaderMap;
use http::header;
use http::request::Parts;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::canonical;
use crate::canonical::ALGORITHM;
use crate::canonical::Covered;
use crate::canonical::TERMINATOR;
use crate::keys::Key;
use crate::keys::Keys;
use crate::keys::SessionTokens;

/// AWS's own: clocks may differ by this much, and a captured request can be sent again for as long.
const SKEW: Duration = Duration::from_secs(5 * 60);
/// The longest life of a presigned request: a week.
const MAX_EXPIRES: u64 = 7 * 24 * 3600;
/// Of a payload that is not part of the signature.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// What a signature must be made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope<'a> {
    /// `appmesh`, `xray`.
    pub service: &'a str,
    /// `us-east-1`.
    pub region: &'a str,
}

/// What the signature covers besides the head.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// All of it.
    Body(&'a [u8]),
    /// A stream, of which only the head is signed, as the call credentials of gRPC do.
    Stream,
}

/// Why a request is not let in. Always a 403.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not signed at all.
    #[error("Missing Authentication Token")]
    Missing,
    /// Part of what a signature needs is not there, or is there twice.
    #[error("{0}")]
    Incomplete(String),
    /// Nobody has this key.
    #[error("The security token included in the request is invalid.")]
    UnknownKey,
    /// It is signed for another time, place or request, or with another secret.
    #[error("{0}")]
    Signature(String),
}

impl Refusal {
    /// The exception type AWS answers with.
    pub fn name(&self) -> &'static str {
        match self {
            Refusal::Missing => "MissingAuthenticationTokenException",
            Refusal::Incomplete(_) => "IncompleteSignatureException",
            Refusal::UnknownKey => "UnrecognizedClientException",
            Refusal::Signature(_) => "InvalidSignatureException",
        }
    }
}

/// A request whose head says that a known key signed it a short while ago.
#[derive(Debug)]
pub struct Claim {
    key: Arc<Key>,
    /// Up to the payload's hash.
    canonical: String,
    time: String,
    date: String,
    region: String,
    service: String,
    signature: Vec<u8>,
    /// `x-amz-content-sha256`.
    announced: Option<String>,
}

/// The parameters of a signature, wherever they stood.
struct Given {
    credential: String,
    signed_headers: String,
    signature: String,
    time: Timestamp,
    /// Of a presigned request.
    expires: Option<Duration>,
    has_token: bool,
}

impl Claim {
    /// Whose key it is, whether it is for us, and whether it is recent. The signature itself is not checked yet.
    pub fn read(
        head: &Parts,
        keys: &Keys,
        scope: &Scope<'_>,
        now: SystemTime,
    ) -> Result<Claim, Refusal> {
        let given = Given::find(head)?;
        let parts: Vec<&str> = given.credential.split('/').collect();
        let [id, date, region, service, end] = parts[..] else {
            return Err(Refusal::Incomplete(format!(
                "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '{}'",
                given.credential
            )));
        };
        let key = keys.get(id).ok_or(Refusal::UnknownKey)?;
        if given.has_token && keys.session_tokens == SessionTokens::Refused {
            return Err(Refusal::UnknownKey);
        }
        let wrong = |message: String| Err(Refusal::Signature(message));
        if region != scope.region {
            return wrong(format!(
                "Credential should be scoped to a valid region: it is '{region}', and this is '{}'.",
                scope.region
            ));
        }
        if service != scope.service || end != TERMINATOR {
            return wrong(format!(
                "Credential should be scoped to correct service: '{}', and end in '{TERMINATOR}'.",
                scope.service
            ));
        }
        let time = given.time.strftime("%Y%m%dT%H%M%SZ").to_string();
        if !time.starts_with(date) || date.len() != 8 {
            return wrong(format!(
                "Date in Credential scope does not match YYYYMMDD from the date of the request: '{date}' != '{}'.",
                &time[..8]
            ));
        }
        given.check_time(now)?;
        let signed: Vec<&str> = given.signed_headers.split(';').collect();
        check_signed(head, &signed, given.expires.is_none())?;
        let signature = hex::decode(&given.signature).unwrap_or_default();
        let covered = Covered {
            method: head.method.as_str(),
            uri: &head.uri,
            headers: &head.headers,
            signed: &signed,
        };
        Ok(Claim {
            key: Arc::clone(key),
            canonical: covered.canonical(),
            time,
            date: date.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            signature,
            announced: text(&head.headers, "x-amz-content-sha256")?,
        })
    }

    /// Whether the signature is this key's for this payload; compared in constant time.
    pub fn prove(self, payload: Payload<'_>) -> Result<Arc<Key>, Refusal> {
        let actual = canonical::sha256(match payload {
            Payload::Body(body) => body,
            Payload::Stream => b"",
        });
        let unsigned_is_safe = match payload {
            Payload::Body(body) => body.is_empty(),
            Payload::Stream => true,
        };
        let hash = match self.announced.as_deref() {
            None => actual.as_str(),
            Some(announced) if announced == actual => announced,
            Some(UNSIGNED) if unsigned_is_safe => UNSIGNED,
            Some(announced) => {
                return Err(Refusal::Signature(format!(
                    "The value of x-amz-content-sha256 is '{announced}', the SHA-256 of the payload is '{actual}'."
                )));
            }
        };
        let scope = canonical::scope(&self.date, &self.region, &self.service);
        let text = canonical::string_to_sign(&self.time, &scope, &(self.canonical + hash));
        let secret = self.key.secret();
        let key = canonical::signing_key(secret, &self.date, &self.region, &self.service);
        match hmac::verify(&key, text.as_bytes(), &self.signature) {
            Ok(()) => Ok(self.key),
            Err(_) => Err(Refusal::Signature(
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
                 Access Key and signing method. Consult the service documentation for details."
                    .to_owned(),
            )),
        }
    }
}

impl Given {
    fn find(head: &Parts) -> Result<Given, Refusal> {
        let query: Vec<(String, String)> = parameters(head.uri.query().unwrap_or_default());
        let in_query = query
            .iter()
            .any(|(name, _)| name == "X-Amz-Algorithm" || name == "X-Amz-Signature");
        match (head.headers.contains_key(header::AUTHORIZATION), in_query) {
            (false, false) => Err(Refusal::Missing),
            (true, true) => Err(Refusal::Incomplete(
                "the request is signed twice: in the Authorization header and in the query"
                    .to_owned(),
            )),
            (true, false) => Given::in_header(&head.headers),
            (false, true) => Given::in_query(&query),
        }
    }

    fn in_header(headers: &HeaderMap) -> Result<Given, Refusal> {
        let value = text(headers, "authorization")?.unwrap_or_default();
        let Some(rest) = value.strip_prefix(ALGORITHM) else {
            return Err(Refusal::Incomplete(format!(
                "Authorization header must begin with '{ALGORITHM}'"
            )));
        };
        let mut members: Vec<(&str, &str)> = Vec::new();
        for member in rest
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
        {
            let (name, value) = member.split_once('=').unwrap_or((member, ""));
            members.push((name, value));
        }
        let find = |name: &str| {
            one(members
                .iter()
                .filter(|(known, _)| *known == name)
                .map(|(_, value)| *value))
            .ok_or_else(|| {
                Refusal::Incomplete(format!(
                    "Authorization header requires '{name}' parameter, once"
                ))
            })
        };
        let time = text(headers, "x-amz-date")?.or(text(headers, "date")?).ok_or_else(|| {
            Refusal::Incomplete(
                "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header".to_owned(),
            )
        })?;
        Ok(Given {
            credential: find("Credential")?.to_owned(),
            signed_headers: find("SignedHeaders")?.to_owned(),
            signature: find("Signature")?.to_owned(),
            time: parse_time(&time)?,
            expires: None,
            has_token: headers.contains_key("x-amz-security-token"),
        })
    }

    fn in_query(query: &[(String, String)]) -> Result<Given, Refusal> {
        let find = |name: &str| {
            one(query
                .iter()
                .filter(|(known, _)| known == name)
                .map(|(_, value)| value.as_str()))
            .ok_or_else(|| {
                Refusal::Incomplete(format!(
                    "AWS query-string parameters must include '{name}', once"
                ))
            })
        };
        if find("X-Amz-Algorithm")? != ALGORITHM {
            return Err(Refusal::Incomplete(format!(
                "X-Amz-Algorithm must be '{ALGORITHM}'"
            )));
        }
        let expires = find("X-Amz-Expires")?;
        let expires = expires
            .parse()
            .ok()
            .filter(|seconds| (1..=MAX_EXPIRES).contains(seconds));
        let expires = expires.ok_or_else(|| {
            Refusal::Incomplete(format!(
                "X-Amz-Expires must be from 1 to {MAX_EXPIRES} seconds"
            ))
        })?;
        Ok(Given {
            credential: find("X-Amz-Credential")?.to_owned(),
            signed_headers: find("X-Amz-SignedHeaders")?.to_owned(),
            signature: find("X-Amz-Signature")?.to_owned(),
            time: parse_time(find("X-Amz-Date")?)?,
            expires: Some(Duration::from_secs(expires)),
            has_token: query.iter().any(|(name, _)| name == "X-Amz-Security-Token"),
        })
    }

    fn check_time(&self, now: SystemTime) -> Result<(), Refusal> {
        let seconds = |time: Timestamp| i128::from(time.as_second());
        let signed = seconds(self.time);
        let now = Timestamp::try_from(now).unwrap_or_default();
        let life = self.expires.unwrap_or(SKEW).as_secs();
        let spell = |time: Timestamp| time.strftime("%Y%m%dT%H%M%SZ").to_string();
        if seconds(now) > signed + i128::from(life) {
            return Err(Refusal::Signature(format!(
                "Signature expired: {} is now earlier than {} less {life} s.",
                spell(self.time),
                spell(now)
            )));
        }
        if signed > seconds(now) + i128::from(SKEW.as_secs()) {
            return Err(Refusal::Signature(format!(
                "Signature not yet current: {} is still later than {} plus {} s.",
                spell(self.time),
                spell(now),
                SKEW.as_secs()
            )));
        }
        Ok(())
    }
}

/// The host binds a signature to us, the date to its time; a name without a header is a mistake of the signer's.
fn check_signed(head: &Parts, signed: &[&str], dated: bool) -> Result<(), Refusal> {
    let lower =
        |name: &&str| !name.is_empty() && !name.bytes().any(|byte| byte.is_ascii_uppercase());
    if !signed.is_sorted() || !signed.iter().all(lower) {
        return Err(Refusal::Incomplete(
            "SignedHeaders must be lower case and sorted".to_owned(),
        ));
    }
    let date = if head.headers.contains_key("x-amz-date") {
        "x-amz-date"
    } else {
        "date"
    };
    let mut needed = vec!["host"];
    needed.extend(dated.then_some(date));
    for name in needed {
        if !signed.contains(&name) {
            return Err(Refusal::Signature(format!(
                "'{name}' must be a signed header."
            )));
        }
    }
    let absent = |name: &&&str| canonical::value(&head.uri, &head.headers, name).is_none();
    match signed.iter().find(absent) {
        Some(name) => Err(Refusal::Signature(format!(
            "SignedHeaders names '{name}', and the request has no such header."
        ))),
        None => Ok(()),
    }
}

/// The only one; none if there are several.
fn one<T>(mut found: impl Iterator<Item = T>) -> Option<T> {
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// A header that must not be there twice.
fn text(headers: &HeaderMap, name: &str) -> Result<Option<String>, Refusal> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(None),
        (Some(line), None) => Ok(Some(
            String::from_utf8_lossy(line.as_bytes()).trim().to_owned(),
        )),
        (Some(_), Some(_)) => Err(Refusal::Incomplete(format!(
            "header '{name}' is there twice"
        ))),
    }
}

fn parameters(query: &str) -> Vec<(String, String)> {
    let decoded = |text: &str| String::from_utf8_lossy(&canonical::decode(text)).into_owned();
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

/// ISO 8601 basic as in `X-Amz-Date`, or HTTP's own as in `Date`.
fn parse_time(text: &str) -> Result<Timestamp, Refusal> {
    let basic = DateTime::strptime("%Y%m%dT%H%M%SZ", text)
        .and_then(|time| time.to_zoned(TimeZone::UTC))
        .map(|time| time.timestamp());
    basic
        .or_else(|_| jiff::fmt::rfc2822::parse(text).map(|time| time.timestamp()))
        .map_err(|_| {
            Refusal::Incomplete(format!(
                "Date must be in ISO-8601 'basic format'. Got '{text}'. See http://en.wikipedia.org/wiki/ISO_8601"
            ))
        })
}

#[cfg(test)]
mod tests;
