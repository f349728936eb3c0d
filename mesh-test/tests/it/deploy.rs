// SPDX-License-Identifier: Apache-2.0
//! The samples in `deploy/` are true: a sidecar starts from the environment that the task definition gives it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use mesh_test::client;
use mesh_test::mesh::MESH;
use mesh_test::mesh::Mesh;
use mesh_test::mesh::live;
use mesh_test::pod::POD;
use mesh_test::pod::Pod;
use mesh_test::pod::in_pod;
use mesh_test::program::Program;
use mesh_test::program::built;
use mesh_test::upstream::Behaviour;
use mesh_test::upstream::Upstream;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpListener;

#[tokio::test]
async fn the_task_definition_s_environment_starts_a_live_sidecar() -> anyhow::Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/ecs/task-definition.json");
    let task: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
    let containers = task["containerDefinitions"]
        .as_array()
        .context("containerDefinitions")?;
    let sidecar = containers
        .iter()
        .find(|one| one["name"] == "envoy")
        .context("a container named envoy")?;
    let mesh = Mesh::start().await?;
    let app = Upstream::start("shop", Behaviour::Echo).await?;
    let spec = json!({
        "listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}],
        "serviceDiscovery": {"dns": {"hostname": "127.0.0.1"}},
    });
    mesh.put(
        "/meshes/m/virtualNodes",
        json!({"virtualNodeName": "shop", "spec": spec}),
    )
    .await?;

    // Only what a test must move is moved: where the control plane is, and which local ports are free.
    let listen = format!("127.0.7.7:8080={}", app.address());
    let mut variables = Vec::new();
    for one in sidecar["environment"].as_array().context("environment")? {
        let name = one["name"].as_str().context("name")?;
        if name != "APPMESH_XDS_ENDPOINT" && name != "PILLION_LISTEN" {
            variables.push((name, one["value"].as_str().context("value")?));
        }
    }
    let resource = variables
        .iter()
        .find(|(name, _)| *name == "APPMESH_RESOURCE_ARN")
        .context("ARN")?
        .1;
    assert!(
        resource.ends_with(&format!("mesh/{MESH}/virtualNode/shop")),
        "{resource}"
    );
    let proxy = mesh
        .proxy(resource, &["--listen", &listen], &variables)
        .await?;

    let info = client::get(proxy.address("admin")?, "localhost", "/server_info").await?;
    assert!(
        info.text().contains("LIVE"),
        "the health check greps for LIVE: {}",
        info.text()
    );
    Ok(())
}

/// The variables of a container.
fn environment(container: &Value) -> anyhow::Result<Vec<(&str, &str)>> {
    let mut all = Vec::new();
    for one in container["env"].as_array().context("env")? {
        let name = one["name"].as_str().context("name")?;
        all.push((name, one["value"].as_str().context("value")?));
    }
    Ok(all)
}

#[test]
fn the_kubernetes_pod_is_intercepted_and_served() -> anyhow::Result<()> {
    in_pod(async |pod: Pod| {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes/pod.json");
        let sample: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
        let init = &sample["spec"]["initContainers"][0];
        let sidecar = &sample["spec"]["containers"][0];
        let app = TcpListener::bind("127.0.0.1:8080").await?;
        let _app = Upstream::serve("shop", Behaviour::Echo, app)?;
        let mesh = Mesh::start().await?;
        let spec = json!({
            "listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}],
            "serviceDiscovery": {"dns": {"hostname": POD.to_string()}},
        });
        let body = json!({"virtualNodeName": "shop", "spec": spec});
        mesh.put("/meshes/m/virtualNodes", body).await?;

        let command = init["command"].as_array().context("command")?;
        assert_eq!(command[0], "pillion-proxy");
        let words = command[1..].iter().filter_map(Value::as_str);
        let installed = Command::new(built("pillion-proxy")?)
            .args(words)
            .envs(environment(init)?)
            .output()?;
        assert!(installed.status.success(), "{installed:?}");
        let uid = sidecar["securityContext"]["runAsUser"]
            .as_u64()
            .context("runAsUser")?;
        let mut variables = environment(sidecar)?;
        let xds = mesh.xds()?.to_string();
        variables.retain(|(name, _)| *name != "APPMESH_XDS_ENDPOINT");
        variables.push(("APPMESH_XDS_ENDPOINT", &xds));
        let proxy =
            Program::start_as(u32::try_from(uid)?, "pillion-proxy", &[], &variables).await?;
        live(&proxy).await?;

        let stranger = pod.connect((POD, 8080))?;
        let answer = client::send_over(stranger, client::asking("shop.local", "/")?).await?;
        assert_eq!(
            (answer.status, &answer.headers["server"]),
            (200, &"envoy".parse()?)
        );
        Ok(())
    })
}
