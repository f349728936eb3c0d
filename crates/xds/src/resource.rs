// SPDX-License-Identifier: Apache-2.0
//! Type URLs and the two-phase decode: bytes to protobuf, protobuf to a checked type, each resource on its own, so
//! that one bad resource is refused by name while the good ones go on.

use std::collections::BTreeSet;

use prost::Message;
use sha2::Digest;
use sha2::Sha256;

use crate::cluster::Cluster;
use crate::endpoint::ClusterLoadAssignment;
use crate::listener::Listener;
use crate::proto;
use crate::proto::Any;
use crate::proto::discovery;
use crate::route::RouteConfiguration;
use crate::secret::Secret;

/// The five resource types Pillion speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceType {
    /// CDS.
    Cluster,
    /// EDS.
    Endpoint,
    /// LDS.
    Listener,
    /// RDS.
    Route,
    /// SDS.
    Secret,
}

/// Make-before-break order: what a later type names has been sent before it.
pub const UPDATE_ORDER: [ResourceType; 5] = [
    ResourceType::Secret,
    ResourceType::Cluster,
    ResourceType::Endpoint,
    ResourceType::Listener,
    ResourceType::Route,
];

impl ResourceType {
    /// The `type_url` on the wire.
    pub fn url(self) -> &'static str {
        match self {
            ResourceType::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            ResourceType::Endpoint => {
                "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
            }
            ResourceType::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            ResourceType::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            ResourceType::Secret => {
                "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
            }
        }
    }

    /// The type a URL names, if it is one of ours.
    pub fn from_url(url: &str) -> Option<ResourceType> {
        UPDATE_ORDER.into_iter().find(|kind| kind.url() == url)
    }
}

/// One checked resource of any type.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    /// A cluster.
    Cluster(Cluster),
    /// A cluster's endpoints.
    Endpoint(ClusterLoadAssignment),
    /// A listener.
    Listener(Listener),
    /// A route configuration.
    Route(RouteConfiguration),
    /// A certificate pair or a trust bundle.
    Secret(Secret),
}

/// A resource that was refused: which one, and why, naming the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {why}")]
pub struct Rejected {
    /// The resource's name (`?` if it could not even be read).
    pub name: String,
    /// The field, its value, and what would be accepted.
    pub why: String,
}

/// Bytes of the hash that a version shows: enough that two contents never share one, short enough to read aloud.
const VERSION_BYTES: usize = 8;

/// The version of some content: a hash, so that what has not changed is not sent again.
pub fn version_of(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes)[..VERSION_BYTES])
}

impl Resource {
    /// Which type it is.
    pub fn kind(&self) -> ResourceType {
        match self {
            Resource::Cluster(_) => ResourceType::Cluster,
            Resource::Endpoint(_) => ResourceType::Endpoint,
            Resource::Listener(_) => ResourceType::Listener,
            Resource::Route(_) => ResourceType::Route,
            Resource::Secret(_) => ResourceType::Secret,
        }
    }

    /// The name it is asked for by.
    pub fn name(&self) -> &str {
        match self {
            Resource::Cluster(cluster) => &cluster.name,
            Resource::Endpoint(assignment) => &assignment.cluster_name,
            Resource::Listener(listener) => &listener.name,
            Resource::Route(table) => &table.name,
            Resource::Secret(secret) => &secret.name,
        }
    }

    /// As it stands on the wire. Equal resources give equal bytes.
    pub fn encode_any(&self) -> Any {
        let value = match self {
            Resource::Cluster(cluster) => cluster.encode_bytes(),
            Resource::Endpoint(assignment) => assignment.encode().encode_to_vec(),
            Resource::Listener(listener) => listener.encode().encode_to_vec(),
            Resource::Route(table) => table.encode().encode_to_vec(),
            Resource::Secret(secret) => secret.encode().encode_to_vec(),
        };
        Any {
            type_url: self.kind().url().to_owned(),
            value,
        }
    }

