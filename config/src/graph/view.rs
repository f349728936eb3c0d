// SPDX-License-Identifier: Apache-2.0
//! What one proxy sees: every name it may call, resolved down to target nodes. The control plane translates these views
//! and nothing else. A view borrows from its [`Resources`]; what dangles is absent, never an error.

use std::cmp::Reverse;

use super::Resources;
use crate::gateway_route::{GatewayRouteSpec, GatewayRouteTarget, GatewayRule};
use crate::listener::{Listener, PortMapping};
use crate::matching::PathMatch;
use crate::mesh::MeshSpec;
use crate::name::ResourceKey;
use crate::route::{RouteSpec, Rule};
use crate::tls::ClientPolicyTls;
use crate::virtual_gateway::VirtualGatewaySpec;
use crate::virtual_node::VirtualNodeSpec;
use crate::virtual_router::VirtualRouterSpec;
use crate::virtual_service::Provider;

/// The world of a sidecar.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeView<'a> {
    pub mesh: &'a str,
    pub mesh_spec: &'a MeshSpec,
    pub name: &'a str,
    pub spec: &'a VirtualNodeSpec,
    /// The declared backends whose virtual service exists, in the order of the spec.
    pub backends: Vec<BackendView<'a>>,
}

/// A backend of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendView<'a> {
    pub service: ServiceView<'a>,
    /// The TLS policy that holds towards it: its own, else the node's default.
    pub client_policy: Option<&'a ClientPolicyTls>,
}

/// A virtual service and who answers for it.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceView<'a> {
    pub name: &'a str,
    /// `None`: no provider, or one that is gone; requests get 404.
    pub provider: Option<ProviderView<'a>>,
}

impl ServiceView<'_> {
    /// The ports it is called on: the router's, or the providing node's.
    pub fn ports(&self) -> Vec<PortMapping> {
        match &self.provider {
            Some(ProviderView::Node(node)) => node
                .spec
                .listeners()
                .iter()
                .map(|l| l.port_mapping)
                .collect(),
            Some(ProviderView::Router(router)) => router.spec.ports().collect(),
            None => Vec::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum ProviderView<'a> {
    Node(TargetNode<'a>),
    Router(RouterView<'a>),
}

/// A virtual node as somebody's target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TargetNode<'a> {
    pub name: &'a str,
    pub spec: &'a VirtualNodeSpec,
}

/// A virtual router with its routes in the order they are tried.
#[derive(Debug, Clone, PartialEq)]
pub struct RouterView<'a> {
    pub name: &'a str,
    pub spec: &'a VirtualRouterSpec,
    pub routes: Vec<RouteView<'a>>,
}

impl<'a> RouterView<'a> {
    /// The routes that hold on the router's `listener`: of its protocol, and bound to its port or to none.
    pub fn routes_on(&self, listener: PortMapping) -> impl Iterator<Item = &RouteView<'a>> {
        self.routes.iter().filter(move |route| {
            route.spec.protocol() == Some(listener.protocol)
                && route
                    .spec
                    .match_port()
                    .is_none_or(|port| port == listener.port)
        })
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct RouteView<'a> {
    pub name: &'a str,
    pub spec: &'a RouteSpec,
    /// The targets that exist, in the order of the spec, zero weights included.
    pub targets: Vec<TargetView<'a>>,
}

/// A weighted target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TargetView<'a> {
    pub node: TargetNode<'a>,
    pub weight: u8,
    /// The listener meant: the one on the target's port, else the first that fits the route. `None`: the node has none such.
    pub listener: Option<&'a Listener>,
}

/// The world of a gateway.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayView<'a> {
    pub mesh: &'a str,
    pub mesh_spec: &'a MeshSpec,
    pub name: &'a str,
    pub spec: &'a VirtualGatewaySpec,
    /// The TLS policy that holds towards every target.
    pub client_policy: Option<&'a ClientPolicyTls>,
    /// In the order they are tried.
    pub routes: Vec<GatewayRouteView<'a>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct GatewayRouteView<'a> {
    pub name: &'a str,
    pub spec: &'a GatewayRouteSpec,
    pub target: &'a GatewayRouteTarget,
    /// The virtual service meant; `None` when it is gone.
    pub service: Option<ServiceView<'a>>,
    /// The port of the virtual service meant: the target's, else its first.
    pub port: Option<PortMapping>,
}

