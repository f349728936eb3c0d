// SPDX-License-Identifier: Apache-2.0
//! The built proxy against a scripted control plane: what is good serves, what is bad is refused by name, and nothing
//! that serves is lost with the stream.

use std::net::SocketAddr;
use std::time::Duration;

use pillion_xds::cluster::Cluster;
use pillion_xds::cluster::UpstreamTls;
use pillion_xds::proto;
use pillion_xds::resource::Resource;
use pillion_xds::resource::ResourceType;
use pillion_xds::secret::SecretSource;
use prost::Message;

use crate::plane;
use crate::plane::eventually;
use crate::xds_proxy::NODE;
use crate::xds_proxy::Proxy;
use crate::xds_server::Ads;

const HOST: &str = "shop.local";
const IDENTITY: &str = "spiffe://pillion.local/mesh/m/virtualNode/web";

fn cluster(name: &str, to: SocketAddr) -> Resource {
    Resource::Cluster(plane::static_cluster(name, &[to]))
}

fn table(cluster: &str) -> Resource {
    Resource::Route(plane::table(
        &[HOST],
        vec![plane::route_to("/", plane::forward(&[(cluster, 1)]))],
    ))
}

/// One cluster behind one route of the egress listener.
pub(crate) async fn configure(ads: &Ads, to: SocketAddr) {
    configure_with(ads, plane::static_cluster("a", &[to])).await;
}

/// The same with this cluster, of the name `a`.
pub(crate) async fn configure_with(ads: &Ads, a: Cluster) {
    ads.push("c1", &[Resource::Cluster(a)]).await;
    ads.push("l1", &[Resource::Listener(plane::egress_listener())])
        .await;
    ads.heard("a subscription to the route table", |request| {
        request
            .resource_names_subscribe
            .contains(&"r".to_owned())
            .then_some(())
    })
    .await;
    ads.push("r1", &[table("a")]).await;
}

async fn serving(arguments: &[&str]) -> (Ads, Proxy) {
    let ads = Ads::start().await;
    let proxy = Proxy::start(ads.addr, arguments).await;
    configure(&ads, plane::named("v1").await).await;
    proxy.live().await;
    assert_eq!(proxy.get(HOST).await, (200, "v1".to_owned()));
    (ads, proxy)
}

#[tokio::test]
async fn a_good_configuration_becomes_live_and_is_acknowledged() {
    let (ads, proxy) = serving(&[]).await;
    let node = ads.heard("a node", |request| request.node.clone()).await;
    assert_eq!(node.id, NODE);
    ads.heard("an ACK of the route table", |request| {
        let acked = !request.response_nonce.is_empty() && request.error_detail.is_none();
        (acked && request.type_url == ResourceType::Route.url()).then_some(())
    })
    .await;
    assert!(
        proxy
            .admin("GET", "/server_info")
            .await
            .1
            .contains("\"state\": \"LIVE\"")
    );
    let stats = proxy.admin("GET", "/stats").await.1;
    for line in [
        "control_plane.connected_state: 1",
        "listener_manager.lds.update_success: 1",
        "cluster_manager.cds.update_success: 1",
        "server.live: 1",
    ] {
        assert!(stats.lines().any(|stat| stat == line), "{line} in\n{stats}");
    }
}

#[tokio::test]
async fn nothing_is_ready_before_its_route_table_has_come() {
    let ads = Ads::start().await;
    let proxy = Proxy::start(ads.addr, &[]).await;
    assert_eq!(
        proxy.admin("GET", "/ready").await,
        (503, "PRE_INITIALIZING\n".to_owned())
    );
    ads.push("c1", &[cluster("a", plane::named("v1").await)])
        .await;
    ads.push("l1", &[Resource::Listener(plane::egress_listener())])
        .await;
    // Clusters make it INITIALIZING; the listener, which asks for the table, may come a moment later.
    eventually("only the table is missing", || async {
        let info = proxy.admin("GET", "/server_info").await.1;
        info.contains("\"Route r\"") && !info.contains("Listener resources")
    })
    .await;
    assert_eq!(
        proxy.admin("GET", "/ready").await,
        (503, "INITIALIZING\n".to_owned())
    );
    ads.push("r1", &[table("a")]).await;
    proxy.live().await;
}

