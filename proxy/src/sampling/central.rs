// SPDX-License-Identifier: Apache-2.0
//! Sampling rules that a collector hands out, as X-Ray's SDKs use them: of each rule a quota a second (one borrowed while
//! there is none), then a share. Decisions are here; [`super::poll`] fetches rules and targets and reports the counts.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use serde_json::Value;
use serde_json::json;

use super::Asked;
use super::Reservoir;
use super::glob;

/// What rules match a proxy's requests by.
const SERVICE_TYPE: &str = "AWS::AppMesh::Proxy";
/// Rules older than this are not followed any more.
const GOOD_FOR_S: u64 = 3600;
/// More rules than this no collector has.
const MOST_RULES: usize = 1000;

/// The rules of one poll, by priority.
#[derive(Debug)]
pub(super) struct CentralRules {
    rules: Vec<Arc<CentralRule>>,
    fetched_s: u64,
}

#[derive(Debug)]
struct CentralRule {
    name: String,
    host: String,
    method: String,
    path: String,
    reservoir: u64,
    /// The bits of an `f64`.
    rate: AtomicU64,
    quota: AtomicU64,
    /// Before this second the quota holds.
    quota_until_s: AtomicU64,
    taken: Reservoir,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    matched: AtomicU64,
    borrowed: AtomicU64,
    sampled: AtomicU64,
}

impl CentralRules {
    /// Those of an answer to GetSamplingRules that a proxy named `service` can match. A rule that was there before
    /// keeps its quota and its counts.
    pub(super) fn read(
        answer: &Value,
        service: &str,
        before: Option<&CentralRules>,
        now_s: u64,
    ) -> Result<CentralRules, String> {
        let records = answer["SamplingRuleRecords"]
            .as_array()
            .ok_or("the answer has no SamplingRuleRecords")?;
        let mut rules: Vec<(u64, Arc<CentralRule>)> = Vec::new();
        for record in records.iter().take(MOST_RULES) {
            let document = &record["SamplingRule"];
            let priority = document["Priority"].as_u64().unwrap_or(u64::MAX);
            if let Some(rule) = CentralRule::read(document, service) {
                rules.push((priority, Arc::new(rule)));
            }
        }
        rules.sort_by(|(a, one), (b, other)| (a, &one.name).cmp(&(b, &other.name)));
        let kept = |(_, rule): (u64, Arc<CentralRule>)| {
            let same = before.and_then(|before| before.rules.iter().find(|old| old.asks_as(&rule)));
            match same {
                None => rule,
                Some(old) => {
                    old.rate
                        .store(rule.rate.load(Ordering::Relaxed), Ordering::Relaxed);
                    Arc::clone(old)
                }
            }
        };
        Ok(CentralRules {
            rules: rules.into_iter().map(kept).collect(),
            fetched_s: now_s,
        })
    }

    /// `None` when no rule says anything: they are too old, or none fits.
    pub(super) fn keeps(
        &self,
        asked: Asked<'_>,
        now_s: u64,
        draw: impl FnOnce(f64) -> bool,
    ) -> Option<bool> {
        if now_s.saturating_sub(self.fetched_s) > GOOD_FOR_S {
            return None;
        }
        let rule = self.rules.iter().find(|rule| rule.matches(asked))?;
        Some(rule.keeps(now_s, draw))
    }

    /// What was counted since the last report, for rules that matched anything.
    pub(super) fn report(&self, client: &str, now_s: u64) -> Vec<Value> {
        let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        let matched = self
            .rules
            .iter()
            .filter(|rule| rule.counts.matched.load(Ordering::Relaxed) > 0);
        matched
            .map(|rule| {
                json!({
                    "RuleName": rule.name, "ClientID": client, "Timestamp": now_s, "RequestCount": take(&rule.counts.matched),
                    "SampledCount": take(&rule.counts.sampled), "BorrowCount": take(&rule.counts.borrowed),
                })
            })
            .collect()
    }

    /// Takes the targets of an answer; says whether the rules themselves have changed since they were fetched.
    pub(super) fn apply(&self, answer: &Value) -> bool {
        let targets = answer["SamplingTargetDocuments"].as_array();
        for target in targets.into_iter().flatten() {
            let named = |rule: &&Arc<CentralRule>| target["RuleName"] == rule.name.as_str();
            let Some(rule) = self.rules.iter().find(named) else {
                continue;
            };
            if let Some(rate) = target["FixedRate"].as_f64().filter(is_share) {
                rule.rate.store(rate.to_bits(), Ordering::Relaxed);
            }
            let until = target["ReservoirQuotaTTL"].as_f64();
            if let (Some(quota), Some(until)) = (target["ReservoirQuota"].as_u64(), until) {
                rule.quota.store(quota, Ordering::Relaxed);
                rule.quota_until_s.store(until as u64, Ordering::Relaxed);
            }
        }
        let changed = answer["LastRuleModification"].as_f64().unwrap_or(0.0);
        changed > self.fetched_s as f64
    }
}

fn is_share(rate: &f64) -> bool {
    (0.0..=1.0).contains(rate)
}

