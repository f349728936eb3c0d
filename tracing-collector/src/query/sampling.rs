// SPDX-License-Identifier: Apache-2.0
//! What sampling rules grant to the clients that report: GetSamplingTargets, GetSamplingStatisticSummaries. A rule's
//! reservoir is divided among its live clients, what cannot be divided goes to the busiest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;

use crate::query::kept::Kept;
use crate::query::now_seconds;
use crate::query::sampling_rules;
use crate::query::token;
use crate::query::xray_api::ApiError;

const INTERVAL_SECONDS: u64 = 10;
const QUOTA_SECONDS: f64 = 300.0;
/// A client silent for two intervals is gone.
const LIVE: Duration = Duration::from_secs(2 * INTERVAL_SECONDS);
const MAX_CLIENTS: usize = 10_000;
const MAX_DOCUMENTS: usize = 25;
/// Sums by interval and rule that are remembered; the oldest go first.
const MAX_SUMS: usize = 10_000;
const PAGE: usize = 1000;

#[derive(Clone, Default)]
pub(super) struct Sampling {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// By rule, then client.
    clients: BTreeMap<(String, String), Client>,
    /// By the interval's first second, then rule.
    sums: BTreeMap<(u64, String), Sums>,
}

struct Client {
    seen: Instant,
    requests: u64,
}

#[derive(Clone, Copy, Default)]
struct Sums {
    requests: u64,
    borrowed: u64,
    sampled: u64,
}

/// One client's report on one rule.
struct Report<'r> {
    rule: &'r str,
    client: &'r str,
    sums: Sums,
}

