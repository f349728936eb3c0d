// SPDX-License-Identifier: Apache-2.0
//! The constraint table: one static description of every structure in a request of the API, member by member.
//! [`check`](crate::check) walks documents against it. Names are the model's, so that `tests/it/table.rs` can hold the
//! table against the published model field by field. Rules no table can say are in [`rules`](crate::rules).

#[macro_use]
mod macros;

pub mod edge;
pub mod gateway_route;
pub mod node;
pub mod requests;
pub mod route;
pub mod scalars;

use std::sync::LazyLock;

use regex::Regex;

use crate::name::Kind;

/// A named shape of the model.
#[derive(Debug)]
pub struct Shape {
    pub name: &'static str,
    pub constraint: Constraint,
}

/// What values of a shape are allowed.
#[derive(Debug)]
pub enum Constraint {
    /// Named members.
    Structure {
        members: &'static [Member],
    },
    /// Named members of which exactly one is present.
    Union {
        members: &'static [Member],
    },
    List {
        of: &'static Shape,
        min: Option<usize>,
        max: Option<usize>,
    },
    /// Lengths count characters.
    Text {
        min: Option<usize>,
        max: Option<usize>,
        pattern: Option<&'static LazyLock<Regex>>,
    },
    Choice {
        words: &'static [&'static str],
    },
    /// 32 bits.
    Integer {
        min: Option<i64>,
        max: Option<i64>,
    },
    /// 64 bits.
    Long {
        min: Option<i64>,
        max: Option<i64>,
    },
    Boolean,
}

/// A member of a structure or union.
#[derive(Debug)]
pub struct Member {
    pub name: &'static str,
    pub of: &'static Shape,
    pub required: bool,
    pub place: Place,
}

/// Where a member travels; everything inside a spec is in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Body,
    Uri,
    Query,
}

/// The shape of the spec of a kind.
pub fn spec_of(kind: Kind) -> &'static Shape {
    match kind {
        Kind::Mesh => &edge::MeshSpec,
        Kind::VirtualNode => &node::VirtualNodeSpec,
        Kind::VirtualRouter => &edge::VirtualRouterSpec,
        Kind::Route => &route::RouteSpec,
        Kind::VirtualService => &edge::VirtualServiceSpec,
        Kind::VirtualGateway => &edge::VirtualGatewaySpec,
        Kind::GatewayRoute => &gateway_route::GatewayRouteSpec,
    }
}
