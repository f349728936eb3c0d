// SPDX-License-Identifier: Apache-2.0
//! Who a workload is, and how it proves it: which resource a node id names, the certificate authority ([`authority`])
//! and the gRPC service by which proxies have certificates signed ([`signer`]). Used by `app.rs`, `publish.rs` (secrets)
//! and `ads.rs` (streams, server TLS). Identities are given by the model alone: what does not exist in it gets none.

pub mod authority;
pub mod keyring;
pub mod signer;
pub mod token;

use std::sync::Arc;

use pillion_config::Kind;
use pillion_config::ResourceKey;
use pillion_config::Resources;
use pillion_config::name::NameError;
use pillion_config::name::parse_resource_id;

pub use authority::Authority;
pub use keyring::Keyring;
pub use keyring::RootMaterial;

use crate::store::Shared;
use crate::store::Store;
use crate::store::StoreError;
use crate::translate::spiffe_id;
use crate::translate::tls::discovery_name;

/// Where the store keeps the root. The SQLite file is created with mode 0600; the key is not sealed beyond that.
const ROOT: &str = "identity/root";

/// The identity of one proxy, as its certificate will state it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// `spiffe://<trust domain>/mesh/<mesh>/virtualNode/<name>`, or `…/virtualGateway/<name>`.
    pub spiffe_id: String,
    /// The DNS service-discovery hostname, or an IP literal in its place.
    pub hostname: Option<String>,
}

/// What `node.id` says that leads to no proxy of this installation.
#[derive(Debug, thiserror::Error)]
pub enum NodeIdError {
    /// It names nothing.
    #[error("read node.id")]
    Name(#[from] NameError),
    /// It names something that has no proxy.
    #[error(
        "node.id {0} is no proxy: expected mesh/<mesh>/virtualNode/<name> or mesh/<mesh>/virtualGateway/<name>"
    )]
    Kind(ResourceKey),
}

/// The virtual node or gateway that a node id names, whether it exists or not; `account` is ours. The mesh of another
/// account is spelled `M@<owner>`, in ids as in keys.
pub fn resolve(node_id: &str, account: &str) -> Result<ResourceKey, NodeIdError> {
    let id = parse_resource_id(node_id)?;
    if !matches!(id.key.kind, Kind::VirtualNode | Kind::VirtualGateway) {
        return Err(NodeIdError::Kind(id.key));
    }
    let owner = id.mesh_owner.or(id.arn.map(|(_, account)| account));
    Ok(match owner {
        Some(owner) if owner != account => ResourceKey {
            mesh: format!("{}@{owner}", id.key.mesh),
            ..id.key
        },
        _ => id.key,
    })
}

/// The key that [`ResourceKey::id`] spelled.
pub fn key_of(id: &str) -> Option<ResourceKey> {
    let parsed = parse_resource_id(id).ok()?;
    Some(match parsed.mesh_owner {
        Some(owner) => ResourceKey {
            mesh: format!("{}@{owner}", parsed.key.mesh),
            ..parsed.key
        },
        None => parsed.key,
    })
}

/// The identity of a virtual node or gateway; `None` if it does not exist.
pub fn subject(resources: &Resources, trust_domain: &str, key: &ResourceKey) -> Option<Subject> {
    let hostname = match key.kind {
        Kind::VirtualNode => resources
            .node(&key.mesh, &key.name)?
            .service_discovery
            .as_ref()
            .map(discovery_name),
        Kind::VirtualGateway => {
            resources.gateway(&key.mesh, &key.name)?;
            None
        }
        Kind::Mesh
        | Kind::VirtualRouter
        | Kind::Route
        | Kind::VirtualService
        | Kind::GatewayRoute => return None,
    };
    Some(Subject {
        spiffe_id: spiffe_id(trust_domain, key),
        hostname,
    })
}

/// Why the authority could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store could not be asked.
    #[error("ask the store for the root of the certificate authority")]
    Store(#[from] StoreError),
    /// What it holds is damaged, or no root could be made.
    #[error(transparent)]
    Authority(#[from] authority::AuthorityError),
    /// What it holds is nothing.
    #[error(
        "read the root of the certificate authority from the store: it is damaged, restore it from a backup"
    )]
    Damaged,
}

