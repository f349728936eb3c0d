// SPDX-License-Identifier: Apache-2.0
//! The certificate authority: it signs 24-hour leaves with what the ring of keys ([`super::keyring`]) has. Called by the signer, by `publish.rs` for Envoy's secrets and by `ads.rs` for the server's own certificate.
//! Does no I/O: whoever starts it hands the root in and stores a new one.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use arc_swap::ArcSwap;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::CertificateSigningRequestParams;
use rcgen::DistinguishedName;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rcgen::PublicKeyData;
use rcgen::SanType;
use rcgen::SerialNumber;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::watch;

use crate::identity::Subject;
use crate::identity::keyring::Keyring;
use crate::identity::keyring::RootMaterial;

/// Of a leaf; renewed at half of it (design 5).
pub const LEAF_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// A leaf is valid this much earlier, for clocks that run behind ours.
const CLOCK_SLACK: Duration = Duration::from_secs(300);
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// A P-256 CSR is half a kilobyte; parsing more is work done for a stranger.
const MAX_CSR_BYTES: usize = 16 * 1024;

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The key could not be made.
    #[error("make the root of the certificate authority")]
    Make(#[source] rcgen::Error),
    /// What the store holds is no root.
    #[error(
        "read the root of the certificate authority from the store: it is damaged, restore it from a backup"
    )]
    Load(#[source] rcgen::Error),
}

/// Why a certificate was not issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// More than anyone needs.
    #[error("certificate signing request of {0} bytes, at most {MAX_CSR_BYTES} are read")]
    TooLong(usize),
    /// Not a CSR, or not signed by the key it names.
    #[error(
        "read the certificate signing request: it must be PEM, PKCS#10, signed with its own key, without exotic extensions"
    )]
    Request(#[source] rcgen::Error),
    /// The subject cannot be written in a certificate.
    #[error("name {0:?} in a certificate: it has characters outside ASCII")]
    Name(String),
    /// Signing itself failed.
    #[error("sign a certificate for {0}")]
    Sign(String, #[source] rcgen::Error),
}

/// A signed certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Leaf first, PEM.
    pub chain: String,
    /// End of validity.
    pub not_after: SystemTime,
}

/// A certificate whose key we made as well, for clients that take their pair by SDS.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub issued: Issued,
    /// PKCS#8 PEM.
    pub key: String,
}

/// The authority, ready to sign with whatever its ring says.
pub struct Authority {
    trust_domain: String,
    current: ArcSwap<Signing>,
    changed: watch::Sender<()>,
}

/// What signs now, and what is trusted now.
struct Signing {
    issuer: Issuer<'static, KeyPair>,
    certificate: Arc<str>,
    /// After the leaf in a chain; empty where a root signs.
    chain: String,
    bundle: Arc<str>,
}

impl Signing {
    fn of(ring: &Keyring) -> Result<Signing, AuthorityError> {
        let material = &ring.signing;
        let key = KeyPair::from_pem(&material.key).map_err(AuthorityError::Load)?;
        let issuer =
            Issuer::from_ca_cert_pem(&material.certificate, key).map_err(AuthorityError::Load)?;
        Ok(Signing {
            issuer,
            certificate: material.certificate.as_str().into(),
            chain: match material.anchor {
                Some(_) => material.certificate.clone(),
                None => String::new(),
            },
            bundle: ring.bundle().into(),
        })
    }
}

impl RootMaterial {
    /// A new root.
    pub fn make(trust_domain: &str) -> Result<RootMaterial, AuthorityError> {
        let key =
            KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::Make)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&format!("Pillion root of {trust_domain}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(serial());
        let now = SystemTime::now();
        set_validity(&mut params, now, now + ROOT_LIFETIME);
        let certificate = params.self_signed(&key).map_err(AuthorityError::Make)?;
        Ok(RootMaterial {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            anchor: None,
        })
    }
}

impl Authority {
    /// Takes up what was made before.
    pub fn load(trust_domain: &str, ring: &Keyring) -> Result<Authority, AuthorityError> {
        Ok(Authority {
            trust_domain: trust_domain.to_owned(),
            current: ArcSwap::from_pointee(Signing::of(ring)?),
            changed: watch::Sender::new(()),
        })
    }

    /// Signs with another ring from now on; certificates that were signed before stay good while it trusts them.
    pub fn take_up(&self, ring: &Keyring) -> Result<(), AuthorityError> {
        self.current.store(Arc::new(Signing::of(ring)?));
        self.changed.send_replace(());
        Ok(())
    }

