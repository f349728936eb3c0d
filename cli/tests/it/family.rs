// SPDX-License-Identifier: Apache-2.0
//! What becomes of the demo's children, with stand-ins for the other programs: shell scripts beside a copy of `pillion`.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const PROGRAMS: [&str; 4] = [
    "pillion-control-plane",
    "pillion-collector",
    "pillion-proxy",
    "pillion-loadtest",
];

struct Stage(TempDir);

impl Stage {
    /// Every program runs `script`, with its process id in a file first.
    fn with(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_pillion"), dir.path().join("pillion")).unwrap();
        for name in PROGRAMS {
            let path = dir.path().join(name);
            std::fs::write(
                &path,
                format!(
                    "#!/bin/sh\necho $$ > \"$0.pid.new\"; mv \"$0.pid.new\" \"$0.pid\"\n{script}\n"
                ),
            )
            .unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self(dir)
    }

    fn demo(&self) -> Child {
        let mut command = Command::new(self.0.path().join("pillion"));
        command
            .args(["demo", "--port-base", "0"])
            .env("TMPDIR", self.0.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    fn pid(&self, name: &str) -> i32 {
        let path: PathBuf = self.0.path().join(format!("{name}.pid"));
        eventually("the stand-in has started", || {
            std::fs::read_to_string(&path).ok()?.trim().parse().ok()
        })
    }
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process that has ended may stay as a zombie where nobody reaps orphans.
fn gone(pid: i32) -> Option<()> {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat
            .rsplit(')')
            .next()?
            .trim_start()
            .starts_with('Z')
            .then_some(()),
        Err(_) => Some(()),
    }
}

fn send(signal: &str, pid: u32) {
    let sent = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status();
    assert!(sent.unwrap().success());
}

#[test]
fn a_demo_that_is_killed_leaves_nothing_running() {
    let stage = Stage::with("exec sleep 600");
    let mut demo = stage.demo();
    let children = [
        stage.pid("pillion-control-plane"),
        stage.pid("pillion-collector"),
    ];
    send("-KILL", demo.id());
    demo.wait().unwrap();
    for child in children {
        eventually("the child has ended with its parent", || gone(child));
    }
}

#[test]
fn sigterm_ends_every_child_and_then_the_demo() {
    let stage = Stage::with("exec sleep 600");
    let mut demo = stage.demo();
    let children = [
        stage.pid("pillion-control-plane"),
        stage.pid("pillion-collector"),
    ];
    send("-TERM", demo.id());
    assert_eq!(
        demo.wait().unwrap().code(),
        Some(0),
        "without --for, being stopped is the normal end"
    );
    for child in children {
        assert_eq!(gone(child), Some(()), "the demo has ended before its child");
    }
}

#[test]
fn a_child_that_dies_is_named_with_its_last_log_lines() {
    let stage = Stage::with("echo 'the disk is on fire' >&2; exit 3");
    let mut demo = stage.demo();
    let errors: Vec<String> = BufReader::new(demo.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .collect();
    assert_eq!(demo.wait().unwrap().code(), Some(1));
    let errors = errors.join("\n");
    assert!(
        errors.contains("control-plane ended") || errors.contains("collector ended"),
        "{errors}"
    );
    assert!(errors.contains("the disk is on fire"), "{errors}");
}
