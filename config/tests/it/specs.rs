// SPDX-License-Identifier: Apache-2.0
//! Whole documents: the good ones use every member there is and come back unchanged, the bad ones get exactly the
//! paths they deserve. The documents stand beside this file: `good.json`, `bad.json`, and in `stricter.json` what the
//! model allows and our rules do not.

use std::collections::BTreeSet;

use pillion_config::name::Kind;
use pillion_config::shapes::{Constraint, Shape, spec_of};
use pillion_config::{check, parse_spec};
use serde_json::Value;

fn documents(text: &str) -> Vec<(Kind, Value)> {
    let all: Vec<Value> = serde_json::from_str(text).unwrap();
    all.into_iter()
        .map(|entry| {
            let kind = Kind::ALL
                .into_iter()
                .find(|kind| entry["kind"] == kind.title())
                .unwrap();
            (kind, entry)
        })
        .collect()
}

fn good() -> Vec<(Kind, Value)> {
    documents(include_str!("good.json"))
}

#[test]
fn good_specs_are_accepted_and_echoed_as_sent() {
    for (kind, entry) in good() {
        let spec = parse_spec(kind, &entry["spec"])
            .unwrap_or_else(|problems| panic!("{problems:#?}\n{entry}"));
        assert_eq!(spec.kind(), kind);
        assert_eq!(spec.to_value(), entry["spec"]);
    }
}

#[test]
fn the_good_specs_use_every_member_of_the_model() {
    let mut known = BTreeSet::new();
    let mut used = BTreeSet::new();
    for kind in Kind::ALL {
        know(spec_of(kind), &mut known);
    }
    for (kind, entry) in good() {
        look(spec_of(kind), &entry["spec"], &mut used);
    }
    let unused: Vec<_> = known.difference(&used).collect();
    assert!(unused.is_empty(), "no good spec uses {unused:?}");
}

/// Every `shape.member`, and every word of a choice as `shape=word`.
fn know(shape: &Shape, known: &mut BTreeSet<String>) {
    match &shape.constraint {
        Constraint::Structure { members } | Constraint::Union { members } => {
            for member in *members {
                known.insert(format!("{}.{}", shape.name, member.name));
                know(member.of, known);
            }
        }
        Constraint::List { of, .. } => know(of, known),
        Constraint::Choice { words } => {
            known.extend(words.iter().map(|word| format!("{}={word}", shape.name)))
        }
        _ => {}
    }
}

fn look(shape: &Shape, document: &Value, used: &mut BTreeSet<String>) {
    match (&shape.constraint, document) {
        (
            Constraint::Structure { members } | Constraint::Union { members },
            Value::Object(object),
        ) => {
            for member in *members {
                if let Some(value) = object.get(member.name) {
                    used.insert(format!("{}.{}", shape.name, member.name));
                    look(member.of, value, used);
                }
            }
        }
        (Constraint::List { of, .. }, Value::Array(items)) => {
            items.iter().for_each(|item| look(of, item, used))
        }
        (Constraint::Choice { .. }, Value::String(word)) => {
            used.insert(format!("{}={word}", shape.name));
        }
        _ => {}
    }
}

#[test]
fn bad_specs_get_exactly_their_paths() {
    for (kind, entry) in documents(include_str!("bad.json")) {
        let problems = parse_spec(kind, &entry["spec"]).expect_err(&entry.to_string());
        let paths: Vec<&str> = problems
            .iter()
            .map(|problem| problem.path.as_str())
            .collect();
        let expected: Vec<&str> = entry["paths"]
            .as_array()
            .unwrap()
            .iter()
            .map(|path| path.as_str().unwrap())
            .collect();
        assert_eq!(paths, expected, "{problems:#?}");
    }
}

#[test]
fn where_we_are_stricter_than_the_model_the_reason_is_written_down() {
    for (kind, entry) in documents(include_str!("stricter.json")) {
        let spec = &entry["spec"];
        assert_eq!(
            check::against(spec_of(kind), spec, "spec"),
            [],
            "the model allows it: {spec}"
        );
        let problems = parse_spec(kind, spec).expect_err(&spec.to_string());
        let paths: Vec<&str> = problems
            .iter()
            .map(|problem| problem.path.as_str())
            .collect();
        assert_eq!(paths, [entry["path"].as_str().unwrap()], "{entry}");
        assert!(!entry["reason"].as_str().unwrap().is_empty());
    }
}

#[test]
fn nulls_count_as_absent_and_are_not_echoed() {
    let sent = serde_json::json!({"provider": {"virtualNode": {"virtualNodeName": "n"}, "virtualRouter": null}});
    let spec = parse_spec(Kind::VirtualService, &sent).unwrap();
    assert_eq!(
        spec.to_value(),
        serde_json::json!({"provider": {"virtualNode": {"virtualNodeName": "n"}}})
    );
    let empty = serde_json::json!({"provider": null});
    assert_eq!(
        parse_spec(Kind::VirtualService, &empty).unwrap().to_value(),
        serde_json::json!({})
    );
}

#[test]
fn empty_and_absent_lists_are_told_apart() {
    for sent in [serde_json::json!({}), serde_json::json!({"backends": []})] {
        assert_eq!(
            parse_spec(Kind::VirtualNode, &sent).unwrap().to_value(),
            sent
        );
    }
}
