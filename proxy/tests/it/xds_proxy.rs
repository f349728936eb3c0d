// SPDX-License-Identifier: Apache-2.0
//! The built proxy as a child process: started with App Mesh's variables, found by its readiness line, ended with the
//! test.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::process::Command;

use crate::plane::LIMIT;
use crate::plane::eventually;

pub(crate) const NODE: &str = "mesh/m/virtualNode/web";

pub(crate) struct Proxy {
    child: Child,
    addresses: BTreeMap<String, SocketAddr>,
    log: Arc<Mutex<String>>,
}

/// The proxy's command with every address that is not given at port 0, and nothing of our own environment.
pub(crate) fn command(xds: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pillion-proxy"));
    for flag in [
        "--admin-addr",
        "--agent-addr",
        "--ingress-addr",
        "--egress-addr",
    ] {
        if !arguments.contains(&flag) {
            command.args([flag, "127.0.0.1:0"]);
        }
    }
    command
        .env_clear()
        .env("APPMESH_RESOURCE_ARN", NODE)
        .env("APPMESH_XDS_ENDPOINT", xds)
        .env("LISTENER_DRAIN_WAIT_TIME_S", "5")
        .args(["--workers", "1"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl Proxy {
    pub(crate) async fn start(xds: SocketAddr, arguments: &[&str]) -> Proxy {
        Proxy::spawn(command(&xds.to_string(), arguments)).await
    }

    pub(crate) async fn spawn(mut command: Command) -> Proxy {
        let mut child = command.spawn().expect("the built binary starts");
        let log: Arc<Mutex<String>> = Arc::default();
        let mut stderr = BufReader::new(child.stderr.take().expect("piped")).lines();
        let sink = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                sink.lock().push_str(&(line + "\n"));
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().expect("piped")).lines();
        let first = tokio::time::timeout(LIMIT, stdout.next_line())
            .await
            .expect("a line in time")
            .expect("a stdout");
        let Some(first) = first else {
            panic!("ended before it was ready:\n{}", log.lock())
        };
        let line: Value = serde_json::from_str(&first).expect("JSON");
        assert_eq!(line["event"], "listening", "{first}");
        let named = line["addresses"].as_object().expect("addresses").iter();
        let addresses = named
            .map(|(name, addr)| (name.clone(), addr.as_str().unwrap().parse().unwrap()))
            .collect();
        // Access logs may follow; a full pipe must not stall the proxy.
        tokio::spawn(async move { while let Ok(Some(_)) = stdout.next_line().await {} });
        Proxy {
            child,
            addresses,
            log,
        }
    }

    pub(crate) fn addr(&self, name: &str) -> SocketAddr {
        self.addresses[name]
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.addresses.contains_key(name)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("running")
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().clone()
    }

    /// An answer of the admin server: status and body.
    pub(crate) async fn admin(&self, method: &str, path: &str) -> (u16, String) {
        call(self.addr("admin"), method, "localhost", path)
            .await
            .expect("the admin server answers")
    }

    /// An answer through the egress port, by `Host`.
    pub(crate) async fn get(&self, host: &str) -> (u16, String) {
        call(self.addr("egress"), "GET", host, "/")
            .await
            .unwrap_or_default()
    }

    pub(crate) async fn live(&self) {
        eventually("the proxy is LIVE", || async {
            self.admin("GET", "/ready").await.0 == 200
        })
        .await;
    }

    pub(crate) fn terminate(&self) {
        let id = i32::try_from(self.child.id().expect("running")).unwrap();
        signal(id);
    }

    /// Its exit code.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        let ended = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await;
        ended
            .unwrap_or_else(|_| panic!("does not end:\n{}", self.log()))
            .expect("waited for")
            .code()
    }
}

/// SIGTERM by the shell's own `kill`: the workspace forbids unsafe code, and one signal is not worth a dependency.
fn signal(id: i32) {
    let killed = std::process::Command::new("kill")
        .args(["-TERM", &id.to_string()])
        .status();
    assert!(killed.expect("kill is there").success());
}

/// One request on a connection of its own.
pub(crate) async fn call(
    addr: SocketAddr,
    method: &str,
    host: &str,
    path: &str,
) -> std::io::Result<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(addr).await?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = tokio::time::timeout(LIMIT, exchange)
        .await
        .expect("an answer in time")?;
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or_default();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    Ok((
        status,
        if chunked {
            unchunked(body)
        } else {
            body.to_owned()
        },
    ))
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or_default();
        whole.push_str(rest.get(..size).unwrap_or_default());
        body = rest.get(size + 2..).unwrap_or_default();
    }
    whole
}
