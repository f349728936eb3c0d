// SPDX-License-Identifier: Apache-2.0
//! WebSockets through two sidecars, in both spellings on either side: `Upgrade` over HTTP/1.1, extended `CONNECT` over
//! HTTP/2 (RFC 8441).

use std::convert::Infallible;
use std::net::SocketAddr;

use http::Method;
use http::Request;
use http::Response;
use http::Version;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use mesh_test::client;
use mesh_test::mesh::MESH;
use mesh_test::mesh::Mesh;
use mesh_test::mesh::free_port;
use mesh_test::program::Program;
use mesh_test::raw;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

/// RFC 6455's example, key and answer.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const ASK: &str = "GET /chat?room=1 HTTP/1.1\r\nHost: shop.local\r\nConnection: Upgrade, HTTP2-Settings\r\n\
    Upgrade: websocket\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// An app over HTTP/1.1 that agrees to WebSockets at `/chat`, repeats what it hears, and answers 200 elsewhere.
async fn app1() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
                let asked = [
                    "get /chat?room=1 ",
                    "\nupgrade: websocket\r",
                    "\nconnection: upgrade\r",
                ];
                let keyed = head.contains("\nsec-websocket-key: ");
                if !asked.iter().all(|part| head.contains(part))
                    || !keyed
                    || head.contains("http2-")
                {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    return stream.write_all(answer).await;
                }
                let answer = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
                );
                stream.write_all(answer.as_bytes()).await?;
                raw::echo(&mut stream).await
            });
        }
    });
    Ok(address)
}

/// An app over HTTP/2 that agrees to WebSockets and knows no keys.
async fn app2() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|mut request: Request<Incoming>| async move {
                let asked = request
                    .extensions()
                    .get::<Protocol>()
                    .map(|name| name.as_ref().to_vec());
                let status = if asked.as_deref() == Some(b"websocket") {
                    200
                } else {
                    400
                };
                let upgraded = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    if let Ok(upgraded) = upgraded.await {
                        drop(raw::echo(&mut TokioIo::new(upgraded)).await);
                    }
                });
                let mut answer = Response::new(Empty::<bytes::Bytes>::new());
                *answer.status_mut() = status.try_into().expect("a status");
                Ok::<_, Infallible>(answer)
            });
            let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            server.enable_connect_protocol();
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(address)
}

struct Scene {
    egress: SocketAddr,
    _parts: (Mesh, Program, Program),
}

/// `web` calls `shop.local`, whose listener and app speak `protocol`.
async fn scene(protocol: &str, app: SocketAddr) -> anyhow::Result<Scene> {
    let port = free_port()?;
    let mesh = Mesh::start().await?;
    let nodes = format!("/meshes/{MESH}/virtualNodes");
    let listeners = json!([{"portMapping": {"port": port, "protocol": protocol}}]);
    let found = json!({"dns": {"hostname": "127.0.0.1"}});
    let spec = json!({"listeners": listeners, "serviceDiscovery": found});
    mesh.put(&nodes, json!({"virtualNodeName": "shop", "spec": spec}))
        .await?;
    mesh.service("shop.local", "shop").await?;
    let backends = json!([{"virtualService": {"virtualServiceName": "shop.local"}}]);
    mesh.put(
        &nodes,
        json!({"virtualNodeName": "web", "spec": {"backends": backends}}),
    )
    .await?;
    let shop = mesh.sidecar("shop", port, app).await?;
    let web = mesh.proxy("mesh/m/virtualNode/web", &[], &[]).await?;
    Ok(Scene {
        egress: web.address("egress")?,
        _parts: (mesh, shop, web),
    })
}

