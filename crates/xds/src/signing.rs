// SPDX-License-Identifier: Apache-2.0
//! Certificate signing: `pillion.v1.CertificateService/Sign`, by which a proxy trades a CSR for a certificate, so that
//! its private key never leaves it. Messages, client and server, written by hand for want of a protobuf compiler. The
//! control plane serves it beside ADS; the proxy's `identity` calls it. Knows nothing of keys or X.509.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codegen::BoxFuture;
use tonic::codegen::GrpcMethod;
use tonic::codegen::Service;
use tonic::codegen::StdError;
use tonic::codegen::async_trait;
use tonic::codegen::http;
use tonic::server::NamedService;
use tonic::server::UnaryService;
use tonic_prost::ProstCodec;

const SERVICE: &str = "pillion.v1.CertificateService";
const SIGN: &str = "/pillion.v1.CertificateService/Sign";

/// A node asks for its certificate.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SignRequest {
    /// The node id, as in the xDS stream.
    #[prost(string, tag = "1")]
    pub node_id: String,
    /// PKCS#10 request, PEM. Its subject and names are ignored: the authority knows who the node is.
    #[prost(string, tag = "2")]
    pub csr_pem: String,
}

/// What the authority answers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SignResponse {
    /// The certificate, leaf first, PEM.
    #[prost(string, tag = "1")]
    pub chain_pem: String,
    /// Roots that peers' certificates are checked against, PEM.
    #[prost(string, tag = "2")]
    pub trust_bundle_pem: String,
    /// When the leaf expires, seconds since 1970.
    #[prost(int64, tag = "3")]
    pub not_after_epoch_s: i64,
}

/// Calls the service over a channel.
#[derive(Clone, Debug)]
pub struct CertificateServiceClient<T> {
    inner: Grpc<T>,
}

impl<T> CertificateServiceClient<T>
where
    T: tonic::client::GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: tonic::codegen::Body<Data = tonic::codegen::Bytes> + Send + 'static,
    <T::ResponseBody as tonic::codegen::Body>::Error: Into<StdError> + Send,
{
    /// Over this channel.
    pub fn new(channel: T) -> CertificateServiceClient<T> {
        CertificateServiceClient {
            inner: Grpc::new(channel),
        }
    }

    /// Has a CSR signed.
    pub async fn sign(&mut self, request: SignRequest) -> Result<SignResponse, Status> {
        self.inner
            .ready()
            .await
            .map_err(|error| Status::unavailable(error.into().to_string()))?;
        let mut request = Request::new(request);
        request
            .extensions_mut()
            .insert(GrpcMethod::new(SERVICE, "Sign"));
        let path = http::uri::PathAndQuery::from_static(SIGN);
        let codec: ProstCodec<SignRequest, SignResponse> = ProstCodec::default();
        let response = self.inner.unary(request, path, codec).await?;
        Ok(response.into_inner())
    }
}

/// What an authority does.
#[async_trait]
pub trait CertificateService: Send + Sync + 'static {
    /// Signs the CSR of a node that may have one.
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status>;
}

/// Serves an authority, to be added to a tonic router.
pub struct CertificateServiceServer<T> {
    inner: Arc<T>,
}

impl<T: CertificateService> CertificateServiceServer<T> {
    /// Serves `authority`.
    pub fn new(authority: T) -> CertificateServiceServer<T> {
        CertificateServiceServer::from_arc(Arc::new(authority))
    }

    /// Serves an authority that is shared.
    pub fn from_arc(inner: Arc<T>) -> CertificateServiceServer<T> {
        CertificateServiceServer { inner }
    }
}

impl<T> Clone for CertificateServiceServer<T> {
    fn clone(&self) -> CertificateServiceServer<T> {
        CertificateServiceServer {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<T> NamedService for CertificateServiceServer<T> {
    const NAME: &'static str = SERVICE;
}

struct Sign<T>(Arc<T>);

impl<T: CertificateService> UnaryService<SignRequest> for Sign<T> {
    type Response = SignResponse;
    type Future = BoxFuture<Response<SignResponse>, Status>;

    fn call(&mut self, request: Request<SignRequest>) -> Self::Future {
        let authority = Arc::clone(&self.0);
        Box::pin(async move { authority.sign(request).await })
    }
}

impl<T, B> Service<http::Request<B>> for CertificateServiceServer<T>
where
    T: CertificateService,
    B: tonic::codegen::Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path() != SIGN {
            let answer = Status::unimplemented("no such method").into_http();
            return Box::pin(async move { Ok(answer) });
        }
        let authority = Arc::clone(&self.inner);
        Box::pin(async move {
            let codec: ProstCodec<SignResponse, SignRequest> = ProstCodec::default();
            let mut grpc = tonic::server::Grpc::new(codec);
            Ok(grpc.unary(Sign(authority), request).await)
        })
    }
}
