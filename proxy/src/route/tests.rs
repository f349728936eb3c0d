// SPDX-License-Identifier: Apache-2.0
//! One rule of matching per test.

use std::time::Duration;

use http::HeaderMap;

use super::*;

fn forward(cluster: &str) -> xds::Action {
    xds::Action::Forward(Box::new(xds::Forward {
        clusters: vec![xds::WeightedCluster {
            name: cluster.to_owned(),
            weight: 1,
        }],
        timeout: Duration::from_secs(15),
        idle_timeout: None,
        retry: None,
        rewrite: None,
        host_rewrite: None,
    }))
}

fn route(name: &str, path: xds::PathMatch) -> xds::Route {
    xds::Route {
        name: name.to_owned(),
        matching: xds::RouteMatch {
            path,
            headers: Vec::new(),
            query: Vec::new(),
            grpc: false,
        },
        action: forward(name),
    }
}

fn prefix(path: &str) -> xds::PathMatch {
    xds::PathMatch::Prefix(path.to_owned())
}

fn host(name: &str, domains: &[&str], routes: Vec<xds::Route>) -> xds::VirtualHost {
    xds::VirtualHost {
        name: name.to_owned(),
        domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
        routes,
    }
}

fn table(hosts: Vec<xds::VirtualHost>) -> RouteTable {
    RouteTable::compile(Arc::new(xds::RouteConfiguration {
        name: "t".to_owned(),
        virtual_hosts: hosts,
    }))
    .unwrap()
}

fn one(routes: Vec<xds::Route>) -> RouteTable {
    table(vec![host("all", &["*"], routes)])
}

fn asked<'r>(path: &'r str, headers: &'r HeaderMap) -> Asked<'r> {
    let (path, query) = path
        .split_once('?')
        .map_or((path, None), |(path, query)| (path, Some(query)));
    Asked {
        path,
        query,
        method: "GET",
        scheme: "http",
        authority: "a",
        headers,
    }
}

fn found(
    table: &RouteTable,
    authority: &str,
    path: &str,
    headers: &HeaderMap,
) -> Result<String, NoMatch> {
    table
        .first_match(authority, &asked(path, headers))
        .map(|rule| rule.name.to_string())
}

fn path_found(table: &RouteTable, path: &str) -> Result<String, NoMatch> {
    found(table, "a", path, &HeaderMap::new())
}

fn with_header(value: xds::HeaderValueMatch, invert: bool) -> RouteTable {
    let mut wanted = route("wanted", prefix("/"));
    wanted.matching.headers = vec![xds::HeaderMatch {
        name: "x-a".to_owned(),
        value,
        invert,
    }];
    one(vec![wanted])
}

fn headers(values: &[&'static str]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for value in values {
        map.append("x-a", value.parse().unwrap());
    }
    map
}

