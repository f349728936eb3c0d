// SPDX-License-Identifier: Apache-2.0
//! The authority's keys as the store keeps them, and the steps by which a root gives way to the next: *prepare* (all are
//! told to trust it), *activate* (it signs), *retire* (the one before is trusted no longer). In each of them every
//! certificate in use is trusted by every peer, so nothing stops. Pure; `identity.rs` stores it, the API asks for it.

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use x509_parser::pem::Pem;

use super::authority::LEAF_LIFETIME;

/// What signs: a root, or an intermediate under a root whose key is somewhere safer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootMaterial {
    /// The certificate, PEM.
    pub certificate: String,
    /// The key, PKCS#8 PEM.
    pub key: String,
    /// Of an intermediate, the root that peers are to trust, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<String>,
}

/// Key material never reaches a log.
impl std::fmt::Debug for RootMaterial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RootMaterial(..)")
    }
}

/// A root that signed once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Former {
    anchor: String,
    /// By then the last certificate under it has ended.
    until_ms: i64,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyring {
    /// What signs. Flat, since a store of earlier versions has nothing else.
    #[serde(flatten)]
    pub signing: RootMaterial,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<RootMaterial>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    former: Vec<Former>,
    /// Of the bundle, as SPIFFE counts it.
    #[serde(default)]
    sequence: u64,
}

/// Why a step is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// One at a time.
    #[error("a next root is prepared already; activate it first")]
    Prepared,
    /// Nothing to activate.
    #[error("no next root is prepared; prepare one, wait until the fleet has it, then activate it")]
    NotPrepared,
    /// Retiring now would cut off who still shows it.
    #[error(
        "certificates under the former root live until {0}; retire it then, or with \"force\": true"
    )]
    InUse(String),
    /// There is none to retire.
    #[error("no former root is trusted")]
    NoFormer,
}

impl RootMaterial {
    /// What is wrong with what somebody wants to sign with, by the member's name.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let (Some(certificate), Some(anchor)) = (first(&self.certificate), first(self.anchor()))
        else {
            return vec![(
                "certificate",
                "certificate and anchor must be PEM".to_owned(),
            )];
        };
        let (Ok(certificate), Ok(anchor)) = (certificate.parse_x509(), anchor.parse_x509()) else {
            return vec![(
                "certificate",
                "certificate and anchor must be X.509".to_owned(),
            )];
        };
        if !certificate.is_ca() {
            found.push((
                "certificate",
                "must be that of an authority (CA:TRUE)".to_owned(),
            ));
        }
        if certificate
            .verify_signature(Some(anchor.public_key()))
            .is_err()
        {
            let what = "is not signed by `anchor` (of a root, by itself); give the certificate of the root that signed it";
            found.push(("anchor", what.to_owned()));
        }
        if !certificate.validity().is_valid() || !anchor.validity().is_valid() {
            found.push(("certificate", "is not valid now".to_owned()));
        }
        match rcgen::KeyPair::from_pem(&self.key) {
            Err(_) => found.push(("key", "must be a private key, PKCS#8 PEM".to_owned())),
            Ok(key) => {
                use rcgen::PublicKeyData;
                if key.subject_public_key_info() != certificate.public_key().raw {
                    found.push(("key", "is not the key of `certificate`".to_owned()));
                }
            }
        }
        found
    }

    fn anchor(&self) -> &str {
        self.anchor.as_deref().unwrap_or(&self.certificate)
    }
}

impl Keyring {
    /// With one root, which signs.
    pub fn new(signing: RootMaterial) -> Keyring {
        Keyring {
            signing,
            next: None,
            former: Vec::new(),
            sequence: 1,
        }
    }

    /// Everything that is trusted, PEM.
    pub fn bundle(&self) -> String {
        self.anchors().collect()
    }

    fn anchors(&self) -> impl Iterator<Item = &str> {
        let next = self.next.as_ref().map(RootMaterial::anchor);
        let former = self.former.iter().map(|former| former.anchor.as_str());
        std::iter::once(self.signing.anchor())
            .chain(next)
            .chain(former)
    }

    /// Trusts another root without signing with it.
    pub fn prepare(&self, next: RootMaterial) -> Result<Keyring, StepError> {
        if self.next.is_some() {
            return Err(StepError::Prepared);
        }
        Ok(Keyring {
            next: Some(next),
            sequence: self.sequence + 1,
            ..self.clone()
        })
    }

    /// Signs with the prepared root; the one before stays trusted.
    pub fn activate(&self, now_ms: i64) -> Result<Keyring, StepError> {
        let next = self.next.clone().ok_or(StepError::NotPrepared)?;
        let life = i64::try_from(LEAF_LIFETIME.as_millis()).unwrap_or(i64::MAX);
        let mut former = self.former.clone();
        if next.anchor() != self.signing.anchor() {
            former.push(Former {
                anchor: self.signing.anchor().to_owned(),
                until_ms: now_ms.saturating_add(life),
            });
        }
        Ok(Keyring {
            signing: next,
            next: None,
            former,
            sequence: self.sequence + 1,
        })
    }

