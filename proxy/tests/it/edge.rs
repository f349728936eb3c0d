// SPDX-License-Identifier: Apache-2.0
//! What the proxy grants strangers at its HTTP/1.1 edge: time for a head, for a body, between requests; and old manners
//! that it keeps up.

use std::time::Duration;
use std::time::Instant;

use pillion_proxy::limits::Limits;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::plane::*;

async fn limited(change: impl FnOnce(&mut Limits)) -> Plane {
    let app = app(|request| async move {
        if request.uri().path() == "/slow" {
            tokio::time::sleep(Duration::from_millis(600)).await;
        }
        let body = http_body_util::BodyExt::collect(request.into_body()).await;
        text(200, body.map(|body| body.to_bytes()).unwrap_or_default())
    })
    .await;
    let routes = vec![route_to("/", forward(&[("a", 1)]))];
    let resources = egress(vec![static_cluster("a", &[app])], routes);
    Plane::start_with(resources, None, |settings| {
        change(&mut settings.policy.limits)
    })
}

async fn to_the_end(socket: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let read = tokio::time::timeout(LIMIT, socket.read_to_end(&mut all)).await;
    // A reset is an end as well.
    let _ended = read.expect("closed in time").is_ok();
    String::from_utf8_lossy(&all).into_owned()
}

