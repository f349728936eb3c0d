// SPDX-License-Identifier: Apache-2.0
//! The only wiring: opens the store, binds every socket, starts the writer and the doors, announces, and at the end
//! drains them. Called by `main`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use http::Method;
use http::Uri;
use pillion_runtime::admin;
use pillion_runtime::admin::Admin;
use pillion_runtime::listening;
use pillion_runtime::listening::BindError;
use pillion_runtime::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::net::UdpSocket;
use tokio::task::spawn_blocking;

use crate::config::Config;
use crate::memory;
use crate::memory::Shares;
use crate::metrics::Metrics;
use crate::metrics::Source;
use crate::pipeline;
use crate::pipeline::Bounds;
use crate::query::dashboard;
use crate::query::kept::Kept;
use crate::query::pillion_api::PillionApi;
use crate::query::xray_api;
use crate::query::xray_api::XrayApi;
use crate::receive::documents::Documents;
use crate::receive::otlp_grpc;
use crate::receive::otlp_http;
use crate::receive::xray_udp;
use crate::receive::xray_udp::UdpBindError;
use crate::room::Room;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::disk::Disk;
use crate::store::disk::Settings;

/// What is accepted and in work gets this long to be stored.
const DRAIN: Duration = Duration::from_secs(10);

/// Why the collector did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A TCP address.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The UDP address.
    #[error(transparent)]
    BindUdp(Box<dyn std::error::Error + Send + Sync>),
    /// The trace store; another process may hold it.
    #[error("use --store {path}; one process at a time may hold it")]
    Store {
        /// The folder.
        path: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<UdpBindError> for StartError {
    fn from(error: UdpBindError) -> StartError {
        StartError::BindUdp(Box::new(error))
    }
}

/// A running collector.
pub struct App {
    tasks: Tasks,
    admin: Admin,
    addresses: Vec<(String, SocketAddr)>,
}

struct Sockets {
    otlp_grpc: TcpListener,
    otlp_http: TcpListener,
    xray_udp: UdpSocket,
    xray_tcp: TcpListener,
    api: TcpListener,
    admin: TcpListener,
}

/// Tries at a port that is free for both protocols; each fails only if a stranger holds its TCP half.
const TWIN_TRIES: usize = 32;

/// With port 0, documents over TCP get the port that UDP got, as SDKs expect.
fn bind_xray(config: &Config) -> Result<(UdpSocket, TcpListener), StartError> {
    let (udp, tcp) = (config.xray_udp_addr, config.xray_tcp_addr);
    for _ in 0..TWIN_TRIES {
        if udp.port() != 0 || tcp.port() != 0 {
            break;
        }
        let socket = xray_udp::bind(udp)?;
        let twin = socket
            .local_addr()
            .map(|addr| SocketAddr::new(tcp.ip(), addr.port()));
        let twin = twin
            .ok()
            .and_then(|addr| listening::bind("--xray-tcp-addr", addr).ok());
        if let Some(twin) = twin {
            return Ok((socket, twin));
        }
    }
    Ok((
        xray_udp::bind(udp)?,
        listening::bind("--xray-tcp-addr", tcp)?,
    ))
}

fn bind(config: &Config) -> Result<Sockets, StartError> {
    let (xray_udp, xray_tcp) = bind_xray(config)?;
    Ok(Sockets {
        otlp_grpc: listening::bind("--otlp-grpc-addr", config.otlp_grpc_addr)?,
        otlp_http: listening::bind("--otlp-http-addr", config.otlp_http_addr)?,
        xray_udp,
        xray_tcp,
        api: listening::bind("--api-addr", config.api_addr)?,
        admin: listening::bind("--admin-addr", config.admin_addr)?,
    })
}

impl Sockets {
    fn addresses(&self) -> Vec<(String, SocketAddr)> {
        [
            ("otlp_grpc", self.otlp_grpc.local_addr()),
            ("otlp_http", self.otlp_http.local_addr()),
            ("xray_udp", self.xray_udp.local_addr()),
            ("xray_tcp", self.xray_tcp.local_addr()),
            ("api", self.api.local_addr()),
            ("admin", self.admin.local_addr()),
        ]
        .into_iter()
        .filter_map(|(name, addr)| Some((name.to_owned(), addr.ok()?)))
        .collect()
    }
}

/// Starts everything and prints the readiness line.
pub async fn start(config: &Config) -> Result<App, StartError> {
    let (store, unsettled) = open_store(config).await?;
    let sockets = bind(config)?;
    let addresses = sockets.addresses();
    let metrics = Metrics::new();
    let tasks = Tasks::new();
    let admin = Admin::new(metrics.registry.clone(), config.effective());
    let shares = Shares::of(config.memory_limit);
    let bounds = Bounds {
        room: Room::new(shares.intake),
        settle: config.settle,
        unsettled: shares.unsettled,
    };
    tasks.spawn_until_stopped(
        "memory",
        memory::watch(config.memory_limit, bounds.room.clone(), metrics.clone()),
    );
    let (pipeline, writer) = pipeline::start(
        Arc::clone(&store),
        metrics.clone(),
        admin.clone(),
        bounds,
        unsettled,
    );
    tasks.spawn("writer", writer.run());

    let stop = || tasks.stop();
    tasks.spawn(
        "otlp-grpc",
        otlp_grpc::serve(sockets.otlp_grpc, pipeline.clone(), stop()),
    );
    tasks.spawn(
        "xray-udp",
        xray_udp::serve(sockets.xray_udp, pipeline.clone(), stop()),
    );
    let documents = |source| {
        let most = usize::try_from(config.max_document).unwrap_or(usize::MAX);
        Documents::new(pipeline.clone(), source, most)
    };
    let kept = Kept::new(Arc::clone(&store));
    let api = XrayApi::new(documents(Source::XrayApi), Arc::clone(&store), kept.clone());
    let daemon = api.for_daemon_port(documents(Source::XrayTcp));
    serve(&tasks, "xray-tcp", sockets.xray_tcp, operations(daemon));
    serve(
        &tasks,
        "otlp-http",
        sockets.otlp_http,
        otlp_http::router(pipeline),
    );
    let own = PillionApi {
        store,
        metrics,
        kept,
    };
    serve(
        &tasks,
        "api",
        sockets.api,
        own.router().merge(operations_and_dashboard(api)),
    );
    tasks.spawn("admin", admin::serve(sockets.admin, admin.router(), stop()));

    admin.set_ready(true);
    listening::announce(&addresses);
    tracing::info!(config = %config.effective(), "collecting");
    Ok(App {
        tasks,
        admin,
        addresses,
    })
}

async fn open_store(
    config: &Config,
) -> Result<(Arc<dyn Store>, Vec<crate::span::TraceId>), StartError> {
    let path = config.store.display().to_string();
    let failed =
        |source: Box<dyn std::error::Error + Send + Sync>| StartError::Store { path, source };
    let settings = Settings {
        path: config.store.clone(),
        retention: config.retention,
        memory: Shares::of(config.memory_limit).store,
    };
    let open = move || -> Result<_, StoreError> {
        let disk = Disk::open(settings)?;
        let unsettled = disk.unsettled()?;
        let store: Arc<dyn Store> = Arc::new(disk);
        Ok((store, unsettled))
    };
    match spawn_blocking(open).await {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(error)) => Err(failed(Box::new(error))),
        Err(error) => Err(failed(Box::new(error))),
    }
}

