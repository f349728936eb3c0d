// SPDX-License-Identifier: Apache-2.0
//! Every checked type at random, within what its documentation allows.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;

use pillion_xds::cluster::*;
use pillion_xds::endpoint::*;
use pillion_xds::listener::*;
use pillion_xds::resource::Resource;
use pillion_xds::route::*;
use pillion_xds::secret::*;
use proptest::collection::btree_map;
use proptest::collection::btree_set;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

fn name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9._/-]{0,20}"
}

fn any_text() -> impl Strategy<Value = String> {
    ".{0,20}"
}

fn duration() -> impl Strategy<Value = Duration> {
    (0_u64..100_000, 0_u32..1_000_000_000).prop_map(|(s, n)| Duration::new(s, n))
}

fn positive_duration() -> impl Strategy<Value = Duration> {
    (0_u64..100_000, 1_u32..1_000_000_000).prop_map(|(s, n)| Duration::new(s, n))
}

fn ip() -> impl Strategy<Value = IpAddr> {
    any::<IpAddr>()
}

fn regex() -> impl Strategy<Value = String> {
    select(vec!["/a.*", "[0-9]+", "a|b", "(?i)x{1,3}", "^/v[12]/"]).prop_map(str::to_owned)
}

fn weighted(least: u32) -> impl Strategy<Value = WeightedCluster> {
    (name(), least..1000).prop_map(|(name, weight)| WeightedCluster { name, weight })
}

pub(crate) fn endpoints(
    host: BoxedStrategy<String>,
) -> impl Strategy<Value = ClusterLoadAssignment> {
    let health = select(vec![Health::Healthy, Health::Unhealthy, Health::Draining]);
    let endpoint =
        (host, any::<u16>(), health, 1_u32..100).prop_map(|(host, port, health, weight)| {
            Endpoint {
                host,
                port,
                health,
                weight,
            }
        });
    let locality = (
        any_text(),
        0_u32..=128,
        option::of(1_u32..100),
        vec(endpoint, 0..4),
    )
        .prop_map(|(zone, priority, weight, endpoints)| Locality {
            zone,
            priority,
            weight,
            endpoints,
        });
    (name(), vec(locality, 0..3)).prop_map(|(cluster_name, localities)| ClusterLoadAssignment {
        cluster_name,
        localities,
    })
}

fn literal() -> BoxedStrategy<String> {
    ip().prop_map(|ip| ip.to_string()).boxed()
}

fn one_host() -> impl Strategy<Value = ClusterLoadAssignment> {
    (name(), name(), any::<u16>()).prop_map(|(cluster_name, host, port)| ClusterLoadAssignment {
        cluster_name,
        localities: vec![Locality {
            zone: String::new(),
            priority: 0,
            weight: None,
            endpoints: vec![Endpoint {
                host,
                port,
                health: Health::Healthy,
                weight: 1,
            }],
        }],
    })
}

fn streamed_secret() -> impl Strategy<Value = SecretSource> {
    prop_oneof![
        name().prop_map(SecretSource::Ads),
        (name(), name()).prop_map(|(name, cluster)| SecretSource::Sds { name, cluster }),
    ]
}

fn certificate() -> impl Strategy<Value = SecretSource> {
    prop_oneof![
        streamed_secret(),
        (name(), name()).prop_map(|(chain, key)| SecretSource::CertificateFiles { chain, key }),
    ]
}

fn validation() -> impl Strategy<Value = Validation> {
    let san = prop_oneof![
        name().prop_map(SanMatch::Dns),
        name().prop_map(SanMatch::Uri),
        literal().prop_map(SanMatch::Ip),
    ];
    let trust = prop_oneof![streamed_secret(), name().prop_map(SecretSource::TrustFile)];
    (trust, vec(san, 0..3)).prop_map(|(trust, subject_alt_names)| Validation {
        trust,
        subject_alt_names,
    })
}

fn alpn() -> impl Strategy<Value = Vec<String>> {
    vec(select(vec!["h2", "http/1.1"]).prop_map(str::to_owned), 0..2)
}

