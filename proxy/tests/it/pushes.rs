// SPDX-License-Identifier: Apache-2.0
//! Nothing is lost while the configuration of the built proxy changes under load: routes, clusters, endpoints and
//! listeners are pushed, replaced and removed. `PILLION_REPEAT=n` pushes n times as often.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pillion_xds::listener as xds;
use pillion_xds::resource::Resource;
use pillion_xds::resource::ResourceType;
use tokio::net::TcpStream;

use crate::drain::Tally;
use crate::drain::all_well;
use crate::drain::app;
use crate::drain::crowd;
use crate::drain::repeat;
use crate::plane;
use crate::survival::HOST;
use crate::survival::under;
use crate::xds_proxy::Proxy;
use crate::xds_proxy::call;
use crate::xds_server::Ads;

/// Updates that the proxy has put in force.
async fn updates(proxy: &Proxy) -> u64 {
    let stats = proxy.admin("GET", "/stats").await.1;
    let successes = stats.lines().filter_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.ends_with("update_success").then_some(value)
    });
    successes
        .filter_map(|value| value.parse::<u64>().ok())
        .sum()
}

async fn in_force(proxy: &Proxy, number: u64) {
    plane::eventually(&format!("{number} updates are in force"), || async {
        updates(proxy).await >= number
    })
    .await;
}

/// Pushes so often under load, each push made by `one` of its number.
async fn pushed(times: usize, one: impl Fn(usize, SocketAddr) -> Resource) {
    let app = app().await;
    let (ads, proxy) = under("true", app).await;
    let tally = Arc::new(Tally::default());
    let clients = crowd(proxy.addr("egress"), &tally, (12, 4));
    tally.answered(50).await;
    let before = updates(&proxy).await;
    let times = times * repeat();
    for number in 0..times {
        ads.push(&format!("v{number}"), &[one(number, app)]).await;
    }
    in_force(&proxy, before + times as u64).await;
    tally.answered(50).await;
    tally.stop.store(true, Ordering::Relaxed);
    all_well(clients, &proxy).await;
}

#[tokio::test]
async fn a_thousand_route_pushes_under_load_lose_nothing() {
    pushed(1000, |number, _| {
        let mut forward = plane::forward(&[("a", 1)]);
        forward.timeout = Duration::from_secs(15 + number as u64);
        let routes = vec![plane::route_to("/", forward)];
        Resource::Route(plane::table(&[HOST], routes))
    })
    .await;
}

#[tokio::test]
async fn two_hundred_cluster_pushes_under_load_lose_nothing() {
    pushed(200, |number, app| {
        let mut cluster = plane::static_cluster("a", &[app]);
        cluster.connect_timeout = Duration::from_millis(1000 + number as u64);
        // Every other one begins anew: neither its connections nor its endpoints are those of the one before.
        if number % 2 == 1 {
            cluster.protocol = pillion_xds::cluster::UpstreamProtocol::Http2;
        }
        Resource::Cluster(cluster)
    })
    .await;
}

#[tokio::test]
async fn sixty_listener_pushes_under_load_lose_nothing() {
    pushed(60, |number, _| {
        let mut listener = plane::egress_listener();
        if let Some(chain) = &mut listener.default_filter_chain {
            chain.name = format!("default-{number}");
        }
        Resource::Listener(listener)
    })
    .await;
}

fn gateway_listener(address: SocketAddr) -> xds::Listener {
    xds::Listener {
        name: format!("lds_ingress_0.0.0.0_port_{}", address.port()),
        address: SocketAddr::from(([0, 0, 0, 0], address.port())),
        direction: xds::Direction::Inbound,
        original_destination: false,
        ..plane::egress_listener()
    }
}

#[tokio::test]
async fn a_listener_that_goes_away_loses_nobody_who_had_connected() {
    let (ads, proxy) = under("true", app().await).await;
    let address = plane::nobody().await;
    for turn in 0..5 * repeat() {
        let listener = gateway_listener(address);
        let name = listener.name.clone();
        ads.push(&format!("g{turn}"), &[Resource::Listener(listener)])
            .await;
        plane::eventually("the gateway listens", || async {
            call(address, "GET", HOST, "/")
                .await
                .is_ok_and(|answer| answer.0 == 200)
        })
        .await;
        let tally = Arc::new(Tally::default());
        let clients = crowd(address, &tally, (8, 4));
        tally.answered(50).await;
        tally.leaving.store(true, Ordering::Relaxed);
        ads.push_raw(ResourceType::Listener, "", Vec::new(), &[&name])
            .await;
        all_well(clients, &proxy).await;
        plane::eventually("the port is free", || async {
            TcpStream::connect(address).await.is_err()
        })
        .await;
    }
}

