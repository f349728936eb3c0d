// SPDX-License-Identifier: Apache-2.0
//! The delta ADS stream: opens it, opens it again when it ends, answers every response with an ACK or a NACK that names
//! what was refused, and asks for what accepted resources name. While the control plane is away the last configuration
//! serves; at a start without it, the one on disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pillion_xds::proto::core::Node as ProtoNode;
use pillion_xds::proto::core::node::UserAgentVersionType;
use pillion_xds::proto::discovery::DeltaDiscoveryRequest;
use pillion_xds::proto::discovery::DeltaDiscoveryResponse;
use pillion_xds::proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use pillion_xds::proto::google::protobuf;
use pillion_xds::resource::Rejected;
use pillion_xds::resource::ResourceType;
use pillion_xds::resource::UPDATE_ORDER;
use pillion_xds::resource::decode_delta;
use pillion_xds::subscription::client::Subscriptions;
use rand::Rng;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::transport::Endpoint;

use super::apply::Applier;
use super::join::Joined;
use super::status::Outcome;
use super::status::Status;
use crate::config::Config;
use crate::config::XdsEndpoint;
use crate::state::StateDir;

/// Requests waiting to be written: one answer per response and at most three subscriptions, so this is never full
/// unless the control plane stops reading; then reading stops too.
const REQUESTS: usize = 32;
/// A response beyond this is refused by the transport.
const MAX_RESPONSE: usize = 64 << 20;
/// App Mesh's keepalive.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Waits between streams grow from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// A control plane that has not answered by then is away as far as a start is concerned: what stands on disk serves.
const PATIENCE: Duration = Duration::from_millis(50);

/// Types that are asked for by the names which others mention.
const BY_NAME: [ResourceType; 3] = [
    ResourceType::Secret,
    ResourceType::Endpoint,
    ResourceType::Route,
];

/// What the stream works on. Clones share it.
#[derive(Clone)]
pub struct Control {
    /// Accepted resources; the lock is held for one response and never over an await.
    pub applier: Arc<Mutex<Applier>>,
    /// How it goes.
    pub status: Status,
    /// Counts changes of what was accepted: the state on disk and the identity look again.
    pub changed: Arc<watch::Sender<u64>>,
}

impl Control {
    /// Nothing accepted yet.
    pub fn new(applier: Applier, status: Status) -> Control {
        let (changed, _) = watch::channel(0);
        Control {
            applier: Arc::new(Mutex::new(applier)),
            status,
            changed: Arc::new(changed),
        }
    }
}

/// A channel that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The endpoint is no URI.
    #[error("use {uri} as xDS endpoint")]
    Endpoint {
        /// As configured.
        uri: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// The roots cannot be read.
    #[error("read the control plane's roots from {}", .path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A channel to the control plane; it connects when it is first used, and again when it must.
pub fn channel(endpoint: &XdsEndpoint) -> Result<Channel, ChannelError> {
    let wrong = |source| ChannelError::Endpoint {
        uri: endpoint.uri.clone(),
        source,
    };
    let mut builder = Endpoint::from_shared(endpoint.uri.clone())
        .map_err(wrong)?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    if let Some(path) = &endpoint.ca {
        let pem = std::fs::read(path).map_err(|source| ChannelError::Roots {
            path: path.clone(),
            source,
        })?;
        let roots = tonic::transport::Certificate::from_pem(pem);
        let tls = tonic::transport::ClientTlsConfig::new().ca_certificate(roots);
        builder = builder.tls_config(tls).map_err(wrong)?;
    }
    Ok(builder.connect_lazy())
}

/// Keeps the stream until the token fires. Ends early never.
pub async fn keep(config: &Config, channel: Joined, control: Control, stop: CancellationToken) {
    let mut client = Client {
        node: node(config),
        ads: AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE),
        subscriptions: Subscriptions::wildcard(&[ResourceType::Cluster, ResourceType::Listener]),
        state: config
            .state_dir
            .clone()
            .map(|dir| StateDir::new(dir, &config.node.id)),
        control,
        served: false,
    };
    stop.run_until_cancelled(client.keep_streaming()).await;
}

/// How this proxy introduces itself.
pub fn node(config: &Config) -> ProtoNode {
    let text = |text: &str| protobuf::Value {
        kind: Some(protobuf::value::Kind::StringValue(text.to_owned())),
    };
    let metadata = [("pillion.proxy".to_owned(), text(env!("CARGO_PKG_VERSION")))];
    ProtoNode {
        id: config.node.id.clone(),
        cluster: config.node.cluster.clone(),
        metadata: Some(protobuf::Struct {
            fields: metadata.into(),
        }),
        user_agent_name: "pillion-proxy".to_owned(),
        user_agent_version_type: Some(UserAgentVersionType::UserAgentVersion(
            env!("CARGO_PKG_VERSION").to_owned(),
        )),
        ..ProtoNode::default()
    }
}

struct Client {
    node: ProtoNode,
    ads: AggregatedDiscoveryServiceClient<Joined>,
    subscriptions: Subscriptions,
    state: Option<StateDir>,
    control: Control,
    /// Some configuration is in force: from a stream, or from disk.
    served: bool,
}

