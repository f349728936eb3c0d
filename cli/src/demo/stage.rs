// SPDX-License-Identifier: Apache-2.0
//! Puts the storefront on stage, step by step: the processes with their settings, the mesh through its API, traffic.
//! Called by `demo` in this order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::{Method, StatusCode};
use serde_json::json;

use crate::client;
use crate::demo::app::{COUNTS_PATH, Counts};
use crate::demo::child::{Family, Launch, Output, Stage};
use crate::demo::load::{self, Measured};
use crate::demo::ports::{GATEWAY, NODES, Ports, Stand};
use crate::demo::programs::{COLLECTOR, CONTROL_PLANE, LOADTEST, PROXY, Programs};
use crate::demo::screen::Screen;
use crate::demo::storefront;
use crate::mesh_api::{self, Resource};

const LIVE_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);
/// The longest run of the load generator.
const A_DAY: Duration = Duration::from_secs(24 * 3600);

pub(crate) struct Stagehand {
    pub(crate) family: Family,
    pub(crate) programs: Programs,
    pub(crate) ports: Ports,
    pub(crate) data: PathBuf,
    pub(crate) screen: Screen,
}

impl Stagehand {
    pub(crate) async fn start_backstage(&mut self) -> anyhow::Result<()> {
        self.screen
            .step("starting the control plane and the collector");
        let ports = self.ports;
        let store = format!("sqlite:{}", self.data.join("pillion.db").display());
        let control_plane = [
            ("--api-addr", ports.api().to_string()),
            ("--xds-addr", ports.xds().to_string()),
            ("--admin-addr", ports.control_admin().to_string()),
            ("--store", store),
        ];
        let traces = self.data.join("traces").display().to_string();
        let collector = [
            ("--api-addr", ports.collector().to_string()),
            ("--admin-addr", ports.collector_admin().to_string()),
            ("--otlp-grpc-addr", ports.otlp_grpc().to_string()),
            ("--otlp-http-addr", ports.otlp_http().to_string()),
            ("--xray-udp-addr", ports.xray().to_string()),
            ("--xray-tcp-addr", ports.xray().to_string()),
            ("--zipkin-addr", ports.zipkin().to_string()),
            ("--store", traces),
            // The map follows the traffic more closely than by default, for those who watch it.
            ("--settle", "5s".to_owned()),
        ];
        let mut control_plane = self.launch(
            "control-plane",
            Stage::Backstage,
            CONTROL_PLANE,
            &control_plane,
            &[],
        )?;
        let mut collector =
            self.launch("collector", Stage::Backstage, COLLECTOR, &collector, &[])?;
        control_plane.ready().await?;
        collector.ready().await?;
        Ok(())
    }

    /// The App Mesh API calls a person would make, in an order that never refers to what is not there yet. A store
    /// kept with `--data-dir` has everything already, perhaps on other ports: then each resource is updated.
    pub(crate) async fn describe_mesh(&self) -> anyhow::Result<()> {
        self.screen
            .step("describing the mesh through the App Mesh API");
        let api = self.ports.api().to_string();
        for (key, spec) in storefront::resources(self.ports) {
            let resource = Resource {
                key: &key,
                spec,
                tags: json!([]),
                mesh_owner: None,
            };
            mesh_api::put(&api, &resource).await?;
        }
        Ok(())
    }

    pub(crate) async fn start_storefront(&mut self) -> anyhow::Result<()> {
        self.screen
            .step("starting five applications, their sidecars and the gateway");
        let mut started = Vec::new();
        for (place, name) in NODES.iter().enumerate() {
            let stand = self.ports.node(place);
            started.push(self.start_app(name, stand)?);
            started.push(self.start_sidecar(name, stand)?);
        }
        started.push(self.start_gateway()?);
        for output in &mut started {
            output.ready().await?;
        }
        self.screen.step("waiting until every sidecar is LIVE");
        let nodes = NODES
            .iter()
            .enumerate()
            .map(|(place, name)| (*name, self.ports.node(place)));
        for (name, stand) in nodes.chain([(GATEWAY, self.ports.gateway())]) {
            live(name, stand.admin).await?;
            accepts(name, stand.listener).await?;
        }
        Ok(())
    }

    fn start_app(&mut self, name: &str, stand: Stand) -> anyhow::Result<Output> {
        let xray = self.ports.xray().to_string();
        let mut arguments = vec![
            ("--name", name.to_owned()),
            ("--listen", stand.app.to_string()),
            ("--proxy", stand.egress.to_string()),
        ];
        if name == "cart" {
            arguments.push(("--xray", xray));
        }
        let words = std::iter::once("demo-app".to_owned())
            .chain(
                arguments
                    .into_iter()
                    .flat_map(|(setting, value)| [setting.to_owned(), value]),
            )
            .collect();
        let launch = Launch {
            name: name.to_owned(),
            stage: Stage::Storefront,
            program: self.programs.own().to_owned(),
            arguments: words,
            variables: Vec::new(),
        };
        Ok(self.family.start(launch)?)
    }

    fn start_sidecar(&mut self, name: &str, stand: Stand) -> anyhow::Result<Output> {
        let listen = ("--listen", format!("{}={}", stand.listener, stand.app));
        self.start_proxy(name, stand, listen)
    }

