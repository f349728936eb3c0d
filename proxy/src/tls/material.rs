// SPDX-License-Identifier: Apache-2.0
//! Where certificates, keys and roots are read from, and what was read, so that a change is seen. Called by `tls`, which
//! makes configurations of it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use pillion_xds::secret::Secret;
use pillion_xds::secret::SecretSource;
use pillion_xds::secret::SecretValue;
use pillion_xds::secret::Validation;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use super::TlsError;
use super::verify::Peers;
use super::verify::Role;
use super::verify::Trust;

/// Secrets by name.
pub type Secrets = BTreeMap<String, Arc<Secret>>;

/// The static cluster of App Mesh's bootstrap that `APPMESH_SDS_SOCKET_PATH` stood behind.
pub const SDS_CLUSTER: &str = "static_cluster_sds_unix_socket";

/// Secrets by where they came from.
#[derive(Clone, Copy, Debug)]
pub struct Material<'s> {
    /// From the control plane, and this proxy's identity.
    pub ads: &'s Secrets,
    /// From the SDS socket; `None` where none is configured.
    pub socket: Option<&'s Secrets>,
}

impl Material<'_> {
    /// A name over ADS that the socket serves as well is the socket's: whoever sets one wants its identities.
    fn get(&self, source: &SecretSource) -> Option<Arc<Secret>> {
        let over_socket = |name: &String| self.socket.and_then(|secrets| secrets.get(name));
        match source {
            SecretSource::Ads(name) => over_socket(name).or_else(|| self.ads.get(name)),
            SecretSource::Sds { name, .. } => over_socket(name),
            SecretSource::CertificateFiles { .. } | SecretSource::TrustFile(_) => None,
        }
        .cloned()
    }
}

/// What a configuration was built from, to tell whether it is still current.
#[derive(Clone, Debug)]
pub(super) enum Input {
    Secret {
        source: SecretSource,
        value: Option<Arc<Secret>>,
    },
    File {
        path: PathBuf,
        stamp: Option<Stamp>,
    },
}

type Stamp = (SystemTime, u64);

pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

impl Input {
    pub(super) fn is_current(&self, material: Material<'_>) -> bool {
        match self {
            Input::File { path, stamp: then } => stamp(path) == *then,
            Input::Secret { source, value } => match (material.get(source), value) {
                (Some(now), Some(then)) => Arc::ptr_eq(&now, then) || now == *then,
                (None, None) => true,
                _ => false,
            },
        }
    }
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, String);

/// Reads key material and remembers what it read.
pub(super) struct Reader<'s> {
    material: Material<'s>,
    pub(super) inputs: Vec<Input>,
    pub(super) certificate: Option<CertificateDer<'static>>,
}

impl Reader<'_> {
    pub(super) fn new(material: Material<'_>) -> Reader<'_> {
        Reader {
            material,
            inputs: Vec::new(),
            certificate: None,
        }
    }

    pub(super) fn certificate(&mut self, source: &SecretSource) -> Result<Pair, TlsError> {
        let (chain, key, name) = match source {
            SecretSource::Ads(name) | SecretSource::Sds { name, .. } => {
                match &self.secret(source, name)?.value {
                    SecretValue::Certificate { chain, key } => (
                        certificates(chain.as_bytes(), name)?,
                        private_key(key.as_bytes(), name)?,
                        name,
                    ),
                    SecretValue::TrustBundle(_) => return Err(malformed(name, NO_CERTIFICATE)),
                }
            }
            SecretSource::CertificateFiles { chain, key } => {
                let (certificate, secret) = (self.file(chain)?, self.file(key)?);
                (
                    certificates(&certificate, chain)?,
                    private_key(&secret, key)?,
                    chain,
                )
            }
            SecretSource::TrustFile(path) => return Err(malformed(path, NO_CERTIFICATE)),
        };
        self.certificate = chain.first().cloned();
        Ok((chain, key, name.clone()))
    }

    pub(super) fn peers(
        &mut self,
        validation: Option<&Validation>,
        role: Role,
    ) -> Result<Option<Arc<Peers>>, TlsError> {
        let Some(validation) = validation else {
            return Ok(None);
        };
        let (trust, name) = match &validation.trust {
            SecretSource::Ads(name) | SecretSource::Sds { name, .. } => {
                match &self.secret(&validation.trust, name)?.value {
                    SecretValue::TrustBundle(bundle) => (trust_of(bundle.as_bytes(), name)?, name),
                    SecretValue::Certificate { .. } => return Err(malformed(name, NO_BUNDLE)),
                }
            }
            SecretSource::TrustFile(path) => (self.trust_files(path)?, path),
            SecretSource::CertificateFiles { chain, .. } => {
                return Err(malformed(chain, NO_BUNDLE));
            }
        };
        let peers = Peers::new(trust, validation.subject_alt_names.clone(), role)
            .map_err(|why| malformed(name, &why))?;
        Ok(Some(Arc::new(peers)))
    }

    /// Roots, and the revocation lists that stand among them or beside them in `<bundle>.crl`.
    fn trust_files(&mut self, path: &str) -> Result<Trust, TlsError> {
        let mut trust = trust_of(&self.file(path)?, path)?;
        let beside = format!("{path}.crl");
        match self.file(&beside) {
            Ok(pem) => trust.lists.extend(lists(&pem, &beside)?),
            Err(_) if !Path::new(&beside).exists() => {}
            Err(error) => return Err(error),
        }
        Ok(trust)
    }

    fn secret(&mut self, source: &SecretSource, name: &str) -> Result<Arc<Secret>, TlsError> {
        if let SecretSource::Sds { cluster, .. } = source {
            if cluster != SDS_CLUSTER {
                let why = format!(
                    "secret {name} over SDS cluster {cluster}: the one there is, is {SDS_CLUSTER}"
                );
                return Err(TlsError::Unsupported(why));
            }
            if self.material.socket.is_none() {
                let why = format!(
                    "secret {name} comes over an SDS socket: set APPMESH_SDS_SOCKET_PATH to that of the SDS server (a SPIRE agent's)"
                );
                return Err(TlsError::Unsupported(why));
            }
        }
        let value = self.material.get(source);
        self.inputs.push(Input::Secret {
            source: source.clone(),
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

const NO_CERTIFICATE: &str = "a trust bundle where a certificate is wanted";
const NO_BUNDLE: &str = "a certificate where a trust bundle is wanted";

pub(super) fn malformed(source: &str, why: &str) -> TlsError {
    TlsError::Malformed {
        source_name: source.to_owned(),
        why: why.to_owned(),
    }
}

pub(super) fn certificates(
    pem: &[u8],
    name: &str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| malformed(name, &format!("broken PEM: {error}")))?;
    if all.is_empty() {
        return Err(malformed(name, "no certificate (PEM, BEGIN CERTIFICATE)"));
    }
    Ok(all)
}

/// Roots and revocation lists may stand in one text, as Envoy reads them.
pub(super) fn trust_of(pem: &[u8], name: &str) -> Result<Trust, TlsError> {
    Ok(Trust {
        roots: certificates(pem, name)?,
        lists: lists(pem, name)?,
    })
}

fn lists(pem: &[u8], name: &str) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    CertificateRevocationListDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| malformed(name, &format!("broken PEM: {error}")))
}

pub(super) fn private_key(pem: &[u8], name: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| malformed(name, &format!("no private key: {error}")))
}
