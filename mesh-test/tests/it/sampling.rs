// SPDX-License-Identifier: Apache-2.0
//! Which traces are kept: the collector's central rules reach the proxies, and strangers decide nothing.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use mesh_test::client;
use mesh_test::eventually::eventually;
use mesh_test::mesh::MESH;
use mesh_test::mesh::Mesh;
use mesh_test::mesh::free_port;
use mesh_test::upstream::Behaviour;
use mesh_test::upstream::Upstream;
use serde_json::json;

use crate::crossing::collector;

/// The trace header that the app behind a proxy saw.
async fn seen(proxy: SocketAddr, path: &str, said: &str) -> anyhow::Result<String> {
    let request = Request::get(path)
        .header("host", "shop.local")
        .header(
            "x-amzn-trace-id",
            format!("Root=1-5759e988-bd862e3fe1be46a994272793;{said}"),
        )
        .body(Full::new(Bytes::new()))?;
    let answer = client::send(proxy, request).await?;
    anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    let header = answer.json()?["headers"]["x-amzn-trace-id"].clone();
    Ok(header.as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn the_collectors_sampling_rules_decide_at_a_proxy() -> anyhow::Result<()> {
    let app = Upstream::start("shop", Behaviour::Echo).await?;
    let mesh = Mesh::start().await?;
    let collector = collector().await?;
    let rule = json!({"SamplingRule": {
        "RuleName": "kept", "Priority": 5, "FixedRate": 1.0, "ReservoirSize": 0, "ServiceName": "m/web", "ServiceType": "*",
        "Host": "shop*", "HTTPMethod": "get", "URLPath": "/kept*", "Version": 1, "ResourceARN": "*",
    }});
    let rules = [
        ("/CreateSamplingRule", rule),
        (
            "/UpdateSamplingRule",
            json!({"SamplingRuleUpdate": {"RuleName": "Default", "FixedRate": 0.0, "ReservoirSize": 0}}),
        ),
    ];
    for (path, body) in rules {
        let request = Request::post(path)
            .header("host", "localhost")
            .body(Full::new(Bytes::from(body.to_string())))?;
        let answer = client::send(collector.address("api")?, request).await?;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let port = free_port()?;
    mesh.node("shop", port, &[]).await?;
    mesh.service("shop.local", "shop").await?;
    // Without a collector it touches no trace header.
    let _shop = mesh.sidecar("shop", port, app.address()).await?;
    mesh.node("web", free_port()?, &["shop.local"]).await?;
    let otlp = format!("http://{}", collector.address("otlp_grpc")?);
    let door = format!("http://{}", collector.address("xray_tcp")?);
    // By its own rate it would keep everything.
    let web = mesh
        .proxy(
            "mesh/m/virtualNode/web",
            &["--collector", &otlp, "--sampling", &door],
            &[("XRAY_SAMPLING_RATE", "1")],
        )
        .await?;
    let egress = web.address("egress")?;
    eventually(Duration::from_secs(10), || async {
        let header = seen(egress, "/other", "Sampled=?").await?;
        anyhow::ensure!(header.ends_with("Sampled=0"), "no rules yet: {header}");
        Ok(())
    })
    .await?;
    let kept = seen(egress, "/kept/1", "Sampled=?").await?;
    assert!(kept.ends_with("Sampled=1"), "{kept}");
    // Inside the mesh a caller's decision holds, as App Mesh's did.
    let said = seen(egress, "/other", "Sampled=1").await?;
    assert!(said.ends_with("Sampled=1"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_gateway_keeps_no_trace_because_a_stranger_says_so_unless_told_to() -> anyhow::Result<()>
{
    let app = Upstream::start("shop", Behaviour::Echo).await?;
    let mesh = Mesh::start().await?;
    let collector = collector().await?;
    // In plaintext and without a sidecar: what it sees is what the gateway sent.
    let listener = json!({"portMapping": {"port": app.address().port(), "protocol": "http"}});
    let spec =
        json!({"listeners": [listener], "serviceDiscovery": {"dns": {"hostname": "127.0.0.1"}}});
    mesh.put(
        &format!("/meshes/{MESH}/virtualNodes"),
        json!({"virtualNodeName": "shop", "spec": spec}),
    )
    .await?;
    mesh.service("shop.local", "shop").await?;
    let otlp = format!("http://{}", collector.address("otlp_grpc")?);
    for (told, kept) in [(None, "Sampled=0"), (Some("1"), "Sampled=1")] {
        let (name, port) = (if told.is_some() { "told" } else { "wary" }, free_port()?);
        let spec = json!({"listeners": [{"portMapping": {"port": port, "protocol": "http"}}]});
        mesh.put(
            &format!("/meshes/{MESH}/virtualGateways"),
            json!({"virtualGatewayName": name, "spec": spec}),
        )
        .await?;
        let target = json!({"virtualService": {"virtualServiceName": "shop.local"}});
        let route = json!({"httpRoute": {"match": {"prefix": "/"}, "action": {"target": target}}});
        mesh.put(
            &format!("/meshes/{MESH}/virtualGateway/{name}/gatewayRoutes"),
            json!({"gatewayRouteName": "all", "spec": route}),
        )
        .await?;
        let decision = told.map(|told| ("APPMESH_SET_TRACING_DECISION", told));
        let variables: Vec<(&str, &str)> = decision
            .into_iter()
            .chain([("XRAY_SAMPLING_RATE", "0")])
            .collect();
        let resource = format!("mesh/m/virtualGateway/{name}");
        let arguments = ["--collector", &otlp, "--gateway-addr", "127.0.0.1"];
        let _gateway = mesh.proxy(&resource, &arguments, &variables).await?;
        let address = ([127, 0, 0, 1], port).into();
        // Until both have their certificates and routes.
        let header = eventually(Duration::from_secs(10), || {
            seen(address, "/", "Parent=53995c3f42cd8ad8;Sampled=1")
        })
        .await?;
        assert!(header.ends_with(kept), "{name}: {header}");
        let header = seen(address, "/", "Parent=53995c3f42cd8ad8;Sampled=0").await?;
        assert!(header.ends_with("Sampled=0"), "{name}: {header}");
    }
    Ok(())
}
