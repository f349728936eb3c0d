// SPDX-License-Identifier: Apache-2.0
//! What callers who do not read can make the built proxy hold, with its default settings.

use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::frames::*;
use crate::plane;
use crate::plane::eventually;
use crate::survival::HOST;
use crate::survival::stat;
use crate::survival::under;
use crate::xds_proxy::Proxy;

const LARGE: usize = 4 << 20;
/// Without the ledger these crowds make gigabytes. 900 HTTP/2 answers: 16 to 23 MB in release builds on a busy machine,
/// where 32 is promised; unoptimised futures and the load of the machine make 17 to 34 of it in debug builds.
const MOST_MB: u64 = if cfg!(debug_assertions) { 64 } else { 32 };
/// 300 HTTP/1.1 answers have a connection each, and each may have 64 KiB queued beside what hyper reads ahead: 46 to 51.
const MOST_HTTP1_MB: u64 = if cfg!(debug_assertions) { 96 } else { 64 };

/// Memory of its own; pages of the program itself come and go with what has run so far.
fn resident_kb(proxy: &Proxy) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.id())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap()
}

async fn large() -> std::net::SocketAddr {
    let body = Bytes::from(vec![7; LARGE]);
    plane::app(move |_| {
        let body = body.clone();
        async move { plane::text(200, body) }
    })
    .await
}

/// How much the proxy has grown, at its highest.
async fn growth_mb(proxy: &Proxy, before: u64) -> u64 {
    let begun = Instant::now();
    let mut most = 0;
    while begun.elapsed() < Duration::from_millis(700) {
        most = most.max(resident_kb(proxy));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    most.saturating_sub(before) / 1024
}

async fn stalled(window: u32) {
    let (_ads, proxy) = under("true", large().await).await;
    let before = resident_kb(&proxy);
    let mut unread = Vec::new();
    for crowd in 1..=9 {
        let mut socket = open(proxy.addr("egress"), window).await;
        for number in 0..100 {
            socket
                .write_all(&request(number * 2 + 1, HOST))
                .await
                .unwrap();
        }
        unread.push(socket);
        eventually("all are under way", || async {
            stat(&proxy, "cluster.a.upstream_rq_active").await == crowd * 100
        })
        .await;
    }
    let grown = growth_mb(&proxy, before).await;
    assert!(grown < MOST_MB, "{grown} MB");
    assert_eq!(proxy.get(HOST).await.0, 200, "others are served meanwhile");
}

#[tokio::test]
async fn nine_hundred_answers_to_a_socket_that_nobody_reads_hold_little() {
    stalled(0x7fff_ffff).await;
}

#[tokio::test]
async fn nine_hundred_answers_behind_a_closed_window_hold_little() {
    stalled(0).await;
}

#[tokio::test]
async fn hundreds_of_http1_answers_that_nobody_reads_hold_little() {
    let (_ads, proxy) = under("true", large().await).await;
    let before = resident_kb(&proxy);
    let mut unread = Vec::new();
    for _ in 0..300 {
        let mut socket = TcpStream::connect(proxy.addr("egress")).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        unread.push(socket);
    }
    eventually("all are under way", || async {
        stat(&proxy, "cluster.a.upstream_rq_active").await == 300
    })
    .await;
    let grown = growth_mb(&proxy, before).await;
    assert!(grown < MOST_HTTP1_MB, "{grown} MB");
}

#[tokio::test]
async fn beyond_the_memory_limit_new_requests_are_503_and_later_ones_are_served() {
    let (_ads, proxy) = under("export PILLION_MEMORY_LIMIT=1MiB", large().await).await;
    let mut unread = Vec::new();
    let refused = async {
        loop {
            // A small receive buffer, so that what nobody reads waits in the proxy and not in the kernel.
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            let mut socket = socket.connect(proxy.addr("egress")).await.unwrap();
            let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
            socket.write_all(request.as_bytes()).await.unwrap();
            let mut head = [0; 12];
            socket.read_exact(&mut head).await.unwrap();
            if &head == b"HTTP/1.1 503" {
                return;
            }
            unread.push(socket);
            assert!(unread.len() < 2000, "never refused");
        }
    };
    tokio::time::timeout(plane::LIMIT, refused)
        .await
        .expect("refused in time");
    drop(unread);
    eventually("service is back", || async {
        proxy.get(HOST).await.0 == 200
    })
    .await;
    assert!(stat(&proxy, "http.egress.downstream_rq_overload_close").await > 0);
}
