// SPDX-License-Identifier: Apache-2.0
//! Certificates for tests, and TLS contexts that name them.

use std::sync::Arc;
use std::time::Duration;

use pillion_proxy::tls::Secrets;
use pillion_xds::cluster::UpstreamTls;
use pillion_xds::listener::DownstreamTls;
use pillion_xds::secret::SanMatch;
use pillion_xds::secret::Secret;
use pillion_xds::secret::SecretSource;
use pillion_xds::secret::SecretValue;
use pillion_xds::secret::Validation;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::CertificateRevocationListParams;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::RevokedCertParams;
use rcgen::SanType;

pub(crate) const TRUST: &str = "spiffe://test";

/// An authority, or an intermediate of one.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
    /// What its leaves bring along.
    above: String,
}

/// A chain and its key, PEM.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Issued {
    pub(crate) fn secret(&self) -> SecretValue {
        SecretValue::Certificate {
            chain: self.chain.clone(),
            key: self.key.clone(),
        }
    }
}

pub(crate) fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

pub(crate) fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

impl Authority {
    pub(crate) fn new() -> Authority {
        Authority::named("test authority")
    }

    pub(crate) fn named(name: &str) -> Authority {
        let params = authority_params(name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority {
            issuer: Issuer::new(params, key),
            pem,
            above: String::new(),
        }
    }

    /// An authority below this one.
    pub(crate) fn intermediate(&self, adjust: impl FnOnce(&mut CertificateParams)) -> Authority {
        let mut params = authority_params("test intermediate");
        adjust(&mut params);
        let key = KeyPair::generate().unwrap();
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Authority {
            issuer: Issuer::new(params, key),
            above: format!("{pem}{}", self.above),
            pem,
        }
    }

    /// A leaf with what `adjust` says and nothing else.
    pub(crate) fn issue(&self, adjust: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        adjust(&mut params);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().pem();
        Issued {
            chain: format!("{leaf}{}", self.above),
            key: key.serialize_pem(),
        }
    }

    /// A leaf with these URIs and nothing else.
    pub(crate) fn leaf(&self, uris: &[&str]) -> SecretValue {
        self.issue(|params| params.subject_alt_names = uris.iter().map(|name| uri(name)).collect())
            .secret()
    }

    /// The revocation list of this authority.
    pub(crate) fn revoking(&self, serials: &[u64]) -> String {
        let now = std::time::SystemTime::now();
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: (*serial).into(),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        };
        CertificateRevocationListParams {
            this_update: (now - Duration::from_secs(3600)).into(),
            next_update: (now + Duration::from_secs(3600)).into(),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        }
        .signed_by(&self.issuer)
        .unwrap()
        .pem()
        .unwrap()
    }

    /// The trust bundle and an identity of this name.
    pub(crate) fn secrets(&self, identities: &[&str]) -> Secrets {
        let mut all = Secrets::new();
        put(&mut all, TRUST, SecretValue::TrustBundle(self.pem.clone()));
        for name in identities {
            put(&mut all, name, self.leaf(&[name]));
        }
        all
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    params
}

pub(crate) fn put(secrets: &mut Secrets, name: &str, value: SecretValue) {
    secrets.insert(
        name.to_owned(),
        Arc::new(Secret {
            name: name.to_owned(),
            value,
        }),
    );
}

fn trusting(uris: &[&str]) -> Validation {
    let subject_alt_names = uris
        .iter()
        .map(|uri| SanMatch::Uri((*uri).to_owned()))
        .collect();
    Validation {
        trust: SecretSource::Ads(TRUST.to_owned()),
        subject_alt_names,
    }
}

/// Server side as `identity`, admitting clients with these URIs (any with none).
pub(crate) fn server(identity: &str, clients: &[&str]) -> DownstreamTls {
    DownstreamTls {
        certificate: SecretSource::Ads(identity.to_owned()),
        validation: Some(trusting(clients)),
        require_client_certificate: true,
        alpn: vec!["h2".to_owned(), "http/1.1".to_owned()],
    }
}

/// Client side as `identity` (nobody with none), accepting a server with this URI.
pub(crate) fn client(identity: Option<&str>, server: &str) -> UpstreamTls {
    UpstreamTls {
        certificate: identity.map(|name| SecretSource::Ads(name.to_owned())),
        validation: Some(trusting(&[server])),
        sni: None,
        alpn: Vec::new(),
    }
}
