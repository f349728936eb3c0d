// SPDX-License-Identifier: Apache-2.0
//! Conditions of routes: path, headers, query. Called by the route table's encode and decode.

use regex::Regex;
use regex::RegexBuilder;

use super::HeaderMatch;
use super::HeaderValueMatch;
use super::PathMatch;
use super::QueryMatch;
use super::RouteMatch;
use crate::field;
use crate::field::Checked;
use crate::field::Holds;
use crate::field::Refusal;
use crate::field::Under;
use crate::field::refuse;
use crate::proto::kind::Int64Range;
use crate::proto::matcher;
use crate::proto::matcher::string_matcher::MatchPattern;
use crate::proto::route as proto;
use crate::proto::route::header_matcher::HeaderMatchSpecifier;
use crate::proto::route::query_parameter_matcher::QueryParameterMatchSpecifier;
use crate::proto::route::route_match::GrpcRouteMatchOptions;
use crate::proto::route::route_match::PathSpecifier;

/// Bound on the memory of one compiled pattern; patterns come from outside.
const REGEX_BYTES: usize = 1 << 20;

/// A pattern that does not compile, or grows too large.
#[derive(Debug, thiserror::Error)]
#[error("regex {pattern:?} does not compile")]
pub struct RegexError {
    pattern: String,
    source: regex::Error,
}

/// Compiles a pattern so that it must match the whole value, as Envoy matches.
pub fn full_match(pattern: &str) -> Result<Regex, RegexError> {
    // Compiled alone first, so that `a)(b` cannot escape the group around it.
    compile(pattern)
        .and_then(|_| compile(&format!("^(?:{pattern})$")))
        .map_err(|source| RegexError {
            pattern: pattern.to_owned(),
            source,
        })
}

fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).size_limit(REGEX_BYTES).build()
}

pub(super) fn encode_regex(pattern: &str) -> matcher::RegexMatcher {
    matcher::RegexMatcher {
        regex: pattern.to_owned(),
        engine_type: None,
    }
}

/// The pattern, known to compile. Which engine ran it in Envoy does not matter.
pub(super) fn check_regex(field: &str, regex: matcher::RegexMatcher) -> Checked<String> {
    let matcher::RegexMatcher {
        regex,
        engine_type: _,
    } = regex;
    let regex = field::not_empty(field, regex)?;
    match full_match(&regex) {
        Ok(_) => Ok(regex),
        Err(error) => Err(Refusal::new(
            field,
            format_args!("{regex:?} does not compile: {}", error.source),
        )),
    }
}

impl RouteMatch {
    pub(super) fn encode(&self) -> proto::RouteMatch {
        let path = match &self.path {
            PathMatch::Prefix(prefix) => PathSpecifier::Prefix(prefix.clone()),
            PathMatch::Exact(path) => PathSpecifier::Path(path.clone()),
            PathMatch::Regex(pattern) => PathSpecifier::SafeRegex(encode_regex(pattern)),
        };
        proto::RouteMatch {
            path_specifier: Some(path),
            headers: self.headers.iter().map(HeaderMatch::encode).collect(),
            query_parameters: self.query.iter().map(QueryMatch::encode).collect(),
            grpc: self.grpc.then(GrpcRouteMatchOptions::default),
            ..Default::default()
        }
    }

    pub(super) fn check(matching: proto::RouteMatch) -> Checked<RouteMatch> {
        let proto::RouteMatch {
            case_sensitive,
            runtime_fraction,
            headers,
            query_parameters,
            cookies,
            grpc,
            tls_context,
            dynamic_metadata,
            filter_state,
            path_specifier,
        } = matching;
        refuse!(
            runtime_fraction,
            cookies,
            tls_context,
            dynamic_metadata,
            filter_state
        );
        field::only("case_sensitive", case_sensitive, Holds::True)?;
        let path = match field::required("path_specifier", path_specifier)? {
            PathSpecifier::Prefix(prefix) => PathMatch::Prefix(prefix),
            PathSpecifier::Path(path) => PathMatch::Exact(path),
            PathSpecifier::SafeRegex(regex) => PathMatch::Regex(check_regex("safe_regex", regex)?),
            PathSpecifier::ConnectMatcher(_) => {
                return Err(Refusal::unsupported("connect_matcher"));
            }
            PathSpecifier::PathSeparatedPrefix(_) => {
                return Err(Refusal::new(
                    "path_separated_prefix",
                    "is not supported; use prefix",
                ));
            }
            PathSpecifier::PathMatchPolicy(_) => {
                return Err(Refusal::unsupported("path_match_policy"));
            }
        };
        Ok(RouteMatch {
            path,
            headers: field::each("headers", headers, HeaderMatch::check)?,
            query: field::each("query_parameters", query_parameters, QueryMatch::check)?,
            grpc: grpc.is_some(),
        })
    }
}

