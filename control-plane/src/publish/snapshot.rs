// SPDX-License-Identifier: Apache-2.0
//! Everything one proxy may be told, at one moment, and whether it holds together. Built by `publish.rs`, read by
//! `ads/stream.rs`. Immutable; a version is the hash of what it versions, so equal content is never sent twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use pillion_xds::cluster::Discovery;
use pillion_xds::resource::Resource;
use pillion_xds::resource::ResourceType;
use pillion_xds::resource::version_of;
use pillion_xds::subscription::Versions;

use crate::translate::references::References;

/// One type's resources.
#[derive(Clone, Debug, Default)]
pub struct Table {
    versions: Versions,
    resources: BTreeMap<String, Arc<Resource>>,
}

impl Table {
    /// Version by name.
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// The resource of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.resources.get(name)
    }

    /// Adds or replaces one.
    pub fn insert(&mut self, resource: Resource) {
        let name = resource.name().to_owned();
        self.versions
            .insert(name.clone(), version_of(&resource.encode_any().value));
        self.resources.insert(name, Arc::new(resource));
    }

    /// Both together; where they disagree, as it stands here.
    pub fn with(&self, other: &Table) -> Table {
        let mut all = other.clone();
        all.versions.extend(self.versions.clone());
        all.resources.extend(self.resources.clone());
        all
    }

    /// Adds one of another table, under its version there.
    pub fn adopt(&mut self, name: &str, from: &Table) {
        if let (Some(version), Some(resource)) = (from.versions.get(name), from.resources.get(name))
        {
            self.versions.insert(name.to_owned(), version.clone());
            self.resources.insert(name.to_owned(), Arc::clone(resource));
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The revision of the model it was made from.
    pub revision: u64,
    tables: BTreeMap<ResourceType, Table>,
    /// Listeners that nobody gets who does not name them.
    on_demand: Table,
}

/// Why a set of resources is not published: a proxy that took it would fail requests.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Inconsistent {
    /// A route or listener leads nowhere.
    #[error("cluster {0:?} is routed to and not defined")]
    Cluster(String),
    /// A listener would wait for its routes for ever.
    #[error("route table {0:?} is named by a listener and not defined")]
    Table(String),
    /// A cluster would wait for its endpoints for ever.
    #[error("cluster {0:?} takes its endpoints by EDS and has none, not even an empty set")]
    Endpoints(String),
    /// One of them would be lost.
    #[error("two resources of one type are called {0:?}")]
    Twice(String),
}

impl Snapshot {
    /// A snapshot of these resources, if they hold together.
    pub fn checked(revision: u64, resources: Vec<Resource>) -> Result<Snapshot, Inconsistent> {
        let named = References::of(&resources);
        let mut snapshot = Snapshot {
            revision,
            tables: BTreeMap::new(),
            on_demand: Table::default(),
        };
        for resource in resources {
            let table = snapshot.tables.entry(resource.kind()).or_default();
            if table.get(resource.name()).is_some() {
                return Err(Inconsistent::Twice(resource.name().to_owned()));
            }
            table.insert(resource);
        }
        let lacks = |kind: ResourceType, name: &str| snapshot.get(kind, name).is_none();
        if let Some(name) = named
            .clusters
            .iter()
            .find(|name| lacks(ResourceType::Cluster, name))
        {
            return Err(Inconsistent::Cluster(name.clone()));
        }
        if let Some(name) = named
            .routes
            .iter()
            .find(|name| lacks(ResourceType::Route, name))
        {
            return Err(Inconsistent::Table(name.clone()));
        }
        for resource in snapshot.table(ResourceType::Cluster).resources.values() {
            if let Resource::Cluster(cluster) = resource.as_ref()
                && let Discovery::Eds(name) = &cluster.discovery
                && lacks(
                    ResourceType::Endpoint,
                    name.as_deref().unwrap_or(&cluster.name),
                )
            {
                return Err(Inconsistent::Endpoints(cluster.name.clone()));
            }
        }
        Ok(snapshot)
    }

    /// The same with these secrets instead of its own.
    pub fn with_secrets(&self, secrets: Table) -> Snapshot {
        let mut next = self.clone();
        next.tables.insert(ResourceType::Secret, secrets);
        next
    }

    /// The same with these listeners for those who name them. They follow from the route tables, so they change nothing
    /// about what is the same content.
    pub fn with_on_demand(mut self, listeners: Vec<Resource>) -> Snapshot {
        for listener in listeners {
            self.on_demand.insert(listener);
        }
        self
    }

    /// See [`Snapshot::with_on_demand`].
    pub fn on_demand(&self) -> &Table {
        &self.on_demand
    }

    /// All of one type.
    pub fn table(&self, kind: ResourceType) -> &Table {
        static EMPTY: Table = Table {
            versions: Versions::new(),
            resources: BTreeMap::new(),
        };
        self.tables.get(&kind).unwrap_or(&EMPTY)
    }

    /// One resource.
    pub fn get(&self, kind: ResourceType, name: &str) -> Option<&Arc<Resource>> {
        self.table(kind).get(name)
    }

    /// A hash over the versions of everything in it.
    pub fn version(&self) -> String {
        let mut text = String::new();
        for (name, version) in self.tables.values().flat_map(|table| &table.versions) {
            text.extend([name, "\n", version, "\n"]);
        }
        version_of(text.as_bytes())
    }

    /// Whether both tell a proxy the same.
    pub fn same_content(&self, other: &Snapshot) -> bool {
        let pairs = |snapshot: &Snapshot| -> Vec<(ResourceType, Versions)> {
            snapshot
                .tables
                .iter()
                .map(|(kind, table)| (*kind, table.versions.clone()))
                .collect()
        };
        pairs(self) == pairs(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::cluster::original_destination;
    use crate::translate::endpoint;
    use pillion_xds::cluster::Cluster;

    fn eds(name: &str) -> Resource {
        Resource::Cluster(Cluster {
            discovery: Discovery::Eds(None),
            ..original_destination(name)
        })
    }

    #[test]
    fn a_cluster_by_eds_without_endpoints_is_not_published() {
        let refused = Snapshot::checked(1, vec![eds("c")]).unwrap_err();
        assert_eq!(refused, Inconsistent::Endpoints("c".into()));
        let endpoints = Resource::Endpoint(endpoint::none("c"));
        assert!(Snapshot::checked(1, vec![eds("c"), endpoints]).is_ok());
    }

    #[test]
    fn equal_content_has_equal_versions_whatever_the_revision() {
        let snapshot = |revision, name| {
            Snapshot::checked(
                revision,
                vec![Resource::Cluster(original_destination(name))],
            )
            .unwrap()
        };
        assert!(snapshot(1, "a").same_content(&snapshot(2, "a")));
        assert_eq!(snapshot(1, "a").version(), snapshot(2, "a").version());
        assert!(!snapshot(1, "a").same_content(&snapshot(1, "b")));
    }
}
