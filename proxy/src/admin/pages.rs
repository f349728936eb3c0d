// SPDX-License-Identifier: Apache-2.0
//! Pages that people and scripts read: `/server_info`, `/clusters`, `/listeners`, `/certs`, in Envoy's shapes. Called by
//! the admin server.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use axum::extract::RawQuery;
use axum::extract::State;
use axum::response::Html;
use axum::response::IntoResponse;
use axum::response::Response;
use pillion_xds::endpoint::Health;
use serde_json::Value;
use serde_json::json;

use super::Pages;
use super::pretty;
use super::query;
use crate::cluster::Cluster;
use crate::cluster::Member;

/// Every page, and how it is asked.
const PAGES: [(&str, &str, &str); 21] = [
    ("GET", "/certs", "certificates in use"),
    ("GET", "/clusters", "upstream clusters; ?format=json"),
    ("GET", "/config", "settings that hold"),
    (
        "GET",
        "/config_dump",
        "accepted resources; ?resource= &mask= &name_regex=",
    ),
    (
        "POST",
        "/drain_listeners",
        "?graceful, ?skip_exit, ?inboundonly",
    ),
    ("POST", "/healthcheck/fail", "/ready answers 503"),
    ("POST", "/healthcheck/ok", "/ready answers as it is"),
    ("GET", "/help", "this list"),
    ("GET", "/hot_restart_version", "there is none"),
    ("GET", "/listeners", "bound sockets; ?format=json"),
    ("POST", "/logging", "?level="),
    ("GET", "/memory", "of this process"),
    ("POST", "/quitquitquit", "drains and exits"),
    ("GET", "/ready", "200 LIVE or 503"),
    (
        "POST",
        "/reopen_logs",
        "access logs follow their names by themselves",
    ),
    ("POST", "/reset_counters", "of /stats"),
    ("GET", "/runtime", "runtime values; there are none"),
    ("GET", "/server_info", "state, version, settings"),
    (
        "GET",
        "/stats",
        "?filter= &usedonly &format=json|prometheus",
    ),
    ("GET", "/stats/prometheus", "?filter= &usedonly"),
    ("GET", "/metrics", "as /stats/prometheus"),
];

pub(super) async fn index() -> Html<String> {
    let row = |(method, path, about): &(&str, &str, &str)| match *method {
        "GET" => format!(
            "<li><a href={}>{path}</a> {about}",
            path.trim_start_matches('/')
        ),
        _ => format!("<li>{method} {path} {about}"),
    };
    let rows: String = PAGES.iter().map(row).collect();
    Html(format!(
        "<title>Pillion proxy</title><h1>Pillion proxy</h1><ul>{rows}</ul>\n"
    ))
}

pub(super) async fn help() -> String {
    let row =
        |(method, path, about): &(&str, &str, &str)| format!("  {path} ({method}): {about}\n");
    let rows: String = PAGES.iter().map(row).collect();
    format!("admin commands are:\n{rows}")
}

pub(super) async fn runtime() -> Response {
    pretty(&json!({"layers": [], "entries": {}}))
}

pub(super) async fn memory(State(pages): State<Pages>) -> Response {
    let stats = pages.control.status.stats();
    let of = |wanted: &str| {
        stats
            .iter()
            .find(|(name, ..)| name == wanted)
            .map(|(_, value, _)| *value)
    };
    let resident = of("server.memory_allocated")
        .unwrap_or_default()
        .to_string();
    pretty(&json!({"allocated": resident, "heap_size": resident}))
}

pub(super) async fn server_info(State(pages): State<Pages>) -> Response {
    let status = &pages.control.status;
    let uptime = format!("{}s", status.uptime_s());
    let node = &pages.config.node;
    pretty(&json!({
        "version": concat!("pillion-proxy/", env!("CARGO_PKG_VERSION")),
        "state": status.state().word(),
        "hot_restart_version": "disabled",
        "command_line_options": {
            "concurrency": pages.config.workers,
            "service_node": node.id,
            "service_cluster": node.cluster,
            "log_level": pages.level.get(),
            "drain_time": format!("{}s", pages.config.drain_wait.as_secs()),
        },
        "node": {"id": node.id, "cluster": node.cluster, "user_agent_name": "pillion-proxy"},
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "pending": status.pending(),
    }))
}

pub(super) async fn clusters(State(pages): State<Pages>, RawQuery(raw): RawQuery) -> Response {
    let snapshot = pages.live.current();
    let mut clusters: Vec<_> = snapshot.clusters().collect();
    clusters.sort_by(|a, b| a.name().cmp(b.name()));
    if query(raw.as_deref(), "format").as_deref() == Some("json") {
        let all: Vec<Value> = clusters
            .iter()
            .map(|cluster| cluster_json(cluster))
            .collect();
        return pretty(&json!({"cluster_statuses": all}));
    }
    let mut text = String::new();
    for cluster in clusters {
        // Writing to a string cannot fail.
        let written = cluster_text(&mut text, cluster);
        debug_assert!(written.is_ok());
    }
    text.into_response()
}

