// SPDX-License-Identifier: Apache-2.0
//! The only wiring: binds sockets, starts the parts, prints the readiness line, and takes them down again. Nobody
//! imports this but `main` (and the admin pages, for [`Drain`]).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pillion_runtime::listening;
use pillion_runtime::signals::Termination;
use pillion_runtime::spans::Attribute;
use pillion_runtime::spans::SpanRecord;
use pillion_runtime::spans::Spans;
use pillion_runtime::spans::SpansError;
use pillion_runtime::tasks::Tasks;
use pillion_runtime::telemetry::LogLevel;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::admin;
use crate::admin::Pages;
use crate::admin::door::Door;
use crate::admin::door::DoorError;
use crate::config::Config;
use crate::config::Sockets;
use crate::drain::BOTH;
use crate::drain::Side;
use crate::identity;
use crate::limits::Limits;
use crate::listener;
use crate::listener::DataPlane;
use crate::metrics::Metrics;
use crate::metrics::extension::Extension;
use crate::sampling::poll;
use crate::snapshot::Live;
use crate::snapshot::Snapshot;
use crate::state;
use crate::state::SaveError;
use crate::state::StateDir;
use crate::statsd;
use crate::worker::Policy;
use crate::xds::apply::Applier;
use crate::xds::client;
use crate::xds::client::ChannelError;
use crate::xds::client::Control;
use crate::xds::join::JoinToken;
use crate::xds::sds;
use crate::xds::status::Failing;
use crate::xds::status::Status;
use crate::xray;

/// After the listeners have closed, what is in flight may take this long to finish.
const LAST_EXCHANGES: Duration = Duration::from_secs(15);
/// Background tasks (export, logs, state) may take this long to put away what they hold.
const LAST_TASKS: Duration = Duration::from_secs(5);
/// Key material on disk is looked at this often.
const LOOK_AT_FILES: Duration = Duration::from_millis(500);