impl CentralRule {
    /// Rules of another version, for one resource, or about attributes are not for SDKs, nor for us.
    fn read(document: &Value, service: &str) -> Option<CentralRule> {
        let text = |name: &str| document[name].as_str();
        let attributes = document["Attributes"].as_object();
        let ours = document["Version"] == 1
            && text("ResourceARN").is_none_or(|arn| arn == "*")
            && attributes.is_none_or(serde_json::Map::is_empty)
            && glob(text("ServiceName")?, service)
            && glob(text("ServiceType")?, SERVICE_TYPE);
        let rate = document["FixedRate"].as_f64().filter(is_share)?;
        ours.then_some(CentralRule {
            name: text("RuleName")?.to_owned(),
            host: text("Host")?.to_owned(),
            method: text("HTTPMethod")?.to_owned(),
            path: text("URLPath")?.to_owned(),
            reservoir: document["ReservoirSize"].as_u64()?,
            rate: AtomicU64::new(rate.to_bits()),
            quota: AtomicU64::new(0),
            quota_until_s: AtomicU64::new(0),
            taken: Reservoir::default(),
            counts: Counts::default(),
        })
    }

    fn asks_as(&self, other: &CentralRule) -> bool {
        (
            &self.name,
            &self.host,
            &self.method,
            &self.path,
            self.reservoir,
        ) == (
            &other.name,
            &other.host,
            &other.method,
            &other.path,
            other.reservoir,
        )
    }

    fn matches(&self, asked: Asked<'_>) -> bool {
        glob(&self.method, asked.method)
            && glob(&self.path, asked.path)
            && glob(&self.host, asked.host)
    }

    fn keeps(&self, now_s: u64, draw: impl FnOnce(f64) -> bool) -> bool {
        self.counts.matched.fetch_add(1, Ordering::Relaxed);
        let granted = now_s < self.quota_until_s.load(Ordering::Relaxed);
        if !granted && self.reservoir > 0 && self.taken.takes(1, now_s) {
            self.counts.borrowed.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        let quota = self.quota.load(Ordering::Relaxed);
        let quota = u32::try_from(quota).unwrap_or(u32::MAX);
        let kept = (granted && self.taken.takes(quota, now_s))
            || draw(f64::from_bits(self.rate.load(Ordering::Relaxed)));
        self.counts
            .sampled
            .fetch_add(u64::from(kept), Ordering::Relaxed);
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, priority: u64, path: &str, reservoir: u64, rate: f64) -> Value {
        json!({"SamplingRule": {
            "RuleName": name, "Priority": priority, "URLPath": path, "ReservoirSize": reservoir, "FixedRate": rate, "Host": "*",
            "HTTPMethod": "*", "ServiceName": "shop/*", "ServiceType": "*", "ResourceARN": "*", "Version": 1, "Attributes": {},
        }})
    }

    fn read(records: &[Value], before: Option<&CentralRules>) -> CentralRules {
        let answer = json!({"SamplingRuleRecords": records});
        CentralRules::read(&answer, "shop/web", before, 100).expect("good")
    }

    fn asked(path: &str) -> Asked<'_> {
        Asked {
            host: "h",
            method: "GET",
            path,
        }
    }

    fn kept(rules: &CentralRules, now_s: u64, times: usize) -> usize {
        let one = |_| rules.keeps(asked("/a"), now_s, |_| false);
        (0..times)
            .map(one)
            .filter(|kept| *kept == Some(true))
            .count()
    }

    #[test]
    fn one_a_second_is_borrowed_until_there_is_a_quota_and_then_the_quota_holds() {
        let rules = read(&[rule("r", 1, "*", 5, 0.0)], None);
        assert_eq!((kept(&rules, 100, 4), kept(&rules, 101, 4)), (1, 1));
        let counts = rules.report("c", 101);
        assert_eq!(
            (
                &counts[0]["RequestCount"],
                &counts[0]["BorrowCount"],
                &counts[0]["SampledCount"]
            ),
            (&json!(8), &json!(2), &json!(0))
        );
        assert!(rules.report("c", 101).is_empty());
        let target = json!({"RuleName": "r", "FixedRate": 0.0, "ReservoirQuota": 3, "ReservoirQuotaTTL": 110.0});
        let answer = json!({"SamplingTargetDocuments": [target], "LastRuleModification": 50.0});
        assert!(!rules.apply(&answer));
        assert_eq!((kept(&rules, 102, 9), kept(&rules, 110, 9)), (3, 1));
        assert!(rules.apply(&json!({"LastRuleModification": 101.0})));
    }

    #[test]
    fn priority_decides_and_rules_that_are_for_others_do_not() {
        let mut foreign = rule("a-other", 1, "*", 0, 1.0);
        foreign["SamplingRule"]["ServiceName"] = json!("cart");
        let mut arn = rule("b-arn", 1, "*", 0, 1.0);
        arn["SamplingRule"]["ResourceARN"] = json!("arn:aws:x");
        let rules = [
            rule("z", 9, "*", 0, 0.5),
            rule("first", 2, "/a*", 0, 0.25),
            foreign,
            arn,
        ];
        let rules = read(&rules, None);
        let share = |path| {
            let mut drawn = None;
            rules.keeps(asked(path), 100, |share| {
                drawn = Some(share);
                false
            });
            drawn
        };
        assert_eq!((share("/a/b"), share("/c")), (Some(0.25), Some(0.5)));
        assert_eq!(
            rules.keeps(asked("/a"), 100 + GOOD_FOR_S + 1, |_| true),
            None
        );
    }

    #[test]
    fn a_rule_that_stays_keeps_its_counts_over_a_poll() {
        let before = read(&[rule("r", 1, "*", 5, 0.0)], None);
        kept(&before, 100, 3);
        let after = read(&[rule("r", 1, "*", 5, 0.5)], Some(&before));
        assert_eq!(after.report("c", 101)[0]["RequestCount"], 3);
    }
}
