// SPDX-License-Identifier: Apache-2.0
//! A scripted control plane: sends exactly the delta responses a test pushes, and keeps every request it hears. Shares
//! no logic with the client it tests. Signs certificates with a throw-away authority.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use parking_lot::Mutex;
use pillion_xds::proto::Any;
use pillion_xds::proto::discovery::DeltaDiscoveryRequest;
use pillion_xds::proto::discovery::DeltaDiscoveryResponse;
use pillion_xds::proto::discovery::DiscoveryRequest;
use pillion_xds::proto::discovery::DiscoveryResponse;
use pillion_xds::proto::discovery::Resource as ProtoResource;
use pillion_xds::proto::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryService;
use pillion_xds::proto::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use pillion_xds::resource::Resource;
use pillion_xds::resource::ResourceType;
use pillion_xds::signing::CertificateService;
use pillion_xds::signing::CertificateServiceServer;
use pillion_xds::signing::SignRequest;
use pillion_xds::signing::SignResponse;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::Streaming;

use crate::plane::LIMIT;

type Outgoing = mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>;

#[derive(Clone)]
pub(crate) struct Ads {
    pub(crate) addr: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    /// Of the stream that is open now.
    requests: Mutex<Vec<DeltaDiscoveryRequest>>,
    outgoing: Mutex<Option<Outgoing>>,
    heard: watch::Sender<u64>,
    streams: AtomicU64,
    nonce: AtomicU64,
    stop: tokio_util::sync::CancellationToken,
    authority: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
    signed: Mutex<Vec<SignRequest>>,
    uri: Mutex<String>,
    life: Duration,
}

impl Ads {
    pub(crate) async fn start() -> Ads {
        Ads::start_at("127.0.0.1:0".parse().unwrap(), Duration::from_secs(3600)).await
    }

    /// Certificates live this long.
    pub(crate) async fn with_life(life: Duration) -> Ads {
        Ads::start_at("127.0.0.1:0".parse().unwrap(), life).await
    }

