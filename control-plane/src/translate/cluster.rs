// SPDX-License-Identifier: Apache-2.0
//! Clusters: one per listener of a called node, one per listener of our own app. Pure.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use pillion_config::graph::NodeView;
use pillion_config::listener::ConnectionPool;
use pillion_config::listener::Listener;
use pillion_config::listener::Protocol;
use pillion_config::mesh::IpPreference;
use pillion_config::virtual_gateway::VirtualGatewaySpec;
use pillion_config::virtual_node::DnsResponseType;
use pillion_config::virtual_node::ServiceDiscovery;
use pillion_config::virtual_node::VirtualNodeSpec;
use pillion_xds::cluster::CircuitBreakers;
use pillion_xds::cluster::Cluster;
use pillion_xds::cluster::Discovery;
use pillion_xds::cluster::DnsFamily;
use pillion_xds::cluster::HealthCheck;
use pillion_xds::cluster::OutlierDetection;
use pillion_xds::cluster::Probe;
use pillion_xds::cluster::UpstreamProtocol;
use pillion_xds::cluster::UpstreamTls;

use super::Caller;
use super::callee::Callee;
use super::callee::Target;
use super::endpoint;
use super::tls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT_TO_APP: Duration = Duration::from_millis(250);
/// Largest that App Mesh can say; Envoy without a word would take 1024.
const UNLIMITED: u32 = 2_147_483_647;

/// The clusters a proxy calls, and which of them a target is.
pub struct Clusters {
    names: BTreeMap<(String, u16, String), String>,
    clusters: BTreeMap<String, Cluster>,
    /// What of them has no effect.
    pub findings: Vec<String>,
}

/// A target as one virtual service reaches it: its name, the target, and the TLS towards it.
type Demand<'a> = (&'a str, &'a Target<'a>, Option<UpstreamTls>);