    /// Wakes when another ring was taken up.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Of whoever signs now, PEM.
    pub fn issuer(&self) -> Arc<str> {
        Arc::clone(&self.current.load().certificate)
    }

    /// The SPIFFE trust domain.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Roots that peers check certificates against, PEM.
    pub fn trust_bundle(&self) -> Arc<str> {
        Arc::clone(&self.current.load().bundle)
    }

    /// Signs the key of a CSR for `subject`. Whatever names the CSR asks for are not read: an identity is given, not claimed.
    pub fn sign(&self, csr: &str, subject: &Subject) -> Result<Issued, IssueError> {
        if csr.len() > MAX_CSR_BYTES {
            return Err(IssueError::TooLong(csr.len()));
        }
        let request =
            CertificateSigningRequestParams::from_pem(csr).map_err(IssueError::Request)?;
        self.leaf(&request.public_key, subject)
    }

    /// Makes a key and signs it for `subject`.
    pub fn issue(&self, subject: &Subject) -> Result<Pair, IssueError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|source| IssueError::Sign(subject.spiffe_id.clone(), source))?;
        let issued = self.leaf(&key, subject)?;
        Ok(Pair {
            issued,
            key: key.serialize_pem(),
        })
    }

    /// The TLS side of the xDS port: a fresh certificate for `names` (DNS names and IP literals), HTTP/2 only.
    pub fn server_config(&self, names: &[String]) -> Result<Arc<rustls::ServerConfig>, IssueError> {
        let sans = names
            .iter()
            .map(|name| san(name))
            .collect::<Result<Vec<_>, _>>()?;
        let fail = |source| IssueError::Sign("the xDS port".to_owned(), source);
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(fail)?;
        let issued = self.leaf_with(&key, "pillion-control-plane", sans)?;
        let chain = CertificateDer::pem_slice_iter(issued.chain.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .expect("a chain that was encoded a moment ago decodes");
        let key =
            PrivateKeyDer::try_from(key.serialize_der()).expect("rcgen serializes keys as PKCS#8");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        // A proxy may show the certificate it has; whoever shows none must prove themselves otherwise.
        let mut roots = rustls::RootCertStore::empty();
        let trusted = self.trust_bundle();
        let bundle = CertificateDer::pem_slice_iter(trusted.as_bytes());
        roots.add_parsable_certificates(bundle.flatten());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()
                .expect("the bundle holds our own root");
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the default provider speaks the default versions")
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .expect("the certificate was signed for this key");
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    fn leaf(&self, key: &impl PublicKeyData, subject: &Subject) -> Result<Issued, IssueError> {
        let mut sans = vec![SanType::URI(ia5(&subject.spiffe_id)?)];
        if let Some(hostname) = &subject.hostname {
            sans.push(san(hostname)?);
        }
        self.leaf_with(key, &subject.spiffe_id, sans)
    }

    fn leaf_with(
        &self,
        key: &impl PublicKeyData,
        name: &str,
        sans: Vec<SanType>,
    ) -> Result<Issued, IssueError> {
        let now = SystemTime::now();
        let not_after = now + LEAF_LIFETIME;
        let mut params = CertificateParams::default();
        // X.520 bounds a common name to 64 characters; the identity itself is the URI.
        let last: String = name
            .rsplit('/')
            .next()
            .unwrap_or(name)
            .chars()
            .take(64)
            .collect();
        params.distinguished_name = common_name(&last);
        params.subject_alt_names = sans;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial());
        set_validity(&mut params, now, not_after);
        let signing = self.current.load();
        let leaf = params
            .signed_by(key, &signing.issuer)
            .map_err(|source| IssueError::Sign(name.to_owned(), source))?;
        Ok(Issued {
            chain: leaf.pem() + &signing.chain,
            not_after,
        })
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// RFC 5280, 4.1.2.2: positive, unique, at most 20 octets.
fn serial() -> SerialNumber {
    let mut octets: [u8; 16] = rand::random();
    octets[0] = (octets[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&octets)
}

/// Sets the validity. rcgen's dates come from a crate that we need for nothing else, hence the sum from the epoch.
fn set_validity(params: &mut CertificateParams, now: SystemTime, not_after: SystemTime) {
    let since_epoch = |at: SystemTime| {
        Duration::from_secs(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    };
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(now - CLOCK_SLACK);
    params.not_after = epoch + since_epoch(not_after);
}

fn ia5(text: &str) -> Result<rcgen::string::Ia5String, IssueError> {
    rcgen::string::Ia5String::try_from(text).map_err(|_| IssueError::Name(text.to_owned()))
}

fn san(name: &str) -> Result<SanType, IssueError> {
    match name.parse::<IpAddr>() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => Ok(SanType::DnsName(ia5(name)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::extensions::GeneralName;
    use x509_parser::pem::parse_x509_pem;

    fn ring() -> Keyring {
        Keyring::new(RootMaterial::make("pillion.local").unwrap())
    }

    fn authority() -> Authority {
        Authority::load("pillion.local", &ring()).unwrap()
    }

    fn subject() -> Subject {
        Subject {
            spiffe_id: "spiffe://pillion.local/mesh/m/virtualNode/web".into(),
            hostname: Some("web.local".into()),
        }
    }

    fn names(chain: &str) -> Vec<String> {
        let (_, pem) = parse_x509_pem(chain.as_bytes()).unwrap();
        let leaf = pem.parse_x509().unwrap();
        let sans = leaf.subject_alternative_name().unwrap().unwrap();
        let mut names: Vec<String> = Vec::new();
        for name in &sans.value.general_names {
            names.push(match name {
                GeneralName::DNSName(text) | GeneralName::URI(text) => (*text).to_owned(),
                GeneralName::IPAddress(octets) => format!("{octets:?}"),
                other => panic!("unexpected {other:?}"),
            });
        }
        names
    }

    fn csr(sans: Vec<String>) -> String {
        let key = KeyPair::generate().unwrap();
        CertificateParams::new(sans)
            .unwrap()
            .serialize_request(&key)
            .unwrap()
            .pem()
            .unwrap()
    }

    #[test]
    fn a_leaf_carries_the_names_of_its_subject_and_none_that_the_request_asked_for() {
        let authority = authority();
        let issued = authority
            .sign(&csr(vec!["payments.local".into()]), &subject())
            .unwrap();
        assert_eq!(
            names(&issued.chain),
            ["spiffe://pillion.local/mesh/m/virtualNode/web", "web.local"]
        );
    }

    #[test]
    fn an_ip_literal_becomes_an_ip_name() {
        let authority = authority();
        let subject = Subject {
            hostname: Some("127.0.1.2".into()),
            ..subject()
        };
        assert_eq!(
            names(&authority.issue(&subject).unwrap().issued.chain)[1],
            "[127, 0, 1, 2]"
        );
    }

    #[test]
    fn a_request_that_was_tampered_with_is_refused() {
        let authority = authority();
        let mut der = pem_body(&csr(vec![]));
        let last = der.len() - 1;
        der[last] ^= 1;
        let forged = to_pem("CERTIFICATE REQUEST", &der);
        assert!(matches!(
            authority.sign(&forged, &subject()),
            Err(IssueError::Request(_))
        ));
        assert!(matches!(
            authority.sign("garbage", &subject()),
            Err(IssueError::Request(_))
        ));
        assert!(matches!(
            authority.sign(&"x".repeat(MAX_CSR_BYTES + 1), &subject()),
            Err(IssueError::TooLong(_))
        ));
    }

    #[test]
    fn a_root_from_the_store_signs_what_the_old_bundle_verifies() {
        let ring = ring();
        let first = Authority::load("pillion.local", &ring).unwrap();
        let again = Authority::load("pillion.local", &ring).unwrap();
        let issued = again.issue(&subject()).unwrap().issued;
        let (_, root) = parse_x509_pem(first.trust_bundle().as_bytes()).unwrap();
        let (_, leaf) = parse_x509_pem(issued.chain.as_bytes()).unwrap();
        let root = root.parse_x509().unwrap();
        assert!(root.is_ca());
        leaf.parse_x509()
            .unwrap()
            .verify_signature(Some(root.public_key()))
            .unwrap();
    }

    #[test]
    fn a_damaged_root_is_an_error_that_says_what_to_do() {
        let root = RootMaterial {
            certificate: "x".into(),
            key: "y".into(),
            anchor: None,
        };
        let error = Authority::load("pillion.local", &Keyring::new(root))
            .err()
            .unwrap();
        assert!(error.to_string().contains("restore it from a backup"));
    }

    fn pem_body(pem: &str) -> Vec<u8> {
        let (_, pem) = parse_x509_pem(pem.as_bytes()).unwrap();
        pem.contents
    }

    fn to_pem(label: &str, der: &[u8]) -> String {
        use base64::Engine;
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    }
}
