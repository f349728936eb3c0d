// SPDX-License-Identifier: Apache-2.0
//! Filter chains: their matches, their TLS, and the one network filter each of them ends in. Called by the listener's
//! encode and decode.

use std::net::IpAddr;

use prost::Name;

use super::FilterChain;
use super::FilterChainMatch;
use super::HttpConnectionManager;
use super::NetworkFilter;
use super::TcpProxy;
use super::TransportProtocol;
use super::access_log;
use crate::field;
use crate::field::Checked;
use crate::field::Holds;
use crate::field::Refusal;
use crate::field::Under;
use crate::field::refuse;
use crate::field::uint;
use crate::proto::core;
use crate::proto::http;
use crate::proto::listener as proto;
use crate::proto::listener::filter::ConfigType;
use crate::proto::tcp;
use crate::proto::tcp::tcp_proxy::ClusterSpecifier;
use crate::route::WeightedCluster;
use crate::tls;

/// Envoy's words for what first bytes say.
const TLS: &str = "tls";
const RAW: &str = "raw_buffer";

impl FilterChain {
    pub(super) fn encode(&self) -> proto::FilterChain {
        let (name, config) = match &self.filter {
            NetworkFilter::Http(manager) => (
                "envoy.filters.network.http_connection_manager",
                field::pack(&manager.encode()),
            ),
            NetworkFilter::Tcp(proxy) => (
                "envoy.filters.network.tcp_proxy",
                field::pack(&proxy.encode()),
            ),
        };
        let filter = proto::Filter {
            name: name.to_owned(),
            config_type: Some(ConfigType::TypedConfig(config)),
        };
        let matching =
            (self.matching != FilterChainMatch::default()).then(|| self.matching.encode());
        proto::FilterChain {
            name: self.name.clone(),
            filter_chain_match: matching,
            filters: vec![filter],
            transport_socket: self.tls.as_ref().map(tls::encode_downstream),
            ..Default::default()
        }
    }

    pub(super) fn check(chain: proto::FilterChain) -> Checked<FilterChain> {
        let proto::FilterChain {
            filter_chain_match,
            mut filters,
            use_proxy_proto,
            metadata: _,
            transport_socket,
            transport_socket_connect_timeout: _, // handshakes have a limit of ours
            name,
        } = chain;
        field::only("use_proxy_proto", use_proxy_proto, Holds::False)?;
        let Some(filter) = filters.pop() else {
            return Err(Refusal::missing("filters"));
        };
        if !filters.is_empty() {
            let why = "must be one: an HTTP connection manager or a TCP proxy";
            return Err(Refusal::new("filters", why));
        }
        let tls = transport_socket
            .map(tls::decode_downstream)
            .transpose()
            .under("transport_socket")?;
        Ok(FilterChain {
            name,
            matching: FilterChainMatch::check(filter_chain_match.unwrap_or_default())
                .under("filter_chain_match")?,
            tls,
            filter: check_filter(filter).under("filters[0]")?,
        })
    }
}

fn check_filter(filter: proto::Filter) -> Checked<NetworkFilter> {
    let proto::Filter { name, config_type } = filter;
    let Some(ConfigType::TypedConfig(config)) = config_type else {
        return Err(Refusal::missing("typed_config"));
    };
    if config.type_url == http::HttpConnectionManager::type_url() {
        let manager = field::unpack("typed_config", &config)?;
        let manager = HttpConnectionManager::check(manager).under("http_connection_manager")?;
        return Ok(NetworkFilter::Http(Box::new(manager)));
    }
    if config.type_url == tcp::TcpProxy::type_url() {
        let proxy = field::unpack("typed_config", &config)?;
        return TcpProxy::check(proxy)
            .map(NetworkFilter::Tcp)
            .under("tcp_proxy");
    }
    let why = format_args!("{} is not supported", config.type_url).to_string();
    Err(Refusal::new(name, why))
}

impl FilterChainMatch {
    /// Whether it asks for what only the first bytes say.
    pub(super) fn sniffs(&self) -> bool {
        self.transport.is_some()
            || !self.server_names.is_empty()
            || !self.application_protocols.is_empty()
    }

    fn encode(&self) -> proto::FilterChainMatch {
        let range = |(address, length): &(IpAddr, u8)| core::CidrRange {
            address_prefix: address.to_string(),
            prefix_len: Some(uint((*length).into())),
        };
        let transport = match self.transport {
            None => "",
            Some(TransportProtocol::Tls) => TLS,
            Some(TransportProtocol::RawBuffer) => RAW,
        };
        proto::FilterChainMatch {
            destination_port: self.destination_port.map(|port| uint(port.into())),
            prefix_ranges: self.prefix_ranges.iter().map(range).collect(),
            server_names: self.server_names.clone(),
            transport_protocol: transport.to_owned(),
            application_protocols: self.application_protocols.clone(),
            ..Default::default()
        }
    }

