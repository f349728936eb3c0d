// SPDX-License-Identifier: Apache-2.0
//! Spans as the segments that App Mesh's Envoy sent to an X-Ray daemon: a header line and one JSON document a datagram.
//! Pure; `app` hands it to the exporter when `ENABLE_ENVOY_XRAY_TRACING` asks for it.

use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use pillion_runtime::spans::Attribute;
use pillion_runtime::spans::Kind;
use pillion_runtime::spans::SpanRecord;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

const HEADER: &str = "{\"format\":\"json\",\"version\":1}\n";
/// What a daemon reads of a datagram.
const LARGEST: usize = 64 * 1024;

/// Whose segments they are.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Name of every segment.
    pub name: String,
    /// The mesh.
    pub mesh: String,
    /// The virtual node, or gateway: X-Ray has one word for both.
    pub node: String,
}

/// The datagram of a span; `None` if it is too large for one.
pub fn datagram(origin: &Origin, span: &SpanRecord) -> Option<Vec<u8>> {
    let document = segment(origin, span).to_string();
    let bytes = [HEADER.as_bytes(), document.as_bytes()].concat();
    (bytes.len() <= LARGEST).then_some(bytes)
}

fn segment(origin: &Origin, span: &SpanRecord) -> Value {
    let attribute = |name: &str| find(&span.attributes, name);
    let number = |name: &str| attribute(name).and_then(|text| text.parse::<i64>().ok());
    let mut document = json!({
        "name": origin.name,
        "id": format!("{:016x}", span.span_id),
        "trace_id": trace_id(span.trace_id),
        "start_time": seconds(span.start),
        "end_time": seconds(span.end),
        "origin": "AWS::AppMesh::Proxy",
        "aws": {"app_mesh": {"mesh_name": origin.mesh, "virtual_node_name": origin.node}},
        "annotations": annotations(&span.attributes),
    });
    if span.parent_id != 0 {
        document["parent_id"] = format!("{:016x}", span.parent_id).into();
    }
    // A gateway's tries are parts of its own segment; a sidecar's outbound hop stands for itself.
    if span.kind == Kind::Client && attribute("pillion.part").is_some() {
        document["type"] = "subsegment".into();
    }
    let url = format!(
        "{}://{}{}",
        attribute("url.scheme").unwrap_or_else(|| "http".to_owned()),
        attribute("server.address").unwrap_or_default(),
        attribute("url.path").unwrap_or_default()
    );
    let mut request = Map::new();
    request.insert("url".to_owned(), url.into());
    for (member, name) in [
        ("method", "http.request.method"),
        ("user_agent", "user_agent.original"),
        ("client_ip", "client.address"),
    ] {
        request.extend(attribute(name).map(|value| (member.to_owned(), value.into())));
    }
    if attribute("pillion.x_forwarded_for").is_some() {
        request.insert("x_forwarded_for".to_owned(), true.into());
    }
    document["http"] = json!({"request": request});
    let status = number("http.response.status_code");
    if let Some(status) = status {
        let mut response = json!({"status": status});
        if let Some(length) = number("http.response.body.size") {
            response["content_length"] = length.into();
        }
        document["http"]["response"] = response;
    }
    match status {
        Some(429) => {
            document["error"] = true.into();
            document["throttle"] = true.into();
        }
        Some(400..=499) => document["error"] = true.into(),
        Some(500..) | None => document["fault"] = true.into(),
        Some(_) => {}
    }
    document
}

/// Envoy's tags, under its names.
fn annotations(attributes: &[Attribute]) -> Map<String, Value> {
    let mut all = Map::from_iter([("component".to_owned(), Value::from("proxy"))]);
    for (tag, name) in [
        ("upstream_cluster", "pillion.upstream_cluster"),
        ("response_flags", "pillion.response_flags"),
        ("request_size", "http.request.body.size"),
        ("response_size", "http.response.body.size"),
        ("upstream_address", "network.peer.address"),
        ("direction", "pillion.direction"),
    ] {
        all.extend(find(attributes, name).map(|value| (tag.to_owned(), value.into())));
    }
    all
}

fn find(attributes: &[Attribute], name: &str) -> Option<String> {
    let found = attributes.iter().find(|one| one.key.as_str() == name)?;
    Some(found.value.to_string())
}

/// `1-<8 hex>-<24 hex>`.
fn trace_id(id: u128) -> String {
    let text = format!("{id:032x}");
    let (epoch, unique) = text.split_at(8);
    format!("1-{epoch}-{unique}")
}

fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(status: i64) -> SpanRecord {
        SpanRecord {
            trace_id: 0x5759_e988_bd86_2e3f_e1be_46a9_9427_2793,
            span_id: 0x53995c3f42cd8ad8,
            parent_id: 0,
            kind: Kind::Server,
            name: "GET all".into(),
            start: UNIX_EPOCH + std::time::Duration::from_millis(1500),
            end: UNIX_EPOCH + std::time::Duration::from_millis(1750),
            attributes: vec![Attribute::new("http.response.status_code", status)],
            error: false,
        }
    }

    #[test]
    fn answers_are_faults_errors_and_throttles_as_xray_counts_them() {
        let origin = Origin {
            name: "m/n".to_owned(),
            mesh: "m".to_owned(),
            node: "n".to_owned(),
        };
        for (status, flags) in [
            (200, [false, false, false]),
            (404, [true, false, false]),
            (429, [true, false, true]),
            (503, [false, true, false]),
        ] {
            let made = segment(&origin, &span(status));
            let has = |name: &str| made[name] == true;
            assert_eq!(
                [has("error"), has("fault"), has("throttle")],
                flags,
                "{status}"
            );
        }
        let unanswered = SpanRecord {
            attributes: Vec::new(),
            ..span(0)
        };
        assert_eq!(segment(&origin, &unanswered)["fault"], true);
        let made = segment(&origin, &span(200));
        assert_eq!(made["trace_id"], "1-5759e988-bd862e3fe1be46a994272793");
        assert_eq!(made["id"], "53995c3f42cd8ad8");
        assert_eq!(
            (made["start_time"].as_f64(), made.get("parent_id")),
            (Some(1.5), None)
        );
    }
}
