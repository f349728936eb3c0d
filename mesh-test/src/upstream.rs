// SPDX-License-Identifier: Apache-2.0
//! An application behind a sidecar: answers with its name and what it was asked, or as its behaviour says, and counts.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A small HTTP/1.1 and HTTP/2 server; it ends with the value.
pub struct Upstream {
    address: SocketAddr,
    asked: Arc<AtomicU64>,
    server: JoinHandle<()>,
}

/// What it answers with.
#[derive(Clone, Copy)]
pub enum Behaviour {
    /// 200 and a JSON description of the request.
    Echo,
    /// This status, always.
    Status(StatusCode),
    /// 503 for the first so many requests, then as [`Behaviour::Echo`].
    FailFirst(u64),
}

impl Upstream {
    pub async fn start(name: &'static str, behaviour: Behaviour) -> anyhow::Result<Upstream> {
        Upstream::serve(name, behaviour, TcpListener::bind("127.0.0.1:0").await?)
    }

    /// On a socket that is there already.
    pub fn serve(
        name: &'static str,
        behaviour: Behaviour,
        listener: TcpListener,
    ) -> anyhow::Result<Upstream> {
        let address = listener.local_addr()?;
        let asked = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&asked);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let counter = Arc::clone(&counter);
                let service = service_fn(move |request| {
                    let number = counter.fetch_add(1, Ordering::SeqCst);
                    let answer = answer(name, behaviour, number, &request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    // A client that hangs up mid-request is no matter of the test's application.
                    drop(
                        server
                            .serve_connection_with_upgrades(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        Ok(Upstream {
            address,
            asked,
            server,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests that reached it.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn answer(
    name: &str,
    behaviour: Behaviour,
    number: u64,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    let status = match behaviour {
        Behaviour::Status(status) => status,
        Behaviour::FailFirst(times) if number < times => StatusCode::SERVICE_UNAVAILABLE,
        Behaviour::Echo | Behaviour::FailFirst(_) => StatusCode::OK,
    };
    let headers: Map<String, Value> = request
        .headers()
        .iter()
        .map(|(name, value)| {
            (
                name.to_string(),
                json!(String::from_utf8_lossy(value.as_bytes())),
            )
        })
        .collect();
    let said = json!({
        "name": name,
        "method": request.method().as_str(),
        "path": request.uri().path_and_query().map(ToString::to_string),
        "headers": headers,
    });
    let mut response = Response::new(Full::from(said.to_string()));
    *response.status_mut() = status;
    response
}
