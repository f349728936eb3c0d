// SPDX-License-Identifier: Apache-2.0
//! What a resource is called: its [`Kind`], its [`ResourceKey`], and the ARN and `mesh/M/virtualNode/N` spellings of it.
//!
//! The API layer builds keys from URIs, the xDS door parses `node.id`. Does not know whether a resource exists.

use std::fmt;

/// The seven resource kinds of App Mesh, parents before children, so that sorted keys can be created in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Mesh,
    VirtualNode,
    VirtualRouter,
    Route,
    VirtualService,
    VirtualGateway,
    GatewayRoute,
}

impl Kind {
    /// All kinds, in the order of [`Ord`].
    pub const ALL: [Kind; 7] = [
        Kind::Mesh,
        Kind::VirtualNode,
        Kind::VirtualRouter,
        Kind::Route,
        Kind::VirtualService,
        Kind::VirtualGateway,
        Kind::GatewayRoute,
    ];

    /// The word in ARNs and the wrapper key SDKs use: `virtualNode`.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Mesh => "mesh",
            Kind::VirtualNode => "virtualNode",
            Kind::VirtualRouter => "virtualRouter",
            Kind::Route => "route",
            Kind::VirtualService => "virtualService",
            Kind::VirtualGateway => "virtualGateway",
            Kind::GatewayRoute => "gatewayRoute",
        }
    }

    /// The word as types and messages of the API spell it: `VirtualNode`.
    pub fn title(self) -> &'static str {
        match self {
            Kind::Mesh => "Mesh",
            Kind::VirtualNode => "VirtualNode",
            Kind::VirtualRouter => "VirtualRouter",
            Kind::Route => "Route",
            Kind::VirtualService => "VirtualService",
            Kind::VirtualGateway => "VirtualGateway",
            Kind::GatewayRoute => "GatewayRoute",
        }
    }

    /// The member that holds the resource's own name: `virtualNodeName`.
    pub fn name_member(self) -> &'static str {
        match self {
            Kind::Mesh => "meshName",
            Kind::VirtualNode => "virtualNodeName",
            Kind::VirtualRouter => "virtualRouterName",
            Kind::Route => "routeName",
            Kind::VirtualService => "virtualServiceName",
            Kind::VirtualGateway => "virtualGatewayName",
            Kind::GatewayRoute => "gatewayRouteName",
        }
    }

    /// The kind a resource of this kind lives under besides its mesh: a route under a router, a gateway route under a gateway.
    pub fn parent(self) -> Option<Kind> {
        match self {
            Kind::Route => Some(Kind::VirtualRouter),
            Kind::GatewayRoute => Some(Kind::VirtualGateway),
            Kind::Mesh
            | Kind::VirtualNode
            | Kind::VirtualRouter
            | Kind::VirtualService
            | Kind::VirtualGateway => None,
        }
    }

    fn from_word(word: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title())
    }
}

/// One resource within one account's meshes. Ordered by kind first: parents come before what refers to them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKey {
    pub kind: Kind,
    /// The mesh; for a mesh itself the same as `name`.
    pub mesh: String,
    /// The router of a route, the gateway of a gateway route, else `None`.
    pub parent: Option<String>,
    pub name: String,
}

