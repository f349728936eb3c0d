// SPDX-License-Identifier: Apache-2.0
//! The only wiring of the process: sockets, store, API, admin, xDS; then waits to be terminated and drains, callers
//! before what they call. Called by `main.rs`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pillion_runtime::admin;
use pillion_runtime::admin::Admin;
use pillion_runtime::listening;
use pillion_runtime::listening::BindError;
use pillion_runtime::serving;
use pillion_runtime::serving::Bounds;
use pillion_runtime::signals::Termination;
use pillion_runtime::tasks::Tasks;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::SignalKind;

use crate::access::Access;
use crate::ads;
use crate::ads::gate::Gate;
use crate::api;
use crate::api::Api;
use crate::api::metrics::ApiMetrics;
use crate::config::Config;
use crate::identity::token::Tokens;
use crate::store::Live;
use crate::store::StoreError;
use crate::store::live::LoadError;
use crate::store::sql::SqlStore;

/// Longest time requests in flight may take to end, and again the parts they call.
const DRAIN: Duration = Duration::from_secs(10);

/// SIGXFSZ. Its default action would end the process when the store's file meets a size limit (`ulimit -f`); with a
/// handler the write fails instead, and the caller is told.
const FILE_SIZE_EXCEEDED: i32 = 25;

/// Why the process could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The store.
    #[error(transparent)]
    Open(#[from] StoreError),
    /// What is in it.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Two metrics of one name: a mistake of ours.
    #[error("register metrics")]
    Metrics(#[from] prometheus::Error),
    /// The xDS port.
    #[error("open the xDS port")]
    Ads(#[from] ads::StartError),
    /// The runtime refused a signal handler.
    #[error("install a signal handler")]
    Signal(#[source] std::io::Error),
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(config: Config) -> Result<(), StartError> {
    // Kept, never awaited: that a handler is there is enough.
    let _oversize = tokio::signal::unix::signal(SignalKind::from_raw(FILE_SIZE_EXCEEDED))
        .map_err(StartError::Signal)?;
    let mut termination = Termination::listen();
    let sockets = Sockets::bind(&config)?;
    let addresses = sockets.addresses();
    let registry = Registry::new();
    let (callers, called) = (Tasks::new(), Tasks::new());

    let store = Arc::new(SqlStore::open(&config.store).await?);
    let live = Live::open(store.clone(), &config.account, &called).await?;
    called.spawn_until_stopped("store-follow", store.clone().follow());
    let admin = Admin::new(registry.clone(), config.document());
    let metrics = ApiMetrics::register(&registry)?;

    if let Some(keys) = &config.credentials {
        called.spawn_until_stopped("credentials", Arc::clone(keys).follow());
    }
    let home = (config.region.clone(), config.account.clone());
    let access = Access::open(
        store.clone(),
        config.credentials.clone(),
        home,
        config.rate_limit,
    );
    let access = Arc::new(access.await?);
    called.spawn_until_stopped("shares", Arc::clone(&access).follow());
    let tokens = Tokens::open(store.clone()).await?;
    called.spawn_until_stopped("join-tokens", Arc::clone(&tokens).follow());
    let gate = Gate {
        access: Arc::clone(&access),
        tokens: Arc::clone(&tokens),
    };
    let settings = ads::Settings {
        account: config.account.clone(),
        region: config.region.clone(),
        trust_domain: config.trust_domain.clone(),
        proxies: config.quotas.proxies(),
    };
    let served = ads::serve(
        sockets.xds,
        settings,
        live.clone(),
        gate,
        (&registry, &callers),
    )
    .await?;
    let fleet = served.page;
    let api = Api::new(api::Parts {
        live: live.clone(),
        access,
        quotas: config.quotas.clone(),
        fleet: served.fleet,
        custody: served.custody,
        publisher: served.publisher,
        tokens,
        metrics,
        stop: callers.stop(),
    })
    .router();
    callers.spawn(
        "api",
        serving::serve(sockets.api, api, Bounds::default(), callers.stop()),
    );
    called.spawn(
        "admin",
        admin::serve(sockets.admin, admin.router().merge(fleet), called.stop()),
    );

    listening::announce(&addresses);
    admin.set_ready(true);
    tracing::info!(config = %config.document(), revision = live.current().revision(), "control plane is up");

    let signal = termination.asked().await;
    tracing::info!(signal, "draining");
    admin.set_ready(false);
    let cut = callers.drain(DRAIN).await + called.drain(DRAIN).await;
    if cut > 0 {
        tracing::warn!(cut, "tasks were still running at the end of the drain");
    }
    store.close().await;
    Ok(())
}

struct Sockets {
    api: TcpListener,
    xds: TcpListener,
    admin: TcpListener,
}

impl Sockets {
    fn bind(config: &Config) -> Result<Sockets, BindError> {
        Ok(Sockets {
            api: listening::bind("--api-addr", config.api_addr)?,
            xds: listening::bind("--xds-addr", config.xds_addr)?,
            admin: listening::bind("--admin-addr", config.admin_addr)?,
        })
    }

    fn addresses(&self) -> Vec<(String, SocketAddr)> {
        [
            ("api", &self.api),
            ("xds", &self.xds),
            ("admin", &self.admin),
        ]
        .into_iter()
        .filter_map(|(name, socket)| Some((name.to_owned(), socket.local_addr().ok()?)))
        .collect()
    }
}