/// Until the answer's body ends with `end`.
async fn until(socket: &mut TcpStream, end: &str) -> String {
    let mut all = Vec::new();
    while !all.ends_with(end.as_bytes()) {
        let byte = tokio::time::timeout(LIMIT, socket.read_u8()).await;
        all.push(byte.expect("an answer in time").expect("an answer"));
    }
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn a_head_that_drips_is_408_and_a_silent_connection_is_left_alone() {
    let plane = limited(|limits| limits.head = Duration::from_millis(200)).await;
    let mut silent = TcpStream::connect(plane.egress()).await.unwrap();
    let mut kept = TcpStream::connect(plane.egress()).await.unwrap();
    kept.write_all(b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 3\r\n\r\none")
        .await
        .unwrap();
    until(&mut kept, "one").await;
    let mut drips = TcpStream::connect(plane.egress()).await.unwrap();
    let dripping = async {
        let begun = Instant::now();
        for byte in b"GET / HTTP/1.1\r\nHost: shop\r\nX-A: ".iter().cycle() {
            if drips.write_all(&[*byte]).await.is_err() || begun.elapsed() > LIMIT {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let answer = to_the_end(&mut drips).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
            "{answer}"
        );
        assert!(begun.elapsed() < LIMIT);
    };
    dripping.await;
    plane
        .eventually_stat("http.egress.downstream_rq_header_timeout", 1)
        .await;
    for socket in [&mut silent, &mut kept] {
        let request = b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 3\r\n\r\ntwo";
        socket.write_all(request).await.unwrap();
        until(socket, "two").await;
    }
    let mut half = TcpStream::connect(plane.egress()).await.unwrap();
    half.write_all(b"GET / HTTP/1.1\r\nHos").await.unwrap();
    assert!(to_the_end(&mut half).await.starts_with("HTTP/1.1 408"));
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_waiting_one_is_not() {
    let plane = limited(|limits| limits.idle = Duration::from_millis(150)).await;
    let mut socket = TcpStream::connect(plane.egress()).await.unwrap();
    socket
        .write_all(b"GET /slow HTTP/1.1\r\nHost: shop\r\n\r\n")
        .await
        .unwrap();
    let answer = to_the_end(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    plane
        .eventually_stat("http.egress.downstream_cx_idle_timeout", 1)
        .await;
}

#[tokio::test]
async fn a_body_below_the_least_rate_is_given_up_and_a_slow_app_is_not_its_callers_fault() {
    let plane = limited(|limits| limits.body_window = Duration::from_millis(150)).await;
    let head = "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 500\r\n\r\n";
    let mut slow = TcpStream::connect(plane.egress()).await.unwrap();
    slow.write_all(head.as_bytes()).await.unwrap();
    let begun = Instant::now();
    while slow.write_all(b"x").await.is_ok() && begun.elapsed() < LIMIT {
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert!(begun.elapsed() < LIMIT, "never given up");
    let waiting = "POST /slow HTTP/1.1\r\nHost: shop\r\nContent-Length: 3\r\n\r\nabc";
    let mut patient = TcpStream::connect(plane.egress()).await.unwrap();
    patient.write_all(waiting.as_bytes()).await.unwrap();
    assert!(until(&mut patient, "abc").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn http_1_0_keeps_its_connection_when_it_asks_to() {
    let plane = limited(|_| {}).await;
    let mut socket = TcpStream::connect(plane.egress()).await.unwrap();
    for turn in ["one", "two"] {
        let head =
            "POST / HTTP/1.0\r\nHost: shop\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\n";
        socket
            .write_all(format!("{head}{turn}").as_bytes())
            .await
            .unwrap();
        let answer = until(&mut socket, turn).await.to_ascii_lowercase();
        assert!(answer.contains("connection: keep-alive"), "{answer}");
    }
    socket
        .write_all(b"GET / HTTP/1.0\r\nHost: shop\r\n\r\n")
        .await
        .unwrap();
    assert!(to_the_end(&mut socket).await.contains(" 200 "));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let plane = limited(|_| {}).await;
    let mut all = String::new();
    for number in 0..20 {
        let body = format!("<{number}>");
        all += &format!(
            "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
    }
    let mut socket = TcpStream::connect(plane.egress()).await.unwrap();
    socket.write_all(all.as_bytes()).await.unwrap();
    let answers = until(&mut socket, "<19>").await;
    let mut from = 0;
    for number in 0..20 {
        let found = answers[from..].find(&format!("<{number}>"));
        from += found.unwrap_or_else(|| panic!("no {number} after {from} in {answers}"));
    }
}

#[tokio::test]
async fn a_connection_that_has_come_to_rest_is_served_like_any_other() {
    let awake = Duration::from_millis(20);
    let plane = limited(|limits| limits.awake = awake).await;
    let mut socket = TcpStream::connect(plane.egress()).await.unwrap();
    for turn in ["one", "two", "six"] {
        // The rest itself, not a wait for it: twice `awake` is the longest it takes to begin.
        tokio::time::sleep(awake * 5).await;
        let request = format!("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 3\r\n\r\n{turn}");
        let (before, after) = request.split_at(10);
        socket.write_all(before.as_bytes()).await.unwrap();
        tokio::time::sleep(awake * 5).await;
        socket.write_all(after.as_bytes()).await.unwrap();
        until(&mut socket, turn).await;
    }
    socket
        .write_all(b"GET /slow HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let slow = to_the_end(&mut socket).await;
    assert!(slow.starts_with("HTTP/1.1 200"), "{slow}");
}

#[tokio::test]
async fn a_connection_at_rest_is_closed_when_it_has_been_idle_too_long() {
    let plane = limited(|limits| {
        limits.awake = Duration::from_millis(20);
        limits.idle = Duration::from_millis(150);
    })
    .await;
    let mut socket = TcpStream::connect(plane.egress()).await.unwrap();
    socket
        .write_all(b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 3\r\n\r\none")
        .await
        .unwrap();
    until(&mut socket, "one").await;
    assert_eq!(to_the_end(&mut socket).await, "");
    plane
        .eventually_stat("http.egress.downstream_cx_idle_timeout", 1)
        .await;
}

/// An app that says `100 Continue` without end on its first connection, and answers on the others.
async fn interim_without_end() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut floods = true;
        while let Ok((mut socket, _)) = listener.accept().await {
            let flooding = std::mem::take(&mut floods);
            tokio::spawn(async move {
                let mut head = [0; 1024];
                let _read = socket.read(&mut head).await;
                let interim = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
                while flooding && socket.write_all(&interim).await.is_ok() {}
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
                let _written = socket.write_all(answer).await;
            });
        }
    });
    addr
}

#[tokio::test]
async fn interim_answers_without_end_cost_their_request_its_timeout_and_others_nothing() {
    let mut bounded = forward(&[("a", 1)]);
    bounded.timeout = Duration::from_millis(1500);
    let cluster = static_cluster("a", &[interim_without_end().await]);
    let resources = egress(vec![cluster], vec![route_to("/", bounded)]);
    let plane = Plane::start_with(resources, None, |settings| settings.workers = 1);
    let request = b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";
    let ask = async || {
        let mut socket = TcpStream::connect(plane.egress()).await.unwrap();
        socket.write_all(request).await.unwrap();
        to_the_end(&mut socket).await
    };
    let flooded = ask();
    let beside = async {
        plane
            .eventually_stat("cluster.a.upstream_rq_active", 1)
            .await;
        ask().await
    };
    let (flooded, beside) = tokio::join!(flooded, beside);
    assert!(flooded.starts_with("HTTP/1.1 504"), "{flooded}");
    assert!(beside.starts_with("HTTP/1.1 200"), "{beside}");
}
