// SPDX-License-Identifier: Apache-2.0
//! Gateways whose ports are not theirs to have, yet.

use std::net::IpAddr;
use std::time::Duration;

use mesh_test::client;
use mesh_test::eventually::eventually;
use mesh_test::mesh::MESH;
use mesh_test::mesh::Mesh;
use mesh_test::pod::POD;
use mesh_test::pod::POD_V6;
use mesh_test::pod::Pod;
use mesh_test::pod::in_pod;
use serde_json::json;

#[tokio::test]
async fn a_gateway_port_that_is_taken_is_told_of_and_bound_once_it_is_free() -> anyhow::Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    let mesh = Mesh::start().await?;
    let spec = json!({"listeners": [{"portMapping": {"port": port, "protocol": "http"}}]});
    let gateways = format!("/meshes/{MESH}/virtualGateways");
    mesh.put(&gateways, json!({"virtualGatewayName": "gw", "spec": spec}))
        .await?;
    let gateway = mesh
        .unready_proxy(
            "mesh/m/virtualGateway/gw",
            &["--gateway-addr", "127.0.0.1"],
            &[],
        )
        .await?;
    let admin = gateway.address("admin")?;

    let told = format!("another process holds port {port}");
    eventually(Duration::from_secs(5), || async {
        let ready = client::get(admin, "localhost", "/ready").await?;
        anyhow::ensure!(
            ready.text().contains(&told),
            "{} {}",
            ready.status,
            ready.text()
        );
        anyhow::ensure!(ready.status == 503, "ready without its port");
        Ok(())
    })
    .await?;
    assert!(gateway.log().contains(&told), "{}", gateway.log());
    assert!(
        !gateway.log().contains("--gateway-addr a free one"),
        "no such remedy"
    );

    drop(taken);
    mesh_test::mesh::live(&gateway).await?;
    let answer = client::get(([127, 0, 0, 1], port).into(), "shop.local", "/").await?;
    assert_eq!(answer.status, 404, "it serves, without a route");
    Ok(())
}

#[test]
fn a_gateway_of_an_ipv6_mesh_is_reached_over_both_families() -> anyhow::Result<()> {
    in_pod(async |pod: Pod| {
        let mesh = Mesh::start().await?;
        let preference = json!({"spec": {"serviceDiscovery": {"ipPreference": "IPv6_PREFERRED"}}});
        mesh.put(&format!("/meshes/{MESH}"), preference).await?;
        let spec = json!({"listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}]});
        let gateways = format!("/meshes/{MESH}/virtualGateways");
        mesh.put(&gateways, json!({"virtualGatewayName": "gw", "spec": spec}))
            .await?;
        let _gateway = mesh.proxy("mesh/m/virtualGateway/gw", &[], &[]).await?;

        for address in [IpAddr::V4(POD), IpAddr::V6(POD_V6)] {
            let stranger = pod.connect((address, 8080))?;
            let answer = client::send_over(stranger, client::asking("shop.local", "/")?).await?;
            assert_eq!(
                answer.status, 404,
                "over {address}: served, without a route"
            );
        }
        Ok(())
    })
}
