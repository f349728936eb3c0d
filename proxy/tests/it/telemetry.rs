// SPDX-License-Identifier: Apache-2.0
//! What the data plane tells of its requests: spans over OTLP, trace headers, access logs; and how it drains.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::Request;
use hyper::Response;
use hyper::body::Frame;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use pillion_runtime::spans::Spans;
use pillion_xds::cluster::Cluster;
use pillion_xds::cluster::UpstreamProtocol;
use pillion_xds::listener as xds;
use pillion_xds::listener::NetworkFilter;
use pillion_xds::route::RetryOn;
use pillion_xds::route::RetryPolicy;
use prost::Message;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

use crate::plane::*;

/// The part of OTLP that spans are read from here.
#[derive(Clone, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceSpans>,
}

#[derive(Clone, Message)]
struct ResourceSpans {
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ScopeSpans>,
}

#[derive(Clone, Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Clone, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Value>,
}

#[derive(Clone, Message)]
struct Value {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(int64, tag = "3")]
    number: i64,
}

#[derive(Clone, Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const ERROR: i32 = 2;

impl Span {
    fn text(&self, key: &str) -> Option<String> {
        Some(
            self.attributes
                .iter()
                .find(|pair| pair.key == key)?
                .value
                .as_ref()?
                .text
                .clone(),
        )
    }

    fn number(&self, key: &str) -> Option<i64> {
        Some(
            self.attributes
                .iter()
                .find(|pair| pair.key == key)?
                .value
                .as_ref()?
                .number,
        )
    }

    fn failed(&self) -> bool {
        self.status
            .as_ref()
            .is_some_and(|status| status.code == ERROR)
    }
}

/// A collector that keeps what it is sent.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    async fn start() -> (Collector, String) {
        let collector = Collector::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let kept = collector.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let kept = kept.clone();
                tokio::spawn(async move {
                    let service =
                        hyper::service::service_fn(move |request| kept.clone().take(request));
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    drop(server.serve_connection(TokioIo::new(socket), service).await);
                });
            }
        });
        (collector, url)
    }

    async fn take(self, request: Request<hyper::body::Incoming>) -> Result<Answer, Infallible> {
        let bytes = request.into_body().collect().await.unwrap().to_bytes();
        let export = Export::decode(&bytes[5..]).unwrap();
        let spans = export
            .resources
            .into_iter()
            .flat_map(|resource| resource.scopes)
            .flat_map(|scope| scope.spans);
        self.spans.lock().extend(spans);
        let trailers =
            hyper::HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        let frames = [
            Ok(Frame::data(Bytes::from_static(&[0; 5]))),
            Ok(Frame::trailers(trailers)),
        ];
        let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
        Ok(Response::builder()
            .header("content-type", "application/grpc")
            .body(BodyExt::boxed(body))
            .unwrap())
    }

    async fn eventually(&self, number: usize) -> Vec<Span> {
        eventually(&format!("{number} spans"), || async {
            self.spans.lock().len() >= number
        })
        .await;
        self.spans.lock().clone()
    }
}

