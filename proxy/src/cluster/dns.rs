// SPDX-License-Identifier: Apache-2.0
//! Endpoints by DNS: resolves a cluster's hostnames again and again as their TTL says. A failed or empty answer keeps
//! the last good one. Run by `cluster::upkeep`, one task per DNS cluster, on the control runtime.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use pillion_xds::cluster::Discovery;
use pillion_xds::cluster::DnsFamily;
use pillion_xds::endpoint::ClusterLoadAssignment;
use pillion_xds::endpoint::Health;

use super::Cluster;

/// TTL 0 must not become a busy loop.
const SHORTEST: Duration = Duration::from_secs(1);
/// However long a TTL is, a moved name is found within this.
const LONGEST: Duration = Duration::from_secs(60);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(2);
/// A poisoned or broken answer must not fill memory.
const MOST_ADDRESSES: usize = 1024;

/// One address that DNS answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Where it listens.
    pub addr: SocketAddr,
    /// The name that was asked for.
    pub hostname: Box<str>,
    /// Lower is preferred.
    pub priority: u32,
    /// Relative.
    pub weight: u32,
    /// Availability zone.
    pub zone: Box<str>,
    /// As the control plane knows it.
    pub health: Health,
}

/// A name that did not resolve.
#[derive(Debug, thiserror::Error)]
#[error("resolve {host}")]
pub struct ResolveError {
    host: String,
    #[source]
    source: hickory_resolver::net::NetError,
}

/// Resolves names by the system's settings, one resolver per wish for address families.
#[derive(Clone)]
pub struct Resolver {
    both: Option<TokioResolver>,
    v4: Option<TokioResolver>,
    v6: Option<TokioResolver>,
}

impl Resolver {
    /// From `/etc/resolv.conf` and `/etc/hosts`. Without either, only literals and `localhost` resolve.
    pub fn system() -> Resolver {
        let build = |strategy| {
            let mut builder = TokioResolver::builder_tokio().ok()?;
            builder.options_mut().ip_strategy = strategy;
            builder.build().ok()
        };
        Resolver {
            both: build(LookupIpStrategy::Ipv4AndIpv6),
            v4: build(LookupIpStrategy::Ipv4Only),
            v6: build(LookupIpStrategy::Ipv6Only),
        }
    }

    /// Addresses of a name in the order of preference, and how long they hold (`None`: for good).
    pub async fn resolve(
        &self,
        host: &str,
        family: DnsFamily,
    ) -> Result<(Vec<IpAddr>, Option<Duration>), ResolveError> {
        if let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok((vec![ip], None));
        }
        let resolver = match family {
            DnsFamily::V4Only => &self.v4,
            DnsFamily::V6Only => &self.v6,
            DnsFamily::Auto | DnsFamily::V4Preferred | DnsFamily::All => &self.both,
        };
        let Some(resolver) = resolver else {
            let source = hickory_resolver::net::NetError::from(
                "no name servers are configured on this machine",
            );
            return Err(ResolveError {
                host: host.to_owned(),
                source,
            });
        };
        let found = resolver
            .lookup_ip(host)
            .await
            .map_err(|source| ResolveError {
                host: host.to_owned(),
                source,
            })?;
        let holds = found
            .valid_until()
            .saturating_duration_since(Instant::now());
        let all: Vec<IpAddr> = found.iter().take(MOST_ADDRESSES).collect();
        Ok((preferred(all, family), Some(holds)))
    }
}

/// The addresses of the wanted families, wanted ones first, each family in the order of the answer: name servers turn
/// it, and who takes only the first spreads load by that.
fn preferred(all: Vec<IpAddr>, family: DnsFamily) -> Vec<IpAddr> {
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = all.into_iter().partition(IpAddr::is_ipv4);
    match family {
        DnsFamily::V4Only => v4,
        DnsFamily::V6Only => v6,
        DnsFamily::Auto if !v6.is_empty() => v6,
        DnsFamily::V4Preferred if v4.is_empty() => v6,
        DnsFamily::Auto | DnsFamily::V4Preferred => v4,
        DnsFamily::All => v4.into_iter().chain(v6).collect(),
    }
}

