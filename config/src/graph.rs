// SPDX-License-Identifier: Apache-2.0
//! All resources as one immutable graph: which references hold, what a delete would break, what one proxy sees.
//!
//! The control plane keeps one [`Resources`] per account of meshes and replaces it whole on every change; clones are
//! cheap since specs are shared. `graph/references.rs` checks, `graph/view.rs` resolves.

mod references;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use references::{ReferenceFault, ReferenceProblem};
pub use view::{
    BackendView, GatewayRouteView, GatewayView, NodeView, ProviderView, RouteView, RouterView,
    ServiceView, TargetNode, TargetView,
};

use crate::gateway_route::GatewayRouteSpec;
use crate::mesh::MeshSpec;
use crate::name::{Kind, ResourceKey};
use crate::route::RouteSpec;
use crate::spec::Spec;
use crate::virtual_gateway::VirtualGatewaySpec;
use crate::virtual_node::VirtualNodeSpec;
use crate::virtual_router::VirtualRouterSpec;
use crate::virtual_service::{Provider, VirtualServiceSpec};

/// The resources of the meshes of one owner. Invariant: the spec's kind is the key's.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resources {
    specs: BTreeMap<ResourceKey, Arc<Spec>>,
}

impl Resources {
    /// No resources.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces one. A spec of another kind than the key's is a mistake of the caller and is not taken.
    pub fn insert(&mut self, key: ResourceKey, spec: impl Into<Arc<Spec>>) {
        let spec = spec.into();
        debug_assert_eq!(key.kind, spec.kind(), "spec of another kind under {key}");
        if key.kind == spec.kind() {
            self.specs.insert(key, spec);
        }
    }

    /// Removes one; what it was.
    pub fn remove(&mut self, key: &ResourceKey) -> Option<Arc<Spec>> {
        self.specs.remove(key)
    }

    /// The spec under `key`.
    pub fn get(&self, key: &ResourceKey) -> Option<&Arc<Spec>> {
        self.specs.get(key)
    }

    /// Whether `key` exists.
    pub fn contains(&self, key: &ResourceKey) -> bool {
        self.specs.contains_key(key)
    }

    /// All of them in the order of keys.
    pub fn iter(&self) -> impl Iterator<Item = (&ResourceKey, &Arc<Spec>)> {
        self.specs.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.specs.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.specs.is_empty()
    }

