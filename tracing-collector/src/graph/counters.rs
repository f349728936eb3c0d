// SPDX-License-Identifier: Apache-2.0
//! The sums that stand behind one node or edge: outcomes, times, histograms. Signed, so that a changed trace can be
//! taken back and counted anew.

use std::collections::BTreeMap;

use crate::graph::Contribution;
use crate::span::Outcome;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Counters {
    pub(crate) ok: i64,
    pub(crate) error: i64,
    pub(crate) throttle: i64,
    pub(crate) fault: i64,
    pub(crate) response_us: i64,
    pub(crate) roots: i64,
    pub(crate) inferred: i64,
    pub(crate) between_us: i64,
    pub(crate) between_count: i64,
    pub(crate) responses: Histogram,
    pub(crate) durations: Histogram,
    /// Bounds, not sums: taking back leaves them as wide as they were.
    pub(crate) bounds: Option<Bounds>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) first_start_us: u64,
    pub(crate) first_end_us: u64,
    pub(crate) last_end_us: u64,
}

impl Bounds {
    fn and(self, other: Bounds) -> Bounds {
        Bounds {
            first_start_us: self.first_start_us.min(other.first_start_us),
            first_end_us: self.first_end_us.min(other.first_end_us),
            last_end_us: self.last_end_us.max(other.last_end_us),
        }
    }
}

impl Counters {
    pub(crate) fn total(&self) -> i64 {
        self.ok + self.error + self.throttle + self.fault
    }

    /// Whether everything counted was taken back.
    pub(crate) fn is_empty(&self) -> bool {
        self.total() == 0
    }

    pub(crate) fn add(&mut self, one: &Contribution) {
        self.count(one, 1);
        let bounds = Bounds {
            first_start_us: one.end_us.saturating_sub(one.response_us),
            first_end_us: one.end_us,
            last_end_us: one.end_us,
        };
        self.widen(Some(bounds));
    }

    pub(crate) fn take_back(&mut self, one: &Contribution) {
        self.count(one, -1);
    }

    fn count(&mut self, one: &Contribution, times: i64) {
        let slot = match one.outcome {
            Outcome::Ok => &mut self.ok,
            Outcome::Error => &mut self.error,
            Outcome::Throttle => &mut self.throttle,
            Outcome::Fault => &mut self.fault,
        };
        *slot += times;
        self.response_us += times * signed(one.response_us);
        self.roots += times * i64::from(one.root);
        self.inferred += times * i64::from(one.inferred);
        if let Some(between) = one.between_us {
            self.between_us += times * signed(between);
            self.between_count += times;
        }
        self.responses.count(one.response_us, times);
        self.durations.count(one.duration_us, times);
    }

    pub(crate) fn merge(&mut self, other: &Counters) {
        self.ok += other.ok;
        self.error += other.error;
        self.throttle += other.throttle;
        self.fault += other.fault;
        self.response_us += other.response_us;
        self.roots += other.roots;
        self.inferred += other.inferred;
        self.between_us += other.between_us;
        self.between_count += other.between_count;
        self.responses.merge(&other.responses);
        self.durations.merge(&other.durations);
        self.widen(other.bounds);
    }

    fn widen(&mut self, other: Option<Bounds>) {
        self.bounds = match (self.bounds, other) {
            (Some(own), Some(other)) => Some(own.and(other)),
            (own, other) => own.or(other),
        };
    }
}

fn signed(us: u64) -> i64 {
    i64::try_from(us).unwrap_or(i64::MAX)
}

/// Counts by microseconds cut to three significant digits: under 1 % off, exact to the millisecond below a second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Histogram(BTreeMap<u64, i64>);

impl Histogram {
    fn count(&mut self, us: u64, times: i64) {
        self.put(us - us % step(us), times);
    }

    /// Adds to a bucket by its lower bound.
    pub(crate) fn put(&mut self, bucket: u64, times: i64) {
        let count = self.0.entry(bucket).or_default();
        *count += times;
        if *count == 0 {
            self.0.remove(&bucket);
        }
    }

    pub(crate) fn merge(&mut self, other: &Histogram) {
        for (bucket, count) in other.buckets() {
            self.put(bucket, count);
        }
    }

    /// Lower bounds in microseconds, ascending.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (u64, i64)> + '_ {
        self.0.iter().map(|(bucket, count)| (*bucket, *count))
    }

    /// The middle of the bucket that holds the `share` (0 to 1) of all counts, in microseconds.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let total: i64 = self.0.values().sum();
        let rank = ((total as f64 * share).ceil() as i64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets() {
            seen += count;
            if seen >= rank {
                return Some(bucket as f64 + (step(bucket) - 1) as f64 / 2.0);
            }
        }
        None
    }
}

/// The width of the bucket a value falls in.
fn step(us: u64) -> u64 {
    let mut step = 1;
    while us / step >= 1000 {
        step *= 10;
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Key;
    use crate::span::Node;

    fn one(response_us: u64, outcome: Outcome) -> Contribution {
        Contribution {
            key: Key::Node(Node::new("a", "unknown")),
            end_us: 60_000_000 + response_us,
            response_us,
            duration_us: response_us,
            outcome,
            root: true,
            inferred: false,
            between_us: Some(10),
        }
    }

    #[test]
    fn what_is_taken_back_leaves_what_a_recount_would_give() {
        let (first, second) = (one(5_000, Outcome::Ok), one(1_234_567, Outcome::Throttle));
        let mut counters = Counters::default();
        counters.add(&first);
        counters.add(&second);
        counters.take_back(&second);
        let mut recount = Counters::default();
        recount.add(&first);
        recount.bounds = counters.bounds;
        assert_eq!(counters, recount);
    }

    #[test]
    fn a_histogram_is_exact_to_the_millisecond_below_a_second() {
        let mut histogram = Histogram::default();
        for us in [999, 5_499, 5_999, 123_999, 999_999] {
            histogram.count(us, 1);
        }
        let milliseconds: Vec<u64> = histogram
            .buckets()
            .map(|(bucket, _)| bucket / 1000)
            .collect();
        assert_eq!(milliseconds, [0, 5, 5, 123, 999]);
    }

    #[test]
    fn a_quantile_is_within_one_per_cent() {
        let mut histogram = Histogram::default();
        for us in 1..=10_000 {
            histogram.count(us * 17, 1);
        }
        let median = histogram.quantile(0.5).expect("values were counted");
        assert!((median - 85_000.0).abs() < 850.0, "{median}");
        assert_eq!(Histogram::default().quantile(0.5), None);
    }
}
