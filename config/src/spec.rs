// SPDX-License-Identifier: Apache-2.0
//! From a JSON document to a checked [`Spec`]: shape, then rules, every problem in one answer; and back unchanged.

use serde::Serialize;
use serde_json::Value;

use crate::check;
use crate::gateway_route::GatewayRouteSpec;
use crate::mesh::MeshSpec;
use crate::name::Kind;
use crate::problem::Problem;
use crate::route::RouteSpec;
use crate::rules;
use crate::shapes;
use crate::virtual_gateway::VirtualGatewaySpec;
use crate::virtual_node::VirtualNodeSpec;
use crate::virtual_router::VirtualRouterSpec;
use crate::virtual_service::VirtualServiceSpec;

/// A checked spec of one of the seven kinds. Serialises to exactly what was sent, no default filled in;
/// only members that were `null` are gone, since to this protocol null and absent are the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Spec {
    Mesh(MeshSpec),
    VirtualNode(VirtualNodeSpec),
    VirtualRouter(VirtualRouterSpec),
    Route(RouteSpec),
    VirtualService(VirtualServiceSpec),
    VirtualGateway(VirtualGatewaySpec),
    GatewayRoute(GatewayRouteSpec),
}

impl Spec {
    /// The kind this is the spec of.
    pub fn kind(&self) -> Kind {
        match self {
            Spec::Mesh(_) => Kind::Mesh,
            Spec::VirtualNode(_) => Kind::VirtualNode,
            Spec::VirtualRouter(_) => Kind::VirtualRouter,
            Spec::Route(_) => Kind::Route,
            Spec::VirtualService(_) => Kind::VirtualService,
            Spec::VirtualGateway(_) => Kind::VirtualGateway,
            Spec::GatewayRoute(_) => Kind::GatewayRoute,
        }
    }

    /// The document, as the API echoes it and the store keeps it.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self)
            .expect("specs hold only strings, numbers, lists and named members")
    }
}

/// Checks `document` as the `spec` of a `kind`. Paths in problems begin with `spec`.
///
/// Holds everything that needs only this document; references to other resources are
/// [`Resources::check_references`](crate::Resources::check_references).
pub fn parse_spec(kind: Kind, document: &Value) -> Result<Spec, Vec<Problem>> {
    let mut problems = check::against(shapes::spec_of(kind), document, "spec");
    problems.extend(rules::broken(kind, document, "spec"));
    if !problems.is_empty() {
        return Err(problems);
    }
    typed(kind, check::without_nulls(document)).map_err(|error| {
        // Invariant: the table and the types agree (tests/it/table.rs); a gap is still an answer, not a crash.
        vec![Problem::new(
            "spec",
            format!("is not a {kind} spec: {error}"),
        )]
    })
}

fn typed(kind: Kind, document: Value) -> serde_json::Result<Spec> {
    use serde_json::from_value;
    Ok(match kind {
        Kind::Mesh => Spec::Mesh(from_value(document)?),
        Kind::VirtualNode => Spec::VirtualNode(from_value(document)?),
        Kind::VirtualRouter => Spec::VirtualRouter(from_value(document)?),
        Kind::Route => Spec::Route(from_value(document)?),
        Kind::VirtualService => Spec::VirtualService(from_value(document)?),
        Kind::VirtualGateway => Spec::VirtualGateway(from_value(document)?),
        Kind::GatewayRoute => Spec::GatewayRoute(from_value(document)?),
    })
}
