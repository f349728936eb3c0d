// SPDX-License-Identifier: Apache-2.0
//! Active probes: every endpoint of a cluster is asked at an interval, and leaves or joins the rotation by thresholds.
//! An endpoint is out until its first pass, which brings it in at once, as in Envoy. Run by `cluster::upkeep`.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http::StatusCode;
use http::Version;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use pillion_xds::cluster::HealthCheck;
use pillion_xds::cluster::Probe;

use super::Cluster;
use super::Endpoint;
use crate::connect;
use crate::stream::Stream;

/// Intervals differ by up to a tenth, so that a fleet does not probe in step.
const SPREAD: u32 = 10;

/// Answers in a row, by endpoint.
#[derive(Default)]
struct Row {
    passes: u32,
    failures: u32,
}

/// Probes every endpoint of the cluster until aborted.
pub async fn keep_probing(cluster: Arc<Cluster>, check: HealthCheck) {
    let mut rows: HashMap<u64, Row> = HashMap::new();
    loop {
        if let Some(set) = cluster.set() {
            rows.retain(|id, _| set.members().iter().any(|member| member.endpoint.id == *id));
            let asked = set.members().iter().map(|member| {
                let (endpoint, cluster, check) = (&member.endpoint, &cluster, &check);
                async move { (endpoint, passes(cluster, endpoint, check).await) }
            });
            for (endpoint, passed) in join_all(asked).await {
                settle(
                    &cluster,
                    endpoint,
                    rows.entry(endpoint.id).or_default(),
                    passed,
                    &check,
                );
            }
            cluster.count_members();
        }
        let spread = check.interval / SPREAD;
        let extra = spread.mul_f64(rand::random::<f64>());
        tokio::time::sleep((check.interval + extra).max(Duration::from_millis(10))).await;
    }
}

fn settle(
    cluster: &Cluster,
    endpoint: &Endpoint,
    row: &mut Row,
    passed: bool,
    check: &HealthCheck,
) {
    let control = &cluster.state.stats.control;
    control.health_attempt.add_shared(1);
    let first = row.passes == 0 && row.failures == 0;
    let enough = if passed {
        control.health_success.add_shared(1);
        *row = Row {
            passes: row.passes.saturating_add(1),
            failures: 0,
        };
        first || row.passes >= check.healthy_threshold
    } else {
        control.health_failure.add_shared(1);
        *row = Row {
            passes: 0,
            failures: row.failures.saturating_add(1),
        };
        row.failures >= check.unhealthy_threshold
    };
    // Between the thresholds an endpoint stays what it was.
    if enough && endpoint.set_unhealthy(!passed) {
        tracing::info!(cluster = cluster.name(), endpoint = %endpoint.addr, healthy = passed, "health changed");
    }
}

async fn passes(cluster: &Cluster, endpoint: &Endpoint, check: &HealthCheck) -> bool {
    let asking = async {
        let stream = connect::dial(cluster, endpoint.addr, None).await.ok()?;
        match &check.probe {
            Probe::Tcp => Some(true),
            Probe::Http { path, http2 } => ask_http(stream, cluster.name(), path, *http2).await,
            Probe::Grpc => ask_grpc(stream, cluster.name()).await,
        }
    };
    tokio::time::timeout(check.timeout, asking)
        .await
        .ok()
        .flatten()
        .unwrap_or(false)
}

async fn ask_http(stream: Stream, host: &str, path: &str, http2: bool) -> Option<bool> {
    let uri = if http2 {
        format!("http://{host}{path}")
    } else {
        path.to_owned()
    };
    let request = Request::get(uri).header("user-agent", "Envoy/HC");
    let request = if http2 {
        request
    } else {
        request.header("host", host)
    };
    let response = exchange(stream, request.body(Full::default()).ok()?, http2).await?;
    Some(response.status() == StatusCode::OK)
}

/// `grpc.health.v1.Health/Check` for the whole server: an empty request, SERVING (1) in field 1 of the answer.
async fn ask_grpc(stream: Stream, host: &str) -> Option<bool> {
    const EMPTY: &[u8] = &[0; 5];
    const SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 0x01];
    let request = Request::post(format!("http://{host}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::from(EMPTY))
        .ok()?;
    let response = exchange(stream, request, true).await?;
    let body = http_body_util::Limited::new(response.into_body(), 1024)
        .collect()
        .await
        .ok()?;
    Some(body.to_bytes() == SERVING)
}

async fn exchange(
    stream: Stream,
    mut request: Request<Full<Bytes>>,
    http2: bool,
) -> Option<http::Response<Incoming>> {
    let io = TokioIo::new(stream);
    if http2 {
        *request.version_mut() = Version::HTTP_2;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                .await
                .ok()?;
        let asking = async move { sender.send_request(request).await.ok() };
        return beside(connection, asking).await;
    }
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.ok()?;
    let asking = async move { sender.send_request(request).await.ok() };
    beside(connection, asking).await
}

/// Drives the connection in a task of its own: the answer's body needs it too.
async fn beside<C, T>(connection: C, asking: impl Future<Output = Option<T>>) -> Option<T>
where
    C: Future<Output = Result<(), hyper::Error>> + Send + 'static,
{
    let driving = tokio::spawn(async move {
        let ended = connection.await;
        tracing::trace!(?ended, "probe connection ended");
    });
    let answer = asking.await;
    if answer.is_none() {
        driving.abort();
    }
    answer
}

#[cfg(test)]
mod tests;
