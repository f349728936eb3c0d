// SPDX-License-Identifier: Apache-2.0
//! Conditions on requests that routes and gateway routes share: path, headers (gRPC metadata alike), query parameters.

use serde::{Deserialize, Serialize};

/// A whole-path condition; the rules hold it to exactly one of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathMatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    /// Matches the whole path, without the query string.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
}

/// A condition on one header or metadata entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderCondition {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invert: Option<bool>,
    /// Absent: the header must be present.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub method: Option<HeaderMatch>,
    pub name: String,
}

impl HeaderCondition {
    /// Whether the condition is negated; false when the spec says nothing.
    pub fn inverted(&self) -> bool {
        self.invert.unwrap_or(false)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HeaderMatch {
    Exact(String),
    Prefix(String),
    Range(MatchRange),
    /// Matches the whole value.
    Regex(String),
    Suffix(String),
}

/// Half open: `start <= value < end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchRange {
    pub end: i64,
    pub start: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryParameter {
    /// Absent, or without `exact`: the parameter must be present.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub value: Option<QueryParameterMatch>,
    pub name: String,
}

impl QueryParameter {
    /// The value demanded, `None` when presence is enough.
    pub fn exact(&self) -> Option<&str> {
        self.value.as_ref()?.exact.as_deref()
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryParameterMatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
}

impl Method {
    /// As on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Connect => "CONNECT",
            Method::Options => "OPTIONS",
            Method::Trace => "TRACE",
            Method::Patch => "PATCH",
        }
    }
}
