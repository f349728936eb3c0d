// SPDX-License-Identifier: Apache-2.0
//! The collapsed map of a mesh: what our proxies send and what apps behind them send, as one party per node.

use serde_json::Value;
use serde_json::json;

use crate::collector::Collector;
use crate::collector::eventually;
use crate::collector::segment;
use crate::collector::total;

struct Request {
    number: u64,
    failed_try: bool,
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

/// What the proxy beside `node` sends.
fn proxy(node: &str, spans: &[Value]) -> Value {
    json!({
        "resource": {"attributes": [text("service.name", &format!("shop/{node}")), text("pillion.node", node),
            text("pillion.mesh", "shop"), {"key": "pillion.proxy", "value": {"boolValue": true}}]},
        "scopeSpans": [{"spans": spans}],
    })
}

impl Request {
    fn trace(&self) -> String {
        format!("65000000{:024x}", self.number)
    }

    fn span(
        &self,
        id: u64,
        parent: u64,
        millis: (u64, u64),
        status: u16,
        target: Option<&str>,
    ) -> Value {
        let mut attributes = vec![
            text("http.request.method", "GET"),
            json!({"key": "http.response.status_code", "value": {"intValue": status.to_string()}}),
        ];
        attributes.extend(target.map(|target| text("peer.service", &format!("shop/{target}"))));
        let nanos = |millis: u64| ((1_700_000_000_000 + millis) * 1_000_000).to_string();
        json!({
            "traceId": self.trace(), "spanId": format!("{id:016x}"),
            "parentSpanId": if parent == 0 { String::new() } else { format!("{parent:016x}") },
            "name": "GET /", "kind": if target.is_some() { 3 } else { 2 }, "attributes": attributes,
            "startTimeUnixNano": nanos(millis.0), "endTimeUnixNano": nanos(millis.1),
        })
    }

    /// client → gateway → web → cart, whose app sends a segment; perhaps with a first try that found nobody.
    fn export(&self) -> Value {
        let mut web = vec![self.span(3, 2, (4, 90), 200, None)];
        if self.failed_try {
            web.push(self.span(9, 3, (6, 10), 503, Some("cart")));
        }
        web.push(self.span(4, 3, (10, 80), 200, Some("cart")));
        json!({"resourceSpans": [
            proxy("gateway", &[self.span(1, 0, (0, 100), 200, None), self.span(2, 1, (2, 95), 200, Some("web"))]),
            proxy("web", &web),
            proxy("cart", &[self.span(5, 4, (15, 75), 200, None)]),
        ]})
    }

