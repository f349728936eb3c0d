// SPDX-License-Identifier: Apache-2.0
//! A time window as clients give it: two numbers, in epoch seconds.

use crate::store::Window;

/// Year 2255, as for documents.
const LAST_SECOND: f64 = 9e9;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WindowError {
    #[error("{name} is {value}; give epoch seconds between 0 and 9000000000")]
    Range { name: &'static str, value: String },
    #[error("the window is empty: {end_name} must be after {start_name}")]
    Empty {
        start_name: &'static str,
        end_name: &'static str,
    },
}

pub(crate) fn window(
    (start_name, start): (&'static str, f64),
    (end_name, end): (&'static str, f64),
) -> Result<Window, WindowError> {
    let us = |name: &'static str, value: f64| {
        if (0.0..=LAST_SECOND).contains(&value) {
            Ok((value * 1e6).round() as u64)
        } else {
            Err(WindowError::Range {
                name,
                value: value.to_string(),
            })
        }
    };
    let window = Window {
        start_us: us(start_name, start)?,
        end_us: us(end_name, end)?,
    };
    if window.start_us >= window.end_us {
        return Err(WindowError::Empty {
            start_name,
            end_name,
        });
    }
    Ok(window)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_two_times_in_order() {
        let good = window(("StartTime", 1.5), ("EndTime", 2.0));
        assert_eq!(
            good,
            Ok(Window {
                start_us: 1_500_000,
                end_us: 2_000_000
            })
        );
        assert!(window(("StartTime", 2.0), ("EndTime", 2.0)).is_err());
        assert!(window(("StartTime", f64::NAN), ("EndTime", 2.0)).is_err());
        assert!(window(("StartTime", 1.0), ("EndTime", 1e12)).is_err());
    }
}
