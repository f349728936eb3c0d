// SPDX-License-Identifier: Apache-2.0
//! Starts the built control plane on free ports and ends it with the test, whatever way the test ends.

use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Child;
use std::process::ChildStdout;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

use crate::http::Answer;
use crate::http::request;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_pillion-control-plane");
const PATIENCE: Duration = Duration::from_secs(20);

/// A running control plane.
pub(crate) struct ControlPlane {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    pub(crate) api: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) xds: SocketAddr,
    /// Removed at the end if it is ours.
    _folder: Option<TempDir>,
}

/// The flags every test starts with: free ports, a store in `folder`.
pub(crate) fn flags(folder: &Path) -> Vec<String> {
    let store = format!("sqlite:{}", folder.join("pillion.db").display());
    let mut flags = vec!["--store".to_owned(), store];
    for name in ["--api-addr", "--xds-addr", "--admin-addr"] {
        flags.extend([name.to_owned(), "127.0.0.1:0".to_owned()]);
    }
    flags
}

/// The binary without the environment's opinion of its settings.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars() {
        if name.starts_with("PILLION_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

impl ControlPlane {
    /// On a store of its own.
    pub(crate) fn start() -> ControlPlane {
        let folder = TempDir::new().expect("a folder for the store");
        let mut started = ControlPlane::start_in(folder.path());
        started._folder = Some(folder);
        started
    }

    /// On a store of its own, with more flags.
    pub(crate) fn start_with(args: &[&str]) -> ControlPlane {
        let folder = TempDir::new().expect("a folder for the store");
        let mut command = command(BINARY);
        command.args(flags(folder.path())).args(args);
        let mut started = ControlPlane::spawn(command, folder.path());
        started._folder = Some(folder);
        started
    }

    /// On the store in `folder`, which outlives it.
    pub(crate) fn start_in(folder: &Path) -> ControlPlane {
        let mut command = command(BINARY);
        command.args(flags(folder));
        ControlPlane::spawn(command, folder)
    }

    /// A command of the test's own making, which ends in running the binary.
    pub(crate) fn spawn(mut command: Command, folder: &Path) -> ControlPlane {
        let log = File::create(folder.join("control-plane.log")).expect("a log file");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary is built");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a readable pipe");
        let log = || std::fs::read_to_string(folder.join("control-plane.log")).unwrap_or_default();
        let line: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{error} in first line {line:?}; {}", log()));
        assert_eq!(line["event"], "listening");
        let addr = |name: &str| {
            let addr = line["addresses"][name].as_str().expect("an address");
            addr.parse().expect("IP:PORT")
        };
        ControlPlane {
            api: addr("api"),
            admin: addr("admin"),
            xds: addr("xds"),
            child,
            _stdout: stdout,
            _folder: None,
        }
    }

    /// `path` without the version prefix.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, b"")
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, body.to_string().as_bytes())
    }

    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, b"")
    }

    pub(crate) fn send(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let path = format!("/v20190125{path}");
        request(self.api, method, &path, &[], body).expect("an answer")
    }

    pub(crate) fn admin(&self, path: &str) -> Answer {
        request(self.admin, "GET", path, &[], b"").expect("an answer")
    }

    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// SIGKILL, as `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it is running");
        self.child.wait().expect("it is ours");
    }

    /// SIGTERM.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        signal(&self.pid(), "-TERM");
        self.ended()
    }

    /// Waits for an end that is on its way.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                return status;
            }
            assert!(Instant::now() < deadline, "still running");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(crate) fn signal(pid: &str, signal: &str) {
    let status = Command::new("kill").args([signal, pid]).status();
    assert!(status.expect("kill(1)").success());
}

/// Runs the binary to its end, for starts that must fail.
pub(crate) fn run(args: &[&str], folder: &Path) -> Output {
    command(BINARY)
        .args(flags(folder))
        .args(args)
        .output()
        .expect("the binary is built")
}
