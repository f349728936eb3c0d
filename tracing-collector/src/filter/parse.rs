// SPDX-License-Identifier: Apache-2.0
//! Tokens to an [`Expression`], by binding power: OR weakest, then AND (written or not), then `!`. A keyword is looked
//! up in the scope it stands in, so that what can never hold there is an error with its place, not an empty answer.

use crate::filter::AnnotationTest;
use crate::filter::CauseKind;
use crate::filter::CauseLevel;
use crate::filter::Comparison;
use crate::filter::EntitySelector;
use crate::filter::Expression;
use crate::filter::FilterError;
use crate::filter::FlagWord;
use crate::filter::GroupWord;
use crate::filter::Selector;
use crate::filter::TextTest;
use crate::filter::lex;
use crate::filter::lex::Placed;
use crate::filter::lex::Token;
use crate::filter::words::FLAGS;
use crate::filter::words::NUMBERS;
use crate::filter::words::Scope;
use crate::filter::words::TEXTS;
use crate::filter::words::find;
use crate::filter::words::keywords;
use crate::filter::words::known;

const MAX_DEPTH: usize = 16;
const OR: u8 = 1;
const AND: u8 = 2;
const NOT: u8 = 3;

pub(super) fn filter(text: &str) -> Result<Expression, FilterError> {
    let mut parser = Parser::new(text)?;
    let found = parser.expression(Scope::Trace, 0)?;
    parser.end()?;
    Ok(found)
}

pub(super) fn entity_selector(text: &str) -> Result<EntitySelector, FilterError> {
    let mut parser = Parser::new(text)?;
    let word = match &parser.here().token {
        Token::Word(word) => word.to_ascii_lowercase(),
        _ => String::new(),
    };
    let found = match word.as_str() {
        "id" => EntitySelector::Service(parser.selector()?),
        "service" => {
            parser.at += 1;
            EntitySelector::Service(parser.one_selector()?)
        }
        "edge" => {
            parser.at += 1;
            let (source, target) = parser.two_selectors()?;
            EntitySelector::Edge(source, target)
        }
        _ => return Err(parser.wrong("service(…), edge(…, …) or id(…)")),
    };
    parser.end()?;
    Ok(found)
}

struct Parser {
    tokens: Vec<Placed>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn new(text: &str) -> Result<Parser, FilterError> {
        Ok(Parser {
            tokens: lex::tokens(text)?,
            at: 0,
            depth: 0,
        })
    }

    fn here(&self) -> &Placed {
        let last = self.tokens.len() - 1;
        &self.tokens[self.at.min(last)]
    }

    fn wrong(&self, expected: impl Into<String>) -> FilterError {
        let Placed { token, offset } = self.here();
        FilterError {
            offset: *offset,
            expected: expected.into(),
            found: token.shown(),
        }
    }

    fn end(&self) -> Result<(), FilterError> {
        match self.here().token {
            Token::End => Ok(()),
            _ => Err(self.wrong("AND, OR or the end")),
        }
    }

    fn take_mark(&mut self, mark: char) -> bool {
        let there = self.here().token == Token::Mark(mark);
        self.at += usize::from(there);
        there
    }

    fn need_mark(&mut self, mark: char) -> Result<(), FilterError> {
        if self.take_mark(mark) {
            Ok(())
        } else {
            Err(self.wrong(format!("{mark:?}")))
        }
    }

    fn is_word(&self, wanted: &str) -> bool {
        matches!(&self.here().token, Token::Word(word) if word.eq_ignore_ascii_case(wanted))
    }

    fn deeper<T>(
        &mut self,
        inner: impl FnOnce(&mut Parser) -> Result<T, FilterError>,
    ) -> Result<T, FilterError> {
        if self.depth >= MAX_DEPTH {
            return Err(self.wrong(format!("at most {MAX_DEPTH} levels of nesting")));
        }
        self.depth += 1;
        let found = inner(self);
        self.depth -= 1;
        found
    }

