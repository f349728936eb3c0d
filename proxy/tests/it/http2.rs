// SPDX-License-Identifier: Apache-2.0
//! HTTP/2 callers who mean harm, or only read slowly: the former are told to go, the latter cost their neighbours
//! nothing.

use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::Empty;
use hyper::Request;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use pillion_xds::cluster::Cluster;
use pillion_xds::cluster::UpstreamProtocol;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::frames::*;
use crate::plane;
use crate::plane::LIMIT;
use crate::plane::Plane;
use crate::plane::eventually;
use crate::smuggling::counted;
use crate::smuggling::over_http2;

const CALM: u8 = 11;
/// More than any of them may send.
const ATTEMPTS: usize = 60_000;

type Flood = (&'static str, fn(usize) -> Vec<u8>);

fn stream(number: usize) -> u32 {
    u32::try_from(number * 2 + 1).unwrap()
}

/// What each sends again and again. Streams 1 and on are its own.
const FLOODS: &[Flood] = &[
    ("rapid reset", |number| {
        let mut frames = request(stream(number), "shop");
        frames.extend(frame(RST_STREAM, 0, stream(number), &[0, 0, 0, 8]));
        frames
    }),
    ("PING", |_| frame(PING, 0, 0, &[0; 8])),
    ("SETTINGS", |_| frame(SETTINGS, 0, 0, &[])),
    ("PRIORITY", |number| {
        frame(PRIORITY, 0, stream(number), &[0, 0, 0, 0, 9])
    }),
    ("unknown frames", |_| frame(0xbe, 0, 0, &[1, 2, 3])),
    ("window updates", |_| {
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])
    }),
    ("empty DATA", |number| {
        if number == 0 {
            frame(HEADERS, END_HEADERS, 1, &get("shop"))
        } else {
            frame(DATA, 0, 1, &[])
        }
    }),
    ("CONTINUATION", |number| {
        if number == 0 {
            frame(HEADERS, END_STREAM, 1, &get("shop"))
        } else {
            frame(CONTINUATION, 0, 1, &[])
        }
    }),
    ("CONTINUATION of fields", |number| {
        if number == 0 {
            frame(HEADERS, END_STREAM, 1, &get("shop"))
        } else {
            frame(CONTINUATION, 0, 1, &field("x-a", "b").repeat(100))
        }
    }),
    ("a zero window update makes us reset", |number| {
        let mut frames = frame(HEADERS, END_HEADERS, stream(number), &get("shop"));
        frames.extend(frame(WINDOW_UPDATE, 0, stream(number), &[0; 4]));
        frames
    }),
    ("a window overflow makes us reset", |number| {
        let mut frames = frame(HEADERS, END_HEADERS, stream(number), &get("shop"));
        frames.extend(frame(
            WINDOW_UPDATE,
            0,
            stream(number),
            &[0x7f, 0xff, 0xff, 0xff],
        ));
        frames
    }),
    ("a body longer than declared makes us reset", |number| {
        let mut block = get("shop");
        block.extend(field("content-length", "1"));
        let mut frames = frame(HEADERS, END_HEADERS, stream(number), &block);
        frames.extend(frame(DATA, 0, stream(number), b"too long"));
        frames
    }),
    ("uppercase names make us reset", |number| {
        let mut block = get("shop");
        block.extend(field("X-UPPER", "1"));
        frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &block)
    }),
];

#[tokio::test]
async fn floods_are_ended_and_a_bystander_is_served() {
    let (plane, _) = counted().await;
    for (number, (what, one)) in FLOODS.iter().enumerate() {
        let socket = open(plane.egress(), 65_535).await;
        let bystander = async {
            let begun = Instant::now();
            let asked = over_http2(&plane, Request::get("http://shop/")).await;
            (asked.0, begun.elapsed())
        };
        let ((sent, code), (status, took)) = tokio::join!(flood(socket, ATTEMPTS, one), bystander);
        assert!(sent < ATTEMPTS, "{what}: never ended");
        let by_us = ["PING", "SETTINGS", "PRIORITY", "unknown frames"].contains(what);
        assert!(
            !by_us || matches!(code, None | Some(CALM)),
            "{what}: {code:?} after {sent}"
        );
        assert!(
            status == 200 && took < Duration::from_secs(5),
            "{what}: {status} after {took:?}"
        );
        eventually(&format!("{what} is counted"), || async {
            plane.stat("http.egress.downstream_cx_protocol_error") == number as u64 + 1
        })
        .await;
    }
}

#[tokio::test]
async fn a_rapid_reset_brings_little_to_the_app() {
    let (plane, calls) = counted().await;
    let socket = open(plane.egress(), 65_535).await;
    let (sent, _) = flood(socket, ATTEMPTS, FLOODS[0].1).await;
    assert!(sent < ATTEMPTS);
    assert!(calls.load(Ordering::SeqCst) <= 300, "{calls:?} of {sent}");
}

