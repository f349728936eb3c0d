// SPDX-License-Identifier: Apache-2.0
//! Holds the constraint table against the model that AWS publishes in botocore, fact by fact and in both directions,
//! so that nothing can be forgotten and nothing invented. Needs the Python environment of `cargo xtask setup`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use pillion_config::name::Kind;
use pillion_config::shapes::{Constraint, Place, Shape, requests::OPERATIONS, spec_of};
use serde_json::{Value, json};

/// Facts of the model that the table leaves out or states otherwise, with the reason. None so far: what is stricter
/// than the model is a rule, not a constraint, and stands in `stricter.json`.
const EXCEPTIONS: &[(&str, &str)] = &[];

const LOAD_MODEL: &str = "
import botocore.loaders, json, sys
model = botocore.loaders.Loader().load_service_model('appmesh', 'service-2', '2019-01-25')
json.dump({'operations': model['operations'], 'shapes': model['shapes']}, sys.stdout)
";

fn model() -> Value {
    let venv = std::env::var_os("PILLION_VENV").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/venv")),
        PathBuf::from,
    );
    let python = venv.join("bin/python");
    let output = Command::new(&python)
        .args(["-c", LOAD_MODEL])
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "start {}: {error}; run `cargo xtask setup`",
                python.display()
            )
        });
    assert!(
        output.status.success(),
        "botocore is missing from {}; run `cargo xtask setup`\n{}",
        venv.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The facts of the model, one a line, of everything reachable from the inputs of all operations.
fn facts_of_model(model: &Value) -> BTreeSet<String> {
    let mut facts = BTreeSet::new();
    let mut open: Vec<String> = Vec::new();
    for (operation, described) in model["operations"].as_object().unwrap() {
        let input = described["input"]["shape"].as_str().unwrap();
        facts.insert(format!("operation {operation} takes {input}"));
        open.push(input.to_owned());
    }
    let mut seen = BTreeSet::new();
    while let Some(name) = open.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let shape = &model["shapes"][&name];
        let kind = match shape["type"].as_str().unwrap() {
            "structure" if shape["union"] == json!(true) => "union",
            kind => kind,
        };
        facts.insert(format!("{name} is a {kind}"));
        for bound in ["min", "max"] {
            if let Some(value) = shape.get(bound) {
                facts.insert(format!("{name} has {bound} {value}"));
            }
        }
        if let Some(pattern) = shape["pattern"].as_str() {
            facts.insert(format!("{name} matches {pattern}"));
        }
        for word in shape["enum"].as_array().into_iter().flatten() {
            facts.insert(format!("{name} may be {}", word.as_str().unwrap()));
        }
        if let Some(of) = shape["member"]["shape"].as_str() {
            facts.insert(format!("{name} lists {of}"));
            open.push(of.to_owned());
        }
        for (member, described) in shape["members"].as_object().into_iter().flatten() {
            let of = described["shape"].as_str().unwrap();
            let required = shape["required"]
                .as_array()
                .is_some_and(|all| all.contains(&json!(member)));
            let place = match described["location"].as_str() {
                None => "body",
                Some("uri") => "uri",
                Some("querystring") => "query",
                Some(other) => {
                    panic!("{name}.{member} travels in {other}, which the table cannot say")
                }
            };
            facts.insert(member_fact(&name, member, of, required, place));
            open.push(of.to_owned());
        }
    }
    facts
}

fn member_fact(shape: &str, member: &str, of: &str, required: bool, place: &str) -> String {
    let required = if required { "required" } else { "optional" };
    format!("{shape}.{member} is a {required} {of} in the {place}")
}

/// The same facts read off the table.
fn facts_of_table() -> BTreeSet<String> {
    let mut facts = BTreeSet::new();
    let mut open: Vec<&Shape> = Vec::new();
    for (operation, input) in OPERATIONS {
        facts.insert(format!("operation {operation} takes {}", input.name));
        open.push(input);
    }
    open.extend(Kind::ALL.map(spec_of));
    let mut seen = BTreeSet::new();
    while let Some(shape) = open.pop() {
        let name = shape.name;
        if !seen.insert(name) {
            continue;
        }
        let mut bounds: [(&str, Option<i64>); 2] = [("min", None), ("max", None)];
        let length = |bound: &Option<usize>| bound.map(|bound| i64::try_from(bound).unwrap());
        let kind = match &shape.constraint {
            Constraint::Structure { .. } => "structure",
            Constraint::Union { .. } => "union",
            Constraint::List { of, min, max } => {
                facts.insert(format!("{name} lists {}", of.name));
                open.push(of);
                bounds = [("min", length(min)), ("max", length(max))];
                "list"
            }
            Constraint::Text { min, max, pattern } => {
                facts.extend(pattern.map(|pattern| format!("{name} matches {}", pattern.as_str())));
                bounds = [("min", length(min)), ("max", length(max))];
                "string"
            }
            Constraint::Choice { words } => {
                facts.extend(words.iter().map(|word| format!("{name} may be {word}")));
                "string"
            }
            Constraint::Integer { min, max } => {
                bounds = [("min", *min), ("max", *max)];
                "integer"
            }
            Constraint::Long { min, max } => {
                bounds = [("min", *min), ("max", *max)];
                "long"
            }
            Constraint::Boolean => "boolean",
        };
        facts.insert(format!("{name} is a {kind}"));
        for (bound, value) in bounds {
            facts.extend(value.map(|value| format!("{name} has {bound} {value}")));
        }
        if let Constraint::Structure { members } | Constraint::Union { members } = &shape.constraint
        {
            for member in *members {
                let place = match member.place {
                    Place::Body => "body",
                    Place::Uri => "uri",
                    Place::Query => "query",
                };
                facts.insert(member_fact(
                    name,
                    member.name,
                    member.of.name,
                    member.required,
                    place,
                ));
                open.push(member.of);
            }
        }
    }
    facts
}

#[test]
fn the_table_says_what_the_published_model_says_and_nothing_else() {
    let (model, table) = (facts_of_model(&model()), facts_of_table());
    assert!(
        model.len() >= 900,
        "the model was read whole: {} facts",
        model.len()
    );
    let excepted = |fact: &&String| !EXCEPTIONS.iter().any(|(known, _)| known == fact);
    let forgotten: Vec<&String> = model.difference(&table).filter(excepted).collect();
    let invented: Vec<&String> = table.difference(&model).filter(excepted).collect();
    assert!(
        forgotten.is_empty() && invented.is_empty(),
        "forgotten: {forgotten:#?}\ninvented: {invented:#?}"
    );
}

#[test]
fn there_are_thirty_eight_operations() {
    assert_eq!(OPERATIONS.len(), 38);
}
