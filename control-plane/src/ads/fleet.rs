// SPDX-License-Identifier: Apache-2.0
//! Who is connected, who runs which version, who refused what and why. Written by the streams, read by `/fleet` and
//! the metrics; nobody asks the streams themselves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use jiff::Timestamp;
use parking_lot::Mutex;
use pillion_config::ResourceKey;
use pillion_xds::resource::ResourceType;
use pillion_xds::subscription::Versions;
use pillion_xds::subscription::server::Protocol;
use prometheus::IntCounterVec;
use prometheus::IntGaugeVec;
use prometheus::Opts;
use prometheus::Registry;
use serde::Serialize;

use crate::publish::Publisher;

/// Proxies whose refusals are kept.
const MAX_REFUSALS: usize = 10_000;
/// Of a client's words, in characters.
const MAX_REASON: usize = 4096;
/// Resources named in one refusal.
const MAX_NAMES: usize = 100;

/// See the module.
pub struct Fleet {
    connections: Mutex<BTreeMap<u64, Connected>>,
    /// By proxy and type, whether it is connected still or not, until it accepts something again.
    refused: Mutex<BTreeMap<String, BTreeMap<&'static str, Nack>>>,
    next: std::sync::atomic::AtomicU64,
    streams: IntGaugeVec,
    responses: IntCounterVec,
    answers: IntCounterVec,
}

/// One stream as people see it.
#[derive(Clone, Debug, Serialize)]
pub struct Connected {
    /// The resource it is a proxy of.
    pub proxy: String,
    /// As the client named itself.
    pub node_id: String,
    /// `node.cluster` of the client.
    pub cluster: String,
    /// What software it says it is.
    pub user_agent: String,
    /// `sotw` or `delta`.
    pub protocol: &'static str,
    /// Address it came from.
    pub peer: Option<SocketAddr>,
    /// RFC 3339.
    pub connected_at: String,
    /// By type.
    pub types: BTreeMap<&'static str, TypeState>,
}

/// One type of a stream.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TypeState {
    /// Version of the last response.
    pub sent: Option<String>,
    /// Version that the client runs.
    pub acked: Option<String>,
    /// The last refusal, until something is accepted again.
    pub nack: Option<Nack>,
}

/// A refusal.
#[derive(Clone, Debug, Serialize)]
pub struct Nack {
    /// The refused version.
    pub version: Option<String>,
    /// In the client's words.
    pub reason: String,
    /// Resources that the refused response carried.
    pub resources: Vec<String>,
    /// RFC 3339.
    pub at: String,
}

/// What a stream knows about its client when it begins.
pub struct Arrival {
    /// The resource it is a proxy of.
    pub key: ResourceKey,
    /// `node.id`.
    pub node_id: String,
    /// `node.cluster`.
    pub cluster: String,
    /// `node.user_agent_name` and version.
    pub user_agent: String,
    /// Which of the two.
    pub protocol: Protocol,
    /// Address it came from.
    pub peer: Option<SocketAddr>,
}

impl Fleet {
    /// Nobody connected; its metrics are in `registry`.
    pub fn new(registry: &Registry) -> Result<Arc<Fleet>, prometheus::Error> {
        let streams = IntGaugeVec::new(
            Opts::new("pillion_xds_streams", "Connected ADS streams."),
            &["protocol"],
        )?;
        let responses = Opts::new("pillion_xds_responses_total", "Responses sent over ADS.");
        let responses = IntCounterVec::new(responses, &["type"])?;
        let answers = Opts::new(
            "pillion_xds_answers_total",
            "Responses that clients accepted (ack) or refused (nack).",
        );
        let answers = IntCounterVec::new(answers, &["type", "answer"])?;
        registry.register(Box::new(streams.clone()))?;
        registry.register(Box::new(responses.clone()))?;
        registry.register(Box::new(answers.clone()))?;
        let connections = Mutex::new(BTreeMap::new());
        Ok(Arc::new(Fleet {
            connections,
            refused: Mutex::default(),
            next: std::sync::atomic::AtomicU64::new(0),
            streams,
            responses,
            answers,
        }))
    }

