// SPDX-License-Identifier: Apache-2.0
//! A whole mesh of built programs on free ports: a control plane, sidecars and gateways, and the API calls that describe
//! them. Every virtual node is strict about TLS with certificates of the control plane's authority.

use std::net::SocketAddr;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;
use http::Method;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::client;
use crate::eventually::eventually;
use crate::program::Program;

pub const MESH: &str = "m";
const LIVE_WITHIN: Duration = Duration::from_secs(20);

/// A control plane with a store that outlives it.
pub struct Mesh {
    store: TempDir,
    control_plane: Program,
}

impl Mesh {
    /// A control plane with one empty mesh.
    pub async fn start() -> anyhow::Result<Mesh> {
        let store = tempfile::tempdir()?;
        let control_plane = control_plane(store.path(), "127.0.0.1:0", "127.0.0.1:0").await?;
        let mesh = Mesh {
            store,
            control_plane,
        };
        mesh.put(
            "/meshes",
            json!({"meshName": MESH, "spec": {"egressFilter": {"type": "DROP_ALL"}}}),
        )
        .await?;
        Ok(mesh)
    }

    pub fn control_plane(&self) -> &Program {
        &self.control_plane
    }

    pub fn api(&self) -> anyhow::Result<SocketAddr> {
        self.control_plane.address("api")
    }

    /// `kill -9`, then a new process on the same store and ports.
    pub async fn crash_and_restart(self) -> anyhow::Result<Mesh> {
        let (api, xds) = (self.api()?, self.control_plane.address("xds")?);
        self.control_plane.kill().await?;
        let control_plane =
            control_plane(self.store.path(), &api.to_string(), &xds.to_string()).await?;
        Ok(Mesh {
            store: self.store,
            control_plane,
        })
    }

    /// Where proxies find the control plane.
    pub fn xds(&self) -> anyhow::Result<SocketAddr> {
        self.control_plane.address("xds")
    }

    /// Creates or replaces through the mesh API; anything but 200 is an error with the answer in it.
    pub async fn put(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        let answer = client::json(
            self.api()?,
            Method::PUT,
            &format!("/v20190125{path}"),
            &body,
        )
        .await?;
        if answer.status != 200 {
            bail!("PUT {path}: {} {}", answer.status, answer.text());
        }
        answer.json()
    }

    /// A virtual node on `port` that may call `backends`, and a virtual service `<name>.local` it provides.
    pub async fn node(&self, name: &str, port: u16, backends: &[&str]) -> anyhow::Result<()> {
        self.put(
            &format!("/meshes/{MESH}/virtualNodes"),
            node_body(name, port, backends),
        )
        .await?;
        Ok(())
    }

    /// A virtual service provided by one node.
    pub async fn service(&self, name: &str, node: &str) -> anyhow::Result<()> {
        let spec = json!({"provider": {"virtualNode": {"virtualNodeName": node}}});
        let body = json!({"virtualServiceName": name, "spec": spec});
        self.put(&format!("/meshes/{MESH}/virtualServices"), body)
            .await?;
        Ok(())
    }

    /// A virtual service provided by a router of the same name, with one route.
    pub async fn routed_service(&self, name: &str, port: u16, route: Value) -> anyhow::Result<()> {
        let listeners = json!({"listeners": [{"portMapping": {"port": port, "protocol": "http"}}]});
        let router = name.split('.').next().unwrap_or(name);
        let body = json!({"virtualRouterName": router, "spec": listeners});
        self.put(&format!("/meshes/{MESH}/virtualRouters"), body)
            .await?;
        let body = json!({"routeName": "all", "spec": route});
        self.put(
            &format!("/meshes/{MESH}/virtualRouter/{router}/routes"),
            body,
        )
        .await?;
        let spec = json!({"provider": {"virtualRouter": {"virtualRouterName": router}}});
        let body = json!({"virtualServiceName": name, "spec": spec});
        self.put(&format!("/meshes/{MESH}/virtualServices"), body)
            .await?;
        Ok(())
    }

    /// Starts the sidecar of a virtual node whose listener is `port` and whose application listens at `app`.
    pub async fn sidecar(&self, node: &str, port: u16, app: SocketAddr) -> anyhow::Result<Program> {
        let listen = format!("127.0.0.1:{port}={app}");
        self.proxy(
            &format!("mesh/{MESH}/virtualNode/{node}"),
            &["--listen", &listen],
            &[],
        )
        .await
    }

    /// Starts a proxy for any resource and waits until it is LIVE.
    pub async fn proxy(
        &self,
        resource: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Program> {
        let proxy = self.unready_proxy(resource, arguments, environment).await?;
        live(&proxy).await?;
        Ok(proxy)
    }

    /// Starts a proxy for any resource, which may not become LIVE.
    pub async fn unready_proxy(
        &self,
        resource: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Program> {
        let xds = self.control_plane.address("xds")?.to_string();
        let local = "127.0.0.1:0";
        let mut all = vec![
            "--ingress-addr",
            local,
            "--egress-addr",
            local,
            "--admin-addr",
            local,
        ];
        all.extend(["--agent-addr", local, "--workers", "1"]);
        all.extend(arguments);
        let mut variables = vec![
            ("APPMESH_RESOURCE_ARN", resource),
            ("APPMESH_XDS_ENDPOINT", xds.as_str()),
        ];
        variables.extend(environment);
        Program::start("pillion-proxy", &all, &variables).await
    }
}

async fn control_plane(store: &Path, api: &str, xds: &str) -> anyhow::Result<Program> {
    let store = format!("sqlite:{}", store.join("pillion.db").display());
    let arguments = [
        "--api-addr",
        api,
        "--xds-addr",
        xds,
        "--admin-addr",
        "127.0.0.1:0",
        "--store",
        &store,
    ];
    Program::start("pillion-control-plane", &arguments, &[]).await
}

/// Waits for `LIVE` on a proxy's admin port.
pub async fn live(proxy: &Program) -> anyhow::Result<()> {
    let admin = proxy.address("admin")?;
    let live = eventually(LIVE_WITHIN, || async move {
        let answer = client::get(admin, "localhost", "/ready").await?;
        if answer.status != 200 {
            bail!("/ready says {} {}", answer.status, answer.text());
        }
        Ok(())
    });
    live.await
        .with_context(|| format!("the proxy is not LIVE; its log:\n{}", proxy.log()))
}

/// The create body of a virtual node: TLS both ways, every backend checked by its SPIFFE name.
pub fn node_body(name: &str, port: u16, backends: &[&str]) -> Value {
    let identity = format!("spiffe://pillion.local/mesh/{MESH}/virtualNode/{name}");
    let trust = json!({"sds": {"secretName": "spiffe://pillion.local"}});
    let certificate = json!({"sds": {"secretName": identity}});
    let tls = json!({"mode": "STRICT", "certificate": certificate, "validation": {"trust": trust}});
    let backends: Vec<Value> = backends
        .iter()
        .map(|service| json!({"virtualService": {"virtualServiceName": service}}))
        .collect();
    json!({"virtualNodeName": name, "spec": {
        "listeners": [{"portMapping": {"port": port, "protocol": "http"}, "tls": tls}],
        "serviceDiscovery": {"dns": {"hostname": "127.0.0.1"}},
        "backends": backends,
        "backendDefaults": {"clientPolicy": {"tls": {
            "enforce": true, "certificate": certificate, "validation": {"trust": trust}}}},
    }})
}

/// A port that was free a moment ago, for listeners whose number must be written into a spec first.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
