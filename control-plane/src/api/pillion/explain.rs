// SPDX-License-Identifier: Apache-2.0
//! `POST /explain`: what becomes of a request, and why. Every rule that would be tried, in the proxy's order, with the
//! condition that failed; the route that is taken, its weights, and where they lead. Answered from the very resources
//! that the proxy is sent, by the semantics of `pillion_xds::route`; nothing is sent anywhere.

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Uri;
use pillion_xds::cluster::Cluster;
use pillion_xds::cluster::Discovery;
use pillion_xds::endpoint::ClusterLoadAssignment;
use pillion_xds::resource::Resource;
use pillion_xds::route::Action;
use pillion_xds::route::HeaderMatch;
use pillion_xds::route::HeaderValueMatch;
use pillion_xds::route::PathMatch;
use pillion_xds::route::QueryMatch;
use pillion_xds::route::Route;
use pillion_xds::route::RouteConfiguration;
use pillion_xds::route::VirtualHost;
use pillion_xds::route::full_match;
use serde_json::Value;
use serde_json::json;

use super::Call;
use super::problem;
use super::text;
use crate::access::Wish;
use crate::api::error::ApiError;
use crate::publish;
use crate::translate::Translation;

/// A request as the proxy sees it.
struct Asked {
    method: String,
    scheme: String,
    authority: String,
    host: String,
    port: u16,
    path: String,
    query: Vec<(String, String)>,
    headers: HeaderMap,
}

pub(super) fn explain(call: &Call) -> Result<Value, ApiError> {
    let body = call.body(&["source", "method", "url", "headers"])?;
    let asked = Asked::parse(&body)?;
    let source = text(&body, "source")?;
    let api = &call.api;
    let key = if source.starts_with("arn:") {
        api.find_arn(source, "source", &call.asked, Wish::Read)?
    } else {
        let arn = format!(
            "arn:aws:appmesh:{}:{}:{source}",
            api.access.region,
            call.asked.caller.account()
        );
        api.find_arn(&arn, "source", &call.asked, Wish::Read)?
    };
    let model = api.live.current();
    let domain = api.publisher.trust_domain();
    let Some(sent) = publish::translated(model.resources(), domain, &key) else {
        return Err(problem(
            "source",
            "must be a virtual node or gateway: only they have proxies",
        ));
    };
    let mut answer = json!({
        "source": key.id(),
        "revision": model.revision(),
        "request": {
            "method": asked.method, "scheme": asked.scheme, "authority": asked.authority, "path": asked.path,
        },
        "findings": sent.findings,
    });
    answer["explanation"] = told(
        &sent,
        &asked,
        key.kind == pillion_config::Kind::VirtualGateway,
    );
    Ok(answer)
}

impl Asked {
    fn parse(body: &Value) -> Result<Asked, ApiError> {
        let url = text(body, "url")?;
        let uri: Uri = url
            .parse()
            .map_err(|error| problem("url", format!("is no URL: {error}")))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(problem(
                "url",
                "must be absolute, as in http://catalog.local:8080/items?id=7",
            ));
        };
        let port = uri
            .port_u16()
            .unwrap_or(if scheme == "https" { 443 } else { 80 });
        let mut headers = HeaderMap::new();
        for (name, value) in body["headers"].as_object().into_iter().flatten() {
            let wrong = || {
                problem(
                    &format!("headers.{name:.60}"),
                    "must be a header name with a text",
                )
            };
            let value = value.as_str().ok_or_else(wrong)?;
            let name = HeaderName::try_from(name.as_str()).map_err(|_| wrong())?;
            headers.append(name, HeaderValue::from_str(value).map_err(|_| wrong())?);
        }
        let query = super::super::query::Query::parse(uri.query())?;
        Ok(Asked {
            method: body
                .get("method")
                .and_then(Value::as_str)
                .unwrap_or("GET")
                .to_owned(),
            scheme: scheme.to_owned(),
            authority: authority.as_str().to_ascii_lowercase(),
            host: authority.host().to_ascii_lowercase(),
            port,
            path: uri.path().to_owned(),
            query: query.into_pairs(),
            headers,
        })
    }
}

