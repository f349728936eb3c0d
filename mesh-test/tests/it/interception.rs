// SPDX-License-Identifier: Apache-2.0
//! Transparent interception in a network of its own: the rules are installed by `pillion-proxy intercept`, the sidecar
//! runs as user 1337, the app (this test) knows nothing of either. Needs root, iptables and iproute2.

mod egress_filter;
mod rules;

use std::net::SocketAddr;

use anyhow::Context;
use mesh_test::client;
use mesh_test::eventually::eventually;
use mesh_test::mesh::MESH;
use mesh_test::mesh::Mesh;
use mesh_test::mesh::live;
use mesh_test::pod::ELSEWHERE;
use mesh_test::pod::POD;
use mesh_test::pod::PROXY_UID;
use mesh_test::pod::Pod;
use mesh_test::pod::WORLD;
use mesh_test::pod::in_pod;
use mesh_test::pod::tool;
use mesh_test::program::Program;
use mesh_test::program::built;
use mesh_test::raw;
use mesh_test::raw::LIMIT;
use mesh_test::raw::greeter;
use mesh_test::upstream::Behaviour;
use mesh_test::upstream::Upstream;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

const HTTP: u16 = 9000;
const TCP: u16 = 5432;

/// A node without TLS.
fn node(name: &str, at: &str, listeners: &[(u16, &str)], backends: &[&str]) -> Value {
    let listeners: Vec<Value> = listeners
        .iter()
        .map(|(port, protocol)| json!({"portMapping": {"port": port, "protocol": protocol}}))
        .collect();
    let backends: Vec<Value> = backends
        .iter()
        .map(|name| json!({"virtualService": {"virtualServiceName": name}}))
        .collect();
    json!({"virtualNodeName": name, "spec": {
        "listeners": listeners,
        "serviceDiscovery": {"dns": {"hostname": at}},
        "backends": backends,
    }})
}

/// The mesh of these cases: `web` is this pod, and may call `shop.local` (http) and `db.local` (tcp) in the world.
async fn mesh(egress: &str, app: u16) -> anyhow::Result<Mesh> {
    let mesh = Mesh::start().await?;
    mesh.put(
        &format!("/meshes/{MESH}"),
        json!({"spec": {"egressFilter": {"type": egress}}}),
    )
    .await?;
    let nodes = format!("/meshes/{MESH}/virtualNodes");
    let world = WORLD.to_string();
    mesh.put(&nodes, node("shop", &world, &[(HTTP, "http")], &[]))
        .await?;
    mesh.put(&nodes, node("db", &world, &[(TCP, "tcp")], &[]))
        .await?;
    mesh.service("shop.local", "shop").await?;
    mesh.service("db.local", "db").await?;
    let backends = ["shop.local", "db.local"];
    mesh.put(
        &nodes,
        node("web", &POD.to_string(), &[(app, "http")], &backends),
    )
    .await?;
    Ok(mesh)
}

/// The pod's sidecar on App Mesh's ports.
async fn sidecar(mesh: &Mesh) -> anyhow::Result<Program> {
    let local = "127.0.0.1:0";
    let arguments = [
        "--admin-addr",
        local,
        "--agent-addr",
        local,
        "--workers",
        "1",
    ];
    let xds = mesh.xds()?.to_string();
    let web = format!("mesh/{MESH}/virtualNode/web");
    let environment = [
        ("APPMESH_RESOURCE_ARN", web.as_str()),
        ("APPMESH_XDS_ENDPOINT", xds.as_str()),
    ];
    let proxy = Program::start_as(PROXY_UID, "pillion-proxy", &arguments, &environment).await?;
    live(&proxy).await?;
    Ok(proxy)
}

/// `pillion-proxy intercept` with these arguments; what it printed.
fn intercept(arguments: &[&str]) -> anyhow::Result<String> {
    let program = built("pillion-proxy")?;
    let program = program.to_str().context("a path in UTF-8")?;
    tool(program, &[&["intercept"], arguments].concat())
}

fn intercept_for(app: u16) -> anyhow::Result<()> {
    let (app, uid) = (app.to_string(), PROXY_UID.to_string());
    intercept(&["--app-ports", &app, "--ignore-uid", &uid, "--ipv6"]).map(drop)
}

