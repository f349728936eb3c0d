// SPDX-License-Identifier: Apache-2.0
//! GetServiceGraph: totals of a window, of all traces or of a group's, in X-Ray's shape. Node ids are dense and sorted by type and name, the same on
//! every page of one request.

use std::collections::BTreeMap;
use std::collections::HashMap;

use serde_json::Value;
use serde_json::json;

use crate::filter::Filter;
use crate::graph::CLIENT_TYPE;
use crate::graph::Key;
use crate::graph::Totals;
use crate::graph::counters::Counters;
use crate::graph::counters::Histogram;
use crate::query::token;
use crate::query::window::window;
use crate::query::xray_api::ACCOUNT;
use crate::query::xray_api::ApiError;
use crate::query::xray_api::time;
use crate::span::Node;
use crate::span::seconds;
use crate::store::Store;

const PAGE: usize = 500;
const OPERATION: &str = "GetServiceGraph";
/// Readers divide by a node's window, so it is never empty.
const SHORTEST_WINDOW_US: u64 = 1_000_000;

pub(super) fn answer(
    store: &dyn Store,
    group: Option<&Filter>,
    request: &Value,
) -> Result<Value, ApiError> {
    let (start, end) = (time(request, "StartTime")?, time(request, "EndTime")?);
    let from = token::position(token::redeem(OPERATION, request)?)?;
    let window = window(start, end)?;
    let totals = match group {
        None => store.graph(window)?,
        Some(filter) => store.graph_of(window, &|one| filter.matches(one, &[]))?,
    };
    let services = services(&totals);
    let mut answer = json!({
        "StartTime": start.1, "EndTime": end.1, "ContainsOldGroupVersions": false,
        "Services": services.iter().skip(from).take(PAGE).collect::<Vec<_>>(),
    });
    if from + PAGE < services.len() {
        let next = token::issue(OPERATION, request, &token::at_position(from + PAGE));
        answer["NextToken"] = json!(next);
    }
    Ok(answer)
}

pub(super) fn services(totals: &Totals) -> Vec<Value> {
    let nothing = Counters::default();
    let mut nodes: BTreeMap<(&str, &str), (&Node, &Counters)> = BTreeMap::new();
    let mut edges: HashMap<&Node, Vec<(&Node, &Counters)>> = HashMap::new();
    for (key, counters) in totals {
        match key {
            Key::Node(node) => {
                nodes.insert((&node.kind, &node.name), (node, counters));
            }
            Key::Edge { source, target } => {
                edges.entry(source).or_default().push((target, counters));
            }
            Key::Party(_) | Key::Calls { .. } => {}
        }
    }
    for (source, targets) in &edges {
        for node in targets.iter().map(|(target, _)| *target).chain([*source]) {
            nodes
                .entry((&node.kind, &node.name))
                .or_insert((node, &nothing));
        }
    }
    let ids: HashMap<&Node, usize> = nodes
        .values()
        .enumerate()
        .map(|(id, (node, _))| (*node, id))
        .collect();
    nodes
        .values()
        .enumerate()
        .map(|(id, (node, counters))| {
            let edges = edges.get(node).map(Vec::as_slice).unwrap_or_default();
            service(id, node, counters, edges, &ids)
        })
        .collect()
}

fn service(
    id: usize,
    node: &Node,
    counters: &Counters,
    edges: &[(&Node, &Counters)],
    ids: &HashMap<&Node, usize>,
) -> Value {
    let client = node.kind == CLIENT_TYPE;
    let sends_nothing = client || counters.inferred == counters.total();
    let times = edges.iter().map(|(_, edge)| *edge).chain([counters]).fold(
        Counters::default(),
        |mut all, one| {
            all.merge(one);
            all
        },
    );
    let (start, end) = window_of(if client { &times } else { counters }, &times);
    let mut service = json!({
        "ReferenceId": id, "Name": node.name, "Names": [node.name], "AccountId": ACCOUNT, "Type": node.kind,
        "State": if sends_nothing { "unknown" } else { "active" },
        "StartTime": start, "EndTime": end,
        "Edges": edges.iter().map(|(target, counters)| edge(ids.get(target).copied(), counters)).collect::<Vec<_>>(),
    });
    if !client {
        service["SummaryStatistics"] = statistics(counters);
        service["ResponseTimeHistogram"] = histogram(&counters.responses);
        service["DurationHistogram"] = histogram(&counters.durations);
    }
    if counters.roots > 0 {
        service["Root"] = json!(true);
    }
    service
}

/// Its own times; of a node that only calls were counted for, theirs.
fn window_of(own: &Counters, all: &Counters) -> (f64, f64) {
    let Some(bounds) = own.bounds.or(all.bounds) else {
        return (0.0, 1.0);
    };
    let end = bounds
        .last_end_us
        .max(bounds.first_start_us + SHORTEST_WINDOW_US);
    (seconds(bounds.first_start_us), seconds(end))
}

