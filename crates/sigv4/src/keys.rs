// SPDX-License-Identifier: Apache-2.0
//! Keys and what each may do, parsed from TOML with every problem in one report. Read by [`crate::file`].

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

/// Everything a file of keys says.
#[derive(Debug, Default)]
pub struct Keys {
    keys: BTreeMap<String, Arc<Key>>,
    /// Whether every account may use every mesh.
    pub share_meshes: ShareMeshes,
    /// What becomes of `X-Amz-Security-Token`.
    pub session_tokens: SessionTokens,
}

/// `share_meshes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShareMeshes {
    /// Only with accounts that the owner names.
    #[default]
    None,
    /// Every mesh with every account.
    All,
}

/// `session_tokens`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionTokens {
    /// Signed or not, a token changes nothing: there is no STS here that could have issued it.
    #[default]
    Ignored,
    /// A request that carries one is refused, as AWS refuses a token it did not issue.
    Refused,
}

/// One access key.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    id: String,
    secret: String,
    account: String,
    read: bool,
    write: bool,
    resources: Vec<String>,
}

/// Secrets never reach a log.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({} of {})", self.id, self.account)
    }
}

impl Key {
    /// `access_key_id`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// 12 digits.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// Whether it has the permission `read`, on whatever resources.
    pub fn can_read(&self) -> bool {
        self.read
    }

    /// Whether it has the permission `write`, on whatever resources.
    pub fn can_write(&self) -> bool {
        self.write
    }

    /// Whether one of its patterns covers the ARN; without patterns all are covered.
    pub fn covers(&self, arn: &str) -> bool {
        self.resources.is_empty()
            || self
                .resources
                .iter()
                .any(|pattern| matches(pattern.as_bytes(), arn.as_bytes()))
    }

    /// Whether this is its secret; compared in constant time. For callers who can send a password but no signature.
    pub fn has_secret(&self, given: &str) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.secret.as_bytes(), given.as_bytes())
            .is_ok()
    }

    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }
}