/// An API's router; everything else is no operation.
fn operations(api: XrayApi) -> Router {
    let answer = api.clone();
    let fallback = move |method: Method, uri: Uri| {
        let response = xray_api::no_such_operation(&answer, &method, uri.path());
        async move { response }
    };
    api.router()
        .method_not_allowed_fallback(fallback.clone())
        .fallback(fallback)
}

/// The same, but every other GET is the dashboard's.
fn operations_and_dashboard(api: XrayApi) -> Router {
    let answer = api.clone();
    let fallback = move |method: Method, uri: Uri| {
        let response = other(&answer, &method, &uri);
        async move { response }
    };
    // Also for GET on a path where only POST is an operation, `/` among them.
    api.router()
        .method_not_allowed_fallback(fallback.clone())
        .fallback(fallback)
}

fn other(api: &XrayApi, method: &Method, uri: &Uri) -> Response {
    if *method == Method::GET || *method == Method::HEAD {
        dashboard::page(uri.path())
    } else {
        xray_api::no_such_operation(api, method, uri.path())
    }
}

fn serve(tasks: &Tasks, name: &'static str, listener: TcpListener, router: Router) {
    let stop = tasks.stop();
    tasks.spawn(name, async move {
        let server = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
        if let Err(error) = server.await {
            tracing::error!(%error, name, "a server ended");
        }
    });
}

impl App {
    /// Where it listens, by the names of the readiness line.
    pub fn addresses(&self) -> &[(String, SocketAddr)] {
        &self.addresses
    }

    /// Stops taking, stores what was taken; says how many tasks had to be cut off.
    pub async fn drain(self) -> usize {
        self.admin.set_ready(false);
        self.tasks.drain(DRAIN).await
    }
}
