// SPDX-License-Identifier: Apache-2.0
//! What a case showed, field by field, in the form in which two proxies are held against each other.

use std::collections::BTreeMap;

use mesh_test::asking::Answer;
use mesh_test::scripted::Seen;
use mesh_test::scripted::split;

use super::Outcomes;
use super::case::Case;

/// Field and value.
pub(crate) type Fields = BTreeMap<String, String>;

/// Headers whose value is a clock's or a die's: only their presence is compared.
const VARIES: [&str; 3] = ["date", "x-envoy-upstream-service-time", "x-request-id"];
/// Headers of tracing, which our proxy always does and App Mesh's Envoy did where it was switched on.
const TRACING: [&str; 3] = ["traceparent", "tracestate", "x-amzn-trace-id"];

/// The fields of all answers, and of all requests that reached applications. `sent` are the header lines of the
/// request: what the caller itself wrote is compared by value.
pub(crate) fn fields(answers: &[Answer], seen: &[Seen], sent: &[&str]) -> Fields {
    let mut all = Fields::new();
    for (number, answer) in answers.iter().enumerate() {
        let at = if answers.len() > 1 {
            format!("answer {number} ")
        } else {
            "answer ".to_owned()
        };
        all.insert(format!("{at}status"), answer.status.clone());
        all.insert(format!("{at}body"), short(&answer.body));
        all.insert(format!("{at}fate"), answer.fate.clone());
        if !answer.interim.is_empty() {
            all.insert(format!("{at}interim"), answer.interim.join(", "));
        }
        headers(&mut all, &format!("{at}header "), &answer.headers, &[]);
        headers(&mut all, &format!("{at}trailer "), &answer.trailers, &[]);
    }
    all.insert("arrived count".to_owned(), seen.len().to_string());
    for (number, one) in seen.iter().enumerate() {
        let at = if seen.len() > 1 {
            format!("arrived {number} ")
        } else {
            "arrived ".to_owned()
        };
        all.insert(format!("{at}app"), one.app.clone());
        all.insert(format!("{at}line"), one.line.clone());
        all.insert(format!("{at}body"), short(&one.body));
        headers(&mut all, &format!("{at}header "), &one.headers, sent);
        headers(&mut all, &format!("{at}trailer "), &one.trailers, sent);
    }
    what_is_left(&mut all);
    all
}

fn short(text: &str) -> String {
    if text.len() <= 200 {
        return text.to_owned();
    }
    let head: String = text.chars().take(20).collect();
    format!("{head}… ({} bytes)", text.len())
}

fn headers(all: &mut Fields, at: &str, lines: &[String], sent: &[&str]) {
    for line in lines {
        let (name, value) = match line.strip_prefix(':') {
            Some(pseudo) => split(pseudo),
            None => split(line),
        };
        let mut own = sent
            .iter()
            .map(|line| split(line))
            .filter(|(own, _)| own.eq_ignore_ascii_case(name));
        if TRACING.contains(&name) && own.clone().next().is_none() || name == "x-case" {
            continue;
        }
        let value = match name {
            _ if VARIES.contains(&name) && !own.any(|(_, said)| said == value) => {
                "(some)".to_owned()
            }
            "x-forwarded-for" => callers(value, sent),
            "connection" | "upgrade" => value.to_ascii_lowercase(),
            _ => short(value),
        };
        let field = all.entry(format!("{at}{name}")).or_default();
        if !field.is_empty() {
            field.push_str(" | ");
        }
        field.push_str(&value);
    }
}

/// Addresses that the caller did not write: Envoy puts the host's own where the caller is on the loopback.
fn callers(value: &str, sent: &[&str]) -> String {
    let known = |address: &str| sent.iter().any(|line| line.contains(address));
    let all = value.split(',').map(|address| {
        if known(address.trim()) {
            address
        } else {
            "(caller)"
        }
    });
    all.collect::<Vec<_>>().join(",")
}

/// What a later try is told is left of the whole depends on how long the earlier ones took, which may be no millisecond.
fn what_is_left(all: &mut Fields) {
    let first = all
        .get("arrived 0 header x-envoy-expected-rq-timeout-ms")
        .cloned();
    let number = |text: &str| text.parse::<u64>().ok();
    let Some(first) = first.as_deref().and_then(number) else {
        return;
    };
    for (field, value) in all.iter_mut() {
        let later = field.ends_with("header x-envoy-expected-rq-timeout-ms")
            && !field.starts_with("arrived 0");
        if later && number(value).is_some_and(|left| left <= first && left + 2000 > first) {
            *value = "(what is left)".to_owned();
        }
    }
}

/// Cases in which Envoy did not show what the row says it shows.
pub(crate) fn unexpected(cases: &[Case], outcomes: &Outcomes) -> Vec<String> {
    let mut wrong = Vec::new();
    for case in cases {
        let shown = &outcomes[&case.name];
        let status = shown
            .get("answer status")
            .or_else(|| shown.get("answer 0 status"));
        let status = status.map_or("", |value| value.rsplit(' ').next().unwrap_or_default());
        let count = &shown["arrived count"];
        let app = shown
            .iter()
            .rfind(|(field, _)| field.starts_with("arrived") && field.ends_with("app"));
        let app = app.map_or("-", |(_, value)| value.as_str());
        let said = format!("{status} {app}");
        let tries = case.tries.is_none_or(|tries| tries.to_string() == *count);
        if said != case.want || !tries {
            wrong.push(format!(
                "{:?} wants {:?} {:?}, shows {said:?} {count}: {shown:#?}",
                case.name, case.want, case.tries
            ));
        }
    }
    wrong
}
