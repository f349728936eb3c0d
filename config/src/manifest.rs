// SPDX-License-Identifier: Apache-2.0
//! Resources as people keep them in files: the create-* input shapes of the AWS CLI as JSON or YAML, and CloudFormation
//! templates with `AWS::AppMesh::*` resources. The CLI reads the files and sends the documents; this does neither.
//!
//! `manifest/cloudformation.rs` turns a template into create-* shapes, so that both kinds end in one check.

mod cloudformation;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::check::present;
use crate::name::{Kind, ResourceKey};
use crate::problem::{Problem, join};
use crate::shapes::{Constraint, Member, requests};
use crate::spec::{Spec, parse_spec};
use crate::tags::{Tag, check_mesh_owner, check_name, parse_tags};

/// One resource of a manifest, checked on its own; references are the matter of [`Resources`](crate::Resources).
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    pub key: ResourceKey,
    /// The account of a mesh that is shared with us.
    pub mesh_owner: Option<String>,
    pub spec: Spec,
    pub tags: Vec<Tag>,
    /// Where in the manifest: `[1]`, `Resources.Web`, or empty for the only document.
    pub origin: String,
}

/// Values for `Parameters` and pseudo parameters (`AWS::Region`) of CloudFormation templates; they win over defaults.
pub type Parameters = BTreeMap<String, String>;

/// Reads every resource of a manifest: one document, a list of them, YAML documents between `---`, or a CloudFormation
/// template. All problems in one answer, each path beginning with the document's place.
pub fn parse_manifest(text: &str, parameters: &Parameters) -> Result<Vec<Document>, Vec<Problem>> {
    let mut placed = Vec::new();
    let mut problems = Vec::new();
    for (place, value) in split(read(text).map_err(|problem| vec![problem])?) {
        if cloudformation::is_template(&value) {
            placed.extend(cloudformation::inputs(
                &value,
                &place,
                parameters,
                &mut problems,
            ));
        } else {
            placed.push((place, None, value));
        }
    }
    let mut documents = Vec::new();
    for (place, kind, input) in placed {
        match parse_input(&place, kind, &input) {
            Ok(document) => documents.push(document),
            Err(found) => problems.extend(found.into_iter().map(|problem| problem.under(&place))),
        }
    }
    if documents.is_empty() && problems.is_empty() {
        problems.push(Problem::new("", "holds no App Mesh resource"));
    }
    if problems.is_empty() {
        Ok(documents)
    } else {
        Err(problems)
    }
}

/// The same documents so that each comes after what it refers to: sorted by key, whose order begins with the kind.
/// Deleting in the reverse order is safe for the same reason.
#[must_use]
pub fn in_apply_order(mut documents: Vec<Document>) -> Vec<Document> {
    documents.sort_by(|a, b| a.key.cmp(&b.key));
    documents
}

fn read(text: &str) -> Result<Vec<Value>, Problem> {
    if text.trim_start().starts_with(['{', '[']) {
        // YAML takes JSON too, but says less clearly what is wrong with it.
        match serde_json::from_str(text) {
            Ok(value) => return Ok(vec![value]),
            Err(json) => {
                return read_yaml(text)
                    .map_err(|_| Problem::new("", format!("is not JSON: {json}")));
            }
        }
    }
    read_yaml(text)
}

fn read_yaml(text: &str) -> Result<Vec<Value>, Problem> {
    let refuse = |error: yaml_serde::Error| Problem::new("", format!("is not YAML: {error}"));
    let mut values = Vec::new();
    for document in yaml_serde::Deserializer::from_str(text) {
        let mut value = yaml_serde::Value::deserialize(document).map_err(refuse)?;
        value.apply_merge().map_err(refuse)?;
        if !value.is_null() {
            values.push(from_yaml(value)?);
        }
    }
    Ok(values)
}

/// Tags become CloudFormation's long form (`!Ref x` is `{"Ref": "x"}`); outside a template that is an unknown member.
fn from_yaml(value: yaml_serde::Value) -> Result<Value, Problem> {
    use yaml_serde::Value as Yaml;
    Ok(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(truth) => Value::Bool(truth),
        Yaml::String(text) => Value::String(text),
        Yaml::Number(number) => serde_json::to_value(&number)
            .map_err(|_| Problem::new("", format!("{number} is no number of JSON")))?,
        Yaml::Sequence(items) => {
            Value::Array(items.into_iter().map(from_yaml).collect::<Result<_, _>>()?)
        }
        Yaml::Mapping(members) => {
            let mut object = Map::new();
            for (name, value) in members {
                object.insert(member_name(name)?, from_yaml(value)?);
            }
            Value::Object(object)
        }
        Yaml::Tagged(tagged) => {
            let tag = tagged.tag.to_string();
            let name = match tag.trim_start_matches('!') {
                name @ ("Ref" | "Condition") => name.to_owned(),
                name => format!("Fn::{name}"),
            };
            Value::Object(Map::from_iter([(name, from_yaml(tagged.value)?)]))
        }
    })
}

