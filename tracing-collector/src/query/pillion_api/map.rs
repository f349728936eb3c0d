// SPDX-License-Identifier: Apache-2.0
//! The map as JSON: collapsed (parties and calls) or raw (X-Ray's nodes and edges).

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::json;

use crate::graph::CLIENT_TYPE;
use crate::graph::Key;
use crate::graph::Totals;
use crate::graph::calls::type_rank;
use crate::graph::counters::Counters;
use crate::span::Node;
use crate::span::UNKNOWN_TYPE;
use crate::span::seconds;

pub(super) fn collapsed(totals: &Totals) -> Value {
    let mut nodes: BTreeMap<&str, (&str, Counters)> = BTreeMap::new();
    let mut edges = Vec::new();
    for (key, counters) in totals {
        match key {
            Key::Party(node) => {
                let (kind, sum) = nodes
                    .entry(&node.name)
                    .or_insert((&node.kind, Counters::default()));
                // Several types under one name are one party; the proxy's says least about it.
                if type_rank(&node.kind) > type_rank(kind) {
                    *kind = &node.kind;
                }
                sum.merge(counters);
            }
            Key::Calls { source, target } => {
                edges.push((source.as_str(), target.as_str(), counters))
            }
            Key::Node(_) | Key::Edge { .. } => {}
        }
    }
    for name in edges
        .iter()
        .flat_map(|(source, target, _)| [*source, *target])
    {
        let kind = if name == CLIENT_TYPE {
            CLIENT_TYPE
        } else {
            UNKNOWN_TYPE
        };
        nodes.entry(name).or_insert((kind, Counters::default()));
    }
    let nodes: Vec<Value> = nodes
        .iter()
        .map(|(name, (kind, counters))| node(name, name, kind, counters))
        .collect();
    let edges: Vec<Value> = edges
        .into_iter()
        .map(|(source, target, counters)| edge(source, target, counters))
        .collect();
    json!({"nodes": nodes, "edges": edges})
}

pub(super) fn raw(totals: &Totals) -> Value {
    let mut nodes: BTreeMap<&Node, Counters> = BTreeMap::new();
    let mut edges = Vec::new();
    for (key, counters) in totals {
        match key {
            Key::Node(node) => nodes.entry(node).or_default().merge(counters),
            Key::Edge { source, target } => edges.push((source, target, counters)),
            Key::Party(_) | Key::Calls { .. } => {}
        }
    }
    for end in edges
        .iter()
        .flat_map(|(source, target, _)| [*source, *target])
    {
        nodes.entry(end).or_default();
    }
    let nodes: Vec<Value> = nodes
        .iter()
        .map(|(one, sum)| node(&id(one), &one.name, &one.kind, sum))
        .collect();
    let edges: Vec<Value> = edges
        .into_iter()
        .map(|(source, target, sum)| edge(&id(source), &id(target), sum))
        .collect();
    json!({"nodes": nodes, "edges": edges})
}

/// One name may stand for several nodes here.
fn id(node: &Node) -> String {
    format!("{} ({})", node.name, node.kind)
}

fn node(id: &str, name: &str, kind: &str, counters: &Counters) -> Value {
    let mut node = counts(counters);
    node["id"] = json!(id);
    node["name"] = json!(name);
    node["type"] = json!(kind);
    node["inferred"] = json!(counters.total() > 0 && counters.inferred == counters.total());
    node
}

fn edge(source: &str, target: &str, counters: &Counters) -> Value {
    let mut edge = counts(counters);
    edge["source"] = json!(source);
    edge["target"] = json!(target);
    edge["proxy_ms"] = if counters.between_count > 0 {
        json!(rounded(
            counters.between_us as f64 / counters.between_count as f64
        ))
    } else {
        Value::Null
    };
    edge
}

/// `error` includes throttles, as X-Ray's error total does.
fn counts(counters: &Counters) -> Value {
    let quantile = |share: f64| counters.responses.quantile(share).map(rounded);
    let total = counters.total();
    let mean = (total > 0).then(|| rounded(counters.response_us as f64 / total as f64));
    json!({
        "total": total, "ok": counters.ok, "error": counters.error + counters.throttle,
        "fault": counters.fault, "throttle": counters.throttle,
        "latency": {
            "p50_ms": quantile(0.5), "p90_ms": quantile(0.9), "p99_ms": quantile(0.99), "mean_ms": mean,
        },
        "first_seen": counters.bounds.map(|bounds| seconds(bounds.first_start_us)),
        "last_seen": counters.bounds.map(|bounds| seconds(bounds.last_end_us)),
    })
}

/// Milliseconds to the microsecond.
fn rounded(us: f64) -> f64 {
    us.round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Contribution;
    use crate::span::Outcome;
    use crate::span::PROXY_TYPE;

    fn count(totals: &mut Totals, key: Key, outcome: Outcome) {
        let one = Contribution {
            key: key.clone(),
            end_us: 1,
            response_us: 2000,
            duration_us: 2000,
            outcome,
            root: false,
            inferred: false,
            between_us: Some(500),
        };
        totals.entry(key).or_default().add(&one);
    }

    #[test]
    fn a_proxy_and_its_app_are_one_node_with_the_apps_type() {
        let mut totals = Totals::new();
        for kind in ["AWS::ECS::Fargate", PROXY_TYPE] {
            count(
                &mut totals,
                Key::Party(Node::new("cart", kind)),
                Outcome::Ok,
            );
        }
        let map = collapsed(&totals);
        assert_eq!(map["nodes"].as_array().map(Vec::len), Some(1));
        assert_eq!(
            (&map["nodes"][0]["type"], &map["nodes"][0]["total"]),
            (&json!("AWS::ECS::Fargate"), &json!(2))
        );
    }

    #[test]
    fn an_edge_adds_up_and_counts_throttles_among_errors() {
        let mut totals = Totals::new();
        let key = || Key::Calls {
            source: "client".to_owned(),
            target: "web".to_owned(),
        };
        for outcome in [
            Outcome::Ok,
            Outcome::Error,
            Outcome::Throttle,
            Outcome::Fault,
        ] {
            count(&mut totals, key(), outcome);
        }
        let map = collapsed(&totals);
        let edge = &map["edges"][0];
        for (member, count) in [
            ("total", 4),
            ("ok", 1),
            ("error", 2),
            ("fault", 1),
            ("throttle", 1),
        ] {
            assert_eq!(edge[member], json!(count), "{member}");
        }
        assert_eq!(
            (&edge["latency"]["mean_ms"], &edge["proxy_ms"]),
            (&json!(2.0), &json!(0.5))
        );
        let types: Vec<&Value> = map["nodes"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|node| &node["type"])
            .collect();
        assert_eq!(types, ["client", "unknown"]);
    }
}
