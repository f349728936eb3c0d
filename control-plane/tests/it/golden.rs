// SPDX-License-Identifier: Apache-2.0
//! Translation as a whole: `tests/translate/<case>.yaml` is a mesh, `<case>.golden` what its proxies are told. A change
//! of behaviour is a change of a golden file, to be read as a diff. `PILLION_BLESS=1` writes the files anew.

mod render;

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

use pillion_config::Kind;
use pillion_config::Resources;
use pillion_config::manifest::parse_manifest;
use pillion_control_plane::publish::snapshot::Snapshot;
use pillion_control_plane::translate;
use pillion_control_plane::translate::Translation;
use pillion_xds::resource::Resource;

const TRUST_DOMAIN: &str = "pillion.local";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/translate")
}

fn mesh(case: &str) -> Resources {
    let text = std::fs::read_to_string(folder().join(format!("{case}.yaml"))).expect("the case");
    let documents = parse_manifest(&text, &BTreeMap::new())
        .unwrap_or_else(|problems| panic!("{case}: {problems:#?}"));
    let mut resources = Resources::new();
    for document in documents {
        resources.insert(document.key, document.spec);
    }
    resources
}

/// Every proxy of the case with what it is told.
fn translations(case: &str) -> Vec<(String, Translation)> {
    let resources = mesh(case);
    let mut all = Vec::new();
    for (key, _) in resources.iter() {
        let translation = match key.kind {
            Kind::VirtualNode => translate::node(
                TRUST_DOMAIN,
                &resources.node_view(&key.mesh, &key.name).expect("listed"),
            ),
            Kind::VirtualGateway => translate::gateway(
                TRUST_DOMAIN,
                &resources
                    .gateway_view(&key.mesh, &key.name)
                    .expect("listed"),
            ),
            _ => continue,
        };
        all.push((key.id(), translation));
    }
    all
}

fn holds(case: &str) {
    let mut text = String::new();
    for (
        proxy,
        Translation {
            resources,
            findings,
            on_demand: _,
        },
    ) in translations(case)
    {
        text.push_str(&format!("==== {proxy}\n"));
        for finding in findings {
            text.push_str(&format!("finding: {finding}\n"));
        }
        for resource in &resources {
            render::resource(&mut text, resource);
        }
        for resource in &resources {
            let bytes = resource.encode_any();
            let back = Resource::decode_any(resource.kind(), &bytes);
            assert_eq!(back.as_ref(), Ok(resource), "{proxy} would refuse it");
        }
        Snapshot::checked(1, resources).unwrap_or_else(|error| panic!("{proxy}: {error}"));
        text.push('\n');
    }
    let path = folder().join(format!("{case}.golden"));
    if std::env::var_os("PILLION_BLESS").is_some() {
        std::fs::write(&path, &text).expect("a writable checkout");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = golden
        .lines()
        .zip(text.lines())
        .position(|(one, other)| one != other);
    let line = differs.unwrap_or(golden.lines().count().min(text.lines().count()));
    let show = |text: &str| {
        text.lines()
            .skip(line.saturating_sub(3))
            .take(8)
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert!(
        golden == text,
        "{}:{} differs.\n--- golden\n{}\n+++ now\n{}\nIf this is meant, run with PILLION_BLESS=1 and review the diff.",
        path.display(),
        line + 1,
        show(&golden),
        show(&text)
    );
}

#[test]
fn a_mesh_that_says_little_gets_app_mesh_s_defaults() {
    holds("defaults");
}

#[test]
fn routes_keep_their_order_and_every_condition() {
    holds("matches");
}

#[test]
fn tls_follows_modes_and_client_policies() {
    holds("tls");
}

#[test]
fn gateway_routes_are_laid_over_the_routes_behind() {
    holds("gateway");
}

#[test]
fn discovery_limits_checks_and_logs_are_carried_over() {
    holds("network");
}
