// SPDX-License-Identifier: Apache-2.0
//! The demo's processes: started through the tether, ready when their first line says so, reported when they die, and
//! ended in stages. Used by `demo`; knows nothing of what they do.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader as AsyncBufReader};
use tokio::process::{ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const READY_WITHIN: Duration = Duration::from_secs(30);
/// Lines of standard output nobody has read yet; more are dropped, so that no child ever blocks on us.
const LINES: usize = 1024;
const LOG_LINES: usize = 15;
/// All that children see of our environment: a stray `APPMESH_…` or `PILLION_…` must not change the demo.
const KEPT_VARIABLES: [&str; 7] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "LLVM_PROFILE_FILE",
    "LD_LIBRARY_PATH",
];

/// What ends together. Later stages are ended first, so that nobody loses the one it talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Backstage,
    Storefront,
    Traffic,
}

/// A program to start.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) name: String,
    pub(crate) stage: Stage,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) variables: Vec<(&'static str, String)>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("open the log {}", .path.display())]
    Log { path: PathBuf, source: io::Error },
    #[error("start {name} ({})", .program.display())]
    Spawn {
        name: String,
        program: PathBuf,
        source: io::Error,
    },
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadyError {
    #[error("{name} did not become ready within {READY_WITHIN:?}{log}")]
    TimedOut { name: String, log: LogTail },
    #[error("{name} ended before it was ready{log}")]
    Ended { name: String, log: LogTail },
    #[error("{name} began with {line:?} instead of its addresses{log}")]
    Garbled {
        name: String,
        line: String,
        log: LogTail,
    },
}

/// A child that ended though nobody had asked it to.
#[derive(Debug, thiserror::Error)]
#[error("{name} ended by itself ({status}){log}")]
pub(crate) struct Death {
    name: String,
    status: String,
    log: LogTail,
}

/// The last lines of a child's log, on lines of their own.
#[derive(Debug, Default)]
pub(crate) struct LogTail(Vec<String>);

impl LogTail {
    fn read(path: &Path) -> Self {
        let Ok(file) = File::open(path) else {
            return Self::default();
        };
        let mut last = VecDeque::with_capacity(LOG_LINES);
        for line in BufReader::new(file).lines().map_while(Result::ok) {
            if last.len() == LOG_LINES {
                last.pop_front();
            }
            last.push_back(line);
        }
        Self(last.into())
    }
}

impl std::fmt::Display for LogTail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("; its log is empty");
        }
        f.write_str("; its last log lines:")?;
        self.0.iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// A running child's standard output.
pub(crate) struct Output {
    name: String,
    log: PathBuf,
    lines: mpsc::Receiver<String>,
}

#[derive(Deserialize)]
struct Listening {
    addresses: BTreeMap<String, SocketAddr>,
}

impl Output {
    /// Waits for the readiness line: the addresses it names.
    pub(crate) async fn ready(&mut self) -> Result<BTreeMap<String, SocketAddr>, ReadyError> {
        let name = self.name.clone();
        let line = tokio::time::timeout(READY_WITHIN, self.lines.recv()).await;
        let log = LogTail::read(&self.log);
        match line {
            Err(_) => Err(ReadyError::TimedOut { name, log }),
            Ok(None) => Err(ReadyError::Ended { name, log }),
            Ok(Some(line)) => match serde_json::from_str::<Listening>(&line) {
                Ok(listening) => Ok(listening.addresses),
                Err(_) => Err(ReadyError::Garbled { name, line, log }),
            },
        }
    }

    /// The next line, `None` when the child has closed its output.
    pub(crate) async fn line(&mut self) -> Option<String> {
        self.lines.recv().await
    }

    pub(crate) fn log(&self) -> LogTail {
        LogTail::read(&self.log)
    }
}

struct Member {
    stage: Stage,
    orders: mpsc::Sender<Signal>,
    tending: JoinHandle<()>,
}

impl Member {
    fn order(&self, signal: Signal) {
        if self.orders.try_send(signal).is_err() {
            // It has ended, or has not yet obeyed as many orders as it can hold.
        }
    }
}

/// All children. Dropped, it kills whoever is left.
pub(crate) struct Family {
    logs: PathBuf,
    tether: PathBuf,
    members: Vec<Member>,
    deaths: mpsc::Sender<Death>,
}

