// SPDX-License-Identifier: Apache-2.0
//! The spec of a virtual service: a name, and who answers for it.

use serde::{Deserialize, Serialize};

/// `VirtualServiceSpec`; without a provider the virtual service answers nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualServiceSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Provider {
    VirtualNode(VirtualNodeProvider),
    VirtualRouter(VirtualRouterProvider),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualNodeProvider {
    pub virtual_node_name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualRouterProvider {
    pub virtual_router_name: String,
}
