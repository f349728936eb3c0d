// SPDX-License-Identifier: Apache-2.0
//! An HTTP server that strangers cannot exhaust: so many connections and no more, each given a time to ask something.
//! Used for the APIs and admin pages of every process; the proxy's traffic has its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Of an HTTP/2 connection.
const STREAMS: u32 = 128;
/// A peer that is gone is noticed within twice this.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Of one request's head.
const HEAD_BYTES: usize = 64 * 1024;
/// Out of descriptors, as a rule; at once again would only spin.
const PAUSE: Duration = Duration::from_millis(100);

/// What one listener allows.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections at once; more wait in the socket's backlog.
    pub connections: usize,
    /// From the connect, or the end of the last request, to the end of the next request's head.
    pub head: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            connections: 512,
            head: Duration::from_secs(10),
        }
    }
}

/// Serves `router` over HTTP/1.1 and HTTP/2 until `stop` fires; requests in flight are then finished. Requests carry
/// their peer as [`ConnectInfo`].
pub async fn serve(listener: TcpListener, router: Router, bounds: Bounds, stop: CancellationToken) {
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(bounds.connections));
    let mut complained: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &room) => accepted,
            () = stop.cancelled() => break,
        };
        let (stream, peer, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if complained.is_none_or(|last| last.elapsed() > Duration::from_secs(1)) {
                    tracing::warn!(%error, "connection not accepted");
                    complained = Some(Instant::now());
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let watcher = graceful.watcher();
        let router = router.clone();
        // The connection ends with its watcher, which the drain below waits for.
        tokio::spawn(async move {
            converse(stream, peer, router, bounds, watcher).await;
            drop(permit);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

type Accepted = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> std::io::Result<Accepted> {
    let permit = Arc::clone(room)
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer, permit))
}

async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    bounds: Bounds,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let asked = Arc::new(AtomicBool::new(false));
    let service = service_fn({
        let asked = Arc::clone(&asked);
        move |mut request: Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(ConnectInfo(peer));
            router.clone().oneshot(request)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_BYTES as u32)
        .keep_alive_interval(KEEPALIVE);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(watcher.watch(connection.into_owned()));
    // Hyper's own clock starts only once it knows which protocol it is: half a preface would hold a place for ever.
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = tokio::time::sleep(bounds.head) => {
            if !asked.load(Ordering::Relaxed) {
                tracing::debug!(%peer, "connection asked nothing");
                return;
            }
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, error, "connection ended");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn start(bounds: Bounds) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("a bound socket");
        let stop = CancellationToken::new();
        let router = Router::new().route("/", axum::routing::get(|| async { "here" }));
        let server = tokio::spawn(serve(listener, router, bounds, stop.clone()));
        (addr, stop, server)
    }

    async fn answer(addr: SocketAddr, sent: &[u8]) -> String {
        let mut stream = TcpStream::connect(addr).await.expect("the port is open");
        stream.write_all(sent).await.expect("a fresh connection");
        let mut text = String::new();
        let read = stream.read_to_string(&mut text);
        let read = tokio::time::timeout(Duration::from_secs(10), read).await;
        read.expect("an end").ok();
        text
    }

    const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn who_asks_nothing_in_time_is_sent_away() {
        let head = Duration::from_millis(200);
        let (addr, _stop, _server) = start(Bounds {
            head,
            ..Bounds::default()
        })
        .await;
        for slow in [&b""[..], b"P", b"PRI * HTTP/2.0", b"GET / HTTP/1.1\r\nhost"] {
            assert!(!answer(addr, slow).await.contains("here"), "{slow:?}");
        }
        assert!(answer(addr, GET).await.ends_with("here"));
    }

    #[tokio::test]
    async fn more_connections_than_allowed_wait_for_a_place() {
        let (head, connections) = (Duration::from_millis(300), 2);
        let (addr, _stop, _server) = start(Bounds { head, connections }).await;
        let idle = [
            TcpStream::connect(addr).await,
            TcpStream::connect(addr).await,
        ];
        assert!(idle.iter().all(Result::is_ok));
        assert!(
            answer(addr, GET).await.ends_with("here"),
            "after the idle ones were sent away"
        );
    }

    #[tokio::test]
    async fn stopping_ends_idle_connections() {
        let (addr, stop, server) = start(Bounds::default()).await;
        let mut stream = TcpStream::connect(addr).await.expect("the port is open");
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .expect("fresh");
        let mut seen = [0; 16];
        stream.read_exact(&mut seen).await.expect("an answer");
        stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(5), server).await;
        ended.expect("an end").expect("no panic");
    }
}
