// SPDX-License-Identifier: Apache-2.0
//! TLS configurations from secrets and files, built when configuration or key material changes and never per
//! connection. Called by `snapshot` (build), `listener` and `connect` (use). A changed secret makes a new
//! configuration for new connections; open connections keep theirs.

pub mod verify;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::SystemTime;

use pillion_xds::cluster::UpstreamTls;
use pillion_xds::listener::DownstreamTls;
use pillion_xds::secret::Secret;
use pillion_xds::secret::SecretSource;
use pillion_xds::secret::SecretValue;
use pillion_xds::secret::Validation;
use rustls::ClientConfig;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use verify::Peers;

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

/// What a configuration was built from, to tell whether it is still current.
#[derive(Clone, Debug)]
enum Input {
    Secret {
        name: String,
        value: Option<Arc<Secret>>,
    },
    File {
        path: PathBuf,
        stamp: Option<Stamp>,
    },
}

type Stamp = (SystemTime, u64);

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

/// Secrets by name.
pub type Secrets = BTreeMap<String, Arc<Secret>>;

/// A configuration, or why there is none yet, with what it was built from.
#[derive(Debug)]
pub struct Built<S, C> {
    source: S,
    inputs: Vec<Input>,
    /// The configuration.
    pub config: Result<Arc<C>, TlsError>,
}

/// TLS for a filter chain.
pub type ServerTls = Built<DownstreamTls, ServerConfig>;
/// TLS for a cluster.
pub type ClientTls = Built<UpstreamTls, ClientConfig>;

impl<S: PartialEq, C> Built<S, C> {
    /// Whether building again from `source` and `secrets` would give the same.
    pub fn is_current(&self, source: &S, secrets: &Secrets) -> bool {
        self.source == *source && self.inputs.iter().all(|input| input.is_current(secrets))
    }

    /// Whether a file it was built from has changed since.
    pub fn files_changed(&self) -> bool {
        self.inputs.iter().any(|input| match input {
            Input::File { path, stamp: then } => stamp(path) != *then,
            Input::Secret { .. } => false,
        })
    }
}

impl Input {
    fn is_current(&self, secrets: &Secrets) -> bool {
        match self {
            Input::File { path, stamp: then } => stamp(path) == *then,
            Input::Secret { name, value } => match (secrets.get(name), value) {
                (Some(now), Some(then)) => Arc::ptr_eq(now, then) || now == then,
                (None, None) => true,
                _ => false,
            },
        }
    }
}

/// Builds the server side.
pub fn server(source: &DownstreamTls, secrets: &Secrets) -> ServerTls {
    let mut reader = Reader {
        secrets,
        inputs: Vec::new(),
    };
    let config = server_config(source, &mut reader).map(Arc::new);
    Built {
        source: source.clone(),
        inputs: reader.inputs,
        config,
    }
}

