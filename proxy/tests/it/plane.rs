// SPDX-License-Identifier: Apache-2.0
//! A data plane in process over real sockets, with hand-made resources; apps to call through it, and clients.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::Request;
use hyper::Response;
use hyper::body::Incoming;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use pillion_proxy::listener;
use pillion_proxy::listener::DataPlane;
use pillion_proxy::listener::Listen;
use pillion_proxy::listener::Settings;
use pillion_proxy::metrics::Metrics;
use pillion_proxy::snapshot::Live;
use pillion_proxy::snapshot::Resources;
use pillion_proxy::snapshot::Snapshot;
use pillion_runtime::spans::Spans;
use pillion_runtime::tasks::Tasks;
use pillion_xds::cluster;
use pillion_xds::endpoint;
use pillion_xds::listener as xds;
use pillion_xds::route;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

pub(crate) type Answer = Response<http_body_util::combinators::BoxBody<Bytes, hyper::Error>>;

/// How long anything here may take; far above what it does take.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// A running data plane.
pub(crate) struct Plane {
    pub(crate) live: Live,
    pub(crate) resources: Resources,
    pub(crate) plane: DataPlane,
    pub(crate) metrics: Metrics,
    pub(crate) tasks: Tasks,
    bound: BTreeMap<String, SocketAddr>,
}

impl Plane {
    /// With ingress, egress and one `--listen` for port 8080 to `app`.
    pub(crate) fn start(resources: Resources, app: Option<SocketAddr>) -> Plane {
        Plane::start_with(resources, app, |_| {})
    }

    pub(crate) fn start_with(
        resources: Resources,
        app: Option<SocketAddr>,
        adjust: impl FnOnce(&mut Settings),
    ) -> Plane {
        Plane::start_traced(resources, app, Spans::off(), adjust)
    }

    pub(crate) fn start_traced(
        resources: Resources,
        app: Option<SocketAddr>,
        spans: Spans,
        adjust: impl FnOnce(&mut Settings),
    ) -> Plane {
        let metrics = Metrics::new(2, Vec::new());
        let tasks = Tasks::new();
        let live = Live::new(Snapshot::empty(metrics.clone()));
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut settings = Settings {
            ingress: Some(any),
            egress: Some(any),
            listens: app
                .map(|app| Listen {
                    address: any,
                    port: 8080,
                    app,
                })
                .into_iter()
                .collect(),
            gateway: any.ip(),
            workers: 2,
            ..Settings::default()
        };
        adjust(&mut settings);
        let plane = listener::start(&live, settings, &metrics, spans, &tasks).unwrap();
        let bound = plane.addresses().into_iter().collect();
        let mut plane = Plane {
            live,
            resources,
            plane,
            metrics,
            tasks,
            bound,
        };
        plane.push(|_| {});
        plane
    }

    /// Changes the resources and puts them in force; every one must be accepted.
    pub(crate) fn push(&mut self, change: impl FnOnce(&mut Resources)) {
        change(&mut self.resources);
        let (snapshot, rejected) = Snapshot::compile(&self.resources, &self.live.current());
        assert_eq!(rejected, Vec::new());
        self.live.replace(snapshot);
    }

    pub(crate) fn egress(&self) -> SocketAddr {
        self.bound["egress"]
    }

    pub(crate) fn listen(&self) -> SocketAddr {
        self.bound["listen:8080"]
    }

    pub(crate) fn stat(&self, name: &str) -> u64 {
        let stats: BTreeMap<String, u64> = self.metrics.stats().into_iter().collect();
        stats
            .get(name)
            .copied()
            .unwrap_or_else(|| panic!("no stat {name} among {:?}", stats.keys()))
    }

    pub(crate) async fn eventually_stat(&self, name: &str, wanted: u64) {
        eventually(&format!("{name} is {wanted}"), || async {
            self.stat(name) == wanted
        })
        .await;
    }
}

pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < LIMIT, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An egress listener with one table `r`, as the control plane sends it.
pub(crate) fn egress_listener() -> xds::Listener {
    let default = chain(
        "default",
        xds::NetworkFilter::Http(Box::new(manager("egress", "r"))),
    );
    xds::Listener {
        name: "lds_egress_0.0.0.0_15001".to_owned(),
        address: "0.0.0.0:15001".parse().unwrap(),
        direction: xds::Direction::Outbound,
        original_destination: true,
        filter_chains: Vec::new(),
        default_filter_chain: Some(default),
    }
}

/// An ingress listener with a chain for port 8080.
pub(crate) fn ingress_listener(chains: Vec<xds::FilterChain>) -> xds::Listener {
    xds::Listener {
        name: "lds_ingress_0.0.0.0_15000".to_owned(),
        address: "0.0.0.0:15000".parse().unwrap(),
        direction: xds::Direction::Inbound,
        original_destination: true,
        filter_chains: chains,
        default_filter_chain: None,
    }
}

pub(crate) fn chain(name: &str, filter: xds::NetworkFilter) -> xds::FilterChain {
    xds::FilterChain {
        name: name.to_owned(),
        matching: xds::FilterChainMatch::default(),
        tls: None,
        filter,
    }
}

pub(crate) fn chain_for_port(port: u16, filter: xds::NetworkFilter) -> xds::FilterChain {
    let matching = xds::FilterChainMatch {
        destination_port: Some(port),
        ..Default::default()
    };
    xds::FilterChain {
        matching,
        ..chain(&format!("port-{port}"), filter)
    }
}

pub(crate) fn manager(prefix: &str, routes: &str) -> xds::HttpConnectionManager {
    xds::HttpConnectionManager {
        stat_prefix: prefix.to_owned(),
        codec: xds::Codec::Auto,
        routes: xds::RouteSource::Rds(routes.to_owned()),
        access_logs: Vec::new(),
        use_remote_address: false,
        normalize_path: true,
        merge_slashes: true,
        upgrades: vec!["websocket".to_owned()],
        stream_idle_timeout: None,
        strip_port: false,
    }
}

pub(crate) fn static_cluster(name: &str, endpoints: &[SocketAddr]) -> cluster::Cluster {
    let endpoint = |addr: &SocketAddr| endpoint::Endpoint {
        host: addr.ip().to_string(),
        port: addr.port(),
        health: endpoint::Health::Healthy,
        weight: 1,
    };
    let locality = endpoint::Locality {
        zone: String::new(),
        priority: 0,
        weight: None,
        endpoints: endpoints.iter().map(endpoint).collect(),
    };
    let assignment = endpoint::ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        localities: vec![locality],
    };
    cluster::Cluster {
        name: name.to_owned(),
        discovery: cluster::Discovery::Static(assignment),
        connect_timeout: Duration::from_secs(1),
        protocol: cluster::UpstreamProtocol::Http1,
        tls: None,
        limits: cluster::CircuitBreakers::default(),
        outlier_detection: None,
        health_checks: Vec::new(),
        dns_family: cluster::DnsFamily::V4Preferred,
        idle_timeout: None,
        labels: Vec::new(),
    }
}

pub(crate) fn forward(clusters: &[(&str, u32)]) -> route::Forward {
    route::Forward {
        clusters: clusters
            .iter()
            .map(|(name, weight)| route::WeightedCluster {
                name: (*name).to_owned(),
                weight: *weight,
            })
            .collect(),
        timeout: Duration::from_secs(15),
        idle_timeout: None,
        retry: None,
        rewrite: None,
        host_rewrite: None,
    }
}

pub(crate) fn route_to(prefix: &str, forward: route::Forward) -> route::Route {
    route::Route {
        name: format!("to{prefix}"),
        matching: route::RouteMatch {
            path: route::PathMatch::Prefix(prefix.to_owned()),
            headers: Vec::new(),
            query: Vec::new(),
            grpc: false,
        },
        action: route::Action::Forward(Box::new(forward)),
    }
}

pub(crate) fn table(domains: &[&str], routes: Vec<route::Route>) -> route::RouteConfiguration {
    let host = route::VirtualHost {
        name: "shop".to_owned(),
        domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
        routes,
    };
    route::RouteConfiguration {
        name: "r".to_owned(),
        virtual_hosts: vec![host],
    }
}

