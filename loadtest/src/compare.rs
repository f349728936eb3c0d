// SPDX-License-Identifier: Apache-2.0
//! `pillion-loadtest compare`: our proxy beside its peers on this machine. Starts everything itself (backend, control
//! plane, collector, proxies), measures peer after peer within each round, and says what came of it. Called by `main`.
//!
//! It builds nothing and knows nothing of our programs but their command lines and the App Mesh API.

mod backend;
mod client;
mod conduct;
mod duplex;
mod figures;
mod frames;
mod html;
mod machine;
mod markdown;
mod measure;
mod mesh;
mod peers;
mod plain;
mod program;
mod table;
mod workload;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use crate::args::{Output, parse_duration};
use crate::compare::figures::Report;
use crate::compare::workload::{WORKLOADS, Workload};

const EXAMPLES: &str = "\
Examples:
  Everything, five rounds, with a report to look at:
    pillion-loadtest compare --report bench.html --output json > bench.json

  Small HTTP/1.1 and the mesh path, our proxy against Envoy only:
    pillion-loadtest compare --workload h1-16,mesh-h1 --peers pillion,envoy

  Two builds of our proxy in the same rounds:
    pillion-loadtest compare --workload h1-16 --also before=/tmp/old/pillion-proxy

  Whether a change costs instructions (valgrind and strace must be there):
    pillion-loadtest compare --workload h1-16,grpc,mesh-h1 --peers pillion --rounds 1 --instructions \\
        --guard loadtest/counts.json

  A document from results that were saved:
    pillion-loadtest compare --from bench.json --markdown docs/benchmarks.md

Programs under measurement run on core 0, everything else on core 1. Release builds only give figures that mean
anything. A peer that is not installed is named with the command that installs it.";

/// Measure our proxy beside Envoy, nginx and haproxy.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Compare {
    /// Workloads by name; all if none is named
    #[arg(long = "workload", value_delimiter = ',')]
    workloads: Vec<String>,
    /// Peers by name (pillion, envoy, nginx, haproxy); all that are installed if none is named
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Another build of our proxy, measured in the same rounds
    #[arg(long, value_name = "NAME=PATH")]
    also: Vec<String>,
    /// How often each peer is measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long one measurement takes
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    seconds: Duration,
    /// One short round of everything, in about a minute: whether it works, not how fast
    #[arg(long)]
    quick: bool,
    /// Also count user instructions with valgrind (some minutes)
    #[arg(long)]
    instructions: bool,
    /// Run everything under SCHED_FIFO, so that neighbours on the machine show less (root)
    #[arg(long)]
    realtime: bool,
    /// What to print on standard output
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Write a report with plots, one HTML file that needs nothing else
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write the tables as a Markdown document
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Measure nothing: take the results of earlier runs (repeatable)
    #[arg(long, value_name = "JSON")]
    from: Vec<PathBuf>,
    /// Fail if our instructions or system calls per request have grown by more than 3 % since this result
    #[arg(long, value_name = "JSON")]
    guard: Option<PathBuf>,
    /// Where our programs are, if not beside this one
    #[arg(long, value_name = "FOLDER")]
    bin_dir: Option<PathBuf>,
}

/// A command line that holds.
pub(crate) struct Plan {
    workloads: Vec<Workload>,
    peers: Vec<String>,
    also: Vec<(String, PathBuf)>,
    rounds: usize,
    seconds: Duration,
    instructions: bool,
    /// strace is run, and connections at rest are as many as the workload says.
    thorough: bool,
    realtime: bool,
    bin_dir: Option<PathBuf>,
}

