// SPDX-License-Identifier: Apache-2.0
//! Route tables compiled once and matched purely: authority to virtual host, then the first route in the order given
//! that holds. Called by `layer::route`; knows neither clusters nor sockets. Paths come here normalised.

pub mod condition;
pub mod path;
mod table;

use std::sync::Arc;

use pillion_xds::resource::Rejected;
use pillion_xds::route as xds;

use condition::Asked;
use condition::Conditions;
use table::Domains;
use table::Routes;

/// A compiled route configuration.
#[derive(Debug)]
pub struct RouteTable {
    /// Resource name.
    pub name: Box<str>,
    source: Arc<xds::RouteConfiguration>,
    domains: Domains,
    hosts: Vec<Host>,
}

#[derive(Debug)]
struct Host {
    name: Arc<str>,
    routes: Routes,
}

/// A compiled route: conditions, and what is done when they hold.
#[derive(Debug)]
pub struct Rule {
    /// For logs, spans and metrics.
    pub name: Arc<str>,
    /// Of the virtual host it stands in.
    pub host: Arc<str>,
    /// Of the table it stands in.
    pub table: Arc<str>,
    /// What is done.
    pub action: Action,
    path: path::PathMatch,
    conditions: Conditions,
}

/// What is done with a request.
#[derive(Debug)]
pub enum Action {
    /// Sent on.
    Forward(Box<Forward>),
    /// Answered here.
    Respond {
        /// HTTP status.
        status: u16,
        /// Body.
        body: bytes::Bytes,
    },
}

/// Sending a request on, ready to be done.
#[derive(Debug)]
pub struct Forward {
    /// As configured: timeouts, retries, weights.
    pub config: xds::Forward,
    /// Sum of the weights; zero routes to nothing.
    pub total_weight: u64,
    rewrite: Option<path::Rewrite>,
    /// Authority sent upstream.
    pub host_rewrite: Option<http::uri::Authority>,
}

/// Why no rule was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoMatch {
    /// No virtual host answers to this authority.
    Host,
    /// The host has no route for this request.
    Route,
}

impl RouteTable {
    /// Compiles a checked route configuration; a pattern that does not compile refuses it by name.
    pub fn compile(source: Arc<xds::RouteConfiguration>) -> Result<RouteTable, Rejected> {
        let reject = |why: String| Rejected {
            name: source.name.clone(),
            why,
        };
        let domains = Domains::compile(&source.virtual_hosts).map_err(reject)?;
        let table: Arc<str> = Arc::from(source.name.as_str());
        let hosts = source
            .virtual_hosts
            .iter()
            .map(|host| {
                let name: Arc<str> = Arc::from(host.name.as_str());
                let rules = host
                    .routes
                    .iter()
                    .map(|route| Rule::compile(route, &name, &table))
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|why| reject(format!("virtual_hosts[{}].{why}", host.name)))?;
                Ok(Host {
                    name,
                    routes: Routes::compile(rules),
                })
            })
            .collect::<Result<Vec<_>, Rejected>>()?;
        Ok(RouteTable {
            name: Box::from(source.name.as_str()),
            source,
            domains,
            hosts,
        })
    }

    /// What it was compiled from.
    pub fn source(&self) -> &Arc<xds::RouteConfiguration> {
        &self.source
    }

    /// The first rule that holds. `authority` may carry a port.
    pub fn first_match(&self, authority: &str, asked: &Asked<'_>) -> Result<&Arc<Rule>, NoMatch> {
        let host = self.domains.find(authority).ok_or(NoMatch::Host)?;
        self.hosts[host]
            .routes
            .first_match(asked)
            .ok_or(NoMatch::Route)
    }

    /// Whether some virtual host answers to this authority.
    pub fn knows(&self, authority: &str) -> bool {
        self.domains.find(authority).is_some()
    }

    /// Whether any virtual host names this port, as `CONNECT` to an undeclared port is told apart from an undeclared host.
    pub fn knows_port(&self, port: u16) -> bool {
        self.source
            .virtual_hosts
            .iter()
            .flat_map(|host| &host.domains)
            .any(|domain| {
                domain == "*"
                    || domain
                        .rsplit_once(':')
                        .is_some_and(|(_, said)| said.parse() == Ok(port))
            })
    }

    /// Names of the virtual hosts, in order.
    pub fn host_names(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().map(|host| &*host.name)
    }
}

impl Rule {
    /// The host that upstream is told, where the rule changes it.
    pub fn host_rewrite(&self) -> Option<&http::uri::Authority> {
        match &self.action {
            Action::Forward(forward) => forward.host_rewrite.as_ref(),
            Action::Respond { .. } => None,
        }
    }

    fn compile(route: &xds::Route, host: &Arc<str>, table: &Arc<str>) -> Result<Rule, String> {
        let at = |why: String| format!("routes[{}].{why}", route.name);
        Ok(Rule {
            name: Arc::from(route.name.as_str()),
            host: Arc::clone(host),
            table: Arc::clone(table),
            action: Action::compile(&route.action, &route.matching.path).map_err(at)?,
            path: path::PathMatch::compile(&route.matching.path).map_err(at)?,
            conditions: Conditions::compile(&route.matching).map_err(at)?,
        })
    }
}

impl Action {
    fn compile(action: &xds::Action, matched: &xds::PathMatch) -> Result<Action, String> {
        match action {
            xds::Action::Respond { status, body } => Ok(Action::Respond {
                status: *status,
                body: bytes::Bytes::copy_from_slice(body.as_bytes()),
            }),
            xds::Action::Forward(forward) => {
                let rewrite = forward
                    .rewrite
                    .as_ref()
                    .map(|rewrite| path::Rewrite::compile(rewrite, matched))
                    .transpose()?;
                let host_rewrite = forward
                    .host_rewrite
                    .as_deref()
                    .map(|host| {
                        host.parse().map_err(|_| {
                            format!(
                                "host_rewrite {host:?} is no authority; give a name or name:port"
                            )
                        })
                    })
                    .transpose()?;
                let total_weight = forward
                    .clusters
                    .iter()
                    .map(|cluster| u64::from(cluster.weight))
                    .sum();
                Ok(Action::Forward(Box::new(Forward {
                    config: (**forward).clone(),
                    total_weight,
                    rewrite,
                    host_rewrite,
                })))
            }
        }
    }
}

impl Forward {
    /// The cluster that `draw` (any random number) falls on; `None` when all weights are zero.
    pub fn draw(&self, draw: u64) -> Option<&str> {
        if let [only] = self.config.clusters.as_slice() {
            return (only.weight > 0).then_some(only.name.as_str());
        }
        let mut left = draw.checked_rem(self.total_weight)?;
        for cluster in &self.config.clusters {
            let weight = u64::from(cluster.weight);
            if left < weight {
                return Some(&cluster.name);
            }
            left -= weight;
        }
        None
    }

    /// The path and query to send for these, `None` when they stay as they are.
    pub fn rewritten(&self, path: &str, query: Option<&str>) -> Option<String> {
        let mut changed = self.rewrite.as_ref()?.apply(path)?;
        if let Some(query) = query {
            changed.push('?');
            changed.push_str(query);
        }
        Some(changed)
    }
}

#[cfg(test)]
mod tests;
