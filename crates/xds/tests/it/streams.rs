// SPDX-License-Identifier: Apache-2.0
//! Both ends of a stream, without a socket between them.

use std::collections::BTreeSet;

use pillion_xds::proto::core::Node;
use pillion_xds::proto::discovery::DeltaDiscoveryRequest;
use pillion_xds::proto::discovery::DeltaDiscoveryResponse;
use pillion_xds::proto::discovery::DiscoveryRequest;
use pillion_xds::proto::google::rpc::Status;
use pillion_xds::resource::Rejected;
use pillion_xds::resource::ResourceType;
use pillion_xds::resource::ResourceType::Cluster;
use pillion_xds::resource::ResourceType::Endpoint;
use pillion_xds::resource::ResourceType::Listener;
use pillion_xds::subscription::Versions;
use pillion_xds::subscription::client::Subscriptions;
use pillion_xds::subscription::server::Heard;
use pillion_xds::subscription::server::Offer;
use pillion_xds::subscription::server::Protocol;
use pillion_xds::subscription::server::Stream;

fn versions(pairs: &[(&str, &str)]) -> Versions {
    let owned = |(name, version): &(&str, &str)| ((*name).to_owned(), (*version).to_owned());
    pairs.iter().map(owned).collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A state-of-the-world request.
fn sotw(kind: ResourceType, names: &[&str], nonce: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        type_url: kind.url().to_owned(),
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        response_nonce: nonce.to_owned(),
        ..Default::default()
    }
}

fn delta(kind: ResourceType, subscribe: &[&str], unsubscribe: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.url().to_owned(),
        resource_names_subscribe: subscribe.iter().map(|name| (*name).to_owned()).collect(),
        resource_names_unsubscribe: unsubscribe.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

fn ack(kind: ResourceType, offer: &Offer) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.url().to_owned(),
        response_nonce: offer.nonce.clone(),
        ..Default::default()
    }
}

fn nack(kind: ResourceType, offer: &Offer, message: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        error_detail: Some(Status {
            message: message.to_owned(),
            ..Default::default()
        }),
        ..ack(kind, offer)
    }
}

/// A delta stream with everything of a type asked for, sent and acknowledged.
fn settled(kind: ResourceType, current: &Versions) -> Stream {
    let mut stream = Stream::new(Protocol::Delta);
    stream.hear_delta(&delta(kind, &[], &[])).expect("known");
    let offer = stream.next(kind, current).expect("an answer is owed");
    stream.hear_delta(&ack(kind, &offer)).expect("known");
    stream
}

#[test]
fn a_first_wildcard_request_is_answered_even_with_nothing() {
    for protocol in [Protocol::StateOfTheWorld, Protocol::Delta] {
        let mut stream = Stream::new(protocol);
        match protocol {
            Protocol::StateOfTheWorld => stream.hear(&sotw(Cluster, &[], "")).expect("known"),
            Protocol::Delta => stream.hear_delta(&delta(Cluster, &[], &[])).expect("known"),
        };
        let offer = stream.next(Cluster, &Versions::new()).expect("owed");
        assert!(offer.resources.is_empty() && offer.removed.is_empty());
    }
}

#[test]
fn nothing_is_sent_to_who_has_everything() {
    let current = versions(&[("a", "1"), ("b", "1")]);
    let mut stream = settled(Cluster, &current);
    assert_eq!(stream.next(Cluster, &current), None);
    assert_eq!(stream.acked(Cluster), Some(&current));
}

#[test]
fn delta_sends_what_changed_and_names_what_is_gone() {
    let mut stream = settled(Cluster, &versions(&[("a", "1"), ("b", "1"), ("c", "1")]));
    let offer = stream
        .next(Cluster, &versions(&[("a", "2"), ("b", "1"), ("d", "1")]))
        .expect("a change");
    assert_eq!(offer.resources, ["a", "d"]);
    assert_eq!(offer.removed, ["c"]);
}

