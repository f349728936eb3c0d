// SPDX-License-Identifier: Apache-2.0
//! Peer certificates: the chain by webpki, the name by hand. rustls' own verifier insists on a DNS or IP name and so
//! fails every SPIFFE certificate; the rule here is that one SAN equals one of the accepted ones. Revocation lists fail
//! closed as Envoy's do: where there are any, every certificate of a chain needs one that is in date and does not name it.

use std::sync::Arc;
use std::time::Duration;

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
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::TrustAnchor;
use rustls::pki_types::UnixTime;
use rustls::server::danger::ClientCertVerified;
use rustls::server::danger::ClientCertVerifier;
use webpki::CertRevocationList;
use webpki::EndEntityCert;
use webpki::ExpirationPolicy;
use webpki::KeyUsage;
use webpki::OwnedCertRevocationList;
use webpki::RevocationCheckDepth;
use webpki::RevocationOptionsBuilder;
use webpki::UnknownStatusPolicy;

use super::provider;

/// Whom the trusted roots and their revocation lists are from.
#[derive(Debug)]
pub struct Trust {
    /// At least one; each was checked to be usable as a root.
    pub roots: Vec<CertificateDer<'static>>,
    /// None, or at least one for every issuer.
    pub lists: Vec<CertificateRevocationListDer<'static>>,
}

/// Which end of the connection the peers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// They connect to us.
    Client,
    /// We connect to them.
    Server,
}

/// Which peers are accepted: roots, revocation lists and names.
#[derive(Debug)]
pub struct Peers {
    trust: Trust,
    anchors: Vec<TrustAnchor<'static>>,
    lists: Vec<CertRevocationList<'static>>,
    names: Vec<SanMatch>,
    role: Role,
}

impl Peers {
    /// An empty list of names accepts any name. The error says what is wrong with a root or a list.
    pub(super) fn new(trust: Trust, names: Vec<SanMatch>, role: Role) -> Result<Peers, String> {
        let anchor = |root: &CertificateDer<'static>| {
            webpki::anchor_from_trusted_cert(root)
                .map(|anchor| anchor.to_owned())
                .map_err(|error| format!("a root that cannot be trusted: {error}"))
        };
        let list = |list: &CertificateRevocationListDer<'static>| {
            OwnedCertRevocationList::from_der(list)
                .map(CertRevocationList::from)
                .map_err(|error| format!("a revocation list that cannot be used: {error}"))
        };
        Ok(Peers {
            anchors: trust.roots.iter().map(anchor).collect::<Result<_, _>>()?,
            lists: trust.lists.iter().map(list).collect::<Result<_, _>>()?,
            trust,
            names,
            role,
        })
    }

    pub(super) fn of_clients(self: &Arc<Peers>, mandatory: bool) -> Clients {
        Clients {
            peers: Arc::clone(self),
            mandatory,
            hints: Vec::new(),
        }
    }

    /// Whether both know the same revocations.
    pub(super) fn same_lists(&self, other: &Peers) -> bool {
        self.trust.lists == other.trust.lists
    }

    /// Whether a chain that was good at `then` has been revoked since. Roots that have gone, names that have changed and
    /// certificates that have run out end no connection: those who rotate keep theirs.
    pub(super) fn revokes(&self, chain: &[CertificateDer<'_>], then: UnixTime) -> bool {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return false;
        };
        !self.lists.is_empty()
            && matches!(
                self.check(leaf, intermediates, then),
                Err(Error::InvalidCertificate(CertificateError::Revoked))
            )
    }

    /// Chain, use and name.
    pub(super) fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let certificate = EndEntityCert::try_from(leaf).map_err(refused)?;
        let lists: Vec<&CertRevocationList<'_>> = self.lists.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        let usage = match self.role {
            Role::Client => KeyUsage::client_auth(),
            Role::Server => KeyUsage::server_auth(),
        };
        let checked = certificate.verify_for_usage(
            provider().signature_verification_algorithms.all,
            &self.anchors,
            intermediates,
            now,
            usage,
            revocation,
            None,
        );
        match checked {
            Ok(_) => {}
            Err(error) if self.trust.roots.iter().any(|root| **root == **leaf) => {
                self.check_pinned(leaf, now).ok_or_else(|| refused(error))?;
            }
            Err(error) => return Err(refused(error)),
        }
        if names_several(&certificate) {
            return Err(Error::InvalidCertificate(CertificateError::NotValidForName));
        }
        if self.names.is_empty() || self.names.iter().any(|name| carries(&certificate, name)) {
            return Ok(());
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidForName))
    }

    /// A certificate that stands among the roots itself: self-signed, as `openssl req -x509` makes them, which Envoy
    /// accepted and webpki does not because they are authorities too.
    fn check_pinned(&self, leaf: &CertificateDer<'_>, now: UnixTime) -> Option<()> {
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf).ok()?;
        let at = i64::try_from(now.as_secs()).ok()?;
        let validity = parsed.validity();
        let in_time =
            (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&at);
        let usage = parsed.extended_key_usage().ok()?;
        let for_this = usage.is_none_or(|usage| {
            let usage = usage.value;
            usage.any
                || match self.role {
                    Role::Client => usage.client_auth,
                    Role::Server => usage.server_auth,
                }
        });
        (in_time && for_this).then_some(())
    }
}

/// A SPIFFE certificate with several URIs names nobody (X509-SVID 2).
fn names_several(leaf: &EndEntityCert<'_>) -> bool {
    leaf.valid_uri_names().count() > 1
        && leaf
            .valid_uri_names()
            .any(|uri| uri.starts_with("spiffe://"))
}

/// Whether one SAN of the certificate is this name.
fn carries(leaf: &EndEntityCert<'_>, name: &SanMatch) -> bool {
    match name {
        SanMatch::Uri(uri) => leaf.valid_uri_names().any(|carried| carried == uri),
        // A pattern on our side: the certificate has it written so, or a name it stands for.
        SanMatch::Dns(name) if name.starts_with("*.") => leaf
            .valid_dns_names()
            .any(|carried| carried.eq_ignore_ascii_case(name) || one_label_below(carried, name)),
        SanMatch::Dns(name) | SanMatch::Ip(name) => ServerName::try_from(name.as_str())
            .is_ok_and(|name| leaf.verify_is_valid_for_subject_name(&name).is_ok()),
    }
}

/// `a.apps.local` for `*.apps.local`, and neither `apps.local` nor `a.b.apps.local`.
fn one_label_below(name: &str, pattern: &str) -> bool {
    let parts = (name.split_once('.'), pattern.split_once('.'));
    let (Some((label, parent)), Some(("*", wanted))) = parts else {
        return false;
    };
    !label.is_empty() && parent.eq_ignore_ascii_case(wanted)
}

/// Now, as certificates are checked.
pub(super) fn now() -> UnixTime {
    UnixTime::since_unix_epoch(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO),
    )
}

fn refused(error: webpki::Error) -> Error {
    Error::InvalidCertificate(match error {
        webpki::Error::BadDer | webpki::Error::TrailingData(_) => CertificateError::BadEncoding,
        webpki::Error::CertExpired { .. } => CertificateError::Expired,
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::CertRevoked => CertificateError::Revoked,
        webpki::Error::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        webpki::Error::CrlExpired { .. } => CertificateError::ExpiredRevocationList,
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
        self.check(end_entity, intermediates, now)
            .map(|()| ServerCertVerified::assertion())
    }

    signatures!();
}

/// [`Peers`] as clients of a listener.
#[derive(Debug)]
pub(super) struct Clients {
    peers: Arc<Peers>,
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
            .check(end_entity, intermediates, now)
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
