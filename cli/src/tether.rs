// SPDX-License-Identifier: Apache-2.0
//! `pillion demo-tether`: asks the kernel to end this process when its parent dies, then becomes the program it was
//! given. The demo starts every child through it, so that even `kill -9` of the demo leaves nothing running.
//!
//! A program of its own because setting this between fork and exec from the parent needs `unsafe`.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, bail};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

use crate::args::DemoTether;

/// Returns only if the program could not be started.
pub(crate) fn become_program(tether: &DemoTether) -> anyhow::Result<()> {
    prctl::set_pdeathsig(Signal::SIGTERM).context("ask to end with the demo")?;
    // It may have died before the line above.
    if getppid().as_raw() != tether.parent {
        bail!("the demo has ended");
    }
    let (program, arguments) = tether.command.split_first().context("no program given")?;
    let cause = Command::new(program).args(arguments).exec();
    Err(cause).with_context(|| format!("start {program}"))
}
