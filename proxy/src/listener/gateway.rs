// SPDX-License-Identifier: Apache-2.0
//! Listeners that configuration brings: bound when they come, unbound when they go, announced once bound.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::Announce;
use super::Command;
use super::SocketKind;
use super::accept::is_sidecar_listener;
use super::bind_workers;
use crate::snapshot::Live;

/// A port that could not be bound is tried again after this.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
struct Binding {
    wanted: SocketAddr,
    bound: SocketAddr,
}

/// What is bound now, by listener name.
#[derive(Clone, Default)]
pub(super) struct Bound {
    all: Arc<Mutex<BTreeMap<String, Binding>>>,
}

impl Bound {
    pub(super) fn addresses(&self) -> Vec<(String, SocketAddr)> {
        self.all.lock().values().map(named).collect()
    }
}

fn named(binding: &Binding) -> (String, SocketAddr) {
    (format!("gateway:{}", binding.wanted.port()), binding.bound)
}

pub(super) struct Binder {
    pub(super) live: Live,
    pub(super) address: IpAddr,
    pub(super) announce: Announce,
    pub(super) workers: Vec<mpsc::Sender<Command>>,
    pub(super) bound: Bound,
}

impl Binder {
    pub(super) async fn run(self) {
        let mut changes = self.live.subscribe();
        loop {
            let complete = self.refresh().await;
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

    /// Binds and unbinds until sockets are as configured; false when a port could not be had.
    async fn refresh(&self) -> bool {
        let snapshot = self.live.current();
        let wanted: BTreeMap<String, SocketAddr> = snapshot
            .listeners()
            .filter(|listener| !is_sidecar_listener(&listener.source))
            .map(|listener| {
                (
                    listener.name().to_owned(),
                    SocketAddr::new(self.address, listener.source.address.port()),
                )
            })
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
        let mut fresh = Vec::new();
        let mut complete = true;
        for (name, addr) in wanted {
            if self.bound.all.lock().contains_key(&name) {
                continue;
            }
            match self.bind(&name, addr).await {
                Ok(binding) => fresh.push(named(&binding)),
                Err(error) => {
                    complete = false;
                    tracing::error!(listener = name, %error, "gateway listener not bound; trying again");
                }
            }
        }
        if !fresh.is_empty() {
            (self.announce)(&fresh);
        }
        complete
    }

    async fn bind(
        &self,
        name: &str,
        wanted: SocketAddr,
    ) -> Result<Binding, pillion_runtime::listening::BindError> {
        let kind = SocketKind::Gateway(Arc::from(name));
        let (bound, commands) = bind_workers("--gateway-addr", wanted, self.workers.len(), &kind)?;
        for (worker, command) in self.workers.iter().zip(commands) {
            self.tell(worker, command).await;
        }
        let binding = Binding { wanted, bound };
        self.bound.all.lock().insert(name.to_owned(), binding);
        Ok(binding)
    }

    async fn unbind(&self, name: &str) {
        self.bound.all.lock().remove(name);
        for worker in &self.workers {
            self.tell(
                worker,
                Command::Unlisten {
                    name: Arc::from(name),
                },
            )
            .await;
        }
    }

    async fn tell(&self, worker: &mpsc::Sender<Command>, command: Command) {
        if worker.send(command).await.is_err() {
            tracing::debug!("a worker has ended; its sockets are closed");
        }
    }
}