/// An app that answers with the trace headers it got.
async fn telling() -> SocketAddr {
    app(|request| async move {
        let header = |name| {
            request
                .headers()
                .get(name)
                .map_or("-", |value| value.to_str().unwrap())
        };
        text(
            200,
            format!("{} {}", header("traceparent"), header("x-amzn-trace-id")),
        )
    })
    .await
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const TRACE: &str = "65a1b2c3d4e5f60718293a4b5c6d7e8f";

fn traced(path: &str) -> Request<Full<Bytes>> {
    let mut request = get(path);
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    request
        .headers_mut()
        .insert("traceparent", parent.parse().unwrap());
    request
}

fn with_spans(
    resources: pillion_proxy::snapshot::Resources,
    app: Option<SocketAddr>,
    url: &str,
) -> Plane {
    let tasks = pillion_runtime::tasks::Tasks::new();
    let spans = Spans::start(url, Vec::new(), &tasks).unwrap();
    Plane::start_traced(resources, app, spans, |settings| {
        settings.policy.sampling =
            std::sync::Arc::new(pillion_proxy::sampling::Sampler::new(0, 1.0))
    })
}

#[tokio::test]
async fn an_egress_try_is_a_client_span_and_the_callee_s_parent() {
    let (collector, url) = Collector::start().await;
    let cluster = Cluster {
        labels: vec![("target".to_owned(), "m/a".to_owned())],
        ..static_cluster("a", &[telling().await])
    };
    let plane = with_spans(
        egress(vec![cluster], vec![route_to("/", forward(&[("a", 1)]))]),
        None,
        &url,
    );
    let told = body(send(plane.egress(), traced("/x?y")).await).await;
    let span = collector.eventually(1).await.remove(0);
    assert_eq!((span.kind, span.name.as_str()), (CLIENT, "GET to/"));
    assert_eq!(
        (hex(&span.trace_id).as_str(), hex(&span.parent_id).as_str()),
        (TRACE, "00f067aa0ba902b7")
    );
    let id = hex(&span.span_id);
    let amzn = format!(
        "Root=1-{}-{};Parent={id};Sampled=1",
        &TRACE[..8],
        &TRACE[8..]
    );
    assert_eq!(told, format!("00-{TRACE}-{id}-01 {amzn}"));
    for (key, value) in [
        ("pillion.direction", "outbound"),
        ("url.path", "/x"),
        ("server.address", "shop"),
        ("peer.service", "m/a"),
        ("pillion.upstream_cluster", "a"),
        ("pillion.route", "to/"),
        ("pillion.response_flags", "-"),
    ] {
        assert_eq!(span.text(key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(span.number("http.response.status_code"), Some(200));
    assert!(!span.failed());
}

#[tokio::test]
async fn ingress_is_a_server_span_and_the_app_s_parent() {
    let (collector, url) = Collector::start().await;
    let chain = chain_for_port(8080, NetworkFilter::Http(Box::new(manager("ingress", "r"))));
    let plane = with_spans(
        ingress(vec![chain], UpstreamProtocol::Http1),
        Some(telling().await),
        &url,
    );
    let told = body(send(plane.listen(), traced("/")).await).await;
    let span = collector.eventually(1).await.remove(0);
    assert_eq!(
        (span.kind, hex(&span.parent_id).as_str()),
        (SERVER, "00f067aa0ba902b7")
    );
    assert!(told.contains(&hex(&span.span_id)), "{told}");
    assert_eq!(span.text("pillion.direction").as_deref(), Some("inbound"));
    assert_eq!(span.text("client.address").as_deref(), Some("127.0.0.1"));
}

#[tokio::test]
async fn each_try_is_a_span_of_its_own() {
    let (collector, url) = Collector::start().await;
    let app = app(|_| async { text(503, "no") }).await;
    let mut retrying = forward(&[("a", 1)]);
    let on = vec![RetryOn::StatusCodes];
    retrying.retry = Some(RetryPolicy {
        on,
        status_codes: vec![503],
        max_retries: 2,
        per_try_timeout: None,
    });
    let plane = with_spans(
        egress(
            vec![static_cluster("a", &[app])],
            vec![route_to("/", retrying)],
        ),
        None,
        &url,
    );
    assert_eq!(send(plane.egress(), traced("/")).await.status(), 503);
    let spans = collector.eventually(3).await;
    let mut resent: Vec<_> = spans
        .iter()
        .map(|span| span.number("http.request.resend_count"))
        .collect();
    resent.sort_unstable();
    assert_eq!(resent, [None, Some(1), Some(2)]);
    assert!(
        spans
            .iter()
            .all(|span| span.failed() && hex(&span.parent_id) == "00f067aa0ba902b7")
    );
}

/// What a stranger may write where a trace belongs, by header; none of it may reach the app as it came.
fn forged() -> Vec<(&'static str, Vec<(&'static str, String)>)> {
    let good = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let one = |name, value: &str| vec![(name, value.to_owned())];
    vec![
        ("no hex", one("traceparent", &good.replace('6', "g"))),
        ("capitals", one("traceparent", &good.to_uppercase())),
        (
            "a zero trace",
            one("traceparent", &good.replace(TRACE, &"0".repeat(32))),
        ),
        (
            "a zero parent",
            one(
                "traceparent",
                &good.replace("00f067aa0ba902b7", &"0".repeat(16)),
            ),
        ),
        (
            "version ff",
            one("traceparent", &good.replacen("00", "ff", 1)),
        ),
        (
            "version 00 with more",
            one("traceparent", &format!("{good}-x")),
        ),
        (
            "too long",
            one(
                "traceparent",
                &format!("01{}-{}", &good[2..], "a".repeat(4000)),
            ),
        ),
        ("markup", one("traceparent", "00-<script>-\"'-01")),
        ("a lone state", one("tracestate", "evil=1")),
        (
            "X-Ray without hex",
            one(
                "x-amzn-trace-id",
                "Root=1-zzzzzzzz-000000000000000000000000",
            ),
        ),
        (
            "X-Ray of another length",
            one("x-amzn-trace-id", "Root=1-1-2;Parent=3;Sampled=1"),
        ),
        (
            "X-Ray too long",
            one(
                "x-amzn-trace-id",
                &format!("Root=1-{};{}", TRACE, "a=b;".repeat(1000)),
            ),
        ),
        (
            "a state beside a broken parent",
            vec![
                ("traceparent", "garbage".to_owned()),
                ("tracestate", "evil=1".to_owned()),
            ],
        ),
        (
            "a state of another trace",
            vec![
                ("traceparent", "garbage".to_owned()),
                ("tracestate", "evil=1".to_owned()),
                (
                    "x-amzn-trace-id",
                    format!("Root=1-{}-{}", &TRACE[..8], &TRACE[8..]),
                ),
            ],
        ),
        (
            "a long state",
            vec![
                ("traceparent", good),
                ("tracestate", format!("a={}", "x".repeat(2000))),
            ],
        ),
    ]
}

#[tokio::test]
async fn forged_trace_headers_never_reach_the_app_as_they_came() {
    let (_collector, url) = Collector::start().await;
    let app = app(|request| async move {
        let all: Vec<String> = ["traceparent", "tracestate", "x-amzn-trace-id"]
            .iter()
            .flat_map(|name| request.headers().get_all(*name))
            .map(|value| value.to_str().unwrap().to_owned())
            .collect();
        text(200, all.join("\n"))
    })
    .await;
    let chain = chain_for_port(8080, NetworkFilter::Http(Box::new(manager("ingress", "r"))));
    let plane = with_spans(
        ingress(vec![chain], UpstreamProtocol::Http1),
        Some(app),
        &url,
    );
    let written = regex::Regex::new(
        "^00-([0-9a-f]{8})([0-9a-f]{24})-[0-9a-f]{16}-0[01]\nRoot=1-([0-9a-f]{8})-([0-9a-f]{24});Parent=[0-9a-f]{16};Sampled=[01]$",
    )
    .unwrap();
    for (what, headers) in forged() {
        let mut request = get("/");
        for (name, value) in headers {
            request.headers_mut().append(name, value.parse().unwrap());
        }
        let told = body(send(plane.listen(), request).await).await;
        let parts = written.captures(&told);
        let parts = parts.unwrap_or_else(|| panic!("{what}: the app was told\n{told}"));
        assert_eq!(
            (&parts[1], &parts[2]),
            (&parts[3], &parts[4]),
            "{what}: two traces"
        );
        assert_ne!(&parts[2], "0".repeat(24), "{what}");
    }
}

#[tokio::test]
async fn an_unsampled_trace_is_passed_on_and_not_recorded() {
    let (collector, url) = Collector::start().await;
    let resources = egress(
        vec![static_cluster("a", &[telling().await])],
        vec![route_to("/", forward(&[("a", 1)]))],
    );
    let plane = with_spans(resources, None, &url);
    let mut request = get("/");
    let header = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=0";
    request
        .headers_mut()
        .insert("x-amzn-trace-id", header.parse().unwrap());
    let told = body(send(plane.egress(), request).await).await;
    assert_eq!(
        told,
        format!("00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-00 {header}")
    );
    send(plane.egress(), traced("/")).await;
    assert_eq!(collector.eventually(1).await.len(), 1);
}

fn logging(path: &str, format: xds::AccessLogFormat) -> xds::Listener {
    let mut manager = manager("egress", "r");
    manager.access_logs = vec![xds::AccessLog {
        path: path.to_owned(),
        format,
    }];
    let mut listener = egress_listener();
    listener.default_filter_chain = Some(chain("default", NetworkFilter::Http(Box::new(manager))));
    listener
}

#[tokio::test]
async fn an_access_log_line_tells_of_each_request_even_a_refused_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let format = "%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_SENT% %UPSTREAM_CLUSTER% %ROUTE_NAME%\n";
    let mut resources = egress(
        vec![static_cluster("a", &[named("hello").await])],
        vec![route_to("/a", forward(&[("a", 1)]))],
    );
    let listener = logging(
        path.to_str().unwrap(),
        xds::AccessLogFormat::Text(format.to_owned()),
    );
    add_listener(&mut resources, listener);
    let plane = Plane::start_with(resources, None, |settings| settings.workers = 1);
    body(send(plane.egress(), get("/a?b")).await).await;
    body(send(plane.egress(), get("/none")).await).await;
    raw(plane.egress(), b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n").await;
    let wanted = "GET /a?b 200 - 5 a to/a\nGET /none 404 NR 0 - -\nGET / 400 DPE 38 - -\n";
    eventually("three lines", || async {
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        written.lines().count() >= 3
    })
    .await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), wanted);
    plane.eventually_stat("access_logs.written", 3).await;
}

#[tokio::test]
async fn a_drain_announces_finishes_what_is_in_flight_and_ends() {
    let app = app(|_| async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        text(200, "finished")
    })
    .await;
    let plane = Plane::start(
        egress(
            vec![static_cluster("a", &[app])],
            vec![route_to("/", forward(&[("a", 1)]))],
        ),
        None,
    );
    let proxy = plane.egress();
    let in_flight = tokio::spawn(send(proxy, get("/")));
    plane
        .eventually_stat("cluster.a.upstream_rq_active", 1)
        .await;
    plane.plane.announce_drain(pillion_proxy::drain::BOTH);
    let announced = send(proxy, get("/")).await;
    assert_eq!(announced.headers()["connection"], "close");
    assert_eq!(in_flight.await.unwrap().status(), 200);
    // An idle connection does not hold the drain up.
    let idle = TcpStream::connect(proxy).await.unwrap();
    assert_eq!(plane.plane.drain(Duration::from_secs(20), LIMIT).await, 0);
    drop(idle);
    assert!(TcpStream::connect(proxy).await.is_err());
    assert_eq!(plane.tasks.drain(LIMIT).await, 0);
}

