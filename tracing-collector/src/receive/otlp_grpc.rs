// SPDX-License-Identifier: Apache-2.0
//! OTLP over gRPC. Answers when the spans are stored; a full queue is UNAVAILABLE, which exporters retry.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::TraceService;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::TraceServiceServer;
use prost::Message;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;

use crate::convert::otlp;
use crate::metrics::Reason;
use crate::metrics::Source;
use crate::pipeline::Pipeline;

/// Also the bound of an inflated message.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// Requests in work per connection.
const CONCURRENT: usize = 64;

struct Door {
    pipeline: Pipeline,
}

pub(crate) async fn serve(listener: TcpListener, pipeline: Pipeline, stop: CancellationToken) {
    let traces = TraceServiceServer::new(Door { pipeline })
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(MAX_MESSAGE);
    let served = Server::builder()
        .concurrency_limit_per_connection(CONCURRENT)
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
        let request = request.into_inner();
        let accepted = accept(&self.pipeline, Source::OtlpGrpc, request).await;
        accepted
            .map(Response::new)
            .map_err(|refused| match refused {
                Refused::Busy(why) | Refused::Store(why) => Status::unavailable(why),
            })
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
) -> Result<ExportTraceServiceResponse, Refused> {
    let bytes = request.encoded_len();
    let converted = otlp::convert(request.resource_spans);
    let metrics = pipeline.metrics();
    let units = converted.spans.len();
    metrics.received(source, units + converted.refused);
    metrics.rejected(source, Reason::Invalid, converted.refused);
    metrics.clamped(source, converted.clamped);
    if units > 0 {
        let receipt = pipeline
            .submit(source, converted.spans, units, bytes)
            .map_err(|full| {
                metrics.rejected(source, Reason::QueueFull, units);
                Refused::Busy(full.to_string())
            })?;
        receipt
            .stored()
            .await
            .map_err(|error| Refused::Store(error.to_string()))?;
    }
    let partial_success = converted.reason.map(|reason| ExportTracePartialSuccess {
        rejected_spans: i64::try_from(converted.refused).unwrap_or(i64::MAX),
        error_message: reason.to_string(),
    });
    Ok(ExportTraceServiceResponse { partial_success })
}
