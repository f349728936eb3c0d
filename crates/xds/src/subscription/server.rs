// SPDX-License-Identifier: Apache-2.0
//! The server's view of one stream: what the client asked for, what it was sent, what it acknowledged or refused.
//! Given a request it says what the request meant; given the current versions it says what to send next. One response
//! per type is in flight at a time, so a slow client is offered the newest state and never a queue of old ones.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::Versions;
use super::WILDCARD;
use crate::proto::discovery::DeltaDiscoveryRequest;
use crate::proto::discovery::DeltaDiscoveryResponse;
use crate::proto::discovery::DiscoveryRequest;
use crate::proto::discovery::DiscoveryResponse;
use crate::proto::google::rpc::Status;
use crate::resource::Resource;
use crate::resource::ResourceType;
use crate::resource::version_of;

/// Which of the two protocols a stream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `StreamAggregatedResources`: every response of LDS and CDS holds all there is.
    StateOfTheWorld,
    /// `DeltaAggregatedResources`: responses hold what changed.
    Delta,
}

/// What a request meant. Ask [`Stream::next`] after every request: names may have changed whatever else it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The first request of its type, or other names than before.
    Subscribed,
    /// The response in flight was applied.
    Acked {
        /// Its nonce.
        nonce: String,
    },
    /// The response in flight was refused; what it changed is not sent again until its version changes.
    Nacked {
        /// Its nonce.
        nonce: String,
        /// What the client says is wrong.
        reason: String,
        /// The versions that response carried.
        offered: Versions,
    },
    /// About an older response; nothing follows from it.
    Stale,
}

/// A request that belongs to no type of ours. The stream goes on; the request is not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("type_url {type_url:?} is not served; Pillion serves LDS, RDS, CDS, EDS and SDS")]
pub struct UnknownType {
    /// What was asked for.
    pub type_url: String,
}

/// What to send next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Type of all of it.
    pub kind: ResourceType,
    /// To be answered by the client.
    pub nonce: String,
    /// Names of the resources to put in, in order. In LDS and CDS of the state of the world all that is subscribed,
    /// else what is new or changed.
    pub resources: Vec<String>,
    /// Names that are gone (delta only; in the state of the world absence says it).
    pub removed: Vec<String>,
    /// Hash over names and versions of all the client will then hold.
    pub version: String,
}

impl Offer {
    /// As a state-of-the-world response. `find` yields resources of the snapshot that the offer was made from.
    pub fn into_response<'r>(
        self,
        mut find: impl FnMut(&str) -> Option<&'r Resource>,
    ) -> DiscoveryResponse {
        let found = self.resources.iter().filter_map(|name| find(name));
        DiscoveryResponse {
            resources: found.map(Resource::encode_any).collect(),
            version_info: self.version,
            type_url: self.kind.url().to_owned(),
            nonce: self.nonce,
            ..Default::default()
        }
    }

    /// As a delta response, with `versions` of the snapshot that the offer was made from.
    pub fn into_delta_response<'r>(
        self,
        versions: &Versions,
        mut find: impl FnMut(&str) -> Option<&'r Resource>,
    ) -> DeltaDiscoveryResponse {
        let mut resources = Vec::with_capacity(self.resources.len());
        for name in self.resources {
            let Some(resource) = find(&name) else {
                continue;
            };
            resources.push(crate::proto::discovery::Resource {
                version: versions.get(&name).cloned().unwrap_or_default(),
                resource: Some(resource.encode_any()),
                name,
                ..Default::default()
            });
        }
        DeltaDiscoveryResponse {
            system_version_info: self.version,
            resources,
            type_url: self.kind.url().to_owned(),
            removed_resources: self.removed,
            nonce: self.nonce,
            ..Default::default()
        }
    }
}

/// One stream, all its types.
#[derive(Debug)]
pub struct Stream {
    protocol: Protocol,
    kinds: BTreeMap<ResourceType, Watch>,
    sent: u64,
}

/// One type of a stream.
#[derive(Debug, Default)]
struct Watch {
    wildcard: bool,
    names: BTreeSet<String>,
    /// What the client holds or was offered, by name. A name that is subscribed and does not exist has `None`.
    sent: BTreeMap<String, Option<String>>,
    in_flight: Option<InFlight>,
    /// Nonce of the latest response, answered or not.
    latest: Option<String>,
    /// A request that must be answered, be it with nothing: a client waits for it before it calls itself ready.
    owed: bool,
    acked: Versions,
    refused: Option<Refused>,
}

#[derive(Debug)]
struct InFlight {
    nonce: String,
    offered: Versions,
    removed: Vec<String>,
}

/// The last refusal of a type that has not been followed by an acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What the client says is wrong.
    pub reason: String,
    /// The versions it was about.
    pub offered: Versions,
}

impl Stream {
    /// A stream on which nothing was said yet.
    pub fn new(protocol: Protocol) -> Stream {
        Stream {
            protocol,
            kinds: BTreeMap::new(),
            sent: 0,
        }
    }

