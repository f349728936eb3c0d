// SPDX-License-Identifier: Apache-2.0
//! A byte stream of the data path as one enum, so that reads and writes are not virtual calls. The seam for simulated
//! networks: `Memory` carries bytes without a socket.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use bytes::Buf;
use bytes::Bytes;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::DuplexStream;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use crate::tls::standing::Secure;

/// A connected stream.
#[derive(Debug)]
pub enum Stream {
    /// A TCP socket.
    Tcp(TcpStream),
    /// Inside the process.
    Memory(DuplexStream),
    /// A stream whose first bytes were read to look at, and are read again.
    Rewound(Bytes, Box<Stream>),
    /// TLS on a stream, either side.
    Tls(Box<Secure>),
}

impl Stream {
    /// Puts bytes that were read back in front.
    pub fn rewound(self, read: Bytes) -> Stream {
        if read.is_empty() {
            self
        } else {
            Stream::Rewound(read, Box::new(self))
        }
    }
}

macro_rules! each {
    ($self:ident, $io:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($io) => $call,
            Stream::Memory($io) => $call,
            Stream::Rewound(_, $io) => $call,
            Stream::Tls(secure) => {
                let $io = &mut secure.stream;
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Stream::Memory(io) => Pin::new(io).poll_read(cx, buf),
            Stream::Tls(secure) => {
                secure.poll_good(cx)?;
                Pin::new(&mut secure.stream).poll_read(cx, buf)
            }
            Stream::Rewound(read, io) if read.is_empty() => Pin::new(io).poll_read(cx, buf),
            Stream::Rewound(read, _) => {
                let number = read.len().min(buf.remaining());
                buf.put_slice(&read[..number]);
                read.advance(number);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Stream::Tls(secure) = self.as_mut().get_mut() {
            secure.poll_good(cx)?;
        }
        each!(self, io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Stream::Tls(secure) = self.as_mut().get_mut() {
            secure.poll_good(cx)?;
        }
        each!(self, io => Pin::new(io).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Tcp(io) => io.is_write_vectored(),
            Stream::Memory(io) => io.is_write_vectored(),
            Stream::Rewound(_, io) => io.is_write_vectored(),
            Stream::Tls(secure) => secure.stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_shutdown(cx))
    }
}
