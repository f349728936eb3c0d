// SPDX-License-Identifier: Apache-2.0
//! CloudFormation templates: the `AWS::AppMesh::*` resources of one become create-* inputs, with `Ref`, `Fn::GetAtt` of
//! names and `Fn::Sub` resolved from the template itself. What only AWS could know is a problem, never a guess.

use serde_json::{Map, Value};

use super::Parameters;
use crate::name::Kind;
use crate::problem::{Problem, join};
use crate::shapes::{Constraint, Shape, requests};

/// Names that lead through more names than this lead in a circle.
const DEEPEST: usize = 16;

pub(super) fn is_template(value: &Value) -> bool {
    value.get("Resources").is_some_and(Value::is_object)
}

/// Place, kind and input of every App Mesh resource; resources of other services are passed over.
pub(super) fn inputs(
    template: &Value,
    place: &str,
    parameters: &Parameters,
    problems: &mut Vec<Problem>,
) -> Vec<(String, Option<Kind>, Value)> {
    let template = Template {
        value: template,
        parameters,
    };
    let mut inputs = Vec::new();
    for (logical, resource) in template.value["Resources"]
        .as_object()
        .into_iter()
        .flatten()
    {
        let kind = resource
            .get("Type")
            .and_then(Value::as_str)
            .and_then(|name| name.strip_prefix("AWS::AppMesh::"));
        let Some(word) = kind else { continue };
        let place = join(place, &format!("Resources.{logical}"));
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.title() == word) else {
            problems.push(Problem::new(
                join(&place, "Type"),
                format!("AWS::AppMesh::{word} is no App Mesh resource"),
            ));
            continue;
        };
        if resource.get("Condition").is_some() {
            problems.push(Problem::new(
                join(&place, "Condition"),
                "cannot be decided here; remove it",
            ));
        }
        let properties = resource
            .get("Properties")
            .cloned()
            .unwrap_or_else(|| Value::Object(Map::new()));
        let place = join(&place, "Properties");
        let mut found = Vec::new();
        let properties = template.resolve(&properties, "", 0, &mut found);
        if found.is_empty() {
            inputs.push((place, Some(kind), recased(input_of(kind), &properties)));
        } else {
            // Judging a document with holes would report the holes again under other names.
            problems.extend(found.into_iter().map(|problem| problem.under(&place)));
        }
    }
    inputs
}

fn input_of(kind: Kind) -> Option<&'static Shape> {
    let operation = format!("Create{kind}");
    requests::OPERATIONS
        .iter()
        .find(|(name, _)| *name == operation)
        .map(|(_, shape)| *shape)
}

/// Members under the API's spelling: `AWSCloudMap` is `awsCloudMap`, since no two members differ in case alone.
/// Texts that stand for numbers and booleans, which CloudFormation allowed, become those.
fn recased(shape: Option<&'static Shape>, value: &Value) -> Value {
    match (value, shape.map(|shape| &shape.constraint)) {
        (Value::Object(found), constraint) => {
            let members = match constraint {
                Some(Constraint::Structure { members } | Constraint::Union { members }) => members,
                _ => [].as_slice(),
            };
            let renamed = found.iter().map(|(name, value)| {
                match members
                    .iter()
                    .find(|member| member.name.eq_ignore_ascii_case(name))
                {
                    Some(member) => (member.name.to_owned(), recased(Some(member.of), value)),
                    None => (name.clone(), value.clone()),
                }
            });
            Value::Object(renamed.collect())
        }
        (Value::Array(items), Some(Constraint::List { of, .. })) => {
            Value::Array(items.iter().map(|item| recased(Some(of), item)).collect())
        }
        (Value::String(text), Some(Constraint::Integer { .. } | Constraint::Long { .. })) => text
            .parse::<i64>()
            .map_or_else(|_| value.clone(), Value::from),
        (Value::String(text), Some(Constraint::Boolean)) => match text.as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => value.clone(),
        },
        (Value::Number(number), Some(Constraint::Text { .. })) => Value::String(number.to_string()),
        _ => value.clone(),
    }
}

struct Template<'a> {
    value: &'a Value,
    parameters: &'a Parameters,
}

