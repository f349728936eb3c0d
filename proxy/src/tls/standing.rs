// SPDX-License-Identifier: Apache-2.0
//! Open TLS connections by the context they were accepted under, and their end when a revocation list comes to name
//! their peer. A context's [`Standing`] outlives its configurations, so a new list reaches the connections of old ones.
//! Called by `tls` (new configurations), `listener` and `connect` (new connections); `stream` holds the result.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Weak;
use std::task::Context;
use std::task::Poll;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use rustls::CommonState;
use rustls::Error;
use rustls::HandshakeKind;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::UnixTime;
use tokio_rustls::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::verify;
use super::verify::Peers;
use crate::stream::Stream;

/// Entries of closed connections are swept when this many stand beside as many open ones.
const SWEEP: usize = 64;

/// The connections of one TLS context.
#[derive(Debug, Default)]
pub struct Standing {
    peers: ArcSwapOption<Peers>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    entries: Vec<Weak<Entry>>,
    sweep_at: usize,
}

#[derive(Debug)]
struct Entry {
    chain: Vec<CertificateDer<'static>>,
    since: UnixTime,
    revoked: CancellationToken,
}

impl Standing {
    /// From now on peers are judged so. Connections of those whom a list has come to name are closed; returns how many.
    pub(super) fn follow(&self, peers: Option<Arc<Peers>>) -> usize {
        let before = self.peers.swap(peers.clone());
        let Some(peers) = peers else { return 0 };
        if before.is_some_and(|before| before.same_lists(&peers)) {
            return 0;
        }
        let open = self.open.lock();
        let named = |entry: &Arc<Entry>| peers.revokes(&entry.chain, entry.since);
        let revoked = open.entries.iter().filter_map(Weak::upgrade).filter(named);
        revoked.map(|entry| entry.revoked.cancel()).count()
    }

    /// Takes a connection that has shaken hands under `then`. A resumed session brings the certificate of an earlier
    /// handshake, which may have run out since; and a configuration may have changed while hands were shaken: both are
    /// checked again.
    pub(super) fn admit(
        &self,
        state: &CommonState,
        then: Option<&Arc<Peers>>,
    ) -> io::Result<Option<Member>> {
        let (Some(chain), Some(then)) = (state.peer_certificates(), then) else {
            return Ok(None);
        };
        let entry = Arc::new(Entry {
            chain: chain.iter().map(|one| one.clone().into_owned()).collect(),
            since: verify::now(),
            revoked: CancellationToken::new(),
        });
        self.open.lock().add(&entry);
        let now = self.peers.load_full();
        let changed = now.as_ref().is_some_and(|now| !Arc::ptr_eq(now, then));
        if changed || state.handshake_kind() == Some(HandshakeKind::Resumed) {
            let peers = now.as_ref().unwrap_or(then);
            if let Some((leaf, intermediates)) = entry.chain.split_first() {
                let refused = |error: Error| io::Error::new(io::ErrorKind::InvalidData, error);
                peers
                    .check(leaf, intermediates, entry.since)
                    .map_err(refused)?;
            }
        }
        Ok(Some(Member(entry)))
    }
}

impl Open {
    fn add(&mut self, entry: &Arc<Entry>) {
        if self.entries.len() >= self.sweep_at.max(SWEEP) {
            self.entries.retain(|entry| entry.strong_count() > 0);
            self.sweep_at = self.entries.len() * 2;
        }
        self.entries.push(Arc::downgrade(entry));
    }
}

/// A place among the open connections, held as long as one is.
#[derive(Debug)]
pub struct Member(Arc<Entry>);

/// A TLS stream, either side, that ends when its peer is revoked.
#[derive(Debug)]
pub struct Secure {
    /// The stream.
    pub stream: TlsStream<Stream>,
    revocation: Option<Revocation>,
}

#[derive(Debug)]
struct Revocation {
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: Member,
}

impl Secure {
    /// With its place, if its peer showed a certificate that was checked.
    pub fn new(stream: TlsStream<Stream>, member: Option<Member>) -> Secure {
        let watch = |member: Member| Revocation {
            ended: Box::pin(member.0.revoked.clone().cancelled_owned()),
            _place: member,
        };
        Secure {
            stream,
            revocation: member.map(watch),
        }
    }

    /// The session.
    pub fn session(&self) -> &CommonState {
        self.stream.get_ref().1
    }

    /// The name the peer asked for, if it is the client.
    pub fn server_name(&self) -> Option<&str> {
        match &self.stream {
            TlsStream::Server(stream) => stream.get_ref().1.server_name(),
            TlsStream::Client(_) => None,
        }
    }

    /// An error once the peer is revoked; until then whoever polls is woken when it is.
    pub(crate) fn poll_good(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(revocation) = &mut self.revocation else {
            return Ok(());
        };
        match revocation.ended.as_mut().poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the peer's certificate has been revoked",
            )),
        }
    }
}
