// SPDX-License-Identifier: Apache-2.0
//! The control plane of a comparison and what it is told through the App Mesh API: for each workload and peer a gateway
//! of its own (two for the mesh way), so that our proxy and Envoy carry the same features under the same configuration.
//! Gateways, because a stock Envoy binds a sidecar's ports literally: two of those need two machines.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use super::backend::Backend;
use super::program::{Launch, Program};
use super::workload::{Act, Way, Workload};

const MESH: &str = "bench";
const TRUST: &str = "spiffe://pillion.local";

/// A running control plane.
pub(crate) struct Mesh {
    api: SocketAddr,
    pub(crate) xds: SocketAddr,
    _program: Program,
}

/// One peer's place in the mesh.
pub(crate) struct Place<'a> {
    pub(crate) workload: &'a Workload,
    /// Workload and peer: every resource carries it.
    pub(crate) name: &'a str,
    /// Ports of the first proxy and, on the mesh way, the second.
    pub(crate) ports: [u16; 2],
    pub(crate) backend: Backend,
}

impl Mesh {
    pub(crate) async fn start(program: &Path, folder: &Path) -> anyhow::Result<Mesh> {
        let [api, xds, admin] = [free_address()?, free_address()?, free_address()?];
        let mut command = Command::new(program);
        command
            .args([
                "--api-addr",
                &api.to_string(),
                "--xds-addr",
                &xds.to_string(),
                "--admin-addr",
                &admin.to_string(),
            ])
            .arg("--store")
            .arg(format!("sqlite:{}", folder.join("mesh.db").display()));
        let program = Program::start(&Launch::default(), "control-plane", command, folder)?;
        let mesh = Mesh {
            api,
            xds,
            _program: program,
        };
        let named = json!({"meshName": MESH, "spec": {}});
        for _ in 0..200 {
            match mesh.put("/meshes", named.clone()).await {
                Ok(()) => return Ok(mesh),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        bail!(
            "the control plane does not answer on {api}: {}",
            mesh._program.complaint()
        )
    }

    async fn put(&self, path: &str, body: Value) -> anyhow::Result<()> {
        let stream = tokio::net::TcpStream::connect(self.api).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driven = tokio::task::spawn_local(connection);
        let request = http::Request::put(format!("/v20190125{path}"))
            .header("host", self.api.to_string())
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())))?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let said = answer.into_body().collect().await?.to_bytes();
        driven.abort();
        anyhow::ensure!(
            status == 200,
            "PUT {path}: {status} {}",
            String::from_utf8_lossy(&said)
        );
        Ok(())
    }

    async fn create(
        &self,
        kind: &str,
        member: &str,
        name: &str,
        spec: Value,
    ) -> anyhow::Result<()> {
        self.put(
            &format!("/meshes/{MESH}/{kind}"),
            json!({member: name, "spec": spec}),
        )
        .await
    }

    async fn service(&self, name: &str, provider: Value) -> anyhow::Result<()> {
        self.create(
            "virtualServices",
            "virtualServiceName",
            name,
            json!({"provider": provider}),
        )
        .await
    }

    /// Everything the peer's proxies need to be configured.
    pub(crate) async fn describe(&self, place: &Place<'_>) -> anyhow::Result<()> {
        let name = place.name;
        let app = format!("{name}.app.local");
        self.describe_app(place, &app)
            .await
            .with_context(|| format!("describe the backend of {name}"))?;
        let log = place
            .workload
            .observed
            .then(|| json!({"accessLog": {"file": {"path": "/dev/stdout"}}}));
        let (front, back) = protocols(place.workload);
        let Way::Mesh { http2 } = place.workload.way else {
            let tls = (place.workload.way == Way::TlsEdge)
                .then(|| json!({"mode": "STRICT", "certificate": certificate(name)}));
            let edge = Edge {
                port: place.ports[0],
                protocol: front,
                tls,
                policy: None,
                log,
            };
            return self.gateway(name, edge, &app).await;
        };
        let between = if http2 { "http2" } else { "http" };
        let (second, peer) = (format!("{name}-b"), format!("{name}.peer.local"));
        let validation = |names: Option<Value>| match names {
            None => json!({"trust": {"sds": {"secretName": TRUST}}}),
            Some(names) => {
                json!({"trust": {"sds": {"secretName": TRUST}}, "subjectAlternativeNames": {"match": names}})
            }
        };
        let tls = json!({"mode": "STRICT", "certificate": certificate(&second), "validation": validation(None)});
        let inner = Edge {
            port: place.ports[1],
            protocol: between,
            tls: Some(tls),
            policy: None,
            log: log.clone(),
        };
        self.gateway(&second, inner, &app).await?;
        self.node(&format!("{name}-peer"), place.ports[1], between)
            .await?;
        self.service(
            &peer,
            json!({"virtualNode": {"virtualNodeName": format!("{name}-peer")}}),
        )
        .await?;
        let names = json!({"exact": [format!("{TRUST}/mesh/{MESH}/virtualGateway/{second}")]});
        let policy = json!({"tls": {
            "enforce": true, "certificate": certificate(name), "validation": validation(Some(names))}});
        let outer = Edge {
            port: place.ports[0],
            protocol: front,
            tls: None,
            policy: Some(policy),
            log,
        };
        debug_assert_ne!(back, "grpc", "the mesh way carries plain HTTP");
        self.gateway(name, outer, &peer).await
    }

    async fn describe_app(&self, place: &Place<'_>, service: &str) -> anyhow::Result<()> {
        let name = place.name;
        let (_, protocol) = protocols(place.workload);
        let port = if protocol == "http" {
            place.backend.http1.port()
        } else {
            place.backend.http2.port()
        };
        let node = format!("{name}-app");
        self.node(&node, port, protocol).await?;
        if place.workload.routes == 1 && place.workload.act != Act::Swap {
            return self
                .service(service, json!({"virtualNode": {"virtualNodeName": node}}))
                .await;
        }
        let listeners =
            json!({"listeners": [{"portMapping": {"port": port, "protocol": protocol}}]});
        self.create("virtualRouters", "virtualRouterName", name, listeners)
            .await?;
        if place.workload.act == Act::Swap {
            self.node(&format!("{name}-twin"), port, protocol).await?;
            let routes = format!("/meshes/{MESH}/virtualRouter/{name}/routes");
            self.put(
                &routes,
                json!({"routeName": "all", "spec": split(name, 50)}),
            )
            .await?;
        }
        for number in (0..place.workload.routes).filter(|_| place.workload.act != Act::Swap) {
            let tier = json!([{"name": "x-tier", "match": {"exact": "gold"}}]);
            let spec = json!({"priority": number, "httpRoute": {
                "match": {"prefix": format!("/r{number:04}/"), "headers": tier},
                "action": {"weightedTargets": [{"virtualNode": node, "weight": 1}]}}});
            let routes = format!("/meshes/{MESH}/virtualRouter/{name}/routes");
            self.put(
                &routes,
                json!({"routeName": format!("r{number:04}"), "spec": spec}),
            )
            .await?;
        }
        self.service(
            service,
            json!({"virtualRouter": {"virtualRouterName": name}}),
        )
        .await
    }

    /// Moves the weights of the route that a swap workload changes.
    pub(crate) async fn swap(&self, name: &str, weight: u32) -> anyhow::Result<()> {
        self.put(
            &format!("/meshes/{MESH}/virtualRouter/{name}/routes/all"),
            json!({"spec": split(name, weight)}),
        )
        .await
    }

    async fn node(&self, name: &str, port: u16, protocol: &str) -> anyhow::Result<()> {
        let spec = json!({
            "listeners": [{"portMapping": {"port": port, "protocol": protocol}}],
            "serviceDiscovery": {"dns": {"hostname": "127.0.0.1"}}});
        self.create("virtualNodes", "virtualNodeName", name, spec)
            .await
    }

    async fn gateway(&self, name: &str, edge: Edge, service: &str) -> anyhow::Result<()> {
        let mut listener = json!({"portMapping": {"port": edge.port, "protocol": edge.protocol}});
        if let Some(tls) = edge.tls {
            listener["tls"] = tls;
        }
        let mut spec = json!({"listeners": [listener]});
        if let Some(policy) = edge.policy {
            spec["backendDefaults"] = json!({"clientPolicy": policy});
        }
        if let Some(log) = edge.log {
            spec["logging"] = log;
        }
        self.create("virtualGateways", "virtualGatewayName", name, spec)
            .await?;
        let target = json!({"target": {"virtualService": {"virtualServiceName": service}}});
        let route = match edge.protocol {
            "grpc" => {
                json!({"grpcRoute": {"match": {"serviceName": "bench.Echo"}, "action": target}})
            }
            "http2" => json!({"http2Route": {"match": {"prefix": "/"}, "action": target}}),
            _ => json!({"httpRoute": {"match": {"prefix": "/"}, "action": target}}),
        };
        let routes = format!("/meshes/{MESH}/virtualGateway/{name}/gatewayRoutes");
        self.put(&routes, json!({"gatewayRouteName": "all", "spec": route}))
            .await
    }
}

