// SPDX-License-Identifier: Apache-2.0
//! Whose certificate is good, case by case, on both sides of the built proxy; and what happens when key material changes
//! under it: rotation, revocation, files that do not fit.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use pillion_proxy::tls;
use pillion_proxy::tls::Material;
use pillion_proxy::tls::Secrets;
use pillion_xds::cluster::Cluster;
use pillion_xds::cluster::UpstreamProtocol;
use pillion_xds::cluster::UpstreamTls;
use pillion_xds::listener::DownstreamTls;
use pillion_xds::listener::FilterChain;
use pillion_xds::listener::NetworkFilter;
use pillion_xds::listener::RouteSource;
use pillion_xds::resource::Resource;
use pillion_xds::route;
use pillion_xds::secret::SanMatch;
use pillion_xds::secret::SecretSource;
use pillion_xds::secret::SecretValue;
use pillion_xds::secret::Validation;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose as Eku;
use rcgen::IsCa;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::TlsConnector;

use crate::pki;
use crate::pki::Authority;
use crate::pki::Issued;
use crate::pki::dns;
use crate::pki::uri;
use crate::plane;
use crate::plane::eventually;
use crate::sds_server::Sds;
use crate::xds_proxy::Proxy;
use crate::xds_proxy::command;
use crate::xds_server::Ads;

const CALLER: &str = "spiffe://apps.local/mesh/m/virtualNode/caller";
const CALLEE: &str = "spiffe://apps.local/mesh/m/virtualNode/callee";
const TRUST: &str = "spiffe://apps.local";

fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

fn file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn secrets(pair: Option<&Issued>) -> Secrets {
    let mut all = Secrets::new();
    if let Some(pair) = pair {
        pki::put(&mut all, "own", pair.secret());
    }
    all
}

/// A client that shows this certificate and takes any server.
fn connector(pair: Option<&Issued>) -> TlsConnector {
    let source = UpstreamTls {
        certificate: pair.map(|_| SecretSource::Ads("own".to_owned())),
        validation: None,
        sni: None,
        alpn: Vec::new(),
    };
    let ads = secrets(pair);
    let material = Material {
        ads: &ads,
        socket: None,
    };
    TlsConnector::from(tls::client(&source, material, &[], None).config.unwrap())
}

async fn shake(
    connector: &TlsConnector,
    to: SocketAddr,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = ServerName::try_from("callee").unwrap();
    connector.connect(name, TcpStream::connect(to).await?).await
}

/// One request on a connection that stays open: whether it was answered 200.
async fn ask(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) -> bool {
    let request = b"GET / HTTP/1.1\r\nHost: callee\r\n\r\n";
    if stream.write_all(request).await.is_err() {
        return false;
    }
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !answer.ends_with(b"in") {
        match tokio::time::timeout(plane::LIMIT, stream.read(&mut buffer)).await {
            Ok(Ok(number)) if number > 0 => answer.extend_from_slice(&buffer[..number]),
            _ => return false,
        }
    }
    answer.starts_with(b"HTTP/1.1 200")
}

async fn admitted(connector: &TlsConnector, to: SocketAddr) -> bool {
    match shake(connector, to).await {
        Ok(mut stream) => ask(&mut stream).await,
        Err(_) => false,
    }
}

