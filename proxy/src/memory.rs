// SPDX-License-Identifier: Apache-2.0
//! The memory budget: what requests and answers under way hold, charged by bytes as it is queued and given back as it
//! is written. The process's limit is split among workers (a [`Ledger`] each, never fought over); below it every
//! connection (`http::guard::Edge`) and every body ([`Tab`]) has a bound of its own, which shrinks as the ledger fills.
//! A body always may have one piece on its way, so that nobody waits for somebody else's reader.
//!
//! `http::body` charges and waits here, `http::server` refuses requests when the ledger is full. Bytes that the kernel
//! or hyper's read buffers hold are not charged: their bounds are fixed (`http::pool`).

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use bytes::Buf;
use bytes::Bytes;
use http::HeaderMap;
use parking_lot::Mutex;

use crate::http::guard::Edge;

/// What a queued piece costs beyond its bytes: a frame in h2's slab, a charge.
const PIECE: usize = 256;
/// What a header field costs beyond its bytes (RFC 9113 6.5.2 counts as much).
const FIELD: usize = 32;
/// Bodies that are one piece of less are not charged: they are gone with the answer's head.
const SMALL: usize = 4096;

/// How full a ledger is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everybody has room.
    Calm,
    /// Queues are short.
    Tight,
    /// One piece a body.
    Scarce,
    /// Nothing more is begun.
    Full,
}

impl Level {
    /// Bytes a body may have queued before its next piece waits.
    fn body(self) -> usize {
        match self {
            Level::Calm => 64 * 1024,
            Level::Tight => 16 * 1024,
            Level::Scarce | Level::Full => 1,
        }
    }

    /// Bytes that all bodies of a connection may have queued before those with a piece on its way wait.
    fn connection(self) -> usize {
        match self {
            Level::Calm => 256 * 1024,
            Level::Tight => 64 * 1024,
            Level::Scarce | Level::Full => 1,
        }
    }
}

/// One worker's share of the budget. One thread writes, so loads and stores suffice.
#[derive(Debug)]
pub struct Ledger {
    limit: usize,
    held: AtomicUsize,
}

impl Ledger {
    /// Of so many bytes.
    pub fn new(limit: usize) -> Ledger {
        Ledger {
            limit,
            held: AtomicUsize::new(0),
        }
    }

    /// How full it is.
    pub fn level(&self) -> Level {
        let held = self.held.load(Ordering::Relaxed);
        if held < self.limit / 8 {
            Level::Calm
        } else if held < self.limit / 2 {
            Level::Tight
        } else if held < self.limit / 10 * 9 {
            Level::Scarce
        } else {
            Level::Full
        }
    }

    /// Bytes held.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// So much more is held.
    pub fn charge(&self, bytes: usize) {
        add(&self.held, bytes);
    }

    /// So much less.
    pub fn release(&self, bytes: usize) {
        take(&self.held, bytes);
    }
}

fn add(count: &AtomicUsize, bytes: usize) {
    let held = count.load(Ordering::Relaxed);
    count.store(held.saturating_add(bytes), Ordering::Relaxed);
}

fn take(count: &AtomicUsize, bytes: usize) {
    let held = count.load(Ordering::Relaxed);
    count.store(held.saturating_sub(bytes), Ordering::Relaxed);
}

/// What a head costs.
pub fn head(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + FIELD)
        .sum()
}

/// What one body has on its way.
#[derive(Debug)]
pub struct Tab {
    ledger: Arc<Ledger>,
    edge: Arc<Edge>,
    held: AtomicUsize,
    waiting: Mutex<Option<Waker>>,
}

impl Tab {
    /// On a worker's ledger, for a connection.
    pub fn open(ledger: &Arc<Ledger>, edge: &Arc<Edge>) -> Arc<Tab> {
        Arc::new(Tab {
            ledger: Arc::clone(ledger),
            edge: Arc::clone(edge),
            held: AtomicUsize::new(0),
            waiting: Mutex::new(None),
        })
    }

