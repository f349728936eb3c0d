// SPDX-License-Identifier: Apache-2.0
//! Pages of a list: how many, from where, and the opaque `nextToken` that only fits the list it was given for.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pillion_config::Problem;
use pillion_config::tags::LimitOf;
use pillion_config::tags::check_limit;
use sha2::Digest;
use sha2::Sha256;

use super::error::ApiError;
use super::query::Query;

const SEAL: usize = 8;

/// One page, asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    limit: usize,
    after: Option<String>,
    list: String,
}

impl Page {
    /// Reads `limit` and `nextToken`. `list` identifies the list; a token of another one is refused.
    pub fn parse(query: &Query, of: LimitOf, list: String) -> Result<Page, ApiError> {
        let mut problems = Vec::new();
        let limit = check_limit(of, query.get("limit")).unwrap_or_else(|problem| {
            problems.push(problem);
            1
        });
        let after = query
            .get("nextToken")
            .map(|token| open(&list, token))
            .transpose()
            .unwrap_or_else(|problem| {
                problems.push(problem);
                None
            });
        if problems.is_empty() {
            Ok(Page { limit, after, list })
        } else {
            Err(ApiError::problems(&problems))
        }
    }

    /// The name the page before ended with. It need not exist any more.
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// Takes a page from `items`, which begin after [`Page::after`]; the token leads on if there are more.
    pub fn take<T>(
        &self,
        items: impl Iterator<Item = T>,
        name: impl Fn(&T) -> &str,
    ) -> (Vec<T>, Option<String>) {
        let mut items: Vec<T> = items.take(self.limit + 1).collect();
        if items.len() <= self.limit {
            return (items, None);
        }
        items.truncate(self.limit);
        let next = items.last().map(|last| seal(&self.list, name(last)));
        (items, next)
    }
}

/// The seal is no secret: it catches a token of another list or a mangled one, which would else skip or repeat items.
fn seal(list: &str, last: &str) -> String {
    let mut token = digest(list, last).to_vec();
    token.extend_from_slice(last.as_bytes());
    URL_SAFE_NO_PAD.encode(token)
}

fn open(list: &str, token: &str) -> Result<String, Problem> {
    let refuse = || {
        Problem::new(
            "nextToken",
            "is not a token of this list; pass on what the last page returned, or leave it out to start over",
        )
    };
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| refuse())?;
    let (sealed, last) = bytes.split_at_checked(SEAL).ok_or_else(refuse)?;
    let last = std::str::from_utf8(last).map_err(|_| refuse())?;
    if sealed == digest(list, last) {
        Ok(last.to_owned())
    } else {
        Err(refuse())
    }
}

fn digest(list: &str, last: &str) -> [u8; SEAL] {
    let mut hash = Sha256::new();
    hash.update(list);
    hash.update([0]);
    hash.update(last);
    let mut seal = [0; SEAL];
    seal.copy_from_slice(&hash.finalize()[..SEAL]);
    seal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(query: &str, list: &str) -> Result<Page, ApiError> {
        let query = Query::parse(Some(query)).expect("a well-formed query");
        Page::parse(&query, LimitOf::Resources, list.to_owned())
    }

    #[test]
    fn a_token_leads_on_within_its_list_and_nowhere_else() {
        let first = page("limit=2", "meshes").expect("a page");
        let (names, next) = first.take(["a", "b", "c"].into_iter(), |name| name);
        assert_eq!(names, ["a", "b"]);
        let next = next.expect("a third name is left");
        let second = page(&format!("nextToken={next}"), "meshes").expect("our own token");
        assert_eq!(second.after(), Some("b"));
        assert!(page(&format!("nextToken={next}"), "virtualNodes of m").is_err());
        assert!(page(&format!("nextToken=A{next}"), "meshes").is_err());
    }

    #[test]
    fn the_last_page_has_no_token() {
        let (names, next) = page("limit=2", "meshes")
            .expect("a page")
            .take(["a", "b"].into_iter(), |name| name);
        assert_eq!((names.len(), next), (2, None));
    }

    #[test]
    fn a_bad_limit_and_a_bad_token_are_told_in_one_answer() {
        let error = page("limit=0&nextToken=x", "meshes").expect_err("both wrong");
        assert!(
            error.message.contains("limit: ") && error.message.contains("nextToken: "),
            "{}",
            error.message
        );
    }
}
