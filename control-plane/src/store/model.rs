// SPDX-License-Identifier: Apache-2.0
//! Every resource at one revision, immutable, in memory. The API reads and decides on it, the publisher translates it;
//! [`super::live`] replaces it whole at each write.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use pillion_config::Kind;
use pillion_config::ResourceKey;
use pillion_config::Resources;

use super::Change;
use super::Contents;
use super::Record;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Model {
    revision: u64,
    records: BTreeMap<ResourceKey, Arc<Record>>,
    /// Invariant: the same keys and specs as `records`.
    resources: Resources,
}

/// Where in the tree a list is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    /// What is listed.
    pub kind: Kind,
    /// The mesh; empty when meshes are listed.
    pub mesh: String,
    /// The router of routes, the gateway of gateway routes.
    pub parent: Option<String>,
}

impl Model {
    /// The number of this state.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The graph of the specs alone.
    pub fn resources(&self) -> &Resources {
        &self.resources
    }

    /// One resource with what the control plane keeps about it.
    pub fn get(&self, key: &ResourceKey) -> Option<&Arc<Record>> {
        self.records.get(key)
    }

    /// Every resource, in the order of keys.
    pub fn records(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.records.values()
    }

    /// The members of a collection by name, from the first one after `after`.
    pub fn list<'a>(
        &'a self,
        of: &'a Collection,
        after: Option<&str>,
    ) -> impl Iterator<Item = &'a Arc<Record>> {
        let meshes = of.kind == Kind::Mesh;
        let after = after.unwrap_or_default();
        let first = ResourceKey {
            kind: of.kind,
            // A mesh's key holds its own name twice.
            mesh: if meshes { after } else { of.mesh.as_str() }.to_owned(),
            parent: of.parent.clone(),
            name: after.to_owned(),
        };
        self.records
            .range((Bound::Excluded(first), Bound::Unbounded))
            .take_while(move |(key, _)| {
                key.kind == of.kind && (meshes || (key.mesh == of.mesh && key.parent == of.parent))
            })
            .map(|(_, record)| record)
    }

    /// The model after some more changes.
    pub fn after(&self, changes: &[Change], revision: u64) -> Model {
        let mut next = self.clone();
        next.revision = revision;
        for change in changes {
            match change {
                Change::Put(record) => next.insert(record.clone()),
                Change::Remove(record) => {
                    next.records.remove(&record.key);
                    next.resources.remove(&record.key);
                }
            }
        }
        next
    }

    fn insert(&mut self, record: Arc<Record>) {
        self.resources
            .insert(record.key.clone(), record.spec.clone());
        self.records.insert(record.key.clone(), record);
    }
}

impl From<Contents> for Model {
    fn from(contents: Contents) -> Model {
        let mut model = Model {
            revision: contents.revision,
            ..Model::default()
        };
        for record in contents.records {
            model.insert(Arc::new(record));
        }
        model
    }
}

#[cfg(test)]
mod tests {
    use pillion_config::parse_spec;
    use serde_json::json;

    use super::*;

    fn record(key: ResourceKey) -> Record {
        let document = match key.kind {
            Kind::Route => {
                json!({"tcpRoute": {"action": {"weightedTargets": [{"virtualNode": "n", "weight": 1}]}}})
            }
            _ => json!({}),
        };
        let spec = parse_spec(key.kind, &document).expect("a valid spec");
        Record {
            key,
            spec: Arc::new(spec),
            uid: String::new(),
            version: 1,
            created_ms: 0,
            updated_ms: 0,
            mesh_owner: String::new(),
            resource_owner: String::new(),
            tags: super::super::Tags::new(),
        }
    }

    fn model(keys: Vec<ResourceKey>) -> Model {
        Model::from(Contents {
            revision: 7,
            records: keys.into_iter().map(record).collect(),
        })
    }

    fn names(model: &Model, of: &Collection, after: Option<&str>) -> Vec<String> {
        model
            .list(of, after)
            .map(|record| record.key.name.clone())
            .collect()
    }

    #[test]
    fn a_list_holds_its_own_members_by_name_and_no_neighbours() {
        let model = model(vec![
            ResourceKey::mesh("a"),
            ResourceKey::mesh("b"),
            ResourceKey::route("a", "r", "z"),
            ResourceKey::route("a", "r", "y"),
            ResourceKey::route("a", "s", "x"),
            ResourceKey::route("b", "r", "w"),
        ]);
        let routes = Collection {
            kind: Kind::Route,
            mesh: "a".to_owned(),
            parent: Some("r".to_owned()),
        };
        assert_eq!(names(&model, &routes, None), ["y", "z"]);
        assert_eq!(names(&model, &routes, Some("y")), ["z"]);
        let meshes = Collection {
            kind: Kind::Mesh,
            mesh: String::new(),
            parent: None,
        };
        assert_eq!(names(&model, &meshes, None), ["a", "b"]);
        assert_eq!(names(&model, &meshes, Some("a")), ["b"]);
    }

    #[test]
    fn a_page_goes_on_after_a_name_that_is_gone() {
        let model = model(vec![ResourceKey::mesh("a"), ResourceKey::mesh("c")]);
        let meshes = Collection {
            kind: Kind::Mesh,
            mesh: String::new(),
            parent: None,
        };
        assert_eq!(names(&model, &meshes, Some("b")), ["c"]);
    }

    #[test]
    fn a_change_leaves_the_old_model_as_it_was() {
        let before = model(vec![ResourceKey::mesh("a")]);
        let gone = before.get(&ResourceKey::mesh("a")).expect("listed above");
        let after = before.after(&[Change::Remove(gone.clone())], 8);
        assert!(before.get(&ResourceKey::mesh("a")).is_some());
        assert!(after.get(&ResourceKey::mesh("a")).is_none() && after.resources().is_empty());
        assert_eq!((before.revision(), after.revision()), (7, 8));
    }
}
