// SPDX-License-Identifier: Apache-2.0
//! A backend that fails under load, behind the built proxy: retries mend a blip and do not multiply an outage.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::Empty;
use hyper::Request;
use hyper_util::rt::TokioIo;
use pillion_xds::cluster::CircuitBreakers;
use pillion_xds::cluster::Cluster;
use pillion_xds::resource::Resource;
use pillion_xds::route::RetryOn;
use pillion_xds::route::RetryPolicy;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::plane;
use crate::survival::HOST;
use crate::survival::stat;
use crate::survival::unconfigured;
use crate::xds;
use crate::xds_proxy::Proxy;
use crate::xds_server::Ads;

/// App Mesh's hidden policy towards a cluster without limits, as its control plane sent them.
async fn proxy_before(app: SocketAddr) -> (Ads, Proxy) {
    let (ads, proxy) = unconfigured("true").await;
    let unlimited = CircuitBreakers {
        max_connections: Some(i32::MAX as u32),
        max_pending_requests: Some(i32::MAX as u32),
        max_requests: Some(i32::MAX as u32),
        max_retries: Some(i32::MAX as u32),
        retry_budget: None,
    };
    let cluster = Cluster {
        limits: unlimited,
        ..plane::static_cluster("a", &[app])
    };
    xds::configure_with(&ads, cluster).await;
    let mut forward = plane::forward(&[("a", 1)]);
    forward.retry = Some(RetryPolicy {
        on: vec![RetryOn::StatusCodes, RetryOn::Reset],
        status_codes: vec![503],
        max_retries: 2,
        per_try_timeout: None,
    });
    let table = plane::table(&[HOST], vec![plane::route_to("/retried", forward)]);
    ads.push("r2", &[Resource::Route(table)]).await;
    proxy.live().await;
    plane::eventually("the policy is in force", || async {
        proxy.get(HOST).await.0 == 404
    })
    .await;
    (ads, proxy)
}

/// So many calls of each of so many callers at once; how many were answered 200.
async fn calls(proxy: SocketAddr, callers: usize, each: usize) -> usize {
    let well = Arc::new(AtomicUsize::new(0));
    let mut all = JoinSet::new();
    for _ in 0..callers {
        let well = Arc::clone(&well);
        all.spawn(async move {
            let socket = TcpStream::connect(proxy).await.unwrap();
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(socket))
                    .await
                    .unwrap();
            tokio::spawn(connection);
            for _ in 0..each {
                let request = Request::get("/retried")
                    .header("host", HOST)
                    .body(Empty::<Bytes>::new());
                let answer = sender.send_request(request.unwrap()).await.unwrap();
                well.fetch_add(usize::from(answer.status() == 200), Ordering::Relaxed);
                answer.into_body().collect().await.unwrap();
            }
        });
    }
    while let Some(ended) = all.join_next().await {
        ended.unwrap();
    }
    well.load(Ordering::Relaxed)
}

#[tokio::test]
async fn an_outage_is_not_multiplied_by_its_retries() {
    const CALLERS: usize = 60;
    const EACH: usize = 25;
    let tries = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&tries);
    let app = plane::app(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            plane::text(503, "down")
        }
    })
    .await;
    let (_ads, proxy) = proxy_before(app).await;
    assert_eq!(calls(proxy.addr("egress"), CALLERS, EACH).await, 0);
    let (tries, requests) = (tries.load(Ordering::Relaxed), (CALLERS * EACH) as u64);
    assert!(
        tries * 4 <= requests * 5 + 12,
        "{tries} tries of {requests} requests"
    );
    assert!(tries > requests, "some are retried");
    assert!(stat(&proxy, "cluster.a.upstream_rq_retry_overflow").await > 0);
}

#[tokio::test]
async fn a_blip_of_many_requests_at_once_is_mended_as_ever() {
    const CALLERS: usize = 40;
    let down = Arc::new(AtomicUsize::new(0));
    let failing = Arc::clone(&down);
    let app = plane::app(move |_| {
        // Each of the blip's tries fails once.
        let fails = failing
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            })
            .is_ok();
        async move { plane::text(if fails { 503 } else { 200 }, "") }
    })
    .await;
    let (_ads, proxy) = proxy_before(app).await;
    assert_eq!(calls(proxy.addr("egress"), CALLERS, 10).await, CALLERS * 10);
    down.store(CALLERS, Ordering::Relaxed);
    assert_eq!(calls(proxy.addr("egress"), CALLERS, 1).await, CALLERS);
    assert_eq!(
        stat(&proxy, "cluster.a.upstream_rq_retry").await,
        CALLERS as u64
    );
}
