// SPDX-License-Identifier: Apache-2.0
//! An SDS server on a unix socket that behaves as a SPIRE agent's does: state of the world, one version per secret, and
//! a stream that asks for a name it does not know is ended.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use parking_lot::Mutex;
use pillion_xds::proto::Any;
use pillion_xds::proto::discovery::DeltaDiscoveryRequest;
use pillion_xds::proto::discovery::DeltaDiscoveryResponse;
use pillion_xds::proto::discovery::DiscoveryRequest;
use pillion_xds::proto::discovery::DiscoveryResponse;
use pillion_xds::proto::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryService;
use pillion_xds::proto::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryServiceServer;
use pillion_xds::proto::tls as proto;
use pillion_xds::resource::ResourceType;
use pillion_xds::secret::Secret;
use pillion_xds::secret::SecretValue;
use prost::Message;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::Streaming;

use crate::plane::eventually;

#[derive(Clone)]
pub(crate) struct Sds {
    inner: Arc<Inner>,
    dir: Arc<tempfile::TempDir>,
}

struct Inner {
    secrets: Mutex<BTreeMap<String, (u64, proto::Secret)>>,
    changed: watch::Sender<u64>,
    heard: Mutex<Vec<DiscoveryRequest>>,
}

impl Sds {
    pub(crate) fn start() -> Sds {
        let (changed, _) = watch::channel(0);
        let sds = Sds {
            inner: Arc::new(Inner {
                secrets: Mutex::default(),
                changed,
                heard: Mutex::default(),
            }),
            dir: Arc::new(tempfile::tempdir().unwrap()),
        };
        let socket = tokio::net::UnixListener::bind(sds.path()).unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(SecretDiscoveryServiceServer::new(sds.clone()))
            .serve_with_incoming(UnixListenerStream::new(socket));
        tokio::spawn(server);
        sds
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("agent.sock")
    }

    /// Serves this under a new version from now on.
    pub(crate) fn put(&self, name: &str, value: SecretValue) -> u64 {
        let name = name.to_owned();
        self.put_raw(&Secret { name, value }.encode())
    }

    pub(crate) fn put_raw(&self, secret: &proto::Secret) -> u64 {
        let mut next = 0;
        self.inner.changed.send_modify(|version| {
            *version += 1;
            next = *version;
            let mut secrets = self.inner.secrets.lock();
            secrets.insert(secret.name.clone(), (next, secret.clone()));
        });
        next
    }

    /// Waits until this version has been acknowledged.
    pub(crate) async fn acked(&self, version: u64) {
        let version = version.to_string();
        eventually(&format!("an ACK of {version}"), || async {
            let heard = self.inner.heard.lock();
            heard
                .iter()
                .any(|request| request.version_info == version && request.error_detail.is_none())
        })
        .await;
    }

    /// What the last NACK of this secret says.
    pub(crate) fn nacked(&self, name: &str) -> Option<String> {
        let heard = self.inner.heard.lock();
        let of_name = heard
            .iter()
            .rev()
            .filter(|request| request.resource_names.iter().any(|one| one == name));
        of_name
            .filter_map(|request| request.error_detail.as_ref())
            .map(|detail| detail.message.clone())
            .next()
    }

    pub(crate) fn heard(&self) -> Vec<DiscoveryRequest> {
        self.inner.heard.lock().clone()
    }
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SecretDiscoveryService for Sds {
    type DeltaSecretsStream = Responses<DeltaDiscoveryResponse>;

    async fn delta_secrets(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Err(Status::unimplemented("as SPIRE"))
    }

    type StreamSecretsStream = Responses<DiscoveryResponse>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let mut requests = request.into_inner();
        let inner = Arc::clone(&self.inner);
        let (outgoing, responses) = mpsc::channel(4);
        tokio::spawn(async move {
            let mut changed = inner.changed.subscribe();
            let mut names = Vec::new();
            let mut sent = 0;
            loop {
                for name in &names {
                    let Some((version, secret)) = inner.secrets.lock().get(name).cloned() else {
                        let why = format!("workload is not authorized for {name:?}");
                        drop(outgoing.send(Err(Status::permission_denied(why))).await);
                        return;
                    };
                    if version > sent {
                        sent = version;
                        let response = DiscoveryResponse {
                            version_info: version.to_string(),
                            type_url: ResourceType::Secret.url().to_owned(),
                            nonce: format!("n{version}"),
                            resources: vec![Any {
                                type_url: ResourceType::Secret.url().to_owned(),
                                value: secret.encode_to_vec(),
                            }],
                            ..Default::default()
                        };
                        if outgoing.send(Ok(response)).await.is_err() {
                            return;
                        }
                    }
                }
                tokio::select! {
                    request = requests.next() => match request {
                        Some(Ok(request)) => {
                            names.clone_from(&request.resource_names);
                            inner.heard.lock().push(request);
                        }
                        _ => return,
                    },
                    changed = changed.changed() => if changed.is_err() { return },
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }

    async fn fetch_secrets(
        &self,
        _: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("streams only"))
    }
}
