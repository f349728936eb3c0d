// SPDX-License-Identifier: Apache-2.0
//! Checked `envoy.config.endpoint.v3.ClusterLoadAssignment`.

use std::net::IpAddr;

use crate::field;
use crate::field::Checked;
use crate::field::Refusal;
use crate::field::Under;
use crate::field::refuse;
use crate::field::uint;
use crate::proto::core;
use crate::proto::core::address::Address;
use crate::proto::core::socket_address::PortSpecifier;
use crate::proto::endpoint as proto;
use crate::proto::endpoint::lb_endpoint::HostIdentifier;
use crate::resource::Rejected;

/// The endpoints of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterLoadAssignment {
    /// The cluster (or EDS service name).
    pub cluster_name: String,
    /// By place.
    pub localities: Vec<Locality>,
}

/// Endpoints of one place.
#[derive(Clone, Debug, PartialEq)]
pub struct Locality {
    /// Availability zone, empty if unknown.
    pub zone: String,
    /// Lower is preferred.
    pub priority: u32,
    /// Relative.
    pub weight: Option<u32>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// One address.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// IP literal, or a hostname in DNS clusters.
    pub host: String,
    /// Port.
    pub port: u16,
    /// As the control plane knows it.
    pub health: Health,
    /// Relative, 1 if not said.
    pub weight: u32,
}

/// Health as the control plane knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    /// Takes traffic.
    Healthy,
    /// Takes none.
    Unhealthy,
    /// Takes no new connections.
    Draining,
}

/// What stands as the host of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hosts {
    /// IP literals: EDS and static clusters.
    Addresses,
    /// Names for DNS (or literals).
    Names,
}

/// Envoy's bound on priorities.
const MAX_PRIORITY: u32 = 128;

impl ClusterLoadAssignment {
    /// As Envoy reads it.
    pub fn encode(&self) -> proto::ClusterLoadAssignment {
        proto::ClusterLoadAssignment {
            cluster_name: self.cluster_name.clone(),
            endpoints: self.localities.iter().map(Locality::encode).collect(),
            ..Default::default()
        }
    }

    /// Checks the answer of EDS. Ignored: hostnames for logs and probes, metadata, staleness.
    pub fn decode(
        assignment: proto::ClusterLoadAssignment,
    ) -> Result<ClusterLoadAssignment, Rejected> {
        let name = assignment.cluster_name.clone();
        ClusterLoadAssignment::check(assignment, Hosts::Addresses)
            .map_err(|refusal| refusal.of(&name))
    }

    pub(crate) fn check(
        assignment: proto::ClusterLoadAssignment,
        hosts: Hosts,
    ) -> Checked<ClusterLoadAssignment> {
        let proto::ClusterLoadAssignment {
            cluster_name,
            endpoints,
            named_endpoints,
            policy,
        } = assignment;
        refuse!(named_endpoints);
        let proto::cluster_load_assignment::Policy {
            drop_overloads,
            overprovisioning_factor,
            endpoint_stale_after: _,
            weighted_priority_health,
        } = policy.unwrap_or_default();
        let check = || {
            refuse!(
                drop_overloads,
                overprovisioning_factor,
                weighted_priority_health
            );
            Ok(())
        };
        check().under("policy")?;
        Ok(ClusterLoadAssignment {
            cluster_name: field::not_empty("cluster_name", cluster_name)?,
            localities: field::each("endpoints", endpoints, |locality| {
                Locality::check(locality, hosts)
            })?,
        })
    }
}

impl Locality {
    fn encode(&self) -> proto::LocalityLbEndpoints {
        proto::LocalityLbEndpoints {
            locality: Some(core::Locality {
                zone: self.zone.clone(),
                ..Default::default()
            }),
            lb_endpoints: self.endpoints.iter().map(Endpoint::encode).collect(),
            load_balancing_weight: self.weight.map(uint),
            priority: self.priority,
            ..Default::default()
        }
    }