fn edge(target: Option<usize>, counters: &Counters) -> Value {
    let (start, end) = window_of(counters, counters);
    json!({
        "ReferenceId": target, "StartTime": start, "EndTime": end, "SummaryStatistics": statistics(counters),
        "ResponseTimeHistogram": histogram(&counters.responses), "Aliases": [],
    })
}

pub(super) fn statistics(counters: &Counters) -> Value {
    json!({
        "OkCount": counters.ok,
        "ErrorStatistics": {
            "ThrottleCount": counters.throttle, "OtherCount": counters.error,
            "TotalCount": counters.throttle + counters.error,
        },
        "FaultStatistics": {"OtherCount": counters.fault, "TotalCount": counters.fault},
        "TotalCount": counters.total(),
        "TotalResponseTime": seconds(u64::try_from(counters.response_us).unwrap_or(0)),
    })
}

/// One millisecond fine, as X-Ray's.
pub(super) fn histogram(histogram: &Histogram) -> Value {
    let mut milliseconds: BTreeMap<u64, i64> = BTreeMap::new();
    for (bucket, count) in histogram.buckets() {
        *milliseconds.entry(bucket / 1000).or_default() += count;
    }
    let entry = |(milliseconds, count): (u64, i64)| json!({"Value": seconds(milliseconds * 1000), "Count": count});
    Value::Array(milliseconds.into_iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::xray;
    use crate::graph;
    use crate::trace::Trace;

    const SCOREKEEP: &str = include_str!("../../tests/fixtures/scorekeep.json");
    const APP: (&str, &str) = ("Scorekeep", "AWS::ElasticBeanstalk::Environment");
    const LAMBDA: (&str, &str) = ("random-name", "AWS::Lambda");
    const FUNCTION: (&str, &str) = ("random-name", "AWS::Lambda::Function");
    const TABLE: (&str, &str) = ("scorekeep-user", "AWS::DynamoDB::Table");
    const TOPIC: (&str, &str) = ("SNS", "AWS::SNS");
    const CLIENT: (&str, &str) = ("Scorekeep", "client");

    fn scorekeep() -> Vec<Value> {
        let documents: Vec<Value> = serde_json::from_str(SCOREKEEP).expect("JSON");
        let spans: Vec<_> = documents
            .iter()
            .flat_map(|document| {
                xray::parse(document.to_string().as_bytes())
                    .expect("valid")
                    .spans
            })
            .collect();
        let mut totals = Totals::new();
        for one in graph::contributions(&Trace::assemble(spans[0].trace, spans)) {
            totals.entry(one.key.clone()).or_default().add(&one);
        }
        services(&totals)
    }

    fn find<'s>(services: &'s [Value], (name, kind): (&str, &str)) -> &'s Value {
        let is = |service: &&Value| service["Name"] == name && service["Type"] == kind;
        services.iter().find(is).expect("the node is there")
    }

    fn check(statistics: &Value, seconds: f64) {
        assert_eq!(statistics["TotalResponseTime"], json!(seconds));
        assert_eq!(
            (&statistics["TotalCount"], &statistics["OkCount"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(
            statistics["ErrorStatistics"],
            json!({"ThrottleCount": 0, "OtherCount": 0, "TotalCount": 0})
        );
        assert_eq!(
            statistics["FaultStatistics"],
            json!({"OtherCount": 0, "TotalCount": 0})
        );
    }

    #[test]
    fn the_scorekeep_trace_is_six_nodes_with_their_own_times() {
        let services = scorekeep();
        assert_eq!(services.len(), 6);
        for (node, seconds) in [
            (APP, 3.232),
            (LAMBDA, 2.895),
            (FUNCTION, 1.74),
            (TABLE, 0.079),
            (TOPIC, 0.959),
        ] {
            check(&find(&services, node)["SummaryStatistics"], seconds);
        }
        let client = find(&services, CLIENT);
        assert!(client.get("SummaryStatistics").is_none() && client["State"] == "unknown");
        assert!(find(&services, APP)["Root"] == true && find(&services, APP)["State"] == "active");
        assert_eq!(find(&services, TOPIC)["State"], "unknown");
    }

    #[test]
    fn the_scorekeep_trace_is_five_edges_with_their_callers_times() {
        let services = scorekeep();
        let edges = |service: &Value| service["Edges"].as_array().expect("a list").clone();
        assert_eq!(
            services
                .iter()
                .map(|service| edges(service).len())
                .sum::<usize>(),
            5
        );
        for (source, target, seconds) in [
            (CLIENT, APP, 3.232),
            (APP, LAMBDA, 2.943),
            (LAMBDA, FUNCTION, 1.74),
            (APP, TABLE, 0.079),
            (FUNCTION, TOPIC, 0.959),
        ] {
            let target = &find(&services, target)["ReferenceId"];
            let edges = edges(find(&services, source));
            let edge = edges
                .iter()
                .find(|edge| &edge["ReferenceId"] == target)
                .expect("the edge is there");
            check(&edge["SummaryStatistics"], seconds);
        }
    }
}
