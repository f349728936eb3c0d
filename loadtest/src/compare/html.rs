// SPDX-License-Identifier: Apache-2.0
//! A comparison as one HTML file that needs nothing else: a plot for each figure, bars for medians and whiskers for the
//! spread. Called by `compare`.

use super::figures::{BASE, GOALS, Measured, Metric, Report, Spread, spread};
use super::table::verdict;

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1d2433;background:#fff}\
h1{font-size:1.6rem}h2{font-size:1.15rem;margin-top:2.2rem}table{border-collapse:collapse}td,th{padding:.25rem .8rem;text-align:right;border-bottom:1px solid #e3e6ec}\
td:first-child,th:first-child{text-align:left}figure{display:inline-block;margin:.6rem 1.2rem .6rem 0;vertical-align:top}figcaption{font-size:.85rem;color:#556}\
.aim{color:#0a7a3f}.must{color:#8a6a00}.missed{color:#b3261e}pre{white-space:pre-wrap;background:#f4f5f8;padding:.6rem}\
@media(prefers-color-scheme:dark){body{background:#14171f;color:#dfe3ec}td,th{border-color:#2c3140}figcaption{color:#9aa3b5}pre{background:#1d2230}svg text{fill:#dfe3ec}}";

pub(crate) fn page(report: &Report) -> String {
    let machine = &report.machine;
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Pillion beside its peers</title><style>{STYLE}</style>\
         <h1>Pillion beside its peers</h1><p>{} on {}, {} cores, {} GiB, Linux {}; {} rounds of {} s.</p><pre>{}</pre>",
        escape(&machine.date),
        escape(&machine.processor),
        machine.cores,
        machine.memory_gib,
        escape(&machine.kernel),
        report.rounds,
        report.seconds,
        escape(&report.command)
    );
    html += &goals(report);
    for measured in &report.workloads {
        html += &format!(
            "<h2>{}</h2><p>{}</p>",
            escape(&measured.name),
            escape(&measured.about)
        );
        for metric in measured.metrics() {
            html += &plot(measured, metric);
        }
        for figures in &measured.peers {
            if let Some(note) = &figures.note {
                html += &format!("<p>{}: {}</p>", escape(&figures.peer), escape(note));
            }
        }
    }
    for line in &report.missing {
        html += &format!("<p>{}</p>", escape(line));
    }
    html + "</html>\n"
}

fn goals(report: &Report) -> String {
    let mut rows = String::new();
    for goal in &GOALS {
        let Some(reached) = report.reached(goal, "pillion") else {
            continue;
        };
        let verdict = verdict(goal, reached);
        rows += &format!(
            "<tr><td>{}</td><td class=\"{verdict}\">{:.2}</td><td>{}</td><td>{}</td><td class=\"{verdict}\">{verdict}</td></tr>",
            escape(goal.measure),
            reached.median,
            goal.must,
            goal.aim
        );
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "<h2>Goals (ratios to {BASE})</h2><table><tr><th>measure</th><th>reached</th><th>must</th><th>aim</th><th></th></tr>{rows}</table>"
    )
}

const ROW: f64 = 22.0;
const LABEL: f64 = 84.0;
const BAR: f64 = 250.0;

fn plot(measured: &Measured, metric: Metric) -> String {
    let found: Vec<(&str, Spread)> = measured
        .peers
        .iter()
        .filter_map(|figures| {
            Some((
                figures.peer.as_str(),
                spread(measured.samples(&figures.peer, metric))?,
            ))
        })
        .collect();
    let most = found
        .iter()
        .map(|(_, spread)| spread.most)
        .fold(0.0, f64::max);
    if most <= 0.0 {
        return String::new();
    }
    let height = ROW * f64::from(u32::try_from(found.len()).unwrap_or(0));
    let mut svg = format!("<svg width=\"460\" height=\"{height}\" role=\"img\">");
    let mut top = 0.0;
    for (peer, spread) in found {
        let x = |value: f64| LABEL + BAR * value.max(0.0) / most;
        let middle = top + ROW / 2.0;
        let colour = if peer == BASE {
            "#8b93a7"
        } else if ["nginx", "haproxy"].contains(&peer) {
            "#b9bfcc"
        } else {
            "#3b6fe0"
        };
        let ratio = measured
            .ratio(peer, BASE, metric)
            .filter(|_| metric.compares() && peer != BASE);
        let ratio = ratio.map_or_else(String::new, |ratio| format!(" · {:.2}×", ratio.median));
        svg += &format!(
            "<text x=\"0\" y=\"{:.1}\" font-size=\"12\">{}</text>\
             <rect x=\"{LABEL}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"2\" fill=\"{colour}\"/>\
             <path d=\"M{:.1} {middle:.1}H{:.1}\" stroke=\"#222\" stroke-width=\"1.5\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"12\">{}{ratio}</text>",
            middle + 4.0,
            escape(peer),
            top + 4.0,
            x(spread.median) - LABEL,
            ROW - 8.0,
            x(spread.least),
            x(spread.most),
            x(spread.most) + 6.0,
            middle + 4.0,
            metric.digits(spread.median)
        );
        top += ROW;
    }
    format!(
        "<figure>{svg}</svg><figcaption>{}</figcaption></figure>",
        escape(&metric.title(&measured.unit))
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_says_of_itself_cannot_become_markup() {
        assert_eq!(escape("<b a=\"&\">"), "&lt;b a=&quot;&amp;&quot;&gt;");
    }
}