impl<'r> Report<'r> {
    fn read(document: &'r Value) -> Report<'r> {
        let text = |name: &str| {
            document
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let count = |name: &str| {
            document
                .get(name)
                .and_then(Value::as_u64)
                .unwrap_or_default()
        };
        Report {
            rule: text("RuleName"),
            client: text("ClientID"),
            sums: Sums {
                requests: count("RequestCount"),
                borrowed: count("BorrowCount"),
                sampled: count("SampledCount"),
            },
        }
    }
}

impl Sampling {
    pub(super) fn targets(&self, kept: &Kept, request: &Value) -> Result<Value, ApiError> {
        let documents = request
            .get("SamplingStatisticsDocuments")
            .and_then(Value::as_array);
        let documents = documents.ok_or_else(|| {
            ApiError::Invalid("SamplingStatisticsDocuments is required, a list".to_owned())
        })?;
        if documents.len() > MAX_DOCUMENTS {
            let message = format!(
                "SamplingStatisticsDocuments has {}; at most {MAX_DOCUMENTS}",
                documents.len()
            );
            return Err(ApiError::Invalid(message));
        }
        let records = sampling_rules::all(kept)?;
        let (mut targets, mut unprocessed) = (Vec::new(), Vec::new());
        let mut state = self.state.lock();
        for document in documents {
            let report = Report::read(document);
            let rule = records
                .iter()
                .map(|record| &record["SamplingRule"])
                .find(|rule| rule["RuleName"] == report.rule);
            let Some(rule) = rule else {
                unprocessed.push(json!({"RuleName": report.rule, "ErrorCode": "404", "Message": "there is no such rule"}));
                continue;
            };
            let reservoir = rule["ReservoirSize"].as_u64().unwrap_or(0);
            state.count(&report, now_seconds());
            targets.push(json!({
                "RuleName": report.rule, "FixedRate": rule["FixedRate"], "Interval": INTERVAL_SECONDS,
                "ReservoirQuota": state.quota(&report, reservoir, Instant::now()),
                "ReservoirQuotaTTL": now_seconds().floor() + QUOTA_SECONDS,
            }));
        }
        drop(state);
        Ok(json!({
            "SamplingTargetDocuments": targets, "LastRuleModification": sampling_rules::last_change(kept)?,
            "UnprocessedStatistics": unprocessed, "UnprocessedBoostStatistics": [],
        }))
    }

    /// The newest interval first.
    pub(super) fn summaries(&self, request: &Value) -> Result<Value, ApiError> {
        const OPERATION: &str = "GetSamplingStatisticSummaries";
        let from = token::position(token::redeem(OPERATION, request)?)?;
        let state = self.state.lock();
        let page = state.sums.iter().rev().skip(from).take(PAGE);
        let summaries: Vec<Value> = page
            .map(|((start, rule), sums)| {
                json!({
                    "RuleName": rule, "Timestamp": *start as f64, "RequestCount": sums.requests,
                    "BorrowCount": sums.borrowed, "SampledCount": sums.sampled,
                })
            })
            .collect();
        let mut answer = json!({"SamplingStatisticSummaries": summaries});
        if from + PAGE < state.sums.len() {
            let next = token::issue(OPERATION, request, &token::at_position(from + PAGE));
            answer["NextToken"] = json!(next);
        }
        Ok(answer)
    }
}

impl State {
    fn count(&mut self, report: &Report<'_>, now: f64) {
        let second = now as u64;
        let interval = second - second % INTERVAL_SECONDS;
        let sums = self
            .sums
            .entry((interval, report.rule.to_owned()))
            .or_default();
        sums.requests = sums.requests.saturating_add(report.sums.requests);
        sums.borrowed = sums.borrowed.saturating_add(report.sums.borrowed);
        sums.sampled = sums.sampled.saturating_add(report.sums.sampled);
        while self.sums.len() > MAX_SUMS {
            self.sums.pop_first();
        }
    }

    /// Of equals the first by name is the busiest. A client that is one too many to remember gets nothing.
    fn quota(&mut self, report: &Report<'_>, reservoir: u64, now: Instant) -> u64 {
        self.clients
            .retain(|_, other| now.duration_since(other.seen) <= LIVE);
        let own = (report.rule.to_owned(), report.client.to_owned());
        if self.clients.len() >= MAX_CLIENTS && !self.clients.contains_key(&own) {
            return 0;
        }
        let requests = report.sums.requests;
        self.clients.insert(
            own,
            Client {
                seen: now,
                requests,
            },
        );
        let live: Vec<(&str, u64)> = self
            .clients
            .iter()
            .filter(|((rule, _), _)| rule == report.rule)
            .map(|((_, client), one)| (client.as_str(), one.requests))
            .collect();
        let count = live.len() as u64;
        let busiest = live.iter().rev().max_by_key(|(_, requests)| *requests);
        let rest = if busiest.is_some_and(|(client, _)| *client == report.client) {
            reservoir % count
        } else {
            0
        };
        reservoir / count + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(state: &mut State, client: &str, requests: u64, now: Instant) -> u64 {
        let report = Report {
            rule: "r",
            client,
            sums: Sums {
                requests,
                ..Sums::default()
            },
        };
        state.quota(&report, 5, now)
    }

    #[tokio::test]
    async fn a_reservoir_is_divided_among_live_clients_and_the_busiest_has_the_rest() {
        let mut state = State::default();
        let start = Instant::now();
        assert_eq!(quota(&mut state, "a", 10, start), 5);
        assert_eq!(quota(&mut state, "b", 5, start), 2);
        assert_eq!(quota(&mut state, "a", 10, start), 3);
        let later = start + LIVE + Duration::from_secs(1);
        assert_eq!(quota(&mut state, "b", 5, later), 5);
    }

    #[test]
    fn reports_of_one_interval_are_one_sum() {
        let mut state = State::default();
        let document = json!({"RuleName": "r", "ClientID": "a", "RequestCount": 3, "BorrowCount": 1, "SampledCount": 2});
        for now in [20.0, 29.9, 30.0] {
            state.count(&Report::read(&document), now);
        }
        let sums: Vec<(u64, u64)> = state
            .sums
            .iter()
            .map(|((start, _), sums)| (*start, sums.requests))
            .collect();
        assert_eq!(sums, [(20, 6), (30, 3)]);
    }
}
