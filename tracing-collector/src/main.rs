// SPDX-License-Identifier: Apache-2.0
//! `pillion-collector`: arguments, runtime, exit code.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use pillion_collector::app;
use pillion_collector::config::Args;
use pillion_collector::config::Config;
use pillion_runtime::signals::Termination;
use pillion_runtime::telemetry;

/// The settings do not hold.
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    let level = args.log_level().unwrap_or("info");
    telemetry::init_logging(&format!("{level},fjall=warn,lsm_tree=warn"));
    let config = match args.check() {
        Ok(config) => config,
        Err(problems) => {
            for problem in problems {
                tracing::error!("{problem}");
            }
            return ExitCode::from(BAD_USAGE);
        }
    };
    match run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(config: &Config) -> anyhow::Result<()> {
    let mut termination = Termination::listen();
    let app = app::start(config).await.context("start the collector")?;
    let signal = termination.asked().await;
    tracing::info!(signal, "draining");
    let cut_off = app.drain().await;
    if cut_off > 0 {
        tracing::warn!(cut_off, "tasks did not end in time");
    }
    Ok(())
}
