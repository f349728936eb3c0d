// SPDX-License-Identifier: Apache-2.0
//! The X-Ray API: AWS's published trace to its last number, error shapes, paging, the daemon's port.

use serde_json::Value;
use serde_json::json;

use crate::collector::Collector;
use crate::collector::eventually;
use crate::collector::scorekeep;
use crate::collector::segment;

const ID: &str = "1-59602603-23fc5b688855d396af79b496";

fn window() -> Value {
    json!({"StartTime": 1_499_473_400, "EndTime": 1_499_473_500})
}

fn graph(collector: &Collector) -> Vec<Value> {
    let answer = collector.post("/ServiceGraph", &window());
    answer["Services"].as_array().expect("a list").clone()
}

/// All of it, settled.
fn with_scorekeep() -> Collector {
    let collector = Collector::start();
    assert_eq!(
        collector.put(&scorekeep()),
        json!({"UnprocessedTraceSegments": []})
    );
    eventually("six nodes", || (graph(&collector).len() == 6).then_some(()));
    collector
}

#[test]
fn the_scorekeep_trace_is_five_documents_two_of_them_inferred() {
    let collector = Collector::start();
    collector.put(&scorekeep());
    // Documents are there as soon as they are acknowledged.
    let batch = collector.post("/Traces", &json!({"TraceIds": [ID]}));
    let trace = &batch["Traces"][0];
    assert_eq!(
        (&trace["Duration"], &trace["LimitExceeded"]),
        (&json!(3.232), &json!(false))
    );
    let document = |segment: &Value| -> Value {
        serde_json::from_str(segment["Document"].as_str().expect("text")).expect("JSON")
    };
    let documents: Vec<Value> = trace["Segments"]
        .as_array()
        .expect("a list")
        .iter()
        .map(document)
        .collect();
    assert_eq!(documents.len(), 5);
    for (parent, origin, name) in [
        ("4cd3f10b76c624b4", "AWS::DynamoDB::Table", "DynamoDB"),
        ("b29b548af4d54a0f", "AWS::SNS", "SNS"),
    ] {
        let inferred = documents
            .iter()
            .find(|document| document["parent_id"] == parent)
            .expect("inferred");
        assert_eq!(
            (&inferred["inferred"], &inferred["origin"]),
            (&json!(true), &json!(origin))
        );
        assert_eq!(inferred["name"], name);
    }
}

