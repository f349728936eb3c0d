// SPDX-License-Identifier: Apache-2.0
//! Stands between an HTTP/2 caller's stream and hyper: reads frame headers as they pass, nine bytes each, and gives up a
//! connection whose frames are work for us and none for anybody else (resets, SETTINGS, PING, empty frames, and their
//! kin). A bucket of tokens a connection, filled by time and by the bytes that the caller takes from us; the clock is read
//! when it is empty, not for a frame. What frames mean is h2's business.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Instant;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;

use super::guard::Edge;
use crate::stream::Stream;

const PREFACE: usize = 24;
const HEADER: usize = 9;
/// Tokens at the beginning and at most.
const BURST: u64 = 20_000;
/// Tokens a second.
const RATE: u64 = 2_000;
/// Bytes taken from us that earn a token: a caller who reads may update windows as often as it likes.
const EARN: u64 = 16;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;

const PROTOCOL_ERROR: u8 = 1;
const ENHANCE_YOUR_CALM: u8 = 11;

/// What a frame costs: 0 for what asks for an answer, which other limits bound.
fn cost(kind: u8, flags: u8, length: usize) -> u64 {
    match kind {
        DATA if length == 0 && flags & END_STREAM == 0 => 10,
        DATA | HEADERS | PUSH_PROMISE => 0,
        SETTINGS | PING if flags & ACK != 0 => 1,
        SETTINGS | RST_STREAM | CONTINUATION | GOAWAY => 10,
        PING => 5,
        PRIORITY | WINDOW_UPDATE => 1,
        _ => 2,
    }
}

/// Follows frames.
struct Scanner {
    preface: usize,
    header: [u8; HEADER],
    have: usize,
    payload: usize,
    frames: u64,
    newest: u32,
    tokens: u64,
    filled: Option<Instant>,
}

impl Scanner {
    fn new() -> Scanner {
        Scanner {
            preface: PREFACE,
            header: [0; HEADER],
            have: 0,
            payload: 0,
            frames: 0,
            newest: 0,
            tokens: BURST,
            filled: None,
        }
    }

    /// Follows `bytes`; an error code when the connection is to end.
    fn scan(&mut self, mut bytes: &[u8]) -> Result<(), u8> {
        while !bytes.is_empty() {
            let passing = if self.preface > 0 {
                &mut self.preface
            } else {
                &mut self.payload
            };
            if *passing > 0 {
                let number = (*passing).min(bytes.len());
                *passing -= number;
                bytes = &bytes[number..];
                continue;
            }
            let number = (HEADER - self.have).min(bytes.len());
            self.header[self.have..self.have + number].copy_from_slice(&bytes[..number]);
            self.have += number;
            bytes = &bytes[number..];
            if self.have == HEADER {
                self.have = 0;
                self.frame()?;
            }
        }
        Ok(())
    }

    fn frame(&mut self) -> Result<(), u8> {
        let [a, b, c, kind, flags, stream @ ..] = self.header;
        self.payload = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.frames += 1;
        // RFC 9113 3.4: a client's first frame is SETTINGS; h2 takes any.
        if self.frames == 1 && kind != SETTINGS {
            return Err(PROTOCOL_ERROR);
        }
        if kind == HEADERS {
            self.newest = self.newest.max(u32::from_be_bytes(stream) & 0x7fff_ffff);
        }
        let cost = cost(kind, flags, self.payload);
        if cost > self.tokens {
            self.fill();
        }
        self.tokens = self.tokens.checked_sub(cost).ok_or(ENHANCE_YOUR_CALM)?;
        Ok(())
    }

    fn fill(&mut self) {
        let now = Instant::now();
        // The first time, the connection is as old as its burst was large: that was its start.
        let since = self
            .filled
            .map_or(0, |filled| now.duration_since(filled).as_millis());
        let earned = u64::try_from(since)
            .unwrap_or(u64::MAX)
            .saturating_mul(RATE)
            / 1000;
        if earned > 0 || self.filled.is_none() {
            self.filled = Some(now);
        }
        self.tokens = self.tokens.saturating_add(earned).min(BURST);
    }