impl Resources {
    /// The world of the sidecar of a virtual node; `None` when the node or its mesh does not exist.
    pub fn node_view(&self, mesh: &str, name: &str) -> Option<NodeView<'_>> {
        let (mesh_key, mesh_spec) = (self.key(&ResourceKey::mesh(mesh))?, self.mesh(mesh)?);
        let (key, spec) = (
            self.key(&ResourceKey::virtual_node(mesh, name))?,
            self.node(mesh, name)?,
        );
        let backends = spec.backends().filter_map(|backend| {
            let service = self.service_view(&key.mesh, &backend.virtual_service_name)?;
            Some(BackendView {
                service,
                client_policy: spec.client_policy(backend),
            })
        });
        Some(NodeView {
            mesh: &mesh_key.name,
            mesh_spec,
            name: &key.name,
            spec,
            backends: backends.collect(),
        })
    }

    /// The world of a virtual gateway; `None` when the gateway or its mesh does not exist.
    pub fn gateway_view(&self, mesh: &str, name: &str) -> Option<GatewayView<'_>> {
        let (mesh_key, mesh_spec) = (self.key(&ResourceKey::mesh(mesh))?, self.mesh(mesh)?);
        let (key, spec) = (
            self.key(&ResourceKey::virtual_gateway(mesh, name))?,
            self.gateway(mesh, name)?,
        );
        let mut routes: Vec<GatewayRouteView<'_>> = self
            .gateway_routes_of(&key.mesh, &key.name)
            .filter_map(|(name, spec)| {
                let target = spec.target()?;
                let service =
                    self.service_view(&key.mesh, &target.virtual_service.virtual_service_name);
                let ports = service.as_ref().map(ServiceView::ports).unwrap_or_default();
                let port = match target.port {
                    Some(wanted) => ports.into_iter().find(|port| port.port == wanted),
                    None => ports.into_iter().next(),
                };
                Some(GatewayRouteView {
                    name,
                    spec,
                    target,
                    service,
                    port,
                })
            })
            .collect();
        routes.sort_by_key(|route| {
            (
                route.spec.priority.unwrap_or(u16::MAX),
                gateway_rank(route.spec),
                route.name,
            )
        });
        let client_policy = spec
            .backend_defaults
            .as_ref()
            .and_then(|defaults| defaults.tls());
        Some(GatewayView {
            mesh: &mesh_key.name,
            mesh_spec,
            name: &key.name,
            spec,
            client_policy,
            routes,
        })
    }

    /// A virtual service resolved; `None` when it does not exist.
    pub fn service_view(&self, mesh: &str, name: &str) -> Option<ServiceView<'_>> {
        let key = self.key(&ResourceKey::virtual_service(mesh, name))?;
        let provider = self
            .virtual_service(mesh, name)?
            .provider
            .as_ref()
            .and_then(|provider| match provider {
                Provider::VirtualNode(node) => self
                    .target_node(mesh, &node.virtual_node_name)
                    .map(ProviderView::Node),
                Provider::VirtualRouter(router) => self
                    .router_view(mesh, &router.virtual_router_name)
                    .map(ProviderView::Router),
            });
        Some(ServiceView {
            name: &key.name,
            provider,
        })
    }

    /// A virtual router resolved; `None` when it does not exist.
    pub fn router_view(&self, mesh: &str, name: &str) -> Option<RouterView<'_>> {
        let (key, spec) = (
            self.key(&ResourceKey::virtual_router(mesh, name))?,
            self.router(mesh, name)?,
        );
        let mut routes: Vec<RouteView<'_>> = self
            .routes_of(&key.mesh, &key.name)
            .map(|(name, spec)| RouteView {
                name,
                spec,
                targets: self.targets(&key.mesh, spec),
            })
            .collect();
        routes.sort_by_key(|route| {
            (
                route.spec.priority.unwrap_or(u16::MAX),
                rank(route.spec),
                route.name,
            )
        });
        Some(RouterView {
            name: &key.name,
            spec,
            routes,
        })
    }

    fn targets<'a>(&'a self, mesh: &str, route: &'a RouteSpec) -> Vec<TargetView<'a>> {
        let resolved = route.targets().iter().filter_map(|target| {
            let node = self.target_node(mesh, &target.virtual_node)?;
            let listener = match target.port {
                Some(port) => node.spec.listener(port),
                None => fitting(node.spec, route),
            };
            Some(TargetView {
                node,
                weight: target.weight,
                listener,
            })
        });
        resolved.collect()
    }

    fn target_node(&self, mesh: &str, name: &str) -> Option<TargetNode<'_>> {
        let key = self.key(&ResourceKey::virtual_node(mesh, name))?;
        Some(TargetNode {
            name: &key.name,
            spec: self.node(mesh, name)?,
        })
    }

    /// The key as stored: views borrow their names from it.
    fn key(&self, key: &ResourceKey) -> Option<&ResourceKey> {
        self.specs.get_key_value(key).map(|(key, _)| key)
    }
}

