// SPDX-License-Identifier: Apache-2.0
//! Runs foreign programs at the workspace root, saying what it runs; a missing program is an error with the way to get it.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context;
use anyhow::bail;

/// A place to run programs from.
pub(crate) struct Shell {
    root: PathBuf,
}

impl Shell {
    pub(crate) fn at_workspace_root() -> anyhow::Result<Shell> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask lies in the workspace")?;
        Ok(Shell {
            root: root.to_path_buf(),
        })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Announces what comes next.
    pub(crate) fn step(&self, what: &str) {
        eprintln!("==> {what}");
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.root);
        command
    }

    /// Runs to the end; a failure ends the task.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let line = format!("{program} {}", arguments.join(" "));
        eprintln!("    {line}");
        let status = self
            .command(program, arguments)
            .status()
            .map_err(|error| missing(program, error))?;
        if !status.success() {
            bail!("`{line}` failed: {status}");
        }
        Ok(())
    }

    /// What a program prints.
    pub(crate) fn capture(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self
            .command(program, arguments)
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| missing(program, error))?;
        if !output.status.success() {
            bail!(
                "`{program} {}` failed: {}",
                arguments.join(" "),
                output.status
            );
        }
        String::from_utf8(output.stdout)
            .with_context(|| format!("{program} printed something that is not UTF-8"))
    }

    /// Whether a program is there and content.
    pub(crate) fn succeeds(&self, program: &str, arguments: &[&str]) -> bool {
        let quiet = self
            .command(program, arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        quiet.is_ok_and(|status| status.success())
    }

    /// Replaces this process, so that signals reach the program itself.
    pub(crate) fn become_program(&self, program: &Path, arguments: &[&str]) -> anyhow::Result<()> {
        let error = Command::new(program).args(arguments).exec();
        Err(error).with_context(|| format!("run {}", program.display()))
    }
}

fn missing(program: &str, error: io::Error) -> anyhow::Error {
    let advice = match program {
        "npm" | "node" => {
            "install Node.js 20.19 or newer (Debian: `apt-get install -y nodejs npm`)"
        }
        "python3" => {
            "install Python 3.11 or newer (Debian: `apt-get install -y python3 python3-venv`)"
        }
        "cargo" => "install the Rust toolchain",
        _ => "install it and run this again",
    };
    anyhow::Error::new(error).context(format!("run {program}: {advice}"))
}
