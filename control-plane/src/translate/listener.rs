// SPDX-License-Identifier: Apache-2.0
//! Listeners: a sidecar's two, and one per port of a gateway. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use pillion_config::graph::GatewayView;
use pillion_config::graph::NodeView;
use pillion_config::listener::PortMapping;
use pillion_config::logging::AccessLog as AccessLogSpec;
use pillion_config::logging::Logging;
use pillion_config::logging::LoggingFormat;
use pillion_config::mesh::EgressFilterType;
use pillion_config::mesh::IpPreference;
use pillion_config::tls::ListenerTls;
use pillion_config::tls::TlsMode;
use pillion_config::virtual_gateway::GatewayListener;
use pillion_xds::listener::AccessLog;
use pillion_xds::listener::AccessLogFormat;
use pillion_xds::listener::Codec;
use pillion_xds::listener::Direction;
use pillion_xds::listener::FilterChain;
use pillion_xds::listener::FilterChainMatch;
use pillion_xds::listener::HttpConnectionManager;
use pillion_xds::listener::Listener;
use pillion_xds::listener::NetworkFilter;
use pillion_xds::listener::RouteSource;
use pillion_xds::listener::TcpProxy;
use pillion_xds::listener::TransportProtocol;
use pillion_xds::resource::Resource;
use pillion_xds::route::WeightedCluster;

use super::Caller;
use super::callee;
use super::callee::Callee;
use super::cluster;
use super::cluster::Clusters;
use super::route;
use super::tls;

const INGRESS_PORT: u16 = 15000;

