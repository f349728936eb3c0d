// SPDX-License-Identifier: Apache-2.0
//! Looks at what has just been counted: evaluates the insights of groups over the minutes that changed, in data time,
//! and tells a webhook what is new. Told of changes by `pipeline`; ends with the process.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use serde_json::json;
use tokio::task::spawn_blocking;

use crate::graph::Contribution;
use crate::metrics::Metrics;
use crate::query::insights;
use crate::query::insights::Watched;
use crate::query::kept::Kept;
use crate::span::ACCOUNT;
use crate::span::REGION;
use crate::store::Store;
use crate::store::StoreError;
use crate::webhook::Webhook;

const EVERY: Duration = Duration::from_secs(1);
/// Insights that are open may close by time alone.
const OPEN_EVERY: u32 = 15;

/// The minutes in which something changed since they were last looked at.
#[derive(Clone, Default)]
pub(crate) struct Changed(Arc<Mutex<Option<(u32, u32)>>>);

impl Changed {
    pub(crate) fn note(&self, contributions: &[Contribution]) {
        let minutes = || contributions.iter().map(Contribution::minute);
        if let (Some(first), Some(last)) = (minutes().min(), minutes().max()) {
            self.widen((first, last));
        }
    }

    fn widen(&self, (first, last): (u32, u32)) {
        let mut range = self.0.lock();
        let (from, to) = range.unwrap_or((first, last));
        *range = Some((from.min(first), to.max(last)));
    }

    fn take(&self) -> Option<(u32, u32)> {
        self.0.lock().take()
    }
}

pub(crate) struct Watch {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) kept: Kept,
    pub(crate) changed: Changed,
    pub(crate) webhook: Option<Webhook>,
    pub(crate) metrics: Metrics,
}

impl Watch {
    /// Until it is stopped from outside.
    pub(crate) async fn run(self) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut turn = 0;
        loop {
            ticks.tick().await;
            turn = (turn + 1) % OPEN_EVERY;
            self.look(turn == 0).await;
        }
    }

    async fn look(&self, also_open: bool) {
        let (store, kept) = (Arc::clone(&self.store), self.kept.clone());
        let mut minutes = self.changed.take();
        if also_open {
            minutes = match (minutes, insights::open_minutes(&self.kept)) {
                (Some((a, b)), Ok(Some((c, d)))) => Some((a.min(c), b.max(d))),
                (minutes, open) => minutes.or(open.ok().flatten()),
            };
        }
        let Some(minutes) = minutes else { return };
        let looked = spawn_blocking(move || news(store.as_ref(), &kept, minutes)).await;
        match looked {
            Ok(Ok(news)) => {
                for insight in news {
                    self.tell(&insight).await;
                }
            }
            Ok(Err(error)) => {
                self.changed.widen(minutes);
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "insights were not looked for; trying again"
                );
            }
            Err(error) => tracing::error!(%error, "looking for insights panicked"),
        }
    }

    async fn tell(&self, insight: &Value) {
        tracing::info!(summary = %insight["Summary"], state = %insight["State"], "insight");
        let Some(webhook) = &self.webhook else { return };
        let told = webhook.post(&notification(insight)).await;
        self.metrics.webhook(told.is_ok());
        if let Err(error) = told {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the insight webhook was not told"
            );
        }
    }
}

/// Of groups that want to be told.
fn news(store: &dyn Store, kept: &Kept, minutes: (u32, u32)) -> Result<Vec<Value>, StoreError> {
    let mut all = Vec::new();
    for group in Watched::all(kept)? {
        let news = insights::refresh(store, kept, &group, minutes)?;
        if group.notified {
            all.extend(news);
        }
    }
    Ok(all)
}

/// As EventBridge delivers it.
fn notification(insight: &Value) -> Value {
    json!({
        "version": "0", "id": insight["InsightId"], "source": "aws.xray", "account": ACCOUNT, "region": REGION,
        "detail-type": "AWS X-Ray Insight Update", "time": insight["EndTime"].as_f64().or(insight["StartTime"].as_f64()),
        "resources": [insight["GroupARN"]], "detail": insight,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_widen_one_range_that_is_taken_once() {
        let changed = Changed::default();
        changed.widen((10, 12));
        changed.widen((5, 11));
        assert_eq!(changed.take(), Some((5, 12)));
        assert_eq!(changed.take(), None);
    }
}
