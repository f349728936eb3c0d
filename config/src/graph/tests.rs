// SPDX-License-Identifier: Apache-2.0
//! References, deletes and views on a small storefront.

#![allow(
    clippy::needless_pass_by_value,
    reason = "documents are literals at the call; borrowing each says nothing"
)]

use serde_json::{Value, json};

use super::*;
use crate::listener::{PortMapping, Protocol};
use crate::parse_spec;

const MESH: &str = "shop";

fn put(resources: &mut Resources, key: ResourceKey, document: &Value) {
    let spec =
        parse_spec(key.kind, document).unwrap_or_else(|problems| panic!("{key}: {problems:?}"));
    resources.insert(key, spec);
}

fn node(listeners: &[(u16, &str)], backends: &[&str]) -> Value {
    let listeners: Vec<Value> = listeners
        .iter()
        .map(|(port, protocol)| json!({"portMapping": {"port": port, "protocol": protocol}}))
        .collect();
    let backends: Vec<Value> = backends
        .iter()
        .map(|name| json!({"virtualService": {"virtualServiceName": name}}))
        .collect();
    json!({"listeners": listeners, "backends": backends, "serviceDiscovery": {"dns": {"hostname": "x.local"}}})
}

fn to(targets: &[(&str, u8)]) -> Value {
    let targets: Vec<Value> = targets
        .iter()
        .map(|(name, weight)| json!({"virtualNode": name, "weight": weight}))
        .collect();
    json!({"weightedTargets": targets})
}

fn http(prefix: &str, targets: &[(&str, u8)]) -> Value {
    json!({"httpRoute": {"match": {"prefix": prefix}, "action": to(targets)}})
}

fn gateway_route(prefix: &str, target: &str) -> Value {
    json!({"httpRoute": {
        "match": {"prefix": prefix},
        "action": {"target": {"virtualService": {"virtualServiceName": target}}},
    }})
}

/// edge (gateway) → web → catalog (router: v1, v2) and cart; `web` also names a backend that does not exist.
fn storefront() -> Resources {
    let mut resources = Resources::new();
    let r = &mut resources;
    put(r, ResourceKey::mesh(MESH), &json!({}));
    put(
        r,
        ResourceKey::virtual_node(MESH, "web"),
        &node(&[(8080, "http")], &["catalog", "nowhere", "cart"]),
    );
    for name in ["catalog-v1", "catalog-v2", "cart"] {
        put(
            r,
            ResourceKey::virtual_node(MESH, name),
            &node(&[(8080, "http")], &[]),
        );
    }
    put(
        r,
        ResourceKey::virtual_router(MESH, "catalog"),
        &json!({"listeners": [
            {"portMapping": {"port": 80, "protocol": "http"}},
        ]}),
    );
    put(
        r,
        ResourceKey::route(MESH, "catalog", "all"),
        &http("/", &[("catalog-v1", 90), ("catalog-v2", 10)]),
    );
    put(
        r,
        ResourceKey::virtual_service(MESH, "catalog"),
        &json!({"provider": {"virtualRouter": {"virtualRouterName": "catalog"}}}),
    );
    put(
        r,
        ResourceKey::virtual_service(MESH, "cart"),
        &json!({"provider": {"virtualNode": {"virtualNodeName": "cart"}}}),
    );
    put(
        r,
        ResourceKey::virtual_service(MESH, "web"),
        &json!({"provider": {"virtualNode": {"virtualNodeName": "web"}}}),
    );
    put(
        r,
        ResourceKey::virtual_gateway(MESH, "edge"),
        &json!({"listeners": [
            {"portMapping": {"port": 8000, "protocol": "http"}},
        ]}),
    );
    put(
        r,
        ResourceKey::gateway_route(MESH, "edge", "web"),
        &gateway_route("/", "web"),
    );
    resources
}

/// What is wrong with storing `document` under `key`: `404 …` or `400 path: …`.
fn faults(resources: &Resources, key: &ResourceKey, document: &Value) -> Vec<String> {
    let spec = parse_spec(key.kind, document).unwrap();
    let problems = resources.check_references(key, &spec).into_iter();
    problems
        .map(|found| match found.fault {
            ReferenceFault::NotFound => format!("404 {}", found.problem),
            ReferenceFault::BadRequest => format!("400 {}", found.problem),
        })
        .collect()
}

