// SPDX-License-Identifier: Apache-2.0
//! Which of the 38 operations a method and a path mean, and on what. Pure; the URIs are the model's, irregular ones
//! included: routes and gateway routes live under the *singular* `virtualRouter` and `virtualGateway`.

use http::Method;
use pillion_config::Kind;
use pillion_config::ResourceKey;

use crate::store::model::Collection;

/// The API version, which every path begins with.
pub const PREFIX: &str = "/v20190125";

/// One operation with what its path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `PUT` on a collection.
    Create(Collection),
    /// `GET` on a collection.
    List(Collection),
    /// `GET` on an item.
    Describe(ResourceKey),
    /// `PUT` on an item.
    Update(ResourceKey),
    /// `DELETE` on an item.
    Delete(ResourceKey),
    /// `GET /tags`.
    ListTagsForResource,
    /// `PUT /tag`.
    TagResource,
    /// `PUT /untag`.
    UntagResource,
}

/// A request that is no operation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCall {
    /// Nothing is at this path.
    #[error("no App Mesh operation has the path {path}; {hint}")]
    UnknownPath {
        /// As requested.
        path: String,
        /// What may have been meant.
        hint: &'static str,
    },
    /// The path exists, with other methods.
    #[error("{path} takes {allow}, not {method}")]
    WrongMethod {
        /// As requested.
        path: String,
        /// As requested.
        method: Method,
        /// What it takes.
        allow: &'static str,
    },
    /// A name that does not decode.
    #[error("the path {path} is not percent-encoded UTF-8")]
    Undecodable {
        /// As requested.
        path: String,
    },
}

enum Place {
    Collection(Collection),
    Item(ResourceKey),
    Tags(Call),
}

impl Call {
    /// Finds the operation; `path` is as it came, still percent-encoded.
    pub fn find(method: &Method, path: &str) -> Result<Call, NoCall> {
        let segments = segments(path)?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let place = place(&segments).ok_or_else(|| NoCall::UnknownPath {
            path: path.to_owned(),
            hint: hint(&segments),
        })?;
        let wrong = |allow| NoCall::WrongMethod {
            path: path.to_owned(),
            method: method.clone(),
            allow,
        };
        match (place, method.as_str()) {
            (Place::Collection(of), "PUT") => Ok(Call::Create(of)),
            (Place::Collection(of), "GET") => Ok(Call::List(of)),
            (Place::Collection(_), _) => Err(wrong("GET, PUT")),
            (Place::Item(key), "GET") => Ok(Call::Describe(key)),
            (Place::Item(key), "PUT") => Ok(Call::Update(key)),
            (Place::Item(key), "DELETE") => Ok(Call::Delete(key)),
            (Place::Item(_), _) => Err(wrong("GET, PUT, DELETE")),
            (Place::Tags(Call::ListTagsForResource), "GET") => Ok(Call::ListTagsForResource),
            (Place::Tags(Call::ListTagsForResource), _) => Err(wrong("GET")),
            (Place::Tags(call), "PUT") => Ok(call),
            (Place::Tags(_), _) => Err(wrong("PUT")),
        }
    }

    /// The operation's name in the model: `CreateVirtualNode`, `ListMeshes`.
    pub fn operation(&self) -> String {
        match self {
            Call::Create(of) => format!("Create{}", of.kind),
            Call::List(of) if of.kind == Kind::Mesh => "ListMeshes".to_owned(),
            Call::List(of) => format!("List{}s", of.kind),
            Call::Describe(key) => format!("Describe{}", key.kind),
            Call::Update(key) => format!("Update{}", key.kind),
            Call::Delete(key) => format!("Delete{}", key.kind),
            Call::ListTagsForResource => "ListTagsForResource".to_owned(),
            Call::TagResource => "TagResource".to_owned(),
            Call::UntagResource => "UntagResource".to_owned(),
        }
    }

    /// Whether the model gives this operation a `meshOwner`.
    pub fn takes_mesh_owner(&self) -> bool {
        match self {
            Call::Create(of) | Call::List(of) => of.kind != Kind::Mesh,
            Call::Update(key) | Call::Delete(key) => key.kind != Kind::Mesh,
            Call::Describe(_) => true,
            Call::ListTagsForResource | Call::TagResource | Call::UntagResource => false,
        }
    }

    /// The same call with its mesh spelled as `spell` has it.
    pub fn in_mesh(self, spell: impl Fn(&str) -> String) -> Call {
        let collection = |of: Collection| Collection {
            mesh: spell(&of.mesh),
            ..of
        };
        let key = |key: ResourceKey| match key.kind {
            Kind::Mesh => ResourceKey::mesh(spell(&key.mesh)),
            _ => ResourceKey {
                mesh: spell(&key.mesh),
                ..key
            },
        };
        match self {
            Call::Create(of) => Call::Create(collection(of)),
            Call::List(of) => Call::List(collection(of)),
            Call::Describe(of) => Call::Describe(key(of)),
            Call::Update(of) => Call::Update(key(of)),
            Call::Delete(of) => Call::Delete(key(of)),
            Call::ListTagsForResource | Call::TagResource | Call::UntagResource => self,
        }
    }

    /// The mesh the path names; empty for operations on no single mesh.
    pub fn mesh(&self) -> &str {
        match self {
            Call::Create(of) | Call::List(of) => &of.mesh,
            Call::Describe(key) | Call::Update(key) | Call::Delete(key) => &key.mesh,
            Call::ListTagsForResource | Call::TagResource | Call::UntagResource => "",
        }
    }
}