#[tokio::test]
async fn a_refused_cluster_leaves_the_old_route_serving_and_is_nacked_by_name() {
    let (ads, proxy) = serving(&[]).await;
    let mut bad = plane::static_cluster("orders", &[plane::named("v2").await]).encode();
    bad.lb_policy = proto::cluster::cluster::LbPolicy::RingHash.into();
    let any = proto::Any {
        type_url: ResourceType::Cluster.url().to_owned(),
        value: bad.encode_to_vec(),
    };
    let good = cluster("b", plane::named("b").await);
    let sent = vec![
        ("orders".to_owned(), any),
        ("b".to_owned(), good.encode_any()),
    ];
    ads.push_raw(ResourceType::Cluster, "c2", sent, &[]).await;
    assert_eq!(
        ads.nacked(ResourceType::Cluster).await,
        "orders: lb_policy RING_HASH is not supported; use ROUND_ROBIN"
    );
    ads.push("r2", &[table("orders")]).await;
    let reason = ads.nacked(ResourceType::Route).await;
    assert!(
        reason.starts_with("r: ") && reason.contains("orders"),
        "{reason}"
    );
    assert_eq!(proxy.get(HOST).await, (200, "v1".to_owned()));
    // The good one of the same response is in force.
    ads.push("r3", &[table("b")]).await;
    eventually("the good cluster serves", || async {
        proxy.get(HOST).await == (200, "b".to_owned())
    })
    .await;
    let stats = proxy.admin("GET", "/stats?filter=update_rejected").await.1;
    assert!(
        stats.contains("cluster_manager.cds.update_rejected: 1"),
        "{stats}"
    );
}

#[tokio::test]
async fn bytes_that_are_no_resource_are_nacked_and_harm_nothing() {
    let (ads, proxy) = serving(&[]).await;
    for kind in [
        ResourceType::Cluster,
        ResourceType::Listener,
        ResourceType::Route,
    ] {
        let any = proto::Any {
            type_url: kind.url().to_owned(),
            value: vec![0xff; 64],
        };
        ads.push_raw(kind, "x", vec![("junk".to_owned(), any)], &[])
            .await;
        assert!(ads.nacked(kind).await.starts_with("junk: does not decode"));
    }
    assert_eq!(proxy.get(HOST).await, (200, "v1".to_owned()));
}

#[tokio::test]
async fn a_reconnect_tells_the_versions_held_and_serving_goes_on_meanwhile() {
    let (ads, proxy) = serving(&[]).await;
    ads.hang_up();
    assert_eq!(proxy.get(HOST).await, (200, "v1".to_owned()));
    eventually("another stream", || async { ads.streams() == 2 }).await;
    for (kind, name, version) in [
        (ResourceType::Cluster, "a", "c1"),
        (ResourceType::Listener, "lds_egress_0.0.0.0_15001", "l1"),
        (ResourceType::Route, "r", "r1"),
    ] {
        let held = ads
            .heard("versions", |request| {
                (request.type_url == kind.url()).then(|| request.initial_resource_versions.clone())
            })
            .await;
        assert_eq!(
            held.get(name).map(String::as_str),
            Some(version),
            "{kind:?}"
        );
    }
    assert_eq!(proxy.get(HOST).await, (200, "v1".to_owned()));
    assert!(
        proxy.log().contains("control plane is away"),
        "{}",
        proxy.log()
    );
}

#[tokio::test]
async fn a_start_without_control_plane_serves_what_stands_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let arguments = ["--state-dir", state.to_str().unwrap()];
    let (ads, mut first) = serving(&arguments).await;
    first.terminate();
    assert_eq!(first.ended().await, Some(0), "{}", first.log());
    let away = ads.addr;
    ads.stop();
    eventually("the control plane is away", || async {
        tokio::net::TcpStream::connect(away).await.is_err()
    })
    .await;

    let begun = std::time::Instant::now();
    let second = Proxy::start(away, &arguments).await;
    second.live().await;
    let took = begun.elapsed();
    // From the call that makes the process, unoptimised and on a busy machine.
    assert!(took < Duration::from_secs(1), "ready after {took:?}");
    assert_eq!(second.get(HOST).await, (200, "v1".to_owned()));
    let status = crate::xds_proxy::call(second.addr("agent"), "GET", "localhost", "/status")
        .await
        .unwrap()
        .1;
    assert!(
        status.contains("\"managementServerConnectionStatus\": \"DISCONNECTED\""),
        "{status}"
    );

    // Back again, it is told what is held, and changes arrive.
    let ads = Ads::start_at(away, Duration::from_secs(3600)).await;
    ads.heard("versions from disk", |request| {
        (request.initial_resource_versions.get("r")? == "r1").then_some(())
    })
    .await;
    ads.push("c2", &[cluster("a", plane::named("v2").await)])
        .await;
    eventually("the change serves", || async {
        second.get(HOST).await == (200, "v2".to_owned())
    })
    .await;
}