async fn http2(
    to: SocketAddr,
) -> anyhow::Result<hyper::client::conn::http2::SendRequest<Empty<bytes::Bytes>>> {
    let stream = TcpStream::connect(to).await?;
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

fn extended(path: &str, protocol: &'static str) -> anyhow::Result<Request<Empty<bytes::Bytes>>> {
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .version(Version::HTTP_2)
        .uri(format!("http://shop.local{path}"))
        .header("sec-websocket-version", "13")
        .body(Empty::new())?;
    request
        .extensions_mut()
        .insert(Protocol::from_static(protocol));
    Ok(request)
}

async fn by_upgrade(egress: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(egress).await?;
    let head = raw::head(&mut stream, ASK).await?.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(head.contains("upgrade: websocket"), "{head}");
    let accept = format!("sec-websocket-accept: {}", ACCEPT.to_ascii_lowercase());
    assert!(head.contains(&accept), "{KEY} is answered: {head}");
    assert_eq!(raw::say(stream, "hello").await?, "hellobye");
    Ok(())
}

async fn by_connect(egress: SocketAddr) -> anyhow::Result<()> {
    let mut sender = http2(egress).await?;
    let answer = sender
        .send_request(extended("/chat?room=1", "websocket")?)
        .await?;
    assert_eq!(answer.status(), 200);
    for gone in ["upgrade", "connection", "sec-websocket-accept"] {
        assert!(
            !answer.headers().contains_key(gone),
            "{gone} in {:?}",
            answer.headers()
        );
    }
    let stream = TokioIo::new(hyper::upgrade::on(answer).await?);
    assert_eq!(raw::say(stream, "hello").await?, "hellobye");
    Ok(())
}

#[tokio::test]
async fn websockets_of_both_spellings_reach_an_http1_app() -> anyhow::Result<()> {
    let scene = scene("http", app1().await?).await?;
    by_upgrade(scene.egress).await?;
    by_connect(scene.egress).await?;

    let mut sender = http2(scene.egress).await?;
    let unagreed = sender
        .send_request(extended("/elsewhere", "websocket")?)
        .await?;
    assert_eq!(
        unagreed.status(),
        502,
        "a plain 200 would read as agreement"
    );
    let unknown = sender
        .send_request(extended("/chat?room=1", "connect-udp")?)
        .await?;
    assert_eq!(unknown.status(), 403);
    let mut stream = TcpStream::connect(scene.egress).await?;
    let h2c = ASK.replace("websocket", "h2c");
    let head = raw::head(&mut stream, &h2c).await?;
    assert!(
        head.starts_with("HTTP/1.1 200"),
        "h2c and its settings stay here: {head}"
    );
    Ok(())
}

#[tokio::test]
async fn an_open_websocket_takes_one_of_the_listeners_connections() -> anyhow::Result<()> {
    let port = free_port()?;
    let app = app1().await?;
    let mesh = Mesh::start().await?;
    let pool = json!({"http": {"maxConnections": 1, "maxPendingRequests": 1}});
    let listener =
        json!({"portMapping": {"port": port, "protocol": "http"}, "connectionPool": pool});
    let spec = json!({"listeners": [listener],
        "serviceDiscovery": {"dns": {"hostname": "127.0.0.1"}}});
    let nodes = format!("/meshes/{MESH}/virtualNodes");
    mesh.put(&nodes, json!({"virtualNodeName": "shop", "spec": spec}))
        .await?;
    let _shop = mesh.sidecar("shop", port, app).await?;
    let at = SocketAddr::from(([127, 0, 0, 1], port));

    let mut socket = TcpStream::connect(at).await?;
    let head = raw::head(&mut socket, ASK).await?;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let (a, b) = (
        client::get(at, "shop.local", "/a"),
        client::get(at, "shop.local", "/b"),
    );
    tokio::pin!(a, b);
    let both = async {
        // One waits for the place; for the other there is no room to wait.
        tokio::select! {
            refused = &mut a => { drop(socket); (refused, b.await) }
            refused = &mut b => { drop(socket); (refused, a.await) }
        }
    };
    let (refused, waited) = tokio::time::timeout(raw::LIMIT, both).await?;
    let refused = refused?;
    assert_eq!(
        (refused.status, &refused.headers["x-envoy-overloaded"]),
        (503, &"true".parse()?)
    );
    assert_eq!(waited?.status, 200, "once the socket had closed");
    Ok(())
}

#[tokio::test]
async fn websockets_of_both_spellings_reach_an_http2_app() -> anyhow::Result<()> {
    let scene = scene("http2", app2().await?).await?;
    by_upgrade(scene.egress).await?;
    by_connect(scene.egress).await
}
