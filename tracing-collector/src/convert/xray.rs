// SPDX-License-Identifier: Apache-2.0
//! X-Ray documents to spans: a segment or an independent subsegment with everything embedded in it, or the code that
//! X-Ray itself answers for what is wrong. [`document`] writes them again. Segment is a word of these two files only.

pub(crate) mod document;

use serde_json::Map;
use serde_json::Value;

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

const MAX_NAME: usize = 200;
/// Year 2255: later is no time, and beyond 2554 nanoseconds would not fit.
const LAST_SECOND: f64 = 9e9;

/// What one document held.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) spans: Vec<Span>,
    /// Embedded subsegments that were wrong: each is refused alone, with what is embedded in it.
    pub(crate) refused: Vec<Refusal>,
    /// Spans that ended before they started; taken as lasting no time.
    pub(crate) clamped: usize,
}

/// Why a document was refused, in the words X-Ray uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) id: Option<String>,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl Refusal {
    fn new(id: Option<&str>, code: &'static str, embedded: bool, detail: &str) -> Refusal {
        let what = if embedded { "subsegment" } else { "segment" };
        Refusal {
            id: id.map(str::to_owned),
            code,
            message: format!("Invalid {what}. ErrorCode: {code}, Cause: {detail}"),
        }
    }
}

/// The refusal of a document beyond `max` bytes; UDP has its own bound in the datagram.
pub(crate) fn too_large(bytes: &[u8], max: usize) -> Option<Refusal> {
    let detail = format!("{} bytes; --max-document accepts {max}", bytes.len());
    (bytes.len() > max).then(|| Refusal::new(None, "SegmentTooLarge", false, &detail))
}

/// Reads one document.
pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed, Refusal> {
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|error| Refusal::new(None, "ParseError", false, &format!("not JSON: {error}")))?;
    let Value::Object(mut members) = value else {
        return Err(Refusal::new(
            None,
            "MissingId",
            false,
            "a document is a JSON object",
        ));
    };
    let embedded = members.remove("subsegments");
    let alone = members.get("type").and_then(Value::as_str) == Some("subsegment");
    let id = check_id(&members, alone)?;
    let trace = check_trace(&members, alone)?;
    let mut parsed = Parsed::default();
    let mut span = read(members, trace, id, alone, &mut parsed.clamped)?;
    if alone {
        if span.parent.is_none() {
            let text = id.to_string();
            return Err(Refusal::new(
                Some(&text),
                "MissingParentId",
                true,
                "an independent subsegment needs parent_id",
            ));
        }
    } else {
        span.entry = true;
        span.service = Some(Node::new(&span.name, origin(&span)));
        span.proxy = proxy(&span);
        span.kind = direction(&span);
    }
    let (id, service) = (span.id, span.service.clone());
    parsed.spans.push(span);
    let whole = Whole { trace, service };
    whole.read_embedded(embedded, id, &mut parsed);
    Ok(parsed)
}

/// What every part of one document shares.
struct Whole {
    trace: TraceId,
    service: Option<Node>,
}

impl Whole {
    /// Not recursive in depth beyond what the JSON parser allows (128 levels).
    fn read_embedded(&self, embedded: Option<Value>, parent: SpanId, parsed: &mut Parsed) {
        let Some(Value::Array(parts)) = embedded else {
            return;
        };
        for part in parts {
            match self.read_part(part, parent, &mut parsed.clamped) {
                Ok((span, deeper)) => {
                    let id = span.id;
                    parsed.spans.push(span);
                    self.read_embedded(deeper, id, parsed);
                }
                Err(refusal) => parsed.refused.push(refusal),
            }
        }
    }

    fn read_part(
        &self,
        part: Value,
        parent: SpanId,
        clamped: &mut usize,
    ) -> Result<(Span, Option<Value>), Refusal> {
        let Value::Object(mut members) = part else {
            return Err(Refusal::new(
                None,
                "MissingId",
                true,
                "a subsegment is a JSON object",
            ));
        };
        let deeper = members.remove("subsegments");
        let id = check_id(&members, true)?;
        let span = read(members, self.trace, id, true, clamped)?;
        Ok((
            Span {
                parent: Some(parent),
                service: self.service.clone(),
                ..span
            },
            deeper,
        ))
    }
}

fn text<'m>(members: &'m Map<String, Value>, name: &str) -> Option<&'m str> {
    members.get(name).and_then(Value::as_str)
}

