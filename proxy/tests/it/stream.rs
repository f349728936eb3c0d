// SPDX-License-Identifier: Apache-2.0
//! Bodies that stream, trailers, both HTTP versions on both sides, tunnels and opaque TCP.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::BodyExt;
use http_body_util::StreamBody;
use hyper::HeaderMap;
use hyper::Request;
use hyper::Response;
use hyper::body::Frame;
use hyper::body::Incoming;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use pillion_proxy::snapshot::Resources;
use pillion_xds::cluster::Cluster;
use pillion_xds::cluster::Discovery;
use pillion_xds::cluster::UpstreamProtocol;
use pillion_xds::listener::NetworkFilter;
use pillion_xds::listener::TcpProxy;
use pillion_xds::route::WeightedCluster;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::plane::*;

type Frames = mpsc::Sender<Result<Frame<Bytes>, hyper::Error>>;
type Outgoing = http_body_util::combinators::BoxBody<Bytes, hyper::Error>;

fn pipe() -> (Frames, Outgoing) {
    let (frames, receiver) = mpsc::channel(4);
    (
        frames,
        BodyExt::boxed(StreamBody::new(ReceiverStream::new(receiver))),
    )
}

async fn data(frames: &Frames, bytes: &'static str) {
    frames
        .send(Ok(Frame::data(Bytes::from_static(bytes.as_bytes()))))
        .await
        .unwrap();
}

/// An app that sends back what comes, frame by frame, trailers included.
async fn echo() -> SocketAddr {
    app(|request| async move {
        let announced = request.headers().get("trailer").cloned();
        let mut response = Response::new(request.into_body().boxed());
        if let Some(names) = announced {
            response.headers_mut().insert("trailer", names);
        }
        response
    })
    .await
}

fn to(app: SocketAddr, protocol: UpstreamProtocol) -> Resources {
    let cluster = Cluster {
        protocol,
        ..static_cluster("a", &[app])
    };
    egress(vec![cluster], vec![route_to("/", forward(&[("a", 1)]))])
}

/// A request over prior-knowledge HTTP/2.
async fn send2(proxy: SocketAddr, body: Outgoing) -> Response<Incoming> {
    let socket = TcpStream::connect(proxy).await.unwrap();
    let io = TokioIo::new(socket);
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(16 * 1024 * 1024)
        .handshake(io)
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://shop/").body(body).unwrap();
    tokio::time::timeout(LIMIT, sender.send_request(request))
        .await
        .expect("an answer in time")
        .unwrap()
}

async fn next(body: &mut Incoming) -> Frame<Bytes> {
    tokio::time::timeout(LIMIT, body.frame())
        .await
        .expect("a frame in time")
        .unwrap()
        .unwrap()
}

async fn conversation(protocol: UpstreamProtocol) {
    let plane = Plane::start(to(echo().await, protocol), None);
    let (frames, body) = pipe();
    data(&frames, "one").await;
    let mut answer = send2(plane.egress(), body).await.into_body();
    assert_eq!(next(&mut answer).await.into_data().unwrap(), "one");
    // Only now the second piece leaves: had anyone waited for the whole body, the first had not come back.
    data(&frames, "two").await;
    assert_eq!(next(&mut answer).await.into_data().unwrap(), "two");
    drop(frames);
    // HTTP/2 may end a stream with an empty frame.
    while let Some(frame) = answer.frame().await {
        assert_eq!(frame.unwrap().into_data().unwrap(), "");
    }
}

#[tokio::test]
async fn http2_streams_both_ways_to_http2() {
    conversation(UpstreamProtocol::Http2).await;
}

#[tokio::test]
async fn http2_streams_both_ways_to_http1() {
    conversation(UpstreamProtocol::Http1).await;
}

#[tokio::test]
async fn upstream_speaks_as_downstream_does_when_told_so() {
    let app = app(|request| async move { text(200, format!("{:?}", request.version())) }).await;
    let plane = Plane::start(to(app, UpstreamProtocol::UseDownstream), None);
    let two = send2(
        plane.egress(),
        BodyExt::boxed(http_body_util::Empty::new().map_err(|never| match never {})),
    )
    .await;
    assert_eq!(body(two).await, "HTTP/2.0");
    assert_eq!(body(send(plane.egress(), get("/")).await).await, "HTTP/1.1");
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let plane = Plane::start(to(echo().await, UpstreamProtocol::Http2), None);
    let (frames, body) = pipe();
    data(&frames, "x").await;
    let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())]);
    frames
        .send(Ok(Frame::trailers(trailers.clone())))
        .await
        .unwrap();
    let mut answer = send2(plane.egress(), body).await.into_body();
    assert_eq!(next(&mut answer).await.into_data().unwrap(), "x");
    assert_eq!(next(&mut answer).await.into_trailers().unwrap(), trailers);
}

