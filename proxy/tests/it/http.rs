// SPDX-License-Identifier: Apache-2.0
//! Requests through the data plane: routes, weights, retries, timeouts, what answers look like.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::Request;
use pillion_xds::cluster::CircuitBreakers;
use pillion_xds::cluster::Cluster;
use pillion_xds::route::Action;
use pillion_xds::route::PathRewrite;
use pillion_xds::route::RetryOn;
use pillion_xds::route::RetryPolicy;

use crate::plane::*;

fn policy(on: &[RetryOn]) -> RetryPolicy {
    RetryPolicy {
        on: on.to_vec(),
        status_codes: vec![503],
        max_retries: 2,
        per_try_timeout: None,
    }
}

#[tokio::test]
async fn a_request_by_host_reaches_its_cluster_and_carries_what_a_hop_adds() {
    let app = app(|request| async move {
        let headers = request.headers();
        let told = [
            "x-request-id",
            "x-forwarded-proto",
            "x-envoy-expected-rq-timeout-ms",
            "host",
        ];
        let told: Vec<&str> = told
            .iter()
            .map(|name| headers.get(*name).unwrap().to_str().unwrap())
            .collect();
        text(200, told.join(" "))
    })
    .await;
    let plane = Plane::start(
        egress(
            vec![static_cluster("a", &[app])],
            vec![route_to("/", forward(&[("a", 1)]))],
        ),
        None,
    );
    let response = send(plane.egress(), get("/x")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["server"], "envoy");
    assert!(
        response
            .headers()
            .contains_key("x-envoy-upstream-service-time")
    );
    let told = body(response).await;
    let told: Vec<&str> = told.split(' ').collect();
    assert_eq!(
        (told[0].len(), &told[1..]),
        (36, &["http", "15000", "shop"][..])
    );
    assert_eq!(plane.stat("cluster.a.upstream_rq_200"), 1);
    plane
        .eventually_stat("http.egress.downstream_rq_2xx", 1)
        .await;
}

#[tokio::test]
async fn an_absolute_target_goes_before_host() {
    let app = named("a").await;
    let plane = Plane::start(
        egress(
            vec![static_cluster("a", &[app])],
            vec![route_to("/", forward(&[("a", 1)]))],
        ),
        None,
    );
    let request = b"GET http://shop/ HTTP/1.1\r\nHost: elsewhere\r\nConnection: close\r\n\r\n";
    assert!(
        raw(plane.egress(), request)
            .await
            .starts_with("HTTP/1.1 200")
    );
}

#[tokio::test]
async fn an_unknown_host_or_path_is_404_and_counted() {
    let app = named("a").await;
    let plane = Plane::start(
        egress(
            vec![static_cluster("a", &[app])],
            vec![route_to("/a", forward(&[("a", 1)]))],
        ),
        None,
    );
    assert_eq!(send(plane.egress(), get("/b")).await.status(), 404);
    let other = Request::builder()
        .uri("/a")
        .header("host", "other")
        .body(Full::default())
        .unwrap();
    assert_eq!(send(plane.egress(), other).await.status(), 404);
    plane.eventually_stat("http.egress.no_route", 2).await;
}

#[tokio::test]
async fn weights_share_traffic_and_zero_weights_route_to_nothing() {
    let (a, b) = (named("a").await, named("b").await);
    let clusters = vec![static_cluster("a", &[a]), static_cluster("b", &[b])];
    let routes = vec![
        route_to("/split", forward(&[("a", 9), ("b", 1)])),
        route_to("/none", forward(&[("a", 0)])),
    ];
    let plane = Plane::start(egress(clusters, routes), None);
    let mut counts = BTreeMap::new();
    for _ in 0..200 {
        *counts
            .entry(body(send(plane.egress(), get("/split")).await).await)
            .or_insert(0) += 1;
    }
    // Nine to one over 200 draws: outside 160 to 195 once in a million runs.
    assert!((160..=195).contains(&counts["a"]), "{counts:?}");
    assert_eq!(send(plane.egress(), get("/none")).await.status(), 503);
}