fn cluster_text(text: &mut String, cluster: &Cluster) -> std::fmt::Result {
    let name = cluster.name();
    writeln!(text, "{name}::observability_name::{name}")?;
    let limits = &cluster.config.limits;
    for (limit, value) in [
        ("max_connections", limits.max_connections.unwrap_or(1024)),
        (
            "max_pending_requests",
            limits.max_pending_requests.unwrap_or(1024),
        ),
        ("max_requests", limits.max_requests.unwrap_or(1024)),
        ("max_retries", limits.max_retries.unwrap_or(3)),
    ] {
        writeln!(text, "{name}::default_priority::{limit}::{value}")?;
    }
    writeln!(text, "{name}::added_via_api::true")?;
    let Some(set) = cluster.set() else {
        return Ok(());
    };
    for member in set.members() {
        let endpoint = &member.endpoint;
        let host = format!("{name}::{}", endpoint.addr);
        writeln!(
            text,
            "{host}::rq_active::{}",
            endpoint.active.load(Ordering::Relaxed)
        )?;
        writeln!(
            text,
            "{host}::rq_total::{}",
            endpoint.total.load(Ordering::Relaxed)
        )?;
        writeln!(text, "{host}::hostname::{}", endpoint.hostname)?;
        writeln!(text, "{host}::health_flags::{}", health_flags(member))?;
        writeln!(text, "{host}::weight::{}", member.weight)?;
        writeln!(text, "{host}::region::")?;
        writeln!(text, "{host}::zone::{}", endpoint.zone)?;
        writeln!(text, "{host}::sub_zone::")?;
        writeln!(text, "{host}::canary::false")?;
        writeln!(text, "{host}::priority::{}", member.priority)?;
    }
    Ok(())
}

fn health_flags(member: &Member) -> String {
    let endpoint = &member.endpoint;
    let mut flags = Vec::new();
    if endpoint.is_unhealthy() {
        flags.push("/failed_active_hc");
    }
    if endpoint.is_ejected() {
        flags.push("/failed_outlier_check");
    }
    match member.health {
        Health::Healthy => {}
        Health::Unhealthy => flags.push("/failed_eds_health"),
        Health::Draining => flags.push("/eds_status_draining"),
    }
    if flags.is_empty() {
        "healthy".to_owned()
    } else {
        flags.concat()
    }
}

/// Envoy leaves out what does not hold.
fn health_json(member: &Member) -> Value {
    let mut status = json!({"eds_health_status": match member.health {
        Health::Healthy => "HEALTHY",
        Health::Unhealthy => "UNHEALTHY",
        Health::Draining => "DRAINING",
    }});
    if member.endpoint.is_unhealthy() {
        status["failed_active_health_check"] = true.into();
    }
    if member.endpoint.is_ejected() {
        status["failed_outlier_check"] = true.into();
    }
    status
}

fn cluster_json(cluster: &Cluster) -> Value {
    let set = cluster.set();
    let members = set.iter().flat_map(|set| set.members());
    let hosts: Vec<Value> = members
        .map(|member| {
            let endpoint = &member.endpoint;
            json!({
                "address": {"socket_address": {
                    "address": endpoint.addr.ip().to_string(),
                    "port_value": endpoint.addr.port(),
                }},
                "stats": [
                    {"name": "rq_total", "value": endpoint.total.load(Ordering::Relaxed).to_string()},
                    {
                        "type": "GAUGE",
                        "name": "rq_active",
                        "value": endpoint.active.load(Ordering::Relaxed).to_string(),
                    },
                ],
                "health_status": health_json(member),
                "weight": member.weight,
                "priority": member.priority,
                "hostname": endpoint.hostname,
            })
        })
        .collect();
    json!({"name": cluster.name(), "added_via_api": true, "host_statuses": hosts})
}

pub(super) async fn listeners(State(pages): State<Pages>, RawQuery(raw): RawQuery) -> Response {
    let mut sockets = (pages.addresses)();
    sockets.retain(|(name, _)| name != "admin" && name != "agent");
    if query(raw.as_deref(), "format").as_deref() == Some("json") {
        let all: Vec<Value> = sockets
            .iter()
            .map(|(name, addr)| {
                let address = json!({"address": addr.ip().to_string(), "port_value": addr.port()});
                json!({"name": name, "local_address": {"socket_address": address}})
            })
            .collect();
        return pretty(&json!({"listener_statuses": all}));
    }
    let lines: String = sockets
        .iter()
        .map(|(name, addr)| format!("{name}::{addr}\n"))
        .collect();
    lines.into_response()
}
