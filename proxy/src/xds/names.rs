// SPDX-License-Identifier: Apache-2.0
//! Which resources other resources name: what to ask for next, and what must be there. Pure; called by `apply`.

use std::collections::BTreeSet;

use pillion_xds::cluster::Discovery;
use pillion_xds::listener::Listener;
use pillion_xds::listener::NetworkFilter;
use pillion_xds::listener::RouteSource;
use pillion_xds::route::Action;
use pillion_xds::route::RouteConfiguration;
use pillion_xds::secret::SecretSource;

use crate::snapshot::Resources;

/// Route tables that listeners ask for.
pub fn routes(resources: &Resources) -> BTreeSet<String> {
    let listeners = resources.listeners.values();
    listeners
        .flat_map(|listener| filters(listener))
        .filter_map(|filter| match filter {
            NetworkFilter::Http(manager) => match &manager.routes {
                RouteSource::Rds(name) => Some(name.clone()),
                RouteSource::Inline(_) => None,
            },
            NetworkFilter::Tcp(_) => None,
        })
        .collect()
}

/// Endpoint sets that clusters ask for.
pub fn endpoints(resources: &Resources) -> BTreeSet<String> {
    let clusters = resources.clusters.values();
    clusters
        .filter_map(|cluster| match &cluster.discovery {
            Discovery::Eds(service) => Some(service.as_ref().unwrap_or(&cluster.name).clone()),
            _ => None,
        })
        .collect()
}

/// Secrets by what they are.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SecretNames {
    /// Identities: this proxy makes the key and has a CSR signed.
    pub identities: BTreeSet<String>,
    /// All others: asked for by SDS.
    pub streamed: BTreeSet<String>,
    /// Those that an SDS socket serves.
    pub socket: BTreeSet<String>,
}

/// Secrets that TLS contexts ask for.
pub fn secrets(resources: &Resources) -> SecretNames {
    let mut names = SecretNames::default();
    let chains = resources
        .listeners
        .values()
        .flat_map(|listener| chains(listener));
    for tls in chains.filter_map(|chain| chain.tls.as_ref()) {
        names.certificate(Some(&tls.certificate));
        names.trust(tls.validation.as_ref().map(|validation| &validation.trust));
    }
    for tls in resources
        .clusters
        .values()
        .filter_map(|cluster| cluster.tls.as_ref())
    {
        names.certificate(tls.certificate.as_ref());
        names.trust(tls.validation.as_ref().map(|validation| &validation.trust));
    }
    names
}

impl SecretNames {
    fn certificate(&mut self, source: Option<&SecretSource>) {
        match source {
            Some(SecretSource::Ads(name)) if is_identity(name) => {
                self.identities.insert(name.clone())
            }
            Some(SecretSource::Ads(name)) => self.streamed.insert(name.clone()),
            Some(SecretSource::Sds { name, .. }) => self.socket.insert(name.clone()),
            Some(SecretSource::CertificateFiles { .. } | SecretSource::TrustFile(_)) | None => {
                false
            }
        };
    }

    fn trust(&mut self, source: Option<&SecretSource>) {
        match source {
            Some(SecretSource::Ads(name)) => self.streamed.insert(name.clone()),
            Some(SecretSource::Sds { name, .. }) => self.socket.insert(name.clone()),
            Some(SecretSource::CertificateFiles { .. } | SecretSource::TrustFile(_)) | None => {
                false
            }
        };
    }
}

impl SecretNames {
    /// What an SDS socket is asked for: what only it serves, and what it may serve instead of the control plane.
    pub fn from_socket(self) -> BTreeSet<String> {
        let mut names = self.socket;
        names.extend(self.identities);
        names.extend(self.streamed);
        names
    }
}

/// `spiffe://<trust domain>/<path>`; without a path it is a trust bundle.
pub fn is_identity(name: &str) -> bool {
    name.strip_prefix("spiffe://")
        .and_then(|rest| rest.split_once('/'))
        .is_some_and(|(_, path)| !path.is_empty())
}

/// Clusters that anything leads to.
pub fn clusters(resources: &Resources) -> BTreeSet<&str> {
    let tables = resources
        .routes
        .values()
        .flat_map(|table| clusters_of_table(table));
    let listeners = resources
        .listeners
        .values()
        .flat_map(|listener| clusters_of_listener(listener));
    tables.chain(listeners).collect()
}

/// Clusters that a route table leads to.
pub fn clusters_of_table(table: &RouteConfiguration) -> impl Iterator<Item = &str> {
    let routes = table.virtual_hosts.iter().flat_map(|host| &host.routes);
    let forwards = routes.filter_map(|route| match &route.action {
        Action::Forward(forward) => Some(forward),
        Action::Respond { .. } => None,
    });
    forwards.flat_map(|forward| forward.clusters.iter().map(|cluster| cluster.name.as_str()))
}

/// Clusters that a listener leads to by itself: TCP, and tables that stand in it.
pub fn clusters_of_listener(listener: &Listener) -> Vec<&str> {
    let mut names = Vec::new();
    for filter in filters(listener) {
        match filter {
            NetworkFilter::Tcp(proxy) => {
                names.extend(proxy.clusters.iter().map(|cluster| cluster.name.as_str()))
            }
            NetworkFilter::Http(manager) => {
                if let RouteSource::Inline(table) = &manager.routes {
                    names.extend(clusters_of_table(table));
                }
            }
        }
    }
    names
}

fn chains(listener: &Listener) -> impl Iterator<Item = &pillion_xds::listener::FilterChain> {
    listener
        .filter_chains
        .iter()
        .chain(&listener.default_filter_chain)
}

fn filters(listener: &Listener) -> impl Iterator<Item = &NetworkFilter> {
    chains(listener).map(|chain| &chain.filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_makes_an_identity_and_a_bare_domain_a_bundle() {
        assert!(is_identity("spiffe://pillion.local/mesh/m/virtualNode/web"));
        assert!(!is_identity("spiffe://pillion.local"));
        assert!(!is_identity("spiffe://pillion.local/"));
        assert!(!is_identity("my-cert"));
    }
}