impl Compare {
    fn check(&self) -> Result<Plan, Vec<String>> {
        let mut problems = Vec::new();
        let known: Vec<&str> = WORKLOADS.iter().map(|workload| workload.name).collect();
        let named = self.workloads.iter().map(|name| {
            Workload::named(name)
                .ok_or_else(|| format!("--workload {name}: must be one of {}", known.join(", ")))
        });
        let workloads: Vec<Workload> = named
            .filter_map(|one| one.map_err(|problem| problems.push(problem)).ok())
            .collect();
        for peer in &self.peers {
            if !["pillion", "envoy", "nginx", "haproxy"].contains(&peer.as_str()) {
                problems.push(format!(
                    "--peers {peer}: must be one of pillion, envoy, nginx, haproxy"
                ));
            }
        }
        let mut also = Vec::new();
        for pair in &self.also {
            match pair.split_once('=') {
                Some((name, path)) if !name.is_empty() && std::path::Path::new(path).is_file() => {
                    // The programs are started in folders of their own.
                    also.push((
                        name.to_owned(),
                        std::path::absolute(path).unwrap_or_else(|_| path.into()),
                    ));
                }
                _ => problems.push(format!(
                    "--also {pair}: must be NAME=PATH of a pillion-proxy"
                )),
            }
        }
        if !(1..=1000).contains(&self.rounds) {
            problems.push(format!("--rounds {}: must be 1 to 1000", self.rounds));
        }
        if self.seconds.is_zero() || self.seconds > Duration::from_secs(600) {
            problems.push(format!(
                "--seconds {:?}: must be above 0 and at most 10 minutes",
                self.seconds
            ));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let workloads = if workloads.is_empty() {
            WORKLOADS.to_vec()
        } else {
            workloads
        };
        Ok(Plan {
            workloads,
            peers: self.peers.clone(),
            also,
            rounds: if self.quick { 1 } else { self.rounds },
            seconds: if self.quick {
                self.seconds.min(Duration::from_millis(300))
            } else {
                self.seconds
            },
            instructions: self.instructions,
            thorough: !self.quick,
            realtime: self.realtime,
            bin_dir: self.bin_dir.clone(),
        })
    }

    /// The problems of the command line, or how the comparison ended.
    pub(crate) fn run(self) -> Result<anyhow::Result<()>, Vec<String>> {
        let plan = self.check()?;
        Ok(self.carry_out(&plan))
    }

    fn carry_out(&self, plan: &Plan) -> anyhow::Result<()> {
        let report = if self.from.is_empty() {
            conduct::conduct(plan)?
        } else {
            read(&self.from)?
        };
        if let Some(path) = &self.report {
            std::fs::write(path, html::page(&report))
                .with_context(|| format!("--report {}", path.display()))?;
        }
        if let Some(path) = &self.markdown {
            std::fs::write(path, markdown::document(&report))
                .with_context(|| format!("--markdown {}", path.display()))?;
        }
        match self.output {
            Output::Json => crate::say(&(serde_json::to_string_pretty(&report)? + "\n")),
            Output::Text => crate::say(&table::text(&report)),
        }?;
        let Some(path) = &self.guard else {
            return Ok(());
        };
        let grown = report.regressions(&read(std::slice::from_ref(path))?);
        anyhow::ensure!(
            grown.is_empty(),
            "--guard {}: grown by more than 3 %:\n{}",
            path.display(),
            grown.join("\n")
        );
        Ok(())
    }
}

/// Several results as one; the first says on which machine, a later one's workload replaces an earlier one's.
fn read(paths: &[PathBuf]) -> anyhow::Result<Report> {
    let mut whole: Option<Report> = None;
    for path in paths {
        let read = || -> anyhow::Result<Report> {
            Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?)
        };
        let next = read().with_context(|| {
            format!("--from {}: read the result of a comparison", path.display())
        })?;
        match &mut whole {
            None => whole = Some(next),
            Some(whole) => {
                for measured in next.workloads {
                    whole.workloads.retain(|one| one.name != measured.name);
                    whole.workloads.push(measured);
                }
                whole.versions.extend(next.versions);
                whole.command = format!("{}\n{}", whole.command, next.command);
            }
        }
    }
    let mut whole = whole.context("--from: no result")?;
    let place = |name: &str| WORKLOADS.iter().position(|workload| workload.name == name);
    whole
        .workloads
        .sort_by_key(|measured| place(&measured.name));
    Ok(whole)
}
