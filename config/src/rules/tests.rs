// SPDX-License-Identifier: Apache-2.0
//! One test per rule, each with a document on either side of it.

#![allow(
    clippy::needless_pass_by_value,
    reason = "documents are literals at the call; borrowing each says nothing"
)]

use serde_json::{Value, json};

use crate::name::Kind;
use crate::parse_spec;

/// The problems as lines, without the `spec` every path begins with.
fn broken(kind: Kind, document: &Value) -> Vec<String> {
    let problems = parse_spec(kind, document).err().unwrap_or_default();
    problems
        .iter()
        .map(|problem| {
            problem
                .to_string()
                .trim_start_matches("spec")
                .trim_start_matches('.')
                .to_owned()
        })
        .collect()
}

const NOTHING: [&str; 0] = [];

fn node(listeners: Value) -> Value {
    json!({"listeners": listeners, "serviceDiscovery": {"dns": {"hostname": "web.local"}}})
}

fn http_route(conditions: Value) -> Value {
    json!({"httpRoute": {
        "match": conditions,
        "action": {"weightedTargets": [{"virtualNode": "web", "weight": 1}]},
    }})
}

fn grpc_route(conditions: Value) -> Value {
    json!({"grpcRoute": {
        "match": conditions,
        "action": {"weightedTargets": [{"virtualNode": "web", "weight": 1}]},
    }})
}

fn gateway_route(conditions: Value, rewrite: Value) -> Value {
    json!({"httpRoute": {
        "match": conditions,
        "action": {"target": {"virtualService": {"virtualServiceName": "web"}}, "rewrite": rewrite},
    }})
}

#[test]
fn a_node_that_listens_must_be_found() {
    let listeners = json!([{"portMapping": {"port": 80, "protocol": "http"}}]);
    assert_eq!(
        broken(Kind::VirtualNode, &json!({"listeners": listeners})),
        ["serviceDiscovery: is required since the spec has listeners"]
    );
    assert_eq!(broken(Kind::VirtualNode, &node(listeners)), NOTHING);
    assert_eq!(
        broken(Kind::VirtualNode, &json!({"listeners": []})),
        NOTHING
    );
    assert_eq!(broken(Kind::VirtualNode, &json!({})), NOTHING);
}

#[test]
fn a_backend_stands_once() {
    let backend = |name: &str| json!({"virtualService": {"virtualServiceName": name}});
    assert_eq!(
        broken(
            Kind::VirtualNode,
            &json!({"backends": [backend("a"), backend("b"), backend("a")]})
        ),
        ["backends[2].virtualService.virtualServiceName: `a` is a backend already"]
    );
    assert_eq!(
        broken(
            Kind::VirtualNode,
            &json!({"backends": [backend("a"), backend("b")]})
        ),
        NOTHING
    );
}

#[test]
fn listeners_of_one_resource_have_different_ports() {
    let listener =
        |port: u16, protocol: &str| json!({"portMapping": {"port": port, "protocol": protocol}});
    let twice = json!([listener(80, "http"), listener(80, "grpc")]);
    let expected = ["listeners[1].portMapping.port: 80 is taken by another listener"];
    assert_eq!(broken(Kind::VirtualNode, &node(twice.clone())), expected);
    assert_eq!(
        broken(Kind::VirtualRouter, &json!({"listeners": twice})),
        expected
    );
    assert_eq!(
        broken(Kind::VirtualGateway, &json!({"listeners": twice})),
        expected
    );
    let apart = json!([listener(80, "http"), listener(81, "grpc")]);
    assert_eq!(
        broken(Kind::VirtualRouter, &json!({"listeners": apart})),
        NOTHING
    );
}