/// A gateway's listener and what it does upstream.
struct Edge {
    port: u16,
    protocol: &'static str,
    tls: Option<Value>,
    policy: Option<Value>,
    log: Option<Value>,
}

/// What the client and what the backend speak, in App Mesh's words.
fn protocols(workload: &Workload) -> (&'static str, &'static str) {
    if workload.is_grpc() {
        ("grpc", "grpc")
    } else if workload.is_http2() {
        ("http2", "http")
    } else {
        ("http", "http")
    }
}

fn certificate(gateway: &str) -> Value {
    json!({"sds": {"secretName": format!("{TRUST}/mesh/{MESH}/virtualGateway/{gateway}")}})
}

/// The two nodes are the same backend: only the configuration moves.
fn split(name: &str, weight: u32) -> Value {
    json!({"httpRoute": {"match": {"prefix": "/"}, "action": {"weightedTargets": [
        {"virtualNode": format!("{name}-app"), "weight": weight},
        {"virtualNode": format!("{name}-twin"), "weight": 100 - weight}]}}})
}

/// The resource a gateway proxy says it is.
pub(crate) fn resource(gateway: &str) -> String {
    format!("mesh/{MESH}/virtualGateway/{gateway}")
}

/// A port that was free a moment ago, for what must be written down before it is bound.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
