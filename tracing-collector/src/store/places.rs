// SPDX-License-Identifier: Apache-2.0
//! Where a settled trace is listed, as keys that sort by time: `b` start, trace · `i` time of id, trace · `m` minute,
//! trace → what happened in that minute. Pure; both stores keep these keys and walk them backwards.

use std::collections::HashMap;
use std::time::Duration;

use crate::graph::Key;
use crate::graph::minute;
use crate::span::TraceId;
use crate::store::PlacedBy;
use crate::store::Scan;
use crate::store::StoreError;
use crate::store::Window;
use crate::summary::Evaluated;
use crate::summary::Summary;

/// Something of the trace ended in this minute.
pub(super) const CONTRIBUTES: u8 = 1;
/// The trace was active in this minute.
const ACTIVE: u8 = 2;
/// Longer traces are listed as active in their first minutes and their last.
const MAX_ACTIVE_MINUTES: u32 = 1440;

/// Every key under which a settled trace is listed, with its value.
pub(super) fn places(row: &Evaluated, retention: Duration) -> Vec<(Vec<u8>, Vec<u8>)> {
    let summary = &row.summary;
    let mut minutes: HashMap<u32, u8> = HashMap::new();
    let (first, last) = (minute(summary.start_us), minute(summary.end_us));
    for active in (first..=last)
        .take(MAX_ACTIVE_MINUTES as usize)
        .chain([last])
    {
        *minutes.entry(active).or_default() |= ACTIVE;
    }
    for contribution in &row.contributions {
        *minutes.entry(contribution.minute()).or_default() |= CONTRIBUTES;
    }
    let mut found: Vec<(Vec<u8>, Vec<u8>)> = minutes
        .into_iter()
        .map(|(minute, flags)| (place(b'm', u64::from(minute), summary.id), vec![flags]))
        .collect();
    found.push((place(b'b', summary.start_us, summary.id), Vec::new()));
    found.push((
        place(b'i', id_time_us(summary, retention), summary.id),
        Vec::new(),
    ));
    found
}

fn place(letter: u8, time: u64, id: TraceId) -> Vec<u8> {
    let mut key = bound(letter, time);
    key.extend(id.0.to_be_bytes());
    key
}

pub(super) fn bound(letter: u8, time: u64) -> Vec<u8> {
    let mut key = vec![letter];
    key.extend(time.to_be_bytes());
    key
}

/// The time of a place and its trace.
pub(super) fn parse_place(key: &[u8]) -> Result<(u64, TraceId), StoreError> {
    let damaged = StoreError::Record {
        what: "a place in time",
    };
    let time = key
        .get(1..9)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u64::from_be_bytes);
    let id = key.get(9..).and_then(|id| id.try_into().ok());
    let id = id.map(u128::from_be_bytes).map(TraceId);
    time.zip(id).ok_or(damaged)
}

fn id_time_us(summary: &Summary, retention: Duration) -> u64 {
    let id_us = u64::from(summary.id.epoch()) * 1_000_000;
    if u128::from(id_us.abs_diff(summary.start_us)) <= retention.as_micros() {
        id_us
    } else {
        summary.start_us
    }
}

/// The keys to walk: those of the window, less what earlier pages had.
pub(super) fn limits(scan: &Scan) -> (Vec<u8>, Vec<u8>) {
    let Window { start_us, end_us } = scan.window;
    let (from, to) = match scan.by {
        PlacedBy::Start => (bound(b'b', start_us), bound(b'b', end_us)),
        PlacedBy::IdTime => (bound(b'i', start_us), bound(b'i', end_us)),
        PlacedBy::Activity | PlacedBy::ServiceEnd => (
            bound(b'm', u64::from(minute(start_us))),
            bound(b'm', u64::from(minute(end_us - 1)) + 1),
        ),
    };
    let to = match &scan.after {
        Some(after) if *after < to => after.clone(),
        _ => to,
    };
    (from, to)
}

/// A trace stands in many minutes and is listed in the last one that counts.
pub(super) fn listed_here(row: &Evaluated, scan: &Scan, time: u64, flags: u8) -> bool {
    let window = scan.window;
    let summary = &row.summary;
    match scan.by {
        PlacedBy::Start | PlacedBy::IdTime => true,
        PlacedBy::Activity => {
            let last = minute(summary.end_us).min(minute(window.end_us - 1));
            flags & ACTIVE != 0
                && u64::from(last) == time
                && summary.start_us < window.end_us
                && summary.end_us >= window.start_us
        }
        PlacedBy::ServiceEnd => {
            let ends = row
                .contributions
                .iter()
                .filter(|one| matches!(one.key, Key::Node(_)) && !one.inferred);
            let last = ends
                .map(|one| one.end_us)
                .filter(|end| window.contains(*end))
                .max();
            last.is_some_and(|last| u64::from(minute(last)) == time)
        }
    }
}

/// Where a window's minutes begin and end among the places.
pub(super) fn minutes(first: u32, last: u32) -> (Vec<u8>, Vec<u8>) {
    let after = u64::from(last) + 1;
    (bound(b'm', u64::from(first)), bound(b'm', after))
}
