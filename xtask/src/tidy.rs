// SPDX-License-Identifier: Apache-2.0
//! Holds the tree against its own rules: who may import whom, how a file begins, how long it may be, which names are
//! banned, that links lead somewhere. All findings in one report.

use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::bail;
use serde_json::Value;

use crate::shell::Shell;

/// The table "Who may import whom" of ARCHITECTURE.md: package, and what of ours it may depend on.
const EDGES: [(&str, &[&str]); 11] = [
    ("pillion-config", &[]),
    ("pillion-xds", &[]),
    ("pillion-runtime", &[]),
    ("pillion-sigv4", &[]),
    ("pillion-proxy", &["pillion-xds", "pillion-runtime"]),
    (
        "pillion-control-plane",
        &[
            "pillion-config",
            "pillion-xds",
            "pillion-runtime",
            "pillion-sigv4",
        ],
    ),
    ("pillion-collector", &["pillion-runtime", "pillion-sigv4"]),
    ("pillion-loadtest", &[]),
    ("pillion", &["pillion-config", "pillion-sigv4"]),
    (
        "mesh-test",
        &[
            "pillion-config",
            "pillion-xds",
            "pillion-runtime",
            "pillion-sigv4",
        ],
    ),
    ("xtask", &[]),
];

/// Only the entry point of a program, automation and tests may use an error type that says nothing.
const ANYHOW_MAY: [&str; 6] = [
    "/main.rs",
    "xtask/",
    "/tests/",
    "mesh-test/",
    "cli/",
    "loadtest/",
];

/// Names that tell a reader nothing.
const BANNED_NAMES: [&str; 8] = [
    "mod.rs",
    "util.rs",
    "utils.rs",
    "common.rs",
    "helpers.rs",
    "helper.rs",
    "manager.rs",
    "misc.rs",
];

const MAX_LINES: usize = 500;

pub(crate) fn check(shell: &Shell) -> anyhow::Result<()> {
    let mut findings = Vec::new();
    crate_edges(shell, &mut findings)?;
    let tracked = shell.capture("git", &["ls-files"])?;
    for name in tracked.lines() {
        let path = shell.root().join(name);
        // A tracked file that was just deleted is the next commit's business.
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        if name.ends_with(".rs") {
            source_file(name, &text, &mut findings);
        }
        if name.ends_with(".md") {
            links(name, &path, &text, &mut findings);
        }
    }
    if findings.is_empty() {
        return Ok(());
    }
    for finding in &findings {
        eprintln!("    {finding}");
    }
    bail!(
        "{} finding(s); the rules and their reasons are in CONTRIBUTING.md",
        findings.len()
    )
}

fn crate_edges(shell: &Shell, findings: &mut Vec<String>) -> anyhow::Result<()> {
    let metadata = shell.capture("cargo", &["metadata", "--format-version", "1", "--no-deps"])?;
    let metadata: Value = serde_json::from_str(&metadata).context("read cargo metadata")?;
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = EDGES.iter().find(|(crate_name, _)| *crate_name == name) else {
            findings.push(format!(
                "{name}: a new package; give it a row in the table of xtask/src/tidy.rs"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = dependency["name"].as_str().unwrap_or_default();
            let ours = EDGES.iter().any(|(crate_name, _)| *crate_name == on);
            if ours && !allowed.contains(&on) {
                findings.push(format!("{name} imports {on}; it may import {allowed:?}"));
            }
        }
    }
    Ok(())
}

fn source_file(name: &str, text: &str, findings: &mut Vec<String>) {
    let mut lines = text.lines();
    if lines.next() != Some("// SPDX-License-Identifier: Apache-2.0") {
        findings.push(format!("{name}:1: begins with the SPDX line"));
    }
    if !lines.next().is_some_and(|line| line.starts_with("//!")) {
        findings.push(format!("{name}:2: says in `//!` what the file is for"));
    }
    let file = name.rsplit('/').next().unwrap_or(name);
    if BANNED_NAMES.contains(&file) {
        findings.push(format!(
            "{name}: a name that tells nothing; call it what it does"
        ));
    }
    let production = text
        .split("#[cfg(test)]")
        .next()
        .unwrap_or(text)
        .lines()
        .count();
    let is_test = name.contains("/tests/") || name.ends_with("/tests.rs");
    if production > MAX_LINES && !is_test {
        findings.push(format!(
            "{name}: {production} lines; beyond {MAX_LINES} it wants to be two rooms"
        ));
    }
    if text.contains("anyhow::")
        && !ANYHOW_MAY
            .iter()
            .any(|place| format!("/{name}").contains(place))
    {
        findings.push(format!(
            "{name}: anyhow is for main.rs, xtask and tests; name what failed with thiserror"
        ));
    }
}

fn links(name: &str, path: &Path, text: &str, findings: &mut Vec<String>) {
    let dir = path.parent().unwrap_or(path);
    for (number, line) in text.lines().enumerate() {
        for target in line
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") || file.starts_with("mailto:") {
                continue;
            }
            if !dir.join(file).exists() {
                findings.push(format!(
                    "{name}:{}: links to {target}, which is not there",
                    number + 1
                ));
            }
        }
    }
}
