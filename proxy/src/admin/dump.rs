// SPDX-License-Identifier: Apache-2.0
//! `/config_dump`: what was accepted, as JSON in the outline of Envoy's, with names, versions and the checked form.
//! Secrets show their names only. Called by the admin server.

use std::time::Duration;

use axum::extract::RawQuery;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::Response;
use pillion_xds::cluster::Cluster;
use pillion_xds::cluster::Discovery;
use pillion_xds::cluster::Probe;
use pillion_xds::endpoint::ClusterLoadAssignment;
use pillion_xds::listener::AccessLogFormat;
use pillion_xds::listener::FilterChain;
use pillion_xds::listener::Listener;
use pillion_xds::listener::NetworkFilter;
use pillion_xds::listener::RouteSource;
use pillion_xds::resource::Resource;
use pillion_xds::resource::ResourceType;
use pillion_xds::resource::Versioned;
use pillion_xds::route::Action;
use pillion_xds::route::HeaderValueMatch;
use pillion_xds::route::PathMatch;
use pillion_xds::route::PathRewrite;
use pillion_xds::route::Route;
use pillion_xds::route::RouteConfiguration;
use pillion_xds::secret::SecretSource;
use pillion_xds::secret::Validation;
use serde_json::Value;
use serde_json::json;

use super::Pages;
use super::pretty;
use super::select;

pub(super) async fn config_dump(State(pages): State<Pages>, RawQuery(raw): RawQuery) -> Response {
    let asked = match select::Asked::parse(raw.as_deref()) {
        Ok(asked) => asked,
        Err(why) => return (StatusCode::BAD_REQUEST, why).into_response(),
    };
    let accepted = pages.control.applier.lock().accepted();
    let mut configs = vec![json!({
        "@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump",
        "bootstrap": pages.config.to_json(),
    })];
    for (kind, resources) in accepted {
        let (dump, list, member) = outline(kind);
        let named = resources
            .iter()
            .filter(|one| asked.names(one.resource.name()));
        let entries: Vec<Value> = named.map(|one| entry(kind, one, member)).collect();
        configs.push(
            json!({"@type": format!("type.googleapis.com/envoy.admin.v3.{dump}"), list: entries}),
        );
    }
    match asked.of(configs) {
        Ok(configs) => pretty(&json!({"configs": configs})),
        Err(why) => (StatusCode::NOT_FOUND, why).into_response(),
    }
}

/// Envoy's names: the dump, its list, and where the resource stands in an entry.
fn outline(kind: ResourceType) -> (&'static str, &'static str, &'static str) {
    match kind {
        ResourceType::Cluster => ("ClustersConfigDump", "dynamic_active_clusters", "cluster"),
        ResourceType::Endpoint => (
            "EndpointsConfigDump",
            "dynamic_endpoint_configs",
            "endpoint_config",
        ),
        ResourceType::Listener => ("ListenersConfigDump", "dynamic_listeners", "listener"),
        ResourceType::Route => ("RoutesConfigDump", "dynamic_route_configs", "route_config"),
        ResourceType::Secret => ("SecretsConfigDump", "dynamic_active_secrets", "secret"),
    }
}

fn entry(kind: ResourceType, one: &Versioned, member: &str) -> Value {
    let mut body = match &one.resource {
        Resource::Cluster(cluster) => cluster_json(cluster),
        Resource::Endpoint(endpoints) => endpoints_json(endpoints),
        Resource::Listener(listener) => listener_json(listener),
        Resource::Route(table) => routes_json(table),
        // The value never leaves the process.
        Resource::Secret(secret) => json!({"name": secret.name}),
    };
    body["@type"] = kind.url().into();
    let versioned = json!({"version_info": one.version, member: body});
    match kind {
        ResourceType::Listener => json!({"name": one.resource.name(), "active_state": versioned}),
        _ => versioned,
    }
}

fn seconds(limit: Duration) -> String {
    format!("{}s", limit.as_secs_f64())
}

