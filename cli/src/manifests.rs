// SPDX-License-Identifier: Apache-2.0
//! `pillion validate` and `pillion apply`: manifests from files, every problem with its file and path, and the mesh
//! API calls that make them so. The rules themselves are `pillion_config`'s.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use http::Method;
use pillion_config::manifest::{Document, Parameters, in_apply_order, parse_manifest};
use pillion_config::{Kind, Problem, ResourceKey, Resources};
use serde_json::{Value, json};

use crate::args::{Apply, Validate};
use crate::operate;

struct Read {
    documents: Vec<Document>,
    /// Each with its file; empty when every manifest is sound.
    findings: Vec<String>,
}

/// True when nothing was found.
pub(crate) fn validate(settings: &Validate) -> anyhow::Result<bool> {
    let Read {
        documents,
        findings,
    } = read(&settings.files)?;
    let mut out = std::io::stdout().lock();
    if findings.is_empty() {
        writeln!(out, "{} resources, no problem", documents.len())?;
        return Ok(true);
    }
    for finding in &findings {
        writeln!(out, "{finding}")?;
    }
    Ok(false)
}

pub(crate) async fn apply(settings: &Apply) -> anyhow::Result<bool> {
    let Read {
        documents,
        findings,
    } = read(&settings.files)?;
    if !findings.is_empty() {
        bail!("nothing was applied:\n{}", findings.join("\n"));
    }
    let documents: Vec<Value> = in_apply_order(documents)
        .into_iter()
        .map(|document| input(&document))
        .collect();
    let path = format!("/pillion/v1/apply?dryRun={}", settings.dry_run);
    let answer = operate::ask(&settings.api, Method::POST, &path, Some(&json!(documents))).await?;
    if operate::printed(&settings.api, &answer)? {
        return Ok(true);
    }
    let mut out = std::io::stdout().lock();
    for change in answer["changes"].as_array().into_iter().flatten() {
        let word = operate::word(&change["action"]);
        let would = if settings.dry_run && word != "unchanged" {
            "would be "
        } else {
            ""
        };
        let arn = operate::word(&change["arn"]);
        let resource = arn.splitn(6, ':').last().unwrap_or(arn);
        writeln!(out, "{would}{word} {resource}")?;
        if settings.dry_run && word == "updated" {
            operate::write_diff(&mut out, &change["diff"])?;
        }
    }
    Ok(true)
}

/// A document as the create-* input it was read from.
fn input(document: &Document) -> Value {
    let key = &document.key;
    let mut input = json!({"spec": document.spec.to_value()});
    input[Kind::Mesh.name_member()] = json!(key.mesh);
    if let (Some(kind), Some(parent)) = (key.kind.parent(), &key.parent) {
        input[kind.name_member()] = json!(parent);
    }
    input[key.kind.name_member()] = json!(key.name);
    if !document.tags.is_empty() {
        input["tags"] = json!(document.tags);
    }
    if let Some(owner) = &document.mesh_owner {
        input["meshOwner"] = json!(owner);
    }
    input
}

/// `http://host:port`, with or without a slash; the port is 80 when absent.
pub(crate) fn authority(endpoint: &str) -> anyhow::Result<String> {
    let uri: http::Uri = endpoint
        .parse()
        .with_context(|| format!("--endpoint {endpoint}"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http"), Some(host)) => Ok(format!("{host}:{}", uri.port_u16().unwrap_or(80))),
        _ => bail!("--endpoint {endpoint}: must be http://<host>:<port>"),
    }
}

fn read(files: &[PathBuf]) -> anyhow::Result<Read> {
    let mut documents = Vec::new();
    let mut findings = Vec::new();
    let mut files_of: BTreeMap<ResourceKey, &PathBuf> = BTreeMap::new();
    for file in files {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        match parse_manifest(&text, &Parameters::new()) {
            Ok(parsed) => {
                for document in parsed {
                    if let Some(other) = files_of.insert(document.key.clone(), file) {
                        let problem = Problem::new(
                            &document.origin,
                            format!("{} is also in {}", document.key, other.display()),
                        );
                        findings.push(format!("{}: {problem}", file.display()));
                    }
                    documents.push(document);
                }
            }
            Err(problems) => {
                findings.extend(
                    problems
                        .iter()
                        .map(|problem| format!("{}: {problem}", file.display())),
                );
            }
        }
    }
    // With half of the resources unread, references would only seem to dangle.
    if findings.is_empty() {
        findings = dangling(&documents, &files_of);
    }
    Ok(Read {
        documents,
        findings,
    })
}

/// References that do not hold. Only within meshes that the manifests contain: of another they need not be whole.
fn dangling(documents: &[Document], files_of: &BTreeMap<ResourceKey, &PathBuf>) -> Vec<String> {
    let mut resources = Resources::new();
    for document in documents {
        resources.insert(document.key.clone(), document.spec.clone());
    }
    let mut findings = Vec::new();
    for document in documents {
        if !resources.contains(&ResourceKey::mesh(&document.key.mesh)) {
            continue;
        }
        let file = files_of
            .get(&document.key)
            .map(|file| file.display().to_string())
            .unwrap_or_default();
        for found in resources.check_references(&document.key, &document.spec) {
            findings.push(format!("{file}: {}", found.problem.under(&document.origin)));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_plain_http_address() {
        assert_eq!(
            authority("http://127.0.0.1:8700/").unwrap(),
            "127.0.0.1:8700"
        );
        assert_eq!(authority("http://mesh.local").unwrap(), "mesh.local:80");
        for wrong in ["https://mesh.local", "127.0.0.1:8700", "http://", ""] {
            assert!(authority(wrong).is_err(), "{wrong} was taken");
        }
    }
}
