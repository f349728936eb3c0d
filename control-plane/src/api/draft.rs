// SPDX-License-Identifier: Apache-2.0
//! What a create or update asks for, checked as far as one document can be: everything but references, and every
//! problem in one answer. Pure.

use std::sync::Arc;

use pillion_config::Kind;
use pillion_config::Problem;
use pillion_config::Spec;
use pillion_config::parse_spec;
use pillion_config::tags::check_client_token;
use pillion_config::tags::check_name;
use pillion_config::tags::parse_tags;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::body::text;
use super::body::unknown_members;
use crate::store::Tags;

/// A create, checked.
#[derive(Debug)]
pub struct Creation {
    /// The new resource's own name.
    pub name: String,
    /// Of the kind asked for.
    pub spec: Arc<Spec>,
    /// Empty unless given.
    pub tags: Tags,
    /// `clientToken`.
    pub token: Option<String>,
}

/// An update, checked.
#[derive(Debug)]
pub struct Revision {
    /// `None`: a mesh updated without a spec, which keeps the one it has.
    pub spec: Option<Arc<Spec>>,
    /// `clientToken`.
    pub token: Option<String>,
}

/// Checks the body of `Create<kind>`.
pub fn creation(kind: Kind, body: &Map<String, Value>) -> Result<Creation, Vec<Problem>> {
    let name_member = kind.name_member();
    let mut problems = unknown_members(body, &["clientToken", "spec", "tags", name_member]);
    let token = client_token(body, &mut problems);
    let name = text(body, name_member, &mut problems).map(str::to_owned);
    match &name {
        Some(name) => problems.extend(check_name(kind, name).err()),
        None if !body.contains_key(name_member) => {
            problems.push(Problem::new(name_member, "is required"));
        }
        None => {}
    }
    let tags = match body.get("tags").map(parse_tags) {
        None => Tags::new(),
        Some(Ok(tags)) => tags.into_iter().map(|tag| (tag.key, tag.value)).collect(),
        Some(Err(found)) => {
            problems.extend(found);
            Tags::new()
        }
    };
    // A mesh may be created without a spec, and then has the empty one.
    let empty = json!({});
    let document = body.get("spec").or((kind == Kind::Mesh).then_some(&empty));
    let spec = spec(kind, document, &mut problems);
    match (name, spec) {
        (Some(name), Some(spec)) if problems.is_empty() => Ok(Creation {
            name,
            spec,
            tags,
            token,
        }),
        _ => Err(problems),
    }
}

/// Checks the body of `Update<kind>`.
pub fn revision(kind: Kind, body: &Map<String, Value>) -> Result<Revision, Vec<Problem>> {
    let mut problems = unknown_members(body, &["clientToken", "spec"]);
    let token = client_token(body, &mut problems);
    let document = body.get("spec");
    let spec = if kind == Kind::Mesh && document.is_none() {
        None
    } else {
        spec(kind, document, &mut problems)
    };
    if problems.is_empty() {
        Ok(Revision { spec, token })
    } else {
        Err(problems)
    }
}

fn spec(kind: Kind, document: Option<&Value>, problems: &mut Vec<Problem>) -> Option<Arc<Spec>> {
    let Some(document) = document else {
        problems.push(Problem::new("spec", "is required"));
        return None;
    };
    match parse_spec(kind, document) {
        Ok(spec) => Some(Arc::new(spec)),
        Err(found) => {
            problems.extend(found);
            None
        }
    }
}

fn client_token(body: &Map<String, Value>, problems: &mut Vec<Problem>) -> Option<String> {
    let token = text(body, "clientToken", problems)?;
    problems.extend(check_client_token(token).err());
    Some(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(document: &Value) -> Map<String, Value> {
        document.as_object().expect("an object").clone()
    }

    #[test]
    fn every_problem_of_a_create_comes_at_once() {
        let found = creation(
            Kind::VirtualNode,
            &body(&json!({"virtualNodeName": 7, "clientToken": "a b", "extra": 1, "tags": [{"key": "k"}]})),
        )
        .expect_err("five problems");
        let mut paths: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(
            paths,
            [
                "clientToken",
                "extra",
                "spec",
                "tags[0].value",
                "virtualNodeName"
            ]
        );
    }

    #[test]
    fn a_mesh_needs_no_spec() {
        let mesh = creation(Kind::Mesh, &body(&json!({"meshName": "m"}))).expect("valid");
        assert_eq!(mesh.spec.to_value(), json!({}));
        let update = revision(Kind::Mesh, &body(&json!({}))).expect("valid");
        assert!(update.spec.is_none());
    }

    #[test]
    fn an_update_takes_no_tags_and_needs_a_spec() {
        let found =
            revision(Kind::VirtualRouter, &body(&json!({"tags": []}))).expect_err("two problems");
        let paths: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["tags", "spec"]);
    }
}
