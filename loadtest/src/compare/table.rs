// SPDX-License-Identifier: Apache-2.0
//! A comparison as text for a terminal: a table for each workload, then the goals. Called by `compare`.

use super::figures::{BASE, GOALS, Goal, Metric, Report, Scale, Spread, spread};

pub(crate) fn text(report: &Report) -> String {
    let mut text = String::new();
    for measured in &report.workloads {
        text += &format!("\n{}: {}\n", measured.name, measured.about);
        for metric in measured.metrics() {
            text += &format!("  {}\n", metric.title(&measured.unit));
            for figures in &measured.peers {
                let Some(found) = spread(measured.samples(&figures.peer, metric)) else {
                    continue;
                };
                let ratio = measured
                    .ratio(&figures.peer, BASE, metric)
                    .filter(|_| metric.compares());
                let ratio = ratio.map_or_else(String::new, |ratio| {
                    format!(
                        "   {:.2} x {BASE} ({:.2} - {:.2})",
                        ratio.median, ratio.least, ratio.most
                    )
                });
                text += &format!(
                    "    {:<12} {:>10}  ({}){ratio}\n",
                    figures.peer,
                    metric.digits(found.median),
                    range(metric, found)
                );
            }
        }
        for figures in &measured.peers {
            if let Some(note) = &figures.note {
                text += &format!("  {}: {note}\n", figures.peer);
            }
        }
    }
    let goals: Vec<String> = GOALS
        .iter()
        .filter_map(|goal| goal_line(report, goal))
        .collect();
    if !goals.is_empty() {
        text += &format!(
            "\n{:<44} {:>8} {:>8} {:>8}\n",
            "goal", "reached", "must", "aim"
        );
        text += &goals.concat();
    }
    for line in &report.missing {
        text += &format!("missing: {line}\n");
    }
    text
}

pub(crate) fn range(metric: Metric, found: Spread) -> String {
    format!(
        "{} - {}",
        metric.digits(found.least),
        metric.digits(found.most)
    )
}

fn goal_line(report: &Report, goal: &Goal) -> Option<String> {
    let reached = report.reached(goal, "pillion")?;
    let verdict = verdict(goal, reached);
    let scale = if goal.scale == Scale::Ratio {
        format!(" (x {BASE})")
    } else {
        String::new()
    };
    Some(format!(
        "{:<44} {:>8.2} {:>8} {:>8}  {verdict}{scale}\n",
        goal.measure, reached.median, goal.must, goal.aim
    ))
}

pub(crate) fn verdict(goal: &Goal, reached: Spread) -> &'static str {
    if reached.median <= goal.aim {
        "aim"
    } else if reached.median <= goal.must {
        "must"
    } else {
        "missed"
    }
}
