// SPDX-License-Identifier: Apache-2.0
//! What SDKs ask the daemon's port for: sampling rules and targets. There is the `Default` rule alone, with X-Ray's own
//! numbers: one request a second, then 5 %. That one request is granted to one live client at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use parking_lot::Mutex;
use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;

use crate::query::xray_api::ACCOUNT;
use crate::query::xray_api::ApiError;
use crate::query::xray_api::REGION;

const FIXED_RATE: f64 = 0.05;
const RESERVOIR: u64 = 1;
const INTERVAL_SECONDS: u64 = 10;
const QUOTA_SECONDS: f64 = 300.0;
/// A client silent for two intervals is gone.
const LIVE: Duration = Duration::from_secs(2 * INTERVAL_SECONDS);
const MAX_CLIENTS: usize = 10_000;
const MAX_DOCUMENTS: usize = 25;

#[derive(Clone, Default)]
pub(super) struct Sampling {
    clients: Arc<Mutex<BTreeMap<String, Client>>>,
}

struct Client {
    seen: Instant,
    requests: u64,
}

impl Sampling {
    pub(super) fn rules(&self) -> Value {
        json!({"SamplingRuleRecords": [{
            "SamplingRule": {
                "RuleName": "Default",
                "RuleARN": format!("arn:aws:xray:{REGION}:{ACCOUNT}:sampling-rule/Default"),
                "ResourceARN": "*", "Priority": 10000, "FixedRate": FIXED_RATE, "ReservoirSize": RESERVOIR,
                "ServiceName": "*", "ServiceType": "*", "Host": "*", "HTTPMethod": "*", "URLPath": "*",
                "Version": 1, "Attributes": {},
            },
            "CreatedAt": 0.0, "ModifiedAt": 0.0,
        }]})
    }

    pub(super) fn targets(&self, request: &Value) -> Result<Value, ApiError> {
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
        let (mut targets, mut unprocessed) = (Vec::new(), Vec::new());
        for document in documents {
            let rule = document
                .get("RuleName")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if rule != "Default" {
                unprocessed.push(json!({"RuleName": rule, "ErrorCode": "404", "Message": "there is no such rule"}));
                continue;
            }
            let client = document
                .get("ClientID")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let requests = document
                .get("RequestCount")
                .and_then(Value::as_u64)
                .unwrap_or_default();
            targets.push(json!({
                "RuleName": rule, "FixedRate": FIXED_RATE, "Interval": INTERVAL_SECONDS,
                "ReservoirQuota": self.quota(client, requests, Instant::now()),
                "ReservoirQuotaTTL": now_seconds() + QUOTA_SECONDS,
            }));
        }
        Ok(json!({
            "SamplingTargetDocuments": targets, "LastRuleModification": 0.0, "UnprocessedStatistics": unprocessed,
        }))
    }

    /// The whole reservoir to the busiest live client (of equals, the first by name), nothing to the others: one
    /// request a second cannot be divided.
    fn quota(&self, client: &str, requests: u64, now: Instant) -> u64 {
        let mut clients = self.clients.lock();
        clients.retain(|_, other| now.duration_since(other.seen) <= LIVE);
        if clients.len() < MAX_CLIENTS || clients.contains_key(client) {
            clients.insert(
                client.to_owned(),
                Client {
                    seen: now,
                    requests,
                },
            );
        }
        let busiest = clients
            .iter()
            .rev()
            .max_by_key(|(_, one)| one.requests)
            .map(|(name, _)| name.as_str());
        if busiest == Some(client) {
            RESERVOIR
        } else {
            0
        }
    }
}

fn now_seconds() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_reservoir_goes_to_one_live_client_and_moves_on_when_it_is_gone() {
        let sampling = Sampling::default();
        let start = Instant::now();
        assert_eq!(sampling.quota("a", 10, start), 1);
        assert_eq!(sampling.quota("b", 5, start), 0);
        assert_eq!(
            sampling.quota("b", 5, start + LIVE + Duration::from_secs(1)),
            1
        );
    }

    #[tokio::test]
    async fn statistics_for_a_rule_that_is_not_there_are_handed_back() {
        let request =
            json!({"SamplingStatisticsDocuments": [{"RuleName": "gone", "ClientID": "a"}]});
        let answer = Sampling::default().targets(&request).expect("an answer");
        assert_eq!(answer["UnprocessedStatistics"][0]["RuleName"], "gone");
        assert_eq!(answer["SamplingTargetDocuments"], json!([]));
        assert!(answer["LastRuleModification"].is_f64());
    }
}