#[tokio::test]
async fn http1_trailers_pass_through_http2_and_back() {
    let plane = Plane::start(to(echo().await, UpstreamProtocol::Http2), None);
    let request = b"POST / HTTP/1.1\r\nHost: shop\r\nTE: trailers\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n\
        1\r\nx\r\n0\r\nx-sum: 7\r\n\r\n";
    let answer = raw(plane.egress(), request).await;
    assert!(
        answer.contains("transfer-encoding: chunked") && answer.contains("x-sum: 7"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_early_end_of_upstream_is_no_clean_end_downstream() {
    let short = raw_app(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    let plane = Plane::start(to(short, UpstreamProtocol::Http1), None);
    let response = send(plane.egress(), get("/")).await;
    assert!(response.into_body().collect().await.is_err());
}

#[tokio::test]
async fn a_caller_who_leaves_takes_the_upstream_request_along() {
    let (gone, mut heard) = mpsc::channel::<()>(2);
    let app = app(move |_| {
        let gone = gone.clone();
        async move {
            struct OnDrop(mpsc::Sender<()>);
            impl Drop for OnDrop {
                fn drop(&mut self) {
                    self.0.try_send(()).unwrap_or_default();
                }
            }
            gone.send(()).await.unwrap();
            let _on_drop = OnDrop(gone);
            tokio::time::sleep(LIMIT * 2).await;
            text(200, "late")
        }
    })
    .await;
    let plane = Plane::start(to(app, UpstreamProtocol::Http1), None);
    let mut socket = TcpStream::connect(plane.egress()).await.unwrap();
    socket
        .write_all(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n")
        .await
        .unwrap();
    tokio::time::timeout(LIMIT, heard.recv())
        .await
        .expect("the app is asked")
        .unwrap();
    drop(socket);
    tokio::time::timeout(LIMIT, heard.recv())
        .await
        .expect("the app's request ends")
        .unwrap();
    plane
        .eventually_stat("cluster.a.upstream_rq_active", 0)
        .await;
}

#[tokio::test]
async fn a_large_body_passes_whole_and_unbuffered_bodies_stay_small() {
    let plane = Plane::start(to(echo().await, UpstreamProtocol::Http2), None);
    let (frames, body) = pipe();
    let piece = Bytes::from(vec![7; 64 * 1024]);
    let sending = tokio::spawn(async move {
        for _ in 0..128 {
            frames.send(Ok(Frame::data(piece.clone()))).await.unwrap();
        }
    });
    let mut answer = send2(plane.egress(), body)
        .await
        .into_body()
        .into_data_stream();
    let mut total = 0;
    while let Some(chunk) = answer.next().await {
        total += chunk.unwrap().len();
    }
    sending.await.unwrap();
    assert_eq!(total, 128 * 64 * 1024);
}

/// gRPC streams of tiny messages: h2's budget for small frames must not end either connection (client and app here
/// have windows like the proxy's, so that it is the proxy that is tried).
#[tokio::test]
async fn ten_thousand_tiny_messages_pass_a_slow_reader() {
    let plane = Plane::start(to(echo().await, UpstreamProtocol::Http2), None);
    let (frames, body) = pipe();
    let sending = tokio::spawn(async move {
        for _ in 0..10_000 {
            if frames
                .send(Ok(Frame::data(Bytes::from_static(b"12345"))))
                .await
                .is_err()
            {
                return;
            }
        }
    });
    let mut answer = send2(plane.egress(), body).await.into_body();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut total = 0;
    while let Some(frame) = answer.frame().await {
        total += frame.unwrap().into_data().map_or(0, |data| data.len());
    }
    sending.await.unwrap();
    assert_eq!(total, 50_000);
}

/// An app that accepts one WebSocket-like upgrade and echoes bytes.
async fn upgrading() -> SocketAddr {
    app(|mut request: Request<Incoming>| async move {
        let upgrade = request.headers().get("upgrade").cloned();
        let Some(protocol) = upgrade else {
            return text(200, "no upgrade asked");
        };
        tokio::spawn(async move {
            let io = hyper::upgrade::on(&mut request).await.unwrap();
            let (mut read, mut write) = tokio::io::split(TokioIo::new(io));
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        });
        let mut response = text(101, "");
        response
            .headers_mut()
            .insert("connection", "upgrade".parse().unwrap());
        response.headers_mut().insert("upgrade", protocol);
        response
    })
    .await
}

async fn read_head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(
            tokio::time::timeout(LIMIT, socket.read_u8())
                .await
                .expect("a head in time")
                .unwrap(),
        );
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn a_websocket_upgrade_becomes_a_byte_stream() {
    let plane = Plane::start(to(upgrading().await, UpstreamProtocol::Http1), None);
    let mut socket = TcpStream::connect(plane.egress()).await.unwrap();
    let request =
        b"GET /chat HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    socket.write_all(request).await.unwrap();
    let head = read_head(&mut socket).await;
    assert!(
        head.starts_with("HTTP/1.1 101") && head.contains("upgrade: websocket"),
        "{head}"
    );
    socket.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    socket.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"ping");
    drop(socket);
    plane
        .eventually_stat("http.egress.downstream_cx_upgrades_active", 0)
        .await;
}

#[tokio::test]
async fn an_upgrade_that_is_not_configured_is_forbidden() {
    let plane = Plane::start(to(upgrading().await, UpstreamProtocol::Http1), None);
    let request = b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n";
    assert!(
        raw(plane.egress(), request)
            .await
            .starts_with("HTTP/1.1 403")
    );
}

#[tokio::test]
async fn h2c_is_not_passed_on_and_a_101_nobody_asked_for_is_502() {
    let plane = Plane::start(to(upgrading().await, UpstreamProtocol::Http1), None);
    let request =
        b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
        HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
    assert!(
        raw(plane.egress(), request)
            .await
            .contains("no upgrade asked")
    );
    let pushy =
        raw_app(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
            .await;
    let plane = Plane::start(to(pushy, UpstreamProtocol::Http1), None);
    assert_eq!(send(plane.egress(), get("/")).await.status(), 502);
}

/// An app that speaks first, then echoes until the other side has said all.
async fn tcp_app() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                socket.write_all(b"hello ").await.unwrap();
                let (mut read, mut write) = socket.split();
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.write_all(b" bye").await.unwrap();
            });
        }
    });
    addr
}

