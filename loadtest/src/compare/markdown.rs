// SPDX-License-Identifier: Apache-2.0
//! A comparison as the document `docs/benchmarks.md`. Called by `compare`; whoever wants other words changes them here.

use super::figures::{BASE, GOALS, Measured, Report, Scale, spread};
use super::table::{range, verdict};

pub(crate) fn document(report: &Report) -> String {
    let mut text = String::from("# Benchmarks\n\n");
    text += "Written by `pillion-loadtest compare --markdown`; not to be edited by hand. What is measured and how: \
             `pillion-loadtest compare --help` and the end of this page.\n\n";
    let machine = &report.machine;
    text += &format!(
        "Measured on {} on {} ({} cores, {} GiB, Linux {}), {} rounds of {} s for each peer and workload, with\n\n```sh\n{}\n```\n\n",
        machine.date,
        machine.processor,
        machine.cores,
        machine.memory_gib,
        machine.kernel,
        report.rounds,
        report.seconds,
        report
            .command
            .lines()
            .map(command)
            .collect::<Vec<_>>()
            .join("\n")
    );
    text += "| peer | version |\n|---|---|\n";
    for (peer, version) in &report.versions {
        text += &format!("| {peer} | {} |\n", version.replace('|', "/"));
    }
    for line in &report.missing {
        text += &format!("\nMissing: {line}.\n");
    }
    text += &goals(report);
    for measured in &report.workloads {
        text += &workload(measured);
    }
    text += METHOD;
    text
}

/// Without the folder that the program happened to be in.
fn command(line: &str) -> String {
    let (program, rest) = line.split_once(' ').unwrap_or((line, ""));
    let name = program.rsplit('/').next().unwrap_or(program);
    format!("{name} {rest}")
}

fn goals(report: &Report) -> String {
    let mut text = format!(
        "\n## Goals\n\nRatios are to {BASE} in the same rounds, unless another scale is named; median, least and most of the rounds.\n\n\
         | measure | reached | least - most | must | aim | |\n|---|---|---|---|---|---|\n"
    );
    for goal in &GOALS {
        let scale = match goal.scale {
            Scale::Ratio => "",
            Scale::Absolute => " (absolute)",
            Scale::OwnSmall => " (x our `h1-16`)",
        };
        let reached = report.reached(goal, "pillion");
        let cells = reached.map_or_else(
            || "not measured | ".to_owned(),
            |found| {
                format!(
                    "**{:.2}** | {:.2} - {:.2}",
                    found.median, found.least, found.most
                )
            },
        );
        let verdict = reached.map_or("", |found| verdict(goal, found));
        text += &format!(
            "| {}{scale} | {cells} | {} | {} | {verdict} |\n",
            goal.measure, goal.must, goal.aim
        );
    }
    text
}

fn workload(measured: &Measured) -> String {
    let mut text = format!("\n## {}\n\n{}", measured.name, sentence(&measured.about));
    if let Some(rate) = measured.rate {
        text += &format!(
            " Latency at {rate} requests per second, Poisson arrivals, beyond that of the backend alone."
        );
    }
    text += "\n\n| figure |";
    for figures in &measured.peers {
        text += &format!(" {} |", figures.peer);
    }
    text += &format!("\n|---|{}\n", "---|".repeat(measured.peers.len()));
    for metric in measured.metrics() {
        text += &format!("| {} |", metric.title(&measured.unit));
        for figures in &measured.peers {
            let cell =
                spread(measured.samples(&figures.peer, metric)).map_or_else(String::new, |found| {
                    let ratio = measured.ratio(&figures.peer, BASE, metric);
                    let ratio = ratio.filter(|_| metric.compares() && figures.peer != BASE);
                    let ratio = ratio
                        .map_or_else(String::new, |ratio| format!(", **{:.2}** x", ratio.median));
                    let rounds = if found.least == found.most {
                        String::new()
                    } else {
                        format!(" ({})", range(metric, found))
                    };
                    format!("{}{rounds}{ratio}", metric.digits(found.median))
                });
            text += &format!(" {cell} |");
        }
        text.push('\n');
    }
    let notes: Vec<String> = measured
        .peers
        .iter()
        .filter_map(|figures| {
            Some(format!(
                "- {}: {}",
                figures.peer,
                figures.note.as_ref()?.replace('\n', " ")
            ))
        })
        .collect();
    if !notes.is_empty() {
        text += &format!("\n{}\n", notes.join("\n"));
    }
    text
}

fn sentence(about: &str) -> String {
    let mut letters = about.chars();
    let first = letters
        .next()
        .map(|letter| letter.to_uppercase().to_string())
        .unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

const METHOD: &str = "
## Method

- One worker for each peer (Envoy `--concurrency 1`, nginx one worker process, haproxy `nbthread 1`, ours `--workers 1`),
  pinned to core 0; generator, backend and control plane on core 1. Peers take turns within each round, and a ratio is
  drawn within its round, so that what else the machine does meets both sides of it.
- Envoy and our proxy are configured by the same control plane from the same App Mesh resources, as virtual gateways
  (two in a row for the mesh way): same routes, retry policy, timeouts, limits, certificates. nginx and haproxy have
  configurations of their own with as much of that as they can say, which is less.
- CPU is what the kernel charged to the peer's threads (`/proc/PID/task/*/schedstat`), divided by what was answered in
  a closed loop. *Share of a core* says how busy the peer was: far below 1, the generator was the limit, and CPU per
  request holds the price of waking up more often.
- Added latency is a quantile through the peer minus the same quantile straight to the backend, in the same round, at a
  fixed rate from the intended send time. p99.9 of a run of seconds is an indication, not a figure.
- System calls by `strace -c -f`, user instructions by callgrind, with 4 connections.
- Memory is RSS of all processes of the peer; Envoy's is mostly its mapped binary.
";
