// SPDX-License-Identifier: Apache-2.0
//! Runs foreign clients from the Python environment that `cargo xtask setup` makes.

use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::bail;
use tokio::process::Command;

/// The environment's folder of programs (`python`, `aws`, …).
pub fn venv() -> anyhow::Result<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv");
    let dir = std::env::var_os("PILLION_VENV")
        .map_or(default, PathBuf::from)
        .join("bin");
    if !dir.join("python").exists() {
        bail!(
            "the Python clients are missing in {}; run `cargo xtask setup`",
            dir.display()
        );
    }
    Ok(dir)
}

/// Runs a program of the environment to its end and returns what it printed; a failure carries both streams.
pub async fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(venv()?.join(program))
        .args(arguments)
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_PAGER", "")
        .output()
        .await
        .with_context(|| format!("run {program}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        bail!(
            "{program} {arguments:?}: {}\n{}{}",
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
    }
    Ok(text(&output.stdout))
}
