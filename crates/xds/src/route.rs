// SPDX-License-Identifier: Apache-2.0
//! Checked `envoy.config.route.v3.RouteConfiguration`.

mod action;
mod matching;

use std::time::Duration;

use crate::field;
use crate::field::Checked;
use crate::field::Refusal;
use crate::field::Under;
use crate::field::refuse;
use crate::proto::route as proto;
use crate::resource::Rejected;

pub use matching::RegexError;
pub use matching::full_match;

/// A route table.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteConfiguration {
    /// Resource name, such as `rds_egress_http_8080`.
    pub name: String,
    /// Chosen by authority.
    pub virtual_hosts: Vec<VirtualHost>,
}

/// Routes for some authorities.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualHost {
    /// Name for stats.
    pub name: String,
    /// Exact, `*.suffix`, `prefix.*` or `*`; lower case; may carry `:port`.
    pub domains: Vec<String>,
    /// The first that matches wins.
    pub routes: Vec<Route>,
}

/// A condition and what follows from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Name for logs and explanations.
    pub name: String,
    /// When it applies.
    pub matching: RouteMatch,
    /// What is done.
    pub action: Action,
}

/// All members must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteMatch {
    /// Path without query.
    pub path: PathMatch,
    /// Pseudo headers (`:method`, `:scheme`) included.
    pub headers: Vec<HeaderMatch>,
    /// Query parameters.
    pub query: Vec<QueryMatch>,
    /// Only requests with `content-type: application/grpc…`.
    pub grpc: bool,
}

/// How a path is compared.
#[derive(Clone, Debug, PartialEq)]
pub enum PathMatch {
    /// Raw string prefix.
    Prefix(String),
    /// The whole path.
    Exact(String),
    /// RE2-like, full match; checked to compile.
    Regex(String),
}

/// One header condition.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderMatch {
    /// Lower case.
    pub name: String,
    /// What its value must be.
    pub value: HeaderValueMatch,
    /// Negates the condition; an absent header then satisfies it.
    pub invert: bool,
}

/// How a header value is compared.
#[derive(Clone, Debug, PartialEq)]
pub enum HeaderValueMatch {
    /// Any value.
    Present,
    /// Equal.
    Exact(String),
    /// Begins with.
    Prefix(String),
    /// Ends with.
    Suffix(String),
    /// RE2-like, full match.
    Regex(String),
    /// An integer in `[start, end)`.
    Range(i64, i64),
}

/// One query parameter condition.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryMatch {
    /// Name of the parameter.
    pub name: String,
    /// Its value; `None` means it is present.
    pub exact: Option<String>,
}

/// What is done with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Sent to a cluster.
    Forward(Box<Forward>),
    /// Answered here.
    Respond {
        /// HTTP status.
        status: u16,
        /// Body text.
        body: String,
    },
}

/// Sending a request on.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// Drawn by weight per request; all weights zero routes to nothing (503, encoded as a direct answer because Envoy
    /// refuses a total of zero).
    pub clusters: Vec<WeightedCluster>,
    /// The whole exchange, retries included; zero is off. Decode fills Envoy's default of 15 s.
    pub timeout: Duration,
    /// Without a byte in either direction; `None` leaves it to the connection manager.
    pub idle_timeout: Option<Duration>,
    /// Tries after the first.
    pub retry: Option<RetryPolicy>,
    /// Path change before sending.
    pub rewrite: Option<PathRewrite>,
    /// Authority sent upstream instead of the received one.
    pub host_rewrite: Option<String>,
}

/// How a path is changed.
#[derive(Clone, Debug, PartialEq)]
pub enum PathRewrite {
    /// The matched prefix (or whole exact path) becomes this.
    Prefix(String),
    /// Regex substitution over the path.
    Regex {
        /// RE2-like.
        pattern: String,
        /// With `\1` references.
        substitution: String,
    },
}

/// A share of traffic.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedCluster {
    /// Cluster name.
    pub name: String,
    /// Relative.
    pub weight: u32,
}

/// When and how often a request is tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Conditions; any suffices.
    pub on: Vec<RetryOn>,
    /// Status codes that are retried (Envoy's `retriable-status-codes`).
    pub status_codes: Vec<u16>,
    /// After the first try.
    pub max_retries: u32,
    /// Bounds each try, the first included.
    pub per_try_timeout: Option<Duration>,
}

/// Envoy's retry conditions that App Mesh can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryOn {
    /// Any 5xx, reset or timeout (`5xx`).
    ServerError,
    /// 502, 503, 504 (`gateway-error`).
    GatewayError,
    /// 409 (`retriable-4xx`).
    Retriable4xx,
    /// No connection (`connect-failure`).
    ConnectFailure,
    /// REFUSED_STREAM (`refused-stream`).
    RefusedStream,
    /// No answer: disconnect, reset, timeout (`reset`).
    Reset,
    /// gRPC status CANCELLED in headers.
    Cancelled,
    /// gRPC status DEADLINE_EXCEEDED in headers.
    DeadlineExceeded,
    /// gRPC status INTERNAL in headers.
    Internal,
    /// gRPC status RESOURCE_EXHAUSTED in headers.
    ResourceExhausted,
    /// gRPC status UNAVAILABLE in headers.
    Unavailable,
    /// The codes in `status_codes` (`retriable-status-codes`).
    StatusCodes,
}

impl RouteConfiguration {
    /// As Envoy reads it.
    pub fn encode(&self) -> proto::RouteConfiguration {
        proto::RouteConfiguration {
            name: self.name.clone(),
            virtual_hosts: self.virtual_hosts.iter().map(VirtualHost::encode).collect(),
            // A route to a cluster that is not there is refused by name instead of answering 503.
            validate_clusters: Some(field::flag(true)),
            ..Default::default()
        }
    }

