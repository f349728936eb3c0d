// SPDX-License-Identifier: Apache-2.0
//! Requests that mean one thing to us and another to the app: none of them arrives.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Request;
use pillion_xds::cluster::OutlierDetection;
use pillion_xds::cluster::UpstreamProtocol;
use tokio::io::AsyncWriteExt;

use crate::plane::*;

/// A proxy before an app that counts requests, and the count.
pub(crate) async fn counted() -> (Plane, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    let app = app(move |request| {
        seen.fetch_add(1, Ordering::SeqCst);
        async move {
            let headers = format!("{:?}", request.headers());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            text(
                200,
                format!("{headers} body={}", String::from_utf8_lossy(&body)),
            )
        }
    })
    .await;
    let resources = egress(
        vec![static_cluster("a", &[app])],
        vec![route_to("/", forward(&[("a", 1)]))],
    );
    (Plane::start(resources, None), calls)
}

const HOST: &str = "Host: shop\r\n";

/// What it is, host line, further headers, body.
const AMBIGUOUS: &[(&str, &str, &str, &str)] = &[
    (
        "gzip before chunked",
        HOST,
        "Transfer-Encoding: gzip, chunked\r\n",
        "0\r\n\r\n",
    ),
    (
        "an empty coding",
        HOST,
        "Transfer-Encoding: ,chunked\r\n",
        "0\r\n\r\n",
    ),
    (
        "chunked twice",
        HOST,
        "Transfer-Encoding: chunked, chunked\r\n",
        "0\r\n\r\n",
    ),
    (
        "two coding lines",
        HOST,
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n",
    ),
    ("identity", HOST, "Transfer-Encoding: identity\r\n", ""),
    (
        "an unknown coding",
        HOST,
        "Transfer-Encoding: xchunked\r\n",
        "0\r\n\r\n",
    ),
    ("a signed length", HOST, "Content-Length: +5\r\n", "12345"),
    (
        "a hexadecimal length",
        HOST,
        "Content-Length: 0x5\r\n",
        "12345",
    ),
    (
        "two lengths",
        HOST,
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "12345",
    ),
    (
        "a list of lengths",
        HOST,
        "Content-Length: 5, 6\r\n",
        "12345",
    ),
    ("an empty length", HOST, "Content-Length: \r\n", ""),
    ("a folded header", HOST, "X-A: 1\r\n 2\r\n", ""),
    ("a blank before the colon", HOST, "X-A : 1\r\n", ""),
    (
        "a chunk size with 0x",
        HOST,
        "Transfer-Encoding: chunked\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
    ),
    ("no host", "", "", ""),
    ("two hosts", "Host: shop\r\nHost: shop\r\n", "", ""),
    ("a list of hosts", "Host: shop, other\r\n", "", ""),
    ("userinfo", "Host: user@shop\r\n", "", ""),
    ("a bad port", "Host: shop:80a\r\n", "", ""),
    ("a blank in the host", "Host: sh op\r\n", "", ""),
    ("an unknown expectation", HOST, "Expect: magic\r\n", ""),
];

#[tokio::test]
async fn ambiguous_requests_are_refused_and_never_reach_the_app() {
    let (plane, calls) = counted().await;
    for (what, host, headers, body) in AMBIGUOUS {
        let request = format!("POST / HTTP/1.1\r\n{host}{headers}\r\n{body}");
        let answer = raw(plane.egress(), request.as_bytes()).await;
        let refused = answer.starts_with("HTTP/1.1 4") || answer.is_empty();
        // A chunk that breaks off mid-body may have begun to pass: it must not pass as a whole request.
        let broken = answer.starts_with("HTTP/1.1 5");
        assert!(refused || broken, "{what}: {answer}");
    }
    assert!(
        calls.load(Ordering::SeqCst) <= 1,
        "only the broken chunk may have begun: {calls:?}"
    );
}

#[tokio::test]
async fn a_length_beside_chunked_never_makes_two_requests_of_one() {
    let (plane, calls) = counted().await;
    let request =
        b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
        0\r\n\r\nGET /admin HTTP/1.1\r\nHost: shop\r\n\r\n";
    raw(plane.egress(), request).await;
    assert!(calls.load(Ordering::SeqCst) <= 1);
}

#[tokio::test]
async fn nominated_and_hop_headers_stay_here_and_protected_ones_pass() {
    let (plane, _) = counted().await;
    let request =
        b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: close, X-Hop, Authorization\r\nX-Hop: 1\r\n\
        Keep-Alive: 5\r\nProxy-Connection: close\r\nAuthorization: secret\r\n\r\n";
    let answer = raw(plane.egress(), request).await.to_lowercase();
    for gone in ["x-hop", "keep-alive", "proxy-connection"] {
        assert!(!answer.contains(gone), "{gone} in {answer}");
    }
    assert!(answer.contains("authorization"), "{answer}");
}

