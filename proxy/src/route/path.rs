// SPDX-License-Identifier: Apache-2.0
//! Paths: normalisation before matching, path conditions, rewrites. Pure. What is matched is what is forwarded, so that
//! no spelling of a path reaches an application past a rule that was meant for it.

use std::borrow::Cow;

use pillion_xds::route as xds;
use regex::Regex;

/// How a path is compared.
#[derive(Debug)]
pub(super) enum PathMatch {
    Prefix(Box<str>),
    Exact(Box<str>),
    Regex(Regex),
}

impl PathMatch {
    pub(super) fn compile(path: &xds::PathMatch) -> Result<PathMatch, String> {
        Ok(match path {
            xds::PathMatch::Prefix(prefix) => PathMatch::Prefix(Box::from(prefix.as_str())),
            xds::PathMatch::Exact(exact) => PathMatch::Exact(Box::from(exact.as_str())),
            xds::PathMatch::Regex(pattern) => PathMatch::Regex(
                Regex::new(&anchored(pattern))
                    .map_err(|error| format!("match.path regex {pattern:?}: {error}"))?,
            ),
        })
    }

    pub(super) fn holds(&self, path: &str) -> bool {
        match self {
            PathMatch::Prefix(prefix) => path.starts_with(&**prefix),
            PathMatch::Exact(exact) => path == &**exact,
            PathMatch::Regex(regex) => regex.is_match(path),
        }
    }
}

/// The pattern as a full match.
pub(super) fn anchored(pattern: &str) -> String {
    format!("^(?:{pattern})$")
}

/// How a path is changed before it is sent.
#[derive(Debug)]
pub(super) enum Rewrite {
    /// The first `matched` bytes (all of them for an exact match) become `with`.
    Swap {
        matched: Box<str>,
        with: Box<str>,
    },
    /// The whole path becomes this: a prefix rewrite on a regex route.
    Whole(Box<str>),
    Regex {
        regex: Regex,
        with: Box<str>,
    },
}

impl Rewrite {
    pub(super) fn compile(
        rewrite: &xds::PathRewrite,
        path: &xds::PathMatch,
    ) -> Result<Rewrite, String> {
        match rewrite {
            xds::PathRewrite::Prefix(with) => Ok(match path {
                xds::PathMatch::Prefix(matched) | xds::PathMatch::Exact(matched) => Rewrite::Swap {
                    matched: Box::from(matched.as_str()),
                    with: Box::from(with.as_str()),
                },
                xds::PathMatch::Regex(_) => Rewrite::Whole(Box::from(with.as_str())),
            }),
            xds::PathRewrite::Regex {
                pattern,
                substitution,
            } => {
                let regex = Regex::new(pattern)
                    .map_err(|error| format!("regex_rewrite {pattern:?}: {error}"))?;
                Ok(Rewrite::Regex {
                    regex,
                    with: Box::from(dollars(substitution)),
                })
            }
        }
    }

    /// The path to send; `None` when nothing changes.
    pub(super) fn apply(&self, path: &str) -> Option<String> {
        match self {
            Rewrite::Swap { matched, with } => path
                .strip_prefix(&**matched)
                .map(|rest| format!("{with}{rest}")),
            Rewrite::Whole(with) => Some(with.to_string()),
            Rewrite::Regex { regex, with } => match regex.replace_all(path, &**with) {
                Cow::Borrowed(_) => None,
                Cow::Owned(changed) => Some(changed),
            },
        }
    }
}

/// RE2's `\1` in the regex crate's spelling, `${1}`; a literal `$` is doubled.
fn dollars(substitution: &str) -> String {
    let mut out = String::with_capacity(substitution.len());
    let mut letters = substitution.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, letters.peek().copied()) {
            ('$', _) => out.push_str("$$"),
            ('\\', Some(digit)) if digit.is_ascii_digit() => {
                letters.next();
                out.push_str("${");
                out.push(digit);
                out.push('}');
            }
            ('\\', Some('\\')) => {
                letters.next();
                out.push('\\');
            }
            (other, _) => out.push(other),
        }
    }
    out
}

/// A path that is refused rather than guessed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It would climb above the root.
    #[error("path climbs above its root")]
    AboveRoot,
    /// It holds an encoded NUL, or a fragment.
    #[error("path holds a character that no path has")]
    Forbidden,
}

