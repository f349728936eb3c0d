// SPDX-License-Identifier: Apache-2.0
//! The last things that were refused or lost, with the reason: what a counter cannot say. Written by the doors, shown
//! by the Pillion API. Bounded; the oldest go first.

use std::collections::VecDeque;
use std::time::SystemTime;

use parking_lot::Mutex;
use serde_json::Value;
use serde_json::json;

use crate::metrics::Reason;
use crate::metrics::Source;

const MOST: usize = 200;
const MAX_TEXT: usize = 300;

#[derive(Default)]
pub(crate) struct Rejects(Mutex<VecDeque<Reject>>);

struct Reject {
    at: SystemTime,
    source: Source,
    reason: Reason,
    why: String,
    /// How what was refused began.
    sample: String,
}

impl Rejects {
    pub(crate) fn note(&self, source: Source, reason: Reason, why: &str, sample: &[u8]) {
        let sample = &sample[..sample.len().min(MAX_TEXT)];
        let reject = Reject {
            at: SystemTime::now(),
            source,
            reason,
            why: why.chars().take(MAX_TEXT).collect(),
            sample: String::from_utf8_lossy(sample).into_owned(),
        };
        let mut all = self.0.lock();
        if all.len() == MOST {
            all.pop_front();
        }
        all.push_back(reject);
    }

    /// Newest first.
    pub(crate) fn list(&self) -> Vec<Value> {
        let all = self.0.lock();
        all.iter()
            .rev()
            .map(|one| {
                let since = one.at.duration_since(SystemTime::UNIX_EPOCH);
                json!({
                    "time": since.unwrap_or_default().as_millis() as f64 / 1e3,
                    "source": one.source.name(), "reason": one.reason.name(),
                    "message": one.why, "sample": one.sample,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_cut_to_size() {
        let rejects = Rejects::default();
        for number in 0..MOST + 5 {
            let sample = vec![0xff; 10_000];
            rejects.note(
                Source::XrayUdp,
                Reason::Invalid,
                &number.to_string(),
                &sample,
            );
        }
        let list = rejects.list();
        assert_eq!(list.len(), MOST);
        assert_eq!(list[0]["message"], json!((MOST + 4).to_string()));
        let sample = list[0]["sample"].as_str().map(|text| text.chars().count());
        assert_eq!(sample, Some(MAX_TEXT));
    }
}