/// The authority and the ring of keys that the store keeps for it.
pub struct Custody {
    /// Signs.
    pub authority: Arc<Authority>,
    ring: Arc<Shared<Option<Keyring>>>,
}

/// Why the ring was not changed.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The rules of rotation.
    #[error(transparent)]
    Step(#[from] keyring::StepError),
    /// What is to be signed with does not fit together.
    #[error("take up what is to sign: {0}")]
    Material(String),
}

impl Custody {
    /// With what the store keeps; at first start, with a new root.
    pub async fn open(store: Arc<dyn Store>, trust_domain: &str) -> Result<Custody, OpenError> {
        let ring: Shared<Option<Keyring>> = Shared::open(store, ROOT).await?;
        if ring.current().is_none() {
            let made = Keyring::new(RootMaterial::make(trust_domain)?);
            // Of several that start at once on one store, one is first, and all take up its root.
            let first = |kept: &Option<Keyring>| {
                let kept = kept.clone().unwrap_or_else(|| made.clone());
                Ok::<_, StoreError>((Some(kept), ()))
            };
            ring.change(first).await?;
        }
        let kept = ring.current();
        let kept = kept.as_ref().as_ref().ok_or(OpenError::Damaged)?;
        Ok(Custody {
            authority: Arc::new(Authority::load(trust_domain, kept)?),
            ring: Arc::new(ring),
        })
    }

    /// The ring now.
    pub fn ring(&self) -> Keyring {
        let ring = self.ring.current();
        ring.as_ref()
            .clone()
            .expect("open() made one, and nothing takes it away")
    }

    /// Takes a step.
    pub async fn change(
        &self,
        step: impl Fn(&Keyring) -> Result<Keyring, keyring::StepError> + Send + Sync,
    ) -> Result<Keyring, RingError> {
        let changed = |ring: &Option<Keyring>| {
            let ring = ring.as_ref().ok_or(keyring::StepError::NotPrepared)?;
            let next = step(ring)?;
            // What cannot sign is not stored.
            Authority::load(self.authority.trust_domain(), &next)
                .map_err(|error| RingError::Material(crate::ads::chain(&error)))?;
            Ok::<_, RingError>((Some(next.clone()), next))
        };
        self.ring.change(changed).await
    }

    /// Has the authority follow the ring, whoever changes it, for as long as it is polled.
    pub async fn follow(self: Arc<Self>) {
        let mut changes = self.ring.changes();
        let stored = Arc::clone(&self.ring).follow();
        let taken = async {
            while changes.changed().await.is_ok() {
                match self.authority.take_up(&self.ring()) {
                    Ok(()) => tracing::info!("the authority took up a changed ring of keys"),
                    Err(error) => {
                        tracing::error!(
                            error = crate::ads::chain(&error),
                            "the ring of keys is damaged; signing goes on with the last good one"
                        )
                    }
                }
            }
        };
        tokio::join!(stored, taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_id_may_be_an_arn_or_its_end_and_must_be_ours() {
        let node = ResourceKey::virtual_node("m", "web");
        for id in [
            "mesh/m/virtualNode/web",
            "mesh/m@000000000000/virtualNode/web",
            "arn:aws:appmesh:eu-west-1:000000000000:mesh/m/virtualNode/web",
        ] {
            assert_eq!(resolve(id, "000000000000").unwrap(), node, "{id}");
        }
        for id in [
            "arn:aws:appmesh:us-east-1:123456789012:mesh/m/virtualNode/web",
            "mesh/m@123456789012/virtualNode/web",
            "arn:aws:appmesh:us-east-1:000000000000:mesh/m@123456789012/virtualNode/web",
        ] {
            let foreign = ResourceKey::virtual_node("m@123456789012", "web");
            assert_eq!(resolve(id, "000000000000").unwrap(), foreign, "{id}");
        }
        assert!(matches!(
            resolve("mesh/m/virtualService/web", "000000000000"),
            Err(NodeIdError::Kind(_))
        ));
        assert!(matches!(
            resolve("web", "000000000000"),
            Err(NodeIdError::Name(_))
        ));
    }
}
