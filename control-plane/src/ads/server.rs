// SPDX-License-Identifier: Apache-2.0
//! The two ADS methods over tonic: finds out who a stream belongs to, then moves messages between its socket and its
//! [`Session`]. Decides nothing about resources.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use pillion_config::ResourceKey;
use pillion_runtime::tasks::Tasks;
use pillion_xds::proto::core::Node;
use pillion_xds::proto::core::node::UserAgentVersionType;
use pillion_xds::proto::discovery::DeltaDiscoveryRequest;
use pillion_xds::proto::discovery::DeltaDiscoveryResponse;
use pillion_xds::proto::discovery::DiscoveryRequest;
use pillion_xds::proto::discovery::DiscoveryResponse;
use pillion_xds::proto::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryService;
use pillion_xds::resource::ResourceType;
use pillion_xds::subscription::server::Heard;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::Streaming;

use super::Settings;
use super::chain;
use super::door::Peer;
use super::fleet::Arrival;
use super::fleet::Connection;
use super::fleet::Fleet;
use super::gate::Proof;
use super::stream::Delta;
use super::stream::Session;
use super::stream::StateOfTheWorld;
use super::stream::Wire;
use crate::identity;
use crate::identity::token::Tokens;
use crate::publish::Publisher;
use crate::publish::SubscribeError;
use crate::publish::Updates;
use crate::store::Live;
use crate::translate::spiffe_id;

/// Responses between a session and its socket. A session has one response of each type in flight, so this is never
/// full unless a client acknowledges what it has not read.
const QUEUE: usize = 16;

/// A stream that says nothing at all is none.
const SILENCE: Duration = Duration::from_secs(10);
/// After that a new client has had its turn, whether it has answered or not.
const FIRST_ANSWER: Duration = Duration::from_secs(3);

/// What every stream needs.
#[derive(Clone)]
pub struct Ads {
    /// Where snapshots come from.
    pub publisher: Arc<Publisher>,
    /// Where streams are noted.
    pub fleet: Arc<Fleet>,
    /// What exists.
    pub live: Arc<Live>,
    /// Who may join.
    pub tokens: Arc<Tokens>,
    /// Who we are.
    pub settings: Arc<Settings>,
    /// Streams that are being told everything for the first time.
    pub admission: Arc<Semaphore>,
    /// Streams run among these.
    pub tasks: Tasks,
}

type Responses<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Ok(Response::new(self.begin::<StateOfTheWorld>(request)))
    }

    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Ok(Response::new(self.begin::<Delta>(request)))
    }
}

impl Ads {
    fn begin<W: Wire>(&self, request: Request<Streaming<W::Request>>) -> Responses<W::Response> {
        let peer = request
            .extensions()
            .get::<Peer>()
            .and_then(|peer| peer.addr);
        let proof = request
            .extensions()
            .get::<Proof>()
            .cloned()
            .unwrap_or(Proof::None);
        let (out, responses) = mpsc::channel(QUEUE);
        let ads = self.clone();
        let inbound = request.into_inner();
        self.tasks.spawn("ads-stream", async move {
            if let Err(status) = ads.drive::<W>(inbound, &out, (proof, peer)).await {
                tracing::info!(code = ?status.code(), reason = status.message(), "stream ended");
                // A client that is gone does not hear why.
                drop(out.send(Err(status)).await);
            }
        });
        Box::pin(ReceiverStream::new(responses))
    }

