// SPDX-License-Identifier: Apache-2.0
//! The mesh of `cases/mesh.json`, and the applications it names. App Mesh specs stand there as they are; only what
//! repeats is short: `"@red"` is the port of the application red, a node may be just its protocol, and the action of a
//! route just the node it leads to.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use mesh_test::mesh::Mesh;
use mesh_test::mesh::free_port;
use mesh_test::scripted::Book;
use mesh_test::scripted::Scripted;
use mesh_test::scripted::Speaks;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::net::TcpSocket;

use super::APP_PORT;
use super::folder;

/// Applications and free ports by name.
pub(crate) struct Apps {
    ports: BTreeMap<String, u16>,
    logs: TempDir,
    _running: Vec<Scripted>,
}

const HTTP1: [&str; 6] = ["red", "blue", "green", "white", "slow", "tight"];
const HTTP2: [&str; 4] = ["two", "grpc", "grpcred", "slowgrpc"];
const CLOSED: [&str; 5] = ["dead", "edge", "edge2", "edgegrpc", "deadgrpc"];

impl Apps {
    pub(crate) async fn start(book: &Book) -> anyhow::Result<Apps> {
        let (mut ports, mut running) = (BTreeMap::new(), Vec::new());
        let all = HTTP1
            .map(|name| (name, Speaks::Http1))
            .into_iter()
            .chain(HTTP2.map(|name| (name, Speaks::Http2)));
        for (name, speaks) in all {
            let app = Scripted::start(name, speaks, book).await?;
            ports.insert(name.to_owned(), app.address().port());
            running.push(app);
        }
        for name in CLOSED {
            ports.insert(name.to_owned(), free_port()?);
        }
        running.push(Scripted::serve(
            "app",
            Speaks::Http1,
            behind_the_sidecar()?,
            book,
        )?);
        Ok(Apps {
            ports,
            logs: tempfile::tempdir()?,
            _running: running,
        })
    }

    /// Where the proxies write their access logs.
    pub(crate) fn logs(&self) -> &Path {
        self.logs.path()
    }

    /// `text` with the names of applications where their ports stand.
    pub(crate) fn named(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, port) in &self.ports {
            text = text.replace(&port.to_string(), &format!("@{name}"));
        }
        text
    }

    pub(crate) fn port(&self, name: &str) -> anyhow::Result<u16> {
        self.ports
            .get(name)
            .copied()
            .with_context(|| format!("no application {name:?}"))
    }
}

/// Beside Envoy, which has the port on every address: Linux gives a connection to the more specific socket.
fn behind_the_sidecar() -> anyhow::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.set_reuseaddr(true)?;
    socket.bind(([127, 0, 0, 1], APP_PORT).into())?;
    Ok(socket.listen(1024)?)
}

/// Creates everything through the mesh API.
pub(crate) async fn apply(mesh: &Mesh, apps: &Apps) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(folder("cases/mesh.json"))?;
    let mut spec: Value = serde_json::from_str(&text).context("cases/mesh.json")?;
    fill(&mut spec, apps)?;
    for (name, node) in members(&spec, "virtualNodes") {
        let node = match node.as_str() {
            Some(protocol) => plain_node(apps.port(name)?, protocol),
            None => node.clone(),
        };
        put(
            mesh,
            "virtualNodes",
            json!({"virtualNodeName": name, "spec": node}),
        )
        .await?;
    }
    for (name, router) in members(&spec, "virtualRouters") {
        let listeners = json!({"listeners": router["listeners"]});
        put(
            mesh,
            "virtualRouters",
            json!({"virtualRouterName": name, "spec": listeners}),
        )
        .await?;
        for (route, spec) in members(router, "routes") {
            let body = json!({"routeName": route, "spec": route_spec(spec)});
            put(mesh, &format!("virtualRouter/{name}/routes"), body).await?;
        }
    }
    for (name, provider) in members(&spec, "virtualServices") {
        let spec = if provider.is_null() {
            json!({})
        } else {
            json!({"provider": provider})
        };
        let body = json!({"virtualServiceName": name, "spec": spec});
        put(mesh, "virtualServices", body).await?;
    }
    let backends: Vec<Value> = members(&spec, "virtualServices")
        .map(|(name, _)| json!({"virtualService": {"virtualServiceName": name}}))
        .collect();
    let mut client = spec["client"].clone();
    client["backends"] = Value::from(backends);
    put(
        mesh,
        "virtualNodes",
        json!({"virtualNodeName": "client", "spec": client}),
    )
    .await?;
    for (name, gateway) in members(&spec, "virtualGateways") {
        put(
            mesh,
            "virtualGateways",
            json!({"virtualGatewayName": name, "spec": {"listeners": gateway["listeners"], "logging": gateway["logging"]}}),
        )
        .await?;
        for (route, spec) in members(gateway, "gatewayRoutes") {
            let body = json!({"gatewayRouteName": route, "spec": gateway_spec(spec)});
            put(mesh, &format!("virtualGateway/{name}/gatewayRoutes"), body).await?;
        }
    }
    Ok(())
}

async fn put(mesh: &Mesh, path: &str, body: Value) -> anyhow::Result<()> {
    mesh.put(&format!("/meshes/m/{path}"), body).await?;
    Ok(())
}

fn members<'v>(value: &'v Value, name: &str) -> impl Iterator<Item = (&'v String, &'v Value)> {
    value[name].as_object().into_iter().flatten()
}

fn plain_node(port: u16, protocol: &str) -> Value {
    json!({
        "listeners": [{"portMapping": {"port": port, "protocol": protocol}}],
        "serviceDiscovery": {"dns": {"hostname": "127.0.0.1"}}
    })
}

/// An action that is only a node's name becomes one weighted target.
fn route_spec(spec: &Value) -> Value {
    each_rule(spec, |rule| {
        if let Some(node) = rule.get("action").and_then(Value::as_str) {
            let target = json!([{"virtualNode": node, "weight": 1}]);
            rule.insert("action".to_owned(), json!({"weightedTargets": target}));
        }
    })
}

/// A target that is only a virtual service's name becomes the whole of it.
fn gateway_spec(spec: &Value) -> Value {
    each_rule(spec, |rule| {
        let Some(action) = rule.get_mut("action").and_then(Value::as_object_mut) else {
            return;
        };
        if let Some(service) = action.get("target").and_then(Value::as_str) {
            let target = json!({"virtualService": {"virtualServiceName": service}});
            action.insert("target".to_owned(), target);
        }
    })
}

fn each_rule(spec: &Value, change: impl Fn(&mut Map<String, Value>)) -> Value {
    let mut spec = spec.clone();
    let rules = spec.as_object_mut().into_iter().flatten();
    for rule in rules.filter_map(|(_, rule)| rule.as_object_mut()) {
        change(rule);
    }
    spec
}

/// Puts ports where `"@name"` stands.
fn fill(value: &mut Value, apps: &Apps) -> anyhow::Result<()> {
    match value {
        Value::String(text) => {
            if let Some(file) = text.strip_prefix("@log/") {
                *value = json!(apps.logs().join(file));
            } else if let Some(name) = text.strip_prefix('@') {
                *value = json!(apps.port(name)?);
            }
        }
        Value::Array(all) => all.iter_mut().try_for_each(|one| fill(one, apps))?,
        Value::Object(all) => all.values_mut().try_for_each(|one| fill(one, apps))?,
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    Ok(())
}
