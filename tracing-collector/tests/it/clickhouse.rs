// SPDX-License-Identifier: Apache-2.0
//! Collectors that share ClickHouse: one map whoever is asked, over SIGKILL and while ClickHouse is away.

use std::path::Path;

use serde_json::Value;
use serde_json::json;

use crate::collector::Collector;
use crate::collector::command;
use crate::collector::eventually;
use crate::collector::segment;
use crate::collector::total;
use crate::server::Server;

fn start(server: &Server) -> Collector {
    let store = format!("clickhouse://127.0.0.1:{}/traces", server.port);
    Collector::start_on(Path::new(&store))
}

/// The two halves of trace `number`: `web` calls `cart`, told by different senders.
fn halves(number: u64) -> [Value; 2] {
    let mut web = segment(number, "web", 0.2);
    web["id"] = json!(format!("{:016x}", 0x1000 + number));
    let mut call = segment(number, "cart", 0.1);
    call["id"] = json!(format!("{:016x}", 0x2000 + number));
    call["namespace"] = json!("remote");
    let mut cart = segment(number, "cart", 0.1);
    cart["id"] = json!(format!("{:016x}", 0x3000 + number));
    cart["parent_id"] = call["id"].clone();
    web["subsegments"] = json!([call]);
    [web, cart]
}

#[test]
fn collectors_that_share_clickhouse_draw_one_map_over_deaths_and_absence() {
    let mut server = Server::start(&[]);
    let (mut first, second) = (start(&server), start(&server));
    let number = 20;
    let (webs, carts): (Vec<Value>, Vec<Value>) = (0..number)
        .map(halves)
        .map(|[web, cart]| (web, cart))
        .unzip();
    first.put(&webs);
    second.put(&carts);
    let whole = |map: &Value| {
        total(map, "web", "cart") == Some(number) && total(map, "client", "web") == Some(number)
    };
    let map = eventually("both show all", || {
        Some(first.map()).filter(|map| whole(map) && *map == second.map())
    });
    let inferred = map["nodes"].as_array().map(Vec::len);
    assert_eq!(
        inferred,
        Some(3),
        "client, web, cart and nobody inferred: {map}"
    );

    // What one acknowledged before it died, the next one counts.
    let more: Vec<Value> = (100..110).map(|one| segment(one, "web", 0.1)).collect();
    first.put(&more);
    first.kill();
    let first = start(&server);
    eventually("the rest is counted", || {
        (total(&first.map(), "client", "web") == Some(number + 10)).then_some(())
    });
    assert_eq!(first.map(), second.map());

    // While ClickHouse is away senders are told to come back, and datagrams wait.
    server.stop();
    let document = segment(200, "web", 0.1).to_string();
    let put = json!({"TraceSegmentDocuments": [document]}).to_string();
    let refused = second.send("api", "POST", "/TraceSegments", &[], put.as_bytes());
    assert_eq!(
        refused.status,
        503,
        "{}",
        String::from_utf8_lossy(&refused.body)
    );
    assert!(refused.headers.contains_key("retry-after"));
    let late = segment(201, "web", 0.1);
    second.datagram(format!("{{\"format\":\"json\",\"version\":1}}\n{late}").as_bytes());
    eventually("the datagram has arrived", || {
        (second.stats()["sources"]["xray_udp"]["received"] == 1).then_some(())
    });
    server.start_again();
    eventually("the datagram is counted", || {
        (total(&first.map(), "client", "web") == Some(number + 11)).then_some(())
    });
    let stats = second.stats();
    assert_eq!(stats["dropped"], 0, "{stats}");
    assert_eq!(
        stats["sources"]["xray_api"]["rejected"]["store"], 1,
        "{stats}"
    );
}

#[test]
fn a_store_address_that_cannot_be_right_is_bad_usage_that_names_it() {
    for (store, why) in [
        ("clickhouse://host:9000/x", "native protocol"),
        ("clickhouse://host/x-y", "x-y"),
        ("postgres://host/x", "no other store"),
    ] {
        let output = command()
            .args(["--store", store])
            .output()
            .expect("it runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(why), "{text}");
    }
    let output = command()
        .args(["--store", "clickhouse://ann:s3cret@127.0.0.1:1/x"])
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("ann@127.0.0.1:1") && !text.contains("s3cret"),
        "{text}"
    );
}
