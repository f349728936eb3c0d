// SPDX-License-Identifier: Apache-2.0
//! The verdict: differences against their list, and `docs/parity.md`.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::Write;

use anyhow::Context;
use serde::Deserialize;

use super::Outcomes;
use super::case::Case;
use super::folder;

/// Differences with one reason. `*` in `cases` stands for any case.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Allowed {
    /// A field's name, or with a `*` at its end the beginning of one.
    fields: Vec<String>,
    cases: Vec<String>,
    reason: String,
}

impl Allowed {
    fn covers(&self, case: &str, field: &str) -> bool {
        let field_fits = self
            .fields
            .iter()
            .any(|wanted| match wanted.strip_suffix('*') {
                Some(start) => field.starts_with(start),
                None => wanted == field,
            });
        field_fits
            && self
                .cases
                .iter()
                .any(|wanted| wanted == "*" || wanted == case)
    }
}

struct Difference<'c> {
    case: &'c str,
    field: String,
    theirs: String,
    ours: String,
}

/// Fails where an unlisted difference is, where a listed one is not, and where the committed report says otherwise.
pub(crate) fn judge(cases: &[Case], theirs: &Outcomes, ours: &Outcomes) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(folder("cases/differences.json"))?;
    let allowed: Vec<Allowed> = serde_json::from_str(&text).context("cases/differences.json")?;
    let found: Vec<Difference<'_>> = cases
        .iter()
        .flat_map(|case| differences(case, theirs, ours))
        .collect();
    let mut wrong = String::new();
    for one in &found {
        if !allowed.iter().any(|row| row.covers(one.case, &one.field)) {
            writeln!(
                wrong,
                "{:?}: {}: Envoy {:?}, ours {:?}",
                one.case, one.field, one.theirs, one.ours
            )?;
        }
    }
    for row in &allowed {
        for case in &row.cases {
            let differs = |one: &&Difference<'_>| {
                (case == "*" || case == one.case) && row.covers(one.case, &one.field)
            };
            if !found.iter().any(|one| differs(&one)) {
                writeln!(
                    wrong,
                    "{case:?}: {:?} no longer differ, take the row out of differences.json",
                    row.fields
                )?;
            }
        }
    }
    anyhow::ensure!(wrong.is_empty(), "{wrong}");
    let report = render(cases, &allowed, &found)?;
    let path = folder("../docs/parity.md");
    if std::env::var_os("PILLION_PARITY_WRITE").is_some() {
        std::fs::write(&path, &report)?;
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    anyhow::ensure!(
        committed == report,
        "docs/parity.md is out of date; run this test with PILLION_PARITY_WRITE=1"
    );
    Ok(())
}

fn differences<'c>(case: &'c Case, theirs: &Outcomes, ours: &Outcomes) -> Vec<Difference<'c>> {
    let (theirs, ours) = (&theirs[&case.name], &ours[&case.name]);
    let fields: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    let value = |from: &super::Fields, field: &str| {
        from.get(field)
            .map_or_else(|| "(none)".to_owned(), String::clone)
    };
    fields
        .into_iter()
        .filter(|field| theirs.get(*field) != ours.get(*field))
        .map(|field| Difference {
            case: &case.name,
            field: field.clone(),
            theirs: value(theirs, field),
            ours: value(ours, field),
        })
        .collect()
}

fn render(cases: &[Case], allowed: &[Allowed], found: &[Difference<'_>]) -> anyhow::Result<String> {
    let mut text = String::from(HEAD);
    let mut groups: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for case in cases {
        let (all, equal) = groups.entry(&case.group).or_default();
        *all += 1;
        *equal += usize::from(found.iter().all(|one| one.case != case.name));
    }
    writeln!(
        text,
        "| group | cases | equal | differ |\n|---|---|---|---|"
    )?;
    let (mut all, mut equal) = (0, 0);
    for (group, (of_all, of_equal)) in &groups {
        writeln!(
            text,
            "| {group} | {of_all} | {of_equal} | {} |",
            of_all - of_equal
        )?;
        (all, equal) = (all + of_all, equal + of_equal);
    }
    writeln!(
        text,
        "| **all** | **{all}** | **{equal}** | **{}** |",
        all - equal
    )?;
    writeln!(text, "\n## Differences\n")?;
    for row in allowed {
        writeln!(
            text,
            "**{}**\n\n| case | field | Envoy | ours |\n|---|---|---|---|",
            row.reason
        )?;
        for one in found.iter().filter(|one| row.covers(one.case, &one.field)) {
            writeln!(
                text,
                "| {} | {} | {} | {} |",
                one.case,
                one.field,
                cell(&one.theirs),
                cell(&one.ours)
            )?;
        }
        writeln!(text)?;
    }
    Ok(text.trim_end().to_owned() + "\n")
}

fn cell(text: &str) -> String {
    let plain = text.replace('|', "\\|").replace('\n', " ");
    if plain.is_empty() {
        "(empty)".to_owned()
    } else {
        format!("`{plain}`")
    }
}

const HEAD: &str = "\
# Parity with Envoy

Written by `mesh-test/tests/it/parity.rs`; do not edit. A stock Envoy 1.40 and `pillion-proxy` stand in as the same
sidecar and the same gateways of one mesh, configured by the same control plane. Both get the same bytes, and everything
that a caller or an application can see is compared: status, headers, body, trailers, what becomes of the connection,
every request that reached an application, line, headers, body and trailers, and what the access log says of it (times
left out). Of `date`, `x-request-id` and
`x-envoy-upstream-service-time` only the presence is compared; the reason phrase, the order of headers and trace headers that the caller did not send
are not.

`PILLION_PARITY_WRITE=1 cargo nextest run -p mesh-test parity` writes this file anew.

";
