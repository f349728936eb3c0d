// SPDX-License-Identifier: Apache-2.0
//! Connections of our own that the kernel redirected back to us, because the proxy's user was not left out of the
//! rules. Each would dial again, without end. Both ends of such a connection are sockets of this process: what is
//! dialled is remembered for a moment, and what is accepted is compared. Nothing is remembered before the first
//! redirected connection, so explicit use pays nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::net::TcpStream;

/// What a person must do.
pub const CIRCLE: &str = "a connection of this proxy was redirected back to it; leave its user out of the rules: \
     pillion-proxy intercept --ignore-uid <uid of the proxy>";

/// A connection is accepted within this of being dialled; later the same pair of addresses may be another's.
const RECENT: Duration = Duration::from_secs(5);
/// Dials remembered; beyond this the older half of the story is forgotten, and a circle is found one turn later.
const MOST: usize = 4096;

/// Both ends, as dialled: ours, theirs.
type Ends = (SocketAddr, SocketAddr);

static REDIRECTED: AtomicBool = AtomicBool::new(false);
static DIALLED: Mutex<Option<HashMap<Ends, Instant>>> = Mutex::new(None);

/// Remembers a connection that has just come about.
pub(super) fn remember(socket: &TcpStream, endpoint: SocketAddr) {
    if !REDIRECTED.load(Ordering::Relaxed) {
        return;
    }
    let Ok(local) = socket.local_addr() else {
        return;
    };
    let now = Instant::now();
    let mut dialled = DIALLED.lock();
    let dialled = dialled.get_or_insert_default();
    if dialled.len() >= MOST {
        dialled.retain(|_, at| now.duration_since(*at) < RECENT);
    }
    if dialled.len() >= MOST {
        dialled.clear();
    }
    dialled.insert((plain(local), plain(endpoint)), now);
}

/// Whether a redirected connection from `peer` to `original` was dialled by this process.
pub fn is_own(peer: SocketAddr, original: SocketAddr) -> bool {
    REDIRECTED.store(true, Ordering::Relaxed);
    let dialled = DIALLED.lock();
    let at = dialled
        .as_ref()
        .and_then(|dialled| dialled.get(&(plain(peer), plain(original))));
    at.is_some_and(|at| at.elapsed() < RECENT)
}

/// A dual-stack socket calls an IPv4 peer by its mapped address.
fn plain(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dialled_connection_is_known_by_both_its_ends() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap();
        let stranger = SocketAddr::from(([127, 0, 0, 1], 1));
        assert!(!is_own(stranger, endpoint));
        let socket = TcpStream::connect(endpoint).await.unwrap();
        remember(&socket, endpoint);
        let (_accepted, peer) = listener.accept().await.unwrap();
        assert!(is_own(peer, endpoint));
        let mapped = SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), peer.port());
        assert!(is_own(mapped, endpoint), "as a dual-stack socket sees it");
        assert!(!is_own(peer, stranger));
    }
}