    /// A state-of-the-world request.
    pub fn hear(&mut self, request: &DiscoveryRequest) -> Result<Heard, UnknownType> {
        let kind = known(&request.type_url)?;
        let first = !self.kinds.contains_key(&kind);
        let watch = self.kinds.entry(kind).or_default();
        // A nonce of an earlier stream means nothing here, so only a second request can be stale.
        if !first && watch.is_stale(&request.response_nonce) {
            return Ok(Heard::Stale);
        }
        let answer = watch.answered(&request.response_nonce, request.error_detail.as_ref());
        let changed = watch.ask_for(kind, &request.resource_names, first);
        watch.owed |= first || changed;
        Ok(answer.unwrap_or(Heard::Subscribed))
    }

    /// A delta request.
    pub fn hear_delta(&mut self, request: &DeltaDiscoveryRequest) -> Result<Heard, UnknownType> {
        let kind = known(&request.type_url)?;
        let first = !self.kinds.contains_key(&kind);
        let watch = self.kinds.entry(kind).or_default();
        if first {
            let held = request.initial_resource_versions.iter();
            watch.sent = held
                .map(|(name, version)| (name.clone(), Some(version.clone())))
                .collect();
            watch.acked = request
                .initial_resource_versions
                .clone()
                .into_iter()
                .collect();
            // An empty first request means everything, where a type can mean everything.
            watch.wildcard = request.resource_names_subscribe.is_empty() && has_wildcard(kind);
            watch.owed = true;
        }
        watch.subscribe(&request.resource_names_subscribe, first);
        watch.unsubscribe(&request.resource_names_unsubscribe);
        // Unlike in the state of the world, changes of names count whatever nonce they come with.
        let answer = if !first && watch.is_stale(&request.response_nonce) {
            Some(Heard::Stale)
        } else {
            watch.answered(&request.response_nonce, request.error_detail.as_ref())
        };
        Ok(answer.unwrap_or(Heard::Subscribed))
    }

    /// What this client lacks of one type, given the current versions, or nothing. Afterwards the offer counts as sent:
    /// nothing more of this type comes until the client has answered.
    pub fn next(&mut self, kind: ResourceType, current: &Versions) -> Option<Offer> {
        let protocol = self.protocol;
        let watch = self.kinds.get_mut(&kind)?;
        if watch.in_flight.is_some() {
            return None;
        }
        let change = watch.change(current);
        let complete = protocol == Protocol::StateOfTheWorld && has_wildcard(kind);
        let silent = change.changed.is_empty()
            && match protocol {
                // Only a complete response can say that something is gone.
                Protocol::StateOfTheWorld => !complete || change.removed.is_empty(),
                Protocol::Delta => change.removed.is_empty(),
            };
        if silent && !watch.owed {
            return None;
        }
        self.sent += 1;
        let nonce = self.sent.to_string();
        let resources = if complete || (watch.owed && protocol == Protocol::StateOfTheWorld) {
            watch
                .wanted(current)
                .map(|(name, _)| name.clone())
                .collect()
        } else {
            change.changed.clone()
        };
        watch.offer(nonce.clone(), &resources, change.removed.clone(), current);
        Some(Offer {
            kind,
            nonce,
            resources,
            removed: match protocol {
                Protocol::Delta => change.removed,
                Protocol::StateOfTheWorld => Vec::new(),
            },
            version: watch.version(),
        })
    }

    /// Has a resource sent again though its version is the same. Needed for EDS when a cluster is sent: Envoy warms the
    /// new cluster only with endpoints that arrive after it.
    pub fn forget(&mut self, kind: ResourceType, name: &str) {
        if let Some(watch) = self.kinds.get_mut(&kind) {
            watch.sent.remove(name);
        }
    }

    /// Whether a response of this type waits for its answer.
    pub fn in_flight(&self, kind: ResourceType) -> bool {
        self.kinds
            .get(&kind)
            .is_some_and(|watch| watch.in_flight.is_some())
    }

    /// Types the client asked for, in no order of importance.
    pub fn kinds(&self) -> impl Iterator<Item = ResourceType> {
        self.kinds.keys().copied()
    }

    /// Whether a resource of this name is asked for, by name or by wildcard.
    pub fn wants(&self, kind: ResourceType, name: &str) -> bool {
        self.kinds
            .get(&kind)
            .is_some_and(|watch| watch.wildcard || watch.names.contains(name))
    }

    /// Names asked for one by one.
    pub fn names(&self, kind: ResourceType) -> impl Iterator<Item = &str> {
        let watch = self.kinds.get(&kind);
        watch
            .into_iter()
            .flat_map(|watch| watch.names.iter().map(String::as_str))
    }

    /// What the client acknowledged and holds.
    pub fn acked(&self, kind: ResourceType) -> Option<&Versions> {
        self.kinds.get(&kind).map(|watch| &watch.acked)
    }

    /// What the client refused last, if it has not acknowledged anything since.
    pub fn refused(&self, kind: ResourceType) -> Option<&Refused> {
        self.kinds.get(&kind)?.refused.as_ref()
    }
}

fn known(type_url: &str) -> Result<ResourceType, UnknownType> {
    ResourceType::from_url(type_url).ok_or_else(|| UnknownType {
        type_url: type_url.to_owned(),
    })
}