#[tokio::test]
async fn connect_tunnels_to_a_declared_host() {
    let app = tcp_app().await;
    let plane = Plane::start(to(app, UpstreamProtocol::Http1), None);
    let mut socket = TcpStream::connect(plane.egress()).await.unwrap();
    socket
        .write_all(b"CONNECT shop:80 HTTP/1.1\r\nHost: shop:80\r\n\r\n")
        .await
        .unwrap();
    let head = read_head(&mut socket).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    socket.write_all(b"opaque").await.unwrap();
    socket.shutdown().await.unwrap();
    let mut all = String::new();
    socket.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "hello opaque bye");
}

#[tokio::test]
async fn connect_to_an_undeclared_host_is_404_and_to_an_undeclared_port_403() {
    let plane = Plane::start(to(tcp_app().await, UpstreamProtocol::Http1), None);
    let host = raw(
        plane.egress(),
        b"CONNECT other:80 HTTP/1.1\r\nHost: other:80\r\n\r\n",
    )
    .await;
    assert!(host.starts_with("HTTP/1.1 404"), "{host}");
    let port = raw(
        plane.egress(),
        b"CONNECT other:99 HTTP/1.1\r\nHost: other:99\r\n\r\n",
    )
    .await;
    assert!(port.starts_with("HTTP/1.1 403"), "{port}");
}

#[tokio::test]
async fn what_is_undeclared_passes_to_where_it_says_when_all_egress_is_allowed() {
    let app = named("outside").await;
    let mut resources = to(named("inside").await, UpstreamProtocol::Http1);
    let outside = Cluster {
        discovery: Discovery::OriginalDestination,
        ..static_cluster("allow-all", &[])
    };
    resources
        .clusters
        .insert(outside.name.clone(), outside.into());
    let mut routes = resources.routes["r"].as_ref().clone();
    routes.virtual_hosts.push(pillion_xds::route::VirtualHost {
        name: "any".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route_to("/", forward(&[("allow-all", 1)]))],
    });
    resources.routes.insert("r".to_owned(), routes.into());
    let plane = Plane::start(resources, None);
    let request = format!("GET http://{app}/ HTTP/1.1\r\nHost: {app}\r\nConnection: close\r\n\r\n");
    assert!(
        raw(plane.egress(), request.as_bytes())
            .await
            .ends_with("outside")
    );
    assert_eq!(body(send(plane.egress(), get("/")).await).await, "inside");
    let connect = format!("CONNECT {app} HTTP/1.1\r\nHost: {app}\r\n\r\n");
    let mut socket = TcpStream::connect(plane.egress()).await.unwrap();
    socket.write_all(connect.as_bytes()).await.unwrap();
    assert!(read_head(&mut socket).await.starts_with("HTTP/1.1 200"));
}

