// SPDX-License-Identifier: Apache-2.0
//! Sockets that configuration brings: a gateway's listeners, and the IPv6 side of a sidecar's where the mesh asks for
//! it. Bound when they come, unbound when they go, announced once bound; what cannot be bound is told and tried again.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pillion_runtime::listening;
use pillion_runtime::listening::BindError;
use pillion_xds::listener::Direction;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::Announce;
use super::Command;
use super::Settled;
use super::SocketKind;
use super::SocketName;
use super::accept::is_egress;
use super::accept::is_ingress;
use super::bind_each;
use crate::drain::Side;
use crate::snapshot::Listener;
use crate::snapshot::Live;

/// A port that could not be bound is tried again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// A port of the configuration that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("listener {listener} on {address}: {}", remedy(.source, *.address))]
struct UnboundError {
    listener: String,
    address: SocketAddr,
    source: BindError,
}

fn remedy(source: &BindError, address: SocketAddr) -> String {
    let port = address.port();
    match source.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another process holds port {port}; stop it, or give the listener another port in the mesh"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "port {port} is not permitted; ports below 1024 need CAP_NET_BIND_SERVICE, or give the listener a higher one in the mesh"
        ),
        _ => source.to_string(),
    }
}

/// What the command line says about where sockets are.
pub(super) struct Doors {
    pub(super) gateway: IpAddr,
    pub(super) ingress: Option<SocketAddr>,
    pub(super) egress: Option<SocketAddr>,
}

/// One socket (per worker) that the configuration wants.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    listener: String,
    kind: SocketKind,
    side: Side,
    address: SocketAddr,
}

impl Doors {
    /// By the name each has in the readiness line.
    fn wanted(&self, listener: &Listener) -> Vec<(String, Wanted)> {
        let source = &listener.source;
        let both_families = source.address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let one = |kind, address| Wanted {
            listener: listener.name().to_owned(),
            kind,
            side: match source.direction {
                Direction::Outbound => Side::Outbound,
                Direction::Inbound | Direction::Unspecified => Side::Inbound,
            },
            address,
        };
        let beside = |v4: SocketAddr| {
            // An address that somebody chose is not widened.
            let wide = both_families && v4.is_ipv4() && v4.ip().is_unspecified();
            wide.then(|| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), v4.port()))
        };
        let sidecar = [
            (
                is_ingress(source),
                self.ingress,
                "ingress_v6",
                SocketKind::Ingress,
            ),
            (
                is_egress(source),
                self.egress,
                "egress_v6",
                SocketKind::Egress,
            ),
        ];
        for (is_this, v4, name, kind) in sidecar {
            if is_this {
                let v6 = v4.and_then(beside);
                return v6
                    .map(|v6| (name.to_owned(), one(kind, v6)))
                    .into_iter()
                    .collect();
            }
        }
        let kind = SocketKind::Gateway(Arc::from(listener.name()));
        let v4 = SocketAddr::new(self.gateway, source.address.port());
        let mut all = vec![(format!("gateway:{}", v4.port()), one(kind.clone(), v4))];
        all.extend(beside(v4).map(|v6| (format!("gateway_v6:{}", v6.port()), one(kind, v6))));
        all
    }
}

struct Binding {
    wanted: Wanted,
    bound: SocketAddr,
}

/// What is bound now, by name.
#[derive(Clone, Default)]
pub(super) struct Bound {
    all: Arc<Mutex<BTreeMap<String, Binding>>>,
}

impl Bound {
    pub(super) fn addresses(&self) -> Vec<(String, SocketAddr)> {
        let all = self.all.lock();
        all.iter()
            .map(|(name, binding)| (name.clone(), binding.bound))
            .collect()
    }
}

pub(super) struct Binder {
    pub(super) live: Live,
    pub(super) doors: Doors,
    pub(super) announce: Announce,
    pub(super) settled: Settled,
    pub(super) workers: Vec<mpsc::Sender<Command>>,
    pub(super) bound: Bound,
}

impl Binder {
    pub(super) async fn run(self) {
        let mut changes = self.live.subscribe();
        let mut told = Vec::new();
        loop {
            let (version, failed) = self.refresh().await;
            if failed != told {
                for why in &failed {
                    tracing::error!("{why}; trying again every second");
                }
                told.clone_from(&failed);
            }
            let complete = failed.is_empty();
            (self.settled)(version, failed);
            let changed = changes.changed();
            let more = if complete {
                changed.await
            } else {
                tokio::time::timeout(AGAIN, changed).await.unwrap_or(Ok(()))
            };
            if more.is_err() {
                return;
            }
        }
    }

    /// Binds and unbinds until sockets are as configured: of which version, and why some are not.
    async fn refresh(&self) -> (u64, Vec<String>) {
        let snapshot = self.live.current();
        let wanted: BTreeMap<String, Wanted> = snapshot
            .listeners()
            .flat_map(|listener| self.doors.wanted(listener))
            .collect();
        let stale: Vec<String> = {
            let bound = self.bound.all.lock();
            let kept = |name: &String, binding: &Binding| wanted.get(name) == Some(&binding.wanted);
            bound
                .iter()
                .filter(|(name, binding)| !kept(name, binding))
                .map(|(name, _)| name.clone())
                .collect()
        };
        for name in stale {
            self.unbind(&name).await;
        }
        let (mut fresh, mut failed) = (Vec::new(), Vec::new());
        for (name, wanted) in wanted {
            if self.bound.all.lock().contains_key(&name) {
                continue;
            }
            match self.bind(&name, wanted).await {
                Ok(bound) => fresh.push((name, bound)),
                Err(error) => failed.push(error.to_string()),
            }
        }
        if !fresh.is_empty() {
            (self.announce)(&fresh);
        }
        (snapshot.version, failed)
    }

    async fn bind(&self, name: &str, wanted: Wanted) -> Result<SocketAddr, UnboundError> {
        let beside_v4 = wanted.address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            && self.doors.gateway != IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let bind = |at| -> Result<TcpListener, BindError> {
            if beside_v4 {
                listening::bind_shared_beside_v4("--gateway-addr", at)
            } else {
                listening::bind_shared("--gateway-addr", at)
            }
        };
        let bound = bind_each(wanted.address, self.workers.len(), bind);
        let (bound, sockets) = bound.map_err(|source| UnboundError {
            listener: wanted.listener.clone(),
            address: wanted.address,
            source,
        })?;
        let socket_name: SocketName = Arc::from(name);
        for (worker, socket) in self.workers.iter().zip(sockets) {
            let command = Command::Listen {
                kind: wanted.kind.clone(),
                side: wanted.side,
                socket,
                name: Some(Arc::clone(&socket_name)),
            };
            self.tell(worker, command).await;
        }
        let binding = Binding { wanted, bound };
        self.bound.all.lock().insert(name.to_owned(), binding);
        Ok(bound)
    }

    async fn unbind(&self, name: &str) {
        self.bound.all.lock().remove(name);
        let name: SocketName = Arc::from(name);
        for worker in &self.workers {
            let command = Command::Unlisten {
                name: Arc::clone(&name),
            };
            self.tell(worker, command).await;
        }
    }

    async fn tell(&self, worker: &mpsc::Sender<Command>, command: Command) {
        if worker.send(command).await.is_err() {
            tracing::debug!("a worker has ended; its sockets are closed");
        }
    }
}