async fn talk(to: SocketAddr) -> anyhow::Result<String> {
    raw::talk(TcpStream::connect(to).await?).await
}

async fn stat(proxy: &Program, name: &str) -> anyhow::Result<u64> {
    let page = client::get(
        proxy.address("admin")?,
        "localhost",
        &format!("/stats?filter=^{name}$"),
    )
    .await?;
    let text = page.text();
    let value = text.trim().rsplit(' ').next().unwrap_or_default();
    value
        .parse()
        .with_context(|| format!("no stat {name}: {text:?}"))
}

#[test]
fn redirected_connections_are_served_both_ways_and_the_app_knows_nothing() -> anyhow::Result<()> {
    in_pod(async |pod: Pod| {
        let app = Upstream::start("web", Behaviour::Echo).await?;
        let shop = Upstream::serve("shop", Behaviour::Echo, pod.listen((WORLD, HTTP))?)?;
        let db = greeter(pod.listen((WORLD, TCP))?, "220 \n");
        let port = app.address().port();
        let mesh = mesh("DROP_ALL", port).await?;
        let proxy = sidecar(&mesh).await?;
        intercept_for(port)?;

        let out = client::get(shop.address(), "shop.local", "/things").await?;
        let talked = talk(db).await?;
        let stranger = pod.connect((POD, port))?;
        let inbound = client::send_over(stranger, client::asking("web.local", "/in")?).await?;

        assert_eq!((out.status, &out.json()?["path"]), (200, &json!("/things")));
        assert_eq!(
            out.headers["server"], "envoy",
            "it went through the sidecar"
        );
        assert_eq!(talked, "220 \npingbye");
        assert_eq!(
            (inbound.status, &inbound.json()?["path"]),
            (200, &json!("/in"))
        );
        assert_eq!(inbound.headers["server"], "envoy");
        assert_eq!(
            stat(&proxy, "cluster.cds_egress_m_db_tcp_5432.upstream_cx_total").await?,
            1
        );
        Ok(())
    })
}

#[test]
fn a_proxy_whose_user_is_not_left_out_ends_the_circle_and_says_what_to_do() -> anyhow::Result<()> {
    in_pod(async |pod: Pod| {
        let shop = Upstream::serve("shop", Behaviour::Echo, pod.listen((WORLD, HTTP))?)?;
        let db = greeter(pod.listen((WORLD, TCP))?, "220 \n");
        let mesh = mesh("DROP_ALL", 8080).await?;
        let proxy = sidecar(&mesh).await?;
        intercept(&["--ignore-uid", "4242"])?;

        let http = client::get(shop.address(), "shop.local", "/").await?;
        let tcp = talk(db).await;

        assert_eq!(http.status, 503, "{}", http.text());
        assert!(tcp.is_err(), "{tcp:?}");
        assert!(proxy.log().contains("--ignore-uid"), "{}", proxy.log());
        let connections = stat(&proxy, "listener.0.0.0.0_15001.downstream_cx_total").await?;
        assert!(connections < 50, "{connections} connections of one request");
        Ok(())
    })
}

#[test]
fn strangers_cannot_call_out_through_a_sidecar() -> anyhow::Result<()> {
    in_pod(async |pod: Pod| {
        let shop = Upstream::serve("shop", Behaviour::Echo, pod.listen((WORLD, HTTP))?)?;
        let mesh = mesh("ALLOW_ALL", 8080).await?;
        let proxy = sidecar(&mesh).await?;

        let own = client::get((POD, 15001).into(), "shop.local", "/").await?;
        let stranger = pod.connect((POD, 15001))?;
        let refused = client::send_over(stranger, client::asking("shop.local", "/")?).await;

        assert_eq!(own.status, 200, "the app itself may");
        assert!(refused.is_err(), "{refused:?}");
        assert!(
            proxy.log().contains("PILLION_EGRESS_ADDR"),
            "{}",
            proxy.log()
        );
        assert_eq!(shop.asked(), 1);
        Ok(())
    })
}

#[test]
fn an_explicit_call_for_the_proxy_itself_is_a_loop() -> anyhow::Result<()> {
    in_pod(async |_: Pod| {
        let mesh = mesh("ALLOW_ALL", 8080).await?;
        let _proxy = sidecar(&mesh).await?;

        let direct = client::get(([127, 0, 0, 1], 15001).into(), "127.0.0.1:15001", "/").await?;
        let around = client::get(([127, 0, 0, 1], 15001).into(), "10.77.0.1:15001", "/").await?;

        assert_eq!((direct.status, around.status), (508, 508));
        Ok(())
    })
}

