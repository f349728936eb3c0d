// SPDX-License-Identifier: Apache-2.0
//! Mutual TLS between two data planes: who is let in, who is not, and rotation under load.

use std::net::SocketAddr;

use pillion_xds::cluster::Cluster;
use pillion_xds::cluster::UpstreamProtocol;
use pillion_xds::cluster::UpstreamTls;
use pillion_xds::listener::FilterChain;
use pillion_xds::listener::NetworkFilter;
use pillion_xds::listener::TransportProtocol;
use pillion_xds::secret::SecretSource;

use crate::pki;
use crate::pki::Authority;
use crate::plane::*;

const CALLER: &str = "spiffe://test/mesh/m/virtualNode/caller";
const CALLEE: &str = "spiffe://test/mesh/m/virtualNode/callee";
const STRANGER: &str = "spiffe://test/mesh/m/virtualNode/stranger";

fn http_chain() -> FilterChain {
    chain_for_port(8080, NetworkFilter::Http(Box::new(manager("ingress", "r"))))
}

fn tls_chain(clients: &[&str]) -> FilterChain {
    FilterChain {
        tls: Some(pki::server(CALLEE, clients)),
        ..http_chain()
    }
}

/// The callee's sidecar before an app that says `in`.
async fn callee(authority: &Authority, chains: Vec<FilterChain>) -> Plane {
    let mut resources = ingress(chains, UpstreamProtocol::Http1);
    resources.secrets = authority.secrets(&[CALLEE]);
    Plane::start(resources, Some(named("in").await))
}

/// The caller's sidecar, which knows itself as CALLER and STRANGER.
fn caller(authority: &Authority, to: SocketAddr, tls: Option<UpstreamTls>) -> Plane {
    let cluster = Cluster {
        tls,
        ..static_cluster("callee", &[to])
    };
    let mut resources = egress(
        vec![cluster],
        vec![route_to("/", forward(&[("callee", 1)]))],
    );
    resources.secrets = authority.secrets(&[CALLER, STRANGER]);
    Plane::start(resources, None)
}

async fn answer(caller: &Plane) -> (u16, String) {
    let response = send(caller.egress(), get("/")).await;
    (response.status().as_u16(), body(response).await)
}

#[tokio::test]
async fn sidecars_that_know_each_other_talk() {
    let authority = Authority::new();
    let callee = callee(&authority, vec![tls_chain(&[CALLER])]).await;
    let caller = caller(
        &authority,
        callee.listen(),
        Some(pki::client(Some(CALLER), CALLEE)),
    );
    assert_eq!(answer(&caller).await, (200, "in".to_owned()));
    assert_eq!(callee.stat("listener.0.0.0.0_15000.ssl.handshake"), 1);
    assert_eq!(caller.stat("cluster.callee.ssl.handshake"), 1);
}

#[tokio::test]
async fn a_handshake_that_stalls_is_given_up_and_others_shake_hands_meanwhile() {
    use std::time::Duration;
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;
    let authority = Authority::new();
    let mut resources = ingress(vec![tls_chain(&[CALLER])], UpstreamProtocol::Http1);
    resources.secrets = authority.secrets(&[CALLEE]);
    let callee = Plane::start_with(resources, Some(named("in").await), |settings| {
        settings.policy.limits.handshake = Duration::from_millis(300);
    });
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut socket = tokio::net::TcpStream::connect(callee.listen())
            .await
            .unwrap();
        // A record of 512 bytes is announced, and its first byte says ClientHello.
        socket.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
        stalled.push(socket);
    }
    let to = Some(pki::client(Some(CALLER), CALLEE));
    let caller = caller(&authority, callee.listen(), to);
    assert_eq!(answer(&caller).await, (200, "in".to_owned()));
    for socket in &mut stalled {
        let mut buffer = [0; 16];
        let read = socket.read(&mut buffer);
        let ended = tokio::time::timeout(Duration::from_secs(5), read).await;
        assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{ended:?}");
    }
    let failed = "listener.0.0.0.0_15000.ssl.connection_error";
    callee.eventually_stat(failed, 20).await;
}

#[tokio::test]
async fn http2_between_sidecars_is_negotiated() {
    let authority = Authority::new();
    let callee = callee(&authority, vec![tls_chain(&[])]).await;
    let mut caller = caller(
        &authority,
        callee.listen(),
        Some(pki::client(Some(CALLER), CALLEE)),
    );
    caller.push(|resources| {
        let cluster = resources.clusters["callee"].as_ref().clone();
        let cluster = Cluster {
            protocol: UpstreamProtocol::Http2,
            ..cluster
        };
        resources
            .clusters
            .insert("callee".to_owned(), cluster.into());
    });
    assert_eq!(answer(&caller).await, (200, "in".to_owned()));
    callee
        .eventually_stat("http.ingress.downstream_cx_http2_total", 1)
        .await;
}

#[tokio::test]
async fn a_server_under_another_name_is_refused() {
    let authority = Authority::new();
    let callee = callee(&authority, vec![tls_chain(&[])]).await;
    let caller = caller(
        &authority,
        callee.listen(),
        Some(pki::client(Some(CALLER), STRANGER)),
    );
    let (status, said) = answer(&caller).await;
    assert_eq!(status, 503);
    assert!(said.contains("TLS_error"), "{said}");
    assert_eq!(caller.stat("cluster.callee.ssl.fail_verify_san"), 1);
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    let callee = callee(&Authority::new(), vec![tls_chain(&[])]).await;
    let caller = caller(
        &Authority::new(),
        callee.listen(),
        Some(pki::client(Some(CALLER), CALLEE)),
    );
    assert_eq!(answer(&caller).await.0, 503);
    assert_eq!(caller.stat("cluster.callee.ssl.fail_verify_error"), 1);
}

