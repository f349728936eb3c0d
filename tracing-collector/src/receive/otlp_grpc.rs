// SPDX-License-Identifier: Apache-2.0
//! OTLP over gRPC. Answers when the spans are stored; a full room is RESOURCE_EXHAUSTED with the delay that exporters
//! wait before they try again, a store that fails is UNAVAILABLE.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use http_body_util::BodyExt;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::TraceService;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::TraceServiceServer;
use prost::Message;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tower::Layer;
use tower::Service;

use crate::auth::Gate;
use crate::convert::otlp;
use crate::convert::otlp::Converted;
use crate::metrics::Reason;
use crate::metrics::Source;
use crate::pipeline::Pipeline;
use crate::receive::RETRY_AFTER_SECONDS;
use crate::receive::body::BodyError;
use crate::receive::body::Paying;
use crate::room::Account;
use crate::room::NoRoom;

/// Also the bound of an inflated message.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// Requests in work per connection.
const CONCURRENT: usize = 64;

struct Door {
    pipeline: Pipeline,
}

pub(crate) async fn serve(
    listener: TcpListener,
    (pipeline, gate): (Pipeline, Gate),
    stop: CancellationToken,
) {
    let paying = PayingLayer {
        pipeline: pipeline.clone(),
        gate,
    };
    let traces = TraceServiceServer::new(Door { pipeline })
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd)
        .send_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(MAX_MESSAGE);
    let served = Server::builder()
        .concurrency_limit_per_connection(CONCURRENT)
        .layer(paying)
        .add_service(traces)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the OTLP gRPC server ended");
    }
}

#[tonic::async_trait]
impl TraceService for Door {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let account = request.extensions().get::<Account>().cloned();
        let account = account.unwrap_or_else(|| self.pipeline.room().account());
        let request = request.into_inner();
        let accepted = accept(&self.pipeline, Source::OtlpGrpc, request, account).await;
        accepted
            .map(Response::new)
            .map_err(|refused| match refused {
                Refused::Busy(why) => exhausted(&why),
                Refused::Store(why) => Status::unavailable(why),
            })
    }
}

/// `google.rpc.Status`, `Any` and `RetryInfo`: without the last, exporters take RESOURCE_EXHAUSTED for final.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<RpcAny>,
}

#[derive(Clone, PartialEq, Message)]
struct RpcAny {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<RpcDuration>,
}

#[derive(Clone, PartialEq, Message)]
struct RpcDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
}

fn exhausted(why: &str) -> Status {
    let seconds = i64::try_from(RETRY_AFTER_SECONDS).unwrap_or(1);
    let retry = RetryInfo {
        delay: Some(RpcDuration { seconds }),
    };
    let status = RpcStatus {
        code: Code::ResourceExhausted as i32,
        message: why.to_owned(),
        details: vec![RpcAny {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: retry.encode_to_vec(),
        }],
    };
    Status::with_details(Code::ResourceExhausted, why, status.encode_to_vec().into())
}

/// Charges requests as their bytes arrive, before anything is decoded.
#[derive(Clone)]
struct PayingLayer {
    pipeline: Pipeline,
    gate: Gate,
}

#[derive(Clone)]
struct PayingService<S> {
    inner: S,
    pipeline: Pipeline,
    gate: Gate,
}

impl<S> Layer<S> for PayingLayer {
    type Service = PayingService<S>;

    fn layer(&self, inner: S) -> PayingService<S> {
        PayingService {
            inner,
            pipeline: self.pipeline.clone(),
            gate: self.gate.clone(),
        }
    }
}

type GrpcRequest = http::Request<tonic::body::Body>;
type GrpcResponse = http::Response<tonic::body::Body>;

impl<S> Service<GrpcRequest> for PayingService<S>
where
    S: Service<GrpcRequest, Response = GrpcResponse, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = GrpcResponse;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<GrpcResponse, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: GrpcRequest) -> Self::Future {
        if let Err(denied) = self.gate.admit_sender(request.headers()) {
            let answer = Status::unauthenticated(denied.to_string()).into_http();
            return Box::pin(async move { Ok(answer) });
        }
        let account = self.pipeline.room().account();
        request.extensions_mut().insert(account.clone());
        let metrics = self.pipeline.metrics().clone();
        let request = request.map(|body| {
            let paying = Paying::new(body, account.clone());
            tonic::body::Body::new(paying.map_err(move |error| {
                // A message that nobody could look into counts as one.
                let (status, reason) = refusal(&error);
                metrics.received(Source::OtlpGrpc, 1);
                metrics.rejected(Source::OtlpGrpc, reason, 1);
                metrics
                    .rejects
                    .note(Source::OtlpGrpc, reason, status.message(), b"");
                status
            }))
        });
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            drop(account);
            answer
        })
    }
}

fn refusal(error: &BodyError) -> (Status, Reason) {
    let why = error.to_string();
    match error {
        BodyError::Busy(_) => (exhausted(&why), Reason::QueueFull),
        BodyError::TooLarge | BodyError::TooLargeInflated => {
            (Status::out_of_range(why), Reason::TooLarge)
        }
        BodyError::TooSlow => (Status::deadline_exceeded(why), Reason::Invalid),
        BodyError::BrokeOff | BodyError::NotAsEncoded(..) | BodyError::Encoding(_) => {
            (Status::invalid_argument(why), Reason::Invalid)
        }
    }
}

/// Why a whole request was not taken; each is worth another try.
pub(super) enum Refused {
    Busy(String),
    Store(String),
}

/// Converts and stores one export request; shared by both OTLP doors.
pub(super) async fn accept(
    pipeline: &Pipeline,
    source: Source,
    request: ExportTraceServiceRequest,
    account: Account,
) -> Result<ExportTraceServiceResponse, Refused> {
    // Of a compressed message only the compressed bytes are charged so far.
    let covered = account.cover(request.encoded_len());
    let converted = otlp::convert(request.resource_spans);
    let partial_success = converted
        .reason
        .as_ref()
        .map(|reason| ExportTracePartialSuccess {
            rejected_spans: i64::try_from(converted.refused).unwrap_or(i64::MAX),
            error_message: reason.to_string(),
        });
    take(pipeline, source, converted, covered, account).await?;
    Ok(ExportTraceServiceResponse { partial_success })
}

/// Counts and stores what was converted, unless it is not `covered`.
pub(super) async fn take(
    pipeline: &Pipeline,
    source: Source,
    converted: Converted,
    covered: Result<(), NoRoom>,
    account: Account,
) -> Result<(), Refused> {
    let metrics = pipeline.metrics();
    let units = converted.spans.len();
    metrics.received(source, units + converted.refused);
    metrics.rejected(source, Reason::Invalid, converted.refused);
    metrics.clamped(source, converted.clamped);
    if let Some(reason) = &converted.reason {
        let why = format!("{} spans: {reason}", converted.refused);
        metrics.rejects.note(source, Reason::Invalid, &why, b"");
    }
    if units > 0 {
        let receipt = covered
            .and_then(|()| pipeline.submit(source, converted.spans, units, account))
            .map_err(|full| {
                metrics.rejected(source, Reason::QueueFull, units);
                Refused::Busy(full.to_string())
            })?;
        receipt
            .stored()
            .await
            .map_err(|error| Refused::Store(error.to_string()))?;
    }
    Ok(())
}
