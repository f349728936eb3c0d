// SPDX-License-Identifier: Apache-2.0
//! OTLP messages to spans, for both OTLP doors. What is wrong with one span refuses that span alone, with a reason for
//! the partial-success answer. [`attributes`] reads attribute lists, [`members`] writes what X-Ray documents show.

pub(crate) mod attributes;
mod json;
mod members;

use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use opentelemetry_proto::tonic::trace::v1::Span as OtlpSpan;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

pub(crate) use crate::convert::otlp::json::json;

use crate::convert::otlp::attributes::Attributes;
use crate::span::Flags;
use crate::span::Http;
use crate::span::Kind;
use crate::span::Node;
use crate::span::PROXY_TYPE;
use crate::span::Proxy;
use crate::span::Span;
use crate::span::SpanId;
use crate::span::TraceId;
use crate::span::UNKNOWN_TYPE;

#[derive(Debug, Default)]
pub(crate) struct Converted {
    pub(crate) spans: Vec<Span>,
    pub(crate) refused: usize,
    /// Why the first of them was.
    pub(crate) reason: Option<RefusedSpan>,
    pub(crate) clamped: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RefusedSpan {
    #[error("span {name:?}: traceId must be 16 bytes, not all zero; got {length}")]
    TraceId { name: String, length: usize },
    #[error("span {name:?}: spanId must be 8 bytes, not all zero; got {length}")]
    SpanId { name: String, length: usize },
    #[error("span {name:?}: parentSpanId must be 8 bytes or absent; got {length}")]
    ParentId { name: String, length: usize },
    #[error("span {name:?}: startTimeUnixNano is required")]
    StartTime { name: String },
}

/// Converts everything of one export request.
pub(crate) fn convert(resources: Vec<ResourceSpans>) -> Converted {
    let mut converted = Converted::default();
    for resource_spans in resources {
        let attributes = Attributes::of(
            resource_spans
                .resource
                .map(|resource| resource.attributes)
                .unwrap_or_default(),
        );
        let resource = Resource::of(attributes);
        for span in resource_spans
            .scope_spans
            .into_iter()
            .flat_map(|scope| scope.spans)
        {
            match resource.span(span, &mut converted.clamped) {
                Ok(span) => converted.spans.push(span),
                Err(refused) => {
                    converted.refused += 1;
                    converted.reason.get_or_insert(refused);
                }
            }
        }
    }
    converted
}

/// Who sent the spans.
struct Resource {
    attributes: Attributes,
    service: Node,
    proxy: Option<Proxy>,
}

impl Resource {
    fn of(attributes: Attributes) -> Resource {
        let name = attributes
            .text("service.name")
            .unwrap_or("unknown_service")
            .to_owned();
        let proxy = attributes.flag("pillion.proxy").then(|| {
            let node = attributes
                .text("pillion.node")
                .or_else(|| name.split_once('/').map(|(_, node)| node));
            Proxy {
                node: node.unwrap_or(&name).to_owned(),
            }
        });
        let kind = if proxy.is_some() {
            PROXY_TYPE
        } else {
            platform(&attributes)
        };
        Resource {
            service: Node::new(name, kind),
            proxy,
            attributes,
        }
    }