impl Keys {
    /// The key of this id.
    pub fn get(&self, id: &str) -> Option<&Arc<Key>> {
        self.keys.get(id)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Never true of a file that was accepted.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Reads the text of a file. `account` is that of keys that name none.
    pub fn parse(text: &str, account: &str) -> Result<Keys, Vec<String>> {
        let written: FileKeys =
            toml::from_str(text).map_err(|error| vec![without_the_line(&error, text)])?;
        let mut problems = Vec::new();
        let mut keys = BTreeMap::new();
        if written.keys.is_empty() {
            problems.push("has no [[keys]]: nobody could do anything".to_owned());
        }
        for (index, key) in written.keys.into_iter().enumerate() {
            let key = key.check(index, account, &mut problems);
            if keys.insert(key.id.clone(), Arc::new(key)).is_some() {
                problems.push(format!("keys[{index}].access_key_id is given twice"));
            }
        }
        if problems.is_empty() {
            Ok(Keys {
                keys,
                share_meshes: written.share_meshes,
                session_tokens: written.session_tokens,
            })
        } else {
            Err(problems)
        }
    }
}

/// TOML's own message quotes the line, and a line of this file may be a secret.
fn without_the_line(error: &toml::de::Error, text: &str) -> String {
    let line = error
        .span()
        .map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    match line {
        Some(line) => format!("line {line}: {}", error.message()),
        None => error.message().to_owned(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKeys {
    #[serde(default)]
    share_meshes: ShareMeshes,
    #[serde(default)]
    session_tokens: SessionTokens,
    #[serde(default)]
    keys: Vec<FileKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKey {
    access_key_id: String,
    secret_access_key: String,
    account: Option<String>,
    permissions: Option<Vec<String>>,
    #[serde(default)]
    resources: Vec<String>,
}

impl FileKey {
    fn check(self, index: usize, account: &str, problems: &mut Vec<String>) -> Key {
        let mut wrong = |member: &str, why: &str| {
            problems.push(format!("keys[{index}].{member} {why}"));
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if !(1..=128).contains(&self.access_key_id.len()) || !self.access_key_id.bytes().all(plain)
        {
            wrong(
                "access_key_id",
                "must be 1 to 128 letters, digits, underscores, hyphens and dots",
            );
        }
        if self.secret_access_key.is_empty() {
            wrong("secret_access_key", "is empty");
        }
        let account = self.account.unwrap_or_else(|| account.to_owned());
        if account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit()) {
            wrong("account", "must be 12 digits, in quotes");
        }
        let permissions = self.permissions;
        let has = |word: &str| {
            permissions
                .as_ref()
                .is_none_or(|list| list.iter().any(|one| one == word))
        };
        let known = |word: &String| word == "read" || word == "write";
        if permissions
            .as_ref()
            .is_some_and(|list| list.is_empty() || !list.iter().all(known))
        {
            wrong("permissions", r#"must be a list of "read" and "write""#);
        }
        if !self
            .resources
            .iter()
            .all(|pattern| pattern == "*" || pattern.starts_with("arn:"))
        {
            wrong(
                "resources",
                r#"must be ARNs, in which * and ? stand for anything, as in "arn:aws:appmesh:*:*:mesh/prod*""#,
            );
        }
        Key {
            read: has("read"),
            write: has("write"),
            id: self.access_key_id,
            secret: self.secret_access_key,
            account,
            resources: self.resources,
        }
    }
}

/// IAM's patterns: `*` is any run of characters, slashes and colons included, `?` any one. Linear but for the last star.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        share_meshes = "all"
        [[keys]]
        access_key_id = "AKIDADMIN"
        secret_access_key = "s1"
        [[keys]]
        access_key_id = "AKIDREAD"
        secret_access_key = "s2"
        account = "111122223333"
        permissions = ["read"]
        resources = ["arn:aws:appmesh:*:*:mesh/prod*"]
    "#;

    #[test]
    fn a_key_may_do_everything_unless_the_file_says_otherwise() {
        let keys = Keys::parse(FILE, "000000000000").expect("sound");
        assert_eq!(keys.share_meshes, ShareMeshes::All);
        let admin = keys.get("AKIDADMIN").expect("there");
        assert!(admin.can_read() && admin.can_write() && admin.covers("arn:x"));
        assert_eq!(admin.account(), "000000000000");
        let reader = keys.get("AKIDREAD").expect("there");
        assert!(reader.can_read() && !reader.can_write());
        assert!(reader.covers("arn:aws:appmesh:us-east-1:111122223333:mesh/prod/virtualNode/n"));
        assert!(!reader.covers("arn:aws:appmesh:us-east-1:111122223333:mesh/test"));
    }

    #[test]
    fn every_problem_is_told_at_once_and_no_secret_is() {
        let text = r#"
            [[keys]]
            access_key_id = "a/b"
            secret_access_key = ""
            account = "12"
            permissions = ["rule"]
            resources = ["mesh/x"]
            [[keys]]
            access_key_id = "a/b"
            secret_access_key = "hunter2"
        "#;
        let problems = Keys::parse(text, "000000000000").expect_err("all wrong");
        assert_eq!(problems.len(), 7, "{problems:?}");
        let broken = "[[keys]]\naccess_key_id = \"a\"\nsecret_access_key = \"hunter2";
        let problems = Keys::parse(broken, "000000000000").expect_err("no TOML");
        assert!(problems[0].starts_with("line 3: "), "{problems:?}");
        assert!(!problems[0].contains("hunter2"), "{problems:?}");
        assert!(
            Keys::parse("", "000000000000").is_err(),
            "an empty file locks all out"
        );
        assert!(
            Keys::parse("key = 1", "000000000000").is_err(),
            "a typo is not ignored"
        );
    }

    #[test]
    fn stars_and_question_marks_stand_for_anything() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*b*d", "abcbd", true),
            ("mesh/m", "mesh/mm", false),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                fits,
                "{pattern} {text}"
            );
        }
    }
}
