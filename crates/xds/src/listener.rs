// SPDX-License-Identifier: Apache-2.0
//! Checked `envoy.config.listener.v3.Listener`, with the HTTP connection manager and TCP proxy it may hold.

mod access_log;
mod chain;
mod http;

use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;

use prost::Name;

use crate::endpoint::socket_address;
use crate::field;
use crate::field::Checked;
use crate::field::Holds;
use crate::field::Refusal;
use crate::field::Under;
use crate::field::refuse;
use crate::proto::Any;
use crate::proto::core;
use crate::proto::core::address::Address;
use crate::proto::core::socket_address::PortSpecifier;
use crate::proto::listener as proto;
use crate::proto::listener::listener_filter::ConfigType;
use crate::proto::listener_filter::http_inspector::v3::HttpInspector;
use crate::proto::listener_filter::original_dst::v3::OriginalDst;
use crate::proto::listener_filter::tls_inspector::v3::TlsInspector;
use crate::resource::Rejected;
use crate::route::RouteConfiguration;
use crate::route::WeightedCluster;
use crate::secret::SecretSource;
use crate::secret::Validation;

/// One socket and what is done with the connections it accepts.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Resource name, such as `lds_ingress_0.0.0.0_15000`.
    pub name: String,
    /// Where it binds.
    pub address: SocketAddr,
    /// Seen from the workload.
    pub direction: Direction,
    /// Whether connections are dispatched by `SO_ORIGINAL_DST`.
    pub original_destination: bool,
    /// Candidates; the most specific match wins, as in Envoy.
    pub filter_chains: Vec<FilterChain>,
    /// Taken when none matches; without it the connection is closed.
    pub default_filter_chain: Option<FilterChain>,
}

/// Which way traffic flows, seen from the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Towards the workload (also a gateway's listeners).
    Inbound,
    /// From the workload.
    Outbound,
    /// Not said.
    Unspecified,
}

/// Conditions and the treatment of connections that meet them.
#[derive(Clone, Debug, PartialEq)]
pub struct FilterChain {
    /// Name for logs and stats.
    pub name: String,
    /// When this chain is taken.
    pub matching: FilterChainMatch,
    /// TLS is terminated with this; `None` is plaintext.
    pub tls: Option<DownstreamTls>,
    /// What is done with the bytes.
    pub filter: NetworkFilter,
}

/// All members must hold; empty members hold always.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FilterChainMatch {
    /// The original destination port.
    pub destination_port: Option<u16>,
    /// The original destination address lies in one of these.
    pub prefix_ranges: Vec<(IpAddr, u8)>,
    /// SNI is one of these (exact, or `*.suffix`).
    pub server_names: Vec<String>,
    /// What the first bytes say.
    pub transport: Option<TransportProtocol>,
    /// ALPN or sniffed protocol is one of these (`http/1.1`, `h2`, `http/1.0`, `h2c`).
    pub application_protocols: Vec<String>,
}

/// What a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransportProtocol {
    /// A TLS ClientHello.
    Tls,
    /// Anything else.
    RawBuffer,
}

/// TLS offered to downstream.
#[derive(Clone, Debug, PartialEq)]
pub struct DownstreamTls {
    /// The server certificate.
    pub certificate: SecretSource,
    /// When present, a client certificate is checked against this.
    pub validation: Option<Validation>,
    /// Whether a connection without client certificate is refused.
    pub require_client_certificate: bool,
    /// ALPN, most wanted first.
    pub alpn: Vec<String>,
}

/// What a filter chain does with bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum NetworkFilter {
    /// HTTP, routed per request.
    Http(Box<HttpConnectionManager>),
    /// Opaque bytes to a cluster.
    Tcp(TcpProxy),
}

/// HTTP on a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpConnectionManager {
    /// `ingress`, `egress`, or `ingress.<proto>.<port>`.
    pub stat_prefix: String,
    /// Which HTTP is spoken.
    pub codec: Codec,
    /// Where routes come from.
    pub routes: RouteSource,
    /// Access logs written for each request.
    pub access_logs: Vec<AccessLog>,
    /// Trust of the client address: true at a gateway (edge), false at a sidecar.
    pub use_remote_address: bool,
    /// RFC 3986 normalisation before matching.
    pub normalize_path: bool,
    /// `//` becomes `/` before matching.
    pub merge_slashes: bool,
    /// Upgrades passed on, such as `websocket`.
    pub upgrades: Vec<String>,
    /// Idle limit of a stream (`None`: Envoy's default 5 minutes; zero: off).
    pub stream_idle_timeout: Option<Duration>,
    /// `:port` is taken off the authority before host matching.
    pub strip_port: bool,
}

/// HTTP version on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// By ALPN or preface.
    Auto,
    /// HTTP/1 only.
    Http1,
    /// HTTP/2 only.
    Http2,
}

/// Where a connection manager's routes come from.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteSource {
    /// By name over ADS.
    Rds(String),
    /// In the listener itself.
    Inline(RouteConfiguration),
}