    /// Checks a route table. Ignored: metadata, and `validate_clusters`, since whoever applies the table finds every
    /// cluster or refuses it.
    pub fn decode(table: proto::RouteConfiguration) -> Result<RouteConfiguration, Rejected> {
        let name = table.name.clone();
        RouteConfiguration::check(table).map_err(|refusal| refusal.of(&name))
    }

    pub(crate) fn check(table: proto::RouteConfiguration) -> Checked<RouteConfiguration> {
        let proto::RouteConfiguration {
            name,
            virtual_hosts,
            vhds,
            internal_only_headers,
            response_headers_to_add,
            response_headers_to_remove,
            request_headers_to_add,
            request_headers_to_remove,
            most_specific_header_mutations_wins: _, // there are no mutations
            validate_clusters: _,
            max_direct_response_body_size_bytes: _,
            cluster_specifier_plugins,
            request_mirror_policies,
            ignore_port_in_host_matching,
            vhost_header,
            ignore_path_parameters_in_path_matching,
            typed_per_filter_config,
            metadata: _,
            route_specifiers,
        } = table;
        refuse!(
            vhds,
            internal_only_headers,
            response_headers_to_add,
            response_headers_to_remove,
            request_headers_to_add,
            request_headers_to_remove,
            cluster_specifier_plugins,
            request_mirror_policies,
            ignore_port_in_host_matching,
            vhost_header,
            ignore_path_parameters_in_path_matching,
            typed_per_filter_config,
            route_specifiers,
        );
        let virtual_hosts = field::each("virtual_hosts", virtual_hosts, VirtualHost::check)?;
        check_domains(&virtual_hosts)?;
        Ok(RouteConfiguration {
            name: field::not_empty("name", name)?,
            virtual_hosts,
        })
    }
}

/// A domain that stands twice could mean either host.
fn check_domains(hosts: &[VirtualHost]) -> Checked<()> {
    let mut seen = std::collections::BTreeSet::new();
    for domain in hosts.iter().flat_map(|host| &host.domains) {
        if !seen.insert(domain.as_str()) {
            let why = format_args!("domain {domain:?} stands twice in this table");
            return Err(Refusal::new("virtual_hosts", why));
        }
    }
    Ok(())
}

impl VirtualHost {
    fn encode(&self) -> proto::VirtualHost {
        proto::VirtualHost {
            name: self.name.clone(),
            domains: self.domains.clone(),
            routes: self.routes.iter().map(Route::encode).collect(),
            ..Default::default()
        }
    }

    fn check(host: proto::VirtualHost) -> Checked<VirtualHost> {
        let proto::VirtualHost {
            name,
            domains,
            routes,
            matcher,
            require_tls,
            virtual_clusters: _, // statistics only
            rate_limits,
            request_headers_to_add,
            request_headers_to_remove,
            response_headers_to_add,
            response_headers_to_remove,
            cors,
            typed_per_filter_config,
            include_request_attempt_count,
            include_attempt_count_in_response,
            retry_policy,
            retry_policy_typed_config,
            hedge_policy,
            include_is_timeout_retry_header,
            per_request_buffer_limit_bytes: _, // retry buffers are bounded by our own limit
            request_body_buffer_limit: _,
            request_mirror_policies,
            metadata: _,
            route_specifiers,
        } = host;
        refuse!(
            matcher,
            require_tls,
            rate_limits,
            request_headers_to_add,
            request_headers_to_remove,
            response_headers_to_add,
            response_headers_to_remove,
            cors,
            typed_per_filter_config,
            include_request_attempt_count,
            include_attempt_count_in_response,
            retry_policy,
            retry_policy_typed_config,
            hedge_policy,
            include_is_timeout_retry_header,
            request_mirror_policies,
            route_specifiers,
        );
        if domains.is_empty() {
            return Err(Refusal::missing("domains"));
        }
        Ok(VirtualHost {
            name: field::not_empty("name", name)?,
            domains: field::each("domains", domains, |domain| check_domain(&domain))?,
            routes: field::each("routes", routes, Route::check)?,
        })
    }
}

fn check_domain(domain: &str) -> Checked<String> {
    let stars = domain.matches('*').count();
    let placed = domain.starts_with('*') || domain.ends_with('*');
    if domain.is_empty() || stars > 1 || (stars == 1 && !placed) {
        let why = format_args!("{domain:?} must be exact, *.suffix, prefix.* or *");
        return Err(Refusal::new("domain", why));
    }
    Ok(domain.to_ascii_lowercase())
}

impl Route {
    fn encode(&self) -> proto::Route {
        proto::Route {
            name: self.name.clone(),
            r#match: Some(self.matching.encode()),
            action: Some(self.action.encode()),
            ..Default::default()
        }
    }

    fn check(route: proto::Route) -> Checked<Route> {
        let proto::Route {
            name,
            r#match,
            metadata: _,
            decorator: _, // names of spans
            typed_per_filter_config,
            request_headers_to_add,
            request_headers_to_remove,
            response_headers_to_add,
            response_headers_to_remove,
            tracing,
            per_request_buffer_limit_bytes: _,
            stat_prefix: _,
            request_body_buffer_limit: _,
            route_specifiers,
            action,
        } = route;
        refuse!(
            typed_per_filter_config,
            request_headers_to_add,
            request_headers_to_remove,
            response_headers_to_add,
            response_headers_to_remove,
            tracing,
            route_specifiers,
        );
        Ok(Route {
            name,
            matching: RouteMatch::check(field::required("match", r#match)?).under("match")?,
            action: Action::check(field::required("action", action)?)?,
        })
    }
}
