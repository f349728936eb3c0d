// SPDX-License-Identifier: Apache-2.0
//! The rules that need one document but no table can say: members that depend on each other, texts with a grammar.
//!
//! Written over JSON rather than over the typed specs, so that a document with wrong types still hears of everything
//! else; each rule looks only at what has the right type, the table reports the rest. Called by `parse_spec` alone.

mod listener;
mod matching;

use serde_json::Value;

use crate::check::{self, exactly_one, present};
use crate::name::Kind;
use crate::problem::{Problem, join};
use crate::shapes;

/// Every rule that `document`, the spec of a `kind`, breaks.
pub(crate) fn broken(kind: Kind, document: &Value, path: &str) -> Vec<Problem> {
    let mut found = Findings(Vec::new());
    check::visit(
        shapes::spec_of(kind),
        document,
        path,
        &mut |shape, value, path| {
            apply(
                shape.name,
                &At {
                    value,
                    path: path.to_owned(),
                },
                &mut found,
            );
        },
    );
    found.0
}

/// The list of rules by shape: what a shape must hold beyond the table stands beside its name here.
fn apply(shape: &str, at: &At<'_>, found: &mut Findings) {
    match shape {
        "VirtualNodeSpec" => {
            listener::needs_discovery(at, found);
            listener::ports_differ(at, found);
            backends_differ(at, found);
        }
        "VirtualRouterSpec" | "VirtualGatewaySpec" => listener::ports_differ(at, found),
        "RouteSpec" => at.exactly_one(&["httpRoute", "http2Route", "grpcRoute", "tcpRoute"], found),
        "GatewayRouteSpec" => at.exactly_one(&["httpRoute", "http2Route", "grpcRoute"], found),
        "Listener" | "VirtualGatewayListener" => listener::agrees_with_protocol(at, found),
        "DnsServiceDiscovery" => hostname_is_one(at, found),
        "Duration" => duration_is_whole(at, found),
        "HttpRetryPolicy" | "GrpcRetryPolicy" => retries_on_something(at, found),
        "HttpRouteMatch" | "HttpGatewayRouteMatch" => matching::path_or_prefix(at, found),
        "HttpPathMatch" => matching::path(at, found),
        "HeaderName" => matching::header_name(at, found),
        "MatchRange" => matching::range(at, found),
        "HeaderMatchMethod" | "GrpcMetadataMatchMethod" | "GrpcRouteMetadataMatchMethod" => {
            matching::regex(at, found);
        }
        "GrpcRouteMatch" => matching::method_needs_service(at, found),
        "GatewayRouteHostnameMatch" => at.exactly_one(&["exact", "suffix"], found),
        "HttpGatewayRoute" => matching::rewrite_fits_match(at, found),
        "HttpGatewayRouteRewrite" => at.at_most_one(&["path", "prefix"], found),
        "HttpGatewayRoutePrefixRewrite" => matching::prefix_rewrite(at, found),
        "HttpGatewayRoutePathRewrite" => matching::begins_with_slash(at, "exact", found),
        _ => {}
    }
    match shape {
        "HttpGatewayRouteMatch" => matching::edge_path_is_free(at, found),
        "GrpcGatewayRouteMatch" => matching::edge_service_is_free(at, found),
        _ => {}
    }
}

/// What the rules found so far.
struct Findings(Vec<Problem>);

impl Findings {
    fn push(&mut self, at: &At<'_>, message: impl Into<String>) {
        self.0.push(Problem::new(at.path.as_str(), message));
    }
}

/// A place in the document.
struct At<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> At<'a> {
    /// The member, if it is there.
    fn get(&self, member: &str) -> Option<At<'a>> {
        let value = present(self.value, member)?;
        Some(At {
            value,
            path: join(&self.path, member),
        })
    }

    /// The place where a member would be.
    fn would_be(&self, member: &str) -> At<'a> {
        At {
            value: &Value::Null,
            path: join(&self.path, member),
        }
    }

    fn has(&self, member: &str) -> bool {
        present(self.value, member).is_some()
    }

    fn text(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    /// The member, if it is there and a text.
    fn text_at(&self, member: &str) -> Option<(At<'a>, &'a str)> {
        let at = self.get(member)?;
        let text = at.text()?;
        Some((at, text))
    }

    fn items(&self) -> impl Iterator<Item = At<'a>> {
        let items = self.value.as_array().into_iter().flatten().enumerate();
        items.map(|(index, value)| At {
            value,
            path: format!("{}[{index}]", self.path),
        })
    }

    fn given<'n>(&self, names: &[&'n str]) -> Vec<&'n str> {
        names
            .iter()
            .copied()
            .filter(|name| self.has(name))
            .collect()
    }

    fn exactly_one(&self, names: &[&str], found: &mut Findings) {
        let given = self.given(names);
        if self.value.is_object() && given.len() != 1 {
            found.push(self, exactly_one(names, &given));
        }
    }

    fn at_most_one(&self, names: &[&str], found: &mut Findings) {
        let given = self.given(names);
        if given.len() > 1 {
            found.push(
                self,
                format!(
                    "must have at most one of {}, has {}",
                    names.join(", "),
                    given.join(", ")
                ),
            );
        }
    }
}

fn backends_differ(spec: &At<'_>, found: &mut Findings) {
    let mut seen = std::collections::BTreeSet::new();
    for backend in spec.get("backends").iter().flat_map(At::items) {
        let name = backend
            .get("virtualService")
            .and_then(|service| service.get("virtualServiceName"));
        let Some((at, name)) = name.as_ref().and_then(|at| Some((at, at.text()?))) else {
            continue;
        };
        if !seen.insert(name) {
            found.push(at, format!("{} is a backend already", check::shown(name)));
        }
    }
}

/// RFC 1123 with underscores, which SRV-like names have, and a final dot; or an IP literal. The model says nothing, and
/// any other text could only fail later, at the resolver of every proxy that calls the node.
fn hostname_is_one(dns: &At<'_>, found: &mut Findings) {
    let Some((at, name)) = dns.text_at("hostname") else {
        return;
    };
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let bare = name.strip_suffix('.').unwrap_or(name);
    let good = name.parse::<std::net::IpAddr>().is_ok()
        || (bare.len() <= 253 && bare.split('.').all(label));
    if !good {
        let name = check::shown(name);
        found.push(
            &at,
            format!("must be a DNS name (letters, digits, hyphens; no scheme, no port) or an IP address, is {name}"),
        );
    }
}

/// The model leaves both members open; a number without its unit says nothing.
fn duration_is_whole(duration: &At<'_>, found: &mut Findings) {
    for member in ["unit", "value"] {
        if duration.value.is_object() && !duration.has(member) {
            found.push(&duration.would_be(member), "is required");
        }
    }
}

fn retries_on_something(policy: &At<'_>, found: &mut Findings) {
    let kinds = ["httpRetryEvents", "tcpRetryEvents", "grpcRetryEvents"];
    if policy.value.is_object() && policy.given(&kinds).is_empty() {
        found.push(policy, "must name at least one event to retry on, in httpRetryEvents, tcpRetryEvents or (gRPC) grpcRetryEvents");
    }
}

#[cfg(test)]
mod tests;
