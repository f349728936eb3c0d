// SPDX-License-Identifier: Apache-2.0
//! References between resources: what must exist before a create or update, and what stands in the way of a delete.

use std::sync::Arc;

use super::Resources;
use crate::gateway_route::GatewayRouteSpec;
use crate::listener::{PortMapping, Protocol};
use crate::name::{Kind, ResourceKey};
use crate::problem::Problem;
use crate::route::RouteSpec;
use crate::spec::Spec;
use crate::virtual_service::{Provider, VirtualServiceSpec};

/// How the API answers a reference that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReferenceFault {
    /// 404: the mesh, router or gateway in the URI is missing.
    NotFound,
    /// 400: the spec names what is missing or does not fit.
    BadRequest,
}

/// A reference that does not hold. `problem.path` is empty when the fault lies in the URI.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReferenceProblem {
    pub fault: ReferenceFault,
    pub problem: Problem,
}

impl ReferenceProblem {
    fn missing(key: &ResourceKey) -> Self {
        let message = match key.kind {
            Kind::Mesh => format!("Mesh {} does not exist", key.name),
            kind => format!("{kind} {} does not exist in mesh {}", key.name, key.mesh),
        };
        Self {
            fault: ReferenceFault::NotFound,
            problem: Problem::new("", message),
        }
    }

    fn bad(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            fault: ReferenceFault::BadRequest,
            problem: Problem::new(path, message),
        }
    }
}

impl Resources {
    /// Every reference of `spec`, about to be stored under `key`, that does not hold. Backends may dangle.
    pub fn check_references(&self, key: &ResourceKey, spec: &Spec) -> Vec<ReferenceProblem> {
        let mesh = ResourceKey::mesh(&key.mesh);
        if key.kind != Kind::Mesh && !self.contains(&mesh) {
            return vec![ReferenceProblem::missing(&mesh)];
        }
        if let Some(parent) = key.parent_key()
            && !self.contains(&parent)
        {
            return vec![ReferenceProblem::missing(&parent)];
        }
        match spec {
            Spec::VirtualService(spec) => self.check_provider(&key.mesh, spec),
            Spec::Route(spec) => self.check_route(key, spec),
            Spec::GatewayRoute(spec) => self.check_gateway_route(key, spec),
            Spec::Mesh(_)
            | Spec::VirtualNode(_)
            | Spec::VirtualRouter(_)
            | Spec::VirtualGateway(_) => Vec::new(),
        }
    }

    /// The routes and gateway routes that hold now and would not, were `spec` stored under `key`: a create of them
    /// would then be refused. Each problem is told as theirs, path and all, after the route's id.
    pub fn broken_by(&self, key: &ResourceKey, spec: &Arc<Spec>) -> Vec<Problem> {
        let Some(before) = self.get(key) else {
            return Vec::new();
        };
        if offered(before) == offered(spec) {
            return Vec::new();
        }
        let mut after = self.clone();
        after.insert(key.clone(), Arc::clone(spec));
        let routes = self.of_kind(&key.mesh, Kind::Route);
        let gateway_routes = self.of_kind(&key.mesh, Kind::GatewayRoute);
        routes
            .chain(gateway_routes)
            .flat_map(|(route, of_route)| {
                let before = self.check_references(route, of_route);
                let found = after.check_references(route, of_route);
                found
                    .into_iter()
                    .filter(move |problem| !before.contains(problem))
                    .map(|found| found.problem.under(&route.id()))
            })
            .collect()
    }

    fn check_provider(&self, mesh: &str, spec: &VirtualServiceSpec) -> Vec<ReferenceProblem> {
        let (key, path) = match &spec.provider {
            None => return Vec::new(),
            Some(Provider::VirtualNode(node)) => (
                ResourceKey::virtual_node(mesh, &node.virtual_node_name),
                "spec.provider.virtualNode.virtualNodeName",
            ),
            Some(Provider::VirtualRouter(router)) => (
                ResourceKey::virtual_router(mesh, &router.virtual_router_name),
                "spec.provider.virtualRouter.virtualRouterName",
            ),
        };
        if self.contains(&key) {
            Vec::new()
        } else {
            vec![unknown(path, &key)]
        }
    }

