// SPDX-License-Identifier: Apache-2.0
//! Settings of the process: what may be written on the command line or in the environment, and what holds once checked.
//! All behaviour of the mesh comes through the API, none from here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use clap::Subcommand;
use pillion_config::name::is_account;
use pillion_runtime::listening::require_loopback;
use pillion_sigv4::KeysFile;
use serde_json::Value;
use serde_json::json;

use crate::api::quota::Quotas;
use crate::store::sql::Place;

const EXAMPLES: &str = "\
Examples:
  pillion-control-plane
      API on 127.0.0.1:8700, xDS on 8701, admin on 8702, store in ./pillion.db
  pillion-control-plane --store sqlite:/var/lib/pillion/mesh.db --account 123456789012 --region eu-west-1
      resources get ARNs of that account and region
  pillion-control-plane --credentials keys.toml --api-addr 0.0.0.0:8700 --xds-addr 0.0.0.0:8701
      for the whole network: every caller signs with a key of that file, every proxy proves who it is
  pillion-control-plane --api-addr 127.0.0.1:0 --xds-addr 127.0.0.1:0 --admin-addr 127.0.0.1:0
      free ports; the first line on stdout names them
  pillion-control-plane --store postgres://pillion@db.internal/pillion
      one of several replicas on one database; the password is taken from PGPASSWORD or ~/.pgpass as well
  pillion-control-plane backup --store sqlite:pillion.db --to mesh.backup
  pillion-control-plane restore --store postgres://pillion@db.internal/pillion --from mesh.backup
      copies, and the way from one kind of store to the other

Then: aws --endpoint-url http://127.0.0.1:8700 appmesh create-mesh --mesh-name shop";

/// The settings as written.
#[derive(Debug, Parser)]
#[command(
    name = "pillion-control-plane",
    version,
    about = "Serves the AWS App Mesh API, and what it says as xDS to every proxy of the mesh.",
    after_help = EXAMPLES
)]
pub struct Args {
    /// Where the App Mesh API listens; port 0 picks a free port
    #[arg(
        long,
        env = "PILLION_API_ADDR",
        default_value = "127.0.0.1:8700",
        value_name = "IP:PORT"
    )]
    pub api_addr: SocketAddr,

    /// Where proxies connect: ADS, SDS and certificate signing over gRPC
    #[arg(
        long,
        env = "PILLION_XDS_ADDR",
        default_value = "127.0.0.1:8701",
        value_name = "IP:PORT"
    )]
    pub xds_addr: SocketAddr,

    /// Where /ready, /metrics, /config and /fleet are
    #[arg(
        long,
        env = "PILLION_ADMIN_ADDR",
        default_value = "127.0.0.1:8702",
        value_name = "IP:PORT"
    )]
    pub admin_addr: SocketAddr,

    /// Where resources are kept: sqlite:<path>, or postgres://<user>@<host>/<database> for several replicas
    #[arg(
        long,
        env = "PILLION_STORE",
        hide_env_values = true,
        global = true,
        default_value = "sqlite:pillion.db",
        value_name = "URL"
    )]
    pub store: String,

    /// The region in ARNs
    #[arg(long, env = "PILLION_REGION", default_value = "us-east-1")]
    pub region: String,

    /// The account in ARNs, 12 digits
    #[arg(long, env = "PILLION_ACCOUNT", default_value = "000000000000")]
    pub account: String,

    /// The SPIFFE trust domain of workload certificates
    #[arg(long, env = "PILLION_TRUST_DOMAIN", default_value = "pillion.local")]
    pub trust_domain: String,

    /// The file of access keys (TOML, mode 0600); with it every caller must sign, and beyond loopback it is needed
    #[arg(long, env = "PILLION_CREDENTIALS", value_name = "FILE")]
    pub credentials: Option<PathBuf>,

    /// API requests that each access key may make in a second; without it, any number
    #[arg(long, env = "PILLION_RATE_LIMIT", value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate_limit: Option<u32>,

    /// Quotas: app-mesh for its own, or single ones as in virtual-nodes=200,proxies=50; without it, none
    #[arg(
        long,
        env = "PILLION_QUOTA",
        default_value = "",
        hide_default_value = true,
        value_name = "NAME=NUMBER,…"
    )]
    pub quota: String,

    /// Listen beyond loopback though nobody is authenticated; only where the network itself is trusted
    #[arg(long, env = "PILLION_INSECURE", value_parser = clap::builder::FalseyValueParser::new())]
    pub insecure: bool,

    /// Something else to do with the store than to serve from it
    #[command(subcommand)]
    pub task: Option<Task>,
}

