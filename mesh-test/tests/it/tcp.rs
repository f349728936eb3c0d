// SPDX-License-Identifier: Apache-2.0
//! TCP as App Mesh had it, and three protocols on one node: routes by port, weights, limits, idle time, log lines.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use mesh_test::client;
use mesh_test::eventually::eventually;
use mesh_test::mesh::MESH;
use mesh_test::mesh::Mesh;
use mesh_test::mesh::free_port;
use mesh_test::raw;
use mesh_test::upstream::Behaviour;
use mesh_test::upstream::Upstream;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

async fn node(mesh: &Mesh, name: &str, listeners: Value, backends: &[&str]) -> anyhow::Result<()> {
    let backends: Vec<Value> = backends
        .iter()
        .map(|name| json!({"virtualService": {"virtualServiceName": name}}))
        .collect();
    let spec = json!({
        "listeners": listeners,
        "serviceDiscovery": {"dns": {"hostname": "127.0.0.1"}},
        "backends": backends,
    });
    let body = json!({"virtualNodeName": name, "spec": spec});
    mesh.put(&format!("/meshes/{MESH}/virtualNodes"), body)
        .await?;
    Ok(())
}

fn listener(port: u16, protocol: &str) -> Value {
    json!({"portMapping": {"port": port, "protocol": protocol}})
}

/// A virtual service `<name>.local` behind a router with these listeners and routes.
async fn router(mesh: &Mesh, name: &str, listeners: Value, routes: &[Value]) -> anyhow::Result<()> {
    let path = format!("/meshes/{MESH}/virtualRouters");
    let body = json!({"virtualRouterName": name, "spec": {"listeners": listeners}});
    mesh.put(&path, body).await?;
    for (number, route) in routes.iter().enumerate() {
        let body = json!({"routeName": format!("r{number}"), "spec": route});
        mesh.put(&format!("/meshes/{MESH}/virtualRouter/{name}/routes"), body)
            .await?;
    }
    let provider = json!({"provider": {"virtualRouter": {"virtualRouterName": name}}});
    let body = json!({"virtualServiceName": format!("{name}.local"), "spec": provider});
    mesh.put(&format!("/meshes/{MESH}/virtualServices"), body)
        .await?;
    Ok(())
}

fn to(targets: &[(&str, u32, u16)]) -> Value {
    let targets: Vec<Value> = targets
        .iter()
        .map(|(node, weight, port)| json!({"virtualNode": node, "weight": weight, "port": port}))
        .collect();
    json!({"weightedTargets": targets})
}

#[tokio::test]
async fn http_grpc_and_tcp_on_one_node_are_routed_by_port() -> anyhow::Result<()> {
    let app = Upstream::start("shop", Behaviour::Echo).await?;
    let raw_app = raw::greeter(TcpListener::bind("127.0.0.1:0").await?, "220 \n");
    let [http, grpc, tcp, plain] = [free_port()?, free_port()?, free_port()?, free_port()?];
    let mesh = Mesh::start().await?;
    let listeners = json!([
        listener(http, "http"),
        listener(grpc, "grpc"),
        listener(tcp, "tcp")
    ]);
    node(&mesh, "shop", listeners, &[]).await?;
    let listeners = json!([
        listener(80, "http"),
        listener(7443, "grpc"),
        listener(5432, "tcp")
    ]);
    let routes = [
        json!({"httpRoute": {"match": {"prefix": "/", "port": 80}, "action": to(&[("shop", 1, http)])}}),
        json!({"grpcRoute": {"match": {"port": 7443}, "action": to(&[("shop", 1, grpc)])}}),
        json!({"tcpRoute": {"match": {"port": 5432}, "action": to(&[("shop", 1, tcp)])}}),
    ];
    router(&mesh, "shop", listeners, &routes).await?;
    node(
        &mesh,
        "web",
        json!([listener(plain, "http")]),
        &["shop.local"],
    )
    .await?;
    let listens = [(http, app.address()), (grpc, app.address()), (tcp, raw_app)]
        .map(|(port, app)| format!("127.0.0.1:{port}={app}"))
        .join(",");
    let _shop = mesh
        .proxy("mesh/m/virtualNode/shop", &["--listen", &listens], &[])
        .await?;
    let web = mesh.proxy("mesh/m/virtualNode/web", &[], &[]).await?;
    let egress = web.address("egress")?;

    let by_name = client::get(egress, "shop.local", "/a").await?;
    let by_port = client::get(egress, "shop.local:80", "/b").await?;
    let stream = TcpStream::connect(egress).await?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let call = Request::post("http://shop.local:7443/shop.Shop/List")
        .header("content-type", "application/grpc")
        .body(Full::<Bytes>::default())?;
    let answered = sender.send_request(call).await?;
    let said: Value = serde_json::from_slice(&answered.into_body().collect().await?.to_bytes())?;
    let talked = raw::talk(raw::connect(egress, "shop.local:5432").await?).await?;

    assert_eq!(
        (by_name.status, &by_name.json()?["path"]),
        (200, &json!("/a"))
    );
    assert_eq!(
        (by_port.status, &by_port.json()?["path"]),
        (200, &json!("/b"))
    );
    assert_eq!(said["path"], "/shop.Shop/List");
    assert_eq!(
        talked, "220 \npingbye",
        "the server spoke first, and after the client's end"
    );
    let undeclared = raw::connect(egress, "shop.local:5433").await;
    assert!(format!("{undeclared:?}").contains("403"), "{undeclared:?}");
    let not_tcp = client::get(egress, "shop.local:5432", "/").await?;
    assert_eq!(not_tcp.status, 404, "only CONNECT is for a TCP backend");
    Ok(())
}

