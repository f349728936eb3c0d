// SPDX-License-Identifier: Apache-2.0
//! Certificates for tests, and TLS contexts that name them.

use std::sync::Arc;

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
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::SanType;

pub(crate) const TRUST: &str = "spiffe://test";

/// An authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A leaf with these URIs and nothing else.
    pub(crate) fn leaf(&self, uris: &[&str]) -> SecretValue {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let uri = |uri: &&str| SanType::URI((*uri).try_into().unwrap());
        params.subject_alt_names = uris.iter().map(uri).collect();
        let key = KeyPair::generate().unwrap();
        let chain = params.signed_by(&key, &self.issuer).unwrap().pem();
        SecretValue::Certificate {
            chain,
            key: key.serialize_pem(),
        }
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
