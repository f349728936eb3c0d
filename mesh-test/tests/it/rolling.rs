// SPDX-License-Identifier: Apache-2.0
//! A rolling restart: two instances of a node, each behind a sidecar, are restarted in turn while a client's sidecar keeps
//! calling. Nobody deregisters them, DNS names both all the time; no request may fail.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use mesh_test::client;
use mesh_test::eventually::eventually;
use mesh_test::mesh::MESH;
use mesh_test::mesh::Mesh;
use mesh_test::names::NameServer;
use mesh_test::pod::Pod;
use mesh_test::pod::in_pod;
use mesh_test::program::Program;
use mesh_test::upstream::Behaviour;
use mesh_test::upstream::Upstream;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const PORT: u16 = 9000;
const HOST: &str = "shop.local";
const INSTANCES: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 1, 1), Ipv4Addr::new(127, 0, 1, 2)];
const LIMIT: Duration = Duration::from_secs(10);

/// What the callers of a case share.
#[derive(Default)]
struct Tally {
    answered: AtomicU64,
    stop: AtomicBool,
}

impl Tally {
    fn note(&self, status: u16, text: &str) -> anyhow::Result<()> {
        anyhow::ensure!(status == 200, "{status} {text}");
        self.answered.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn more(&self, number: u64) -> anyhow::Result<()> {
        let wanted = self.answered.load(Ordering::Relaxed) + number;
        eventually(LIMIT, || async move {
            let answered = self.answered.load(Ordering::Relaxed);
            anyhow::ensure!(answered >= wanted, "{answered} of {wanted} answers");
            Ok(())
        })
        .await
    }
}

/// A connection a request, as short-lived clients have it.
async fn calls_anew(egress: SocketAddr, tally: Arc<Tally>) -> anyhow::Result<()> {
    while !tally.stop.load(Ordering::Relaxed) {
        let answer = client::get(egress, HOST, "/").await?;
        tally.note(answer.status, &answer.text())?;
    }
    Ok(())
}

/// One HTTP/2 connection for all requests.
async fn calls_on_one(egress: SocketAddr, tally: Arc<Tally>) -> anyhow::Result<()> {
    let socket = TcpStream::connect(egress).await?;
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket));
    let (mut sender, connection) = handshake.await?;
    let driven = tokio::spawn(connection);
    while !tally.stop.load(Ordering::Relaxed) {
        let mut request = client::asking(HOST, "/")?;
        *request.uri_mut() = format!("http://{HOST}/").parse()?;
        request.headers_mut().remove("host");
        let answer = sender.send_request(request).await?;
        let status = answer.status().as_u16();
        let text = answer.into_body().collect().await?.to_bytes();
        tally.note(status, &String::from_utf8_lossy(&text))?;
    }
    driven.abort();
    Ok(())
}

async fn instance(mesh: &Mesh, at: Ipv4Addr, app: &Upstream) -> anyhow::Result<Program> {
    let listen = format!("{at}:{PORT}={}", app.address());
    mesh.proxy(
        &format!("mesh/{MESH}/virtualNode/shop"),
        &["--listen", &listen],
        // Callers are told to go and come back all the time, so each drain takes the whole of it: the shortest there is.
        &[("LISTENER_DRAIN_WAIT_TIME_S", "5")],
    )
    .await
}

async fn restarted(protocol: &str) -> anyhow::Result<()> {
    let _names = NameServer::start(INSTANCES.map(Into::into).to_vec()).await?;
    let mesh = Mesh::start().await?;
    let nodes = format!("/meshes/{MESH}/virtualNodes");
    let shop = json!({
        "listeners": [{"portMapping": {"port": PORT, "protocol": protocol}}],
        "serviceDiscovery": {"dns": {"hostname": "shop.test", "responseType": "ENDPOINTS"}},
    });
    mesh.put(&nodes, json!({"virtualNodeName": "shop", "spec": shop}))
        .await?;
    mesh.service(HOST, "shop").await?;
    let backends = json!([{"virtualService": {"virtualServiceName": HOST}}]);
    let web = json!({"virtualNodeName": "web", "spec": {"backends": backends}});
    mesh.put(&nodes, web).await?;
    let app = Upstream::start("shop", Behaviour::Echo).await?;
    let mut running = Vec::new();
    for at in INSTANCES {
        running.push(instance(&mesh, at, &app).await?);
    }
    let web = mesh.proxy("mesh/m/virtualNode/web", &[], &[]).await?;
    let egress = web.address("egress")?;

    let tally = Arc::new(Tally::default());
    let mut callers = JoinSet::new();
    for _ in 0..6 {
        callers.spawn(calls_anew(egress, Arc::clone(&tally)));
        callers.spawn(calls_on_one(egress, Arc::clone(&tally)));
    }
    tally.more(200).await?;
    let mut fresh = Vec::new();
    for (old, at) in running.into_iter().zip(INSTANCES) {
        let status = old.drain().await?;
        assert!(status.success(), "{status}");
        // One instance is away, and DNS still names it.
        tally.more(200).await?;
        fresh.push(instance(&mesh, at, &app).await?);
        tally.more(200).await?;
    }
    tally.stop.store(true, Ordering::Relaxed);
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    Ok(())
}

#[test]
fn a_rolling_restart_fails_no_request() -> anyhow::Result<()> {
    in_pod(async |_: Pod| restarted("http").await)
}

#[test]
fn a_rolling_restart_of_http2_instances_fails_no_request() -> anyhow::Result<()> {
    in_pod(async |_: Pod| restarted("http2").await)
}