fn discovery() -> impl Strategy<Value = Discovery> {
    prop_oneof![
        endpoints(literal()).prop_map(Discovery::Static),
        endpoints(name().boxed()).prop_map(Discovery::StrictDns),
        one_host().prop_map(Discovery::LogicalDns),
        option::of(name()).prop_map(Discovery::Eds),
        Just(Discovery::OriginalDestination),
    ]
}

fn limits() -> impl Strategy<Value = CircuitBreakers> {
    let limit = || option::of(any::<u32>());
    let budget = (0.0..=100.0, any::<u32>()).prop_map(|(percent, min_concurrency)| RetryBudget {
        percent,
        min_concurrency,
    });
    (limit(), limit(), limit(), limit(), option::of(budget)).prop_map(|(a, b, c, d, budget)| {
        CircuitBreakers {
            max_connections: a,
            max_pending_requests: b,
            max_requests: c,
            max_retries: d,
            retry_budget: budget,
        }
    })
}

fn outlier() -> impl Strategy<Value = OutlierDetection> {
    (
        any::<u32>(),
        positive_duration(),
        positive_duration(),
        0_u32..=100,
    )
        .prop_map(
            |(consecutive_5xx, interval, base_ejection_time, max_ejection_percent)| {
                OutlierDetection {
                    consecutive_5xx,
                    interval,
                    base_ejection_time,
                    max_ejection_percent,
                }
            },
        )
}

fn health_check() -> impl Strategy<Value = HealthCheck> {
    let probe = prop_oneof![
        ("/[a-z]{0,9}", any::<bool>()).prop_map(|(path, http2)| Probe::Http { path, http2 }),
        Just(Probe::Grpc),
        Just(Probe::Tcp),
    ];
    (
        probe,
        positive_duration(),
        positive_duration(),
        1_u32..10,
        1_u32..10,
    )
        .prop_map(
            |(probe, interval, timeout, healthy_threshold, unhealthy_threshold)| HealthCheck {
                probe,
                interval,
                timeout,
                healthy_threshold,
                unhealthy_threshold,
            },
        )
}

pub(crate) fn cluster() -> impl Strategy<Value = Cluster> {
    let protocol = select(vec![
        UpstreamProtocol::Http1,
        UpstreamProtocol::Http2,
        UpstreamProtocol::UseDownstream,
    ]);
    let family = select(vec![
        DnsFamily::Auto,
        DnsFamily::V4Only,
        DnsFamily::V6Only,
        DnsFamily::V4Preferred,
        DnsFamily::All,
    ]);
    let tls = (
        option::of(certificate()),
        option::of(validation()),
        option::of(name()),
        alpn(),
    )
        .prop_map(|(certificate, validation, sni, alpn)| UpstreamTls {
            certificate,
            validation,
            sni,
            alpn,
        });
    let head = (name(), discovery(), duration(), protocol, option::of(tls));
    let health = (limits(), option::of(outlier()), vec(health_check(), 0..3));
    let labels = btree_map(name(), any_text(), 0..5);
    (head, health, family, option::of(duration()), labels).prop_map(
        |(
            (name, discovery, connect_timeout, protocol, tls),
            (limits, outlier_detection, health_checks),
            dns_family,
            idle_timeout,
            labels,
        )| Cluster {
            name,
            discovery,
            connect_timeout,
            protocol,
            tls,
            limits,
            outlier_detection,
            health_checks,
            dns_family,
            idle_timeout,
            labels: labels.into_iter().collect(),
        },
    )
}

fn header() -> impl Strategy<Value = HeaderMatch> {
    let value = prop_oneof![
        Just(HeaderValueMatch::Present),
        any_text().prop_map(HeaderValueMatch::Exact),
        any_text().prop_map(HeaderValueMatch::Prefix),
        any_text().prop_map(HeaderValueMatch::Suffix),
        regex().prop_map(HeaderValueMatch::Regex),
        any::<(i64, i64)>().prop_map(|(start, end)| HeaderValueMatch::Range(start, end)),
    ];
    ("(:method|:scheme|[a-z-]{1,12})", value, any::<bool>()).prop_map(|(name, value, invert)| {
        HeaderMatch {
            name,
            value,
            invert,
        }
    })
}

