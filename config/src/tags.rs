// SPDX-License-Identifier: Apache-2.0
//! Everything of a request besides the spec: names, client tokens, page limits, tags.
//! The API layer calls these with what it took from URI, query and body.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::check;
use crate::name::{Kind, is_account};
use crate::problem::Problem;
use crate::shapes;

/// One tag of a resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tag {
    pub key: String,
    pub value: String,
}

/// Most tags one resource may carry.
pub const MAX_TAGS: usize = 50;

/// Checks a tag list, as `tags` of a create or of TagResource.
pub fn parse_tags(document: &Value) -> Result<Vec<Tag>, Vec<Problem>> {
    let mut problems = check::against(&shapes::requests::TagList, document, "tags");
    let mut seen = BTreeSet::new();
    for (index, tag) in document.as_array().into_iter().flatten().enumerate() {
        if let Some(key) = tag.get("key").and_then(Value::as_str)
            && !seen.insert(key)
        {
            problems.push(Problem::new(
                format!("tags[{index}].key"),
                format!(
                    "{} stands twice in the list; a key may have one value",
                    check::shown(key)
                ),
            ));
        }
        if let Some(key) = tag.get("key").and_then(Value::as_str) {
            problems.extend(reserved(key, &format!("tags[{index}].key")));
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    serde_json::from_value(document.clone()).map_err(|error| {
        vec![Problem::new(
            "tags",
            format!("is not a list of tags: {error}"),
        )]
    })
}

/// Checks a list of tag keys, as `tagKeys` of UntagResource.
pub fn parse_tag_keys(document: &Value) -> Result<Vec<String>, Vec<Problem>> {
    let problems = check::against(&shapes::requests::TagKeyList, document, "tagKeys");
    if !problems.is_empty() {
        return Err(problems);
    }
    serde_json::from_value(document.clone()).map_err(|error| {
        vec![Problem::new(
            "tagKeys",
            format!("is not a list of keys: {error}"),
        )]
    })
}

/// Keys that AWS keeps for itself, in any case of letters.
fn reserved(key: &str, path: &str) -> Option<Problem> {
    let prefix = key.get(..4)?;
    let message = format!(
        "{} begins with `aws:`, which is reserved for AWS",
        check::shown(key)
    );
    prefix
        .eq_ignore_ascii_case("aws:")
        .then(|| Problem::new(path, message))
}

/// Checks the name of a resource; the problem's path is the member, `virtualNodeName`.
///
/// 1 to 255 characters. Stricter than the model: no `/` and no control characters, since such a name could not be
/// told apart in an ARN; neither `.` nor `..`, which clients resolve away in a path; and names of virtual services, free in the model, keep the length a gateway route can target.
pub fn check_name(kind: Kind, name: &str) -> Result<(), Problem> {
    let refuse = |message: String| Err(Problem::new(kind.name_member(), message));
    let length = name.chars().count();
    if !(1..=255).contains(&length) {
        return refuse(format!("must have 1 to 255 characters, has {length}"));
    }
    if let Some(bad) = name.chars().find(|c| *c == '/' || c.is_control()) {
        return refuse(format!(
            "must not contain {bad:?}: an ARN could not tell where the name ends"
        ));
    }
    if name == "." || name == ".." {
        return refuse(format!(
            "must not be `{name}`: clients resolve it away in the path"
        ));
    }
    if kind == Kind::Mesh
        && name
            .rsplit_once('@')
            .is_some_and(|(_, owner)| is_account(owner))
    {
        return refuse(
            "must not end in `@` and an account: proxies name the owner of a shared mesh so"
                .to_owned(),
        );
    }
    Ok(())
}

/// Checks a client token: at most 36 letters, digits, `-`, `_`.
pub fn check_client_token(token: &str) -> Result<(), Problem> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if token.is_empty() || token.chars().count() > 36 || !token.chars().all(allowed) {
        return Err(Problem::new(
            "clientToken",
            "must have 1 to 36 characters out of letters, digits, `-` and `_`",
        ));
    }
    Ok(())
}

/// Which page size a list takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitOf {
    /// The seven lists of resources: 1 to 100.
    Resources,
    /// ListTagsForResource: 1 to 50.
    Tags,
}

impl LimitOf {
    /// The largest page, and the size of a page when none is asked for.
    pub fn max(self) -> usize {
        match self {
            LimitOf::Resources => 100,
            LimitOf::Tags => 50,
        }
    }
}

