// SPDX-License-Identifier: Apache-2.0
//! Which clusters and route tables a resource names. Pure; `translate.rs` leaves out what nobody names, `publish.rs`
//! refuses what names nothing.

use std::collections::BTreeSet;

use pillion_xds::listener::Listener;
use pillion_xds::listener::NetworkFilter;
use pillion_xds::listener::RouteSource;
use pillion_xds::resource::Resource;
use pillion_xds::route::Action;
use pillion_xds::route::RouteConfiguration;

/// Names that must exist for some resources to work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Clusters.
    pub clusters: BTreeSet<String>,
    /// Route tables.
    pub routes: BTreeSet<String>,
}

impl References {
    /// Of all these resources together.
    pub fn of<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> References {
        let mut found = References::default();
        for resource in resources {
            match resource {
                Resource::Route(table) => found.add_table(table),
                Resource::Listener(listener) => found.add_listener(listener),
                Resource::Cluster(_) | Resource::Endpoint(_) | Resource::Secret(_) => {}
            }
        }
        found
    }

    fn add_table(&mut self, table: &RouteConfiguration) {
        for route in table.virtual_hosts.iter().flat_map(|host| &host.routes) {
            if let Action::Forward(forward) = &route.action {
                self.clusters
                    .extend(forward.clusters.iter().map(|cluster| cluster.name.clone()));
            }
        }
    }

    fn add_listener(&mut self, listener: &Listener) {
        for chain in listener
            .filter_chains
            .iter()
            .chain(&listener.default_filter_chain)
        {
            match &chain.filter {
                NetworkFilter::Tcp(tcp) => self
                    .clusters
                    .extend(tcp.clusters.iter().map(|cluster| cluster.name.clone())),
                NetworkFilter::Http(http) => match &http.routes {
                    RouteSource::Rds(name) => {
                        self.routes.insert(name.clone());
                    }
                    RouteSource::Inline(table) => self.add_table(table),
                },
            }
        }
    }
}