#[test]
fn the_scorekeep_trace_is_five_edges_to_the_last_count() {
    let services = graph(&with_scorekeep());
    let edges: Vec<&Value> = services
        .iter()
        .flat_map(|service| service["Edges"].as_array().expect("a list"))
        .collect();
    assert_eq!(edges.len(), 5);
    let mut times: Vec<f64> = edges
        .iter()
        .filter_map(|edge| edge["SummaryStatistics"]["TotalResponseTime"].as_f64())
        .collect();
    times.sort_by(f64::total_cmp);
    assert_eq!(times, [0.079, 0.959, 1.74, 2.943, 3.232]);
    for edge in edges {
        let statistics = &edge["SummaryStatistics"];
        assert_eq!(
            (&statistics["TotalCount"], &statistics["OkCount"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(
            (
                &statistics["ErrorStatistics"]["TotalCount"],
                &edge["Aliases"]
            ),
            (&json!(0), &json!([]))
        );
    }
}

#[test]
fn the_scorekeep_trace_has_its_summary() {
    let summaries = with_scorekeep().post("/TraceSummaries", &window());
    let summary = &summaries["TraceSummaries"][0];
    for (member, value) in [
        ("Id", json!(ID)),
        ("Duration", json!(3.232)),
        ("ResponseTime", json!(3.232)),
        ("HasFault", json!(false)),
        ("HasError", json!(false)),
        ("HasThrottle", json!(false)),
        ("IsPartial", json!(false)),
    ] {
        assert_eq!(summary[member], value, "{member}");
    }
    assert_eq!(
        (
            &summary["Http"]["HttpMethod"],
            &summary["Http"]["HttpStatus"]
        ),
        (&json!("POST"), &json!(200))
    );
    assert_eq!(summary["Users"][0]["UserName"], "5M388M1E");
    assert_eq!(
        summary["Annotations"]["UserID"][0]["AnnotationValue"]["StringValue"],
        "5M388M1E"
    );
    assert_eq!(
        summary["Annotations"]["Name"][0]["ServiceIds"][0]["Type"],
        "AWS::Lambda::Function"
    );
}

#[test]
fn documents_one_by_one_in_reverse_and_twice_end_in_the_same_graph() {
    let (once, reversed) = (Collector::start(), Collector::start());
    once.put(&scorekeep());
    for document in scorekeep().iter().rev() {
        reversed.put(std::slice::from_ref(document));
        // Each settles before the next comes: nodes are inferred, then replaced.
        eventually("it settled", || {
            (reversed.stats()["unsettled_traces"] == 0).then_some(())
        });
    }
    reversed.put(&scorekeep());
    let want = eventually("six nodes", || {
        Some(graph(&once)).filter(|services| services.len() == 6)
    });
    eventually("the same graph", || {
        (graph(&reversed) == want).then_some(())
    });
}

#[test]
fn a_document_in_progress_is_partial_until_it_is_complete_and_never_again() {
    let collector = Collector::start();
    let complete = segment(1, "app", 0.5);
    let mut open = complete.clone();
    open.as_object_mut().expect("an object").remove("end_time");
    open["in_progress"] = json!(true);
    let ask =
        json!({"StartTime": 1_699_999_000, "EndTime": 1_700_001_000, "TimeRangeType": "Event"});
    let partial = |expected: bool| {
        eventually("the summary", || {
            let summaries = collector.post("/TraceSummaries", &ask);
            summaries["TraceSummaries"]
                .get(0)
                .filter(|one| one["IsPartial"] == expected)
                .cloned()
        })
    };
    collector.put(&[open.clone()]);
    partial(true);
    assert_eq!(
        collector.map()["edges"],
        json!([]),
        "what is in progress counts in nothing"
    );
    collector.put(&[complete]);
    let revision = partial(false)["Revision"].as_u64().expect("a number");
    collector.put(&[open]);
    let again = eventually("a later revision", || {
        Some(partial(false)).filter(|one| one["Revision"].as_u64() > Some(revision))
    });
    assert_eq!(again["ResponseTime"], json!(0.5));
}

#[test]
fn bad_documents_are_listed_with_their_codes_and_good_ones_are_kept() {
    let collector = Collector::start();
    let mut bad = segment(2, "app", 1.0);
    bad["trace_id"] = json!("1-31363133-6e7a5b688855d396af79b49");
    let answer = collector.put(&[segment(1, "app", 1.0), bad, json!([])]);
    let unprocessed = answer["UnprocessedTraceSegments"]
        .as_array()
        .expect("a list");
    assert_eq!(unprocessed.len(), 2);
    assert_eq!(
        (&unprocessed[0]["Id"], &unprocessed[0]["ErrorCode"]),
        (&json!("0000000000000003"), &json!("InvalidTraceId"))
    );
    assert_eq!(
        (unprocessed[1].get("Id"), &unprocessed[1]["ErrorCode"]),
        (None, &json!("MissingId"))
    );
    let batch = collector.post("/Traces", &json!({"TraceIds": ["1-65000000-000000000000000000000001", "1-65000000-000000000000000000000002"]}));
    assert_eq!(batch["Traces"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        batch["UnprocessedTraceIds"],
        json!(["1-65000000-000000000000000000000002"])
    );
}

#[test]
fn wrong_requests_get_the_error_shapes_of_aws() {
    let collector = Collector::start();
    let filter = json!({"StartTime": 1, "EndTime": 2, "FilterExpression": "fault AND"});
    for (path, body, status, kind, part) in [
        (
            "/TraceSegments",
            json!({}),
            400,
            "InvalidRequestException",
            "TraceSegmentDocuments",
        ),
        (
            "/ServiceGraph",
            json!({"EndTime": 1}),
            400,
            "InvalidRequestException",
            "StartTime is required",
        ),
        (
            "/ServiceGraph",
            json!({"StartTime": "x", "EndTime": 1}),
            400,
            "InvalidRequestException",
            "epoch seconds",
        ),
        (
            "/ServiceGraph",
            json!({"StartTime": 2, "EndTime": 1}),
            400,
            "InvalidRequestException",
            "EndTime must be after",
        ),
        (
            "/ServiceGraph",
            json!({"StartTime": 1, "EndTime": 2, "GroupName": "x"}),
            400,
            "InvalidRequestException",
            "Default",
        ),
        (
            "/TraceSummaries",
            filter,
            400,
            "InvalidRequestException",
            "FilterExpression at offset 9: expected a keyword",
        ),
        (
            "/Traces",
            json!([]),
            400,
            "InvalidRequestException",
            "object",
        ),
        (
            "/Nonsense",
            json!({}),
            404,
            "UnknownOperationException",
            "GetServiceGraph",
        ),
    ] {
        let answer = collector.send("api", "POST", path, &[], body.to_string().as_bytes());
        assert_eq!(answer.status, status, "{path} {body}");
        assert_eq!(
            answer.headers.get("x-amzn-errortype").map(String::as_str),
            Some(kind),
            "{path} {body}"
        );
        let message = answer.json()["Message"]
            .as_str()
            .expect("a message")
            .to_owned();
        assert!(message.contains(part), "{path}: {message}");
    }
}

#[test]
fn pages_of_summaries_hold_every_trace_once_and_a_token_binds_its_request() {
    let collector = Collector::start();
    let documents: Vec<Value> = (0..300).map(|number| segment(number, "app", 0.1)).collect();
    collector.put(&documents);
    let ask =
        json!({"StartTime": 1_699_999_000, "EndTime": 1_700_001_000, "TimeRangeType": "Service"});
    eventually("everything settled", || {
        (collector.stats()["unsettled_traces"] == 0).then_some(())
    });
    let first = collector.post("/TraceSummaries", &ask);
    let mut next = ask.clone();
    next["NextToken"] = first["NextToken"].clone();
    let second = collector.post("/TraceSummaries", &next);
    assert!(second.get("NextToken").is_none());
    let mut ids: Vec<&Value> = [&first, &second]
        .iter()
        .flat_map(|page| page["TraceSummaries"].as_array().expect("a list"))
        .map(|summary| &summary["Id"])
        .collect();
    ids.sort_by_key(|id| id.to_string());
    ids.dedup();
    assert_eq!(ids.len(), 300);
    next["EndTime"] = json!(1_700_001_001);
    let refused = collector.send(
        "api",
        "POST",
        "/TraceSummaries",
        &[],
        next.to_string().as_bytes(),
    );
    assert_eq!(refused.status, 400);
}

#[test]
fn the_daemon_port_takes_documents_and_contents_sdks_unsigned() {
    let collector = Collector::start();
    let post = |path: &str, body: &Value| {
        collector.send("xray_tcp", "POST", path, &[], body.to_string().as_bytes())
    };
    let rules = post("/GetSamplingRules", &json!({})).json();
    let rule = &rules["SamplingRuleRecords"][0]["SamplingRule"];
    assert_eq!(
        (&rule["RuleName"], &rule["FixedRate"]),
        (&json!("Default"), &json!(0.05))
    );
    let statistics = json!({"SamplingStatisticsDocuments": [{"RuleName": "Default", "ClientID": "ABCDEF1234567890ABCDEF10",
        "Timestamp": 1, "RequestCount": 3, "SampledCount": 0, "BorrowCount": 1}]});
    let targets = post("/SamplingTargets", &statistics).json();
    assert_eq!(targets["SamplingTargetDocuments"][0]["ReservoirQuota"], 1);
    assert!(targets["LastRuleModification"].is_number());
    let put = json!({"TraceSegmentDocuments": [segment(1, "app", 1.0).to_string()]});
    assert_eq!(
        post("/TraceSegments", &put).json(),
        json!({"UnprocessedTraceSegments": []})
    );
    assert_eq!(post("/ServiceGraph", &json!({})).status, 404);
}

#[test]
fn an_operation_may_be_named_by_header() {
    let collector = Collector::start();
    let headers = [
        ("x-amz-target", "AWSXRay.GetGroups"),
        ("content-type", "application/x-amz-json-1.1"),
    ];
    let answer = collector.send("api", "POST", "/", &headers, b"{}");
    assert_eq!(answer.json()["Groups"][0]["GroupName"], "Default");
}

#[test]
fn a_datagram_is_a_document_and_reaches_the_same_trace() {
    let collector = Collector::start();
    let mut documents = scorekeep();
    let last = documents.pop().expect("three documents");
    collector.put(&documents);
    collector.datagram(format!("{{\"format\": \"json\", \"version\": 1}}\n{last}").as_bytes());
    eventually("six nodes", || (graph(&collector).len() == 6).then_some(()));
    assert_eq!(collector.stats()["sources"]["xray_udp"]["stored"], 1);
}
