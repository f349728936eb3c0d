// SPDX-License-Identifier: Apache-2.0
//! The authority's life: a root gives way to the next with both trusted in between, an intermediate is taken in, and
//! other trust domains get the bundle.

use pillion_xds::signing::SignResponse;
use serde_json::Value;
use serde_json::json;
use x509_parser::pem::Pem;

use crate::control_plane::ControlPlane;
use crate::envoy::eventually;
use crate::http::Answer;
use crate::http::request;
use crate::postgres::Postgres;
use crate::replicas::replica;
use crate::xds::csr;
use crate::xds::mesh;
use crate::xds::sign;

const WEB: &str = "mesh/m/virtualNode/web";

fn step(control_plane: &ControlPlane, body: &Value) -> Answer {
    let (path, body) = ("/pillion/v1/authority", body.to_string());
    request(control_plane.api, "POST", path, &[], body.as_bytes()).expect("an answer")
}

fn read(control_plane: &ControlPlane, path: &str) -> Value {
    request(control_plane.api, "GET", path, &[], b"")
        .expect("an answer")
        .ok()
}

fn signed(control_plane: &ControlPlane) -> SignResponse {
    sign(control_plane, WEB, &csr(&[])).expect("a certificate")
}

fn certificates(pem: &str) -> Vec<Pem> {
    Pem::iter_from_buffer(pem.as_bytes())
        .collect::<Result<_, _>>()
        .expect("PEM")
}

/// Whether the chain leads to a root of the bundle, as a peer would have it.
fn trusts(bundle: &str, chain: &str) -> bool {
    let chain = certificates(chain);
    let mut parents = chain[1..].to_vec();
    let last = chain.last().expect("a leaf").clone();
    let root = certificates(bundle).into_iter().find(|root| {
        let (last, root) = (
            last.parse_x509().expect("DER"),
            root.parse_x509().expect("DER"),
        );
        last.verify_signature(Some(root.public_key())).is_ok()
    });
    parents.extend(root.clone());
    let links = chain.iter().zip(&parents).all(|(child, parent)| {
        let (child, parent) = (
            child.parse_x509().expect("DER"),
            parent.parse_x509().expect("DER"),
        );
        child.verify_signature(Some(parent.public_key())).is_ok()
    });
    root.is_some() && links
}

#[test]
fn a_root_gives_way_to_the_next_and_no_certificate_in_use_is_distrusted() {
    let control_plane = ControlPlane::start();
    mesh(&control_plane);
    let old = signed(&control_plane);
    step(&control_plane, &json!({"step": "activate"})).refused(400, "BadRequestException");
    step(&control_plane, &json!({"step": "turn"})).refused(400, "BadRequestException");

    step(&control_plane, &json!({"step": "prepare"})).ok();
    eventually("the next root is trusted", || {
        (certificates(&signed(&control_plane).trust_bundle_pem).len() == 2).then_some(())
    });
    let prepared = signed(&control_plane);
    assert!(
        trusts(&old.trust_bundle_pem, &prepared.chain_pem),
        "the old root still signs"
    );
    step(&control_plane, &json!({"step": "prepare"})).refused(409, "ConflictException");

    step(&control_plane, &json!({"step": "activate"})).ok();
    let new = eventually("the next root signs", || {
        let new = signed(&control_plane);
        (!trusts(&old.trust_bundle_pem, &new.chain_pem)).then_some(new)
    });
    assert!(
        trusts(&prepared.trust_bundle_pem, &new.chain_pem),
        "who was prepared trusts it"
    );
    assert!(
        trusts(&new.trust_bundle_pem, &old.chain_pem),
        "the old leaf is still good"
    );

    let early = step(&control_plane, &json!({"step": "retire"}));
    let message = early.refused(409, "ConflictException");
    assert!(message.contains("live until"), "{message}");
    step(&control_plane, &json!({"step": "retire", "force": true})).ok();
    let bundle = eventually("the old root is gone", || {
        let bundle = signed(&control_plane).trust_bundle_pem;
        (certificates(&bundle).len() == 1).then_some(bundle)
    });
    assert!(!trusts(&bundle, &old.chain_pem) && trusts(&bundle, &new.chain_pem));
    let told = read(&control_plane, "/pillion/v1/authority");
    assert_eq!(told["trustBundle"], json!(bundle));
    assert!(!told.to_string().contains("PRIVATE"), "{told}");
}

