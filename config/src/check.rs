// SPDX-License-Identifier: Apache-2.0
//! Walks a document against the constraint table and reports every place where it departs. Knows no single field.

use serde_json::{Map, Value};

use crate::problem::{Problem, join};
use crate::shapes::{Constraint, Member, Place, Shape};

/// Everything in `document` that `shape` does not allow; paths begin with `path`.
///
/// `null` counts as absent, as the protocol has it. Members that travel in the address are not looked for here.
pub fn against(shape: &Shape, document: &Value, path: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    walk(shape, document, path, &mut problems);
    problems
}

/// What the body of `operation` (`CreateMesh`) departs in, besides the inside of `spec`, which `parse_spec` judges.
///
/// Members that travel in the address are let pass in the body, as App Mesh did.
pub fn body(operation: &str, body: &Value) -> Vec<Problem> {
    let known = crate::shapes::requests::OPERATIONS
        .iter()
        .find(|(name, _)| *name == operation);
    debug_assert!(known.is_some(), "{operation} is no operation of App Mesh");
    let found = known
        .map(|(_, shape)| against(shape, body, ""))
        .unwrap_or_default();
    let judged_elsewhere = |path: &str| {
        path.starts_with("spec.") || (path == "spec" && present(body, "spec").is_some())
    };
    found
        .into_iter()
        .filter(|problem| !judged_elsewhere(&problem.path))
        .collect()
}

/// Calls `each` for every value in `document` that the table knows, outermost first, with its shape and path.
/// Values of the wrong type are passed like any other: `each` looks before it leaps.
pub(crate) fn visit(
    shape: &Shape,
    document: &Value,
    path: &str,
    each: &mut impl FnMut(&Shape, &Value, &str),
) {
    each(shape, document, path);
    match &shape.constraint {
        Constraint::Structure { members } | Constraint::Union { members } => {
            for member in *members {
                if let Some(value) = present(document, member.name) {
                    visit(member.of, value, &join(path, member.name), each);
                }
            }
        }
        Constraint::List { of, max, .. } => {
            // Past the bound the list is refused anyway; a megabyte of regexes must not all be compiled first.
            let items = document.as_array().into_iter().flatten();
            for (index, item) in items.take(max.unwrap_or(usize::MAX)).enumerate() {
                visit(of, item, &format!("{path}[{index}]"), each);
            }
        }
        _ => {}
    }
}