#[test]
fn the_state_of_the_world_sends_all_clusters_when_one_is_gone() {
    let mut stream = Stream::new(Protocol::StateOfTheWorld);
    stream.hear(&sotw(Cluster, &[], "")).expect("known");
    let offer = stream
        .next(Cluster, &versions(&[("a", "1"), ("b", "1")]))
        .expect("owed");
    stream
        .hear(&sotw(Cluster, &[], &offer.nonce))
        .expect("known");
    let offer = stream
        .next(Cluster, &versions(&[("a", "1")]))
        .expect("one is gone");
    assert_eq!(offer.resources, ["a"]);
}

#[test]
fn one_response_is_in_flight_and_the_next_is_the_newest() {
    let mut stream = Stream::new(Protocol::Delta);
    stream.hear_delta(&delta(Cluster, &[], &[])).expect("known");
    let first = stream
        .next(Cluster, &versions(&[("a", "1")]))
        .expect("owed");
    assert_eq!(stream.next(Cluster, &versions(&[("a", "2")])), None);
    stream.hear_delta(&ack(Cluster, &first)).expect("known");
    let second = stream
        .next(Cluster, &versions(&[("a", "3")]))
        .expect("a change");
    assert_eq!(second.resources, ["a"]);
}

#[test]
fn what_was_refused_is_not_sent_again_until_it_changes() {
    let mut stream = settled(Cluster, &versions(&[("a", "1")]));
    let offer = stream
        .next(Cluster, &versions(&[("a", "2")]))
        .expect("a change");
    let heard = stream
        .hear_delta(&nack(Cluster, &offer, "a: no"))
        .expect("known");
    assert_eq!(
        heard,
        Heard::Nacked {
            nonce: offer.nonce,
            reason: "a: no".into(),
            offered: versions(&[("a", "2")])
        }
    );
    assert_eq!(stream.acked(Cluster), Some(&versions(&[("a", "1")])));
    assert_eq!(stream.refused(Cluster).expect("refused").reason, "a: no");
    assert_eq!(stream.next(Cluster, &versions(&[("a", "2")])), None);
    let again = stream
        .next(Cluster, &versions(&[("a", "3")]))
        .expect("changed");
    stream.hear_delta(&ack(Cluster, &again)).expect("known");
    assert_eq!(stream.refused(Cluster), None);
}

#[test]
fn an_answer_to_an_older_response_is_stale() {
    let mut stream = Stream::new(Protocol::StateOfTheWorld);
    stream.hear(&sotw(Cluster, &[], "")).expect("known");
    let first = stream
        .next(Cluster, &versions(&[("a", "1")]))
        .expect("owed");
    stream
        .hear(&sotw(Cluster, &[], &first.nonce))
        .expect("known");
    stream
        .next(Cluster, &versions(&[("a", "2")]))
        .expect("a change");
    assert_eq!(
        stream.hear(&sotw(Cluster, &["x"], &first.nonce)),
        Ok(Heard::Stale)
    );
    assert!(stream.in_flight(Cluster));
}

#[test]
fn names_may_change_with_the_nonce_of_an_acknowledged_response() {
    let current = versions(&[("a", "1"), ("b", "1")]);
    let mut stream = Stream::new(Protocol::StateOfTheWorld);
    stream.hear(&sotw(Endpoint, &["a"], "")).expect("known");
    let offer = stream.next(Endpoint, &current).expect("owed");
    assert_eq!(offer.resources, ["a"]);
    stream
        .hear(&sotw(Endpoint, &["a"], &offer.nonce))
        .expect("known");
    let heard = stream.hear(&sotw(Endpoint, &["a", "b"], &offer.nonce));
    assert_eq!(heard, Ok(Heard::Subscribed));
    let offer = stream.next(Endpoint, &current).expect("b is new");
    assert_eq!(offer.resources, ["a", "b"]);
}

