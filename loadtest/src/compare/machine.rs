// SPDX-License-Identifier: Apache-2.0
//! On what machine, and when. Called by `conduct`, for the report.

use super::figures::Machine;

pub(crate) fn describe() -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: String, name: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .map(str::to_owned)
            .unwrap_or_default();
        line.split_once(':')
            .map(|(_, value)| value.trim().to_owned())
            .unwrap_or_default()
    };
    let memory = field(read("/proc/meminfo"), "MemTotal");
    let kib: f64 = memory
        .split_whitespace()
        .next()
        .and_then(|kib| kib.parse().ok())
        .unwrap_or(0.0);
    Machine {
        processor: field(read("/proc/cpuinfo"), "model name"),
        cores: std::fs::read_to_string("/proc/cpuinfo").map_or(0, |text| {
            text.lines()
                .filter(|line| line.starts_with("processor"))
                .count()
        }),
        memory_gib: (kib / 1024.0 / 1024.0 * 10.0).round() / 10.0,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        date: jiff::Zoned::now().date().to_string(),
    }
}
