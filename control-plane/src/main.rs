// SPDX-License-Identifier: Apache-2.0
//! The control plane's process: arguments, runtime, exit code (0 drained, 1 failed, 2 bad usage).

use std::process::ExitCode;

use clap::Parser;
use pillion_control_plane::app;
use pillion_control_plane::config::Args;
use pillion_control_plane::config::Config;

fn main() -> ExitCode {
    let args = Args::parse();
    let config = match args.check() {
        Ok(config) => config,
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::from(2);
        }
    };
    pillion_runtime::telemetry::init_logging("info");
    match start(config) {
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

#[expect(
    clippy::print_stderr,
    reason = "a person reads why the program did not start, not a log line"
)]
fn complain(message: &str) {
    for line in message.lines() {
        eprintln!("pillion-control-plane: {line}");
    }
}
