// SPDX-License-Identifier: Apache-2.0
//! The spec of a virtual router: the ports it is called on. Its routes are resources of their own.

use serde::{Deserialize, Serialize};

use crate::listener::PortMapping;

/// `VirtualRouterSpec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualRouterSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listeners: Option<Vec<VirtualRouterListener>>,
}

impl VirtualRouterSpec {
    /// The ports it is called on, none when absent.
    pub fn ports(&self) -> impl Iterator<Item = PortMapping> {
        self.listeners
            .iter()
            .flatten()
            .map(|listener| listener.port_mapping)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualRouterListener {
    pub port_mapping: PortMapping,
}
