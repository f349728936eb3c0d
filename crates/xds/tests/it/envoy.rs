// SPDX-License-Identifier: Apache-2.0
//! The oracle: a stock Envoy takes one of everything that encode can emit. Needs the `envoy` of the workspace's virtual
//! environment.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use pillion_xds::cluster::*;
use pillion_xds::endpoint::*;
use pillion_xds::listener::*;
use pillion_xds::proto;
use pillion_xds::proto::envoy::config::bootstrap::v3::Bootstrap;
use pillion_xds::proto::envoy::config::bootstrap::v3::bootstrap::DynamicResources;
use pillion_xds::proto::envoy::config::bootstrap::v3::bootstrap::StaticResources;
use pillion_xds::route::*;
use pillion_xds::secret::*;
use prost::Message;

const MINUTE: Duration = Duration::from_secs(60);

fn envoy() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/venv");
    let venv = std::env::var_os("PILLION_VENV").map_or(default, PathBuf::from);
    let envoy = venv.join("bin/envoy");
    assert!(
        envoy.exists(),
        "{} is missing; run `cargo xtask setup`",
        envoy.display()
    );
    envoy
}

fn assignment(name: &str, hosts: &[&str]) -> ClusterLoadAssignment {
    let endpoint = |host: &&str| Endpoint {
        host: (*host).to_owned(),
        port: 8080,
        health: Health::Healthy,
        weight: 3,
    };
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        localities: vec![Locality {
            zone: "a".into(),
            priority: 0,
            weight: Some(1),
            endpoints: hosts.iter().map(endpoint).collect(),
        }],
    }
}

fn ads(name: &str) -> SecretSource {
    SecretSource::Ads(name.to_owned())
}

fn validation() -> Validation {
    Validation {
        trust: ads("spiffe://t"),
        subject_alt_names: vec![
            SanMatch::Uri("spiffe://t/mesh/m/virtualNode/n".into()),
            SanMatch::Dns("n.local".into()),
            SanMatch::Ip("127.0.0.1".into()),
        ],
    }
}

fn cluster(name: &str, discovery: Discovery, protocol: UpstreamProtocol) -> Cluster {
    let probe = match protocol {
        UpstreamProtocol::Http1 => Probe::Http {
            path: "/ping".into(),
            http2: false,
        },
        UpstreamProtocol::Http2 => Probe::Grpc,
        UpstreamProtocol::UseDownstream => Probe::Tcp,
    };
    let check = HealthCheck {
        probe,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        healthy_threshold: 2,
        unhealthy_threshold: 3,
    };
    let probed = discovery != Discovery::OriginalDestination;
    // Envoy 1.40's validation crashes on SDS in clusters that need no look-up; serving, it does not.
    let secured = !matches!(
        discovery,
        Discovery::Static(_) | Discovery::OriginalDestination
    );
    let tls = UpstreamTls {
        certificate: Some(ads("spiffe://t/mesh/m/virtualNode/n")),
        validation: Some(validation()),
        sni: Some("n.local".into()),
        alpn: vec!["h2".into(), "http/1.1".into()],
    };
    Cluster {
        name: name.to_owned(),
        discovery,
        connect_timeout: Duration::from_secs(1),
        protocol,
        tls: secured.then_some(tls),
        limits: CircuitBreakers {
            max_connections: Some(10),
            max_pending_requests: Some(20),
            max_requests: Some(u32::MAX),
            max_retries: None,
            retry_budget: Some(RetryBudget::default()),
        },
        outlier_detection: Some(OutlierDetection {
            consecutive_5xx: 5,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_percent: 50,
        }),
        health_checks: if probed { vec![check] } else { Vec::new() },
        dns_family: DnsFamily::V4Preferred,
        idle_timeout: Some(MINUTE),
        labels: vec![("target".into(), "m/n".into())],
    }
}

fn clusters() -> Vec<Cluster> {
    let (http1, http2, as_downstream) = (
        UpstreamProtocol::Http1,
        UpstreamProtocol::Http2,
        UpstreamProtocol::UseDownstream,
    );
    let fixed = assignment("fixed", &["127.0.0.1", "::1"]);
    vec![
        cluster("fixed", Discovery::Static(fixed), http1),
        cluster(
            "strict",
            Discovery::StrictDns(assignment("strict", &["a.local", "b.local"])),
            http2,
        ),
        cluster(
            "logical",
            Discovery::LogicalDns(assignment("logical", &["a.local"])),
            as_downstream,
        ),
        cluster("eds", Discovery::Eds(Some("shop".into())), http2),
        cluster("original", Discovery::OriginalDestination, http1),
    ]
}

