// SPDX-License-Identifier: Apache-2.0
//! The judge of the wire: a stock Envoy, configured by ADS alone, becomes LIVE, accepts everything and carries requests.
//! Envoy binds a sidecar's ports literally, so these tests take turns.

use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::control_plane::ControlPlane;
use crate::http::Answer;
use crate::http::request;
use crate::xds::sign;

const PATIENCE: Duration = Duration::from_secs(30);
/// Where every sidecar listens.
const EGRESS: &str = "127.0.0.1:15001";
const CLIENT: &str = "spiffe://pillion.local/mesh/m/virtualNode/client";

fn binary() -> PathBuf {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let venv = std::env::var_os("PILLION_VENV")
        .map_or_else(|| workspace.join("target/venv"), PathBuf::from);
    let libraries = std::fs::read_dir(venv.join("lib"))
        .into_iter()
        .flatten()
        .flatten();
    libraries
        .map(|python| python.path().join("site-packages/envoy/_bin/envoy"))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("no Envoy in {}; run `cargo xtask setup`", venv.display()))
}

/// One at a time on this machine, whatever process asks.
fn turn() -> File {
    let lock =
        File::create(std::env::temp_dir().join("pillion-sidecar-ports.lock")).expect("a lock file");
    lock.lock().expect("a lock");
    lock
}

/// A running Envoy.
struct Envoy {
    child: Child,
    admin: SocketAddr,
    folder: TempDir,
}

impl Envoy {
    /// `api` is `GRPC` or `DELTA_GRPC`.
    fn start(control_plane: &ControlPlane, node: &str, api: &str) -> Envoy {
        let folder = TempDir::new().expect("a folder");
        let (address, port) = (control_plane.xds.ip().to_string(), control_plane.xds.port());
        let http2 = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}}
        }});
        let endpoint = json!({"endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}}});
        let ads = json!({"ads": {}, "resource_api_version": "V3"});
        let bootstrap = json!({
            "node": {"id": node, "cluster": node},
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
            "dynamic_resources": {
                "ads_config": {
                    "api_type": api, "transport_api_version": "V3",
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]
                },
                "lds_config": ads, "cds_config": ads
            },
            "static_resources": {"clusters": [{
                "name": "xds", "type": "STATIC", "connect_timeout": "1s", "typed_extension_protocol_options": http2,
                "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [endpoint]}]}
            }]}
        });
        let file = folder.path().join("bootstrap.json");
        std::fs::write(&file, bootstrap.to_string()).expect("a writable folder");
        let admin = folder.path().join("admin");
        let child = Command::new(binary())
            .args([
                "--concurrency",
                "1",
                "--disable-hot-restart",
                "--log-level",
                "info",
                "-c",
            ])
            .arg(&file)
            .arg("--admin-address-path")
            .arg(&admin)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("log")).expect("a log file"))
            .spawn()
            .expect("Envoy starts");
        let mut envoy = Envoy {
            child,
            admin: EGRESS.parse().expect("a literal"),
            folder,
        };
        envoy.admin = eventually("Envoy has an admin address", || {
            std::fs::read_to_string(&admin).ok()?.parse().ok()
        });
        envoy
    }

    fn get(&self, path: &str) -> String {
        request(self.admin, "GET", path, &[], b"")
            .expect("an admin page")
            .text()
    }

    fn live(&self) {
        let live = || {
            request(self.admin, "GET", "/ready", &[], b"")
                .ok()
                .filter(|answer| answer.status == 200)
        };
        let started = Instant::now();
        while live().is_none() {
            let log =
                || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(started.elapsed() < PATIENCE, "not LIVE: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The first value that `look` finds.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "in {PATIENCE:?} never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Answers every request with its own name and what it was asked.
fn app(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("a bound socket");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(name, &stream, &stream));
        }
    });
    addr
}

