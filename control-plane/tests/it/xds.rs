// SPDX-License-Identifier: Apache-2.0
//! The xDS port as a client sees it that speaks the protocol by hand: what is sent, in which order, what is kept silent,
//! what is refused and how; certificate signing; TLS and plaintext on one port.

use std::collections::BTreeSet;
use std::time::Duration;

use pillion_xds::proto::core::Node;
use pillion_xds::proto::discovery::DeltaDiscoveryRequest;
use pillion_xds::proto::discovery::DeltaDiscoveryResponse;
use pillion_xds::proto::discovery::DiscoveryRequest;
use pillion_xds::proto::discovery::DiscoveryResponse;
use pillion_xds::proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use pillion_xds::proto::google::rpc;
use pillion_xds::resource::Resource;
use pillion_xds::resource::ResourceType;
use pillion_xds::signing::CertificateServiceClient;
use pillion_xds::signing::SignRequest;
use pillion_xds::signing::SignResponse;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::Status;
use tonic::Streaming;
use tonic::transport::Certificate;
use tonic::transport::Channel;
use tonic::transport::ClientTlsConfig;

use crate::control_plane::ControlPlane;
use crate::envoy::eventually;
use crate::postgres::Postgres;
use crate::replicas::replica;

const WEB: &str = "mesh/m/virtualNode/web";
/// Long enough for whatever is on its way on one machine, short enough to wait for nothing.
const SILENCE: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(20);

fn block_on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(test)
}

async fn channel(control_plane: &ControlPlane) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{}", control_plane.xds)).expect("a URI");
    endpoint.connect().await.expect("the port is open")
}

/// Has a CSR signed, over plaintext.
pub(crate) fn sign(
    control_plane: &ControlPlane,
    node_id: &str,
    csr: &str,
) -> Result<SignResponse, Status> {
    let request = SignRequest {
        node_id: node_id.to_owned(),
        csr_pem: csr.to_owned(),
    };
    block_on(async {
        CertificateServiceClient::new(channel(control_plane).await)
            .sign(request)
            .await
    })
}

fn node(id: &str) -> Option<Node> {
    Some(Node {
        id: id.to_owned(),
        user_agent_name: "test".to_owned(),
        ..Node::default()
    })
}

/// A client of `StreamAggregatedResources`.
struct World {
    out: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

impl World {
    async fn connect(control_plane: &ControlPlane) -> World {
        World::over(channel(control_plane).await).await
    }

    async fn over(channel: Channel) -> World {
        let (out, requests) = mpsc::channel(16);
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let responses = client
            .stream_aggregated_resources(ReceiverStream::new(requests))
            .await
            .expect("a stream");
        World {
            out,
            responses: responses.into_inner(),
        }
    }

    async fn ask(&self, id: &str, kind: ResourceType, names: &[&str]) {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let type_url = kind.url().to_owned();
        self.send(DiscoveryRequest {
            node: node(id),
            type_url,
            resource_names: names,
            ..Default::default()
        })
        .await;
    }

    async fn send(&self, request: DiscoveryRequest) {
        self.out.send(request).await.expect("the stream is open");
    }

    async fn answer(&self, response: &DiscoveryResponse, names: &[&str], error: Option<&str>) {
        let error_detail = error.map(|text| rpc::Status {
            code: 3,
            message: text.to_owned(),
            details: Vec::new(),
        });
        self.send(DiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
            error_detail,
            ..Default::default()
        })
        .await;
    }

    async fn next(&mut self) -> DiscoveryResponse {
        let next = tokio::time::timeout(PATIENCE, self.responses.message())
            .await
            .expect("a response in time");
        next.expect("no error").expect("no end")
    }

    async fn refusal(&mut self) -> Status {
        let next = tokio::time::timeout(PATIENCE, self.responses.message())
            .await
            .expect("an end in time");
        next.expect_err("a refusal")
    }

    async fn silent(&mut self) -> bool {
        tokio::time::timeout(SILENCE, self.responses.message())
            .await
            .is_err()
    }
}

