// SPDX-License-Identifier: Apache-2.0
//! What a proxy may call, with App Mesh's decisions made: rules in order, targets, timeouts, retries. Pure; both sidecars
//! and gateways start from it.

use std::time::Duration;

use pillion_config::graph::ProviderView;
use pillion_config::graph::RouteView;
use pillion_config::graph::RouterView;
use pillion_config::graph::ServiceView;
use pillion_config::graph::TargetNode;
use pillion_config::listener::HttpTimeout;
use pillion_config::listener::ListenerTimeout;
use pillion_config::listener::PortMapping;
use pillion_config::matching::HeaderCondition;
use pillion_config::matching::HeaderMatch as HeaderMethod;
use pillion_config::matching::QueryParameter;
use pillion_config::route::GrpcRetryEvent;
use pillion_config::route::GrpcRouteMatch;
use pillion_config::route::HttpRouteMatch;
use pillion_config::route::RetryPolicy as RetrySpec;
use pillion_config::route::Rule as RuleSpec;
use pillion_config::route::Scheme;
use pillion_config::tls::ClientPolicyTls;
use pillion_xds::route::HeaderMatch;
use pillion_xds::route::HeaderValueMatch;
use pillion_xds::route::PathMatch;
use pillion_xds::route::QueryMatch;
use pillion_xds::route::RetryOn;
use pillion_xds::route::RetryPolicy;
use pillion_xds::route::RouteMatch;

/// App Mesh's limit on an exchange where the spec says nothing.
pub const DEFAULT_PER_REQUEST: Duration = Duration::from_secs(15);
/// App Mesh's limit on silence where the spec says nothing.
pub const DEFAULT_IDLE: Duration = Duration::from_secs(300);

/// A virtual service as one proxy calls it.
#[derive(Clone, Debug, PartialEq)]
pub struct Callee<'a> {
    /// Name of the virtual service.
    pub name: &'a str,
    /// The TLS policy towards it.
    pub policy: Option<&'a ClientPolicyTls>,
    /// Where it is called; none without a provider.
    pub ports: Vec<CalleePort<'a>>,
    /// What of it has no effect.
    pub findings: Vec<String>,
}

/// One port of a virtual service.
#[derive(Clone, Debug, PartialEq)]
pub struct CalleePort<'a> {
    /// Port and protocol that callers see.
    pub mapping: PortMapping,
    /// In the order they are tried.
    pub rules: Vec<Rule<'a>>,
}

/// A condition, its targets and its limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule<'a> {
    /// Name of the route, or of the virtual service where a node provides it.
    pub name: &'a str,
    /// When it applies; without meaning for tcp.
    pub matching: RouteMatch,
    /// Drawn by weight.
    pub targets: Vec<Target<'a>>,
    /// The whole exchange, retries included; zero is off.
    pub timeout: Duration,
    /// Silence; zero is off.
    pub idle: Duration,
    /// Tries after the first.
    pub retry: Option<RetryPolicy>,
}

/// A listener of a virtual node, as a target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target<'a> {
    /// The node.
    pub node: TargetNode<'a>,
    /// Its listener's port and protocol; the caller's, if the node has no such listener.
    pub mapping: PortMapping,
    /// Relative.
    pub weight: u32,
}

/// The virtual service with its provider's rules.
pub fn resolve<'a>(service: &ServiceView<'a>, policy: Option<&'a ClientPolicyTls>) -> Callee<'a> {
    let mut findings = Vec::new();
    let ports = match &service.provider {
        None => {
            findings.push(format!(
                "virtual service {:?} has no provider: requests to it are answered 404",
                service.name
            ));
            Vec::new()
        }
        Some(ProviderView::Node(node)) => node
            .spec
            .listeners()
            .iter()
            .map(|one| provided_by_node(service.name, *node, one.port_mapping))
            .collect(),
        Some(ProviderView::Router(router)) => router
            .spec
            .ports()
            .map(|mapping| provided_by_router(router, mapping, &mut findings))
            .collect(),
    };
    Callee {
        name: service.name,
        policy,
        ports,
        findings,
    }
}

/// Without a router there is no route to hold a timeout, so the listener's governs the client's side too.
fn provided_by_node<'a>(
    service: &'a str,
    node: TargetNode<'a>,
    mapping: PortMapping,
) -> CalleePort<'a> {
    let timeout = node
        .spec
        .listener(mapping.port)
        .and_then(|listener| listener.timeout.as_ref());
    let (timeout, idle) = listener_limits(timeout);
    let retry = mapping.protocol.is_http().then(default_retry);
    let targets = vec![Target {
        node,
        mapping,
        weight: 1,
    }];
    CalleePort {
        mapping,
        rules: vec![Rule {
            name: service,
            matching: any(),
            targets,
            timeout,
            idle,
            retry,
        }],
    }
}

