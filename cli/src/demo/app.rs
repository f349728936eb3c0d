// SPDX-License-Identifier: Apache-2.0
//! The storefront's applications: one hidden subcommand that is `web`, `catalog-v1`, `catalog-v2`, `cart` or
//! `payments` by its name. They know no mesh: each listens on loopback and calls others through its sidecar by name.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::args::DemoApp;
use crate::demo::pool::Pool;
use crate::demo::segment::{self, Served, TraceHeader};

/// Path on which an application tells the demo, past the mesh, what it counted.
pub(crate) const COUNTS_PATH: &str = "/demo/counts";
/// Every so many-th payment fails.
const FAILING_PAYMENT: u64 = 12;
/// What an application must pass on so that calls stay in one trace; its sidecar does the rest.
const PASSED_ON: [HeaderName; 4] = [
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("x-amzn-trace-id"),
    HeaderName::from_static("x-request-id"),
];

/// What an application counted; the demo compares it with the map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    pub(crate) faults: u64,
    /// The last segment sent by UDP: trace and segment id.
    pub(crate) segment: Option<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Web,
    Catalog { version: u8 },
    Cart,
    Payments,
}

struct App {
    name: String,
    role: Role,
    calls: Pool,
    /// A connected socket, for the one that still has an X-Ray SDK.
    daemon: Option<UdpSocket>,
    requests: AtomicU64,
    faults: AtomicU64,
    segment: Mutex<Option<(String, String)>>,
}

/// Serves until SIGTERM.
pub(crate) async fn serve(settings: DemoApp) -> anyhow::Result<()> {
    let role = match settings.name.as_str() {
        "web" => Role::Web,
        "catalog-v1" => Role::Catalog { version: 1 },
        "catalog-v2" => Role::Catalog { version: 2 },
        "cart" => Role::Cart,
        "payments" => Role::Payments,
        other => bail!("--name {other}: no application of the storefront"),
    };
    let daemon = match settings.xray {
        Some(daemon) => Some(
            open_udp(daemon)
                .await
                .with_context(|| format!("--xray {daemon}"))?,
        ),
        None => None,
    };
    let listen = settings.listen;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("--listen {listen}"))?;
    announce(listener.local_addr()?)?;
    let app = Arc::new(App {
        name: settings.name,
        role,
        calls: Pool::new(settings.proxy),
        daemon,
        requests: AtomicU64::new(0),
        faults: AtomicU64::new(0),
        segment: Mutex::new(None),
    });
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tokio::spawn(converse(app.clone(), stream))),
                // Out of descriptors: the next accept may find some again.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
        }
    }
}

async fn open_udp(daemon: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(daemon).await?;
    Ok(socket)
}

fn announce(address: SocketAddr) -> std::io::Result<()> {
    let line = json!({"event": "listening", "addresses": {"app": address.to_string()}});
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

async fn converse(app: Arc<App>, stream: TcpStream) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let answer = service_fn(move |request| {
        let app = app.clone();
        async move { Ok::<_, Infallible>(app.answer(request).await) }
    });
    // How a connection ends is the sidecar's concern.
    drop(
        http1::Builder::new()
            .serve_connection(TokioIo::new(stream), answer)
            .await,
    );
}

impl App {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() == COUNTS_PATH {
            return respond(StatusCode::OK, &json!(self.counts()));
        }
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        match self.role {
            Role::Web => self.welcome(request.headers()).await,
            Role::Catalog { version } => {
                work(2 + number % 3).await;
                let items = ["saddle", "pannier", "bell"];
                respond(StatusCode::OK, &json!({"version": version, "items": items}))
            }
            Role::Cart => self.basket(&request).await,
            Role::Payments => {
                work(4 + number % 5).await;
                if number.is_multiple_of(FAILING_PAYMENT) {
                    self.faults.fetch_add(1, Ordering::Relaxed);
                    let body = json!({"error": "the card network does not answer"});
                    return respond(StatusCode::INTERNAL_SERVER_ERROR, &body);
                }
                respond(StatusCode::OK, &json!({"methods": ["card", "invoice"]}))
            }
        }
    }

    /// The front page: asks everyone at once and does without whoever fails.
    async fn welcome(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let mut passed = HeaderMap::new();
        for name in PASSED_ON {
            if let Some(value) = headers.get(&name) {
                passed.insert(name, value.clone());
            }
        }
        let (catalog, cart, payments) = tokio::join!(
            self.ask("catalog.storefront.local", "/items", &passed),
            self.ask("cart.storefront.local", "/basket", &passed),
            self.ask("payments.storefront.local", "/methods", &passed),
        );
        let missing: Vec<&str> = [
            ("catalog", &catalog),
            ("cart", &cart),
            ("payments", &payments),
        ]
        .into_iter()
        .filter(|(_, part)| part.is_null())
        .map(|(name, _)| name)
        .collect();
        let page =
            json!({"catalog": catalog, "cart": cart, "payments": payments, "missing": missing});
        respond(StatusCode::OK, &page)
    }

    /// Null when the other one fails in any way.
    async fn ask(&self, host: &'static str, path: &str, headers: &HeaderMap) -> Value {
        match self.calls.get(host, path, headers).await {
            Ok((status, body)) if status.is_success() => {
                serde_json::from_slice(&body).unwrap_or_default()
            }
            Ok((status, _)) => {
                complain(&format!("{host} answered {status}"));
                Value::Null
            }
            Err(error) => {
                complain(&format!("{:#}", anyhow::Error::new(error)));
                Value::Null
            }
        }
    }

    async fn basket(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let (begun, clock) = (SystemTime::now(), Instant::now());
        work(3).await;
        let text = |name: &str| {
            request
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        let trace = text("x-amzn-trace-id")
            .and_then(TraceHeader::parse)
            .filter(|trace| trace.sampled);
        if let (Some(daemon), Some(trace)) = (&self.daemon, trace) {
            let url = format!(
                "http://{}{}",
                text("host").unwrap_or("cart"),
                request.uri().path()
            );
            let served = Served {
                name: &self.name,
                method: request.method().as_str(),
                url: &url,
                begun,
                took: clock.elapsed(),
            };
            let id = new_id();
            let datagram = segment::datagram(&trace, &id, &new_id(), &served);
            match daemon.send(&datagram).await {
                Ok(_) => *lock(&self.segment) = Some((trace.root, id)),
                Err(cause) => complain(&format!("send a segment: {cause}")),
            }
        }
        respond(
            StatusCode::OK,
            &json!({"items": [{"name": "bell", "count": 1}]}),
        )
    }

    fn counts(&self) -> Counts {
        Counts {
            requests: self.requests.load(Ordering::Relaxed),
            faults: self.faults.load(Ordering::Relaxed),
            segment: lock(&self.segment).clone(),
        }
    }
}

fn respond(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// An application that does nothing would make a dull map.
async fn work(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

fn new_id() -> String {
    format!("{:016x}", rand::random::<u64>().max(1))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn complain(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}
