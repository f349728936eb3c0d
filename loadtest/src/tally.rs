// SPDX-License-Identifier: Apache-2.0
//! What was measured: counts by outcome and a latency histogram. Filled by `driver`, read by `report`. No I/O.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// How one request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered {
        status: u16,
        bytes: u64,
    },
    /// No connection could be made; nothing was sent.
    Connect,
    /// No complete answer within `--timeout`.
    Timeout,
    /// The connection ended, or spoke nonsense, before a complete answer.
    Broken,
    /// Still waiting when the run was stopped.
    Unfinished,
}

/// Why a request left later than it was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delay {
    /// Every connection was waiting for an answer: the target's doing, or too few `--connections`.
    ConnectionsBusy,
    /// A connection was free: this machine or this program was too slow.
    Generator,
}

/// A request that leaves this long after it was due counts as late.
pub(crate) const LATE: Duration = Duration::from_millis(10);

/// 1 microsecond to 1 hour at three significant digits.
const LONGEST_US: u64 = 3_600_000_000;

#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    pub(crate) statuses: BTreeMap<u16, u64>,
    pub(crate) connect: u64,
    pub(crate) timeout: u64,
    pub(crate) broken: u64,
    pub(crate) unfinished: u64,
    pub(crate) bytes_received: u64,
    pub(crate) late_busy: u64,
    pub(crate) late_generator: u64,
    pub(crate) latency: Histogram<u64>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            requests: 0,
            statuses: BTreeMap::new(),
            connect: 0,
            timeout: 0,
            broken: 0,
            unfinished: 0,
            bytes_received: 0,
            late_busy: 0,
            late_generator: 0,
            latency: Histogram::new_with_bounds(1, LONGEST_US, 3).expect("these bounds are valid"),
        }
    }

    /// `latency` counts from the due time. A request that found no connection, or was cut off by the end of the run,
    /// has no latency; one that timed out has: whoever asked waited at least that long.
    pub(crate) fn record(&mut self, outcome: Outcome, latency: Duration) {
        self.requests += 1;
        match outcome {
            Outcome::Answered { status, bytes } => {
                *self.statuses.entry(status).or_default() += 1;
                self.bytes_received += bytes;
            }
            Outcome::Connect => self.connect += 1,
            Outcome::Timeout => self.timeout += 1,
            Outcome::Broken => self.broken += 1,
            Outcome::Unfinished => self.unfinished += 1,
        }
        if matches!(outcome, Outcome::Answered { .. } | Outcome::Timeout) {
            let us = u64::try_from(latency.as_micros()).unwrap_or(LONGEST_US);
            self.latency.saturating_record(us.clamp(1, LONGEST_US));
        }
    }

    pub(crate) fn delayed(&mut self, delay: Delay) {
        match delay {
            Delay::ConnectionsBusy => self.late_busy += 1,
            Delay::Generator => self.late_generator += 1,
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        self.connect += other.connect;
        self.timeout += other.timeout;
        self.broken += other.broken;
        self.unfinished += other.unfinished;
        self.bytes_received += other.bytes_received;
        self.late_busy += other.late_busy;
        self.late_generator += other.late_generator;
        self.latency
            .add(&other.latency)
            .expect("both histograms have the same bounds");
    }

    /// Answers whose status lies in `class` hundred.
    pub(crate) fn class(&self, class: u16) -> u64 {
        self.statuses
            .range(class * 100..(class + 1) * 100)
            .map(|(_, count)| count)
            .sum()
    }

    pub(crate) fn failures(&self) -> u64 {
        self.connect + self.timeout + self.broken + self.unfinished + self.class(4) + self.class(5)
    }

    pub(crate) fn quantile_ms(&self, quantile: f64) -> f64 {
        millis(self.latency.value_at_quantile(quantile))
    }

    pub(crate) fn max_ms(&self) -> f64 {
        millis(self.latency.max())
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "an hour in microseconds fits a double"
)]
fn millis(us: u64) -> f64 {
    us as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn every_outcome_is_a_request_and_only_bad_ones_are_failures() {
        let mut tally = Tally::new();
        for status in [200, 204, 302, 404, 429, 500, 503] {
            tally.record(Outcome::Answered { status, bytes: 10 }, MS);
        }
        for outcome in [
            Outcome::Connect,
            Outcome::Timeout,
            Outcome::Broken,
            Outcome::Unfinished,
        ] {
            tally.record(outcome, MS);
        }
        assert_eq!((tally.requests, tally.failures()), (11, 8));
        assert_eq!((tally.class(2), tally.class(4), tally.class(5)), (2, 2, 2));
        assert_eq!(tally.bytes_received, 70);
        assert_eq!(
            tally.latency.len(),
            8,
            "seven answers and the timeout have a latency"
        );
    }

    #[test]
    fn intervals_add_up_to_the_whole() {
        let (mut whole, mut part) = (Tally::new(), Tally::new());
        part.record(
            Outcome::Answered {
                status: 200,
                bytes: 1,
            },
            5 * MS,
        );
        part.delayed(Delay::Generator);
        whole.add(&part);
        whole.add(&part);
        assert_eq!(
            (whole.requests, whole.class(2), whole.late_generator),
            (2, 2, 2)
        );
        assert!((whole.quantile_ms(0.5) - 5.0).abs() < 0.01);
    }

    #[test]
    fn a_latency_beyond_the_scale_is_kept_at_its_end() {
        let mut tally = Tally::new();
        tally.record(Outcome::Timeout, Duration::from_secs(100_000));
        assert!(tally.max_ms() >= 3_600_000.0);
    }
}