fn check_id(members: &Map<String, Value>, embedded: bool) -> Result<SpanId, Refusal> {
    match members.get("id") {
        None | Some(Value::Null) => {
            Err(Refusal::new(None, "MissingId", embedded, "id is required"))
        }
        Some(Value::String(id)) => SpanId::parse(id).ok_or_else(|| {
            Refusal::new(
                Some(id),
                "InvalidId",
                embedded,
                &format!("id {id:?} is not 16 hex digits"),
            )
        }),
        Some(_) => Err(Refusal::new(
            None,
            "InvalidId",
            embedded,
            "id is not a string",
        )),
    }
}

fn check_trace(members: &Map<String, Value>, alone: bool) -> Result<TraceId, Refusal> {
    let id = text(members, "id");
    match members.get("trace_id") {
        None | Some(Value::Null) => Err(Refusal::new(
            id,
            "MissingTraceId",
            alone,
            "trace_id is required",
        )),
        Some(value) => value.as_str().unwrap_or_default().parse().map_err(|error| {
            Refusal::new(id, "InvalidTraceId", alone, &format!("trace_id {error}"))
        }),
    }
}

fn check_name(members: &Map<String, Value>, part: bool) -> Result<String, Refusal> {
    let id = text(members, "id");
    let name = match members.get("name") {
        None | Some(Value::Null) => {
            return Err(Refusal::new(id, "MissingName", part, "name is required"));
        }
        Some(value) => value.as_str().unwrap_or_default(),
    };
    let known = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_.:/%&#=+\\-@".contains(c);
    if name.is_empty() || name.chars().count() > MAX_NAME || !name.chars().all(known) {
        let detail = format!(
            "name {name:?} is empty, longer than {MAX_NAME}, or has characters that X-Ray refuses"
        );
        return Err(Refusal::new(id, "InvalidName", part, &detail));
    }
    Ok(name.to_owned())
}

/// Nanoseconds of an epoch time in seconds. Doubles of this size are good to a quarter of a microsecond.
fn time(members: &Map<String, Value>, name: &str) -> Option<u64> {
    let seconds = members.get(name)?.as_f64()?;
    (0.0..LAST_SECOND)
        .contains(&seconds)
        .then(|| (seconds * 1e6).round() as u64 * 1000)
}

/// One segment or subsegment without what is embedded in it. Checks in X-Ray's order: name, times, parent.
fn read(
    mut members: Map<String, Value>,
    trace: TraceId,
    id: SpanId,
    part: bool,
    clamped: &mut usize,
) -> Result<Span, Refusal> {
    let id_text = id.to_string();
    let refuse = |code, detail: &str| Refusal::new(Some(&id_text), code, part, detail);
    let name = check_name(&members, part)?;
    let start_ns = time(&members, "start_time").ok_or_else(|| {
        refuse(
            "MissingStartTime",
            "start_time in epoch seconds is required",
        )
    })?;
    let in_progress = members.get("in_progress").and_then(Value::as_bool) == Some(true);
    let mut end_ns = time(&members, "end_time");
    if in_progress {
        end_ns = None;
    } else if end_ns.is_none() {
        return Err(refuse(
            "MissingEndTime",
            "end_time in epoch seconds, or in_progress true, is required",
        ));
    }
    if let Some(end) = end_ns.as_mut().filter(|end| **end < start_ns) {
        *clamped += 1;
        *end = start_ns;
    }
    let parent = match members.get("parent_id") {
        None | Some(Value::Null) => None,
        Some(value) => Some(value.as_str().and_then(SpanId::parse).ok_or_else(|| {
            refuse(
                "InvalidParentId",
                &format!("parent_id {value} is not 16 hex digits"),
            )
        })?),
    };
    let flag = |name: &str| members.get(name).and_then(Value::as_bool) == Some(true);
    let flags = Flags {
        fault: flag("fault"),
        error: flag("error") || flag("throttle"),
        throttle: flag("throttle"),
    };
    let annotations = match members.remove("annotations") {
        Some(Value::Object(annotations)) => annotations
            .into_iter()
            .filter(|(_, value)| !matches!(value, Value::Array(_) | Value::Object(_) | Value::Null))
            .collect(),
        _ => Default::default(),
    };
    Ok(Span {
        trace,
        id,
        parent,
        kind: kind(&members, part),
        calls: if part { calls(&members, &name) } else { None },
        name,
        service: None,
        entry: false,
        start_ns,
        end_ns,
        flags,
        http: http(&members),
        user: text(&members, "user").map(str::to_owned),
        proxy: None,
        annotations,
        attributes: Map::new(),
        document: document::known(members),
    })
}

fn kind(members: &Map<String, Value>, part: bool) -> Kind {
    match text(members, "namespace") {
        _ if !part => Kind::Server,
        Some("aws" | "remote") => Kind::Client,
        _ => Kind::Internal,
    }
}