fn headers() -> Vec<HeaderMatch> {
    let header = |name: &str, value: HeaderValueMatch, invert| HeaderMatch {
        name: name.to_owned(),
        value,
        invert,
    };
    vec![
        header(":method", HeaderValueMatch::Exact("GET".into()), false),
        header("x-a", HeaderValueMatch::Prefix("a".into()), true),
        header("x-b", HeaderValueMatch::Suffix("b".into()), false),
        header("x-c", HeaderValueMatch::Regex("c+".into()), true),
        header("x-d", HeaderValueMatch::Range(1, 10), true),
        header("x-e", HeaderValueMatch::Present, true),
    ]
}

fn retry() -> RetryPolicy {
    RetryPolicy {
        on: vec![
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
        ],
        status_codes: vec![500, 503],
        max_retries: 2,
        per_try_timeout: Some(Duration::from_secs(5)),
    }
}

fn weights(clusters: &[(&str, u32)]) -> Vec<WeightedCluster> {
    let weigh = |(name, weight): &(&str, u32)| WeightedCluster {
        name: (*name).to_owned(),
        weight: *weight,
    };
    clusters.iter().map(weigh).collect()
}

fn forward(clusters: &[(&str, u32)], rewrite: Option<PathRewrite>) -> Forward {
    Forward {
        clusters: weights(clusters),
        timeout: Duration::ZERO,
        idle_timeout: Some(MINUTE),
        retry: Some(retry()),
        rewrite,
        host_rewrite: Some("n.local".into()),
    }
}

fn routes() -> RouteConfiguration {
    let route = |name: &str, path, grpc, action| Route {
        name: name.to_owned(),
        matching: RouteMatch {
            path,
            headers: headers(),
            query: vec![
                QueryMatch {
                    name: "q".into(),
                    exact: Some("1".into()),
                },
                QueryMatch {
                    name: "p".into(),
                    exact: None,
                },
            ],
            grpc,
        },
        action,
    };
    let substitution = PathRewrite::Regex {
        pattern: "^/v([0-9]+)/(.*)".into(),
        substitution: "/\\2/\\1".into(),
    };
    let halves = forward(
        &[("fixed", 90), ("strict", 10), ("logical", 0)],
        Some(PathRewrite::Prefix("/b".into())),
    );
    let one = forward(&[("eds", 1)], Some(substitution));
    let nowhere = forward(&[("fixed", 0)], None);
    let host = VirtualHost {
        name: "shop".into(),
        domains: vec![
            "shop.local".into(),
            "shop.local:80".into(),
            "*.shop.local".into(),
            "*".into(),
        ],
        routes: vec![
            route(
                "halves",
                PathMatch::Prefix("/a".into()),
                false,
                Action::Forward(Box::new(halves)),
            ),
            route(
                "one",
                PathMatch::Regex("/v[0-9]+/.*".into()),
                false,
                Action::Forward(Box::new(one)),
            ),
            route(
                "nowhere",
                PathMatch::Exact("/svc/M".into()),
                true,
                Action::Forward(Box::new(nowhere)),
            ),
            route(
                "answer",
                PathMatch::Prefix("/".into()),
                false,
                Action::Respond {
                    status: 404,
                    body: "no".into(),
                },
            ),
        ],
    };
    RouteConfiguration {
        name: "rds".into(),
        virtual_hosts: vec![host],
    }
}

fn access_logs() -> Vec<AccessLog> {
    let log = |format| AccessLog {
        path: "/dev/stdout".into(),
        format,
    };
    let members = vec![
        ("status".into(), "%RESPONSE_CODE%".into()),
        ("after".into(), "%DURATION%".into()),
    ];
    vec![
        log(AccessLogFormat::Default),
        log(AccessLogFormat::Text("%PROTOCOL%:%DURATION%\n".into())),
        log(AccessLogFormat::Json(members)),
    ]
}

fn http(codec: Codec, source: RouteSource) -> NetworkFilter {
    NetworkFilter::Http(Box::new(HttpConnectionManager {
        stat_prefix: "ingress".into(),
        codec,
        routes: source,
        access_logs: access_logs(),
        use_remote_address: true,
        normalize_path: true,
        merge_slashes: true,
        upgrades: vec!["websocket".into()],
        stream_idle_timeout: Some(Duration::ZERO),
        strip_port: true,
    }))
}

fn chain(
    name: &str,
    port: u16,
    transport: Option<TransportProtocol>,
    filter: NetworkFilter,
) -> FilterChain {
    let tls = (transport == Some(TransportProtocol::Tls)).then(|| DownstreamTls {
        certificate: ads("spiffe://t/mesh/m/virtualNode/n"),
        validation: Some(validation()),
        require_client_certificate: true,
        alpn: vec!["h2".into()],
    });
    FilterChain {
        name: name.to_owned(),
        matching: FilterChainMatch {
            destination_port: Some(port),
            transport,
            ..FilterChainMatch::default()
        },
        tls,
        filter,
    }
}