    pub(crate) async fn start_at(addr: SocketAddr, life: Duration) -> Ads {
        let socket = tokio::net::TcpListener::bind(addr).await.unwrap();
        let (heard, _) = watch::channel(0);
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority =
            rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap())
                .unwrap();
        let inner = Arc::new(Inner {
            requests: Mutex::default(),
            outgoing: Mutex::default(),
            heard,
            streams: AtomicU64::new(0),
            nonce: AtomicU64::new(0),
            stop: tokio_util::sync::CancellationToken::new(),
            authority,
            signed: Mutex::default(),
            uri: Mutex::default(),
            life,
        });
        let ads = Ads {
            addr: socket.local_addr().unwrap(),
            inner,
        };
        let server = tonic::transport::Server::builder()
            .add_service(AggregatedDiscoveryServiceServer::new(ads.clone()))
            .add_service(CertificateServiceServer::new(ads.clone()));
        let stop = ads.inner.stop.clone().cancelled_owned();
        tokio::spawn(async move {
            server
                .serve_with_incoming_shutdown(TcpListenerStream::new(socket), stop)
                .await
                .unwrap();
        });
        ads
    }

    /// Sends good resources, all under one version.
    pub(crate) async fn push(&self, version: &str, resources: &[Resource]) {
        let kind = resources.first().expect("something to send").kind();
        let sent = resources
            .iter()
            .map(|one| (one.name().to_owned(), one.encode_any()))
            .collect();
        self.push_raw(kind, version, sent, &[]).await;
    }

    /// Sends anything at all.
    pub(crate) async fn push_raw(
        &self,
        kind: ResourceType,
        version: &str,
        resources: Vec<(String, Any)>,
        removed: &[&str],
    ) {
        self.opened().await;
        let resource = |(name, any)| ProtoResource {
            name,
            version: version.to_owned(),
            resource: Some(any),
            ..Default::default()
        };
        let response = DeltaDiscoveryResponse {
            type_url: kind.url().to_owned(),
            resources: resources.into_iter().map(resource).collect(),
            removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
            nonce: self.inner.nonce.fetch_add(1, Ordering::Relaxed).to_string(),
            ..Default::default()
        };
        let outgoing = self
            .inner
            .outgoing
            .lock()
            .clone()
            .expect("a stream is open");
        outgoing.send(Ok(response)).await.expect("the proxy reads");
    }

    /// Waits for a stream.
    pub(crate) async fn opened(&self) {
        self.wait("a stream", |inner| {
            inner.outgoing.lock().is_some().then_some(())
        })
        .await;
    }

    /// Waits for a request of the stream that is open which satisfies `found`.
    pub(crate) async fn heard<T>(
        &self,
        what: &str,
        found: impl Fn(&DeltaDiscoveryRequest) -> Option<T>,
    ) -> T {
        self.wait(what, |inner| inner.requests.lock().iter().find_map(&found))
            .await
    }

    /// Waits for a NACK of this type, and returns what it says.
    pub(crate) async fn nacked(&self, kind: ResourceType) -> String {
        let found = |request: &DeltaDiscoveryRequest| {
            let detail = request.error_detail.as_ref()?;
            (request.type_url == kind.url()).then(|| detail.message.clone())
        };
        self.heard("a NACK", found).await
    }

    /// Everything heard on the stream that is open.
    pub(crate) fn requests(&self) -> Vec<DeltaDiscoveryRequest> {
        self.inner.requests.lock().clone()
    }

    pub(crate) fn streams(&self) -> u64 {
        self.inner.streams.load(Ordering::Relaxed)
    }

    /// Ends the stream; the proxy will open another.
    pub(crate) fn hang_up(&self) {
        self.inner.requests.lock().clear();
        drop(self.inner.outgoing.lock().take());
    }

    /// The identity that is signed from now on.
    pub(crate) fn sign_as(&self, uri: &str) {
        uri.clone_into(&mut self.inner.uri.lock());
    }

    pub(crate) fn signed(&self) -> Vec<SignRequest> {
        self.inner.signed.lock().clone()
    }

    /// Goes away.
    pub(crate) fn stop(&self) {
        self.hang_up();
        self.inner.stop.cancel();
    }

    async fn wait<T>(&self, what: &str, found: impl Fn(&Inner) -> Option<T>) -> T {
        let mut heard = self.inner.heard.subscribe();
        let waiting = async {
            loop {
                heard.mark_unchanged();
                if let Some(found) = found(&self.inner) {
                    return found;
                }
                heard.changed().await.expect("we hold the sender");
            }
        };
        match tokio::time::timeout(LIMIT, waiting).await {
            Ok(found) => found,
            Err(_) => panic!(
                "never heard {what}; heard {:#?}",
                self.inner.requests.lock()
            ),
        }
    }
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let mut requests = request.into_inner();
        let (outgoing, responses) = mpsc::channel(16);
        let inner = Arc::clone(&self.inner);
        inner.requests.lock().clear();
        *inner.outgoing.lock() = Some(outgoing);
        inner.streams.fetch_add(1, Ordering::Relaxed);
        inner.heard.send_modify(|count| *count += 1);
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                inner.requests.lock().push(request);
                inner.heard.send_modify(|count| *count += 1);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }
}

#[tonic::async_trait]
impl CertificateService for Ads {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let request = request.into_inner();
        let uri = self.inner.uri.lock().clone();
        if uri.is_empty() {
            return Err(Status::unavailable("not yet"));
        }
        let mut csr =
            rcgen::CertificateSigningRequestParams::from_pem(&request.csr_pem).expect("a CSR");
        let now = SystemTime::now();
        csr.params.not_before = now.into();
        csr.params.not_after = (now + self.inner.life).into();
        csr.params.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().unwrap())];
        let leaf = csr.signed_by(&self.inner.authority).expect("signed");
        self.inner.signed.lock().push(request);
        Ok(Response::new(SignResponse {
            chain_pem: leaf.pem(),
            trust_bundle_pem: self.inner.authority.pem(),
            not_after_epoch_s: 0,
        }))
    }
}
