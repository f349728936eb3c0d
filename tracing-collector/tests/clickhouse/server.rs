// SPDX-License-Identifier: Apache-2.0
//! ClickHouse's engine for tests: `shim.py` in the tests' Python environment, on a folder and a port of its own. Part of
//! the store's own tests and of those of the built program.

use std::io::BufRead;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    folder: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start(arguments: &[&str]) -> Server {
        let folder = tempfile::tempdir().expect("a folder");
        let (child, port) = spawn(&folder, 0, arguments);
        Server {
            child,
            port,
            folder,
        }
    }

    pub(crate) fn stop(&mut self) {
        // Already stopped by the test, or stopped now; either is fine.
        if self.child.kill().is_ok() {
            self.child.wait().expect("it ends");
        }
    }

    /// After a stop, with what it had.
    #[allow(dead_code, reason = "the store's own tests never stop it")]
    pub(crate) fn start_again(&mut self) {
        (self.child, self.port) = spawn(&self.folder, self.port, &[]);
    }
}

fn spawn(folder: &tempfile::TempDir, port: u16, arguments: &[&str]) -> (Child, u16) {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let venv = std::env::var_os("PILLION_VENV").map(PathBuf::from);
    let venv = venv.unwrap_or_else(|| here.join("../target/venv"));
    let mut child = Command::new(venv.join("bin/python"))
        .arg(here.join("tests/clickhouse/shim.py"))
        .arg("--folder")
        .arg(folder.path())
        .args(["--port", &port.to_string()])
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .expect("run `cargo xtask setup`");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe"))
        .read_line(&mut line)
        .expect("a line");
    let port = line
        .trim()
        .parse()
        .expect("a port; if chdb is missing, run `cargo xtask setup`");
    (child, port)
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
