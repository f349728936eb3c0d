// SPDX-License-Identifier: Apache-2.0
//! A gateway route laid over the routes of the virtual service behind it. App Mesh's gateway sends each request to
//! itself a second time, so that the routes of the service see the rewritten path; here both decisions are folded into
//! one table that reads the path as it came, and a request crosses the gateway once. Pure; called by `route.rs`.
//!
//! What cannot be folded exactly (a regular expression over a path whose prefix was replaced by another than `/`) is
//! left out and reported, not approximated.

use pillion_xds::route::Action;
use pillion_xds::route::HeaderMatch;
use pillion_xds::route::HeaderValueMatch;
use pillion_xds::route::PathMatch;
use pillion_xds::route::PathRewrite;
use pillion_xds::route::Route;
use pillion_xds::route::RouteMatch;

/// The gateway's half: when it applies and what it changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// Name of the gateway route.
    pub name: String,
    /// Its conditions, host excepted.
    pub matching: RouteMatch,
    /// What becomes of the path.
    pub path: PathChange,
    /// What becomes of the authority.
    pub host_rewrite: Option<String>,
}

/// What a gateway route does to the path.
#[derive(Clone, Debug, PartialEq)]
pub enum PathChange {
    /// Nothing.
    Keep,
    /// The matched prefix becomes this.
    Prefix(String),
    /// The whole path becomes this.
    Whole(String),
}

/// The routes that do what `gate` and then `inner` would do, and what could not be folded.
pub fn compose(gate: &Gate, inner: &[Route]) -> (Vec<Route>, Vec<String>) {
    let (mut routes, mut left_out) = (Vec::new(), Vec::new());
    for route in inner {
        match compose_one(gate, route) {
            Ok(composed) => routes.extend(composed),
            Err(why) => left_out.push(format!(
                "gateway route {:?} over route {:?}: {why}",
                gate.name, route.name
            )),
        }
    }
    if !inner.iter().any(|route| takes_all(gate, &route.matching)) {
        // The request belongs to this gateway route and its service has no route for it. Falling through to the next
        // gateway route would hand it to a service that the user did not name.
        routes.push(Route {
            name: gate.name.clone(),
            matching: gate.matching.clone(),
            action: Action::Respond {
                status: 404,
                body: String::new(),
            },
        });
    }
    (routes, left_out)
}

fn compose_one(gate: &Gate, inner: &Route) -> Result<Vec<Route>, String> {
    let Some(headers) = both(&gate.matching.headers, &inner.matching.headers) else {
        return Ok(Vec::new());
    };
    let mut query = gate.matching.query.clone();
    query.extend(
        inner
            .matching
            .query
            .iter()
            .filter(|one| !gate.matching.query.contains(one))
            .cloned(),
    );
    let composed = compose_path(&gate.matching.path, &gate.path, &inner.matching.path)?;
    let route = |composed: Composed| Route {
        name: if gate.name == inner.name {
            inner.name.clone()
        } else {
            format!("{}/{}", gate.name, inner.name)
        },
        matching: RouteMatch {
            path: composed.path,
            headers: headers.iter().cloned().chain(composed.also).collect(),
            query: query.clone(),
            grpc: gate.matching.grpc || inner.matching.grpc,
        },
        action: match &inner.action {
            Action::Forward(forward) => {
                let mut forward = forward.clone();
                forward.rewrite = composed.rewrite;
                forward.host_rewrite.clone_from(&gate.host_rewrite);
                Action::Forward(forward)
            }
            respond @ Action::Respond { .. } => respond.clone(),
        },
    };
    Ok(composed.into_iter().map(route).collect())
}

/// Both lists at once; `None` if they contradict each other on the method.
fn both(outer: &[HeaderMatch], inner: &[HeaderMatch]) -> Option<Vec<HeaderMatch>> {
    let method = |list: &[HeaderMatch]| {
        list.iter()
            .find(|one| one.name == ":method" && !one.invert)
            .map(|one| one.value.clone())
    };
    if let (Some(one), Some(other)) = (method(outer), method(inner))
        && one != other
    {
        return None;
    }
    let mut all = outer.to_vec();
    all.extend(inner.iter().filter(|one| !outer.contains(one)).cloned());
    Some(all)
}