#[tokio::test]
async fn a_cluster_that_is_replaced_finishes_what_it_had_begun() {
    let slow = plane::app(|_| async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        plane::text(200, "before")
    })
    .await;
    let (ads, proxy) = under("true", slow).await;
    let egress = proxy.addr("egress");
    let begun = tokio::spawn(async move { call(egress, "GET", HOST, "/").await });
    plane::eventually("it is in flight", || async {
        crate::survival::stat(&proxy, "cluster.a.upstream_rq_active").await == 1
    })
    .await;
    let before = updates(&proxy).await;
    let after = plane::named("after").await;
    ads.push(
        "b",
        &[Resource::Cluster(plane::static_cluster("b", &[after]))],
    )
    .await;
    let routes = vec![plane::route_to("/", plane::forward(&[("b", 1)]))];
    ads.push("b", &[Resource::Route(plane::table(&[HOST], routes))])
        .await;
    ads.push_raw(ResourceType::Cluster, "", Vec::new(), &["a"])
        .await;
    in_force(&proxy, before + 3).await;
    assert_eq!(proxy.get(HOST).await, (200, "after".to_owned()));
    assert!(!begun.is_finished(), "the slow one is still in flight");
    assert_eq!(begun.await.unwrap().unwrap(), (200, "before".to_owned()));
}

/// An app that counts its requests, and serves some of them slowly.
async fn counted(ads: &Arc<AtomicUsize>) -> SocketAddr {
    let asked = Arc::clone(ads);
    plane::app(move |request| {
        asked.fetch_add(1, Ordering::Relaxed);
        async move {
            if request.uri().path() == "/slow" {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            plane::text(200, "ok")
        }
    })
    .await
}

#[tokio::test]
async fn an_endpoint_that_goes_gets_nothing_more_and_loses_nothing() {
    let (stays, goes) = (Arc::default(), Arc::default());
    let both = [counted(&stays).await, counted(&goes).await];
    let (ads, proxy): (Ads, Proxy) = under("true", both[0]).await;
    let tally = Arc::new(Tally::default());
    let clients = crowd(proxy.addr("egress"), &tally, (12, 4));
    for turn in 0..5 * repeat() {
        let before = updates(&proxy).await;
        ads.push(
            &format!("two{turn}"),
            &[Resource::Cluster(plane::static_cluster("a", &both))],
        )
        .await;
        let seen = goes.load(Ordering::Relaxed);
        plane::eventually("both are asked", || async {
            goes.load(Ordering::Relaxed) > seen + 5
        })
        .await;
        ads.push(
            &format!("one{turn}"),
            &[Resource::Cluster(plane::static_cluster("a", &both[..1]))],
        )
        .await;
        in_force(&proxy, before + 2).await;
        // What had been picked before is under way for a moment; then there is silence while the other one serves.
        tally.answered(16).await;
        let seen = goes.load(Ordering::Relaxed);
        tally.answered(100).await;
        assert_eq!(
            goes.load(Ordering::Relaxed),
            seen,
            "asked after it had gone"
        );
    }
    tally.stop.store(true, Ordering::Relaxed);
    all_well(clients, &proxy).await;
}

#[tokio::test]
async fn a_listener_that_names_another_table_keeps_the_old_one_until_that_has_come() {
    let (ads, proxy) = under("true", app().await).await;
    let tally = Arc::new(Tally::default());
    let clients = crowd(proxy.addr("egress"), &tally, (12, 4));
    let before = updates(&proxy).await;
    let mut listener = plane::egress_listener();
    let manager = plane::manager("egress", "other");
    let filter = xds::NetworkFilter::Http(Box::new(manager));
    listener.default_filter_chain = Some(plane::chain("default", filter));
    ads.push("l2", &[Resource::Listener(listener)]).await;
    in_force(&proxy, before + 1).await;
    tally.answered(100).await;
    let routes = vec![plane::route_to("/", plane::forward(&[("a", 1)]))];
    let mut table = plane::table(&[HOST], routes);
    table.name = "other".to_owned();
    ads.push("o1", &[Resource::Route(table)]).await;
    in_force(&proxy, before + 2).await;
    tally.answered(100).await;
    tally.stop.store(true, Ordering::Relaxed);
    all_well(clients, &proxy).await;
}
