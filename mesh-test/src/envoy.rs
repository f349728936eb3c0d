// SPDX-License-Identifier: Apache-2.0
//! A stock Envoy from the Python environment, configured by ADS alone. It binds a sidecar's ports literally, so whoever
//! starts one takes [`turn`] first.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Child;
use tokio::process::Command;

use crate::client;
use crate::eventually::eventually;
use crate::python;

const LIVE_WITHIN: Duration = Duration::from_secs(30);

/// Where every sidecar's app finds it.
pub const EGRESS: &str = "127.0.0.1:15001";

/// A running Envoy.
pub struct Envoy {
    admin: SocketAddr,
    folder: TempDir,
    _child: Child,
}

/// One sidecar at a time on this machine, whatever process asks. Waits on a thread of its own.
pub async fn turn() -> anyhow::Result<File> {
    let waiting = tokio::task::spawn_blocking(|| {
        let lock = File::create(std::env::temp_dir().join("pillion-sidecar-ports.lock"))?;
        lock.lock()?;
        Ok(lock)
    });
    waiting.await?
}

fn binary() -> anyhow::Result<PathBuf> {
    let bin = python::venv()?;
    let libraries = bin
        .parent()
        .context("the environment has a root")?
        .join("lib");
    std::fs::read_dir(&libraries)?
        .flatten()
        .map(|python| python.path().join("site-packages/envoy/_bin/envoy"))
        .find(|path| path.exists())
        .with_context(|| {
            format!(
                "no Envoy in {}; run `cargo xtask setup`",
                libraries.display()
            )
        })
}

impl Envoy {
    /// Starts it as `resource` and waits until it is LIVE.
    pub async fn start(xds: SocketAddr, resource: &str) -> anyhow::Result<Envoy> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("bootstrap.json");
        std::fs::write(&file, bootstrap(xds, resource).to_string())?;
        let admin_file = folder.path().join("admin");
        let child = Command::new(binary()?)
            .args(["--concurrency", "1", "--disable-hot-restart"])
            .args(["--file-flush-interval-msec", "100"])
            .args(["--log-level", "info", "-c"])
            .arg(&file)
            .arg("--admin-address-path")
            .arg(&admin_file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("log"))?)
            .kill_on_drop(true)
            .spawn()
            .context("start Envoy")?;
        let admin = eventually(LIVE_WITHIN, || async {
            Ok(std::fs::read_to_string(&admin_file)?.parse()?)
        });
        let envoy = Envoy {
            admin: admin.await.context("Envoy told no admin address")?,
            folder,
            _child: child,
        };
        envoy.live().await?;
        Ok(envoy)
    }

    async fn live(&self) -> anyhow::Result<()> {
        let live = eventually(LIVE_WITHIN, || async {
            let answer = client::get(self.admin, "localhost", "/ready").await?;
            if answer.status != 200 {
                bail!("/ready says {}", answer.text());
            }
            Ok(())
        });
        live.await
            .with_context(|| format!("Envoy is not LIVE; its log:\n{}", self.log()))
    }

    /// Its admin port.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

fn bootstrap(xds: SocketAddr, resource: &str) -> serde_json::Value {
    let http2 = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}}
    }});
    let address = json!({"address": xds.ip().to_string(), "port_value": xds.port()});
    let endpoint = json!({"endpoint": {"address": {"socket_address": address}}});
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    json!({
        "node": {"id": resource, "cluster": resource},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC", "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]
            },
            "lds_config": ads, "cds_config": ads
        },
        "static_resources": {"clusters": [{
            "name": "xds", "type": "STATIC", "connect_timeout": "1s", "typed_extension_protocol_options": http2,
            "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [endpoint]}]}
        }]}
    })
}
