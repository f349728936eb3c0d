// SPDX-License-Identifier: Apache-2.0
//! Where the demo's programs lie: beside the running executable, where cargo and a release archive put them alike.

use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramsError {
    #[error("find this executable")]
    Own(#[from] std::io::Error),
    #[error(
        "{} missing beside {}; build them with `cargo build --workspace --bins` (with the same profile), \
         or run `cargo xtask demo`, which does",
        .missing.join(", "), .own.display()
    )]
    Missing {
        missing: Vec<&'static str>,
        own: PathBuf,
    },
}

#[derive(Debug)]
pub(crate) struct Programs {
    own: PathBuf,
}

pub(crate) const CONTROL_PLANE: &str = "pillion-control-plane";
pub(crate) const COLLECTOR: &str = "pillion-collector";
pub(crate) const PROXY: &str = "pillion-proxy";
pub(crate) const LOADTEST: &str = "pillion-loadtest";

impl Programs {
    pub(crate) fn find() -> Result<Self, ProgramsError> {
        let programs = Self {
            own: std::env::current_exe()?,
        };
        let mut missing = vec![CONTROL_PLANE, COLLECTOR, PROXY, LOADTEST];
        missing.retain(|name| !programs.path(name).is_file());
        if missing.is_empty() {
            return Ok(programs);
        }
        Err(ProgramsError::Missing {
            missing,
            own: programs.own,
        })
    }

    pub(crate) fn own(&self) -> &Path {
        &self.own
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.own.with_file_name(name)
    }
}
