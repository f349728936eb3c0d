// SPDX-License-Identifier: Apache-2.0
//! Sizes as people write them. Used by `config` for `--memory-limit`; measures nothing.

use super::Report;
use crate::limits::Limits;

/// Less would refuse every request with a body.
const LEAST_MEMORY: usize = 1 << 20;

/// What `--memory-limit` says, or the default.
pub(super) fn memory_limit(written: Option<&str>, report: &mut Report) -> usize {
    let Some(written) = written else {
        return Limits::default().memory;
    };
    let parsed = parse_bytes(written).filter(|bytes| *bytes >= LEAST_MEMORY);
    parsed.unwrap_or_else(|| {
        let why = "is not a size of at least 1MiB, such as 67108864, 64MiB or 1GiB";
        report.add("--memory-limit", written, why);
        LEAST_MEMORY
    })
}

/// A number and a unit of 1024: none, `k`, `m` or `g`, each with `ib` or `b` behind it if liked.
fn parse_bytes(written: &str) -> Option<usize> {
    let text = written.trim().to_ascii_lowercase();
    let end = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(1 << shift)
}