/// The tables of a sidecar's egress go by port, that of a gateway by its listener's.
fn told(sent: &Translation, asked: &Asked, gateway: bool) -> Value {
    let table_name = if gateway {
        crate::translate::route::ingress_name(asked.port)
    } else {
        crate::translate::route::egress_name(asked.port)
    };
    let tables: Vec<&RouteConfiguration> = sent
        .resources
        .iter()
        .filter_map(|resource| match resource {
            Resource::Route(table) => Some(table),
            _ => None,
        })
        .collect();
    let explicit = crate::translate::route::egress_name(crate::translate::route::EXPLICIT_PORT);
    let found = tables
        .iter()
        .find(|table| table.name == table_name)
        .or_else(|| {
            tables
                .iter()
                .find(|table| !gateway && table.name == explicit)
        });
    let Some(table) = found else {
        return json!({
            "outcome": format!("no listener for port {}", asked.port),
            "tables": tables.iter().map(|table| &table.name).collect::<Vec<_>>(),
        });
    };
    let Some(host) = virtual_host(table, asked) else {
        let known: Vec<&String> = table
            .virtual_hosts
            .iter()
            .flat_map(|host| &host.domains)
            .collect();
        return json!({
            "outcome": "no virtual host answers to this authority: 404 under DROP_ALL, passed through under ALLOW_ALL",
            "table": table.name,
            "knownHosts": known,
        });
    };
    let mut tried = Vec::new();
    let mut chosen = None;
    for route in &host.routes {
        match lost(route, asked) {
            Some(why) => tried.push(json!({"route": route.name, "matched": false, "why": why})),
            None => {
                tried.push(json!({"route": route.name, "matched": true}));
                chosen = Some(route);
                break;
            }
        }
    }
    let not_reached: Vec<&String> = host
        .routes
        .iter()
        .skip(tried.len())
        .map(|route| &route.name)
        .collect();
    json!({
        "outcome": if chosen.is_some() { "routed" } else { "no route matches: 404" },
        "table": table.name,
        "virtualHost": host.name,
        "tried": tried,
        "notReached": not_reached,
        "chosen": chosen.map(|route| taken(route, sent)),
    })
}

/// Envoy's precedence: exact, longest suffix, longest prefix, any. An authority without a port is also looked up as is.
fn virtual_host<'t>(table: &'t RouteConfiguration, asked: &Asked) -> Option<&'t VirtualHost> {
    let rank = |domain: &str, name: &str| -> Option<(u8, usize)> {
        let domain = domain.to_ascii_lowercase();
        let longer = |part: &str| name.len() > part.len();
        match (domain.strip_prefix('*'), domain.strip_suffix('*')) {
            (Some(""), _) => Some((0, 0)),
            (Some(suffix), _) => {
                (name.ends_with(suffix) && longer(suffix)).then_some((2, suffix.len()))
            }
            (None, Some(prefix)) => {
                (name.starts_with(prefix) && longer(prefix)).then_some((1, prefix.len()))
            }
            (None, None) => (domain == name).then_some((3, 0)),
        }
    };
    let with_port = format!("{}:{}", asked.host, asked.port);
    [asked.authority.as_str(), with_port.as_str()]
        .into_iter()
        .find_map(|name| {
            let ranked = table.virtual_hosts.iter().filter_map(|host| {
                let best = host
                    .domains
                    .iter()
                    .filter_map(|domain| rank(domain, name))
                    .max()?;
                Some((best, host))
            });
            ranked.max_by_key(|(best, _)| *best).map(|(_, host)| host)
        })
}

/// The first condition that does not hold.
fn lost(route: &Route, asked: &Asked) -> Option<String> {
    let matching = &route.matching;
    let path = &asked.path;
    let fits = match &matching.path {
        PathMatch::Prefix(prefix) => path.starts_with(prefix.as_str()),
        PathMatch::Exact(exact) => path == exact,
        PathMatch::Regex(pattern) => full_match(pattern).is_ok_and(|regex| regex.is_match(path)),
    };
    if !fits {
        return Some(format!(
            "path {path} is not {}",
            spoken_path(&matching.path)
        ));
    }
    let grpc = asked
        .headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if matching.grpc && !grpc {
        return Some("content-type is not application/grpc".to_owned());
    }
    matching
        .headers
        .iter()
        .find(|header| header_holds(header, asked) == header.invert)
        .map(|header| {
            let not = if header.invert { "" } else { "not " };
            let found = value_of(&header.name, asked)
                .map_or("absent".to_owned(), |value| format!("`{value}`"));
            format!(
                "header {} is {found}, which is {not}{}",
                header.name,
                spoken_value(&header.value)
            )
        })
        .or_else(|| {
            let absent = |parameter: &&QueryMatch| !query_holds(parameter, asked);
            matching
                .query
                .iter()
                .find(absent)
                .map(|parameter| match &parameter.exact {
                    Some(exact) => format!("query parameter {} is not `{exact}`", parameter.name),
                    None => format!("query parameter {} is absent", parameter.name),
                })
        })
}

fn value_of(name: &str, asked: &Asked) -> Option<String> {
    match name {
        ":method" => Some(asked.method.clone()),
        ":scheme" => Some(asked.scheme.clone()),
        ":authority" | "host" => Some(asked.authority.clone()),
        ":path" => Some(asked.path.clone()),
        name => {
            let lines: Vec<&str> = asked
                .headers
                .get_all(name)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .collect();
            (!lines.is_empty()).then(|| lines.join(","))
        }
    }
}

