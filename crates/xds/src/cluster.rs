// SPDX-License-Identifier: Apache-2.0
//! Checked `envoy.config.cluster.v3.Cluster`.

mod discovery;
mod health;
mod protocol;

use std::time::Duration;

use prost::Message;

use crate::endpoint::ClusterLoadAssignment;
use crate::field;
use crate::field::Checked;
use crate::field::Refusal;
use crate::field::Under;
use crate::field::refuse;
use crate::ordered;
use crate::proto::cluster as proto;
use crate::proto::cluster::cluster::ClusterDiscoveryType;
use crate::proto::cluster::cluster::DnsLookupFamily;
use crate::proto::cluster::cluster::LbPolicy;
use crate::proto::core;
use crate::proto::google::protobuf;
use crate::resource::Rejected;
use crate::secret::SecretSource;
use crate::secret::Validation;
use crate::tls;

/// Where labels stand in a cluster's filter metadata.
const LABELS: &str = "pillion";
/// Envoy's connect timeout when a cluster says none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A named set of endpoints and how they are spoken to.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Resource name, such as `cds_egress_<mesh>_<node>_http_8080`.
    pub name: String,
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// Limit of a TCP connect with its TLS handshake.
    pub connect_timeout: Duration,
    /// What is spoken.
    pub protocol: UpstreamProtocol,
    /// TLS originated with this; `None` is plaintext.
    pub tls: Option<UpstreamTls>,
    /// Limits; `None` members are Envoy's 1024.
    pub limits: CircuitBreakers,
    /// Ejection of failing endpoints.
    pub outlier_detection: Option<OutlierDetection>,
    /// Active probes.
    pub health_checks: Vec<HealthCheck>,
    /// Which address families DNS answers may have.
    pub dns_family: DnsFamily,
    /// A pooled connection unused this long is closed (`None`: one hour).
    pub idle_timeout: Option<Duration>,
    /// Free key and value strings for telemetry (filter metadata `pillion`), such as the callee's name. Decoded they
    /// are sorted by key.
    pub labels: Vec<(String, String)>,
}

/// Where endpoints come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Discovery {
    /// The addresses here.
    Static(ClusterLoadAssignment),
    /// Every address that DNS answers for the hostnames here.
    StrictDns(ClusterLoadAssignment),
    /// One address at a time, for new connections.
    LogicalDns(ClusterLoadAssignment),
    /// By EDS under this name (the cluster's own if it is `None`).
    Eds(Option<String>),
    /// Where the connection was going.
    OriginalDestination,
}

/// HTTP version spoken upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamProtocol {
    /// HTTP/1.1 (also opaque TCP).
    Http1,
    /// HTTP/2 with prior knowledge or ALPN.
    Http2,
    /// As downstream spoke.
    UseDownstream,
}

/// TLS towards upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamTls {
    /// Offered when the server asks.
    pub certificate: Option<SecretSource>,
    /// How the server is checked; `None` encrypts without checking.
    pub validation: Option<Validation>,
    /// Server name sent; `None` sends none.
    pub sni: Option<String>,
    /// ALPN, most wanted first.
    pub alpn: Vec<String>,
}

/// Limits of one cluster, per sidecar.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CircuitBreakers {
    /// TCP connections.
    pub max_connections: Option<u32>,
    /// Requests waiting for a connection.
    pub max_pending_requests: Option<u32>,
    /// Requests in flight.
    pub max_requests: Option<u32>,
    /// Retries in flight; not looked at beside a budget.
    pub max_retries: Option<u32>,
    /// Retries as a share of requests.
    pub retry_budget: Option<RetryBudget>,
}

/// How many retries a cluster bears.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget {
    /// Of its requests.
    pub percent: f64,
    /// So many at once in any case.
    pub min_concurrency: u32,
}

impl Default for RetryBudget {
    /// Envoy's figures.
    fn default() -> RetryBudget {
        RetryBudget {
            percent: 20.0,
            min_concurrency: 3,
        }
    }
}

/// Ejection of endpoints that answer with errors.
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierDetection {
    /// In a row.
    pub consecutive_5xx: u32,
    /// Between sweeps.
    pub interval: Duration,
    /// Times the number of ejections so far, at most Envoy's default of the larger of this and 300 s.
    pub base_ejection_time: Duration,
    /// Share of endpoints that may be out at once (one always may).
    pub max_ejection_percent: u32,
}

/// One active probe.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// Between probes.
    pub interval: Duration,
    /// Of one probe.
    pub timeout: Duration,
    /// Passes until healthy.
    pub healthy_threshold: u32,
    /// Failures until unhealthy.
    pub unhealthy_threshold: u32,
}