fn tcp_ingress() -> Resources {
    let filter = NetworkFilter::Tcp(TcpProxy {
        stat_prefix: "tcp".to_owned(),
        clusters: vec![WeightedCluster {
            name: "local".to_owned(),
            weight: 1,
        }],
        idle_timeout: Some(Duration::from_millis(300)),
        access_logs: Vec::new(),
    });
    ingress(vec![chain_for_port(8080, filter)], UpstreamProtocol::Http1)
}

#[tokio::test]
async fn tcp_passes_with_the_server_speaking_first_and_half_closes() {
    let plane = Plane::start(tcp_ingress(), Some(tcp_app().await));
    let mut socket = TcpStream::connect(plane.listen()).await.unwrap();
    let mut greeting = [0; 6];
    tokio::time::timeout(LIMIT, socket.read_exact(&mut greeting))
        .await
        .expect("a greeting in time")
        .unwrap();
    socket.write_all(b"bytes").await.unwrap();
    socket.shutdown().await.unwrap();
    let mut rest = String::new();
    socket.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "bytes bye");
    plane
        .eventually_stat("tcp.tcp.downstream_cx_active", 0)
        .await;
    assert_eq!(plane.stat("tcp.tcp.downstream_cx_rx_bytes_total"), 5);
}

#[tokio::test]
async fn an_idle_tcp_pair_is_closed() {
    let plane = Plane::start(tcp_ingress(), Some(tcp_app().await));
    let mut socket = TcpStream::connect(plane.listen()).await.unwrap();
    let mut all = Vec::new();
    tokio::time::timeout(LIMIT, socket.read_to_end(&mut all))
        .await
        .expect("closed in time")
        .unwrap();
    plane.eventually_stat("tcp.tcp.idle_timeout", 1).await;
}

/// An app that answers with bytes without end.
async fn endless() -> SocketAddr {
    app(|_| async {
        let (frames, body) = pipe();
        tokio::spawn(async move {
            let piece = Bytes::from(vec![7; 64 * 1024]);
            while frames.send(Ok(Frame::data(piece.clone()))).await.is_ok() {}
        });
        Response::new(body)
    })
    .await
}

#[tokio::test]
async fn a_timeout_ends_an_answer_that_nobody_reads() {
    let app = endless().await;
    let mut timed = forward(&[("a", 1)]);
    timed.timeout = Duration::from_millis(200);
    let mut idle = forward(&[("a", 1)]);
    idle.timeout = Duration::ZERO;
    idle.idle_timeout = Some(Duration::from_millis(200));
    for limited in [timed, idle] {
        let routes = vec![route_to("/", limited)];
        let plane = Plane::start(egress(vec![static_cluster("a", &[app])], routes), None);
        let mut one = TcpStream::connect(plane.egress()).await.unwrap();
        one.write_all(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n")
            .await
            .unwrap();
        // Its body is held, so that the stream stays open, and never asked for a frame.
        let (_frames, none) = pipe();
        drop(_frames);
        let two = send2(plane.egress(), none).await;
        plane
            .eventually_stat("cluster.a.upstream_rq_completed", 2)
            .await;
        plane
            .eventually_stat("cluster.a.upstream_cx_active", 0)
            .await;
        drop((one, two));
    }
}

/// An HTTP/2 app that allows so many streams on a connection, says so, and holds every request.
async fn narrow(streams: u32) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let held = hyper::service::service_fn(|request: Request<Incoming>| async move {
                Ok::<_, std::convert::Infallible>(Response::new(request.into_body().boxed()))
            });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .max_concurrent_streams(streams)
                    .serve_connection(TokioIo::new(socket), held),
            );
        }
    });
    addr
}

#[tokio::test]
async fn streams_beyond_what_the_peer_allows_go_to_another_connection() {
    let plane = Plane::start(to(narrow(2).await, UpstreamProtocol::Http2), None);
    let mut open = Vec::new();
    for _ in 0..7 {
        let (frames, body) = pipe();
        open.push((frames, send2(plane.egress(), body).await));
    }
    // Two workers, each with connections of its own: never fewer than four for seven streams.
    assert!(plane.stat("cluster.a.upstream_cx_active") >= 4);
}

#[tokio::test]
async fn hundreds_of_streams_stay_open_on_one_connection() {
    let plane = Plane::start(to(echo().await, UpstreamProtocol::Http2), None);
    let socket = TcpStream::connect(plane.egress()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .unwrap();
    tokio::spawn(connection);
    let mut open = Vec::new();
    for number in 0..300 {
        let (frames, body) = pipe();
        let request = Request::post("http://shop/").body(body).unwrap();
        let answer = tokio::time::timeout(LIMIT, sender.send_request(request))
            .await
            .unwrap_or_else(|_| panic!("stream {number} is not answered"))
            .unwrap();
        open.push((frames, answer));
    }
}