#[test]
fn replicas_sign_with_one_ring_whoever_turns_it() {
    let postgres = Postgres::start();
    let (one, _log) = replica(&postgres);
    let (other, _log) = replica(&postgres);
    mesh(&one);
    read(&other, "/pillion/v1/fleet");
    step(&one, &json!({"step": "prepare"})).ok();
    eventually("the other can activate", || {
        (step(&other, &json!({"step": "activate"})).status == 200).then_some(())
    });
    eventually("both trust and sign alike", || {
        let (here, there) = (signed(&one), signed(&other));
        (here.trust_bundle_pem == there.trust_bundle_pem
            && certificates(&here.trust_bundle_pem).len() == 2
            && trusts(&certificates_first(&here.trust_bundle_pem), &here.chain_pem)
            && trusts(
                &certificates_first(&here.trust_bundle_pem),
                &there.chain_pem,
            ))
        .then_some(())
    });
}

/// The bundle's first root: the one that signs.
fn certificates_first(bundle: &str) -> String {
    let end = "-----END CERTIFICATE-----\n";
    let at = bundle.find(end).map_or(bundle.len(), |at| at + end.len());
    bundle[..at].to_owned()
}

fn ca(name: &str) -> (rcgen::CertificateParams, rcgen::KeyPair) {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    (params, rcgen::KeyPair::generate().expect("a key"))
}

#[test]
fn an_intermediate_under_a_root_kept_elsewhere_signs_and_the_root_is_what_peers_trust() {
    let control_plane = ControlPlane::start();
    mesh(&control_plane);
    let (root, root_key) = ca("corporate root");
    let anchor = root.self_signed(&root_key).expect("a root").pem();
    let issuer = rcgen::Issuer::new(root, root_key);
    let (middle, middle_key) = ca("mesh intermediate");
    let certificate = middle
        .signed_by(&middle_key, &issuer)
        .expect("signed")
        .pem();
    let whole = json!({"step": "prepare", "certificate": certificate,
                       "key": middle_key.serialize_pem(), "anchor": anchor});
    for (member, wrong, part) in [
        (
            "key",
            json!(ca("x").1.serialize_pem()),
            "is not the key of `certificate`",
        ),
        ("anchor", json!(certificate), "is not signed by"),
        ("certificate", json!("nonsense"), "must be PEM"),
    ] {
        let mut broken = whole.clone();
        broken[member] = wrong;
        let message = step(&control_plane, &broken).refused(400, "BadRequestException");
        assert!(message.contains(part), "{message}");
    }
    step(&control_plane, &whole).ok();
    step(&control_plane, &json!({"step": "activate"})).ok();
    let signed = eventually("the intermediate signs", || {
        let signed = signed(&control_plane);
        (certificates(&signed.chain_pem).len() == 2).then_some(signed)
    });
    assert!(trusts(&anchor, &signed.chain_pem));
    assert!(signed.trust_bundle_pem.contains(anchor.trim()));
}

#[test]
fn another_trust_domain_gets_the_bundle_as_spiffe_has_it() {
    let control_plane = ControlPlane::start();
    let before = read(&control_plane, "/pillion/v1/authority/bundle");
    let key = &before["keys"][0];
    assert_eq!(
        (&key["use"], &key["kty"], &key["crv"]),
        (&json!("x509-svid"), &json!("EC"), &json!("P-256"))
    );
    for coordinate in ["x", "y"] {
        assert_eq!(key[coordinate].as_str().expect("base64url").len(), 43);
    }
    assert!(before["spiffe_refresh_hint"].as_u64().expect("seconds") > 0);
    step(&control_plane, &json!({"step": "prepare"})).ok();
    let after = read(&control_plane, "/pillion/v1/authority/bundle");
    assert_eq!(after["keys"].as_array().expect("a list").len(), 2);
    assert!(after["spiffe_sequence"].as_u64() > before["spiffe_sequence"].as_u64());
}
