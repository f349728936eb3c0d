// SPDX-License-Identifier: Apache-2.0
//! Builds the next [`Snapshot`] from the last good resources plus what a response brought, and puts it in force: the
//! only caller of `Live::replace`. A refused resource leaves the one of its name serving. Driven by `client` (the
//! stream), `identity` (this proxy's certificate) and `state` (what stood on disk); does no I/O.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use pillion_xds::resource::Rejected;
use pillion_xds::resource::Resource;
use pillion_xds::resource::ResourceType;
use pillion_xds::resource::UPDATE_ORDER;
use pillion_xds::resource::Versioned;
use pillion_xds::secret::Secret;
use pillion_xds::subscription::Versions;

use super::names;
use crate::snapshot::Live;
use crate::snapshot::Resources;
use crate::snapshot::Snapshot;

/// Holds what was accepted, and applies what comes.
pub struct Applier {
    live: Live,
    resources: Resources,
    versions: BTreeMap<ResourceType, Versions>,
    /// Types of which a response has come, on this or an earlier stream.
    answered: BTreeSet<ResourceType>,
    /// Names that were asked for and that the control plane says do not exist.
    absent: BTreeSet<(ResourceType, String)>,
    /// Removed by the control plane, kept because something still leads there.
    leaving: BTreeSet<String>,
    /// Refusals that are known already, so that each is told once.
    told: Vec<Rejected>,
}

impl Applier {
    /// Nothing accepted yet.
    pub fn new(live: Live) -> Applier {
        Applier {
            live,
            resources: Resources::default(),
            versions: BTreeMap::new(),
            answered: BTreeSet::new(),
            absent: BTreeSet::new(),
            leaving: BTreeSet::new(),
            told: Vec::new(),
        }
    }

    /// Applies one response: good resources, and names that are gone. Returns what was refused, by name.
    pub fn apply(
        &mut self,
        kind: ResourceType,
        accepted: Vec<Versioned>,
        removed: &[String],
    ) -> Vec<Rejected> {
        self.answered.insert(kind);
        let before = self.resources.clone();
        let mut versions = Versions::new();
        for Versioned { version, resource } in accepted {
            let name = resource.name().to_owned();
            self.leaving.remove(&name);
            self.absent.remove(&(kind, name.clone()));
            versions.insert(name, version);
            put(&mut self.resources, resource);
        }
        for name in removed {
            self.remove(kind, name);
        }
        let mut refused = self.dangling(kind, &versions);
        self.restore(kind, &refused, &before);
        let (snapshot, rejected) = Snapshot::compile(&self.resources, &self.live.current());
        // Both lists may name a resource; the one that was refused first has already left.
        let new: Vec<Rejected> = rejected
            .iter()
            .filter(|one| !self.told.contains(one))
            .cloned()
            .collect();
        let ours: Vec<Rejected> = new
            .iter()
            .filter(|one| versions.contains_key(&one.name))
            .cloned()
            .collect();
        self.restore(kind, &ours, &before);
        // What was restored is no longer refused; the rest stays refused until it changes.
        self.told = rejected
            .into_iter()
            .filter(|one| !ours.contains(one))
            .collect();
        refused.extend(new);
        for name in versions
            .keys()
            .filter(|name| !refused.iter().any(|one| one.name == **name))
        {
            self.versions
                .entry(kind)
                .or_default()
                .insert(name.clone(), versions[name].clone());
        }
        self.live.replace(snapshot);
        if self.drop_unnamed() {
            self.recompile();
        }
        refused
    }

    /// Takes this proxy's own certificate (or its renewal).
    pub fn put_identity(&mut self, secret: Secret) {
        put(&mut self.resources, Resource::Secret(secret));
        self.recompile();
    }

    /// From now on secrets come over an SDS socket as well.
    pub fn open_socket(&mut self) {
        self.resources.socket_secrets.get_or_insert_default();
    }

    /// Names that the SDS socket is asked for.
    pub fn wanted_from_socket(&self) -> BTreeSet<String> {
        names::secrets(&self.resources).from_socket()
    }

    /// Whether only the SDS socket serves this name.
    pub fn needs_from_socket(&self, name: &str) -> bool {
        names::secrets(&self.resources).socket.contains(name)
    }

    /// Takes a secret of the SDS socket.
    pub fn put_from_socket(&mut self, secret: Secret) {
        let secrets = self.resources.socket_secrets.get_or_insert_default();
        secrets.insert(secret.name.clone(), Arc::new(secret));
        self.recompile();
    }

    /// Forgets secrets of the SDS socket that nothing names any more.
    pub fn keep_from_socket(&mut self, named: &BTreeSet<String>) {
        if let Some(secrets) = &mut self.resources.socket_secrets {
            secrets.retain(|name, _| named.contains(name));
        }
    }

