// SPDX-License-Identifier: Apache-2.0
//! Signing a request, as the SDKs do. Called by the command line and by tests.

use std::time::SystemTime;

use aws_lc_rs::hmac;
use http::HeaderValue;
use http::header;
use http::request::Parts;
use jiff::Timestamp;

use crate::canonical::ALGORITHM;
use crate::canonical::Covered;
use crate::canonical::scope;
use crate::canonical::sha256;
use crate::canonical::signing_key;
use crate::canonical::string_to_sign;

/// Who signs, and for what.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// `AWS_ACCESS_KEY_ID`.
    pub access_key_id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_access_key: String,
    /// `AWS_SESSION_TOKEN`.
    pub session_token: Option<String>,
    /// `us-east-1`.
    pub region: String,
    /// `appmesh`, `xray`.
    pub service: &'static str,
}

/// Secrets never reach a log.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.access_key_id)
    }
}

impl Identity {
    /// Adds `x-amz-date`, `x-amz-content-sha256`, the token if there is one, and `authorization`. The head must name its
    /// host, in the URI or in a header.
    pub fn sign(&self, head: &mut Parts, body: &[u8], now: SystemTime) {
        let time = Timestamp::try_from(now).unwrap_or_default();
        let time = time.strftime("%Y%m%dT%H%M%SZ").to_string();
        let payload = sha256(body);
        let mut signed = vec!["host", "x-amz-content-sha256", "x-amz-date"];
        let mut add = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                head.headers.insert(name, value);
            }
        };
        add("x-amz-date", &time);
        add("x-amz-content-sha256", &payload);
        if let Some(token) = &self.session_token {
            add("x-amz-security-token", token);
            signed.push("x-amz-security-token");
        }
        let covered = Covered {
            method: head.method.as_str(),
            uri: &head.uri,
            headers: &head.headers,
            signed: &signed,
        };
        let canonical = covered.canonical() + &payload;
        let date = &time[..8];
        let scope = scope(date, &self.region, self.service);
        let key = signing_key(&self.secret_access_key, date, &self.region, self.service);
        let signature = hmac::sign(&key, string_to_sign(&time, &scope, &canonical).as_bytes());
        let value = format!(
            "{ALGORITHM} Credential={}/{scope}, SignedHeaders={}, Signature={}",
            self.access_key_id,
            signed.join(";"),
            hex::encode(signature)
        );
        if let Ok(value) = HeaderValue::from_str(&value) {
            head.headers.insert(header::AUTHORIZATION, value);
        }
    }
}
