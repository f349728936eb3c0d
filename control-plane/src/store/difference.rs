// SPDX-License-Identifier: Apache-2.0
//! How two states of a resource differ, member by member, for people: audit lines, history, dry runs. Pure.

use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use super::Record;

/// Most differences told of; a spec that was replaced whole has no use for more.
const MAX: usize = 200;

/// One member that changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// `spec.httpRoute.action.weightedTargets[0].weight`.
    pub path: String,
    /// Absent where there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// Absent where there is none any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// From one state to the next, in specs and tags; `None` is a resource that is not there.
pub fn between(before: Option<&Record>, after: Option<&Record>) -> Vec<Difference> {
    let mut found = Vec::new();
    let spec = |record: &Record| record.spec.to_value();
    let tags = |record: &Record| json!(record.tags);
    walk("spec", before.map(spec), after.map(spec), &mut found);
    let (old, new) = (before.map(tags), after.map(tags));
    let none = |tags: &Option<Value>| tags.as_ref().is_none_or(|tags| tags == &json!({}));
    if !(none(&old) && none(&new)) {
        walk("tags", old, new, &mut found);
    }
    found.truncate(MAX);
    found
}

fn walk(path: &str, before: Option<Value>, after: Option<Value>, found: &mut Vec<Difference>) {
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Value::Object(mut old)), Some(Value::Object(new))) => {
            for (name, value) in new {
                let old = old.remove(&name);
                walk(&format!("{path}.{name}"), old, Some(value), found);
            }
            for (name, value) in old {
                walk(&format!("{path}.{name}"), Some(value), None, found);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            let (mut old, mut new) = (old.into_iter(), new.into_iter());
            for index in 0.. {
                let (one, other) = (old.next(), new.next());
                if one.is_none() && other.is_none() {
                    break;
                }
                walk(&format!("{path}[{index}]"), one, other, found);
            }
        }
        (before, after) => found.push(Difference {
            path: path.to_owned(),
            before,
            after,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_told_down_to_the_member() {
        let before = json!({"a": 1, "b": [1, 2], "c": {"d": "x"}, "gone": true});
        let after = json!({"a": 1, "b": [1, 3, 4], "c": {"d": "y"}, "new": {}});
        let mut found = Vec::new();
        walk("spec", Some(before), Some(after), &mut found);
        let mut paths: Vec<&str> = found.iter().map(|one| one.path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(
            paths,
            [
                "spec.b[1]",
                "spec.b[2]",
                "spec.c.d",
                "spec.gone",
                "spec.new"
            ]
        );
    }
}
