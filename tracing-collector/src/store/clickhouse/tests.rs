// SPDX-License-Identifier: Apache-2.0
//! The ClickHouse store keeps the contract of `store`, on the real engine (chdb) behind a small HTTP server.

use std::sync::Arc;
use std::time::SystemTime;

use self::server::Server;
use super::*;
use crate::store::contract;
use crate::store::contract::Place;
use crate::trace::tests::span;

#[path = "../../../tests/clickhouse/server.rs"]
mod server;

fn address(server: &Server, who: &str, database: &str) -> Address {
    let text = format!("clickhouse://{who}127.0.0.1:{}/{database}", server.port);
    Address::parse(&text).expect("a ClickHouse").expect("valid")
}

fn open(server: &Server, database: &str) -> ClickHouse {
    ClickHouse::open(address(server, "", database), contract::RETENTION).expect("a store")
}

struct Database<'s>(&'s Server, String);

impl Place for Database<'_> {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(open(self.0, &self.1))
    }

    fn histories(&self) -> u32 {
        2
    }
}

#[test]
fn the_clickhouse_store_keeps_the_contract() {
    let server = Server::start(&[]);
    for (at, case) in contract::CASES.into_iter().enumerate() {
        case(&Database(&server, format!("case_{at}")));
    }
    two_collectors_that_settle_one_trace_count_it_once(&server);
}

/// In the same engine, for starting one takes longer than all of this.
fn two_collectors_that_settle_one_trace_count_it_once(server: &Server) {
    let (first, second) = (open(server, "shared"), open(server, "shared"));
    let trace = TraceId(1);
    let entry = |id, parent, name: &str| Span {
        entry: true,
        ..span(id, parent, name)
    };
    let mut call = span(2, 1, "a");
    call.calls = Some(crate::span::Node::new("b", "remote"));
    let now = SystemTime::now();
    first
        .append(&[entry(1, 0, "a"), call], now)
        .expect("appended");
    second.append(&[entry(3, 2, "b")], now).expect("appended");
    // The marks of both are seen by either, also by one that was started after the others died.
    assert_eq!(first.unsettled().expect("read"), [trace]);
    std::thread::scope(|scope| {
        for store in [&first, &second] {
            scope.spawn(|| store.settle(&[trace]).expect("settled"));
        }
    });
    let ever = Window {
        start_us: 0,
        end_us: 1 << 60,
    };
    let totals = first.graph(ever).expect("a graph");
    assert_eq!(totals, second.graph(ever).expect("a graph"));
    assert!(!totals.is_empty() && totals.values().all(|one| one.total() == 1));
    assert!(second.unsettled().expect("read").is_empty());
    // A row made from less than another saw does not count, whenever it is written.
    let row = settle::rows(&first, &[trace]).expect("read");
    assert_eq!(row[&trace].1.summary.spans, 3);
}

#[test]
fn what_is_wrong_with_a_clickhouse_is_said_without_its_password() {
    let server = Server::start(&["--password", "s3cret", "--version", "23.8.1.1"]);
    let error = |who: &str| {
        let opened = ClickHouse::open(address(&server, who, "x"), contract::RETENTION);
        opened.err().expect("refused").to_string()
    };
    let wrong = error("default:guess@");
    assert!(
        wrong.contains("refuses this user and password") && !wrong.contains("guess"),
        "{wrong}"
    );
    let old = error("default:s3cret@");
    assert!(
        old.contains("23.8.1.1") && old.contains("24.1 or later"),
        "{old}"
    );
    let nobody = Address::parse("clickhouse://127.0.0.1:1").expect("a ClickHouse");
    let nobody = ClickHouse::open(nobody.expect("valid"), contract::RETENTION).err();
    let nobody = nobody.expect("nobody listens").to_string();
    assert!(
        nobody.contains("connect to clickhouse://default@127.0.0.1:1/pillion"),
        "{nobody}"
    );
}
