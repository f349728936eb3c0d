// SPDX-License-Identifier: Apache-2.0
//! Threshold rules on requests whose trace satisfies a filter: rate, shares of errors and faults, latency quantiles. Kept
//! by name in the store, evaluated every few seconds over their window, told to a webhook when they begin and end, and
//! shown as metrics. `query::pillion_api` sets and lists them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use tokio::task::spawn_blocking;

use crate::filter::Filter;
use crate::graph::CLIENT_TYPE;
use crate::graph::Key;
use crate::graph::counters::Counters;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::Window;
use crate::webhook::Webhook;

const KIND: &str = "alert";
pub(crate) const MOST_RULES: usize = 100;
const MAX_NAME: usize = 64;
const EVERY: Duration = Duration::from_secs(5);
const LONGEST_WINDOW_S: u64 = 86_400;

/// What is compared.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Measure {
    /// Requests a second.
    Rate,
    /// Of requests, with throttles.
    ErrorShare,
    FaultShare,
    P50Ms,
    P90Ms,
    P99Ms,
}

/// One rule as it is written.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// Which traces; none is all of them.
    #[serde(default)]
    filter: String,
    measure: Measure,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    above: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    below: Option<f64>,
    #[serde(default = "five_minutes")]
    window_s: u64,
    /// How long it must hold before it fires.
    #[serde(default)]
    for_s: u64,
    /// Fewer requests say nothing of shares and times.
    #[serde(default = "one")]
    least_requests: i64,
}

fn five_minutes() -> u64 {
    300
}

fn one() -> i64 {
    1
}

impl Rule {
    /// Every problem at once.
    pub(crate) fn problems(&self, name: &str) -> Vec<String> {
        let mut problems = Vec::new();
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(fits) {
            problems.push(format!(
                "the name is {name:?}; give 1 to {MAX_NAME} letters, digits, dashes and underscores"
            ));
        }
        if let Err(error) = self.filter() {
            problems.push(format!("filter {error}"));
        }
        if self.above.is_some() == self.below.is_some() {
            problems.push("give one of above and below".to_owned());
        }
        if !(10..=LONGEST_WINDOW_S).contains(&self.window_s) {
            problems.push(format!(
                "window_s is {}; give 10 to {LONGEST_WINDOW_S} seconds",
                self.window_s
            ));
        }
        problems
    }

    fn filter(&self) -> Result<Option<Filter>, crate::filter::FilterError> {
        let text = self.filter.trim();
        (!text.is_empty()).then(|| Filter::parse(text)).transpose()
    }

    /// Of the requests of a window; nothing when there are too few.
    fn value(&self, requests: &Counters) -> Option<f64> {
        let total = requests.total();
        let share = |count: i64| count as f64 / total as f64;
        let quantile = |share: f64| requests.responses.quantile(share).map(|us| us / 1000.0);
        if self.measure == Measure::Rate {
            return Some(total as f64 / self.window_s as f64);
        }
        if total < self.least_requests.max(1) {
            return None;
        }
        match self.measure {
            Measure::Rate => None,
            Measure::ErrorShare => Some(share(requests.error + requests.throttle)),
            Measure::FaultShare => Some(share(requests.fault)),
            Measure::P50Ms => quantile(0.5),
            Measure::P90Ms => quantile(0.9),
            Measure::P99Ms => quantile(0.99),
        }
    }

    fn holds(&self, value: Option<f64>) -> bool {
        let Some(value) = value else { return false };
        self.above.is_some_and(|above| value > above)
            || self.below.is_some_and(|below| value < below)
    }
}

/// What came of a rule when it was last looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct State {
    value: Option<f64>,
    /// Epoch seconds.
    holds_since: Option<f64>,
    firing_since: Option<f64>,
}

impl State {
    /// The state after another look; whether it began or ended to fire.
    fn next(self, rule: &Rule, value: Option<f64>, now: f64) -> (State, bool) {
        let holds_since = rule.holds(value).then(|| self.holds_since.unwrap_or(now));
        let long_enough = holds_since.is_some_and(|since| now - since >= rule.for_s as f64);
        let firing_since = long_enough.then(|| self.firing_since.unwrap_or(now));
        let changed = firing_since.is_some() != self.firing_since.is_some();
        let state = State {
            value,
            holds_since,
            firing_since,
        };
        (state, changed)
    }
}

#[derive(Clone)]
pub(crate) struct Alerts {
    store: Arc<dyn Store>,
    states: Arc<Mutex<BTreeMap<String, State>>>,
    webhook: Option<Webhook>,
    metrics: Metrics,
}

impl Alerts {
    pub(crate) fn new(store: Arc<dyn Store>, webhook: Option<Webhook>, metrics: Metrics) -> Alerts {
        Alerts {
            store,
            states: Arc::default(),
            webhook,
            metrics,
        }
    }

    pub(crate) fn rules(&self) -> Result<Vec<(String, Rule)>, StoreError> {
        let kept = self.store.kept(KIND)?;
        let damaged = StoreError::Record {
            what: "an alert rule",
        };
        let rules: Option<Vec<_>> = kept
            .into_iter()
            .map(|(name, bytes)| Some((name, serde_json::from_slice(&bytes).ok()?)))
            .collect();
        rules.ok_or(damaged)
    }