    /// The keys of `kind` in `mesh`.
    pub fn keys_of<'a>(
        &'a self,
        mesh: &'a str,
        kind: Kind,
    ) -> impl Iterator<Item = &'a ResourceKey> {
        self.of_kind(mesh, kind).map(|(key, _)| key)
    }

    /// Keys and specs of one kind in one mesh: a range, since keys sort by kind, then mesh.
    fn of_kind<'a>(
        &'a self,
        mesh: &'a str,
        kind: Kind,
    ) -> impl Iterator<Item = (&'a ResourceKey, &'a Spec)> {
        let first = ResourceKey {
            kind,
            mesh: mesh.to_owned(),
            parent: None,
            name: String::new(),
        };
        self.specs
            .range(first..)
            .take_while(move |(key, _)| key.kind == kind && key.mesh == mesh)
            .map(|(key, spec)| (key, spec.as_ref()))
    }

    /// The spec of a mesh.
    pub fn mesh(&self, name: &str) -> Option<&MeshSpec> {
        match self.get(&ResourceKey::mesh(name))?.as_ref() {
            Spec::Mesh(spec) => Some(spec),
            _ => None,
        }
    }

    /// The spec of a virtual node.
    pub fn node(&self, mesh: &str, name: &str) -> Option<&VirtualNodeSpec> {
        match self.get(&ResourceKey::virtual_node(mesh, name))?.as_ref() {
            Spec::VirtualNode(spec) => Some(spec),
            _ => None,
        }
    }

    /// The spec of a virtual router.
    pub fn router(&self, mesh: &str, name: &str) -> Option<&VirtualRouterSpec> {
        match self.get(&ResourceKey::virtual_router(mesh, name))?.as_ref() {
            Spec::VirtualRouter(spec) => Some(spec),
            _ => None,
        }
    }

    /// The spec of a virtual service.
    pub fn virtual_service(&self, mesh: &str, name: &str) -> Option<&VirtualServiceSpec> {
        match self
            .get(&ResourceKey::virtual_service(mesh, name))?
            .as_ref()
        {
            Spec::VirtualService(spec) => Some(spec),
            _ => None,
        }
    }

    /// The spec of a virtual gateway.
    pub fn gateway(&self, mesh: &str, name: &str) -> Option<&VirtualGatewaySpec> {
        match self
            .get(&ResourceKey::virtual_gateway(mesh, name))?
            .as_ref()
        {
            Spec::VirtualGateway(spec) => Some(spec),
            _ => None,
        }
    }

    /// Names and specs of what lives under one parent: a range as well, since keys sort by parent before name.
    fn children<'a>(
        &'a self,
        mesh: &'a str,
        kind: Kind,
        parent: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Spec)> {
        let first = ResourceKey {
            kind,
            mesh: mesh.to_owned(),
            parent: Some(parent.to_owned()),
            name: String::new(),
        };
        self.specs
            .range(first..)
            .take_while(move |(key, _)| {
                key.kind == kind && key.mesh == mesh && key.parent.as_deref() == Some(parent)
            })
            .map(|(key, spec)| (key.name.as_str(), spec.as_ref()))
    }

    /// Names and specs of all routes of a router, in the order of names.
    pub fn routes_of<'a>(
        &'a self,
        mesh: &'a str,
        router: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a RouteSpec)> {
        self.children(mesh, Kind::Route, router)
            .filter_map(|(name, spec)| match spec {
                Spec::Route(spec) => Some((name, spec)),
                _ => None,
            })
    }

    /// Names and specs of all gateway routes of a gateway, in the order of names.
    pub fn gateway_routes_of<'a>(
        &'a self,
        mesh: &'a str,
        gateway: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a GatewayRouteSpec)> {
        self.children(mesh, Kind::GatewayRoute, gateway)
            .filter_map(|(name, spec)| match spec {
                Spec::GatewayRoute(spec) => Some((name, spec)),
                _ => None,
            })
    }

    /// The proxies (virtual nodes and gateways that exist) whose view changes when `key` is created, replaced or deleted.
    /// Right on the graph before the change and on the one after it, also where a reference dangles.
    pub fn affected_by(&self, key: &ResourceKey) -> BTreeSet<ResourceKey> {
        let key = key.parent_key().unwrap_or_else(|| key.clone());
        let nodes = self.keys_of(&key.mesh, Kind::VirtualNode);
        let gateways = self.keys_of(&key.mesh, Kind::VirtualGateway);
        nodes
            .chain(gateways)
            .filter(|proxy| key.kind == Kind::Mesh || self.seen_by(proxy).contains(&key))
            .cloned()
            .collect()
    }

    /// Every key the view of `proxy` is made of, whether it exists or not; routes are counted as their router.
    fn seen_by(&self, proxy: &ResourceKey) -> BTreeSet<ResourceKey> {
        let mesh = proxy.mesh.as_str();
        let mut seen = BTreeSet::from([proxy.clone()]);
        let names: Vec<&str> = match self.get(proxy).map(Arc::as_ref) {
            Some(Spec::VirtualNode(spec)) => spec
                .backends()
                .map(|backend| backend.virtual_service_name.as_str())
                .collect(),
            Some(Spec::VirtualGateway(_)) => self
                .gateway_routes_of(mesh, &proxy.name)
                .filter_map(|(_, route)| route.target())
                .map(|target| target.virtual_service.virtual_service_name.as_str())
                .collect(),
            _ => Vec::new(),
        };
        for name in names {
            if seen.insert(ResourceKey::virtual_service(mesh, name)) {
                self.add_provider(mesh, name, &mut seen);
            }
        }
        seen
    }

    fn add_provider(&self, mesh: &str, name: &str, seen: &mut BTreeSet<ResourceKey>) {
        let provider = self
            .virtual_service(mesh, name)
            .and_then(|spec| spec.provider.as_ref());
        match provider {
            Some(Provider::VirtualNode(node)) => {
                seen.insert(ResourceKey::virtual_node(mesh, &node.virtual_node_name));
            }
            Some(Provider::VirtualRouter(router)) => {
                let router = router.virtual_router_name.as_str();
                seen.insert(ResourceKey::virtual_router(mesh, router));
                let targets = self
                    .routes_of(mesh, router)
                    .flat_map(|(_, route)| route.targets());
                seen.extend(
                    targets.map(|target| ResourceKey::virtual_node(mesh, &target.virtual_node)),
                );
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;
