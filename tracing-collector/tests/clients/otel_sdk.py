# SPDX-License-Identifier: Apache-2.0
"""The unmodified OTel SDK over gRPC and HTTP, gzip on both. Arguments: gRPC endpoint, HTTP endpoint, API endpoint."""

import json
import sys
import urllib.request

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind
import grpc


def export(exporter, service):
    """One server span with a failing client call inside; its trace id."""
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("GET /orders", kind=SpanKind.SERVER) as server:
        server.set_attribute("http.response.status_code", 200)
        with tracer.start_as_current_span("SELECT", kind=SpanKind.CLIENT) as client:
            client.set_attribute("db.system", "postgresql")
            client.set_attribute("db.name", "orders")
            client.record_exception(ValueError("no such table"))
    assert provider.force_flush()
    provider.shutdown()
    return format(server.get_span_context().trace_id, "032x")


def check(api, trace_id, service):
    with urllib.request.urlopen(f"{api}/pillion/v1/traces/{trace_id}") as answer:
        spans = {span["name"]: span for span in json.load(answer)["spans"]}
    assert set(spans) == {"GET /orders", "SELECT"}, spans
    assert spans["GET /orders"]["service"] == service
    assert spans["GET /orders"]["status"] == 200
    assert spans["SELECT"]["parent"] == spans["GET /orders"]["id"]
    assert spans["SELECT"]["calls"] == "orders"
    exceptions = spans["SELECT"]["attributes"]["cause"]["exceptions"]
    assert exceptions[0]["message"] == "no such table", exceptions


def main(grpc_endpoint, http_endpoint, api):
    over_grpc = GrpcExporter(endpoint=grpc_endpoint, insecure=True, compression=grpc.Compression.Gzip)
    over_http = HttpExporter(endpoint=f"{http_endpoint}/v1/traces", compression=Compression.Gzip)
    # Exporters answer only when the collector has: what was exported is there, without waiting.
    check(api, export(over_grpc, "over-grpc"), "over-grpc")
    check(api, export(over_http, "over-http"), "over-http")


main(*sys.argv[1:])
