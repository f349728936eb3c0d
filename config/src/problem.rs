// SPDX-License-Identifier: Apache-2.0
//! One finding in a document: where, and why. Every check of this crate returns all of them; nobody stops at the first.

use std::fmt;

/// A finding, with the path of the member at fault as a person would write it: `spec.listeners[0].portMapping.port`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub struct Problem {
    /// Where in the document; empty for the document itself.
    pub path: String,
    /// What is wrong and what would be right; lower case, no full stop.
    pub message: String,
}

impl Problem {
    /// A finding at `path`.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
        }
    }

    /// The same finding seen from further out: `prefix` is put before the path.
    #[must_use]
    pub fn under(self, prefix: &str) -> Self {
        Self {
            path: join(prefix, &self.path),
            message: self.message,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

/// Most findings one sentence holds: a megabyte of bad items must not become megabytes of answer.
const SPOKEN: usize = 100;

/// All findings in one sentence, as an API answer shows them; past a hundred the rest is counted.
pub fn sentence(problems: &[Problem]) -> String {
    let mut parts: Vec<String> = problems
        .iter()
        .take(SPOKEN)
        .map(ToString::to_string)
        .collect();
    if problems.len() > SPOKEN {
        parts.push(format!("and {} more", problems.len() - SPOKEN));
    }
    parts.join("; ")
}

/// `outer` + `inner` as one path; `inner` may be a member name or an index such as `[0]`.
pub(crate) fn join(outer: &str, inner: &str) -> String {
    if outer.is_empty() || inner.is_empty() || inner.starts_with('[') {
        format!("{outer}{inner}")
    } else {
        format!("{outer}.{inner}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_as_path_and_message() {
        let problem = Problem::new("[0].port", "must be at least 1").under("spec.listeners");
        assert_eq!(
            problem.to_string(),
            "spec.listeners[0].port: must be at least 1"
        );
        assert_eq!(
            Problem::new("", "must be an object").to_string(),
            "must be an object"
        );
    }

    #[test]
    fn a_sentence_holds_every_problem() {
        let problems = [
            Problem::new("a", "is missing"),
            Problem::new("b", "is unknown"),
        ];
        assert_eq!(sentence(&problems), "a: is missing; b: is unknown");
    }

    #[test]
    fn a_sentence_stays_readable_for_thousands_of_problems() {
        let problems = vec![Problem::new("a", "is missing"); 1100];
        let text = sentence(&problems);
        assert!(
            text.ends_with("; and 1000 more") && text.len() < 2000,
            "{text}"
        );
    }
}
