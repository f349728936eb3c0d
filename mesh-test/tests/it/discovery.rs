// SPDX-License-Identifier: Apache-2.0
//! Names and address families: which addresses a sidecar calls under each `ipPreference`, and what a name server in
//! trouble takes away (nothing). In a pod, with a name server of the case's own.

use std::net::IpAddr;
use std::time::Duration;

use mesh_test::client;
use mesh_test::eventually::eventually;
use mesh_test::mesh::MESH;
use mesh_test::mesh::Mesh;
use mesh_test::names::NameServer;
use mesh_test::names::Reply;
use mesh_test::pod::ELSEWHERE;
use mesh_test::pod::Pod;
use mesh_test::pod::WORLD;
use mesh_test::pod::WORLD_V6;
use mesh_test::pod::in_pod;
use mesh_test::program::Program;
use mesh_test::upstream::Behaviour;
use mesh_test::upstream::Upstream;
use serde_json::Value;
use serde_json::json;

const PORT: u16 = 9000;
const LIMIT: Duration = Duration::from_secs(10);

/// `web` may call `shop.local`, whose node is found by the name `shop.test`.
async fn mesh(dns: &Value) -> anyhow::Result<(Mesh, Program)> {
    let mesh = Mesh::start().await?;
    let nodes = format!("/meshes/{MESH}/virtualNodes");
    mesh.put(
        &nodes,
        json!({"virtualNodeName": "shop", "spec": spec(dns)}),
    )
    .await?;
    mesh.service("shop.local", "shop").await?;
    let backends = json!([{"virtualService": {"virtualServiceName": "shop.local"}}]);
    mesh.put(
        &nodes,
        json!({"virtualNodeName": "web", "spec": {"backends": backends}}),
    )
    .await?;
    let web = mesh.proxy("mesh/m/virtualNode/web", &[], &[]).await?;
    Ok((mesh, web))
}

fn spec(dns: &Value) -> Value {
    json!({
        "listeners": [{"portMapping": {"port": PORT, "protocol": "http"}}],
        "serviceDiscovery": {"dns": dns},
    })
}

/// The addresses of the shop's cluster, as the admin page lists them.
async fn addresses(web: &Program) -> anyhow::Result<Vec<IpAddr>> {
    let page = client::get(web.address("admin")?, "localhost", "/clusters")
        .await?
        .text();
    let suffix = format!(":{PORT}::health_flags::");
    let lines = page.lines().filter_map(|line| line.split_once(&suffix));
    let hosts =
        lines.filter_map(|(before, _)| before.strip_prefix("cds_egress_m_shop_http_9000::"));
    Ok(hosts
        .map(|host| host.trim_matches(['[', ']']).parse())
        .collect::<Result<_, _>>()?)
}

#[test]
fn the_ip_preference_decides_which_addresses_are_called() -> anyhow::Result<()> {
    in_pod(async |_: Pod| {
        let (v4, v6) = (IpAddr::V4(WORLD), IpAddr::V6(WORLD_V6));
        let names = NameServer::start(vec![v4, v6]).await?;
        let dns = |preference: Option<&str>| {
            let mut dns = json!({"hostname": "shop.test", "responseType": "ENDPOINTS"});
            if let Some(preference) = preference {
                dns["ipPreference"] = json!(preference);
            }
            dns
        };
        let (mesh, web) = mesh(&dns(None)).await?;
        // Preference, what is called of both families, what where there is only IPv4.
        let table = [
            (None, v6, Some(v4)),
            (Some("IPv4_PREFERRED"), v4, Some(v4)),
            (Some("IPv6_PREFERRED"), v6, Some(v4)),
            (Some("IPv4_ONLY"), v4, Some(v4)),
            (Some("IPv6_ONLY"), v6, None),
        ];
        let web = &web;
        let called = async |preference: Option<&str>, expected: Vec<IpAddr>| {
            let path = format!("/meshes/{MESH}/virtualNodes/shop");
            mesh.put(&path, json!({"spec": spec(&dns(preference))}))
                .await?;
            let expected = &expected;
            eventually(LIMIT, || async move {
                let found = addresses(web).await?;
                anyhow::ensure!(found == *expected, "{preference:?} calls {found:?}");
                Ok(())
            })
            .await
        };
        for (preference, of_both, _) in table {
            called(preference, vec![of_both]).await?;
        }
        names.reply(Reply::Addresses(vec![v4]));
        for (preference, _, of_v4) in table {
            called(preference, of_v4.into_iter().collect()).await?;
        }
        let none = client::get(web.address("egress")?, "shop.local", "/").await?;
        assert_eq!(
            (none.status, none.text().as_str()),
            (503, "no healthy upstream")
        );
        Ok(())
    })
}

#[test]
fn a_name_server_in_trouble_takes_no_endpoint_away() -> anyhow::Result<()> {
    in_pod(async |pod: Pod| {
        let shop = Upstream::serve("shop", Behaviour::Echo, pod.listen((WORLD, PORT))?)?;
        let moved = Upstream::serve("moved", Behaviour::Echo, pod.listen((ELSEWHERE, PORT))?)?;
        let names = NameServer::start(vec![WORLD.into()]).await?;
        let (_mesh, web) = mesh(&json!({"hostname": "shop.test"})).await?;
        let egress = web.address("egress")?;
        assert_eq!(client::get(egress, "shop.local", "/").await?.status, 200);

        names.reply(Reply::Trouble);
        let before = names.asked();
        let (names, shop) = (&names, &shop);
        eventually(LIMIT, || async move {
            let answer = client::get(egress, "shop.local", "/").await?;
            assert_eq!(
                answer.status,
                200,
                "in the midst of trouble: {}",
                answer.text()
            );
            anyhow::ensure!(names.asked() >= before + 3, "asked {} times", names.asked());
            Ok(())
        })
        .await?;
        assert_eq!(moved.asked(), 0);

        // LOADBALANCER calls the first address of the answer, as the name server turns it.
        names.reply(Reply::Addresses(vec![ELSEWHERE.into(), WORLD.into()]));
        eventually(LIMIT, || async move {
            let said = client::get(egress, "shop.local", "/").await?.json()?;
            anyhow::ensure!(said["name"] == "moved", "still {said}");
            Ok(())
        })
        .await?;
        let asked = shop.asked();
        assert_eq!(
            client::get(egress, "shop.local", "/").await?.json()?["name"],
            "moved"
        );
        assert_eq!(shop.asked(), asked, "one logical host, not two endpoints");
        Ok(())
    })
}