fn header_holds(header: &HeaderMatch, asked: &Asked) -> bool {
    let Some(value) = value_of(&header.name, asked) else {
        return false;
    };
    match &header.value {
        HeaderValueMatch::Present => true,
        HeaderValueMatch::Exact(exact) => value == *exact,
        HeaderValueMatch::Prefix(prefix) => value.starts_with(prefix.as_str()),
        HeaderValueMatch::Suffix(suffix) => value.ends_with(suffix.as_str()),
        HeaderValueMatch::Regex(pattern) => {
            full_match(pattern).is_ok_and(|regex| regex.is_match(&value))
        }
        HeaderValueMatch::Range(start, end) => value
            .parse::<i64>()
            .is_ok_and(|number| (*start..*end).contains(&number)),
    }
}

fn query_holds(parameter: &QueryMatch, asked: &Asked) -> bool {
    let first = asked.query.iter().find(|(name, _)| *name == parameter.name);
    first.is_some_and(|(_, value)| parameter.exact.as_ref().is_none_or(|exact| exact == value))
}

fn spoken_path(path: &PathMatch) -> String {
    match path {
        PathMatch::Prefix(prefix) => format!("under prefix {prefix}"),
        PathMatch::Exact(exact) => format!("exactly {exact}"),
        PathMatch::Regex(pattern) => format!("matched by regex {pattern}"),
    }
}

fn spoken_value(value: &HeaderValueMatch) -> String {
    match value {
        HeaderValueMatch::Present => "present".to_owned(),
        HeaderValueMatch::Exact(exact) => format!("exactly `{exact}`"),
        HeaderValueMatch::Prefix(prefix) => format!("beginning with `{prefix}`"),
        HeaderValueMatch::Suffix(suffix) => format!("ending with `{suffix}`"),
        HeaderValueMatch::Regex(pattern) => format!("matched by regex {pattern}"),
        HeaderValueMatch::Range(start, end) => format!("a number from {start} up to {end}"),
    }
}

fn taken(route: &Route, sent: &Translation) -> Value {
    match &route.action {
        Action::Respond { status, body } => {
            json!({"route": route.name, "answers": status, "body": body})
        }
        Action::Forward(forward) => {
            let total: u64 = forward
                .clusters
                .iter()
                .map(|cluster| u64::from(cluster.weight))
                .sum();
            let clusters: Vec<Value> = forward
                .clusters
                .iter()
                .map(|weighted| {
                    let share = f64::from(weighted.weight) / (total.max(1) as f64);
                    let cluster = sent.resources.iter().find_map(|resource| match resource {
                        Resource::Cluster(cluster) if cluster.name == weighted.name => {
                            Some(cluster)
                        }
                        _ => None,
                    });
                    json!({
                        "cluster": weighted.name,
                        "weight": weighted.weight,
                        "share": share,
                        "endpoints": cluster.map(|cluster| endpoints(cluster, sent)),
                    })
                })
                .collect();
            json!({
                "route": route.name,
                "clusters": clusters,
                "timeoutMs": forward.timeout.as_millis() as u64,
                "retries": forward.retry.as_ref().map(|retry| {
                    let on: Vec<String> = retry.on.iter().map(|on| format!("{on:?}")).collect();
                    json!({"atMost": retry.max_retries, "on": on, "perTryTimeoutMs": retry.per_try_timeout.map(|limit| limit.as_millis() as u64)})
                }),
                "note": (total == 0).then_some("all weights are zero: 503"),
            })
        }
    }
}

fn endpoints(cluster: &Cluster, sent: &Translation) -> Value {
    let listed = |found: &ClusterLoadAssignment| -> Vec<Value> {
        let places = found.localities.iter();
        let endpoints =
            places.flat_map(|place| place.endpoints.iter().map(move |one| (place, one)));
        endpoints
            .map(|(place, one)| {
                let health = format!("{:?}", one.health).to_lowercase();
                json!({"host": one.host, "port": one.port, "zone": place.zone, "health": health})
            })
            .collect()
    };
    match &cluster.discovery {
        Discovery::Static(found) => json!({"from": "address", "hosts": listed(found)}),
        Discovery::StrictDns(found) => {
            json!({"from": "every address in DNS", "hosts": listed(found)})
        }
        Discovery::LogicalDns(found) => {
            json!({"from": "one address in DNS at a time", "hosts": listed(found)})
        }
        Discovery::OriginalDestination => {
            json!({"from": "where the connection was going", "hosts": []})
        }
        Discovery::Eds(service) => {
            let name = service.as_deref().unwrap_or(&cluster.name);
            let found = sent.resources.iter().find_map(|resource| match resource {
                Resource::Endpoint(found) if found.cluster_name == name => Some(found),
                _ => None,
            });
            json!({"from": "registry", "hosts": found.map(listed).unwrap_or_default()})
        }
    }
}
