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
    Rewound(Bytes, Option<Box<Stream>>),
    /// TLS on a stream, either side.
    Tls(Box<Secure>),
}

impl Stream {
    /// Puts bytes that were read back in front.
    pub fn rewound(self, read: Bytes) -> Stream {
        if read.is_empty() {
            self
        } else {
            Stream::Rewound(read, Some(Box::new(self)))
        }
    }

    /// Whether a read would say anything: bytes, an end, or an error. In memory, always.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Stream::Tcp(io) => io.poll_read_ready(cx).map(|_| ()),
            Stream::Memory(_) => Poll::Ready(()),
            Stream::Rewound(read, _) if !read.is_empty() => Poll::Ready(()),
            Stream::Rewound(_, io) => behind(io).poll_readable(cx),
            Stream::Tls(secure) => match secure.poll_good(cx) {
                Ok(()) => secure.stream.get_mut().0.poll_readable(cx),
                Err(_) => Poll::Ready(()),
            },
        }
    }
}

fn behind(io: &mut Option<Box<Stream>>) -> &mut Stream {
    io.as_deref_mut()
        .expect("it is taken only when it takes its detour's place")
}

macro_rules! each {
    ($self:ident, $io:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($io) => $call,
            Stream::Memory($io) => $call,
            Stream::Rewound(_, io) => {
                let $io = behind(io);
                $call
            }
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
        let this = self.get_mut();
        match this {
            Stream::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Stream::Memory(io) => Pin::new(io).poll_read(cx, buf),
            Stream::Tls(secure) => {
                secure.poll_good(cx)?;
                Pin::new(&mut secure.stream).poll_read(cx, buf)
            }
            Stream::Rewound(read, _) if !read.is_empty() => {
                let number = read.len().min(buf.remaining());
                buf.put_slice(&read[..number]);
                read.advance(number);
                Poll::Ready(Ok(()))
            }
            Stream::Rewound(_, io) => {
                // What was looked at has been read: the buffer goes, and with it this detour.
                if let Some(inner) = io.take() {
                    *this = *inner;
                }
                Pin::new(this).poll_read(cx, buf)
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
            Stream::Rewound(_, io) => io.as_ref().is_some_and(|io| io.is_write_vectored()),
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