fn segments(path: &str) -> Result<Vec<String>, NoCall> {
    let undecodable = || NoCall::Undecodable {
        path: path.to_owned(),
    };
    path.split('/')
        .skip(1)
        .map(|segment| percent_decode(segment).ok_or_else(undecodable))
        .collect()
}

fn place(segments: &[&str]) -> Option<Place> {
    let ([version, rest @ ..], true) = (segments, segments.iter().all(|name| !name.is_empty()))
    else {
        return None;
    };
    if *version != &PREFIX[1..] {
        return None;
    }
    match *rest {
        ["tags"] => Some(Place::Tags(Call::ListTagsForResource)),
        ["tag"] => Some(Place::Tags(Call::TagResource)),
        ["untag"] => Some(Place::Tags(Call::UntagResource)),
        ["meshes"] => Some(collection(Kind::Mesh, "", None)),
        ["meshes", mesh] => Some(Place::Item(ResourceKey::mesh(mesh))),
        ["meshes", mesh, of] => Some(collection(direct_kind(of)?, mesh, None)),
        ["meshes", mesh, of, name] => Some(item(direct_kind(of)?, mesh, None, name)),
        ["meshes", mesh, above, parent, of] => {
            Some(collection(nested_kind(above, of)?, mesh, Some(parent)))
        }
        ["meshes", mesh, above, parent, of, name] => {
            Some(item(nested_kind(above, of)?, mesh, Some(parent), name))
        }
        _ => None,
    }
}

fn direct_kind(collection: &str) -> Option<Kind> {
    match collection {
        "virtualNodes" => Some(Kind::VirtualNode),
        "virtualServices" => Some(Kind::VirtualService),
        "virtualRouters" => Some(Kind::VirtualRouter),
        "virtualGateways" => Some(Kind::VirtualGateway),
        _ => None,
    }
}

fn nested_kind(above: &str, collection: &str) -> Option<Kind> {
    match (above, collection) {
        ("virtualRouter", "routes") => Some(Kind::Route),
        ("virtualGateway", "gatewayRoutes") => Some(Kind::GatewayRoute),
        _ => None,
    }
}

fn collection(kind: Kind, mesh: &str, parent: Option<&str>) -> Place {
    Place::Collection(Collection {
        kind,
        mesh: mesh.to_owned(),
        parent: parent.map(str::to_owned),
    })
}

fn item(kind: Kind, mesh: &str, parent: Option<&str>, name: &str) -> Place {
    Place::Item(ResourceKey {
        kind,
        mesh: mesh.to_owned(),
        parent: parent.map(str::to_owned),
        name: name.to_owned(),
    })
}

fn hint(segments: &[&str]) -> &'static str {
    match *segments {
        [version, ..] if version != &PREFIX[1..] => "paths begin with /v20190125/",
        _ if segments.contains(&"") => "a name between slashes is empty",
        [_, _, _, "virtualRouters", _, "routes", ..] => {
            "routes are under /virtualRouter/, in the singular"
        }
        [_, _, _, "virtualGateways", _, "gatewayRoutes", ..] => {
            "gateway routes are under /virtualGateway/, in the singular"
        }
        _ => "it is /v20190125/ followed by meshes, tags, tag or untag",
    }
}

/// `None` where a `%` is not followed by two hex digits, or the bytes are not UTF-8.
pub fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = rest else {
            return None;
        };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(method: &str, path: &str) -> Result<Call, NoCall> {
        Call::find(&method.parse().expect("a method"), path)
    }

    #[test]
    fn names_are_decoded_after_the_path_is_split() {
        let call = find(
            "GET",
            "/v20190125/meshes/a%2Fb/virtualServices/s%C3%BC%20%25.local",
        );
        let key = ResourceKey::virtual_service("a/b", "sü %.local");
        assert_eq!(call, Ok(Call::Describe(key)));
    }

    #[test]
    fn routes_live_under_the_singular_router_and_the_hint_says_so() {
        let call = find("PUT", "/v20190125/meshes/m/virtualRouter/r/routes/t");
        assert_eq!(call, Ok(Call::Update(ResourceKey::route("m", "r", "t"))));
        let error = find("PUT", "/v20190125/meshes/m/virtualRouters/r/routes/t")
            .expect_err("no such path")
            .to_string();
        assert!(error.contains("singular"), "{error}");
    }

    #[test]
    fn a_wrong_method_is_told_the_right_ones() {
        let error = find("POST", "/v20190125/meshes/m").expect_err("no such method");
        assert_eq!(
            error.to_string(),
            "/v20190125/meshes/m takes GET, PUT, DELETE, not POST"
        );
    }

    #[test]
    fn a_broken_escape_is_not_guessed_at() {
        for path in [
            "/v20190125/meshes/%zz",
            "/v20190125/meshes/%",
            "/v20190125/meshes/%ff",
        ] {
            assert!(
                matches!(find("GET", path), Err(NoCall::Undecodable { .. })),
                "{path}"
            );
        }
    }

    #[test]
    fn what_is_no_operation_is_unknown() {
        for path in [
            "/",
            "/meshes",
            "/v20190125",
            "/v20190125/",
            "/v20190125/meshes/",
            "/v20190125/meshes//virtualNodes",
            "/v20190125/meshes/m/routes",
            "/v20190125/meshes/m/virtualGateway/g/routes",
            "/v20190125/meshes/m/virtualRouter/r",
        ] {
            assert!(
                matches!(find("GET", path), Err(NoCall::UnknownPath { .. })),
                "{path}"
            );
        }
    }
}