/// Same protocol before same family; a target's port is only missing here when the node got more listeners later.
fn fitting<'a>(node: &'a VirtualNodeSpec, route: &RouteSpec) -> Option<&'a Listener> {
    let protocol = route.protocol()?;
    let listeners = node.listeners();
    (listeners
        .iter()
        .find(|l| l.port_mapping.protocol == protocol))
    .or_else(|| {
        listeners
            .iter()
            .find(|l| l.port_mapping.protocol.is_http() == protocol.is_http())
    })
}

/// Order among equal priorities, smaller first: exact path, regex, then the longer prefix; then the more conditions.
/// App Mesh fixed only the prefix part; the rest is ours so that the order never hangs on names alone.
type Rank = (u8, Reverse<usize>, Reverse<usize>);

fn rank(spec: &RouteSpec) -> Rank {
    match spec.rule() {
        Some(Rule::Http(rule)) => {
            let m = &rule.conditions;
            let others = m.headers.as_ref().map_or(0, Vec::len)
                + m.query_parameters.as_ref().map_or(0, Vec::len)
                + usize::from(m.method.is_some())
                + usize::from(m.scheme.is_some())
                + usize::from(m.port.is_some());
            path_rank(m.path.as_ref(), m.prefix.as_deref(), others)
        }
        Some(Rule::Grpc(rule)) => {
            let m = &rule.conditions;
            let others = m.metadata.as_ref().map_or(0, Vec::len) + usize::from(m.port.is_some());
            grpc_rank(m.service_name.as_deref(), m.method_name.as_deref(), others)
        }
        Some(Rule::Tcp(rule)) => {
            let bound = rule.conditions.as_ref().is_some_and(|m| m.port.is_some());
            (2, Reverse(0), Reverse(usize::from(bound)))
        }
        None => (3, Reverse(0), Reverse(0)),
    }
}

fn gateway_rank(spec: &GatewayRouteSpec) -> Rank {
    match spec.rule() {
        Some(GatewayRule::Http(rule)) => {
            let m = &rule.conditions;
            let others = m.headers.as_ref().map_or(0, Vec::len)
                + m.query_parameters.as_ref().map_or(0, Vec::len)
                + usize::from(m.method.is_some())
                + usize::from(m.hostname.is_some())
                + usize::from(m.port.is_some());
            path_rank(m.path.as_ref(), m.prefix.as_deref(), others)
        }
        Some(GatewayRule::Grpc(rule)) => {
            let m = &rule.conditions;
            let others = m.metadata.as_ref().map_or(0, Vec::len)
                + usize::from(m.hostname.is_some())
                + usize::from(m.port.is_some());
            grpc_rank(m.service_name.as_deref(), None, others)
        }
        None => (3, Reverse(0), Reverse(0)),
    }
}

fn path_rank(path: Option<&PathMatch>, prefix: Option<&str>, others: usize) -> Rank {
    match path {
        Some(PathMatch {
            exact: Some(exact), ..
        }) => (0, Reverse(exact.len()), Reverse(others)),
        Some(_) => (1, Reverse(0), Reverse(others)),
        None => (2, Reverse(prefix.map_or(0, str::len)), Reverse(others)),
    }
}

fn grpc_rank(service: Option<&str>, method: Option<&str>, others: usize) -> Rank {
    let length = service.map_or(0, str::len);
    match method {
        Some(method) => (0, Reverse(length + method.len()), Reverse(others)),
        None => (2, Reverse(length), Reverse(others)),
    }
}