fn provided_by_router<'a>(
    router: &RouterView<'a>,
    mapping: PortMapping,
    findings: &mut Vec<String>,
) -> CalleePort<'a> {
    let rules = router.routes_on(mapping).filter_map(|route| {
        let rule = rule(route, mapping)?;
        for event in unknown_events(route) {
            findings.push(format!(
                "route {:?} of virtual router {:?}: httpRetryEvents {event:?} is none of server-error, gateway-error, \
                 client-error, stream-error; it never fires",
                route.name, router.name
            ));
        }
        if rule.targets.is_empty() {
            findings.push(format!("route {:?} of virtual router {:?} has no target that exists", route.name, router.name));
        }
        Some(rule)
    });
    CalleePort {
        mapping,
        rules: rules.collect(),
    }
}

fn rule<'a>(route: &RouteView<'a>, mapping: PortMapping) -> Option<Rule<'a>> {
    let targets = route.targets.iter().map(|target| Target {
        node: target.node,
        mapping: target
            .listener
            .map_or(mapping, |listener| listener.port_mapping),
        weight: u32::from(target.weight),
    });
    let (matching, (timeout, idle), retry) = match route.spec.rule()? {
        RuleSpec::Http(spec) => (
            http_match(&spec.conditions),
            limits(spec.timeout),
            Some(spec.retry_policy.as_ref()),
        ),
        RuleSpec::Grpc(spec) => (
            grpc_match(&spec.conditions),
            limits(spec.timeout),
            Some(spec.retry_policy.as_ref()),
        ),
        RuleSpec::Tcp(spec) => {
            let idle = spec
                .timeout
                .and_then(|timeout| timeout.idle)
                .map_or(DEFAULT_IDLE, |idle| idle.to_std());
            (any(), (Duration::ZERO, idle), None)
        }
    };
    let retry = retry.and_then(|policy| policy.map_or_else(|| Some(default_retry()), retry_policy));
    Some(Rule {
        name: route.name,
        matching,
        targets: targets.collect(),
        timeout,
        idle,
        retry,
    })
}

/// Every request.
pub fn any() -> RouteMatch {
    RouteMatch {
        path: PathMatch::Prefix("/".to_owned()),
        headers: Vec::new(),
        query: Vec::new(),
        grpc: false,
    }
}

fn limits(timeout: Option<HttpTimeout>) -> (Duration, Duration) {
    let timeout = timeout.unwrap_or_default();
    (
        timeout
            .per_request
            .map_or(DEFAULT_PER_REQUEST, |limit| limit.to_std()),
        timeout.idle.map_or(DEFAULT_IDLE, |limit| limit.to_std()),
    )
}

/// The limits a listener of a virtual node sets, as (whole exchange, silence).
pub fn listener_limits(timeout: Option<&ListenerTimeout>) -> (Duration, Duration) {
    (
        timeout
            .and_then(ListenerTimeout::per_request)
            .unwrap_or(DEFAULT_PER_REQUEST),
        timeout
            .and_then(ListenerTimeout::idle)
            .unwrap_or(DEFAULT_IDLE),
    )
}

fn http_match(spec: &HttpRouteMatch) -> RouteMatch {
    let mut headers = Vec::new();
    if let Some(method) = spec.method {
        headers.push(exact_header(":method", method.word()));
    }
    if let Some(scheme) = spec.scheme {
        let scheme = match scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        headers.push(exact_header(":scheme", scheme));
    }
    headers.extend(header_matches(spec.headers.as_deref()));
    RouteMatch {
        path: path_match(spec.path.as_ref(), spec.prefix.as_deref()),
        headers,
        query: query_matches(spec.query_parameters.as_deref()),
        grpc: false,
    }
}

fn grpc_match(spec: &GrpcRouteMatch) -> RouteMatch {
    RouteMatch {
        path: grpc_path(spec.service_name.as_deref(), spec.method_name.as_deref()),
        headers: header_matches(spec.metadata.as_deref()),
        query: Vec::new(),
        grpc: true,
    }
}

/// `/service/method`, `/service/` or everything.
pub fn grpc_path(service: Option<&str>, method: Option<&str>) -> PathMatch {
    match (service, method) {
        (Some(service), Some(method)) => PathMatch::Exact(format!("/{service}/{method}")),
        (Some(service), None) => PathMatch::Prefix(format!("/{service}/")),
        (None, _) => PathMatch::Prefix("/".to_owned()),
    }
}

/// A whole-path condition before a prefix; neither is every path.
pub fn path_match(
    path: Option<&pillion_config::matching::PathMatch>,
    prefix: Option<&str>,
) -> PathMatch {
    match path {
        Some(pillion_config::matching::PathMatch {
            exact: Some(exact), ..
        }) => PathMatch::Exact(exact.clone()),
        Some(pillion_config::matching::PathMatch {
            regex: Some(regex), ..
        }) => PathMatch::Regex(regex.clone()),
        Some(_) | None => PathMatch::Prefix(prefix.unwrap_or("/").to_owned()),
    }
}

