// SPDX-License-Identifier: Apache-2.0
//! One measurement of one running peer: a closed loop for cost, an open one for latency, connections at rest for memory,
//! strace and callgrind for counts. Called by `conduct`, which orders and repeats them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use super::client::{self, Load};
use super::figures::Metric;
use super::mesh::Mesh;
use super::peers::Running;
use super::workload::Workload;

/// Figures of one measurement, by what they are.
pub(crate) type Figures = BTreeMap<Metric, f64>;

/// After the last connection was opened: time enough to give back what only busy ones need.
const SETTLED: Duration = Duration::from_secs(10);
const WARM_UP: Duration = Duration::from_millis(300);

impl Running {
    fn cpu_ns(&self) -> u64 {
        self.programs
            .iter()
            .map(super::program::Program::cpu_ns)
            .sum()
    }

    pub(crate) fn resident_kib(&self) -> u64 {
        self.programs
            .iter()
            .map(super::program::Program::resident_kib)
            .sum()
    }

    /// Until an exchange succeeds.
    pub(crate) async fn ready(&self, workload: Workload, within: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + within;
        while let Err(reason) = client::check(self.address, workload).await {
            if Instant::now() > deadline {
                let logs: Vec<_> = self
                    .programs
                    .iter()
                    .map(super::program::Program::complaint)
                    .collect();
                bail!(
                    "no exchange within {within:?}: {reason:#}\n{}",
                    logs.join("\n")
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

/// As many exchanges as fit: CPU per exchange, exchanges per second, how busy the proxy's core was.
pub(crate) async fn closed(
    running: &Running,
    workload: Workload,
    length: Duration,
) -> anyhow::Result<Figures> {
    let load = Load::start(running.address, workload, None)?;
    tokio::time::sleep(WARM_UP).await;
    let (cpu, done, failed, at) = (
        running.cpu_ns(),
        load.meter.done.get(),
        load.meter.failed.get(),
        Instant::now(),
    );
    tokio::time::sleep(length).await;
    let spent = nanoseconds(running.cpu_ns() - cpu);
    let (came, wall) = (load.meter.done.get() - done, at.elapsed());
    ensure!(
        came > 0,
        "no answer in {length:?}: {:?}",
        load.meter.error.borrow()
    );
    let failed = load.meter.failed.get() - failed;
    if failed > 0 {
        tracing_line(&load);
    }
    Ok(BTreeMap::from([
        (Metric::Cpu, spent / 1000.0 / count(came)),
        (Metric::Throughput, count(came) / wall.as_secs_f64()),
        (Metric::Busy, spent / 1e9 / wall.as_secs_f64()),
        (Metric::Failed, count(failed)),
    ]))
}

fn tracing_line(load: &Load) {
    if let Some(error) = load.meter.error.borrow().as_deref() {
        crate::complain(&format!("a failed exchange: {error}"));
    }
}

/// Latencies at a rate, in microseconds, and what a request costs a proxy that is not busy.
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

pub(crate) async fn open(
    target: std::net::SocketAddr,
    running: Option<&Running>,
    workload: Workload,
    length: Duration,
) -> anyhow::Result<(Latency, f64)> {
    let load = Load::start(
        target,
        workload,
        Some(workload.rate.context("a workload with a rate")?),
    )?;
    tokio::time::sleep(WARM_UP).await;
    load.meter.restart();
    let cpu = || running.map_or(0, Running::cpu_ns);
    let (before, done) = (cpu(), load.meter.done.get());
    tokio::time::sleep(length).await;
    let spent = nanoseconds(cpu() - before) / 1000.0;
    let came = load.meter.done.get() - done;
    ensure!(
        came > 0,
        "no answer in {length:?}: {:?}",
        load.meter.error.borrow()
    );
    let latency = Latency {
        p50: load.meter.quantile_us(0.5),
        p99: load.meter.quantile_us(0.99),
        p999: load.meter.quantile_us(0.999),
    };
    Ok((latency, spent / count(came)))
}

/// Memory and CPU at rest, with no connection and with many.
pub(crate) async fn idle(
    running: &Running,
    workload: Workload,
    length: Duration,
) -> anyhow::Result<Figures> {
    let (cpu, at) = (running.cpu_ns(), Instant::now());
    tokio::time::sleep(length.max(Duration::from_secs(1))).await;
    let idle_cpu = nanoseconds(running.cpu_ns() - cpu) / 1000.0 / at.elapsed().as_secs_f64();
    let rest = running.resident_kib();
    let load = Load::start(running.address, workload, None)?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while load.open.get() < workload.connections {
        ensure!(
            Instant::now() < deadline,
            "{} of {} connections in a minute: {:?}",
            load.open.get(),
            workload.connections,
            load.meter.error.borrow()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(SETTLED).await;
    let grown = running.resident_kib().saturating_sub(rest);
    Ok(BTreeMap::from([
        (Metric::IdleCpu, idle_cpu),
        (Metric::IdleMemory, count(rest) / 1024.0),
        (
            Metric::PerConnection,
            count(grown) / count(workload.connections as u64),
        ),
    ]))
}

/// A closed loop while the route changes; the changes count themselves.
pub(crate) async fn swaps(
    running: &Running,
    mesh: &Mesh,
    workload: Workload,
    length: Duration,
) -> anyhow::Result<Figures> {
    let swapping = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        for turn in 0u32.. {
            ticks.tick().await;
            mesh.swap(&running.name, 10 + turn % 80).await?;
        }
        Ok::<_, anyhow::Error>(())
    };
    tokio::select! {
        figures = closed(running, workload, length) => figures,
        failed = swapping => failed.and(Err(anyhow::anyhow!("the swaps ended"))),
    }
}

/// System calls per exchange, all threads, with few connections. strace is there before the first exchange and stays
/// until after the last, so that it counts just what the exchanges cost.
pub(crate) async fn system_calls(
    running: &Running,
    workload: Workload,
    folder: &Path,
) -> anyhow::Result<f64> {
    let mut traces = Vec::new();
    for pid in running
        .programs
        .iter()
        .flat_map(super::program::Program::pids)
    {
        let file = folder.join(format!("strace-{pid}"));
        let child = Command::new("strace")
            .args(["-c", "-f", "-U", "calls,name", "-o"])
            .arg(&file)
            .args(["-p", &pid.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start strace")?;
        traces.push((child, file));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let load = Load::start(running.address, few(workload), None)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let done = load.meter.done.get();
    drop(load);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut calls = 0;
    for (mut child, file) in traces {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT)?;
        child.wait()?;
        calls += total_calls(&std::fs::read_to_string(file).unwrap_or_default());
    }
    ensure!(
        done > 0 && calls > 0,
        "{done} answers and {calls} calls under strace; may it attach?"
    );
    Ok(count(calls) / count(done))
}

/// The last line of strace's summary with columns `calls,name`.
fn total_calls(summary: &str) -> u64 {
    let total = summary
        .lines()
        .rev()
        .find_map(|line| line.trim_end().strip_suffix("total"));
    total.and_then(|line| line.trim().parse().ok()).unwrap_or(0)
}

fn few(workload: Workload) -> Workload {
    Workload {
        connections: 4,
        ..workload
    }
}

/// User instructions per exchange, for programs that were started under callgrind: its counts between two moments of a
/// closed loop.
pub(crate) async fn instructions(
    running: &Running,
    workload: Workload,
    folder: &Path,
) -> anyhow::Result<f64> {
    let load = Load::start(running.address, few(workload), None)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let pids: Vec<u32> = running
        .programs
        .iter()
        .flat_map(super::program::Program::pids)
        .collect();
    for pid in &pids {
        callgrind(*pid, "-z").await?;
    }
    let done = load.meter.done.get();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let done = load.meter.done.get() - done;
    let mut counted = 0;
    for pid in &pids {
        callgrind(*pid, "-d").await?;
        counted += dumped(folder, *pid);
    }
    ensure!(
        done > 0 && counted > 0,
        "{done} answers and {counted} instructions under callgrind"
    );
    Ok(count(counted) / count(done))
}

async fn callgrind(pid: u32, order: &str) -> anyhow::Result<()> {
    let mut control = tokio::process::Command::new("callgrind_control");
    let said = control
        .args([order, &pid.to_string()])
        .output()
        .await
        .context("callgrind_control")?;
    ensure!(
        said.status.success(),
        "callgrind_control {order} {pid}: {}",
        String::from_utf8_lossy(&said.stdout)
    );
    Ok(())
}

/// Instructions in a process's newest dump; 0 if it made none, as nginx's idle master.
fn dumped(folder: &Path, pid: u32) -> u64 {
    let begins = format!("callgrind.{pid}.");
    let dumps = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let newest = dumps
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&begins))
        .max_by_key(|entry| entry.metadata().and_then(|data| data.modified()).ok());
    let text = newest
        .and_then(|entry| std::fs::read_to_string(entry.path()).ok())
        .unwrap_or_default();
    let total = text.lines().rev().find_map(|line| {
        line.strip_prefix("totals:")
            .or(line.strip_prefix("summary:"))
    });
    total
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts and nanoseconds of seconds stay below 2^53"
)]
fn count(value: u64) -> f64 {
    value as f64
}

fn nanoseconds(value: u64) -> f64 {
    count(value)
}