/// The same document without members that are `null`.
pub(crate) fn without_nulls(document: &Value) -> Value {
    match document {
        Value::Object(members) => {
            let kept = members.iter().filter(|(_, value)| !value.is_null());
            Value::Object(
                kept.map(|(name, value)| (name.clone(), without_nulls(value)))
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

/// A member that is there and not null.
pub(crate) fn present<'a>(document: &'a Value, member: &str) -> Option<&'a Value> {
    document.get(member).filter(|value| !value.is_null())
}

fn walk(shape: &Shape, document: &Value, path: &str, problems: &mut Vec<Problem>) {
    let mut refuse = |message: String| problems.push(Problem::new(path, message));
    match (&shape.constraint, document) {
        (Constraint::Structure { members }, Value::Object(found)) => {
            structure(members, found, path, problems)
        }
        (Constraint::Union { members }, Value::Object(found)) => {
            union(members, found, path, problems)
        }
        (Constraint::List { of, min, max }, Value::Array(items)) => {
            if let Some(message) = bounds(items.len(), *min, *max, "item") {
                refuse(message);
            }
            for (index, item) in items.iter().enumerate() {
                walk(of, item, &format!("{path}[{index}]"), problems);
            }
        }
        (Constraint::Text { min, max, pattern }, Value::String(text)) => {
            if let Some(message) = bounds(text.chars().count(), *min, *max, "character") {
                refuse(message);
            } else if let Some(pattern) = pattern.filter(|pattern| !pattern.is_match(text)) {
                refuse(format!(
                    "must match {}, is {}",
                    pattern.as_str(),
                    shown(text)
                ));
            }
        }
        (Constraint::Choice { words }, Value::String(text)) => {
            if !words.contains(&text.as_str()) {
                refuse(format!(
                    "must be {}, is {}",
                    spoken(words, "or"),
                    shown(text)
                ));
            }
        }
        (Constraint::Integer { min, max }, Value::Number(number)) => {
            let (min, max) = (
                min.unwrap_or(i32::MIN.into()),
                max.unwrap_or(i32::MAX.into()),
            );
            problems.extend(whole(number, min, max).map(|message| Problem::new(path, message)));
        }
        (Constraint::Long { min, max }, Value::Number(number)) => {
            let (min, max) = (min.unwrap_or(i64::MIN), max.unwrap_or(i64::MAX));
            problems.extend(whole(number, min, max).map(|message| Problem::new(path, message)));
        }
        (Constraint::Boolean, Value::Bool(_)) => {}
        (expected, found) => refuse(format!(
            "must be {}, is {}",
            type_of(expected),
            type_in(found)
        )),
    }
}

fn structure(
    members: &[Member],
    found: &Map<String, Value>,
    path: &str,
    problems: &mut Vec<Problem>,
) {
    for member in members.iter().filter(|member| member.place == Place::Body) {
        let path = join(path, member.name);
        match found.get(member.name) {
            Some(value) if !value.is_null() => walk(member.of, value, &path, problems),
            _ if member.required => problems.push(Problem::new(path, "is required")),
            _ => {}
        }
    }
    unknown(members, found, path, problems);
}

fn union(members: &[Member], found: &Map<String, Value>, path: &str, problems: &mut Vec<Problem>) {
    let mut given = Vec::new();
    for member in members {
        if let Some(value) = found.get(member.name).filter(|value| !value.is_null()) {
            given.push(member.name);
            walk(member.of, value, &join(path, member.name), problems);
        }
    }
    if given.len() != 1 {
        let names: Vec<&str> = members.iter().map(|member| member.name).collect();
        problems.push(Problem::new(path, exactly_one(&names, &given)));
    }
    unknown(members, found, path, problems);
}

/// The sentence for a choice among `names` of which not one but `given` are there.
pub(crate) fn exactly_one(names: &[&str], given: &[&str]) -> String {
    let has = if given.is_empty() {
        "none".to_owned()
    } else {
        spoken(given, "and")
    };
    match names {
        [only] => format!("must have {only}"),
        _ => format!("must have exactly one of {}, has {has}", names.join(", ")),
    }
}

fn unknown(
    members: &[Member],
    found: &Map<String, Value>,
    path: &str,
    problems: &mut Vec<Problem>,
) {
    for name in found
        .keys()
        .filter(|name| members.iter().all(|member| member.name != name.as_str()))
    {
        let known: Vec<&str> = members
            .iter()
            .filter(|m| m.place == Place::Body)
            .map(|m| m.name)
            .collect();
        let known = if known.is_empty() {
            "nothing".to_owned()
        } else {
            known.join(", ")
        };
        problems.push(Problem::new(
            join(path, name),
            format!("is unknown; known here: {known}"),
        ));
    }
}

fn bounds(length: usize, min: Option<usize>, max: Option<usize>, of: &str) -> Option<String> {
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    if let Some(min) = min.filter(|min| length < *min) {
        return Some(format!(
            "must have at least {min} {of}{}, has {length}",
            plural(min)
        ));
    }
    let max = max.filter(|max| length > *max)?;
    Some(format!(
        "must have at most {max} {of}{}, has {length}",
        plural(max)
    ))
}

fn whole(number: &serde_json::Number, min: i64, max: i64) -> Option<String> {
    let Some(value) = number.as_i64() else {
        // Beyond 64 bits serde_json holds a u64 or a float; which bound it breaks is told by its sign alone.
        return Some(match number.as_u64() {
            Some(_) => format!("must be at most {max}, is {number}"),
            None => format!("must be a whole number, is {number}"),
        });
    };
    if value < min {
        return Some(format!("must be at least {min}, is {value}"));
    }
    (value > max).then(|| format!("must be at most {max}, is {value}"))
}

fn type_of(constraint: &Constraint) -> &'static str {
    match constraint {
        Constraint::Structure { .. } | Constraint::Union { .. } => "an object",
        Constraint::List { .. } => "a list",
        Constraint::Text { .. } | Constraint::Choice { .. } => "a string",
        Constraint::Integer { .. } | Constraint::Long { .. } => "a whole number",
        Constraint::Boolean => "true or false",
    }
}

fn type_in(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// `a, b or c`.
fn spoken(words: &[&str], conjunction: &str) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} {conjunction} {last}", first.join(", ")),
    }
}

