// SPDX-License-Identifier: Apache-2.0
//! What a mesh holds back: the egress filter, connection pools at the server, ejected endpoints; and the access log.

use std::net::IpAddr;
use std::net::SocketAddr;

use futures_util::future::join_all;
use mesh_test::asking::Answer;
use mesh_test::client;
use mesh_test::eventually::eventually;
use mesh_test::names::NameServer;
use mesh_test::pod::in_pod;
use mesh_test::program::Program;
use mesh_test::scripted::Scripted;
use mesh_test::scripted::Speaks;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

use super::SOON;
use super::Walk;
use super::code;
use super::get;
use super::get2;
use super::grpc;
use super::has;
use super::late;
use super::status;
use super::until;

#[tokio::test]
async fn an_undeclared_host_is_reached_only_while_the_mesh_allows_all() -> anyhow::Result<()> {
    let apps = [("known", Speaks::Http1), ("stranger", Speaks::Http1)];
    let walk = Walk::start("egress-filter", &apps, &[]).await?;
    let (_sidecar, egress) = walk.client().await?;
    let stranger = format!("GET / {}", walk.at("stranger"));

    assert_eq!(get(egress, "GET / known.local", &[]).await.body, "known");
    assert_eq!(code(&get(egress, &stranger, &[]).await), "404");
    walk.step("egress-filter-allow").await?;
    until(egress, &stranger, |answer| answer.body == "stranger").await?;
    assert_eq!(get(egress, "GET / known.local", &[]).await.body, "known");
    Ok(())
}

/// How many answers were 200, and how many said that the pool is full.
fn sorted(answers: &[Answer]) -> (usize, usize) {
    let good = answers.iter().filter(|answer| code(answer) == "200");
    let full = |answer: &&Answer| {
        has(answer, "x-envoy-overloaded: true")
            && (code(answer) == "503" || has(answer, "grpc-status: 14"))
    };
    let full = answers.iter().filter(full).count();
    (
        good.count()
            - answers
                .iter()
                .filter(|answer| has(answer, "grpc-status: 14"))
                .count(),
        full,
    )
}

#[tokio::test]
async fn a_full_pool_turns_requests_away_at_the_server() -> anyhow::Result<()> {
    let apps = [
        ("app", Speaks::Http1),
        ("app2", Speaks::Http2),
        ("appgrpc", Speaks::Http2),
    ];
    let walk = Walk::start("connection-pools", &apps, &["one", "two", "grpc", "raw"]).await?;
    let raw = TcpListener::bind("127.0.0.1:0").await?;
    let raw_app = raw.local_addr()?;
    let pairs = [
        ("one", walk.at("app")),
        ("two", walk.at("app2")),
        ("grpc", walk.at("appgrpc")),
        ("raw", raw_app),
    ];
    let listens: Vec<String> = pairs
        .iter()
        .map(|(name, app)| format!("{}={app}", walk.at(name)))
        .collect();
    let arguments: Vec<&str> = listens
        .iter()
        .flat_map(|listen| ["--listen", listen])
        .collect();
    let sidecar = walk
        .mesh
        .proxy("mesh/m/virtualNode/one", &arguments, &[])
        .await?;
    walk.book.script("held", &[late(600)]);
    let case = ["x-case: held"];

    let line = "GET / one.local";
    let first = get(walk.at("one"), line, &case);
    let others = async {
        eventually(SOON, || async {
            anyhow::ensure!(walk.tries("held") == 1);
            Ok(())
        })
        .await?;
        anyhow::Ok(join_all((0..3).map(|_| get(walk.at("one"), line, &case))).await)
    };
    let (first, others) = tokio::join!(first, others);
    let others = others?;
    assert_eq!(code(&first), "200", "one under way");
    assert_eq!(sorted(&others), (1, 2), "one waiting: {others:?}");
    let two = join_all((0..3).map(|_| get2(walk.at("two"), line, &case))).await;
    assert_eq!(sorted(&two), (1, 2), "one stream: {two:?}");
    let call = "/color.Colors/Get one.local";
    let calls = join_all((0..3).map(|_| grpc(walk.at("grpc"), call, &case))).await;
    assert_eq!(sorted(&calls), (1, 2), "one call: {calls:?}");

    let _first = TcpStream::connect(walk.at("raw")).await?;
    let _held = raw.accept().await?;
    let mut second = TcpStream::connect(walk.at("raw")).await?;
    let ended = tokio::time::timeout(SOON, second.read(&mut [0; 1])).await?;
    assert!(
        !matches!(ended, Ok(1..)),
        "a second TCP connection is closed"
    );

    let counted = |name: &'static str| overflows(&sidecar, name);
    assert_eq!(counted("upstream_rq_pending_overflow").await?, 6);
    assert_eq!(counted("upstream_cx_overflow").await?, 2);
    Ok(())
}

