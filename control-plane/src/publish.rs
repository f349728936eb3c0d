// SPDX-License-Identifier: Apache-2.0
//! From a revision of the model to one consistent snapshot per connected proxy. `ads.rs` subscribes a proxy here and is
//! woken when its snapshot changes; nothing is computed for proxies that are not there. A proxy whose view cannot be
//! translated keeps its last good snapshot, and [`Publisher::report`] says why.

pub mod snapshot;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use parking_lot::Mutex;
use pillion_config::Kind;
use pillion_config::ResourceKey;
use pillion_config::Resources;
use pillion_xds::resource::Resource;
use pillion_xds::secret::Secret;
use pillion_xds::secret::SecretValue;
use prometheus::IntCounterVec;
use prometheus::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::identity;
use crate::identity::Authority;
use crate::identity::Subject;
use crate::identity::authority::LEAF_LIFETIME;
use crate::identity::authority::Pair;
use crate::store::Live;
use crate::store::Model;
use crate::translate;
use snapshot::Snapshot;
use snapshot::Table;

/// Between looks at the age of certificates.
const RENEWAL_ROUND: Duration = Duration::from_secs(60);
/// With more changes than this at once it is cheaper to look at every connected proxy than to ask who is affected.
const MANY_CHANGES: usize = 16;

/// What a proxy's stream watches; `None` once the proxy's resource is deleted.
pub type Updates = watch::Receiver<Option<Arc<Snapshot>>>;

/// Why a proxy has no snapshots to watch.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    /// There is no such proxy in the model.
    #[error(
        "{0} does not exist; create it, the proxy will get its configuration when it connects again"
    )]
    Unknown(ResourceKey),
    /// There is, but nothing good could ever be made of it. An empty snapshot would tell the proxy to forget what it has.
    #[error("{0} has no configuration that holds together ({1}); the proxy keeps what it has")]
    Untranslatable(ResourceKey, String),
}

/// See the module.
pub struct Publisher {
    live: Arc<Live>,
    authority: Arc<Authority>,
    state: Mutex<State>,
    published: IntCounterVec,
}

struct State {
    /// The model that the snapshots were made from.
    model: Arc<Model>,
    proxies: BTreeMap<ResourceKey, Proxy>,
}

#[derive(Default)]
struct Proxy {
    sender: watch::Sender<Option<Arc<Snapshot>>>,
    /// A stream asked for the pair. Our own proxies have theirs signed and never do.
    wants_identity: bool,
    identity: Option<Identity>,
    findings: Vec<String>,
    error: Option<String>,
}

struct Identity {
    subject: Subject,
    pair: Pair,
    issued: SystemTime,
    /// Of whom, PEM.
    issuer: Arc<str>,
}

/// What is published to one proxy, for people.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    /// `mesh/M/virtualNode/N`.
    pub proxy: String,
    /// The revision of the model behind its snapshot; absent if there never was a good one.
    pub revision: Option<u64>,
    /// Hash of the snapshot.
    pub version: Option<String>,
    /// Why a later revision was not published.
    pub error: Option<String>,
    /// Parts of the model without effect for this proxy.
    pub findings: Vec<String>,
}

impl Publisher {
    /// Publishes the models of `live`; [`Publisher::run`] keeps it going.
    pub fn new(
        live: Arc<Live>,
        authority: Arc<Authority>,
        registry: &Registry,
    ) -> Result<Arc<Publisher>, prometheus::Error> {
        let published = IntCounterVec::new(
            prometheus::Opts::new(
                "pillion_snapshots_total",
                "Snapshots computed for connected proxies, by what came of them.",
            ),
            &["result"],
        )?;
        registry.register(Box::new(published.clone()))?;
        let state = State {
            model: live.current(),
            proxies: BTreeMap::new(),
        };
        Ok(Arc::new(Publisher {
            live,
            authority,
            state: Mutex::new(state),
            published,
        }))
    }

    /// The snapshots of a proxy from now on.
    pub fn subscribe(&self, key: &ResourceKey) -> Result<Updates, SubscribeError> {
        let mut state = self.state.lock();
        self.catch_up(&mut state);
        let State { model, proxies } = &mut *state;
        let proxy = proxies.entry(key.clone()).or_default();
        if proxy.sender.borrow().is_none() {
            self.publish(model, key, proxy);
        }
        if proxy.sender.borrow().is_some() {
            return Ok(proxy.sender.subscribe());
        }
        match proxy.error.clone() {
            Some(error) => Err(SubscribeError::Untranslatable(key.clone(), error)),
            None => {
                proxies.remove(key);
                Err(SubscribeError::Unknown(key.clone()))
            }
        }
    }

