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
use pillion_sigv4::KeysError;
use pillion_sigv4::KeysFile;
use tokio::net::TcpListener;
use tokio::net::UdpSocket;
use tokio::task::spawn_blocking;

use crate::alerts::Alerts;
use crate::auth::Gate;
use crate::catalog::Catalog;
use crate::config::Config;
use crate::config::StorePlace;
use crate::memory;
use crate::memory::Shares;
use crate::metrics::Metrics;
use crate::metrics::Source;
use crate::pipeline;
use crate::pipeline::Bounds;
use crate::pipeline::Observers;
use crate::pipeline::Pipeline;
use crate::query::dashboard;
use crate::query::jaeger::JaegerApi;
use crate::query::kept::Kept;
use crate::query::pillion_api::PillionApi;
use crate::query::xray_api;
use crate::query::xray_api::XrayApi;
use crate::receive::documents::Documents;
use crate::receive::otlp_grpc;
use crate::receive::otlp_http;
use crate::receive::xray_udp;
use crate::receive::xray_udp::UdpBindError;
use crate::receive::zipkin;
use crate::room::Room;
use crate::span::ACCOUNT;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::clickhouse::ClickHouse;
use crate::store::disk::Disk;
use crate::store::disk::Settings;
use crate::watch::Watch;

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
    /// The file of keys.
    #[error("--credentials")]
    Keys(#[from] KeysError),
    /// The trace store.
    #[error("use --store {place}")]
    Store {
        /// The folder, which another process may hold, or the address.
        place: String,
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
    zipkin: TcpListener,
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
        zipkin: listening::bind("--zipkin-addr", config.zipkin_addr)?,
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
            ("zipkin", self.zipkin.local_addr()),
            ("api", self.api.local_addr()),
            ("admin", self.admin.local_addr()),
        ]
        .into_iter()
        .filter_map(|(name, addr)| Some((name.to_owned(), addr.ok()?)))
        .collect()
    }
}

/// What doors and pages are made of.
struct Core {
    tasks: Tasks,
    store: Arc<dyn Store>,
    kept: Kept,
    metrics: Metrics,
    observers: Observers,
    pipeline: Pipeline,
    gates: Gates,
    alerts: Alerts,
}

/// Starts everything and prints the readiness line.
pub async fn start(config: &Config) -> Result<App, StartError> {
    let opened = open_store(config).await?;
    let sockets = bind(config)?;
    let addresses = sockets.addresses();
    let metrics = Metrics::new();
    let admin = Admin::new(metrics.registry.clone(), config.effective());
    let core = build_core(config, opened, metrics, &admin)?;
    core.watch(config);
    let api = core.api(config);
    let router = core.observers.services.on_metrics_page(admin.router());
    let stop = core.tasks.stop();
    core.tasks
        .spawn("admin", admin::serve(sockets.admin, router, stop));
    let daemon = api.for_daemon_port(core.documents(config, Source::XrayTcp));
    serve(
        &core.tasks,
        "xray-tcp",
        sockets.xray_tcp,
        operations(daemon),
    );
    serve(&core.tasks, "api", sockets.api, core.pages(api));
    let tasks = core.tasks.clone();
    core.serve_intake(
        config,
        Intake {
            otlp_grpc: sockets.otlp_grpc,
            otlp_http: sockets.otlp_http,
            xray_udp: sockets.xray_udp,
            zipkin: sockets.zipkin,
        },
    );
    admin.set_ready(true);
    listening::announce(&addresses);
    tracing::info!(config = %config.effective(), "collecting");
    Ok(App {
        tasks,
        admin,
        addresses,
    })
}

fn build_core(
    config: &Config,
    (store, unsettled, catalog): Opened,
    metrics: Metrics,
    admin: &Admin,
) -> Result<Core, StartError> {
    let tasks = Tasks::new();
    let keys = match &config.credentials {
        None => None,
        Some(path) => {
            let keys = KeysFile::open(path, ACCOUNT)?;
            tasks.spawn_until_stopped("credentials", Arc::clone(&keys).follow());
            Some(keys)
        }
    };
    let shares = Shares::of(config.memory_limit);
    let room = Room::new(shares.intake);
    tasks.spawn_until_stopped(
        "memory",
        memory::watch(config.memory_limit, room.clone(), metrics.clone()),
    );
    let observers = Observers {
        catalog,
        ..Observers::default()
    };
    let bounds = Bounds {
        room: room.clone(),
        settle: config.settle,
        unsettled: shares.unsettled,
    };
    let (pipeline, writer) = pipeline::start(
        Arc::clone(&store),
        metrics.clone(),
        admin.clone(),
        (bounds, observers.clone()),
        unsettled,
    );
    tasks.spawn("writer", writer.run());
    Ok(Core {
        tasks,
        kept: Kept::new(Arc::clone(&store)),
        alerts: Alerts::new(
            Arc::clone(&store),
            config.alert_webhook.clone(),
            metrics.clone(),
        ),
        store,
        metrics,
        observers,
        pipeline,
        gates: Gates {
            keys,
            room,
            insecure: config.insecure,
        },
    })
}