    fn earn(&mut self, written: usize) {
        self.tokens = (self.tokens + written as u64 / EARN).min(BURST);
    }

    fn goaway(&self, code: u8) -> [u8; HEADER + 8] {
        let [a, b, c, d] = self.newest.to_be_bytes();
        [0, 0, 8, GOAWAY, 0, 0, 0, 0, 0, a, b, c, d, 0, 0, 0, code]
    }
}

/// A guarded stream.
pub(super) struct Frames {
    stream: Stream,
    edge: Arc<Edge>,
    scanner: Scanner,
    /// Whether the last write was taken whole: then the next byte begins a frame.
    clean: bool,
    refused: bool,
}

impl Frames {
    pub(super) fn new(stream: Stream, edge: Arc<Edge>) -> Frames {
        Frames {
            stream,
            edge,
            scanner: Scanner::new(),
            clean: false,
            refused: false,
        }
    }

    fn refuse(&mut self, code: u8, cx: &mut Context<'_>) -> io::Error {
        self.refused = true;
        if self.clean {
            let told = Pin::new(&mut self.stream).poll_write(cx, &self.scanner.goaway(code));
            tracing::trace!(?told, "HTTP/2 caller told to go");
        }
        io::Error::new(
            io::ErrorKind::InvalidData,
            "HTTP/2 frames that are only work",
        )
    }

    fn written(&mut self, polled: &Poll<io::Result<usize>>, offered: usize) {
        self.edge.wrote(polled);
        if let Poll::Ready(Ok(number)) = polled {
            self.clean = *number == offered;
            self.scanner.earn(*number);
        }
    }
}

impl AsyncRead for Frames {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.refused {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = polled
            && let Err(code) = this.scanner.scan(&buf.filled()[before..])
        {
            return Poll::Ready(Err(this.refuse(code, cx)));
        }
        polled
    }
}

impl AsyncWrite for Frames {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.written(&polled, buf.len());
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        let offered = bufs.iter().map(|buf| buf.len()).sum();
        this.written(&polled, offered);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn begun() -> Scanner {
        let mut scanner = Scanner::new();
        let mut bytes = vec![b'x'; PREFACE];
        bytes.extend(frame(SETTINGS, 0, &[]));
        for byte in bytes {
            scanner.scan(&[byte]).unwrap();
        }
        scanner
    }

    #[test]
    fn frames_are_told_apart_however_they_are_cut() {
        let stream = [frame(HEADERS, 4, &[9; 30]), frame(DATA, 1, &[9; 200])].concat();
        for piece in [1, 7, 9, 10, 300] {
            let mut scanner = begun();
            for part in stream.chunks(piece) {
                scanner.scan(part).unwrap();
            }
            assert_eq!(
                (scanner.frames, scanner.payload, scanner.have),
                (3, 0, 0),
                "{piece}"
            );
        }
    }

    #[test]
    fn work_without_end_is_refused_and_service_never_is() {
        for (kind, payload) in [
            (RST_STREAM, 4),
            (PING, 8),
            (SETTINGS, 0),
            (DATA, 0),
            (200, 3),
        ] {
            let mut scanner = begun();
            let one = frame(kind, 0, &vec![0; payload]);
            let taken = (0..100_000)
                .take_while(|_| scanner.scan(&one).is_ok())
                .count();
            assert!((1_000..20_000).contains(&taken), "{kind}: {taken}");
        }
        let mut scanner = begun();
        for _ in 0..100_000 {
            scanner.scan(&frame(HEADERS, 5, &[9; 30])).unwrap();
            scanner.earn(100);
            scanner.scan(&frame(WINDOW_UPDATE, 0, &[0; 4])).unwrap();
            scanner.scan(&frame(WINDOW_UPDATE, 0, &[0; 4])).unwrap();
        }
    }

    #[test]
    fn the_first_frame_is_settings() {
        let mut scanner = Scanner::new();
        scanner.scan(&[b'x'; PREFACE]).unwrap();
        assert_eq!(scanner.scan(&frame(HEADERS, 4, &[])), Err(PROTOCOL_ERROR));
    }
}
