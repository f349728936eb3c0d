// SPDX-License-Identifier: Apache-2.0
//! A PostgreSQL of the test's own: a cluster copied from a template that is made once, on a socket in a temporary
//! folder, ended with the test. PostgreSQL refuses to run as root, so root starts it as `nobody`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use tempfile::TempDir;

use crate::control_plane::signal;

const NOBODY: u32 = 65534;
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server.
pub(crate) struct Postgres {
    server: Option<Child>,
    folder: TempDir,
}

impl Postgres {
    /// An empty one: user `pillion` needs no password, user `careful` has one.
    pub(crate) fn start() -> Postgres {
        let folder = TempDir::with_prefix("pillion-pg-").expect("a folder");
        own(folder.path());
        let copied = as_nobody("cp")
            .args(["-a", "--reflink=auto"])
            .arg(template())
            .arg(folder.path().join("data"))
            .status();
        assert!(copied.expect("cp").success());
        let mut postgres = Postgres {
            server: None,
            folder,
        };
        postgres.resume();
        postgres
    }

    /// Starts the server, again after [`Postgres::stop`].
    pub(crate) fn resume(&mut self) {
        let data = self.folder.path().join("data");
        let log = fs::File::create(self.folder.path().join("log")).expect("a log");
        let server = as_nobody(program("postgres"))
            .arg("-D")
            .arg(data)
            .args(["-c", "listen_addresses=", "-c", "shared_buffers=16MB"])
            // The server is not what is killed here; what it is told to keep it keeps.
            .args(["-c", "fsync=off", "-c"])
            .arg(format!(
                "unix_socket_directories={}",
                self.folder.path().display()
            ))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.server = Some(server.expect("postgres"));
        let deadline = Instant::now() + PATIENCE;
        while !self.psql("SELECT 1").status.success() {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Cuts every connection and ends the server.
    pub(crate) fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            signal(&server.id().to_string(), "-INT");
            server.wait().expect("it is ours");
        }
    }

    pub(crate) fn psql(&self, statement: &str) -> std::process::Output {
        Command::new(program("psql"))
            .args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-U", "pillion", "-h"])
            .arg(self.folder.path())
            .args(["-d", "postgres", "-c", statement])
            .output()
            .expect("psql")
    }

    /// For `--store`.
    pub(crate) fn url(&self) -> String {
        self.url_of("pillion", "postgres")
    }

    pub(crate) fn url_of(&self, user: &str, database: &str) -> String {
        let socket = self.folder.path().display().to_string();
        format!(
            "postgres://{user}@localhost/{database}?host={}",
            socket.replace('/', "%2F")
        )
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            Command::new("kill")
                .args(["-QUIT", &server.id().to_string()])
                .status()
                .ok();
            server.wait().ok();
        }
    }
}

/// An initialised cluster that is never started, made by the first test that needs one.
fn template() -> PathBuf {
    let owner = fs::metadata("/proc/self").expect("procfs").uid();
    let home = std::env::temp_dir().join(format!("pillion-postgres-template-{owner}"));
    fs::create_dir_all(&home).expect("a folder");
    own(&home);
    let lock = fs::File::create(home.join("lock")).expect("a lock");
    lock.lock().expect("a lock");
    let (ready, making) = (home.join("ready"), home.join("making"));
    if !ready.exists() {
        fs::remove_dir_all(&making).ok();
        let made = as_nobody(program("initdb"))
            .arg("-D")
            .arg(&making)
            .args([
                "-U",
                "pillion",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
            ])
            .output()
            .expect("initdb");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let access = "local all careful scram-sha-256\nlocal all all trust\n";
        fs::write(making.join("pg_hba.conf"), access).expect("a file");
        fs::rename(&making, &ready).expect("its new name");
    }
    ready
}

fn is_root() -> bool {
    fs::metadata("/proc/self").expect("procfs").uid() == 0
}

fn own(folder: &Path) {
    if is_root() {
        chown(folder, Some(NOBODY), Some(NOBODY)).expect("root may");
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("ours");
}

fn as_nobody(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/");
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Debian keeps the server's programs off the PATH, one folder per version.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut found: Vec<PathBuf> = versions
        .flatten()
        .map(|version| version.path().join("bin").join(name))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| {
        panic!("PostgreSQL's {name} is missing; run `cargo xtask setup` or `apt-get install -y postgresql`")
    })
}