    fn check_route(&self, key: &ResourceKey, spec: &RouteSpec) -> Vec<ReferenceProblem> {
        let (Some(member), Some(protocol)) = (spec.member(), spec.protocol()) else {
            return Vec::new();
        };
        let mut problems = Vec::new();
        let router = key.parent.as_deref().unwrap_or_default();
        let ports: Vec<PortMapping> = self
            .router(&key.mesh, router)
            .into_iter()
            .flat_map(|spec| spec.ports())
            .collect();
        let path = format!("spec.{member}.match.port");
        match chosen(
            &ports,
            spec.match_port(),
            &path,
            &format!("virtual router {router}"),
        ) {
            Err(problem) => problems.push(problem),
            Ok(choice)
                if !choice.is_empty() && choice.iter().all(|port| port.protocol != protocol) =>
            {
                problems.push(ReferenceProblem::bad(
                    format!("spec.{member}"),
                    format!(
                        "does not fit virtual router {router}, which listens for {}",
                        spoken(choice)
                    ),
                ));
            }
            Ok(_) => {}
        }
        for (index, target) in spec.targets().iter().enumerate() {
            let path = format!("spec.{member}.action.weightedTargets[{index}]");
            let Some(node) = self.node(&key.mesh, &target.virtual_node) else {
                let key = ResourceKey::virtual_node(&key.mesh, &target.virtual_node);
                problems.push(unknown(format!("{path}.virtualNode"), &key));
                continue;
            };
            let ports: Vec<PortMapping> = node
                .listeners()
                .iter()
                .map(|listener| listener.port_mapping)
                .collect();
            let whose = format!("virtual node {}", target.virtual_node);
            match chosen(&ports, target.port, &format!("{path}.port"), &whose) {
                Err(problem) => problems.push(problem),
                Ok(choice) => problems.extend(mismatch(&path, member, protocol, choice)),
            }
        }
        problems
    }

    fn check_gateway_route(
        &self,
        key: &ResourceKey,
        spec: &GatewayRouteSpec,
    ) -> Vec<ReferenceProblem> {
        let (Some(member), Some(target)) = (spec.member(), spec.target()) else {
            return Vec::new();
        };
        let mut problems = Vec::new();
        let gateway = key.parent.as_deref().unwrap_or_default();
        let ports: Vec<PortMapping> = self
            .gateway(&key.mesh, gateway)
            .into_iter()
            .flat_map(|spec| &spec.listeners)
            .map(|listener| listener.port_mapping)
            .collect();
        let path = format!("spec.{member}.match.port");
        problems.extend(
            chosen(
                &ports,
                spec.match_port(),
                &path,
                &format!("virtual gateway {gateway}"),
            )
            .err(),
        );

        let name = target.virtual_service.virtual_service_name.as_str();
        let path = format!("spec.{member}.action.target");
        match self.service_view(&key.mesh, name) {
            None => problems.push(unknown(
                format!("{path}.virtualService.virtualServiceName"),
                &ResourceKey::virtual_service(&key.mesh, name),
            )),
            Some(view) => {
                let whose = format!("virtual service {name}");
                problems.extend(
                    chosen(&view.ports(), target.port, &format!("{path}.port"), &whose).err(),
                );
            }
        }
        problems
    }

    /// Why `key` cannot be deleted now, in the words App Mesh used; `None` when nothing stands in the way.
    /// `mesh_owner` is the account that owns the mesh.
    pub fn blocker_of_delete(&self, key: &ResourceKey, mesh_owner: &str) -> Option<String> {
        let (mesh, name) = (key.mesh.as_str(), key.name.as_str());
        match key.kind {
            Kind::Mesh => {
                let kinds = [Kind::VirtualNode, Kind::VirtualService, Kind::VirtualRouter, Kind::VirtualGateway];
                let kind = kinds.into_iter().find(|kind| self.keys_of(mesh, *kind).next().is_some())?;
                Some(format!(
                    "Mesh {name} for account {mesh_owner} has active {kind}s, please delete {kind}s before deleting the Mesh"
                ))
            }
            Kind::VirtualNode => {
                let is_target = self.of_kind(mesh, Kind::Route).any(|(_, spec)| match spec {
                    Spec::Route(route) => route.targets().iter().any(|target| target.virtual_node == name),
                    _ => false,
                });
                if is_target {
                    return Some(format!(
                        "VirtualNode with name {name} cannot be deleted because it is the target of one or more routes."
                    ));
                }
                self.provides(key).then(|| provider_message(key))
            }
            Kind::VirtualRouter => {
                if self.routes_of(mesh, name).next().is_some() {
                    return Some(format!(
                        "VirtualRouter with name {name} cannot be deleted because it has one or more routes."
                    ));
                }
                self.provides(key).then(|| provider_message(key))
            }
            Kind::VirtualService => {
                let routes: Vec<String> = self
                    .of_kind(mesh, Kind::GatewayRoute)
                    .filter(|(_, spec)| match spec {
                        Spec::GatewayRoute(route) => {
                            route.target().is_some_and(|t| t.virtual_service.virtual_service_name == name)
                        }
                        _ => false,
                    })
                    .map(|(key, _)| key.id())
                    .collect();
                (!routes.is_empty()).then(|| {
                    format!(
                        "VirtualService {name} is being referenced in the following: GATEWAY_ROUTE: [{}]",
                        routes.join(", ")
                    )
                })
            }
            Kind::VirtualGateway => self.gateway_routes_of(mesh, name).next().map(|_| {
                format!("VirtualGateway with name {name} cannot be deleted because it has one or more gateway routes.")
            }),
            Kind::Route | Kind::GatewayRoute => None,
        }
    }