    /// Both phases for one resource: bytes to protobuf, protobuf to a checked type.
    pub fn decode_any(kind: ResourceType, any: &Any) -> Result<Resource, Rejected> {
        if any.type_url != kind.url() {
            return Err(Rejected {
                name: "?".to_owned(),
                why: format!("is {}, but {} was asked for", any.type_url, kind.url()),
            });
        }
        let bytes = any.value.as_slice();
        match kind {
            ResourceType::Cluster => parse::<proto::cluster::Cluster>(bytes)
                .and_then(Cluster::decode)
                .map(Resource::Cluster),
            ResourceType::Endpoint => parse::<proto::endpoint::ClusterLoadAssignment>(bytes)
                .and_then(ClusterLoadAssignment::decode)
                .map(Resource::Endpoint),
            ResourceType::Listener => parse::<proto::listener::Listener>(bytes)
                .and_then(Listener::decode)
                .map(Resource::Listener),
            ResourceType::Route => parse::<proto::route::RouteConfiguration>(bytes)
                .and_then(RouteConfiguration::decode)
                .map(Resource::Route),
            ResourceType::Secret => parse::<proto::tls::Secret>(bytes)
                .and_then(Secret::decode)
                .map(Resource::Secret),
        }
    }
}

fn parse<M: Message + Default>(bytes: &[u8]) -> Result<M, Rejected> {
    M::decode(bytes).map_err(|error| Rejected {
        name: "?".to_owned(),
        why: format!("does not decode: {error}"),
    })
}

/// A resource as the delta protocol sends it.
#[derive(Clone, Debug, PartialEq)]
pub struct Versioned {
    /// Its version, a hash of its bytes when our control plane sends it.
    pub version: String,
    /// The resource.
    pub resource: Resource,
}

/// Every resource of a state-of-the-world response, the good apart from the refused.
pub fn decode_all(kind: ResourceType, resources: &[Any]) -> (Vec<Resource>, Vec<Rejected>) {
    let mut accepted = Vec::with_capacity(resources.len());
    let mut refused = Vec::new();
    let mut names = BTreeSet::new();
    for any in resources {
        match Resource::decode_any(kind, any).and_then(|resource| once(&mut names, resource)) {
            Ok(resource) => accepted.push(resource),
            Err(rejected) => refused.push(rejected),
        }
    }
    (accepted, refused)
}

/// Every resource of a delta response, the good apart from the refused.
pub fn decode_delta(
    kind: ResourceType,
    resources: &[discovery::Resource],
) -> (Vec<Versioned>, Vec<Rejected>) {
    let mut accepted = Vec::with_capacity(resources.len());
    let mut refused = Vec::new();
    let mut names = BTreeSet::new();
    for resource in resources {
        match decode_named(kind, resource).and_then(|decoded| once(&mut names, decoded)) {
            Ok(decoded) => accepted.push(Versioned {
                version: resource.version.clone(),
                resource: decoded,
            }),
            Err(rejected) => refused.push(rejected),
        }
    }
    (accepted, refused)
}

fn decode_named(kind: ResourceType, resource: &discovery::Resource) -> Result<Resource, Rejected> {
    let wrong = |why: String| Rejected {
        name: resource.name.clone(),
        why,
    };
    let Some(any) = &resource.resource else {
        return Err(wrong("resource is required".to_owned()));
    };
    if resource.ttl.is_some() {
        return Err(wrong("ttl is not supported; leave it unset".to_owned()));
    }
    let decoded = Resource::decode_any(kind, any).map_err(|mut rejected| {
        rejected.name.clone_from(&resource.name);
        rejected
    })?;
    if decoded.name() != resource.name {
        return Err(wrong(format!(
            "holds a resource named {:?}",
            decoded.name()
        )));
    }
    Ok(decoded)
}

fn once(names: &mut BTreeSet<String>, resource: Resource) -> Result<Resource, Rejected> {
    if names.insert(resource.name().to_owned()) {
        return Ok(resource);
    }
    Err(Rejected {
        name: resource.name().to_owned(),
        why: "stands twice in one response".to_owned(),
    })
}