impl Clusters {
    /// One cluster per listener that any callee reaches. Where virtual services reach the same listener under
    /// different client policies, each gets its own, `_<virtual service>` appended (design 10).
    pub fn gather(caller: &Caller, callees: &[Callee<'_>], limits: &CircuitBreakers) -> Clusters {
        let mut demands: BTreeMap<(&str, u16), Vec<Demand<'_>>> = BTreeMap::new();
        for callee in callees {
            for target in callee
                .ports
                .iter()
                .flat_map(|port| &port.rules)
                .flat_map(|rule| &rule.targets)
            {
                let tls = tls::upstream(caller, callee.policy, target);
                demands
                    .entry((target.node.name, target.mapping.port))
                    .or_default()
                    .push((callee.name, target, tls));
            }
        }
        let mut gathered = Clusters {
            names: BTreeMap::new(),
            clusters: BTreeMap::new(),
            findings: Vec::new(),
        };
        for ((node, port), demands) in demands {
            let alike = demands.iter().all(|(_, _, tls)| *tls == demands[0].2);
            for (callee, target, tls) in demands {
                let mut name = format!(
                    "cds_egress_{}_{node}_{}_{port}",
                    caller.mesh, target.mapping.protocol
                );
                if !alike {
                    name = format!("{name}_{callee}");
                }
                gathered
                    .names
                    .insert((node.to_owned(), port, callee.to_owned()), name.clone());
                if !gathered.clusters.contains_key(&name) {
                    let cluster = gathered.egress(&name, caller, target, tls);
                    gathered.clusters.insert(
                        name,
                        Cluster {
                            limits: limits.clone(),
                            ..cluster
                        },
                    );
                }
            }
        }
        gathered
    }

    /// The cluster that `target` is to callers of `callee`.
    pub fn name(&self, callee: &str, target: &Target<'_>) -> &str {
        let key = (
            target.node.name.to_owned(),
            target.mapping.port,
            callee.to_owned(),
        );
        self.names
            .get(&key)
            .expect("every target of every callee was gathered")
    }

    /// The clusters that routes or listeners name. One that nobody routes to would only keep connections and probes busy.
    pub fn used(self, named: &BTreeSet<String>) -> Vec<Cluster> {
        self.clusters
            .into_values()
            .filter(|cluster| named.contains(&cluster.name))
            .collect()
    }

    fn egress(
        &mut self,
        name: &str,
        caller: &Caller,
        target: &Target<'_>,
        tls: Option<UpstreamTls>,
    ) -> Cluster {
        let listener = target.node.spec.listener(target.mapping.port);
        let discovery = match (&target.node.spec.service_discovery, listener) {
            (None, _) | (_, None) => {
                self.findings.push(format!(
                    "virtual node {:?} has no service discovery, or no listener on {}: requests to it are answered 503",
                    target.node.name, target.mapping.port
                ));
                Discovery::Static(endpoint::none(name))
            }
            (Some(ServiceDiscovery::AwsCloudMap(map)), _) => {
                self.findings.push(format!(
                    "virtual node {:?} is found by AWS Cloud Map ({}.{}), which this version does not ask: it has no endpoints",
                    target.node.name, map.service_name, map.namespace_name
                ));
                Discovery::Eds(None)
            }
            (Some(ServiceDiscovery::Dns(dns)), _) => {
                let endpoints = endpoint::single(name, &dns.hostname, target.mapping.port);
                match dns.response_type() {
                    _ if dns.hostname.parse::<IpAddr>().is_ok() => Discovery::Static(endpoints),
                    DnsResponseType::LoadBalancer => Discovery::LogicalDns(endpoints),
                    DnsResponseType::Endpoints => Discovery::StrictDns(endpoints),
                }
            }
        };
        let mut cluster = plain(name, discovery, upstream_protocol(target.mapping.protocol));
        cluster.tls = tls;
        cluster.outlier_detection = listener.and_then(outlier_detection);
        cluster.health_checks = listener.and_then(health_check).into_iter().collect();
        cluster.dns_family = dns_family(own_preference(caller.ip_preference, target.node.spec));
        cluster.labels = vec![(
            "target".to_owned(),
            format!("{}/{}", caller.mesh, target.node.name),
        )];
        cluster
    }
}

/// Name of the cluster of `ALLOW_ALL`.
pub fn allow_all(mesh: &str) -> String {
    format!("cds_egress_{mesh}_mesh-allow-all")
}

/// Name of the cluster for AWS's own endpoints.
pub fn amazonaws(mesh: &str) -> String {
    format!("cds_egress_{mesh}_amazonaws")
}

/// A cluster that goes where the connection was going.
pub fn original_destination(name: &str) -> Cluster {
    Cluster {
        limits: unlimited(),
        ..plain(
            name,
            Discovery::OriginalDestination,
            UpstreamProtocol::UseDownstream,
        )
    }
}

/// No limit at all: App Mesh protects a server at the server, from all callers together, never at one client.
pub fn unlimited() -> CircuitBreakers {
    CircuitBreakers {
        max_connections: Some(UNLIMITED),
        max_pending_requests: Some(UNLIMITED),
        max_requests: Some(UNLIMITED),
        max_retries: Some(UNLIMITED),
        retry_budget: None,
    }
}

fn limits(pool: Option<&ConnectionPool>) -> CircuitBreakers {
    let mut limits = unlimited();
    match pool {
        None => {}
        Some(ConnectionPool::Tcp(pool)) => limits.max_connections = Some(pool.max_connections),
        Some(ConnectionPool::Http(pool)) => {
            limits.max_connections = Some(pool.max_connections);
            limits.max_pending_requests = Some(pool.max_pending_requests.unwrap_or(UNLIMITED));
        }
        Some(ConnectionPool::Http2(pool) | ConnectionPool::Grpc(pool)) => {
            limits.max_requests = Some(pool.max_requests)
        }
    }
    limits
}

/// App Mesh put a gateway's pool on the hop of the gateway to itself. There is no such hop here (`compose.rs`), so the
/// pool bounds each cluster behind; of several listeners the widest, since any of them may lead there.
pub fn gateway_limits(spec: &VirtualGatewaySpec) -> CircuitBreakers {
    let mut all = spec
        .listeners
        .iter()
        .map(|listener| limits(listener.connection_pool.as_ref()));
    let first = all.next().unwrap_or_else(unlimited);
    all.fold(first, |widest, other| CircuitBreakers {
        max_connections: widest.max_connections.max(other.max_connections),
        max_pending_requests: widest.max_pending_requests.max(other.max_pending_requests),
        max_requests: widest.max_requests.max(other.max_requests),
        max_retries: widest.max_retries.max(other.max_retries),
        retry_budget: None,
    })
}

/// The app behind our own listener.
pub fn ingress(view: &NodeView<'_>, listener: &Listener) -> Cluster {
    let name = ingress_name(view, listener);
    let port = listener.port_mapping.port;
    let address = if prefers_v6(own_preference(view.mesh_spec.ip_preference(), view.spec)) {
        "::1"
    } else {
        "127.0.0.1"
    };
    let discovery = Discovery::Static(endpoint::single(&name, address, port));
    Cluster {
        connect_timeout: CONNECT_TIMEOUT_TO_APP,
        limits: limits(listener.connection_pool.as_ref()),
        ..plain(
            &name,
            discovery,
            upstream_protocol(listener.port_mapping.protocol),
        )
    }
}

/// `cds_ingress_<mesh>_<node>_<protocol>_<port>`.
pub fn ingress_name(view: &NodeView<'_>, listener: &Listener) -> String {
    let mapping = listener.port_mapping;
    format!(
        "cds_ingress_{}_{}_{}_{}",
        view.mesh, view.name, mapping.protocol, mapping.port
    )
}

/// A node's own word before the mesh's.
pub fn own_preference(mesh: Option<IpPreference>, spec: &VirtualNodeSpec) -> Option<IpPreference> {
    spec.service_discovery
        .as_ref()
        .and_then(ServiceDiscovery::ip_preference)
        .or(mesh)
}

/// Whether the app is spoken to over IPv6.
pub fn prefers_v6(preference: Option<IpPreference>) -> bool {
    matches!(
        preference,
        Some(IpPreference::Ipv6Preferred | IpPreference::Ipv6Only)
    )
}

fn dns_family(preference: Option<IpPreference>) -> DnsFamily {
    match preference {
        None | Some(IpPreference::Ipv6Preferred) => DnsFamily::Auto,
        Some(IpPreference::Ipv4Preferred) => DnsFamily::V4Preferred,
        Some(IpPreference::Ipv4Only) => DnsFamily::V4Only,
        Some(IpPreference::Ipv6Only) => DnsFamily::V6Only,
    }
}

fn upstream_protocol(protocol: Protocol) -> UpstreamProtocol {
    match protocol {
        Protocol::Http | Protocol::Tcp => UpstreamProtocol::Http1,
        Protocol::Http2 | Protocol::Grpc => UpstreamProtocol::Http2,
    }
}

fn outlier_detection(listener: &Listener) -> Option<OutlierDetection> {
    let spec = listener.outlier_detection.as_ref()?;
    Some(OutlierDetection {
        consecutive_5xx: u32::try_from(spec.max_server_errors).unwrap_or(u32::MAX),
        interval: spec.interval.to_std(),
        base_ejection_time: spec.base_ejection_duration.to_std(),
        max_ejection_percent: u32::from(spec.max_ejection_percent),
    })
}

fn health_check(listener: &Listener) -> Option<HealthCheck> {
    let spec = listener.health_check.as_ref()?;
    let path = || spec.path.clone().unwrap_or_else(|| "/".to_owned());
    Some(HealthCheck {
        probe: match spec.protocol {
            Protocol::Http => Probe::Http {
                path: path(),
                http2: false,
            },
            Protocol::Http2 => Probe::Http {
                path: path(),
                http2: true,
            },
            Protocol::Grpc => Probe::Grpc,
            Protocol::Tcp => Probe::Tcp,
        },
        interval: Duration::from_millis(spec.interval_millis),
        timeout: Duration::from_millis(spec.timeout_millis),
        healthy_threshold: spec.healthy_threshold,
        unhealthy_threshold: spec.unhealthy_threshold,
    })
}

fn plain(name: &str, discovery: Discovery, protocol: UpstreamProtocol) -> Cluster {
    Cluster {
        name: name.to_owned(),
        discovery,
        connect_timeout: CONNECT_TIMEOUT,
        protocol,
        tls: None,
        limits: CircuitBreakers::default(),
        outlier_detection: None,
        health_checks: Vec::new(),
        dns_family: DnsFamily::Auto,
        idle_timeout: None,
        labels: Vec::new(),
    }
}
