// SPDX-License-Identifier: Apache-2.0
//! How many retries a cluster bears: a share of the requests of the last ten seconds, so that a blip of many requests at
//! once is repaired and an outage is not multiplied. Asked by `layer::retry` before each retry; counts nothing on the way
//! of a request that goes well.

use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;
use pillion_xds::cluster::CircuitBreakers;
use pillion_xds::cluster::RetryBudget;

/// Requests count for so long.
const WINDOW: Duration = Duration::from_secs(10);
/// From here on a limit of retries says "no limit": App Mesh's control plane sent it, and so does ours.
const NO_LIMIT: u32 = i32::MAX as u32;

/// The budget that holds under these limits. One that bounds its retries needs none.
pub(super) fn of(limits: &CircuitBreakers) -> Option<RetryBudget> {
    let unbounded = limits.max_retries.is_some_and(|most| most >= NO_LIMIT);
    let guard = unbounded.then(RetryBudget::default);
    limits.retry_budget.or(guard)
}

/// A cluster's budget.
#[derive(Debug)]
pub struct Budget(Mutex<Purse>);

#[derive(Debug)]
struct Purse {
    terms: Option<RetryBudget>,
    retries: f64,
    /// First tries when it was last looked at.
    seen: u64,
    at: Instant,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget(Mutex::new(Purse {
            terms: None,
            retries: 0.0,
            seen: 0,
            at: Instant::now(),
        }))
    }
}

impl Budget {
    pub(super) fn set(&self, terms: Option<RetryBudget>) {
        self.0.lock().terms = terms;
    }

    /// Whether another retry is within the budget, and takes it from there: after so many first tries, beside so many
    /// retries in flight.
    pub fn admits(&self, first_tries: u64, in_flight: u32, now: Instant) -> bool {
        let mut purse = self.0.lock();
        let Some(terms) = purse.terms else {
            return true;
        };
        let passed = now.saturating_duration_since(purse.at).as_secs_f64() / WINDOW.as_secs_f64();
        let fresh = first_tries.saturating_sub(purse.seen) as f64;
        // Of a longer time only the window's part counts: an hour without a failure is no credit for a storm.
        let recent = fresh / passed.max(1.0);
        purse.retries = purse.retries * (-passed).exp() + recent * terms.percent / 100.0;
        purse.seen = first_tries;
        purse.at = now;
        if purse.retries >= 1.0 {
            purse.retries -= 1.0;
            return true;
        }
        in_flight < terms.min_concurrency
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> Budget {
        let budget = Budget::default();
        budget.set(Some(RetryBudget::default()));
        budget
    }

    #[test]
    fn a_fifth_of_the_requests_may_be_tried_again_however_many_ask_at_once() {
        let (budget, now) = (budget(), Instant::now());
        let admitted = (0..1000).filter(|_| budget.admits(1000, 1000, now)).count();
        assert!((199..=201).contains(&admitted), "{admitted}");
    }

    #[test]
    fn a_few_at_once_always_may() {
        let (budget, now) = (budget(), Instant::now());
        assert!((0..3).all(|in_flight| budget.admits(0, in_flight, now)));
        assert!(!budget.admits(0, 3, now));
    }

    #[test]
    fn a_long_time_without_failure_is_no_credit() {
        let (budget, begun) = (budget(), Instant::now());
        let later = begun + WINDOW * 360;
        let admitted = (0..10_000)
            .filter(|_| budget.admits(360_000, 100, later))
            .count();
        assert!((195..=205).contains(&admitted), "{admitted}");
    }

    #[test]
    fn only_who_has_no_limit_gets_the_guard_and_a_given_budget_goes_first() {
        let limits = |max_retries| CircuitBreakers {
            max_retries,
            ..CircuitBreakers::default()
        };
        assert_eq!(of(&limits(None)), None);
        assert_eq!(of(&limits(Some(1024))), None);
        assert_eq!(of(&limits(Some(NO_LIMIT))), Some(RetryBudget::default()));
        let given = RetryBudget {
            percent: 5.0,
            min_concurrency: 1,
        };
        let told = CircuitBreakers {
            retry_budget: Some(given),
            ..limits(Some(NO_LIMIT))
        };
        assert_eq!(of(&told), Some(given));
    }
}