    fn check(locality: proto::LocalityLbEndpoints, hosts: Hosts) -> Checked<Locality> {
        let proto::LocalityLbEndpoints {
            locality,
            metadata: _,
            lb_endpoints,
            load_balancing_weight,
            priority,
            proximity: _, // not implemented in Envoy either
            lb_config,
        } = locality;
        refuse!(lb_config);
        if priority > MAX_PRIORITY {
            let why = format_args!("{priority} is more than {MAX_PRIORITY}");
            return Err(Refusal::new("priority", why));
        }
        // Region and sub-zone name the place for people; balancing looks at priority and weight.
        let core::Locality {
            region: _,
            zone,
            sub_zone: _,
        } = locality.unwrap_or_default();
        Ok(Locality {
            zone,
            priority,
            weight: field::number(load_balancing_weight),
            endpoints: field::each("lb_endpoints", lb_endpoints, |endpoint| {
                Endpoint::check(endpoint, hosts)
            })?,
        })
    }
}

impl Endpoint {
    fn encode(&self) -> proto::LbEndpoint {
        let endpoint = proto::Endpoint {
            address: Some(core::Address {
                address: Some(Address::SocketAddress(core::SocketAddress {
                    address: self.host.clone(),
                    port_specifier: Some(PortSpecifier::PortValue(self.port.into())),
                    ..Default::default()
                })),
            }),
            ..Default::default()
        };
        let health = match self.health {
            Health::Healthy => core::HealthStatus::Healthy,
            Health::Unhealthy => core::HealthStatus::Unhealthy,
            Health::Draining => core::HealthStatus::Draining,
        };
        proto::LbEndpoint {
            health_status: health.into(),
            load_balancing_weight: (self.weight != 1).then(|| uint(self.weight)),
            host_identifier: Some(HostIdentifier::Endpoint(endpoint)),
            ..Default::default()
        }
    }

    fn check(endpoint: proto::LbEndpoint, hosts: Hosts) -> Checked<Endpoint> {
        let proto::LbEndpoint {
            health_status,
            metadata: _,
            load_balancing_weight,
            host_identifier,
        } = endpoint;
        let Some(HostIdentifier::Endpoint(endpoint)) = host_identifier else {
            return Err(Refusal::missing("endpoint"));
        };
        let proto::Endpoint {
            address,
            health_check_config,
            hostname: _,
            additional_addresses,
            observability_name: _,
        } = endpoint;
        let check = || {
            refuse!(health_check_config, additional_addresses);
            socket_address(address)
        };
        let (host, port) = check().under("endpoint")?;
        if hosts == Hosts::Addresses && host.parse::<IpAddr>().is_err() {
            let why = format_args!("{host:?} is not an IP address; names need a DNS cluster");
            return Err(Refusal::new("endpoint.address", why));
        }
        let health = match field::named("health_status", health_status)? {
            core::HealthStatus::Unknown | core::HealthStatus::Healthy => Health::Healthy,
            core::HealthStatus::Unhealthy | core::HealthStatus::Timeout => Health::Unhealthy,
            core::HealthStatus::Draining => Health::Draining,
            core::HealthStatus::Degraded => {
                return Err(Refusal::new("health_status", "DEGRADED is not supported"));
            }
        };
        let weight = field::number(load_balancing_weight).unwrap_or(1);
        if weight == 0 {
            return Err(Refusal::new(
                "load_balancing_weight",
                "0 is not a weight; leave the endpoint out",
            ));
        }
        Ok(Endpoint {
            host,
            port,
            health,
            weight,
        })
    }
}

/// Host and port of a TCP address.
pub(crate) fn socket_address(address: Option<core::Address>) -> Checked<(String, u16)> {
    let Some(Address::SocketAddress(address)) = address.and_then(|address| address.address) else {
        return Err(Refusal::new("address", "must be a socket_address"));
    };
    let core::SocketAddress {
        protocol,
        address,
        resolver_name,
        ipv4_compat: _, // our wildcard IPv6 sockets take IPv4 as well
        network_namespace_filepath,
        port_specifier,
    } = address;
    let check = || {
        refuse!(protocol, resolver_name, network_namespace_filepath);
        let Some(PortSpecifier::PortValue(port)) = port_specifier else {
            return Err(Refusal::missing("port_value"));
        };
        let port = field::port("port_value", port)?;
        Ok((field::not_empty("address", address)?, port))
    };
    check().under("address.socket_address")
}
