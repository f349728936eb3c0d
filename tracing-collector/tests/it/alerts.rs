// SPDX-License-Identifier: Apache-2.0
//! Alert rules over the API, told to a webhook, shown as metrics; and what Grafana's service graph is drawn from.

use std::time::SystemTime;

use serde_json::Value;
use serde_json::json;

use crate::collector::Collector;
use crate::collector::eventually;
use crate::collector::request;
use crate::insights::sink;

fn now() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.expect("after 1970").as_secs_f64()
}

fn requests(collector: &Collector, count: u64, fault: bool) {
    let at = now();
    let documents: Vec<Value> = (0..count)
        .map(|number| {
            json!({"trace_id": format!("1-{:08x}-{:024x}", at as u64, number), "id": format!("{:016x}", number + 1),
                "name": "shop", "start_time": at - 0.2, "end_time": at - 0.1, "fault": fault,
                "subsegments": [{"id": format!("{:016x}", number + 1001), "name": "db", "namespace": "remote",
                    "start_time": at - 0.2, "end_time": at - 0.1, "sql": {"database_type": "PostgreSQL"}}]})
        })
        .collect();
    collector.put(&documents);
}

fn page(collector: &Collector, accept: &str) -> String {
    let answer = request(
        collector.addr("admin"),
        "GET",
        "/metrics",
        &[("accept", accept)],
        b"",
    );
    assert_eq!(answer.status, 200);
    String::from_utf8(answer.body).expect("text")
}

#[test]
fn a_rule_fires_tells_the_webhook_and_is_a_metric() {
    let (address, bodies) = sink();
    let collector = Collector::start_with(&["--alert-webhook", &address]);
    let put = |name: &str, rule: &Value| {
        let path = format!("/pillion/v1/alerts/{name}");
        collector.send("api", "PUT", &path, &[], rule.to_string().as_bytes())
    };
    let wrong = put(
        "faults",
        &json!({"measure": "fault_share", "filter": "service("}),
    );
    assert_eq!(wrong.status, 400);
    assert!(
        wrong.json()["message"]
            .as_str()
            .is_some_and(|text| text.contains("offset") && text.contains("above"))
    );
    let rule = json!({"measure": "fault_share", "above": 0.5, "filter": "service(\"shop\")", "window_s": 60});
    assert_eq!(put("faults", &rule).status, 200);
    requests(&collector, 20, true);
    let told = eventually("the webhook is told", || bodies.try_iter().next());
    let detail = &told["detail"];
    assert_eq!(
        (&detail["name"], &detail["state"], &detail["value"]),
        (&json!("faults"), &json!("firing"), &json!(1.0))
    );
    let listed = collector.get("/pillion/v1/alerts");
    assert_eq!(listed["alerts"][0]["state"], "firing");
    assert!(page(&collector, "*/*").contains("pillion_collector_alert_firing{alert=\"faults\"} 1"));
    let gone = collector.send("api", "DELETE", "/pillion/v1/alerts/faults", &[], b"");
    assert_eq!(gone.status, 204);
    assert_eq!(collector.get("/pillion/v1/alerts"), json!({"alerts": []}));
}

#[test]
fn calls_and_operations_are_metrics_under_grafanas_names_with_exemplars() {
    let collector = Collector::start();
    requests(&collector, 7, true);
    let calls = "traces_service_graph_request_total{client=\"shop\",server=\"db\",connection_type=\"database\"} 7";
    eventually("the calls are counted", || {
        page(&collector, "*/*").contains(calls).then_some(())
    });
    let text = page(&collector, "*/*");
    for line in [
        "traces_service_graph_request_failed_total{client=\"user\",server=\"shop\",connection_type=\"virtual_node\"} 7",
        "traces_service_graph_request_client_seconds_count{client=\"shop\",server=\"db\",connection_type=\"database\"} 7",
        "traces_spanmetrics_calls_total{service=\"shop\",span_name=\"shop\",span_kind=\"SPAN_KIND_SERVER\",status_code=\"STATUS_CODE_ERROR\"} 7",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}\n{text}");
    }
    assert!(!text.contains("trace_id="));
    let open = page(&collector, "application/openmetrics-text; version=1.0.0");
    assert!(
        open.contains("# {trace_id=\"") && open.ends_with("# EOF\n"),
        "{open}"
    );
}