#[test]
fn pool_and_timeout_are_of_the_listeners_protocol() {
    let listener = |pool: Value, timeout: Value| {
        node(json!([{
            "portMapping": {"port": 80, "protocol": "http2"}, "connectionPool": pool, "timeout": timeout,
        }]))
    };
    let idle = json!({"idle": {"unit": "s", "value": 0}});
    assert_eq!(
        broken(
            Kind::VirtualNode,
            &listener(json!({"http2": {"maxRequests": 1}}), json!({"http2": idle}))
        ),
        NOTHING
    );
    assert_eq!(
        broken(
            Kind::VirtualNode,
            &listener(json!({"grpc": {"maxRequests": 1}}), json!({"tcp": idle}))
        ),
        [
            "listeners[0].connectionPool.grpc: must be http2, the protocol of the listener",
            "listeners[0].timeout.tcp: must be http2, the protocol of the listener",
        ]
    );
    let gateway = json!({"listeners": [{
        "portMapping": {"port": 80, "protocol": "grpc"}, "connectionPool": {"http": {"maxConnections": 1}},
    }]});
    assert_eq!(
        broken(Kind::VirtualGateway, &gateway),
        ["listeners[0].connectionPool.http: must be grpc, the protocol of the listener"]
    );
}

fn with_health_check(protocol: &str, check: &Value) -> Value {
    let mut full = json!({
        "healthyThreshold": 2, "unhealthyThreshold": 2, "intervalMillis": 5000, "timeoutMillis": 2000,
    });
    for (name, value) in check.as_object().unwrap() {
        full[name] = value.clone();
    }
    node(json!([{"portMapping": {"port": 80, "protocol": protocol}, "healthCheck": full}]))
}

#[test]
fn a_health_check_asks_the_listeners_port() {
    assert_eq!(
        broken(
            Kind::VirtualNode,
            &with_health_check("http", &json!({"protocol": "http", "port": 81}))
        ),
        ["listeners[0].healthCheck.port: must be 80, the port of the listener, is 81"]
    );
    let same = json!({"protocol": "http", "port": 80, "path": "/ping"});
    assert_eq!(
        broken(Kind::VirtualNode, &with_health_check("http", &same)),
        NOTHING
    );
}

#[test]
fn a_grpc_health_check_needs_a_listener_that_speaks_http2() {
    let grpc = json!({"protocol": "grpc"});
    for protocol in ["http", "tcp"] {
        assert_eq!(
            broken(Kind::VirtualNode, &with_health_check(protocol, &grpc)),
            [
                "listeners[0].healthCheck.protocol: GRPC HealthCheck requires listener type of HTTP2 or GRPC."
            ]
        );
    }
    for protocol in ["http2", "grpc"] {
        assert_eq!(
            broken(Kind::VirtualNode, &with_health_check(protocol, &grpc)),
            NOTHING
        );
    }
}

#[test]
fn a_health_check_has_a_path_only_over_http() {
    let tcp = json!({"protocol": "tcp", "path": "/"});
    assert_eq!(
        broken(Kind::VirtualNode, &with_health_check("tcp", &tcp)),
        [
            "listeners[0].healthCheck.path: is only for http and http2 health checks, this one is tcp"
        ]
    );
    assert_eq!(
        broken(
            Kind::VirtualNode,
            &with_health_check("tcp", &json!({"protocol": "tcp"}))
        ),
        NOTHING
    );
}

#[test]
fn a_duration_has_number_and_unit() {
    let spec = json!({"tcpRoute": {
        "action": {"weightedTargets": [{"virtualNode": "web", "weight": 1}]}, "timeout": {"idle": {}},
    }});
    assert_eq!(
        broken(Kind::Route, &spec),
        [
            "tcpRoute.timeout.idle.unit: is required",
            "tcpRoute.timeout.idle.value: is required"
        ]
    );
}

#[test]
fn a_dns_hostname_is_a_name_or_an_address() {
    let spec = |hostname: &str| json!({"serviceDiscovery": {"dns": {"hostname": hostname}}});
    assert_eq!(
        broken(Kind::VirtualNode, &spec("")),
        [
            "serviceDiscovery.dns.hostname: must be a DNS name (letters, digits, hyphens; no scheme, no port) or an IP address, is ``"
        ]
    );
    for good in [
        "127.0.0.1",
        "::1",
        "web.local",
        "_http._tcp.web.local.",
        "a",
    ] {
        assert_eq!(broken(Kind::VirtualNode, &spec(good)), NOTHING, "{good}");
    }
    for bad in [
        "http://web",
        "web:80",
        "a b",
        "a..b",
        "-a",
        "*.web",
        "a/b",
        &"a".repeat(64),
        &"a.".repeat(128),
    ] {
        assert_eq!(broken(Kind::VirtualNode, &spec(bad)).len(), 1, "{bad}");
    }
}

