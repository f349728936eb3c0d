// SPDX-License-Identifier: Apache-2.0
//! A route weight changed by the AWS CLI moves live traffic within two seconds and costs no request.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use mesh_test::client;
use mesh_test::mesh::MESH;
use mesh_test::mesh::Mesh;
use mesh_test::mesh::free_port;
use mesh_test::python;
use mesh_test::upstream::Behaviour;
use mesh_test::upstream::Upstream;
use serde_json::Value;
use serde_json::json;

fn split(v1: u32, v2: u32) -> Value {
    json!({"httpRoute": {"match": {"prefix": "/"}, "action": {"weightedTargets": [
        {"virtualNode": "v1", "weight": v1}, {"virtualNode": "v2", "weight": v2}]}}})
}

/// Asks until told to stop; what was answered, by when.
async fn ask(egress: SocketAddr, enough: Arc<AtomicBool>) -> Vec<(Instant, String)> {
    let mut answers = Vec::new();
    while !enough.load(Ordering::SeqCst) {
        let said = match client::get(egress, "shop.local", "/").await {
            Ok(answer) if answer.status == 200 => answer
                .json()
                .map_or_else(|error| format!("{error}"), |said| said["name"].to_string()),
            Ok(answer) => format!("{} {}", answer.status, answer.text()),
            Err(error) => format!("{error:#}"),
        };
        answers.push((Instant::now(), said));
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_weight_changed_by_the_aws_cli_moves_traffic_and_loses_nothing() -> anyhow::Result<()> {
    let (old, new) = (
        Upstream::start("v1", Behaviour::Echo).await?,
        Upstream::start("v2", Behaviour::Echo).await?,
    );
    let (one, two) = (free_port()?, free_port()?);
    let mesh = Mesh::start().await?;
    mesh.node("v1", one, &[]).await?;
    mesh.node("v2", two, &[]).await?;
    mesh.routed_service("shop.local", 8080, split(100, 0))
        .await?;
    mesh.node("web", free_port()?, &["shop.local"]).await?;
    let _v1 = mesh.sidecar("v1", one, old.address()).await?;
    let _v2 = mesh.sidecar("v2", two, new.address()).await?;
    let web = mesh.sidecar("web", free_port()?, old.address()).await?;
    let enough = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn(ask(web.address("egress")?, Arc::clone(&enough)));

    let endpoint = format!("http://{}", mesh.api()?);
    let spec = split(0, 100).to_string();
    let update = [
        "--endpoint-url",
        &endpoint,
        "appmesh",
        "update-route",
        "--mesh-name",
        MESH,
        "--virtual-router-name",
    ];
    python::run(
        "aws",
        &[
            &update[..],
            &["shop", "--route-name", "all", "--spec", &spec],
        ]
        .concat(),
    )
    .await?;
    let acknowledged = Instant::now();
    tokio::time::sleep(Duration::from_secs(3)).await; // the traffic under watch, not a wait for a condition
    enough.store(true, Ordering::SeqCst);
    let answers = asking.await?;

    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, said) in &answers {
        *seen.entry(said).or_default() += 1;
    }
    assert!(
        seen.keys().all(|said| ["\"v1\"", "\"v2\""].contains(said)),
        "something else was answered: {seen:?}"
    );
    let last_old = answers
        .iter()
        .rev()
        .find(|(_, said)| said == "\"v1\"")
        .context("v1 was never asked")?;
    let lag = last_old.0.saturating_duration_since(acknowledged);
    assert!(
        lag < Duration::from_secs(2),
        "v1 still answered {lag:?} after the update: {seen:?}"
    );
    assert!(seen.contains_key("\"v2\""), "v2 never answered: {seen:?}");
    Ok(())
}