impl HeaderMatch {
    fn encode(&self) -> proto::HeaderMatcher {
        let specifier = match &self.value {
            HeaderValueMatch::Present => HeaderMatchSpecifier::PresentMatch(true),
            HeaderValueMatch::Exact(text) => text_match(MatchPattern::Exact(text.clone())),
            HeaderValueMatch::Prefix(text) => text_match(MatchPattern::Prefix(text.clone())),
            HeaderValueMatch::Suffix(text) => text_match(MatchPattern::Suffix(text.clone())),
            HeaderValueMatch::Regex(pattern) => {
                text_match(MatchPattern::SafeRegex(encode_regex(pattern)))
            }
            HeaderValueMatch::Range(start, end) => HeaderMatchSpecifier::RangeMatch(Int64Range {
                start: *start,
                end: *end,
            }),
        };
        proto::HeaderMatcher {
            name: self.name.clone(),
            invert_match: self.invert,
            treat_missing_header_as_empty: self.absent_counts(),
            header_match_specifier: Some(specifier),
        }
    }

    /// Envoy's inverted conditions fail on an absent header unless it counts as empty; App Mesh's hold.
    fn absent_counts(&self) -> bool {
        self.invert && self.value != HeaderValueMatch::Present
    }

    fn check(header: proto::HeaderMatcher) -> Checked<HeaderMatch> {
        let proto::HeaderMatcher {
            name,
            invert_match,
            treat_missing_header_as_empty,
            header_match_specifier,
        } = header;
        let name = field::not_empty("name", name)?.to_ascii_lowercase();
        let mut invert = invert_match;
        let value = match header_match_specifier {
            None | Some(HeaderMatchSpecifier::PresentMatch(true)) => HeaderValueMatch::Present,
            Some(HeaderMatchSpecifier::PresentMatch(false)) => {
                invert = !invert;
                HeaderValueMatch::Present
            }
            Some(HeaderMatchSpecifier::RangeMatch(range)) => {
                HeaderValueMatch::Range(range.start, range.end)
            }
            Some(HeaderMatchSpecifier::StringMatch(text)) => {
                check_text(text).under("string_match")?
            }
            Some(_) => {
                return Err(Refusal::new(
                    name,
                    "deprecated match; use string_match, range_match or present_match",
                ));
            }
        };
        let header = HeaderMatch {
            name,
            value,
            invert,
        };
        if treat_missing_header_as_empty != header.absent_counts() {
            return Err(Refusal::new(
                "treat_missing_header_as_empty",
                format_args!(
                    "of {} must be {}: an absent header satisfies inverted conditions only",
                    header.name,
                    header.absent_counts()
                ),
            ));
        }
        Ok(header)
    }
}

fn text_match(pattern: MatchPattern) -> HeaderMatchSpecifier {
    HeaderMatchSpecifier::StringMatch(matcher::StringMatcher {
        ignore_case: false,
        match_pattern: Some(pattern),
    })
}

fn check_text(text: matcher::StringMatcher) -> Checked<HeaderValueMatch> {
    let matcher::StringMatcher {
        ignore_case,
        match_pattern,
    } = text;
    refuse!(ignore_case);
    match field::required("match_pattern", match_pattern)? {
        MatchPattern::Exact(text) => Ok(HeaderValueMatch::Exact(text)),
        MatchPattern::Prefix(text) => Ok(HeaderValueMatch::Prefix(text)),
        MatchPattern::Suffix(text) => Ok(HeaderValueMatch::Suffix(text)),
        MatchPattern::SafeRegex(regex) => {
            Ok(HeaderValueMatch::Regex(check_regex("safe_regex", regex)?))
        }
        MatchPattern::Contains(_) => Err(Refusal::unsupported("contains")),
        MatchPattern::Custom(_) => Err(Refusal::unsupported("custom")),
    }
}

impl QueryMatch {
    fn encode(&self) -> proto::QueryParameterMatcher {
        let specifier = match &self.exact {
            None => QueryParameterMatchSpecifier::PresentMatch(true),
            Some(text) => QueryParameterMatchSpecifier::StringMatch(matcher::StringMatcher {
                ignore_case: false,
                match_pattern: Some(MatchPattern::Exact(text.clone())),
            }),
        };
        proto::QueryParameterMatcher {
            name: self.name.clone(),
            query_parameter_match_specifier: Some(specifier),
        }
    }

    fn check(query: proto::QueryParameterMatcher) -> Checked<QueryMatch> {
        let proto::QueryParameterMatcher {
            name,
            query_parameter_match_specifier,
        } = query;
        let name = field::not_empty("name", name)?;
        let exact = match query_parameter_match_specifier {
            None | Some(QueryParameterMatchSpecifier::PresentMatch(true)) => None,
            Some(QueryParameterMatchSpecifier::StringMatch(matcher::StringMatcher {
                ignore_case: false,
                match_pattern: Some(MatchPattern::Exact(text)),
            })) => Some(text),
            Some(_) => {
                return Err(Refusal::new(
                    name,
                    "must be present_match or an exact string_match",
                ));
            }
        };
        Ok(QueryMatch { name, exact })
    }
}
