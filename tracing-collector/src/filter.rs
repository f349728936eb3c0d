// SPDX-License-Identifier: Apache-2.0
//! X-Ray's filter expressions: [`lex`] text to tokens, [`parse`] tokens to an [`Expression`], [`matching`] whether a
//! trace's row satisfies one. Pure. Called by `query`, which also says what groups there are.
//!
//! Words and AND/OR are read in any case, values as they are. Two terms side by side are an AND. A comparison with
//! something that is not there is false, also `!=`.

mod lex;
mod matching;
mod parse;
mod words;

use serde_json::Value;

use crate::summary::Summary;

/// Longer is no expression that a person or a console writes.
pub(crate) const MAX_CHARACTERS: usize = 2000;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("at offset {offset}: expected {expected}, found {found}")]
pub(crate) struct FilterError {
    /// In characters, from 0.
    pub(crate) offset: usize,
    pub(crate) expected: String,
    pub(crate) found: String,
}

/// A parsed expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Filter(Expression);

/// A group as far as `group.name` and `group.arn` need it; one without a filter holds every trace.
pub(crate) struct GroupFilter {
    pub(crate) name: String,
    pub(crate) arn: String,
    pub(crate) filter: Option<Filter>,
}

impl Filter {
    pub(crate) fn parse(text: &str) -> Result<Filter, FilterError> {
        parse::filter(text).map(Filter)
    }

    pub(crate) fn matches(&self, summary: &Summary, groups: &[GroupFilter]) -> bool {
        matching::matches(&self.0, summary, groups)
    }

    /// Whether it asks for membership in a group.
    pub(crate) fn names_a_group(&self) -> bool {
        names_a_group(&self.0)
    }
}

fn names_a_group(expression: &Expression) -> bool {
    match expression {
        Expression::All(parts) | Expression::Any(parts) => parts.iter().any(names_a_group),
        Expression::Not(inner) => names_a_group(inner),
        Expression::Group { .. } => true,
        Expression::Flag(..)
        | Expression::Number(..)
        | Expression::Text(..)
        | Expression::Annotation(..)
        | Expression::Service(..)
        | Expression::Edge(..)
        | Expression::Cause { .. }
        | Expression::CauseJson { .. } => false,
    }
}

/// What a time series is about: `service(…)`, `edge(…, …)` or `id(…)`, without a block.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum EntitySelector {
    Service(Selector),
    Edge(Selector, Selector),
}

impl EntitySelector {
    pub(crate) fn parse(text: &str) -> Result<EntitySelector, FilterError> {
        parse::entity_selector(text)
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Expression {
    All(Vec<Expression>),
    Any(Vec<Expression>),
    Not(Box<Expression>),
    /// Whether the flag is as wanted.
    Flag(FlagWord, bool),
    Number(NumberWord, Comparison, f64),
    /// Alone: whether it is set.
    Text(TextWord, Option<(TextTest, String)>),
    Annotation(String, Option<AnnotationTest>),
    Service(Selector, Option<Box<Expression>>),
    Edge(Selector, Selector, Option<Box<Expression>>),
    Cause {
        kind: CauseKind,
        level: CauseLevel,
        block: Box<Expression>,
    },
    CauseJson {
        kind: Option<CauseKind>,
        equal: bool,
        json: Value,
    },
    Group {
        by: GroupWord,
        equal: bool,
        value: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FlagWord {
    Ok,
    Error,
    Throttle,
    Fault,
    Partial,
    Inferred,
    Root,
    First,
    Last,
    Remote,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NumberWord {
    ResponseTime,
    Duration,
    HttpStatus,
    Index,
    Coverage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TextWord {
    HttpUrl,
    HttpMethod,
    HttpUserAgent,
    HttpClientIp,
    User,
    Name,
    Type,
    Message,
    AvailabilityZone,
    InstanceId,
    ResourceArn,
    AccountId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GroupWord {
    Name,
    Arn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TextTest {
    Equal,
    NotEqual,
    Contains,
    BeginsWith,
    EndsWith,
}

/// An annotation is of one of three types, and so is what it is compared with.
#[derive(Clone, Debug, PartialEq)]
enum AnnotationTest {
    Number(Comparison, f64),
    Text(TextTest, String),
    Flag(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CauseKind {
    Fault,
    Error,
    ResponseTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CauseLevel {
    Service,
    Entity,
    Exception,
}

/// Which nodes are meant: every member that is given must be equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    name: Option<String>,
    kind: Option<String>,
    account: Option<String>,
}

impl Comparison {
    fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Comparison::Equal => left == right,
            Comparison::NotEqual => left != right,
            Comparison::Less => left < right,
            Comparison::AtMost => left <= right,
            Comparison::Greater => left > right,
            Comparison::AtLeast => left >= right,
        }
    }
}

impl TextTest {
    fn holds(self, text: &str, value: &str) -> bool {
        match self {
            TextTest::Equal => text == value,
            TextTest::NotEqual => text != value,
            TextTest::Contains => text.contains(value),
            TextTest::BeginsWith => text.starts_with(value),
            TextTest::EndsWith => text.ends_with(value),
        }
    }
}

#[cfg(test)]
mod tests;
