// SPDX-License-Identifier: Apache-2.0
//! What an OTLP span looks like as an X-Ray document: whom it calls, and the members `namespace`, `sql`, `cause`, `aws`,
//! `links`. Older and newer semantic conventions are both read.

use opentelemetry_proto::tonic::trace::v1::Span as OtlpSpan;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::convert::otlp::attributes;
use crate::convert::otlp::attributes::Attributes;
use crate::span::Kind;
use crate::span::Node;
use crate::span::TraceId;

const SQL: [&str; 16] = [
    "db2",
    "derby",
    "hive",
    "ibm.db2",
    "mariadb",
    "microsoft.sql_server",
    "mssql",
    "mysql",
    "oracle",
    "oracle.db",
    "other_sql",
    "postgres",
    "postgresql",
    "sqlite",
    "teradata",
    "trino",
];
/// X-Ray cuts names here.
const MAX_NAME: usize = 200;
const MAX_STACK: usize = 100;

/// Whom a client or producer calls: the node drawn when nothing arrives from there.
pub(super) fn calls(kind: Kind, attributes: &Attributes, operation: &str) -> Option<Node> {
    if !matches!(kind, Kind::Client | Kind::Producer) {
        return None;
    }
    let name = target(attributes, operation);
    let table = attributes
        .first_of_list("aws.dynamodb.table_names")
        .or_else(|| attributes.text("aws.table_name"));
    if let Some(table) = table {
        return Some(Node::new(table, "AWS::DynamoDB::Table"));
    }
    if is_aws(attributes) {
        return Some(Node::new(&name, format!("AWS::{name}")));
    }
    Some(Node::new(
        name,
        if sql_system(attributes).is_some() {
            "Database::SQL"
        } else {
            "remote"
        },
    ))
}

fn is_aws(attributes: &Attributes) -> bool {
    attributes.text("rpc.system") == Some("aws-api") || attributes.text("aws.service").is_some()
}

fn sql_system(attributes: &Attributes) -> Option<String> {
    attributes
        .either(&["db.system.name", "db.system"])
        .filter(|system| SQL.contains(&system.as_str()))
}

fn target(attributes: &Attributes, operation: &str) -> String {
    let found = attributes
        .either(&["aws.remote.service", "peer.service", "aws.service"])
        .or_else(|| database(attributes))
        .or_else(|| {
            attributes.either(&[
                "rpc.service",
                "messaging.destination.name",
                "server.address",
                "http.host",
                "net.peer.name",
            ])
        });
    clean(&found.unwrap_or_else(|| operation.to_owned()))
}

/// `name@host`, as X-Ray SDKs call a database.
fn database(attributes: &Attributes) -> Option<String> {
    attributes.either(&["db.system.name", "db.system"])?;
    let name = attributes.either(&["db.namespace", "db.name"])?;
    let host = attributes.either(&["server.address", "net.peer.name"]);
    Some(host.map_or_else(|| name.clone(), |host| format!("{name}@{host}")))
}

fn clean(name: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || c.is_whitespace() || "_.:/%&#=+\\-@".contains(*c);
    let cleaned: String = name.chars().filter(kept).take(MAX_NAME).collect();
    if cleaned.is_empty() {
        "span".to_owned()
    } else {
        cleaned
    }
}

pub(super) fn members(
    span: &OtlpSpan,
    attributes: &Attributes,
    resource: &Attributes,
    calls: Option<&Node>,
) -> Map<String, Value> {
    let mut members = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            members.insert(name.to_owned(), value);
        }
    };
    put(
        "name",
        Some(json!(calls.map_or_else(
            || clean(&span.name),
            |_| target(attributes, &span.name)
        ))),
    );
    put(
        "namespace",
        calls.map(|_| json!(if is_aws(attributes) { "aws" } else { "remote" })),
    );
    put("sql", sql(span, attributes));
    put("cause", cause(span, calls.is_some()));
    put("aws", aws(attributes, resource));
    put("links", links(span));
    members
}

