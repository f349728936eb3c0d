// SPDX-License-Identifier: Apache-2.0
//! Is the map what the traffic was? Pure: the collector's edges against what the load generator sent and what the
//! applications counted. Called by `demo` until the map has settled.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::demo::app::Counts;

/// One edge of the service map; a reading of `/pillion/v1/map` and a part of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Edge {
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) total: u64,
    pub(crate) ok: u64,
    pub(crate) error: u64,
    pub(crate) fault: u64,
    pub(crate) throttle: u64,
}

/// What really happened.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    /// Requests that reached a connection to the gateway.
    pub(crate) sent: u64,
    /// By application.
    pub(crate) counted: BTreeMap<&'static str, Counts>,
    /// The catalog's weights, while nobody has changed them.
    pub(crate) weights: Option<[u64; 2]>,
}

const CATALOGS: [&str; 2] = ["catalog-v1", "catalog-v2"];
/// One honest run in two million lies outside.
const SIGMAS: f64 = 5.0;

/// Every edge that is not what it should be, with by how much; empty when the map is true.
pub(crate) fn differences(edges: &[Edge], traffic: &Traffic) -> Vec<String> {
    let counted = |name: &str| traffic.counted.get(name).cloned().unwrap_or_default();
    let mut expected = vec![
        ("client", "gateway", traffic.sent),
        ("gateway", "web", traffic.sent),
        ("web", "cart", traffic.sent),
        ("web", "payments", traffic.sent),
    ];
    expected.extend(CATALOGS.map(|name| ("web", name, counted(name).requests)));
    let mut found = Vec::new();
    for (source, target, total) in &expected {
        // Only payments may fail, and exactly as often as it did.
        let faults = if (*source, *target) == ("web", "payments") {
            counted("payments").faults
        } else {
            0
        };
        let seen = |of: fn(&Edge) -> u64| sum(edges, source, target, of);
        let columns = [
            ("total", *total, seen(|edge| edge.total)),
            ("fault", faults, seen(|edge| edge.fault)),
            ("error", 0, seen(|edge| edge.error)),
            ("throttle", 0, seen(|edge| edge.throttle)),
        ];
        for (column, wanted, seen) in columns
            .into_iter()
            .filter(|(_, wanted, seen)| wanted != seen)
        {
            found.push(format!(
                "{source} -> {target}, {column}: {}",
                off(wanted, seen)
            ));
        }
    }
    let catalogs: u64 = CATALOGS
        .iter()
        .map(|name| sum(edges, "web", name, |edge| edge.total))
        .sum();
    if catalogs != traffic.sent {
        found.push(format!(
            "web -> catalog-v1 and -v2 together: {}",
            off(traffic.sent, catalogs)
        ));
    }
    for name in ["web", "cart", "payments"] {
        let requests = counted(name).requests;
        if requests != traffic.sent {
            found.push(format!(
                "{name} itself counted: {}",
                off(traffic.sent, requests)
            ));
        }
    }
    found.extend(edges.iter().flat_map(|edge| strange(edge, &expected)));
    found.extend(traffic.weights.and_then(|weights| skew(weights, edges)));
    found
}

/// What is wrong with an edge whatever the traffic was.
fn strange(edge: &Edge, expected: &[(&str, &str, u64)]) -> Vec<String> {
    let mut found = Vec::new();
    let name = format!("{} -> {}", edge.source, edge.target);
    let exists =
        |(source, target, _): &(&str, &str, u64)| *source == edge.source && *target == edge.target;
    if !expected.iter().any(exists) {
        found.push(format!(
            "{name}: {} calls on an edge that does not exist",
            edge.total
        ));
    }
    let parts = edge.ok + edge.error + edge.fault;
    if parts != edge.total {
        found.push(format!(
            "{name}: ok, error and fault add up to {parts}, total is {}",
            edge.total
        ));
    }
    found
}

/// The share of the first catalog, if it lies outside what chance allows.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn skew([first, second]: [u64; 2], edges: &[Edge]) -> Option<String> {
    let counts = CATALOGS.map(|name| sum(edges, "web", name, |edge| edge.total));
    let (seen, all) = (counts[0] as f64, (counts[0] + counts[1]) as f64);
    let share = first as f64 / (first + second) as f64;
    let (mean, deviation) = (all * share, (all * share * (1.0 - share)).sqrt());
    ((seen - mean).abs() > SIGMAS * deviation).then(|| {
        format!(
            "web -> catalog-v1: {} of {} calls; weights {first}/{second} mean {mean:.0} with a standard deviation of {deviation:.1}",
            counts[0],
            counts[0] + counts[1]
        )
    })
}

fn sum(edges: &[Edge], source: &str, target: &str, of: impl Fn(&Edge) -> u64) -> u64 {
    edges
        .iter()
        .filter(|edge| edge.source == source && edge.target == target)
        .map(of)
        .sum()
}