fn listeners() -> Vec<Listener> {
    let tcp = |clusters: &[(&str, u32)]| {
        NetworkFilter::Tcp(TcpProxy {
            stat_prefix: "egress".into(),
            clusters: weights(clusters),
            idle_timeout: Some(Duration::ZERO),
            access_logs: access_logs(),
        })
    };
    let (tls, raw) = (
        Some(TransportProtocol::Tls),
        Some(TransportProtocol::RawBuffer),
    );
    let inbound = vec![
        chain(
            "secure",
            8080,
            tls,
            http(Codec::Http2, RouteSource::Inline(routes())),
        ),
        chain(
            "plain",
            8080,
            raw,
            http(Codec::Http1, RouteSource::Rds("rds".into())),
        ),
        chain("tcp", 3306, None, tcp(&[("fixed", 1), ("strict", 0)])),
        chain("split", 3307, None, tcp(&[("fixed", 2), ("strict", 3)])),
    ];
    let mut by_name = chain("sni", 443, tls, tcp(&[("original", 1)]));
    by_name.tls = None;
    by_name.matching.server_names = vec!["*.amazonaws.com".into()];
    let mut by_range = chain("range", 5432, None, tcp(&[("logical", 1)]));
    by_range.matching.prefix_ranges = vec![("10.0.0.0".parse().expect("a literal"), 8)];
    let mut by_protocol = chain(
        "h2c",
        9000,
        raw,
        http(Codec::Auto, RouteSource::Inline(routes())),
    );
    by_protocol.matching.application_protocols = vec!["h2c".into(), "http/1.1".into()];
    let listener = |name: &str, address: &str, direction, chains, default| Listener {
        name: name.to_owned(),
        address: address.parse().expect("a literal"),
        direction,
        original_destination: true,
        filter_chains: chains,
        default_filter_chain: default,
    };
    let otherwise = FilterChain {
        matching: FilterChainMatch::default(),
        ..chain(
            "otherwise",
            0,
            None,
            http(Codec::Auto, RouteSource::Inline(routes())),
        )
    };
    vec![
        listener(
            "lds_ingress",
            "[::]:15000",
            Direction::Inbound,
            inbound,
            None,
        ),
        listener(
            "lds_egress",
            "0.0.0.0:15001",
            Direction::Outbound,
            vec![by_name, by_range, by_protocol],
            Some(otherwise),
        ),
    ]
}

/// A bootstrap in which everything stands statically, checked as strictly as over ADS.
fn bootstrap() -> Bootstrap {
    let xds = cluster(
        "xds",
        Discovery::Static(assignment("xds", &["127.0.0.1"])),
        UpstreamProtocol::Http2,
    );
    let mut all: Vec<proto::cluster::Cluster> = clusters().iter().map(Cluster::encode).collect();
    all.insert(0, xds.encode());
    let service = proto::core::GrpcService {
        target_specifier: Some(proto::core::grpc_service::TargetSpecifier::EnvoyGrpc(
            proto::core::grpc_service::EnvoyGrpc {
                cluster_name: "xds".into(),
                ..Default::default()
            },
        )),
        ..Default::default()
    };
    Bootstrap {
        node: Some(proto::core::Node {
            id: "n".into(),
            cluster: "n".into(),
            ..Default::default()
        }),
        static_resources: Some(StaticResources {
            listeners: listeners().iter().map(Listener::encode).collect(),
            clusters: all,
            secrets: Vec::new(),
        }),
        dynamic_resources: Some(DynamicResources {
            ads_config: Some(proto::core::ApiConfigSource {
                api_type: proto::core::api_config_source::ApiType::DeltaGrpc.into(),
                transport_api_version: proto::core::ApiVersion::V3.into(),
                grpc_services: vec![service],
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn envoy_takes_one_of_everything() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("bootstrap.pb");
    std::fs::write(&file, bootstrap().encode_to_vec()).expect("written");
    let output = Command::new(envoy())
        .args(["--mode", "validate", "-l", "warning", "-c"])
        .arg(&file)
        .output()
        .expect("envoy runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(
        !told.contains("deprecated"),
        "nothing that Envoy will drop:\n{told}"
    );
}

#[test]
fn one_of_everything_decodes_to_itself_but_for_what_is_never_drawn() {
    for one in clusters() {
        assert_eq!(Cluster::decode(one.encode()), Ok(one));
    }
    let without_zero = &listeners()[1];
    assert!(Listener::decode(without_zero.encode()).is_ok());
}
