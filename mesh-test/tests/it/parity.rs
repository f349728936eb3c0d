// SPDX-License-Identifier: Apache-2.0
//! The differential suite: a stock Envoy and our proxy as the same sidecar and the same gateway of one mesh, the same
//! requests to both, everything compared that a caller or an application can see. Cases are data in `cases/*.json`;
//! what differs must be listed with its reason in `cases/differences.json`, and what is listed must differ. The outcome
//! is `docs/parity.md`; `PILLION_PARITY_WRITE=1` writes it anew.

mod case;
mod compare;
mod logs;
mod report;
mod spec;
mod stats;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use futures_util::StreamExt;
use futures_util::stream;
use mesh_test::envoy;
use mesh_test::envoy::Envoy;
use mesh_test::mesh::MESH;
use mesh_test::mesh::Mesh;
use mesh_test::scripted::Book;

use case::Case;
use case::Door;
use compare::Fields;
use spec::Apps;

/// Cases under way at once.
const AT_ONCE: usize = 24;
/// Those that are about retries: so many a cluster bears whatever the rest of its traffic is (`cluster/budget.rs`).
const RETRIED_AT_ONCE: usize = 3;
/// Where the app of the sidecar listens and what its virtual node says: Envoy's inbound port, so that a connection that
/// nobody redirected finds its filter chain.
const APP_PORT: u16 = 15000;
/// Envoy takes every other loopback address.
const INGRESS: &str = "127.0.0.2:15000";

pub(crate) fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// What a case showed, by its name.
type Outcomes = BTreeMap<String, Fields>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_proxy_answers_as_a_stock_envoy_does_or_the_report_says_why_not() -> anyhow::Result<()>
{
    let _turn = envoy::turn().await?;
    let book = Book::default();
    let mesh = Mesh::start().await?;
    let apps = Apps::start(&book).await?;
    spec::apply(&mesh, &apps).await?;
    let cases = case::load()?;

    let (theirs, their_names) = {
        let xds = mesh.control_plane().address("xds")?;
        let envoy = Envoy::start(xds, &format!("mesh/{MESH}/virtualNode/client")).await?;
        let _edge = Envoy::start(xds, &format!("mesh/{MESH}/virtualGateway/edge")).await?;
        let doors = doors(&apps, envoy::EGRESS.parse()?)?;
        let shown = run("e", &cases, &doors, &book, &apps).await?;
        (shown, stats::names(envoy.admin()).await?)
    };
    let (ours, our_names) = {
        let listen = format!("{INGRESS}=127.0.0.1:{APP_PORT}");
        let sidecar = mesh
            .proxy(
                &format!("mesh/{MESH}/virtualNode/client"),
                &["--listen", &listen],
                &[],
            )
            .await?;
        let _edge = mesh
            .proxy(
                &format!("mesh/{MESH}/virtualGateway/edge"),
                &["--gateway-addr", "127.0.0.1"],
                &[],
            )
            .await?;
        let doors = doors(&apps, sidecar.address("egress")?)?;
        let shown = run("p", &cases, &doors, &book, &apps).await?;
        (shown, stats::names(sidecar.address("admin")?).await?)
    };

    let wrong = compare::unexpected(&cases, &theirs);
    anyhow::ensure!(
        wrong.is_empty(),
        "cases that do not show what they are for, with Envoy:\n{}",
        wrong.join("\n")
    );
    report::judge(&cases, &theirs, &ours)?;
    stats::judge(&their_names, &our_names)
}

fn doors(apps: &Apps, egress: SocketAddr) -> anyhow::Result<BTreeMap<Door, SocketAddr>> {
    let mut doors = BTreeMap::from([(Door::Egress, egress), (Door::Ingress, INGRESS.parse()?)]);
    for (door, name) in [
        (Door::Edge, "edge"),
        (Door::Edge2, "edge2"),
        (Door::EdgeGrpc, "edgegrpc"),
    ] {
        doors.insert(door, SocketAddr::from(([127, 0, 0, 1], apps.port(name)?)));
    }
    Ok(doors)
}

async fn run(
    who: &str,
    cases: &[Case],
    doors: &BTreeMap<Door, SocketAddr>,
    book: &Book,
    apps: &Apps,
) -> anyhow::Result<Outcomes> {
    let (retried, calm): (Vec<&Case>, Vec<&Case>) = cases
        .iter()
        .partition(|case| case.tries.is_some_and(|tries| tries > 1));
    let mut outcomes = Outcomes::new();
    for (group, at_once) in [(calm, AT_ONCE), (retried, RETRIED_AT_ONCE)] {
        let shown = stream::iter(group)
            .map(|case| async move {
                let shown = case.run(who, doors[&case.to], book).await;
                (case.name.clone(), shown)
            })
            .buffer_unordered(at_once)
            .collect::<Vec<_>>();
        outcomes.extend(shown.await);
    }
    logs::add(who, cases, doors, apps, &mut outcomes).await?;
    Ok(outcomes)
}
