// SPDX-License-Identifier: Apache-2.0
//! A request body that streams to the first try and can be sent again to the next: what has passed is kept up to a
//! bound. A body larger than that has passed for good, and its request is not tried again.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use http_body::Body as _;
use http_body::Frame;
use http_body::SizeHint;

use super::body::Body;
use super::body::BodyError;
use crate::memory::Chunk;

/// What is kept for another try; Linkerd's figure.
const KEPT: usize = 64 * 1024;

/// A body and what has passed of it.
pub struct Replay {
    shared: Rc<RefCell<Shared>>,
}

struct Shared {
    inner: Body,
    kept: Vec<Kept>,
    kept_bytes: usize,
    lost: bool,
    ended: bool,
    /// The newest reader; older ones have nothing more to say.
    reader: u32,
}

#[derive(Clone)]
enum Kept {
    Data(Bytes),
    Trailers(http::HeaderMap),
}

impl Replay {
    /// Keeps what passes of `inner`.
    pub fn new(inner: Body) -> Replay {
        let shared = Shared {
            ended: inner.is_end_stream(),
            inner,
            kept: Vec::new(),
            kept_bytes: 0,
            lost: false,
            reader: 0,
        };
        Replay {
            shared: Rc::new(RefCell::new(shared)),
        }
    }

    /// Whether another try can have the whole body.
    pub fn is_whole(&self) -> bool {
        !self.shared.borrow().lost
    }

    /// The body for the next try, from its beginning. Earlier readers end with an error.
    pub fn reader(&self) -> Body {
        let mut shared = self.shared.borrow_mut();
        if shared.ended && shared.kept.is_empty() {
            return Body::Empty;
        }
        shared.reader += 1;
        let number = shared.reader;
        drop(shared);
        Body::Replay(ReplayReader {
            shared: Rc::clone(&self.shared),
            number,
            next: 0,
        })
    }
}

/// One try's view of a [`Replay`].
pub struct ReplayReader {
    shared: Rc<RefCell<Shared>>,
    number: u32,
    next: usize,
}

impl ReplayReader {
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, BodyError>>> {
        let shared = &mut *self.shared.borrow_mut();
        if shared.reader != self.number {
            return Poll::Ready(Some(Err(BodyError::TakenOver)));
        }
        if let Some(kept) = shared.kept.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(match kept.clone() {
                Kept::Data(bytes) => Frame::data(bytes.into()),
                Kept::Trailers(trailers) => Frame::trailers(trailers),
            })));
        }
        if shared.ended {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut shared.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                shared.keep(frame);
                self.next = shared.kept.len();
            }
            Poll::Ready(None) => shared.ended = true,
            // A request that broke off on its way in cannot be sent whole by anyone.
            Poll::Ready(Some(Err(_))) => shared.lost = true,
            Poll::Pending => {}
        }
        polled
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let shared = self.shared.borrow();
        shared.reader == self.number
            && self.next >= shared.kept.len()
            && (shared.ended || shared.inner.is_end_stream())
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let shared = self.shared.borrow();
        let ahead: u64 = shared.kept.iter().skip(self.next).map(Kept::len).sum();
        match shared.inner.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(rest + ahead),
            None if shared.ended => SizeHint::with_exact(ahead),
            None => SizeHint::default(),
        }
    }
}

impl Kept {
    fn len(&self) -> u64 {
        match self {
            Kept::Data(bytes) => bytes.len() as u64,
            Kept::Trailers(_) => 0,
        }
    }
}

impl Shared {
    fn keep(&mut self, frame: &Frame<Chunk>) {
        let size = frame.data_ref().map_or(0, |data| data.bytes().len());
        if self.lost || self.kept_bytes + size > KEPT {
            self.lost = true;
            self.kept = Vec::new();
            return;
        }
        self.kept_bytes += size;
        if let Some(data) = frame.data_ref() {
            self.kept.push(Kept::Data(data.bytes().clone()));
        } else if let Some(trailers) = frame.trailers_ref() {
            self.kept.push(Kept::Trailers(trailers.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn read(body: Body) -> Bytes {
        body.collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn a_small_body_is_read_as_often_as_wanted() {
        let replay = Replay::new(Body::full(Bytes::from_static(b"hello")));
        assert_eq!(read(replay.reader()).await, "hello");
        assert!(replay.is_whole());
        let again = replay.reader();
        assert_eq!(again.size_hint().exact(), Some(5));
        assert_eq!(read(again).await, "hello");
    }

    #[tokio::test]
    async fn a_body_beyond_the_bound_passes_once() {
        let large = Bytes::from(vec![7; KEPT + 1]);
        let replay = Replay::new(Body::full(large.clone()));
        assert_eq!(read(replay.reader()).await, large);
        assert!(!replay.is_whole());
    }

    #[tokio::test]
    async fn a_reader_that_was_replaced_says_no_more() {
        let replay = Replay::new(Body::full(Bytes::from_static(b"hello")));
        let old = replay.reader();
        let new = replay.reader();
        assert!(old.collect().await.is_err());
        assert_eq!(read(new).await, "hello");
    }

    #[test]
    fn no_body_stays_no_body() {
        assert!(matches!(Replay::new(Body::Empty).reader(), Body::Empty));
    }
}