#[test]
fn every_resource_of_a_sound_mesh_keeps_its_references() {
    let resources = storefront();
    for (key, spec) in resources.iter() {
        assert_eq!(resources.check_references(key, spec), [], "{key}");
    }
}

#[test]
fn a_missing_mesh_router_or_gateway_is_not_found() {
    let resources = storefront();
    let other = ResourceKey::virtual_node("other", "n");
    assert_eq!(
        faults(&resources, &other, &json!({})),
        ["404 Mesh other does not exist"]
    );
    let route = ResourceKey::route(MESH, "nowhere", "t");
    assert_eq!(
        faults(&resources, &route, &http("/", &[("cart", 1)])),
        ["404 VirtualRouter nowhere does not exist in mesh shop"]
    );
    let route = ResourceKey::gateway_route(MESH, "nowhere", "t");
    assert_eq!(
        faults(&resources, &route, &gateway_route("/", "web")),
        ["404 VirtualGateway nowhere does not exist in mesh shop"]
    );
}

#[test]
fn what_a_spec_names_must_exist_except_backends() {
    let resources = storefront();
    assert_eq!(
        faults(
            &resources,
            &ResourceKey::route(MESH, "catalog", "t"),
            &http("/", &[("cart", 1), ("ghost", 1)])
        ),
        [
            "400 spec.httpRoute.action.weightedTargets[1].virtualNode: VirtualNode ghost does not exist in mesh shop; create it first"
        ]
    );
    for (provider, kind) in [
        ("virtualNode", "VirtualNode"),
        ("virtualRouter", "VirtualRouter"),
    ] {
        let member = format!("{provider}Name");
        let spec = json!({"provider": {provider: {&member: "ghost"}}});
        assert_eq!(
            faults(&resources, &ResourceKey::virtual_service(MESH, "s"), &spec),
            [format!(
                "400 spec.provider.{provider}.{member}: {kind} ghost does not exist in mesh shop; create it first"
            )]
        );
    }
    assert_eq!(
        faults(
            &resources,
            &ResourceKey::gateway_route(MESH, "edge", "t"),
            &gateway_route("/", "ghost")
        ),
        [
            "400 spec.httpRoute.action.target.virtualService.virtualServiceName: VirtualService ghost does not exist in mesh shop; create it first"
        ]
    );
    assert_eq!(
        faults(
            &resources,
            &ResourceKey::virtual_node(MESH, "n"),
            &node(&[], &["ghost"])
        ),
        [""; 0]
    );
    assert_eq!(
        faults(
            &resources,
            &ResourceKey::virtual_service(MESH, "s"),
            &json!({})
        ),
        [""; 0]
    );
}

#[test]
fn a_route_fits_its_router_and_its_targets() {
    let mut resources = storefront();
    put(
        &mut resources,
        ResourceKey::virtual_node(MESH, "db"),
        &node(&[(5432, "tcp")], &[]),
    );
    let key = ResourceKey::route(MESH, "catalog", "t");
    assert_eq!(
        faults(&resources, &key, &http("/", &[("db", 1)])),
        [
            "400 spec.httpRoute.action.weightedTargets[0]: httpRoute cannot go to a listener for tcp (port 5432)"
        ]
    );
    assert_eq!(
        faults(
            &resources,
            &key,
            &json!({"tcpRoute": {"action": to(&[("db", 1)])}})
        ),
        ["400 spec.tcpRoute: does not fit virtual router catalog, which listens for http 80"]
    );
}

