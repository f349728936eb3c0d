// SPDX-License-Identifier: Apache-2.0
//! The xDS port: ADS streams to the proxies, certificate signing and gRPC health, over TLS or plaintext. `app.rs` binds
//! the socket and calls [`serve`]; what is sent comes from `publish.rs`.

pub mod door;
pub mod fleet;
pub mod gate;
pub mod server;
pub mod stream;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use pillion_runtime::tasks::Tasks;
use pillion_xds::proto::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use pillion_xds::signing::CertificateServiceServer;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;

use crate::identity;
use crate::identity::Authority;
use crate::identity::Custody;
use crate::identity::authority::IssueError;
use crate::identity::authority::LEAF_LIFETIME;
use crate::identity::signer::Signer;
use crate::publish::Publisher;
use crate::store::Live;
use fleet::Fleet;
use gate::Gate;
use gate::GateLayer;
use server::Ads;

/// App Mesh's endpoint pinged this often; a proxy behind a NAT that forgot it is noticed.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Of one connection: a proxy has one ADS stream and now and then a signing request.
const STREAMS: u32 = 128;

/// Streams that are told everything for the first time at once. Ten thousand that come back together take turns, and
/// none of their first responses is made before there is somebody to read it.
const ADMISSION: usize = 256;

/// Who we are, as the port needs it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Ours, 12 digits.
    pub account: String,
    /// For ARNs.
    pub region: String,
    /// SPIFFE trust domain.
    pub trust_domain: String,
    /// Streams that one node or gateway may have at once.
    pub proxies: Option<u32>,
}

/// What the port has opened.
pub struct Served {
    /// `/fleet`, for the admin server.
    pub page: Router,
    /// Who is connected.
    pub fleet: Arc<Fleet>,
    /// What they are sent.
    pub publisher: Arc<Publisher>,
    /// Who signs for them.
    pub custody: Arc<Custody>,
}

/// Why the port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no authority to sign with.
    #[error("open the certificate authority")]
    Authority(#[from] identity::OpenError),
    /// It could not sign for the port itself.
    #[error("make the certificate of the xDS port")]
    Certificate(#[from] IssueError),
    /// Two metrics of one name: a mistake of ours.
    #[error("register metrics of xDS")]
    Metrics(#[from] prometheus::Error),
}

/// Serves the xDS port among `tasks` until they are told to stop, and keeps the snapshots current meanwhile. Callers
/// prove themselves at `gate`.
pub async fn serve(
    listener: TcpListener,
    settings: Settings,
    live: Arc<Live>,
    gate: Gate,
    (registry, tasks): (&Registry, &Tasks),
) -> Result<Served, StartError> {
    let custody = Custody::open(Arc::clone(live.store()), &settings.trust_domain).await?;
    let custody = Arc::new(custody);
    let authority = Arc::clone(&custody.authority);
    tasks.spawn_until_stopped("authority", Arc::clone(&custody).follow());
    let publisher = Publisher::new(Arc::clone(&live), Arc::clone(&authority), registry)?;
    let fleet = Fleet::new(registry)?;
    let tls = ServerTls::start(Arc::clone(&authority), server_names(&listener), tasks)?;
    tasks.spawn("publish", Arc::clone(&publisher).run(tasks.stop()));
    let connections = ReceiverStream::new(door::open(listener, tls, tasks));
    let (health, health_service) = tonic_health::server::health_reporter();
    health
        .set_serving::<AggregatedDiscoveryServiceServer<Ads>>()
        .await;
    let page = fleet::router(Arc::clone(&fleet), Arc::clone(&publisher));
    let ads = Ads {
        publisher: Arc::clone(&publisher),
        fleet: Arc::clone(&fleet),
        live: Arc::clone(&live),
        tokens: Arc::clone(&gate.tokens),
        settings: Arc::new(settings.clone()),
        admission: Arc::new(Semaphore::new(ADMISSION)),
        tasks: tasks.clone(),
    };
    let signer = Signer {
        live,
        authority,
        account: settings.account,
        region: settings.region,
    };
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(Some(STREAMS))
        .layer(GateLayer(Arc::new(gate)))
        .add_service(AggregatedDiscoveryServiceServer::new(ads))
        .add_service(CertificateServiceServer::new(signer))
        .add_service(health_service);
    let stop = tasks.stop();
    tasks.spawn("xds", async move {
        if let Err(error) = server
            .serve_with_incoming_shutdown(connections, stop.cancelled_owned())
            .await
        {
            tracing::error!(error = chain(&error), "the xDS server ended");
        }
    });
    Ok(Served {
        page,
        fleet,
        publisher,
        custody,
    })
}

/// The port's own certificate, which lives no longer than any other.
pub struct ServerTls {
    authority: Arc<Authority>,
    names: Vec<String>,
    current: ArcSwap<rustls::ServerConfig>,
}

impl ServerTls {
    /// Issues the first one, and the next at half the life of each.
    fn start(
        authority: Arc<Authority>,
        names: Vec<String>,
        tasks: &Tasks,
    ) -> Result<Arc<ServerTls>, IssueError> {
        let current = ArcSwap::from(authority.server_config(&names)?);
        let tls = Arc::new(ServerTls {
            authority,
            names,
            current,
        });
        let renewed = Arc::clone(&tls);
        tasks.spawn_until_stopped("xds-certificate", async move {
            let mut changes = renewed.authority.changes();
            loop {
                // A changed ring changes whom callers may show, and who signed for us.
                tokio::select! {
                    () = tokio::time::sleep(LEAF_LIFETIME / 2) => {}
                    changed = changes.changed() => if changed.is_err() { return },
                }
                match renewed.authority.server_config(&renewed.names) {
                    Ok(next) => renewed.current.store(next),
                    Err(error) => tracing::error!(
                        error = chain(&error),
                        "certificate of the xDS port not renewed"
                    ),
                }
            }
        });
        Ok(tls)
    }

    /// For the next handshake.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }
}

/// Names under which proxies may reach us and expect to find in our certificate.
fn server_names(listener: &TcpListener) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"]
        .map(str::to_owned)
        .to_vec();
    names.extend(
        std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()),
    );
    let bound = listener.local_addr().map(|addr| addr.ip()).ok();
    names.extend(
        bound
            .filter(|ip: &IpAddr| !ip.is_unspecified())
            .map(|ip| ip.to_string()),
    );
    names.sort();
    names.dedup();
    names
}

/// An error with its causes, for one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
