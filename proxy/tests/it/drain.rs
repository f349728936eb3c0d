// SPDX-License-Identifier: Apache-2.0
//! Nothing is lost while the built proxy goes under load: on a plain SIGTERM and on drains by admin.
//! `PILLION_REPEAT=n` repeats it n times. The crowd of clients serves `pushes` too.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::Empty;
use http_body_util::StreamBody;
use hyper::Request;
use hyper::body::Frame;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use pillion_xds::cluster::Cluster;
use pillion_xds::cluster::UpstreamProtocol;
use pillion_xds::listener::NetworkFilter;
use pillion_xds::listener::TcpProxy;
use pillion_xds::resource::Resource;
use pillion_xds::route::WeightedCluster;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::plane;
use crate::plane::LIMIT;
use crate::survival::HOST;
use crate::survival::stat;
use crate::survival::unconfigured;
use crate::survival::under;
use crate::xds;
use crate::xds_proxy::Proxy;
use crate::xds_server::Ads;

/// What the clients of a test share.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) answered: AtomicUsize,
    /// Clients go when they are told to, once this is set.
    pub(crate) leaving: AtomicBool,
    pub(crate) stop: AtomicBool,
}

/// How one client's life ended: well, or with a request lost.
pub(crate) type Life = Result<(), String>;

/// A closed loop over HTTP/1.1: every fifth request on a new connection, a third of them slow.
async fn client1(proxy: SocketAddr, number: usize, tally: Arc<Tally>) -> Life {
    loop {
        let Ok(socket) = TcpStream::connect(proxy).await else {
            return tally.gone("connect");
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        for turn in number..number + 5 {
            if tally.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let path = if turn.is_multiple_of(3) { "/slow" } else { "/" };
            let request = Request::get(path)
                .header("host", HOST)
                .body(Empty::<Bytes>::new());
            let answer = sender.send_request(request.unwrap()).await;
            let answer = answer.map_err(|error| format!("HTTP/1.1: {error:?}"))?;
            let told = answer
                .headers()
                .get("connection")
                .is_some_and(|value| value == "close");
            tally.note(
                answer.status().as_u16(),
                answer.into_body().collect().await.is_ok(),
            )?;
            if told {
                if tally.leaving.load(Ordering::Relaxed) {
                    return Ok(());
                }
                break;
            }
            // A pause, so that connections are idle too.
            tokio::time::sleep(Duration::from_millis(u64::try_from(turn % 4).unwrap())).await;
        }
    }
}

/// A stream that the peer's GOAWAY says was not taken up may be asked again elsewhere, whatever it was (RFC 9113, 6.8).
fn unprocessed(error: &hyper::Error) -> Life {
    let cause =
        std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    let told = cause.is_some_and(|cause| {
        cause.is_go_away() && cause.is_remote() && cause.reason() == Some(h2::Reason::NO_ERROR)
    });
    if told {
        return Ok(());
    }
    Err(format!("HTTP/2: {error:?}"))
}

/// The same over HTTP/2, on one connection until it is told to go.
async fn client2(proxy: SocketAddr, tally: Arc<Tally>) -> Life {
    loop {
        let Ok(socket) = TcpStream::connect(proxy).await else {
            return tally.gone("connect");
        };
        let handshake =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket));
        let (mut sender, connection) = handshake.await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        while sender.ready().await.is_ok() {
            if tally.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let request = Request::get(format!("http://{HOST}/slow")).body(Empty::<Bytes>::new());
            match sender.try_send_request(request.unwrap()).await {
                Ok(answer) => {
                    tally.note(
                        answer.status().as_u16(),
                        answer.into_body().collect().await.is_ok(),
                    )?;
                }
                // Given back unsent: the connection was told to go meanwhile, another one takes the request.
                Err(mut error) => match error.take_message() {
                    Some(_) => break,
                    None => {
                        unprocessed(&error.into_error())?;
                        break;
                    }
                },
            }
        }
        if tally.leaving.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
}