#[test]
fn among_several_listeners_the_port_must_be_named() {
    let mut resources = storefront();
    let two = json!([
        {"portMapping": {"port": 80, "protocol": "http"}}, {"portMapping": {"port": 81, "protocol": "grpc"}},
    ]);
    put(
        &mut resources,
        ResourceKey::virtual_router(MESH, "two"),
        &json!({"listeners": two}),
    );
    put(
        &mut resources,
        ResourceKey::virtual_node(MESH, "two"),
        &node(&[(80, "http"), (81, "grpc")], &[]),
    );
    let key = ResourceKey::route(MESH, "two", "t");
    let route = |conditions: Value, port: Value| {
        json!({"httpRoute": {
            "match": conditions,
            "action": {"weightedTargets": [{"virtualNode": "two", "weight": 1, "port": port}]},
        }})
    };
    assert_eq!(
        faults(&resources, &key, &route(json!({"port": 80}), json!(80))),
        [""; 0]
    );
    assert_eq!(
        faults(&resources, &key, &route(json!({}), Value::Null)),
        [
            "400 spec.httpRoute.match.port: is required since virtual router two has several listeners: http 80, grpc 81",
            "400 spec.httpRoute.action.weightedTargets[0].port: is required since virtual node two has several listeners: http 80, grpc 81",
        ]
    );
    assert_eq!(
        faults(&resources, &key, &route(json!({"port": 82}), json!(83))),
        [
            "400 spec.httpRoute.match.port: 82 is no listener port of virtual router two: http 80, grpc 81",
            "400 spec.httpRoute.action.weightedTargets[0].port: 83 is no listener port of virtual node two: http 80, grpc 81",
        ]
    );
    put(
        &mut resources,
        ResourceKey::virtual_service(MESH, "two"),
        &json!({"provider": {"virtualRouter": {"virtualRouterName": "two"}}}),
    );
    put(
        &mut resources,
        ResourceKey::virtual_gateway(MESH, "two"),
        &json!({"listeners": two}),
    );
    assert_eq!(
        faults(
            &resources,
            &ResourceKey::gateway_route(MESH, "two", "t"),
            &gateway_route("/", "two")
        ),
        [
            "400 spec.httpRoute.match.port: is required since virtual gateway two has several listeners: http 80, grpc 81",
            "400 spec.httpRoute.action.target.port: is required since virtual service two has several listeners: http 80, grpc 81",
        ]
    );
}

#[test]
fn a_delete_is_refused_in_the_words_of_app_mesh() {
    let mut resources = storefront();
    let blocker =
        |resources: &Resources, key: &ResourceKey| resources.blocker_of_delete(key, "123456789012");
    assert_eq!(
        blocker(&resources, &ResourceKey::mesh(MESH)).unwrap(),
        "Mesh shop for account 123456789012 has active VirtualNodes, please delete VirtualNodes before deleting the Mesh"
    );
    assert_eq!(
        blocker(&resources, &ResourceKey::virtual_node(MESH, "catalog-v1")).unwrap(),
        "VirtualNode with name catalog-v1 cannot be deleted because it is the target of one or more routes."
    );
    assert_eq!(
        blocker(&resources, &ResourceKey::virtual_node(MESH, "cart")).unwrap(),
        "VirtualNode with name cart cannot be deleted because it is a VirtualService provider"
    );
    assert_eq!(
        blocker(&resources, &ResourceKey::virtual_service(MESH, "web")).unwrap(),
        "VirtualService web is being referenced in the following: GATEWAY_ROUTE: [mesh/shop/virtualGateway/edge/gatewayRoute/web]"
    );
    assert!(
        blocker(&resources, &ResourceKey::virtual_gateway(MESH, "edge"))
            .unwrap()
            .contains("gateway routes")
    );
    let router = ResourceKey::virtual_router(MESH, "catalog");
    assert!(
        blocker(&resources, &router)
            .unwrap()
            .contains("has one or more routes")
    );
    resources.remove(&ResourceKey::route(MESH, "catalog", "all"));
    assert_eq!(
        blocker(&resources, &router).unwrap(),
        "VirtualRouter with name catalog cannot be deleted because it is a VirtualService provider"
    );
}

#[test]
fn the_teardown_order_every_script_uses_meets_no_refusal() {
    let mut resources = storefront();
    let order = [
        Kind::GatewayRoute,
        Kind::VirtualGateway,
        Kind::VirtualService,
        Kind::Route,
        Kind::VirtualRouter,
        Kind::VirtualNode,
        Kind::Mesh,
    ];
    for kind in order {
        for key in resources.keys_of(MESH, kind).cloned().collect::<Vec<_>>() {
            assert_eq!(resources.blocker_of_delete(&key, "0"), None, "{key}");
            resources.remove(&key);
        }
    }
    assert!(resources.is_empty());
}

#[test]
fn a_service_that_is_only_a_backend_may_go() {
    let resources = storefront();
    assert_eq!(
        resources.blocker_of_delete(&ResourceKey::virtual_service(MESH, "catalog"), "0"),
        None
    );
    assert_eq!(
        resources.blocker_of_delete(&ResourceKey::route(MESH, "catalog", "all"), "0"),
        None
    );
}

