// SPDX-License-Identifier: Apache-2.0
//! What a person sees: steps on standard error, the addresses and commands, the live line and the map's table.
//! Called by `demo`; colour and cursor movement only on a terminal, never with `NO_COLOR`.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::args::Output;
use crate::demo::load::Measured;
use crate::demo::map::Edge;
use crate::demo::ports::{GATEWAY, NODES, Ports};
use crate::demo::storefront::{self, MESH};

/// Without a terminal a line of numbers is printed every so many intervals.
const QUIET: u64 = 5;

pub(crate) struct Screen {
    output: Output,
    colour: bool,
    /// Hidden when standard error is no terminal.
    bar: ProgressBar,
    live: bool,
    intervals: u64,
}

impl Screen {
    pub(crate) fn new(output: Output) -> Self {
        let live = io::stderr().is_terminal();
        let bar = if live {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::hidden()
        };
        bar.set_style(
            ProgressStyle::with_template("{spinner} {msg}").expect("the template is valid"),
        );
        bar.enable_steady_tick(Duration::from_millis(120));
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = io::stdout().is_terminal() && !no_colour;
        Self {
            output,
            colour,
            bar,
            live,
            intervals: 0,
        }
    }

    /// What is being done now; on a terminal it replaces the last such line.
    pub(crate) fn step(&self, what: &str) {
        if self.live {
            self.bar.set_message(what.to_owned());
        } else {
            complain(what);
        }
    }

    /// Something that must stay to be read.
    pub(crate) fn note(&self, what: &str) {
        self.bar.suspend(|| complain(what));
    }

    pub(crate) fn welcome(&self, ports: Ports) -> io::Result<()> {
        self.print(&format!(
            "{}{}\n",
            self.addresses(ports),
            self.commands(ports)
        ))
    }

    fn addresses(&self, ports: Ports) -> String {
        let mut text = format!(
            "\n{}\n  live map      http://{}/\n  storefront    http://{}/\n  mesh API      http://{}\n  X-Ray API     http://{}\n\
             \x20 sidecars      admin ports",
            self.strong("The storefront is running."),
            ports.collector(),
            ports.gateway().listener,
            ports.api(),
            ports.collector(),
        );
        text.push_str(&format!(" {GATEWAY} {}", ports.gateway().admin.port()));
        for (place, name) in NODES.iter().enumerate() {
            text.push_str(&format!(", {name} {}", ports.node(place).admin.port()));
        }
        text.push('\n');
        text
    }

    fn commands(&self, ports: Ports) -> String {
        let (api, collector) = (ports.api(), ports.collector());
        let spec = storefront::route([50, 50]);
        let window = "--start-time $(date -d '-5 minutes' +%s) --end-time $(date +%s)";
        format!(
            "\n{heading}\n\
             export AWS_ACCESS_KEY_ID=demo AWS_SECRET_ACCESS_KEY=demo AWS_DEFAULT_REGION=us-east-1\n\
             \n\
             {shift}\n\
             aws --endpoint-url http://{api} appmesh update-route --mesh-name {MESH} \\\n  \
             --virtual-router-name catalog --route-name catalog --spec '{spec}'\n\
             \n\
             {look}\n\
             aws --endpoint-url http://{api} appmesh list-virtual-nodes --mesh-name {MESH}\n\
             aws --endpoint-url http://{collector} xray get-service-graph {window}\n\
             aws --endpoint-url http://{collector} xray get-trace-summaries {window}\n\
             \n\
             {curl}\n\
             curl http://{gateway}/\n\
             curl \"http://{collector}/pillion/v1/map?start=$(date -d '-5 minutes' +%s)&end=$(date +%s)\"\n\
             curl http://{admin}/clusters\n",
            heading = self.strong("Paste into another terminal:"),
            shift = self.faint("# half of the catalog's traffic to v2, without a failed request"),
            look = self.faint("# what the mesh is, and what it did"),
            curl = self.faint("# one request, the map as JSON, and what web's sidecar knows"),
            gateway = ports.gateway().listener,
            admin = ports.node(0).admin,
        )
    }

    /// One second of traffic; `v2` is the share of the catalog's calls that went to its second version.
    pub(crate) fn live(&mut self, measured: &Measured, v2: Option<f64>) {
        self.intervals += 1;
        let line = live_line(measured, v2);
        if self.live {
            self.bar.set_message(line);
        } else if self.output == Output::Text && self.intervals % QUIET == 1 {
            // Nobody reads any more: the traffic goes on.
            drop(self.print(&format!("{line}\n")));
        }
    }

    pub(crate) fn table(&self, edges: &[Edge]) -> io::Result<()> {
        let mut text = format!(
            "\n{:28} {:>9} {:>9} {:>9} {:>9}\n",
            "edge", "total", "ok", "error", "fault"
        );
        for edge in edges {
            let name = format!("{} -> {}", edge.source, edge.target);
            text.push_str(&format!(
                "{name:28} {:>9} {:>9} {:>9} {:>9}\n",
                edge.total, edge.ok, edge.error, edge.fault
            ));
        }
        self.print(&text)
    }

    /// Text for people; nothing when standard output belongs to JSON.
    pub(crate) fn print(&self, text: &str) -> io::Result<()> {
        if self.output == Output::Json {
            return Ok(());
        }
        self.bar.suspend(|| io::stdout().write_all(text.as_bytes()))
    }

    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn strong(&self, text: &str) -> String {
        if self.colour {
            format!("\x1b[1m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn faint(&self, text: &str) -> String {
        if self.colour {
            format!("\x1b[2m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of one second")]
fn live_line(measured: &Measured, v2: Option<f64>) -> String {
    let success = if measured.requests == 0 {
        100.0
    } else {
        100.0 * (measured.requests - measured.failures) as f64 / measured.requests as f64
    };
    let share = v2.map_or_else(String::new, |share| {
        format!("   catalog-v2 {:.0} %", 100.0 * share)
    });
    format!(
        "{:.0} requests/s   {success:.1} % ok   p50 {:.1} ms   p99 {:.1} ms{share}",
        measured.rate.reached, measured.latency.p50_ms, measured.latency.p99_ms
    )
}

/// Standard error may be closed by whoever reads us.
fn complain(line: &str) {
    drop(writeln!(io::stderr(), "{line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_live_line_says_rate_success_and_latency() {
        let line = r#"{"event":"interval","requests":200,"failures":1,"failures_by_kind":{"connect":0},
            "latency":{"p50_ms":3.21,"p90_ms":4.0,"p99_ms":9.87},"rate":{"reached":199.6}}"#;
        let measured: Measured = serde_json::from_str(line).unwrap();
        assert_eq!(
            live_line(&measured, Some(0.104)),
            "200 requests/s   99.5 % ok   p50 3.2 ms   p99 9.9 ms   catalog-v2 10 %"
        );
    }

    #[test]
    fn every_printed_command_names_an_endpoint_of_this_demo() {
        let ports = Ports::claim(0).unwrap();
        let text = Screen::new(Output::Text).commands(ports);
        for line in text.lines().filter(|line| line.starts_with("aws ")) {
            assert!(
                line.contains(&format!(
                    "--endpoint-url http://127.0.0.1:{}",
                    ports.api().port()
                )) || line.contains(&format!(
                    "--endpoint-url http://127.0.0.1:{}",
                    ports.collector().port()
                )),
                "{line}"
            );
        }
        assert!(!text.contains('\u{1b}'), "no colour without a terminal");
    }
}