/// Egress to the clusters, routed by these routes for `shop`.
pub(crate) fn egress(clusters: Vec<cluster::Cluster>, routes: Vec<route::Route>) -> Resources {
    let mut resources = Resources::default();
    add_listener(&mut resources, egress_listener());
    resources.routes.insert(
        "r".to_owned(),
        Arc::new(table(&["shop", "shop:80"], routes)),
    );
    for cluster in clusters {
        resources
            .clusters
            .insert(cluster.name.clone(), Arc::new(cluster));
    }
    resources
}

pub(crate) fn add_listener(resources: &mut Resources, listener: xds::Listener) {
    resources
        .listeners
        .insert(listener.name.clone(), Arc::new(listener));
}

/// Ingress for port 8080 to the local app, with this chain.
pub(crate) fn ingress(
    chains: Vec<xds::FilterChain>,
    protocol: cluster::UpstreamProtocol,
) -> Resources {
    let mut resources = Resources::default();
    add_listener(&mut resources, ingress_listener(chains));
    let local = static_cluster("local", &["127.0.0.1:8080".parse().unwrap()]);
    resources.clusters.insert(
        "local".to_owned(),
        Arc::new(cluster::Cluster { protocol, ..local }),
    );
    let routes = vec![route_to("/", forward(&[("local", 1)]))];
    resources
        .routes
        .insert("r".to_owned(), Arc::new(table(&["*"], routes)));
    resources
}

/// An app that answers with `serve`, over HTTP/1.1 or HTTP/2 as it is spoken to.
pub(crate) async fn app<F, R>(serve: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Answer> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let serve = serve.clone();
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |request| {
                    let answer = serve(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let mut server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                server
                    .http2()
                    .initial_stream_window_size(64 * 1024)
                    .initial_connection_window_size(16 * 1024 * 1024);
                // How it ends is the test's business, not the app's.
                drop(
                    server
                        .serve_connection_with_upgrades(TokioIo::new(socket), service)
                        .await,
                );
            });
        }
    });
    addr
}

/// An app that says its name.
pub(crate) async fn named(name: &'static str) -> SocketAddr {
    app(move |_| async move { text(200, name) }).await
}

pub(crate) fn text(status: u16, body: impl Into<Bytes>) -> Answer {
    Response::builder()
        .status(status)
        .body(
            Full::new(body.into())
                .map_err(|never| match never {})
                .boxed(),
        )
        .unwrap()
}

/// An app that answers every connection with these bytes and closes it.
pub(crate) async fn raw_app(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = vec![0; 65536];
                if socket
                    .read(&mut buffer)
                    .await
                    .is_ok_and(|number| number > 0)
                {
                    drop(socket.write_all(answer).await);
                }
            });
        }
    });
    addr
}

/// An address where nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// One request on a connection of its own.
pub(crate) async fn send(proxy: SocketAddr, request: Request<Full<Bytes>>) -> Response<Incoming> {
    let socket = TcpStream::connect(proxy).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .unwrap();
    tokio::spawn(connection);
    tokio::time::timeout(LIMIT, sender.send_request(request))
        .await
        .expect("an answer in time")
        .unwrap()
}

pub(crate) fn get(path: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .uri(path)
        .header("host", "shop")
        .body(Full::default())
        .unwrap()
}

pub(crate) async fn body(response: Response<Incoming>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends bytes as they are and returns all that comes back until the proxy closes or falls silent.
pub(crate) async fn raw(proxy: SocketAddr, request: &[u8]) -> String {
    let mut socket = TcpStream::connect(proxy).await.unwrap();
    socket.write_all(request).await.unwrap();
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(Ok(number)) =
        tokio::time::timeout(Duration::from_millis(500), socket.read(&mut buffer)).await
    {
        if number == 0 {
            break;
        }
        all.extend_from_slice(&buffer[..number]);
    }
    String::from_utf8_lossy(&all).into_owned()
}
