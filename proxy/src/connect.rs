// SPDX-License-Identifier: Apache-2.0
//! Connections to endpoints: TCP, then TLS where the cluster says so, within the cluster's connect timeout. Called by
//! `http::client`, `http::tunnel` and `tcp`; the other half of the seam for simulated networks.

pub mod own;
mod place;

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::cluster::Cluster;
use crate::cluster::Endpoint;
use crate::error::Failure;
use crate::error::Fault;
use crate::error::Flags;
use crate::error::Retry;
use crate::error::reset_text;
use crate::exchange::Connection;
use crate::exchange::Door;
use crate::metrics::ClusterShard;
use crate::stream::Stream;
use crate::tls::TlsError;
use crate::tls::verify;
use crate::tls::verify::HandshakeFailure;
use crate::worker::Worker;

pub use place::Place;

/// A connection that did not come about. Clones go to everyone who waited for it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// The socket did not connect.
    #[error("connect to {endpoint}")]
    Refused {
        /// Where to.
        endpoint: SocketAddr,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// It took too long.
    #[error("connect to {endpoint} within {limit:?}")]
    TimedOut {
        /// Where to.
        endpoint: SocketAddr,
        /// How long it may take.
        limit: Duration,
    },
    /// TLS failed.
    #[error("TLS handshake with {endpoint}")]
    Tls {
        /// Where to.
        endpoint: SocketAddr,
        /// What failed.
        source: Arc<io::Error>,
    },
    /// TLS cannot begin: key material is missing.
    #[error("TLS for cluster {cluster}")]
    TlsUnready {
        /// Cluster name.
        cluster: String,
        /// What is missing.
        source: TlsError,
    },
    /// HTTP could not begin on the new connection.
    #[error("HTTP handshake with {endpoint}")]
    Http {
        /// Where to.
        endpoint: SocketAddr,
        /// What failed.
        source: Arc<hyper::Error>,
    },
}

impl Failure for ConnectError {
    fn fault(&self) -> Fault {
        match self {
            ConnectError::TlsUnready { .. } => Fault::Local,
            _ => Fault::Upstream,
        }
    }

    fn retry(&self) -> Retry {
        Retry::Connect
    }

    fn status(&self) -> StatusCode {
        StatusCode::SERVICE_UNAVAILABLE
    }

    fn flag(&self) -> Flags {
        Flags::CONNECT_FAILURE
    }

    fn text(&self) -> Cow<'static, str> {
        let reason = match (self, self.transport()) {
            (ConnectError::TimedOut { .. }, _) => "connection timeout".to_owned(),
            (_, Some(transport)) => {
                format!("remote connection failure, transport failure reason: {transport}")
            }
            (_, None) => "remote connection failure".to_owned(),
        };
        Cow::Owned(reset_text(&reason, false))
    }

    fn details(&self) -> &'static str {
        "upstream_reset_before_response_started{remote_connection_failure}"
    }

    fn transport(&self) -> Option<String> {
        match self {
            ConnectError::Refused { source, .. } => {
                Some(format!("delayed connect error: {}", plain(source)))
            }
            ConnectError::Tls { source, .. } => Some(format!("TLS_error: {source}")),
            ConnectError::TlsUnready { source, .. } => Some(format!("TLS_error: {source}")),
            ConnectError::Http { source, .. } => Some(source.to_string()),
            ConnectError::TimedOut { .. } => None,
        }
    }
}

/// The system's words without the number that std appends.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Where to dial for an endpoint: a sidecar's own app may listen elsewhere than its virtual port says (`--listen`).
pub fn app_address(connection: &Connection, endpoint: &Endpoint, worker: &Worker) -> SocketAddr {
    let addr = endpoint.addr;
    if connection.door == Door::Ingress && addr.ip().is_loopback() {
        return worker
            .shared
            .policy
            .local_apps
            .get(&addr.port())
            .copied()
            .unwrap_or(addr);
    }
    addr
}

/// Connects to an endpoint of a cluster. `counts` is the caller's shard; a probe counts nothing.
pub async fn dial(
    cluster: &Cluster,
    endpoint: SocketAddr,
    counts: Option<&ClusterShard>,
) -> Result<Stream, ConnectError> {
    let limit = cluster.config.connect_timeout;
    let dialled = tokio::time::timeout(limit, async {
        let socket =
            TcpStream::connect(endpoint)
                .await
                .map_err(|source| ConnectError::Refused {
                    endpoint,
                    source: Arc::new(source),
                })?;
        own::remember(&socket, endpoint);
        // Small writes are whole messages here; latency is what Nagle would cost.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%endpoint, %error, "TCP_NODELAY not set");
        }
        secure(cluster, endpoint, Stream::Tcp(socket)).await
    });
    let result = dialled
        .await
        .unwrap_or(Err(ConnectError::TimedOut { endpoint, limit }));
    if let Err(error) = &result {
        tracing::debug!(cluster = cluster.name(), %endpoint, reason = error.transport(), "connect failed");
    }
    if let Some(counts) = counts {
        count(counts, &result);
    }
    result
}

async fn secure(
    cluster: &Cluster,
    endpoint: SocketAddr,
    stream: Stream,
) -> Result<Stream, ConnectError> {
    let Some(tls) = &cluster.tls else {
        return Ok(stream);
    };
    let unready = |source: &TlsError| ConnectError::TlsUnready {
        cluster: cluster.name().to_owned(),
        source: source.clone(),
    };
    let config = tls.config.as_ref().map_err(unready)?;
    let named = cluster.config.tls.as_ref().and_then(|tls| tls.sni.clone());
    let name = named
        .and_then(|name| ServerName::try_from(name).ok())
        .unwrap_or_else(|| ServerName::IpAddress(endpoint.ip().into()));
    let shaken = TlsConnector::from(Arc::clone(config))
        .connect(name, stream)
        .await
        .and_then(|stream| tls.admit(stream));
    let secure = shaken.map_err(|source| ConnectError::Tls {
        endpoint,
        source: Arc::new(source),
    })?;
    Ok(Stream::Tls(Box::new(secure)))
}

fn count(counts: &ClusterShard, result: &Result<Stream, ConnectError>) {
    match result {
        Ok(stream) => {
            counts.cx_total.inc();
            if let Stream::Tls(tls) = stream {
                counts.ssl_handshake.inc();
                if tls.session().handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
                    counts.ssl_session_reused.inc();
                }
            }
        }
        Err(error) => {
            counts.cx_connect_fail.inc();
            match error {
                ConnectError::TimedOut { .. } => counts.cx_connect_timeout.inc(),
                ConnectError::Tls { source, .. } => match verify::classify(source) {
                    HandshakeFailure::San => counts.ssl_fail_verify_san.inc(),
                    HandshakeFailure::Chain => counts.ssl_fail_verify_error.inc(),
                    HandshakeFailure::NoCertificate | HandshakeFailure::Connection => {
                        counts.ssl_connection_error.inc();
                    }
                },
                ConnectError::Refused { .. }
                | ConnectError::TlsUnready { .. }
                | ConnectError::Http { .. } => {}
            }
        }
    }
}
