// SPDX-License-Identifier: Apache-2.0
//! After the traffic: waits until the map has settled, holds it against what was sent and counted, and looks one trace
//! up. Called by `demo`; the comparison itself is `map`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::client;
use crate::demo::load::{Latency, Measured};
use crate::demo::map::{self, Edge, Traffic};
use crate::demo::ports::{GATEWAY, NODES, Ports};
use crate::demo::screen::Screen;
use crate::demo::stage::counts;
use crate::demo::storefront::{MESH, WEIGHTS};

/// The collector promises that the map is fresh within 15 seconds; a loaded machine gets more.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
const STILL_TRUE: Duration = Duration::from_secs(1);
const STILL_FALSE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(500);

/// What the demo found. Serialized, it is the object that `--output json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    requests: u64,
    failures: u64,
    latency: Latency,
    pub(crate) edges: Vec<Edge>,
    addresses: BTreeMap<String, String>,
    /// Empty when the map is what the traffic was.
    #[serde(skip)]
    pub(crate) differences: Vec<String>,
}

impl Report {
    pub(crate) fn sentence(&self) -> String {
        let Self {
            requests,
            failures,
            latency,
            ..
        } = self;
        let verdict = if self.differences.is_empty() {
            "The map is what the traffic was"
        } else {
            "The map differs"
        };
        format!(
            "\n{verdict}: {requests} requests, {failures} failed, p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms.\n",
            latency.p50_ms, latency.p90_ms, latency.p99_ms
        )
    }
}

/// How things stood before the traffic: later the map is asked from then on, and the weights are checked only if nobody
/// has changed them meanwhile.
#[derive(Debug)]
pub(crate) struct Beginning {
    at: SystemTime,
    route_version: Value,
}

impl Beginning {
    pub(crate) async fn now(ports: Ports) -> anyhow::Result<Self> {
        Ok(Self {
            route_version: route_version(ports).await?,
            at: SystemTime::now(),
        })
    }
}

/// Waits until the map has settled, and says what it is and whether that is what the traffic was.
pub(crate) async fn settle(
    ports: Ports,
    screen: &Screen,
    measured: Measured,
    began: &Beginning,
) -> anyhow::Result<Report> {
    screen.step("waiting until the map has settled");
    if let Some(cause) = &measured.last_error {
        screen.note(&format!(
            "{} of {} requests failed; the last: {cause}",
            measured.failures, measured.requests
        ));
    }
    let traffic = look_back(ports, &measured, began).await?;
    if traffic.weights.is_none() {
        screen.note("the catalog's route was changed meanwhile; its weights are not checked");
    }
    let deadline = Instant::now() + SETTLED_WITHIN;
    let edges = watch_settle(ports, &traffic, began, deadline).await?;
    let mut differences = map::differences(&edges, &traffic);
    differences.extend(miss_in_trace(ports, &traffic, deadline).await?);
    Ok(Report {
        requests: measured.requests,
        failures: measured.failures,
        latency: measured.latency,
        edges,
        addresses: addresses(ports),
        differences,
    })
}

/// Until the map is true and still, so that nothing counted late can spoil it; one that is not true gets longer to
/// become so.
async fn watch_settle(
    ports: Ports,
    traffic: &Traffic,
    began: &Beginning,
    deadline: Instant,
) -> anyhow::Result<Vec<Edge>> {
    let mut edges = fetch(ports, began.at).await?;
    let mut changed = Instant::now();
    loop {
        let stillness = if map::differences(&edges, traffic).is_empty() {
            STILL_TRUE
        } else {
            STILL_FALSE
        };
        if changed.elapsed() >= stillness || Instant::now() >= deadline {
            return Ok(edges);
        }
        tokio::time::sleep(POLL).await;
        let now = fetch(ports, began.at).await?;
        if now != edges {
            (edges, changed) = (now, Instant::now());
        }
    }
}

async fn look_back(
    ports: Ports,
    measured: &Measured,
    began: &Beginning,
) -> anyhow::Result<Traffic> {
    let mut counted = BTreeMap::new();
    for (place, name) in NODES.iter().enumerate() {
        counted.insert(*name, counts(ports.node(place).app).await?);
    }
    let untouched = route_version(ports).await? == began.route_version;
    Ok(Traffic {
        sent: measured.requests - measured.failures_by_kind.connect,
        counted,
        weights: untouched.then_some(WEIGHTS),
    })
}

async fn route_version(ports: Ports) -> anyhow::Result<Value> {
    let path = format!("/v20190125/meshes/{MESH}/virtualRouter/catalog/routes/catalog");
    let answer = client::call(Method::GET, &ports.api().to_string(), &path, None).await?;
    let route = answer
        .json()
        .with_context(|| format!("GET {path}: {}", answer.text()))?;
    Ok(route["metadata"]["version"].clone())
}