#[test]
fn ignored_ports_and_addresses_pass_the_sidecar_by() -> anyhow::Result<()> {
    in_pod(async |pod: Pod| {
        let ignored_port = greeter(pod.listen((WORLD, 22))?, "ssh \n");
        let ignored_ip = greeter(pod.listen((ELSEWHERE, 80))?, "imds\n");
        let dropped = Upstream::serve("web", Behaviour::Echo, pod.listen((WORLD, 80))?)?;
        let mesh = mesh("DROP_ALL", 8080).await?;
        let _proxy = sidecar(&mesh).await?;
        let elsewhere = ELSEWHERE.to_string();
        intercept(&[
            "--ignore-uid",
            "1337",
            "--egress-ignored-ports",
            "22",
            "--egress-ignored-ips",
            &elsewhere,
        ])?;

        assert_eq!(talk(ignored_port).await?, "ssh \npingbye");
        assert_eq!(talk(ignored_ip).await?, "imds\npingbye");
        let closed = client::get(dropped.address(), "web.example", "/").await;
        assert!(closed.is_err(), "an undeclared port is closed: {closed:?}");
        Ok(())
    })
}

#[test]
fn a_new_configuration_serves_redirected_connections_at_once() -> anyhow::Result<()> {
    in_pod(async |pod: Pod| {
        let late = greeter(pod.listen((WORLD, 7000))?, "late\n");
        let mesh = mesh("DROP_ALL", 8080).await?;
        let proxy = sidecar(&mesh).await?;
        intercept(&["--ignore-uid", "1337"])?;
        let spec = node(
            "db",
            &WORLD.to_string(),
            &[(TCP, "tcp"), (7000, "tcp")],
            &[],
        );
        mesh.put(
            &format!("/meshes/{MESH}/virtualNodes/db"),
            json!({"spec": spec["spec"]}),
        )
        .await?;

        let admin = proxy.address("admin")?;
        eventually(LIMIT, || async {
            let dump = client::get(admin, "localhost", "/config_dump")
                .await?
                .text();
            anyhow::ensure!(dump.contains("egress_tcp_7000"), "no such chain yet");
            Ok(())
        })
        .await?;
        assert_eq!(talk(late).await?, "late\npingbye");
        Ok(())
    })
}
#[test]
fn ipv6_connections_are_redirected_where_the_mesh_prefers_them() -> anyhow::Result<()> {
    use mesh_test::pod::POD_V6;
    use mesh_test::pod::WORLD_V6;
    in_pod(async |pod: Pod| {
        let app = Upstream::serve("web", Behaviour::Echo, TcpListener::bind("[::1]:0").await?)?;
        let shop = Upstream::serve("shop", Behaviour::Echo, pod.listen((WORLD_V6, HTTP))?)?;
        let port = app.address().port();
        let mesh = mesh("DROP_ALL", port).await?;
        let spec = json!({"spec": {"egressFilter": {"type": "DROP_ALL"},
            "serviceDiscovery": {"ipPreference": "IPv6_PREFERRED"}}});
        mesh.put(&format!("/meshes/{MESH}"), spec).await?;
        let moved = node("shop", &WORLD_V6.to_string(), &[(HTTP, "http")], &[]);
        mesh.put(
            &format!("/meshes/{MESH}/virtualNodes/shop"),
            json!({"spec": moved["spec"]}),
        )
        .await?;
        let proxy = sidecar(&mesh).await?;
        intercept_for(port)?;

        let out = client::get(shop.address(), "shop.local", "/things")
            .await
            .with_context(|| proxy.log())?;
        let stranger = pod.connect((POD_V6, port))?;
        let inbound = client::send_over(stranger, client::asking("web.local", "/in")?).await?;

        assert_eq!(
            (out.status, &out.headers["server"]),
            (200, &"envoy".parse()?)
        );
        assert_eq!(
            (inbound.status, &inbound.json()?["path"]),
            (200, &json!("/in"))
        );
        Ok(())
    })
}