#[test]
fn a_route_is_of_exactly_one_protocol() {
    let route = http_route(json!({"prefix": "/"}));
    let tcp = json!({"action": {"weightedTargets": [{"virtualNode": "web", "weight": 0}]}});
    assert_eq!(broken(Kind::Route, &route), NOTHING);
    assert_eq!(
        broken(Kind::Route, &json!({"tcpRoute": tcp, "priority": 0})),
        NOTHING
    );
    assert_eq!(
        broken(
            Kind::Route,
            &json!({"httpRoute": route["httpRoute"], "tcpRoute": tcp})
        ),
        [
            ": must have exactly one of httpRoute, http2Route, grpcRoute, tcpRoute, has httpRoute and tcpRoute"
        ]
    );
    assert_eq!(
        broken(Kind::Route, &json!({"priority": 1})),
        [": must have exactly one of httpRoute, http2Route, grpcRoute, tcpRoute, has none"]
    );
    assert_eq!(
        broken(Kind::GatewayRoute, &json!({})),
        [": must have exactly one of httpRoute, http2Route, grpcRoute, has none"]
    );
}

#[test]
fn a_match_of_only_a_port_or_of_nothing_is_accepted() {
    assert_eq!(
        broken(Kind::Route, &http_route(json!({"port": 3333}))),
        NOTHING
    );
    assert_eq!(broken(Kind::Route, &http_route(json!({}))), NOTHING);
    assert_eq!(broken(Kind::Route, &grpc_route(json!({}))), NOTHING);
    assert_eq!(
        broken(
            Kind::GatewayRoute,
            &gateway_route(json!({"port": 1}), json!({}))
        ),
        NOTHING
    );
}

#[test]
fn a_prefix_begins_with_a_slash_and_excludes_a_path() {
    assert_eq!(
        broken(Kind::Route, &http_route(json!({"prefix": "red"}))),
        ["httpRoute.match.prefix: must begin with `/`, is `red`"]
    );
    assert_eq!(
        broken(
            Kind::Route,
            &http_route(json!({"prefix": "/", "path": {"exact": "/a"}}))
        ),
        ["httpRoute.match: must have at most one of prefix, path, has prefix, path"]
    );
    assert_eq!(
        broken(
            Kind::GatewayRoute,
            &gateway_route(json!({"prefix": ""}), json!({}))
        ),
        ["httpRoute.match.prefix: must begin with `/`, is ``"]
    );
}

#[test]
fn a_path_is_exact_or_a_regex_that_compiles() {
    let path = |path: Value| broken(Kind::Route, &http_route(json!({"path": path})));
    assert_eq!(path(json!({"exact": "/a"})), NOTHING);
    assert_eq!(path(json!({"regex": "/a/[0-9]+"})), NOTHING);
    assert_eq!(
        path(json!({})),
        ["httpRoute.match.path: must have exactly one of exact, regex, has none"]
    );
    assert_eq!(
        path(json!({"exact": "/a", "regex": "/a"})),
        ["httpRoute.match.path: must have exactly one of exact, regex, has exact and regex"]
    );
    assert_eq!(
        path(json!({"regex": "("})),
        ["httpRoute.match.path.regex: must be a regular expression, is `(`: unclosed group"]
    );
    let huge = path(json!({"regex": r"(\w{1000}){1000}"}));
    assert!(huge[0].contains("size limit"), "{huge:?}");
}