/// A proxy that could not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Admin or agent.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// The data path.
    #[error(transparent)]
    DataPlane(#[from] listener::StartError),
    /// The control plane's endpoint.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The span exporter.
    #[error(transparent)]
    Spans(#[from] SpansError),
    /// The state directory.
    #[error(transparent)]
    State(#[from] SaveError),
    /// A metric registered twice.
    #[error("register metrics")]
    Metrics(#[from] prometheus::Error),
    /// A `server` header that HTTP cannot carry.
    #[error("--server-header {value:?} is no header value; use visible ASCII")]
    ServerHeader {
        /// As configured.
        value: String,
    },
}

/// A running proxy.
pub struct App {
    config: Arc<Config>,
    tasks: Tasks,
    drain: Drain,
    status: Status,
    termination: Termination,
    quit: CancellationToken,
}

/// Draining, as admin pages and signals ask for it. Clones share it.
#[derive(Clone)]
pub struct Drain {
    data: Arc<DataPlane>,
    tasks: Tasks,
    wait: Duration,
    /// Inbound and outbound.
    begun: Arc<[AtomicBool; 2]>,
}

/// What a graceful drain does after the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// Closes the listeners.
    Close,
    /// Leaves them open, still telling callers to go (`skip_exit`).
    Stay,
}

impl Drain {
    /// Tells callers to go elsewhere while accepting on, and closes the listeners after the wait.
    pub fn gracefully(&self, sides: &[Side], afterwards: Afterwards) {
        let fresh = |side: &&Side| !self.begun(**side).swap(true, Ordering::Relaxed);
        let sides: Vec<Side> = sides.iter().filter(fresh).copied().collect();
        self.data.announce_drain(&sides);
        if sides.is_empty() || afterwards == Afterwards::Stay {
            return;
        }
        let (data, wait) = (Arc::clone(&self.data), self.wait);
        self.tasks
            .spawn_until_stopped("graceful-drain", async move {
                tokio::time::sleep(wait).await;
                data.close_listeners(&sides);
            });
    }

    fn begun(&self, side: Side) -> &AtomicBool {
        match side {
            Side::Inbound => &self.begun[0],
            Side::Outbound => &self.begun[1],
        }
    }

    /// Asks callers to go elsewhere while this proxy is failed by hand, as long as it is.
    pub fn while_failing(&self, failing: Failing) {
        for side in BOTH {
            match failing {
                Failing::Yes => self.data.announce_drain(&[*side]),
                Failing::No if !self.begun(*side).load(Ordering::Relaxed) => {
                    self.data.relent(*side);
                }
                Failing::No => {}
            }
        }
    }

    /// Closes the listeners now.
    pub fn at_once(&self, sides: &[Side]) {
        self.data.close_listeners(sides);
    }

    /// Where pages leave what outlives their answer.
    pub(crate) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Requests, tunnels and TCP connections in flight.
    pub fn in_flight(&self) -> usize {
        self.data.in_flight()
    }
}

impl App {
    /// Binds every socket, starts every part, and announces the addresses. Must be called on the control runtime.
    pub fn start(config: Config, level: LogLevel) -> Result<App, AppError> {
        let termination = Termination::listen();
        let config = Arc::new(config);
        let tasks = Tasks::new();
        let (admin, agent) = bind_servers(&config)?;
        let channel = client::channel(&config.xds)?;
        let state = prepare_state(&config)?;
        let registry = prometheus::Registry::new();
        let metrics = Metrics::new(config.workers, config.node.labels());
        metrics.register(&registry)?;
        let status = Status::new(config.node.labels())?;
        registry.register(Box::new(status.clone()))?;
        let live = Live::new(Snapshot::empty(metrics.clone()));
        let control = Control::new(Applier::new(live.clone()), status.clone());
        let spans = start_spans(&config, &tasks)?;
        registry.register(Box::new(spans.clone()))?;
        start_metrics(&config, &tasks, (&metrics, &live), &registry)?;
        let settings = settings(&config, &status)?;
        let data = listener::start(&live, settings, &metrics, spans, &tasks)?;
        let data = Arc::new(data);
        let drain = Drain {
            data: Arc::clone(&data),
            tasks: tasks.clone(),
            wait: config.drain_wait,
            begun: Arc::default(),
        };
        let servers = addresses_of(&admin, &agent);
        let addresses = {
            let data = Arc::clone(&data);
            move || {
                let mut all = servers.clone();
                all.extend(data.addresses());
                all
            }
        };
        let bound = addresses();
        let pages = Pages::new(admin::Parts {
            config: Arc::clone(&config),
            control: control.clone(),
            live: live.clone(),
            metrics,
            registry,
            level,
            drain: drain.clone(),
            addresses: Arc::new(addresses),
        });
        let quit = pages.quit.clone();
        let admin_pages = admin::admin(pages.clone());
        tasks.spawn("admin", admin.serve(admin_pages, tasks.stop()));
        tasks.spawn("agent", agent.serve(admin::agent(pages), tasks.stop()));
        listening::announce(&bound);
        // Before the stream: what it brings may name secrets of the socket.
        start_sds(&config, &tasks, &control)?;
        start_control(&config, &tasks, &control, channel, state);
        watch_files(&tasks, live, control);
        Ok(App {
            config,
            tasks,
            drain,
            status,
            termination,
            quit,
        })
    }

    /// Serves until SIGTERM or SIGINT, then drains; a second signal ends the drain.
    pub async fn run(mut self) {
        let signal = tokio::select! {
            signal = self.termination.asked() => signal,
            () = self.quit.cancelled() => "/quitquitquit",
        };
        tracing::info!(
            signal,
            wait_s = self.config.drain_wait.as_secs(),
            "draining"
        );
        self.status.set_draining();
        for side in BOTH {
            self.drain.begun(*side).store(true, Ordering::Relaxed);
        }
        let limit = self.config.drain_wait + LAST_EXCHANGES;
        tokio::select! {
            cut = self.drain.data.drain(self.config.drain_wait, limit) => {
                if cut > 0 {
                    tracing::warn!(cut, "exchanges were cut off");
                }
            }
            signal = self.termination.asked() => tracing::warn!(signal, "asked again: leaving without finishing"),
        }
        let left = self.tasks.drain(LAST_TASKS).await;
        tracing::info!(tasks_left = left, "drained");
    }
}

fn bind_servers(config: &Config) -> Result<(Door, Door), DoorError> {
    let Sockets { admin, agent } = &config.sockets;
    let admin = Door::bind(
        "--admin-addr",
        config.admin,
        admin.as_deref(),
        config.insecure,
    )?;
    let agent = Door::bind(
        "--agent-addr",
        config.agent,
        agent.as_deref(),
        config.insecure,
    )?;
    Ok((admin, agent))
}

fn addresses_of(admin: &Door, agent: &Door) -> Vec<(String, SocketAddr)> {
    let named = [("admin", admin), ("agent", agent)];
    named
        .into_iter()
        .filter_map(|(name, door)| Some((name.to_owned(), door.addr()?)))
        .collect()
}

fn prepare_state(config: &Config) -> Result<Option<StateDir>, AppError> {
    let Some(dir) = &config.state_dir else {
        return Ok(None);
    };
    let state = StateDir::new(dir.clone(), &config.node.id);
    state.prepare()?;
    Ok(Some(state))
}

fn start_spans(config: &Config, tasks: &Tasks) -> Result<Spans, AppError> {
    let Some(collector) = &config.collector else {
        let Some(daemon) = config.exporters.xray else {
            return Ok(Spans::off());
        };
        let origin = xray::Origin {
            name: config.service_name.clone(),
            mesh: config.node.mesh.clone(),
            node: config.node.name.clone(),
        };
        let encode = move |span: &SpanRecord| xray::datagram(&origin, span);
        return Ok(Spans::datagrams(daemon, encode, tasks));
    };
    if config.exporters.xray.is_some() {
        let instead = "spans go by OTLP to --collector, which takes more of them; leave it out for X-Ray segments";
        tracing::warn!("ENABLE_ENVOY_XRAY_TRACING=1: {instead}");
    }
    let resource = vec![
        Attribute::new("service.name", config.service_name.clone()),
        Attribute::new("pillion.proxy", true),
        Attribute::new("pillion.mesh", config.node.mesh.clone()),
        Attribute::new("pillion.node", config.node.name.clone()),
    ];
    Ok(Spans::start(collector, resource, tasks)?)
}

/// App Mesh's own metrics and its sink, and a collector's sampling rules, where they are asked for.
fn start_metrics(
    config: &Config,
    tasks: &Tasks,
    (metrics, live): (&Metrics, &Live),
    registry: &prometheus::Registry,
) -> Result<(), AppError> {
    if config.exporters.metrics_extension {
        let labels = config.node.dimensions();
        let extension = Extension::new(metrics.clone(), live.clone(), labels)?;
        registry.register(Box::new(extension))?;
    }
    if let Some(sink) = config.exporters.statsd.clone() {
        let sending = statsd::keep(sink.target, sink.every, registry.clone(), tasks.stop());
        tasks.spawn("statsd", sending);
    }
    if let Some(door) = config.exporters.rules_from.clone() {
        let (sampler, name) = (&config.exporters.sampler, config.service_name.clone());
        let polling = poll::keep(Arc::clone(sampler), door, name, tasks.stop());
        tasks.spawn("sampling", polling);
    }
    Ok(())
}

fn settings(config: &Config, status: &Status) -> Result<listener::Settings, AppError> {
    let status = status.clone();
    let server_header = match &config.server_header {
        None => None,
        Some(value) => {
            let header = value.parse().map_err(|_| AppError::ServerHeader {
                value: value.clone(),
            })?;
            Some(header)
        }
    };
    let listens = config.listen.iter().map(|listen| listener::Listen {
        address: listen.bind,
        port: listen.bind.port(),
        app: listen.app,
    });
    Ok(listener::Settings {
        ingress: Some(config.ingress),
        egress: Some(config.egress),
        listens: listens.collect(),
        gateway: config.gateway,
        workers: config.workers,
        ejection_log: Arc::clone(&config.ejection_log),
        policy: Policy {
            server_header,
            sampling: Arc::clone(&config.exporters.sampler),
            follow_caller: config.exporters.follow_caller,
            open_egress: config.open_egress,
            limits: Limits {
                memory: config.memory_limit,
                ..Limits::default()
            },
            ..Policy::default()
        },
        announce: Arc::new(listening::announce),
        settled: Arc::new(move |version, unbound| status.set_settled(version, unbound)),
    })
}

fn start_control(
    config: &Arc<Config>,
    tasks: &Tasks,
    control: &Control,
    channel: Channel,
    state: Option<StateDir>,
) {
    let channel = JoinToken::before(channel, config.token_file.clone());
    let identity = identity::Keeper {
        node_id: config.node.id.clone(),
        channel: channel.clone(),
        control: control.clone(),
        state: state.clone(),
    };
    tasks.spawn("identity", identity.run(tasks.stop()));
    if let Some(state) = state {
        tasks.spawn("state", state::keep(state, control.clone(), tasks.stop()));
    }
    let (config, control, stop) = (Arc::clone(config), control.clone(), tasks.stop());
    if !config.initial_fetch_timeout.is_zero() {
        let (status, limit) = (control.status.clone(), config.initial_fetch_timeout);
        tasks.spawn_until_stopped("initial-fetch", async move {
            tokio::time::sleep(limit).await;
            status.give_up_waiting();
        });
    }
    tasks.spawn("xds", async move {
        client::keep(&config, channel, control, stop).await
    });
}

fn start_sds(config: &Config, tasks: &Tasks, control: &Control) -> Result<(), AppError> {
    let Some(endpoint) = &config.sds else {
        return Ok(());
    };
    control.applier.lock().open_socket();
    let (channel, node) = (client::channel(endpoint)?, client::node(config));
    let keeping = sds::keep(channel, node, control.clone(), tasks.stop());
    tasks.spawn("sds", keeping);
    Ok(())
}

/// Certificates in files are taken anew when they change. Without such files nothing wakes here but configuration.
fn watch_files(tasks: &Tasks, live: Live, control: Control) {
    tasks.spawn_until_stopped("certificate-files", async move {
        let mut configured = live.subscribe();
        loop {
            if !live.current().wants_files() {
                if configured.changed().await.is_err() {
                    return;
                }
                continue;
            }
            tokio::time::sleep(LOOK_AT_FILES).await;
            if live.current().files_changed() {
                tracing::info!("key material on disk has changed");
                control.applier.lock().recompile();
            }
        }
    });
}