fn header_found(table: &RouteTable, values: &[&'static str]) -> bool {
    found(table, "a", "/", &headers(values)).is_ok()
}

fn named(domains: &[(&str, &[&str])]) -> RouteTable {
    let all = domains
        .iter()
        .map(|(name, domains)| host(name, domains, vec![route(name, prefix("/"))]));
    table(all.collect())
}

fn host_found(table: &RouteTable, authority: &str) -> Result<String, NoMatch> {
    found(table, authority, "/", &HeaderMap::new())
}

#[test]
fn an_exact_domain_beats_every_wildcard() {
    let table = named(&[
        ("any", &["*"]),
        ("suffix", &["*.b.c"]),
        ("exact", &["a.b.c"]),
    ]);
    assert_eq!(host_found(&table, "a.b.c"), Ok("exact".to_owned()));
}

#[test]
fn the_longest_suffix_wildcard_wins_then_the_longest_prefix_then_any() {
    let table = named(&[
        ("any", &["*"]),
        ("short", &["*.c"]),
        ("long", &["*.b.c"]),
        ("prefix", &["x.*"]),
    ]);
    assert_eq!(host_found(&table, "a.b.c"), Ok("long".to_owned()));
    assert_eq!(host_found(&table, "a.d.c"), Ok("short".to_owned()));
    assert_eq!(host_found(&table, "x.d"), Ok("prefix".to_owned()));
    assert_eq!(host_found(&table, "other"), Ok("any".to_owned()));
}

#[test]
fn authorities_compare_without_case() {
    assert_eq!(
        host_found(&named(&[("a", &["Shop.Local"])]), "sHoP.lOcAl"),
        Ok("a".to_owned())
    );
}

#[test]
fn a_domain_with_a_port_matches_only_that_port() {
    let table = named(&[("with", &["shop:8080"]), ("without", &["shop"])]);
    assert_eq!(host_found(&table, "shop:8080"), Ok("with".to_owned()));
    assert_eq!(host_found(&table, "shop"), Ok("without".to_owned()));
    assert_eq!(host_found(&table, "shop:9"), Err(NoMatch::Host));
}

#[test]
fn an_unknown_host_and_an_unknown_path_are_told_apart() {
    let table = table(vec![host(
        "shop",
        &["shop"],
        vec![route("r", prefix("/a"))],
    )]);
    assert_eq!(
        found(&table, "other", "/a", &HeaderMap::new()),
        Err(NoMatch::Host)
    );
    assert_eq!(
        found(&table, "shop", "/b", &HeaderMap::new()),
        Err(NoMatch::Route)
    );
}

#[test]
fn the_same_domain_twice_is_refused_by_name() {
    let hosts = vec![host("a", &["x"], vec![]), host("b", &["X"], vec![])];
    let refused = RouteTable::compile(Arc::new(xds::RouteConfiguration {
        name: "t".to_owned(),
        virtual_hosts: hosts,
    }));
    assert!(refused.unwrap_err().why.contains("named twice"));
}

#[test]
fn order_decides_not_length() {
    let table = one(vec![
        route("short", prefix("/a")),
        route("long", prefix("/a/b")),
    ]);
    assert_eq!(path_found(&table, "/a/b/c"), Ok("short".to_owned()));
}

#[test]
fn order_decides_across_prefix_exact_and_regex() {
    let table = one(vec![
        route("exact", xds::PathMatch::Exact("/x".to_owned())),
        route("regex", xds::PathMatch::Regex("/[a-z]+".to_owned())),
        route("prefix", prefix("/")),
    ]);
    assert_eq!(path_found(&table, "/x"), Ok("exact".to_owned()));
    assert_eq!(path_found(&table, "/y"), Ok("regex".to_owned()));
    assert_eq!(path_found(&table, "/9"), Ok("prefix".to_owned()));
}

#[test]
fn a_prefix_is_a_raw_string_prefix() {
    assert!(path_found(&one(vec![route("r", prefix("/red"))]), "/redder").is_ok());
}

#[test]
fn a_path_regex_matches_the_whole_path() {
    let table = one(vec![route("r", xds::PathMatch::Regex("/a|/b".to_owned()))]);
    assert!(path_found(&table, "/b").is_ok());
    assert!(path_found(&table, "/bc").is_err());
}

#[test]
fn the_query_is_no_part_of_the_path() {
    assert!(
        path_found(
            &one(vec![route("r", xds::PathMatch::Exact("/a".to_owned()))]),
            "/a?b=c"
        )
        .is_ok()
    );
}

#[test]
fn a_regex_that_does_not_compile_refuses_the_table_by_name() {
    let hosts = vec![host(
        "h",
        &["*"],
        vec![route("r", xds::PathMatch::Regex("(".to_owned()))],
    )];
    let refused = RouteTable::compile(Arc::new(xds::RouteConfiguration {
        name: "t".to_owned(),
        virtual_hosts: hosts,
    }));
    let refused = refused.unwrap_err();
    assert_eq!(refused.name, "t");
    assert!(
        refused
            .why
            .starts_with("virtual_hosts[h].routes[r].match.path"),
        "{}",
        refused.why
    );
}

#[test]
fn header_values_compare_exactly_by_prefix_and_by_suffix() {
    let exact = with_header(xds::HeaderValueMatch::Exact("v1".to_owned()), false);
    assert!(
        header_found(&exact, &["v1"])
            && !header_found(&exact, &["v10"])
            && !header_found(&exact, &[])
    );
    let starts = with_header(xds::HeaderValueMatch::Prefix("v".to_owned()), false);
    assert!(header_found(&starts, &["v10"]) && !header_found(&starts, &["w"]));
    let ends = with_header(xds::HeaderValueMatch::Suffix("0".to_owned()), false);
    assert!(header_found(&ends, &["v10"]) && !header_found(&ends, &["v1"]));
}

#[test]
fn a_header_regex_is_a_full_match() {
    let table = with_header(xds::HeaderValueMatch::Regex("[0-9]+".to_owned()), false);
    assert!(header_found(&table, &["12"]) && !header_found(&table, &["12a"]));
}

#[test]
fn a_header_range_excludes_its_end() {
    let table = with_header(xds::HeaderValueMatch::Range(1, 5), false);
    assert!(header_found(&table, &["1"]) && header_found(&table, &["4"]));
    assert!(!header_found(&table, &["5"]) && !header_found(&table, &["x"]));
}

#[test]
fn an_absent_header_satisfies_an_inverted_condition() {
    let table = with_header(xds::HeaderValueMatch::Exact("v1".to_owned()), true);
    assert!(
        header_found(&table, &[])
            && header_found(&table, &["v2"])
            && !header_found(&table, &["v1"])
    );
}

#[test]
fn of_repeated_header_lines_one_is_enough() {
    let table = with_header(xds::HeaderValueMatch::Exact("b".to_owned()), false);
    assert!(header_found(&table, &["a", "b"]) && !header_found(&table, &["a,b"]));
    let inverted = with_header(xds::HeaderValueMatch::Exact("b".to_owned()), true);
    assert!(!header_found(&inverted, &["a", "b"]));
}

#[test]
fn the_method_is_a_pseudo_header() {
    let mut post = route("post", prefix("/"));
    let value = xds::HeaderValueMatch::Exact("POST".to_owned());
    post.matching.headers = vec![xds::HeaderMatch {
        name: ":method".to_owned(),
        value,
        invert: false,
    }];
    let table = one(vec![post]);
    let none = HeaderMap::new();
    assert!(table.first_match("a", &asked("/", &none)).is_err());
    assert!(
        table
            .first_match(
                "a",
                &Asked {
                    method: "POST",
                    ..asked("/", &none)
                }
            )
            .is_ok()
    );
}

#[test]
fn a_query_parameter_matches_by_value_or_presence() {
    let mut wanted = route("wanted", prefix("/"));
    wanted.matching.query = vec![
        xds::QueryMatch {
            name: "v".to_owned(),
            exact: Some("1%202".to_owned()),
        },
        xds::QueryMatch {
            name: "debug".to_owned(),
            exact: None,
        },
    ];
    let table = one(vec![wanted]);
    assert!(path_found(&table, "/?debug&v=1%202").is_ok());
    assert!(path_found(&table, "/?v=1%202").is_err());
    assert!(path_found(&table, "/?debug&v=12").is_err());
}

#[test]
fn a_grpc_route_takes_grpc_content_types_only() {
    let mut wanted = route("wanted", prefix("/"));
    wanted.matching.grpc = true;
    let table = one(vec![wanted]);
    for (kind, matches) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc-web", false),
        ("text/plain", false),
    ] {
        let mut map = HeaderMap::new();
        map.insert("content-type", kind.parse().unwrap());
        assert_eq!(found(&table, "a", "/", &map).is_ok(), matches, "{kind}");
    }
}