fn answer(name: &str, input: impl std::io::Read, mut output: impl Write) -> Option<()> {
    let mut lines = BufReader::new(input).lines();
    loop {
        let asked = lines.next()?.ok()?;
        let mut host = String::new();
        loop {
            let line = lines.next()?.ok()?;
            match line.split_once(": ") {
                Some((header, value)) if header.eq_ignore_ascii_case("host") => {
                    host = value.to_owned()
                }
                Some(_) => {}
                None => break,
            }
        }
        let body = format!("{name} {asked} {host}");
        write!(
            output,
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .ok()?;
        output.flush().ok()?;
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a free port")
        .port()
}

/// A request through the sidecar as an app makes it that names its callee in `Host`.
fn call(host: &str, path: &str) -> Answer {
    let egress: SocketAddr = EGRESS.parse().expect("a literal");
    through(egress, host, path)
}

fn through(proxy: SocketAddr, host: &str, path: &str) -> Answer {
    let mut stream = TcpStream::connect(proxy).expect("Envoy listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
    )
    .expect("a request");
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut bytes).expect("an answer");
    crate::http::parse(&bytes).expect("an answer")
}

fn put(control_plane: &ControlPlane, path: &str, body: &Value) {
    control_plane.put(path, body).ok();
}

fn node(app: SocketAddr) -> Value {
    json!({
        "listeners": [{"portMapping": {"port": app.port(), "protocol": "http"}}],
        "serviceDiscovery": {"dns": {"hostname": app.ip().to_string()}}
    })
}

fn weights(one: u32, two: u32) -> Value {
    json!({"httpRoute": {
        "match": {"prefix": "/"},
        "action": {"weightedTargets": [{"virtualNode": "one", "weight": one}, {"virtualNode": "two", "weight": two}]}
    }})
}

/// A client with two backends, behind a router and straight; a gateway in front of the first.
fn mesh(control_plane: &ControlPlane, gateway_port: u16) {
    let (one, two) = (app("one"), app("two"));
    put(control_plane, "/meshes", &json!({"meshName": "m"}));
    put(
        control_plane,
        "/meshes/m/virtualNodes",
        &json!({"virtualNodeName": "one", "spec": node(one)}),
    );
    put(
        control_plane,
        "/meshes/m/virtualNodes",
        &json!({"virtualNodeName": "two", "spec": node(two)}),
    );
    let listeners = json!([{"portMapping": {"port": 80, "protocol": "http"}}]);
    put(
        control_plane,
        "/meshes/m/virtualRouters",
        &json!({"virtualRouterName": "r", "spec": {"listeners": listeners}}),
    );
    put(
        control_plane,
        "/meshes/m/virtualRouter/r/routes",
        &json!({"routeName": "all", "spec": weights(1, 0)}),
    );
    let provider = json!({"provider": {"virtualRouter": {"virtualRouterName": "r"}}});
    put(
        control_plane,
        "/meshes/m/virtualServices",
        &json!({"virtualServiceName": "routed.local", "spec": provider}),
    );
    let provider = json!({"provider": {"virtualNode": {"virtualNodeName": "two"}}});
    put(
        control_plane,
        "/meshes/m/virtualServices",
        &json!({"virtualServiceName": "straight.local", "spec": provider}),
    );
    let certificate = json!({"sds": {"secretName": CLIENT}});
    let client = json!({
        "listeners": [{
            "portMapping": {"port": 8080, "protocol": "http"},
            "tls": {"mode": "PERMISSIVE", "certificate": certificate,
                    "validation": {"trust": {"sds": {"secretName": "spiffe://pillion.local"}}}}
        }],
        "serviceDiscovery": {"dns": {"hostname": "localhost", "responseType": "ENDPOINTS"}},
        "logging": {"accessLog": {"file": {"path": "/dev/null", "format": {"json": [{"key": "code", "value": "%RESPONSE_CODE%"}]}}}},
        "backends": [
            {"virtualService": {"virtualServiceName": "routed.local"}},
            {"virtualService": {"virtualServiceName": "straight.local"}}
        ]
    });
    put(
        control_plane,
        "/meshes/m/virtualNodes",
        &json!({"virtualNodeName": "client", "spec": client}),
    );
    let listeners = json!([{"portMapping": {"port": gateway_port, "protocol": "http"}}]);
    put(
        control_plane,
        "/meshes/m/virtualGateways",
        &json!({"virtualGatewayName": "edge", "spec": {"listeners": listeners}}),
    );
    let target = json!({"virtualService": {"virtualServiceName": "routed.local"}});
    let route = json!({"httpRoute": {"match": {"prefix": "/shop"}, "action": {"target": target}}});
    put(
        control_plane,
        "/meshes/m/virtualGateway/edge/gatewayRoutes",
        &json!({"gatewayRouteName": "shop", "spec": route}),
    );
}

/// The stream of a proxy, once it has answered everything it was sent.
fn settled(control_plane: &ControlPlane, proxy: &str) -> Value {
    let mut last = Value::Null;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let fleet = control_plane.admin("/fleet").ok();
        let streams = fleet["streams"].as_array().expect("a list");
        if let Some(stream) = streams.iter().find(|stream| stream["proxy"] == proxy) {
            last = stream.clone();
            let mut types = stream["types"].as_object().expect("types").values();
            if types.len() > 0
                && types.all(|one| one["sent"] == one["acked"] && one["nack"].is_null())
            {
                return last;
            }
        }
        assert!(
            Instant::now() < deadline,
            "{proxy} has not accepted everything: {last:#}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The whole of what is promised for one protocol.
fn judged(api: &str, protocol: &str) {
    let _turn = turn();
    let control_plane = ControlPlane::start();
    let gateway_port = free_port();
    mesh(&control_plane, gateway_port);
    let arn = "arn:aws:appmesh:us-east-1:000000000000:mesh/m/virtualGateway/edge";
    let client = Envoy::start(&control_plane, "mesh/m/virtualNode/client", api);
    let gateway = Envoy::start(&control_plane, arn, api);
    client.live();
    gateway.live();
    accepts_everything(&control_plane, &client, protocol);
    let edge = SocketAddr::from(([127, 0, 0, 1], gateway_port));
    carries_requests(edge);
    follows_a_weight(&control_plane, edge);
    settled(&control_plane, "mesh/m/virtualNode/client");
}

fn accepts_everything(control_plane: &ControlPlane, client: &Envoy, protocol: &str) {
    let stream = settled(control_plane, "mesh/m/virtualNode/client");
    assert_eq!(stream["protocol"], protocol);
    assert!(
        stream["user_agent"]
            .as_str()
            .expect("a text")
            .starts_with("envoy 1."),
        "{stream}"
    );
    for kind in ["cluster", "listener", "route", "secret"] {
        assert!(
            stream["types"][kind]["acked"].is_string(),
            "{kind} in {stream:#}"
        );
    }
    settled(control_plane, "mesh/m/virtualGateway/edge");
    let dump = client.get("/config_dump");
    for name in [
        "lds_ingress_0.0.0.0_15000",
        "lds_egress_0.0.0.0_15001",
        "rds_ingress_http_8080",
        "rds_egress_http_80",
        "cds_ingress_m_client_http_8080",
    ] {
        assert!(
            dump.contains(&format!("\"{name}\"")),
            "{name} in config_dump"
        );
    }
    assert!(
        client.get("/certs").contains(CLIENT),
        "the pair came by SDS"
    );
}

fn carries_requests(edge: SocketAddr) {
    let app = call("routed.local", "/hello?a=1");
    assert_eq!(
        (app.status, app.text().as_str()),
        (200, "one GET /hello?a=1 HTTP/1.1 routed.local")
    );
    assert!(call("routed.local:80", "/").text().starts_with("one "));
    assert!(call("straight.local", "/").text().starts_with("two "));
    assert_eq!(call("undeclared.local", "/").status, 404);
    let shop = |path| through(edge, "example.com", path);
    assert_eq!(
        shop("/shop/cart").text(),
        "one GET /cart HTTP/1.1 routed.local"
    );
    assert_eq!(shop("/shop").text(), "one GET / HTTP/1.1 routed.local");
    assert_eq!(shop("/other").status, 404);
}

fn follows_a_weight(control_plane: &ControlPlane, edge: SocketAddr) {
    control_plane
        .put(
            "/meshes/m/virtualRouter/r/routes/all",
            &json!({"spec": weights(0, 1)}),
        )
        .ok();
    let changed = Instant::now();
    for reach in [
        || call("routed.local", "/"),
        || call("routed.local:80", "/"),
    ] {
        while !reach().text().starts_with("two ") {
            assert_eq!(reach().status, 200, "no request fails while routes change");
            assert!(
                changed.elapsed() < Duration::from_secs(2),
                "a changed weight moves traffic within 2 seconds"
            );
        }
    }
    let moved = || {
        through(edge, "example.com", "/shop")
            .text()
            .starts_with("two ")
            .then_some(())
    };
    eventually("the gateway follows", moved);
}

#[test]
fn a_stock_envoy_runs_on_the_state_of_the_world() {
    judged("GRPC", "sotw");
}

#[test]
fn a_stock_envoy_runs_on_deltas() {
    judged("DELTA_GRPC", "delta");
}

/// An app that takes TLS only, and only from clients of our authority; answers with the URI in their certificate.
fn secure_app(control_plane: &ControlPlane) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("a bound socket");
    let spec = json!({
        "listeners": [{
            "portMapping": {"port": addr.port(), "protocol": "http"},
            "tls": {"mode": "STRICT", "certificate": {"acm": {"certificateArn": "arn:aws:acm:us-east-1:000000000000:certificate/1"}}}
        }],
        "serviceDiscovery": {"dns": {"hostname": "127.0.0.1"}}
    });
    put(
        control_plane,
        "/meshes/m/virtualNodes",
        &json!({"virtualNodeName": "secure", "spec": spec}),
    );
    let key = rcgen::KeyPair::generate().expect("a key");
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .expect("a request")
        .pem()
        .expect("PEM");
    let signed = sign(control_plane, "mesh/m/virtualNode/secure", &csr).expect("a certificate");
    let certificates = |pem: &str| -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(pem.as_bytes())
            .map(|one| one.expect("PEM"))
            .collect()
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(certificates(&signed.trust_bundle_pem));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::clone(&provider),
    );
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier.build().expect("a verifier"))
        .with_single_cert(
            certificates(&signed.chain_pem),
            PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
        )
        .expect("a pair");
    let config = Arc::new(config);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut tls = rustls::ServerConnection::new(Arc::clone(&config)).expect("a connection");
            std::thread::spawn(move || {
                while tls.is_handshaking() {
                    tls.complete_io(&mut stream).ok()?;
                }
                let leaf = tls.peer_certificates()?.first()?.to_vec();
                let caller = String::from_utf8_lossy(&leaf).contains(CLIENT);
                let mut both = rustls::StreamOwned::new(tls, stream);
                let mut head = [0; 4096];
                std::io::Read::read(&mut both, &mut head).ok()?;
                let body = if caller {
                    "secure, called by client"
                } else {
                    "secure, called by a stranger"
                };
                write!(
                    both,
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                )
                .ok()
            });
        }
    });
    addr
}