    fn expression(&mut self, scope: Scope, least: u8) -> Result<Expression, FilterError> {
        let mut left = self.prefix(scope)?;
        loop {
            let (power, written) = match &self.here().token {
                Token::Word(word) if word.eq_ignore_ascii_case("or") => (OR, true),
                Token::Word(word) if word.eq_ignore_ascii_case("and") => (AND, true),
                Token::Word(_) | Token::Mark('!' | '(') => (AND, false),
                _ => return Ok(left),
            };
            if power <= least {
                return Ok(left);
            }
            self.at += usize::from(written);
            let right = self.expression(scope, power)?;
            left = join(power, left, right);
        }
    }

    fn prefix(&mut self, scope: Scope) -> Result<Expression, FilterError> {
        if self.take_mark('!') {
            let inner = self.deeper(|parser| parser.expression(scope, NOT))?;
            return Ok(Expression::Not(Box::new(inner)));
        }
        if self.here().token == Token::Mark('(') {
            return self.enclosed(scope, '(', ')');
        }
        self.term(scope)
    }

    /// Names where the bracket that is not closed was opened.
    fn enclosed(
        &mut self,
        scope: Scope,
        open: char,
        close: char,
    ) -> Result<Expression, FilterError> {
        let opened = self.here().offset;
        self.need_mark(open)?;
        let inner = self.deeper(|parser| parser.expression(scope, 0))?;
        if self.take_mark(close) {
            Ok(inner)
        } else {
            Err(self.wrong(format!(
                "AND, OR or {close:?} for the {open:?} at offset {opened}"
            )))
        }
    }

    fn term(&mut self, scope: Scope) -> Result<Expression, FilterError> {
        let Token::Word(spelled) = &self.here().token else {
            return Err(self.wrong(keywords(scope)));
        };
        let spelled = spelled.clone();
        let word = spelled.to_ascii_lowercase();
        if known(scope, &word) {
            if let Some(flag) = find(&FLAGS, &word) {
                self.at += 1;
                return self.flag(flag);
            }
            if let Some(number) = find(&NUMBERS, &word) {
                self.at += 1;
                let comparison = self.comparison()?;
                return Ok(Expression::Number(number, comparison, self.number()?));
            }
            if let Some(text) = find(&TEXTS, &word) {
                self.at += 1;
                let test = self.text_test()?;
                return Ok(Expression::Text(text, test));
            }
        }
        if scope != Scope::Cause && (word == "annotation" || word.starts_with("annotation.")) {
            return self.annotation(&spelled);
        }
        if scope == Scope::Trace {
            return self.complex(&word);
        }
        Err(self.wrong(keywords(scope)))
    }

    fn complex(&mut self, word: &str) -> Result<Expression, FilterError> {
        match word {
            "service" => {
                self.at += 1;
                let selector = self.one_selector()?;
                Ok(Expression::Service(selector, self.part_block()?))
            }
            "edge" => {
                self.at += 1;
                let (source, target) = self.two_selectors()?;
                Ok(Expression::Edge(source, target, self.part_block()?))
            }
            "group.name" | "group.arn" => {
                self.at += 1;
                let by = if word == "group.name" {
                    GroupWord::Name
                } else {
                    GroupWord::Arn
                };
                let equal = self.equality()?;
                let value = self.text()?;
                Ok(Expression::Group { by, equal, value })
            }
            other => match other.strip_prefix("rootcause.") {
                Some(rest) => self.cause(rest),
                None => Err(self.wrong(keywords(Scope::Trace))),
            },
        }
    }

