// SPDX-License-Identifier: Apache-2.0
//! Project automation: what a person types after cloning. `cargo xtask demo` runs the mesh, `cargo xtask test` passes
//! its tests; both install what they need. Nothing here is shipped.
#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a command-line tool talks on its streams"
)]

mod setup;
mod shell;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use clap::Subcommand;

use shell::Shell;

/// Pillion's project automation.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    after_help = "Examples:\n  cargo xtask demo\n  cargo xtask demo --for 20s --output json\n  cargo xtask test"
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build everything in release mode and run the demo mesh; arguments go to `pillion demo`
    Demo {
        /// Arguments of `pillion demo`, such as `--for 20s --output json`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Install what the tests need, then run every check and every test
    Test,
    /// Install what the tests need: system packages (as root), the Python environment, dashboard packages
    Setup,
    /// Build the dashboard into dashboard/dist
    Dashboard,
    /// Check the tree against its own rules: crate edges, file heads, file sizes, links
    Tidy,
}

fn main() -> ExitCode {
    let outcome = Shell::at_workspace_root().and_then(|shell| run(Arguments::parse().verb, &shell));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb, shell: &Shell) -> anyhow::Result<()> {
    match verb {
        Verb::Demo { arguments } => demo(shell, &arguments),
        Verb::Test => test(shell),
        Verb::Setup => setup::everything(shell),
        Verb::Dashboard => setup::dashboard(shell),
        Verb::Tidy => tidy::check(shell),
    }
}

/// Release binaries are what a user would run, and the only ones whose latency means anything.
fn demo(shell: &Shell, arguments: &[String]) -> anyhow::Result<()> {
    setup::dashboard(shell)?;
    setup::python(shell)?;
    shell.step("build the programs (release, a few minutes the first time)");
    shell.run(
        "cargo",
        &[
            "build",
            "--release",
            "--locked",
            "--workspace",
            "--exclude",
            "xtask",
            "--bins",
        ],
    )?;
    let pillion = target_dir(shell)?.join("release/pillion");
    let clients = shell.root().join("target/venv/bin");
    shell.step(&format!(
        "the aws CLI is in target/venv; for the commands below: export PATH=\"{}:$PATH\"",
        clients.display()
    ));
    let words: Vec<&str> = std::iter::once("demo")
        .chain(arguments.iter().map(String::as_str))
        .collect();
    shell.become_program(&pillion, &words)
}

fn test(shell: &Shell) -> anyhow::Result<()> {
    setup::everything(shell)?;
    shell.step("tidy");
    tidy::check(shell)?;
    shell.step("format");
    shell.run("cargo", &["fmt", "--all", "--check"])?;
    shell.step("lint");
    shell.run(
        "cargo",
        &[
            "clippy",
            "--locked",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
    )?;
    shell.step("dashboard tests");
    shell.run("npm", &["--prefix", "dashboard", "test"])?;
    shell.run("npm", &["--prefix", "dashboard", "run", "test:browser"])?;
    shell.step("build");
    // One invocation for programs and tests, so that features are resolved once and nothing is compiled twice.
    shell.run(
        "cargo",
        &["build", "--locked", "--workspace", "--all-targets"],
    )?;
    shell.step("test");
    if shell.succeeds("cargo", &["nextest", "--version"]) {
        shell.run(
            "cargo",
            &[
                "nextest",
                "run",
                "--locked",
                "--workspace",
                "--no-fail-fast",
            ],
        )
    } else {
        shell.run(
            "cargo",
            &["test", "--locked", "--workspace", "--no-fail-fast"],
        )
    }
}

/// Where cargo puts what it builds.
fn target_dir(shell: &Shell) -> anyhow::Result<PathBuf> {
    let metadata = shell.capture("cargo", &["metadata", "--format-version", "1", "--no-deps"])?;
    let metadata: serde_json::Value =
        serde_json::from_str(&metadata).context("read cargo metadata")?;
    let dir = metadata["target_directory"]
        .as_str()
        .context("cargo metadata names no target directory")?;
    Ok(PathBuf::from(dir))
}
