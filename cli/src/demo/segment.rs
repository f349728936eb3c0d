// SPDX-License-Identifier: Apache-2.0
//! What an application with an old X-Ray SDK does: reads `X-Amzn-Trace-Id` and sends a segment document to the daemon,
//! one UDP datagram each, a header line before the JSON. Pure; `app` sends it.

use std::time::{Duration, SystemTime};

use serde_json::json;

/// Format and version, as the daemon's protocol has it.
const HEADER: &str = "{\"format\": \"json\", \"version\": 1}\n";

/// `Root=1-8hex-24hex;Parent=16hex;Sampled=0|1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TraceHeader {
    pub(crate) root: String,
    pub(crate) parent: Option<String>,
    pub(crate) sampled: bool,
}

impl TraceHeader {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let mut pairs = text
                .split(';')
                .filter_map(|pair| pair.trim().split_once('='));
            pairs.find_map(|(key, value)| (key == name).then(|| value.to_owned()))
        };
        Some(Self {
            root: field("Root")?,
            parent: field("Parent"),
            sampled: field("Sampled").as_deref() == Some("1"),
        })
    }
}

/// One served request.
#[derive(Debug)]
pub(crate) struct Served<'a> {
    pub(crate) name: &'a str,
    pub(crate) method: &'a str,
    pub(crate) url: &'a str,
    pub(crate) begun: SystemTime,
    pub(crate) took: Duration,
}

/// The datagram for a request that was served under `trace`, as segment `id`.
pub(crate) fn datagram(
    trace: &TraceHeader,
    id: &str,
    work_id: &str,
    served: &Served<'_>,
) -> Vec<u8> {
    let begun = served
        .begun
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64();
    let ended = begun + served.took.as_secs_f64();
    let mut segment = json!({
        "name": served.name,
        "id": id,
        "trace_id": trace.root,
        "start_time": begun,
        "end_time": ended,
        "http": {
            "request": {"method": served.method, "url": served.url},
            "response": {"status": 200},
        },
        "aws": {"xray": {"sdk": "pillion demo", "sdk_version": env!("CARGO_PKG_VERSION")}},
        "subsegments": [{"name": "load basket", "id": work_id, "start_time": begun, "end_time": ended}],
    });
    if let Some(parent) = &trace.parent {
        segment["parent_id"] = json!(parent);
    }
    format!("{HEADER}{segment}").into_bytes()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_trace_header_is_read_in_any_order_and_with_spaces() {
        let header = TraceHeader::parse(
            "Sampled=1; Root=1-5f84c7a1-e7d1852db8c4fd35d88bf49a;Parent=53995c3f42cd8ad8;x=y",
        );
        let expected = TraceHeader {
            root: "1-5f84c7a1-e7d1852db8c4fd35d88bf49a".into(),
            parent: Some("53995c3f42cd8ad8".into()),
            sampled: true,
        };
        assert_eq!(header, Some(expected));
        assert_eq!(TraceHeader::parse("Sampled=1"), None);
    }

    #[test]
    fn a_datagram_is_a_header_line_and_a_segment_under_its_parent() {
        let trace = TraceHeader::parse(
            "Root=1-5f84c7a1-e7d1852db8c4fd35d88bf49a;Parent=53995c3f42cd8ad8;Sampled=1",
        )
        .unwrap();
        let served = Served {
            name: "cart",
            method: "GET",
            url: "http://cart/",
            begun: SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000),
            took: Duration::from_millis(250),
        };
        let bytes = datagram(&trace, "0123456789abcdef", "fedcba9876543210", &served);
        let text = String::from_utf8(bytes).unwrap();
        let (header, segment) = text.split_once('\n').unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(header).unwrap(),
            json!({"format": "json", "version": 1})
        );
        let segment: Value = serde_json::from_str(segment).unwrap();
        assert_eq!(segment["parent_id"], "53995c3f42cd8ad8");
        assert_eq!(segment["trace_id"], "1-5f84c7a1-e7d1852db8c4fd35d88bf49a");
        assert_eq!(segment["end_time"], 1_600_000_000.25);
    }
}
