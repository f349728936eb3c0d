// SPDX-License-Identifier: Apache-2.0
//! The command line. Read by `main`; decides nothing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  pillion demo                       a whole mesh with traffic on this machine, until Ctrl-C
  pillion validate -f mesh.yaml      every problem of a manifest, without a control plane
  pillion apply -f mesh.yaml         create or update its resources on http://127.0.0.1:8700";

/// Run, check and change a Pillion mesh.
#[derive(Debug, Parser)]
#[command(name = "pillion", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Demo(Demo),
    Validate(Validate),
    Apply(Apply),
    /// One application of the demo's storefront
    #[command(hide = true)]
    DemoApp(DemoApp),
    /// Becomes another program that ends when its parent does
    #[command(hide = true)]
    DemoTether(DemoTether),
}

const DEMO_EXAMPLES: &str = "\
Examples:
  Run until Ctrl-C, with the API on 8700 and the live map on http://127.0.0.1:8710/:
    pillion demo

  On other ports, because 8700 is taken:
    pillion demo --port-base 18700

  Headless: 20 seconds of traffic, then one JSON object; fails unless the map is what the traffic was:
    pillion demo --for 20s --output json";

/// Run a whole mesh on this machine: control plane, collector, five applications and their sidecars, and traffic.
#[derive(Debug, Args)]
#[command(after_help = DEMO_EXAMPLES)]
pub(crate) struct Demo {
    /// Stop after this much traffic (20s, 5m) and check the map; without it, run until Ctrl-C
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    pub(crate) length: Option<Duration>,
    /// What to print on standard output; json needs --for
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
    /// Requests per second
    #[arg(long, default_value_t = 50.0)]
    pub(crate) rate: f64,
    /// First port of the range the demo uses; 0 finds a free range
    #[arg(long, default_value_t = 8700)]
    pub(crate) port_base: u16,
    /// Keep store, traces, proxy state and logs here (default: a temporary folder, removed at the end)
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

/// Check manifests (App Mesh JSON, YAML or CloudFormation) without applying them.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  pillion validate -f mesh.yaml -f routes.yaml")]
pub(crate) struct Validate {
    /// A manifest; repeatable
    #[arg(long = "file", short = 'f', required = true)]
    pub(crate) files: Vec<PathBuf>,
}

/// Create or update every resource of some manifests through the mesh API.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  pillion apply -f mesh.yaml --endpoint http://127.0.0.1:8700")]
pub(crate) struct Apply {
    /// A manifest; repeatable
    #[arg(long = "file", short = 'f', required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// The mesh API of a control plane
    #[arg(long, default_value = "http://127.0.0.1:8700")]
    pub(crate) endpoint: String,
}

#[derive(Debug, Args)]
pub(crate) struct DemoApp {
    /// Which application to be
    #[arg(long)]
    pub(crate) name: String,
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// The sidecar's explicit egress
    #[arg(long)]
    pub(crate) proxy: SocketAddr,
    /// Where X-Ray segments go by UDP
    #[arg(long)]
    pub(crate) xray: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct DemoTether {
    #[arg(long)]
    pub(crate) parent: i32,
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match text.strip_prefix(digits) {
        Some("s") => 1,
        Some("m") => 60,
        Some("h") => 3600,
        _ => {
            return Err(format!(
                "{text:?}: give a number and a unit, such as 20s, 5m or 1h"
            ));
        }
    };
    match digits.parse::<u64>() {
        Ok(count @ 1..=86_400) if count * seconds <= 86_400 => {
            Ok(Duration::from_secs(count * seconds))
        }
        _ => Err(format!(
            "{text:?}: must be a whole number above 0, and at most 24 hours"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_has_a_unit_and_a_bound() {
        assert_eq!(parse_duration("20s"), Ok(Duration::from_secs(20)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in [
            "20",
            "0s",
            "s",
            "-1s",
            "25h",
            "99999999999999999999s",
            "20 s",
        ] {
            assert!(parse_duration(wrong).is_err(), "{wrong} was taken");
        }
    }
}
