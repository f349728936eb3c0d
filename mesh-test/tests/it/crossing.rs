// SPDX-License-Identifier: Apache-2.0
//! A request crosses two sidecars over mTLS, under routes written through the API.

use std::time::Duration;

use mesh_test::client;
use mesh_test::eventually::eventually;
use mesh_test::mesh::Mesh;
use mesh_test::mesh::free_port;
use mesh_test::mesh::live;
use mesh_test::program::Program;
use mesh_test::upstream::Behaviour;
use mesh_test::upstream::Upstream;
use serde_json::json;

#[tokio::test]
async fn a_request_crosses_two_sidecars_and_its_trace_and_map_say_so() -> anyhow::Result<()> {
    let app = Upstream::start("shop", Behaviour::Echo).await?;
    let port = free_port()?;
    let mesh = Mesh::start().await?;
    let collector = collector().await?;
    mesh.node("shop", port, &[]).await?;
    mesh.service("shop.local", "shop").await?;
    mesh.node("web", free_port()?, &["shop.local"]).await?;
    let otlp = format!("http://{}", collector.address("otlp_grpc")?);
    let traced = [("XRAY_SAMPLING_RATE", "1")];
    let listen = format!("127.0.0.1:{port}={}", app.address());
    let arguments = ["--collector", &otlp, "--listen", &listen];
    let _shop = mesh
        .proxy("mesh/m/virtualNode/shop", &arguments, &traced)
        .await?;
    let web = mesh
        .proxy("mesh/m/virtualNode/web", &["--collector", &otlp], &traced)
        .await?;

    let answer = client::get(web.address("egress")?, "shop.local", "/things?id=7").await?;

    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.headers["server"], "envoy");
    let said = answer.json()?;
    assert_eq!(said["path"], "/things?id=7");
    for header in ["traceparent", "x-amzn-trace-id", "x-request-id"] {
        assert!(said["headers"][header].is_string(), "no {header} in {said}");
    }
    let api = collector.address("api")?;
    let edges = eventually(Duration::from_secs(20), || async move {
        let map = client::get(api, "localhost", "/pillion/v1/map?start=0&end=9000000000")
            .await?
            .json()?;
        let edges = map["edges"].as_array().cloned().unwrap_or_default();
        anyhow::ensure!(!edges.is_empty(), "the map has no edges: {map}");
        Ok(edges)
    })
    .await?;
    let call = edges
        .iter()
        .find(|edge| edge["source"] == "web" && edge["target"] == "shop");
    assert_eq!(
        call.map(|edge| edge["ok"].clone()),
        Some(json!(1)),
        "{edges:?}"
    );
    Ok(())
}

pub(crate) async fn collector() -> anyhow::Result<Program> {
    let local = "127.0.0.1:0";
    let doors = [
        "--otlp-grpc-addr",
        "--otlp-http-addr",
        "--xray-udp-addr",
        "--xray-tcp-addr",
        "--zipkin-addr",
    ];
    let pages = ["--api-addr", "--admin-addr"];
    let mut arguments: Vec<&str> = doors
        .iter()
        .chain(&pages)
        .flat_map(|flag| [*flag, local])
        .collect();
    arguments.extend(["--store", "traces", "--settle", "1s"]);
    Program::start("pillion-collector", &arguments, &[]).await
}

#[tokio::test]
async fn an_undeclared_host_is_not_found_under_drop_all() -> anyhow::Result<()> {
    let app = Upstream::start("shop", Behaviour::Echo).await?;
    let mesh = Mesh::start().await?;
    mesh.node("web", free_port()?, &[]).await?;
    let web = mesh.sidecar("web", free_port()?, app.address()).await?;

    let answer = client::get(web.address("egress")?, "elsewhere.local", "/").await?;

    assert_eq!(answer.status, 404);
    assert_eq!(app.asked(), 0);
    Ok(())
}

#[tokio::test]
async fn the_hidden_default_policy_retries_a_503() -> anyhow::Result<()> {
    let app = Upstream::start("flaky", Behaviour::FailFirst(2)).await?;
    let port = free_port()?;
    let mesh = Mesh::start().await?;
    mesh.node("flaky", port, &[]).await?;
    mesh.service("flaky.local", "flaky").await?;
    mesh.node("web", free_port()?, &["flaky.local"]).await?;
    let _flaky = mesh.sidecar("flaky", port, app.address()).await?;
    let web = mesh.sidecar("web", free_port()?, app.address()).await?;

    let answer = client::get(web.address("egress")?, "flaky.local", "/").await?;

    assert_eq!(answer.status, 200);
    assert_eq!(app.asked(), 3, "two failures and the third try");
    Ok(())
}

#[tokio::test]
async fn a_stranger_without_certificate_cannot_reach_a_strict_node() -> anyhow::Result<()> {
    let app = Upstream::start("shop", Behaviour::Echo).await?;
    let port = free_port()?;
    let mesh = Mesh::start().await?;
    mesh.node("shop", port, &[]).await?;
    let _shop = mesh.sidecar("shop", port, app.address()).await?;

    let plain = client::get(([127, 0, 0, 1], port).into(), "shop.local", "/").await;

    assert!(plain.is_err(), "plaintext was answered: {plain:?}");
    assert_eq!(app.asked(), 0);
    Ok(())
}

#[tokio::test]
async fn a_gateway_route_rewrites_host_and_prefix() -> anyhow::Result<()> {
    let app = Upstream::start("shop", Behaviour::Echo).await?;
    let (port, edge) = (free_port()?, free_port()?);
    let mesh = Mesh::start().await?;
    mesh.node("shop", port, &[]).await?;
    mesh.service("shop.local", "shop").await?;
    let trust = json!({"sds": {"secretName": "spiffe://pillion.local"}});
    let certificate =
        json!({"sds": {"secretName": "spiffe://pillion.local/mesh/m/virtualGateway/gw"}});
    let policy = json!({"tls": {"certificate": certificate, "validation": {"trust": trust}}});
    let spec = json!({
        "listeners": [{"portMapping": {"port": edge, "protocol": "http"}}],
        "backendDefaults": {"clientPolicy": policy},
    });
    mesh.put(
        "/meshes/m/virtualGateways",
        json!({"virtualGatewayName": "gw", "spec": spec}),
    )
    .await?;
    let target = json!({"target": {"virtualService": {"virtualServiceName": "shop.local"}}});
    let route = json!({"httpRoute": {"match": {"prefix": "/shop"}, "action": target}});
    let body = json!({"gatewayRouteName": "shop", "spec": route});
    mesh.put("/meshes/m/virtualGateway/gw/gatewayRoutes", body)
        .await?;
    let _shop = mesh.sidecar("shop", port, app.address()).await?;
    let gateway = mesh
        .proxy(
            "mesh/m/virtualGateway/gw",
            &["--gateway-addr", "127.0.0.1"],
            &[],
        )
        .await?;
    live(&gateway).await?;

    let answer = eventually(Duration::from_secs(5), || async move {
        let answer = client::get(
            ([127, 0, 0, 1], edge).into(),
            "www.example.com",
            "/shop/things",
        )
        .await?;
        anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        answer.json()
    })
    .await?;

    assert_eq!(answer["path"], "/things");
    assert_eq!(answer["headers"]["host"], "shop.local");
    let unknown = client::get(([127, 0, 0, 1], edge).into(), "www.example.com", "/other").await?;
    assert_eq!(unknown.status, 404);
    Ok(())
}
