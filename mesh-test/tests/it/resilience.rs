// SPDX-License-Identifier: Apache-2.0
//! What survives: acknowledged writes a killed control plane, traffic an absent one, requests a drain.

use std::time::Duration;

use mesh_test::client;
use mesh_test::eventually::eventually;
use mesh_test::mesh::Mesh;
use mesh_test::mesh::free_port;
use mesh_test::upstream::Behaviour;
use mesh_test::upstream::Upstream;

#[tokio::test]
async fn traffic_flows_on_while_the_control_plane_is_dead_and_new_routes_come_after()
-> anyhow::Result<()> {
    let app = Upstream::start("shop", Behaviour::Echo).await?;
    let port = free_port()?;
    let mesh = Mesh::start().await?;
    mesh.node("shop", port, &[]).await?;
    mesh.service("shop.local", "shop").await?;
    mesh.node("web", free_port()?, &["shop.local", "later.local"])
        .await?;
    let _shop = mesh.sidecar("shop", port, app.address()).await?;
    let web = mesh.sidecar("web", free_port()?, app.address()).await?;
    let egress = web.address("egress")?;
    assert_eq!(client::get(egress, "shop.local", "/").await?.status, 200);

    let mesh = mesh.crash_and_restart().await?;
    assert_eq!(client::get(egress, "shop.local", "/").await?.status, 200);
    mesh.service("later.local", "shop").await?;

    eventually(Duration::from_secs(15), || async move {
        let answer = client::get(egress, "later.local", "/").await?;
        anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_sidecar_starts_from_its_last_good_configuration() -> anyhow::Result<()> {
    let app = Upstream::start("shop", Behaviour::Echo).await?;
    let port = free_port()?;
    let state = tempfile::tempdir()?;
    let state = state.path().display().to_string();
    let mesh = Mesh::start().await?;
    mesh.put("/meshes/m/virtualNodes", plain_node("shop", port))
        .await?;
    let listen = format!("127.0.0.1:{port}={}", app.address());
    let arguments = ["--listen", &listen, "--state-dir", &state];
    let first = mesh
        .proxy("mesh/m/virtualNode/shop", &arguments, &[])
        .await?;
    assert!(first.drain().await?.success());
    let xds = mesh.control_plane().address("xds")?.to_string();
    drop(mesh);

    let local = "127.0.0.1:0";
    let mut all = vec![
        "--ingress-addr",
        local,
        "--egress-addr",
        local,
        "--admin-addr",
        local,
        "--agent-addr",
        local,
    ];
    all.extend(arguments);
    let variables = [
        ("APPMESH_RESOURCE_ARN", "mesh/m/virtualNode/shop"),
        ("APPMESH_XDS_ENDPOINT", xds.as_str()),
    ];
    let _again = mesh_test::program::Program::start("pillion-proxy", &all, &variables).await?;

    eventually(Duration::from_secs(5), || async move {
        let answer = client::get(([127, 0, 0, 1], port).into(), "shop.local", "/").await?;
        anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        Ok(())
    })
    .await
}

fn plain_node(name: &str, port: u16) -> serde_json::Value {
    serde_json::json!({"virtualNodeName": name, "spec": {
        "listeners": [{"portMapping": {"port": port, "protocol": "http"}}],
        "serviceDiscovery": {"dns": {"hostname": "127.0.0.1"}},
    }})
}

#[tokio::test]
async fn every_program_drains_at_sigterm_and_exits_zero() -> anyhow::Result<()> {
    let app = Upstream::start("shop", Behaviour::Echo).await?;
    let port = free_port()?;
    let mesh = Mesh::start().await?;
    mesh.node("shop", port, &[]).await?;
    let shop = mesh.sidecar("shop", port, app.address()).await?;
    assert!(shop.drain().await?.success());
    Ok(())
}
