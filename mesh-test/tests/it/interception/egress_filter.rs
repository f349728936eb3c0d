// SPDX-License-Identifier: Apache-2.0
//! What becomes of redirected connections that no backend declares, under both egress filters.

use std::net::SocketAddr;

use mesh_test::client;
use mesh_test::pod::ELSEWHERE;
use mesh_test::pod::Pod;
use mesh_test::pod::WORLD;
use mesh_test::pod::in_pod;
use mesh_test::raw::LIMIT;
use mesh_test::raw::greeter;
use mesh_test::upstream::Behaviour;
use mesh_test::upstream::Upstream;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

use super::HTTP;
use super::intercept;
use super::mesh;
use super::sidecar;
use super::talk;

/// A TLS 1.2 ClientHello with this server name and nothing more than a sniffer needs.
fn client_hello(name: &str) -> Vec<u8> {
    let length = |bytes: &[u8], width: usize| bytes.len().to_be_bytes()[8 - width..].to_vec();
    let entry = [&[0], &length(name.as_bytes(), 2)[..], name.as_bytes()].concat();
    let names = [&length(&entry, 2)[..], &entry].concat();
    let server_name = [&[0, 0], &length(&names, 2)[..], &names].concat();
    // Groups, and signature algorithms: without them a hello is malformed to a strict reader.
    let others = [0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3];
    let extensions = [&server_name[..], &others].concat();
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0],
        &[0, 2, 0xc0, 0x2b],
        &[1, 0],
        &length(&extensions, 2),
        &extensions,
    ]
    .concat();
    let handshake = [&[1], &length(&body, 3)[..], &body].concat();
    [&[22, 3, 1], &length(&handshake, 2)[..], &handshake].concat()
}

/// A server that says how many bytes it was sent first.
fn counter(listener: TcpListener) -> SocketAddr {
    let address = listener.local_addr().expect("a bound socket");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut heard = vec![0; 4096];
                let number = stream.read(&mut heard).await?;
                stream.write_all(format!("{number} bytes").as_bytes()).await
            });
        }
    });
    address
}

/// What comes back for these bytes; empty if the connection is closed without a word.
async fn answer_to(to: SocketAddr, bytes: &[u8]) -> anyhow::Result<String> {
    let asking = async {
        let mut stream = TcpStream::connect(to).await?;
        stream.write_all(bytes).await?;
        let mut answer = Vec::new();
        // A reset is as good as an end.
        drop(stream.read_to_end(&mut answer).await);
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::time::timeout(LIMIT, asking).await?
}

#[test]
fn drop_all_closes_undeclared_ports_and_answers_undeclared_hosts_404() -> anyhow::Result<()> {
    in_pod(async |pod: Pod| {
        let shop = Upstream::serve("shop", Behaviour::Echo, pod.listen((WORLD, HTTP))?)?;
        let other = Upstream::serve("other", Behaviour::Echo, pod.listen((WORLD, 9001))?)?;
        let mesh = mesh("DROP_ALL", 8080).await?;
        let proxy = sidecar(&mesh).await?;
        intercept(&["--ignore-uid", "1337"])?;

        let host = client::get(shop.address(), "elsewhere.local", "/").await?;
        let port = client::get(other.address(), "shop.local", "/").await;
        let ported = client::get(shop.address(), &format!("shop.local:{HTTP}"), "/").await?;

        assert_eq!((host.status, host.text()), (404, String::new()));
        assert!(port.is_err(), "{port:?}");
        assert_eq!(ported.status, 200);
        assert_eq!((shop.asked(), other.asked()), (1, 0));
        let closed = super::stat(&proxy, "listener.0.0.0.0_15001.no_filter_chain_match").await?;
        assert_eq!(closed, 1);
        Ok(())
    })
}

#[test]
fn drop_all_lets_aws_pass_by_server_name_and_host_wherever_it_is() -> anyhow::Result<()> {
    in_pod(async |pod: Pod| {
        let aws = counter(pod.listen((WORLD, 443))?);
        let aws_on_a_backends_port = counter(pod.listen((ELSEWHERE, HTTP))?);
        let plain = Upstream::serve("aws", Behaviour::Echo, pod.listen((WORLD, HTTP))?)?;
        let mesh = mesh("DROP_ALL", 8080).await?;
        let proxy = sidecar(&mesh).await?;
        intercept(&["--ignore-uid", "1337"])?;
        let hello = client_hello("sqs.eu-west-1.amazonaws.com");
        let passed = format!("{} bytes", hello.len());

        assert_eq!(answer_to(aws, &hello).await?, passed);
        assert_eq!(answer_to(aws_on_a_backends_port, &hello).await?, passed);
        assert_eq!(answer_to(aws, &client_hello("evil.example.com")).await?, "");
        assert_eq!(
            answer_to(aws, &client_hello("amazonaws.com.evil.example")).await?,
            ""
        );
        let by_host = client::get(plain.address(), "s3.amazonaws.com", "/bucket").await?;
        assert_eq!(
            (by_host.status, &by_host.json()?["path"]),
            (200, &json!("/bucket"))
        );
        // Explicitly called, the name is resolved here; in this pod nobody can, which is not "not found".
        let explicit = client::get(([127, 0, 0, 1], 15001).into(), "s3.amazonaws.com", "/").await?;
        assert_eq!(explicit.status, 503, "{}", explicit.text());
        assert!(proxy.log().len() < 1 << 20);
        Ok(())
    })
}

#[test]
fn allow_all_passes_whatever_is_spoken_to_where_it_was_going() -> anyhow::Result<()> {
    in_pod(async |pod: Pod| {
        let first = greeter(pod.listen((WORLD, 25))?, "220 \n");
        let opaque = counter(pod.listen((ELSEWHERE, 443))?);
        let tls_on_a_backends_port = counter(pod.listen((ELSEWHERE, HTTP))?);
        let shop = Upstream::serve("shop", Behaviour::Echo, pod.listen((WORLD, HTTP))?)?;
        let other = Upstream::serve("other", Behaviour::Echo, pod.listen((ELSEWHERE, 8081))?)?;
        let mesh = mesh("ALLOW_ALL", 8080).await?;
        let _proxy = sidecar(&mesh).await?;
        intercept(&["--ignore-uid", "1337"])?;
        let hello = client_hello("example.com");

        assert_eq!(
            talk(first).await?,
            "220 \npingbye",
            "nobody waits for the client to speak"
        );
        assert_eq!(answer_to(opaque, &[0, 1, 2]).await?, "3 bytes");
        let passed = format!("{} bytes", hello.len());
        assert_eq!(answer_to(opaque, &hello).await?, passed);
        assert_eq!(answer_to(tls_on_a_backends_port, &hello).await?, passed);
        let declared = client::get(shop.address(), "shop.local", "/")
            .await?
            .json()?;
        let undeclared = client::get(shop.address(), "any.example", "/")
            .await?
            .json()?;
        let elsewhere = client::get(other.address(), "any.example", "/")
            .await?
            .json()?;
        assert_eq!(
            (&declared["name"], &undeclared["name"], &elsewhere["name"]),
            (&json!("shop"), &json!("shop"), &json!("other"))
        );
        Ok(())
    })
}