impl ResourceKey {
    /// The mesh `name` itself.
    pub fn mesh(name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            kind: Kind::Mesh,
            mesh: name.clone(),
            parent: None,
            name,
        }
    }

    /// A virtual node.
    pub fn virtual_node(mesh: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind: Kind::VirtualNode,
            mesh: mesh.into(),
            parent: None,
            name: name.into(),
        }
    }

    /// A virtual router.
    pub fn virtual_router(mesh: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind: Kind::VirtualRouter,
            mesh: mesh.into(),
            parent: None,
            name: name.into(),
        }
    }

    /// A route of a virtual router.
    pub fn route(
        mesh: impl Into<String>,
        router: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        Self {
            kind: Kind::Route,
            mesh: mesh.into(),
            parent: Some(router.into()),
            name: name.into(),
        }
    }

    /// A virtual service.
    pub fn virtual_service(mesh: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind: Kind::VirtualService,
            mesh: mesh.into(),
            parent: None,
            name: name.into(),
        }
    }

    /// A virtual gateway.
    pub fn virtual_gateway(mesh: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind: Kind::VirtualGateway,
            mesh: mesh.into(),
            parent: None,
            name: name.into(),
        }
    }

    /// A gateway route of a virtual gateway.
    pub fn gateway_route(
        mesh: impl Into<String>,
        gateway: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        Self {
            kind: Kind::GatewayRoute,
            mesh: mesh.into(),
            parent: Some(gateway.into()),
            name: name.into(),
        }
    }

    /// The key of the resource this one lives under besides its mesh.
    pub fn parent_key(&self) -> Option<ResourceKey> {
        let (kind, name) = (self.kind.parent()?, self.parent.clone()?);
        Some(Self {
            kind,
            mesh: self.mesh.clone(),
            parent: None,
            name,
        })
    }

    /// `mesh/M/virtualRouter/R/route/T`: the resource part of the ARN.
    pub fn id(&self) -> String {
        let Self {
            kind, mesh, name, ..
        } = self;
        match (kind.parent(), &self.parent) {
            _ if *kind == Kind::Mesh => format!("mesh/{mesh}"),
            (Some(above), Some(parent)) => format!(
                "mesh/{mesh}/{}/{parent}/{}/{name}",
                above.word(),
                kind.word()
            ),
            _ => format!("mesh/{mesh}/{}/{name}", kind.word()),
        }
    }

    /// The ARN; `account` is the resource's owner.
    pub fn arn(&self, region: &str, account: &str) -> String {
        format!("arn:aws:appmesh:{region}:{account}:{}", self.id())
    }
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id())
    }
}

/// An ARN taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arn {
    pub region: String,
    /// The account that owns the resource.
    pub account: String,
    pub key: ResourceKey,
}

/// What `APPMESH_RESOURCE_ARN` and `node.id` may hold, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceId {
    pub key: ResourceKey,
    /// The mesh owner where the mesh was written `M@<owner>`.
    pub mesh_owner: Option<String>,
    /// Region and account where a full ARN was given.
    pub arn: Option<(String, String)>,
}

/// Why a string names no App Mesh resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` names no App Mesh resource: {why}")]
pub struct NameError {
    pub given: String,
    pub why: &'static str,
}

/// Parses a full ARN, `arn:aws:appmesh:<region>:<account>:mesh/…`; any partition is taken.
pub fn parse_arn(text: &str) -> Result<Arn, NameError> {
    let id = parse_resource_id(text)?;
    let (region, account) = id
        .arn
        .ok_or_else(|| refuse(text, "expected arn:aws:appmesh:<region>:<account>:mesh/…"))?;
    Ok(Arn {
        region,
        account,
        key: id.key,
    })
}

/// Parses a full ARN or its resource part alone; in both the mesh may carry `@<owner>`.
pub fn parse_resource_id(text: &str) -> Result<ResourceId, NameError> {
    let (arn, path) = match text.strip_prefix("arn:") {
        None => (None, text),
        Some(rest) => {
            let parts: Vec<&str> = rest.splitn(5, ':').collect();
            let [_partition, service, region, account, path] = parts[..] else {
                return Err(refuse(
                    text,
                    "expected arn:aws:appmesh:<region>:<account>:mesh/…",
                ));
            };
            if service != "appmesh" {
                return Err(refuse(
                    text,
                    "the ARN is of another AWS service, expected `appmesh`",
                ));
            }
            if !is_account(account) {
                return Err(refuse(text, "the account in the ARN must be 12 digits"));
            }
            (Some((region.to_owned(), account.to_owned())), path)
        }
    };
    let (key, mesh_owner) = parse_path(path).map_err(|why| refuse(text, why))?;
    Ok(ResourceId {
        key,
        mesh_owner,
        arn,
    })
}

/// True for the 12 digits of an AWS account.
pub fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

fn refuse(given: &str, why: &'static str) -> NameError {
    NameError {
        given: given.to_owned(),
        why,
    }
}