    fn span(&self, mut otlp: OtlpSpan, clamped: &mut usize) -> Result<Span, RefusedSpan> {
        let (trace, id, parent) = ids(&otlp)?;
        let start_ns = otlp.start_time_unix_nano;
        if start_ns == 0 {
            return Err(RefusedSpan::StartTime { name: otlp.name });
        }
        let mut end_ns = otlp.end_time_unix_nano;
        if end_ns < start_ns {
            *clamped += 1;
            end_ns = start_ns;
        }
        let attributes = Attributes::of(std::mem::take(&mut otlp.attributes));
        let kind = kind(&otlp);
        let entry = kind == Kind::Server || parent.is_none();
        let http = http(&attributes);
        let calls = members::calls(kind, &attributes, &otlp.name);
        let document = members::members(&otlp, &attributes, &self.attributes, calls.as_ref());
        let annotations = attributes.annotations();
        let user = attributes
            .text("enduser.id")
            .or_else(|| attributes.text("user.id"))
            .map(str::to_owned);
        let mut kept = attributes.into_map();
        kept.retain(|name, _| !annotations.contains_key(name));
        if entry {
            kept.extend(self.attributes.prefixed("otel.resource."));
        }
        Ok(Span {
            trace,
            id,
            parent,
            kind,
            service: Some(self.service.clone()),
            entry,
            calls,
            start_ns,
            end_ns: Some(end_ns),
            flags: flags(&otlp, http.as_ref()),
            http,
            user,
            proxy: self.proxy.clone(),
            annotations,
            attributes: kept,
            document,
            name: otlp.name,
        })
    }
}

fn ids(span: &OtlpSpan) -> Result<(TraceId, SpanId, Option<SpanId>), RefusedSpan> {
    let name = || span.name.clone();
    let trace = <[u8; 16]>::try_from(span.trace_id.as_slice())
        .ok()
        .map(u128::from_be_bytes)
        .filter(|id| *id != 0)
        .ok_or_else(|| RefusedSpan::TraceId {
            name: name(),
            length: span.trace_id.len(),
        })?;
    let id = eight(&span.span_id)
        .filter(|id| *id != 0)
        .ok_or_else(|| RefusedSpan::SpanId {
            name: name(),
            length: span.span_id.len(),
        })?;
    let parent = if span.parent_span_id.is_empty() {
        0
    } else {
        eight(&span.parent_span_id).ok_or_else(|| RefusedSpan::ParentId {
            name: name(),
            length: span.parent_span_id.len(),
        })?
    };
    Ok((
        TraceId(trace),
        SpanId(id),
        (parent != 0).then_some(SpanId(parent)),
    ))
}

fn eight(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

fn kind(span: &OtlpSpan) -> Kind {
    match span.kind() {
        SpanKind::Server => Kind::Server,
        SpanKind::Client => Kind::Client,
        SpanKind::Producer => Kind::Producer,
        SpanKind::Consumer => Kind::Consumer,
        SpanKind::Internal | SpanKind::Unspecified => Kind::Internal,
    }
}

/// A status code speaks first; without one that tells, the span's own status.
fn flags(span: &OtlpSpan, http: Option<&Http>) -> Flags {
    let by_code = http
        .and_then(|http| http.status)
        .map(Flags::of_status)
        .unwrap_or_default();
    if by_code != Flags::default() {
        return by_code;
    }
    let failed = span
        .status
        .as_ref()
        .is_some_and(|status| status.code() == StatusCode::Error);
    Flags {
        fault: failed,
        ..by_code
    }
}

fn http(attributes: &Attributes) -> Option<Http> {
    let http = Http {
        method: attributes.either(&["http.request.method", "http.method"]),
        url: url(attributes),
        status: ["http.response.status_code", "http.status_code"]
            .iter()
            .find_map(|name| attributes.number(name))
            .and_then(|status| u16::try_from(status).ok()),
        user_agent: attributes.either(&["user_agent.original", "http.user_agent"]),
        client_ip: attributes.either(&[
            "client.address",
            "http.client_ip",
            "net.peer.ip",
            "net.sock.peer.addr",
        ]),
    };
    (http.method.is_some() || http.status.is_some()).then_some(http)
}

fn url(attributes: &Attributes) -> Option<String> {
    if let Some(url) = attributes.either(&["url.full", "http.url"]) {
        return Some(url);
    }
    let path = attributes.either(&["url.path", "http.target"])?;
    let host = attributes.either(&[
        "server.address",
        "http.host",
        "net.host.name",
        "net.peer.name",
    ])?;
    let scheme = attributes
        .either(&["url.scheme", "http.scheme"])
        .unwrap_or_else(|| "http".to_owned());
    let port = ["server.port", "net.host.port", "net.peer.port"]
        .iter()
        .find_map(|name| attributes.number(name));
    let port = port
        .filter(|_| !host.contains(':'))
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    let query = attributes
        .text("url.query")
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    Some(format!("{scheme}://{host}{port}{path}{query}"))
}

/// X-Ray's name for what the sender runs on.
fn platform(resource: &Attributes) -> &'static str {
    if !matches!(resource.text("cloud.provider"), None | Some("aws")) {
        return UNKNOWN_TYPE;
    }
    let launch = resource
        .text("aws.ecs.launchtype")
        .map(str::to_ascii_lowercase);
    match (resource.text("cloud.platform"), launch.as_deref()) {
        (Some("aws_app_runner"), _) => "AWS::AppRunner::Service",
        (Some("aws_eks"), _) => "AWS::EKS::Container",
        (Some("aws_elastic_beanstalk"), _) => "AWS::ElasticBeanstalk::Environment",
        (Some("aws_ecs"), Some("ec2")) => "AWS::ECS::EC2",
        (Some("aws_ecs"), Some("fargate")) => "AWS::ECS::Fargate",
        (Some("aws_ecs"), _) => "AWS::ECS::Container",
        (Some("aws_ec2"), _) => "AWS::EC2::Instance",
        (Some("aws_lambda"), _) => "AWS::Lambda::Function",
        _ => UNKNOWN_TYPE,
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use serde_json::Value;
    use serde_json::json;

    use super::*;

    fn converted(resource: &Value, span: &Value) -> Converted {
        let mut whole = json!({"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174",
            "name": "op", "startTimeUnixNano": "1000000000", "endTimeUnixNano": "1500000000"});
        for (name, value) in span.as_object().expect("a span is an object") {
            whole[name] = value.clone();
        }
        let request: ExportTraceServiceRequest = serde_json::from_value(json!({"resourceSpans": [
            {"resource": {"attributes": resource}, "scopeSpans": [{"spans": [whole]}]}]}))
        .expect("OTLP JSON");
        convert(request.resource_spans)
    }

    fn one(resource: &Value, span: &Value) -> Span {
        converted(resource, span).spans.remove(0)
    }

    fn text(key: &str, value: &str) -> Value {
        json!({"key": key, "value": {"stringValue": value}})
    }

    #[test]
    fn a_proxy_call_names_its_target_and_its_node() {
        let resource = json!([text("service.name", "shop/web"), text("pillion.node", "web"),
            {"key": "pillion.proxy", "value": {"boolValue": true}}]);
        let span = json!({"kind": 3, "parentSpanId": "eee19b7ec3c1b173", "attributes": [
            text("peer.service", "shop/cart"), text("http.request.method", "GET"), text("url.path", "/cart"),
            text("server.address", "cart.local"), {"key": "http.response.status_code", "value": {"intValue": "503"}}]});
        let span = one(&resource, &span);
        assert_eq!(span.service, Some(Node::new("shop/web", PROXY_TYPE)));
        assert_eq!(
            span.proxy,
            Some(Proxy {
                node: "web".to_owned()
            })
        );
        assert_eq!(span.calls, Some(Node::new("shop/cart", "remote")));
        assert_eq!(span.flags.outcome(), crate::span::Outcome::Fault);
        assert_eq!(
            span.http.and_then(|http| http.url).as_deref(),
            Some("http://cart.local/cart")
        );
        assert!(!span.entry);
    }

    #[test]
    fn a_status_code_speaks_before_the_status() {
        let not_found = json!({"kind": 2, "status": {"code": 2},
            "attributes": [{"key": "http.status_code", "value": {"intValue": 404}}]});
        assert_eq!(
            one(&json!([]), &not_found).flags.outcome(),
            crate::span::Outcome::Error
        );
        assert_eq!(
            one(&json!([]), &json!({"status": {"code": 2}}))
                .flags
                .outcome(),
            crate::span::Outcome::Fault
        );
    }

    #[test]
    fn a_sql_client_calls_a_database() {
        let span = json!({"kind": 3, "parentSpanId": "eee19b7ec3c1b173", "attributes": [
            text("db.system", "postgresql"), text("db.name", "orders"), text("db.statement", "select 1")]});
        let span = one(&json!([]), &span);
        assert_eq!(span.calls, Some(Node::new("orders", "Database::SQL")));
        assert_eq!(span.document["sql"]["sanitized_query"], "select 1");
    }

    #[test]
    fn an_exception_event_becomes_a_cause() {
        let span = json!({"events": [{"name": "exception", "attributes": [
            text("exception.type", "ValueError"), text("exception.message", "bad"),
            text("exception.stacktrace", "Traceback\n  File \"a.py\", line 3")]}]});
        let span = one(&json!([]), &span);
        let exception = &span.document["cause"]["exceptions"][0];
        assert_eq!(
            (&exception["type"], &exception["message"]),
            (&json!("ValueError"), &json!("bad"))
        );
        assert_eq!(exception["stack"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn annotations_are_the_attributes_that_were_named_so() {
        let span = json!({"attributes": [text("game", "7"), text("other", "x"),
            {"key": "aws.xray.annotations", "value": {"arrayValue": {"values": [{"stringValue": "game"}]}}}]});
        let span = one(&json!([]), &span);
        assert_eq!(span.annotations.get("game"), Some(&json!("7")));
        assert!(span.attributes.contains_key("other") && !span.attributes.contains_key("game"));
    }

    #[test]
    fn a_wrong_span_is_refused_with_its_name_and_what_was_expected() {
        for (wrong, part) in [
            (
                json!({"traceId": "00000000000000000000000000000000"}),
                "traceId",
            ),
            (json!({"traceId": "5b8e"}), "traceId"),
            (json!({"spanId": ""}), "spanId"),
            (json!({"parentSpanId": "ee"}), "parentSpanId"),
            (json!({"startTimeUnixNano": "0"}), "startTimeUnixNano"),
        ] {
            let converted = converted(&json!([]), &wrong);
            assert_eq!(
                (converted.spans.len(), converted.refused),
                (0, 1),
                "{wrong}"
            );
            let reason = converted.reason.expect("a reason").to_string();
            assert!(
                reason.contains(part) && reason.contains("\"op\""),
                "{reason}"
            );
        }
    }
}
