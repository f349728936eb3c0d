// SPDX-License-Identifier: Apache-2.0
//! Virtual gateways: rewrites and their defaults, HTTP/2 and gRPC listeners, several listeners from edge to node.

use mesh_test::scripted::Speaks;

use super::Walk;
use super::code;
use super::get;
use super::get2;
use super::grpc;

/// Request and headers, and how it arrives.
const REWRITES: [(&str, &str, &str); 9] = [
    (
        "GET /chapter/1?page=2 books.example.com",
        "",
        "red GET /1?page=2 red.local",
    ),
    ("GET /chapter books.example.com", "", "red GET / red.local"),
    (
        "GET /a/b red.shop.example.com",
        "",
        "blue GET /a/b red.shop.example.com",
    ),
    (
        "GET /old/x?fish=cod any.example.com",
        "",
        "blue GET /new/x?fish=cod blue.local",
    ),
    (
        "GET /door any.example.com",
        "",
        "blue GET /window blue.local",
    ),
    (
        "GET /item/42 any.example.com",
        "",
        "red GET /item/42 red.local",
    ),
    (
        "GET /any/where www.example.com",
        "",
        "blue GET /any/where blue.local",
    ),
    (
        "GET /any/where WWW.example.com:8080",
        "",
        "blue GET /any/where blue.local",
    ),
    (
        "GET /any any.example.com",
        "x-lane: 19",
        "red GET /any red.local",
    ),
];

#[tokio::test]
async fn a_gateway_rewrites_prefix_path_and_host_unless_told_otherwise() -> anyhow::Result<()> {
    let apps = [("red", Speaks::Http1), ("blue", Speaks::Http1)];
    let walk = Walk::start("gateway-rewrite", &apps, &["edge"]).await?;
    let _edge = walk.gateway().await?;

    for (number, (line, header, arrives)) in REWRITES.into_iter().enumerate() {
        let case = format!("x-case: {number}");
        let headers = [case.as_str(), header];
        let headers = if header.is_empty() {
            &headers[..1]
        } else {
            &headers
        };
        let answer = get(walk.at("edge"), line, headers).await;
        assert_eq!(code(&answer), "200", "{line}: {answer:?}");
        assert_eq!(walk.arrived(&number.to_string())?, arrives, "{line}");
    }
    for line in [
        "POST /item/42 any.example.com",
        "GET /item/4x any.example.com",
        "GET /old/x?fish=eel any.example.com",
        "GET /any any.example.com",
    ] {
        assert_eq!(
            code(&get(walk.at("edge"), line, &[]).await),
            "404",
            "{line}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_gateway_takes_http2_and_grpc_each_on_its_port() -> anyhow::Result<()> {
    let apps = [("two", Speaks::Http2), ("calls", Speaks::Http2)];
    let walk = Walk::start("gateway-protocols", &apps, &["edge2", "edgegrpc"]).await?;
    let _edge = walk.gateway().await?;

    get2(
        walk.at("edge2"),
        "GET /two/3 any.example.com",
        &["x-case: two"],
    )
    .await;
    assert_eq!(walk.arrived("two")?, "two GET /3 two.local");
    let port = walk.at("edgegrpc");
    grpc(port, "/color.Colors/Get any.example.com", &["x-case: call"]).await;
    assert_eq!(
        walk.arrived("call")?,
        "calls POST /color.Colors/Get calls.local"
    );
    let vip = ["x-case: vip", "x-vip: yes"];
    grpc(port, "/any.Service/Call vip.example.com", &vip).await;
    assert_eq!(
        walk.arrived("vip")?,
        "calls POST /any.Service/Call vip.example.com"
    );
    let unknown = grpc(port, "/any.Service/Call any.example.com", &[]).await;
    assert!(super::has(&unknown, "grpc-status: 12"), "{unknown:?}");
    let wrong = get2(
        walk.at("edge2"),
        "GET /color.Colors/Get any.example.com",
        &[],
    )
    .await;
    assert_eq!(code(&wrong), "404", "a route is on its own port only");
    Ok(())
}

#[tokio::test]
async fn each_port_leads_from_gateway_over_router_to_the_listener_it_names() -> anyhow::Result<()> {
    let apps = ["fruit", "greens", "color"].map(|name| (name, Speaks::Http1));
    let walk = Walk::start("multiple-listeners", &apps, &["one", "other"]).await?;
    let _edge = walk.gateway().await?;
    let (_sidecar, egress) = walk.client().await?;

    let (one, other) = (walk.at("one"), walk.at("other"));
    assert_eq!(get(one, "GET /fruit/a edge", &[]).await.body, "fruit");
    assert_eq!(get(one, "GET /greens/a edge", &[]).await.body, "greens");
    assert_eq!(get(other, "GET /anything edge", &[]).await.body, "color");
    assert_eq!(code(&get(one, "GET /color edge", &[]).await), "404");
    let teller = async |port: u16| get(egress, &format!("GET / teller.local:{port}"), &[]).await;
    assert_eq!(teller(3333).await.body, "fruit");
    assert_eq!(teller(4444).await.body, "greens");
    Ok(())
}
