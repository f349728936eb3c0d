// SPDX-License-Identifier: Apache-2.0
//! `GET /pillion/v1/traces`: settled traces of a window, newest first, by service, outcome, duration, or any filter
//! expression. One call looks at a bounded number; `next` goes on from there, so a page may be empty and not the last.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use serde_json::json;

use crate::filter::Filter;
use crate::filter::GroupFilter;
use crate::query::pillion_api::AskError;
use crate::query::pillion_api::Asked;
use crate::query::pillion_api::traces;
use crate::store::PlacedBy;
use crate::store::Scan;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::Window;
use crate::summary::Summary;

const DEFAULT_TRACES: usize = 50;
const MAX_TRACES: usize = 1000;
const STEP: usize = 250;
/// Traces that one call looks at.
const MAX_LOOKED_AT: usize = 20_000;
const OUTCOMES: [&str; 4] = ["ok", "error", "throttle", "fault"];

/// What a trace must be to be listed; nothing given, nothing asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    service: Option<String>,
    outcome: Option<String>,
    filter: Option<Filter>,
    min_us: Option<u64>,
    max_us: Option<u64>,
}

impl Wanted {
    pub(super) fn check(asked: &Asked) -> Result<Wanted, AskError> {
        let filter = asked
            .filter
            .as_deref()
            .filter(|text| !text.trim().is_empty());
        let filter = filter
            .map(Filter::parse)
            .transpose()
            .map_err(|error| AskError::Invalid(format!("filter {error}")))?;
        if let Some(outcome) = &asked.outcome
            && !OUTCOMES.contains(&outcome.as_str())
        {
            let known = OUTCOMES.join(", ");
            return Err(AskError::Invalid(format!(
                "outcome is {outcome:?}; give one of {known}"
            )));
        }
        let us = |name: &str, value: Option<f64>| match value {
            Some(ms) if !(0.0..1e12).contains(&ms) => Err(AskError::Invalid(format!(
                "{name} is {ms}; give milliseconds, 0 or more"
            ))),
            other => Ok(other.map(|ms| (ms * 1000.0) as u64)),
        };
        Ok(Wanted {
            service: asked.service.clone().filter(|name| !name.is_empty()),
            outcome: asked.outcome.clone(),
            filter,
            min_us: us("min_ms", asked.min_ms)?,
            max_us: us("max_ms", asked.max_ms)?,
        })
    }

    /// A service by its name on the map, collapsed or raw; an outcome as the worst of anything in the trace.
    pub(super) fn holds(&self, one: &Summary, groups: &[GroupFilter]) -> bool {
        let named = |name: &String| {
            one.parties.contains(name) || one.nodes.iter().any(|node| node.name == *name)
        };
        let took = one.end_us - one.start_us;
        self.service.as_ref().is_none_or(named)
            && self
                .outcome
                .as_ref()
                .is_none_or(|wanted| one.worst.outcome().name() == wanted)
            && self.min_us.is_none_or(|least| took >= least)
            && self.max_us.is_none_or(|most| took <= most)
            && self
                .filter
                .as_ref()
                .is_none_or(|filter| filter.matches(one, groups))
    }
}

/// One call's question.
pub(super) struct Question {
    pub(super) window: Window,
    pub(super) wanted: Wanted,
    pub(super) limit: Option<usize>,
    pub(super) after: Option<Vec<u8>>,
}

impl Question {
    pub(super) fn check(asked: &Asked, window: Window) -> Result<Question, AskError> {
        let damaged = |_| AskError::Invalid("next is damaged; start again without it".to_owned());
        let after = asked.next.as_ref().map(|text| URL_SAFE_NO_PAD.decode(text));
        Ok(Question {
            window,
            wanted: Wanted::check(asked)?,
            limit: asked.limit,
            after: after.transpose().map_err(damaged)?,
        })
    }
}

/// Those wanted among the newest of a window, and where the next page begins.
pub(super) fn find(
    store: &dyn Store,
    groups: &[GroupFilter],
    question: Question,
) -> Result<Found, StoreError> {
    let limit = question
        .limit
        .unwrap_or(DEFAULT_TRACES)
        .clamp(1, MAX_TRACES);
    let mut scan = Scan {
        window: question.window,
        by: PlacedBy::Start,
        after: question.after,
        limit,
    };
    let mut found = Found::default();
    loop {
        let page = store.summaries(&scan)?;
        found.looked_at += page.summaries.len();
        let wanted = page
            .summaries
            .into_iter()
            .filter(|one| question.wanted.holds(one, groups));
        found.summaries.extend(wanted);
        found.next = page.next;
        if found.next.is_none()
            || found.summaries.len() >= limit
            || found.looked_at >= MAX_LOOKED_AT
        {
            break;
        }
        scan.after.clone_from(&found.next);
        // No more than fit, so that what follows is on the next page.
        scan.limit = (limit - found.summaries.len()).min(STEP);
    }
    Ok(found)
}

#[derive(Default)]
pub(super) struct Found {
    pub(super) summaries: Vec<Summary>,
    looked_at: usize,
    next: Option<Vec<u8>>,
}

impl Found {
    pub(super) fn page(&self) -> Value {
        let listed: Vec<Value> = self.summaries.iter().map(traces::summary).collect();
        json!({
            "traces": listed, "more": self.next.is_some(), "looked_at": self.looked_at,
            "next": self.next.as_ref().map(|place| URL_SAFE_NO_PAD.encode(place)),
        })
    }
}
