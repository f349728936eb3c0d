// SPDX-License-Identifier: Apache-2.0
//! The order of a comparison: all peers of a workload are started, then measured one after the other in each round, so
//! that what the machine does meanwhile meets all of them. Called by `compare`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempDir;
use tokio::task::LocalSet;

use super::Plan;
use super::backend::Backend;
use super::figures::{Measured, Metric, PLAIN, PeerFigures, Report};
use super::machine;
use super::measure::{self, Figures};
use super::mesh::{Mesh, free_address};
use super::peers::{self, Kind, Peer, Running, Stage};
use super::plain::Identity;
use super::program::{self, Launch, Program};
use super::workload::{Act, SMALL, Workload};

const READY_WITHIN: Duration = Duration::from_secs(30);
/// Under valgrind everything takes fifty times as long.
const SLOW_READY_WITHIN: Duration = Duration::from_secs(300);

/// Measures everything; ends early, and cleanly, on SIGINT and SIGTERM.
pub(crate) fn conduct(plan: &Plan) -> anyhow::Result<Report> {
    let launch = program::stand_apart(plan.realtime)?;
    let backend = Backend::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    LocalSet::new().block_on(&runtime, async {
        tokio::select! {
            report = whole(plan, &launch, backend) => report,
            () = crate::driver::stopped() => anyhow::bail!("stopped before the end"),
        }
    })
}

async fn whole(plan: &Plan, launch: &Launch, backend: Backend) -> anyhow::Result<Report> {
    let folder = TempDir::new().context("a folder for configurations and logs")?;
    let folder = folder.path();
    let ours = peers::own("pillion-proxy", plan.bin_dir.as_deref())?;
    let (mut peers, missing) = peers::find(&plan.peers, ours);
    peers.extend(
        plan.also
            .iter()
            .map(|(name, path)| Peer::new(name, Kind::Pillion, path.clone())),
    );
    for line in &missing {
        crate::complain(line);
    }
    let mesh = Mesh::start(
        &peers::own("pillion-control-plane", plan.bin_dir.as_deref())?,
        folder,
    )
    .await?;
    let (collector, _collector) = collector(plan, folder)?;
    let identity = Identity::make(folder)?;
    let stage = Stage {
        mesh: &mesh,
        backend,
        collector,
        folder,
        identity: &identity,
    };
    let mut workloads = Vec::new();
    for workload in &plan.workloads {
        let run = Run {
            plan,
            launch,
            stage: &stage,
            workload: *workload,
            bar: bar(plan, workload, peers.len()),
        };
        workloads.push(
            run.whole(&peers)
                .await
                .with_context(|| format!("workload {}", workload.name))?,
        );
    }
    Ok(Report {
        machine: machine::describe(),
        command: std::env::args().collect::<Vec<_>>().join(" "),
        rounds: plan.rounds,
        seconds: plan.seconds.as_secs_f64(),
        versions: peers
            .iter()
            .map(|peer| (peer.name.clone(), peer.version.clone()))
            .collect(),
        missing,
        workloads,
    })
}

/// Spans must go somewhere, or exporting them costs nothing.
fn collector(plan: &Plan, folder: &Path) -> anyhow::Result<(SocketAddr, Option<Program>)> {
    let door = free_address()?;
    if !plan.workloads.iter().any(|workload| workload.observed) {
        return Ok((door, None));
    }
    let mut command = Command::new(peers::own("pillion-collector", plan.bin_dir.as_deref())?);
    let local = "127.0.0.1:0";
    command.args([
        "--otlp-grpc-addr",
        &door.to_string(),
        "--otlp-http-addr",
        local,
        "--xray-udp-addr",
        local,
    ]);
    command.args([
        "--xray-tcp-addr",
        local,
        "--api-addr",
        local,
        "--admin-addr",
        local,
        "--store",
        "traces",
    ]);
    let program = Program::start(&Launch::default(), "collector", command, folder)?;
    Ok((door, Some(program)))
}

