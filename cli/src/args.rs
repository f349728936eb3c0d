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
  pillion apply -f mesh.yaml         create or update its resources on http://127.0.0.1:8700, all or none
  pillion explain --from mesh/shop/virtualNode/web http://catalog.local/items
                                     which rule takes this request, and why not the others
  pillion fleet                      proxies: who is connected, and who refused what

With AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, requests are signed (region: AWS_REGION).";

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
    Explain(Explain),
    History(History),
    Rollback(Rollback),
    Fleet(Fleet),
    Token(Token),
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

/// Where a control plane is, and how to print what it says.
#[derive(Debug, Args)]
pub(crate) struct Api {
    /// The API of a control plane
    #[arg(
        long,
        env = "PILLION_ENDPOINT",
        default_value = "http://127.0.0.1:8700"
    )]
    pub(crate) endpoint: String,
    /// What to print on standard output
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

/// Create or update every resource of some manifests, all or none of them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pillion apply -f mesh.yaml --endpoint http://127.0.0.1:8700
  pillion apply -f mesh.yaml --dry-run        what would change, member by member; changes nothing")]
pub(crate) struct Apply {
    /// A manifest; repeatable
    #[arg(long = "file", short = 'f', required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Tell what would change, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) api: Api,
}

/// Tell which rule takes a request, why the others do not, and where it leads.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pillion explain --from mesh/shop/virtualNode/web http://catalog.shop.local/items
  pillion explain --from mesh/shop/virtualGateway/edge -X POST -H 'x-beta: yes' http://shop.example:8080/api")]
pub(crate) struct Explain {
    /// Whose proxy is asked: mesh/<mesh>/virtualNode/<name>, or a virtualGateway, or an ARN
    #[arg(long = "from", value_name = "RESOURCE")]
    pub(crate) source: String,
    /// Method of the request
    #[arg(long, short = 'X', default_value = "GET")]
    pub(crate) method: String,
    /// A header of the request, as in curl; repeatable
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    pub(crate) headers: Vec<String>,
    /// Where the application sends it
    pub(crate) url: String,
    #[command(flatten)]
    pub(crate) api: Api,
}

/// Tell what was changed when and by whom, newest first.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pillion history                                                            every change
  pillion history arn:aws:appmesh:us-east-1:000000000000:mesh/shop/virtualNode/web   of one resource, with differences")]
pub(crate) struct History {
    /// ARN of a resource
    pub(crate) arn: Option<String>,
    /// How many changes
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) api: Api,
}

/// Bring back the spec of an old version, as a new version.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  pillion rollback arn:aws:appmesh:us-east-1:000000000000:mesh/shop/virtualRouter/web/route/all --to 3"
)]
pub(crate) struct Rollback {
    /// ARN of the resource
    pub(crate) arn: String,
    /// The version, as `pillion history` lists it
    #[arg(long)]
    pub(crate) to: u64,
    #[command(flatten)]
    pub(crate) api: Api,
}

/// Tell which proxies are connected, what they run, and what they refused and why.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  pillion fleet\n  pillion fleet --mesh shop --output json")]
pub(crate) struct Fleet {
    /// Only of this mesh
    #[arg(long)]
    pub(crate) mesh: Option<String>,
    #[command(flatten)]
    pub(crate) api: Api,
}

/// Make, list and revoke the tokens with which proxies join.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pillion token create arn:aws:appmesh:us-east-1:000000000000:mesh/shop/virtualNode/web --days 30 > web.token
  pillion token list
  pillion token revoke 4f1c2a9e0b7d6c35")]
pub(crate) struct Token {
    #[command(subcommand)]
    pub(crate) what: TokenVerb,
    #[command(flatten)]
    pub(crate) api: Api,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// Make one; it is printed once and kept nowhere
    Create {
        /// ARN of the virtual node or gateway whose proxies may join with it
        arn: String,
        /// How long it is good
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=365))]
        days: u32,
    },
    /// List those that are good still
    List,
    /// End one, and the streams it opened
    Revoke {
        /// As `pillion token list` shows it
        id: String,
    },
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