impl Template<'_> {
    /// `value` with every function replaced by what it stands for.
    fn resolve(
        &self,
        value: &Value,
        path: &str,
        depth: usize,
        problems: &mut Vec<Problem>,
    ) -> Value {
        match value {
            Value::Object(members) => {
                if let Some((function, argument)) = function(members) {
                    return self
                        .call(function, argument, depth)
                        .unwrap_or_else(|message| {
                            problems.push(Problem::new(path, message));
                            Value::Null
                        });
                }
                let resolved = members.iter().map(|(name, value)| {
                    (
                        name.clone(),
                        self.resolve(value, &join(path, name), depth, problems),
                    )
                });
                Value::Object(resolved.collect())
            }
            Value::Array(items) => {
                let resolved = items.iter().enumerate().map(|(index, item)| {
                    self.resolve(item, &format!("{path}[{index}]"), depth, problems)
                });
                Value::Array(resolved.collect())
            }
            other => other.clone(),
        }
    }

    fn call(&self, function: &str, argument: &Value, depth: usize) -> Result<Value, String> {
        if depth > DEEPEST {
            return Err("refers to itself in a circle".to_owned());
        }
        match (function, argument) {
            ("Ref", Value::String(name)) => self.reference(name),
            ("Fn::GetAtt", Value::String(name)) => match name.split_once('.') {
                Some((logical, attribute)) => self.attribute(logical, attribute, depth),
                None => Err(format!(
                    "Fn::GetAtt of `{name}` must be <logical id>.<attribute>"
                )),
            },
            ("Fn::GetAtt", Value::Array(parts)) => match parts.as_slice() {
                [Value::String(logical), Value::String(attribute)] => {
                    self.attribute(logical, attribute, depth)
                }
                _ => Err("Fn::GetAtt must be [<logical id>, <attribute>]".to_owned()),
            },
            ("Fn::Sub", Value::String(text)) => self.substitute(text, &Map::new(), depth),
            ("Fn::Sub", Value::Array(parts)) => match parts.as_slice() {
                [Value::String(text), Value::Object(local)] => self.substitute(text, local, depth),
                _ => Err("Fn::Sub must be a text, or [<text>, {<name>: <value>}]".to_owned()),
            },
            _ => Err(format!(
                "{function} is not understood here; write the value itself"
            )),
        }
    }

    fn reference(&self, name: &str) -> Result<Value, String> {
        if name == "AWS::NoValue" {
            return Ok(Value::Null);
        }
        if let Some(value) = self.parameters.get(name) {
            return Ok(Value::String(value.clone()));
        }
        if let Some(parameter) = self.value.get("Parameters").and_then(|all| all.get(name)) {
            return parameter
                .get("Default")
                .cloned()
                .ok_or_else(|| format!("parameter {name} has no default; give its value"));
        }
        if self.value["Resources"].get(name).is_some() {
            return Err(format!(
                "Ref of resource {name} is known to AWS only; use Fn::GetAtt of its name"
            ));
        }
        Err(format!(
            "`{name}` is no parameter of the template; give its value"
        ))
    }

    /// Names can be read off the resource's own properties; ARNs and the like come from AWS.
    fn attribute(&self, logical: &str, attribute: &str, depth: usize) -> Result<Value, String> {
        let Some(resource) = self.value["Resources"].get(logical) else {
            return Err(format!("`{logical}` is no resource of the template"));
        };
        let property = resource
            .get("Properties")
            .and_then(|properties| properties.get(attribute));
        let Some(property) =
            property.filter(|_| attribute.ends_with("Name") || attribute == "MeshOwner")
        else {
            return Err(format!(
                "attribute {attribute} of {logical} is known to AWS only; write the value itself"
            ));
        };
        let mut problems = Vec::new();
        let value = self.resolve(property, "", depth + 1, &mut problems);
        problems
            .into_iter()
            .next()
            .map_or(Ok(value), |problem| Err(problem.message))
    }

    fn substitute(
        &self,
        text: &str,
        local: &Map<String, Value>,
        depth: usize,
    ) -> Result<Value, String> {
        let mut result = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, behind) = after
                .split_once('}')
                .ok_or_else(|| format!("Fn::Sub has an open ${{ in `{text}`"))?;
            result.push_str(before);
            rest = behind;
            if let Some(literal) = name.strip_prefix('!') {
                result.push_str(&format!("${{{literal}}}"));
                continue;
            }
            let value = match (local.get(name), name.split_once('.')) {
                (Some(value), _) => {
                    let mut problems = Vec::new();
                    let value = self.resolve(value, "", depth + 1, &mut problems);
                    problems
                        .into_iter()
                        .next()
                        .map_or(Ok(value), |problem| Err(problem.message))?
                }
                (None, Some((logical, attribute))) => self.attribute(logical, attribute, depth)?,
                (None, None) => self.reference(name)?,
            };
            match value {
                Value::String(value) => result.push_str(&value),
                Value::Number(value) => result.push_str(&value.to_string()),
                _ => return Err(format!("${{{name}}} in Fn::Sub must be a text")),
            }
        }
        result.push_str(rest);
        Ok(Value::String(result))
    }
}

/// The function an object calls: it has one member, `Ref` or `Fn::…`.
fn function(members: &Map<String, Value>) -> Option<(&str, &Value)> {
    let mut all = members.iter();
    let (name, argument) = all.next()?;
    (all.next().is_none() && (name == "Ref" || name.starts_with("Fn::")))
        .then_some((name, argument))
}