fn bar(plan: &Plan, workload: &Workload, peers: usize) -> ProgressBar {
    let bar = ProgressBar::new((plan.rounds * peers) as u64);
    let style = ProgressStyle::with_template("{prefix:12} {wide_bar} {msg}")
        .expect("the template is valid");
    bar.set_style(style);
    bar.set_prefix(workload.name);
    bar
}

/// One workload's measurement.
struct Run<'a> {
    plan: &'a Plan,
    launch: &'a Launch,
    stage: &'a Stage<'a>,
    workload: Workload,
    bar: ProgressBar,
}

/// A peer in a workload: its proxies, if they could be started, and what was found.
struct Contender<'a> {
    peer: &'a Peer,
    /// As the tables call it.
    name: String,
    workload: Workload,
    running: Option<Running>,
    note: Option<String>,
    samples: BTreeMap<Metric, Vec<f64>>,
}

impl Contender<'_> {
    fn add(&mut self, figures: Figures) {
        for (metric, value) in figures {
            self.samples.entry(metric).or_default().push(value);
        }
    }
}

impl Run<'_> {
    async fn whole(&self, peers: &[Peer]) -> anyhow::Result<Measured> {
        let mut contenders = Vec::new();
        for peer in peers {
            contenders.push(self.enter(peer, self.workload).await?);
        }
        let ours = peers.iter().find(|peer| peer.name == "pillion");
        if let Some(ours) = ours.filter(|_| self.workload.adds_to_plain()) {
            let mut plain = self
                .enter(
                    ours,
                    Workload {
                        rate: None,
                        ..SMALL
                    },
                )
                .await?;
            PLAIN.clone_into(&mut plain.name);
            plain.note = Some("the plain workload, in the same rounds".to_owned());
            contenders.push(plain);
        }
        for round in 0..self.plan.rounds {
            self.round(round, &mut contenders).await?;
        }
        if self.workload.counted && self.plan.thorough {
            for contender in &mut contenders {
                self.count_calls(contender).await;
            }
        }
        // Nobody idles beside what is counted under valgrind.
        contenders
            .iter_mut()
            .for_each(|contender| contender.running = None);
        if self.workload.counted && self.plan.instructions {
            for contender in &mut contenders {
                self.count_instructions(contender).await;
            }
        }
        self.bar.finish_and_clear();
        let peers = contenders
            .into_iter()
            .map(|one| PeerFigures {
                peer: one.name,
                note: one.note,
                samples: one.samples,
            })
            .collect();
        Ok(Measured {
            name: self.workload.name.to_owned(),
            about: self.workload.about.to_owned(),
            unit: self.workload.unit.to_owned(),
            rate: self.workload.rate,
            peers,
        })
    }

    /// Starts a peer; one that cannot do the workload is listed with the reason. Our own must.
    async fn enter<'p>(&self, peer: &'p Peer, workload: Workload) -> anyhow::Result<Contender<'p>> {
        let mut contender = Contender {
            peer,
            name: peer.name.clone(),
            workload,
            running: None,
            note: peer
                .excused(&workload)
                .or(peer.note(&workload))
                .map(str::to_owned),
            samples: BTreeMap::new(),
        };
        if peer.excused(&workload).is_some() {
            return Ok(contender);
        }
        self.bar.set_message(format!("starting {}", peer.name));
        let started = async {
            let running = peer.start(self.stage, &workload, self.launch).await?;
            running.ready(workload, READY_WITHIN).await?;
            Ok::<_, anyhow::Error>(running)
        };
        match started.await {
            Ok(running) => contender.running = Some(running),
            Err(error) if peer.kind == Kind::Pillion => {
                return Err(error.context(format!("start {}", peer.name)));
            }
            Err(error) => contender.note = Some(format!("did not start: {error:#}")),
        }
        Ok(contender)
    }

    async fn round(&self, round: usize, contenders: &mut [Contender<'_>]) -> anyhow::Result<()> {
        let (workload, length) = (self.workload, self.plan.seconds);
        let direct = match workload.rate {
            Some(_) => {
                let target = if workload.is_http2() {
                    self.stage.backend.http2
                } else {
                    self.stage.backend.http1
                };
                Some(measure::open(target, None, workload, length).await?.0)
            }
            None => None,
        };
        let count = contenders.len();
        for at in 0..count {
            // Nobody is always first.
            let contender = &mut contenders[(at + round) % count];
            self.bar
                .set_message(format!("round {}, {}", round + 1, contender.name));
            self.bar.inc(1);
            let Some(running) = &contender.running else {
                continue;
            };
            let mut figures = self
                .measure(running, contender.workload)
                .await
                .with_context(|| format!("measure {}", contender.peer.name))?;
            if let Some(direct) = direct
                .as_ref()
                .filter(|_| contender.workload.rate.is_some())
            {
                let (through, cpu) =
                    measure::open(running.address, Some(running), workload, length).await?;
                figures.extend([
                    (Metric::OpenCpu, cpu),
                    (Metric::AddedP50, through.p50 - direct.p50),
                    (Metric::AddedP99, through.p99 - direct.p99),
                    (Metric::AddedP999, through.p999 - direct.p999),
                ]);
            }
            contender.add(figures);
            if workload.act == Act::Idle {
                // What it held for the connections is not given back: the next round begins with a new process.
                contender.running = None;
                if round + 1 < self.plan.rounds {
                    contender.running = self.enter(contender.peer, workload).await?.running;
                }
            }
        }
        Ok(())
    }

    async fn measure(&self, running: &Running, workload: Workload) -> anyhow::Result<Figures> {
        let length = self.plan.seconds;
        match workload.act {
            Act::Load | Act::Churn => measure::closed(running, workload, length).await,
            Act::Idle => {
                let most = if self.plan.thorough {
                    workload.connections
                } else {
                    500
                };
                let connections = most.min(program::connections_allowed());
                measure::idle(
                    running,
                    Workload {
                        connections,
                        ..workload
                    },
                    length,
                )
                .await
            }
            Act::Swap => measure::swaps(running, self.stage.mesh, workload, length).await,
        }
    }

    /// A count that cannot be had is no reason to lose what was measured.
    async fn count_calls(&self, contender: &mut Contender<'_>) {
        let Some(running) = &contender.running else {
            return;
        };
        self.bar
            .set_message(format!("strace, {}", contender.peer.name));
        match measure::system_calls(running, contender.workload, self.stage.folder).await {
            Ok(calls) => contender.add(BTreeMap::from([(Metric::SystemCalls, calls)])),
            Err(error) => crate::complain(&format!(
                "no system calls of {}: {error:#}",
                contender.peer.name
            )),
        }
    }

    async fn count_instructions(&self, contender: &mut Contender<'_>) {
        if contender.peer.excused(&contender.workload).is_some() {
            return;
        }
        self.bar
            .set_message(format!("valgrind, {}", contender.peer.name));
        let counted = async {
            let out = self.stage.folder.join("callgrind.%p");
            let words = ["valgrind", "--tool=callgrind", "--trace-children=no"].map(str::to_owned);
            let mut launch = self.launch.clone();
            launch.wrapped.extend(words);
            launch
                .wrapped
                .push(format!("--callgrind-out-file={}", out.display()));
            let running = contender
                .peer
                .start(self.stage, &contender.workload, &launch)
                .await?;
            running.ready(contender.workload, SLOW_READY_WITHIN).await?;
            measure::instructions(&running, contender.workload, self.stage.folder).await
        };
        match counted.await {
            Ok(counted) => contender.add(BTreeMap::from([(Metric::Instructions, counted)])),
            Err(error) => crate::complain(&format!(
                "no instructions of {}: {error:#}",
                contender.peer.name
            )),
        }
    }
}