    /// Puts the proxy's certificate pair among its secrets, unless it is there: a stream asked for it by SDS.
    pub fn provide_identity(&self, key: &ResourceKey) {
        let mut state = self.state.lock();
        let State { model, proxies } = &mut *state;
        if let Some(proxy) = proxies.get_mut(key).filter(|proxy| !proxy.wants_identity) {
            proxy.wants_identity = true;
            self.publish(model, key, proxy);
        }
    }

    /// Publishes every revision and renews certificates until told to stop.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut revisions = self.live.subscribe();
        let mut renewal = tokio::time::interval(RENEWAL_ROUND);
        let mut authority = self.authority.changes();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = revisions.changed() => match changed {
                    Ok(()) => self.catch_up(&mut self.state.lock()),
                    Err(_) => return,
                },
                _ = renewal.tick() => self.renew_all(),
                // Bundles change, and pairs are of another issuer.
                Ok(()) = authority.changed() => self.publish_all(),
            }
        }
    }

    /// Of the identities it hands out.
    pub fn trust_domain(&self) -> &str {
        self.authority.trust_domain()
    }

    /// What is published, proxy by proxy.
    pub fn report(&self) -> Vec<Report> {
        let state = self.state.lock();
        let report = |(key, proxy): (&ResourceKey, &Proxy)| {
            let snapshot = proxy.sender.borrow().clone();
            Report {
                proxy: key.id(),
                revision: snapshot.as_ref().map(|snapshot| snapshot.revision),
                version: snapshot.as_ref().map(|snapshot| snapshot.version()),
                error: proxy.error.clone(),
                findings: proxy.findings.clone(),
            }
        };
        state.proxies.iter().map(report).collect()
    }

    /// Brings the snapshots of all connected proxies to the model of now.
    fn catch_up(&self, state: &mut State) {
        let model = self.live.current();
        if model.revision() == state.model.revision() {
            return;
        }
        state
            .proxies
            .retain(|_, proxy| proxy.sender.receiver_count() > 0);
        let changed = changed_keys(state.model.resources(), model.resources());
        let affected = if changed.len() > MANY_CHANGES {
            state.proxies.keys().cloned().collect()
        } else {
            affected(&changed, state.model.resources(), model.resources())
        };
        state.model = model;
        let State { model, proxies } = state;
        for (key, proxy) in proxies.iter_mut().filter(|(key, _)| affected.contains(key)) {
            self.publish(model, key, proxy);
        }
    }

    /// Translates one proxy's view and publishes the result if it is good and new.
    fn publish(&self, model: &Model, key: &ResourceKey, proxy: &mut Proxy) {
        let Some(translation) = translated(model.resources(), self.authority.trust_domain(), key)
        else {
            if proxy.sender.borrow().is_some() {
                tracing::info!(proxy = %key, "proxy's resource is gone");
                proxy.sender.send_replace(None);
            }
            return;
        };
        let (published, unchanged, failed) = ("published", "unchanged", "failed");
        let result = match Snapshot::checked(model.revision(), translation.resources) {
            Err(error) => {
                tracing::error!(proxy = %key, revision = model.revision(), %error, "snapshot refused; the last good one stays");
                proxy.error = Some(format!("revision {}: {error}", model.revision()));
                failed
            }
            Ok(snapshot) => {
                proxy.error = None;
                let next = snapshot
                    .with_on_demand(translation.on_demand)
                    .with_secrets(self.secrets(model.resources(), key, proxy));
                if proxy
                    .sender
                    .borrow()
                    .as_ref()
                    .is_some_and(|last| last.same_content(&next))
                {
                    unchanged
                } else {
                    tracing::info!(proxy = %key, revision = next.revision, version = next.version(), "snapshot published");
                    proxy.sender.send_replace(Some(Arc::new(next)));
                    published
                }
            }
        };
        if proxy.findings != translation.findings {
            for finding in &translation.findings {
                tracing::warn!(proxy = %key, finding, "part of the model has no effect");
            }
            proxy.findings = translation.findings;
        }
        self.published.with_label_values(&[result]).inc();
    }

    /// The trust bundle, and the certificate pair where it was asked for.
    fn secrets(&self, resources: &Resources, key: &ResourceKey, proxy: &mut Proxy) -> Table {
        let domain = self.authority.trust_domain();
        let mut table = Table::default();
        let bundle = SecretValue::TrustBundle(self.authority.trust_bundle().to_string());
        table.insert(Resource::Secret(Secret {
            name: translate::trust_name(domain),
            value: bundle,
        }));
        if proxy.wants_identity
            && let Some(subject) = identity::subject(resources, domain, key)
        {
            self.renew(key, proxy, subject, SystemTime::now());
        }
        if let Some(Identity { subject, pair, .. }) = &proxy.identity {
            let value = SecretValue::Certificate {
                chain: pair.issued.chain.clone(),
                key: pair.key.clone(),
            };
            table.insert(Resource::Secret(Secret {
                name: subject.spiffe_id.clone(),
                value,
            }));
        }
        table
    }

    /// A new certificate where there is none, where it has lived half its life, or where the node is found under
    /// another name now. If it cannot be issued the old one stays.
    fn renew(&self, key: &ResourceKey, proxy: &mut Proxy, subject: Subject, now: SystemTime) {
        let issuer = self.authority.issuer();
        let good = |identity: &Identity| {
            identity.subject == subject
                && identity.issuer == issuer
                && now.duration_since(identity.issued).unwrap_or_default() < LEAF_LIFETIME / 2
        };
        if proxy.identity.as_ref().is_some_and(good) {
            return;
        }
        match self.authority.issue(&subject) {
            Ok(pair) => {
                proxy.identity = Some(Identity {
                    subject,
                    pair,
                    issued: now,
                    issuer,
                })
            }
            Err(error) => {
                tracing::error!(proxy = %key, error = crate::ads::chain(&error), "certificate not issued")
            }
        }
    }

    fn publish_all(&self) {
        let mut state = self.state.lock();
        let State { model, proxies } = &mut *state;
        for (key, proxy) in proxies {
            self.publish(model, key, proxy);
        }
    }

    /// Publishes again wherever a certificate is due: [`Publisher::renew`] takes it from there.
    fn renew_all(&self) {
        let mut state = self.state.lock();
        let State { model, proxies } = &mut *state;
        proxies.retain(|_, proxy| proxy.sender.receiver_count() > 0);
        let now = SystemTime::now();
        let young = |identity: &Identity| {
            now.duration_since(identity.issued).unwrap_or_default() < LEAF_LIFETIME / 2
        };
        let due =
            |proxy: &Proxy| proxy.wants_identity && !proxy.identity.as_ref().is_some_and(young);
        for (key, proxy) in proxies.iter_mut().filter(|(_, proxy)| due(proxy)) {
            self.publish(model, key, proxy);
        }
    }
}