/// The sum of a counter over the ingress clusters.
async fn overflows(sidecar: &Program, name: &str) -> anyhow::Result<u64> {
    let path = format!("/stats?filter=cds_ingress_.*{name}$");
    let text = client::get(sidecar.address("admin")?, "localhost", &path)
        .await?
        .text();
    let all = text.lines().filter_map(|line| line.rsplit_once(": "));
    Ok(all
        .filter_map(|(_, number)| number.parse::<u64>().ok())
        .sum())
}

#[test]
fn an_endpoint_that_fails_is_left_alone_for_a_while() -> anyhow::Result<()> {
    in_pod(|_pod| async move {
        let addresses: [IpAddr; 2] = [[127, 0, 0, 2].into(), [127, 0, 0, 3].into()];
        let _names = NameServer::start(addresses.to_vec()).await?;
        let walk = Walk::prepare(&[], &["color"]).await?;
        let mut apps = Vec::new();
        for (name, address) in ["good", "bad"].into_iter().zip(addresses) {
            let at = SocketAddr::new(address, walk.ports["color"]);
            let listener = TcpListener::bind(at).await?;
            apps.push(Scripted::serve(name, Speaks::Http1, listener, &walk.book)?);
        }
        walk.step("outlier-detection").await?;
        let (sidecar, egress) = walk.client().await?;
        let names = async || {
            let mut bodies = Vec::new();
            for _ in 0..8 {
                bodies.push(get(egress, "GET / color.local", &[]).await.body);
            }
            bodies
        };
        eventually(SOON, || async {
            let bodies = names().await;
            anyhow::ensure!(
                bodies.contains(&"bad".to_owned()) && bodies.contains(&"good".to_owned()),
                "{bodies:?}"
            );
            Ok(())
        })
        .await?;

        // Both fail, one after the other; at most half may be ejected, and the first to fail thrice in a row is.
        walk.book.script("fail", &[status(500)]);
        for _ in 0..6 {
            get(egress, "GET / color.local", &["x-case: fail"]).await;
        }
        let seen = walk.book.seen("fail").len();
        assert_eq!(seen, 6, "500 is no event of the default policy");
        let bodies = names().await;
        let first = bodies[0].clone();
        assert!(
            bodies.iter().all(|body| *body == first),
            "one endpoint is left: {bodies:?}"
        );
        let page = client::get(sidecar.address("admin")?, "localhost", "/clusters")
            .await?
            .text();
        assert_eq!(page.matches("/failed_outlier_check").count(), 1, "{page}");
        drop(apps);
        Ok(())
    })
}

#[tokio::test]
async fn an_access_log_is_written_as_text_or_json() -> anyhow::Result<()> {
    let walk = Walk::start("access-log", &[("red", Speaks::Http1)], &[]).await?;
    let mut sidecars = Vec::new();
    for name in ["text", "json", "plain"] {
        let resource = format!("mesh/m/virtualNode/{name}");
        let sidecar = walk.mesh.proxy(&resource, &[], &[]).await?;
        get(sidecar.address("egress")?, "GET /a?b=c red.local", &[]).await;
        get(sidecar.address("egress")?, "GET / nobody.local", &[]).await;
        sidecars.push(sidecar);
    }
    let lines = async |name: &str| {
        let file = walk.dir.path().join(format!("{name}.log"));
        eventually(SOON, || async {
            let text = std::fs::read_to_string(&file)?;
            anyhow::ensure!(text.lines().count() == 2, "{text:?}");
            Ok(text.lines().map(str::to_owned).collect::<Vec<_>>())
        })
        .await
    };

    let text = lines("text").await?;
    let red = walk.at("red");
    assert_eq!(
        text[0],
        format!("GET /a?b=c HTTP/1.1 200 - 0 3 red.local {red}")
    );
    assert_eq!(text[1], "GET / HTTP/1.1 404 NR 0 0 nobody.local -");
    let json = lines("json").await?;
    let first: Value = serde_json::from_str(&json[0])?;
    assert_eq!(
        (&first["method"], &first["status"], &first["none"]),
        (&"GET".into(), &200.into(), &Value::Null)
    );
    assert!(first["took"].is_number(), "{first}");
    let plain = lines("plain").await?;
    assert!(
        plain[0].contains("\"GET /a?b=c HTTP/1.1\" 200 - 0 3 "),
        "{plain:?}"
    );
    Ok(())
}