#[tokio::test]
async fn requests_during_a_whole_drain_are_all_answered() {
    let app = named("a").await;
    let plane = Plane::start(
        egress(
            vec![static_cluster("a", &[app])],
            vec![route_to("/", forward(&[("a", 1)]))],
        ),
        None,
    );
    let proxy = plane.egress();
    let caller = tokio::spawn(async move {
        // Callers keep coming for a while, then hear of the drain and go.
        for _ in 0..60 {
            assert_eq!(send(proxy, get("/")).await.status(), 200);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert_eq!(plane.plane.drain(Duration::from_secs(20), LIMIT).await, 0);
    caller.await.unwrap();
}

#[tokio::test]
async fn a_drain_cuts_off_what_does_not_end_in_time_and_says_how_much() {
    let app = app(|_| async {
        tokio::time::sleep(LIMIT * 2).await;
        text(200, "never")
    })
    .await;
    let plane = Plane::start(
        egress(
            vec![static_cluster("a", &[app])],
            vec![route_to("/", forward(&[("a", 1)]))],
        ),
        None,
    );
    let mut socket = TcpStream::connect(plane.egress()).await.unwrap();
    socket
        .write_all(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n")
        .await
        .unwrap();
    plane
        .eventually_stat("cluster.a.upstream_rq_active", 1)
        .await;
    let begun = std::time::Instant::now();
    assert_eq!(
        plane
            .plane
            .drain(Duration::from_millis(50), Duration::from_millis(300))
            .await,
        1
    );
    assert!(begun.elapsed() < LIMIT);
    let mut rest = Vec::new();
    assert_eq!(socket.read_to_end(&mut rest).await.unwrap_or(0), 0);
}