#[test]
fn a_nonce_of_an_earlier_stream_does_not_silence_the_first_request() {
    let mut stream = Stream::new(Protocol::StateOfTheWorld);
    assert_eq!(
        stream.hear(&sotw(Cluster, &[], "77")),
        Ok(Heard::Subscribed)
    );
    assert!(stream.next(Cluster, &Versions::new()).is_some());
}

#[test]
fn an_empty_request_for_endpoints_asks_for_none() {
    let mut stream = Stream::new(Protocol::Delta);
    stream
        .hear_delta(&delta(Endpoint, &[], &[]))
        .expect("known");
    let offer = stream
        .next(Endpoint, &versions(&[("a", "1")]))
        .expect("owed");
    assert!(offer.resources.is_empty());
}

#[test]
fn a_subscribed_name_that_does_not_exist_is_removed_once_and_sent_when_it_does() {
    let mut stream = Stream::new(Protocol::Delta);
    stream
        .hear_delta(&delta(Endpoint, &["a"], &[]))
        .expect("known");
    let offer = stream.next(Endpoint, &Versions::new()).expect("owed");
    assert_eq!(offer.removed, ["a"]);
    stream.hear_delta(&ack(Endpoint, &offer)).expect("known");
    assert_eq!(stream.next(Endpoint, &Versions::new()), None);
    let offer = stream
        .next(Endpoint, &versions(&[("a", "1")]))
        .expect("it is there now");
    assert_eq!(offer.resources, ["a"]);
}

#[test]
fn a_name_subscribed_again_is_sent_again() {
    let current = versions(&[("a", "1")]);
    let mut stream = Stream::new(Protocol::Delta);
    stream
        .hear_delta(&delta(Endpoint, &["a"], &[]))
        .expect("known");
    let offer = stream.next(Endpoint, &current).expect("owed");
    stream.hear_delta(&ack(Endpoint, &offer)).expect("known");
    stream
        .hear_delta(&delta(Endpoint, &["a"], &[]))
        .expect("known");
    assert_eq!(
        stream.next(Endpoint, &current).expect("again").resources,
        ["a"]
    );
}

#[test]
fn an_unsubscribed_name_is_neither_sent_nor_counted_as_held() {
    let mut stream = Stream::new(Protocol::Delta);
    stream
        .hear_delta(&delta(Endpoint, &["a", "b"], &[]))
        .expect("known");
    let offer = stream
        .next(Endpoint, &versions(&[("a", "1"), ("b", "1")]))
        .expect("owed");
    stream.hear_delta(&ack(Endpoint, &offer)).expect("known");
    stream
        .hear_delta(&delta(Endpoint, &[], &["a"]))
        .expect("known");
    assert_eq!(
        stream.next(Endpoint, &versions(&[("a", "2"), ("b", "1")])),
        None
    );
    assert_eq!(stream.acked(Endpoint), Some(&versions(&[("b", "1")])));
}

#[test]
fn endpoints_forgotten_with_their_cluster_are_sent_again() {
    let current = versions(&[("a", "1")]);
    let mut stream = Stream::new(Protocol::Delta);
    stream
        .hear_delta(&delta(Endpoint, &["a"], &[]))
        .expect("known");
    let offer = stream.next(Endpoint, &current).expect("owed");
    stream.hear_delta(&ack(Endpoint, &offer)).expect("known");
    stream.forget(Endpoint, "a");
    assert_eq!(
        stream.next(Endpoint, &current).expect("again").resources,
        ["a"]
    );
}

#[test]
fn an_unknown_type_is_named() {
    let request = DiscoveryRequest {
        type_url: "type.googleapis.com/envoy.service.runtime.v3.Runtime".into(),
        ..Default::default()
    };
    let error = Stream::new(Protocol::StateOfTheWorld)
        .hear(&request)
        .expect_err("not ours");
    assert!(error.to_string().contains("runtime.v3.Runtime"), "{error}");
}

