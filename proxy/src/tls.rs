// SPDX-License-Identifier: Apache-2.0
//! TLS configurations from secrets and files, built when configuration or key material changes and never per
//! connection. Called by `snapshot` (build), `listener` and `connect` (use). A changed secret makes a new
//! configuration for new connections; open connections keep theirs, unless a revocation list names their peer
//! (`standing`). Material that cannot be used never replaces material that can.

mod material;
pub mod session;
pub mod standing;
pub mod verify;

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;

use pillion_xds::cluster::UpstreamTls;
use pillion_xds::listener::DownstreamTls;
use pillion_xds::secret::Secret;
use pillion_xds::secret::SecretValue;
use rustls::ClientConfig;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsStream;

use crate::stream::Stream;
pub use material::Material;
pub use material::SDS_CLUSTER;
pub use material::Secrets;

use material::Input;
use material::Reader;
use material::certificates;
use material::malformed;
use material::private_key;
use material::stamp;
use material::trust_of;
use standing::Secure;
use standing::Standing;
use verify::Peers;
use verify::Role;

/// Why a TLS configuration could not be built.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TlsError {
    /// Not an error of the configuration: the secret has not come yet.
    #[error("secret {name} has not been delivered yet")]
    Pending {
        /// Secret name.
        name: String,
    },
    /// A file that cannot be read.
    #[error("read {}: {why}; the proxy must be able to read it", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// Bytes that are no certificate, key or bundle.
    #[error("{source_name} holds {why}")]
    Malformed {
        /// Secret name or file.
        source_name: String,
        /// What is wrong.
        why: String,
    },
    /// A source this proxy does not serve.
    #[error("{0}")]
    Unsupported(String),
}

impl TlsError {
    /// Whether the control plane will cure it by itself.
    pub fn is_pending(&self) -> bool {
        matches!(self, TlsError::Pending { .. })
    }
}

/// A configuration, or why there is none yet, with what it was built from.
#[derive(Debug)]
pub struct Built<S, C> {
    source: S,
    inputs: Vec<Input>,
    peers: Option<Arc<Peers>>,
    standing: Arc<Standing>,
    certificate: Option<CertificateDer<'static>>,
    /// The configuration.
    pub config: Result<Arc<C>, TlsError>,
    /// Why newer material is not in `config`, which is the last good one then.
    pub refused: Option<TlsError>,
}

/// TLS for a filter chain.
pub type ServerTls = Built<DownstreamTls, ServerConfig>;
/// TLS for a cluster.
pub type ClientTls = Built<UpstreamTls, ClientConfig>;

impl<S: PartialEq, C> Built<S, C> {
    /// Whether building again from `source` and `material` would give the same.
    pub fn is_current(&self, source: &S, material: Material<'_>) -> bool {
        self.source == *source && self.inputs.iter().all(|input| input.is_current(material))
    }

    /// What it was built from.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Whether a file it was built from has changed since.
    pub fn files_changed(&self) -> bool {
        self.inputs.iter().any(|input| match input {
            Input::File { path, stamp: then } => stamp(path) != *then,
            Input::Secret { .. } => false,
        })
    }

    /// Whether it was, or is to be, built from a file.
    pub fn wants_files(&self) -> bool {
        self.inputs
            .iter()
            .any(|input| matches!(input, Input::File { .. }))
    }

    /// The certificate that is shown, if any.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.certificate.as_ref()
    }

    /// The files it was built from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.inputs.iter().filter_map(|input| match input {
            Input::File { path, stamp } => stamp.is_some().then_some(path.as_path()),
            Input::Secret { .. } => None,
        })
    }

    /// A stream whose hands have been shaken under this configuration.
    pub fn admit(&self, stream: impl Into<TlsStream<Stream>>) -> io::Result<Secure> {
        let stream = stream.into();
        let member = self
            .standing
            .admit(stream.get_ref().1, self.peers.as_ref())?;
        Ok(Secure::new(stream, member))
    }

    /// What was built, or what stood before if the source is the same and its new material is of no use.
    fn settle(
        source: S,
        reader: Reader<'_>,
        built: Result<(C, Option<Arc<Peers>>), TlsError>,
        before: Option<&Built<S, C>>,
    ) -> Built<S, C> {
        let standing = before.map_or_else(Arc::default, |before| Arc::clone(&before.standing));
        let (config, peers, certificate, refused) = match built {
            Ok((config, peers)) => (Ok(Arc::new(config)), peers, reader.certificate, None),
            Err(error) => match before.filter(|before| before.source == source) {
                Some(before) if before.config.is_ok() && !error.is_pending() => (
                    before.config.clone(),
                    before.peers.clone(),
                    before.certificate.clone(),
                    Some(error),
                ),
                _ => (Err(error), None, None, None),
            },
        };
        let closed = standing.follow(peers.clone());
        if closed > 0 {
            tracing::warn!(closed, "connections of revoked peers closed");
        }
        Built {
            source,
            inputs: reader.inputs,
            peers,
            standing,
            certificate,
            config,
            refused,
        }
    }
}

