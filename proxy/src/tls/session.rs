// SPDX-License-Identifier: Apache-2.0
//! What a finished handshake said, kept for access logs: version, cipher suite and the caller's certificate. Made by
//! `listener::accept`; read by `access_log::operator`. The certificate is parsed when a line asks, for few formats do.
//! Forms are Envoy's, which are OpenSSL's: envoyproxy.io "Access logging", `DOWNSTREAM_TLS_*` and `DOWNSTREAM_PEER_*`.

use aws_lc_rs::digest;
use rustls::CipherSuite;
use rustls::CommonState;
use rustls::ProtocolVersion;
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::x509::X509Name;

/// Of one connection whose TLS ends here.
#[derive(Debug)]
pub struct Session {
    version: Option<ProtocolVersion>,
    suite: Option<CipherSuite>,
    leaf: Option<CertificateDer<'static>>,
}

/// A fact of the caller's certificate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fact {
    /// Every URI among the alternative names.
    Uris,
    /// Every DNS name.
    Names,
    /// Every address.
    Addresses,
    /// Whose it is.
    Subject,
    /// Who signed it.
    Issuer,
    /// Its number.
    Serial,
    /// SHA-256 of it.
    Fingerprint256,
    /// SHA-1 of it.
    Fingerprint1,
}

impl Session {
    /// Of a connection that has shaken hands.
    pub fn of(connection: &CommonState) -> Session {
        Session {
            version: connection.protocol_version(),
            suite: connection.negotiated_cipher_suite().map(|one| one.suite()),
            leaf: connection
                .peer_certificates()
                .and_then(|chain| chain.first())
                .map(|leaf| leaf.clone().into_owned()),
        }
    }

    /// `TLSv1.3`.
    pub fn version(&self) -> Option<&'static str> {
        match self.version? {
            ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
            ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
            _ => None,
        }
    }

    /// OpenSSL's name of the cipher suite.
    pub fn cipher(&self) -> Option<&'static str> {
        Some(match self.suite? {
            CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
            CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
                "ECDHE-ECDSA-CHACHA20-POLY1305"
            }
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
            CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => {
                "ECDHE-RSA-CHACHA20-POLY1305"
            }
            _ => return None,
        })
    }

    /// A fact of the caller's certificate, if it has one and the fact is not empty.
    pub fn caller(&self, fact: Fact) -> Option<String> {
        let der = self.leaf.as_ref()?;
        let said = match fact {
            Fact::Fingerprint256 => hex(digest::digest(&digest::SHA256, der).as_ref()),
            Fact::Fingerprint1 => {
                let sha1 = &digest::SHA1_FOR_LEGACY_USE_ONLY;
                hex(digest::digest(sha1, der).as_ref())
            }
            _ => {
                let (_, leaf) = x509_parser::parse_x509_certificate(der).ok()?;
                match fact {
                    Fact::Subject => name(leaf.subject()),
                    Fact::Issuer => name(leaf.issuer()),
                    Fact::Serial => leaf.serial.to_str_radix(16),
                    _ => alternatives(&leaf, fact),
                }
            }
        };
        Some(said).filter(|said| !said.is_empty())
    }
}

fn alternatives(leaf: &X509Certificate<'_>, fact: Fact) -> String {
    let Ok(Some(names)) = leaf.subject_alternative_name() else {
        return String::new();
    };
    let of_kind = |name: &GeneralName<'_>| match (fact, name) {
        (Fact::Uris, GeneralName::URI(uri)) => Some((*uri).to_owned()),
        (Fact::Names, GeneralName::DNSName(name)) => Some((*name).to_owned()),
        (Fact::Addresses, GeneralName::IPAddress(octets)) => address(octets),
        _ => None,
    };
    let found: Vec<String> = names
        .value
        .general_names
        .iter()
        .filter_map(of_kind)
        .collect();
    found.join(",")
}

fn address(octets: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(octets) {
        return Some(std::net::Ipv4Addr::from(four).to_string());
    }
    let sixteen = <[u8; 16]>::try_from(octets).ok()?;
    Some(std::net::Ipv6Addr::from(sixteen).to_string())
}

/// As RFC 2253 has it: the last part first, and what separates parts escaped.
fn name(name: &X509Name<'_>) -> String {
    let part = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        let kind = x509_parser::objects::oid2abbrev(
            attribute.attr_type(),
            x509_parser::objects::oid_registry(),
        )
        .map_or_else(|_| attribute.attr_type().to_id_string(), str::to_owned);
        format!("{kind}={}", escaped(attribute.as_str().unwrap_or_default()))
    };
    let mut parts: Vec<String> = name
        .iter_rdn()
        .map(|rdn| rdn.iter().map(part).collect::<Vec<_>>().join("+"))
        .collect();
    parts.reverse();
    parts.join(",")
}

fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for (at, letter) in value.char_indices() {
        let at_an_end = at == 0 || at + letter.len_utf8() == value.len();
        if ",+\"\\<>;".contains(letter) || at_an_end && letter == ' ' || at == 0 && letter == '#' {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let written = write!(out, "{byte:02x}");
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::CertificateParams;
    use rcgen::DnType;
    use rcgen::KeyPair;
    use rcgen::SanType;
    use rcgen::SerialNumber;

    fn session() -> Session {
        let mut params = CertificateParams::new(vec!["a.mesh".to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(vec![0x0a, 0xbc]));
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Shop, Inc");
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, "cart");
        let uri = |text: &str| SanType::URI(text.try_into().unwrap());
        params.subject_alt_names.push(uri("spiffe://a/b"));
        params.subject_alt_names.push(uri("spiffe://a/c"));
        params
            .subject_alt_names
            .push(SanType::IpAddress([10, 0, 0, 7].into()));
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Session {
            version: Some(ProtocolVersion::TLSv1_3),
            suite: Some(CipherSuite::TLS13_AES_256_GCM_SHA384),
            leaf: Some(certificate.der().clone()),
        }
    }

    #[test]
    fn facts_read_as_openssl_writes_them() {
        let session = session();
        let said = |fact| session.caller(fact).unwrap();
        assert_eq!(said(Fact::Subject), "CN=cart,O=Shop\\, Inc");
        assert_eq!(said(Fact::Issuer), said(Fact::Subject), "self-signed");
        assert_eq!(said(Fact::Serial), "abc");
        assert_eq!(said(Fact::Uris), "spiffe://a/b,spiffe://a/c");
        assert_eq!(said(Fact::Names), "a.mesh");
        assert_eq!(said(Fact::Addresses), "10.0.0.7");
        assert_eq!(said(Fact::Fingerprint256).len(), 64);
        assert_eq!(said(Fact::Fingerprint1).len(), 40);
        assert_eq!(session.version(), Some("TLSv1.3"));
        assert_eq!(session.cipher(), Some("TLS_AES_256_GCM_SHA384"));
    }

    #[test]
    fn a_caller_without_a_certificate_has_no_facts() {
        let session = Session {
            leaf: None,
            ..session()
        };
        assert_eq!(session.caller(Fact::Subject), None);
        assert_eq!(session.caller(Fact::Fingerprint256), None);
    }
}