#[tokio::test]
async fn paths_are_normalised_before_matching_and_sent_as_matched() {
    let app = app(|request| async move { text(200, request.uri().to_string()) }).await;
    let plane = Plane::start(
        egress(
            vec![static_cluster("a", &[app])],
            vec![route_to("/a/", forward(&[("a", 1)]))],
        ),
        None,
    );
    let sent = b"GET /x/..//a/%2e/b?q=%2e HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";
    let answer = raw(plane.egress(), sent).await;
    assert!(answer.ends_with("/a/b?q=%2e"), "{answer}");
    assert!(
        raw(
            plane.egress(),
            b"GET /a/../../b HTTP/1.1\r\nHost: shop\r\n\r\n"
        )
        .await
        .starts_with("HTTP/1.1 400")
    );
}

#[tokio::test]
async fn prefix_and_host_are_rewritten() {
    let app = app(|request| async move {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        text(200, format!("{host}{}", request.uri()))
    })
    .await;
    let mut rewriting = forward(&[("a", 1)]);
    rewriting.rewrite = Some(PathRewrite::Prefix("/".to_owned()));
    rewriting.host_rewrite = Some("inner".to_owned());
    let plane = Plane::start(
        egress(
            vec![static_cluster("a", &[app])],
            vec![route_to("/v1/", rewriting)],
        ),
        None,
    );
    assert_eq!(
        body(send(plane.egress(), get("/v1/x?y")).await).await,
        "inner/x?y"
    );
}

#[tokio::test]
async fn a_direct_response_needs_no_cluster() {
    let mut teapot = route_to("/", forward(&[]));
    teapot.action = Action::Respond {
        status: 418,
        body: "short".to_owned(),
    };
    let plane = Plane::start(egress(Vec::new(), vec![teapot]), None);
    let response = send(plane.egress(), get("/")).await;
    assert_eq!(
        (response.status().as_u16(), body(response).await.as_str()),
        (418, "short")
    );
}

#[tokio::test]
async fn a_503_is_retried_until_it_succeeds() {
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    let app = app(move |request| {
        let number = seen.fetch_add(1, Ordering::SeqCst);
        async move {
            let sent = request.into_body().collect().await.unwrap().to_bytes();
            if number < 2 {
                text(503, "no")
            } else {
                text(200, sent)
            }
        }
    })
    .await;
    let mut retrying = forward(&[("a", 1)]);
    retrying.retry = Some(policy(&[RetryOn::StatusCodes]));
    let plane = Plane::start(
        egress(
            vec![static_cluster("a", &[app])],
            vec![route_to("/", retrying)],
        ),
        None,
    );
    let request = Request::builder()
        .method("POST")
        .uri("/")
        .header("host", "shop");
    let response = send(
        plane.egress(),
        request.body(Full::from("precious")).unwrap(),
    )
    .await;
    assert_eq!(
        (response.status().as_u16(), body(response).await.as_str()),
        (200, "precious")
    );
    assert_eq!(calls.load(Ordering::SeqCst), 3);
    assert_eq!(plane.stat("cluster.a.upstream_rq_retry"), 2);
    assert_eq!(plane.stat("cluster.a.upstream_rq_retry_success"), 1);
}

#[tokio::test]
async fn retries_end_at_the_policy_s_number_and_give_the_last_answer() {
    let app = app(|_| async { text(503, "no") }).await;
    let mut retrying = forward(&[("a", 1)]);
    retrying.retry = Some(policy(&[RetryOn::StatusCodes]));
    let plane = Plane::start(
        egress(
            vec![static_cluster("a", &[app])],
            vec![route_to("/", retrying)],
        ),
        None,
    );
    let response = send(plane.egress(), get("/")).await;
    assert_eq!(
        (response.status().as_u16(), body(response).await.as_str()),
        (503, "no")
    );
    assert_eq!(plane.stat("cluster.a.upstream_rq_total"), 3);
    assert_eq!(plane.stat("cluster.a.upstream_rq_retry_limit_exceeded"), 1);
}

#[tokio::test]
async fn a_refused_connect_is_retried_at_another_endpoint() {
    let (dead, app) = (nobody().await, named("a").await);
    let mut retrying = forward(&[("a", 1)]);
    retrying.retry = Some(policy(&[RetryOn::ConnectFailure]));
    let plane = Plane::start(
        egress(
            vec![static_cluster("a", &[dead, app])],
            vec![route_to("/", retrying)],
        ),
        None,
    );
    for _ in 0..4 {
        assert_eq!(body(send(plane.egress(), get("/")).await).await, "a");
    }
    assert!(plane.stat("cluster.a.upstream_cx_connect_fail") >= 1);
}

