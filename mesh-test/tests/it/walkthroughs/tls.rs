// SPDX-License-Identifier: Apache-2.0
//! Certificates in files, step by step as a user turns them on: the server's, the names the client takes, the client's.

use std::path::Path;

use mesh_test::asking::Answer;
use mesh_test::client;
use mesh_test::scripted::Speaks;
use rcgen::CertificateParams;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;

use super::EDGE;
use super::Walk;
use super::code;
use super::get;
use super::until;

/// An authority, and a pair for each of `names` under `<name>.test`.
fn certificates(dir: &Path, names: &[&str]) -> anyhow::Result<()> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    std::fs::write(dir.join("ca.pem"), params.self_signed(&key)?.pem())?;
    let authority = Issuer::new(params, key);
    for name in names {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(vec![format!("{name}.test")])?;
        let chain = params.signed_by(&key, &authority)?.pem();
        std::fs::write(dir.join(format!("{name}.pem")), chain)?;
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem())?;
    }
    Ok(())
}

#[tokio::test]
async fn file_certificates_are_turned_on_one_end_after_the_other() -> anyhow::Result<()> {
    let walk = Walk::prepare(&[("app", Speaks::Http1)], &["color", "edge"]).await?;
    certificates(walk.dir.path(), &["color", "edge"])?;
    walk.step("mutual-tls").await?;
    let color = walk
        .mesh
        .sidecar("color", walk.ports["color"], walk.at("app"))
        .await?;
    let gateway = walk.gateway().await?;
    let (edge, direct) = (walk.at("edge"), walk.at("color"));
    let ask = "GET / any.example.com";
    let is = |wanted: &'static str| move |answer: &Answer| code(answer) == wanted;
    until(edge, ask, is("200")).await?;

    walk.step("mutual-tls-1-strict").await?;
    until(direct, ask, |answer| code(answer) == "none").await?;
    // Without a client policy the gateway follows the server and checks nothing.
    until(edge, ask, is("200")).await?;

    walk.step("mutual-tls-2-wrong-name").await?;
    let refused = until(edge, ask, is("503")).await?;
    assert!(
        refused.body.contains("TLS") || refused.body.contains("CERTIFICATE"),
        "the answer says that it is the certificate: {refused:?}"
    );
    let stats = client::get(gateway.address("admin")?, "localhost", "/stats?filter=ssl").await?;
    let counted = stats
        .text()
        .lines()
        .any(|line| line.contains("ssl.fail_verify_san") && !line.ends_with(": 0"));
    assert!(counted, "{}", stats.text());

    walk.step("mutual-tls-3-right-name").await?;
    until(edge, ask, is("200")).await?;

    walk.step("mutual-tls-4-certificate-required").await?;
    until(edge, ask, is("503")).await?;

    walk.step("mutual-tls-5-certificate-shown").await?;
    until(edge, ask, is("200")).await?;
    let handshakes = client::get(
        color.address("admin")?,
        "localhost",
        "/stats?filter=ssl.handshake",
    );
    let text = handshakes.await?.text();
    assert!(
        text.lines()
            .any(|line| line.starts_with("listener.") && !line.ends_with(": 0")),
        "{text}"
    );

    walk.step("mutual-tls-6-permissive").await?;
    until(direct, ask, is("200")).await?;
    assert_eq!(code(&get(edge, ask, &[]).await), "200", "{EDGE}");
    Ok(())
}
