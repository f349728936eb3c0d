// SPDX-License-Identifier: Apache-2.0
//! Stands between an HTTP/1.1 caller's stream and hyper: reads the raw bytes of heads as they pass (`http::wire`), keeps
//! the clocks of what is waited for, and tells `http::server` through an [`Edge`] which request to refuse. One lazily
//! re-armed timer a connection; a request that comes whole costs neither a clock reading nor an allocation.

use std::future::Future;
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use bytes::Buf;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::time::Instant;
use tokio::time::Sleep;

use super::head::HeadError;
use super::wire::Scanner;
use super::wire::Wanted;
use crate::limits::Limits;
use crate::stream::Stream;

/// A body that was too slow so many times in a row is given up.
const STRIKES: u8 = 2;
const TIMED_OUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// How the guard ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// A head took too long.
    Head,
    /// No request for too long.
    Idle,
    /// A body came too slowly.
    Body,
}

/// What a connection's guard and those who serve its requests tell each other. Atomics because hyper wants streams that
/// could be upgraded to be `Send`; all of it stays on one thread, so plain loads and stores do.
#[derive(Debug, Default)]
pub struct Edge {
    /// Heads whose bytes have come.
    heads: AtomicU64,
    /// Why what follows them is refused.
    refused: OnceLock<HeadError>,
    /// Heads that hyper has made requests of.
    called: AtomicU64,
    /// Exchanges under way.
    open: AtomicU64,
    answering: AtomicBool,
    tunnel: AtomicBool,
    /// hyper waits for a request of which nothing has come.
    silent: AtomicBool,
    /// Something was written that is not known to be out: hyper flushes when it holds nothing more.
    unflushed: AtomicBool,
    cut: OnceLock<Cut>,
    /// Bytes of bodies on their way to or from the caller.
    queued: AtomicUsize,
    /// The caller's socket takes nothing now.
    stalled: AtomicBool,
    /// Bodies that wait until it does.
    waiting: Mutex<Vec<Waker>>,
}

impl Edge {
    /// The next request of an HTTP/1.1 connection: its bytes must have been what hyper took them for.
    pub fn admit(&self) -> Result<(), HeadError> {
        let number = self.called.load(Ordering::Relaxed);
        self.called.store(number + 1, Ordering::Relaxed);
        self.answering.store(false, Ordering::Relaxed);
        if number < self.heads.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(self.refused.get().copied().unwrap_or(HeadError::Line))
    }

    /// An exchange begins.
    pub fn enter(&self) {
        let open = self.open.load(Ordering::Relaxed);
        self.open.store(open + 1, Ordering::Relaxed);
    }

    /// An exchange has ended.
    pub fn leave(&self) {
        let open = self.open.load(Ordering::Relaxed);
        self.open.store(open.saturating_sub(1), Ordering::Relaxed);
    }

    /// The answer's head is leaving: from now on caller and app talk at their own pace.
    pub fn answer(&self) {
        self.answering.store(true, Ordering::Relaxed);
    }

    /// The bytes are no longer HTTP.
    pub fn tunnel(&self) {
        self.tunnel.store(true, Ordering::Relaxed);
    }

    /// Requests so far, if nothing at all is going on: hyper then holds nothing that it could not be given anew.
    pub fn at_rest(&self) -> Option<u64> {
        let called = self.called.load(Ordering::Relaxed);
        let rests = self.silent.load(Ordering::Relaxed)
            && !self.unflushed.load(Ordering::Relaxed)
            && self.open.load(Ordering::Relaxed) == 0
            && self.heads.load(Ordering::Relaxed) == called
            && !self.is_tunnel();
        rests.then_some(called)
    }

