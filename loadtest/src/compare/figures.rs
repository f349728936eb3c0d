// SPDX-License-Identifier: Apache-2.0
//! What a comparison found, as data: samples by workload, peer and metric, and the ratios drawn from them. Written and
//! read as JSON; `table`, `html` and `markdown` show it. No I/O.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Every figure there is; the order is that of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    Cpu,
    Throughput,
    Busy,
    OpenCpu,
    AddedP50,
    AddedP99,
    AddedP999,
    SystemCalls,
    Instructions,
    IdleMemory,
    PerConnection,
    IdleCpu,
    Failed,
}

impl Metric {
    /// Heading; `unit` is what the workload counts.
    pub(crate) fn title(self, unit: &str) -> String {
        match self {
            Metric::Cpu => format!("CPU µs per {unit}"),
            Metric::Throughput => format!("{unit}s per second"),
            Metric::Busy => "share of a core".into(),
            Metric::OpenCpu => format!("CPU µs per {unit} at the fixed rate"),
            Metric::AddedP50 => "added p50 µs".into(),
            Metric::AddedP99 => "added p99 µs".into(),
            Metric::AddedP999 => "added p99.9 µs".into(),
            Metric::SystemCalls => format!("system calls per {unit}"),
            Metric::Instructions => format!("user instructions per {unit}"),
            Metric::IdleMemory => "RSS idle MiB".into(),
            Metric::PerConnection => "KiB per idle connection".into(),
            Metric::IdleCpu => "CPU µs per second when idle".into(),
            Metric::Failed => "failed".into(),
        }
    }

    /// Whether a ratio to another peer says anything.
    pub(crate) fn compares(self) -> bool {
        !matches!(self, Metric::Throughput | Metric::Busy | Metric::Failed)
    }

    pub(crate) fn digits(self, value: f64) -> String {
        let places = match self {
            Metric::Busy | Metric::SystemCalls => 2,
            Metric::Throughput | Metric::Instructions | Metric::Failed => 0,
            _ if value.abs() >= 100.0 => 0,
            _ => 1,
        };
        format!("{value:.places$}")
    }
}

/// The whole result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    /// The command line, for whoever repeats it.
    pub(crate) command: String,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) versions: BTreeMap<String, String>,
    /// A line for each peer that is not installed.
    pub(crate) missing: Vec<String>,
    pub(crate) workloads: Vec<Measured>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: f64,
    pub(crate) kernel: String,
    pub(crate) date: String,
}

/// One workload's samples.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) unit: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) rate: Option<f64>,
    pub(crate) peers: Vec<PeerFigures>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PeerFigures {
    pub(crate) peer: String,
    /// Why there are no samples, or what they leave out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) note: Option<String>,
    /// One sample a round, or one in all.
    pub(crate) samples: BTreeMap<Metric, Vec<f64>>,
}

/// Median, least and most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

pub(crate) fn spread(samples: &[f64]) -> Option<Spread> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (least, most) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    };
    Some(Spread {
        median,
        least,
        most,
    })
}

impl Measured {
    pub(crate) fn samples(&self, peer: &str, metric: Metric) -> &[f64] {
        let found = self.peers.iter().find(|figures| figures.peer == peer);
        found
            .and_then(|figures| figures.samples.get(&metric))
            .map_or(&[], Vec::as_slice)
    }

    /// Peer against base, round by round: what disturbed one round disturbed both.
    pub(crate) fn ratio(&self, peer: &str, base: &str, metric: Metric) -> Option<Spread> {
        let pairs = self
            .samples(peer, metric)
            .iter()
            .zip(self.samples(base, metric));
        let ratios: Vec<f64> = pairs
            .filter(|(_, base)| **base > 0.0)
            .map(|(peer, base)| peer / base)
            .collect();
        spread(&ratios)
    }

    /// Metrics that anybody has.
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        let mut all: Vec<Metric> = self
            .peers
            .iter()
            .flat_map(|figures| figures.samples.keys().copied())
            .collect();
        all.sort();
        all.dedup();
        all
    }
}

/// Against whom ratios are drawn.
pub(crate) const BASE: &str = "envoy";
/// Our proxy in the workload `h1-16`, measured in the same rounds as one that adds something to it.
pub(crate) const PLAIN: &str = "pillion at h1-16";

/// A line of the table that decides whether a release is fast enough.
pub(crate) struct Goal {
    pub(crate) measure: &'static str,
    pub(crate) workload: &'static str,
    pub(crate) metric: Metric,
    pub(crate) scale: Scale,
    pub(crate) must: f64,
    pub(crate) aim: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Times [`BASE`]'s figure of the same run.
    Ratio,
    Absolute,
    /// Times [`PLAIN`]'s figure of the same rounds.
    OwnSmall,
}

const fn goal(
    (measure, workload): (&'static str, &'static str),
    metric: Metric,
    scale: Scale,
    (must, aim): (f64, f64),
) -> Goal {
    Goal {
        measure,
        workload,
        metric,
        scale,
        must,
        aim,
    }
}