    /// Compiles again: key material on disk has changed.
    pub fn recompile(&mut self) {
        let (snapshot, rejected) = Snapshot::compile(&self.resources, &self.live.current());
        for refused in rejected.iter().filter(|one| !self.told.contains(one)) {
            tracing::warn!(
                name = refused.name,
                why = refused.why,
                "keeps its last good configuration"
            );
        }
        self.told = rejected;
        self.live.replace(snapshot);
    }

    /// Everything that was accepted, in the order in which it can be applied again.
    pub fn accepted(&self) -> Vec<(ResourceType, Vec<Versioned>)> {
        UPDATE_ORDER
            .into_iter()
            .map(|kind| (kind, self.accepted_of(kind)))
            .collect()
    }

    fn accepted_of(&self, kind: ResourceType) -> Vec<Versioned> {
        let Some(versions) = self.versions.get(&kind) else {
            return Vec::new();
        };
        let one = |(name, version): (&String, &String)| {
            let resource = get(&self.resources, kind, name)?;
            Some(Versioned {
                version: version.clone(),
                resource,
            })
        };
        versions.iter().filter_map(one).collect()
    }

    /// Versions held, for a stream that begins.
    pub fn versions(&self, kind: ResourceType) -> Versions {
        self.versions.get(&kind).cloned().unwrap_or_default()
    }

    /// Names to ask for of a type that is asked for by name.
    pub fn wanted(&self, kind: ResourceType) -> BTreeSet<String> {
        match kind {
            ResourceType::Route => names::routes(&self.resources),
            ResourceType::Endpoint => names::endpoints(&self.resources),
            ResourceType::Secret => names::secrets(&self.resources).streamed,
            ResourceType::Cluster | ResourceType::Listener => BTreeSet::new(),
        }
    }

    /// The identity that TLS contexts ask for, if any does.
    pub fn identity(&self) -> Option<String> {
        names::secrets(&self.resources)
            .identities
            .into_iter()
            .next()
    }

    /// The version of the configuration in force.
    pub fn version(&self) -> u64 {
        self.live.current().version
    }

    /// What is still missing before everything that was configured can serve; empty means ready.
    pub fn pending(&self) -> Vec<String> {
        let mut pending: Vec<String> = [ResourceType::Cluster, ResourceType::Listener]
            .into_iter()
            .filter(|kind| !self.answered.contains(kind))
            .map(|kind| format!("{kind:?} resources"))
            .collect();
        let from_socket = |name: &String| {
            let secrets = self.resources.socket_secrets.as_ref();
            secrets.is_some_and(|secrets| secrets.contains_key(name))
        };
        for kind in [
            ResourceType::Route,
            ResourceType::Endpoint,
            ResourceType::Secret,
        ] {
            let missing = self.wanted(kind).into_iter().filter(|name| {
                get(&self.resources, kind, name).is_none()
                    && !self.absent.contains(&(kind, name.clone()))
                    && !(kind == ResourceType::Secret && from_socket(name))
            });
            pending.extend(missing.map(|name| format!("{kind:?} {name}")));
        }
        let identity = self
            .identity()
            .filter(|name| !self.resources.secrets.contains_key(name) && !from_socket(name));
        pending.extend(identity.map(|name| format!("certificate for {name}")));
        let over_socket = names::secrets(&self.resources).socket.into_iter();
        let missing = over_socket.filter(|name| !from_socket(name));
        pending.extend(missing.map(|name| format!("secret {name} of the SDS socket")));
        pending
    }

    /// What was accepted, for `/config_dump` and `/certs`.
    pub fn resources(&self) -> &Resources {
        &self.resources
    }

    /// Gone at once, or when nothing leads there any more.
    fn remove(&mut self, kind: ResourceType, name: &str) {
        if let Some(versions) = self.versions.get_mut(&kind) {
            versions.remove(name);
        }
        match kind {
            ResourceType::Listener => {
                self.resources.listeners.remove(name);
            }
            ResourceType::Cluster => {
                self.leaving.insert(name.to_owned());
            }
            // Asked for by name: dropped when nobody asks any more.
            ResourceType::Route | ResourceType::Endpoint | ResourceType::Secret => {
                self.absent.insert((kind, name.to_owned()));
            }
        }
    }

