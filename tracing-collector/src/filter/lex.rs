// SPDX-License-Identifier: Apache-2.0
//! Text to tokens, each with where it began. Decides nothing about keywords: a word is a word.

use serde_json::Value;

use crate::filter::Comparison;
use crate::filter::FilterError;
use crate::filter::MAX_CHARACTERS;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// Letters, digits and what names are made of; numbers too.
    Word(String),
    /// In double quotes.
    Quoted(String),
    /// What followed a `#`.
    Json(Value),
    Comparison(Comparison),
    /// One of `!(){}[],:`.
    Mark(char),
    End,
}

impl Token {
    /// As an error quotes it.
    pub(super) fn shown(&self) -> String {
        match self {
            Token::Word(word) => format!("{word:?}"),
            Token::Quoted(text) => format!("the string {text:?}"),
            Token::Json(_) => "JSON".to_owned(),
            Token::Comparison(comparison) => format!("{:?}", comparison.sign()),
            Token::Mark(mark) => format!("\"{mark}\""),
            Token::End => "the end".to_owned(),
        }
    }
}

impl Comparison {
    fn sign(self) -> &'static str {
        match self {
            Comparison::Equal => "=",
            Comparison::NotEqual => "!=",
            Comparison::Less => "<",
            Comparison::AtMost => "<=",
            Comparison::Greater => ">",
            Comparison::AtLeast => ">=",
        }
    }
}

pub(super) struct Placed {
    pub(super) token: Token,
    pub(super) offset: usize,
}

/// Every token, `End` last.
pub(super) fn tokens(text: &str) -> Result<Vec<Placed>, FilterError> {
    let characters: Vec<char> = text.chars().collect();
    if characters.len() > MAX_CHARACTERS {
        return Err(FilterError {
            offset: MAX_CHARACTERS,
            expected: format!("the end, for an expression has at most {MAX_CHARACTERS} characters"),
            found: format!("{} more", characters.len() - MAX_CHARACTERS),
        });
    }
    let mut lexer = Lexer { characters, at: 0 };
    let mut found = Vec::new();
    loop {
        lexer.skip_space();
        let offset = lexer.at;
        let token = lexer.next()?;
        let end = token == Token::End;
        found.push(Placed { token, offset });
        if end {
            return Ok(found);
        }
    }
}

struct Lexer {
    characters: Vec<char>,
    at: usize,
}

impl Lexer {
    fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn take_if(&mut self, wanted: char) -> bool {
        let there = self.peek() == Some(wanted);
        self.at += usize::from(there);
        there
    }

    fn next(&mut self) -> Result<Token, FilterError> {
        let Some(first) = self.peek() else {
            return Ok(Token::End);
        };
        if in_word(first) {
            return Ok(Token::Word(self.word()));
        }
        let offset = self.at;
        self.at += 1;
        let comparison = |equal: bool, with: Comparison, without: Comparison| {
            Token::Comparison(if equal { with } else { without })
        };
        Ok(match first {
            '"' => self.quoted(offset)?,
            '#' => self.json(offset)?,
            '=' => Token::Comparison(Comparison::Equal),
            '<' => comparison(self.take_if('='), Comparison::AtMost, Comparison::Less),
            '>' => comparison(self.take_if('='), Comparison::AtLeast, Comparison::Greater),
            '!' if self.take_if('=') => Token::Comparison(Comparison::NotEqual),
            '!' | '(' | ')' | '{' | '}' | '[' | ']' | ',' | ':' => Token::Mark(first),
            other => {
                return Err(FilterError {
                    offset,
                    expected: "a keyword, a value or an operator".to_owned(),
                    found: format!("{other:?}"),
                });
            }
        })
    }

    fn word(&mut self) -> String {
        let start = self.at;
        while self.peek().is_some_and(in_word) {
            self.at += 1;
        }
        self.characters[start..self.at].iter().collect()
    }

    /// A backslash takes the next character as it is.
    fn quoted(&mut self, opened: usize) -> Result<Token, FilterError> {
        let mut text = String::new();
        loop {
            match self.peek() {
                None => {
                    return Err(FilterError {
                        offset: self.at,
                        expected: format!("a closing '\"' for the one at offset {opened}"),
                        found: "the end".to_owned(),
                    });
                }
                Some('"') => {
                    self.at += 1;
                    return Ok(Token::Quoted(text));
                }
                Some('\\') if self.at + 1 < self.characters.len() => {
                    text.push(self.characters[self.at + 1]);
                    self.at += 2;
                }
                Some(other) => {
                    text.push(other);
                    self.at += 1;
                }
            }
        }
    }

    /// One JSON value, as far as it reaches.
    fn json(&mut self, offset: usize) -> Result<Token, FilterError> {
        let rest: String = self.characters[self.at..].iter().collect();
        let mut stream = serde_json::Deserializer::from_str(&rest).into_iter::<Value>();
        match stream.next() {
            Some(Ok(value)) => {
                let read = rest.get(..stream.byte_offset()).unwrap_or_default();
                self.at += read.chars().count();
                Ok(Token::Json(value))
            }
            other => Err(FilterError {
                offset: offset + 1,
                expected: "JSON after '#'".to_owned(),
                found: match other {
                    Some(Err(error)) => format!("what is none: {error}"),
                    Some(Ok(_)) | None => "the end".to_owned(),
                },
            }),
        }
    }
}

fn in_word(c: char) -> bool {
    c.is_alphanumeric() || "_.-+/@%*?".contains(c)
}
