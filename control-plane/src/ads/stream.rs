// SPDX-License-Identifier: Apache-2.0
//! One proxy's stream without its socket: requests and snapshots in, responses out, in an order that never breaks
//! what serves. Driven by `server.rs`; versions, nonces and acknowledgements are `pillion_xds::subscription`'s.
//!
//! Make before break: secrets, clusters and endpoints go first; listeners and routes wait until the client has
//! acknowledged the clusters (Envoy withholds that until a new cluster is warm); a cluster that is gone is taken away
//! only after the routes that led to it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use pillion_xds::cluster::Discovery;
use pillion_xds::proto::core::Node;
use pillion_xds::proto::discovery::DeltaDiscoveryRequest;
use pillion_xds::proto::discovery::DeltaDiscoveryResponse;
use pillion_xds::proto::discovery::DiscoveryRequest;
use pillion_xds::proto::discovery::DiscoveryResponse;
use pillion_xds::resource::Resource;
use pillion_xds::resource::ResourceType;
use pillion_xds::resource::UPDATE_ORDER;
use pillion_xds::subscription::server::Heard;
use pillion_xds::subscription::server::Offer;
use pillion_xds::subscription::server::Protocol;
use pillion_xds::subscription::server::Stream;
use pillion_xds::subscription::server::UnknownType;
use tokio::time::Instant;

use crate::publish::snapshot::Snapshot;
use crate::publish::snapshot::Table;

/// A cluster that does not get warm must not hold back routes to others for longer than this.
const WARMING: Duration = Duration::from_secs(5);

/// The messages of one of the two protocols.
pub trait Wire: Send + 'static {
    /// What clients send.
    type Request: Send + 'static;
    /// What they get.
    type Response: Send + 'static;
    /// Which of the two.
    const PROTOCOL: Protocol;
    /// Who the client is; required in its first request.
    fn node(request: &Self::Request) -> Option<&Node>;
    /// The type a request is about.
    fn type_url(request: &Self::Request) -> &str;
    /// Takes a request in.
    fn hear(stream: &mut Stream, request: &Self::Request) -> Result<Heard, UnknownType>;
    /// The message that makes an offer.
    fn response(offer: Offer, table: &Table) -> Self::Response;
}

/// `StreamAggregatedResources`.
pub struct StateOfTheWorld;

impl Wire for StateOfTheWorld {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;
    const PROTOCOL: Protocol = Protocol::StateOfTheWorld;

    fn node(request: &DiscoveryRequest) -> Option<&Node> {
        request.node.as_ref()
    }

    fn type_url(request: &DiscoveryRequest) -> &str {
        &request.type_url
    }

    fn hear(stream: &mut Stream, request: &DiscoveryRequest) -> Result<Heard, UnknownType> {
        stream.hear(request)
    }

    fn response(offer: Offer, table: &Table) -> DiscoveryResponse {
        offer.into_response(|name| table.get(name).map(Arc::as_ref))
    }
}

/// `DeltaAggregatedResources`.
pub struct Delta;

impl Wire for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;
    const PROTOCOL: Protocol = Protocol::Delta;

    fn node(request: &DeltaDiscoveryRequest) -> Option<&Node> {
        request.node.as_ref()
    }

    fn type_url(request: &DeltaDiscoveryRequest) -> &str {
        &request.type_url
    }

    fn hear(stream: &mut Stream, request: &DeltaDiscoveryRequest) -> Result<Heard, UnknownType> {
        stream.hear_delta(request)
    }

    fn response(offer: Offer, table: &Table) -> DeltaDiscoveryResponse {
        offer.into_delta_response(table.versions(), |name| table.get(name).map(Arc::as_ref))
    }
}

/// A response and what the fleet notes of it.
pub struct Outgoing<R> {
    /// Its type.
    pub kind: ResourceType,
    /// Its version.
    pub version: String,
    /// The message.
    pub message: R,
}

/// See the module.
pub struct Session {
    stream: Stream,
    snapshot: Arc<Snapshot>,
    /// Clusters and endpoints that the snapshot no longer has and that routes at the client may still lead to.
    leaving: [Table; 2],
    clusters_sent: Option<Instant>,
}