/// Children start here: their parent, as the kernel counts it, is the calling *thread*, which must outlive them.
impl Family {
    /// `tether` is this very executable; logs go into `logs`.
    pub(crate) fn new(tether: PathBuf, logs: PathBuf) -> (Self, mpsc::Receiver<Death>) {
        let (deaths, reported) = mpsc::channel(64);
        (
            Self {
                logs,
                tether,
                members: Vec::new(),
                deaths,
            },
            reported,
        )
    }

    pub(crate) fn start(&mut self, launch: Launch) -> Result<Output, StartError> {
        let Launch {
            name,
            stage,
            program,
            arguments,
            variables,
        } = launch;
        let path = self.logs.join(format!("{name}.log"));
        let log = File::create(&path).map_err(|source| StartError::Log {
            path: path.clone(),
            source,
        })?;
        let kept = KEPT_VARIABLES
            .iter()
            .filter_map(|name| Some((*name, std::env::var_os(name)?)));
        let mut child = Command::new(&self.tether)
            .args([
                "demo-tether",
                "--parent",
                &std::process::id().to_string(),
                "--",
            ])
            .arg(&program)
            .args(arguments)
            .env_clear()
            .envs(kept)
            .envs(variables)
            .current_dir(&self.logs)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            // A group of its own: Ctrl-C reaches the demo only, which ends them in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| StartError::Spawn {
                name: name.clone(),
                program,
                source,
            })?;
        let stdout = child.stdout.take().expect("stdout is piped above");
        let (heard, lines) = mpsc::channel(LINES);
        tokio::spawn(listen(stdout, heard));
        let (orders, received) = mpsc::channel(4);
        let deaths = self.deaths.clone();
        let output = Output {
            name: name.clone(),
            log: path.clone(),
            lines,
        };
        let tending = tokio::spawn(async move {
            // Traffic ends when it is over; its output tells whether it went well.
            if let Some(status) = tend(child, received).await
                && stage != Stage::Traffic
            {
                let status =
                    status.map_or_else(|cause| cause.to_string(), |status| status.to_string());
                // Nobody listens any more once the demo is ending.
                drop(
                    deaths
                        .send(Death {
                            name,
                            status,
                            log: LogTail::read(&path),
                        })
                        .await,
                );
            }
        });
        self.members.push(Member {
            stage,
            orders,
            tending,
        });
        Ok(output)
    }

    /// Ends everyone, stage by stage; whoever has not drained within `patience` is killed.
    pub(crate) async fn stop(mut self, patience: Duration) {
        for stage in [Stage::Traffic, Stage::Storefront, Stage::Backstage] {
            let (ending, staying) = self
                .members
                .into_iter()
                .partition(|member| member.stage == stage);
            self.members = staying;
            end(ending, patience).await;
        }
    }
}

async fn end(members: Vec<Member>, patience: Duration) {
    for member in &members {
        member.order(Signal::SIGTERM);
    }
    let deadline = tokio::time::Instant::now() + patience;
    for mut member in members {
        if tokio::time::timeout_at(deadline, &mut member.tending)
            .await
            .is_err()
        {
            member.order(Signal::SIGKILL);
            drop(member.tending.await);
        }
    }
}

/// Until the child has ended; its status, unless it ended on our order.
async fn tend(
    mut child: tokio::process::Child,
    mut orders: mpsc::Receiver<Signal>,
) -> Option<io::Result<ExitStatus>> {
    let mut ordered = false;
    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .map(Pid::from_raw);
    loop {
        tokio::select! {
            status = child.wait() => return (!ordered).then_some(status),
            order = orders.recv() => {
                let order = order.unwrap_or(Signal::SIGKILL);
                // Not yet waited for, so the number is still this child's.
                if let Some(pid) = pid && signal::kill(pid, order).is_err() {
                    return None;
                }
                ordered = true;
            }
        }
    }
}

async fn listen(stdout: ChildStdout, heard: mpsc::Sender<String>) {
    let mut lines = AsyncBufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // Full: nobody reads this child's lines, and it must not wait for us.
        drop(heard.try_send(line));
    }
}