/// A client of `DeltaAggregatedResources` that accepts everything.
struct Deltas {
    out: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Deltas {
    async fn connect(control_plane: &ControlPlane) -> Deltas {
        let (out, requests) = mpsc::channel(16);
        let mut client = AggregatedDiscoveryServiceClient::new(channel(control_plane).await);
        let responses = client
            .delta_aggregated_resources(ReceiverStream::new(requests))
            .await
            .expect("a stream");
        Deltas {
            out,
            responses: responses.into_inner(),
        }
    }

    async fn ask(&self, kind: ResourceType, names: &[&str], held: &[(&str, &str)]) {
        let request = DeltaDiscoveryRequest {
            node: node(WEB),
            type_url: kind.url().to_owned(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            initial_resource_versions: held
                .iter()
                .map(|(name, version)| ((*name).to_owned(), (*version).to_owned()))
                .collect(),
            ..Default::default()
        };
        self.out.send(request).await.expect("the stream is open");
    }

    async fn next(&mut self) -> DeltaDiscoveryResponse {
        let next = tokio::time::timeout(PATIENCE, self.responses.message())
            .await
            .expect("a response in time");
        let response = next.expect("no error").expect("no end");
        let ack = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..Default::default()
        };
        self.out.send(ack).await.expect("the stream is open");
        response
    }
}

fn names(response: &DiscoveryResponse) -> BTreeSet<String> {
    let kind = ResourceType::from_url(&response.type_url).expect("a type of ours");
    let decode = |any| {
        Resource::decode_any(kind, any)
            .expect("a resource that our proxy takes")
            .name()
            .to_owned()
    };
    response.resources.iter().map(decode).collect()
}

fn backends(names: &[&str]) -> Value {
    let backend = |name: &&str| json!({"virtualService": {"virtualServiceName": name}});
    json!({
        "listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}],
        "serviceDiscovery": {"dns": {"hostname": "web.internal"}},
        "backends": names.iter().map(backend).collect::<Vec<_>>()
    })
}

/// `web` calls `cart.local`, which node `cart` provides.
pub(crate) fn mesh(control_plane: &ControlPlane) {
    control_plane.put("/meshes", &json!({"meshName": "m"})).ok();
    for (node, service) in [("cart", "cart.local"), ("pay", "pay.local")] {
        let spec = json!({
            "listeners": [{"portMapping": {"port": 9000, "protocol": "http"}}],
            "serviceDiscovery": {"dns": {"hostname": "127.0.0.1"}}
        });
        control_plane
            .put(
                "/meshes/m/virtualNodes",
                &json!({"virtualNodeName": node, "spec": spec}),
            )
            .ok();
        let provider = json!({"provider": {"virtualNode": {"virtualNodeName": node}}});
        control_plane
            .put(
                "/meshes/m/virtualServices",
                &json!({"virtualServiceName": service, "spec": provider}),
            )
            .ok();
    }
    control_plane
        .put(
            "/meshes/m/virtualNodes",
            &json!({"virtualNodeName": "web", "spec": backends(&["cart.local"])}),
        )
        .ok();
}

fn update_web(control_plane: &ControlPlane, names: &[&str]) {
    control_plane
        .put(
            "/meshes/m/virtualNodes/web",
            &json!({"spec": backends(names)}),
        )
        .ok();
}

fn stream_of(control_plane: &ControlPlane, proxy: &str) -> Option<Value> {
    let fleet = control_plane.admin("/fleet").ok();
    fleet["streams"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|stream| stream["proxy"] == proxy)
        .cloned()
}

#[test]
fn a_change_reaches_the_proxies_it_concerns_and_nobody_else() {
    let control_plane = ControlPlane::start();
    mesh(&control_plane);
    block_on(async {
        let mut web = World::connect(&control_plane).await;
        web.ask(WEB, ResourceType::Cluster, &[]).await;
        let first = web.next().await;
        let cart = "cds_egress_m_cart_http_9000".to_owned();
        assert!(names(&first).contains(&cart), "{:?}", names(&first));
        web.answer(&first, &[], None).await;
        let mut other = World::connect(&control_plane).await;
        other
            .ask("mesh/m/virtualNode/pay", ResourceType::Cluster, &[])
            .await;
        let response = other.next().await;
        other.answer(&response, &[], None).await;

        update_web(&control_plane, &["cart.local", "pay.local"]);
        let second = web.next().await;
        assert!(
            names(&second).is_superset(&names(&first))
                && names(&second).contains("cds_egress_m_pay_http_9000")
        );
        assert_ne!(first.version_info, second.version_info);
        web.answer(&second, &[], None).await;
        update_web(&control_plane, &["cart.local", "pay.local"]);
        assert!(web.silent().await, "the same spec again is no change");
        assert!(other.silent().await, "pay does not call anybody");
    });
}

#[test]
fn what_is_written_to_one_replica_reaches_the_proxies_of_another_within_a_second() {
    let postgres = Postgres::start();
    let (writer, _log) = replica(&postgres);
    let (other, _log) = replica(&postgres);
    mesh(&writer);
    other.get("/meshes/m/virtualNodes/web").ok();
    block_on(async {
        let mut web = World::connect(&other).await;
        web.ask(WEB, ResourceType::Cluster, &[]).await;
        let first = web.next().await;
        web.answer(&first, &[], None).await;
        update_web(&writer, &["cart.local", "pay.local"]);
        let written = std::time::Instant::now();
        let second = web.next().await;
        let took = written.elapsed();
        assert!(names(&second).contains("cds_egress_m_pay_http_9000"));
        assert!(took < Duration::from_secs(1), "{took:?}");
    });
}

#[test]
fn a_refusal_is_shown_with_its_reason_until_something_is_accepted() {
    let control_plane = ControlPlane::start();
    mesh(&control_plane);
    block_on(async {
        let mut web = World::connect(&control_plane).await;
        web.ask(WEB, ResourceType::Listener, &[]).await;
        let first = web.next().await;
        web.answer(
            &first,
            &[],
            Some("lds_egress_0.0.0.0_15001: no such filter"),
        )
        .await;
        let listener = eventually("the refusal is in the fleet", || {
            let listener = stream_of(&control_plane, WEB)?["types"]["listener"].clone();
            listener["nack"].is_object().then_some(listener)
        });
        assert_eq!(
            listener["nack"]["reason"],
            "lds_egress_0.0.0.0_15001: no such filter"
        );
        assert_eq!(listener["nack"]["version"], first.version_info);
        assert!(listener["acked"].is_null());
        assert!(web.silent().await, "what was refused is not sent again");
        let metrics = control_plane.admin("/metrics").text();
        assert!(
            metrics.contains(r#"pillion_xds_answers_total{answer="nack",type="listener"} 1"#),
            "{metrics}"
        );
        // A backend on another port makes another listener.
        let spec = json!({"listeners": [{"portMapping": {"port": 9001, "protocol": "http"}}], "serviceDiscovery": {"dns": {"hostname": "127.0.0.1"}}});
        control_plane
            .put("/meshes/m/virtualNodes/cart", &json!({"spec": spec}))
            .ok();
        let second = web.next().await;
        web.answer(&second, &[], None).await;
        eventually("the acceptance is in the fleet", || {
            let listener = stream_of(&control_plane, WEB)?["types"]["listener"].clone();
            (listener["nack"].is_null() && listener["acked"] == second.version_info).then_some(())
        });
    });
    eventually("the stream is gone from the fleet", || {
        stream_of(&control_plane, WEB).is_none().then_some(())
    });
}

#[test]
fn routes_are_taken_away_before_the_cluster_they_led_to() {
    let control_plane = ControlPlane::start();
    mesh(&control_plane);
    update_web(&control_plane, &["cart.local", "pay.local"]);
    block_on(async {
        let mut web = Deltas::connect(&control_plane).await;
        web.ask(ResourceType::Cluster, &[], &[]).await;
        web.ask(ResourceType::Listener, &[], &[]).await;
        web.ask(ResourceType::Route, &["rds_egress_http_15001"], &[])
            .await;
        let kinds = [web.next().await, web.next().await, web.next().await]
            .map(|response| response.type_url);
        assert_eq!(kinds[0], ResourceType::Cluster.url(), "clusters come first");

        update_web(&control_plane, &["cart.local"]);
        let changed = web.next().await;
        assert_eq!(changed.type_url, ResourceType::Route.url());
        assert_eq!(changed.resources.len(), 1);
        let removed = web.next().await;
        assert_eq!(removed.type_url, ResourceType::Cluster.url());
        assert_eq!(removed.removed_resources, ["cds_egress_m_pay_http_9000"]);
        assert!(removed.resources.is_empty());
    });
}

#[test]
fn a_proxy_that_comes_back_is_sent_only_what_it_lacks() {
    let control_plane = ControlPlane::start();
    mesh(&control_plane);
    block_on(async {
        let mut web = Deltas::connect(&control_plane).await;
        web.ask(ResourceType::Cluster, &[], &[]).await;
        let first = web.next().await;
        let held: Vec<(&str, &str)> = first
            .resources
            .iter()
            .map(|resource| (resource.name.as_str(), resource.version.as_str()))
            .collect();
        assert!(held.len() > 1);
        let mut again = Deltas::connect(&control_plane).await;
        let mut known = held.clone();
        known.push(("long-gone", "1"));
        again.ask(ResourceType::Cluster, &[], &known).await;
        let second = again.next().await;
        assert!(second.resources.is_empty(), "{:?}", second.resources);
        assert_eq!(second.removed_resources, ["long-gone"]);
    });
}

#[test]
fn an_unknown_node_is_refused_until_it_exists() {
    let control_plane = ControlPlane::start();
    block_on(async {
        for (id, part) in [
            (WEB, "mesh/m/virtualNode/web does not exist"),
            ("mesh/m/virtualService/web", "is no proxy"),
            ("nonsense", "names no App Mesh resource"),
            (
                "arn:aws:appmesh:us-east-1:123456789012:mesh/m/virtualNode/web",
                "--account 123456789012",
            ),
        ] {
            let mut stranger = World::connect(&control_plane).await;
            stranger.ask(id, ResourceType::Cluster, &[]).await;
            let status = stranger.refusal().await;
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
            assert!(status.message().contains(part), "{status:?}");
        }
        let mut nameless = World::connect(&control_plane).await;
        let type_url = ResourceType::Cluster.url().to_owned();
        nameless
            .send(DiscoveryRequest {
                type_url,
                ..Default::default()
            })
            .await;
        assert!(nameless.refusal().await.message().contains("node.id"));
        mesh(&control_plane);
        let mut web = World::connect(&control_plane).await;
        web.ask(WEB, ResourceType::Cluster, &[]).await;
        web.next().await;
        control_plane.delete("/meshes/m/virtualNodes/web").ok();
        assert!(web.refusal().await.message().contains("was deleted"));
    });
}

pub(crate) fn csr(names: &[&str]) -> String {
    let key = rcgen::KeyPair::generate().expect("a key");
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let params = rcgen::CertificateParams::new(names).expect("names");
    params
        .serialize_request(&key)
        .expect("a request")
        .pem()
        .expect("PEM")
}

fn text_of(pem: &str) -> String {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).expect("PEM");
    String::from_utf8_lossy(&pem.contents).into_owned()
}

#[test]
fn a_certificate_names_the_node_that_asks_and_nothing_else() {
    let control_plane = ControlPlane::start();
    mesh(&control_plane);
    let signed = sign(&control_plane, WEB, &csr(&["payments.internal"])).expect("a certificate");
    let leaf = text_of(&signed.chain_pem);
    assert!(
        leaf.contains("spiffe://pillion.local/mesh/m/virtualNode/web")
            && leaf.contains("web.internal")
    );
    assert!(!leaf.contains("payments.internal"));
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a clock")
        .as_secs();
    let hours = (signed.not_after_epoch_s - i64::try_from(now).expect("a date")) / 3600;
    assert!((23..=24).contains(&hours), "{hours} hours");
    for (node, request, part) in [
        ("mesh/m/virtualNode/nobody", csr(&[]), "does not exist"),
        ("mesh/m/virtualRouter/web", csr(&[]), "is no proxy"),
        (WEB, "nonsense".to_owned(), "certificate signing request"),
    ] {
        let refused = sign(&control_plane, node, &request).expect_err("a refusal");
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(part), "{refused:?}");
    }
}