pub(crate) const GOALS: [Goal; 13] = [
    goal(
        ("small HTTP/1.1, CPU per request", "h1-16"),
        Metric::Cpu,
        Scale::Ratio,
        (0.42, 0.28),
    ),
    goal(
        ("gRPC unary, CPU per request", "grpc"),
        Metric::Cpu,
        Scale::Ratio,
        (0.45, 0.25),
    ),
    goal(
        ("mesh mTLS HTTP/1.1, CPU of both proxies", "mesh-h1"),
        Metric::Cpu,
        Scale::Ratio,
        (0.32, 0.18),
    ),
    goal(
        ("mesh mTLS HTTP/2, CPU of both proxies", "mesh-h2"),
        Metric::Cpu,
        Scale::Ratio,
        (0.38, 0.25),
    ),
    goal(
        ("mesh, added p50 at 2,000 requests/s", "mesh-h1"),
        Metric::AddedP50,
        Scale::Ratio,
        (0.28, 0.15),
    ),
    goal(
        ("mesh, added p99 at 2,000 requests/s", "mesh-h1"),
        Metric::AddedP99,
        Scale::Ratio,
        (0.33, 0.20),
    ),
    goal(
        ("1,000 routes, CPU per request", "routes-1000"),
        Metric::Cpu,
        Scale::Ratio,
        (0.18, 0.13),
    ),
    goal(
        ("1,000 routes against our single route", "routes-1000"),
        Metric::Cpu,
        Scale::OwnSmall,
        (1.03, 1.03),
    ),
    goal(
        ("access log + 5 % tracing, own overhead", "observed"),
        Metric::Cpu,
        Scale::OwnSmall,
        (1.08, 1.03),
    ),
    goal(
        ("1 MiB bodies, CPU per MiB", "large"),
        Metric::Cpu,
        Scale::Ratio,
        (0.60, 0.50),
    ),
    goal(
        ("RSS idle, MiB", "idle-10000"),
        Metric::IdleMemory,
        Scale::Absolute,
        (10.0, 6.0),
    ),
    goal(
        ("KiB per idle HTTP/1.1 connection", "idle-10000"),
        Metric::PerConnection,
        Scale::Absolute,
        (8.0, 2.0),
    ),
    goal(
        ("CPU µs per second when idle", "idle-10000"),
        Metric::IdleCpu,
        Scale::Absolute,
        (50.0, 0.0),
    ),
];

impl Report {
    pub(crate) fn workload(&self, name: &str) -> Option<&Measured> {
        self.workloads.iter().find(|measured| measured.name == name)
    }

    /// What was reached of a goal, if it was measured.
    pub(crate) fn reached(&self, goal: &Goal, peer: &str) -> Option<Spread> {
        let measured = self.workload(goal.workload)?;
        match goal.scale {
            Scale::Ratio => measured.ratio(peer, BASE, goal.metric),
            Scale::Absolute => spread(measured.samples(peer, goal.metric)),
            Scale::OwnSmall => measured.ratio(peer, PLAIN, goal.metric),
        }
    }
}

/// Counts repeat to about 2 % on any machine with the same libraries; times do not.
const TOLERATED: f64 = 1.03;

impl Report {
    /// Counts of ours that have grown since `before`, each as a line.
    pub(crate) fn regressions(&self, before: &Report) -> Vec<String> {
        let mut lines = Vec::new();
        for measured in &self.workloads {
            let Some(then) = before.workload(&measured.name) else {
                continue;
            };
            for metric in [Metric::SystemCalls, Metric::Instructions] {
                let median =
                    |of: &Measured| spread(of.samples("pillion", metric)).map(|found| found.median);
                let (Some(was), Some(is)) = (median(then), median(measured)) else {
                    continue;
                };
                if is > was * TOLERATED {
                    let (title, was, now) = (
                        metric.title(&measured.unit),
                        metric.digits(was),
                        metric.digits(is),
                    );
                    lines.push(format!(
                        "{}: {title}: {was} before, {now} now",
                        measured.name
                    ));
                }
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(ours: &[f64], theirs: &[f64]) -> Measured {
        let figures = |peer: &str, samples: &[f64]| PeerFigures {
            peer: peer.into(),
            note: None,
            samples: BTreeMap::from([(Metric::Cpu, samples.to_vec())]),
        };
        Measured {
            name: "h1-16".into(),
            about: String::new(),
            unit: "request".into(),
            rate: None,
            peers: vec![figures("pillion", ours), figures("envoy", theirs)],
        }
    }

    #[test]
    fn a_ratio_is_drawn_within_each_round() {
        // The second round was disturbed by a neighbour, for both.
        let ratio = measured(&[10.0, 30.0, 12.0], &[20.0, 60.0, 30.0]).ratio(
            "pillion",
            "envoy",
            Metric::Cpu,
        );
        assert_eq!(
            ratio,
            Some(Spread {
                median: 0.5,
                least: 0.4,
                most: 0.5
            })
        );
    }

    fn counted(instructions: f64) -> Report {
        let mut one = measured(&[], &[]);
        one.peers[0]
            .samples
            .insert(Metric::Instructions, vec![instructions]);
        Report {
            machine: Machine {
                processor: String::new(),
                cores: 2,
                memory_gib: 1.0,
                kernel: String::new(),
                date: String::new(),
            },
            command: String::new(),
            rounds: 1,
            seconds: 1.0,
            versions: BTreeMap::new(),
            missing: Vec::new(),
            workloads: vec![one],
        }
    }

    #[test]
    fn three_percent_more_instructions_are_tolerated_and_four_are_not() {
        assert!(counted(103.0).regressions(&counted(100.0)).is_empty());
        assert_eq!(
            counted(104.0).regressions(&counted(100.0)),
            ["h1-16: user instructions per request: 100 before, 104 now"]
        );
    }

    #[test]
    fn a_peer_that_was_not_measured_has_no_ratio() {
        assert_eq!(
            measured(&[10.0], &[]).ratio("pillion", "envoy", Metric::Cpu),
            None
        );
        assert_eq!(
            measured(&[10.0], &[20.0]).ratio("pillion", "nginx", Metric::Cpu),
            None
        );
    }

    #[test]
    fn a_report_is_read_back_as_it_was_written() {
        let text = serde_json::to_string(&measured(&[1.5], &[3.0])).unwrap();
        let back: Measured = serde_json::from_str(&text).unwrap();
        assert_eq!(back.samples("pillion", Metric::Cpu), [1.5]);
    }
}