fn cluster_json(cluster: &Cluster) -> Value {
    let (kind, endpoints) = match &cluster.discovery {
        Discovery::Static(endpoints) => ("STATIC", endpoints_json(endpoints)),
        Discovery::StrictDns(endpoints) => ("STRICT_DNS", endpoints_json(endpoints)),
        Discovery::LogicalDns(endpoints) => ("LOGICAL_DNS", endpoints_json(endpoints)),
        Discovery::Eds(name) => ("EDS", json!({"service_name": name})),
        Discovery::OriginalDestination => ("ORIGINAL_DST", Value::Null),
    };
    let tls = cluster.tls.as_ref().map(|tls| {
        json!({
            "certificate": tls.certificate.as_ref().map(source_json),
            "validation": tls.validation.as_ref().map(validation_json),
            "sni": tls.sni,
            "alpn_protocols": tls.alpn,
        })
    });
    let outlier = cluster.outlier_detection.as_ref().map(|outlier| {
        json!({
            "consecutive_5xx": outlier.consecutive_5xx,
            "interval": seconds(outlier.interval),
            "base_ejection_time": seconds(outlier.base_ejection_time),
            "max_ejection_percent": outlier.max_ejection_percent,
        })
    });
    let checks: Vec<Value> = cluster
        .health_checks
        .iter()
        .map(|check| {
            let probe = match &check.probe {
                Probe::Http { path, http2 } => json!({"path": path, "http2": http2}),
                Probe::Grpc => json!("grpc"),
                Probe::Tcp => json!("tcp"),
            };
            json!({
                "probe": probe,
                "interval": seconds(check.interval),
                "timeout": seconds(check.timeout),
                "healthy_threshold": check.healthy_threshold,
                "unhealthy_threshold": check.unhealthy_threshold,
            })
        })
        .collect();
    json!({
        "name": cluster.name,
        "type": kind,
        "load_assignment": endpoints,
        "connect_timeout": seconds(cluster.connect_timeout),
        "protocol": format!("{:?}", cluster.protocol),
        "transport_socket": tls,
        "circuit_breakers": {
            "max_connections": cluster.limits.max_connections,
            "max_pending_requests": cluster.limits.max_pending_requests,
            "max_requests": cluster.limits.max_requests,
            "max_retries": cluster.limits.max_retries,
            "retry_budget": cluster.limits.retry_budget.map(|budget| json!({
                "budget_percent": budget.percent,
                "min_retry_concurrency": budget.min_concurrency,
            })),
        },
        "outlier_detection": outlier,
        "health_checks": checks,
        "dns_lookup_family": format!("{:?}", cluster.dns_family),
        "idle_timeout": cluster.idle_timeout.map(seconds),
        "metadata": cluster.labels.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
    })
}

fn endpoints_json(assignment: &ClusterLoadAssignment) -> Value {
    let localities: Vec<Value> = assignment
        .localities
        .iter()
        .map(|locality| {
            let endpoints: Vec<Value> = locality
                .endpoints
                .iter()
                .map(|endpoint| {
                    let address = json!({"address": endpoint.host, "port_value": endpoint.port});
                    json!({
                        "endpoint": {"address": {"socket_address": address}},
                        "health_status": format!("{:?}", endpoint.health).to_uppercase(),
                        "load_balancing_weight": endpoint.weight,
                    })
                })
                .collect();
            json!({"zone": locality.zone, "priority": locality.priority, "lb_endpoints": endpoints})
        })
        .collect();
    json!({"cluster_name": assignment.cluster_name, "endpoints": localities})
}

fn source_json(source: &SecretSource) -> Value {
    match source {
        SecretSource::Ads(name) => json!({"ads": name}),
        SecretSource::Sds { name, cluster } => json!({"sds": name, "cluster": cluster}),
        SecretSource::CertificateFiles { chain, key } => {
            json!({"certificate_chain": chain, "private_key": key})
        }
        SecretSource::TrustFile(path) => json!({"trusted_ca": path}),
    }
}

fn validation_json(validation: &Validation) -> Value {
    let names: Vec<String> = validation
        .subject_alt_names
        .iter()
        .map(|name| format!("{name:?}"))
        .collect();
    json!({"trust": source_json(&validation.trust), "match_typed_subject_alt_names": names})
}

fn listener_json(listener: &Listener) -> Value {
    let chains: Vec<Value> = listener.filter_chains.iter().map(chain_json).collect();
    json!({
        "name": listener.name,
        "address": {"socket_address": {
            "address": listener.address.ip().to_string(),
            "port_value": listener.address.port(),
        }},
        "traffic_direction": format!("{:?}", listener.direction).to_uppercase(),
        "use_original_dst": listener.original_destination,
        "filter_chains": chains,
        "default_filter_chain": listener.default_filter_chain.as_ref().map(chain_json),
    })
}

fn chain_json(chain: &FilterChain) -> Value {
    let ranges = chain
        .matching
        .prefix_ranges
        .iter()
        .map(|(ip, length)| format!("{ip}/{length}"));
    let tls = chain.tls.as_ref().map(|tls| {
        json!({
            "certificate": source_json(&tls.certificate),
            "validation": tls.validation.as_ref().map(validation_json),
            "require_client_certificate": tls.require_client_certificate,
            "alpn_protocols": tls.alpn,
        })
    });
    json!({
        "name": chain.name,
        "filter_chain_match": {
            "destination_port": chain.matching.destination_port,
            "prefix_ranges": ranges.collect::<Vec<_>>(),
            "server_names": chain.matching.server_names,
            "transport_protocol": chain.matching.transport.map(|transport| format!("{transport:?}")),
            "application_protocols": chain.matching.application_protocols,
        },
        "transport_socket": tls,
        "filter": filter_json(&chain.filter),
    })
}