#[tokio::test]
async fn framing_is_written_anew_from_the_body() {
    let (plane, _) = counted().await;
    let request =
        b"POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
        3;ext=1\r\nabc\r\n0\r\n\r\n";
    let answer = raw(plane.egress(), request).await;
    assert!(
        answer.contains("body=abc") && answer.contains("\"transfer-encoding\": \"chunked\""),
        "{answer}"
    );
}

#[tokio::test]
async fn an_expected_continue_comes_from_us_and_is_not_passed_on() {
    let (plane, _) = counted().await;
    let request =
        b"POST / HTTP/1.1\r\nHost: shop\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi";
    let answer = raw(plane.egress(), request).await;
    assert!(
        answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200"),
        "{answer}"
    );
    assert!(!answer.contains("\"expect\""), "{answer}");
}

#[tokio::test]
async fn an_ambiguous_answer_is_502() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"garbage\r\n\r\n",
    ] {
        let app = raw_app(answer).await;
        let resources = egress(
            vec![static_cluster("a", &[app])],
            vec![route_to("/", forward(&[("a", 1)]))],
        );
        let plane = Plane::start(resources, None);
        let status = send(plane.egress(), get("/")).await.status();
        assert_eq!(status, 502, "{}", String::from_utf8_lossy(answer));
    }
}

#[tokio::test]
async fn a_request_body_that_breaks_is_the_callers_fault_and_ejects_nobody() {
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let app = app(|request| async move {
            drop(request.into_body().collect().await);
            text(200, "whole")
        })
        .await;
        let mut cluster = static_cluster("a", &[app]);
        cluster.protocol = protocol;
        cluster.outlier_detection = Some(OutlierDetection {
            consecutive_5xx: 1,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(60),
            max_ejection_percent: 100,
        });
        let routes = vec![route_to("/", forward(&[("a", 1)]))];
        let plane = Plane::start(egress(vec![cluster], routes), None);
        let head =
            "POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        for _ in 0..3 {
            let answer = raw(plane.egress(), format!("{head}zz\r\n").as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 400"), "{protocol:?}: {answer}");
            let mut gone = tokio::net::TcpStream::connect(plane.egress())
                .await
                .unwrap();
            gone.write_all(head.as_bytes()).await.unwrap();
        }
        plane
            .eventually_stat("cluster.a.upstream_rq_active", 0)
            .await;
        assert_eq!(send(plane.egress(), get("/")).await.status(), 200);
        let blamed: Vec<(String, u64)> = plane
            .metrics
            .stats()
            .into_iter()
            .filter(|(name, value)| name.contains("upstream_rq_5") && *value > 0)
            .collect();
        assert_eq!(blamed, Vec::new(), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_target_that_is_not_of_http_is_refused() {
    let (plane, calls) = counted().await;
    for target in ["ftp://shop/", "shop:80"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: shop\r\n\r\n");
        let answer = raw(plane.egress(), request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{target}: {answer}");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn https_in_a_target_does_not_make_a_plain_connection_secure() {
    let (plane, _) = counted().await;
    let request = b"GET https://shop/ HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";
    let answer = raw(plane.egress(), request).await;
    assert!(
        answer.contains(r#""x-forwarded-proto": "http""#),
        "{answer}"
    );
    let (status, two) = over_http2(&plane, Request::get("https://shop/")).await;
    assert_eq!(status, 200);
    assert!(two.contains(r#""x-forwarded-proto": "http""#), "{two}");
}

#[tokio::test]
async fn cookie_crumbs_of_http2_are_one_header_to_http1() {
    let (plane, _) = counted().await;
    let crumbs = Request::get("http://shop/")
        .header("cookie", "a=1")
        .header("cookie", "b=2");
    let (_, told) = over_http2(&plane, crumbs).await;
    assert!(told.contains(r#""cookie": "a=1; b=2""#), "{told}");
}

#[tokio::test]
async fn a_request_of_too_many_fields_is_431_over_http2() {
    let (plane, calls) = counted().await;
    let mut crumbs = Request::get("http://shop/");
    for _ in 0..300 {
        crumbs = crumbs.header("cookie", "a");
    }
    assert_eq!(over_http2(&plane, crumbs).await.0, 431);
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

pub(crate) async fn over_http2(plane: &Plane, request: http::request::Builder) -> (u16, String) {
    let socket = tokio::net::TcpStream::connect(plane.egress())
        .await
        .unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(socket),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    let request = request.body(http_body_util::Empty::<bytes::Bytes>::new());
    let answering = sender.send_request(request.unwrap());
    let answer = tokio::time::timeout(LIMIT, answering)
        .await
        .unwrap()
        .unwrap();
    (answer.status().as_u16(), body(answer).await)
}