#[test]
fn the_root_outlives_the_process() {
    let folder = TempDir::new().expect("a folder");
    let first = ControlPlane::start_in(folder.path());
    mesh(&first);
    let before = sign(&first, WEB, &csr(&[]))
        .expect("a certificate")
        .trust_bundle_pem;
    first.kill();
    let second = ControlPlane::start_in(folder.path());
    let after = sign(&second, WEB, &csr(&[]))
        .expect("a certificate")
        .trust_bundle_pem;
    assert_eq!(before, after);
}

#[test]
fn the_port_takes_tls_and_plaintext_alike() {
    let control_plane = ControlPlane::start();
    mesh(&control_plane);
    let bundle = sign(&control_plane, WEB, &csr(&[]))
        .expect("over plaintext")
        .trust_bundle_pem;
    block_on(async {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(bundle));
        let endpoint =
            Channel::from_shared(format!("https://{}", control_plane.xds)).expect("a URI");
        let channel = endpoint
            .tls_config(tls)
            .expect("a root")
            .connect()
            .await
            .expect("the certificate names the address");
        let mut web = World::over(channel).await;
        web.ask(WEB, ResourceType::Listener, &[]).await;
        assert!(names(&web.next().await).contains("lds_egress_0.0.0.0_15001"));
    });
    crate::http::garbage(control_plane.xds, b"\x16\x03\x01\x00\x05hello");
    crate::http::garbage(control_plane.xds, b"GET / HTTP/1.1\r\n\r\n");
    assert!(
        sign(&control_plane, WEB, &csr(&[])).is_ok(),
        "garbage harms nobody else"
    );
}