/// A value of the document as messages show it: quoted, and short even when it is not.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::shapes::{edge, node, route};

    fn lines(shape: &Shape, document: &Value) -> Vec<String> {
        against(shape, document, "spec")
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn an_unknown_member_is_named_with_what_is_known() {
        assert_eq!(
            lines(&edge::MeshSpec, &json!({"egresFilter": {}})),
            ["spec.egresFilter: is unknown; known here: egressFilter, serviceDiscovery"]
        );
    }

    #[test]
    fn a_wrong_type_is_told_apart_from_a_missing_member() {
        assert_eq!(
            lines(
                &edge::MeshSpec,
                &json!({"egressFilter": {"type": 1}, "serviceDiscovery": []})
            ),
            [
                "spec.egressFilter.type: must be a string, is a number",
                "spec.serviceDiscovery: must be an object, is a list"
            ]
        );
        assert_eq!(
            lines(&edge::MeshSpec, &json!({"egressFilter": {}})),
            ["spec.egressFilter.type: is required"]
        );
        assert_eq!(
            lines(&edge::MeshSpec, &json!({"egressFilter": {"type": null}})),
            ["spec.egressFilter.type: is required"]
        );
        assert_eq!(
            lines(&edge::MeshSpec, &json!(7)),
            ["spec: must be an object, is a number"]
        );
    }

    #[test]
    fn a_union_takes_exactly_one_member() {
        let one = json!({"virtualNode": {"virtualNodeName": "n"}});
        let two = json!({"virtualNode": {"virtualNodeName": "n"}, "virtualRouter": {"virtualRouterName": "r"}});
        assert_eq!(lines(&edge::VirtualServiceProvider, &one), [""; 0]);
        assert_eq!(
            lines(&edge::VirtualServiceProvider, &two),
            [
                "spec: must have exactly one of virtualNode, virtualRouter, has virtualNode and virtualRouter"
            ]
        );
        assert_eq!(
            lines(&edge::VirtualServiceProvider, &json!({})),
            ["spec: must have exactly one of virtualNode, virtualRouter, has none"]
        );
        assert_eq!(
            lines(&node::Backend, &json!({})),
            ["spec: must have virtualService"]
        );
        let null = json!({"virtualNode": {"virtualNodeName": "n"}, "virtualRouter": null});
        assert_eq!(lines(&edge::VirtualServiceProvider, &null), [""; 0]);
    }

    #[test]
    fn numbers_are_whole_and_within_bounds() {
        let port = |port: Value| {
            lines(
                &node::PortMapping,
                &json!({"port": port, "protocol": "tcp"}),
            )
        };
        assert_eq!(port(json!(0)), ["spec.port: must be at least 1, is 0"]);
        assert_eq!(
            port(json!(65536)),
            ["spec.port: must be at most 65535, is 65536"]
        );
        assert_eq!(
            port(json!(80.5)),
            ["spec.port: must be a whole number, is 80.5"]
        );
        assert_eq!(
            port(json!(u64::MAX)),
            [format!("spec.port: must be at most 65535, is {}", u64::MAX)]
        );
        assert_eq!(
            port(json!("80")),
            ["spec.port: must be a whole number, is a string"]
        );
        assert_eq!(
            lines(
                &node::VirtualNodeTcpConnectionPool,
                &json!({"maxConnections": 2_147_483_647_u32})
            ),
            [""; 0]
        );
        assert_eq!(
            lines(
                &node::VirtualNodeTcpConnectionPool,
                &json!({"maxConnections": 2_147_483_648_u32})
            ),
            ["spec.maxConnections: must be at most 2147483647, is 2147483648"]
        );
    }

    #[test]
    fn texts_count_characters_and_lists_count_items() {
        let target = |name: &str| json!({"weightedTargets": [{"virtualNode": name, "weight": 1}]});
        assert_eq!(
            lines(&route::HttpRouteAction, &target(&"ä".repeat(255))),
            [""; 0]
        );
        assert_eq!(
            lines(&route::HttpRouteAction, &target(&"ä".repeat(256))),
            ["spec.weightedTargets[0].virtualNode: must have at most 255 characters, has 256"]
        );
        assert_eq!(
            lines(&route::HttpRouteAction, &json!({"weightedTargets": []})),
            ["spec.weightedTargets: must have at least 1 item, has 0"]
        );
        assert_eq!(
            lines(&route::HttpRouteAction, &json!({"weightedTargets": [null]})),
            ["spec.weightedTargets[0]: must be an object, is null"]
        );
    }

    #[test]
    fn words_and_patterns_are_held() {
        assert_eq!(
            lines(&node::PortMapping, &json!({"port": 1, "protocol": "HTTP"})),
            ["spec.protocol: must be http, tcp, http2 or grpc, is `HTTP`"]
        );
        assert_eq!(
            lines(
                &node::AwsCloudMapInstanceAttribute,
                &json!({"key": "a b", "value": "x y"})
            ),
            ["spec.key: must match ^[a-zA-Z0-9!-~]+$, is `a b`"]
        );
        assert_eq!(
            lines(
                &node::AwsCloudMapInstanceAttribute,
                &json!({"key": "a", "value": " x"})
            )
            .len(),
            1,
            "a value must not begin with a space"
        );
    }

    #[test]
    fn a_body_is_judged_outside_its_spec() {
        let lines = |operation, document: Value| -> Vec<String> {
            body(operation, &document)
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        assert_eq!(
            lines(
                "CreateVirtualNode",
                json!({"virtualNodeName": 5, "meshName": "m", "spec": {"odd": 1}, "tag": []})
            ),
            [
                "virtualNodeName: must be a string, is a number",
                "tag: is unknown; known here: clientToken, spec, tags, virtualNodeName"
            ]
        );
        assert_eq!(lines("UpdateVirtualNode", json!({})), ["spec: is required"]);
        assert_eq!(lines("UpdateMesh", json!({"spec": 1})), [""; 0]);
        assert_eq!(
            lines("UntagResource", json!([])),
            [": must be an object, is a list".trim_start_matches(": ")]
        );
    }

    #[test]
    fn a_long_value_is_shown_cut() {
        assert_eq!(shown(&"é".repeat(100)), format!("`{}…`", "é".repeat(60)));
    }
}