    /// Trusts former roots no longer: those whose certificates have all ended, or with `force` all of them.
    pub fn retire(&self, now_ms: i64, force: bool) -> Result<Keyring, StepError> {
        let last = self.former.iter().map(|former| former.until_ms).max();
        match last {
            None => Err(StepError::NoFormer),
            Some(last) if last > now_ms && !force => Err(StepError::InUse(moment(last))),
            Some(_) => Ok(Keyring {
                former: Vec::new(),
                sequence: self.sequence + 1,
                ..self.clone()
            }),
        }
    }

    /// For people: no key is in it.
    pub fn document(&self) -> Value {
        let former = self.former.iter().map(
            |former| json!({"root": facts(&former.anchor), "inUseUntil": moment(former.until_ms)}),
        );
        json!({
            "signing": facts(&self.signing.certificate),
            "intermediate": self.signing.anchor.is_some(),
            "next": self.next.as_ref().map(|next| facts(&next.certificate)),
            "former": former.collect::<Vec<Value>>(),
            "trustBundle": self.bundle(),
        })
    }

    /// The bundle as other trust domains take it: SPIFFE Trust Domain and Bundle, section 4.
    pub fn spiffe_bundle(&self) -> Value {
        let keys: Vec<Value> = self.anchors().filter_map(web_key).collect();
        json!({
            "keys": keys,
            "spiffe_sequence": self.sequence,
            "spiffe_refresh_hint": Duration::from_secs(300).as_secs(),
        })
    }
}

fn moment(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |at| at.to_string())
}

fn first(pem: &str) -> Option<Pem> {
    Pem::iter_from_buffer(pem.as_bytes()).next()?.ok()
}

fn facts(pem: &str) -> Value {
    let Some(pem) = first(pem) else {
        return Value::Null;
    };
    let Ok(certificate) = pem.parse_x509() else {
        return Value::Null;
    };
    let end = certificate.validity().not_after.timestamp();
    json!({
        "subject": certificate.subject().to_string(),
        "serial": certificate.raw_serial_as_string(),
        "notAfter": moment(end.saturating_mul(1000)),
    })
}

/// RFC 7517 and 7518, 6.2.1; a root of another kind than ours is left to its `x5c`.
fn web_key(pem: &str) -> Option<Value> {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let pem = first(pem)?;
    let certificate = pem.parse_x509().ok()?;
    let mut key = json!({"use": "x509-svid", "x5c": [STANDARD.encode(&pem.contents)]});
    let point = certificate.public_key().subject_public_key.data.as_ref();
    match point {
        [4, rest @ ..] if rest.len() == 64 => {
            let (x, y) = rest.split_at(32);
            key["kty"] = json!("EC");
            key["crv"] = json!("P-256");
            key["x"] = json!(URL_SAFE_NO_PAD.encode(x));
            key["y"] = json!(URL_SAFE_NO_PAD.encode(y));
        }
        _ => key["kty"] = json!("RSA"),
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(name: &str) -> RootMaterial {
        RootMaterial {
            certificate: format!("{name}\n"),
            key: String::new(),
            anchor: None,
        }
    }

    #[test]
    fn every_step_of_a_rotation_trusts_whatever_is_still_shown() {
        let ring = Keyring::new(root("old"));
        assert_eq!(ring.activate(0), Err(StepError::NotPrepared));
        let ring = ring.prepare(root("new")).unwrap();
        assert_eq!(
            (ring.signing.certificate.as_str(), ring.bundle()),
            ("old\n", "old\nnew\n".to_owned())
        );
        assert_eq!(ring.prepare(root("newer")), Err(StepError::Prepared));
        let ring = ring.activate(1000).unwrap();
        assert_eq!(
            (ring.signing.certificate.as_str(), ring.bundle()),
            ("new\n", "new\nold\n".to_owned())
        );
        assert!(matches!(ring.retire(1000, false), Err(StepError::InUse(_))));
        let day = 24 * 3600 * 1000;
        assert_eq!(ring.retire(1000 + day, false).unwrap().bundle(), "new\n");
        assert_eq!(ring.retire(1000, true).unwrap().bundle(), "new\n");
    }

    #[test]
    fn the_ring_of_an_earlier_version_is_a_root_and_nothing_else() {
        let ring: Keyring = serde_json::from_str(r#"{"certificate": "c", "key": "k"}"#).unwrap();
        assert_eq!(
            (ring.bundle().as_str(), ring.signing.key.as_str()),
            ("c", "k")
        );
    }
}