#[test]
fn a_header_condition_names_a_header_and_makes_sense() {
    let header = |header: Value| broken(Kind::Route, &http_route(json!({"headers": [header]})));
    assert_eq!(header(json!({"name": "x-beta"})), NOTHING);
    assert_eq!(
        header(json!({"name": "x", "invert": true, "match": {"range": {"start": -1, "end": 0}}})),
        NOTHING
    );
    assert_eq!(
        header(json!({"name": ":authority"})),
        [
            "httpRoute.match.headers[0].name: must be printable ASCII without space or colon, has ':'"
        ]
    );
    assert_eq!(header(json!({"name": "a b"})).len(), 1);
    assert_eq!(
        header(json!({"name": "x", "match": {"range": {"start": 5, "end": 5}}})),
        ["httpRoute.match.headers[0].match.range.end: must be greater than start (5), is 5"]
    );
    assert_eq!(
        header(json!({"name": "x", "match": {"regex": "["}})),
        [
            "httpRoute.match.headers[0].match.regex: must be a regular expression, is `[`: unclosed character class"
        ]
    );
    let metadata = json!({"metadata": [{"name": "a:b", "match": {"regex": "*"}}]});
    assert_eq!(broken(Kind::Route, &grpc_route(metadata)).len(), 2);
}

#[test]
fn a_grpc_method_needs_its_service() {
    assert_eq!(
        broken(Kind::Route, &grpc_route(json!({"methodName": "Get"}))),
        ["grpcRoute.match.serviceName: is required together with methodName"]
    );
    let both = json!({"methodName": "Get", "serviceName": "shop.Cart"});
    assert_eq!(broken(Kind::Route, &grpc_route(both)), NOTHING);
}

#[test]
fn a_retry_policy_retries_on_something() {
    let with = |events: Value| {
        let mut route = http_route(json!({"prefix": "/"}));
        let mut policy = json!({"maxRetries": 0, "perRetryTimeout": {"unit": "ms", "value": 0}});
        for (name, value) in events.as_object().unwrap() {
            policy[name] = value.clone();
        }
        route["httpRoute"]["retryPolicy"] = policy;
        broken(Kind::Route, &route)
    };
    assert_eq!(with(json!({"httpRetryEvents": ["server-error"]})), NOTHING);
    assert_eq!(
        with(json!({"tcpRetryEvents": ["connection-error"]})),
        NOTHING
    );
    assert_eq!(
        with(json!({})),
        [
            "httpRoute.retryPolicy: must name at least one event to retry on, in httpRetryEvents, tcpRetryEvents or (gRPC) grpcRetryEvents"
        ]
    );
    assert_eq!(
        with(json!({"grpcRetryEvents": ["cancelled"]})),
        [
            "httpRoute.retryPolicy.grpcRetryEvents: is unknown; known here: httpRetryEvents, maxRetries, perRetryTimeout, tcpRetryEvents"
        ]
    );
}

#[test]
fn http_retry_events_are_free_strings_as_in_the_model() {
    let mut route = http_route(json!({"prefix": "/"}));
    route["httpRoute"]["retryPolicy"] = json!({
        "maxRetries": 1, "perRetryTimeout": {"unit": "s", "value": 1}, "httpRetryEvents": ["some-day"],
    });
    assert_eq!(broken(Kind::Route, &route), NOTHING);
}

#[test]
fn paths_and_services_reserved_at_the_edge_are_refused() {
    for prefix in ["/aws-appmesh", "/aws-app-mesh/x"] {
        let refused = broken(
            Kind::GatewayRoute,
            &gateway_route(json!({"prefix": prefix}), json!({})),
        );
        assert!(
            refused[0].starts_with("httpRoute.match.prefix: must not begin with"),
            "{refused:?}"
        );
        let exact = json!({"path": {"exact": prefix}});
        let refused = broken(Kind::GatewayRoute, &gateway_route(exact, json!({})));
        assert!(
            refused[0].starts_with("httpRoute.match.path.exact: must not begin with"),
            "{refused:?}"
        );
        assert_eq!(
            broken(Kind::Route, &http_route(json!({"prefix": prefix}))),
            NOTHING
        );
    }
    let grpc = |service: &str| {
        broken(
            Kind::GatewayRoute,
            &json!({"grpcRoute": {
                "match": {"serviceName": service},
                "action": {"target": {"virtualService": {"virtualServiceName": "web"}}},
            }}),
        )
    };
    assert_eq!(grpc("shop.Cart"), NOTHING);
    for service in ["aws.app-mesh.X", "aws.appmesh"] {
        assert!(grpc(service)[0].starts_with("grpcRoute.match.serviceName: must not begin with"));
    }
}