/// An equality condition on a header or pseudo header.
pub fn exact_header(name: &str, value: &str) -> HeaderMatch {
    HeaderMatch {
        name: name.to_owned(),
        value: HeaderValueMatch::Exact(value.to_owned()),
        invert: false,
    }
}

/// Conditions on headers, or on gRPC metadata, which are headers on the wire.
pub fn header_matches(conditions: Option<&[HeaderCondition]>) -> Vec<HeaderMatch> {
    let one = |condition: &HeaderCondition| HeaderMatch {
        name: condition.name.to_ascii_lowercase(),
        value: match &condition.method {
            None => HeaderValueMatch::Present,
            Some(HeaderMethod::Exact(text)) => HeaderValueMatch::Exact(text.clone()),
            Some(HeaderMethod::Prefix(text)) => HeaderValueMatch::Prefix(text.clone()),
            Some(HeaderMethod::Suffix(text)) => HeaderValueMatch::Suffix(text.clone()),
            Some(HeaderMethod::Regex(text)) => HeaderValueMatch::Regex(text.clone()),
            Some(HeaderMethod::Range(range)) => HeaderValueMatch::Range(range.start, range.end),
        },
        invert: condition.inverted(),
    };
    conditions.unwrap_or_default().iter().map(one).collect()
}

/// Conditions on query parameters.
pub fn query_matches(conditions: Option<&[QueryParameter]>) -> Vec<QueryMatch> {
    let one = |condition: &QueryParameter| QueryMatch {
        name: condition.name.clone(),
        exact: condition.exact().map(str::to_owned),
    };
    conditions.unwrap_or_default().iter().map(one).collect()
}

/// What App Mesh did on every route without a policy of its own since July 2020, and never showed in its API.
pub fn default_retry() -> RetryPolicy {
    RetryPolicy {
        on: vec![
            RetryOn::ConnectFailure,
            RetryOn::RefusedStream,
            RetryOn::Reset,
            RetryOn::Unavailable,
            RetryOn::StatusCodes,
        ],
        status_codes: vec![503],
        max_retries: 2,
        per_try_timeout: None,
    }
}

/// What App Mesh meant by `server-error`: Envoy's `5xx` would add every other code of that class.
const SERVER_ERRORS: [u16; 11] = [500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511];

/// An explicit policy replaces the default as a whole; `maxRetries: 0` is the way to switch it off.
fn retry_policy(spec: &RetrySpec) -> Option<RetryPolicy> {
    let mut policy = RetryPolicy {
        on: Vec::new(),
        status_codes: Vec::new(),
        max_retries: u32::try_from(spec.max_retries).unwrap_or(u32::MAX),
        per_try_timeout: Some(spec.per_retry_timeout.to_std()).filter(|limit| !limit.is_zero()),
    };
    let mut add = |one: RetryOn| {
        if !policy.on.contains(&one) {
            policy.on.push(one);
        }
    };
    for event in spec.http_retry_events.iter().flatten() {
        match event.as_str() {
            "server-error" => {
                add(RetryOn::StatusCodes);
                add(RetryOn::Reset);
                policy.status_codes = SERVER_ERRORS.to_vec();
            }
            "gateway-error" => {
                add(RetryOn::GatewayError);
                add(RetryOn::Reset);
            }
            "client-error" => add(RetryOn::Retriable4xx),
            "stream-error" => add(RetryOn::RefusedStream),
            _ => {}
        }
    }
    if spec
        .tcp_retry_events
        .as_ref()
        .is_some_and(|events| !events.is_empty())
    {
        add(RetryOn::ConnectFailure);
    }
    for event in spec.grpc_retry_events.iter().flatten() {
        add(match event {
            GrpcRetryEvent::Cancelled => RetryOn::Cancelled,
            GrpcRetryEvent::DeadlineExceeded => RetryOn::DeadlineExceeded,
            GrpcRetryEvent::Internal => RetryOn::Internal,
            GrpcRetryEvent::ResourceExhausted => RetryOn::ResourceExhausted,
            GrpcRetryEvent::Unavailable => RetryOn::Unavailable,
        });
    }
    (policy.max_retries > 0 && !policy.on.is_empty()).then_some(policy)
}

fn unknown_events<'a>(route: &RouteView<'a>) -> Vec<&'a str> {
    let policy = match route.spec.rule() {
        Some(RuleSpec::Http(spec)) => spec.retry_policy.as_ref(),
        Some(RuleSpec::Grpc(spec)) => spec.retry_policy.as_ref(),
        Some(RuleSpec::Tcp(_)) | None => None,
    };
    let known = [
        "server-error",
        "gateway-error",
        "client-error",
        "stream-error",
    ];
    let events = policy
        .and_then(|policy| policy.http_retry_events.as_ref())
        .into_iter()
        .flatten();
    events
        .map(String::as_str)
        .filter(|event| !known.contains(event))
        .collect()
}
