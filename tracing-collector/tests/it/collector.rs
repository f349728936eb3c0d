// SPDX-License-Identifier: Apache-2.0
//! The harness: starts the built binary on free ports, speaks plain HTTP to it, waits with a deadline.

use std::collections::HashMap;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

const DEADLINE: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_millis(20);

pub(crate) struct Collector {
    child: Child,
    addresses: HashMap<String, SocketAddr>,
    store: Option<tempfile::TempDir>,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("JSON, not {}", String::from_utf8_lossy(&self.body)))
    }
}

pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pillion-collector"));
    for name in [
        "otlp-grpc",
        "otlp-http",
        "xray-udp",
        "xray-tcp",
        "zipkin",
        "api",
        "admin",
    ] {
        command.args([format!("--{name}-addr"), "127.0.0.1:0".to_owned()]);
    }
    command
}

impl Collector {
    /// On a store of its own that ends with it.
    pub(crate) fn start() -> Collector {
        Collector::start_with(&[])
    }

    /// The same with more settings.
    pub(crate) fn start_with(settings: &[&str]) -> Collector {
        let store = tempfile::tempdir().expect("a folder");
        let mut command = command();
        command.args(settings);
        let mut collector = Collector::spawn(command, store.path());
        collector.store = Some(store);
        collector
    }

    pub(crate) fn start_on(store: &Path) -> Collector {
        Collector::spawn(command(), store)
    }

    /// A write beyond a file size limit fails, as on a full disk, rather than killing the process.
    pub(crate) fn start_unharmed_by_file_limits(store: &Path) -> Collector {
        let inner = command();
        let mut outer = Command::new("sh");
        outer.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]);
        outer.arg(inner.get_program()).args(inner.get_args());
        Collector::spawn(outer, store)
    }

    fn spawn(mut command: Command, store: &Path) -> Collector {
        let mut child = command
            .args(["--settle", "300ms", "--store"])
            .arg(store)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe"))
            .read_line(&mut line)
            .expect("a readiness line");
        let ready: Value = serde_json::from_str(&line).expect("the readiness line is JSON");
        let addresses = ready["addresses"].as_object().expect("addresses by name");
        let parse = |addr: &Value| {
            addr.as_str()
                .and_then(|addr| addr.parse().ok())
                .expect("an address")
        };
        let addresses = addresses
            .iter()
            .map(|(name, addr)| (name.clone(), parse(addr)))
            .collect();
        Collector {
            child,
            addresses,
            store: None,
        }
    }

    pub(crate) fn addr(&self, name: &str) -> SocketAddr {
        self.addresses[name]
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("it is dead");
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }

    pub(crate) fn send(
        &self,
        door: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        request(self.addr(door), method, path, headers, body)
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let answer = self.send("api", "GET", path, &[], b"");
        assert_eq!(
            answer.status,
            200,
            "{path}: {}",
            String::from_utf8_lossy(&answer.body)
        );
        answer.json()
    }

    /// An X-Ray operation that succeeds.
    pub(crate) fn post(&self, path: &str, request: &Value) -> Value {
        let answer = self.send("api", "POST", path, &[], request.to_string().as_bytes());
        assert_eq!(
            answer.status,
            200,
            "{path}: {}",
            String::from_utf8_lossy(&answer.body)
        );
        answer.json()
    }

    pub(crate) fn put(&self, documents: &[Value]) -> Value {
        let documents: Vec<String> = documents.iter().map(Value::to_string).collect();
        self.post(
            "/TraceSegments",
            &json!({"TraceSegmentDocuments": documents}),
        )
    }

    pub(crate) fn datagram(&self, bytes: &[u8]) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.send_to(bytes, self.addr("xray_udp")).expect("sent");
    }

    pub(crate) fn stats(&self) -> Value {
        self.get("/pillion/v1/stats")
    }

    /// The collapsed map over all time.
    pub(crate) fn map(&self) -> Value {
        self.get("/pillion/v1/map?start=0&end=9000000000")
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // Already ended by the test, or ended now; either is fine.
        if self.child.kill().is_ok() {
            self.child.wait().expect("it is dead");
        }
    }
}

pub(crate) fn request(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut stream = TcpStream::connect(addr).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).expect("the head is sent");
    // A server may refuse a large body before it has read it.
    let sent = stream.write_all(body);
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    assert!(!bytes.is_empty(), "no answer: sent {sent:?}, read {read:?}");
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Answer {
    let end = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("a head");
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .expect("a status");
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Answer {
        status,
        headers,
        body: bytes[end + 4..].to_vec(),
    }
}

/// Until `check` finds something, at most until the deadline.
pub(crate) fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(
            start.elapsed() < DEADLINE,
            "not within {DEADLINE:?}: {what}"
        );
        std::thread::park_timeout(PATIENCE);
    }
}

pub(crate) fn scorekeep() -> Vec<Value> {
    serde_json::from_str(include_str!("../fixtures/scorekeep.json")).expect("the fixture is JSON")
}

/// A segment that took `seconds`, in a trace of its own.
pub(crate) fn segment(number: u64, name: &str, seconds: f64) -> Value {
    json!({
        "trace_id": format!("1-65000000-{number:024x}"), "id": format!("{:016x}", number + 1), "name": name,
        "start_time": 1_700_000_000.0, "end_time": 1_700_000_000.0 + seconds,
    })
}

/// `total` of the edge, when it is there.
pub(crate) fn total(map: &Value, source: &str, target: &str) -> Option<u64> {
    let edge = map["edges"]
        .as_array()?
        .iter()
        .find(|edge| edge["source"] == source && edge["target"] == target)?;
    edge["total"].as_u64()
}