/// What a health check asks.
#[derive(Clone, Debug, PartialEq)]
pub enum Probe {
    /// `GET path`, 200 expected.
    Http {
        /// Path asked for.
        path: String,
        /// Over HTTP/2.
        http2: bool,
    },
    /// The gRPC health service.
    Grpc,
    /// A connect.
    Tcp,
}

/// Address families of DNS answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DnsFamily {
    /// IPv6 first, else IPv4.
    Auto,
    /// IPv4 only.
    V4Only,
    /// IPv6 only.
    V6Only,
    /// IPv4 first, else IPv6.
    V4Preferred,
    /// Both.
    All,
}

impl Cluster {
    /// As Envoy reads it. With more than one label the bytes of this message depend on a hash map's order;
    /// `Resource::encode_any` is the form with stable bytes.
    pub fn encode(&self) -> proto::Cluster {
        let (kind, assignment, eds) = discovery::encode(&self.discovery);
        let balancing = match self.discovery {
            Discovery::OriginalDestination => LbPolicy::ClusterProvided,
            _ => LbPolicy::RoundRobin,
        };
        proto::Cluster {
            name: self.name.clone(),
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(kind.into())),
            load_assignment: assignment,
            eds_cluster_config: eds,
            connect_timeout: Some(field::encode_duration(self.connect_timeout)),
            lb_policy: balancing.into(),
            typed_extension_protocol_options: protocol::encode(self.protocol, self.idle_timeout),
            transport_socket: self.tls.as_ref().map(tls::encode_upstream),
            circuit_breakers: health::encode_limits(&self.limits),
            outlier_detection: self.outlier_detection.as_ref().map(health::encode_outlier),
            health_checks: self
                .health_checks
                .iter()
                .map(health::encode_check)
                .collect(),
            dns_lookup_family: DnsLookupFamily::from(self.dns_family).into(),
            metadata: self.encode_labels(),
            ..Default::default()
        }
    }

    /// The bytes of [`Cluster::encode`] with the labels in order.
    pub(crate) fn encode_bytes(&self) -> Vec<u8> {
        let mut message = self.encode();
        message.metadata = None;
        let mut bytes = message.encode_to_vec();
        if !self.labels.is_empty() {
            let tail = ordered::ClusterMetadata {
                metadata: Some(ordered::Metadata {
                    filter_metadata: vec![ordered::MetadataField {
                        key: LABELS.to_owned(),
                        value: Some(ordered::Struct::encode_texts(&self.labels)),
                    }],
                }),
            };
            bytes.extend(tail.encode_to_vec());
        }
        bytes
    }

    fn encode_labels(&self) -> Option<core::Metadata> {
        if self.labels.is_empty() {
            return None;
        }
        let text = |(key, text): &(String, String)| {
            let kind = protobuf::value::Kind::StringValue(text.clone());
            (key.clone(), protobuf::Value { kind: Some(kind) })
        };
        let labels = protobuf::Struct {
            fields: self.labels.iter().map(text).collect(),
        };
        Some(core::Metadata {
            filter_metadata: [(LABELS.to_owned(), labels)].into(),
            ..Default::default()
        })
    }

    /// Checks a cluster. Ignored, because they change no answer: names and detail of statistics, buffer sizes (ours are
    /// bounded by our own limits), the pace of DNS look-ups, warming, and metadata of others.
    pub fn decode(cluster: proto::Cluster) -> Result<Cluster, Rejected> {
        let name = cluster.name.clone();
        Cluster::check(cluster).map_err(|refusal| refusal.of(&name))
    }

    #[expect(
        clippy::too_many_lines,
        reason = "a line for each of the message's fields"
    )]
    fn check(cluster: proto::Cluster) -> Checked<Cluster> {
        let proto::Cluster {
            transport_socket_matches,
            transport_socket_matcher,
            name,
            alt_stat_name: _,
            stats_matcher: _,
            eds_cluster_config,
            connect_timeout,
            per_connection_buffer_limit_bytes: _,
            per_connection_buffer_high_watermark_timeout: _,
            lb_policy,
            load_assignment,
            health_checks,
            max_requests_per_connection,
            circuit_breakers,
            upstream_http_protocol_options,
            common_http_protocol_options,
            http_protocol_options,
            http2_protocol_options,
            typed_extension_protocol_options,
            dns_refresh_rate: _,
            dns_jitter: _,
            dns_failure_refresh_rate: _,
            respect_dns_ttl: _,
            dns_lookup_family,
            dns_resolvers,
            use_tcp_for_dns_lookups,
            dns_resolution_config,
            typed_dns_resolver_config,
            wait_for_warm_on_init: _,
            outlier_detection,
            cleanup_interval: _,
            upstream_bind_config,
            lb_subset_config,
            common_lb_config,
            transport_socket,
            metadata,
            protocol_selection,
            upstream_connection_options,
            close_connections_on_host_health_failure,
            ignore_health_on_host_removal,
            filters,
            load_balancing_policy,
            lrs_server,
            lrs_report_endpoint_metrics,
            track_timeout_budgets: _,
            upstream_config,
            track_cluster_stats: _,
            preconnect_policy,
            connection_pool_per_downstream_connection,
            queuing_policies,
            cluster_discovery_type,
            lb_config,
        } = cluster;
        refuse!(
            transport_socket_matches,
            transport_socket_matcher,
            max_requests_per_connection,
            upstream_http_protocol_options,
            common_http_protocol_options,
            http_protocol_options,
            http2_protocol_options,
            dns_resolvers,
            use_tcp_for_dns_lookups,
            dns_resolution_config,
            typed_dns_resolver_config,
            upstream_bind_config,
            lb_subset_config,
            protocol_selection,
            upstream_connection_options,
            close_connections_on_host_health_failure,
            ignore_health_on_host_removal,
            filters,
            load_balancing_policy,
            lrs_server,
            lrs_report_endpoint_metrics,
            upstream_config,
            preconnect_policy,
            connection_pool_per_downstream_connection,
            queuing_policies,
        );
        discovery::check_balancing(lb_policy, lb_config, common_lb_config)?;
        let discovery = discovery::check(
            cluster_discovery_type.as_ref(),
            load_assignment.as_ref(),
            eds_cluster_config,
        )?;
        let (protocol, idle_timeout) = protocol::decode(typed_extension_protocol_options)
            .under("typed_extension_protocol_options")?;
        let family: DnsLookupFamily = field::named("dns_lookup_family", dns_lookup_family)?;
        Ok(Cluster {
            name: field::not_empty("name", name)?,
            discovery,
            connect_timeout: field::duration("connect_timeout", connect_timeout)?
                .unwrap_or(CONNECT_TIMEOUT),
            protocol,
            tls: transport_socket
                .map(tls::decode_upstream)
                .transpose()
                .under("transport_socket")?,
            limits: health::decode_limits(circuit_breakers).under("circuit_breakers")?,
            outlier_detection: outlier_detection
                .map(health::decode_outlier)
                .transpose()
                .under("outlier_detection")?,
            health_checks: field::each("health_checks", health_checks, health::decode_check)?,
            dns_family: family.into(),
            idle_timeout,
            labels: check_labels(metadata)?,
        })
    }
}