/// One access log.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    /// File, `/dev/stdout` and `/dev/stderr` included.
    pub path: String,
    /// How a line looks.
    pub format: AccessLogFormat,
}

/// The form of an access log line; values use Envoy's command operators.
#[derive(Clone, Debug, PartialEq)]
pub enum AccessLogFormat {
    /// Envoy's default line.
    Default,
    /// Text with operators; no newline is added.
    Text(String),
    /// A flat JSON object, in this order, one per line.
    Json(Vec<(String, String)>),
}

/// Opaque bytes to one of several clusters.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpProxy {
    /// Prefix of its stats.
    pub stat_prefix: String,
    /// Drawn by weight per connection.
    pub clusters: Vec<WeightedCluster>,
    /// Closed after this long without a byte (`None`: one hour; zero: never).
    pub idle_timeout: Option<Duration>,
    /// Access logs written for each connection.
    pub access_logs: Vec<AccessLog>,
}

/// The address of a listener without a socket.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

/// How long a sniffing Envoy waits for first bytes before it goes on without them: protocols in which the server
/// speaks first must not hang (App Mesh's did).
const SNIFF_TIMEOUT: Duration = Duration::from_secs(5);

impl Listener {
    /// As Envoy reads it. Inspectors are added where a filter chain match needs what they find.
    pub fn encode(&self) -> proto::Listener {
        if let Some(manager) = self.api() {
            return proto::Listener {
                name: self.name.clone(),
                api_listener: Some(proto::ApiListener {
                    api_listener: Some(field::pack(&manager.encode())),
                }),
                ..Default::default()
            };
        }
        let sniffs = self.matches().any(FilterChainMatch::sniffs);
        proto::Listener {
            name: self.name.clone(),
            address: Some(encode_address(self.address)),
            traffic_direction: self.direction.encode().into(),
            filter_chains: self.filter_chains.iter().map(FilterChain::encode).collect(),
            default_filter_chain: self.default_filter_chain.as_ref().map(FilterChain::encode),
            listener_filters: self.encode_filters(),
            listener_filters_timeout: sniffs.then(|| field::encode_duration(SNIFF_TIMEOUT)),
            continue_on_listener_filters_timeout: sniffs,
            ..Default::default()
        }
    }

    /// For clients that are their own proxy (gRPC's `xds:///name`): asked for by name, bound by nobody. Sent only, since
    /// our proxy is no such client.
    pub fn for_api(name: &str, manager: HttpConnectionManager) -> Listener {
        Listener {
            name: name.to_owned(),
            address: NOWHERE,
            direction: Direction::Unspecified,
            original_destination: false,
            filter_chains: Vec::new(),
            default_filter_chain: Some(FilterChain {
                name: String::new(),
                matching: FilterChainMatch::default(),
                tls: None,
                filter: NetworkFilter::Http(Box::new(manager)),
            }),
        }
    }

    fn api(&self) -> Option<&HttpConnectionManager> {
        match &self.default_filter_chain {
            Some(chain) if self.address == NOWHERE && self.filter_chains.is_empty() => {
                match &chain.filter {
                    NetworkFilter::Http(manager) => Some(manager),
                    NetworkFilter::Tcp(_) => None,
                }
            }
            Some(_) | None => None,
        }
    }

    fn matches(&self) -> impl Iterator<Item = &FilterChainMatch> {
        self.filter_chains.iter().map(|chain| &chain.matching)
    }

    fn encode_filters(&self) -> Vec<proto::ListenerFilter> {
        let mut filters = Vec::new();
        if self.original_destination {
            filters.push(listener_filter(
                "envoy.filters.listener.original_dst",
                field::pack(&OriginalDst {}),
            ));
        }
        if self.matches().any(FilterChainMatch::sniffs) {
            filters.push(listener_filter(
                "envoy.filters.listener.tls_inspector",
                field::pack(&TlsInspector::default()),
            ));
        }
        if self.matches().any(|m| !m.application_protocols.is_empty()) {
            filters.push(listener_filter(
                "envoy.filters.listener.http_inspector",
                field::pack(&HttpInspector {}),
            ));
        }
        filters
    }

    /// Checks a listener. Ignored: statistics, metadata, buffer and backlog sizes, accept balancing, how long to wait
    /// for first bytes, and how listeners are drained: our sockets have their own.
    pub fn decode(listener: proto::Listener) -> Result<Listener, Rejected> {
        let name = listener.name.clone();
        Listener::check(listener).map_err(|refusal| refusal.of(&name))
    }