fn parse_path(path: &str) -> Result<(ResourceKey, Option<String>), &'static str> {
    let parts: Vec<&str> = path.split('/').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err("a part between slashes is empty");
    }
    let ["mesh", mesh, ref below @ ..] = parts[..] else {
        return Err("expected mesh/<mesh>/virtualNode/<name> or the like");
    };
    let (mesh, owner) = match mesh.rsplit_once('@') {
        Some((mesh, owner)) if is_account(owner) && !mesh.is_empty() => {
            (mesh, Some(owner.to_owned()))
        }
        _ => (mesh, None),
    };
    let key = match *below {
        [] => ResourceKey::mesh(mesh),
        ["virtualRouter", router, "route", name] => ResourceKey::route(mesh, router, name),
        ["virtualGateway", gateway, "gatewayRoute", name] => {
            ResourceKey::gateway_route(mesh, gateway, name)
        }
        [word, name] => match Kind::from_word(word) {
            Some(kind) if kind != Kind::Mesh && kind.parent().is_none() => ResourceKey {
                kind,
                mesh: mesh.to_owned(),
                parent: None,
                name: name.to_owned(),
            },
            _ => {
                return Err(
                    "expected virtualNode, virtualService, virtualRouter or virtualGateway after the mesh",
                );
            }
        },
        _ => return Err("expected mesh/<mesh>/virtualNode/<name> or the like"),
    };
    Ok((key, owner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_and_its_parse_are_inverse_for_every_kind() {
        let keys = [
            ResourceKey::mesh("m"),
            ResourceKey::virtual_node("m", "n"),
            ResourceKey::virtual_service("m", "s.local"),
            ResourceKey::virtual_router("m", "r"),
            ResourceKey::route("m", "r", "t"),
            ResourceKey::virtual_gateway("m", "g"),
            ResourceKey::gateway_route("m", "g", "x"),
        ];
        for key in keys {
            let arn = key.arn("eu-west-1", "123456789012");
            let parsed = parse_arn(&arn).unwrap();
            assert_eq!(
                parsed,
                Arn {
                    region: "eu-west-1".into(),
                    account: "123456789012".into(),
                    key
                }
            );
        }
    }

    #[test]
    fn arns_are_spelled_as_app_mesh_spelled_them() {
        assert_eq!(
            ResourceKey::route("m", "r", "t").arn("us-east-1", "000000000000"),
            "arn:aws:appmesh:us-east-1:000000000000:mesh/m/virtualRouter/r/route/t"
        );
        assert_eq!(ResourceKey::mesh("m").id(), "mesh/m");
    }

    #[test]
    fn a_resource_id_may_be_short_and_name_the_mesh_owner() {
        let id = parse_resource_id("mesh/shop@123456789012/virtualNode/web").unwrap();
        assert_eq!(id.key, ResourceKey::virtual_node("shop", "web"));
        assert_eq!(id.mesh_owner.as_deref(), Some("123456789012"));
        assert_eq!(id.arn, None);
        let odd = parse_resource_id("mesh/shop@home/virtualGateway/edge").unwrap();
        assert_eq!(odd.key, ResourceKey::virtual_gateway("shop@home", "edge"));
        assert_eq!(odd.mesh_owner, None);
    }

    #[test]
    fn what_names_no_resource_is_refused_with_the_reason() {
        for bad in [
            "",
            "mesh",
            "mesh/",
            "mesh/m/virtualNode",
            "mesh/m/virtualNode/",
            "mesh/m/route/t",
            "mesh/m/mesh/t",
            "mesh/m/virtualNode/a/b",
            "arn:aws:ecs:us-east-1:123456789012:mesh/m",
            "arn:aws:appmesh:us-east-1:12:mesh/m",
            "arn:aws:appmesh",
        ] {
            let error = parse_resource_id(bad).unwrap_err();
            assert!(error.to_string().contains(&format!("`{bad}`")), "{error}");
        }
        assert!(parse_arn("mesh/m").is_err());
    }

    #[test]
    fn keys_sort_parents_before_children() {
        let mut keys = [
            ResourceKey::gateway_route("m", "g", "x"),
            ResourceKey::route("m", "r", "t"),
            ResourceKey::virtual_node("m", "n"),
            ResourceKey::mesh("m"),
        ];
        keys.sort();
        assert_eq!(
            keys.map(|key| key.kind),
            [
                Kind::Mesh,
                Kind::VirtualNode,
                Kind::Route,
                Kind::GatewayRoute
            ]
        );
    }
}