fn http(members: &Map<String, Value>) -> Option<Http> {
    let http = members.get("http")?.as_object()?;
    let request = |name: &str| http.get("request")?.get(name)?.as_str().map(str::to_owned);
    Some(Http {
        method: request("method"),
        url: request("url"),
        status: http
            .get("response")
            .and_then(|response| response.get("status"))
            .and_then(status),
        user_agent: request("user_agent"),
        client_ip: request("client_ip"),
    })
}

/// Envoy writes doubles, some SDKs strings.
fn status(value: &Value) -> Option<u16> {
    let number = value.as_f64().or_else(|| value.as_str()?.parse().ok())?;
    (100.0..1000.0).contains(&number).then_some(number as u16)
}

/// Whom a subsegment calls: the node that X-Ray draws when nothing arrives from there.
fn calls(members: &Map<String, Value>, name: &str) -> Option<Node> {
    let aws = |member: &str| {
        members
            .get("aws")
            .and_then(|aws| aws.get(member))
            .and_then(Value::as_str)
    };
    let first = |member: &str| {
        let list = members
            .get("aws")
            .and_then(|aws| aws.get(member))?
            .as_array()?;
        list.first()?.as_str()
    };
    match text(members, "namespace") {
        Some("remote") if members.get("sql").is_some_and(Value::is_object) => {
            Some(Node::new(name, "Database::SQL"))
        }
        Some("remote") => Some(Node::new(name, "remote")),
        Some("aws") => Some(aws_target(name, aws, first)),
        _ => None,
    }
}

fn aws_target<'m>(
    name: &str,
    aws: impl Fn(&str) -> Option<&'m str>,
    first: impl Fn(&str) -> Option<&'m str>,
) -> Node {
    let table = aws("table_name").or_else(|| first("table_names"));
    let table =
        table.or_else(|| first("resource_names").filter(|_| name.eq_ignore_ascii_case("dynamodb")));
    if let Some(table) = table {
        return Node::new(table, "AWS::DynamoDB::Table");
    }
    match name.to_ascii_lowercase().as_str() {
        "sns" => Node::new(name, "AWS::SNS"),
        "sqs" => aws("queue_url").map_or_else(
            || Node::new(name, "AWS::SQS"),
            |url| Node::new(url, "AWS::SQS::Queue"),
        ),
        "s3" => aws("bucket_name").map_or_else(
            || Node::new(name, "AWS::S3"),
            |bucket| Node::new(bucket, "AWS::S3::Bucket"),
        ),
        "lambda" => Node::new(aws("function_name").unwrap_or(name), "AWS::Lambda"),
        _ => Node::new(name, format!("AWS::{name}")),
    }
}

fn origin(span: &Span) -> &str {
    span.document
        .get("origin")
        .and_then(Value::as_str)
        .filter(|origin| !origin.is_empty())
        .unwrap_or(UNKNOWN_TYPE)
}

/// App Mesh's Envoy sends a whole segment per direction, named `<mesh>/<resource>`.
fn proxy(span: &Span) -> Option<Proxy> {
    if origin(span) != PROXY_TYPE {
        return None;
    }
    let told = span
        .document
        .get("aws")
        .and_then(|aws| aws.get("app_mesh"))
        .and_then(|mesh| mesh.get("virtual_node_name"));
    let node = told
        .and_then(Value::as_str)
        .or_else(|| span.name.split_once('/').map(|(_, node)| node));
    Some(Proxy {
        node: node.unwrap_or(&span.name).to_owned(),
    })
}

