// SPDX-License-Identifier: Apache-2.0
//! How a connection came to a sidecar: redirected by the kernel or on purpose, by whom, and whether it is one of our
//! own. Called by `accept` before anything is read.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use socket2::SockRef;
use tokio::net::TcpStream;

use super::SocketKind;
use crate::connect::own;
use crate::worker::Policy;

const REFUSED: &str = "an explicit call from another machine is refused; give --egress-addr (PILLION_EGRESS_ADDR) to \
     serve such";

/// Where a redirected connection was going; `None` if it came here on purpose.
pub(super) fn original(
    kind: &SocketKind,
    socket: &TcpStream,
    local: SocketAddr,
) -> Option<SocketAddr> {
    if !matches!(kind, SocketKind::Ingress | SocketKind::Egress) {
        return None;
    }
    let socket = SockRef::from(socket);
    let original = match local.ip().to_canonical() {
        IpAddr::V4(_) => socket.original_dst_v4(),
        IpAddr::V6(_) => socket.original_dst_v6(),
    };
    let original = original.ok()?.as_socket()?;
    let same = original.port() == local.port()
        && original.ip().to_canonical() == local.ip().to_canonical();
    (!same).then_some(original)
}

/// Refuses explicit calls of other machines: they would go out under this workload's name. Who gives `--egress-addr`
/// decides for himself who reaches it.
pub(super) fn welcome(peer: SocketAddr, local: SocketAddr, policy: &Policy) -> io::Result<()> {
    static TOLD: AtomicBool = AtomicBool::new(false);
    let (from, to) = (peer.ip().to_canonical(), local.ip().to_canonical());
    if policy.open_egress || from == to || from.is_loopback() {
        return Ok(());
    }
    // Once is enough for whoever set it up; a stranger must not fill the log.
    if !TOLD.swap(true, Ordering::Relaxed) {
        tracing::warn!(%peer, "{REFUSED}");
    }
    Err(io::Error::other(REFUSED))
}

/// Ends a connection that this process dialled itself.
pub(super) fn no_circle(peer: SocketAddr, original: Option<SocketAddr>) -> io::Result<()> {
    match original {
        Some(original) if own::is_own(peer, original) => {
            tracing::error!(%original, "{}", own::CIRCLE);
            Err(io::Error::other(own::CIRCLE))
        }
        _ => Ok(()),
    }
}
