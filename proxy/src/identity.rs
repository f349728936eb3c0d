// SPDX-License-Identifier: Apache-2.0
//! This proxy's own certificate: a P-256 key that never leaves this machine, a CSR signed by the control plane, renewal
//! at half-life. Published as the secret that TLS contexts name, so new connections take the new pair and open ones keep
//! theirs. Begins when the first TLS context asks for an identity. Knows nothing of how secrets are used.

use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use pillion_xds::secret::Secret;
use pillion_xds::secret::SecretValue;
use pillion_xds::signing::CertificateServiceClient;
use pillion_xds::signing::SignRequest;
use rand::Rng;
use rcgen::CertificateParams;
use rcgen::KeyPair;
use rcgen::PKCS_ECDSA_P256_SHA256;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;

use crate::state::StateDir;
use crate::xds::client::Control;
use crate::xds::join::Joined;

/// The control plane's answer to a CSR.
const SIGN_TIMEOUT: Duration = Duration::from_secs(10);
/// Waits between attempts grow from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// A certificate that lives shorter than this is still asked for only so often.
const SHORTEST: Duration = Duration::from_secs(1);
/// A certificate from disk must last this long to be worth a start.
const WORTH: Duration = Duration::from_secs(60);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No key or CSR could be made.
    #[error("make a key and a signing request")]
    Request(#[source] rcgen::Error),
    /// The authority does not sign.
    #[error("have the certificate signed: {:?}: {}", .0.code(), .0.message())]
    Signing(tonic::Status),
    /// The authority does not answer.
    #[error("no answer to the signing request within {} s", SIGN_TIMEOUT.as_secs())]
    TimedOut,
    /// What it sent is no certificate.
    #[error("the authority sent no certificate: {0}")]
    Malformed(String),
    /// It is for somebody else.
    #[error(
        "the certificate is for {found:?}, and TLS contexts ask for {wanted}; check the control plane's --trust-domain"
    )]
    Other {
        /// What contexts ask for.
        wanted: String,
        /// The URIs in the certificate.
        found: Vec<String>,
    },
}

/// A key with its certificate, and when that lives.
struct Pair {
    secret: Secret,
    not_before: SystemTime,
    not_after: SystemTime,
}

/// Keeps the identity that TLS contexts ask for, until the token fires.
pub struct Keeper {
    /// The node id, as in the stream.
    pub node_id: String,
    /// To the control plane.
    pub channel: Joined,
    /// Where pairs are published.
    pub control: Control,
    /// Where the pair stands between two lives of this process.
    pub state: Option<StateDir>,
}

impl Keeper {
    /// Runs until the token fires.
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(self.keep()).await;
    }

    async fn keep(&self) {
        let mut changes = self.control.changed.subscribe();
        let mut wanted = self.next_wanted(&mut changes, None).await;
        let mut held = self.take_from_disk(&wanted);
        let mut wait = BACKOFF.0;
        loop {
            let pause = match &held {
                Some(pair) => until_renewal(pair, SystemTime::now()),
                None => Duration::ZERO,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                other = self.next_wanted(&mut changes, Some(&wanted)) => {
                    wanted = other;
                    held = self.take_from_disk(&wanted);
                    continue;
                }
            }
            match self.obtain(&wanted).await {
                Ok(pair) => {
                    self.publish(&pair);
                    held = Some(pair);
                    wait = BACKOFF.0;
                }
                Err(error) => {
                    self.control.status.identity_failed();
                    let pause = wait.mul_f64(rand::rng().random_range(0.5..1.0));
                    let reason = crate::state::chain(&error);
                    tracing::warn!(
                        identity = wanted,
                        reason,
                        retry_in_s = pause.as_secs_f64(),
                        "no new certificate"
                    );
                    tokio::time::sleep(pause).await;
                    wait = (wait * 2).min(BACKOFF.1);
                }
            }
        }
    }

    /// The identity that is asked for, once it is another than `known`.
    async fn next_wanted(&self, changes: &mut watch::Receiver<u64>, known: Option<&str>) -> String {
        loop {
            changes.mark_unchanged();
            let wanted = self.control.applier.lock().identity();
            if let Some(wanted) = wanted
                && known != Some(wanted.as_str())
            {
                return wanted;
            }
            if changes.changed().await.is_err() {
                // We hold a sender ourselves, so this is never; waiting for ever is what "no change" means.
                std::future::pending::<()>().await;
            }
        }
    }

    async fn obtain(&self, wanted: &str) -> Result<Pair, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IdentityError::Request)?;
        let csr = CertificateParams::default()
            .serialize_request(&key)
            .map_err(IdentityError::Request)?;
        let csr_pem = csr.pem().map_err(IdentityError::Request)?;
        let request = SignRequest {
            node_id: self.node_id.clone(),
            csr_pem,
        };
        let mut authority = CertificateServiceClient::new(self.channel.clone());
        let response = tokio::time::timeout(SIGN_TIMEOUT, authority.sign(request))
            .await
            .map_err(|_| IdentityError::TimedOut)?
            .map_err(IdentityError::Signing)?;
        check(wanted, response.chain_pem, key.serialize_pem())
    }

    fn publish(&self, pair: &Pair) {
        let not_after = pair
            .not_after
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        tracing::info!(identity = pair.secret.name, not_after, "certificate in use");
        self.put(pair);
        if let (Some(state), SecretValue::Certificate { chain, key }) =
            (&self.state, &pair.secret.value)
            && let Err(error) = state.save_identity(&format!("{key}{chain}"))
        {
            tracing::warn!(
                error = crate::state::chain(&error),
                "the certificate was not saved"
            );
        }
    }

    fn put(&self, pair: &Pair) {
        let not_after = pair
            .not_after
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        self.control
            .status
            .identity_issued(i64::try_from(not_after).unwrap_or(i64::MAX));
        let mut applier = self.control.applier.lock();
        applier.put_identity(pair.secret.clone());
        self.control
            .status
            .set_pending(applier.pending(), applier.version());
    }

    /// The pair of an earlier life, if it is the one that is asked for and lives long enough.
    fn take_from_disk(&self, wanted: &str) -> Option<Pair> {
        let pem = self.state.as_ref()?.load_identity()?;
        let (key, chain) = pem.split_at(pem.find("-----BEGIN CERTIFICATE-----")?);
        let pair = check(wanted, chain.to_owned(), key.to_owned()).ok()?;
        if pair.not_after < SystemTime::now() + WORTH {
            return None;
        }
        self.put(&pair);
        Some(pair)
    }
}