#[test]
fn an_identity_is_served_to_its_own_proxy_only() {
    let control_plane = ControlPlane::start();
    mesh(&control_plane);
    let (own, other) = (
        format!("spiffe://pillion.local/{WEB}"),
        "spiffe://pillion.local/mesh/m/virtualNode/cart",
    );
    block_on(async {
        let mut web = World::connect(&control_plane).await;
        web.ask(
            WEB,
            ResourceType::Secret,
            &[&own, other, "spiffe://pillion.local"],
        )
        .await;
        let response = web.next().await;
        assert_eq!(
            names(&response),
            BTreeSet::from([own.clone(), "spiffe://pillion.local".to_owned()])
        );
    });
}

/// A stream opened with this in `authorization`, and what became of it.
async fn joined(
    control_plane: &ControlPlane,
    headers: &http::HeaderMap,
    id: &str,
) -> Result<World, Status> {
    let (out, requests) = mpsc::channel(16);
    let mut request = tonic::Request::new(ReceiverStream::new(requests));
    *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers.clone());
    let mut client = AggregatedDiscoveryServiceClient::new(channel(control_plane).await);
    let responses = client
        .stream_aggregated_resources(request)
        .await?
        .into_inner();
    let mut world = World { out, responses };
    world.ask(id, ResourceType::Cluster, &[]).await;
    let next = tokio::time::timeout(PATIENCE, world.responses.message());
    next.await.expect("an answer in time")?.expect("no end");
    Ok(world)
}