fn check_labels(metadata: Option<core::Metadata>) -> Checked<Vec<(String, String)>> {
    let Some(core::Metadata {
        mut filter_metadata,
        typed_filter_metadata: _,
    }) = metadata
    else {
        return Ok(Vec::new());
    };
    let labels = filter_metadata.remove(LABELS).unwrap_or_default();
    let mut texts = Vec::with_capacity(labels.fields.len());
    for (key, value) in labels.fields {
        let Some(protobuf::value::Kind::StringValue(text)) = value.kind else {
            let field = format_args!("metadata.filter_metadata.{LABELS}.{key}").to_string();
            return Err(Refusal::new(field, "must be a string"));
        };
        texts.push((key, text));
    }
    texts.sort();
    Ok(texts)
}

impl From<DnsFamily> for DnsLookupFamily {
    fn from(family: DnsFamily) -> DnsLookupFamily {
        match family {
            DnsFamily::Auto => DnsLookupFamily::Auto,
            DnsFamily::V4Only => DnsLookupFamily::V4Only,
            DnsFamily::V6Only => DnsLookupFamily::V6Only,
            DnsFamily::V4Preferred => DnsLookupFamily::V4Preferred,
            DnsFamily::All => DnsLookupFamily::All,
        }
    }
}

impl From<DnsLookupFamily> for DnsFamily {
    fn from(family: DnsLookupFamily) -> DnsFamily {
        match family {
            DnsLookupFamily::Auto => DnsFamily::Auto,
            DnsLookupFamily::V4Only => DnsFamily::V4Only,
            DnsLookupFamily::V6Only => DnsFamily::V6Only,
            DnsLookupFamily::V4Preferred => DnsFamily::V4Preferred,
            DnsLookupFamily::All => DnsFamily::All,
        }
    }
}
