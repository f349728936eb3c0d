// SPDX-License-Identifier: Apache-2.0
//! UTC times as access logs print them, without a time zone database.

use std::fmt::Write;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

/// Envoy's default for `START_TIME`.
pub const DEFAULT: &str = "%Y-%m-%dT%H:%M:%S.%3fZ";

/// Formats a time by the strftime letters `Y m d H M S s f z Z F T e b a`; `f` takes a number of digits.
pub fn format(pattern: &str, time: SystemTime, out: &mut String) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, nanos) = (since.as_secs(), since.subsec_nanos());
    let (year, month, day) = date(seconds / 86_400);
    let of_day = seconds % 86_400;
    let (hour, minute, second) = (of_day / 3600, of_day % 3600 / 60, of_day % 60);
    let mut letters = pattern.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let digits = letters
            .next_if(char::is_ascii_digit)
            .and_then(|digit| digit.to_digit(10));
        let written = match letters.next() {
            Some('Y') => write!(out, "{year:04}"),
            Some('m') => write!(out, "{month:02}"),
            Some('d') => write!(out, "{day:02}"),
            Some('e') => write!(out, "{day:2}"),
            Some('H') => write!(out, "{hour:02}"),
            Some('M') => write!(out, "{minute:02}"),
            Some('S') => write!(out, "{second:02}"),
            Some('F') => write!(out, "{year:04}-{month:02}-{day:02}"),
            Some('T') => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            Some('b') => write!(out, "{}", MONTHS[(month - 1) as usize % 12]),
            Some('s') => write!(out, "{seconds}"),
            Some('z') => write!(out, "+0000"),
            Some('Z') => write!(out, "UTC"),
            Some('f') => {
                let digits = digits.unwrap_or(9).clamp(1, 9);
                write!(
                    out,
                    "{:0width$}",
                    nanos / 10_u32.pow(9 - digits),
                    width = digits as usize
                )
            }
            Some(other) => write!(out, "{other}"),
            None => Ok(()),
        };
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
    }
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Civil date of a day since 1970 (Hinnant's days-to-civil, for days after the epoch).
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64, nanos: u32, pattern: &str) -> String {
        let mut out = String::new();
        format(
            pattern,
            UNIX_EPOCH + Duration::new(seconds, nanos),
            &mut out,
        );
        out
    }

    #[test]
    fn the_default_is_iso_8601_in_milliseconds() {
        assert_eq!(
            at(1_785_369_600, 7_000_000, DEFAULT),
            "2026-07-30T00:00:00.007Z"
        );
    }

    #[test]
    fn leap_days_are_days() {
        assert_eq!(at(1_709_164_800, 0, "%F %T"), "2024-02-29 00:00:00");
        assert_eq!(at(0, 0, "%F"), "1970-01-01");
        assert_eq!(at(4_107_542_400, 0, "%F"), "2100-03-01");
    }
}
