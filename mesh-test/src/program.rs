// SPDX-License-Identifier: Apache-2.0
//! One built program, running: started with settings and environment, ready when its first line says so, its log kept
//! for the failure message, killed with the value.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncBufReadExt;
use tokio::io::BufReader;
use tokio::process::Child;
use tokio::process::ChildStdout;
use tokio::process::Command;

const READY_WITHIN: Duration = Duration::from_secs(20);
const DRAINED_WITHIN: Duration = Duration::from_secs(30);

/// A running program.
pub struct Program {
    name: String,
    child: Child,
    addresses: BTreeMap<String, SocketAddr>,
    log: PathBuf,
    /// Kept open: a program whose stdout is closed may be hurt by writing to it.
    _stdout: tokio::task::JoinHandle<()>,
    _dir: TempDir,
}

/// Where cargo put the programs: beside the test binary's own folder.
pub fn built(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe().context("find the test binary")?;
    let dir = test
        .parent()
        .and_then(std::path::Path::parent)
        .context("the test binary lies in target/<profile>/deps")?;
    let program = dir.join(name);
    if !program.exists() {
        bail!(
            "{} is not built; run `cargo build --workspace` first",
            program.display()
        );
    }
    Ok(program)
}

impl Program {
    /// Starts `name` and waits for its readiness line.
    pub async fn start(
        name: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Program> {
        let dir = tempfile::tempdir()?;
        let command = Command::new(built(name)?);
        Program::launch((name, command), arguments, environment, dir).await
    }

    /// As [`Program::start`], as another user, who need not be able to read the folder of the build.
    pub async fn start_as(
        uid: u32,
        name: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Program> {
        let dir = tempfile::tempdir()?;
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755))?;
        let copy = dir.path().join(name);
        let original = built(name)?;
        if std::fs::hard_link(&original, &copy).is_err() {
            std::fs::copy(&original, &copy)?;
        }
        let mut command = Command::new(copy);
        command.uid(uid).gid(uid);
        Program::launch((name, command), arguments, environment, dir).await
    }

    async fn launch(
        (name, mut command): (&str, Command),
        arguments: &[&str],
        environment: &[(&str, &str)],
        dir: TempDir,
    ) -> anyhow::Result<Program> {
        let log = dir.path().join("log");
        let mut child = command
            .args(arguments)
            .envs(environment.iter().copied())
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let first = tokio::time::timeout(READY_WITHIN, lines.next_line()).await;
        let Ok(Ok(Some(line))) = first else {
            bail!(
                "{name} {arguments:?} printed no readiness line; its log:\n{}",
                read(&log)
            );
        };
        let addresses = addresses(&line).with_context(|| format!("{name} said {line:?}"))?;
        let _stdout = tokio::spawn(swallow(lines));
        Ok(Program {
            name: name.to_owned(),
            child,
            addresses,
            log,
            _stdout,
            _dir: dir,
        })
    }

    /// A bound address by its name in the readiness line.
    pub fn address(&self, name: &str) -> anyhow::Result<SocketAddr> {
        let found = self.addresses.get(name).copied();
        found.with_context(|| {
            format!(
                "{} names no address {name:?}, only {:?}",
                self.name, self.addresses
            )
        })
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        read(&self.log)
    }

    /// Process id, for `/proc` and signals.
    pub fn pid(&self) -> anyhow::Result<Pid> {
        let id = self
            .child
            .id()
            .with_context(|| format!("{} has ended", self.name))?;
        Ok(Pid::from_raw(i32::try_from(id)?))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        nix::sys::signal::kill(self.pid()?, signal).context("signal the program")
    }

    /// SIGTERM, and the exit status once drained.
    pub async fn drain(mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        let ended = tokio::time::timeout(DRAINED_WITHIN, self.child.wait()).await;
        Ok(ended.with_context(|| {
            format!(
                "{} still runs after SIGTERM:\n{}",
                self.name,
                read(&self.log)
            )
        })??)
    }

    /// SIGKILL: no farewell of any kind.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("kill the program")
    }
}

async fn swallow(mut lines: tokio::io::Lines<BufReader<ChildStdout>>) {
    while let Ok(Some(_)) = lines.next_line().await {}
}

fn addresses(line: &str) -> anyhow::Result<BTreeMap<String, SocketAddr>> {
    let line: Value = serde_json::from_str(line)?;
    if line["event"] != "listening" {
        bail!("the first line is not the readiness line");
    }
    let named = line["addresses"].as_object().context("no addresses")?;
    named
        .iter()
        .map(|(name, addr)| {
            Ok((
                name.clone(),
                addr.as_str().context("not a string")?.parse()?,
            ))
        })
        .collect()
}

fn read(log: &std::path::Path) -> String {
    std::fs::read_to_string(log).unwrap_or_else(|error| format!("(no log: {error})"))
}