#[tokio::test]
async fn a_control_plane_that_swallows_packets_does_not_hold_up_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["--state-dir", dir.path().to_str().unwrap()];
    let (ads, mut first) = serving(&arguments).await;
    first.terminate();
    assert_eq!(first.ended().await, Some(0), "{}", first.log());
    ads.stop();
    // Connects, and is never answered.
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let begun = std::time::Instant::now();
    let second = Proxy::start(deaf.local_addr().unwrap(), &arguments).await;
    second.live().await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(1), "ready after {took:?}");
    assert_eq!(second.get(HOST).await, (200, "v1".to_owned()));
}

#[tokio::test]
async fn a_damaged_state_file_is_told_and_the_proxy_waits_for_the_control_plane() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("resources.pb"), b"nonsense\n").unwrap();
    let ads = Ads::start().await;
    let away = ads.addr;
    ads.stop();
    let proxy = Proxy::start(away, &["--state-dir", dir.path().to_str().unwrap()]).await;
    eventually("it is told", || async {
        proxy.log().contains("cannot be used")
    })
    .await;
    assert_eq!(proxy.admin("GET", "/ready").await.0, 503);
}

#[tokio::test]
async fn a_removed_listener_is_gone_and_a_removed_cluster_waits_for_its_routes() {
    let (ads, proxy) = serving(&[]).await;
    ads.push_raw(ResourceType::Cluster, "", Vec::new(), &["a"])
        .await;
    ads.push_raw(
        ResourceType::Cluster,
        "c2",
        vec![(
            "b".to_owned(),
            cluster("b", plane::named("b").await).encode_any(),
        )],
        &[],
    )
    .await;
    eventually("b is there", || async {
        proxy
            .admin("GET", "/clusters")
            .await
            .1
            .contains("b::added_via_api")
    })
    .await;
    assert_eq!(proxy.get(HOST).await, (200, "v1".to_owned()));
    ads.push("r2", &[table("b")]).await;
    eventually("a is gone", || async {
        !proxy
            .admin("GET", "/clusters")
            .await
            .1
            .contains("a::added_via_api")
    })
    .await;
    assert_eq!(proxy.get(HOST).await, (200, "b".to_owned()));
}

/// The cluster offers our identity when asked, and checks nothing.
fn cluster_with_identity() -> Resource {
    let mut cluster = plane::static_cluster("tls", &["127.0.0.1:9".parse().unwrap()]);
    cluster.tls = Some(UpstreamTls {
        certificate: Some(SecretSource::Ads(IDENTITY.to_owned())),
        validation: None,
        sni: None,
        alpn: Vec::new(),
    });
    Resource::Cluster(cluster)
}

#[tokio::test]
async fn an_identity_that_contexts_ask_for_is_signed_and_renewed_and_its_key_stays_here() {
    let ads = Ads::with_life(Duration::from_secs(4)).await;
    let proxy = Proxy::start(ads.addr, &[]).await;
    ads.push("c0", &[cluster_with_identity()]).await;
    configure(&ads, plane::named("v1").await).await;
    eventually("signing is tried", || async {
        proxy.log().contains("no new certificate")
    })
    .await;
    assert_eq!(
        proxy.admin("GET", "/ready").await.0,
        503,
        "not ready without its certificate"
    );
    ads.sign_as(IDENTITY);
    proxy.live().await;
    let asked = ads.signed();
    assert_eq!(asked[0].node_id, NODE);
    assert!(
        asked[0].csr_pem.contains("BEGIN CERTIFICATE REQUEST")
            && !asked[0].csr_pem.contains("PRIVATE")
    );
    assert!(proxy.admin("GET", "/certs").await.1.contains(IDENTITY));
    eventually("it is renewed", || async { ads.signed().len() >= 2 }).await;
    let (first, second) = (&ads.signed()[0].csr_pem, &ads.signed()[1].csr_pem);
    assert_ne!(first, second, "a new key for a new certificate");
    // Identities are never asked for by SDS.
    let by_sds = ads.requests().iter().any(|request| {
        request
            .resource_names_subscribe
            .iter()
            .any(|n| n == IDENTITY)
    });
    assert!(!by_sds);
}

#[tokio::test]
async fn a_certificate_for_somebody_else_is_not_used() {
    let ads = Ads::start().await;
    ads.sign_as("spiffe://pillion.local/mesh/m/virtualNode/other");
    let proxy = Proxy::start(ads.addr, &[]).await;
    ads.push("c1", &[cluster_with_identity()]).await;
    eventually("it is told", || async {
        proxy.log().contains("TLS contexts ask for")
    })
    .await;
    assert!(!proxy.admin("GET", "/certs").await.1.contains("other"));
}