const LEAVING: [ResourceType; 2] = [ResourceType::Cluster, ResourceType::Endpoint];

impl Session {
    /// A stream on which nothing was said, of a proxy with this snapshot.
    pub fn new(protocol: Protocol, snapshot: Arc<Snapshot>) -> Session {
        Session {
            stream: Stream::new(protocol),
            snapshot,
            leaving: [Table::default(), Table::default()],
            clusters_sent: None,
        }
    }

    /// Takes a request in.
    pub fn hear<W: Wire>(&mut self, request: &W::Request) -> Result<Heard, UnknownType> {
        W::hear(&mut self.stream, request)
    }

    /// From now on this is what the proxy should have.
    pub fn replace(&mut self, snapshot: Arc<Snapshot>) {
        for (kind, leaving) in LEAVING.into_iter().zip(&mut self.leaving) {
            let (old, new) = (self.snapshot.table(kind), snapshot.table(kind));
            let mut next = Table::default();
            for (from, name) in old
                .versions()
                .keys()
                .map(|name| (old, name))
                .chain(leaving.versions().keys().map(|name| (&*leaving, name)))
            {
                if new.get(name).is_none() {
                    next.adopt(name, from);
                }
            }
            *leaving = next;
        }
        self.snapshot = snapshot;
    }

    /// Whether the client asks for a secret of this name and there is none yet.
    pub fn lacks_secret(&self, name: &str) -> bool {
        self.stream.wants(ResourceType::Secret, name)
            && self.snapshot.get(ResourceType::Secret, name).is_none()
    }

    /// Whether the client has answered for everything it was sent.
    pub fn is_quiet(&self) -> bool {
        UPDATE_ORDER
            .into_iter()
            .all(|kind| !self.stream.in_flight(kind))
    }

    /// When [`Session::fill`] would have more to say although nothing else happened.
    pub fn wake_at(&self) -> Option<Instant> {
        self.clusters_sent
            .filter(|_| self.stream.in_flight(ResourceType::Cluster))
            .map(|sent| sent + WARMING)
    }

    /// Every response that may go out now.
    pub fn fill<W: Wire>(&mut self, now: Instant) -> Vec<Outgoing<W::Response>> {
        let mut out = Vec::new();
        for kind in UPDATE_ORDER {
            if !self.held_back(kind, now) {
                out.extend(self.offer::<W>(kind, now));
            }
        }
        if self
            .leaving
            .iter()
            .any(|table| !table.versions().is_empty())
            && self.settled(now)
        {
            self.leaving = [Table::default(), Table::default()];
            out.extend(
                LEAVING
                    .into_iter()
                    .filter_map(|kind| self.offer::<W>(kind, now)),
            );
        }
        out
    }

    fn held_back(&self, kind: ResourceType, now: Instant) -> bool {
        matches!(kind, ResourceType::Listener | ResourceType::Route)
            && self.stream.in_flight(ResourceType::Cluster)
            && self.clusters_sent.is_some_and(|sent| now < sent + WARMING)
    }

    /// Whether the client has answered all that could still lead to what is leaving.
    fn settled(&self, now: Instant) -> bool {
        [ResourceType::Listener, ResourceType::Route]
            .into_iter()
            .all(|kind| !self.held_back(kind, now) && !self.stream.in_flight(kind))
    }

