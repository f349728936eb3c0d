// SPDX-License-Identifier: Apache-2.0
//! `/certs`: every certificate in use, from the control plane, the SDS socket and files, in the outline of Envoy's; and
//! when the first of them runs out. Called by the admin server and its stats.

use std::path::Path;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use axum::extract::State;
use axum::response::Response;
use pillion_xds::secret::Secret;
use pillion_xds::secret::SecretValue;
use serde_json::Value;
use serde_json::json;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::time::ASN1Time;

use super::Pages;
use super::pretty;
use crate::access_log::time;
use crate::snapshot::Snapshot;

pub(super) async fn certs(State(pages): State<Pages>) -> Response {
    let secrets: Vec<_> = {
        let applier = pages.control.applier.lock();
        let material = applier.resources().material();
        let all = material
            .ads
            .values()
            .chain(material.socket.into_iter().flat_map(|all| all.values()));
        all.cloned().collect()
    };
    let mut all: Vec<Value> = secrets.iter().map(|secret| of_secret(secret)).collect();
    let files = pages.live.current().key_files();
    all.extend(files.iter().filter_map(|path| of_file(path)));
    pretty(&json!({"certificates": all}))
}

/// Days until the first certificate that this proxy shows runs out; `None` if it shows none.
pub(super) fn days_left(snapshot: &Snapshot) -> Option<u64> {
    let ends = snapshot.certificates().filter_map(|der| {
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).ok()?;
        Some(seconds_left(&parsed))
    });
    ends.min().map(|left| left / 86_400)
}

fn of_secret(secret: &Secret) -> Value {
    match &secret.value {
        SecretValue::Certificate { chain, .. } => {
            json!({"name": secret.name, "ca_cert": [], "cert_chain": details(chain, "<inline>")})
        }
        SecretValue::TrustBundle(roots) => {
            json!({"name": secret.name, "ca_cert": details(roots, "<inline>"), "cert_chain": []})
        }
    }
}

/// A file of certificates; key files and revocation lists show nothing.
fn of_file(path: &Path) -> Option<Value> {
    let path = path.to_str()?;
    let pem = std::fs::read_to_string(path).ok()?;
    let all = details(&pem, path);
    (!all.is_empty()).then(|| json!({"name": path, "ca_cert": [], "cert_chain": all}))
}

/// One entry per certificate that parses.
fn details(pem: &str, path: &str) -> Vec<Value> {
    let blocks = Pem::iter_from_buffer(pem.as_bytes()).filter_map(Result::ok);
    let certificates = blocks.filter(|block| block.label == "CERTIFICATE");
    certificates
        .filter_map(|block| block.parse_x509().ok().map(|parsed| detail(&parsed, path)))
        .collect()
}

fn detail(certificate: &X509Certificate<'_>, path: &str) -> Value {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names: Vec<Value> = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(json!({"uri": uri})),
            GeneralName::DNSName(dns) => Some(json!({"dns": dns})),
            GeneralName::IPAddress(bytes) => Some(json!({"ip_address": ip_text(bytes)})),
            _ => None,
        })
        .collect();
    let left = seconds_left(certificate);
    json!({
        "path": path,
        "serial_number": certificate.raw_serial_as_string().replace(':', ""),
        "subject": certificate.subject().to_string(),
        "subject_alt_names": names,
        "valid_from": moment(certificate.validity().not_before),
        "expiration_time": moment(certificate.validity().not_after),
        "days_until_expiration": (left / 86_400).to_string(),
        "seconds_until_expiration": left.to_string(),
    })
}

/// 0 once it has run out.
fn seconds_left(certificate: &X509Certificate<'_>) -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let end = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
    end.saturating_sub(now.as_secs())
}

fn moment(at: ASN1Time) -> String {
    let seconds = u64::try_from(at.timestamp()).unwrap_or_default();
    let mut text = String::new();
    time::format(
        "%Y-%m-%dT%H:%M:%SZ",
        UNIX_EPOCH + Duration::from_secs(seconds),
        &mut text,
    );
    text
}

fn ip_text(bytes: &[u8]) -> String {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return std::net::Ipv4Addr::from(v4).to_string();
    }
    match <[u8; 16]>::try_from(bytes) {
        Ok(v6) => std::net::Ipv6Addr::from(v6).to_string(),
        Err(_) => String::new(),
    }
}
