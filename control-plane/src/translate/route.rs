// SPDX-License-Identifier: Apache-2.0
//! Route tables of sidecars: what the app may call, and what reaches the app. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use pillion_config::graph::NodeView;
use pillion_config::listener::Listener;
use pillion_config::mesh::EgressFilterType;
use pillion_xds::route::Action;
use pillion_xds::route::Forward;
use pillion_xds::route::Route;
use pillion_xds::route::RouteConfiguration;
use pillion_xds::route::VirtualHost;
use pillion_xds::route::WeightedCluster;

use super::callee;
use super::callee::Callee;
use super::callee::CalleePort;
use super::callee::Rule;
use super::cluster;
use super::cluster::Clusters;

/// App Mesh let these through `DROP_ALL`, so that an app can reach the AWS API without declaring it.
pub const ALWAYS_ALLOWED: &str = "*.amazonaws.com";

/// The port of the explicit egress listener, and so of its route table.
pub const EXPLICIT_PORT: u16 = 15001;

/// Name of the table behind our own listener.
pub fn ingress_name(port: u16) -> String {
    format!("rds_ingress_http_{port}")
}

/// Name of the table for calls to `port`.
pub fn egress_name(port: u16) -> String {
    format!("rds_egress_http_{port}")
}

/// Everything that arrives goes to the app, under the listener's limits and never twice: retries are the client's.
pub fn ingress(view: &NodeView<'_>, listener: &Listener) -> Option<RouteConfiguration> {
    if !listener.port_mapping.protocol.is_http() {
        return None;
    }
    let (timeout, idle) = callee::listener_limits(listener.timeout.as_ref());
    let forward = Forward {
        clusters: vec![WeightedCluster {
            name: cluster::ingress_name(view, listener),
            weight: 1,
        }],
        timeout,
        idle_timeout: Some(idle),
        retry: None,
        rewrite: None,
        host_rewrite: None,
    };
    let route = Route {
        name: view.name.to_owned(),
        matching: callee::any(),
        action: Action::Forward(Box::new(forward)),
    };
    let host = VirtualHost {
        name: view.name.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route],
    };
    Some(RouteConfiguration {
        name: ingress_name(listener.port_mapping.port),
        virtual_hosts: vec![host],
    })
}

