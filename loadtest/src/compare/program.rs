// SPDX-License-Identifier: Apache-2.0
//! A program under measurement: started on the core set apart for it, asked through `/proc` what it used, ended with the
//! value. Used by `peers` and `measure`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use nix::sched::CpuSet;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// Where programs run and we do not.
const THEIR_CPU: usize = 0;
const OUR_CPU: usize = 1;

/// How programs are started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Launch {
    /// Words before the program: `taskset`, `chrt`, `valgrind`.
    pub(crate) wrapped: Vec<String>,
}

impl Launch {
    pub(crate) fn counts_instructions(&self) -> bool {
        self.wrapped.iter().any(|word| word == "valgrind")
    }
}

/// Sets the calling thread, and those it starts, apart from the programs, if there are cores enough.
pub(crate) fn stand_apart(realtime: bool) -> anyhow::Result<Launch> {
    let mut launch = Launch::default();
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) {
        let mut cpus = CpuSet::new();
        cpus.set(OUR_CPU)?;
        nix::sched::sched_setaffinity(Pid::from_raw(0), &cpus).context("stay on one core")?;
        launch
            .wrapped
            .extend(["taskset", "-c", &THEIR_CPU.to_string()].map(str::to_owned));
    }
    if realtime {
        let own = std::process::id().to_string();
        let made = Command::new("chrt")
            .args(["-f", "-p", "1", &own])
            .status()
            .context("chrt")?;
        anyhow::ensure!(
            made.success(),
            "--realtime: chrt -f -p 1 {own} failed; it needs CAP_SYS_NICE"
        );
        // Programs inherit it.
    }
    Ok(launch)
}

/// Connections that a proxy may take in with this process's limit on descriptors, which it inherits: each may need one
/// more upstream, and there are others.
pub(crate) fn connections_allowed() -> usize {
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    let descriptors = limit.map_or(1024, |(soft, _)| soft);
    usize::try_from(descriptors / 2)
        .unwrap_or(usize::MAX)
        .saturating_sub(256)
}

pub(crate) struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    pub(crate) fn start(
        launch: &Launch,
        name: &str,
        mut command: Command,
        folder: &Path,
    ) -> anyhow::Result<Program> {
        let log = folder.join(format!("{name}.log"));
        let words: Vec<_> = launch
            .wrapped
            .iter()
            .map(std::ffi::OsString::from)
            .collect();
        if let Some((first, rest)) = words.split_first() {
            let mut wrapped = Command::new(first);
            wrapped
                .args(rest)
                .arg(command.get_program())
                .args(command.get_args());
            for (variable, value) in command.get_envs() {
                wrapped.env(variable, value.unwrap_or_default());
            }
            command = wrapped;
        }
        let child = command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(File::create(folder.join(format!("{name}.out")))?)
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("start {name}: {command:?}"))?;
        Ok(Program {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// What to show when it does not do what it should.
    pub(crate) fn complaint(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let tail = log.lines().rev().take(8).collect::<Vec<_>>();
        format!(
            "{}: {}",
            self.name,
            tail.into_iter().rev().collect::<Vec<_>>().join("\n")
        )
    }

    /// The process and what it started.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let mut all = vec![self.child.id()];
        let mut at = 0;
        while let Some(pid) = all.get(at) {
            all.extend(children(*pid));
            at += 1;
        }
        all
    }

    /// CPU time used so far, in nanoseconds.
    pub(crate) fn cpu_ns(&self) -> u64 {
        self.pids()
            .into_iter()
            .flat_map(tasks)
            .filter_map(|task| scheduled_ns(&task))
            .sum()
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.pids().into_iter().filter_map(resident_kib).sum()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A master that is killed leaves its workers: they go first. Whoever has ended already is no concern.
        for pid in self.pids().into_iter().rev() {
            if let Ok(pid) = i32::try_from(pid) {
                nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap_or_default();
            }
        }
        self.child.wait().map(drop).unwrap_or_default();
    }
}

fn tasks(pid: u32) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task"));
    entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect()
}

fn children(pid: u32) -> Vec<u32> {
    let lists = tasks(pid)
        .into_iter()
        .filter_map(|task| std::fs::read_to_string(task.join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The first number of `schedstat`: time on the CPU.
fn scheduled_ns(task: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(task.join("schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

fn resident_kib(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}
