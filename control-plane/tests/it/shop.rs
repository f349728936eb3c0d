// SPDX-License-Identifier: Apache-2.0
//! Documents the tests share: one resource of every kind, in the order they must be created.

use serde_json::Value;
use serde_json::json;

use crate::control_plane::ControlPlane;

/// One kind of resource, as the API spells it.
pub(crate) struct Sample {
    /// `virtualNode`.
    pub(crate) word: &'static str,
    /// Where it is created and listed.
    pub(crate) collection: &'static str,
    /// The member with its name.
    pub(crate) name_member: &'static str,
    pub(crate) name: &'static str,
    /// The member of list answers.
    pub(crate) list_member: &'static str,
    /// What follows the account in its ARN.
    pub(crate) id: &'static str,
    pub(crate) spec: Value,
}

impl Sample {
    pub(crate) fn item(&self) -> String {
        format!("{}/{}", self.collection, self.name)
    }

    pub(crate) fn body(&self) -> Value {
        json!({self.name_member: self.name, "spec": self.spec})
    }
}

pub(crate) fn node(hostname: &str) -> Value {
    json!({
        "listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}],
        "serviceDiscovery": {"dns": {"hostname": hostname}}
    })
}

pub(crate) fn route(node: &str, weight: u32) -> Value {
    json!({"httpRoute": {
        "match": {"prefix": "/"},
        "action": {"weightedTargets": [{"virtualNode": node, "weight": weight}]}
    }})
}

/// The seven kinds, parents first.
pub(crate) fn samples() -> [Sample; 7] {
    let port = json!({"portMapping": {"port": 8080, "protocol": "http"}});
    let sample = |word, collection, name_member, name, list_member, id, spec| Sample {
        word,
        collection,
        name_member,
        name,
        list_member,
        id,
        spec,
    };
    [
        sample(
            "mesh",
            "/meshes",
            "meshName",
            "shop",
            "meshes",
            "mesh/shop",
            json!({"egressFilter": {"type": "ALLOW_ALL"}}),
        ),
        sample(
            "virtualNode",
            "/meshes/shop/virtualNodes",
            "virtualNodeName",
            "web",
            "virtualNodes",
            "mesh/shop/virtualNode/web",
            node("web.local"),
        ),
        sample(
            "virtualRouter",
            "/meshes/shop/virtualRouters",
            "virtualRouterName",
            "split",
            "virtualRouters",
            "mesh/shop/virtualRouter/split",
            json!({"listeners": [port]}),
        ),
        sample(
            "route",
            "/meshes/shop/virtualRouter/split/routes",
            "routeName",
            "all",
            "routes",
            "mesh/shop/virtualRouter/split/route/all",
            route("web", 1),
        ),
        sample(
            "virtualService",
            "/meshes/shop/virtualServices",
            "virtualServiceName",
            "web.shop.local",
            "virtualServices",
            "mesh/shop/virtualService/web.shop.local",
            json!({"provider": {"virtualRouter": {"virtualRouterName": "split"}}}),
        ),
        sample(
            "virtualGateway",
            "/meshes/shop/virtualGateways",
            "virtualGatewayName",
            "edge",
            "virtualGateways",
            "mesh/shop/virtualGateway/edge",
            json!({"listeners": [port]}),
        ),
        sample(
            "gatewayRoute",
            "/meshes/shop/virtualGateway/edge/gatewayRoutes",
            "gatewayRouteName",
            "in",
            "gatewayRoutes",
            "mesh/shop/virtualGateway/edge/gatewayRoute/in",
            json!({"httpRoute": {
                "match": {"prefix": "/"},
                "action": {"target": {"virtualService": {"virtualServiceName": "web.shop.local"}}}
            }}),
        ),
    ]
}

/// A control plane that has one of each.
pub(crate) fn open(control_plane: &ControlPlane) {
    for sample in samples() {
        control_plane.put(sample.collection, &sample.body()).ok();
    }
}
