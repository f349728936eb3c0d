// SPDX-License-Identifier: Apache-2.0
//! The application behind every proxy: one thread that answers from prepared bytes, so that it is never what limits a
//! measurement. Started by `conduct`. It speaks HTTP/1.1 without bodies in requests, and HTTP/2 by prior knowledge: a
//! request without body gets a small answer, one with a body gets its messages back and gRPC's trailers.

use std::net::SocketAddr;

use anyhow::Context as _;
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use super::frames::{self, Block, Link};

pub(crate) const LARGE: usize = 1 << 20;
const SMALL: usize = 256;

/// Where it listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backend {
    pub(crate) http1: SocketAddr,
    pub(crate) http2: SocketAddr,
}

impl Backend {
    /// Runs until the process ends.
    pub(crate) fn start() -> anyhow::Result<Backend> {
        let bind = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
            listener.set_nonblocking(true)?;
            Ok::<_, std::io::Error>((listener.local_addr()?, listener))
        };
        let (http1, one) = bind().context("listen as the backend")?;
        let (http2, two) = bind().context("listen as the backend")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .context("start the backend")?;
        std::thread::Builder::new()
            .name("backend".into())
            .spawn(move || {
                LocalSet::new().block_on(&runtime, async {
                    tokio::join!(accept(one, http1_answers), accept(two, http2_answers))
                })
            })?;
        Ok(Backend { http1, http2 })
    }
}

async fn accept<F: Future<Output = std::io::Result<()>> + 'static>(
    listener: std::net::TcpListener,
    serve: fn(TcpStream) -> F,
) {
    let listener = TcpListener::from_std(listener).expect("a bound socket that does not block");
    loop {
        // Too many open files: whoever measures sees requests fail.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        stream.set_nodelay(true).unwrap_or_default();
        // A proxy that hangs up ends its connection, nothing more.
        tokio::task::spawn_local(async move { serve(stream).await.unwrap_or_default() });
    }
}

fn prepared(length: usize) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n");
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + length, b'x');
    answer
}

async fn http1_answers(mut stream: TcpStream) -> std::io::Result<()> {
    let (small, large) = (prepared(SMALL), prepared(LARGE));
    let mut read = BytesMut::with_capacity(16 * 1024);
    let mut out = Vec::new();
    while stream.read_buf(&mut read).await? > 0 {
        while let Some(end) = head_end(&read) {
            out.extend_from_slice(if read.starts_with(b"GET /large") {
                &large
            } else {
                &small
            });
            read.advance(end);
        }
        stream.write_all(&out).await?;
        out.clear();
        read.reserve(4096);
    }
    Ok(())
}

/// Where the first head ends.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map(|at| at + 4)
}

async fn http2_answers(mut stream: TcpStream) -> std::io::Result<()> {
    let plain = Block::new(
        &[8],
        &[("content-type", "text/plain"), ("content-length", "256")],
    );
    let grpc = Block::new(&[8], &[("content-type", "application/grpc")]);
    let trailers = Block::new(&[], &[("grpc-status", "0")]);
    let (mut link, mut out) = (Link::new(), Vec::new());
    frames::put_greeting(&mut out);
    let mut talk = Talk {
        plain,
        grpc,
        trailers,
        started: Vec::new(),
    };
    let mut read = BytesMut::with_capacity(64 * 1024);
    while read.len() < frames::PREFACE.len() {
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    }
    read.advance(frames::PREFACE.len());
    loop {
        while let Some(frame) = frames::first(&read) {
            link.note(&frame, &mut out);
            talk.answer(&frame, &mut out);
            let length = frame.length;
            read.advance(length);
        }
        if !out.is_empty() {
            stream.write_all(&out).await?;
            out.clear();
        }
        read.reserve(16 * 1024);
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    }
}

/// The answering side of one HTTP/2 connection. Its blocks stay literal: entering three into the dynamic table, each
/// would move the others' places.
struct Talk {
    plain: Block,
    grpc: Block,
    trailers: Block,
    /// Streams whose answer has begun.
    started: Vec<u32>,
}

impl Talk {
    fn answer(&mut self, frame: &frames::Frame<'_>, out: &mut Vec<u8>) {
        let stream = frame.stream;
        match frame.kind {
            frames::HEADERS if frame.ends_stream() => {
                frames::put(
                    out,
                    frames::HEADERS,
                    frames::END_HEADERS,
                    stream,
                    self.plain.literal(),
                );
                frames::put(
                    out,
                    frames::DATA,
                    frames::END_STREAM,
                    stream,
                    &[b'x'; SMALL],
                );
            }
            frames::DATA => {
                if !self.started.contains(&stream) {
                    frames::put(
                        out,
                        frames::HEADERS,
                        frames::END_HEADERS,
                        stream,
                        self.grpc.literal(),
                    );
                    self.started.push(stream);
                }
                let content = frame.content();
                if !content.is_empty() {
                    frames::put(out, frames::DATA, 0, stream, content);
                }
                if frame.ends_stream() {
                    let flags = frames::END_HEADERS | frames::END_STREAM;
                    frames::put(out, frames::HEADERS, flags, stream, self.trailers.literal());
                    self.started.retain(|other| *other != stream);
                }
            }
            frames::RST_STREAM => self.started.retain(|other| *other != stream),
            _ => {}
        }
    }
}