fn sql(span: &OtlpSpan, attributes: &Attributes) -> Option<Value> {
    let system = sql_system(attributes)?;
    let name = attributes
        .either(&["db.namespace", "db.name"])
        .unwrap_or_default();
    let host = attributes
        .either(&["db.connection_string", "server.address"])
        .unwrap_or_else(|| "localhost".to_owned());
    let mut sql = json!({
        "url": span.name,
        "connection_string": format!("{host}/{name}"),
        "database_type": system,
    });
    if let Some(query) = attributes.either(&["db.query.text", "db.statement"]) {
        sql["sanitized_query"] = json!(query);
    }
    if let Some(user) = attributes.text("db.user") {
        sql["user"] = json!(user);
    }
    Some(sql)
}

fn cause(span: &OtlpSpan, remote: bool) -> Option<Value> {
    let mut exceptions: Vec<Value> = span
        .events
        .iter()
        .filter(|event| event.name == "exception")
        .map(|event| exception(event, remote))
        .collect();
    if exceptions.is_empty() {
        let status = span
            .status
            .as_ref()
            .filter(|status| status.code() == StatusCode::Error)?;
        if status.message.is_empty() {
            return None;
        }
        exceptions.push(json!({"type": "", "message": status.message, "remote": remote}));
    }
    for (number, exception) in exceptions.iter_mut().enumerate() {
        let own = hex::encode(&span.span_id);
        exception["id"] = json!(format!("{}{number:02x}", own.get(..14).unwrap_or(&own)));
    }
    Some(json!({"exceptions": exceptions}))
}

fn exception(event: &Event, remote: bool) -> Value {
    let attributes = Attributes::of(event.attributes.clone());
    let stack: Vec<Value> = attributes
        .text("exception.stacktrace")
        .map(|trace| {
            trace
                .lines()
                .filter(|line| !line.trim().is_empty())
                .take(MAX_STACK)
        })
        .map(|lines| lines.map(|line| json!({"label": line.trim()})).collect())
        .unwrap_or_default();
    json!({
        "type": attributes.text("exception.type").unwrap_or_default(),
        "message": attributes.text("exception.message").unwrap_or_default(),
        "remote": remote,
        "stack": stack,
    })
}

fn aws(attributes: &Attributes, resource: &Attributes) -> Option<Value> {
    let mut aws = Map::new();
    for (member, names) in [
        ("operation", &["aws.operation", "rpc.method"][..]),
        ("region", &["aws.region"]),
        ("request_id", &["aws.request_id", "aws.requestId"]),
        ("queue_url", &["aws.queue_url", "aws.sqs.queue.url"]),
        ("table_name", &["aws.table_name"]),
    ] {
        if let Some(value) = attributes.either(names).filter(|_| is_aws(attributes)) {
            aws.insert(member.to_owned(), json!(value));
        }
    }
    if let Some(account) = resource.text("cloud.account.id") {
        aws.insert("account_id".to_owned(), json!(account));
    }
    if resource.text("cloud.platform") == Some("aws_ec2") {
        aws.insert(
            "ec2".to_owned(),
            json!({"instance_id": resource.text("host.id"), "availability_zone": resource.text("cloud.availability_zone")}),
        );
    }
    if let Some(sdk) = resource.text("telemetry.sdk.name") {
        let language = resource.text("telemetry.sdk.language").unwrap_or("unknown");
        aws.insert(
            "xray".to_owned(),
            json!({"sdk": format!("{sdk} for {language}")}),
        );
    }
    (!aws.is_empty()).then_some(Value::Object(aws))
}

fn links(span: &OtlpSpan) -> Option<Value> {
    let links: Vec<Value> = span
        .links
        .iter()
        .filter_map(|link| {
            let trace = TraceId(u128::from_be_bytes(link.trace_id.as_slice().try_into().ok()?));
            let attributes: Map<String, Value> = link
                .attributes
                .iter()
                .map(|pair| (pair.key.clone(), attributes::json(pair.value.clone())))
                .collect();
            Some(json!({"trace_id": trace.xray(), "id": hex::encode(&link.span_id), "attributes": attributes}))
        })
        .collect();
    (!links.is_empty()).then_some(Value::Array(links))
}