#[derive(Deserialize)]
struct Map {
    edges: Vec<Edge>,
}

/// The map of this run alone: a store kept with `--data-dir` holds earlier ones too.
async fn fetch(ports: Ports, since: SystemTime) -> anyhow::Result<Vec<Edge>> {
    let start = since.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let end = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_secs()
        + 1;
    let path = format!("/pillion/v1/map?start={start}&end={end}");
    let answer = client::call(Method::GET, &ports.collector().to_string(), &path, None).await?;
    ensure!(
        answer.status == StatusCode::OK,
        "GET {path}: the collector answered {} {}",
        answer.status,
        answer.text()
    );
    let map: Map = serde_json::from_slice(&answer.body).with_context(|| format!("GET {path}"))?;
    Ok(map.edges)
}

/// One trace must hold a proxy's span and the segment that cart sent by UDP.
async fn miss_in_trace(
    ports: Ports,
    traffic: &Traffic,
    deadline: Instant,
) -> anyhow::Result<Option<String>> {
    if traffic.sent == 0 {
        return Ok(None);
    }
    let Some((trace, segment)) = traffic
        .counted
        .get("cart")
        .and_then(|counts| counts.segment.clone())
    else {
        return Ok(Some("cart has sent no X-Ray segment".into()));
    };
    loop {
        let body = json!({"TraceIds": [trace]});
        let answer = client::call(
            Method::POST,
            &ports.collector().to_string(),
            "/Traces",
            Some(&body),
        )
        .await?;
        let answer = answer
            .json()
            .with_context(|| format!("POST /Traces: {}", answer.text()))?;
        let miss = missing(&answer, &segment).map(|what| format!("trace {trace}: {what}"));
        if miss.is_none() || Instant::now() >= deadline {
            return Ok(miss);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What an answer of `BatchGetTraces` lacks of a proxy span and `segment` side by side.
fn missing(answer: &Value, segment: &str) -> Option<String> {
    let documents = answer["Traces"][0]["Segments"]
        .as_array()
        .into_iter()
        .flatten();
    let documents: Vec<Value> = documents
        .filter_map(|found| serde_json::from_str(found["Document"].as_str()?).ok())
        .collect();
    if !documents.iter().any(|found| found["id"] == segment) {
        return Some(format!("cart's segment {segment} is not in it"));
    }
    let of_proxy = |found: &Value| {
        found["name"]
            .as_str()
            .is_some_and(|name| name.starts_with(&format!("{MESH}/")))
    };
    (!documents.iter().any(of_proxy)).then(|| "no proxy span is in it".to_owned())
}

fn addresses(ports: Ports) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = [
        ("api", ports.api()),
        ("xds", ports.xds()),
        ("control_plane_admin", ports.control_admin()),
        ("collector", ports.collector()),
        ("collector_admin", ports.collector_admin()),
        ("otlp_grpc", ports.otlp_grpc()),
        ("otlp_http", ports.otlp_http()),
        ("xray_udp", ports.xray()),
        ("xray_tcp", ports.xray()),
        ("zipkin", ports.zipkin()),
        ("gateway", ports.gateway().listener),
    ]
    .into_iter()
    .map(|(name, address)| (name.to_owned(), address.to_string()))
    .collect();
    let stands = NODES
        .iter()
        .enumerate()
        .map(|(place, name)| (*name, ports.node(place)));
    for (name, stand) in stands.chain([(GATEWAY, ports.gateway())]) {
        all.insert(format!("{name}_admin"), stand.admin.to_string());
        all.insert(format!("{name}_egress"), stand.egress.to_string());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(documents: &[Value]) -> Value {
        let segments: Vec<Value> = documents
            .iter()
            .map(|found| json!({"Document": found.to_string()}))
            .collect();
        json!({"Traces": [{"Segments": segments}]})
    }

    #[test]
    fn a_trace_must_hold_both_kinds() {
        let proxy = json!({"id": "aaaaaaaaaaaaaaaa", "name": "storefront/web"});
        let cart = json!({"id": "bbbbbbbbbbbbbbbb", "name": "cart"});
        let id = "bbbbbbbbbbbbbbbb";
        assert_eq!(missing(&answer(&[proxy.clone(), cart.clone()]), id), None);
        assert!(
            missing(&answer(&[proxy]), id)
                .unwrap()
                .contains("cart's segment")
        );
        assert!(
            missing(&answer(&[cart]), id)
                .unwrap()
                .contains("proxy span")
        );
    }

    #[test]
    fn a_trace_that_is_not_there_misses_both() {
        assert!(missing(&json!({"Traces": [], "UnprocessedTraceIds": []}), "b").is_some());
    }
}