/// Half of its life, give or take a tenth, so that a fleet does not renew in step.
fn until_renewal(pair: &Pair, now: SystemTime) -> Duration {
    let life = pair
        .not_after
        .duration_since(pair.not_before)
        .unwrap_or_default();
    let at = pair.not_before + life.mul_f64(rand::rng().random_range(0.45..0.55));
    at.duration_since(now).unwrap_or_default().max(SHORTEST)
}

/// That a chain is a certificate for the identity that is asked for.
fn check(wanted: &str, chain: String, key: String) -> Result<Pair, IdentityError> {
    let malformed = |error: &dyn std::fmt::Display| IdentityError::Malformed(error.to_string());
    let (_, pem) = parse_x509_pem(chain.as_bytes()).map_err(|error| malformed(&error))?;
    let leaf = pem.parse_x509().map_err(|error| malformed(&error))?;
    let names = leaf
        .subject_alternative_name()
        .map_err(|error| malformed(&error))?;
    let names = names
        .map(|names| names.value.general_names.as_slice())
        .unwrap_or_default();
    let found: Vec<String> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        })
        .collect();
    if !found.iter().any(|uri| uri == wanted) {
        return Err(IdentityError::Other {
            wanted: wanted.to_owned(),
            found,
        });
    }
    let at = |time: x509_parser::time::ASN1Time| {
        UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or_default())
    };
    let (not_before, not_after) = (
        at(leaf.validity().not_before),
        at(leaf.validity().not_after),
    );
    let secret = Secret {
        name: wanted.to_owned(),
        value: SecretValue::Certificate { chain, key },
    };
    Ok(Pair {
        secret,
        not_before,
        not_after,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: &str = "spiffe://pillion.local/mesh/m/virtualNode/web";

    fn issued(uri: &str) -> (String, String) {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut params = CertificateParams::default();
        let uri = uri.to_owned().try_into().expect("an IA5 string");
        params.subject_alt_names = vec![rcgen::SanType::URI(uri)];
        let certificate = params.self_signed(&key).expect("signed");
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn a_certificate_for_somebody_else_is_refused_with_both_names() {
        let (chain, key) = issued("spiffe://pillion.local/mesh/m/virtualNode/other");
        let error = check(WANTED, chain, key)
            .err()
            .expect("another name")
            .to_string();
        assert!(
            error.contains(WANTED) && error.contains("virtualNode/other"),
            "{error}"
        );
    }

    #[test]
    fn renewal_comes_at_about_half_of_a_life() {
        let (chain, key) = issued(WANTED);
        let mut pair = check(WANTED, chain, key).expect("ours");
        let now = SystemTime::now();
        (pair.not_before, pair.not_after) = (now, now + Duration::from_secs(86_400));
        for _ in 0..50 {
            let pause = until_renewal(&pair, now).as_secs_f64() / 86_400.0;
            assert!((0.44..0.56).contains(&pause), "{pause}");
        }
        pair.not_after = now;
        assert_eq!(until_renewal(&pair, now + Duration::from_secs(5)), SHORTEST);
    }

    #[test]
    fn an_answer_that_is_no_certificate_is_an_error_not_a_panic() {
        assert!(check(WANTED, "nonsense".to_owned(), String::new()).is_err());
    }
}