/// What is done instead of serving.
#[derive(Clone, Debug, Subcommand)]
pub enum Task {
    /// Copy the store to a file, while the control plane runs; the copy holds the authority's keys
    Backup {
        /// Where to; it must not be there yet
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Put a copy into a store of either kind; a file must not be in use, replicas on PostgreSQL take it up at once
    Restore {
        /// The copy
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// Even though the store has something in it, which is lost
        #[arg(long)]
        replace: bool,
    },
    /// Take the store to another format: back, before an older version starts on it
    Migrate {
        /// The format
        #[arg(long, value_name = "NUMBER")]
        to: i64,
    },
}

/// The settings that hold.
#[derive(Clone, Debug)]
pub struct Config {
    /// `--api-addr`.
    pub api_addr: SocketAddr,
    /// `--xds-addr`.
    pub xds_addr: SocketAddr,
    /// `--admin-addr`.
    pub admin_addr: SocketAddr,
    /// `--store`.
    pub store: Place,
    /// `--region`.
    pub region: String,
    /// `--account`.
    pub account: String,
    /// `--trust-domain`.
    pub trust_domain: String,
    /// `--credentials`, read and followed.
    pub credentials: Option<Arc<KeysFile>>,
    /// `--rate-limit`.
    pub rate_limit: Option<u32>,
    /// `--quota`.
    pub quotas: Quotas,
    /// `--insecure`.
    pub insecure: bool,
}

/// Every setting that cannot hold, each with the way out.
#[derive(Debug, thiserror::Error)]
#[error("{}", .problems.join("\n"))]
pub struct ConfigError {
    problems: Vec<String>,
}

impl Args {
    /// All problems in one report.
    pub fn check(self) -> Result<Config, ConfigError> {
        let mut problems = Vec::new();
        let store = Place::parse(&self.store).map_err(|problem| problems.push(problem));
        if !is_account(&self.account) {
            problems.push(format!("--account {:?} must be 12 digits", self.account));
        }
        if !is_region(&self.region) {
            problems.push(format!(
                "--region {:?} must be lower-case letters, digits and hyphens, as in eu-west-1",
                self.region
            ));
        }
        if !is_trust_domain(&self.trust_domain) {
            problems.push(format!(
                "--trust-domain {:?} must be at most 255 lower-case letters, digits, dots, hyphens and underscores",
                self.trust_domain
            ));
        }
        let quotas = Quotas::parse(&self.quota)
            .map_err(|problem| problems.push(problem))
            .unwrap_or_default();
        let closed = self.credentials.is_some();
        for (setting, addr, exposed) in [
            ("--api-addr", self.api_addr, closed),
            ("--xds-addr", self.xds_addr, closed),
            ("--admin-addr", self.admin_addr, false),
        ] {
            if let Err(error) = require_loopback(setting, addr, exposed || self.insecure) {
                let remedy = if setting == "--admin-addr" {
                    ""
                } else {
                    ", or give --credentials"
                };
                problems.push(format!("{error}{remedy}"));
            }
        }
        let credentials = self.credentials.as_deref().and_then(|path| {
            KeysFile::open(path, &self.account)
                .map_err(|error| {
                    problems.push(format!("--credentials: {}", crate::ads::chain(&error)))
                })
                .ok()
        });
        let (Ok(store), true) = (store, problems.is_empty()) else {
            return Err(ConfigError { problems });
        };
        Ok(Config {
            api_addr: self.api_addr,
            xds_addr: self.xds_addr,
            admin_addr: self.admin_addr,
            store,
            region: self.region,
            account: self.account,
            trust_domain: self.trust_domain,
            credentials,
            rate_limit: self.rate_limit,
            quotas,
            insecure: self.insecure,
        })
    }
}

impl Config {
    /// For `/config` and the log.
    pub fn document(&self) -> Value {
        json!({
            "api_addr": self.api_addr.to_string(),
            "xds_addr": self.xds_addr.to_string(),
            "admin_addr": self.admin_addr.to_string(),
            "store": self.store.to_string(),
            "region": self.region,
            "account": self.account,
            "trust_domain": self.trust_domain,
            "credentials": self.credentials.is_some(),
            "rate_limit": self.rate_limit,
            "quotas": format!("{:?}", self.quotas),
            "insecure": self.insecure,
        })
    }
}

fn is_region(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(allowed)
}

/// SPIFFE-ID, section 2.1.
fn is_trust_domain(text: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    (1..=255).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Args {
        let line = std::iter::once("pillion-control-plane").chain(line.split_whitespace());
        Args::try_parse_from(line).expect("flags clap accepts")
    }

    #[test]
    fn every_wrong_setting_is_told_at_once() {
        let error = args(
            "--api-addr 0.0.0.0:1 --account 12 --region EU --store mysql://x --trust-domain A",
        )
        .check()
        .expect_err("five problems")
        .to_string();
        assert_eq!(error.lines().count(), 5, "{error}");
        for setting in [
            "--api-addr",
            "--account",
            "--region",
            "--store",
            "--trust-domain",
        ] {
            assert!(error.contains(setting), "{error}");
        }
        assert!(error.contains("--insecure"), "the way out: {error}");
    }

    #[test]
    fn beyond_loopback_with_insistence_is_fine() {
        assert!(args("--api-addr 0.0.0.0:1 --insecure").check().is_ok());
    }
}
