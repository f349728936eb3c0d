// SPDX-License-Identifier: Apache-2.0
//! What must not bring the proxy down, tried on the built binary: a defect of its own, and strangers who take every file
//! descriptor.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::Empty;
use hyper::Request;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::plane;
use crate::plane::eventually;
use crate::xds;
use crate::xds_proxy::Proxy;
use crate::xds_proxy::command;
use crate::xds_server::Ads;

pub(crate) const HOST: &str = "shop.local";

/// A live proxy before `app`, started by a shell under `limits`.
pub(crate) async fn under(limits: &str, app: SocketAddr) -> (Ads, Proxy) {
    let (ads, proxy) = unconfigured(limits).await;
    xds::configure(&ads, app).await;
    proxy.live().await;
    (ads, proxy)
}

pub(crate) async fn unconfigured(limits: &str) -> (Ads, Proxy) {
    let ads = Ads::start().await;
    let plain = command(&ads.addr.to_string(), &[]);
    let plain = plain.as_std();
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", &format!("{limits}; exec \"$0\" \"$@\"")])
        .arg(plain.get_program())
        .args(plain.get_args())
        .env_clear()
        .envs(
            plain
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true);
    let proxy = Proxy::spawn(shell).await;
    (ads, proxy)
}

pub(crate) async fn stat(proxy: &Proxy, name: &str) -> u64 {
    let stats = proxy.admin("GET", "/stats").await.1;
    let line = stats
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in\n{stats}"))
}

#[cfg(debug_assertions)]
#[tokio::test]
async fn a_panic_costs_one_request_and_is_counted() {
    const PANICS: u64 = 200;
    let app = plane::app(|request| async move {
        if request.uri().path() == "/slow" {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        plane::text(200, "ok")
    })
    .await;
    let (_ads, proxy) = under("true", app).await;
    let socket = TcpStream::connect(proxy.addr("egress")).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .unwrap();
    tokio::spawn(connection);
    let ask = |path: &str, panics: bool| {
        let mut request = Request::get(format!("http://{HOST}{path}"));
        if panics {
            request = request.header("x-pillion-debug-panic", "1");
        }
        let asked = sender
            .clone()
            .send_request(request.body(Empty::<Bytes>::new()).unwrap());
        async move { asked.await.unwrap().status().as_u16() }
    };
    let neighbour = tokio::spawn(ask("/slow", false));
    for _ in 0..PANICS {
        assert_eq!(ask("/", true).await, 500);
    }
    assert_eq!(
        neighbour.await.unwrap(),
        200,
        "the neighbour's stream is not touched"
    );
    assert_eq!(ask("/", false).await, 200);
    // HTTP/1.1: the connection goes on as well.
    let socket = TcpStream::connect(proxy.addr("egress")).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .unwrap();
    tokio::spawn(connection);
    for panics in [true, false] {
        let mut request = Request::get("/").header("host", HOST);
        if panics {
            request = request.header("x-pillion-debug-panic", "1");
        }
        sender.ready().await.unwrap();
        let answer = sender
            .send_request(request.body(Empty::<Bytes>::new()).unwrap())
            .await
            .unwrap();
        assert_eq!(answer.status() == 500, panics);
        answer.into_body().collect().await.unwrap();
    }
    assert_eq!(stat(&proxy, "server.panics").await, PANICS + 1);
}

#[tokio::test]
async fn strangers_with_every_descriptor_do_not_silence_admin_and_service_comes_back() {
    let (_ads, proxy) = under("ulimit -n 128", plane::named("v1").await).await;
    let mut crowd = Vec::new();
    for _ in 0..300 {
        crowd.push(TcpStream::connect(proxy.addr("egress")).await.unwrap());
    }
    eventually("some are turned away", || async {
        stat(&proxy, "listener.0.0.0.0_15001.downstream_cx_overflow").await > 0
    })
    .await;
    assert_eq!(proxy.admin("GET", "/ready").await.0, 200);
    // Those who are in are served on.
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    crowd[0].write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    crowd[0].read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(crowd);
    eventually("service is back", || async {
        proxy.get(HOST).await == (200, "v1".to_owned())
    })
    .await;
}

#[tokio::test]
async fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
    let (_ads, proxy) = under("ulimit -S -n 64", plane::named("v1").await).await;
    assert!(proxy.log().contains("open files"), "{}", proxy.log());
    let mut crowd = Vec::new();
    for _ in 0..100 {
        let mut socket = TcpStream::connect(proxy.addr("egress")).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        socket.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
        crowd.push(socket);
    }
}
