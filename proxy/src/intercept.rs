// SPDX-License-Identifier: Apache-2.0
//! `pillion-proxy intercept`: puts the kernel's redirections of App Mesh in place, or takes them away. Called by `main`
//! in the network namespace of the app (an init container, a boot script); the proxy itself needs no privilege. Does not
//! watch over the rules afterwards.

mod rules;

use std::fmt::Write as _;
use std::io;
use std::io::Write as _;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use clap::builder::FalseyValueParser;

use crate::config::Problem;

pub use rules::Family;
pub use rules::Rules;

/// Redirects the app's connections to the proxy by iptables, as App Mesh's route manager did.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Ports of the app whose inbound connections go to the proxy, comma-separated; none: outbound only
    #[arg(long, env = "APPMESH_APP_PORTS", value_name = "PORTS")]
    pub app_ports: Option<String>,
    /// Where redirected inbound connections go [default: 15000]
    #[arg(long, env = "APPMESH_ENVOY_INGRESS_PORT", value_name = "PORT")]
    pub ingress_port: Option<String>,
    /// Where redirected outbound connections go [default: 15001]
    #[arg(long, env = "APPMESH_ENVOY_EGRESS_PORT", value_name = "PORT")]
    pub egress_port: Option<String>,
    /// Outbound connections to these ports are left alone, comma-separated
    #[arg(long, env = "APPMESH_EGRESS_IGNORED_PORTS", value_name = "PORTS")]
    pub egress_ignored_ports: Option<String>,
    /// Outbound connections to these addresses or networks are left alone, comma-separated
    #[arg(long, env = "APPMESH_EGRESS_IGNORED_IP", value_name = "IPS")]
    pub egress_ignored_ips: Option<String>,
    /// The user that the proxy runs as: its own connections are left alone (App Mesh's is 1337)
    #[arg(long, env = "APPMESH_IGNORE_UID", value_name = "UID")]
    pub ignore_uid: Option<String>,
    /// The group that the proxy runs as, instead of or beside the user
    #[arg(long, env = "APPMESH_IGNORE_GID", value_name = "GID")]
    pub ignore_gid: Option<String>,
    /// The same for IPv6, by ip6tables
    #[arg(long, env = "APPMESH_ENABLE_IPV6", value_parser = FalseyValueParser::new())]
    pub ipv6: bool,
    /// Take the rules away instead
    #[arg(long)]
    pub remove: bool,
    /// Print what would be run and change nothing; needs no privilege
    #[arg(long)]
    pub dry_run: bool,
}

const HELP: &str = "\
Run it as root (or with CAP_NET_ADMIN) in the app's network namespace, as often as you like: the rules are replaced as
a whole. Connections to this machine itself and UDP are never redirected.

Example:
  pillion-proxy intercept --app-ports 8080 --ignore-uid 1337 \\
    --egress-ignored-ips 169.254.170.2,169.254.169.254 --egress-ignored-ports 22";

/// Rules that could not be put in place or taken away.
#[derive(Debug, thiserror::Error)]
pub enum InterceptError {
    /// The program is not there.
    #[error("run {program}: it is not installed; `apt-get install iptables` brings it")]
    Missing {
        /// Which.
        program: &'static str,
    },
    /// The program did not start or could not be fed.
    #[error("run {program}")]
    Run {
        /// Which.
        program: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Not allowed to.
    #[error(
        "{program}: not permitted; run as root or with CAP_NET_ADMIN in the app's network namespace. Where that cannot be \
         had (Fargate), leave redirection to ECS's proxyConfiguration, or use pillion-proxy --listen and HTTP_PROXY"
    )]
    NotPermitted {
        /// Which.
        program: &'static str,
    },
    /// The program refused.
    #[error("{program} failed: {said}")]
    Failed {
        /// Which.
        program: &'static str,
        /// Its own words.
        said: String,
    },
}

/// Installs, removes or prints the rules.
pub fn run(args: &Args, rules: &Rules) -> Result<String, InterceptError> {
    let families: &[Family] = if args.ipv6 {
        &[Family::V4, Family::V6]
    } else {
        &[Family::V4]
    };
    let mut told = String::new();
    for family in families {
        if args.dry_run {
            let restore = family.restore();
            let script = script(args, rules, *family, &[]);
            // Writing to a string cannot fail.
            let written = write!(told, "{restore} --noflush <<'RULES'\n{script}RULES\n");
            debug_assert!(written.is_ok());
            continue;
        }
        let installed = installed(*family)?;
        if args.remove && installed.is_empty() {
            continue;
        }
        restore(*family, &script(args, rules, *family, &installed))?;
    }
    Ok(told)
}

fn script(args: &Args, rules: &Rules, family: Family, installed: &[String]) -> String {
    if args.remove {
        rules::removal(installed)
    } else {
        rules.script(family, installed)
    }
}

