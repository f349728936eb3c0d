// SPDX-License-Identifier: Apache-2.0
//! Acknowledged is kept: over SIGKILL in the middle of intake, and with the same answers afterwards.

use serde_json::Value;
use serde_json::json;

use crate::collector::Collector;
use crate::collector::eventually;
use crate::collector::segment;
use crate::collector::total;

#[test]
fn nothing_acknowledged_is_lost_by_sigkill_and_the_map_is_the_recount() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut collector = Collector::start_on(folder.path());
    let mut ids = Vec::new();
    // Some settle before the end, some do not.
    for round in 0..30 {
        let documents: Vec<Value> = (0..10)
            .map(|one| segment(round * 10 + one, "app", 0.1))
            .collect();
        let answer = collector.put(&documents);
        assert_eq!(answer["UnprocessedTraceSegments"], json!([]));
        ids.extend(
            documents
                .iter()
                .map(|document| document["trace_id"].clone()),
        );
        if round == 15 {
            eventually("half is on the map", || {
                total(&collector.map(), "client", "app")
            });
        }
    }
    collector.kill();
    let collector = Collector::start_on(folder.path());
    let batch = collector.post("/Traces", &json!({"TraceIds": ids}));
    assert_eq!(batch["UnprocessedTraceIds"], json!([]));
    assert_eq!(batch["Traces"].as_array().map(Vec::len), Some(300));
    eventually("all on the map", || {
        (total(&collector.map(), "client", "app") == Some(300)).then_some(())
    });
    eventually("none waits", || {
        (collector.stats()["unsettled_traces"] == 0).then_some(())
    });
    assert_eq!(total(&collector.map(), "client", "app"), Some(300));
}

#[test]
fn a_restart_gives_the_same_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    let ask =
        json!({"StartTime": 1_699_999_000, "EndTime": 1_700_001_000, "TimeRangeType": "Event"});
    let before = {
        let mut collector = Collector::start_on(folder.path());
        let documents: Vec<Value> = (0..40)
            .map(|one| segment(one, "app", 0.001 * one as f64))
            .collect();
        collector.put(&documents);
        eventually("all on the map", || {
            (total(&collector.map(), "client", "app") == Some(40)).then_some(())
        });
        let answers = (
            collector.map(),
            collector.post("/TraceSummaries", &ask),
            collector.post("/ServiceGraph", &ask),
        );
        collector.signal("-TERM");
        assert_eq!(collector.wait().code(), Some(0));
        answers
    };
    let collector = Collector::start_on(folder.path());
    let after = (
        collector.map(),
        collector.post("/TraceSummaries", &ask),
        collector.post("/ServiceGraph", &ask),
    );
    assert_eq!(before, after);
}