    fn segment(&self) -> String {
        let id = self.trace();
        let document = json!({"name": "cart", "id": "00000000000000aa", "parent_id": "0000000000000005",
            "trace_id": format!("1-{}-{}", &id[..8], &id[8..]), "origin": "AWS::ECS::Fargate",
            "start_time": 1_700_000_000.020, "end_time": 1_700_000_000.070});
        format!("{{\"format\":\"json\",\"version\":1}}\n{document}")
    }
}

#[test]
fn proxies_and_their_apps_are_one_party_and_edges_count_every_try() {
    let collector = Collector::start();
    for number in 1..=20 {
        let request = Request {
            number,
            failed_try: number % 5 == 0,
        };
        collector.datagram(request.segment().as_bytes());
        let headers = [("content-type", "application/json")];
        let body = request.export().to_string();
        assert_eq!(
            collector
                .send("otlp_http", "POST", "/v1/traces", &headers, body.as_bytes())
                .status,
            200
        );
    }
    let map = eventually("the settled map", || {
        let done =
            collector.stats()["unsettled_traces"] == 0 && collector.stats()["stored"] == 20 * 6 + 4;
        Some(collector.map()).filter(|map| done && map["edges"].as_array().map(Vec::len) == Some(3))
    });
    let edges: Vec<(&str, &str, u64, u64, u64)> = map["edges"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|edge| {
            let count = |name: &str| edge[name].as_u64().expect("a count");
            let end = |name: &str| edge[name].as_str().expect("a name");
            (
                end("source"),
                end("target"),
                count("total"),
                count("ok"),
                count("fault"),
            )
        })
        .collect();
    assert_eq!(
        edges,
        [
            ("client", "gateway", 20, 20, 0),
            ("gateway", "web", 20, 20, 0),
            ("web", "cart", 24, 20, 4)
        ]
    );
    let names: Vec<&Value> = map["nodes"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|node| &node["name"])
        .collect();
    assert_eq!(names, ["cart", "client", "gateway", "web"]);
    assert_eq!(map["nodes"][0]["type"], "AWS::ECS::Fargate");
    let web_cart = &map["edges"][2];
    // A try of 70 ms around an app's work of 50 ms.
    assert_eq!(web_cart["proxy_ms"], json!(20.0));
    assert_eq!(web_cart["latency"]["p50_ms"], json!(70.05));
    let raw = collector.get("/pillion/v1/map?start=0&end=9000000000&collapse=false");
    let raw_names: Vec<&str> = raw["nodes"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|node| node["name"].as_str())
        .collect();
    assert!(
        raw_names.contains(&"shop/cart") && raw_names.contains(&"cart"),
        "{raw_names:?}"
    );
}

#[test]
fn a_list_of_traces_is_newest_first_and_one_trace_is_flat_with_its_proxies_marked() {
    let collector = Collector::start();
    let request = Request {
        number: 1,
        failed_try: true,
    };
    let headers = [("content-type", "application/json")];
    collector.send(
        "otlp_http",
        "POST",
        "/v1/traces",
        &headers,
        request.export().to_string().as_bytes(),
    );
    collector.datagram(request.segment().as_bytes());
    let row = eventually("the row with every span", || {
        let list = collector.get("/pillion/v1/traces?start=1699999000&end=1700001000&limit=5");
        list["traces"]
            .get(0)
            .filter(|row| row["spans"] == 7)
            .cloned()
    });
    assert_eq!(
        (&row["outcome"], &row["worst"], &row["status"]),
        (&json!("ok"), &json!("fault"), &json!(200))
    );
    assert_eq!(row["services"], json!(["cart", "gateway", "web"]));
    assert_eq!(
        (&row["root_service"], &row["duration_ms"]),
        (&json!("gateway"), &json!(100.0))
    );
    let trace = collector.get(&format!("/pillion/v1/traces/{}", request.trace()));
    let spans = trace["spans"].as_array().expect("a list");
    let proxies = spans.iter().filter(|span| span["is_proxy"] == true).count();
    assert_eq!((spans.len(), proxies), (7, 6));
    assert!(spans.iter().all(|span| span["service"].is_string()));
    assert_eq!(spans[0]["attributes"]["http.request.method"], "GET");
}

#[test]
fn traces_are_listed_by_service_outcome_duration_and_filter_page_by_page() {
    let collector = Collector::start();
    let mut documents: Vec<_> = (0..30)
        .map(|one| segment(one, "app", 0.1 + one as f64))
        .collect();
    documents.extend((30..35).map(|one| segment(one, "web", 0.5)));
    documents[3]["fault"] = true.into();
    collector.put(&documents);
    let list = |query: &str| {
        collector.get(&format!(
            "/pillion/v1/traces?start=0&end=9000000000&{query}"
        ))
    };
    let count = |query: &str| list(query)["traces"].as_array().map_or(0, Vec::len);
    eventually("all are listed", || {
        (count("limit=1000") == 35).then_some(())
    });
    for (query, found) in [
        ("service=web", 5),
        ("service=app&limit=1000", 30),
        ("service=none", 0),
        ("outcome=fault", 1),
        ("min_ms=20000&max_ms=25000", 5),
        ("filter=service(%22web%22)%20AND%20ok", 5),
    ] {
        assert_eq!(count(query), found, "{query}");
    }
    let (mut seen, mut next) = (0, String::new());
    loop {
        let page = list(&format!("service=app&limit=7{next}"));
        seen += page["traces"].as_array().map_or(0, Vec::len);
        let Some(place) = page["next"].as_str() else {
            break;
        };
        next = format!("&next={place}");
    }
    assert_eq!(seen, 30);
    let wrong = collector.send("api", "GET", "/pillion/v1/traces?filter=ok%20AND", &[], b"");
    assert_eq!(wrong.status, 400);
    assert!(
        wrong.json()["message"]
            .as_str()
            .is_some_and(|text| text.contains("offset"))
    );
}

#[test]
fn nodes_and_edges_say_since_when_they_were_seen() {
    let collector = Collector::start();
    let mut late = segment(2, "app", 1.0);
    late["start_time"] = 1_700_000_100.0.into();
    late["end_time"] = 1_700_000_101.0.into();
    collector.put(&[segment(1, "app", 1.0), late]);
    eventually("both are counted", || {
        (total(&collector.map(), "client", "app") == Some(2)).then_some(())
    });
    let map = collector.map();
    for one in [
        &map["edges"][0],
        map["nodes"]
            .as_array()
            .and_then(|nodes| nodes.iter().find(|node| node["name"] == "app"))
            .expect("the node"),
    ] {
        assert_eq!(
            (&one["first_seen"], &one["last_seen"]),
            (&1_700_000_000.0.into(), &1_700_000_101.0.into())
        );
    }
}