/// Whether `inner` takes every request that `gate` lets through.
fn takes_all(gate: &Gate, inner: &RouteMatch) -> bool {
    let path = match (&inner.path, &gate.path, &gate.matching.path) {
        (PathMatch::Prefix(prefix), _, _) if prefix == "/" => true,
        (PathMatch::Prefix(prefix), PathChange::Prefix(to), _) => to.starts_with(prefix),
        (
            PathMatch::Prefix(prefix),
            PathChange::Keep,
            PathMatch::Prefix(outer) | PathMatch::Exact(outer),
        ) => outer.starts_with(prefix),
        (inner, PathChange::Whole(path), _) | (inner, PathChange::Keep, PathMatch::Exact(path)) => {
            accepts(inner, path)
        }
        (PathMatch::Prefix(_) | PathMatch::Exact(_) | PathMatch::Regex(_), _, _) => false,
    };
    let subset = inner
        .headers
        .iter()
        .all(|one| gate.matching.headers.contains(one))
        && inner
            .query
            .iter()
            .all(|one| gate.matching.query.contains(one));
    path && subset && (gate.matching.grpc || !inner.grpc)
}

/// One condition over the path as received, what `:path` must satisfy besides, and how the path is changed.
#[derive(Clone, Debug, PartialEq)]
struct Composed {
    path: PathMatch,
    also: Option<HeaderMatch>,
    rewrite: Option<PathRewrite>,
}

impl Composed {
    fn plain(path: PathMatch) -> Composed {
        Composed {
            path,
            also: None,
            rewrite: None,
        }
    }

    fn to(path: PathMatch, rewrite: impl Into<String>) -> Composed {
        Composed {
            path,
            also: None,
            rewrite: Some(PathRewrite::Prefix(rewrite.into())),
        }
    }
}

fn compose_path(
    outer: &PathMatch,
    change: &PathChange,
    inner: &PathMatch,
) -> Result<Vec<Composed>, String> {
    match (outer, change) {
        (PathMatch::Prefix(from), PathChange::Prefix(to)) if from != to => {
            replaced_prefix(from, to, inner)
        }
        (_, PathChange::Keep | PathChange::Prefix(_)) => Ok(kept(outer, inner)),
        (_, PathChange::Whole(path)) => Ok(if accepts(inner, path) {
            vec![whole(outer, path)]
        } else {
            Vec::new()
        }),
    }
}

/// The path stays as it is: both conditions hold for the same text.
fn kept(outer: &PathMatch, inner: &PathMatch) -> Vec<Composed> {
    match (outer, inner) {
        (PathMatch::Prefix(one), PathMatch::Prefix(other)) => {
            let (short, long) = if one.len() <= other.len() {
                (one, other)
            } else {
                (other, one)
            };
            if long.starts_with(short.as_str()) {
                vec![Composed::plain(PathMatch::Prefix(long.clone()))]
            } else {
                Vec::new()
            }
        }
        (PathMatch::Exact(path), other) | (other, PathMatch::Exact(path)) => {
            if accepts(other, path) {
                vec![Composed::plain(PathMatch::Exact(path.clone()))]
            } else {
                Vec::new()
            }
        }
        (PathMatch::Regex(pattern), PathMatch::Prefix(prefix))
        | (PathMatch::Prefix(prefix), PathMatch::Regex(pattern)) => {
            let also =
                (prefix != "/").then(|| path_header(HeaderValueMatch::Prefix(prefix.clone())));
            vec![Composed {
                also,
                ..Composed::plain(PathMatch::Regex(pattern.clone()))
            }]
        }
        (PathMatch::Regex(one), PathMatch::Regex(other)) => {
            // `:path` carries the query string, which a path condition does not see.
            let also = (one != other)
                .then(|| path_header(HeaderValueMatch::Regex(format!("(?:{other})(?:\\?.*)?"))));
            vec![Composed {
                also,
                ..Composed::plain(PathMatch::Regex(one.clone()))
            }]
        }
    }
}

fn path_header(value: HeaderValueMatch) -> HeaderMatch {
    HeaderMatch {
        name: ":path".to_owned(),
        value,
        invert: false,
    }
}

/// The whole path becomes `path`, whatever `outer` matched.
fn whole(outer: &PathMatch, path: &str) -> Composed {
    let rewrite = match outer {
        PathMatch::Exact(_) => PathRewrite::Prefix(path.to_owned()),
        PathMatch::Prefix(_) | PathMatch::Regex(_) => PathRewrite::Regex {
            pattern: "^.*$".to_owned(),
            substitution: path.replace('\\', "\\\\"),
        },
    };
    Composed {
        path: outer.clone(),
        also: None,
        rewrite: Some(rewrite),
    }
}