    fn offer<W: Wire>(
        &mut self,
        kind: ResourceType,
        now: Instant,
    ) -> Option<Outgoing<W::Response>> {
        // Only clusters and endpoints may be more than the snapshot says; all else is read where it stands.
        let table = match LEAVING.iter().position(|one| *one == kind) {
            Some(index) if !self.leaving[index].versions().is_empty() => {
                Cow::Owned(self.snapshot.table(kind).with(&self.leaving[index]))
            }
            // A client that asks for no listener in particular is a proxy, and gets what a proxy binds.
            Some(_) | None if kind == ResourceType::Listener && !self.stream.wants(kind, "") => {
                Cow::Owned(self.snapshot.table(kind).with(self.snapshot.on_demand()))
            }
            Some(_) | None => Cow::Borrowed(self.snapshot.table(kind)),
        };
        let offer = self.stream.next(kind, table.versions())?;
        if kind == ResourceType::Cluster {
            self.clusters_sent = Some(now);
            // Envoy warms a cluster that it was sent only with endpoints that come after it.
            for name in &offer.resources {
                if let Some(Resource::Cluster(cluster)) = table.get(name).map(Arc::as_ref)
                    && let Discovery::Eds(service) = &cluster.discovery
                {
                    self.stream
                        .forget(ResourceType::Endpoint, service.as_deref().unwrap_or(name));
                }
            }
        }
        let version = offer.version.clone();
        Some(Outgoing {
            kind,
            version,
            message: W::response(offer, &table),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::cluster::original_destination;
    use pillion_xds::route::RouteConfiguration;

    fn snapshot(clusters: &[&str]) -> Arc<Snapshot> {
        let table = RouteConfiguration {
            name: format!("to {clusters:?}"),
            virtual_hosts: Vec::new(),
        };
        let table = Resource::Route(RouteConfiguration {
            name: "r".into(),
            ..table
        });
        let clusters = clusters
            .iter()
            .map(|name| Resource::Cluster(original_destination(name)));
        Arc::new(Snapshot::checked(1, clusters.chain([table]).collect()).unwrap())
    }

    fn ask(session: &mut Session, kind: ResourceType, nonce: &str) {
        let request = DiscoveryRequest {
            type_url: kind.url().to_owned(),
            response_nonce: nonce.to_owned(),
            resource_names: if kind == ResourceType::Route {
                vec!["r".to_owned()]
            } else {
                Vec::new()
            },
            ..Default::default()
        };
        session.hear::<StateOfTheWorld>(&request).unwrap();
    }

    fn kinds(sent: &[Outgoing<DiscoveryResponse>]) -> Vec<ResourceType> {
        sent.iter().map(|one| one.kind).collect()
    }

    #[test]
    fn routes_wait_for_clusters_to_be_acknowledged() {
        let mut session = Session::new(Protocol::StateOfTheWorld, snapshot(&["a"]));
        ask(&mut session, ResourceType::Route, "");
        ask(&mut session, ResourceType::Cluster, "");
        let sent = session.fill::<StateOfTheWorld>(Instant::now());
        assert_eq!(kinds(&sent), [ResourceType::Cluster]);
        ask(&mut session, ResourceType::Cluster, &sent[0].message.nonce);
        assert_eq!(
            kinds(&session.fill::<StateOfTheWorld>(Instant::now())),
            [ResourceType::Route]
        );
    }

    #[test]
    fn a_cluster_that_never_gets_warm_holds_nobody_up_for_long() {
        let mut session = Session::new(Protocol::StateOfTheWorld, snapshot(&["a"]));
        ask(&mut session, ResourceType::Cluster, "");
        ask(&mut session, ResourceType::Route, "");
        assert_eq!(session.fill::<StateOfTheWorld>(Instant::now()).len(), 1);
        let wake_at = session.wake_at().unwrap();
        assert_eq!(
            kinds(&session.fill::<StateOfTheWorld>(wake_at)),
            [ResourceType::Route]
        );
    }

    #[test]
    fn a_cluster_leaves_after_the_client_has_answered_for_its_routes() {
        let now = Instant::now();
        let mut session = Session::new(Protocol::StateOfTheWorld, snapshot(&["a", "b"]));
        ask(&mut session, ResourceType::Cluster, "");
        let sent = session.fill::<StateOfTheWorld>(now);
        ask(&mut session, ResourceType::Cluster, &sent[0].message.nonce);
        ask(&mut session, ResourceType::Route, "");
        let routes = session.fill::<StateOfTheWorld>(now);
        session.replace(snapshot(&["a"]));
        assert!(
            session.fill::<StateOfTheWorld>(now).is_empty(),
            "routes are still on their way"
        );
        ask(&mut session, ResourceType::Route, &routes[0].message.nonce);
        let sent = session.fill::<StateOfTheWorld>(now);
        assert_eq!(kinds(&sent), [ResourceType::Cluster]);
        assert_eq!(sent[0].message.resources.len(), 1);
    }
}
