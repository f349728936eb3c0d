// SPDX-License-Identifier: Apache-2.0
//! The worked rows of the filter language over six traces, its errors with their places, and that nothing panics.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::convert::xray;
use crate::span::Span;
use crate::span::TraceId;
use crate::summary::evaluate;
use crate::trace::Trace;

/// Scorekeep, then the five of the fixture, by the last digit of their ids.
fn traces() -> Vec<Summary> {
    let mut spans: BTreeMap<TraceId, Vec<Span>> = BTreeMap::new();
    for text in [
        include_str!("../../tests/fixtures/scorekeep.json"),
        include_str!("../../tests/fixtures/filters.json"),
    ] {
        let documents: Vec<Value> = serde_json::from_str(text).expect("JSON");
        for document in documents {
            let parsed = xray::parse(document.to_string().as_bytes()).expect("valid");
            spans
                .entry(parsed.spans[0].trace)
                .or_default()
                .extend(parsed.spans);
        }
    }
    spans
        .into_iter()
        .map(|(id, spans)| evaluate(&Trace::assemble(id, spans), 1, false).summary)
        .collect()
}

fn groups() -> Vec<GroupFilter> {
    vec![GroupFilter {
        name: "slow".to_owned(),
        arn: "arn:slow".to_owned(),
        filter: Some(Filter::parse("responsetime > 5").expect("valid")),
    }]
}

/// The traces, from 1, that satisfy an expression.
fn matching(traces: &[Summary], text: &str) -> Vec<usize> {
    let filter = Filter::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    traces
        .iter()
        .enumerate()
        .filter(|(_, one)| filter.matches(one, &groups()))
        .map(|(at, _)| at + 1)
        .collect()
}

