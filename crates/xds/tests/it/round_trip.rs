// SPDX-License-Identifier: Apache-2.0
//! Encoding loses nothing, and its bytes depend on nothing but the resource.

use pillion_xds::resource::Resource;
use pillion_xds::resource::decode_all;
use pillion_xds::resource::version_of;
use pillion_xds::route::Action;
use pillion_xds::route::Forward;
use pillion_xds::route::PathMatch;
use pillion_xds::route::Route;
use pillion_xds::route::RouteConfiguration;
use pillion_xds::route::RouteMatch;
use pillion_xds::route::VirtualHost;
use pillion_xds::route::WeightedCluster;
use proptest::prelude::*;

use crate::strategies;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_encoded_decodes_to_the_same(resource in strategies::resource()) {
        let any = resource.encode_any();
        prop_assert_eq!(Resource::decode_any(resource.kind(), &any), Ok(resource));
    }

    #[test]
    fn equal_resources_give_equal_bytes(resource in strategies::resource()) {
        // A hash map would iterate differently in each of these.
        let versions: Vec<String> =
            (0..4).map(|_| version_of(&resource.clone().encode_any().value)).collect();
        prop_assert!(versions.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn a_message_built_in_memory_decodes_like_its_bytes(cluster in strategies::cluster()) {
        prop_assert_eq!(pillion_xds::cluster::Cluster::decode(cluster.encode()), Ok(cluster));
    }

    #[test]
    fn one_bad_resource_leaves_the_others(good in strategies::cluster(), bytes in any::<Vec<u8>>()) {
        let good = Resource::Cluster(good);
        let mut bad = good.encode_any();
        bad.value = bytes;
        let (accepted, refused) = decode_all(good.kind(), &[bad, good.encode_any()]);
        prop_assert_eq!(accepted, vec![good]);
        prop_assert_eq!(refused.len(), 1);
    }
}

#[test]
fn a_route_without_weight_becomes_an_answer_that_envoy_takes() {
    let table = |action| RouteConfiguration {
        name: "r".into(),
        virtual_hosts: vec![VirtualHost {
            name: "h".into(),
            domains: vec!["*".into()],
            routes: vec![Route {
                name: String::new(),
                matching: RouteMatch {
                    path: PathMatch::Prefix("/".into()),
                    headers: Vec::new(),
                    query: Vec::new(),
                    grpc: false,
                },
                action,
            }],
        }],
    };
    let nowhere = table(Action::Forward(Box::new(Forward {
        clusters: vec![WeightedCluster {
            name: "c".into(),
            weight: 0,
        }],
        timeout: std::time::Duration::from_secs(15),
        idle_timeout: None,
        retry: None,
        rewrite: None,
        host_rewrite: None,
    })));
    let answer = table(Action::Respond {
        status: 503,
        body: String::new(),
    });
    assert_eq!(RouteConfiguration::decode(nowhere.encode()), Ok(answer));
}