/// The prefix `from` becomes `to`. Where `to` ends in a slash and `from` does not, `from/x` must become `to` + `x`
/// (never `to//x`), so the paths fall into two groups: `from/…`, and `from` itself with what else begins like it.
fn replaced_prefix(from: &str, to: &str, inner: &PathMatch) -> Result<Vec<Composed>, String> {
    if from.ends_with('/') || !to.ends_with('/') {
        return replaced(from, to, inner);
    }
    let mut all = replaced(&format!("{from}/"), to, inner)?;
    // The second group reaches only conditions that `to` itself satisfies: `/color` + `/tell` is `/color/tell`, and
    // nobody means `/colortell` by it.
    match inner {
        PathMatch::Prefix(prefix) if to.starts_with(prefix.as_str()) => {
            all.push(Composed::to(PathMatch::Prefix(from.to_owned()), to));
        }
        PathMatch::Exact(_) | PathMatch::Regex(_) if accepts(inner, to) => {
            all.push(Composed::to(PathMatch::Exact(from.to_owned()), to));
        }
        PathMatch::Prefix(_) | PathMatch::Exact(_) | PathMatch::Regex(_) => {}
    }
    Ok(all)
}

/// `from` + x becomes `to` + x for any x.
fn replaced(from: &str, to: &str, inner: &PathMatch) -> Result<Vec<Composed>, String> {
    Ok(match inner {
        PathMatch::Prefix(prefix) => match prefix.strip_prefix(to) {
            Some(rest) => vec![Composed::to(
                PathMatch::Prefix(format!("{from}{rest}")),
                prefix.as_str(),
            )],
            None if to.starts_with(prefix.as_str()) => {
                vec![Composed::to(PathMatch::Prefix(from.to_owned()), to)]
            }
            None => Vec::new(),
        },
        PathMatch::Exact(path) => match path.strip_prefix(to) {
            Some(rest) => vec![Composed::to(
                PathMatch::Exact(format!("{from}{rest}")),
                path.as_str(),
            )],
            None => Vec::new(),
        },
        PathMatch::Regex(pattern) => {
            let Some(base) = from.strip_suffix('/').filter(|_| to == "/") else {
                return Err(format!(
                    "a regular expression cannot be matched behind the prefix rewrite {from:?} to {to:?}; \
                     rewrite to \"/\", or match the route by prefix or exact path"
                ));
            };
            let rewrite = PathRewrite::Regex {
                pattern: format!("^{}", regex::escape(from)),
                substitution: "/".to_owned(),
            };
            let path = PathMatch::Regex(format!("{}(?:{pattern})", regex::escape(base)));
            vec![Composed {
                path,
                also: None,
                rewrite: Some(rewrite),
            }]
        }
    })
}