impl Client {
    async fn keep_streaming(&mut self) {
        let mut wait = BACKOFF.0;
        loop {
            let (responses, why) = self.stream().await;
            if responses > 0 {
                wait = BACKOFF.0;
            }
            self.control.status.disconnected(&why);
            self.start_from_disk().await;
            // Full jitter, so that a fleet does not come back in step.
            let pause = wait.mul_f64(rand::rng().random_range(0.5..1.0));
            tracing::warn!(
                reason = why,
                retry_in_s = pause.as_secs_f64(),
                "control plane is away; serving goes on"
            );
            tokio::time::sleep(pause).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    /// One stream, to its end: how many responses came, and why it ended.
    async fn stream(&mut self) -> (u64, String) {
        let (requests, outgoing) = mpsc::channel(REQUESTS);
        for request in self.subscriptions.open(&self.node) {
            // A fresh channel of 32 takes the five of an opening.
            if requests.try_send(request).is_err() {
                return (0, "the opening requests do not fit their queue".to_owned());
            }
        }
        let mut ads = self.ads.clone();
        let opened = ads.delta_aggregated_resources(ReceiverStream::new(outgoing));
        // A network that swallows packets must not cost a start its five seconds.
        let patience = if self.served || self.state.is_none() {
            Duration::MAX
        } else {
            PATIENCE
        };
        let mut responses = match tokio::time::timeout(patience, opened).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return (0, describe(&status)),
            Err(_) => return (0, format!("no answer within {PATIENCE:?}")),
        };
        self.control.status.connected();
        tracing::info!(node = self.node.id, "connected to the control plane");
        let mut number = 0;
        loop {
            let next = match responses.message().await {
                Ok(Some(response)) => response,
                Ok(None) => return (number, "the control plane closed the stream".to_owned()),
                Err(status) => return (number, describe(&status)),
            };
            number += 1;
            for request in self.hear(&next) {
                if requests.send(request).await.is_err() {
                    return (number, "the control plane stopped reading".to_owned());
                }
            }
        }
    }

    /// The answer to a response, and the subscriptions that follow from it.
    fn hear(&mut self, response: &DeltaDiscoveryResponse) -> Vec<DeltaDiscoveryRequest> {
        let Some(kind) = ResourceType::from_url(&response.type_url) else {
            tracing::warn!(
                type_url = response.type_url,
                "response of a type that was not asked for"
            );
            return Vec::new();
        };
        self.served = true;
        let (accepted, mut refused) = decode_delta(kind, &response.resources);
        let mut applier = self.control.applier.lock();
        refused.extend(applier.apply(kind, accepted, &response.removed_resources));
        self.control
            .status
            .set_pending(applier.pending(), applier.version());
        let mut requests = vec![self.subscriptions.answer(kind, response, &refused)];
        for kind in BY_NAME {
            requests.extend(self.subscriptions.ask_for(kind, applier.wanted(kind)));
        }
        drop(applier);
        self.tell(kind, response, &refused);
        self.control.changed.send_modify(|changes| *changes += 1);
        requests
    }

    fn tell(&self, kind: ResourceType, response: &DeltaDiscoveryResponse, refused: &[Rejected]) {
        let outcome = if refused.is_empty() {
            Outcome::Applied
        } else {
            Outcome::Refused
        };
        self.control.status.updated(kind, outcome);
        for rejected in refused {
            tracing::warn!(
                ?kind,
                name = rejected.name,
                why = rejected.why,
                "resource refused; the last good one serves"
            );
        }
        tracing::info!(
            ?kind,
            resources = response.resources.len(),
            removed = response.removed_resources.len(),
            refused = refused.len(),
            version = response.system_version_info,
            "configuration received"
        );
    }

    /// Puts what stands on disk into force, unless something already is.
    async fn start_from_disk(&mut self) {
        if self.served {
            return;
        }
        self.served = true;
        let Some(state) = self.state.clone() else {
            return;
        };
        let loaded = match tokio::task::spawn_blocking(move || state.load()).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(error)) => {
                tracing::warn!(
                    error = crate::state::chain(&error),
                    "the configuration on disk cannot be used"
                );
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "the configuration on disk cannot be used");
                return;
            }
        };
        let mut applier = self.control.applier.lock();
        for (kind, resources) in loaded {
            let refused = applier.apply(kind, resources, &[]);
            for rejected in refused {
                tracing::warn!(
                    ?kind,
                    name = rejected.name,
                    why = rejected.why,
                    "resource on disk refused"
                );
            }
        }
        // No stream is open: the names go into the opening requests of the next one, with the versions held.
        for kind in BY_NAME {
            drop(self.subscriptions.ask_for(kind, applier.wanted(kind)));
        }
        for kind in UPDATE_ORDER {
            self.subscriptions.restore(kind, applier.versions(kind));
        }
        self.control
            .status
            .set_pending(applier.pending(), applier.version());
        drop(applier);
        self.control.changed.send_modify(|changes| *changes += 1);
        tracing::info!(
            "serving the last good configuration from disk until the control plane is back"
        );
    }
}

fn describe(status: &tonic::Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
