// SPDX-License-Identifier: Apache-2.0
//! The generator's HTTP/2 connection: as many streams at once as the workload says, plain requests, gRPC calls or gRPC
//! conversations. Used by `client`.

use std::collections::HashMap;
use std::time::Instant;

use anyhow::{bail, ensure};
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::client::{Pace, Work};
use super::frames::{self, Block, Frame, Link};
use super::workload::Front;

/// A gRPC message: not compressed, 100 bytes.
const MESSAGE: usize = 105;
/// Messages of one conversation.
const CONVERSATION: u32 = 1000;

/// A stream whose answer is not complete.
struct Open {
    due: Instant,
    /// Messages still to send, after those that are under way.
    more: u32,
    /// Bytes that must come before our next message, or the end.
    wanted: usize,
    ok: bool,
}

struct Connection<'w> {
    work: &'w Work,
    link: Link,
    block: Block,
    introduced: bool,
    next: u32,
    streams: HashMap<u32, Open>,
    out: Vec<u8>,
    message: [u8; MESSAGE],
}

/// Works until the connection ends, which is an error unless the other side said it would.
pub(crate) async fn talk(work: &Work) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(work.target).await?;
    stream.set_nodelay(true)?;
    let mut connection = Connection::new(work);
    let mut read = BytesMut::with_capacity(64 * 1024);
    loop {
        let leaving = connection.take_in(&mut read)?;
        if leaving && connection.streams.is_empty() {
            return Ok(());
        }
        if !leaving && matches!(work.pace, Pace::Closed) {
            while connection.may_begin() {
                connection.begin(Instant::now());
            }
        }
        if !connection.out.is_empty() {
            stream.write_all(&connection.out).await?;
            connection.out.clear();
        }
        read.reserve(16 * 1024);
        if !leaving && matches!(work.pace, Pace::Open(_)) && connection.may_begin() {
            tokio::select! {
                biased;
                came = stream.read_buf(&mut read) => ensure!(came? > 0, "closed within a connection"),
                due = work.pace.next() => connection.begin(due),
            }
        } else {
            ensure!(
                stream.read_buf(&mut read).await? > 0,
                "closed within a connection"
            );
        }
    }
}

impl<'w> Connection<'w> {
    fn new(work: &'w Work) -> Self {
        let mut out = frames::PREFACE.to_vec();
        frames::put_greeting(&mut out);
        let path = work.workload.path;
        let common = [
            (":path", path),
            (":authority", "app.bench.local"),
            ("user-agent", "pillion-loadtest"),
        ];
        // :method GET or POST, then :scheme http, by their numbers in the static table.
        let block = if work.workload.is_grpc() {
            let grpc = [("te", "trailers"), ("content-type", "application/grpc")];
            Block::new(&[3, 6], &[&common[..], &grpc].concat())
        } else {
            Block::new(&[2, 6], &[&common[..], &[("x-tier", "gold")]].concat())
        };
        let mut message = [b'm'; MESSAGE];
        message[..5].copy_from_slice(&[0, 0, 0, 0, 100]);
        Self {
            work,
            link: Link::new(),
            block,
            introduced: false,
            next: 1,
            streams: HashMap::new(),
            out,
            message,
        }
    }

    fn may_begin(&self) -> bool {
        self.link.greeted()
            && self.streams.len() < self.work.workload.streams.min(self.link.max_streams)
    }

    fn begin(&mut self, due: Instant) {
        let stream = self.next;
        self.next += 2;
        let block = self.block.bytes(&self.link, &mut self.introduced);
        let (flags, more, wanted) = match self.work.workload.front {
            Front::Grpc => (frames::END_HEADERS, 0, MESSAGE),
            Front::GrpcStream => (frames::END_HEADERS, CONVERSATION - 1, MESSAGE),
            Front::Http1 | Front::Http2 => (frames::END_HEADERS | frames::END_STREAM, 0, 1),
        };
        frames::put(&mut self.out, frames::HEADERS, flags, stream, block);
        if self.work.workload.is_grpc() {
            let end = if more == 0 { frames::END_STREAM } else { 0 };
            frames::put(&mut self.out, frames::DATA, end, stream, &self.message);
        }
        self.streams.insert(
            stream,
            Open {
                due,
                more,
                wanted,
                ok: false,
            },
        );
    }

    /// Sees to every whole frame; whether the other side is leaving.
    fn take_in(&mut self, read: &mut BytesMut) -> anyhow::Result<bool> {
        let mut leaving = self.next > 0x3fff_ffff;
        while let Some(frame) = frames::first(read) {
            self.link.note(&frame, &mut self.out);
            match frame.kind {
                frames::GOAWAY => leaving = true,
                frames::RST_STREAM => bail!("the stream was reset: {:?}", frame.payload),
                frames::HEADERS | frames::DATA => self.advance(&frame)?,
                _ => {}
            }
            let length = frame.length;
            read.advance(length);
        }
        Ok(leaving)
    }

    fn advance(&mut self, frame: &Frame<'_>) -> anyhow::Result<()> {
        let Some(open) = self.streams.get_mut(&frame.stream) else {
            bail!("a frame on stream {}, which is not open", frame.stream);
        };
        if frame.kind == frames::HEADERS && !open.ok {
            ensure!(
                frame.says_ok(),
                "answered with something else than 200: {:?}",
                frame.content()
            );
            open.ok = true;
        } else if frame.kind == frames::DATA {
            open.wanted = open.wanted.saturating_sub(frame.content().len());
        }
        if open.wanted == 0 && open.more > 0 {
            open.more -= 1;
            open.wanted = MESSAGE;
            let end = if open.more == 0 {
                frames::END_STREAM
            } else {
                0
            };
            self.work.meter.answered(open.due);
            open.due = Instant::now();
            frames::put(
                &mut self.out,
                frames::DATA,
                end,
                frame.stream,
                &self.message,
            );
        }
        if frame.ends_stream() {
            ensure!(open.wanted == 0, "a stream that ended before its answer");
            let due = open.due;
            self.streams.remove(&frame.stream);
            self.work.meter.answered(due);
        }
        Ok(())
    }
}
