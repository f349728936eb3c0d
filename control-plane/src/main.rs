// SPDX-License-Identifier: Apache-2.0
//! The control plane's process: arguments, runtime, exit code (0 drained, 1 failed, 2 bad usage). `backup`,
//! `restore` and `migrate` end by themselves.

use std::fs::File;
use std::fs::OpenOptions;
use std::io::BufReader;
use std::io::BufWriter;
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use pillion_control_plane::app;
use pillion_control_plane::config::Args;
use pillion_control_plane::config::Config;
use pillion_control_plane::config::Task;
use pillion_control_plane::store::sql::Place;
use pillion_control_plane::store::sql::SqlStore;
use pillion_control_plane::store::sql::backup;

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(task) = args.task.clone() {
        return finish(tend(&args.store, task));
    }
    let config = match args.check() {
        Ok(config) => config,
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::from(2);
        }
    };
    pillion_runtime::telemetry::init_logging("info");
    finish(start(config))
}

fn finish(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::from(1)
        }
    }
}

fn start(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(app::run(config))?;
    Ok(())
}

fn tend(store: &str, task: Task) -> anyhow::Result<()> {
    let place = Place::parse(store).map_err(anyhow::Error::msg)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let told = match task {
        Task::Backup { to } => {
            // Mode 0600: it holds the authority's keys.
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&to)
                .with_context(|| format!("make {}", to.display()))?;
            let mut out = BufWriter::new(file);
            let copied = runtime.block_on(backup::back_up(&place, &mut out));
            let copied = match copied {
                Ok(copied) => copied,
                Err(error) => {
                    std::fs::remove_file(&to).ok();
                    return Err(error.into());
                }
            };
            out.into_inner()?.sync_all()?;
            let (rows, revision) = (copied.rows, copied.revision);
            format!(
                "{rows} rows of {place} at revision {revision} are in {}",
                to.display()
            )
        }
        Task::Restore { from, replace } => {
            let file = File::open(&from).with_context(|| format!("open {}", from.display()))?;
            let mut lines = BufReader::new(file);
            let copied = runtime.block_on(backup::restore(&place, &mut lines, replace))?;
            let (rows, revision) = (copied.rows, copied.revision);
            format!(
                "{rows} rows of {} are in {place}, which is at revision {revision}",
                from.display()
            )
        }
        Task::Migrate { to } => {
            let from = runtime.block_on(SqlStore::migrate(&place, to))?;
            format!("{place} was in format {from} and is in format {to}")
        }
    };
    complain(&told);
    Ok(())
}

#[expect(
    clippy::print_stderr,
    reason = "a person reads why the program did not start, not a log line"
)]
fn complain(message: &str) {
    for line in message.lines() {
        eprintln!("pillion-control-plane: {line}");
    }
}