/// What a proxy is to be told; `None` if the resource does not exist or has no proxy.
pub fn translated(
    resources: &Resources,
    trust_domain: &str,
    key: &ResourceKey,
) -> Option<translate::Translation> {
    match key.kind {
        Kind::VirtualNode => Some(translate::node(
            trust_domain,
            &resources.node_view(&key.mesh, &key.name)?,
        )),
        Kind::VirtualGateway => Some(translate::gateway(
            trust_domain,
            &resources.gateway_view(&key.mesh, &key.name)?,
        )),
        Kind::Mesh
        | Kind::VirtualRouter
        | Kind::Route
        | Kind::VirtualService
        | Kind::GatewayRoute => None,
    }
}

/// Keys under which the two differ. Specs are shared between models, so an equal pointer is an equal spec.
fn changed_keys(old: &Resources, new: &Resources) -> Vec<ResourceKey> {
    let gone = old
        .iter()
        .filter(|(key, _)| !new.contains(key))
        .map(|(key, _)| key.clone());
    let other = new
        .iter()
        .filter(|(key, spec)| old.get(key).is_none_or(|before| !Arc::ptr_eq(before, spec)));
    gone.chain(other.map(|(key, _)| key.clone())).collect()
}

/// Proxies whose view any of the changes touches, before or after.
fn affected(changed: &[ResourceKey], old: &Resources, new: &Resources) -> BTreeSet<ResourceKey> {
    changed
        .iter()
        .flat_map(|key| old.affected_by(key).into_iter().chain(new.affected_by(key)))
        .collect()
}
