// SPDX-License-Identifier: Apache-2.0
//! Connections to endpoints: TCP, then TLS where the cluster says so, within the cluster's connect timeout. Called by
//! `http::client`, `http::tunnel` and `tcp`; the other half of the seam for simulated networks.

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
use crate::error::Failure;
use crate::error::Fault;
use crate::error::Flags;
use crate::error::Retry;
use crate::error::reset_text;
use crate::metrics::ClusterStats;
use crate::stream::Stream;
use crate::tls::TlsError;
use crate::tls::verify;
use crate::tls::verify::HandshakeFailure;

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

/// Connects to an endpoint of a cluster. `worker` is whose shard counts it.
pub async fn dial(
    cluster: &Cluster,
    endpoint: SocketAddr,
    worker: usize,
) -> Result<Stream, ConnectError> {
    let limit = cluster.config.connect_timeout;
    let counts = &cluster.state.stats.parts.at(worker).counts;
    let dialled = tokio::time::timeout(limit, async {
        let socket =
            TcpStream::connect(endpoint)
                .await
                .map_err(|source| ConnectError::Refused {
                    endpoint,
                    source: Arc::new(source),
                })?;
        // Small writes are whole messages here; latency is what Nagle would cost.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%endpoint, %error, "TCP_NODELAY not set");
        }
        secure(cluster, endpoint, Stream::Tcp(socket), worker).await
    });
    let result = dialled
        .await
        .unwrap_or(Err(ConnectError::TimedOut { endpoint, limit }));
    match &result {
        Ok(_) => counts.cx_total.inc(),
        Err(error) => {
            counts.cx_connect_fail.inc();
            if matches!(error, ConnectError::TimedOut { .. }) {
                counts.cx_connect_timeout.inc();
            }
            tracing::debug!(cluster = cluster.name(), %endpoint, reason = error.transport(), "connect failed");
        }
    }
    result
}

async fn secure(
    cluster: &Cluster,
    endpoint: SocketAddr,
    stream: Stream,
    worker: usize,
) -> Result<Stream, ConnectError> {
    let Some(tls) = &cluster.tls else {
        return Ok(stream);
    };
    let config = tls
        .config
        .as_ref()
        .map_err(|source| ConnectError::TlsUnready {
            cluster: cluster.name().to_owned(),
            source: source.clone(),
        })?;
    let named = cluster.config.tls.as_ref().and_then(|tls| tls.sni.clone());
    let name = named
        .and_then(|name| ServerName::try_from(name).ok())
        .unwrap_or_else(|| ServerName::IpAddress(endpoint.ip().into()));
    let counts = &cluster.state.stats.parts.at(worker).counts;
    match TlsConnector::from(Arc::clone(config))
        .connect(name, stream)
        .await
    {
        Ok(stream) => {
            counts.ssl_handshake.inc();
            if stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
                counts.ssl_session_reused.inc();
            }
            Ok(Stream::Tls(Box::new(stream.into())))
        }
        Err(source) => {
            count_failure(&cluster.state.stats, &source, worker);
            Err(ConnectError::Tls {
                endpoint,
                source: Arc::new(source),
            })
        }
    }
}

fn count_failure(stats: &ClusterStats, error: &io::Error, worker: usize) {
    let counts = &stats.parts.at(worker).counts;
    match verify::classify(error) {
        HandshakeFailure::San => counts.ssl_fail_verify_san.inc(),
        HandshakeFailure::Chain => counts.ssl_fail_verify_error.inc(),
        HandshakeFailure::NoCertificate | HandshakeFailure::Connection => {
            counts.ssl_connection_error.inc()
        }
    }
}