#[test]
fn a_stock_envoy_proves_its_identity_and_checks_the_other_side() {
    let _turn = turn();
    let control_plane = ControlPlane::start();
    put(&control_plane, "/meshes", &json!({"meshName": "m"}));
    secure_app(&control_plane);
    for name in ["right.local", "wrong.local"] {
        let provider = json!({"provider": {"virtualNode": {"virtualNodeName": "secure"}}});
        put(
            &control_plane,
            "/meshes/m/virtualServices",
            &json!({"virtualServiceName": name, "spec": provider}),
        );
    }
    let policy = |names: Value| {
        let trust = json!({"sds": {"secretName": "spiffe://pillion.local"}});
        let validation =
            json!({"trust": trust, "subjectAlternativeNames": {"match": {"exact": names}}});
        json!({"tls": {"validation": validation, "certificate": {"sds": {"secretName": CLIENT}}}})
    };
    let backend = |name: &str, names: Value| json!({"virtualService": {"virtualServiceName": name, "clientPolicy": policy(names)}});
    let client = json!({"backends": [
        backend("right.local", json!(["spiffe://pillion.local/mesh/m/virtualNode/secure"])),
        backend("wrong.local", json!(["spiffe://pillion.local/mesh/m/virtualNode/other"])),
    ]});
    put(
        &control_plane,
        "/meshes/m/virtualNodes",
        &json!({"virtualNodeName": "client", "spec": client}),
    );
    let envoy = Envoy::start(&control_plane, "mesh/m/virtualNode/client", "DELTA_GRPC");
    envoy.live();
    settled(&control_plane, "mesh/m/virtualNode/client");
    let answer = call("right.local", "/");
    assert_eq!(
        (answer.status, answer.text()),
        (200, "secure, called by client".to_owned())
    );
    let answer = call("wrong.local", "/");
    assert_eq!(answer.status, 503, "{}", answer.text());
    let stats = envoy.get("/stats?filter=wrong.local.ssl.fail_verify_san");
    assert!(
        !stats.trim_end().ends_with(": 0") && stats.contains("fail_verify_san: "),
        "{stats}"
    );
}