#[test]
fn a_node_sees_its_backends_down_to_the_target_nodes() {
    let resources = storefront();
    let view = resources.node_view(MESH, "web").unwrap();
    let names: Vec<&str> = view
        .backends
        .iter()
        .map(|backend| backend.service.name)
        .collect();
    assert_eq!(
        names,
        ["catalog", "cart"],
        "the backend that does not exist is absent"
    );
    let Some(ProviderView::Router(router)) = &view.backends[0].service.provider else {
        panic!("{view:?}")
    };
    let targets: Vec<(&str, u8)> = router.routes[0]
        .targets
        .iter()
        .map(|t| (t.node.name, t.weight))
        .collect();
    assert_eq!(targets, [("catalog-v1", 90), ("catalog-v2", 10)]);
    assert_eq!(
        router.routes[0].targets[0]
            .listener
            .unwrap()
            .port_mapping
            .port,
        8080
    );
    assert_eq!(
        view.backends[0].service.ports(),
        [PortMapping {
            port: 80,
            protocol: Protocol::Http
        }]
    );
    assert_eq!(
        view.backends[1].service.ports(),
        [PortMapping {
            port: 8080,
            protocol: Protocol::Http
        }]
    );
    assert!(
        resources.node_view(MESH, "ghost").is_none()
            && resources.node_view("ghost", "web").is_none()
    );
}

#[test]
fn what_dangles_is_absent_from_views() {
    let mut resources = storefront();
    resources.remove(&ResourceKey::virtual_node(MESH, "catalog-v2"));
    resources.remove(&ResourceKey::virtual_node(MESH, "cart"));
    resources.remove(&ResourceKey::virtual_service(MESH, "web"));
    let view = resources.node_view(MESH, "web").unwrap();
    let Some(ProviderView::Router(router)) = &view.backends[0].service.provider else {
        panic!("{view:?}")
    };
    assert_eq!(router.routes[0].targets.len(), 1);
    assert_eq!(view.backends[1].service.provider, None);
    let gateway = resources.gateway_view(MESH, "edge").unwrap();
    assert_eq!(
        (gateway.routes[0].name, &gateway.routes[0].service),
        ("web", &None)
    );
}

#[test]
fn routes_are_tried_by_priority_then_longest_prefix() {
    let mut resources = storefront();
    let r = &mut resources;
    let with_priority = |mut route: Value, priority: u16| {
        route["priority"] = json!(priority);
        route
    };
    let target = [("cart", 1)];
    put(
        r,
        ResourceKey::route(MESH, "catalog", "a-short"),
        &http("/a", &target),
    );
    put(
        r,
        ResourceKey::route(MESH, "catalog", "z-long"),
        &http("/aaa", &target),
    );
    put(
        r,
        ResourceKey::route(MESH, "catalog", "last-by-number"),
        &with_priority(http("/", &target), 1000),
    );
    put(
        r,
        ResourceKey::route(MESH, "catalog", "first"),
        &with_priority(http("/", &target), 0),
    );
    put(
        r,
        ResourceKey::route(MESH, "catalog", "exact"),
        &json!({"httpRoute": {"match": {"path": {"exact": "/b"}}, "action": to(&target)}}),
    );
    put(
        r,
        ResourceKey::route(MESH, "catalog", "any"),
        &json!({"httpRoute": {"match": {}, "action": to(&target)}}),
    );
    put(
        r,
        ResourceKey::route(MESH, "catalog", "z-get"),
        &json!({"httpRoute": {"match": {"prefix": "/", "method": "GET"}, "action": to(&target)}}),
    );
    let router = resources.router_view(MESH, "catalog").unwrap();
    let names: Vec<&str> = router.routes.iter().map(|route| route.name).collect();
    assert_eq!(
        names,
        [
            "first",
            "last-by-number",
            "exact",
            "z-long",
            "a-short",
            "z-get",
            "all",
            "any"
        ]
    );
}

#[test]
fn a_router_listener_has_the_routes_of_its_port_and_protocol() {
    let mut resources = storefront();
    let r = &mut resources;
    put(
        r,
        ResourceKey::virtual_router(MESH, "two"),
        &json!({"listeners": [
            {"portMapping": {"port": 80, "protocol": "http"}}, {"portMapping": {"port": 81, "protocol": "http"}},
        ]}),
    );
    for port in [80, 81] {
        let route = json!({"httpRoute": {"match": {"port": port}, "action": to(&[("cart", 1)])}});
        put(
            r,
            ResourceKey::route(MESH, "two", format!("on-{port}")),
            &route,
        );
    }
    put(
        r,
        ResourceKey::route(MESH, "two", "unbound"),
        &http("/", &[("cart", 1)]),
    );
    put(
        r,
        ResourceKey::route(MESH, "two", "tcp"),
        &json!({"tcpRoute": {"action": to(&[("cart", 1)])}}),
    );
    let router = resources.router_view(MESH, "two").unwrap();
    let on = |port| -> Vec<&str> {
        router
            .routes_on(PortMapping {
                port,
                protocol: Protocol::Http,
            })
            .map(|route| route.name)
            .collect()
    };
    assert_eq!(on(80), ["unbound", "on-80"]);
    assert_eq!(on(81), ["unbound", "on-81"]);
}