/// The ports on which some backend speaks HTTP, each once.
pub fn http_ports(callees: &[Callee<'_>]) -> BTreeSet<u16> {
    let ports = callees.iter().flat_map(|callee| &callee.ports);
    ports
        .filter(|port| port.mapping.protocol.is_http())
        .map(|port| port.mapping.port)
        .collect()
}

/// One table per port for redirected connections, and one for explicit ones, where only the authority tells the port.
pub fn egress(
    view: &NodeView<'_>,
    callees: &[Callee<'_>],
    clusters: &Clusters,
) -> Vec<RouteConfiguration> {
    let mut tables = Vec::new();
    for port in http_ports(callees)
        .into_iter()
        .filter(|port| *port != EXPLICIT_PORT)
    {
        tables.push(table(
            view,
            port,
            callees
                .iter()
                .flat_map(|callee| hosts_on(callee, port, clusters)),
        ));
    }
    tables.push(table(
        view,
        EXPLICIT_PORT,
        callees
            .iter()
            .flat_map(|callee| explicit_hosts(callee, clusters)),
    ));
    tables
}

fn table(
    view: &NodeView<'_>,
    port: u16,
    hosts: impl Iterator<Item = VirtualHost>,
) -> RouteConfiguration {
    let mut taken = BTreeSet::new();
    let mut virtual_hosts: Vec<VirtualHost> =
        hosts.filter_map(|host| unique(host, &mut taken)).collect();
    let undeclared = match view.mesh_spec.egress() {
        EgressFilterType::AllowAll => pass_through(
            "mesh-allow-all",
            vec!["*".to_owned()],
            cluster::allow_all(view.mesh),
        ),
        EgressFilterType::DropAll => {
            let ports: &[u16] = if port == EXPLICIT_PORT {
                &[80, 443]
            } else {
                &[port]
            };
            let mut domains = vec![ALWAYS_ALLOWED.to_owned()];
            domains.extend(ports.iter().map(|port| format!("{ALWAYS_ALLOWED}:{port}")));
            pass_through("amazonaws", domains, cluster::amazonaws(view.mesh))
        }
    };
    virtual_hosts.extend(unique(undeclared, &mut taken));
    RouteConfiguration {
        name: egress_name(port),
        virtual_hosts,
    }
}

/// Envoy refuses a table in which a domain stands twice, and with it every other backend.
fn unique(mut host: VirtualHost, taken: &mut BTreeSet<String>) -> Option<VirtualHost> {
    host.domains.retain(|domain| taken.insert(domain.clone()));
    (!host.domains.is_empty()).then_some(host)
}

/// What is not declared goes where it was going, for as long as it takes: it is none of the mesh's.
fn pass_through(name: &str, domains: Vec<String>, cluster: String) -> VirtualHost {
    let forward = Forward {
        clusters: vec![WeightedCluster {
            name: cluster,
            weight: 1,
        }],
        timeout: Duration::ZERO,
        idle_timeout: Some(callee::DEFAULT_IDLE),
        retry: None,
        rewrite: None,
        host_rewrite: None,
    };
    let route = Route {
        name: name.to_owned(),
        matching: callee::any(),
        action: Action::Forward(Box::new(forward)),
    };
    VirtualHost {
        name: name.to_owned(),
        domains,
        routes: vec![route],
    }
}

fn hosts_on(callee: &Callee<'_>, port: u16, clusters: &Clusters) -> Option<VirtualHost> {
    let name = callee.name.to_ascii_lowercase();
    if callee.ports.is_empty() {
        return Some(unprovided(callee));
    }
    let found = callee
        .ports
        .iter()
        .find(|one| one.mapping.port == port && one.mapping.protocol.is_http())?;
    let domains = vec![name.clone(), format!("{name}:{port}")];
    Some(VirtualHost {
        name,
        domains,
        routes: routes(callee, found, clusters),
    })
}

/// `Host` with a port means the virtual service on that port; without one, the only port it has, else 80 (design 9).
fn explicit_hosts(callee: &Callee<'_>, clusters: &Clusters) -> Vec<VirtualHost> {
    if callee.ports.is_empty() {
        return vec![unprovided(callee)];
    }
    let name = callee.name.to_ascii_lowercase();
    let (http, tcp): (Vec<&CalleePort<'_>>, Vec<_>) = callee
        .ports
        .iter()
        .partition(|port| port.mapping.protocol.is_http());
    let host = |port: &&CalleePort<'_>, routes| {
        let number = port.mapping.port;
        let mut domains = vec![format!("{name}:{number}")];
        if port.mapping.protocol.is_http() && (http.len() == 1 || number == 80) {
            domains.push(name.clone());
        }
        VirtualHost {
            name: format!("{name}:{number}"),
            domains,
            routes,
        }
    };
    let mut hosts: Vec<VirtualHost> = http
        .iter()
        .map(|port| host(port, routes(callee, port, clusters)))
        .collect();
    hosts.extend(
        tcp.iter()
            .map(|port| host(port, connect_only(routes(callee, port, clusters)))),
    );
    hosts
}

/// `CONNECT` names the backend that a bare TCP connection cannot name; any other method is not for it.
fn connect_only(mut routes: Vec<Route>) -> Vec<Route> {
    for route in &mut routes {
        route
            .matching
            .headers
            .push(callee::exact_header(":method", "CONNECT"));
    }
    routes
}

/// Declared but answered by nobody: 404 for it, also where everything undeclared may pass.
fn unprovided(callee: &Callee<'_>) -> VirtualHost {
    let name = callee.name.to_ascii_lowercase();
    let domains = vec![name.clone(), format!("{name}:*")];
    VirtualHost {
        name,
        domains,
        routes: Vec::new(),
    }
}

/// The rules of one port of a callee as routes.
pub fn routes(callee: &Callee<'_>, port: &CalleePort<'_>, clusters: &Clusters) -> Vec<Route> {
    let route = |rule: &Rule<'_>| Route {
        name: rule.name.to_owned(),
        matching: rule.matching.clone(),
        action: action(callee.name, rule, clusters),
    };
    port.rules.iter().map(route).collect()
}

fn action(callee: &str, rule: &Rule<'_>, clusters: &Clusters) -> Action {
    // Envoy refuses weights that sum to zero; what App Mesh accepts as "no traffic" is answered as if nobody were there.
    if rule.targets.iter().all(|target| target.weight == 0) {
        return Action::Respond {
            status: 503,
            body: "no healthy upstream".to_owned(),
        };
    }
    Action::Forward(Box::new(Forward {
        clusters: weighted(callee, rule, clusters),
        timeout: rule.timeout,
        idle_timeout: Some(rule.idle),
        retry: rule.retry.clone(),
        rewrite: None,
        host_rewrite: None,
    }))
}

/// The targets of a rule as weighted clusters.
pub fn weighted(callee: &str, rule: &Rule<'_>, clusters: &Clusters) -> Vec<WeightedCluster> {
    let targets = rule.targets.iter();
    targets
        .map(|target| WeightedCluster {
            name: clusters.name(callee, target).to_owned(),
            weight: target.weight,
        })
        .collect()
}