/// Doors that only take.
struct Intake {
    otlp_grpc: TcpListener,
    otlp_http: TcpListener,
    xray_udp: UdpSocket,
    zipkin: TcpListener,
}

impl Core {
    /// Insights and alerts.
    fn watch(&self, config: &Config) {
        let watch = Watch {
            store: Arc::clone(&self.store),
            kept: self.kept.clone(),
            changed: self.observers.changed.clone(),
            webhook: config.insight_webhook.clone(),
            metrics: self.metrics.clone(),
        };
        self.tasks.spawn_until_stopped("insights", watch.run());
        self.tasks
            .spawn_until_stopped("alerts", self.alerts.clone().run());
    }

    fn documents(&self, config: &Config, source: Source) -> Documents {
        let most = usize::try_from(config.max_document).unwrap_or(usize::MAX);
        Documents::new(self.pipeline.clone(), source, most)
    }

    fn api(&self, config: &Config) -> XrayApi {
        let documents = self.documents(config, Source::XrayApi);
        XrayApi::new(documents, Arc::clone(&self.store), self.kept.clone())
    }

    /// Every API, and the dashboard.
    fn pages(&self, api: XrayApi) -> Router {
        let own = PillionApi {
            store: Arc::clone(&self.store),
            metrics: self.metrics.clone(),
            kept: self.kept.clone(),
        };
        let jaeger = JaegerApi {
            store: Arc::clone(&self.store),
            catalog: self.observers.catalog.clone(),
        };
        let router = own
            .router(self.alerts.clone())
            .merge(jaeger.router())
            .merge(operations_and_dashboard(api));
        self.gates.api().guard(router)
    }

    /// The pipeline ends when the last of its doors has gone, so this consumes what holds it.
    fn serve_intake(self, config: &Config, sockets: Intake) {
        let stop = || self.tasks.stop();
        let gate = |addr| self.gates.intake(addr);
        let pipeline = || self.pipeline.clone();
        self.tasks.spawn(
            "otlp-grpc",
            otlp_grpc::serve(
                sockets.otlp_grpc,
                (pipeline(), gate(config.otlp_grpc_addr)),
                stop(),
            ),
        );
        self.tasks.spawn(
            "xray-udp",
            xray_udp::serve(sockets.xray_udp, pipeline(), stop()),
        );
        let http = gate(config.otlp_http_addr).guard(otlp_http::router(pipeline()));
        serve(&self.tasks, "otlp-http", sockets.otlp_http, http);
        let zipkin = gate(config.zipkin_addr).guard(zipkin::router(pipeline()));
        serve(&self.tasks, "zipkin", sockets.zipkin, zipkin);
    }
}

/// Which doors ask for proof.
struct Gates {
    keys: Option<Arc<KeysFile>>,
    room: Room,
    insecure: bool,
}

impl Gates {
    fn api(&self) -> Gate {
        Gate {
            keys: self.keys.clone(),
            room: self.room.clone(),
        }
    }

    /// On loopback, and where `--insecure` trusts the network, senders are taken as they come.
    fn intake(&self, addr: SocketAddr) -> Gate {
        let open = addr.ip().is_loopback() || self.insecure;
        Gate {
            keys: self.keys.clone().filter(|_| !open),
            room: self.room.clone(),
        }
    }
}

/// The store, traces left unsettled, and what was learnt of services.
type Opened = (Arc<dyn Store>, Vec<crate::span::TraceId>, Catalog);

async fn open_store(config: &Config) -> Result<Opened, StartError> {
    let (place, retention) = (config.store.clone(), config.retention);
    let memory = Shares::of(config.memory_limit).store;
    let named = place.to_string();
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| StartError::Store {
        place: named,
        source,
    };
    let open = move || -> Result<_, StoreError> {
        let store: Arc<dyn Store> = match place {
            StorePlace::Folder(path) => Arc::new(Disk::open(Settings {
                path,
                retention,
                memory,
            })?),
            StorePlace::ClickHouse(address) => Arc::new(ClickHouse::open(address, retention)?),
        };
        let unsettled = store.unsettled()?;
        let catalog = Catalog::load(store.as_ref())?;
        Ok((store, unsettled, catalog))
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