/// Checks the `limit` of a list as it stood in the query; absent means the largest page.
pub fn check_limit(of: LimitOf, limit: Option<&str>) -> Result<usize, Problem> {
    let Some(text) = limit else {
        return Ok(of.max());
    };
    match text.parse::<usize>() {
        Ok(limit) if (1..=of.max()).contains(&limit) => Ok(limit),
        _ => Err(Problem::new(
            "limit",
            format!("must be a whole number from 1 to {}, is `{text}`", of.max()),
        )),
    }
}

/// Checks `meshOwner`: the 12 digits of an account.
pub fn check_mesh_owner(owner: &str) -> Result<(), Problem> {
    if is_account(owner) {
        return Ok(());
    }
    Err(Problem::new(
        "meshOwner",
        format!("must be the 12 digits of an AWS account, is `{owner}`"),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tags_need_key_and_value_within_their_lengths() {
        let tags = parse_tags(&json!([{"key": "team", "value": ""}])).unwrap();
        assert_eq!(
            tags,
            [Tag {
                key: "team".into(),
                value: String::new()
            }]
        );
        let problems =
            parse_tags(&json!([{"key": ""}, {"key": "k", "value": "v".repeat(257)}])).unwrap_err();
        let paths: Vec<_> = problems.iter().map(|p| p.path.as_str()).collect();
        assert_eq!(paths, ["tags[0].key", "tags[0].value", "tags[1].value"]);
    }

    #[test]
    fn a_tag_key_may_stand_once_and_no_more_than_fifty_tags() {
        let twice = json!([{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]);
        assert_eq!(parse_tags(&twice).unwrap_err()[0].path, "tags[1].key");
        let many: Vec<_> = (0..51)
            .map(|n| json!({"key": format!("k{n}"), "value": ""}))
            .collect();
        assert_eq!(parse_tags(&Value::Array(many)).unwrap_err()[0].path, "tags");
        assert_eq!(
            parse_tag_keys(&json!(["a", 1])).unwrap_err()[0].path,
            "tagKeys[1]"
        );
        assert_eq!(parse_tag_keys(&json!(["a"])).unwrap(), ["a"]);
    }

    #[test]
    fn a_name_has_1_to_255_characters_and_fits_an_arn() {
        check_name(Kind::VirtualNode, &"ü".repeat(255)).unwrap();
        check_name(Kind::VirtualService, "*.apps.local").unwrap();
        for bad in ["", "a/b", "a\nb", ".", "..", &"x".repeat(256)] {
            assert_eq!(check_name(Kind::Route, bad).unwrap_err().path, "routeName");
        }
    }

    #[test]
    fn a_mesh_name_cannot_look_like_a_shared_mesh() {
        check_name(Kind::Mesh, "shop@home").unwrap();
        check_name(Kind::Mesh, "shop@123456789012").unwrap_err();
    }

    #[test]
    fn keys_of_aws_itself_are_not_for_users() {
        for key in ["aws:x", "AWS:cloudformation:stack-name"] {
            let problems = parse_tags(&json!([{"key": key, "value": ""}])).unwrap_err();
            assert_eq!(problems[0].path, "tags[0].key");
        }
        parse_tags(&json!([{"key": "awsome", "value": ""}, {"key": "ärä", "value": ""}])).unwrap();
    }

    #[test]
    fn a_client_token_is_short_and_plain() {
        check_client_token("3f2a-_Z").unwrap();
        for bad in ["", "a b", &"x".repeat(37)] {
            check_client_token(bad).unwrap_err();
        }
    }

    #[test]
    fn a_limit_stays_within_the_lists_own_bounds() {
        assert_eq!(check_limit(LimitOf::Resources, None).unwrap(), 100);
        assert_eq!(check_limit(LimitOf::Tags, Some("50")).unwrap(), 50);
        for (of, bad) in [
            (LimitOf::Tags, "51"),
            (LimitOf::Resources, "101"),
            (LimitOf::Resources, "0"),
            (LimitOf::Tags, "x"),
        ] {
            check_limit(of, Some(bad)).unwrap_err();
        }
    }

    #[test]
    fn a_mesh_owner_is_twelve_digits() {
        check_mesh_owner("012345678901").unwrap();
        check_mesh_owner("01234567890a").unwrap_err();
    }
}