#[test]
fn a_backends_own_policy_replaces_the_default_whole() {
    let mut resources = storefront();
    let policy =
        |secret: &str| json!({"tls": {"validation": {"trust": {"sds": {"secretName": secret}}}}});
    put(
        &mut resources,
        ResourceKey::virtual_node(MESH, "web"),
        &json!({
            "backendDefaults": {"clientPolicy": policy("default")},
            "backends": [
                {"virtualService": {"virtualServiceName": "catalog"}},
                {"virtualService": {"virtualServiceName": "cart", "clientPolicy": policy("own")}},
                {"virtualService": {"virtualServiceName": "web", "clientPolicy": {}}},
            ],
        }),
    );
    let view = resources.node_view(MESH, "web").unwrap();
    let secret = |index: usize| {
        view.backends[index]
            .client_policy
            .map(|tls| match &tls.validation.trust {
                crate::tls::ClientTrust::Sds(sds) => sds.secret_name.as_str(),
                other => panic!("{other:?}"),
            })
    };
    assert_eq!(
        [secret(0), secret(1), secret(2)],
        [Some("default"), Some("own"), None]
    );
}

#[test]
fn a_gateway_sees_its_routes_and_their_services() {
    let mut resources = storefront();
    put(
        &mut resources,
        ResourceKey::gateway_route(MESH, "edge", "a-cart"),
        &gateway_route("/cart", "cart"),
    );
    put(
        &mut resources,
        ResourceKey::gateway_route(MESH, "edge", "z"),
        &{
            let mut route = gateway_route("/", "catalog");
            route["priority"] = json!(5);
            route
        },
    );
    let view = resources.gateway_view(MESH, "edge").unwrap();
    let routes: Vec<(&str, &str, u16)> = view
        .routes
        .iter()
        .map(|route| {
            (
                route.name,
                route.service.as_ref().unwrap().name,
                route.port.unwrap().port,
            )
        })
        .collect();
    assert_eq!(
        routes,
        [
            ("z", "catalog", 80),
            ("a-cart", "cart", 8080),
            ("web", "web", 8080)
        ]
    );
    assert!(resources.gateway_view(MESH, "web").is_none());
}

#[test]
fn a_change_concerns_exactly_the_proxies_that_see_it() {
    let resources = storefront();
    let affected = |key: &ResourceKey| -> Vec<String> {
        resources
            .affected_by(key)
            .iter()
            .map(|proxy| proxy.name.clone())
            .collect()
    };
    assert_eq!(
        affected(&ResourceKey::mesh(MESH)),
        ["cart", "catalog-v1", "catalog-v2", "web", "edge"]
    );
    assert_eq!(
        affected(&ResourceKey::virtual_node(MESH, "web")),
        ["web", "edge"]
    );
    assert_eq!(
        affected(&ResourceKey::virtual_node(MESH, "catalog-v2")),
        ["catalog-v2", "web"]
    );
    assert_eq!(
        affected(&ResourceKey::route(MESH, "catalog", "new")),
        ["web"]
    );
    assert_eq!(
        affected(&ResourceKey::virtual_service(MESH, "nowhere")),
        ["web"],
        "it may be about to exist"
    );
    assert_eq!(
        affected(&ResourceKey::gateway_route(MESH, "edge", "new")),
        ["edge"]
    );
    assert_eq!(
        affected(&ResourceKey::virtual_router(MESH, "other")),
        [""; 0]
    );
    assert_eq!(affected(&ResourceKey::mesh("other")), [""; 0]);
}

#[test]
fn a_spec_under_a_key_of_another_kind_is_not_taken() {
    let spec = parse_spec(Kind::Mesh, &json!({})).unwrap();
    let taken = std::panic::catch_unwind(|| {
        let mut resources = Resources::new();
        resources.insert(ResourceKey::virtual_node(MESH, "n"), spec);
        resources.len()
    });
    assert!(taken.map_or(true, |len| len == 0));
}