/// A server that shows this certificate, takes any client, and answers `in`.
async fn server(pair: &Issued) -> SocketAddr {
    let source = DownstreamTls {
        certificate: SecretSource::Ads("own".to_owned()),
        validation: None,
        require_client_certificate: false,
        alpn: Vec::new(),
    };
    let ads = secrets(Some(pair));
    let material = Material {
        ads: &ads,
        socket: None,
    };
    let acceptor = TlsAcceptor::from(tls::server(&source, material, None).config.unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(socket).await else {
                    return;
                };
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nin";
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

fn validation(trust: SecretSource, names: &[SanMatch]) -> Validation {
    Validation {
        trust,
        subject_alt_names: names.to_vec(),
    }
}

fn uri_name(name: &str) -> SanMatch {
    SanMatch::Uri(name.to_owned())
}

/// The ingress of the proxy: one chain for a port, with TLS.
fn ingress(port: u16, tls: DownstreamTls) -> Vec<Resource> {
    let mut manager = plane::manager("ingress", "in");
    manager.routes = RouteSource::Inline(plane::table(
        &["*"],
        vec![plane::route_to("/", plane::forward(&[("local", 1)]))],
    ));
    let chain = FilterChain {
        tls: Some(tls),
        ..plane::chain_for_port(port, NetworkFilter::Http(Box::new(manager)))
    };
    vec![Resource::Listener(plane::ingress_listener(vec![chain]))]
}

fn local(port: u16) -> Resource {
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    Resource::Cluster(Cluster {
        protocol: UpstreamProtocol::Http1,
        ..plane::static_cluster("local", &[to])
    })
}

/// The built proxy before an app that says `in`, with TLS by `tls` on its listener.
async fn callee(tls: DownstreamTls, sds: Option<&Sds>) -> (Ads, Proxy, SocketAddr) {
    let ads = Ads::start().await;
    let port = free_port();
    let app = plane::named("in").await;
    let listen = format!("127.0.0.1:{port}={app}");
    let mut command = command(&ads.addr.to_string(), &["--listen", &listen]);
    if let Some(sds) = sds {
        command.env("APPMESH_SDS_SOCKET_PATH", sds.path());
    }
    let proxy = Proxy::spawn(command).await;
    ads.push("c1", &[local(port)]).await;
    ads.push("l1", &ingress(port, tls)).await;
    let addr = proxy.addr(&format!("listen:{port}"));
    (ads, proxy, addr)
}

fn downstream(dir: &Path, own: &Issued, trust: &str, names: &[SanMatch]) -> DownstreamTls {
    DownstreamTls {
        certificate: SecretSource::CertificateFiles {
            chain: file(dir, "cert.pem", &own.chain),
            key: file(dir, "key.pem", &own.key),
        },
        validation: Some(validation(
            SecretSource::TrustFile(file(dir, "ca.pem", trust)),
            names,
        )),
        require_client_certificate: true,
        alpn: Vec::new(),
    }
}

async fn stat(proxy: &Proxy, name: &str) -> u64 {
    let stats = proxy.admin("GET", "/stats").await.1;
    let line = stats
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("no {name} in\n{stats}"))
        .parse()
        .unwrap()
}

type Case = (&'static str, Option<Issued>, bool);

fn day(offset: i64) -> SystemTime {
    let span = Duration::from_secs(86_400 * offset.unsigned_abs());
    let now = SystemTime::now();
    if offset < 0 { now - span } else { now + span }
}

const REVOKED: u64 = 4711;

/// Leaves whose only fault, or merit, is what their name says. `name` is the good SAN.
fn common_cases(ca: &Authority, inter: &Authority, name: fn() -> rcgen::SanType) -> Vec<Case> {
    let mut cases = leaf_cases(ca, name);
    cases.extend(chain_cases(ca, inter, name));
    cases
}

fn leaf_cases(ca: &Authority, name: fn() -> rcgen::SanType) -> Vec<Case> {
    let with = |adjust: &dyn Fn(&mut CertificateParams)| {
        Some(ca.issue(|params| {
            params.subject_alt_names = vec![name()];
            adjust(params);
        }))
    };
    let common = |p: &mut CertificateParams| {
        p.subject_alt_names.clear();
        p.distinguished_name
            .push(DnType::CommonName, "svc.apps.local");
    };
    let two = |p: &mut CertificateParams| p.subject_alt_names.extend([uri(CALLER), uri(CALLEE)]);
    let both = |p: &mut CertificateParams| {
        p.extended_key_usages = vec![Eku::ClientAuth, Eku::ServerAuth];
    };
    vec![
        ("good", with(&|_| {}), true),
        ("expired", with(&|p| p.not_after = day(-1).into()), false),
        (
            "not yet valid",
            with(&|p| p.not_before = day(1).into()),
            false,
        ),
        (
            "an authority itself",
            with(&|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            false,
        ),
        (
            "for code signing",
            with(&|p| p.extended_key_usages = vec![Eku::CodeSigning]),
            false,
        ),
        ("for both ends", with(&both), true),
        (
            "without names",
            with(&|p| p.subject_alt_names.clear()),
            false,
        ),
        ("with the name as common name only", with(&common), false),
        ("of two SPIFFE identities", with(&two), false),
        (
            "revoked",
            with(&|p| p.serial_number = Some(REVOKED.into())),
            false,
        ),
    ]
}

fn chain_cases(ca: &Authority, inter: &Authority, name: fn() -> rcgen::SanType) -> Vec<Case> {
    let good = |params: &mut CertificateParams| params.subject_alt_names = vec![name()];
    let called = |params: &mut CertificateParams, name: &str| {
        params.distinguished_name.push(DnType::CommonName, name);
    };
    let pathlen = ca.intermediate(|params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        called(params, "no further");
    });
    let below = pathlen.intermediate(|params| called(params, "below"));
    let constrained = ca.intermediate(|params| {
        called(params, "constrained");
        params.name_constraints = Some(rcgen::NameConstraints {
            permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("elsewhere.example".into())],
            excluded_subtrees: Vec::new(),
        });
    });
    let old = ca.intermediate(|params| {
        called(params, "old");
        params.not_after = day(-1).into();
    });
    let evil = constrained.issue(|params| {
        params.subject_alt_names = vec![name(), dns("evil.example")];
    });
    let chained = inter.issue(good);
    let leaf = chained.chain.split_inclusive("-----END CERTIFICATE-----\n");
    let alone = Issued {
        chain: leaf.take(1).collect(),
        key: chained.key.clone(),
    };
    let (other, twin) = (Authority::named("another"), Authority::new());
    vec![
        ("of another authority", Some(other.issue(good)), false),
        ("of one of the same name", Some(twin.issue(good)), false),
        ("through an intermediate", Some(chained), true),
        ("without its intermediate", Some(alone), false),
        ("through an old intermediate", Some(old.issue(good)), false),
        ("beyond a path length", Some(below.issue(good)), false),
        ("outside its issuer's constraints", Some(evil), false),
    ]
}

/// Twelve names that a careless comparison takes for CALLER.
const SPELLINGS: [(&str, &str); 12] = [
    (
        "SPIFFE in capitals",
        "SPIFFE://apps.local/mesh/m/virtualNode/caller",
    ),
    (
        "domain in capitals",
        "spiffe://APPS.local/mesh/m/virtualNode/caller",
    ),
    (
        "path in capitals",
        "spiffe://apps.local/mesh/m/virtualnode/caller",
    ),
    (
        "slash at the end",
        "spiffe://apps.local/mesh/m/virtualNode/caller/",
    ),
    (
        "two slashes",
        "spiffe://apps.local//mesh/m/virtualNode/caller",
    ),
    (
        "percent-encoded",
        "spiffe://apps.local/mesh/m/virtualNode/%63aller",
    ),
    (
        "dot segments",
        "spiffe://apps.local/mesh/m/x/../virtualNode/caller",
    ),
    ("a prefix", "spiffe://apps.local/mesh/m/virtualNode/calle"),
    (
        "a longer name",
        "spiffe://apps.local/mesh/m/virtualNode/caller2",
    ),
    ("a query", "spiffe://apps.local/mesh/m/virtualNode/caller?a"),
    (
        "a fragment",
        "spiffe://apps.local/mesh/m/virtualNode/caller#a",
    ),
    (
        "a port",
        "spiffe://apps.local:443/mesh/m/virtualNode/caller",
    ),
];

#[tokio::test]
async fn clients_are_admitted_by_their_certificates() {
    let (ca, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    let inter = ca.intermediate(|_| {});
    let revoked_inter = ca.intermediate(|params| {
        params.distinguished_name.push(DnType::CommonName, "gone");
        params.serial_number = Some((REVOKED + 1).into());
    });
    let own = ca.issue(|params| params.subject_alt_names = vec![uri(CALLEE)]);
    let tls = downstream(dir.path(), &own, &ca.pem, &[uri_name(CALLER)]);
    let lists = [
        ca.revoking(&[REVOKED, REVOKED + 1]),
        inter.revoking(&[]),
        revoked_inter.revoking(&[]),
    ];
    file(dir.path(), "ca.pem.crl", &lists.concat());
    let (_ads, proxy, addr) = callee(tls, None).await;
    proxy.live().await;
    let mut cases = common_cases(&ca, &inter, || uri(CALLER));
    let named = |name: &str| ca.issue(|params| params.subject_alt_names = vec![uri(name)]);
    cases.extend(
        SPELLINGS
            .iter()
            .map(|(what, name)| (*what, Some(named(name)), false)),
    );
    let with = |names: Vec<rcgen::SanType>, usage: Vec<Eku>| {
        Some(ca.issue(|params| {
            params.subject_alt_names = names;
            params.extended_key_usages = usage;
        }))
    };
    let dns_as_uri = vec![dns("apps.local")];
    cases.extend([
        ("nobody", None, false),
        (
            "for servers only",
            with(vec![uri(CALLER)], vec![Eku::ServerAuth]),
            false,
        ),
        (
            "for clients only",
            with(vec![uri(CALLER)], vec![Eku::ClientAuth]),
            true,
        ),
        ("a host name", with(dns_as_uri, Vec::new()), false),
        (
            "a name beside a host name",
            with(vec![dns("x.example"), uri(CALLER)], Vec::new()),
            true,
        ),
        (
            "through a revoked intermediate",
            Some(revoked_inter.issue(|params| params.subject_alt_names = vec![uri(CALLER)])),
            false,
        ),
    ]);
    assert!(cases.len() >= 35, "{}", cases.len());
    let mut wrong = Vec::new();
    for (what, pair, good) in &cases {
        if admitted(&connector(pair.as_ref()), addr).await != *good {
            wrong.push(*what);
        }
    }
    assert!(wrong.is_empty(), "not as expected: {wrong:?}");
    for name in [
        "ssl.handshake",
        "ssl.fail_verify_san",
        "ssl.fail_verify_error",
        "ssl.fail_verify_no_cert",
    ] {
        let name = format!("listener.0.0.0.0_15000.{name}");
        assert!(stat(&proxy, &name).await > 0, "{name}");
    }
    // Plaintext on a TLS port is not answered.
    let mut plain = TcpStream::connect(addr).await.unwrap();
    assert!(!ask(&mut plain).await);
    let name = "listener.0.0.0.0_15000.ssl.connection_error";
    eventually("it is counted", || async { stat(&proxy, name).await > 0 }).await;
}

/// A cluster whose servers are checked against `names` (not at all with none), routed to under its own name.
fn checking(name: &str, to: SocketAddr, trust: &str, names: Option<&[SanMatch]>) -> Cluster {
    Cluster {
        tls: Some(UpstreamTls {
            certificate: None,
            validation: names
                .map(|names| validation(SecretSource::TrustFile(trust.to_owned()), names)),
            sni: Some("svc.apps.local".to_owned()),
            alpn: Vec::new(),
        }),
        ..plane::static_cluster(name, &[to])
    }
}

fn routed(clusters: &[Cluster]) -> route::RouteConfiguration {
    let host = |cluster: &Cluster| route::VirtualHost {
        name: cluster.name.clone(),
        domains: vec![cluster.name.clone()],
        routes: vec![plane::route_to("/", plane::forward(&[(&cluster.name, 1)]))],
    };
    route::RouteConfiguration {
        name: "r".to_owned(),
        virtual_hosts: clusters.iter().map(host).collect(),
    }
}

type ServerCase = (&'static str, Issued, bool, Option<Vec<SanMatch>>);

fn server_cases(ca: &Authority, inter: &Authority) -> Vec<ServerCase> {
    let host = || dns("svc.apps.local");
    let exact = [SanMatch::Dns("svc.apps.local".to_owned())];
    let pattern = [SanMatch::Dns("*.apps.local".to_owned())];
    let loopback = [SanMatch::Ip("127.0.0.1".to_owned())];
    let ip = |text: &str| rcgen::SanType::IpAddress(text.parse().unwrap());
    let mut cases: Vec<ServerCase> = common_cases(ca, inter, host)
        .into_iter()
        .map(|(what, pair, good)| (what, pair.unwrap(), good, Some(exact.to_vec())))
        .collect();
    let mut add = |what, name, good, accepted: &[SanMatch]| {
        let pair = ca.issue(|params| params.subject_alt_names = vec![name]);
        cases.push((what, pair, good, Some(accepted.to_vec())));
    };
    add("a wildcard", dns("*.apps.local"), true, &exact);
    add("capitals", dns("SVC.Apps.Local"), true, &exact);
    add("a wildcard above", dns("*.local"), false, &exact);
    add("half a wildcard", dns("s*.apps.local"), false, &exact);
    add("another host", dns("other.apps.local"), false, &exact);
    add("the parent", dns("apps.local"), false, &exact);
    add("a host below", dns("a.svc.apps.local"), false, &exact);
    add("the host as URI", uri("svc.apps.local"), false, &exact);
    add("one of a pattern", dns("b.apps.local"), true, &pattern);
    add("a pattern itself", dns("*.apps.local"), true, &pattern);
    add("below a pattern", dns("a.b.apps.local"), false, &pattern);
    add("its identity", uri(CALLEE), true, &[uri_name(CALLEE)]);
    add("another's", uri(CALLER), false, &[uri_name(CALLEE)]);
    let either = [uri_name(CALLEE), exact[0].clone()];
    add("one of a list", host(), true, &either);
    add("an address", ip("127.0.0.1"), true, &loopback);
    add("another address", ip("127.0.0.2"), false, &loopback);
    add("an address as host", dns("127.0.0.1"), false, &loopback);
    let stranger = Authority::named("stranger").issue(|p| p.not_after = day(-1).into());
    cases.push(("anybody where nothing is checked", stranger, true, None));
    cases
}

#[tokio::test]
async fn servers_are_accepted_by_their_certificates() {
    let (ca, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    let inter = ca.intermediate(|_| {});
    let trust = file(dir.path(), "ca.pem", &ca.pem);
    let lists = [ca.revoking(&[REVOKED]), inter.revoking(&[])];
    file(dir.path(), "ca.pem.crl", &lists.concat());
    let cases = server_cases(&ca, &inter);
    assert!(cases.len() >= 30, "{}", cases.len());
    let mut clusters = Vec::new();
    for (index, (_, pair, _, names)) in cases.iter().enumerate() {
        let to = server(pair).await;
        clusters.push(checking(&format!("c{index}"), to, &trust, names.as_deref()));
    }
    let plaintext = plane::named("plain").await;
    clusters.push(checking("plain", plaintext, &trust, None));
    let ads = Ads::start().await;
    let proxy = Proxy::start(ads.addr, &[]).await;
    let resources: Vec<Resource> = clusters.iter().cloned().map(Resource::Cluster).collect();
    ads.push("c1", &resources).await;
    ads.push("l1", &[Resource::Listener(plane::egress_listener())])
        .await;
    ads.push("r1", &[Resource::Route(routed(&clusters))]).await;
    proxy.live().await;
    let mut wrong = Vec::new();
    for (index, (what, _, good, _)) in cases.iter().enumerate() {
        let (status, said) = proxy.get(&format!("c{index}")).await;
        if (status == 200) != *good || (status != 200 && !said.contains("TLS_error")) {
            wrong.push((what, status, said));
        }
    }
    assert!(wrong.is_empty(), "not as expected: {wrong:?}");
    let status = proxy.get("plain").await.0;
    assert_eq!(status, 503, "a plaintext server is refused");
    let index = |wanted: &str| cases.iter().position(|(what, ..)| *what == wanted).unwrap();
    for (what, name) in [
        ("good", "ssl.handshake"),
        ("another host", "ssl.fail_verify_san"),
        ("expired", "ssl.fail_verify_error"),
    ] {
        let name = format!("cluster.c{}.{name}", index(what));
        assert!(stat(&proxy, &name).await > 0, "{name}");
    }
    assert!(stat(&proxy, "cluster.plain.ssl.connection_error").await > 0);
}

fn by_socket(name: &str) -> SecretSource {
    SecretSource::Sds {
        name: name.to_owned(),
        cluster: "static_cluster_sds_unix_socket".to_owned(),
    }
}

fn identity(ca: &Authority, name: &str, serial: u64) -> SecretValue {
    ca.issue(|params| {
        params.subject_alt_names = vec![uri(name)];
        params.serial_number = Some(serial.into());
    })
    .secret()
}

fn served_by_socket() -> DownstreamTls {
    DownstreamTls {
        certificate: by_socket(CALLEE),
        validation: Some(validation(by_socket(TRUST), &[uri_name(CALLER)])),
        require_client_certificate: true,
        alpn: vec!["http/1.1".to_owned()],
    }
}

#[tokio::test]
async fn secrets_of_a_socket_rotate_on_both_sides_without_a_lost_request() {
    let (ca, sds) = (Authority::new(), Sds::start());
    sds.put(TRUST, SecretValue::TrustBundle(ca.pem.clone()));
    sds.put(CALLEE, identity(&ca, CALLEE, 1));
    sds.put(CALLER, identity(&ca, CALLER, 2));
    let (ads, proxy, addr) = callee(served_by_socket(), Some(&sds)).await;
    let out = Cluster {
        tls: Some(UpstreamTls {
            certificate: Some(by_socket(CALLER)),
            validation: Some(validation(by_socket(TRUST), &[uri_name(CALLEE)])),
            sni: None,
            alpn: Vec::new(),
        }),
        ..plane::static_cluster("out", &[addr])
    };
    let table = routed(std::slice::from_ref(&out));
    ads.push("c2", &[Resource::Cluster(out)]).await;
    ads.push("l2", &[Resource::Listener(plane::egress_listener())])
        .await;
    ads.push("r2", &[Resource::Route(table)]).await;
    proxy.live().await;
    let node = sds.heard().into_iter().find_map(|request| request.node);
    assert_eq!(node.unwrap().id, crate::xds_proxy::NODE);

    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let load = {
        let (stop, egress) = (Arc::clone(&stop), proxy.addr("egress"));
        tokio::spawn(async move {
            let (mut sent, mut lost) = (0_u32, 0_u32);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let answer = crate::xds_proxy::call(egress, "GET", "out", "/").await;
                sent += 1;
                lost += u32::from(answer.ok() != Some((200, "in".to_owned())));
            }
            (sent, lost)
        })
    };
    let other = Authority::named("the next root");
    for round in 0..50 {
        // The roots overlap: the new one is known before anybody shows its certificates, the old one as long as any does.
        let issuer = if round < 25 { &ca } else { &other };
        let known = [ca.pem.clone(), other.pem.clone()].concat();
        let bundle = sds.put(TRUST, SecretValue::TrustBundle(known));
        sds.acked(bundle).await;
        sds.put(CALLEE, identity(issuer, CALLEE, 100 + round));
        let last = sds.put(CALLER, identity(issuer, CALLER, 200 + round));
        sds.acked(last).await;
    }
    let bundle = sds.put(TRUST, SecretValue::TrustBundle(other.pem.clone()));
    sds.acked(bundle).await;
    eventually("a few more requests", || async {
        stat(&proxy, "http.ingress.downstream_rq_2xx").await > 60
    })
    .await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let (sent, lost) = load.await.unwrap();
    assert!(sent > 50, "{sent}");
    assert_eq!(lost, 0, "of {sent}");
    assert!(!proxy.log().contains("PRIVATE KEY"));
}

#[tokio::test]
async fn a_revoked_peer_is_cut_off_and_others_are_not() {
    let (ca, sds) = (Authority::new(), Sds::start());
    sds.put(TRUST, SecretValue::TrustBundle(ca.pem.clone()));
    sds.put(CALLEE, identity(&ca, CALLEE, 1));
    let (_ads, proxy, addr) = callee(served_by_socket(), Some(&sds)).await;
    proxy.live().await;
    let named = |serial: u64| {
        ca.issue(|params| {
            params.subject_alt_names = vec![uri(CALLER)];
            params.serial_number = Some(serial.into());
        })
    };
    let (bad, good) = (connector(Some(&named(66))), connector(Some(&named(67))));
    let mut cut = shake(&bad, addr).await.unwrap();
    let mut kept = shake(&good, addr).await.unwrap();
    assert!(ask(&mut cut).await && ask(&mut kept).await);

    let mut bundle = pillion_xds::secret::Secret {
        name: TRUST.to_owned(),
        value: SecretValue::TrustBundle(ca.pem.clone()),
    }
    .encode();
    let Some(pillion_xds::proto::tls::secret::Type::ValidationContext(context)) =
        &mut bundle.r#type
    else {
        unreachable!("a bundle is a validation context")
    };
    context.crl = Some(pillion_xds::proto::core::DataSource {
        specifier: Some(
            pillion_xds::proto::core::data_source::Specifier::InlineBytes(
                ca.revoking(&[66]).into_bytes(),
            ),
        ),
        ..Default::default()
    });
    let told = Instant::now();
    sds.put_raw(&bundle);
    let mut buffer = [0; 16];
    let ended = tokio::time::timeout(Duration::from_secs(5), cut.read(&mut buffer)).await;
    assert!(
        matches!(ended, Ok(Ok(0) | Err(_))),
        "not cut within {:?}",
        told.elapsed()
    );
    assert!(!admitted(&bad, addr).await, "a new connection is refused");
    assert!(ask(&mut kept).await, "another peer's connection goes on");
    assert!(admitted(&good, addr).await);
    assert!(
        proxy.log().contains("connections of revoked peers closed"),
        "{}",
        proxy.log()
    );
}

#[tokio::test]
async fn a_revocation_list_beside_a_trust_file_cuts_off_a_revoked_peer() {
    let (ca, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    let own = ca.issue(|params| params.subject_alt_names = vec![uri(CALLEE)]);
    let tls = downstream(dir.path(), &own, &ca.pem, &[]);
    let (_ads, proxy, addr) = callee(tls, None).await;
    proxy.live().await;
    let pair = ca.issue(|params| params.serial_number = Some(9.into()));
    let client = connector(Some(&pair));
    let mut cut = shake(&client, addr).await.unwrap();
    assert!(ask(&mut cut).await, "without a list of names, any is good");
    file(dir.path(), "ca.pem.crl", &ca.revoking(&[9]));
    let mut buffer = [0; 16];
    let ended = tokio::time::timeout(Duration::from_secs(5), cut.read(&mut buffer)).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "not cut within 5 s");
    assert!(!admitted(&client, addr).await);
}

#[tokio::test]
async fn an_access_log_says_who_called_and_how_it_was_encrypted() {
    let (ca, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    let own = ca.issue(|params| params.subject_alt_names = vec![uri(CALLEE)]);
    let log = dir.path().join("access.log");
    let text = "%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_TLS_CIPHER% %DOWNSTREAM_PEER_SERIAL% \
                %DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_PEER_SUBJECT% %DOWNSTREAM_PEER_FINGERPRINT_256%\n";
    let tls = downstream(dir.path(), &own, &ca.pem, &[]);
    let (ads, proxy, addr) = callee(tls.clone(), None).await;
    proxy.live().await;
    let mut listener = ingress(addr.port(), tls);
    let Resource::Listener(changed) = &mut listener[0] else {
        unreachable!("the ingress is one listener")
    };
    let NetworkFilter::Http(manager) = &mut changed.filter_chains[0].filter else {
        unreachable!("of HTTP")
    };
    manager.access_logs = vec![pillion_xds::listener::AccessLog {
        path: log.to_str().unwrap().to_owned(),
        format: pillion_xds::listener::AccessLogFormat::Text(text.to_owned()),
    }];
    ads.push("l2", &listener).await;
    let pair = ca.issue(|params| {
        params.serial_number = Some(0x1f.into());
        params.subject_alt_names = vec![uri("spiffe://mesh/caller")];
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "caller");
    });
    let client = connector(Some(&pair));
    let leaf = CertificateDer::from_pem_slice(pair.chain.as_bytes()).unwrap();
    let print = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &leaf);
    let print: String = print
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let wanted =
        format!("TLSv1.3 TLS_AES_256_GCM_SHA384 1f spiffe://mesh/caller CN=caller {print}\n");
    eventually("the line is as the handshake was", || async {
        admitted(&client, addr).await
            && std::fs::read_to_string(&log).is_ok_and(|written| written.contains(&wanted))
    })
    .await;
}

#[tokio::test]
async fn files_that_do_not_fit_leave_the_last_good_pair_serving() {
    let (ca, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    let pair = |serial: u64| {
        ca.issue(|params| {
            params.subject_alt_names = vec![uri(CALLEE)];
            params.serial_number = Some(serial.into());
        })
    };
    let tls = downstream(dir.path(), &pair(1), &ca.pem, &[]);
    let (_ads, proxy, addr) = callee(tls, None).await;
    proxy.live().await;
    let client = connector(Some(&pair(2)));
    let shown = || async {
        let stream = shake(&client, addr).await.unwrap();
        let leaf = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
        let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).unwrap();
        leaf.serial.to_string()
    };
    assert_eq!(shown().await, "1");
    let next = pair(3);
    file(dir.path(), "cert.pem", &next.chain);
    eventually("the mismatch is counted", || async {
        stat(&proxy, "server.key_material_refused").await == 1
    })
    .await;
    assert_eq!(shown().await, "1", "the last good pair serves");
    let log = proxy.log();
    assert!(
        log.contains("the last good one serves") && log.contains("cert.pem"),
        "{log}"
    );
    file(dir.path(), "key.pem", &next.key);
    eventually("the new pair serves", || async { shown().await == "3" }).await;
}

#[tokio::test]
async fn a_bad_secret_of_the_socket_is_refused_by_name_and_the_last_good_one_serves() {
    let (ca, sds) = (Authority::new(), Sds::start());
    sds.put(TRUST, SecretValue::TrustBundle(ca.pem.clone()));
    let (_ads, proxy, addr) = callee(served_by_socket(), Some(&sds)).await;
    eventually("it waits for its certificate, and says so", || async {
        let info = proxy.admin("GET", "/server_info").await.1;
        info.contains(CALLEE) && proxy.log().contains("workload is not authorized")
    })
    .await;
    sds.put(CALLEE, identity(&ca, CALLEE, 1));
    proxy.live().await;
    let mut mixed = ca.issue(|params| params.subject_alt_names = vec![uri(CALLEE)]);
    mixed.key = ca.issue(|_| {}).key;
    sds.put(CALLEE, mixed.secret());
    eventually("it is refused", || async {
        sds.nacked(CALLEE)
            .is_some_and(|why| why.contains("an unusable pair"))
    })
    .await;
    let pair = ca.issue(|params| params.subject_alt_names = vec![uri(CALLER)]);
    assert!(admitted(&connector(Some(&pair)), addr).await);
    let certs = proxy.admin("GET", "/certs").await.1;
    assert!(certs.contains(CALLEE), "{certs}");
}

#[tokio::test]
async fn a_socket_that_is_not_configured_is_named_in_the_refusal() {
    let (ads, _proxy, _) = callee(served_by_socket(), None).await;
    let why = ads
        .nacked(pillion_xds::resource::ResourceType::Listener)
        .await;
    assert!(
        why.contains("APPMESH_SDS_SOCKET_PATH") && why.contains(TRUST),
        "{why}"
    );
}