#[test]
fn a_hostname_is_matched_whole_or_by_suffix() {
    let hostname = |hostname: Value| {
        broken(
            Kind::GatewayRoute,
            &gateway_route(json!({"hostname": hostname}), json!({})),
        )
    };
    assert_eq!(hostname(json!({"exact": "a.example.com"})), NOTHING);
    assert_eq!(hostname(json!({"suffix": ".example.com"})), NOTHING);
    assert_eq!(
        hostname(json!({})),
        ["httpRoute.match.hostname: must have exactly one of exact, suffix, has none"]
    );
    assert_eq!(
        hostname(json!({"exact": "a", "suffix": "b"})),
        ["httpRoute.match.hostname: must have exactly one of exact, suffix, has exact and suffix"]
    );
}

#[test]
fn a_rewrite_does_one_thing_to_the_path() {
    let rewrite = |rewrite: Value| {
        broken(
            Kind::GatewayRoute,
            &gateway_route(json!({"prefix": "/a"}), rewrite),
        )
    };
    assert_eq!(
        rewrite(json!({"prefix": {"defaultPrefix": "DISABLED"}})),
        NOTHING
    );
    assert_eq!(
        rewrite(
            json!({"prefix": {"value": "/b/"}, "hostname": {"defaultTargetHostname": "ENABLED"}})
        ),
        NOTHING
    );
    assert_eq!(rewrite(json!({"path": {"exact": "/b"}})), NOTHING);
    assert_eq!(
        rewrite(
            json!({"path": {"exact": "b"}, "prefix": {"value": "b", "defaultPrefix": "ENABLED"}})
        ),
        [
            "httpRoute.action.rewrite: must have at most one of path, prefix, has path, prefix",
            "httpRoute.action.rewrite.path.exact: must begin with `/`, is `b`",
            "httpRoute.action.rewrite.prefix: must have at most one of defaultPrefix, value, has defaultPrefix, value",
            "httpRoute.action.rewrite.prefix.value: must begin with `/`, is `b`",
        ]
    );
    let by_path = gateway_route(
        json!({"path": {"exact": "/a"}}),
        json!({"prefix": {"value": "/b"}}),
    );
    assert_eq!(
        broken(Kind::GatewayRoute, &by_path),
        [
            "httpRoute.action.rewrite.prefix.value: replaces a matched prefix, but the match is by path; use rewrite.path.exact"
        ]
    );
}

#[test]
fn rules_are_still_held_where_types_are_wrong_elsewhere() {
    let spec = json!({
        "listeners": [{"portMapping": {"port": "80", "protocol": "http"}, "timeout": {"tcp": {}}}, 5],
        "colour": "red",
    });
    assert_eq!(
        broken(Kind::VirtualNode, &spec),
        [
            "listeners[0].portMapping.port: must be a whole number, is a string",
            "listeners[1]: must be an object, is a number",
            "colour: is unknown; known here: backendDefaults, backends, listeners, logging, serviceDiscovery",
            "serviceDiscovery: is required since the spec has listeners",
            "listeners[0].timeout.tcp: must be http, the protocol of the listener",
        ]
    );
}

#[test]
fn regexes_past_the_bound_of_their_list_are_not_compiled() {
    let header = json!({"name": "x", "match": {"regex": "("}});
    let headers = vec![header; 1000];
    let lines = broken(Kind::Route, &http_route(json!({"headers": headers})));
    assert_eq!(
        lines[0],
        "httpRoute.match.headers: must have at most 10 items, has 1000"
    );
    assert_eq!(lines.len(), 11);
}