    fn check(listener: proto::Listener) -> Checked<Listener> {
        let proto::Listener {
            name,
            address,
            additional_addresses,
            stat_prefix: _,
            stats_matcher: _,
            filter_chains,
            fcds_config,
            filter_chain_matcher,
            use_original_dst,
            default_filter_chain,
            per_connection_buffer_limit_bytes: _,
            per_connection_buffer_high_watermark_timeout: _,
            metadata: _,
            deprecated_v1,
            drain_type: _,
            listener_filters,
            listener_filters_timeout: _,
            continue_on_listener_filters_timeout: _,
            transparent,
            freebind,
            socket_options,
            tcp_fast_open_queue_length: _,
            traffic_direction,
            udp_listener_config,
            api_listener,
            connection_balance_config: _,
            reuse_port: _,
            enable_reuse_port: _,
            access_log,
            tcp_backlog_size: _,
            max_connections_to_accept_per_socket_event: _,
            bind_to_port,
            enable_mptcp,
            ignore_global_conn_limit,
            bypass_overload_manager,
            tcp_keepalive,
            listener_specifier,
        } = listener;
        refuse!(
            additional_addresses,
            fcds_config,
            filter_chain_matcher,
            deprecated_v1,
            socket_options,
            udp_listener_config,
            api_listener,
            access_log,
            enable_mptcp,
            ignore_global_conn_limit,
            bypass_overload_manager,
            tcp_keepalive,
            listener_specifier,
        );
        field::only("transparent", transparent, Holds::False)?;
        field::only("freebind", freebind, Holds::False)?;
        field::only("bind_to_port", bind_to_port, Holds::True)?;
        let filters = field::each("listener_filters", listener_filters, check_filter)?;
        let redirected = field::truth(use_original_dst).unwrap_or(false);
        if filter_chains.is_empty() && default_filter_chain.is_none() {
            return Err(Refusal::missing("filter_chains"));
        }
        Ok(Listener {
            name: field::not_empty("name", name)?,
            address: check_address(address)?,
            direction: Direction::check(traffic_direction)?,
            original_destination: redirected || filters.contains(&Sniffs::OriginalDestination),
            filter_chains: field::each("filter_chains", filter_chains, FilterChain::check)?,
            default_filter_chain: default_filter_chain
                .map(FilterChain::check)
                .transpose()
                .under("default_filter_chain")?,
        })
    }
}

fn encode_address(address: SocketAddr) -> core::Address {
    let wildcard = address.is_ipv6() && address.ip().is_unspecified();
    core::Address {
        address: Some(Address::SocketAddress(core::SocketAddress {
            address: address.ip().to_string(),
            ipv4_compat: wildcard,
            port_specifier: Some(PortSpecifier::PortValue(address.port().into())),
            ..Default::default()
        })),
    }
}

fn check_address(address: Option<core::Address>) -> Checked<SocketAddr> {
    let (host, port) = socket_address(address)?;
    let ip: IpAddr = host.parse().map_err(|_| {
        let why = format_args!("{host:?} is not an IP address").to_string();
        Refusal::new("address.socket_address.address", why)
    })?;
    Ok(SocketAddr::new(ip, port))
}

impl Direction {
    fn encode(self) -> core::TrafficDirection {
        match self {
            Direction::Inbound => core::TrafficDirection::Inbound,
            Direction::Outbound => core::TrafficDirection::Outbound,
            Direction::Unspecified => core::TrafficDirection::Unspecified,
        }
    }

    fn check(direction: i32) -> Checked<Direction> {
        match field::named("traffic_direction", direction)? {
            core::TrafficDirection::Inbound => Ok(Direction::Inbound),
            core::TrafficDirection::Outbound => Ok(Direction::Outbound),
            core::TrafficDirection::Unspecified => Ok(Direction::Unspecified),
        }
    }
}

/// What a listener filter finds out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sniffs {
    OriginalDestination,
    FirstBytes,
}

fn listener_filter(name: &str, config: Any) -> proto::ListenerFilter {
    proto::ListenerFilter {
        name: name.to_owned(),
        filter_disabled: None,
        config_type: Some(ConfigType::TypedConfig(config)),
    }
}

/// First bytes are looked at wherever a match asks for them, inspector or not.
fn check_filter(filter: proto::ListenerFilter) -> Checked<Sniffs> {
    let proto::ListenerFilter {
        name,
        filter_disabled,
        config_type,
    } = filter;
    refuse!(filter_disabled);
    let Some(ConfigType::TypedConfig(config)) = config_type else {
        return Err(Refusal::missing("typed_config"));
    };
    if config.type_url == OriginalDst::type_url() {
        return Ok(Sniffs::OriginalDestination);
    }
    if config.type_url == HttpInspector::type_url() {
        return Ok(Sniffs::FirstBytes);
    }
    if config.type_url != TlsInspector::type_url() {
        let why = format_args!("{} is not supported", config.type_url).to_string();
        return Err(Refusal::new(name, why));
    }
    let TlsInspector {
        enable_ja3_fingerprinting: _, // nothing of ours shows fingerprints
        enable_ja4_fingerprinting: _,
        initial_read_buffer_size: _,
        close_connection_on_client_hello_parsing_errors,
        max_client_hello_size: _,
    } = field::unpack("typed_config", &config)?;
    refuse!(close_connection_on_client_hello_parsing_errors);
    Ok(Sniffs::FirstBytes)
}