/// Whether the condition holds for this very path.
fn accepts(condition: &PathMatch, path: &str) -> bool {
    match condition {
        PathMatch::Prefix(prefix) => path.starts_with(prefix.as_str()),
        PathMatch::Exact(exact) => path == exact,
        PathMatch::Regex(pattern) => {
            regex::Regex::new(&format!("^(?:{pattern})$")).is_ok_and(|regex| regex.is_match(path))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> PathMatch {
        PathMatch::Prefix(text.into())
    }

    fn exact(text: &str) -> PathMatch {
        PathMatch::Exact(text.into())
    }

    fn regex(text: &str) -> PathMatch {
        PathMatch::Regex(text.into())
    }

    fn to_root() -> PathChange {
        PathChange::Prefix("/".into())
    }

    fn folded(outer: &PathMatch, change: &PathChange, inner: &PathMatch) -> Vec<Composed> {
        compose_path(outer, change, inner).unwrap()
    }

    #[test]
    fn the_matched_prefix_becomes_one_slash_not_two() {
        let all = folded(&prefix("/chapter"), &to_root(), &prefix("/"));
        assert_eq!(
            all,
            [
                Composed::to(prefix("/chapter/"), "/"),
                Composed::to(prefix("/chapter"), "/")
            ]
        );
        assert_eq!(
            folded(&prefix("/chapter/"), &to_root(), &prefix("/")),
            [Composed::to(prefix("/chapter/"), "/")]
        );
    }

    #[test]
    fn a_route_of_the_service_sees_the_rewritten_path() {
        assert_eq!(
            folded(&prefix("/color1"), &to_root(), &prefix("/tell")),
            [Composed::to(prefix("/color1/tell"), "/tell")]
        );
        assert_eq!(
            folded(&prefix("/color1"), &to_root(), &exact("/tell")),
            [Composed::to(exact("/color1/tell"), "/tell")]
        );
        let all = folded(&prefix("/color1"), &to_root(), &exact("/"));
        assert_eq!(
            all,
            [
                Composed::to(exact("/color1/"), "/"),
                Composed::to(exact("/color1"), "/")
            ]
        );
        assert_eq!(
            folded(
                &prefix("/a/"),
                &PathChange::Prefix("/b/".into()),
                &prefix("/b/c")
            ),
            [Composed::to(prefix("/a/c"), "/b/c")]
        );
        assert_eq!(
            folded(
                &prefix("/a/"),
                &PathChange::Prefix("/b/".into()),
                &prefix("/c")
            ),
            []
        );
    }

    #[test]
    fn a_kept_path_must_satisfy_both() {
        assert_eq!(
            folded(&prefix("/a"), &PathChange::Keep, &prefix("/a/b")),
            [Composed::plain(prefix("/a/b"))]
        );
        assert_eq!(
            folded(&prefix("/a/b"), &PathChange::Keep, &prefix("/a")),
            [Composed::plain(prefix("/a/b"))]
        );
        assert_eq!(folded(&prefix("/a"), &PathChange::Keep, &prefix("/b")), []);
        assert_eq!(
            folded(&exact("/a"), &PathChange::Keep, &regex("/[a-z]")),
            [Composed::plain(exact("/a"))]
        );
        let both = folded(&regex("/[a-z]+/x"), &PathChange::Keep, &prefix("/a"));
        assert_eq!(
            both[0].also,
            Some(path_header(HeaderValueMatch::Prefix("/a".into())))
        );
    }

    #[test]
    fn a_regular_expression_is_moved_behind_the_prefix_where_that_is_exact() {
        let all = folded(&prefix("/api"), &to_root(), &regex("/users/[0-9]+"));
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].path, regex("/api(?:/users/[0-9]+)"));
        assert!(
            compose_path(
                &prefix("/api"),
                &PathChange::Prefix("/v2/".into()),
                &regex("/v2/.*")
            )
            .is_err()
        );
    }

    #[test]
    fn an_exact_rewrite_decides_the_inner_route_at_once() {
        let all = folded(
            &exact("/old"),
            &PathChange::Whole("/new".into()),
            &prefix("/new"),
        );
        assert_eq!(all, [Composed::to(exact("/old"), "/new")]);
        assert_eq!(
            folded(
                &exact("/old"),
                &PathChange::Whole("/new".into()),
                &prefix("/old")
            ),
            []
        );
    }

    fn forward(name: &str, path: PathMatch) -> Route {
        Route {
            name: name.into(),
            matching: RouteMatch {
                path,
                headers: vec![],
                query: vec![],
                grpc: false,
            },
            action: Action::Respond {
                status: 200,
                body: name.into(),
            },
        }
    }

    fn gate(path: PathMatch, change: PathChange) -> Gate {
        let matching = RouteMatch {
            path,
            headers: vec![],
            query: vec![],
            grpc: false,
        };
        Gate {
            name: "gr".into(),
            matching,
            path: change,
            host_rewrite: Some("web.local".into()),
        }
    }

    #[test]
    fn what_the_service_has_no_route_for_is_404_and_not_the_next_gateway_route() {
        let (routes, _) = compose(
            &gate(prefix("/a"), to_root()),
            &[forward("r", prefix("/x"))],
        );
        assert_eq!(routes.len(), 2);
        assert_eq!(
            routes[1].action,
            Action::Respond {
                status: 404,
                body: String::new()
            }
        );
        let (routes, _) = compose(&gate(prefix("/a"), to_root()), &[forward("r", prefix("/"))]);
        assert!(routes.iter().all(|route| route.action
            != Action::Respond {
                status: 404,
                body: String::new()
            }));
    }

    #[test]
    fn contradicting_methods_never_meet() {
        let method = |name: &str| HeaderMatch {
            name: ":method".into(),
            value: HeaderValueMatch::Exact(name.into()),
            invert: false,
        };
        let mut outer = gate(prefix("/"), PathChange::Keep);
        outer.matching.headers.push(method("GET"));
        let mut inner = forward("r", prefix("/"));
        inner.matching.headers.push(method("POST"));
        assert_eq!(compose(&outer, &[inner]).0.len(), 1);
    }
}
