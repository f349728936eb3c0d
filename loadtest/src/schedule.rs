// SPDX-License-Identifier: Apache-2.0
//! The timetable: when each request is due, as an offset from the start. Pure; `pacer` waits for it and `driver`
//! measures against it. Both walk their own copy with the same seed, so no queue of due times is ever held.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use crate::args::Arrivals;

#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    arrivals: Arrivals,
    mean_gap: f64,
    end: f64,
    left: u64,
    at: f64,
    issued: u64,
    random: SmallRng,
}

impl Schedule {
    pub(crate) fn new(arrivals: Arrivals, rate: f64, length: Duration, limit: u64) -> Self {
        Self::seeded(arrivals, rate, (length, limit), rand::random())
    }

    fn seeded(arrivals: Arrivals, rate: f64, (length, limit): (Duration, u64), seed: u64) -> Self {
        Self {
            arrivals,
            mean_gap: 1.0 / rate,
            end: length.as_secs_f64(),
            left: limit,
            at: 0.0,
            issued: 0,
            random: SmallRng::seed_from_u64(seed),
        }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        self.at = match self.arrivals {
            // Multiplied, not summed: a sum of millions of gaps drifts.
            #[expect(clippy::cast_precision_loss, reason = "2^53 requests are out of reach")]
            Arrivals::Uniform => self.issued as f64 * self.mean_gap,
            // Gaps of a Poisson process are exponential; 1 - u lies in (0, 1], so its logarithm is finite.
            Arrivals::Poisson => self.at - (1.0 - self.random.random::<f64>()).ln() * self.mean_gap,
        };
        self.issued += 1;
        (self.at < self.end).then(|| Duration::from_secs_f64(self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(100);

    #[test]
    fn uniform_arrivals_are_evenly_spaced_and_end_with_the_time() {
        let due: Vec<_> =
            Schedule::seeded(Arrivals::Uniform, 10.0, (LENGTH, u64::MAX), 1).collect();
        assert_eq!(due.len(), 1000);
        assert_eq!(due[0], Duration::ZERO);
        assert_eq!(due[999], Duration::from_millis(99_900));
    }

    #[test]
    fn poisson_arrivals_have_the_mean_and_the_variance_of_the_process() {
        let due: Vec<_> =
            Schedule::seeded(Arrivals::Poisson, 1000.0, (LENGTH, u64::MAX), 7).collect();
        // 100 000 expected, standard deviation sqrt(100 000) = 316.
        assert!(
            (98_400..101_600).contains(&due.len()),
            "{} arrivals",
            due.len()
        );
        let gaps: Vec<f64> = due
            .windows(2)
            .map(|w| (w[1] - w[0]).as_secs_f64() * 1000.0)
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!(
            (variance - 1.0).abs() < 0.05,
            "variance {variance} of gaps with mean {mean}"
        );
    }

    #[test]
    fn due_times_never_go_backwards() {
        let due: Vec<_> = Schedule::seeded(
            Arrivals::Poisson,
            50_000.0,
            (Duration::from_secs(1), u64::MAX),
            3,
        )
        .collect();
        assert!(due.is_sorted());
    }

    #[test]
    fn a_limit_ends_the_timetable_early() {
        assert_eq!(
            Schedule::seeded(Arrivals::Uniform, 10.0, (LENGTH, 3), 1).count(),
            3
        );
    }

    #[test]
    fn a_copy_gives_the_same_times() {
        let one = Schedule::new(Arrivals::Poisson, 500.0, Duration::from_secs(1), u64::MAX);
        assert!(one.clone().eq(one));
    }
}