fn bearer(token: &str) -> http::HeaderMap {
    let value = format!("Bearer {token}").parse().expect("a header");
    http::HeaderMap::from_iter([(http::header::AUTHORIZATION, value)])
}

/// A mesh of two nodes that asks who is there.
fn guarded() -> crate::access::Closed {
    let closed = crate::access::closed(&["--quota", "proxies=2"]);
    let put = |path: &str, body: Value| {
        closed
            .send("ADMIN", "PUT", &format!("/v20190125{path}"), &body)
            .ok()
    };
    put("/meshes", json!({"meshName": "m"}));
    for node in ["web", "pay"] {
        put(
            "/meshes/m/virtualNodes",
            json!({"virtualNodeName": node, "spec": {}}),
        );
    }
    closed
}

fn token_for(closed: &crate::access::Closed, node: &str) -> Value {
    let arn = format!("arn:aws:appmesh:us-east-1:000000000000:mesh/m/virtualNode/{node}");
    let body = json!({"resourceArn": arn, "lifetimeSeconds": 600});
    closed
        .send("ADMIN", "POST", "/pillion/v1/tokens", &body)
        .ok()
}

#[test]
fn a_join_token_lets_in_proxies_of_its_node_until_it_is_revoked() {
    let closed = guarded();
    let token = token_for(&closed, "web");
    let headers = bearer(token["token"].as_str().expect("a token"));
    let stranger = sign(&closed.control_plane, WEB, &csr(&[])).expect_err("no proof");
    assert_eq!(
        (stranger.code(), stranger.message()),
        (Code::Unauthenticated, "Missing Authentication Token")
    );
    block_on(async {
        let refused = |status: Result<World, Status>| status.err().expect("refused").code();
        let none = http::HeaderMap::new();
        assert_eq!(
            refused(joined(&closed.control_plane, &none, WEB).await),
            Code::Unauthenticated
        );
        assert_eq!(
            refused(joined(&closed.control_plane, &bearer("pillion-join.a.b"), WEB).await),
            Code::Unauthenticated
        );
        let other = "mesh/m/virtualNode/pay";
        assert_eq!(
            refused(joined(&closed.control_plane, &headers, other).await),
            Code::PermissionDenied
        );
        let mut web = joined(&closed.control_plane, &headers, WEB)
            .await
            .expect("its own node");
        let _second = joined(&closed.control_plane, &headers, WEB)
            .await
            .expect("within the quota");
        assert_eq!(
            refused(joined(&closed.control_plane, &headers, WEB).await),
            Code::ResourceExhausted
        );
        let path = format!(
            "/pillion/v1/tokens/{}",
            token["id"].as_str().expect("an id")
        );
        closed
            .send("READER", "DELETE", &path, &Value::Null)
            .refused(404, "NotFoundException");
        closed.send("ADMIN", "DELETE", &path, &Value::Null).ok();
        assert_eq!(web.refusal().await.code(), Code::Unauthenticated);
    });
    let listed = closed
        .send("ADMIN", "GET", "/pillion/v1/tokens", &Value::Null)
        .ok();
    assert_eq!(listed, json!({"tokens": []}));
}