fn filter_json(filter: &NetworkFilter) -> Value {
    match filter {
        NetworkFilter::Http(manager) => {
            let routes = match &manager.routes {
                RouteSource::Rds(name) => json!({"rds": name}),
                RouteSource::Inline(table) => routes_json(table),
            };
            let logs: Vec<Value> = manager
                .access_logs
                .iter()
                .map(|log| {
                    let format = match &log.format {
                        AccessLogFormat::Default => Value::Null,
                        AccessLogFormat::Text(text) => json!(text),
                        AccessLogFormat::Json(members) => json!(members),
                    };
                    json!({"path": log.path, "format": format})
                })
                .collect();
            json!({"http_connection_manager": {
                "stat_prefix": manager.stat_prefix,
                "codec_type": format!("{:?}", manager.codec).to_uppercase(),
                "routes": routes,
                "access_log": logs,
                "use_remote_address": manager.use_remote_address,
                "normalize_path": manager.normalize_path,
                "merge_slashes": manager.merge_slashes,
                "upgrade_configs": manager.upgrades,
                "stream_idle_timeout": manager.stream_idle_timeout.map(seconds),
                "strip_any_host_port": manager.strip_port,
            }})
        }
        NetworkFilter::Tcp(proxy) => json!({"tcp_proxy": {
            "stat_prefix": proxy.stat_prefix,
            "weighted_clusters": weights_json(&proxy.clusters),
            "idle_timeout": proxy.idle_timeout.map(seconds),
        }}),
    }
}

fn weights_json(clusters: &[pillion_xds::route::WeightedCluster]) -> Vec<Value> {
    clusters
        .iter()
        .map(|cluster| json!({"name": cluster.name, "weight": cluster.weight}))
        .collect()
}

fn routes_json(table: &RouteConfiguration) -> Value {
    let hosts: Vec<Value> = table
        .virtual_hosts
        .iter()
        .map(|host| {
            let routes: Vec<Value> = host.routes.iter().map(route_json).collect();
            json!({"name": host.name, "domains": host.domains, "routes": routes})
        })
        .collect();
    json!({"name": table.name, "virtual_hosts": hosts})
}

fn route_json(route: &Route) -> Value {
    let path = match &route.matching.path {
        PathMatch::Prefix(prefix) => json!({"prefix": prefix}),
        PathMatch::Exact(path) => json!({"path": path}),
        PathMatch::Regex(pattern) => json!({"safe_regex": pattern}),
    };
    let headers: Vec<Value> = route
        .matching
        .headers
        .iter()
        .map(|header| {
            let value = match &header.value {
                HeaderValueMatch::Present => json!("present"),
                HeaderValueMatch::Exact(text) => json!({"exact": text}),
                HeaderValueMatch::Prefix(text) => json!({"prefix": text}),
                HeaderValueMatch::Suffix(text) => json!({"suffix": text}),
                HeaderValueMatch::Regex(pattern) => json!({"safe_regex": pattern}),
                HeaderValueMatch::Range(start, end) => json!({"start": start, "end": end}),
            };
            json!({"name": header.name, "match": value, "invert_match": header.invert})
        })
        .collect();
    let query: Vec<Value> = route
        .matching
        .query
        .iter()
        .map(|one| json!({"name": one.name, "exact": one.exact}))
        .collect();
    json!({
        "name": route.name,
        "match": {"path": path, "headers": headers, "query_parameters": query, "grpc": route.matching.grpc},
        "action": action_json(&route.action),
    })
}

fn action_json(action: &Action) -> Value {
    let forward = match action {
        Action::Respond { status, body } => {
            return json!({"direct_response": {"status": status, "body": body}});
        }
        Action::Forward(forward) => forward,
    };
    let rewrite = forward.rewrite.as_ref().map(|rewrite| match rewrite {
        PathRewrite::Prefix(prefix) => json!({"prefix_rewrite": prefix}),
        PathRewrite::Regex {
            pattern,
            substitution,
        } => json!({"pattern": pattern, "substitution": substitution}),
    });
    let retry = forward.retry.as_ref().map(|retry| {
        let on: Vec<&str> = retry.on.iter().map(|on| on.word()).collect();
        json!({
            "retry_on": on.join(","),
            "retriable_status_codes": retry.status_codes,
            "num_retries": retry.max_retries,
            "per_try_timeout": retry.per_try_timeout.map(seconds),
        })
    });
    json!({"route": {
        "weighted_clusters": weights_json(&forward.clusters),
        "timeout": seconds(forward.timeout),
        "idle_timeout": forward.idle_timeout.map(seconds),
        "retry_policy": retry,
        "rewrite": rewrite,
        "host_rewrite_literal": forward.host_rewrite,
    }})
}
