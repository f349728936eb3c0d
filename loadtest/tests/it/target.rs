// SPDX-License-Identifier: Apache-2.0
//! The server under load in these tests: counts what arrives, and stalls or closes on demand.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// From which request on, how many, and how long each waits for its answer.
#[derive(Clone, Copy)]
pub(crate) struct Stall {
    first: u64,
    count: u64,
    length: Duration,
}

impl Stall {
    pub(crate) fn once(first: u64, length: Duration) -> Self {
        Self {
            first,
            count: 1,
            length,
        }
    }

    pub(crate) fn from(first: u64, length: Duration) -> Self {
        Self {
            first,
            count: u64::MAX,
            length,
        }
    }
}

#[derive(Clone, Default)]
pub(crate) struct Seen {
    /// Method, version and request target.
    pub(crate) line: String,
    pub(crate) host: Option<String>,
    pub(crate) colour: Option<String>,
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    connections: AtomicU64,
    last: Mutex<Seen>,
}

pub(crate) struct Target {
    address: SocketAddr,
    counts: Arc<Counts>,
    _accepting: JoinSet<()>,
}

impl Target {
    pub(crate) async fn start() -> Self {
        Self::serve(None, false).await
    }

    /// An `https` target named `localhost`, and the certificate to trust.
    pub(crate) async fn start_tls() -> (Self, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let shared = counts.clone();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, counts) = (acceptor.clone(), shared.clone());
                connections.spawn(async move {
                    // A client that does not trust us ends the handshake.
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let answer = service_fn(move |request| {
                        let counts = counts.clone();
                        async move { answer(request, &counts, None).await }
                    });
                    let builder = auto::Builder::new(TokioExecutor::new());
                    drop(builder.serve_connection(TokioIo::new(stream), answer).await);
                });
            }
        });
        let target = Self {
            address,
            counts,
            _accepting: accepting,
        };
        (target, made.cert.pem())
    }

    pub(crate) async fn start_stalling(stall: Stall) -> Self {
        Self::serve(Some(stall), false).await
    }

    /// Closes each connection a moment after it answered, without having said so.
    pub(crate) async fn start_closing_after_each() -> Self {
        Self::serve(None, true).await
    }

    async fn serve(stall: Option<Stall>, closing: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let shared = counts.clone();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                shared.connections.fetch_add(1, Ordering::Relaxed);
                let counts = shared.clone();
                connections.spawn(async move {
                    let answered = Arc::new(tokio::sync::Notify::new());
                    let notify = answered.clone();
                    let answer = service_fn(move |request| {
                        let (counts, notify) = (counts.clone(), notify.clone());
                        async move {
                            let response = answer(request, &counts, stall).await;
                            notify.notify_one();
                            response
                        }
                    });
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let connection = builder.serve_connection(TokioIo::new(stream), answer);
                    let limit = async {
                        answered.notified().await;
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    };
                    tokio::select! {
                        _ = connection => {}
                        () = limit, if closing => {}
                    }
                });
            }
        });
        Self {
            address,
            counts,
            _accepting: accepting,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn requests(&self) -> u64 {
        self.counts.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn last(&self) -> Seen {
        self.counts.last.lock().unwrap().clone()
    }
}

/// `/status/503` answers so, `/echo` returns the body, everything else says `ok`.
async fn answer(
    request: Request<Incoming>,
    counts: &Counts,
    stall: Option<Stall>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let number = counts.requests.fetch_add(1, Ordering::Relaxed);
    let text = |name: HeaderName| {
        let value = request.headers().get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    // hyper shows an HTTP/2 request as an absolute URI; what matters there is the path.
    let target = match request.version() {
        http::Version::HTTP_2 => request.uri().path().to_owned(),
        _ => request.uri().to_string(),
    };
    *counts.last.lock().unwrap() = Seen {
        line: format!("{} {:?} {target}", request.method(), request.version()),
        host: text(http::header::HOST),
        colour: text(HeaderName::from_static("x-colour")),
    };
    if let Some(stall) = stall
        && (stall.first..stall.first.saturating_add(stall.count)).contains(&number)
    {
        tokio::time::sleep(stall.length).await;
    }
    let path = request.uri().path().to_owned();
    let mut response = Response::new(Full::from("ok"));
    if let Some(status) = path.strip_prefix("/status/") {
        *response.status_mut() = status.parse().unwrap();
    } else if path == "/echo" {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        *response.body_mut() = Full::new(body);
    }
    Ok(response)
}