/// LDS and CDS can be asked for whole; the others are asked for by name.
fn has_wildcard(kind: ResourceType) -> bool {
    matches!(kind, ResourceType::Listener | ResourceType::Cluster)
}

/// What differs between what a client was sent and what is.
struct Change {
    changed: Vec<String>,
    removed: Vec<String>,
}

impl Watch {
    /// About a response that another has followed. A request without nonce is about none.
    fn is_stale(&self, nonce: &str) -> bool {
        !nonce.is_empty() && self.latest.as_deref() != Some(nonce)
    }

    /// Settles the response in flight, if this nonce answers it.
    fn answered(&mut self, nonce: &str, error: Option<&Status>) -> Option<Heard> {
        let in_flight = self.in_flight.take_if(|it| it.nonce == nonce)?;
        let nonce = nonce.to_owned();
        match error {
            None => {
                for name in &in_flight.removed {
                    self.acked.remove(name);
                }
                self.acked.extend(in_flight.offered);
                self.refused = None;
                Some(Heard::Acked { nonce })
            }
            Some(status) => {
                self.refused = Some(Refused {
                    reason: status.message.clone(),
                    offered: in_flight.offered.clone(),
                });
                Some(Heard::Nacked {
                    nonce,
                    reason: status.message.clone(),
                    offered: in_flight.offered,
                })
            }
        }
    }

    /// Takes the names of a state-of-the-world request. Says whether something is asked for that was not before.
    fn ask_for(&mut self, kind: ResourceType, names: &[String], first: bool) -> bool {
        let asked: BTreeSet<String> = names.iter().cloned().collect();
        // No names at all means everything, until names were given once; then it means nothing.
        let unnamed = asked.is_empty() && has_wildcard(kind) && (first || self.names.is_empty());
        let keeps = unnamed && (first || self.wildcard);
        self.wildcard = keeps || asked.contains(WILDCARD);
        let mut asked = asked;
        asked.remove(WILDCARD);
        let more = asked.difference(&self.names).next().is_some();
        for gone in self.names.difference(&asked) {
            self.sent.remove(gone);
        }
        // A name asked for anew is sent even if an earlier subscription had it.
        for new in asked.difference(&self.names) {
            self.sent.remove(new);
        }
        self.names = asked;
        more
    }

    fn subscribe(&mut self, names: &[String], first: bool) {
        for name in names {
            if name == WILDCARD {
                self.owed |= !self.wildcard;
                self.wildcard = true;
                continue;
            }
            self.names.insert(name.clone());
            // Asked for again means sent again, unless the client just said that it holds it.
            if !first {
                self.sent.remove(name);
            }
        }
    }

    fn unsubscribe(&mut self, names: &[String]) {
        for name in names {
            if name == WILDCARD {
                self.wildcard = false;
            } else {
                self.names.remove(name);
            }
            // The client has let go of it; whoever still wants it by wildcard gets it anew.
            self.sent.remove(name);
            self.acked.remove(name);
        }
        if !self.wildcard {
            let names = &self.names;
            self.sent.retain(|name, _| names.contains(name));
            self.acked.retain(|name, _| names.contains(name));
        }
    }

    fn wanted<'v>(&self, current: &'v Versions) -> impl Iterator<Item = (&'v String, &'v String)> {
        current
            .iter()
            .filter(|(name, _)| self.wildcard || self.names.contains(*name))
    }

    fn change(&self, current: &Versions) -> Change {
        let changed = self
            .wanted(current)
            .filter(|(name, version)| self.sent.get(*name) != Some(&Some((*version).clone())))
            .map(|(name, _)| name.clone())
            .collect();
        let held = self.sent.iter().filter(|(_, version)| version.is_some());
        let gone = held.map(|(name, _)| name);
        // A name that is asked for and does not exist is said to be removed, once.
        let missing = self
            .names
            .iter()
            .filter(|name| !self.sent.contains_key(*name));
        let removed: BTreeSet<&String> = gone
            .chain(missing)
            .filter(|name| !current.contains_key(*name))
            .collect();
        Change {
            changed,
            removed: removed.into_iter().cloned().collect(),
        }
    }

    fn offer(&mut self, nonce: String, names: &[String], removed: Vec<String>, current: &Versions) {
        let mut offered = Versions::new();
        for name in names {
            if let Some(version) = current.get(name) {
                offered.insert(name.clone(), version.clone());
                self.sent.insert(name.clone(), Some(version.clone()));
            }
        }
        for name in &removed {
            if self.names.contains(name) {
                self.sent.insert(name.clone(), None);
            } else {
                self.sent.remove(name);
            }
        }
        self.owed = false;
        self.latest = Some(nonce.clone());
        self.in_flight = Some(InFlight {
            nonce,
            offered,
            removed,
        });
    }

    fn version(&self) -> String {
        let mut bytes = Vec::new();
        for (name, version) in &self.sent {
            for part in [name.as_str(), version.as_deref().unwrap_or_default()] {
                bytes.extend_from_slice(part.as_bytes());
                bytes.push(0);
            }
        }
        version_of(&bytes)
    }
}