#[test]
fn call_credentials_of_aws_and_a_certificate_of_ours_prove_a_node_as_well() {
    let closed = guarded();
    let path = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
    let signed = |id: &str| {
        let uri = format!("http://{}{path}", closed.control_plane.xds);
        let request = http::Request::post(uri).body(()).expect("a request");
        let (mut head, ()) = request.into_parts();
        crate::access::identity(id).sign(&mut head, b"", std::time::SystemTime::now());
        head.headers
    };
    block_on(async {
        joined(&closed.control_plane, &signed("READER"), WEB)
            .await
            .expect("a key of the account");
        for stranger in ["OTHER", "PROD"] {
            let refused = joined(&closed.control_plane, &signed(stranger), WEB).await;
            assert_eq!(
                refused.err().expect(stranger).code(),
                Code::PermissionDenied
            );
        }
        let unknown = joined(&closed.control_plane, &signed("NOBODY"), WEB).await;
        assert_eq!(
            unknown.err().expect("unknown").code(),
            Code::Unauthenticated
        );
    });
    let token = token_for(&closed, "web");
    let (chain, key, bundle) = block_on(async {
        let key = rcgen::KeyPair::generate().expect("a key");
        let csr = rcgen::CertificateParams::default()
            .serialize_request(&key)
            .expect("a CSR");
        let request = SignRequest {
            node_id: WEB.to_owned(),
            csr_pem: csr.pem().expect("PEM"),
        };
        let join = move |mut request: tonic::Request<()>| {
            let value = format!("Bearer {}", token["token"].as_str().expect("a token"));
            request
                .metadata_mut()
                .insert("authorization", value.parse().expect("ASCII"));
            Ok(request)
        };
        let channel = channel(&closed.control_plane).await;
        let channel = tonic::service::interceptor::InterceptedService::new(channel, join);
        let signed = CertificateServiceClient::new(channel)
            .sign(request)
            .await
            .expect("joined");
        (
            signed.chain_pem,
            key.serialize_pem(),
            signed.trust_bundle_pem,
        )
    });
    block_on(async {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(bundle))
            .identity(tonic::transport::Identity::from_pem(chain, key));
        let endpoint = Channel::from_shared(format!("https://{}", closed.control_plane.xds));
        let endpoint = endpoint.expect("a URI").tls_config(tls).expect("a root");
        let channel = endpoint.connect().await.expect("the port takes it");
        let mut web = World::over(channel.clone()).await;
        web.ask(WEB, ResourceType::Cluster, &[]).await;
        web.next().await;
        let mut other = World::over(channel).await;
        other
            .ask("mesh/m/virtualNode/pay", ResourceType::Cluster, &[])
            .await;
        assert_eq!(other.refusal().await.code(), Code::PermissionDenied);
    });
}
