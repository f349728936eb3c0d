// SPDX-License-Identifier: Apache-2.0
//! Records as the documents of the API: the data object of describe and write answers, the reference of lists. The
//! payload is the object itself, unwrapped; SDKs put the wrapper around it.

use pillion_config::Kind;
use pillion_config::ResourceKey;
use pillion_config::name::is_account;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::store::Record;

/// `status.status` of a resource that is there.
pub const ACTIVE: &str = "ACTIVE";
/// `status.status` in the answer to its deletion.
pub const DELETED: &str = "DELETED";

/// Spells the `*Data` of a record.
pub fn data(record: &Record, region: &str, status: &str) -> Value {
    let mut members = names(record);
    members.insert(
        "metadata".to_owned(),
        json!({
            "arn": arn(record, region),
            "createdAt": seconds(record.created_ms),
            "lastUpdatedAt": seconds(record.updated_ms),
            "meshOwner": record.mesh_owner,
            "resourceOwner": record.resource_owner,
            "uid": record.uid,
            "version": record.version,
        }),
    );
    members.insert("spec".to_owned(), record.spec.to_value());
    members.insert("status".to_owned(), json!({"status": status}));
    Value::Object(members)
}

/// Spells the `*Ref` of a record.
pub fn reference(record: &Record, region: &str) -> Value {
    let mut members = names(record);
    members.insert("arn".to_owned(), json!(arn(record, region)));
    members.insert("createdAt".to_owned(), seconds(record.created_ms));
    members.insert("lastUpdatedAt".to_owned(), seconds(record.updated_ms));
    members.insert("meshOwner".to_owned(), json!(record.mesh_owner));
    members.insert("resourceOwner".to_owned(), json!(record.resource_owner));
    members.insert("version".to_owned(), json!(record.version));
    Value::Object(members)
}

/// The ARN; its account is the resource's owner.
pub fn arn(record: &Record, region: &str) -> String {
    shown(record).arn(region, &record.resource_owner)
}

/// The key of a record as users know it.
pub fn shown(record: &Record) -> ResourceKey {
    bare(&record.key)
}

/// A mesh of another account is kept as `M@<owner>`, and is `M` to users.
pub fn bare(key: &ResourceKey) -> ResourceKey {
    let mesh = match key.mesh.rsplit_once('@') {
        Some((mesh, owner)) if is_account(owner) => mesh,
        _ => return key.clone(),
    };
    match key.kind {
        Kind::Mesh => ResourceKey::mesh(mesh),
        _ => ResourceKey {
            mesh: mesh.to_owned(),
            ..key.clone()
        },
    }
}

/// The member that holds a list of this kind: `meshes`, `virtualNodes`.
pub fn list_member(kind: Kind) -> &'static str {
    match kind {
        Kind::Mesh => "meshes",
        Kind::VirtualNode => "virtualNodes",
        Kind::VirtualRouter => "virtualRouters",
        Kind::Route => "routes",
        Kind::VirtualService => "virtualServices",
        Kind::VirtualGateway => "virtualGateways",
        Kind::GatewayRoute => "gatewayRoutes",
    }
}

/// The members that say which resource it is, as requests and manifests have them.
pub fn names(record: &Record) -> Map<String, Value> {
    let key = shown(record);
    let mut members = Map::new();
    members.insert(Kind::Mesh.name_member().to_owned(), json!(key.mesh));
    if let (Some(kind), Some(parent)) = (key.kind.parent(), &key.parent) {
        members.insert(kind.name_member().to_owned(), json!(parent));
    }
    members.insert(key.kind.name_member().to_owned(), json!(key.name));
    members
}

/// Timestamps are epoch seconds with a fraction. Milliseconds of any date fit a double's 53 bits.
pub fn seconds(ms: i64) -> Value {
    let seconds = ms as f64 / 1000.0;
    json!(seconds)
}