    pub(crate) fn put(&self, name: &str, rule: &Rule) -> Result<(), StoreError> {
        self.states.lock().remove(name);
        self.store
            .keep(KIND, &[(name, Some(json!(rule).to_string().as_bytes()))])
    }

    pub(crate) fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.states.lock().remove(name);
        self.metrics.forget_alert(name);
        self.store.keep(KIND, &[(name, None)])
    }

    /// Every rule with what came of it.
    pub(crate) fn list(&self) -> Result<Vec<Value>, StoreError> {
        let rules = self.rules()?;
        let states = self.states.lock();
        Ok(rules
            .iter()
            .map(|(name, rule)| {
                let state = states.get(name).copied().unwrap_or_default();
                shape(name, rule, state)
            })
            .collect())
    }

    /// Until it is stopped from outside.
    pub(crate) async fn run(self) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let alerts = self.clone();
            match spawn_blocking(move || alerts.look(crate::query::now())).await {
                Ok(Ok(changed)) => {
                    for alert in changed {
                        self.tell(&alert).await;
                    }
                }
                Ok(Err(error)) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "alert rules were not evaluated"
                    );
                }
                Err(error) => tracing::error!(%error, "evaluating alert rules panicked"),
            }
        }
    }

    /// Those that began or ended to fire.
    fn look(&self, now: f64) -> Result<Vec<Value>, StoreError> {
        let mut changed = Vec::new();
        for (name, rule) in self.rules()? {
            let requests = self.requests(&rule, now)?;
            let value = rule.value(&requests);
            let mut states = self.states.lock();
            let before = states.get(&name).copied().unwrap_or_default();
            let (state, news) = before.next(&rule, value, now);
            states.insert(name.clone(), state);
            self.metrics
                .alert(&name, state.firing_since.is_some(), value);
            if news {
                changed.push(shape(&name, &rule, state));
            }
        }
        Ok(changed)
    }

    /// Calls from outside, whose traces the rule is about.
    fn requests(&self, rule: &Rule, now: f64) -> Result<Counters, StoreError> {
        let end_us = (now * 1e6) as u64;
        let window = Window {
            start_us: end_us.saturating_sub(rule.window_s * 1_000_000),
            end_us,
        };
        // Checked before it was kept.
        let totals = match rule.filter().ok().flatten() {
            None => self.store.graph(window)?,
            Some(filter) => self
                .store
                .graph_of(window, &|one| filter.matches(one, &[]))?,
        };
        let mut sum = Counters::default();
        for (key, counters) in &totals {
            if matches!(key, Key::Edge { source, .. } if source.kind == CLIENT_TYPE) {
                sum.merge(counters);
            }
        }
        Ok(sum)
    }

    async fn tell(&self, alert: &Value) {
        tracing::warn!(alert = %alert["name"], state = %alert["state"], value = %alert["value"], "alert");
        let Some(webhook) = &self.webhook else { return };
        let told = webhook
            .post(&json!({"source": "pillion", "detail-type": "Pillion Alert", "detail": alert}))
            .await;
        self.metrics.webhook(told.is_ok());
        if let Err(error) = told {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the alert webhook was not told"
            );
        }
    }
}

fn shape(name: &str, rule: &Rule, state: State) -> Value {
    let word = match (state.holds_since, state.firing_since) {
        (_, Some(_)) => "firing",
        (Some(_), None) => "pending",
        (None, None) => "ok",
    };
    json!({
        "name": name, "rule": rule, "state": word, "value": state.value,
        "since": state.firing_since.or(state.holds_since),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: Value) -> Rule {
        serde_json::from_value(text).expect("a rule")
    }

    #[test]
    fn a_rule_fires_when_it_has_held_long_enough_and_ends_at_once() {
        let rule = rule(json!({"measure": "rate", "above": 10.0, "for_s": 30}));
        let mut state = State::default();
        let mut changes = Vec::new();
        for (now, value) in [
            (0.0, 5.0),
            (10.0, 11.0),
            (20.0, 12.0),
            (40.0, 12.0),
            (50.0, 13.0),
            (60.0, 1.0),
        ] {
            let (next, changed) = state.next(&rule, Some(value), now);
            state = next;
            if changed {
                changes.push((now, state.firing_since.is_some()));
            }
        }
        assert_eq!(changes, [(40.0, true), (60.0, false)]);
    }

    #[test]
    fn too_few_requests_say_nothing_of_shares() {
        let rule = rule(json!({"measure": "fault_share", "above": 0.1, "least_requests": 10}));
        let mut requests = Counters {
            fault: 5,
            ..Counters::default()
        };
        assert_eq!(rule.value(&requests), None);
        requests.ok = 5;
        assert_eq!(rule.value(&requests), Some(0.5));
        assert!(rule.holds(Some(0.5)) && !rule.holds(Some(0.1)) && !rule.holds(None));
    }

    #[test]
    fn a_wrong_rule_is_told_all_its_problems() {
        let rule = rule(json!({"measure": "p99_ms", "filter": "ok AND", "window_s": 1}));
        assert_eq!(rule.problems("a b").len(), 4);
    }
}