fn member_name(name: yaml_serde::Value) -> Result<String, Problem> {
    match name {
        yaml_serde::Value::String(name) => Ok(name),
        other => {
            let shown = yaml_serde::to_string(&other).unwrap_or_default();
            Err(Problem::new(
                "",
                format!(
                    "has a member named {}, which must be a string",
                    shown.trim()
                ),
            ))
        }
    }
}

/// Each document with its place; a single one needs none.
fn split(values: Vec<Value>) -> Vec<(String, Value)> {
    let items: Vec<Value> = values
        .into_iter()
        .flat_map(|value| match value {
            Value::Array(items) => items,
            other => vec![other],
        })
        .collect();
    if items.len() == 1 {
        return items
            .into_iter()
            .map(|item| (String::new(), item))
            .collect();
    }
    items
        .into_iter()
        .enumerate()
        .map(|(index, item)| (format!("[{index}]"), item))
        .collect()
}

/// The members of the input that creates a `kind`.
fn members_of(kind: Kind) -> &'static [Member] {
    let operation = format!("Create{kind}");
    let found = requests::OPERATIONS
        .iter()
        .find(|(name, _)| *name == operation);
    match found.map(|(_, shape)| &shape.constraint) {
        Some(Constraint::Structure { members }) => members,
        _ => &[],
    }
}

/// The kind whose own name the document gives; a route names its router too, so children are looked for first.
fn kind_of(input: &Value) -> Option<Kind> {
    [
        Kind::GatewayRoute,
        Kind::Route,
        Kind::VirtualNode,
        Kind::VirtualService,
        Kind::VirtualRouter,
        Kind::VirtualGateway,
        Kind::Mesh,
    ]
    .into_iter()
    .find(|kind| present(input, kind.name_member()).is_some())
}

fn parse_input(place: &str, kind: Option<Kind>, input: &Value) -> Result<Document, Vec<Problem>> {
    let Some(object) = input.as_object() else {
        return Err(vec![Problem::new(
            "",
            "must be an object, the input of an `aws appmesh create-…` command",
        )]);
    };
    let Some(kind) = kind.or_else(|| kind_of(input)) else {
        let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name_member()).collect();
        return Err(vec![Problem::new(
            "",
            format!("must name its resource with one of {}", names.join(", ")),
        )]);
    };
    let mut problems = outer(members_of(kind), object);
    let key = key_of(kind, input, &mut problems);
    let mesh_owner = text_of(input, "meshOwner", &mut problems);
    problems.extend(mesh_owner.and_then(|owner| check_mesh_owner(owner).err()));
    let tags = present(input, "tags")
        .map_or(Ok(Vec::new()), parse_tags)
        .unwrap_or_else(|found| {
            problems.extend(found);
            Vec::new()
        });
    let empty = Value::Object(Map::new());
    let spec = match present(input, "spec") {
        // A missing spec has been reported with the other members unless it is the mesh's, which may be left out.
        None if kind != Kind::Mesh => Err(Vec::new()),
        spec => parse_spec(kind, spec.unwrap_or(&empty)),
    };
    match spec {
        Ok(spec) if problems.is_empty() => Ok(Document {
            key,
            mesh_owner: mesh_owner.map(str::to_owned),
            spec,
            tags,
            origin: place.to_owned(),
        }),
        Ok(_) => Err(problems),
        Err(found) => {
            problems.extend(found);
            Err(problems)
        }
    }
}

/// The key from the names the document gives; a missing name, reported already, leaves an empty one.
fn key_of(kind: Kind, input: &Value, problems: &mut Vec<Problem>) -> ResourceKey {
    let mut name_of = |kind: Kind| {
        let name = text_of(input, kind.name_member(), problems);
        problems.extend(name.and_then(|name| check_name(kind, name).err()));
        name.unwrap_or_default().to_owned()
    };
    let mesh = name_of(Kind::Mesh);
    let parent = kind.parent().map(&mut name_of);
    let name = if kind == Kind::Mesh {
        mesh.clone()
    } else {
        name_of(kind)
    };
    ResourceKey {
        kind,
        mesh,
        parent,
        name,
    }
}

/// A member of the outermost object that must be a text where it stands.
fn text_of<'a>(input: &'a Value, member: &str, problems: &mut Vec<Problem>) -> Option<&'a str> {
    let value = present(input, member)?;
    if value.as_str().is_none() {
        problems.push(Problem::new(member, "must be a string"));
    }
    value.as_str()
}

/// Members missing from, or unknown to, the outermost object; in a file the ones of the URI stand there as well.
fn outer(members: &[Member], object: &Map<String, Value>) -> Vec<Problem> {
    let missing = members
        .iter()
        .filter(|member| member.required && object.get(member.name).is_none_or(Value::is_null))
        .map(|member| Problem::new(member.name, "is required"));
    let known: Vec<&str> = members.iter().map(|member| member.name).collect();
    let unknown = object
        .keys()
        .filter(|name| !known.contains(&name.as_str()))
        .map(|name| {
            Problem::new(
                join("", name),
                format!("is unknown; known here: {}", known.join(", ")),
            )
        });
    missing.chain(unknown).collect()
}

#[cfg(test)]
mod tests;