    /// Runs one stream; `Ok` is an orderly end, after which clients connect again.
    async fn drive<W: Wire>(
        &self,
        mut inbound: Streaming<W::Request>,
        out: &mpsc::Sender<Result<W::Response, Status>>,
        (proof, peer): (Proof, Option<SocketAddr>),
    ) -> Result<(), Status> {
        let stop = self.tasks.stop();
        let first = tokio::select! {
            first = inbound.message() => first?,
            () = tokio::time::sleep(SILENCE) => {
                return Err(Status::deadline_exceeded("the stream asked nothing"));
            }
            () = stop.cancelled() => None,
        };
        let Some(first) = first else { return Ok(()) };
        let mut admitted = tokio::select! {
            admitted = Arc::clone(&self.admission).acquire_owned() => admitted.ok(),
            () = stop.cancelled() => return Ok(()),
        };
        let until = Instant::now() + FIRST_ANSWER;
        let mut tokens = self.tokens.changes();
        let (key, connection, mut updates) = self.identify::<W>(&first, &proof, peer)?;
        let mut session = Session::new(W::PROTOCOL, current(&mut updates, &key)?);
        hear::<W>(&mut session, &connection, &first);
        loop {
            self.provide_identity(&key, &mut session, &mut updates)?;
            for outgoing in session.fill::<W>(Instant::now()) {
                connection.sent(outgoing.kind, &outgoing.version);
                out.try_send(Ok(outgoing.message)).map_err(|_| {
                    Status::resource_exhausted(
                        "the client acknowledges responses that it does not read",
                    )
                })?;
            }
            // The first time is over once the client has answered for its listeners and clusters, or takes too long.
            if admitted.is_some() && (session.is_quiet() || Instant::now() >= until) {
                admitted = None;
            }
            let wake_at = session
                .wake_at()
                .into_iter()
                .chain(admitted.as_ref().map(|_| until))
                .min();
            tokio::select! {
                message = inbound.message() => match message? {
                    Some(request) => hear::<W>(&mut session, &connection, &request),
                    None => return Ok(()),
                },
                changed = updates.changed() => {
                    changed.map_err(|_| Status::unavailable("the control plane is stopping"))?;
                    session.replace(current(&mut updates, &key)?);
                }
                Ok(()) = tokens.changed() => self.check_token(&proof)?,
                () = sleep_until(wake_at) => {}
                () = out.closed() => return Ok(()),
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    fn identify<W: Wire>(
        &self,
        first: &W::Request,
        proof: &Proof,
        peer: Option<SocketAddr>,
    ) -> Result<(ResourceKey, Connection, Updates), Status> {
        let node = W::node(first).ok_or_else(|| {
            Status::invalid_argument("the first request of a stream must carry a node; set node.id to the resource's ARN")
        })?;
        let key = identity::resolve(&node.id, &self.settings.account)
            .map_err(|error| Status::invalid_argument(chain(&error)))?;
        let Settings {
            region,
            trust_domain,
            proxies,
            ..
        } = &*self.settings;
        proof.covers(&self.live.current(), &key, region, trust_domain)?;
        if let Some(limit) = proxies
            && self.fleet.streams_of(&key) >= *limit as usize
        {
            return Err(Status::resource_exhausted(format!(
                "{limit} proxies of {key} are connected already, the quota of this installation (--quota proxies=…)"
            )));
        }
        let updates = self
            .publisher
            .subscribe(&key)
            .map_err(|error| match error {
                SubscribeError::Unknown(_) => Status::invalid_argument(match key.mesh.rsplit_once('@') {
                    Some((_, owner)) => format!(
                        "{error}. This control plane's own account is {}: start it with --account {owner}, or correct \
                         APPMESH_RESOURCE_ARN",
                        self.settings.account
                    ),
                    None => error.to_string(),
                }),
                SubscribeError::Untranslatable(..) => Status::unavailable(error.to_string()),
            })?;
        let connection = self.fleet.arrive(Arrival {
            key: key.clone(),
            node_id: node.id.clone(),
            cluster: node.cluster.clone(),
            user_agent: user_agent(node),
            protocol: W::PROTOCOL,
            peer,
        });
        Ok((key, connection, updates))
    }

    /// A stream ends with the token that opened it, if that is revoked.
    fn check_token(&self, proof: &Proof) -> Result<(), Status> {
        match proof {
            Proof::Token(kept) if !self.tokens.holds(&kept.id) => {
                Err(Status::unauthenticated("the join token was revoked"))
            }
            Proof::Open | Proof::None | Proof::Key(_) | Proof::Token(_) | Proof::Certificate(_) => {
                Ok(())
            }
        }
    }

    /// Our own proxies have certificates signed and never ask for one; a stock Envoy does, and then it is made.
    fn provide_identity(
        &self,
        key: &ResourceKey,
        session: &mut Session,
        updates: &mut Updates,
    ) -> Result<(), Status> {
        if session.lacks_secret(&spiffe_id(&self.settings.trust_domain, key)) {
            self.publisher.provide_identity(key);
            session.replace(current(updates, key)?);
        }
        Ok(())
    }
}

fn hear<W: Wire>(session: &mut Session, connection: &Connection, request: &W::Request) {
    let Some(kind) = ResourceType::from_url(W::type_url(request)) else {
        tracing::debug!(
            type_url = W::type_url(request),
            "request for a type that is not served"
        );
        return;
    };
    match session.hear::<W>(request) {
        Ok(Heard::Acked { .. }) => connection.acked(kind),
        Ok(Heard::Nacked {
            reason, offered, ..
        }) => connection.nacked(kind, &reason, &offered),
        Ok(Heard::Subscribed | Heard::Stale) => {}
        Err(error) => tracing::debug!(%error, "request not answered"),
    }
}

/// The snapshot of now, which counts as seen.
fn current(
    updates: &mut Updates,
    key: &ResourceKey,
) -> Result<Arc<crate::publish::snapshot::Snapshot>, Status> {
    let snapshot = updates.borrow_and_update().clone();
    snapshot.ok_or_else(|| {
        Status::invalid_argument(format!("{key} was deleted; the proxy keeps what it has"))
    })
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn user_agent(node: &Node) -> String {
    let version = match &node.user_agent_version_type {
        Some(UserAgentVersionType::UserAgentVersion(version)) => version.clone(),
        Some(UserAgentVersionType::UserAgentBuildVersion(build)) => build
            .version
            .as_ref()
            .map(|version| {
                format!(
                    "{}.{}.{}",
                    version.major_number, version.minor_number, version.patch
                )
            })
            .unwrap_or_default(),
        None => String::new(),
    };
    format!("{} {version}", node.user_agent_name)
        .trim()
        .to_owned()
}