    /// A stream has said who it is. It counts as connected until the returned value is dropped.
    pub fn arrive(self: &Arc<Self>, arrival: Arrival) -> Connection {
        let id = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let protocol = match arrival.protocol {
            Protocol::StateOfTheWorld => "sotw",
            Protocol::Delta => "delta",
        };
        tracing::info!(proxy = %arrival.key, protocol, user_agent = arrival.user_agent, "proxy connected");
        self.streams.with_label_values(&[protocol]).inc();
        let connected = Connected {
            proxy: arrival.key.id(),
            node_id: arrival.node_id,
            cluster: arrival.cluster,
            user_agent: arrival.user_agent,
            protocol,
            peer: arrival.peer,
            connected_at: now(),
            types: BTreeMap::new(),
        };
        self.connections.lock().insert(id, connected);
        Connection {
            fleet: Arc::clone(self),
            id,
            protocol,
            proxy: arrival.key,
        }
    }

    /// What proxies refused last and have not accepted since, by proxy and type.
    pub fn refusals(&self) -> BTreeMap<String, BTreeMap<&'static str, Nack>> {
        self.refused.lock().clone()
    }

    /// How many streams proxies of `key` hold.
    pub fn streams_of(&self, key: &ResourceKey) -> usize {
        let id = key.id();
        let connections = self.connections.lock();
        connections.values().filter(|one| one.proxy == id).count()
    }

    /// Everybody who is connected.
    pub fn report(&self) -> Vec<Connected> {
        self.connections.lock().values().cloned().collect()
    }
}

/// One stream's entry in the fleet.
pub struct Connection {
    fleet: Arc<Fleet>,
    id: u64,
    protocol: &'static str,
    proxy: ResourceKey,
}

impl Connection {
    /// A response was handed to the stream.
    pub fn sent(&self, kind: ResourceType, version: &str) {
        self.fleet.responses.with_label_values(&[word(kind)]).inc();
        self.change(kind, |state| state.sent = Some(version.to_owned()));
    }

    /// The last response of this type runs.
    pub fn acked(&self, kind: ResourceType) {
        self.fleet
            .answers
            .with_label_values(&[word(kind), "ack"])
            .inc();
        self.change(kind, |state| {
            state.acked.clone_from(&state.sent);
            state.nack = None;
        });
        let mut refused = self.fleet.refused.lock();
        let id = self.proxy.id();
        if let Some(types) = refused.get_mut(&id) {
            types.remove(word(kind));
            if types.is_empty() {
                refused.remove(&id);
            }
        }
    }

    /// The last response of this type was refused.
    pub fn nacked(&self, kind: ResourceType, reason: &str, offered: &Versions) {
        self.fleet
            .answers
            .with_label_values(&[word(kind), "nack"])
            .inc();
        let resources: Vec<String> = offered.keys().cloned().collect();
        tracing::warn!(proxy = %self.proxy, kind = word(kind), reason, ?resources, "proxy refused a response");
        let mut kept = None;
        self.change(kind, |state| {
            state.nack = Some(Nack {
                version: state.sent.clone(),
                reason: reason.chars().take(MAX_REASON).collect(),
                resources: resources.into_iter().take(MAX_NAMES).collect(),
                at: now(),
            });
            kept.clone_from(&state.nack);
        });
        let mut refused = self.fleet.refused.lock();
        if let Some(nack) = kept
            && (refused.len() < MAX_REFUSALS || refused.contains_key(&self.proxy.id()))
        {
            refused
                .entry(self.proxy.id())
                .or_default()
                .insert(word(kind), nack);
        }
    }

    fn change(&self, kind: ResourceType, with: impl FnOnce(&mut TypeState)) {
        if let Some(connected) = self.fleet.connections.lock().get_mut(&self.id) {
            with(connected.types.entry(word(kind)).or_default());
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.fleet.connections.lock().remove(&self.id);
        self.fleet.streams.with_label_values(&[self.protocol]).dec();
        tracing::info!(proxy = %self.proxy, protocol = self.protocol, "proxy disconnected");
    }
}

fn word(kind: ResourceType) -> &'static str {
    match kind {
        ResourceType::Cluster => "cluster",
        ResourceType::Endpoint => "endpoint",
        ResourceType::Listener => "listener",
        ResourceType::Route => "route",
        ResourceType::Secret => "secret",
    }
}

fn now() -> String {
    Timestamp::try_from(SystemTime::now()).map_or_else(
        |_| String::new(),
        |now| now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    )
}

/// `GET /fleet`, for the admin server.
pub fn router(fleet: Arc<Fleet>, publisher: Arc<Publisher>) -> Router {
    Router::new()
        .route("/fleet", get(report))
        .with_state((fleet, publisher))
}

async fn report(
    State((fleet, publisher)): State<(Arc<Fleet>, Arc<Publisher>)>,
) -> Json<serde_json::Value> {
    Json(serde_json::json!({ "streams": fleet.report(), "published": publisher.report() }))
}
