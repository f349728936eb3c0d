// SPDX-License-Identifier: Apache-2.0
//! Quantiles of bucketed times, those that Envoy prints. Pure; called by `metrics`.

use super::stats::BOUNDS;

/// In percent.
const SHOWN: [f64; 10] = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

/// Percent and milliseconds; `None` without observations. Within a bucket times are taken to be spread evenly.
#[allow(clippy::cast_precision_loss, reason = "counts become shares")]
pub(super) fn of(buckets: &[u64; BOUNDS.len() + 1]) -> Option<Vec<(f64, f64)>> {
    let total: u64 = buckets.iter().sum();
    if total == 0 {
        return None;
    }
    let at = |percent: f64| {
        let wanted = percent / 100.0 * total as f64;
        let mut below = 0.0;
        let mut lower = 0.0;
        for (slot, count) in buckets.iter().enumerate() {
            // Beyond the last bound nothing is known but that it is beyond.
            let upper = BOUNDS.get(slot).copied().unwrap_or(lower);
            let count = *count as f64;
            if count > 0.0 && below + count >= wanted {
                return lower + (upper - lower) * ((wanted - below) / count).max(0.0);
            }
            below += count;
            lower = upper;
        }
        lower
    };
    Some(
        SHOWN
            .iter()
            .map(|percent| (*percent, at(*percent)))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_in_the_bucket_of_their_share() {
        let mut buckets = [0; BOUNDS.len() + 1];
        assert_eq!(of(&buckets), None);
        // 90 between 1 and 5 ms, 10 between 50 and 100 ms.
        (buckets[2], buckets[6]) = (90, 10);
        let shown = of(&buckets).expect("there are some");
        let value = |percent: f64| {
            shown
                .iter()
                .find(|(one, _)| (one - percent).abs() < 1e-9)
                .expect("shown")
                .1
        };
        assert!((value(0.0) - 1.0).abs() < 1e-9);
        assert!((1.0..5.0).contains(&value(50.0)) && (50.0..=100.0).contains(&value(95.0)));
        assert!((value(100.0) - 100.0).abs() < 1e-9);
    }
}