/// Builds the server side.
pub fn server(
    source: &DownstreamTls,
    material: Material<'_>,
    before: Option<&ServerTls>,
) -> ServerTls {
    let mut reader = Reader::new(material);
    let built = server_config(source, &mut reader);
    Built::settle(source.clone(), reader, built, before)
}

/// Builds the client side. `alpn` is offered where the source names none.
pub fn client(
    source: &UpstreamTls,
    material: Material<'_>,
    alpn: &[&str],
    before: Option<&ClientTls>,
) -> ClientTls {
    let mut reader = Reader::new(material);
    let built = client_config(source, &mut reader, alpn);
    Built::settle(source.clone(), reader, built, before)
}

/// Whether a secret that has come can be used at all: PEM that parses, a key that fits, roots that can be trusted.
pub fn check(secret: &Secret) -> Result<(), TlsError> {
    let name = &secret.name;
    match &secret.value {
        SecretValue::Certificate { chain, key } => {
            let chain = certificates(chain.as_bytes(), name)?;
            let key = private_key(key.as_bytes(), name)?;
            CertifiedKey::from_der(chain, key, &provider())
                .map(drop)
                .map_err(|error| malformed(name, &format!("an unusable pair: {error}")))
        }
        SecretValue::TrustBundle(bundle) => {
            let trust = trust_of(bundle.as_bytes(), name)?;
            Peers::new(trust, Vec::new(), Role::Server)
                .map(drop)
                .map_err(|why| malformed(name, &why))
        }
    }
}

/// The one cryptography provider of this process.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}

fn server_config(
    source: &DownstreamTls,
    reader: &mut Reader<'_>,
) -> Result<(ServerConfig, Option<Arc<Peers>>), TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Unsupported(format!("TLS versions: {error}")))?;
    let peers = reader.peers(source.validation.as_ref(), Role::Client)?;
    let builder = match &peers {
        Some(peers) => {
            let clients = peers.of_clients(source.require_client_certificate);
            builder.with_client_cert_verifier(Arc::new(clients))
        }
        None if source.require_client_certificate => {
            let why = "require_client_certificate needs a validation_context with trusted roots to check against";
            return Err(TlsError::Unsupported(why.to_owned()));
        }
        None => builder.with_no_client_auth(),
    };
    let (chain, key, name) = reader.certificate(&source.certificate)?;
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| malformed(&name, &format!("an unusable pair: {error}")))?;
    config.alpn_protocols = protocols(&source.alpn, &[]);
    // Stateless tickets: a resumed session keeps the peer's verified identity and costs no memory here.
    if let Ok(ticketer) = rustls::crypto::aws_lc_rs::Ticketer::new() {
        config.ticketer = ticketer;
    }
    Ok((config, peers))
}

fn client_config(
    source: &UpstreamTls,
    reader: &mut Reader<'_>,
    alpn: &[&str],
) -> Result<(ClientConfig, Option<Arc<Peers>>), TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Unsupported(format!("TLS versions: {error}")))?
        .dangerous();
    let peers = reader.peers(source.validation.as_ref(), Role::Server)?;
    let builder = match &peers {
        Some(peers) => builder.with_custom_certificate_verifier(Arc::clone(peers) as _),
        None => builder.with_custom_certificate_verifier(Arc::new(verify::Unchecked)),
    };
    let mut config = match &source.certificate {
        Some(certificate) => {
            let (chain, key, name) = reader.certificate(certificate)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| malformed(&name, &format!("an unusable pair: {error}")))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols(&source.alpn, alpn);
    config.enable_sni = source.sni.is_some();
    Ok((config, peers))
}

fn protocols(said: &[String], otherwise: &[&str]) -> Vec<Vec<u8>> {
    if said.is_empty() {
        return otherwise
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
    }
    said.iter().map(|name| name.as_bytes().to_vec()).collect()
}