    fn cause(&mut self, path: &str) -> Result<Expression, FilterError> {
        let what = "rootcause.json, or rootcause. with fault, error or responsetime, then .service, .entity, .exception or .json";
        let (kind, level) = match path.split_once('.') {
            Some((kind, level)) => (Some(kind), level),
            None => (None, path),
        };
        let kind = match kind {
            None => None,
            Some("fault") => Some(CauseKind::Fault),
            Some("error") => Some(CauseKind::Error),
            Some("responsetime") => Some(CauseKind::ResponseTime),
            Some(_) => return Err(self.wrong(what)),
        };
        let level = match (level, kind) {
            ("json", _) => None,
            ("service", Some(_)) => Some(CauseLevel::Service),
            ("entity", Some(_)) => Some(CauseLevel::Entity),
            ("exception", Some(_)) => Some(CauseLevel::Exception),
            _ => return Err(self.wrong(what)),
        };
        self.at += 1;
        if let (Some(kind), Some(level)) = (kind, level) {
            let block = Box::new(self.enclosed(Scope::Cause, '{', '}')?);
            return Ok(Expression::Cause { kind, level, block });
        }
        let equal = self.equality()?;
        let Token::Json(json) = &self.here().token else {
            return Err(self.wrong("'#' and JSON"));
        };
        let json = json.clone();
        self.at += 1;
        Ok(Expression::CauseJson { kind, equal, json })
    }

    fn part_block(&mut self) -> Result<Option<Box<Expression>>, FilterError> {
        if self.here().token == Token::Mark('{') {
            self.enclosed(Scope::Part, '{', '}').map(Box::new).map(Some)
        } else {
            Ok(None)
        }
    }

    fn one_selector(&mut self) -> Result<Selector, FilterError> {
        self.need_mark('(')?;
        if self.take_mark(')') {
            return Ok(Selector::default());
        }
        let selector = self.selector()?;
        self.need_mark(')')?;
        Ok(selector)
    }

    fn two_selectors(&mut self) -> Result<(Selector, Selector), FilterError> {
        self.need_mark('(')?;
        let source = self.selector()?;
        self.need_mark(',')?;
        let target = self.selector()?;
        self.need_mark(')')?;
        Ok((source, target))
    }

    /// A name, or `id(name: …, type: …, account.id: …)` with any of the three.
    fn selector(&mut self) -> Result<Selector, FilterError> {
        let next_opens = self
            .tokens
            .get(self.at + 1)
            .is_some_and(|next| next.token == Token::Mark('('));
        if !(self.is_word("id") && next_opens) {
            return match &self.here().token {
                Token::Word(name) | Token::Quoted(name) => {
                    let name = Some(name.clone());
                    self.at += 1;
                    Ok(Selector {
                        name,
                        ..Selector::default()
                    })
                }
                _ => Err(self.wrong("a name in quotes, or id(…)")),
            };
        }
        self.at += 2;
        let mut selector = Selector::default();
        loop {
            let member = match &self.here().token {
                Token::Word(word) => word.to_ascii_lowercase(),
                _ => String::new(),
            };
            let slot = match member.as_str() {
                "name" => &mut selector.name,
                "type" => &mut selector.kind,
                "account.id" => &mut selector.account,
                _ => return Err(self.wrong("name, type or account.id")),
            };
            self.at += 1;
            self.need_mark(':')?;
            *slot = Some(self.text()?);
            if self.take_mark(')') {
                return Ok(selector);
            }
            if !self.take_mark(',') {
                return Err(self.wrong("',' or ')'"));
            }
        }
    }

    fn annotation(&mut self, spelled: &str) -> Result<Expression, FilterError> {
        let key = match spelled.split_once('.') {
            Some((_, "")) => return Err(self.wrong("annotation. and a key")),
            Some((_, key)) => {
                self.at += 1;
                key.to_owned()
            }
            None => {
                self.at += 1;
                self.need_mark('[')?;
                let key = self.text()?;
                self.need_mark(']')?;
                key
            }
        };
        let test = self.annotation_test()?;
        Ok(Expression::Annotation(key, test))
    }