fn matching() -> impl Strategy<Value = RouteMatch> {
    let path = prop_oneof![
        any_text().prop_map(PathMatch::Prefix),
        any_text().prop_map(PathMatch::Exact),
        regex().prop_map(PathMatch::Regex),
    ];
    let query =
        (name(), option::of(any_text())).prop_map(|(name, exact)| QueryMatch { name, exact });
    (path, vec(header(), 0..3), vec(query, 0..3), any::<bool>()).prop_map(
        |(path, headers, query, grpc)| RouteMatch {
            path,
            headers,
            query,
            grpc,
        },
    )
}

fn retry() -> impl Strategy<Value = RetryPolicy> {
    let on = select(vec![
        RetryOn::ServerError,
        RetryOn::GatewayError,
        RetryOn::Retriable4xx,
        RetryOn::ConnectFailure,
        RetryOn::RefusedStream,
        RetryOn::Reset,
        RetryOn::Cancelled,
        RetryOn::DeadlineExceeded,
        RetryOn::Internal,
        RetryOn::ResourceExhausted,
        RetryOn::Unavailable,
        RetryOn::StatusCodes,
    ]);
    (
        vec(on, 0..4),
        vec(any::<u16>(), 0..4),
        any::<u32>(),
        option::of(duration()),
    )
        .prop_map(
            |(on, status_codes, max_retries, per_try_timeout)| RetryPolicy {
                on,
                status_codes,
                max_retries,
                per_try_timeout,
            },
        )
}

fn action() -> impl Strategy<Value = Action> {
    let rewrite = prop_oneof![
        "/[a-z]{0,9}".prop_map(PathRewrite::Prefix),
        (regex(), any_text()).prop_map(|(pattern, substitution)| PathRewrite::Regex {
            pattern,
            substitution
        }),
    ];
    // The first has weight, so that the total is not zero; a zero elsewhere is fine.
    let clusters = (weighted(1), vec(weighted(0), 0..3)).prop_map(|(first, mut rest)| {
        rest.insert(0, first);
        rest
    });
    let forward = (
        clusters,
        duration(),
        option::of(duration()),
        option::of(retry()),
        option::of(rewrite),
        option::of(name()),
    )
        .prop_map(
            |(clusters, timeout, idle_timeout, retry, rewrite, host_rewrite)| Forward {
                clusters,
                timeout,
                idle_timeout,
                retry,
                rewrite,
                host_rewrite,
            },
        );
    prop_oneof![
        forward.prop_map(|forward| Action::Forward(Box::new(forward))),
        (200_u16..600, any_text()).prop_map(|(status, body)| Action::Respond { status, body }),
    ]
}

pub(crate) fn routes() -> impl Strategy<Value = RouteConfiguration> {
    let route = (any_text(), matching(), action()).prop_map(|(name, matching, action)| Route {
        name,
        matching,
        action,
    });
    let domain = r"(\*|\*\.[a-z.]{1,9}|[a-z.]{1,9}\.\*|[a-z][a-z.]{0,9}(:[0-9]{2})?)";
    let host = (name(), btree_set(domain, 1..4), vec(route, 0..4));
    (name(), vec(host, 0..3)).prop_map(|(name, hosts)| {
        let mut seen = std::collections::BTreeSet::new();
        let mut virtual_hosts = Vec::new();
        for (name, domains, routes) in hosts {
            let domains: Vec<String> = domains
                .into_iter()
                .filter(|d| seen.insert(d.clone()))
                .collect();
            if !domains.is_empty() {
                virtual_hosts.push(VirtualHost {
                    name,
                    domains,
                    routes,
                });
            }
        }
        RouteConfiguration {
            name,
            virtual_hosts,
        }
    })
}

fn access_log() -> impl Strategy<Value = AccessLog> {
    let members = btree_map(name(), any_text(), 1..6).prop_map(|members| {
        // Not in the order of their keys, which must survive.
        members.into_iter().rev().collect()
    });
    let format = prop_oneof![
        Just(AccessLogFormat::Default),
        any_text().prop_map(AccessLogFormat::Text),
        members.prop_map(AccessLogFormat::Json),
    ];
    (name(), format).prop_map(|(path, format)| AccessLog { path, format })
}