    fn check(matching: proto::FilterChainMatch) -> Checked<FilterChainMatch> {
        let proto::FilterChainMatch {
            destination_port,
            prefix_ranges,
            address_suffix,
            suffix_len,
            direct_source_prefix_ranges,
            source_type,
            source_prefix_ranges,
            source_ports,
            server_names,
            transport_protocol,
            application_protocols,
        } = matching;
        refuse!(
            address_suffix,
            suffix_len,
            direct_source_prefix_ranges,
            source_type,
            source_prefix_ranges,
            source_ports,
        );
        let transport = match transport_protocol.as_str() {
            "" => None,
            TLS => Some(TransportProtocol::Tls),
            RAW => Some(TransportProtocol::RawBuffer),
            other => {
                let why = format_args!("{other:?} is not supported; use tls or raw_buffer");
                return Err(Refusal::new("transport_protocol", why));
            }
        };
        Ok(FilterChainMatch {
            destination_port: field::number(destination_port)
                .map(|port| field::port("destination_port", port))
                .transpose()?,
            prefix_ranges: field::each("prefix_ranges", prefix_ranges, check_range)?,
            server_names,
            transport,
            application_protocols,
        })
    }
}

fn check_range(range: core::CidrRange) -> Checked<(IpAddr, u8)> {
    let core::CidrRange {
        address_prefix,
        prefix_len,
    } = range;
    let address: IpAddr = address_prefix.parse().map_err(|_| {
        let why = format_args!("{address_prefix:?} is not an IP address").to_string();
        Refusal::new("address_prefix", why)
    })?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = field::number(prefix_len).unwrap_or(0);
    match u8::try_from(length) {
        Ok(length) if length <= most => Ok((address, length)),
        _ => {
            let why = format_args!("{length} is more than {most}").to_string();
            Err(Refusal::new("prefix_len", why))
        }
    }
}

impl TcpProxy {
    fn encode(&self) -> tcp::TcpProxy {
        // Envoy refuses a weight of zero here; a cluster that is never drawn is left out instead.
        let drawn: Vec<&WeightedCluster> = self
            .clusters
            .iter()
            .filter(|cluster| cluster.weight > 0)
            .collect();
        let specifier = match drawn.as_slice() {
            [only] if only.weight == 1 => ClusterSpecifier::Cluster(only.name.clone()),
            clusters => {
                let weigh =
                    |cluster: &&WeightedCluster| tcp::tcp_proxy::weighted_cluster::ClusterWeight {
                        name: cluster.name.clone(),
                        weight: cluster.weight,
                        metadata_match: None,
                    };
                ClusterSpecifier::WeightedClusters(tcp::tcp_proxy::WeightedCluster {
                    clusters: clusters.iter().map(weigh).collect(),
                })
            }
        };
        tcp::TcpProxy {
            stat_prefix: self.stat_prefix.clone(),
            cluster_specifier: Some(specifier),
            idle_timeout: self.idle_timeout.map(field::encode_duration),
            access_log: self.access_logs.iter().map(access_log::encode).collect(),
            ..Default::default()
        }
    }

    fn check(proxy: tcp::TcpProxy) -> Checked<TcpProxy> {
        let tcp::TcpProxy {
            stat_prefix,
            on_demand,
            metadata_match,
            idle_timeout,
            downstream_idle_timeout,
            upstream_idle_timeout,
            access_log,
            max_connect_attempts,
            backoff_options,
            hash_policy,
            tunneling_config,
            max_downstream_connection_duration,
            max_downstream_connection_duration_jitter_percentage,
            access_log_flush_interval,
            flush_access_log_on_connected,
            access_log_options,
            proxy_protocol_tlvs,
            proxy_protocol_tlv_merge_policy,
            upstream_connect_mode,
            max_early_data_bytes,
            check_drain_close: _, // how connections end while draining is the proxy's own
            cluster_specifier,
        } = proxy;
        refuse!(
            on_demand,
            metadata_match,
            downstream_idle_timeout,
            upstream_idle_timeout,
            max_connect_attempts,
            backoff_options,
            hash_policy,
            tunneling_config,
            max_downstream_connection_duration,
            max_downstream_connection_duration_jitter_percentage,
            access_log_flush_interval,
            flush_access_log_on_connected,
            access_log_options,
            proxy_protocol_tlvs,
            proxy_protocol_tlv_merge_policy,
            upstream_connect_mode,
            max_early_data_bytes,
        );
        let clusters = match field::required("cluster_specifier", cluster_specifier)? {
            ClusterSpecifier::Cluster(name) => vec![WeightedCluster {
                name: field::not_empty("cluster", name)?,
                weight: 1,
            }],
            ClusterSpecifier::WeightedClusters(weighted) => {
                field::each("weighted_clusters", weighted.clusters, check_weight)?
            }
        };
        if clusters.is_empty() {
            return Err(Refusal::missing("weighted_clusters"));
        }
        Ok(TcpProxy {
            stat_prefix: field::not_empty("stat_prefix", stat_prefix)?,
            clusters,
            idle_timeout: field::duration("idle_timeout", idle_timeout)?,
            access_logs: field::each("access_log", access_log, access_log::check)?,
        })
    }
}

fn check_weight(
    weight: tcp::tcp_proxy::weighted_cluster::ClusterWeight,
) -> Checked<WeightedCluster> {
    let tcp::tcp_proxy::weighted_cluster::ClusterWeight {
        name,
        weight,
        metadata_match,
    } = weight;
    refuse!(metadata_match);
    if weight == 0 {
        return Err(Refusal::new(
            "weight",
            "0 is not a weight; leave the cluster out",
        ));
    }
    Ok(WeightedCluster {
        name: field::not_empty("name", name)?,
        weight,
    })
}