/// Opaque bytes back and forth, a connection for each few.
async fn client_tcp(proxy: SocketAddr, tally: Arc<Tally>) -> Life {
    while !tally.stop.load(Ordering::Relaxed) {
        let Ok(mut socket) = TcpStream::connect(proxy).await else {
            return tally.gone("connect");
        };
        for _ in 0..5 {
            let lost = |error| format!("TCP: {error:?}");
            socket.write_all(b"ping").await.map_err(lost)?;
            let mut back = [0; 4];
            socket.read_exact(&mut back).await.map_err(lost)?;
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        tally.answered.fetch_add(1, Ordering::Relaxed);
        if tally.leaving.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
    Ok(())
}

impl Tally {
    fn note(&self, status: u16, whole: bool) -> Life {
        if status != 200 || !whole {
            return Err(format!("{status}, whole: {whole}"));
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// No connection any more: right when everybody was told to go.
    fn gone(&self, what: &str) -> Life {
        if self.leaving.load(Ordering::Relaxed) {
            Ok(())
        } else {
            Err(what.to_owned())
        }
    }

    pub(crate) async fn answered(&self, more: usize) {
        let wanted = self.answered.load(Ordering::Relaxed) + more;
        plane::eventually("requests are answered", || async {
            self.answered.load(Ordering::Relaxed) >= wanted
        })
        .await;
    }
}

pub(crate) async fn app() -> SocketAddr {
    plane::app(|request| async move {
        if request.uri().path() == "/slow" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        plane::text(200, "ok")
    })
    .await
}

pub(crate) fn repeat() -> usize {
    let times = std::env::var("PILLION_REPEAT").ok();
    times.and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// Clients of the first kind, and of the second.
pub(crate) fn crowd(
    proxy: SocketAddr,
    tally: &Arc<Tally>,
    (ones, twos): (usize, usize),
) -> JoinSet<Life> {
    let mut clients = JoinSet::new();
    for number in 0..ones {
        clients.spawn(client1(proxy, number, Arc::clone(tally)));
    }
    for _ in 0..twos {
        clients.spawn(client2(proxy, Arc::clone(tally)));
    }
    clients
}

pub(crate) async fn all_well(mut clients: JoinSet<Life>, proxy: &Proxy) {
    let mut lost = Vec::new();
    while let Some(life) = tokio::time::timeout(LIMIT, clients.join_next())
        .await
        .expect("all end in time")
    {
        if let Err(error) = life.unwrap() {
            lost.push(error);
        }
    }
    assert!(lost.is_empty(), "{lost:?}\n{}", proxy.log());
}

/// SIGTERMs of this many proxies at once, each under load of its own.
const AT_ONCE: usize = 13;

/// Starts proxies, lets `clients` call each, ends it by a plain SIGTERM meanwhile, and sees that all went well.
async fn terminated<P, S, C>(start: S, clients: C)
where
    P: Future<Output = (Ads, Proxy, SocketAddr)> + Send + 'static,
    S: Fn() -> P,
    C: Fn(SocketAddr, &Arc<Tally>) -> JoinSet<Life> + Clone + Send + 'static,
{
    for _ in 0..repeat() {
        let mut all = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (starting, clients) = (start(), clients.clone());
            all.spawn(async move {
                let (_ads, mut proxy, addr) = starting.await;
                let tally = Arc::new(Tally::default());
                let clients = clients(addr, &tally);
                tally.answered(30).await;
                tally.leaving.store(true, Ordering::Relaxed);
                proxy.terminate();
                all_well(clients, &proxy).await;
                assert_eq!(proxy.ended().await, Some(0), "{}", proxy.log());
            });
        }
        while let Some(one) = all.join_next().await {
            one.unwrap();
        }
    }
}

async fn http_proxy() -> (Ads, Proxy, SocketAddr) {
    let (ads, proxy) = under("true", app().await).await;
    let addr = proxy.addr("egress");
    (ads, proxy, addr)
}

#[tokio::test]
async fn a_plain_sigterm_loses_no_request_of_http1() {
    terminated(http_proxy, |proxy, tally| crowd(proxy, tally, (6, 0))).await;
}

#[tokio::test]
async fn a_plain_sigterm_loses_no_request_of_http2() {
    terminated(http_proxy, |proxy, tally| crowd(proxy, tally, (1, 3))).await;
}

/// Answers in pieces, with a status at the end: what a gRPC stream does.
fn streamed() -> plane::Answer {
    let frames = futures_util::stream::unfold(0, |turn| async move {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let frame = match turn {
            0..5 => Frame::data(Bytes::from_static(b"\0\0\0\0\x01x")),
            5 => {
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                Frame::trailers(trailers)
            }
            _ => return None,
        };
        Some((Ok::<_, hyper::Error>(frame), turn + 1))
    });
    hyper::Response::builder()
        .header("content-type", "application/grpc")
        .body(BodyExt::boxed(StreamBody::new(frames)))
        .unwrap()
}

async fn grpc_proxy() -> (Ads, Proxy, SocketAddr) {
    let (ads, proxy) = unconfigured("true").await;
    let to = plane::app(|_| async { streamed() }).await;
    let cluster = Cluster {
        protocol: UpstreamProtocol::Http2,
        ..plane::static_cluster("a", &[to])
    };
    xds::configure_with(&ads, cluster).await;
    proxy.live().await;
    let addr = proxy.addr("egress");
    (ads, proxy, addr)
}

/// gRPC calls, one after the other, each to its last trailer.
async fn client_grpc(proxy: SocketAddr, tally: Arc<Tally>) -> Life {
    loop {
        let Ok(socket) = TcpStream::connect(proxy).await else {
            return tally.gone("connect");
        };
        let handshake =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket));
        let (mut sender, connection) = handshake.await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        while sender.ready().await.is_ok() {
            let request = Request::post(format!("http://{HOST}/shop.Items/List"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(Empty::<Bytes>::new());
            let answer = match sender.try_send_request(request.unwrap()).await {
                Ok(answer) => answer,
                Err(mut error) => match error.take_message() {
                    Some(_) => break,
                    None => {
                        unprocessed(&error.into_error())?;
                        break;
                    }
                },
            };
            let whole = answer.into_body().collect().await;
            let whole = whole.map_err(|error| format!("gRPC stream: {error:?}"))?;
            let status = whole
                .trailers()
                .and_then(|trailers| trailers.get("grpc-status"));
            if status.is_none_or(|status| status != "0") {
                return Err(format!("gRPC ended without its status: {status:?}"));
            }
            tally.answered.fetch_add(1, Ordering::Relaxed);
        }
        if tally.leaving.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
}

#[tokio::test]
async fn a_plain_sigterm_breaks_no_grpc_stream() {
    terminated(grpc_proxy, |proxy, tally| {
        let mut clients = JoinSet::new();
        for _ in 0..4 {
            clients.spawn(client_grpc(proxy, Arc::clone(tally)));
        }
        clients
    })
    .await;
}

/// A port of the node is opaque TCP to an echo.
async fn tcp_proxy() -> (Ads, Proxy, SocketAddr) {
    let echo = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = echo.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = echo.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = socket.split();
                tokio::io::copy(&mut read, &mut write).await.is_ok()
            });
        }
    });
    let ads = Ads::start().await;
    let addr = plane::nobody().await;
    let listen = format!("{addr}={to}");
    let proxy = Proxy::start(ads.addr, &["--listen", &listen]).await;
    ads.push(
        "c1",
        &[Resource::Cluster(plane::static_cluster("local", &[addr]))],
    )
    .await;
    let filter = NetworkFilter::Tcp(TcpProxy {
        stat_prefix: "tcp".to_owned(),
        clusters: vec![WeightedCluster {
            name: "local".to_owned(),
            weight: 1,
        }],
        idle_timeout: None,
        access_logs: Vec::new(),
    });
    let chain = plane::chain_for_port(addr.port(), filter);
    ads.push(
        "l1",
        &[Resource::Listener(plane::ingress_listener(vec![chain]))],
    )
    .await;
    proxy.live().await;
    (ads, proxy, addr)
}