    fn annotation_test(&mut self) -> Result<Option<AnnotationTest>, FilterError> {
        let Some(comparison) = self.take_comparison() else {
            let test = self.text_test()?;
            return Ok(test.map(|(test, value)| AnnotationTest::Text(test, value)));
        };
        let equal = match comparison {
            Comparison::Equal => Some(true),
            Comparison::NotEqual => Some(false),
            _ => None,
        };
        let number = match &self.here().token {
            Token::Word(word) => number(word),
            _ => None,
        };
        if let Some(value) = number {
            self.at += 1;
            return Ok(Some(AnnotationTest::Number(comparison, value)));
        }
        let Some(equal) = equal else {
            return Err(self.wrong("a number"));
        };
        for (word, value) in [("true", true), ("false", false)] {
            if self.is_word(word) {
                self.at += 1;
                return Ok(Some(AnnotationTest::Flag(value == equal)));
            }
        }
        let test = if equal {
            TextTest::Equal
        } else {
            TextTest::NotEqual
        };
        Ok(Some(AnnotationTest::Text(test, self.text()?)))
    }

    fn flag(&mut self, flag: FlagWord) -> Result<Expression, FilterError> {
        let wanted = match self.here().token {
            Token::Comparison(_) => {
                let equal = self.equality()?;
                let value = self.is_word("true");
                if !value && !self.is_word("false") {
                    return Err(self.wrong("true or false"));
                }
                self.at += 1;
                equal == value
            }
            _ => true,
        };
        Ok(Expression::Flag(flag, wanted))
    }

    fn take_comparison(&mut self) -> Option<Comparison> {
        match self.here().token {
            Token::Comparison(comparison) => {
                self.at += 1;
                Some(comparison)
            }
            _ => None,
        }
    }

    fn comparison(&mut self) -> Result<Comparison, FilterError> {
        self.take_comparison()
            .ok_or_else(|| self.wrong("=, !=, <, <=, > or >="))
    }

    fn equality(&mut self) -> Result<bool, FilterError> {
        let equal = match self.here().token {
            Token::Comparison(Comparison::Equal) => true,
            Token::Comparison(Comparison::NotEqual) => false,
            _ => return Err(self.wrong("= or !=")),
        };
        self.at += 1;
        Ok(equal)
    }

    /// Nothing when no operator follows.
    fn text_test(&mut self) -> Result<Option<(TextTest, String)>, FilterError> {
        let test = match &self.here().token {
            Token::Comparison(Comparison::Equal) => TextTest::Equal,
            Token::Comparison(Comparison::NotEqual) => TextTest::NotEqual,
            Token::Comparison(_) => {
                return Err(self.wrong("=, !=, CONTAINS, BEGINSWITH or ENDSWITH"));
            }
            Token::Word(word) => match word.to_ascii_lowercase().as_str() {
                "contains" => TextTest::Contains,
                "beginswith" => TextTest::BeginsWith,
                "endswith" => TextTest::EndsWith,
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        self.at += 1;
        Ok(Some((test, self.text()?)))
    }

    fn number(&mut self) -> Result<f64, FilterError> {
        let found = match &self.here().token {
            Token::Word(word) => number(word),
            _ => None,
        };
        let value = found.ok_or_else(|| self.wrong("a number"))?;
        self.at += 1;
        Ok(value)
    }

    fn text(&mut self) -> Result<String, FilterError> {
        match &self.here().token {
            Token::Word(text) | Token::Quoted(text) => {
                let text = text.clone();
                self.at += 1;
                Ok(text)
            }
            _ => Err(self.wrong("a string in double quotes")),
        }
    }
}

/// Digits, not the names that Rust also reads as numbers.
fn number(word: &str) -> Option<f64> {
    let first = word.trim_start_matches(['-', '+']).chars().next()?;
    let value: f64 = word.parse().ok()?;
    ((first.is_ascii_digit() || first == '.') && value.is_finite()).then_some(value)
}

fn join(power: u8, left: Expression, right: Expression) -> Expression {
    match (power, left) {
        (OR, Expression::Any(mut parts)) => {
            parts.push(right);
            Expression::Any(parts)
        }
        (OR, left) => Expression::Any(vec![left, right]),
        (_, Expression::All(mut parts)) => {
            parts.push(right);
            Expression::All(parts)
        }
        (_, left) => Expression::All(vec![left, right]),
    }
}
