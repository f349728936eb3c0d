// SPDX-License-Identifier: Apache-2.0
//! Creates or updates one resource through the App Mesh API. Used by the demo, whose manifests come
//! before anything else there.

use std::fmt;

use http::{Method, StatusCode};
use pillion_config::{Kind, ResourceKey};
use serde_json::{Value, json};

use crate::client::{self, CallError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum PutError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("{key}: the control plane answered {status}: {message}")]
    Refused {
        key: ResourceKey,
        status: StatusCode,
        message: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Created,
    Updated,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Updated => "updated",
        })
    }
}

/// What to PUT. Tags are given at creation only, as in App Mesh.
#[derive(Debug)]
pub(crate) struct Resource<'a> {
    pub(crate) key: &'a ResourceKey,
    pub(crate) spec: Value,
    pub(crate) tags: Value,
    pub(crate) mesh_owner: Option<&'a str>,
}

/// Creates the resource, or replaces the spec of the one that has its name.
pub(crate) async fn put(authority: &str, resource: &Resource<'_>) -> Result<Change, PutError> {
    let Resource {
        key,
        spec,
        tags,
        mesh_owner,
    } = resource;
    let owner = mesh_owner.map_or_else(String::new, |owner| format!("?meshOwner={owner}"));
    let collection = collection(key);
    let mut body = json!({"spec": spec});
    body[key.kind.name_member()] = json!(key.name);
    if tags.as_array().is_some_and(|tags| !tags.is_empty()) {
        body["tags"] = tags.clone();
    }
    let answer = client::call(
        Method::PUT,
        authority,
        &format!("{collection}{owner}"),
        Some(&body),
    )
    .await?;
    if answer.status == StatusCode::OK {
        return Ok(Change::Created);
    }
    let answer = if answer.status == StatusCode::CONFLICT {
        let item = format!("{collection}/{}{owner}", encode(&key.name));
        client::call(Method::PUT, authority, &item, Some(&json!({"spec": spec}))).await?
    } else {
        answer
    };
    if answer.status == StatusCode::OK {
        return Ok(Change::Updated);
    }
    let message = match answer.json() {
        Ok(Value::Object(error)) => error
            .get("message")
            .and_then(Value::as_str)
            .map(str::to_owned),
        _ => None,
    };
    let message = message.unwrap_or_else(|| answer.text());
    Err(PutError::Refused {
        key: (*key).clone(),
        status: answer.status,
        message,
    })
}

/// The collection a resource is created in. Routes live below `virtualRouter` in the singular, alone of all.
fn collection(key: &ResourceKey) -> String {
    let mesh = format!("/v20190125/meshes/{}", encode(&key.mesh));
    let parent = key.parent.as_deref().map(encode).unwrap_or_default();
    match key.kind {
        Kind::Mesh => "/v20190125/meshes".to_owned(),
        Kind::Route => format!("{mesh}/virtualRouter/{parent}/routes"),
        Kind::GatewayRoute => format!("{mesh}/virtualGateway/{parent}/gatewayRoutes"),
        kind @ (Kind::VirtualNode
        | Kind::VirtualRouter
        | Kind::VirtualService
        | Kind::VirtualGateway) => {
            format!("{mesh}/{}s", kind.word())
        }
    }
}

/// Percent-encodes all but the unreserved characters of RFC 3986 section 2.3.
pub(crate) fn encode(name: &str) -> String {
    name.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collections_have_the_irregular_paths_of_app_mesh() {
        let paths = [
            collection(&ResourceKey::mesh("m")),
            collection(&ResourceKey::virtual_node("m", "n")),
            collection(&ResourceKey::route("m", "r", "t")),
            collection(&ResourceKey::gateway_route("m", "g", "t")),
        ];
        let expected = [
            "/v20190125/meshes",
            "/v20190125/meshes/m/virtualNodes",
            "/v20190125/meshes/m/virtualRouter/r/routes",
            "/v20190125/meshes/m/virtualGateway/g/gatewayRoutes",
        ];
        assert_eq!(paths, expected);
    }

    #[test]
    fn a_name_cannot_leave_its_place_in_the_path() {
        assert_eq!(encode("a/b?c é"), "a%2Fb%3Fc%20%C3%A9");
    }
}