#[tokio::test]
async fn a_plain_sigterm_cuts_no_tcp_connection_that_is_busy() {
    terminated(tcp_proxy, |proxy, tally| {
        let mut clients = JoinSet::new();
        for _ in 0..6 {
            clients.spawn(client_tcp(proxy, Arc::clone(tally)));
        }
        clients
    })
    .await;
}

#[tokio::test]
async fn a_second_sigterm_ends_the_drain() {
    let never = plane::app(|_| async {
        tokio::time::sleep(LIMIT * 2).await;
        plane::text(200, "never")
    })
    .await;
    let (_ads, mut proxy) = under("export LISTENER_DRAIN_WAIT_TIME_S=60", never).await;
    let mut socket = TcpStream::connect(proxy.addr("egress")).await.unwrap();
    let hanging = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    socket.write_all(hanging.as_bytes()).await.unwrap();
    plane::eventually("it hangs", || async {
        stat(&proxy, "http.egress.downstream_rq_active").await == 1
    })
    .await;
    proxy.terminate();
    plane::eventually("it drains", || async { proxy.log().contains("draining") }).await;
    proxy.terminate();
    assert_eq!(proxy.ended().await, Some(0), "{}", proxy.log());
}

#[tokio::test]
async fn a_graceful_drain_by_admin_tells_everybody_and_loses_nobody() {
    let (_ads, proxy) = under("export LISTENER_DRAIN_WAIT_TIME_S=5", app().await).await;
    let tally = Arc::new(Tally::default());
    let clients = crowd(proxy.addr("egress"), &tally, (12, 4));
    tally.answered(100).await;
    tally.leaving.store(true, Ordering::Relaxed);
    let drain = proxy.admin("POST", "/drain_listeners?graceful").await;
    assert_eq!(drain, (200, "OK\n".to_owned()));
    all_well(clients, &proxy).await;
    let (status, head) = told(&proxy, "egress").await;
    assert_eq!(
        (status, head),
        (200, true),
        "still accepting, still telling"
    );
    assert_eq!(
        proxy.admin("GET", "/server_info").await.0,
        200,
        "admin stays"
    );
}