fn http() -> impl Strategy<Value = HttpConnectionManager> {
    let codec = select(vec![Codec::Auto, Codec::Http1, Codec::Http2]);
    let source = prop_oneof![
        name().prop_map(RouteSource::Rds),
        routes().prop_map(RouteSource::Inline),
    ];
    (
        (name(), codec, source, vec(access_log(), 0..2)),
        any::<[bool; 4]>(),
        vec(name(), 0..2),
        option::of(duration()),
    )
        .prop_map(
            |((stat_prefix, codec, routes, access_logs), flags, upgrades, stream_idle_timeout)| {
                HttpConnectionManager {
                    stat_prefix,
                    codec,
                    routes,
                    access_logs,
                    use_remote_address: flags[0],
                    normalize_path: flags[1],
                    merge_slashes: flags[2],
                    upgrades,
                    stream_idle_timeout,
                    strip_port: flags[3],
                }
            },
        )
}

fn filter_chain() -> impl Strategy<Value = FilterChain> {
    let range = any::<(IpAddr, u8)>().prop_map(|(ip, length)| {
        let most = if ip.is_ipv4() { 32 } else { 128 };
        (ip, length % (most + 1))
    });
    let transport = select(vec![TransportProtocol::Tls, TransportProtocol::RawBuffer]);
    let matching = (
        option::of(any::<u16>()),
        vec(range, 0..3),
        vec(name(), 0..3),
        option::of(transport),
        alpn(),
    )
        .prop_map(
            |(destination_port, prefix_ranges, server_names, transport, application_protocols)| {
                FilterChainMatch {
                    destination_port,
                    prefix_ranges,
                    server_names,
                    transport,
                    application_protocols,
                }
            },
        );
    let tls = (
        certificate(),
        option::of(validation()),
        any::<bool>(),
        alpn(),
    )
        .prop_map(|(certificate, validation, require, alpn)| DownstreamTls {
            certificate,
            require_client_certificate: require && validation.is_some(),
            validation,
            alpn,
        });
    let tcp = (
        name(),
        vec(weighted(1), 1..3),
        option::of(duration()),
        vec(access_log(), 0..2),
    )
        .prop_map(
            |(stat_prefix, clusters, idle_timeout, access_logs)| TcpProxy {
                stat_prefix,
                clusters,
                idle_timeout,
                access_logs,
            },
        );
    let filter = prop_oneof![
        http().prop_map(|http| NetworkFilter::Http(Box::new(http))),
        tcp.prop_map(NetworkFilter::Tcp),
    ];
    (any_text(), matching, option::of(tls), filter).prop_map(|(name, matching, tls, filter)| {
        FilterChain {
            name,
            matching,
            tls,
            filter,
        }
    })
}

pub(crate) fn listener() -> impl Strategy<Value = Listener> {
    let direction = select(vec![
        Direction::Inbound,
        Direction::Outbound,
        Direction::Unspecified,
    ]);
    (
        (name(), ip(), any::<u16>(), direction, any::<bool>()),
        vec(filter_chain(), 1..3),
        option::of(filter_chain()),
    )
        .prop_map(
            |((name, ip, port, direction, original_destination), filter_chains, default)| {
                Listener {
                    name,
                    address: SocketAddr::new(ip, port),
                    direction,
                    original_destination,
                    filter_chains,
                    default_filter_chain: default,
                }
            },
        )
}

pub(crate) fn secret() -> impl Strategy<Value = Secret> {
    let value = prop_oneof![
        (any_text(), any_text()).prop_map(|(chain, key)| SecretValue::Certificate { chain, key }),
        any_text().prop_map(SecretValue::TrustBundle),
    ];
    (name(), value).prop_map(|(name, value)| Secret { name, value })
}

pub(crate) fn resource() -> impl Strategy<Value = Resource> {
    prop_oneof![
        cluster().prop_map(Resource::Cluster),
        endpoints(literal()).prop_map(Resource::Endpoint),
        listener().prop_map(Resource::Listener),
        routes().prop_map(Resource::Route),
        secret().prop_map(Resource::Secret),
    ]
}