const ROWS: [(&str, &[usize]); 37] = [
    ("responsetime > 5", &[3]),
    ("duration >= 5 AND duration <= 8", &[3]),
    ("ok", &[1, 3, 6]),
    ("!ok", &[2, 4, 5]),
    ("ok = false", &[2, 4, 5]),
    ("fault", &[2]),
    ("service() { fault }", &[2, 3]),
    (r#"service("api.example.com") { fault }"#, &[2]),
    (
        r#"edge("api.example.com", "backend.example.com") { error }"#,
        &[2],
    ),
    (r#"edge("api.example.com", "backend.example.com")"#, &[2, 3]),
    (
        r#"http.url BEGINSWITH "http://api.example.com/" AND http.url CONTAINS "/v2/" AND !service("api.example.com")"#,
        &[],
    ),
    ("ok !partial duration <3", &[6]),
    ("throttle", &[4]),
    ("error", &[4]),
    (r#"annotation.gameid = "817DL6VO""#, &[3]),
    ("annotation.age", &[2, 3]),
    ("!annotation.age", &[1, 4, 5, 6]),
    ("annotation.age > 29", &[2]),
    ("annotation[age] > 29", &[2]),
    ("annotation.beta", &[2]),
    (r#"user CONTAINS """#, &[1, 3]),
    ("http.url AND responseTime > 2", &[1, 3]),
    (
        r#"service(id(name: "random-name", type: "AWS::Lambda::Function"))"#,
        &[1],
    ),
    (r#"service(id(type: "AWS::DynamoDB::Table")) { ok }"#, &[1]),
    (
        r#"service("backend.example.com") { fault } OR partial"#,
        &[3, 5],
    ),
    ("inferred", &[1, 3, 5]),
    (
        r#"rootcause.fault.service { name = "backend.example.com" and inferred }"#,
        &[3],
    ),
    (r#"http.status != 200 AND http.method = "GET""#, &[2, 4]),
    (r#"group.name = "slow" AND user = "alice""#, &[3]),
    (
        r#"service("api.example.com") {root = true and fault = true}"#,
        &[2],
    ),
    (r#"instance.id = "i-0cd9e448944061b4a""#, &[1]),
    (
        r#"edge(id(name: "api.example.com"), id(type: "Database::SQL"))"#,
        &[5],
    ),
    (
        r#"service(id(name: "backend.example.com", type: "remote"))"#,
        &[3],
    ),
    (
        "rootcause.responsetime.entity { remote and coverage > 0.7 }",
        &[1, 3],
    ),
    // Beyond the published rows.
    ("user = alice", &[3]),
    (
        r#"rootcause.fault.json = #[{"ClientImpacting": false, "Services": [{"Name": "api.example.com"}, {"Name": "backend.example.com", "Inferred": true}]}]"#,
        &[3],
    ),
    (
        r#"rootcause.fault.exception { message CONTAINS "refused" }"#,
        &[2],
    ),
];

#[test]
fn the_worked_rows_select_what_they_say() {
    let traces = traces();
    assert_eq!(traces.len(), 6);
    for (text, expected) in ROWS {
        assert_eq!(matching(&traces, text), expected, "{text}");
    }
}

#[test]
fn words_are_read_in_any_case_and_values_are_not() {
    let traces = traces();
    for (text, expected) in [
        ("OK Or FAULT", vec![1, 2, 3, 6]),
        (r#"Http.Url contains "/v1/""#, vec![3]),
        (r#"HTTP.METHOD = "get""#, vec![]),
        ("SERVICE() { Fault = TRUE }", vec![2, 3]),
    ] {
        assert_eq!(matching(&traces, text), expected, "{text}");
    }
}

#[test]
fn and_binds_closer_than_or_whether_it_is_written_or_not() {
    let traces = traces();
    let apart = matching(&traces, "fault OR (ok AND duration < 1)");
    assert_eq!(apart, [2, 6]);
    for text in [
        "fault OR ok duration < 1",
        "ok and duration < 1 or fault",
        "!!fault OR ok duration < 1",
    ] {
        assert_eq!(matching(&traces, text), apart, "{text}");
    }
    assert_eq!(matching(&traces, "(fault OR ok) duration < 1"), [6]);
}

#[test]
fn a_comparison_with_what_is_not_there_is_false_either_way() {
    let traces = traces();
    for text in [
        "annotation.none = 1",
        "annotation.none != 1",
        r#"annotation.age = "30""#,
        r#"group.name = "none""#,
    ] {
        assert_eq!(matching(&traces, text), [0usize; 0], "{text}");
    }
}

#[test]
fn errors_name_the_offset_and_what_was_expected() {
    for (text, offset, expected) in [
        ("", 0, "a keyword"),
        ("ok AND", 6, "a keyword"),
        ("responsetime > fast", 15, "a number"),
        ("responsetime", 12, ">="),
        (r#"http.url < "x""#, 9, "CONTAINS"),
        ("ok = maybe", 5, "true or false"),
        (
            r#"service("a") { fault"#,
            20,
            "'}' for the '{' at offset 13",
        ),
        (r#"service("a" { fault }"#, 12, "')'"),
        (r#"edge("a")"#, 8, "','"),
        ("coverage > 1", 0, "a keyword"),
        ("service() { service() }", 12, "a keyword"),
        (
            "rootcause.fault.service { http.status = 1 }",
            26,
            "a keyword",
        ),
        ("rootcause.fault = 1", 0, "rootcause."),
        ("rootcause.json = [1]", 17, "'#'"),
        (r#"name = "abc"#, 11, "closing"),
        ("ok ^ fault", 3, "an operator"),
        ("ok)", 2, "the end"),
        (r#"service(id(nom: "x"))"#, 11, "name, type or account.id"),
        ("nonsense", 0, "a keyword"),
        ("ééé ^", 4, "an operator"),
    ] {
        let error = Filter::parse(text).expect_err(text);
        assert_eq!(error.offset, offset, "{text}: {error}");
        assert!(error.expected.contains(expected), "{text}: {error}");
    }
}

#[test]
fn length_and_depth_are_bounded() {
    let deep = |levels: usize| format!("{}ok{}", "(".repeat(levels), ")".repeat(levels));
    assert!(Filter::parse(&deep(16)).is_ok());
    assert!(Filter::parse(&deep(17)).is_err());
    assert!(Filter::parse(&format!("{}ok", "!".repeat(17))).is_err());
    assert!(Filter::parse(&" ".repeat(MAX_CHARACTERS + 1)).is_err());
}

#[test]
fn a_time_series_is_about_one_selector_without_a_block() {
    for text in [
        r#"service("a")"#,
        "service()",
        r#"edge("a", id(type: "b"))"#,
        r#"id(name: "a", type: "b")"#,
    ] {
        assert!(EntitySelector::parse(text).is_ok(), "{text}");
    }
    for text in ["", "fault", r#"service("a") { ok }"#, r#"edge("a")"#] {
        assert!(EntitySelector::parse(text).is_err(), "{text}");
    }
}

/// Pieces of the language in any order: deeper into the parser than random characters go.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "ok",
        "!",
        "(",
        ")",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "=",
        "!=",
        "<",
        "<=",
        ">",
        "AND",
        "OR",
        "service",
        "edge",
        "id",
        "name",
        "type",
        "annotation.x",
        "annotation",
        "rootcause.json",
        "rootcause.fault.service",
        "rootcause.responsetime.entity",
        "group.name",
        "#",
        "[1",
        "\"a\"",
        "\"",
        "5",
        "-",
        "1e999",
        "true",
        "http.status",
        "duration",
        "CONTAINS",
        "coverage",
        "é",
        "\\",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_makes_the_parser_or_the_matcher_panic(text in prop_oneof!["\\PC{0,200}", ".{0,60}", pieces()]) {
        match Filter::parse(&text) {
            Err(error) => prop_assert!(error.offset <= text.chars().count()),
            Ok(filter) => {
                let one = &traces()[0];
                prop_assert_ne!(filter.matches(one, &[]), Filter(Expression::Not(Box::new(filter.0.clone()))).matches(one, &[]));
            }
        }
        if let Err(error) = EntitySelector::parse(&text) {
            prop_assert!(error.offset <= text.chars().count());
        }
    }
}