#[tokio::test]
async fn tcp_routes_spread_connections_by_weight_and_by_name_on_one_port() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let mut ports = BTreeMap::new();
    for (name, greeting) in [("a", "aaaa\n"), ("b", "bbbb\n"), ("c", "cccc\n")] {
        let app = raw::greeter(TcpListener::bind("127.0.0.1:0").await?, greeting);
        node(&mesh, name, json!([listener(app.port(), "tcp")]), &[]).await?;
        ports.insert(name, app.port());
    }
    let weighted = to(&[("a", 3, ports["a"]), ("b", 1, ports["b"])]);
    for (name, action) in [("db-a", weighted), ("db-c", to(&[("c", 1, ports["c"])]))] {
        let route = json!({"tcpRoute": {"action": action}});
        router(&mesh, name, json!([listener(5432, "tcp")]), &[route]).await?;
    }
    let backends = ["db-a.local", "db-c.local"];
    node(
        &mesh,
        "web",
        json!([listener(free_port()?, "http")]),
        &backends,
    )
    .await?;
    let web = mesh.proxy("mesh/m/virtualNode/web", &[], &[]).await?;
    let egress = web.address("egress")?;

    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..80 {
        let talked = raw::talk(raw::connect(egress, "db-a.local:5432").await?).await?;
        *seen.entry(talked).or_default() += 1;
    }
    let other = raw::talk(raw::connect(egress, "db-c.local:5432").await?).await?;

    let count = |name: &str| seen.get(&format!("{name}\npingbye")).copied().unwrap_or(0);
    assert_eq!(count("aaaa") + count("bbbb"), 80, "{seen:?}");
    // Three to one of 80: 20 expected, and 3.9 standard deviations to either side.
    assert!((5..=35).contains(&count("bbbb")), "{seen:?}");
    assert_eq!(
        other, "cccc\npingbye",
        "the second backend of that port, by its name"
    );
    Ok(())
}

#[tokio::test]
async fn a_tcp_listener_keeps_its_limit_and_idle_time_and_writes_a_line() -> anyhow::Result<()> {
    let app = raw::greeter(TcpListener::bind("127.0.0.1:0").await?, "220 \n");
    let port = free_port()?;
    let logs = tempfile::tempdir()?;
    let log = logs.path().join("access.log");
    let mesh = Mesh::start().await?;
    let mut tcp = listener(port, "tcp");
    tcp["connectionPool"] = json!({"tcp": {"maxConnections": 1}});
    tcp["timeout"] = json!({"tcp": {"idle": {"unit": "ms", "value": 400}}});
    let line = "%BYTES_RECEIVED% %BYTES_SENT% %RESPONSE_FLAGS% %UPSTREAM_CLUSTER%\n";
    let file = json!({"path": log.display().to_string(), "format": {"text": line}});
    let body = json!({"virtualNodeName": "db", "spec": {
        "listeners": [tcp],
        "serviceDiscovery": {"dns": {"hostname": "127.0.0.1"}},
        "logging": {"accessLog": {"file": file}},
    }});
    mesh.put(&format!("/meshes/{MESH}/virtualNodes"), body)
        .await?;
    let db = mesh.sidecar("db", port, app).await?;
    let at = ("127.0.0.1", port);

    let mut first = TcpStream::connect(at).await?;
    let mut greeting = [0; 5];
    first.read_exact(&mut greeting).await?;
    let mut second = TcpStream::connect(at).await?;
    let mut nothing = Vec::new();
    // A reset is as good as an end.
    drop(tokio::time::timeout(raw::LIMIT, second.read_to_end(&mut nothing)).await?);
    assert!(nothing.is_empty(), "beyond the limit: {nothing:?}");
    first.write_all(b"x").await?;
    let begun = std::time::Instant::now();
    let mut rest = Vec::new();
    drop(tokio::time::timeout(raw::LIMIT, first.read_to_end(&mut rest)).await?);
    assert_eq!(rest, b"x");
    assert!(
        begun.elapsed() >= Duration::from_millis(300),
        "{:?}",
        begun.elapsed()
    );
    let third = raw::talk(TcpStream::connect(at).await?).await?;
    assert_eq!(third, "220 \npingbye", "the place is free again");

    let cluster = format!("cds_ingress_m_db_tcp_{port}");
    eventually(raw::LIMIT, || async {
        let lines = std::fs::read_to_string(&log).context("the log")?;
        for expected in [
            format!("0 0 UO {cluster}\n"),
            format!("1 6 SI {cluster}\n"),
            format!("4 12 - {cluster}\n"),
        ] {
            anyhow::ensure!(lines.contains(&expected), "no {expected:?} in {lines:?}");
        }
        Ok(())
    })
    .await?;
    let admin = db.address("admin")?;
    let stats = client::get(admin, "localhost", "/stats?filter=tcp")
        .await?
        .text();
    for stat in [
        "tcp.ingress.downstream_cx_total: 3",
        "tcp.ingress.idle_timeout: 1",
    ] {
        assert!(stats.contains(stat), "no {stat} in {stats}");
    }
    Ok(())
}