/// The two listeners of a sidecar; the inbound one only where there is something to listen for.
pub fn node(
    caller: &Caller,
    view: &NodeView<'_>,
    callees: &[Callee<'_>],
    clusters: &Clusters,
) -> Vec<Listener> {
    let address = any_address(cluster::own_preference(
        view.mesh_spec.ip_preference(),
        view.spec,
    ));
    let logs = access_logs(view.spec.logging.as_ref());
    let mut inbound = Vec::new();
    for listener in view.spec.listeners() {
        let mapping = listener.port_mapping;
        let stat_prefix = ingress_prefix(mapping, view.spec.listeners().len());
        let filter = if mapping.protocol.is_http() {
            http(&stat_prefix, &route::ingress_name(mapping.port), &logs)
        } else {
            let clusters = vec![WeightedCluster {
                name: cluster::ingress_name(view, listener),
                weight: 1,
            }];
            let idle_timeout = Some(callee::listener_limits(listener.timeout.as_ref()).1);
            NetworkFilter::Tcp(TcpProxy {
                stat_prefix,
                clusters,
                idle_timeout,
                access_logs: logs.clone(),
            })
        };
        let matching = FilterChainMatch {
            destination_port: Some(mapping.port),
            ..FilterChainMatch::default()
        };
        inbound.extend(chains(
            caller,
            mapping,
            listener.tls.as_ref(),
            &matching,
            &filter,
        ));
    }
    let mut listeners = Vec::new();
    if !inbound.is_empty() {
        listeners.push(Listener {
            name: "lds_ingress_0.0.0.0_15000".to_owned(),
            address: SocketAddr::new(address, INGRESS_PORT),
            direction: Direction::Inbound,
            original_destination: true,
            filter_chains: inbound,
            default_filter_chain: None,
        });
    }
    listeners.push(Listener {
        name: "lds_egress_0.0.0.0_15001".to_owned(),
        address: SocketAddr::new(address, route::EXPLICIT_PORT),
        direction: Direction::Outbound,
        original_destination: true,
        filter_chains: outbound(view, callees, clusters, &logs),
        // What was going to a port that no backend has: closed, unless everything may pass.
        default_filter_chain: (view.mesh_spec.egress() == EgressFilterType::AllowAll).then(|| {
            FilterChain {
                name: "egress_allow_all".to_owned(),
                matching: FilterChainMatch::default(),
                tls: None,
                filter: original(cluster::allow_all(view.mesh), &logs),
            }
        }),
    });
    listeners
}

/// Explicit calls: nobody redirected them, so the port they were going to is the listener's own.
fn explicit(logs: &[AccessLog]) -> FilterChain {
    FilterChain {
        name: "egress_explicit".to_owned(),
        matching: FilterChainMatch {
            destination_port: Some(route::EXPLICIT_PORT),
            ..FilterChainMatch::default()
        },
        tls: None,
        filter: http("egress", &route::egress_name(route::EXPLICIT_PORT), logs),
    }
}

/// Bytes to where the connection was going.
fn original(cluster: String, logs: &[AccessLog]) -> NetworkFilter {
    NetworkFilter::Tcp(TcpProxy {
        stat_prefix: "egress".to_owned(),
        clusters: vec![WeightedCluster {
            name: cluster,
            weight: 1,
        }],
        idle_timeout: Some(callee::DEFAULT_IDLE),
        access_logs: logs.to_vec(),
    })
}

/// Chains of connections by the port they were going to, then what the egress filter lets through by name.
fn outbound(
    view: &NodeView<'_>,
    callees: &[Callee<'_>],
    clusters: &Clusters,
    logs: &[AccessLog],
) -> Vec<FilterChain> {
    let http_ports = route::http_ports(callees);
    let mut chains: Vec<FilterChain> = http_ports
        .iter()
        .filter(|port| **port != route::EXPLICIT_PORT)
        .map(|port| FilterChain {
            name: format!("egress_http_{port}"),
            matching: FilterChainMatch {
                destination_port: Some(*port),
                ..FilterChainMatch::default()
            },
            tls: None,
            filter: http("egress", &route::egress_name(*port), logs),
        })
        .collect();
    chains.push(explicit(logs));
    chains.extend(tcp_chains(callees, clusters, logs, http_ports.clone()));
    // TLS that the app began itself is opaque; on a port that some backend uses it must be told apart too.
    let ports = http_ports.into_iter().map(Some);
    let (name, server_names, cluster, ports) = match view.mesh_spec.egress() {
        EgressFilterType::DropAll => (
            "egress_amazonaws",
            vec![route::ALWAYS_ALLOWED.to_owned()],
            cluster::amazonaws(view.mesh),
            ports.chain([None]).collect::<Vec<_>>(),
        ),
        // The listener's default lets the other ports pass, and does not wait for the client to speak first.
        EgressFilterType::AllowAll => (
            "egress_tls",
            Vec::new(),
            cluster::allow_all(view.mesh),
            ports.collect(),
        ),
    };
    chains.extend(ports.into_iter().map(|port| FilterChain {
        name: port.map_or_else(|| name.to_owned(), |port| format!("{name}_{port}")),
        matching: FilterChainMatch {
            destination_port: port,
            server_names: server_names.clone(),
            transport: Some(TransportProtocol::Tls),
            ..FilterChainMatch::default()
        },
        tls: None,
        filter: original(cluster.clone(), logs),
    }));
    chains
}

/// One chain per TCP backend. A connection carries no name, so the port must tell backends apart: the first one that
/// was declared on a port has it.
fn tcp_chains(
    callees: &[Callee<'_>],
    clusters: &Clusters,
    logs: &[AccessLog],
    mut taken: BTreeSet<u16>,
) -> Vec<FilterChain> {
    let mut chains = Vec::new();
    for (callee, port) in callees
        .iter()
        .flat_map(|callee| callee.ports.iter().map(move |port| (callee, port)))
    {
        let number = port.mapping.port;
        let Some(rule) = port
            .rules
            .first()
            .filter(|rule| rule.targets.iter().any(|target| target.weight > 0))
        else {
            continue;
        };
        if port.mapping.protocol.is_http() || !taken.insert(number) {
            continue;
        }
        chains.push(FilterChain {
            name: format!("egress_tcp_{number}"),
            matching: FilterChainMatch {
                destination_port: Some(number),
                ..FilterChainMatch::default()
            },
            tls: None,
            filter: NetworkFilter::Tcp(TcpProxy {
                stat_prefix: "egress".to_owned(),
                clusters: route::weighted(callee.name, rule, clusters),
                idle_timeout: Some(rule.idle),
                access_logs: logs.to_vec(),
            }),
        });
    }
    chains
}

/// TCP backends that share their port with another backend and so cannot be reached.
pub fn hidden_tcp(callees: &[Callee<'_>]) -> Vec<String> {
    let mut taken = route::http_ports(callees);
    let mut findings = Vec::new();
    for (callee, port) in callees
        .iter()
        .flat_map(|callee| callee.ports.iter().map(move |port| (callee, port)))
    {
        let number = port.mapping.port;
        if !port.mapping.protocol.is_http() && !taken.insert(number) {
            findings.push(format!(
                "backend {:?} speaks tcp on {number}, which another backend has: a redirected TCP connection carries no name; give it a port of its own, or call it by CONNECT through 15001",
                callee.name
            ));
        }
    }
    findings
}

/// One for each name that the explicit table knows: what `xds:///cart.local:9090` asks for.
pub fn proxyless(resources: &[Resource]) -> Vec<Resource> {
    let explicit = route::egress_name(route::EXPLICIT_PORT);
    let hosts = resources
        .iter()
        .filter_map(|resource| match resource {
            Resource::Route(table) if table.name == explicit => Some(&table.virtual_hosts),
            _ => None,
        })
        .flatten();
    let names = hosts
        .filter(|host| !host.routes.is_empty())
        .flat_map(|host| &host.domains)
        .filter(|domain| !domain.contains('*'));
    names
        .filter_map(|name| match http("proxyless", &explicit, &[]) {
            NetworkFilter::Http(manager) => {
                Some(Resource::Listener(Listener::for_api(name, *manager)))
            }
            NetworkFilter::Tcp(_) => None,
        })
        .collect()
}

/// One listener of a gateway.
pub fn gateway(caller: &Caller, view: &GatewayView<'_>, listener: &GatewayListener) -> Listener {
    let mapping = listener.port_mapping;
    let logs = access_logs(view.spec.logging.as_ref());
    let stat_prefix = ingress_prefix(mapping, view.spec.listeners.len());
    let mut filter = http(&stat_prefix, &route::ingress_name(mapping.port), &logs);
    if let NetworkFilter::Http(http) = &mut filter {
        // The edge: strangers' forwarding headers are not believed, and hosts are compared without port.
        http.use_remote_address = true;
        http.strip_port = true;
    }
    Listener {
        name: format!("lds_ingress_0.0.0.0_port_{}", mapping.port),
        address: SocketAddr::new(any_address(view.mesh_spec.ip_preference()), mapping.port),
        direction: Direction::Inbound,
        original_destination: false,
        filter_chains: chains(
            caller,
            mapping,
            listener.tls.as_ref(),
            &FilterChainMatch::default(),
            &filter,
        ),
        default_filter_chain: None,
    }
}

/// `ingress`, and where there are several listeners, which.
fn ingress_prefix(mapping: PortMapping, listeners: usize) -> String {
    if listeners > 1 {
        format!("ingress.{}.{}", mapping.protocol, mapping.port)
    } else {
        "ingress".to_owned()
    }
}

/// STRICT is one chain with TLS, PERMISSIVE a second one for what does not begin with a ClientHello.
fn chains(
    caller: &Caller,
    mapping: PortMapping,
    tls: Option<&ListenerTls>,
    matching: &FilterChainMatch,
    filter: &NetworkFilter,
) -> Vec<FilterChain> {
    let name = format!("ingress_{}_{}", mapping.protocol, mapping.port);
    let plain = FilterChain {
        name: name.clone(),
        matching: matching.clone(),
        tls: None,
        filter: filter.clone(),
    };
    let Some(spec) = tls else { return vec![plain] };
    let Some(context) = tls::downstream(caller, spec, mapping.protocol) else {
        return vec![plain];
    };
    let secure = FilterChain {
        name: format!("{name}_tls"),
        tls: Some(context),
        ..plain.clone()
    };
    if spec.mode != TlsMode::Permissive {
        return vec![secure];
    }
    let split = |chain: FilterChain, transport| FilterChain {
        matching: FilterChainMatch {
            transport: Some(transport),
            ..chain.matching
        },
        ..chain
    };
    vec![
        split(secure, TransportProtocol::Tls),
        split(plain, TransportProtocol::RawBuffer),
    ]
}

fn http(stat_prefix: &str, routes: &str, logs: &[AccessLog]) -> NetworkFilter {
    NetworkFilter::Http(Box::new(HttpConnectionManager {
        stat_prefix: stat_prefix.to_owned(),
        codec: Codec::Auto,
        routes: RouteSource::Rds(routes.to_owned()),
        access_logs: logs.to_vec(),
        use_remote_address: false,
        normalize_path: true,
        merge_slashes: true,
        upgrades: vec!["websocket".to_owned()],
        // Every route says its own; this would only bound the time before a route is found.
        stream_idle_timeout: None,
        strip_port: false,
    }))
}

fn access_logs(logging: Option<&Logging>) -> Vec<AccessLog> {
    let Some(AccessLogSpec::File(file)) = logging.and_then(|logging| logging.access_log.as_ref())
    else {
        return Vec::new();
    };
    let format = match &file.format {
        None => AccessLogFormat::Default,
        Some(LoggingFormat::Text(text)) => AccessLogFormat::Text(text.clone()),
        Some(LoggingFormat::Json(entries)) => AccessLogFormat::Json(
            entries
                .iter()
                .map(|entry| (entry.key.clone(), entry.value.clone()))
                .collect(),
        ),
    };
    vec![AccessLog {
        path: file.path.clone(),
        format,
    }]
}

/// Reference 2.9, last column.
fn any_address(preference: Option<IpPreference>) -> IpAddr {
    match preference {
        None | Some(IpPreference::Ipv4Only) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Some(
            IpPreference::Ipv4Preferred | IpPreference::Ipv6Preferred | IpPreference::Ipv6Only,
        ) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}
