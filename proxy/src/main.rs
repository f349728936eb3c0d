// SPDX-License-Identifier: Apache-2.0
//! `pillion-proxy`: arguments, runtime, exit code. Exit codes: 0 drained, 1 failed, 2 bad usage or configuration.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use pillion_proxy::app::App;
use pillion_proxy::config;
use pillion_proxy::config::Args;
use pillion_proxy::config::Command;
use pillion_proxy::config::Config;
use pillion_proxy::config::Problem;
use pillion_proxy::descriptors;
use pillion_proxy::intercept;
use pillion_runtime::telemetry;

/// A request is some forty small allocations: docs/adr/007 has what this one saves.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const BAD_CONFIGURATION: u8 = 2;
/// Threads for xDS, admin, export and logs; requests never run here.
const CONTROL_THREADS: usize = 2;

/// What still blocks when all tasks have ended may take this long.
const LAST_WRITES: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Command::Intercept(args)) = &args.command {
        return intercept(args);
    }
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let config = match args.check(&env) {
        Ok(config) => config,
        Err(problems) => return report(&problems),
    };
    if args.check {
        return show(&config);
    }
    let level = telemetry::init_logging(&config.log_filter);
    for warning in config::warnings(&env) {
        tracing::warn!("{warning}");
    }
    tracing::info!(config = %config.to_json(), "effective configuration");
    descriptors::raise();
    match run(config, level) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config, level: telemetry::LogLevel) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("start the control runtime")?;
    let ran = runtime.block_on(async {
        let app = App::start(config, level)?;
        app.run().await;
        Ok(())
    });
    // A write that hangs (a log whose reader has stopped) must not keep the process.
    runtime.shutdown_timeout(LAST_WRITES);
    ran
}

#[allow(
    clippy::print_stderr,
    reason = "usage errors come before there is a log, for a person at a terminal"
)]
fn report(problems: &[Problem]) -> ExitCode {
    eprintln!("pillion-proxy cannot start:");
    for problem in problems {
        eprintln!("  {problem}");
    }
    eprintln!("See pillion-proxy --help.");
    ExitCode::from(BAD_CONFIGURATION)
}

#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command for a person or a boot script talks on its streams"
)]
fn intercept(args: &intercept::Args) -> ExitCode {
    let rules = match args.check() {
        Ok(rules) => rules,
        Err(problems) => return report(&problems),
    };
    match intercept::run(args, &rules).map_err(anyhow::Error::new) {
        Ok(told) => {
            print!("{told}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("pillion-proxy intercept: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "--check answers on stdout")]
fn show(config: &Config) -> ExitCode {
    println!("{:#}", config.to_json());
    ExitCode::SUCCESS
}
