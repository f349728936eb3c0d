// SPDX-License-Identifier: Apache-2.0
//! Checked certificates and trust bundles, and how a TLS context names them.

use crate::field;
use crate::field::Checked;
use crate::field::Refusal;
use crate::field::Under;
use crate::field::refuse;
use crate::proto::tls as proto;
use crate::proto::tls::secret::Type;
use crate::resource::Rejected;
use crate::tls;

/// A secret resource.
#[derive(Clone, PartialEq)]
pub struct Secret {
    /// Resource name.
    pub name: String,
    /// What it holds.
    pub value: SecretValue,
}

/// What a secret holds.
#[derive(Clone, PartialEq)]
pub enum SecretValue {
    /// A certificate chain and its key, PEM.
    Certificate {
        /// Leaf first.
        chain: String,
        /// PKCS#8.
        key: String,
    },
    /// Trusted roots, PEM. Revocation lists may stand among them.
    TrustBundle(String),
}

/// Key material never reaches a log.
impl std::fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SecretValue::Certificate { .. } => "certificate",
            SecretValue::TrustBundle(_) => "trust bundle",
        })
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({}: {:?})", self.name, self.value)
    }
}

/// Where key material comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretSource {
    /// By name over ADS. A name `spiffe://<trust domain>/<path>` is an identity (our proxy asks for it with a CSR of
    /// its own), a bare `spiffe://<trust domain>` a trust bundle.
    Ads(String),
    /// By name over an SDS socket of its own (`unix` path of the cluster named in the bootstrap).
    Sds {
        /// Secret name.
        name: String,
        /// Static cluster that serves it.
        cluster: String,
    },
    /// A certificate pair from files.
    CertificateFiles {
        /// PEM chain.
        chain: String,
        /// PEM key.
        key: String,
    },
    /// A trust bundle from a file.
    TrustFile(String),
}

/// How a peer's certificate is checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Validation {
    /// Roots.
    pub trust: SecretSource,
    /// One SAN must match one of these; empty accepts any SAN.
    pub subject_alt_names: Vec<SanMatch>,
}

/// One accepted subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SanMatch {
    /// DNS name (a wildcard certificate matches).
    Dns(String),
    /// URI, exact.
    Uri(String),
    /// IP address literal.
    Ip(String),
}

impl Secret {
    /// As Envoy reads it, the key in the clear: for a stream that only its owner can read.
    pub fn encode(&self) -> proto::Secret {
        let value = match &self.value {
            SecretValue::Certificate { chain, key } => {
                Type::TlsCertificate(proto::TlsCertificate {
                    certificate_chain: Some(field::inline(chain)),
                    private_key: Some(field::inline(key)),
                    ..Default::default()
                })
            }
            SecretValue::TrustBundle(roots) => {
                Type::ValidationContext(proto::CertificateValidationContext {
                    trusted_ca: Some(field::inline(roots)),
                    ..Default::default()
                })
            }
        };
        proto::Secret {
            name: self.name.clone(),
            r#type: Some(value),
        }
    }

    /// Checks a secret. That its PEM holds what it should is seen where it is first used, by the TLS library.
    pub fn decode(secret: proto::Secret) -> Result<Secret, Rejected> {
        let name = secret.name.clone();
        Secret::check(secret).map_err(|refusal| refusal.of(&name))
    }

    fn check(secret: proto::Secret) -> Checked<Secret> {
        let proto::Secret { name, r#type } = secret;
        let value = match r#type {
            Some(Type::TlsCertificate(certificate)) => {
                check_certificate(certificate).under("tls_certificate")?
            }
            Some(Type::ValidationContext(context)) => {
                check_bundle(context).under("validation_context")?
            }
            Some(Type::SessionTicketKeys(_)) => {
                return Err(Refusal::unsupported("session_ticket_keys"));
            }
            Some(Type::GenericSecret(_)) => return Err(Refusal::unsupported("generic_secret")),
            None => return Err(Refusal::missing("tls_certificate")),
        };
        Ok(Secret {
            name: field::not_empty("name", name)?,
            value,
        })
    }
}

fn check_certificate(certificate: proto::TlsCertificate) -> Checked<SecretValue> {
    let proto::TlsCertificate {
        certificate_chain,
        private_key,
        pkcs12,
        watched_directory,
        private_key_provider,
        password,
        ocsp_staple,
        signed_certificate_timestamp,
        tls_params,
    } = certificate;
    refuse!(
        pkcs12,
        watched_directory,
        private_key_provider,
        password,
        ocsp_staple,
        signed_certificate_timestamp,
        tls_params,
    );
    Ok(SecretValue::Certificate {
        chain: field::inline_text("certificate_chain", certificate_chain)?,
        key: field::inline_text("private_key", private_key)?,
    })
}

fn check_bundle(context: proto::CertificateValidationContext) -> Checked<SecretValue> {
    let tls::Context { roots, crl, names } = tls::decode_context(context)?;
    if !names.is_empty() {
        return Err(Refusal::new(
            "match_typed_subject_alt_names",
            "must stand in the TLS context, not in the bundle",
        ));
    }
    let mut bundle = field::inline_text("trusted_ca", roots)?;
    if let Some(crl) = crl {
        // Envoy takes lists from either field; here they are one text.
        bundle.push('\n');
        bundle.push_str(&field::inline_text("crl", Some(crl))?);
    }
    Ok(SecretValue::TrustBundle(bundle))
}
