// SPDX-License-Identifier: Apache-2.0
//! The shapes of App Mesh's examples, in specs of our own: each file of `walkthroughs` is a list of `aws appmesh` calls as
//! a user makes them, `"@red"` standing for the port of the application red and `@dir` for a folder of the case's own.
//! Traffic goes through the built proxy; the cases stand in `walkthroughs/*.rs` by what they are about.

mod gateways;
mod limits;
mod routes;
mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use mesh_test::asking;
use mesh_test::asking::Answer;
use mesh_test::asking::Ask;
use mesh_test::eventually::eventually;
use mesh_test::mesh::Mesh;
use mesh_test::mesh::free_port;
use mesh_test::program::Program;
use mesh_test::python;
use mesh_test::scripted::Act;
use mesh_test::scripted::Book;
use mesh_test::scripted::Scripted;
use mesh_test::scripted::Speaks;
use tempfile::TempDir;

const CLIENT: &str = "mesh/m/virtualNode/client";
const EDGE: &str = "mesh/m/virtualGateway/edge";
const SOON: Duration = Duration::from_secs(8);

/// A walkthrough's mesh, applied.
struct Walk {
    mesh: Mesh,
    book: Book,
    dir: TempDir,
    ports: BTreeMap<String, u16>,
    _apps: Vec<Scripted>,
}

impl Walk {
    /// Applications run under their names; of `free` only the numbers of free ports are taken.
    async fn start(name: &str, apps: &[(&str, Speaks)], free: &[&str]) -> anyhow::Result<Walk> {
        let walk = Walk::prepare(apps, free).await?;
        walk.step(name).await?;
        Ok(walk)
    }

    /// As [`Walk::start`], with nothing applied yet.
    async fn prepare(apps: &[(&str, Speaks)], free: &[&str]) -> anyhow::Result<Walk> {
        let (book, mesh) = (Book::default(), Mesh::start().await?);
        let (mut ports, mut running) = (BTreeMap::new(), Vec::new());
        for name in free {
            ports.insert((*name).to_owned(), free_port()?);
        }
        for (name, speaks) in apps {
            let scripted = Scripted::start(name, *speaks, &book).await?;
            ports.insert((*name).to_owned(), scripted.address().port());
            running.push(scripted);
        }
        Ok(Walk {
            mesh,
            book,
            dir: tempfile::tempdir()?,
            ports,
            _apps: running,
        })
    }

    /// With the port of what the case runs itself.
    fn with(mut self, name: &str, port: u16) -> Walk {
        self.ports.insert(name.to_owned(), port);
        self
    }

    /// Makes the calls of a file.
    async fn step(&self, name: &str) -> anyhow::Result<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let file = root.join("walkthroughs").join(format!("{name}.json"));
        let mut text =
            std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        for (name, port) in &self.ports {
            text = text.replace(&format!("\"@{name}\""), &port.to_string());
        }
        let text = text.replace("@dir", &self.dir.path().display().to_string());
        let input = self.dir.path().join("calls.json");
        std::fs::write(&input, text)?;
        let client = root.join("tests/clients/appmesh.py").display().to_string();
        let endpoint = format!("http://{}", self.mesh.api()?);
        python::run(
            "python",
            &[&client, &endpoint, &input.display().to_string()],
        )
        .await?;
        Ok(())
    }

    fn at(&self, name: &str) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[name]))
    }

    /// The client's sidecar, and where its application finds it.
    async fn client(&self) -> anyhow::Result<(Program, SocketAddr)> {
        let sidecar = self.mesh.proxy(CLIENT, &[], &[]).await?;
        let egress = sidecar.address("egress")?;
        Ok((sidecar, egress))
    }

    async fn gateway(&self) -> anyhow::Result<Program> {
        self.mesh
            .proxy(EDGE, &["--gateway-addr", "127.0.0.1"], &[])
            .await
    }

    /// Requests that reached an application for `case`.
    fn tries(&self, case: &str) -> usize {
        self.book.seen(case).len()
    }

    /// Application, line and host of the only request of `case`.
    fn arrived(&self, case: &str) -> anyhow::Result<String> {
        let seen = self.book.seen(case);
        let one = seen
            .first()
            .with_context(|| format!("nothing came for {case}"))?;
        let host = one
            .headers
            .iter()
            .find_map(|line| {
                line.strip_prefix("host: ")
                    .or(line.strip_prefix(":authority: "))
            })
            .unwrap_or_default();
        let line = one.line.trim_end_matches(" HTTP/1.1");
        Ok(format!("{} {line} {host}", one.app))
    }
}

async fn get(to: SocketAddr, line: &str, headers: &[&str]) -> Answer {
    let headers: Vec<String> = headers.iter().map(|line| (*line).to_owned()).collect();
    let ask = Ask {
        bytes: asking::bytes(line, &headers, ""),
        ..Ask::default()
    };
    asking::http1(to, &ask).await.remove(0)
}

async fn get2(to: SocketAddr, line: &str, headers: &[&str]) -> Answer {
    let ask = Ask {
        line: line.to_owned(),
        headers: headers.iter().map(|line| (*line).to_owned()).collect(),
        ..Ask::default()
    };
    asking::http2(to, &ask).await
}

/// A gRPC call of `path authority`.
async fn grpc(to: SocketAddr, target: &str, headers: &[&str]) -> Answer {
    let all = ["content-type: application/grpc", "te: trailers"];
    let ask = Ask {
        line: format!("POST {target}"),
        headers: all
            .iter()
            .chain(headers)
            .map(|line| (*line).to_owned())
            .collect(),
        body: "m".to_owned(),
        ..Ask::default()
    };
    asking::http2(to, &ask).await
}

/// The number of a status line.
fn code(answer: &Answer) -> &str {
    answer.status.rsplit(' ').next().unwrap_or_default()
}

fn has(answer: &Answer, header: &str) -> bool {
    answer.headers.iter().any(|line| line == header)
}

fn status(status: u16) -> Act {
    Act {
        status: Some(status),
        ..Act::default()
    }
}

fn late(after: u64) -> Act {
    Act {
        after,
        ..Act::default()
    }
}

/// Asks until the answer is as `wanted` says: a change of the mesh takes a moment to reach a proxy.
async fn until(
    to: SocketAddr,
    line: &str,
    wanted: impl Fn(&Answer) -> bool,
) -> anyhow::Result<Answer> {
    let wanted = &wanted;
    eventually(SOON, || async move {
        let answer = get(to, line, &[]).await;
        anyhow::ensure!(wanted(&answer), "{answer:?}");
        Ok(answer)
    })
    .await
}
