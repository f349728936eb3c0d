// SPDX-License-Identifier: Apache-2.0
//! Which part of a dump is shown: `resource`, `mask` and `name_regex` of `/config_dump`, as Envoy reads them. Pure.

use regex::Regex;
use regex::RegexBuilder;
use serde_json::Map;
use serde_json::Value;

use super::query;

/// Bound on a compiled pattern; it comes from outside.
const REGEX_BYTES: usize = 1 << 20;

/// What was asked for.
#[derive(Default)]
pub(super) struct Asked {
    resource: Option<String>,
    mask: Vec<Vec<String>>,
    names: Option<Regex>,
}

impl Asked {
    pub(super) fn parse(raw: Option<&str>) -> Result<Asked, String> {
        let given = |key| query(raw, key).filter(|value| !value.is_empty());
        let names = given("name_regex").map(|pattern| {
            let built = RegexBuilder::new(&format!("^(?:{pattern})$"))
                .size_limit(REGEX_BYTES)
                .build();
            built.map_err(|error| {
                format!("name_regex {pattern:?} is no regular expression: {error}\n")
            })
        });
        let mask = given("mask").unwrap_or_default();
        let path = |path: &str| path.split('.').map(str::to_owned).collect();
        Ok(Asked {
            resource: given("resource"),
            mask: mask
                .split(',')
                .filter(|path| !path.is_empty())
                .map(path)
                .collect(),
            names: names.transpose()?,
        })
    }

    /// Whether a resource of this name is shown.
    pub(super) fn names(&self, name: &str) -> bool {
        self.names.as_ref().is_none_or(|names| names.is_match(name))
    }

    /// The whole dumps, or the entries of one list of them; of each, what the mask names.
    pub(super) fn of(&self, dumps: Vec<Value>) -> Result<Vec<Value>, String> {
        let Some(resource) = &self.resource else {
            return Ok(dumps.into_iter().map(|dump| self.masked(dump)).collect());
        };
        for dump in dumps {
            match dump.get(resource) {
                Some(Value::Array(entries)) => {
                    return Ok(entries
                        .iter()
                        .map(|entry| self.masked(entry.clone()))
                        .collect());
                }
                Some(one) => return Ok(vec![self.masked(one.clone())]),
                None => {}
            }
        }
        Err(format!("{resource} not found in config dump\n"))
    }

    fn masked(&self, value: Value) -> Value {
        if self.mask.is_empty() {
            return value;
        }
        let mut kept = Value::Object(Map::new());
        for path in &self.mask {
            keep(&value, path, &mut kept);
        }
        if let Some(kind) = value.get("@type") {
            kept["@type"] = kind.clone();
        }
        kept
    }
}

fn keep(from: &Value, path: &[String], to: &mut Value) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    let Some(found) = from.get(first) else {
        return;
    };
    if rest.is_empty() {
        to[first] = found.clone();
        return;
    }
    if !to[first].is_object() {
        to[first] = Value::Object(Map::new());
    }
    keep(found, rest, &mut to[first]);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn dumps() -> Vec<Value> {
        vec![
            json!({"@type": "a", "bootstrap": {"x": 1}}),
            json!({"@type": "b", "dynamic_active_clusters": [
                {"version_info": "1", "cluster": {"name": "c", "type": "EDS", "tls": {"sni": "s"}}},
            ]}),
        ]
    }

    fn asked(raw: &str) -> Asked {
        Asked::parse(Some(raw)).expect("good")
    }

    #[test]
    fn a_resource_is_the_entries_of_one_list() {
        let found = asked("resource=dynamic_active_clusters")
            .of(dumps())
            .expect("there");
        assert_eq!(found[0]["cluster"]["name"], "c");
        let why = asked("resource=none").of(dumps()).expect_err("not there");
        assert_eq!(why, "none not found in config dump\n");
    }

    #[test]
    fn a_mask_keeps_what_it_names() {
        let raw = "resource=dynamic_active_clusters&mask=cluster.name,cluster.tls.sni";
        let found = asked(raw).of(dumps()).expect("there");
        assert_eq!(
            found,
            [json!({"cluster": {"name": "c", "tls": {"sni": "s"}}})]
        );
        let whole = asked("mask=bootstrap").of(dumps()).expect("there");
        assert_eq!(
            whole,
            [
                json!({"@type": "a", "bootstrap": {"x": 1}}),
                json!({"@type": "b"})
            ]
        );
    }

    #[test]
    fn names_are_matched_whole() {
        assert!(asked("name_regex=c.*").names("c1") && !asked("name_regex=c").names("c1"));
        assert!(Asked::parse(Some("name_regex=(")).is_err());
    }
}
