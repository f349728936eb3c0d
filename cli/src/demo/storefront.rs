// SPDX-License-Identifier: Apache-2.0
//! The storefront as App Mesh resources, in an order in which they may be created. Pure; `stage` sends the specs to
//! the mesh API exactly as they stand here.

use pillion_config::ResourceKey;
use serde_json::{Value, json};

use crate::demo::ports::{GATEWAY, NODES, Ports};

pub(crate) const MESH: &str = "storefront";
/// Weights of catalog-v1 and catalog-v2.
pub(crate) const WEIGHTS: [u64; 2] = [90, 10];

const TRUST: &str = "spiffe://pillion.local";

pub(crate) fn resources(ports: Ports) -> Vec<(ResourceKey, Value)> {
    let mut all = vec![(
        ResourceKey::mesh(MESH),
        json!({"egressFilter": {"type": "DROP_ALL"}}),
    )];
    for (place, name) in NODES.iter().enumerate() {
        let spec = virtual_node(name, ports.node(place).listener.port());
        all.push((ResourceKey::virtual_node(MESH, *name), spec));
    }
    let catalog = ports.node(1).listener.port();
    let router = json!({"listeners": [{"portMapping": mapping(catalog)}]});
    all.push((ResourceKey::virtual_router(MESH, "catalog"), router));
    all.push((
        ResourceKey::route(MESH, "catalog", "catalog"),
        route(WEIGHTS),
    ));
    for name in ["web", "cart", "payments"] {
        let spec = json!({"provider": {"virtualNode": {"virtualNodeName": name}}});
        all.push((ResourceKey::virtual_service(MESH, host(name)), spec));
    }
    let spec = json!({"provider": {"virtualRouter": {"virtualRouterName": "catalog"}}});
    all.push((ResourceKey::virtual_service(MESH, host("catalog")), spec));
    let gateway = virtual_gateway(ports.gateway().listener.port());
    all.push((ResourceKey::virtual_gateway(MESH, GATEWAY), gateway));
    let front = json!({"httpRoute": {
        "match": {"prefix": "/"},
        "action": {"target": {"virtualService": {"virtualServiceName": host("web")}}},
    }});
    all.push((ResourceKey::gateway_route(MESH, GATEWAY, "web"), front));
    all
}

/// The spec of the catalog's route with these weights; also what the printed `update-route` command sends.
pub(crate) fn route([v1, v2]: [u64; 2]) -> Value {
    json!({"httpRoute": {
        "match": {"prefix": "/"},
        "action": {"weightedTargets": [
            {"virtualNode": "catalog-v1", "weight": v1},
            {"virtualNode": "catalog-v2", "weight": v2},
        ]},
    }})
}

/// The name by which an application asks for another.
pub(crate) fn host(name: &str) -> String {
    format!("{name}.{MESH}.local")
}

/// The resource a proxy is started for, as App Mesh's `APPMESH_RESOURCE_ARN`.
pub(crate) fn resource_arn(name: &str) -> String {
    let kind = if name == GATEWAY {
        "virtualGateway"
    } else {
        "virtualNode"
    };
    format!("arn:aws:appmesh:us-east-1:000000000000:mesh/{MESH}/{kind}/{name}")
}

fn mapping(port: u16) -> Value {
    json!({"port": port, "protocol": "http"})
}

fn identity(kind: &str, name: &str) -> String {
    format!("{TRUST}/mesh/{MESH}/{kind}/{name}")
}

/// Which node calls which, and which identities may answer.
fn backends(name: &str) -> Vec<(&'static str, Vec<&'static str>)> {
    match name {
        "web" => vec![
            ("catalog", vec!["catalog-v1", "catalog-v2"]),
            ("cart", vec!["cart"]),
            ("payments", vec!["payments"]),
        ],
        _ => Vec::new(),
    }
}

/// Takes TLS only, from holders of a certificate of the mesh's authority; calls its backends alike.
fn virtual_node(name: &str, port: u16) -> Value {
    let own = identity("virtualNode", name);
    let backends: Vec<Value> = backends(name)
        .into_iter()
        .map(|(backend, answering)| {
            let names: Vec<String> = answering
                .iter()
                .map(|node| identity("virtualNode", node))
                .collect();
            json!({"virtualService": {
                "virtualServiceName": host(backend),
                "clientPolicy": client_policy(&own, &names),
            }})
        })
        .collect();
    json!({
        "listeners": [{
            "portMapping": mapping(port),
            "tls": {
                "mode": "STRICT",
                "certificate": secret(&own),
                "validation": {"trust": secret(TRUST)},
            },
        }],
        "serviceDiscovery": {"dns": {"hostname": "127.0.0.1"}},
        "backends": backends,
        "backendDefaults": {"clientPolicy": client_policy(&own, &[])},
    })
}

/// The gateway's own door is plain HTTP, so that a person can `curl` it; behind it everything is mutual TLS.
fn virtual_gateway(port: u16) -> Value {
    let own = identity("virtualGateway", GATEWAY);
    json!({
        "listeners": [{"portMapping": mapping(port)}],
        "backendDefaults": {"clientPolicy": client_policy(&own, &[identity("virtualNode", "web")])},
    })
}

fn client_policy(own: &str, answering: &[String]) -> Value {
    let mut validation = json!({"trust": secret(TRUST)});
    if !answering.is_empty() {
        validation["subjectAlternativeNames"] = json!({"match": {"exact": answering}});
    }
    json!({"tls": {"enforce": true, "certificate": secret(own), "validation": validation}})
}

fn secret(name: &str) -> Value {
    json!({"sds": {"secretName": name}})
}

#[cfg(test)]
mod tests {
    use pillion_config::{Resources, parse_spec};

    use super::*;

    #[test]
    fn every_resource_satisfies_the_app_mesh_rules_and_refers_only_to_what_came_before() {
        let mut mesh = Resources::new();
        for (key, spec) in resources(Ports::claim(0).unwrap()) {
            let spec = parse_spec(key.kind, &spec)
                .unwrap_or_else(|problems| panic!("{key}: {problems:?}"));
            assert_eq!(mesh.check_references(&key, &spec), [], "{key}");
            mesh.insert(key, spec);
        }
    }
}