/// What normalising takes care of.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// Dot segments, escapes, backslashes.
    pub dots: bool,
    /// Repeated slashes.
    pub slashes: bool,
}

/// Normalises a path (RFC 3986 section 6.2.2: dot segments, unreserved characters decoded; `\` is `/`. Other escapes
/// keep their spelling, because signed URLs cover it) and merges slashes, as the two settings say. `None` when it already is in that form.
pub fn normalise(path: &str, form: Form) -> Result<Option<String>, PathError> {
    let Form { dots, slashes } = form;
    if !needs_work(path, form) {
        return Ok(None);
    }
    let decoded = if dots { decode(path)? } else { path.to_owned() };
    let resolved = if dots {
        resolve(&decoded, slashes)?
    } else {
        decoded
    };
    let merged = if slashes { merge(&resolved) } else { resolved };
    Ok((merged != path).then_some(merged))
}

fn needs_work(path: &str, Form { dots, slashes }: Form) -> bool {
    let bytes = path.as_bytes();
    (dots && (bytes.iter().any(|byte| matches!(byte, b'%' | b'\\' | b'#')) || path.contains("/.")))
        || (slashes && path.contains("//"))
}

/// The value of two hex digits at the start.
fn hex_pair(bytes: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (high, low) = (digit(*bytes.first()?)?, digit(*bytes.get(1)?)?);
    u8::try_from(high * 16 + low).ok()
}

fn decode(path: &str) -> Result<String, PathError> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(letter) = rest.chars().next() {
        let tail = &rest[letter.len_utf8()..];
        rest = tail;
        match (letter, hex_pair(tail.as_bytes())) {
            ('#', _) => return Err(PathError::Forbidden),
            ('\\', _) => out.push('/'),
            ('%', Some(0)) => return Err(PathError::Forbidden),
            ('%', Some(value)) => {
                if value.is_ascii_alphanumeric() || matches!(value, b'-' | b'.' | b'_' | b'~') {
                    out.push(char::from(value));
                } else {
                    out.push('%');
                    out.push_str(&tail[..2]);
                }
                rest = &tail[2..];
            }
            (other, _) => out.push(other),
        }
    }
    Ok(out)
}

fn resolve(path: &str, slashes: bool) -> Result<String, PathError> {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." if last => kept.push(""),
            "." => {}
            ".." => {
                kept.pop().ok_or(PathError::AboveRoot)?;
                if last {
                    kept.push("");
                }
            }
            "" if slashes && !last => {}
            other => kept.push(other),
        }
    }
    Ok(format!("/{}", kept.join("/")))
}

fn merge(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for letter in path.chars() {
        if letter != '/' || !out.ends_with('/') {
            out.push(letter);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Form = Form {
        dots: true,
        slashes: true,
    };

    fn normal(path: &str) -> String {
        normalise(path, ALL)
            .unwrap()
            .unwrap_or_else(|| path.to_owned())
    }

    #[test]
    fn a_plain_path_is_left_alone_without_a_copy() {
        assert_eq!(normalise("/a/b.c/d", ALL), Ok(None));
    }

    #[test]
    fn dot_segments_are_resolved() {
        assert_eq!(normal("/a/./b/../c"), "/a/c");
        assert_eq!(normal("/a/.."), "/");
        assert_eq!(normal("/a/b/."), "/a/b/");
    }

    #[test]
    fn encoded_dots_and_backslashes_are_seen_through() {
        assert_eq!(normal("/a/%2e%2E/b"), "/b");
        assert_eq!(normal("/a\\..\\b"), "/b");
    }

    #[test]
    fn slashes_are_merged_before_dots_climb() {
        assert_eq!(normal("//a///b"), "/a/b");
        assert_eq!(normal("/a//../b"), "/b");
    }

    #[test]
    fn an_encoded_slash_stays_as_it_was_written() {
        assert_eq!(normal("/a%2fb/%2e"), "/a%2fb/");
    }

    #[test]
    fn climbing_above_the_root_and_nul_are_refused() {
        assert_eq!(normalise("/../etc", ALL), Err(PathError::AboveRoot));
        assert_eq!(normalise("/a%00b", ALL), Err(PathError::Forbidden));
    }

    #[test]
    fn re2_references_become_the_crate_s() {
        assert_eq!(dollars(r"/v\1/$x\\"), "/v${1}/$$x\\");
    }
}
