// SPDX-License-Identifier: Apache-2.0
//! TLS on both ends: what a listener shows, what a client demands. Virtual nodes and gateways share these words;
//! the constraint table keeps the two apart where the model does.

use serde::{Deserialize, Serialize};

/// `clientPolicy`, on a backend or as the default of all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientPolicy {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientPolicyTls>,
}

/// `backendDefaults`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendDefaults {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_policy: Option<ClientPolicy>,
}

impl BackendDefaults {
    /// The TLS policy, if one is set.
    pub fn tls(&self) -> Option<&ClientPolicyTls> {
        self.client_policy.as_ref()?.tls.as_ref()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientPolicyTls {
    /// Shown when the server asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<ClientCertificate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforce: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<u16>>,
    pub validation: ClientValidation,
}

impl ClientPolicyTls {
    /// Whether plaintext servers are refused; true when the spec says nothing.
    pub fn enforced(&self) -> bool {
        self.enforce.unwrap_or(true)
    }

    /// Whether the policy governs connections to `port`: all ports when none are listed.
    pub fn covers(&self, port: u16) -> bool {
        self.ports
            .as_ref()
            .is_none_or(|ports| ports.is_empty() || ports.contains(&port))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClientCertificate {
    File(FileCertificate),
    Sds(SdsSecret),
}

/// `tls` of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerTls {
    /// Required by the model even when `mode` is `DISABLED`.
    pub certificate: ListenerCertificate,
    pub mode: TlsMode,
    /// Present: the client must show a certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<ListenerValidation>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TlsMode {
    Strict,
    Permissive,
    Disabled,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ListenerCertificate {
    Acm(AcmCertificate),
    File(FileCertificate),
    Sds(SdsSecret),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcmCertificate {
    pub certificate_arn: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileCertificate {
    pub certificate_chain: String,
    pub private_key: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SdsSecret {
    pub secret_name: String,
}

/// What a client demands of a server certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientValidation {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_alternative_names: Option<SubjectAlternativeNames>,
    pub trust: ClientTrust,
}

impl ClientValidation {
    /// The names of which the server must carry one; empty when none are demanded.
    pub fn names(&self) -> &[String] {
        self.subject_alternative_names
            .as_ref()
            .map_or(&[], SubjectAlternativeNames::exact)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClientTrust {
    Acm(AcmTrust),
    File(FileTrust),
    Sds(SdsSecret),
}

/// What a listener demands of client certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerValidation {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_alternative_names: Option<SubjectAlternativeNames>,
    pub trust: ListenerTrust,
}

impl ListenerValidation {
    /// The names of which the client must carry one; empty when none are demanded.
    pub fn names(&self) -> &[String] {
        self.subject_alternative_names
            .as_ref()
            .map_or(&[], SubjectAlternativeNames::exact)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ListenerTrust {
    File(FileTrust),
    Sds(SdsSecret),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcmTrust {
    pub certificate_authority_arns: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileTrust {
    pub certificate_chain: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectAlternativeNames {
    #[serde(rename = "match")]
    pub matchers: SubjectAlternativeNameMatchers,
}

impl SubjectAlternativeNames {
    fn exact(&self) -> &[String] {
        &self.matchers.exact
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectAlternativeNameMatchers {
    pub exact: Vec<String>,
}
