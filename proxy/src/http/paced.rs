// SPDX-License-Identifier: Apache-2.0
//! Stands between hyper and an upstream HTTP/1.1 stream, and makes an answer begin slowly: its first reads are small. hyper
//! reads ahead of whoever takes the answer, one piece in its hands and one in its channel; where nobody takes, that is
//! all that is ever read, and nine hundred such answers held 24 KiB each. Who takes the answer has large reads from the
//! third on. Used by `http::pool`; what the bytes mean is hyper's business.

use std::cell::RefCell;
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;

use crate::stream::Stream;

/// Reads of an answer that are small.
const FIRST: u8 = 2;
/// Bytes of each: a page, and more than most heads with their bodies.
const SMALL: usize = 4096;

thread_local! {
    /// Where small reads go first. hyper's buffer would have to be zeroed for each of them, those that find nothing
    /// too, which costs more than to copy what came.
    static SCRATCH: RefCell<[u8; SMALL]> = const { RefCell::new([0; SMALL]) };
}

/// A stream whose answers begin slowly.
pub(super) struct Paced {
    stream: Stream,
    reads: u8,
}

impl Paced {
    pub(super) fn new(stream: Stream) -> Paced {
        Paced { stream, reads: 0 }
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.reads >= FIRST || buf.remaining() <= SMALL {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut small = ReadBuf::new(scratch);
            let polled = Pin::new(&mut this.stream).poll_read(cx, &mut small);
            buf.put_slice(small.filled());
            this.reads += u8::from(!small.filled().is_empty());
            polled
        })
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.reads = 0;
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.reads = 0;
        Pin::new(&mut this.stream).poll_write_vectored(cx, bufs)
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
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn an_answer_begins_slowly_and_the_next_one_does_again() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let mut paced = Paced::new(Stream::Memory(ours));
        theirs.write_all(&[7; 200_000]).await.unwrap();
        let mut buffer = vec![0; 16_384];
        for expected in [SMALL, SMALL, 16_384, 16_384] {
            assert_eq!(paced.read(&mut buffer).await.unwrap(), expected);
        }
        paced.write_all(b"GET").await.unwrap();
        assert_eq!(paced.read(&mut buffer).await.unwrap(), SMALL);
    }
}