#[test]
fn weights_draw_in_proportion_and_all_zero_draws_nothing() {
    let cluster = |name: &str, weight| xds::WeightedCluster {
        name: name.to_owned(),
        weight,
    };
    let drawn = |clusters: Vec<xds::WeightedCluster>| {
        let mut action = route("r", prefix("/"));
        if let xds::Action::Forward(forward) = &mut action.action {
            forward.clusters = clusters;
        }
        let table = one(vec![action]);
        let none = HeaderMap::new();
        let rule = Arc::clone(table.first_match("a", &asked("/", &none)).unwrap());
        let Action::Forward(forward) = &rule.action else {
            panic!("a forward")
        };
        (0..100)
            .filter(|draw| forward.draw(*draw) == Some("a"))
            .count()
    };
    assert_eq!(drawn(vec![cluster("a", 90), cluster("b", 10)]), 90);
    assert_eq!(drawn(vec![cluster("a", 0), cluster("b", 0)]), 0);
    assert_eq!(drawn(vec![cluster("a", 0)]), 0);
}

fn rewritten(path: xds::PathMatch, rewrite: xds::PathRewrite, asked_path: &str) -> Option<String> {
    let mut changed = route("r", path);
    if let xds::Action::Forward(forward) = &mut changed.action {
        forward.rewrite = Some(rewrite);
    }
    let table = one(vec![changed]);
    let none = HeaderMap::new();
    let request = asked(asked_path, &none);
    let rule = Arc::clone(table.first_match("a", &request).unwrap());
    let Action::Forward(forward) = &rule.action else {
        panic!("a forward")
    };
    forward.rewritten(request.path, request.query)
}

#[test]
fn a_prefix_rewrite_swaps_the_matched_prefix_and_keeps_the_query() {
    let rewrite = xds::PathRewrite::Prefix("/new".to_owned());
    assert_eq!(
        rewritten(prefix("/old"), rewrite, "/old/x?y=1"),
        Some("/new/x?y=1".to_owned())
    );
}

#[test]
fn a_regex_rewrite_substitutes_with_re2_references() {
    let rewrite = xds::PathRewrite::Regex {
        pattern: "^/v([0-9])/(.*)$".to_owned(),
        substitution: r"/\2/\1".to_owned(),
    };
    assert_eq!(
        rewritten(prefix("/"), rewrite, "/v1/a"),
        Some("/a/1".to_owned())
    );
}

#[test]
fn a_thousand_routes_keep_their_order() {
    let mut routes: Vec<_> = (0..1000)
        .map(|n| route(&format!("r{n}"), prefix(&format!("/p{n}/"))))
        .collect();
    routes.push(route("last", prefix("/")));
    let table = one(routes);
    assert_eq!(path_found(&table, "/p7/x"), Ok("r7".to_owned()));
    assert_eq!(path_found(&table, "/p999/"), Ok("r999".to_owned()));
    assert_eq!(path_found(&table, "/zz"), Ok("last".to_owned()));
}

#[test]
fn more_nested_prefixes_than_the_index_has_room_for_still_match_in_order() {
    let mut routes: Vec<_> = (1..40)
        .rev()
        .map(|n| route(&format!("r{n}"), prefix(&"/a".repeat(n))))
        .collect();
    routes.push(route("root", prefix("/")));
    assert_eq!(
        path_found(&one(routes), &"/a".repeat(30)),
        Ok("r30".to_owned())
    );
}
