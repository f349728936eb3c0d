// SPDX-License-Identifier: Apache-2.0
//! Peer certificates: the chain by webpki, the name by hand. rustls' own verifier insists on a DNS or IP name and so
//! fails every SPIFFE certificate; the rule here is that one SAN equals one of the accepted ones.

use std::sync::Arc;

use pillion_xds::secret::SanMatch;
use rustls::CertificateError;
use rustls::DigitallySignedStruct;
use rustls::DistinguishedName;
use rustls::Error;
use rustls::OtherError;
use rustls::SignatureScheme;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::TrustAnchor;
use rustls::pki_types::UnixTime;
use rustls::server::danger::ClientCertVerified;
use rustls::server::danger::ClientCertVerifier;
use webpki::EndEntityCert;
use webpki::KeyUsage;

use super::provider;

/// Which peers are accepted: roots and names.
#[derive(Debug)]
pub struct Peers {
    anchors: Vec<TrustAnchor<'static>>,
    names: Vec<SanMatch>,
}

impl Peers {
    /// From roots that were checked to be roots; an empty list of names accepts any name.
    pub(super) fn new(roots: Vec<CertificateDer<'static>>, names: Vec<SanMatch>) -> Peers {
        let anchor = |root: CertificateDer<'static>| {
            webpki::anchor_from_trusted_cert(&root)
                .map(|anchor| anchor.to_owned())
                .ok()
        };
        Peers {
            anchors: roots.into_iter().filter_map(anchor).collect(),
            names,
        }
    }

    pub(super) fn of_clients(self, mandatory: bool) -> Clients {
        Clients {
            peers: self,
            mandatory,
            hints: Vec::new(),
        }
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        let leaf = EndEntityCert::try_from(leaf).map_err(refused)?;
        leaf.verify_for_usage(
            provider().signature_verification_algorithms.all,
            &self.anchors,
            intermediates,
            now,
            usage,
            None,
            None,
        )
        .map_err(refused)?;
        if self.names.is_empty() || self.names.iter().any(|name| carries(&leaf, name)) {
            return Ok(());
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidForName))
    }
}

/// Whether one SAN of the certificate is this name. A SPIFFE certificate with several URIs names nobody (X509-SVID 2).
fn carries(leaf: &EndEntityCert<'_>, name: &SanMatch) -> bool {
    match name {
        SanMatch::Uri(uri) => {
            let spiffe = uri.starts_with("spiffe://");
            (!spiffe || leaf.valid_uri_names().count() == 1)
                && leaf.valid_uri_names().any(|carried| carried == uri)
        }
        SanMatch::Dns(name) | SanMatch::Ip(name) => ServerName::try_from(name.as_str())
            .is_ok_and(|name| leaf.verify_is_valid_for_subject_name(&name).is_ok()),
    }
}

fn refused(error: webpki::Error) -> Error {
    Error::InvalidCertificate(match error {
        webpki::Error::BadDer | webpki::Error::TrailingData(_) => CertificateError::BadEncoding,
        webpki::Error::CertExpired { .. } => CertificateError::Expired,
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::CertNotValidForName(_) => CertificateError::NotValidForName,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    })
}

macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &provider().signature_verification_algorithms;
            rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &provider().signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            provider()
                .signature_verification_algorithms
                .supported_schemes()
        }
    };
}

impl ServerCertVerifier for Peers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates, now, KeyUsage::server_auth())
            .map(|()| ServerCertVerified::assertion())
    }

    signatures!();
}

/// [`Peers`] as clients of a listener.
#[derive(Debug)]
pub(super) struct Clients {
    peers: Peers,
    mandatory: bool,
    hints: Vec<DistinguishedName>,
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    // No hints: a client has one identity here and needs no help to choose; the hello stays small.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.peers
            .check(end_entity, intermediates, now, KeyUsage::client_auth())
            .map(|()| ClientCertVerified::assertion())
    }

    signatures!();
}

/// Encrypts to whoever answers: what App Mesh did without a client policy. The key must still be the certificate's.
#[derive(Debug)]
pub(super) struct Unchecked;

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}

/// What a failed handshake counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// The peer's name was not accepted.
    San,
    /// The peer's chain was not accepted.
    Chain,
    /// The peer sent no certificate.
    NoCertificate,
    /// Anything else: alerts, garbage, a closed socket.
    Connection,
}

/// Sorts a handshake's I/O error.
pub fn classify(error: &std::io::Error) -> HandshakeFailure {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>())
    {
        Some(Error::InvalidCertificate(CertificateError::NotValidForName)) => HandshakeFailure::San,
        Some(Error::InvalidCertificate(_)) => HandshakeFailure::Chain,
        Some(Error::NoCertificatesPresented) => HandshakeFailure::NoCertificate,
        _ => HandshakeFailure::Connection,
    }
}
