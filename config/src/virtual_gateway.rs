// SPDX-License-Identifier: Apache-2.0
//! The spec of a virtual gateway: edge listeners. It has no backends, timeouts or outlier detection of its own.

use serde::{Deserialize, Serialize};

use crate::listener::{ConnectionPool, HealthCheck, PortMapping};
use crate::logging::Logging;
use crate::tls::{BackendDefaults, ListenerTls};

/// `VirtualGatewaySpec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualGatewaySpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_defaults: Option<BackendDefaults>,
    pub listeners: Vec<GatewayListener>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logging: Option<Logging>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayListener {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_pool: Option<ConnectionPool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    pub port_mapping: PortMapping,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
}
