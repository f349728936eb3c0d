// SPDX-License-Identifier: Apache-2.0
//! What stands on disk: protobuf messages of the store's own, so that fields can be added and old days stay readable.
//! Field numbers are never reused. Here the parts that several records share, keys and counts; [`span`] and [`trace`]
//! hold the records of those. Only `store::disk` knows these files.

mod parts;
mod span;
mod trace;

use prost::Message;

use crate::graph::Key;
use crate::graph::counters::Bounds;
use crate::graph::counters::Counters;
use crate::span::Flags;
use crate::span::Http;
use crate::span::Node;

pub(super) use self::span::decode_span;
pub(super) use self::span::encode_span;
pub(super) use self::trace::decode_trace;
pub(super) use self::trace::encode_trace;
#[cfg(test)]
pub(super) use self::trace::encode_trace_without_parts;

#[derive(Clone, PartialEq, Message)]
struct NodeRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    kind: String,
}

#[derive(Clone, PartialEq, Message)]
struct HttpRecord {
    #[prost(string, optional, tag = "1")]
    method: Option<String>,
    #[prost(string, optional, tag = "2")]
    url: Option<String>,
    #[prost(uint32, optional, tag = "3")]
    status: Option<u32>,
    #[prost(string, optional, tag = "4")]
    user_agent: Option<String>,
    #[prost(string, optional, tag = "5")]
    client_ip: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct CountersRecord {
    #[prost(sint64, repeated, tag = "1")]
    sums: Vec<i64>,
    #[prost(uint64, repeated, tag = "2")]
    response_buckets: Vec<u64>,
    #[prost(sint64, repeated, tag = "3")]
    response_counts: Vec<i64>,
    #[prost(uint64, repeated, tag = "4")]
    duration_buckets: Vec<u64>,
    #[prost(sint64, repeated, tag = "5")]
    duration_counts: Vec<i64>,
    #[prost(uint64, repeated, tag = "6")]
    bounds: Vec<u64>,
}

impl From<&Node> for NodeRecord {
    fn from(node: &Node) -> NodeRecord {
        NodeRecord {
            name: node.name.clone(),
            kind: node.kind.clone(),
        }
    }
}

impl From<NodeRecord> for Node {
    fn from(record: NodeRecord) -> Node {
        Node {
            name: record.name,
            kind: record.kind,
        }
    }
}

impl From<&Http> for HttpRecord {
    fn from(http: &Http) -> HttpRecord {
        HttpRecord {
            method: http.method.clone(),
            url: http.url.clone(),
            status: http.status.map(u32::from),
            user_agent: http.user_agent.clone(),
            client_ip: http.client_ip.clone(),
        }
    }
}

impl From<HttpRecord> for Http {
    fn from(record: HttpRecord) -> Http {
        Http {
            method: record.method,
            url: record.url,
            status: record.status.and_then(|status| u16::try_from(status).ok()),
            user_agent: record.user_agent,
            client_ip: record.client_ip,
        }
    }
}

fn flags_out(flags: Flags) -> u32 {
    u32::from(flags.fault) | u32::from(flags.error) << 1 | u32::from(flags.throttle) << 2
}

fn flags_in(bits: u32) -> Flags {
    Flags {
        fault: bits & 1 != 0,
        error: bits & 2 != 0,
        throttle: bits & 4 != 0,
    }
}

fn place<T: PartialEq>(all: &[T], one: &T) -> u32 {
    all.iter()
        .position(|other| other == one)
        .map_or(0, |at| at as u32)
}

/// Kind, then each part with its length before it.
pub(super) fn encode_key(key: &Key) -> Vec<u8> {
    let (kind, parts) = match key {
        Key::Node(node) => (0, vec![&node.name, &node.kind]),
        Key::Edge { source, target } => (
            1,
            vec![&source.name, &source.kind, &target.name, &target.kind],
        ),
        Key::Party(node) => (2, vec![&node.name, &node.kind]),
        Key::Calls { source, target } => (3, vec![source, target]),
    };
    let mut bytes = vec![kind];
    for part in parts {
        bytes.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend(part.as_bytes());
    }
    bytes
}

pub(super) fn decode_key(bytes: &[u8]) -> Option<Key> {
    let (kind, mut rest) = bytes.split_first()?;
    let mut part = || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (text, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        rest = after;
        String::from_utf8(text.to_vec()).ok()
    };
    Some(match kind {
        0 => Key::Node(Node {
            name: part()?,
            kind: part()?,
        }),
        1 => Key::Edge {
            source: Node {
                name: part()?,
                kind: part()?,
            },
            target: Node {
                name: part()?,
                kind: part()?,
            },
        },
        2 => Key::Party(Node {
            name: part()?,
            kind: part()?,
        }),
        3 => Key::Calls {
            source: part()?,
            target: part()?,
        },
        _ => return None,
    })
}

pub(super) fn encode_counters(counters: &Counters) -> Vec<u8> {
    let (response_buckets, response_counts) = counters.responses.buckets().unzip();
    let (duration_buckets, duration_counts) = counters.durations.buckets().unzip();
    let bounds = counters.bounds.map(|bounds| {
        vec![
            bounds.first_start_us,
            bounds.first_end_us,
            bounds.last_end_us,
        ]
    });
    let record = CountersRecord {
        sums: vec![
            counters.ok,
            counters.error,
            counters.throttle,
            counters.fault,
            counters.response_us,
            counters.roots,
            counters.inferred,
            counters.between_us,
            counters.between_count,
        ],
        response_buckets,
        response_counts,
        duration_buckets,
        duration_counts,
        bounds: bounds.unwrap_or_default(),
    };
    record.encode_to_vec()
}

pub(super) fn decode_counters(bytes: &[u8]) -> Option<Counters> {
    let record = CountersRecord::decode(bytes).ok()?;
    let &[
        ok,
        error,
        throttle,
        fault,
        response_us,
        roots,
        inferred,
        between_us,
        between_count,
    ] = record.sums.get(..9)?
    else {
        return None;
    };
    let bounds = match record.bounds[..] {
        [first_start_us, first_end_us, last_end_us] => Some(Bounds {
            first_start_us,
            first_end_us,
            last_end_us,
        }),
        _ => None,
    };
    let mut counters = Counters {
        ok,
        error,
        throttle,
        fault,
        response_us,
        roots,
        inferred,
        between_us,
        between_count,
        bounds,
        ..Counters::default()
    };
    for (bucket, count) in record
        .response_buckets
        .into_iter()
        .zip(record.response_counts)
    {
        counters.responses.put(bucket, count);
    }
    for (bucket, count) in record
        .duration_buckets
        .into_iter()
        .zip(record.duration_counts)
    {
        counters.durations.put(bucket, count);
    }
    Some(counters)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::convert::xray;
    use crate::span::Span;
    use crate::span::TraceId;
    use crate::summary::evaluate;
    use crate::trace::Trace;

    #[test]
    fn spans_rows_and_counts_come_back_as_they_were_written() {
        let documents: Vec<Value> =
            serde_json::from_str(include_str!("../../tests/fixtures/scorekeep.json"))
                .expect("JSON");
        let spans: Vec<Span> = documents
            .iter()
            .flat_map(|document| {
                xray::parse(document.to_string().as_bytes())
                    .expect("valid")
                    .spans
            })
            .collect();
        for span in &spans {
            assert_eq!(
                decode_span(span.trace, span.id, &encode_span(span)).as_ref(),
                Some(span)
            );
        }
        let evaluated = evaluate(&Trace::assemble(spans[0].trace, spans), 3, true);
        let id = evaluated.summary.id;
        assert_eq!(
            decode_trace(id, &encode_trace(&evaluated)),
            Some((evaluated.clone(), true))
        );
        let mut counters = Counters::default();
        for contribution in &evaluated.contributions {
            counters.add(contribution);
        }
        assert_eq!(decode_counters(&encode_counters(&counters)), Some(counters));
    }

    #[test]
    fn damaged_bytes_are_no_record() {
        assert_eq!(decode_key(&[1, 0, 0, 0, 9, b'a']), None);
        assert_eq!(decode_counters(&[0xff]), None);
        assert!(decode_trace(TraceId(1), &[0xff]).is_none());
    }
}