#[test]
fn the_version_depends_on_content_only() {
    let current = versions(&[("a", "1"), ("b", "1")]);
    let first = |stream: &mut Stream| stream.next(Cluster, &current).expect("owed").version;
    let mut one = Stream::new(Protocol::StateOfTheWorld);
    one.hear(&sotw(Cluster, &[], "")).expect("known");
    let mut two = Stream::new(Protocol::Delta);
    two.hear_delta(&delta(Cluster, &[], &[])).expect("known");
    assert_eq!(first(&mut one), first(&mut two));
}

fn response(kind: ResourceType, pairs: &[(&str, &str)]) -> DeltaDiscoveryResponse {
    let resource = |(name, version): &(&str, &str)| pillion_xds::proto::discovery::Resource {
        name: (*name).to_owned(),
        version: (*version).to_owned(),
        ..Default::default()
    };
    DeltaDiscoveryResponse {
        resources: pairs.iter().map(resource).collect(),
        type_url: kind.url().to_owned(),
        nonce: "n".into(),
        ..Default::default()
    }
}

#[test]
fn a_client_names_its_node_once_and_secrets_of_no_name_are_not_asked_for() {
    let mut client = Subscriptions::wildcard(&[Listener, Cluster]);
    client.ask_for(ResourceType::Route, names(&["r"]));
    let node = Node {
        id: "mesh/m/virtualNode/n".into(),
        ..Default::default()
    };
    let requests = client.open(&node);
    let urls: Vec<&str> = requests
        .iter()
        .map(|request| request.type_url.as_str())
        .collect();
    assert_eq!(
        urls,
        [Cluster.url(), Listener.url(), ResourceType::Route.url()]
    );
    assert!(requests[0].node.is_some() && requests[1].node.is_none());
    assert_eq!(requests[2].resource_names_subscribe, ["r"]);
}

#[test]
fn a_nack_names_the_refused_and_keeps_their_old_versions() {
    let mut client = Subscriptions::wildcard(&[Cluster]);
    let accepted = client.answer(Cluster, &response(Cluster, &[("a", "1"), ("b", "1")]), &[]);
    assert!(accepted.error_detail.is_none());
    let rejected = Rejected {
        name: "b".into(),
        why: "lb_policy RING_HASH is not supported".into(),
    };
    let refused = client.answer(
        Cluster,
        &response(Cluster, &[("a", "2"), ("b", "2")]),
        &[rejected],
    );
    let detail = refused.error_detail.expect("a refusal");
    assert_eq!(detail.message, "b: lb_policy RING_HASH is not supported");
    assert_eq!(refused.response_nonce, "n");
    assert_eq!(
        client.held(Cluster),
        Some(&versions(&[("a", "2"), ("b", "1")]))
    );
}

#[test]
fn a_reconnecting_client_is_sent_only_what_differs() {
    let mut client = Subscriptions::wildcard(&[Cluster]);
    client.answer(
        Cluster,
        &response(Cluster, &[("a", "1"), ("b", "1"), ("c", "1")]),
        &[],
    );
    let mut stream = Stream::new(Protocol::Delta);
    for request in client.open(&Node::default()) {
        stream.hear_delta(&request).expect("known");
    }
    let offer = stream
        .next(Cluster, &versions(&[("a", "1"), ("b", "2")]))
        .expect("owed");
    assert_eq!(offer.resources, ["b"]);
    assert_eq!(offer.removed, ["c"]);
}

#[test]
fn names_asked_for_become_a_difference() {
    let mut client = Subscriptions::default();
    let first = client
        .ask_for(Endpoint, names(&["a", "b"]))
        .expect("new names");
    assert_eq!(first.resource_names_subscribe, ["a", "b"]);
    let second = client
        .ask_for(Endpoint, names(&["b", "c"]))
        .expect("other names");
    assert_eq!(second.resource_names_subscribe, ["c"]);
    assert_eq!(second.resource_names_unsubscribe, ["a"]);
    assert_eq!(client.ask_for(Endpoint, names(&["b", "c"])), None);
}