#[tokio::test]
async fn a_client_under_another_name_is_refused() {
    let authority = Authority::new();
    let callee = callee(&authority, vec![tls_chain(&[CALLER])]).await;
    let caller = caller(
        &authority,
        callee.listen(),
        Some(pki::client(Some(STRANGER), CALLEE)),
    );
    assert_eq!(answer(&caller).await.0, 503);
    assert_eq!(callee.stat("listener.0.0.0.0_15000.ssl.fail_verify_san"), 1);
}

#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let authority = Authority::new();
    let callee = callee(&authority, vec![tls_chain(&[])]).await;
    let caller = caller(&authority, callee.listen(), Some(pki::client(None, CALLEE)));
    assert_eq!(answer(&caller).await.0, 503);
    assert_eq!(
        callee.stat("listener.0.0.0.0_15000.ssl.fail_verify_no_cert"),
        1
    );
}

#[tokio::test]
async fn a_spiffe_certificate_that_names_two_is_nobody_s() {
    let authority = Authority::new();
    let mut callee = callee(&authority, vec![tls_chain(&[])]).await;
    callee.push(|resources| {
        pki::put(
            &mut resources.secrets,
            CALLEE,
            authority.leaf(&[CALLEE, STRANGER]),
        )
    });
    let caller = caller(
        &authority,
        callee.listen(),
        Some(pki::client(Some(CALLER), CALLEE)),
    );
    assert_eq!(answer(&caller).await.0, 503);
}

#[tokio::test]
async fn strict_refuses_plaintext_and_permissive_takes_both() {
    let authority = Authority::new();
    let strict = callee(&authority, vec![tls_chain(&[])]).await;
    assert_ne!(
        answer(&caller(&authority, strict.listen(), None)).await.0,
        200
    );

    let mut secure = tls_chain(&[]);
    secure.name = "tls".to_owned();
    secure.matching.transport = Some(TransportProtocol::Tls);
    let mut plain = http_chain();
    plain.matching.transport = Some(TransportProtocol::RawBuffer);
    let permissive = callee(&authority, vec![secure, plain]).await;
    let tls = pki::client(Some(CALLER), CALLEE);
    assert_eq!(
        answer(&caller(&authority, permissive.listen(), Some(tls)))
            .await
            .0,
        200
    );
    assert_eq!(
        answer(&caller(&authority, permissive.listen(), None))
            .await
            .0,
        200
    );
}

#[tokio::test]
async fn tls_without_its_secret_says_so_and_works_once_it_comes() {
    let authority = Authority::new();
    let callee = callee(&authority, vec![tls_chain(&[])]).await;
    let mut caller = caller(
        &authority,
        callee.listen(),
        Some(pki::client(Some(CALLER), CALLEE)),
    );
    let secret = caller.resources.secrets.get(CALLER).unwrap().clone();
    caller.push(|resources| drop(resources.secrets.remove(CALLER)));
    let (status, said) = answer(&caller).await;
    assert_eq!(status, 503);
    assert!(said.contains(CALLER), "{said}");
    caller.push(|resources| drop(resources.secrets.insert(CALLER.to_owned(), secret)));
    assert_eq!(answer(&caller).await.0, 200);
}

#[tokio::test]
async fn certificates_rotate_without_a_lost_request() {
    let authority = Authority::new();
    let mut callee = callee(&authority, vec![tls_chain(&[CALLER])]).await;
    let mut caller = caller(
        &authority,
        callee.listen(),
        Some(pki::client(Some(CALLER), CALLEE)),
    );
    for round in 0..20 {
        assert_eq!(answer(&caller).await.0, 200, "round {round}");
        callee
            .push(|resources| pki::put(&mut resources.secrets, CALLEE, authority.leaf(&[CALLEE])));
        caller
            .push(|resources| pki::put(&mut resources.secrets, CALLER, authority.leaf(&[CALLER])));
        assert_eq!(answer(&caller).await.0, 200, "round {round}");
    }
}

#[tokio::test]
async fn certificate_files_are_read_and_their_change_is_seen() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let write = |name: &str, value: &str| std::fs::write(path(name), value).unwrap();
    let leaf = |uri: &str| match authority.leaf(&[uri]) {
        pillion_xds::secret::SecretValue::Certificate { chain, key } => (chain, key),
        pillion_xds::secret::SecretValue::TrustBundle(_) => unreachable!("a leaf is no bundle"),
    };
    let (chain, key) = leaf(CALLEE);
    write("chain", &chain);
    write("key", &key);
    write("trust", &authority.pem);
    let mut tls = pki::server(CALLEE, &[]);
    tls.certificate = SecretSource::CertificateFiles {
        chain: path("chain"),
        key: path("key"),
    };
    tls.validation.as_mut().unwrap().trust = SecretSource::TrustFile(path("trust"));
    let mut callee = callee(
        &authority,
        vec![FilterChain {
            tls: Some(tls),
            ..http_chain()
        }],
    )
    .await;
    let as_callee = caller(
        &authority,
        callee.listen(),
        Some(pki::client(Some(CALLER), CALLEE)),
    );
    assert_eq!(answer(&as_callee).await.0, 200);
    assert!(!callee.live.current().files_changed());
    let (chain, key) = leaf(STRANGER);
    write("chain", &format!("{chain}\n"));
    write("key", &key);
    assert!(callee.live.current().files_changed());
    callee.push(|_| {});
    assert!(!callee.live.current().files_changed());
    let as_stranger = caller(
        &authority,
        callee.listen(),
        Some(pki::client(Some(CALLER), STRANGER)),
    );
    assert_eq!(answer(&as_stranger).await.0, 200);
}