/// Builds the client side. `alpn` is offered where the source names none.
pub fn client(source: &UpstreamTls, secrets: &Secrets, alpn: &[&str]) -> ClientTls {
    let mut reader = Reader {
        secrets,
        inputs: Vec::new(),
    };
    let config = client_config(source, &mut reader, alpn).map(Arc::new);
    Built {
        source: source.clone(),
        inputs: reader.inputs,
        config,
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
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Unsupported(format!("TLS versions: {error}")))?;
    let builder = match &source.validation {
        Some(validation) => {
            let peers = Peers::new(
                reader.trust(validation)?,
                validation.subject_alt_names.clone(),
            );
            builder.with_client_cert_verifier(Arc::new(
                peers.of_clients(source.require_client_certificate),
            ))
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
        .map_err(|error| TlsError::Malformed {
            source_name: name,
            why: format!("an unusable pair: {error}"),
        })?;
    config.alpn_protocols = protocols(&source.alpn, &[]);
    // Stateless tickets: a resumed session keeps the peer's verified identity and costs no memory here.
    if let Ok(ticketer) = rustls::crypto::aws_lc_rs::Ticketer::new() {
        config.ticketer = ticketer;
    }
    Ok(config)
}

fn client_config(
    source: &UpstreamTls,
    reader: &mut Reader<'_>,
    alpn: &[&str],
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Unsupported(format!("TLS versions: {error}")))?
        .dangerous();
    let builder = match &source.validation {
        Some(validation) => {
            let peers = Peers::new(
                reader.trust(validation)?,
                validation.subject_alt_names.clone(),
            );
            builder.with_custom_certificate_verifier(Arc::new(peers))
        }
        None => builder.with_custom_certificate_verifier(Arc::new(verify::Unchecked)),
    };
    let mut config = match &source.certificate {
        Some(certificate) => {
            let (chain, key, name) = reader.certificate(certificate)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| TlsError::Malformed {
                    source_name: name,
                    why: format!("an unusable pair: {error}"),
                })?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols(&source.alpn, alpn);
    config.enable_sni = source.sni.is_some();
    Ok(config)
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

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, String);

/// Reads key material and remembers what it read.
struct Reader<'s> {
    secrets: &'s Secrets,
    inputs: Vec<Input>,
}

impl Reader<'_> {
    fn certificate(&mut self, source: &SecretSource) -> Result<Pair, TlsError> {
        match source {
            SecretSource::Ads(name) => match self.secret(name)?.value {
                SecretValue::Certificate { ref chain, ref key } => Ok((
                    certificates(chain.as_bytes(), name)?,
                    private_key(key.as_bytes(), name)?,
                    name.clone(),
                )),
                SecretValue::TrustBundle(_) => Err(malformed(
                    name,
                    "a trust bundle where a certificate is wanted",
                )),
            },
            SecretSource::CertificateFiles { chain, key } => {
                let (certificate, secret) = (self.file(chain)?, self.file(key)?);
                Ok((
                    certificates(&certificate, chain)?,
                    private_key(&secret, key)?,
                    chain.clone(),
                ))
            }
            SecretSource::TrustFile(path) => Err(malformed(
                path,
                "a trust bundle where a certificate is wanted",
            )),
            SecretSource::Sds { name, cluster } => Err(sds(name, cluster)),
        }
    }

    fn trust(&mut self, validation: &Validation) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let (bytes, name) = match &validation.trust {
            SecretSource::Ads(name) => match self.secret(name)?.value {
                SecretValue::TrustBundle(ref bundle) => (bundle.clone().into_bytes(), name),
                SecretValue::Certificate { .. } => {
                    return Err(malformed(
                        name,
                        "a certificate where a trust bundle is wanted",
                    ));
                }
            },
            SecretSource::TrustFile(path) => (self.file(path)?, path),
            SecretSource::CertificateFiles { chain, .. } => {
                return Err(malformed(
                    chain,
                    "a certificate where a trust bundle is wanted",
                ));
            }
            SecretSource::Sds { name, cluster } => return Err(sds(name, cluster)),
        };
        let roots = certificates(&bytes, name)?;
        for root in &roots {
            webpki::anchor_from_trusted_cert(root).map_err(|error| {
                malformed(name, &format!("a root that cannot be trusted: {error}"))
            })?;
        }
        Ok(roots)
    }

    fn secret(&mut self, name: &str) -> Result<Arc<Secret>, TlsError> {
        let value = self.secrets.get(name).cloned();
        self.inputs.push(Input::Secret {
            name: name.to_owned(),
            value: value.clone(),
        });
        value.ok_or_else(|| TlsError::Pending {
            name: name.to_owned(),
        })
    }

    fn file(&mut self, path: &str) -> Result<Vec<u8>, TlsError> {
        let path = PathBuf::from(path);
        self.inputs.push(Input::File {
            stamp: stamp(&path),
            path: path.clone(),
        });
        std::fs::read(&path).map_err(|error: io::Error| TlsError::Unreadable {
            path,
            why: error.to_string(),
        })
    }
}

fn sds(name: &str, cluster: &str) -> TlsError {
    let why = format!(
        "secret {name} over SDS cluster {cluster}: only secrets over ADS and files are served"
    );
    TlsError::Unsupported(why)
}

fn malformed(source: &str, why: &str) -> TlsError {
    TlsError::Malformed {
        source_name: source.to_owned(),
        why: why.to_owned(),
    }
}

fn certificates(pem: &[u8], name: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| malformed(name, &format!("broken PEM: {error}")))?;
    if all.is_empty() {
        return Err(malformed(name, "no certificate (PEM, BEGIN CERTIFICATE)"));
    }
    Ok(all)
}

fn private_key(pem: &[u8], name: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| malformed(name, &format!("no private key: {error}")))
}

/// The first URI in a peer's certificate, for logs.
pub fn peer_uri(certificates: Option<&[CertificateDer<'_>]>) -> Option<String> {
    let leaf = webpki::EndEntityCert::try_from(certificates?.first()?).ok()?;
    leaf.valid_uri_names().next().map(str::to_owned)
}
