// SPDX-License-Identifier: Apache-2.0
//! The X-Ray daemon's UDP protocol: `{"format":"json","version":1}`, a newline, one document. Nobody is answered, so
//! every loss is counted: bad datagrams as rejected, a full queue as dropped, and what the kernel dropped as told by
//! `/proc/net/udp`.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use serde::Deserialize;
use socket2::Domain;
use socket2::Protocol;
use socket2::Socket;
use socket2::Type;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use crate::convert::xray;
use crate::metrics::Metrics;
use crate::metrics::Reason;
use crate::metrics::Source;
use crate::pipeline::Pipeline;
use crate::span::Span;

/// The kernel doubles it and caps it at `net.core.rmem_max`; bursts of SDKs are short.
const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;
const MAX_DATAGRAM: usize = 65_536;
const KERNEL_DROPS_EVERY: Duration = Duration::from_millis(500);
const SLOW_US: u64 = 1_000_000;

/// The socket that could not be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "bind --xray-udp-addr {addr}/udp: {source}; stop what holds it, or give a free port (port 0 picks one)"
)]
pub(crate) struct UdpBindError {
    addr: SocketAddr,
    source: io::Error,
}

pub(crate) fn bind(addr: SocketAddr) -> Result<UdpSocket, UdpBindError> {
    let open = || {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        UdpSocket::from_std(socket.into())
    };
    open().map_err(|source| UdpBindError { addr, source })
}

pub(crate) async fn serve(socket: UdpSocket, pipeline: Pipeline, stop: CancellationToken) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    let mut drops = KernelDrops::of(&socket);
    let mut ticks = tokio::time::interval(KERNEL_DROPS_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => match received {
                Ok((length, sender)) => take(&buffer[..length], sender, &pipeline),
                Err(error) => tracing::warn!(%error, "reading from the X-Ray UDP socket failed"),
            },
            _ = ticks.tick() => drops.count(pipeline.metrics()),
            () = stop.cancelled() => break,
        }
    }
    // What the kernel still holds was sent before the end.
    while let Ok((length, sender)) = socket.try_recv_from(&mut buffer) {
        take(&buffer[..length], sender, &pipeline);
    }
    drops.count(pipeline.metrics());
}

fn take(datagram: &[u8], sender: SocketAddr, pipeline: &Pipeline) {
    let metrics = pipeline.metrics();
    let source = Source::XrayUdp;
    let document = match document(datagram) {
        Ok(document) => document,
        Err(error) => {
            metrics.received(source, 1);
            metrics.rejected(source, Reason::Invalid, 1);
            let why = format!("from {sender}: {error}");
            metrics
                .rejects
                .note(source, Reason::Invalid, &why, datagram);
            return;
        }
    };
    match xray::parse(document) {
        Ok(parsed) => {
            metrics.received(source, 1 + parsed.refused.len());
            metrics.rejected(source, Reason::Invalid, parsed.refused.len());
            for refusal in &parsed.refused {
                let why = format!("from {sender}: {}", refusal.message);
                metrics
                    .rejects
                    .note(source, Reason::Invalid, &why, document);
            }
            metrics.clamped(source, parsed.clamped);
            let account = pipeline.room().account();
            let covered = if parsed.spans.iter().any(worth_most) {
                account.cover(datagram.len())
            } else {
                account.cover_ordinary(datagram.len())
            };
            let taken = covered.and_then(|()| pipeline.submit(source, parsed.spans, 1, account));
            if taken.is_err() {
                metrics.dropped(source, Reason::QueueFull, 1);
            }
        }
        Err(refusal) => {
            metrics.received(source, 1);
            metrics.rejected(source, Reason::Invalid, 1);
            let why = format!("from {sender}: {}", refusal.message);
            metrics
                .rejects
                .note(source, Reason::Invalid, &why, document);
        }
    }
}

/// What is lost last when something must be: nobody can be told to send it again.
fn worth_most(span: &Span) -> bool {
    let flags = span.flags;
    flags.fault || flags.error || span.duration_us().is_some_and(|us| us >= SLOW_US)
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum DatagramError {
    #[error("no newline after the header")]
    NoNewline,
    #[error("the header is not {{\"format\":\"json\",\"version\":1}}")]
    Header,
    #[error("nothing after the header")]
    Empty,
}

#[derive(Deserialize)]
struct Header {
    format: String,
    version: u32,
}

fn document(datagram: &[u8]) -> Result<&[u8], DatagramError> {
    let newline = datagram
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or(DatagramError::NoNewline)?;
    let header: Header =
        serde_json::from_slice(&datagram[..newline]).map_err(|_| DatagramError::Header)?;
    if !header.format.eq_ignore_ascii_case("json") || header.version != 1 {
        return Err(DatagramError::Header);
    }
    let document = datagram[newline + 1..].trim_ascii();
    if document.is_empty() {
        Err(DatagramError::Empty)
    } else {
        Ok(document)
    }
}

/// The kernel's own count for this socket, followed by its inode.
struct KernelDrops {
    inode: Option<String>,
    seen: usize,
}

impl KernelDrops {
    fn of(socket: &UdpSocket) -> KernelDrops {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok();
        let inode = link.and_then(|link| {
            let name = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(name.to_owned())
        });
        KernelDrops { inode, seen: 0 }
    }

    fn count(&mut self, metrics: &Metrics) {
        let Some(inode) = &self.inode else { return };
        let table = |path| {
            std::fs::read_to_string(path)
                .ok()
                .and_then(|table| drops_in(&table, inode))
        };
        if let Some(total) = table("/proc/net/udp").or_else(|| table("/proc/net/udp6")) {
            let lost = total.saturating_sub(self.seen);
            self.seen = total;
            metrics.received(Source::XrayUdp, lost);
            metrics.dropped(Source::XrayUdp, Reason::Kernel, lost);
        }
    }
}

/// Of a line, the tenth column is the inode and the last the drops.
fn drops_in(table: &str, inode: &str) -> Option<usize> {
    table
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        .find(|columns| columns.get(9) == Some(&inode))
        .and_then(|columns| columns.last()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_a_header_line_and_a_document() {
        assert_eq!(
            document(b"{\"format\": \"JSON\", \"version\": 1}\n{}"),
            Ok(&b"{}"[..])
        );
        assert_eq!(
            document(b"{\"format\":\"json\",\"version\":1}{}"),
            Err(DatagramError::NoNewline)
        );
        assert_eq!(
            document(b"{\"format\":\"json\",\"version\":2}\n{}"),
            Err(DatagramError::Header)
        );
        assert_eq!(document(b"\n{}"), Err(DatagramError::Header));
        assert_eq!(
            document(b"{\"format\":\"json\",\"version\":1}\n \n"),
            Err(DatagramError::Empty)
        );
    }

    #[test]
    fn the_kernels_drops_are_read_from_the_sockets_own_line() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
             1: 0100007F:07D0 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 111 2 0000000000000000 7\n\
             2: 0100007F:07D1 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 222 2 0000000000000000 9\n";
        assert_eq!(drops_in(table, "222"), Some(9));
        assert_eq!(drops_in(table, "333"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_datagram_is_a_panic(
            header in "\\{\"format\":\"[a-zJ]{0,5}\",\"version\":[0-9]{1,2}\\}",
            noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100),
        ) {
            let mut datagram = header.into_bytes();
            datagram.extend(&noise);
            for bytes in [datagram, noise] {
                if let Ok(found) = document(&bytes) {
                    proptest::prop_assert!(!found.is_empty());
                }
            }
        }
    }
}