    fn start_gateway(&mut self) -> anyhow::Result<Output> {
        let address = ("--gateway-addr", "127.0.0.1".to_owned());
        self.start_proxy(GATEWAY, self.ports.gateway(), address)
    }

    fn start_proxy(
        &mut self,
        name: &str,
        stand: Stand,
        inbound: (&'static str, String),
    ) -> anyhow::Result<Output> {
        let state = self.data.join("state").join(name);
        std::fs::create_dir_all(&state)
            .with_context(|| format!("make the folder {}", state.display()))?;
        let arguments = [
            inbound,
            ("--ingress-addr", stand.ingress.to_string()),
            ("--egress-addr", stand.egress.to_string()),
            ("--admin-addr", stand.admin.to_string()),
            ("--agent-addr", stand.agent.to_string()),
            ("--collector", format!("http://{}", self.ports.otlp_grpc())),
            ("--state-dir", state.display().to_string()),
            ("--workers", "1".to_owned()),
        ];
        let variables = [
            ("APPMESH_RESOURCE_ARN", storefront::resource_arn(name)),
            ("APPMESH_XDS_ENDPOINT", self.ports.xds().to_string()),
            // Every request is traced, so that the map can be held against the traffic.
            ("XRAY_SAMPLING_RATE", "1".to_owned()),
        ];
        self.launch(
            &format!("{name}-proxy"),
            Stage::Storefront,
            PROXY,
            &arguments,
            &variables,
        )
    }

    fn launch(
        &mut self,
        name: &str,
        stage: Stage,
        program: &str,
        arguments: &[(&str, String)],
        variables: &[(&'static str, String)],
    ) -> anyhow::Result<Output> {
        let words = arguments
            .iter()
            .flat_map(|(setting, value)| [(*setting).to_owned(), value.clone()]);
        let launch = Launch {
            name: name.to_owned(),
            stage,
            program: self.programs.path(program),
            arguments: words.collect(),
            variables: variables.to_vec(),
        };
        Ok(self.family.start(launch)?)
    }

    /// Until the time is over: what the load generator measured.
    pub(crate) async fn drive_traffic(
        &mut self,
        rate: f64,
        length: Option<Duration>,
    ) -> anyhow::Result<Measured> {
        let url = format!("http://{}/", self.ports.gateway().listener);
        let launch = Launch {
            name: "loadtest".into(),
            stage: Stage::Traffic,
            program: self.programs.path(LOADTEST),
            arguments: load::arguments(&url, rate, length.unwrap_or(A_DAY)),
            variables: Vec::new(),
        };
        let mut output = self.family.start(launch)?;
        self.screen.step("traffic is on its way");
        let (shares, latest) = tokio::sync::watch::channel(None);
        let ports = self.ports;
        let screen = &mut self.screen;
        tokio::select! {
            measured = load::follow(&mut output, |interval| screen.live(interval, *latest.borrow())) => Ok(measured?),
            never = watch_shares(ports, &shares) => match never {},
        }
    }
}

/// Once a second: the share of the catalog's calls that its second version took since the last look.
async fn watch_shares(
    ports: Ports,
    shares: &tokio::sync::watch::Sender<Option<f64>>,
) -> std::convert::Infallible {
    let mut last = [0_u64; 2];
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (Ok(v1), Ok(v2)) = (
            counts(ports.node(1).app).await,
            counts(ports.node(2).app).await,
        ) else {
            continue;
        };
        let now = [v1.requests, v2.requests];
        let [v1, v2] = [
            now[0].saturating_sub(last[0]),
            now[1].saturating_sub(last[1]),
        ];
        last = now;
        #[expect(clippy::cast_precision_loss, reason = "counts of one second")]
        shares.send_replace((v1 + v2 > 0).then(|| v2 as f64 / (v1 + v2) as f64));
    }
}

/// What an application counted; asked past the mesh, so that the question is not on the map.
pub(crate) async fn counts(app: SocketAddr) -> anyhow::Result<Counts> {
    let answer = client::call(Method::GET, &app.to_string(), COUNTS_PATH, None).await?;
    answer
        .json()
        .and_then(serde_json::from_value)
        .with_context(|| format!("{app} answered {:?}", answer.text()))
}

async fn live(name: &str, admin: SocketAddr) -> anyhow::Result<()> {
    let admin = admin.to_string();
    let deadline = tokio::time::Instant::now() + LIVE_WITHIN;
    loop {
        let answer = client::call(Method::GET, &admin, "/ready", None).await;
        let said = match &answer {
            Ok(answer) if answer.status == StatusCode::OK => return Ok(()),
            Ok(answer) => format!("{} {}", answer.status, answer.text()),
            Err(error) => error.to_string(),
        };
        if tokio::time::Instant::now() >= deadline {
            bail!(
                "the proxy of {name} is not LIVE after {LIVE_WITHIN:?}; http://{admin}/ready: {said}"
            );
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A gateway binds its listeners only when its configuration names them.
async fn accepts(name: &str, listener: SocketAddr) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + LIVE_WITHIN;
    while tokio::net::TcpStream::connect(listener).await.is_err() {
        if tokio::time::Instant::now() >= deadline {
            bail!("{name} is LIVE but does not listen on {listener} after {LIVE_WITHIN:?}");
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}