#[tokio::test]
async fn a_header_bomb_is_refused_before_the_app_hears_of_it() {
    let (plane, calls) = counted().await;
    let mut socket = open(plane.egress(), 65_535).await;
    // One entry in the dynamic table, then as many references of one byte as fit a frame.
    let mut block = get("shop");
    block.extend([0x40, 1, b'a', 1, b'b']);
    block.extend(vec![0xbe; 16_000]);
    socket
        .write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block))
        .await
        .unwrap();
    let mut some = [0; 64];
    assert!(
        tokio::time::timeout(LIMIT, socket.read(&mut some))
            .await
            .is_ok()
    );
    // Big values through the table: few bytes on the wire, many once decoded.
    let mut socket = open(plane.egress(), 65_535).await;
    let mut block = get("shop");
    block.extend([0x40, 1, b'a', 0x7f, 0x81, 0x1e]);
    block.extend(vec![b'x'; 4000]);
    block.extend(vec![0xbe; 200]);
    socket
        .write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block))
        .await
        .unwrap();
    assert!(
        tokio::time::timeout(LIMIT, socket.read(&mut some))
            .await
            .is_ok()
    );
    assert_eq!(
        over_http2(&plane, Request::get("http://shop/")).await.0,
        200
    );
    assert_eq!(
        calls.load(Ordering::SeqCst),
        1,
        "only the last one is a request"
    );
}

#[tokio::test]
async fn frames_before_settings_end_the_connection() {
    let (plane, calls) = counted().await;
    let mut socket = TcpStream::connect(plane.egress()).await.unwrap();
    socket
        .write_all(&[PREFACE, &request(1, "shop")].concat())
        .await
        .unwrap();
    let mut all = Vec::new();
    let ended = tokio::time::timeout(LIMIT, socket.read_to_end(&mut all)).await;
    // A reset is an end as well.
    let _ended = ended.expect("ended in time").is_ok();
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_authority_with_userinfo_or_another_host_beside_it_is_400() {
    let (plane, calls) = counted().await;
    for (authority, host) in [
        ("user@shop", None),
        ("shop", Some("evil")),
        ("shop:80a", None),
        ("", None),
    ] {
        let mut socket = open(plane.egress(), 65_535).await;
        let mut block = get(authority);
        if let Some(host) = host {
            block.extend(field("host", host));
        }
        socket
            .write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block))
            .await
            .unwrap();
        let mut some = [0; 256];
        assert!(
            tokio::time::timeout(LIMIT, socket.read(&mut some))
                .await
                .is_ok()
        );
    }
    assert_eq!(
        over_http2(&plane, Request::get("http://shop/")).await.0,
        200
    );
    assert_eq!(
        calls.load(Ordering::SeqCst),
        1,
        "only the last one is a request"
    );
}

/// An app that says five bytes at a time without end on `/chatty`, and `ok` elsewhere.
async fn chatty() -> std::net::SocketAddr {
    plane::app(|request| async move {
        if request.uri().path() != "/chatty" {
            return plane::text(200, "ok");
        }
        let messages = futures_util::stream::repeat_with(|| {
            Ok(hyper::body::Frame::data(Bytes::from_static(b"12345")))
        });
        hyper::Response::new(http_body_util::StreamBody::new(messages).boxed())
    })
    .await
}

#[tokio::test]
async fn slow_readers_of_tiny_messages_do_not_end_their_neighbours() {
    let cluster = Cluster {
        protocol: UpstreamProtocol::Http2,
        ..plane::static_cluster("a", &[chatty().await])
    };
    let routes = vec![plane::route_to("/", plane::forward(&[("a", 1)]))];
    let resources = plane::egress(vec![cluster], routes);
    let plane = Plane::start_with(resources, None, |settings| settings.workers = 1);
    let socket = TcpStream::connect(plane.egress()).await.unwrap();
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(16 * 1024)
        .initial_connection_window_size(64 * 1024 * 1024)
        .handshake(TokioIo::new(socket))
        .await
        .unwrap();
    tokio::spawn(connection);
    let ask = |path: &str| {
        let request = Request::get(format!("http://shop{path}")).body(Empty::<Bytes>::new());
        let asked = sender.clone().send_request(request.unwrap());
        async move {
            tokio::time::timeout(LIMIT, asked)
                .await
                .expect("an answer in time")
        }
    };
    let mut slow = Vec::new();
    for _ in 0..6 {
        slow.push(ask("/chatty").await.unwrap());
    }
    let begun = Instant::now();
    let mut asked = 0;
    // Long enough for every window on the way to fill.
    while begun.elapsed() < Duration::from_millis(1500) {
        let answer = ask("/").await.expect("a neighbour is answered");
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
        asked += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(asked > 20, "{asked}");
    assert_eq!(
        plane.stat("cluster.a.upstream_cx_total"),
        1,
        "all shared one connection"
    );
    for answer in &mut slow {
        let frame = tokio::time::timeout(LIMIT, answer.body_mut().frame()).await;
        frame
            .expect("in time")
            .expect("not ended")
            .expect("not broken");
    }
}