    /// Routes and listeners that lead to clusters which are not there. Before any cluster has come nothing is known to
    /// be missing.
    fn dangling(&self, kind: ResourceType, changed: &Versions) -> Vec<Rejected> {
        if !self.answered.contains(&ResourceType::Cluster) {
            return Vec::new();
        }
        let missing = |cluster: &&str| !self.resources.clusters.contains_key(*cluster);
        let mut refused = Vec::new();
        for name in changed.keys() {
            let found = match kind {
                ResourceType::Route => self
                    .resources
                    .routes
                    .get(name)
                    .and_then(|table| names::clusters_of_table(table).find(missing)),
                ResourceType::Listener => {
                    let listener = self.resources.listeners.get(name);
                    listener.and_then(|listener| {
                        names::clusters_of_listener(listener)
                            .into_iter()
                            .find(missing)
                    })
                }
                ResourceType::Cluster | ResourceType::Endpoint | ResourceType::Secret => None,
            };
            if let Some(cluster) = found {
                let why = format!(
                    "leads to cluster {cluster:?}, which is not there; send the cluster first"
                );
                refused.push(Rejected {
                    name: name.clone(),
                    why,
                });
            }
        }
        refused
    }

    fn restore(&mut self, kind: ResourceType, refused: &[Rejected], before: &Resources) {
        for Rejected { name, .. } in refused {
            let now = &mut self.resources;
            match kind {
                ResourceType::Cluster => put_back(&mut now.clusters, &before.clusters, name),
                ResourceType::Endpoint => put_back(&mut now.endpoints, &before.endpoints, name),
                ResourceType::Listener => put_back(&mut now.listeners, &before.listeners, name),
                ResourceType::Route => put_back(&mut now.routes, &before.routes, name),
                ResourceType::Secret => put_back(&mut now.secrets, &before.secrets, name),
            }
        }
    }

    /// Drops what nothing names any more. Says whether the snapshot should be compiled again.
    fn drop_unnamed(&mut self) -> bool {
        let routes = names::routes(&self.resources);
        self.resources
            .routes
            .retain(|name, _| routes.contains(name));
        let used: BTreeSet<String> = names::clusters(&self.resources)
            .into_iter()
            .map(str::to_owned)
            .collect();
        let left: Vec<String> = self
            .leaving
            .iter()
            .filter(|name| !used.contains(*name))
            .cloned()
            .collect();
        for name in &left {
            self.leaving.remove(name);
            self.resources.clusters.remove(name);
        }
        let endpoints = names::endpoints(&self.resources);
        self.resources
            .endpoints
            .retain(|name, _| endpoints.contains(name));
        let secrets = names::secrets(&self.resources);
        let named =
            |name: &String| secrets.identities.contains(name) || secrets.streamed.contains(name);
        self.resources
            .secrets
            .retain(|name, _| named(name) || names::is_identity(name));
        let wanted = BTreeMap::from([
            (ResourceType::Route, routes),
            (ResourceType::Endpoint, endpoints),
            (ResourceType::Secret, secrets.streamed),
        ]);
        self.absent
            .retain(|(kind, name)| wanted.get(kind).is_some_and(|names| names.contains(name)));
        for (kind, versions) in &mut self.versions {
            let resources = &self.resources;
            versions.retain(|name, _| get(resources, *kind, name).is_some());
        }
        !left.is_empty()
    }
}

fn put(resources: &mut Resources, resource: Resource) {
    let name = resource.name().to_owned();
    match resource {
        Resource::Cluster(cluster) => drop(resources.clusters.insert(name, Arc::new(cluster))),
        Resource::Endpoint(endpoints) => {
            drop(resources.endpoints.insert(name, Arc::new(endpoints)))
        }
        Resource::Listener(listener) => drop(resources.listeners.insert(name, Arc::new(listener))),
        Resource::Route(table) => drop(resources.routes.insert(name, Arc::new(table))),
        Resource::Secret(secret) => drop(resources.secrets.insert(name, Arc::new(secret))),
    }
}

fn get(resources: &Resources, kind: ResourceType, name: &str) -> Option<Resource> {
    Some(match kind {
        ResourceType::Cluster => Resource::Cluster(resources.clusters.get(name)?.as_ref().clone()),
        ResourceType::Endpoint => {
            Resource::Endpoint(resources.endpoints.get(name)?.as_ref().clone())
        }
        ResourceType::Listener => {
            Resource::Listener(resources.listeners.get(name)?.as_ref().clone())
        }
        ResourceType::Route => Resource::Route(resources.routes.get(name)?.as_ref().clone()),
        ResourceType::Secret => Resource::Secret(resources.secrets.get(name)?.as_ref().clone()),
    })
}

fn put_back<T>(now: &mut BTreeMap<String, Arc<T>>, before: &BTreeMap<String, Arc<T>>, name: &str) {
    match before.get(name) {
        Some(old) => drop(now.insert(name.to_owned(), Arc::clone(old))),
        None => drop(now.remove(name)),
    }
}

#[cfg(test)]
mod tests;