fn off(expected: u64, seen: u64) -> String {
    let by = if seen < expected {
        format!("-{}", expected - seen)
    } else {
        format!("+{}", seen - expected)
    };
    format!("{seen} where {expected} were expected ({by})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(source: &str, target: &str, total: u64, fault: u64) -> Edge {
        let (source, target) = (source.to_owned(), target.to_owned());
        Edge {
            source,
            target,
            total,
            ok: total - fault,
            error: 0,
            fault,
            throttle: 0,
        }
    }

    fn map() -> Vec<Edge> {
        vec![
            edge("client", "gateway", 1000, 0),
            edge("gateway", "web", 1000, 0),
            edge("web", "catalog-v1", 905, 0),
            edge("web", "catalog-v2", 95, 0),
            edge("web", "cart", 1000, 0),
            edge("web", "payments", 1000, 83),
        ]
    }

    fn traffic() -> Traffic {
        let counts = |requests, faults| Counts {
            requests,
            faults,
            segment: None,
        };
        let counted = BTreeMap::from([
            ("web", counts(1000, 0)),
            ("catalog-v1", counts(905, 0)),
            ("catalog-v2", counts(95, 0)),
            ("cart", counts(1000, 0)),
            ("payments", counts(1000, 83)),
        ]);
        Traffic {
            sent: 1000,
            counted,
            weights: Some([90, 10]),
        }
    }

    fn only(found: &[String]) -> &str {
        assert_eq!(found.len(), 1, "{found:?}");
        &found[0]
    }

    #[test]
    fn a_map_that_is_the_traffic_has_no_difference() {
        assert_eq!(differences(&map(), &traffic()), Vec::<String>::new());
    }

    #[test]
    fn a_lost_call_is_named_with_its_edge_and_by_how_much() {
        let mut map = map();
        map[1] = edge("gateway", "web", 998, 0);
        let found = differences(&map, &traffic());
        assert_eq!(
            only(&found),
            "gateway -> web, total: 998 where 1000 were expected (-2)"
        );
    }

    #[test]
    fn a_missing_edge_counts_as_nothing() {
        let found = differences(&map()[1..], &traffic());
        assert_eq!(
            only(&found),
            "client -> gateway, total: 0 where 1000 were expected (-1000)"
        );
    }

    #[test]
    fn a_call_counted_twice_is_seen() {
        let mut map = map();
        map.push(edge("web", "cart", 3, 0));
        assert_eq!(
            only(&differences(&map, &traffic())),
            "web -> cart, total: 1003 where 1000 were expected (+3)"
        );
    }

    #[test]
    fn a_fault_on_the_wrong_edge_is_seen() {
        let mut map = map();
        map[4] = edge("web", "cart", 1000, 1);
        assert_eq!(
            only(&differences(&map, &traffic())),
            "web -> cart, fault: 1 where 0 were expected (+1)"
        );
    }

    #[test]
    fn faults_of_payments_must_be_those_it_made() {
        let mut map = map();
        map[5] = edge("web", "payments", 1000, 80);
        assert_eq!(
            only(&differences(&map, &traffic())),
            "web -> payments, fault: 80 where 83 were expected (-3)"
        );
    }

    #[test]
    fn an_edge_nobody_called_is_seen() {
        let mut map = map();
        map.push(edge("cart", "payments", 1, 0));
        assert_eq!(
            only(&differences(&map, &traffic())),
            "cart -> payments: 1 calls on an edge that does not exist"
        );
    }

    #[test]
    fn an_outcome_that_is_in_no_column_is_seen() {
        let mut map = map();
        map[0].ok = 999;
        assert!(only(&differences(&map, &traffic())).contains("add up to 999"));
    }

    #[test]
    fn weights_are_held_against_chance_unless_somebody_changed_them() {
        // 9.5 standard deviations is 47.4.
        let (mut map, mut traffic) = (map(), traffic());
        map[2] = edge("web", "catalog-v1", 850, 0);
        map[3] = edge("web", "catalog-v2", 150, 0);
        for (name, requests) in [("catalog-v1", 850), ("catalog-v2", 150)] {
            traffic.counted.get_mut(name).unwrap().requests = requests;
        }
        assert!(only(&differences(&map, &traffic)).contains("weights 90/10"));
        traffic.weights = None;
        assert_eq!(differences(&map, &traffic), Vec::<String>::new());
    }

    #[test]
    fn nothing_sent_and_nothing_on_the_map_is_true() {
        let traffic = Traffic {
            sent: 0,
            counted: BTreeMap::new(),
            weights: Some([90, 10]),
        };
        assert_eq!(differences(&[], &traffic), Vec::<String>::new());
    }
}