    /// Whether a virtual service is provided by `key`.
    fn provides(&self, key: &ResourceKey) -> bool {
        self.of_kind(&key.mesh, Kind::VirtualService)
            .any(|(_, spec)| match spec {
                Spec::VirtualService(spec) => match &spec.provider {
                    Some(Provider::VirtualNode(p)) => {
                        key.kind == Kind::VirtualNode && p.virtual_node_name == key.name
                    }
                    Some(Provider::VirtualRouter(p)) => {
                        key.kind == Kind::VirtualRouter && p.virtual_router_name == key.name
                    }
                    None => false,
                },
                _ => false,
            })
    }
}

/// All that others can refer to in a spec: its ports, or who provides it.
fn offered(spec: &Spec) -> (Vec<PortMapping>, Option<&Provider>) {
    match spec {
        Spec::VirtualNode(spec) => (
            spec.listeners()
                .iter()
                .map(|listener| listener.port_mapping)
                .collect(),
            None,
        ),
        Spec::VirtualRouter(spec) => (spec.ports().collect(), None),
        Spec::VirtualGateway(spec) => (
            spec.listeners
                .iter()
                .map(|listener| listener.port_mapping)
                .collect(),
            None,
        ),
        Spec::VirtualService(spec) => (Vec::new(), spec.provider.as_ref()),
        Spec::Mesh(_) | Spec::Route(_) | Spec::GatewayRoute(_) => (Vec::new(), None),
    }
}

fn provider_message(key: &ResourceKey) -> String {
    format!(
        "{} with name {} cannot be deleted because it is a VirtualService provider",
        key.kind, key.name
    )
}

fn unknown(path: impl Into<String>, key: &ResourceKey) -> ReferenceProblem {
    ReferenceProblem::bad(
        path,
        format!(
            "{} {} does not exist in mesh {}; create it first",
            key.kind, key.name, key.mesh
        ),
    )
}

/// The ports that `wanted` leaves: the named one, or all where none need be named.
fn chosen<'p>(
    ports: &'p [PortMapping],
    wanted: Option<u16>,
    path: &str,
    whose: &str,
) -> Result<&'p [PortMapping], ReferenceProblem> {
    match (wanted, ports) {
        (Some(wanted), _) => match ports.iter().position(|port| port.port == wanted) {
            Some(index) => Ok(&ports[index..=index]),
            None => {
                let known = if ports.is_empty() {
                    "it has no listener".to_owned()
                } else {
                    spoken(ports)
                };
                Err(ReferenceProblem::bad(
                    path,
                    format!("{wanted} is no listener port of {whose}: {known}"),
                ))
            }
        },
        (None, []) | (None, [_]) => Ok(ports),
        (None, _) => Err(ReferenceProblem::bad(
            path,
            format!(
                "is required since {whose} has several listeners: {}",
                spoken(ports)
            ),
        )),
    }
}

/// Only requests against streams is refused: whether App Mesh refused http against http2 is not known, and both work.
fn mismatch(
    path: &str,
    member: &str,
    protocol: Protocol,
    choice: &[PortMapping],
) -> Option<ReferenceProblem> {
    let port = choice
        .iter()
        .find(|port| port.protocol.is_http() != protocol.is_http())?;
    Some(ReferenceProblem::bad(
        path,
        format!(
            "{member} cannot go to a listener for {} (port {})",
            port.protocol, port.port
        ),
    ))
}

fn spoken(ports: &[PortMapping]) -> String {
    ports
        .iter()
        .map(|port| format!("{} {}", port.protocol, port.port))
        .collect::<Vec<_>>()
        .join(", ")
}
