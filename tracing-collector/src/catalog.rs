// SPDX-License-Identifier: Apache-2.0
//! Which services there are and what they call their operations: what a search form offers. Learnt from every span
//! that is stored, kept across restarts, bounded: names that hold ids are not worth listing.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::span::Kind;
use crate::span::Span;
use crate::store::Entry;
use crate::store::Store;
use crate::store::StoreError;

const KEPT: &str = "operation";
const SEPARATOR: char = '\u{1}';
const MOST_SERVICES: usize = 2000;
const MOST_OPERATIONS: usize = 200;

#[derive(Clone, Default)]
pub(crate) struct Catalog(Arc<RwLock<Services>>);

/// By service: its operations, each with the name of its kind.
type Services = BTreeMap<String, BTreeSet<(String, String)>>;

impl Catalog {
    /// What earlier runs learnt.
    pub(crate) fn load(store: &dyn Store) -> Result<Catalog, StoreError> {
        let mut services = Services::new();
        for (name, _) in store.kept(KEPT)? {
            let mut parts = name.splitn(3, SEPARATOR).map(str::to_owned);
            if let (Some(service), Some(kind), Some(operation)) =
                (parts.next(), parts.next(), parts.next())
            {
                services
                    .entry(service)
                    .or_default()
                    .insert((operation, kind));
            }
        }
        Ok(Catalog(Arc::new(RwLock::new(services))))
    }

    /// Learns from spans that were stored.
    pub(crate) fn note(&self, store: &dyn Store, spans: &[Span]) {
        let mut learnt = Vec::new();
        for span in spans {
            let Some(service) = &span.service else {
                continue;
            };
            if self.learns(&service.name, &span.name, span.kind) {
                let parts = [&service.name, span.kind.name(), &span.name];
                learnt.push(parts.join(&SEPARATOR.to_string()));
            }
        }
        let entries: Vec<Entry<'_>> = learnt
            .iter()
            .map(|name| (name.as_str(), Some(&[][..])))
            .collect();
        if !entries.is_empty() {
            // Not kept is learnt again after a restart.
            store.keep(KEPT, &entries).unwrap_or_default();
        }
    }

    fn learns(&self, service: &str, operation: &str, kind: Kind) -> bool {
        let entry = (operation.to_owned(), kind.name().to_owned());
        if self
            .0
            .read()
            .get(service)
            .is_some_and(|known| known.contains(&entry) || known.len() >= MOST_OPERATIONS)
        {
            return false;
        }
        let mut services = self.0.write();
        if !services.contains_key(service) && services.len() >= MOST_SERVICES {
            return false;
        }
        services
            .entry(service.to_owned())
            .or_default()
            .insert(entry)
    }

    pub(crate) fn services(&self) -> Vec<String> {
        self.0.read().keys().cloned().collect()
    }

    /// Operations of a service with the names of their kinds.
    pub(crate) fn operations(&self, service: &str) -> Vec<(String, String)> {
        let services = self.0.read();
        let known = services.get(service);
        known
            .map(|known| known.iter().cloned().collect())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_bound_are_not_learnt_and_a_name_is_learnt_once() {
        let catalog = Catalog::default();
        assert!(catalog.learns("web", "GET /", Kind::Server));
        assert!(!catalog.learns("web", "GET /", Kind::Server));
        for number in 0..MOST_OPERATIONS * 2 {
            catalog.learns("web", &format!("GET /{number}"), Kind::Server);
        }
        assert_eq!(catalog.operations("web").len(), MOST_OPERATIONS);
        assert_eq!(catalog.services(), ["web"]);
    }
}
