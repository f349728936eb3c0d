// SPDX-License-Identifier: Apache-2.0
//! Secrets from an SDS socket beside this proxy, such as a SPIRE agent's: one state-of-the-world stream per secret, as
//! Envoy opens them, since a SPIRE agent ends a stream that asks for a name it may not give out. A secret that cannot be
//! used is refused and the last good one stays. Secrets from here never go to disk. Started by `app`.

use std::collections::BTreeMap;
use std::time::Duration;

use pillion_xds::proto::core::Node;
use pillion_xds::proto::discovery::DiscoveryRequest;
use pillion_xds::proto::discovery::DiscoveryResponse;
use pillion_xds::proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use pillion_xds::proto::google::rpc::Status as Detail;
use pillion_xds::resource::Resource;
use pillion_xds::resource::ResourceType;
use pillion_xds::resource::decode_all;
use pillion_xds::secret::Secret;
use rand::Rng;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Channel;

use super::client::Control;
use crate::tls;

/// Requests waiting to be written: the first, and one answer per response.
const REQUESTS: usize = 8;
/// Waits between streams grow from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Asks for secrets as TLS contexts come to name them, until the token fires.
pub async fn keep(channel: Channel, node: Node, control: Control, stop: CancellationToken) {
    let mut changes = control.changed.subscribe();
    let mut tasks = JoinSet::new();
    let mut streams: BTreeMap<String, CancellationToken> = BTreeMap::new();
    loop {
        changes.mark_unchanged();
        let wanted = control.applier.lock().wanted_from_socket();
        streams.retain(|name, stop| {
            let keeps = wanted.contains(name);
            if !keeps {
                stop.cancel();
            }
            keeps
        });
        for name in &wanted {
            if !streams.contains_key(name) {
                let token = stop.child_token();
                let one = One {
                    name: name.clone(),
                    channel: channel.clone(),
                    node: node.clone(),
                    control: control.clone(),
                };
                streams.insert(name.clone(), token.clone());
                tasks.spawn(async move { token.run_until_cancelled(one.keep()).await });
            }
        }
        control.applier.lock().keep_from_socket(&wanted);
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
        while tasks.try_join_next().is_some() {}
    }
}

/// The stream of one secret.
struct One {
    name: String,
    channel: Channel,
    node: Node,
    control: Control,
}

impl One {
    async fn keep(self) {
        let mut wait = BACKOFF.0;
        loop {
            let (served, why) = self.stream().await;
            if served {
                wait = BACKOFF.0;
            }
            let pause = wait.mul_f64(rand::rng().random_range(0.5..1.0));
            // What the control plane serves too need not be here; only who must have it should read of it.
            let needed = self.control.applier.lock().needs_from_socket(&self.name);
            let retry_in_s = pause.as_secs_f64();
            if needed {
                tracing::warn!(
                    secret = self.name,
                    reason = why,
                    retry_in_s,
                    "the SDS socket does not serve"
                );
            } else {
                tracing::debug!(
                    secret = self.name,
                    reason = why,
                    retry_in_s,
                    "the SDS socket does not serve"
                );
            }
            tokio::time::sleep(pause).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    /// One stream to its end: whether a response came, and why it ended.
    async fn stream(&self) -> (bool, String) {
        let (requests, outgoing) = mpsc::channel(REQUESTS);
        let first = DiscoveryRequest {
            node: Some(self.node.clone()),
            ..self.request()
        };
        if requests.try_send(first).is_err() {
            return (false, "the first request does not fit its queue".to_owned());
        }
        let mut client = SecretDiscoveryServiceClient::new(self.channel.clone());
        let mut responses = match client.stream_secrets(ReceiverStream::new(outgoing)).await {
            Ok(response) => response.into_inner(),
            Err(status) => return (false, describe(&status)),
        };
        let mut accepted = String::new();
        let mut served = false;
        loop {
            let response = match responses.message().await {
                Ok(Some(response)) => response,
                Ok(None) => return (served, "the stream was closed".to_owned()),
                Err(status) => return (served, describe(&status)),
            };
            served = true;
            let refused = self.hear(&response);
            if refused.is_none() {
                accepted.clone_from(&response.version_info);
            }
            let answer = DiscoveryRequest {
                version_info: accepted.clone(),
                response_nonce: response.nonce,
                error_detail: refused.map(|message| Detail {
                    code: Code::InvalidArgument as i32,
                    message,
                    details: Vec::new(),
                }),
                ..self.request()
            };
            if requests.send(answer).await.is_err() {
                return (served, "the server stopped reading".to_owned());
            }
        }
    }

    fn request(&self) -> DiscoveryRequest {
        DiscoveryRequest {
            type_url: ResourceType::Secret.url().to_owned(),
            resource_names: vec![self.name.clone()],
            ..DiscoveryRequest::default()
        }
    }

    /// Puts what is good in force; says what is not.
    fn hear(&self, response: &DiscoveryResponse) -> Option<String> {
        let (accepted, mut refused) = decode_all(ResourceType::Secret, &response.resources);
        for resource in accepted {
            let Resource::Secret(secret) = resource else {
                continue;
            };
            if secret.name != self.name {
                continue;
            }
            match tls::check(&secret) {
                Ok(()) => self.put(secret),
                Err(error) => refused.push(pillion_xds::resource::Rejected {
                    name: self.name.clone(),
                    why: error.to_string(),
                }),
            }
        }
        for rejected in &refused {
            tracing::warn!(
                secret = rejected.name,
                why = rejected.why,
                "secret of the SDS socket refused; the last good one serves"
            );
        }
        (!refused.is_empty()).then(|| pillion_xds::subscription::client::reasons(&refused))
    }

    fn put(&self, secret: Secret) {
        tracing::info!(secret = secret.name, "secret of the SDS socket in use");
        let mut applier = self.control.applier.lock();
        applier.put_from_socket(secret);
        self.control
            .status
            .set_pending(applier.pending(), applier.version());
        drop(applier);
        self.control.changed.send_modify(|changes| *changes += 1);
    }
}

fn describe(status: &tonic::Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