    /// Ready when the caller's socket takes bytes, as far as is known: what is not asked of upstream is not held.
    pub fn poll_taken(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.stalled.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.lock();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// What the caller's socket did with bytes.
    pub(super) fn wrote(&self, polled: &Poll<io::Result<usize>>) {
        if polled.is_pending() {
            self.stalled.store(true, Ordering::Relaxed);
        } else if self.stalled.load(Ordering::Relaxed) {
            self.stalled.store(false, Ordering::Relaxed);
            for waker in self.waiting.lock().drain(..) {
                waker.wake();
            }
        }
    }

    /// Bytes of bodies on their way.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// So many more are.
    pub fn queue(&self, bytes: usize) {
        self.queued.store(self.queued() + bytes, Ordering::Relaxed);
    }

    /// So many fewer.
    pub fn unqueue(&self, bytes: usize) {
        self.queued
            .store(self.queued().saturating_sub(bytes), Ordering::Relaxed);
    }

    /// How the guard ended the connection, if it did.
    pub fn cut(&self) -> Option<Cut> {
        self.cut.get().copied()
    }

    fn is_tunnel(&self) -> bool {
        self.tunnel.load(Ordering::Relaxed)
    }
}

/// A guarded stream.
pub struct Guard {
    stream: Stream,
    edge: Arc<Edge>,
    limits: Limits,
    scanner: Scanner,
    /// Bytes that did not fit after some were encoded.
    rest: Bytes,
    clock: Clock,
}

/// One timer for everything that is waited for.
struct Clock {
    sleep: Option<Pin<Box<Sleep>>>,
    wanted: Wanted,
    /// Heads, or bytes of bodies, when the timer was set.
    mark: u64,
    strikes: u8,
}

impl Guard {
    pub(super) fn new(stream: Stream, edge: Arc<Edge>, limits: Limits) -> Guard {
        Guard {
            stream,
            edge,
            limits,
            scanner: Scanner::new(),
            rest: Bytes::new(),
            clock: Clock {
                sleep: None,
                wanted: Wanted::Request,
                mark: 0,
                strikes: 0,
            },
        }
    }

    /// Until there is something to read, or nobody has said anything for too long: then false.
    pub(super) async fn readable(&mut self) -> bool {
        let limit = self.limits.idle;
        let readable = std::future::poll_fn(|cx| self.stream.poll_readable(cx));
        let spoke = tokio::time::timeout(limit, readable).await.is_ok();
        if !spoke {
            self.edge.cut.get_or_init(|| Cut::Idle);
        }
        spoke
    }

