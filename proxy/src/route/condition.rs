// SPDX-License-Identifier: Apache-2.0
//! Conditions of a route beside its path: headers (pseudo headers included), query parameters, gRPC. Pure.

use http::HeaderMap;
use http::HeaderName;
use http::header;
use pillion_xds::route as xds;
use regex::bytes::Regex;

/// What a request asks, as far as routing looks.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'r> {
    /// Normalised path without query.
    pub path: &'r str,
    /// Query without `?`.
    pub query: Option<&'r str>,
    /// Method.
    pub method: &'r str,
    /// `http` or `https`.
    pub scheme: &'r str,
    /// Host, as received.
    pub authority: &'r str,
    /// Headers.
    pub headers: &'r HeaderMap,
}

#[derive(Debug, Default)]
pub(super) struct Conditions {
    headers: Vec<HeaderCondition>,
    query: Vec<xds::QueryMatch>,
    grpc: bool,
}

#[derive(Debug)]
struct HeaderCondition {
    name: Name,
    value: Value,
    invert: bool,
}

#[derive(Debug)]
enum Name {
    Method,
    Scheme,
    Authority,
    Path,
    Header(HeaderName),
}

#[derive(Debug)]
enum Value {
    Present,
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    Regex(Regex),
    Range(i64, i64),
}

impl Conditions {
    pub(super) fn compile(matching: &xds::RouteMatch) -> Result<Conditions, String> {
        let headers = matching
            .headers
            .iter()
            .map(HeaderCondition::compile)
            .collect::<Result<_, _>>()?;
        Ok(Conditions {
            headers,
            query: matching.query.clone(),
            grpc: matching.grpc,
        })
    }

    pub(super) fn hold(&self, asked: &Asked<'_>) -> bool {
        (!self.grpc || is_grpc(asked.headers))
            && self.headers.iter().all(|condition| condition.holds(asked))
            && self
                .query
                .iter()
                .all(|parameter| query_holds(parameter, asked.query))
    }
}

/// Whether the body is gRPC by its content type: `application/grpc`, or with `+proto` and the like.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else {
        return false;
    };
    let Some(rest) = kind.as_bytes().strip_prefix(b"application/grpc") else {
        return false;
    };
    matches!(rest.first(), None | Some(b'+' | b';'))
}

impl HeaderCondition {
    fn compile(matching: &xds::HeaderMatch) -> Result<HeaderCondition, String> {
        let name = match matching.name.as_str() {
            ":method" => Name::Method,
            ":scheme" => Name::Scheme,
            ":authority" => Name::Authority,
            ":path" => Name::Path,
            "host" => Name::Authority,
            other => Name::Header(
                other
                    .parse()
                    .map_err(|_| format!("headers[{other}]: not a header name"))?,
            ),
        };
        let bytes = |text: &str| Box::from(text.as_bytes());
        let value = match &matching.value {
            xds::HeaderValueMatch::Present => Value::Present,
            xds::HeaderValueMatch::Exact(text) => Value::Exact(bytes(text)),
            xds::HeaderValueMatch::Prefix(text) => Value::Prefix(bytes(text)),
            xds::HeaderValueMatch::Suffix(text) => Value::Suffix(bytes(text)),
            xds::HeaderValueMatch::Regex(pattern) => Value::Regex(
                Regex::new(&super::path::anchored(pattern)).map_err(|error| {
                    format!("headers[{}].regex {pattern:?}: {error}", matching.name)
                })?,
            ),
            xds::HeaderValueMatch::Range(start, end) => Value::Range(*start, *end),
        };
        Ok(HeaderCondition {
            name,
            value,
            invert: matching.invert,
        })
    }

    fn holds(&self, asked: &Asked<'_>) -> bool {
        self.compared(asked) != self.invert
    }

    fn compared(&self, asked: &Asked<'_>) -> bool {
        match &self.name {
            Name::Method => self.value.holds(asked.method.as_bytes()),
            Name::Scheme => self.value.holds(asked.scheme.as_bytes()),
            Name::Authority => self.value.holds(asked.authority.as_bytes()),
            Name::Path => match asked.query {
                Some(query) => self
                    .value
                    .holds(format!("{}?{query}", asked.path).as_bytes()),
                None => self.value.holds(asked.path.as_bytes()),
            },
            // As Envoy since 1.31: of repeated lines one that holds is enough, and they are not joined first.
            Name::Header(name) => {
                let mut lines = asked.headers.get_all(name).iter();
                lines.any(|value| self.value.holds(value.as_bytes()))
            }
        }
    }
}

impl Value {
    fn holds(&self, value: &[u8]) -> bool {
        match self {
            Value::Present => true,
            Value::Exact(expected) => value == &**expected,
            Value::Prefix(start) => value.starts_with(start),
            Value::Suffix(end) => value.ends_with(end),
            Value::Regex(regex) => regex.is_match(value),
            Value::Range(start, end) => std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.trim().parse::<i64>().ok())
                .is_some_and(|number| (*start..*end).contains(&number)),
        }
    }
}

fn query_holds(parameter: &xds::QueryMatch, query: Option<&str>) -> bool {
    let pairs = query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty());
    let mut values = pairs.filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name == parameter.name).then_some(value)
    });
    // As Envoy: the first value of a repeated parameter counts, and escapes are compared as they were written.
    match (&parameter.exact, values.next()) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(expected), Some(value)) => value == expected,
    }
}