    /// Ready when another piece may be queued.
    pub fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let held = self.held.load(Ordering::Relaxed);
        if held == 0 {
            return Poll::Ready(());
        }
        let level = self.ledger.level();
        if held < level.body() && self.edge.queued() < level.connection() {
            return Poll::Ready(());
        }
        *self.waiting.lock() = Some(cx.waker().clone());
        Poll::Pending
    }

    fn charge(self: &Arc<Tab>, size: usize) -> Charge {
        add(&self.held, size);
        self.edge.queue(size);
        self.ledger.charge(size);
        Charge {
            tab: Arc::clone(self),
            size,
        }
    }
}

#[derive(Debug)]
struct Charge {
    tab: Arc<Tab>,
    size: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        take(&self.tab.held, self.size);
        self.tab.edge.unqueue(self.size);
        self.tab.ledger.release(self.size);
        if let Some(waker) = self.tab.waiting.lock().take() {
            waker.wake();
        }
    }
}

/// A piece of a body on its way: its charge goes with it.
#[derive(Debug)]
pub struct Chunk {
    bytes: Bytes,
    charge: Option<Charge>,
}

impl Chunk {
    /// Charges it to a body's tab. Small bodies of one piece (`last`) have none.
    pub fn charged(
        mut self,
        tab: &mut Option<Arc<Tab>>,
        last: bool,
        open: impl FnOnce() -> Arc<Tab>,
    ) -> Chunk {
        if tab.is_none() && last && self.bytes.len() < SMALL {
            return self;
        }
        let tab = tab.get_or_insert_with(open);
        self.charge = Some(tab.charge(self.bytes.len() + PIECE));
        self
    }

    /// Its bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl From<Bytes> for Chunk {
    fn from(bytes: Bytes) -> Chunk {
        Chunk {
            bytes,
            charge: None,
        }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, number: usize) {
        self.bytes.advance(number);
    }

    fn copy_to_bytes(&mut self, number: usize) -> Bytes {
        self.bytes.copy_to_bytes(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(
        ledger: &Arc<Ledger>,
        edge: &Arc<Edge>,
        tab: &mut Option<Arc<Tab>>,
        size: usize,
    ) -> Chunk {
        Chunk::from(Bytes::from(vec![0; size])).charged(tab, false, || Tab::open(ledger, edge))
    }

    #[test]
    fn what_is_charged_is_given_back_when_it_is_gone() {
        let (ledger, edge) = (Arc::new(Ledger::new(1 << 20)), Arc::new(Edge::default()));
        let mut tab = None;
        let first = piece(&ledger, &edge, &mut tab, 1000);
        let second = piece(&ledger, &edge, &mut tab, 500);
        assert_eq!((ledger.held(), edge.queued()), (2012, 2012));
        drop(first);
        assert_eq!(ledger.held(), 756);
        drop(second);
        assert_eq!((ledger.held(), edge.queued()), (0, 0));
    }

    #[test]
    fn a_body_waits_for_its_own_pieces_and_never_for_others() {
        let (ledger, edge) = (Arc::new(Ledger::new(1 << 20)), Arc::new(Edge::default()));
        let cx = Context::from_waker(Waker::noop());
        let (mut slow, mut other) = (None, None);
        let stuck = piece(&ledger, &edge, &mut slow, 1 << 20);
        assert_eq!(ledger.level(), Level::Full);
        let slow = slow.expect("opened");
        assert!(slow.poll_room(&cx).is_pending());
        // Another body of the same connection begins with room for one piece.
        let fresh = Tab::open(&ledger, &edge);
        assert!(fresh.poll_room(&cx).is_ready());
        let one = piece(&ledger, &edge, &mut other, 10);
        assert!(other.as_ref().expect("opened").poll_room(&cx).is_pending());
        drop(one);
        assert!(other.expect("opened").poll_room(&cx).is_ready());
        drop(stuck);
        assert!(slow.poll_room(&cx).is_ready());
    }

    #[test]
    fn a_small_whole_body_is_not_charged() {
        let (ledger, edge) = (Arc::new(Ledger::new(1 << 20)), Arc::new(Edge::default()));
        let mut tab = None;
        let chunk = Chunk::from(Bytes::from_static(b"ok"));
        let chunk = chunk.charged(&mut tab, true, || Tab::open(&ledger, &edge));
        assert!(tab.is_none() && ledger.held() == 0 && chunk.remaining() == 2);
    }
}
