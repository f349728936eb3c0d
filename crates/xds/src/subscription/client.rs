// SPDX-License-Identifier: Apache-2.0
//! The client's view of a delta stream: what it asks for, which versions it holds, and the messages that say so. It
//! outlives streams: on a new one it tells the server what it already holds, and is sent only what differs.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::Versions;
use super::WILDCARD;
use crate::proto::core::Node;
use crate::proto::discovery::DeltaDiscoveryRequest;
use crate::proto::discovery::DeltaDiscoveryResponse;
use crate::proto::google::rpc::Code;
use crate::proto::google::rpc::Status;
use crate::resource::Rejected;
use crate::resource::ResourceType;
use crate::resource::UPDATE_ORDER;

/// Refusals spelled out in one NACK; the rest is counted.
const MAX_REASONS: usize = 20;

/// Everything a client asks for, over all its streams.
#[derive(Debug, Default)]
pub struct Subscriptions {
    kinds: BTreeMap<ResourceType, Watch>,
}

#[derive(Debug, Default)]
struct Watch {
    wildcard: bool,
    names: BTreeSet<String>,
    held: Versions,
}

impl Subscriptions {
    /// Everything of these types, and nothing by name yet.
    pub fn wildcard(kinds: &[ResourceType]) -> Subscriptions {
        let watch = |kind: &ResourceType| {
            let watch = Watch {
                wildcard: true,
                ..Watch::default()
            };
            (*kind, watch)
        };
        Subscriptions {
            kinds: kinds.iter().map(watch).collect(),
        }
    }

    /// Versions held from an earlier life, such as state on disk.
    pub fn restore(&mut self, kind: ResourceType, held: Versions) {
        self.kinds.entry(kind).or_default().held = held;
    }

    /// The first requests of a new stream, one per type that is asked for. The node stands in the first.
    pub fn open(&self, node: &Node) -> Vec<DeltaDiscoveryRequest> {
        let mut requests = Vec::new();
        for kind in UPDATE_ORDER {
            let Some(watch) = self.kinds.get(&kind) else {
                continue;
            };
            if !watch.wildcard && watch.names.is_empty() {
                continue;
            }
            requests.push(watch.open(kind));
        }
        if let Some(first) = requests.first_mut() {
            first.node = Some(node.clone());
        }
        requests
    }

    /// Asks for exactly these names of a type from now on. The request that says so, if anything changes; on a stream
    /// that is not open the change is kept for the next one.
    pub fn ask_for(
        &mut self,
        kind: ResourceType,
        names: BTreeSet<String>,
    ) -> Option<DeltaDiscoveryRequest> {
        let watch = self.kinds.entry(kind).or_default();
        let first = !watch.wildcard && watch.names.is_empty();
        let subscribe: Vec<String> = names.difference(&watch.names).cloned().collect();
        let unsubscribe: Vec<String> = watch.names.difference(&names).cloned().collect();
        if subscribe.is_empty() && unsubscribe.is_empty() {
            return None;
        }
        for name in &unsubscribe {
            watch.held.remove(name);
        }
        watch.names = names;
        if first {
            // What a restored client holds goes along, so that it is not sent again.
            return Some(watch.open(kind));
        }
        Some(DeltaDiscoveryRequest {
            type_url: kind.url().to_owned(),
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            ..Default::default()
        })
    }

    /// Names asked for one by one.
    pub fn names(&self, kind: ResourceType) -> impl Iterator<Item = &str> {
        let watch = self.kinds.get(&kind);
        watch
            .into_iter()
            .flat_map(|watch| watch.names.iter().map(String::as_str))
    }

    /// What is held of a type.
    pub fn held(&self, kind: ResourceType) -> Option<&Versions> {
        self.kinds.get(&kind).map(|watch| &watch.held)
    }

    /// Answers a response: an ACK if nothing was refused, else a NACK that names every refused resource. What was
    /// accepted counts as held either way; of what was refused the old version stays held.
    pub fn answer(
        &mut self,
        kind: ResourceType,
        response: &DeltaDiscoveryResponse,
        refused: &[Rejected],
    ) -> DeltaDiscoveryRequest {
        let watch = self.kinds.entry(kind).or_default();
        for resource in &response.resources {
            if !refused
                .iter()
                .any(|rejected| rejected.name == resource.name)
            {
                watch
                    .held
                    .insert(resource.name.clone(), resource.version.clone());
            }
        }
        for name in &response.removed_resources {
            if !refused.iter().any(|rejected| rejected.name == *name) {
                watch.held.remove(name);
            }
        }
        DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: (!refused.is_empty()).then(|| Status {
                code: Code::InvalidArgument.into(),
                message: reasons(refused),
                details: Vec::new(),
            }),
            ..Default::default()
        }
    }
}

impl Watch {
    fn open(&self, kind: ResourceType) -> DeltaDiscoveryRequest {
        let mut subscribe: Vec<String> = self.names.iter().cloned().collect();
        // Without names an empty request means everything; with names it has to be said.
        if self.wildcard && !subscribe.is_empty() {
            subscribe.push(WILDCARD.to_owned());
        }
        DeltaDiscoveryRequest {
            type_url: kind.url().to_owned(),
            resource_names_subscribe: subscribe,
            initial_resource_versions: self
                .held
                .iter()
                .map(|(name, version)| (name.clone(), version.clone()))
                .collect(),
            ..Default::default()
        }
    }
}

/// The text of a NACK.
pub fn reasons(refused: &[Rejected]) -> String {
    let mut texts: Vec<String> = refused
        .iter()
        .take(MAX_REASONS)
        .map(ToString::to_string)
        .collect();
    if refused.len() > MAX_REASONS {
        texts.push(format!("and {} more", refused.len() - MAX_REASONS));
    }
    texts.join("; ")
}