#[tokio::test]
async fn a_refused_connect_without_retry_is_envoy_s_503() {
    let dead = nobody().await;
    let plane = Plane::start(
        egress(
            vec![static_cluster("a", &[dead])],
            vec![route_to("/", forward(&[("a", 1)]))],
        ),
        None,
    );
    let response = send(plane.egress(), get("/")).await;
    assert_eq!(response.status(), 503);
    let said = body(response).await;
    assert!(
        said.starts_with(
            "upstream connect error or disconnect/reset before headers. reset reason: "
        ),
        "{said}"
    );
    assert!(said.contains("Connection refused"), "{said}");
}

#[tokio::test]
async fn a_connection_that_dies_without_answer_is_a_reset_and_retried_as_one() {
    let dying = raw_app(b"").await;
    let app = named("a").await;
    let mut retrying = forward(&[("a", 1)]);
    retrying.retry = Some(policy(&[RetryOn::Reset]));
    let routes = vec![
        route_to("/retry", retrying),
        route_to("/", forward(&[("dying", 1)])),
    ];
    let clusters = vec![
        static_cluster("a", &[dying, app]),
        static_cluster("dying", &[dying]),
    ];
    let plane = Plane::start(egress(clusters, routes), None);
    assert_eq!(body(send(plane.egress(), get("/retry")).await).await, "a");
    let said = body(send(plane.egress(), get("/")).await).await;
    assert!(said.ends_with("connection termination"), "{said}");
}

#[tokio::test]
async fn no_endpoint_is_no_healthy_upstream() {
    let plane = Plane::start(
        egress(
            vec![static_cluster("a", &[])],
            vec![route_to("/", forward(&[("a", 1)]))],
        ),
        None,
    );
    let response = send(plane.egress(), get("/")).await;
    assert_eq!(
        (response.status().as_u16(), body(response).await.as_str()),
        (503, "no healthy upstream")
    );
}

#[tokio::test]
async fn the_route_s_timeout_covers_all_tries_and_says_so() {
    let app = app(|_| async {
        tokio::time::sleep(LIMIT).await;
        text(200, "late")
    })
    .await;
    let mut slow = forward(&[("a", 1)]);
    slow.timeout = Duration::from_millis(150);
    slow.retry = Some(policy(&[RetryOn::ServerError]));
    let plane = Plane::start(
        egress(vec![static_cluster("a", &[app])], vec![route_to("/", slow)]),
        None,
    );
    let begun = Instant::now();
    let response = send(plane.egress(), get("/")).await;
    assert_eq!(
        (response.status().as_u16(), body(response).await.as_str()),
        (504, "upstream request timeout")
    );
    assert!(
        begun.elapsed() >= Duration::from_millis(150) && begun.elapsed() < Duration::from_secs(5)
    );
    assert_eq!(plane.stat("cluster.a.upstream_rq_timeout"), 1);
}

#[tokio::test]
async fn a_try_s_timeout_leads_to_the_next_try() {
    let calls = Arc::new(AtomicUsize::new(0));
    let app = app(move |_| {
        let first = calls.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                tokio::time::sleep(LIMIT).await;
            }
            text(200, "in time")
        }
    })
    .await;
    let mut retrying = forward(&[("a", 1)]);
    retrying.retry = Some(RetryPolicy {
        per_try_timeout: Some(Duration::from_millis(100)),
        ..policy(&[RetryOn::Reset])
    });
    let plane = Plane::start(
        egress(
            vec![static_cluster("a", &[app])],
            vec![route_to("/", retrying)],
        ),
        None,
    );
    assert_eq!(body(send(plane.egress(), get("/")).await).await, "in time");
    assert_eq!(plane.stat("cluster.a.upstream_rq_per_try_timeout"), 1);
}

