// SPDX-License-Identifier: Apache-2.0
//! Zipkin spans in, Jaeger's two query APIs out.

use serde_json::Value;
use serde_json::json;

use crate::collector::Answer;
use crate::collector::Collector;
use crate::collector::eventually;

const AT_US: u64 = 1_700_000_000_000_000;

fn zipkin(collector: &Collector, body: &Value) -> Answer {
    let headers = [("content-type", "application/json")];
    collector.send(
        "zipkin",
        "POST",
        "/api/v2/spans",
        &headers,
        body.to_string().as_bytes(),
    )
}

/// `web` calls `cart` under one shared id, as Envoy reports it; the nth one takes n milliseconds.
fn call(number: u64) -> [Value; 2] {
    let (trace, id) = (
        format!("{:032x}", 0xabc0 + number),
        format!("{:016x}", 0xa0 + number),
    );
    let half = |service: &str, kind: &str, shared: bool| {
        json!({"traceId": trace, "id": id, "kind": kind, "name": "GET /cart", "shared": shared,
            "timestamp": AT_US + number * 1000, "duration": number * 1000,
            "localEndpoint": {"serviceName": service},
            "tags": {"http.status_code": if number == 3 { "503" } else { "200" }, "user": format!("u{number}")}})
    };
    [half("web", "CLIENT", false), half("cart", "SERVER", true)]
}

fn get(collector: &Collector, path: &str) -> (u16, Value) {
    let answer = collector.send("api", "GET", path, &[], b"");
    (answer.status, answer.json())
}

#[test]
fn zipkin_spans_are_on_the_map_and_in_both_query_apis_of_jaeger() {
    let collector = Collector::start();
    let spans: Vec<Value> = (1..=5).flat_map(call).collect();
    assert_eq!(zipkin(&collector, &json!(spans)).status, 202);
    let listed = eventually("all are found", || {
        let found = get(
            &collector,
            "/api/traces?service=cart&start=0&end=9000000000000000&limit=100",
        )
        .1;
        (found["data"].as_array()?.len() == 5).then_some(found)
    });
    let newest = &listed["data"][0];
    assert_eq!(newest["traceID"], json!(format!("{:032x}", 0xabc5)));
    let server = newest["spans"].as_array().and_then(|spans| {
        spans.iter().find(|span| {
            newest["processes"][span["processID"].as_str().unwrap_or_default()]["serviceName"]
                == "cart"
        })
    });
    let server = server.expect("the server's half");
    assert_eq!(
        (&server["startTime"], &server["duration"]),
        (&json!(AT_US + 5000), &json!(5000))
    );
    assert_eq!(server["references"][0]["spanID"], format!("{:016x}", 0xa5));

    let names = |path: &str| get(&collector, path).1["data"].clone();
    assert_eq!(names("/api/services"), json!(["cart", "web"]));
    assert_eq!(names("/api/services/cart/operations"), json!(["GET /cart"]));
    assert_eq!(
        names("/api/operations?service=web&spanKind=client"),
        json!([{"name": "GET /cart", "spanKind": "client"}])
    );
    let count = |query: &str| {
        let path = format!("/api/traces?service=cart&start=0&end=9000000000000000&{query}");
        get(&collector, &path).1["data"].as_array().map(Vec::len)
    };
    for (query, found) in [
        ("limit=2", 2),
        ("operation=GET%20/cart", 5),
        ("operation=other", 0),
        ("minDuration=4ms", 2),
        ("minDuration=2ms&maxDuration=3000us", 2),
        ("tags=%7B%22user%22%3A%22u2%22%7D", 1),
        ("tag=error:true", 1),
        ("tags=%7B%22http.status_code%22%3A%22503%22%7D", 1),
    ] {
        assert_eq!(count(query), Some(found), "{query}");
    }
    let trace = format!("/api/traces/{:x}", 0xabc1);
    assert_eq!(
        get(&collector, &trace).1["data"][0]["spans"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    let links = get(
        &collector,
        "/api/dependencies?endTs=1700000060000&lookback=120000",
    )
    .1;
    assert_eq!(
        links["data"],
        json!([{"parent": "web", "child": "cart", "callCount": 5}])
    );

    let v3 = |path: &str| get(&collector, &format!("/api/v3/{path}"));
    assert_eq!(v3("services").1, json!({"services": ["cart", "web"]}));
    let window = "query.startTimeMin=2023-11-14T22:00:00Z&query.startTimeMax=2023-11-14T23:00:00Z";
    let found = v3(&format!(
        "traces?query.serviceName=web&{window}&query.durationMin=5ms"
    ))
    .1;
    let resources = found["result"]["resourceSpans"].as_array().expect("OTLP");
    assert_eq!(resources.len(), 2);
    let snake = v3(
        "traces?query.service_name=none&query.start_time_min=2023-11-14T22:00:00Z&query.start_time_max=2023-11-14T23:00:00Z",
    );
    assert_eq!(snake.0, 404);
    assert_eq!(v3(&format!("traces/{:032x}", 0xabc1)).0, 200);
    assert_eq!(v3(&format!("traces/{:032x}", 0xdead)).0, 404);
}

#[test]
fn wrong_questions_in_jaegers_words_are_400_with_the_parameters_name() {
    let collector = Collector::start();
    for (path, part) in [
        ("/api/traces", "service"),
        ("/api/traces?service=a&start=soon", "start"),
        ("/api/traces?service=a&minDuration=5", "minDuration"),
        ("/api/traces?service=a&tags=x", "tags"),
        ("/api/traces/xyz", "trace id"),
        ("/api/dependencies", "endTs"),
    ] {
        let (status, body) = get(&collector, path);
        assert_eq!(status, 400, "{path}");
        assert!(
            body["errors"][0]["msg"]
                .as_str()
                .is_some_and(|text| text.contains(part)),
            "{path}: {body}"
        );
    }
    let (status, body) = get(&collector, "/api/v3/traces?query.serviceName=a");
    assert_eq!(status, 400);
    assert!(
        body["error"]["message"]
            .as_str()
            .is_some_and(|text| text.contains("startTimeMin"))
    );
}

#[test]
fn what_is_no_zipkin_is_refused_and_counted() {
    let collector = Collector::start();
    assert_eq!(zipkin(&collector, &json!({"traceId": "1"})).status, 400);
    let one = json!([{"traceId": "1", "id": "zz", "timestamp": 1}]);
    assert_eq!(zipkin(&collector, &one).status, 202);
    let counts = &collector.stats()["sources"]["zipkin"];
    assert_eq!(
        (&counts["received"], &counts["rejected"]),
        (&json!(2), &json!({"invalid": 2}))
    );
}
