// SPDX-License-Identifier: Apache-2.0
//! Bytes from outside never panic, and a field that changes behaviour is refused by its path.

use pillion_xds::cluster::Cluster;
use pillion_xds::listener::Listener;
use pillion_xds::proto;
use pillion_xds::proto::Any;
use pillion_xds::resource::Resource;
use pillion_xds::resource::ResourceType;
use pillion_xds::resource::UPDATE_ORDER;
use pillion_xds::resource::decode_delta;
use pillion_xds::route::RouteConfiguration;
use pillion_xds::route::full_match;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::strategies;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in any::<Vec<u8>>()) {
        for kind in UPDATE_ORDER {
            let any = Any { type_url: kind.url().to_owned(), value: bytes.clone() };
            drop(Resource::decode_any(kind, &any));
        }
    }

    #[test]
    fn damaged_bytes_never_panic(
        resource in strategies::resource(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut any = resource.encode_any();
        if !any.value.is_empty() {
            let at = at.index(any.value.len());
            any.value[at] = byte;
            drop(Resource::decode_any(resource.kind(), &any));
            any.value.truncate(cut.index(any.value.len()));
        }
        drop(Resource::decode_any(resource.kind(), &any));
    }
}

/// Some resource of a kind, the same in every run.
fn sample<S: Strategy>(strategy: S) -> S::Value {
    strategy
        .new_tree(&mut TestRunner::deterministic())
        .expect("nothing is filtered")
        .current()
}

fn cluster_refusal(spoil: impl FnOnce(&mut proto::cluster::Cluster)) -> String {
    let mut cluster = sample(strategies::cluster()).encode();
    cluster.name = "orders".into();
    spoil(&mut cluster);
    let rejected = Cluster::decode(cluster).expect_err("spoiled");
    assert_eq!(rejected.name, "orders");
    rejected.why
}

#[test]
fn an_unsupported_field_of_a_cluster_is_refused_by_name() {
    let why = cluster_refusal(|cluster| cluster.upstream_bind_config = Some(Default::default()));
    assert_eq!(why, "upstream_bind_config is not supported; leave it unset");
}

#[test]
fn an_unsupported_balancing_policy_says_which_one_is_supported() {
    let why = cluster_refusal(|cluster| {
        cluster.lb_policy = proto::cluster::cluster::LbPolicy::RingHash.into();
    });
    assert_eq!(why, "lb_policy RING_HASH is not supported; use ROUND_ROBIN");
}

#[test]
fn success_rate_ejection_is_refused_even_as_envoys_default() {
    let why = cluster_refusal(|cluster| {
        cluster.outlier_detection = Some(proto::cluster::OutlierDetection {
            always_eject_one_host: Some(proto::google::protobuf::BoolValue { value: true }),
            ..Default::default()
        });
    });
    assert!(
        why.contains("enforcing_success_rate") && why.contains("set it to 0"),
        "{why}"
    );
}

#[test]
fn a_negative_duration_is_refused_with_its_value() {
    let why = cluster_refusal(|cluster| {
        cluster.connect_timeout = Some(proto::google::protobuf::Duration {
            seconds: -1,
            nanos: 0,
        });
    });
    assert!(why.starts_with("connect_timeout -1s"), "{why}");
}

#[test]
fn a_nested_field_of_a_route_is_refused_with_its_whole_path() {
    let mut table = proto::route::RouteConfiguration {
        name: "rds".into(),
        virtual_hosts: vec![proto::route::VirtualHost {
            name: "all".into(),
            domains: vec!["*".into()],
            routes: vec![proto::route::Route {
                r#match: Some(proto::route::RouteMatch {
                    path_specifier: Some(proto::route::route_match::PathSpecifier::Prefix(
                        "/".into(),
                    )),
                    ..Default::default()
                }),
                action: Some(proto::route::route::Action::Route(
                    proto::route::RouteAction {
                        cluster_specifier: Some(
                            proto::route::route_action::ClusterSpecifier::Cluster("c".into()),
                        ),
                        ..Default::default()
                    },
                )),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    RouteConfiguration::decode(table.clone()).expect("nothing is wrong yet");
    let Some(proto::route::route::Action::Route(action)) =
        &mut table.virtual_hosts[0].routes[0].action
    else {
        unreachable!("built above");
    };
    action.request_mirror_policies = vec![Default::default()];
    let rejected = RouteConfiguration::decode(table).expect_err("mirrors");
    assert_eq!(
        rejected.to_string(),
        "rds: virtual_hosts[0].routes[0].route.request_mirror_policies is not supported; leave it unset"
    );
}

#[test]
fn a_domain_in_two_virtual_hosts_is_refused() {
    let host = |name: &str| proto::route::VirtualHost {
        name: name.into(),
        domains: vec!["shop.local".into()],
        ..Default::default()
    };
    let table = proto::route::RouteConfiguration {
        name: "rds".into(),
        virtual_hosts: vec![host("a"), host("b")],
        ..Default::default()
    };
    let rejected = RouteConfiguration::decode(table).expect_err("ambiguous");
    assert!(
        rejected.why.contains("\"shop.local\" stands twice"),
        "{rejected}"
    );
}

#[test]
fn a_second_http_filter_is_refused_by_name() {
    use pillion_xds::proto::listener::filter::ConfigType;
    use prost::Message;
    use prost::Name;
    let manager = proto::http::HttpConnectionManager {
        stat_prefix: "ingress".into(),
        http_filters: vec![
            proto::http::HttpFilter {
                name: "envoy.filters.http.fault".into(),
                ..Default::default()
            },
            Default::default(),
        ],
        ..Default::default()
    };
    let mut listener = sample(strategies::listener()).encode();
    listener.name = "lds".into();
    listener.filter_chains[0].filters[0].config_type = Some(ConfigType::TypedConfig(Any {
        type_url: proto::http::HttpConnectionManager::type_url(),
        value: manager.encode_to_vec(),
    }));
    let rejected = Listener::decode(listener).expect_err("a fault filter");
    assert!(
        rejected.why.contains("filter_chains[0].filters[0].http_connection_manager.http_filters envoy.filters.http.fault"),
        "{rejected}"
    );
}

#[test]
fn a_resource_under_another_name_is_refused_under_the_name_that_was_asked_for() {
    let resource = Resource::Secret(sample(strategies::secret()));
    let sent = proto::discovery::Resource {
        name: "somebody-else".into(),
        resource: Some(resource.encode_any()),
        ..Default::default()
    };
    let (accepted, refused) = decode_delta(ResourceType::Secret, &[sent]);
    assert!(accepted.is_empty());
    assert_eq!(refused[0].name, "somebody-else");
}

#[test]
fn a_name_that_stands_twice_is_taken_once() {
    let resource = Resource::Secret(sample(strategies::secret()));
    let sent = proto::discovery::Resource {
        name: resource.name().to_owned(),
        resource: Some(resource.encode_any()),
        ..Default::default()
    };
    let (accepted, refused) = decode_delta(ResourceType::Secret, &[sent.clone(), sent]);
    assert_eq!((accepted.len(), refused.len()), (1, 1));
}

#[test]
fn a_pattern_matches_whole_values_only_and_cannot_escape() {
    let pattern = full_match("/red|/blue").expect("compiles");
    assert!(pattern.is_match("/red") && pattern.is_match("/blue"));
    assert!(!pattern.is_match("/redder") && !pattern.is_match("x/blue"));
    assert!(full_match("a)|(b").is_err());
    assert!(full_match("(a{1000}){1000}").is_err(), "bounded in memory");
}