#[tokio::test]
async fn a_grpc_timeout_is_a_trailers_only_unavailable() {
    let app = app(|_| async {
        tokio::time::sleep(LIMIT).await;
        text(200, "late")
    })
    .await;
    let mut slow = forward(&[("a", 1)]);
    slow.timeout = Duration::from_millis(50);
    let plane = Plane::start(
        egress(vec![static_cluster("a", &[app])], vec![route_to("/", slow)]),
        None,
    );
    let mut request = get("/s/m");
    request
        .headers_mut()
        .insert("content-type", "application/grpc".parse().unwrap());
    let response = send(plane.egress(), request).await;
    assert_eq!(
        (
            response.status().as_u16(),
            &response.headers()["grpc-status"]
        ),
        (200, &"14".parse().unwrap())
    );
    assert_eq!(
        response.headers()["grpc-message"],
        "upstream request timeout"
    );
}

#[tokio::test]
async fn a_limit_reached_is_503_overflow() {
    let app = app(|_| async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        text(200, "ok")
    })
    .await;
    let limits = CircuitBreakers {
        max_requests: Some(1),
        ..CircuitBreakers::default()
    };
    let cluster = Cluster {
        limits,
        ..static_cluster("a", &[app])
    };
    let plane = Plane::start(
        egress(vec![cluster], vec![route_to("/", forward(&[("a", 1)]))]),
        None,
    );
    let first = tokio::spawn(send(plane.egress(), get("/")));
    plane
        .eventually_stat("cluster.a.circuit_breakers.default.rq_open", 1)
        .await;
    let second = send(plane.egress(), get("/")).await;
    assert_eq!(
        (
            second.status().as_u16(),
            &second.headers()["x-envoy-overloaded"]
        ),
        (503, &"true".parse().unwrap())
    );
    assert!(body(second).await.ends_with("overflow"));
    assert_eq!(first.await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_connection_limit_makes_requests_wait_their_turn() {
    let app = app(|_| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        text(200, "ok")
    })
    .await;
    let limits = CircuitBreakers {
        max_connections: Some(1),
        ..CircuitBreakers::default()
    };
    let cluster = Cluster {
        limits,
        ..static_cluster("a", &[app])
    };
    let plane = Plane::start(
        egress(vec![cluster], vec![route_to("/", forward(&[("a", 1)]))]),
        None,
    );
    let all: Vec<_> = (0..12)
        .map(|_| tokio::spawn(send(plane.egress(), get("/"))))
        .collect();
    for one in all {
        assert_eq!(one.await.unwrap().status(), 200);
    }
    assert!(plane.stat("cluster.a.upstream_cx_overflow") > 0);
}

#[tokio::test]
async fn connections_are_reused() {
    let app = named("a").await;
    let plane = Plane::start_with(
        egress(
            vec![static_cluster("a", &[app])],
            vec![route_to("/", forward(&[("a", 1)]))],
        ),
        None,
        |settings| settings.workers = 1,
    );
    for _ in 0..20 {
        assert_eq!(body(send(plane.egress(), get("/")).await).await, "a");
    }
    assert_eq!(plane.stat("cluster.a.upstream_cx_total"), 1);
}

#[tokio::test]
async fn swapping_configuration_under_load_loses_no_request() {
    let (a, b) = (named("a").await, named("b").await);
    let clusters = vec![static_cluster("a", &[a]), static_cluster("b", &[b])];
    let mut plane = Plane::start(
        egress(clusters, vec![route_to("/", forward(&[("a", 1)]))]),
        None,
    );
    let proxy = plane.egress();
    let callers: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn(async move {
                for _ in 0..50 {
                    assert_eq!(send(proxy, get("/")).await.status(), 200);
                }
            })
        })
        .collect();
    let mut swaps = 0;
    while !callers.iter().all(tokio::task::JoinHandle::is_finished) {
        let to = if swaps % 2 == 0 { "b" } else { "a" };
        plane.push(|resources| {
            let routes = table(
                &["shop", "shop:80"],
                vec![route_to("/", forward(&[(to, 1)]))],
            );
            resources.routes.insert("r".to_owned(), Arc::new(routes));
        });
        swaps += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(swaps > 1);
}

#[tokio::test]
async fn the_answer_to_head_keeps_its_length_and_has_no_body() {
    let app = named("hello").await;
    let plane = Plane::start(
        egress(
            vec![static_cluster("a", &[app])],
            vec![route_to("/", forward(&[("a", 1)]))],
        ),
        None,
    );
    let answer = raw(
        plane.egress(),
        b"HEAD / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(
        answer.contains("content-length: 5\r\n") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
}
