// SPDX-License-Identifier: Apache-2.0
//! Installs what tests and dashboard need, once: system packages when root (otherwise it says which are missing), the
//! Python environment of foreign clients, the dashboard's packages. A stamp file per part makes the second run free.

use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::bail;

use crate::shell::Shell;

/// Debian packages the tests run, each with a program that proves it is there.
const SYSTEM: [(&str, &str); 5] = [
    ("chromium", "/usr/bin/chromium"),
    ("curl", "/usr/bin/curl"),
    ("iptables", "/usr/sbin/iptables"),
    ("iproute2", "/usr/sbin/ip"),
    ("postgresql", "/usr/lib/postgresql/15/bin/postgres"),
];

pub(crate) fn everything(shell: &Shell) -> anyhow::Result<()> {
    system(shell)?;
    python(shell)?;
    dashboard(shell)
}

fn system(shell: &Shell) -> anyhow::Result<()> {
    let absent: Vec<&str> = SYSTEM
        .iter()
        .filter(|(_, program)| !Path::new(program).exists())
        .map(|(package, _)| *package)
        .collect();
    if absent.is_empty() {
        return Ok(());
    }
    let install = format!("apt-get install -y {}", absent.join(" "));
    if shell.capture("id", &["-u"])?.trim() != "0" {
        bail!("system packages are missing; run `sudo {install}` and start again");
    }
    shell.step("install system packages");
    shell.run("apt-get", &["update", "-qq"])?;
    let words = ["install", "-y", "-qq", "--no-install-recommends"];
    shell.run("apt-get", &[&words, absent.as_slice()].concat())
}

/// The AWS clients and every other foreign client written in Python.
pub(crate) fn python(shell: &Shell) -> anyhow::Result<()> {
    let requirements = fs::read_to_string(shell.root().join("mesh-test/requirements.txt"))
        .context("read requirements")?;
    let venv = shell.root().join("target/venv");
    let stamp = venv.join("pillion-requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == requirements) {
        return Ok(());
    }
    shell.step("install the Python clients of the tests into target/venv");
    if !venv.join("bin/pip").exists() && !shell.succeeds("python3", &["-m", "venv", "target/venv"])
    {
        bail!(
            "`python3 -m venv target/venv` failed; on Debian run `apt-get install -y python3-venv` and start again"
        );
    }
    shell.run(
        "target/venv/bin/pip",
        &[
            "install",
            "--quiet",
            "--requirement",
            "mesh-test/requirements.txt",
        ],
    )?;
    fs::write(&stamp, requirements).context("write the stamp of target/venv")
}

/// Installs the dashboard's packages and builds it, unless its sources are older than what was built.
pub(crate) fn dashboard(shell: &Shell) -> anyhow::Result<()> {
    let dir = shell.root().join("dashboard");
    let built = dir.join("dist/index.html");
    let lock = dir.join("package-lock.json");
    if !newer(&dir.join("node_modules/.package-lock.json"), &[&lock])? {
        shell.step("install the dashboard's packages");
        shell.run(
            "npm",
            &["--prefix", "dashboard", "ci", "--no-audit", "--no-fund"],
        )?;
    }
    let sources = files_below(&dir.join("src"))?;
    let mut sources: Vec<&Path> = sources.iter().map(AsRef::as_ref).collect();
    sources.push(&lock);
    if newer(&built, &sources)? {
        return Ok(());
    }
    shell.step("build the dashboard");
    shell.run("npm", &["--prefix", "dashboard", "run", "build"])
}

/// Whether `result` exists and none of `sources` was changed after it.
fn newer(result: &Path, sources: &[&Path]) -> anyhow::Result<bool> {
    let Ok(made) = fs::metadata(result).and_then(|found| found.modified()) else {
        return Ok(false);
    };
    for source in sources {
        let changed = fs::metadata(source).and_then(|found| found.modified());
        if changed.with_context(|| format!("look at {}", source.display()))? > made {
            return Ok(false);
        }
    }
    Ok(true)
}

fn files_below(dir: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files_below(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}