/// Resolves the cluster until it is dropped from the configuration (the task is then aborted).
pub async fn keep_resolved(cluster: Arc<Cluster>, resolver: Resolver) {
    loop {
        let wait = resolve_once(&cluster, &resolver).await;
        cluster.count_members();
        match wait {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return,
        }
    }
}

/// Resolves every name of the cluster once; how long until it should be done again, `None` for never.
async fn resolve_once(cluster: &Cluster, resolver: &Resolver) -> Option<Duration> {
    let (assignment, logical) = match &cluster.config.discovery {
        Discovery::StrictDns(assignment) => (assignment, false),
        Discovery::LogicalDns(assignment) => (assignment, true),
        Discovery::Static(_) | Discovery::Eds(_) | Discovery::OriginalDestination => return None,
    };
    let (mut answers, mut wait, mut failed) = (Vec::new(), None, false);
    for asked in names(assignment) {
        match resolver
            .resolve(asked.host, cluster.config.dns_family)
            .await
        {
            Ok((mut addresses, holds)) => {
                wait = [wait, holds].into_iter().flatten().min();
                if logical {
                    addresses.truncate(1);
                } else {
                    // An answer that only turned is an unchanged set.
                    addresses.sort_unstable();
                    addresses.dedup();
                }
                answers.extend(addresses.into_iter().map(|ip| asked.answer(ip)));
            }
            Err(error) => {
                failed = true;
                let why = error.source.to_string();
                tracing::warn!(cluster = cluster.name(), host = %asked.host, %why, "name did not resolve; the last answer stays");
            }
        }
    }
    let control = &cluster.state.stats.control;
    // One name failing must not empty the others' places: a partial answer is taken only when nothing is known.
    if !failed || cluster.set().is_none() {
        cluster
            .state
            .resolve_to(&answers, !cluster.config.health_checks.is_empty());
    }
    if failed {
        control.dns_failure.add_shared(1);
        return Some(AGAIN);
    }
    control.dns_success.add_shared(1);
    wait.map(|wait| wait.clamp(SHORTEST, LONGEST))
}

struct Asked<'a> {
    host: &'a str,
    port: u16,
    priority: u32,
    weight: u32,
    zone: &'a str,
    health: Health,
}

impl Asked<'_> {
    fn answer(&self, ip: IpAddr) -> Answer {
        Answer {
            addr: SocketAddr::new(ip, self.port),
            hostname: Box::from(self.host),
            priority: self.priority,
            weight: self.weight,
            zone: Box::from(self.zone),
            health: self.health,
        }
    }
}

fn names(assignment: &ClusterLoadAssignment) -> impl Iterator<Item = Asked<'_>> {
    assignment.localities.iter().flat_map(|locality| {
        locality.endpoints.iter().map(|endpoint| Asked {
            host: &endpoint.host,
            port: endpoint.port,
            priority: locality.priority,
            weight: endpoint.weight,
            zone: &locality.zone,
            health: endpoint.health,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_follow_the_preference() {
        let both = ips(&["10.0.0.2", "::1", "10.0.0.1"]);
        assert_eq!(preferred(both.clone(), DnsFamily::Auto), ips(&["::1"]));
        assert_eq!(
            preferred(both.clone(), DnsFamily::V4Preferred),
            ips(&["10.0.0.2", "10.0.0.1"])
        );
        assert_eq!(preferred(both.clone(), DnsFamily::V6Only), ips(&["::1"]));
        assert_eq!(
            preferred(both, DnsFamily::All),
            ips(&["10.0.0.2", "10.0.0.1", "::1"])
        );
        assert_eq!(
            preferred(ips(&["::1"]), DnsFamily::V4Preferred),
            ips(&["::1"])
        );
        assert_eq!(
            preferred(ips(&["10.0.0.1"]), DnsFamily::Auto),
            ips(&["10.0.0.1"])
        );
    }

    #[tokio::test]
    async fn a_literal_needs_no_name_server() {
        let resolver = Resolver {
            both: None,
            v4: None,
            v6: None,
        };
        let (found, holds) = resolver
            .resolve("127.0.0.1", DnsFamily::Auto)
            .await
            .unwrap();
        assert_eq!((found, holds), (ips(&["127.0.0.1"]), None));
    }
}