/// Status of an answer on a connection that would be kept, and whether it says that it will not be.
async fn told(proxy: &Proxy, door: &str) -> (u16, bool) {
    let socket = TcpStream::connect(proxy.addr(door)).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::get("/")
        .header("host", HOST)
        .body(Empty::<Bytes>::new());
    let answer = sender.send_request(request.unwrap()).await.unwrap();
    let closing = answer
        .headers()
        .get("connection")
        .is_some_and(|value| value == "close");
    (answer.status().as_u16(), closing)
}

async fn closes(proxy: &Proxy, door: &str) {
    plane::eventually(&format!("{door} is closed"), || async {
        TcpStream::connect(proxy.addr(door)).await.is_err()
    })
    .await;
}

#[tokio::test]
async fn an_inbound_drain_leaves_the_way_out_as_it_was() {
    let (_ads, proxy) = under("true", app().await).await;
    let drain = proxy.admin("POST", "/drain_listeners?inboundonly").await;
    assert_eq!(drain.0, 200);
    closes(&proxy, "ingress").await;
    assert_eq!(told(&proxy, "egress").await, (200, false));
    assert_eq!(proxy.admin("POST", "/drain_listeners").await.0, 200);
    closes(&proxy, "egress").await;
}

#[tokio::test]
async fn skip_exit_keeps_telling_and_never_closes_and_needs_graceful() {
    let (_ads, proxy) = under("true", app().await).await;
    let (status, why) = proxy.admin("POST", "/drain_listeners?skip_exit").await;
    assert!(status == 400 && why.contains("graceful"), "{status} {why}");
    let drain = proxy
        .admin("POST", "/drain_listeners?graceful&skip_exit")
        .await;
    assert_eq!(drain.0, 200);
    // A drain that has begun is not begun again: this one would close after its wait.
    assert_eq!(
        proxy.admin("POST", "/drain_listeners?graceful").await.0,
        200
    );
    assert_eq!(told(&proxy, "egress").await, (200, true));
}

#[tokio::test]
async fn a_failed_health_check_asks_callers_to_go_until_it_is_taken_back() {
    let (_ads, proxy) = under("true", app().await).await;
    assert_eq!(told(&proxy, "egress").await, (200, false));
    assert_eq!(proxy.admin("POST", "/healthcheck/fail").await.0, 200);
    assert_eq!(told(&proxy, "egress").await, (200, true));
    assert_eq!(proxy.admin("POST", "/healthcheck/ok").await.0, 200);
    assert_eq!(told(&proxy, "egress").await, (200, false));
}

#[tokio::test]
async fn who_waits_in_the_queue_of_a_socket_that_closes_is_served() {
    let (_ads, proxy) = under("true", app().await).await;
    // All connect before the drain and speak after it: some are accepted by then, some are not.
    let mut waiting = Vec::new();
    for _ in 0..200 {
        waiting.push(TcpStream::connect(proxy.addr("egress")).await.unwrap());
    }
    assert_eq!(proxy.admin("POST", "/drain_listeners").await.0, 200);
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    for socket in &mut waiting {
        socket.write_all(request.as_bytes()).await.unwrap();
    }
    for mut socket in waiting {
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    }
}