fn direction(span: &Span) -> Kind {
    match span.annotations.get("direction").and_then(Value::as_str) {
        Some("egress") if span.proxy.is_some() => Kind::Client,
        _ => Kind::Server,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(document: &Value) -> Refusal {
        parse(document.to_string().as_bytes()).expect_err("the document is wrong")
    }

    fn segment() -> Value {
        json!({"name": "app", "id": "70de5b6f19ff9a0a", "trace_id": "1-581cf771-a006649127e371903a2de979",
               "start_time": 1.478293361271E9, "end_time": 1.478293361449E9})
    }

    fn with(member: &str, value: Value) -> Value {
        let mut document = segment();
        document[member] = value;
        document
    }

    #[test]
    fn each_fault_of_a_document_gets_its_code() {
        for (document, code) in [
            (json!([]), "MissingId"),
            (with("id", Value::Null), "MissingId"),
            (with("id", json!("70de")), "InvalidId"),
            (with("trace_id", Value::Null), "MissingTraceId"),
            (
                with("trace_id", json!("1-31363133-6e7a5b688855d396af79b49")),
                "InvalidTraceId",
            ),
            (with("name", Value::Null), "MissingName"),
            (with("name", json!("a*b")), "InvalidName"),
            (with("name", json!("x".repeat(201))), "InvalidName"),
            (with("start_time", json!("soon")), "MissingStartTime"),
            (with("start_time", json!(-1)), "MissingStartTime"),
            (with("end_time", Value::Null), "MissingEndTime"),
            (with("parent_id", json!(7)), "InvalidParentId"),
            (with("type", json!("subsegment")), "MissingParentId"),
        ] {
            assert_eq!(refusal(&document).code, code, "{document}");
        }
        assert_eq!(
            parse(b"{\"id\":").expect_err("cut short").code,
            "ParseError"
        );
        assert_eq!(
            too_large(b"12345", 4)
                .map_or(Ok(Parsed::default()), Err)
                .expect_err("too large")
                .code,
            "SegmentTooLarge"
        );
    }

    #[test]
    fn a_wrong_embedded_subsegment_refuses_only_itself() {
        let document = with(
            "subsegments",
            json!([{"id": "53995c3f42cd8ad8", "name": "bad*"},
                   {"id": "53995c3f42cd8ad9", "name": "good", "start_time": 1.0, "end_time": 2.0, "namespace": "local"}]),
        );
        let parsed = parse(document.to_string().as_bytes()).expect("the segment is good");
        assert_eq!(parsed.spans.len(), 2);
        assert_eq!(parsed.refused.len(), 1);
        assert_eq!(parsed.refused[0].id.as_deref(), Some("53995c3f42cd8ad8"));
    }

    #[test]
    fn the_python_sdk_says_in_progress_false_with_an_end() {
        let parsed =
            parse(with("in_progress", json!(false)).to_string().as_bytes()).expect("valid");
        assert!(parsed.spans[0].complete());
    }

    #[test]
    fn an_end_before_the_start_is_clamped_and_counted() {
        let parsed = parse(with("end_time", json!(1.0)).to_string().as_bytes()).expect("valid");
        assert_eq!(
            (parsed.clamped, parsed.spans[0].duration_us()),
            (1, Some(0))
        );
    }

    #[test]
    fn an_envoy_segment_is_its_node_and_its_direction() {
        let mut document = with("origin", json!(PROXY_TYPE));
        document["name"] = json!("shop/web");
        document["annotations"] = json!({"direction": "egress"});
        document["http"] = json!({"response": {"status": 503.0}});
        let span = parse(document.to_string().as_bytes())
            .expect("valid")
            .spans
            .remove(0);
        assert_eq!(
            span.proxy,
            Some(Proxy {
                node: "web".to_owned()
            })
        );
        assert_eq!(span.kind, Kind::Client);
        assert_eq!(span.http.and_then(|http| http.status), Some(503));
    }

    #[test]
    fn calls_name_the_node_that_x_ray_infers() {
        for (members, node) in [
            (
                json!({"namespace": "aws", "aws": {"table_name": "users"}}),
                Node::new("users", "AWS::DynamoDB::Table"),
            ),
            (
                json!({"namespace": "aws", "name": "SQS", "aws": {"queue_url": "https://q"}}),
                Node::new("https://q", "AWS::SQS::Queue"),
            ),
            (
                json!({"namespace": "aws", "name": "SNS", "aws": {"topic_arn": "arn:x"}}),
                Node::new("SNS", "AWS::SNS"),
            ),
            (
                json!({"namespace": "remote", "name": "ebdb@db", "sql": {}}),
                Node::new("ebdb@db", "Database::SQL"),
            ),
            (
                json!({"namespace": "remote", "name": "api"}),
                Node::new("api", "remote"),
            ),
        ] {
            let Value::Object(members) = members else {
                unreachable!("the table holds objects")
            };
            let name = text(&members, "name").unwrap_or("DynamoDB").to_owned();
            assert_eq!(calls(&members, &name), Some(node));
        }
    }

    proptest::proptest! {
        #[test]
        fn a_document_with_any_bytes_changed_is_spans_or_a_named_refusal(
            changes in proptest::collection::vec((proptest::num::usize::ANY, proptest::num::u8::ANY), 0..6),
        ) {
            let mut bytes = include_bytes!("../../tests/fixtures/scorekeep.json").trim_ascii().to_vec();
            for (at, byte) in changes {
                let length = bytes.len();
                bytes[at % length] = byte;
            }
            let documents: Vec<Value> = serde_json::from_slice(&bytes).unwrap_or_default();
            for document in documents.iter().map(Value::to_string).chain([String::from_utf8_lossy(&bytes).into_owned()]) {
                match parse(document.as_bytes()) {
                    Ok(parsed) => proptest::prop_assert!(!parsed.spans.is_empty()),
                    Err(refusal) => proptest::prop_assert!(refusal.message.contains(refusal.code)),
                }
            }
        }
    }
}
