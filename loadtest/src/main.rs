// SPDX-License-Identifier: Apache-2.0
//! `pillion-loadtest`: reads the command line, runs one measurement or one comparison, prints its report and turns it into
//! an exit code (0 every request was answered well, 1 some were not, 2 bad usage). Decides nothing else.

mod args;
mod compare;
mod connection;
mod driver;
mod pacer;
mod report;
mod schedule;
mod tally;
mod tls;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(run) => match run.check() {
            Ok(plan) => ended(measure(&plan)),
            Err(problems) => misused("run", problems),
        },
        Command::Compare(compare) => match compare.run() {
            Ok(result) => ended(result.map(|()| true)),
            Err(problems) => misused("compare", problems),
        },
    }
}

fn misused(command: &str, problems: Vec<String>) -> ExitCode {
    for problem in problems {
        complain(&format!("error: {problem}"));
    }
    complain(&format!(
        "`pillion-loadtest {command} --help` shows every setting with examples."
    ));
    ExitCode::from(2)
}

fn ended(result: anyhow::Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            complain(&format!("error: {error:#}"));
            ExitCode::from(1)
        }
    }
}

/// True when every request was sent and answered with a status below 400.
fn measure(plan: &args::Plan) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(plan.threads)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let summary = runtime.block_on(driver::run(plan))?;
    report::emit_final(plan, &summary)?;
    if let Some(cause) = &summary.last_error {
        complain(&format!("last failure: {cause}"));
    }
    runtime.shutdown_background();
    // Whoever interrupts a run cuts off what was due or under way at that moment; that is no failing of the target.
    let cut_off = summary.unsent + summary.totals.unfinished;
    let failed = summary.totals.failures() + summary.unsent;
    let excused = if summary.interrupted { cut_off } else { 0 };
    Ok(failed <= excused)
}

/// Writes to standard output, whatever it is.
fn say(text: &str) -> anyhow::Result<()> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("write to standard output")
}

/// Standard error may be closed by whoever reads us; there is then nobody left to tell.
fn complain(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}
