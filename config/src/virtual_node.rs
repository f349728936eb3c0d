// SPDX-License-Identifier: Apache-2.0
//! The spec of a virtual node: its listeners, where it is found, what it may call.

use serde::{Deserialize, Serialize};

use crate::listener::Listener;
use crate::logging::Logging;
use crate::mesh::IpPreference;
use crate::tls::{BackendDefaults, ClientPolicy, ClientPolicyTls};

/// `VirtualNodeSpec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualNodeSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_defaults: Option<BackendDefaults>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backends: Option<Vec<Backend>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listeners: Option<Vec<Listener>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logging: Option<Logging>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_discovery: Option<ServiceDiscovery>,
}

impl VirtualNodeSpec {
    /// The listeners, none when absent.
    pub fn listeners(&self) -> &[Listener] {
        self.listeners.as_deref().unwrap_or_default()
    }

    /// The listener on `port`.
    pub fn listener(&self, port: u16) -> Option<&Listener> {
        self.listeners()
            .iter()
            .find(|listener| listener.port_mapping.port == port)
    }

    /// The backends, none when absent.
    pub fn backends(&self) -> impl Iterator<Item = &VirtualServiceBackend> {
        self.backends
            .iter()
            .flatten()
            .map(|Backend::VirtualService(backend)| backend)
    }

    /// The TLS policy towards `backend`: its own replaces the default as a whole, even when it is empty.
    pub fn client_policy<'a>(
        &'a self,
        backend: &'a VirtualServiceBackend,
    ) -> Option<&'a ClientPolicyTls> {
        match &backend.client_policy {
            Some(policy) => policy.tls.as_ref(),
            None => self.backend_defaults.as_ref()?.tls(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Backend {
    VirtualService(VirtualServiceBackend),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualServiceBackend {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_policy: Option<ClientPolicy>,
    /// May name a virtual service that does not exist yet.
    pub virtual_service_name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ServiceDiscovery {
    AwsCloudMap(AwsCloudMap),
    Dns(Dns),
}

impl ServiceDiscovery {
    /// The node's own address preference, which overrides the mesh's.
    pub fn ip_preference(&self) -> Option<IpPreference> {
        match self {
            Self::AwsCloudMap(cloud_map) => cloud_map.ip_preference,
            Self::Dns(dns) => dns.ip_preference,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AwsCloudMap {
    /// Instances must carry all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Vec<InstanceAttribute>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_preference: Option<IpPreference>,
    pub namespace_name: String,
    pub service_name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceAttribute {
    pub key: String,
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dns {
    /// A name, or an IP literal.
    pub hostname: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_preference: Option<IpPreference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_type: Option<DnsResponseType>,
}

impl Dns {
    /// How answers are read; `LOADBALANCER` when the spec says nothing.
    pub fn response_type(&self) -> DnsResponseType {
        self.response_type.unwrap_or(DnsResponseType::LoadBalancer)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DnsResponseType {
    #[serde(rename = "LOADBALANCER")]
    LoadBalancer,
    #[serde(rename = "ENDPOINTS")]
    Endpoints,
}