    /// Bytes have come, behind the first `before` ones of `buf`.
    fn seen(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        self.edge.silent.store(false, Ordering::Relaxed);
        let mut encode = Vec::new();
        let fresh = &buf.filled()[before..];
        let followed = self.scanner.scan(fresh, &mut |at| encode.push(at));
        self.edge
            .heads
            .store(self.scanner.heads(), Ordering::Relaxed);
        if let Some(error) = self.scanner.refused() {
            self.edge.refused.get_or_init(|| error);
        }
        if followed < fresh.len() {
            // hyper is not as strict everywhere: it gets a line end that it refuses too, and answers.
            buf.set_filled(before + followed);
            self.rest = Bytes::from_static(b"\r\0");
            self.give(buf);
        } else if !encode.is_empty() {
            let encoded = percent_encoded(fresh, &encode);
            buf.set_filled(before);
            self.rest = encoded.into();
            self.give(buf);
        }
    }

    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let number = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..number]);
        self.rest.advance(number);
    }

    /// Nothing has come: looks at the clock of what is waited for. Ready without a byte is the end.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.edge.is_tunnel() {
            return Poll::Pending;
        }
        let wanted = self.scanner.wanted();
        let heads = self.scanner.heads();
        let silent = wanted == Wanted::Request;
        self.edge.silent.store(silent, Ordering::Relaxed);
        let another = wanted == Wanted::Head && self.clock.mark != heads;
        if self.clock.sleep.is_none() || self.clock.wanted != wanted || another {
            self.clock.strikes = 0;
            self.set_clock(wanted);
        }
        loop {
            let Some(sleep) = &mut self.clock.sleep else {
                return Poll::Pending;
            };
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if let Some(cut) = self.expired(wanted) {
                return Poll::Ready(self.end(cut, cx));
            }
            self.set_clock(wanted);
        }
    }

    fn set_clock(&mut self, wanted: Wanted) {
        let period = match wanted {
            Wanted::Request => self.limits.idle,
            Wanted::Head => self.limits.head,
            Wanted::Body => self.limits.body_window,
        };
        let at = Instant::now() + period;
        match &mut self.clock.sleep {
            Some(sleep) => sleep.as_mut().reset(at),
            None => self.clock.sleep = Some(Box::pin(tokio::time::sleep_until(at))),
        }
        self.clock.wanted = wanted;
        self.clock.mark = match wanted {
            Wanted::Body => self.scanner.body_bytes(),
            Wanted::Request | Wanted::Head => self.scanner.heads(),
        };
    }

    fn expired(&mut self, wanted: Wanted) -> Option<Cut> {
        let busy = self.edge.open.load(Ordering::Relaxed) > 0;
        match wanted {
            // A head that hyper has refused is not waited for: its answer is on the way.
            Wanted::Head => (!busy).then_some(Cut::Head),
            Wanted::Request => {
                (!busy && self.clock.mark == self.scanner.heads()).then_some(Cut::Idle)
            }
            Wanted::Body => {
                let brought = self.scanner.body_bytes() - self.clock.mark;
                // Once the answer flows, caller and app may be talking: then only the idle limit holds.
                let least = self.limits.body_rate * self.limits.body_window.as_secs().max(1);
                let slow = brought < least && !self.edge.answering.load(Ordering::Relaxed);
                self.clock.strikes = if slow { self.clock.strikes + 1 } else { 0 };
                (self.clock.strikes >= STRIKES).then_some(Cut::Body)
            }
        }
    }

    fn end(&mut self, cut: Cut, cx: &mut Context<'_>) -> io::Result<()> {
        self.edge.cut.get_or_init(|| cut);
        match cut {
            Cut::Idle => Ok(()),
            Cut::Body => Err(io::ErrorKind::TimedOut.into()),
            Cut::Head => {
                // Nothing is being answered: the stream is ours to write to, and whoever drips may not be reading.
                let told = Pin::new(&mut self.stream).poll_write(cx, TIMED_OUT);
                tracing::trace!(?told, "request head timed out");
                Ok(())
            }
        }
    }
}

fn percent_encoded(bytes: &[u8], at: &[usize]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(bytes.len() + 2 * at.len());
    let mut from = 0;
    for &index in at {
        encoded.extend_from_slice(&bytes[from..index]);
        encoded.extend_from_slice(format!("%{:02X}", bytes[index]).as_bytes());
        from = index + 1;
    }
    encoded.extend_from_slice(&bytes[from..]);
    encoded
}

impl AsyncRead for Guard {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.rest.is_empty() {
            this.give(buf);
            return Poll::Ready(Ok(()));
        }
        if this.scanner.is_broken() {
            return this.wait(cx);
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Pending => this.wait(cx),
            Poll::Ready(Ok(())) if !this.edge.is_tunnel() => {
                this.seen(buf, before);
                Poll::Ready(Ok(()))
            }
            ready @ Poll::Ready(_) => ready,
        }
    }
}

impl AsyncWrite for Guard {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.edge.unflushed.store(true, Ordering::Relaxed);
        let polled = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.edge.wrote(&polled);
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.edge.unflushed.store(true, Ordering::Relaxed);
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.edge.wrote(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        if flushed.is_ready() {
            this.edge.unflushed.store(false, Ordering::Relaxed);
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_touches_only_what_it_is_told_of() {
        assert_eq!(percent_encoded(b"/<a>", &[1, 3]), b"/%3Ca%3E");
    }
}