/// What of ours stands in the nat table, as `iptables -S` prints it.
fn installed(family: Family) -> Result<Vec<String>, InterceptError> {
    let program = family.program();
    let output = Command::new(program)
        .args(["-w", "5", "-t", "nat", "-S"])
        .output()
        .map_err(|source| not_run(program, source))?;
    let text = succeeded(program, &output)?;
    Ok(rules::ours(&text))
}

/// One transaction: either all of it holds afterwards, or nothing has changed.
fn restore(family: Family, script: &str) -> Result<(), InterceptError> {
    let program = family.restore();
    let mut child = Command::new(program)
        .args(["-w", "5", "--noflush"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| not_run(program, source))?;
    let fed = child
        .stdin
        .take()
        .expect("stdin was piped above")
        .write_all(script.as_bytes());
    let output = child
        .wait_with_output()
        .map_err(|source| not_run(program, source))?;
    succeeded(program, &output)?;
    fed.map_err(|source| not_run(program, source))
}

fn not_run(program: &'static str, source: io::Error) -> InterceptError {
    if source.kind() == io::ErrorKind::NotFound {
        InterceptError::Missing { program }
    } else {
        InterceptError::Run { program, source }
    }
}

fn succeeded(program: &'static str, output: &Output) -> Result<String, InterceptError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let denied = [
        "Permission denied",
        "must be root",
        "Operation not permitted",
    ];
    if denied.iter().any(|words| said.contains(words)) {
        return Err(InterceptError::NotPermitted { program });
    }
    Err(InterceptError::Failed { program, said })
}

impl Args {
    /// Everything that is wrong, or the rules.
    pub fn check(&self) -> Result<Rules, Vec<Problem>> {
        let mut problems = Vec::new();
        let rules = Rules {
            app_ports: ports("--app-ports", self.app_ports.as_deref(), &mut problems),
            ingress: port(
                "--ingress-port",
                self.ingress_port.as_deref(),
                15000,
                &mut problems,
            ),
            egress: port(
                "--egress-port",
                self.egress_port.as_deref(),
                15001,
                &mut problems,
            ),
            ignored_ports: ports(
                "--egress-ignored-ports",
                self.egress_ignored_ports.as_deref(),
                &mut problems,
            ),
            ignored_networks: list(
                "--egress-ignored-ips",
                self.egress_ignored_ips.as_deref(),
                "is no IP address or network, such as 169.254.169.254 or 10.0.0.0/8",
                &mut problems,
            ),
            uid: id("--ignore-uid", self.ignore_uid.as_deref(), &mut problems),
            gid: id("--ignore-gid", self.ignore_gid.as_deref(), &mut problems),
        };
        let given =
            |text: &Option<String>| text.as_deref().is_some_and(|text| !text.trim().is_empty());
        if !self.remove && !given(&self.ignore_uid) && !given(&self.ignore_gid) {
            problems.push(Problem {
                setting: "--ignore-uid",
                value: String::new(),
                why: "is required (or --ignore-gid): the proxy's own connections must not come back to it; run the \
                      proxy as user 1337 and give 1337"
                    .to_owned(),
            });
        }
        for (setting, taken) in [
            ("--ingress-port", rules.ingress),
            ("--egress-port", rules.egress),
        ] {
            if rules.app_ports.contains(&taken) {
                problems.push(Problem {
                    setting: "--app-ports",
                    value: taken.to_string(),
                    why: format!("is the proxy's own {setting}; name the ports the app listens on"),
                });
            }
        }
        if problems.is_empty() {
            Ok(rules)
        } else {
            Err(problems)
        }
    }
}

fn list<T: std::str::FromStr>(
    setting: &'static str,
    written: Option<&str>,
    hint: &str,
    problems: &mut Vec<Problem>,
) -> Vec<T> {
    let items = written.unwrap_or_default().split(',').map(str::trim);
    let mut all = Vec::new();
    for item in items.filter(|item| !item.is_empty()) {
        match item.parse() {
            Ok(parsed) => all.push(parsed),
            Err(_) => problems.push(Problem {
                setting,
                value: item.to_owned(),
                why: hint.to_owned(),
            }),
        }
    }
    all
}

const PORT: &str = "is not a port from 1 to 65535";

fn ports(setting: &'static str, written: Option<&str>, problems: &mut Vec<Problem>) -> Vec<u16> {
    let all: Vec<std::num::NonZeroU16> = list(setting, written, PORT, problems);
    all.into_iter().map(std::num::NonZeroU16::get).collect()
}

fn port(
    setting: &'static str,
    written: Option<&str>,
    default: u16,
    problems: &mut Vec<Problem>,
) -> u16 {
    let all = ports(setting, written, problems);
    if all.len() > 1 {
        problems.push(Problem {
            setting,
            value: written.unwrap_or_default().to_owned(),
            why: "is more than one port".to_owned(),
        });
    }
    all.first().copied().unwrap_or(default)
}

fn id(setting: &'static str, written: Option<&str>, problems: &mut Vec<Problem>) -> Option<u32> {
    list(
        setting,
        written,
        "is not a numeric id, such as 1337",
        problems,
    )
    .first()
    .copied()
}
