// SPDX-License-Identifier: Apache-2.0
//! What a connection begins with: a TLS hello (with its server name and protocols), the HTTP/2 preface, or anything
//! else. Bytes that were read to look at are put back. Never consumes, never answers.

use std::time::Duration;

use bytes::BytesMut;
use pillion_xds::listener::TransportProtocol;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use crate::snapshot::chain::Hello;
use crate::stream::Stream;

/// Envoy's `listener_filters_timeout`: who says nothing for so long waits for the server to speak first.
const PATIENCE: Duration = Duration::from_secs(15);
/// A hello that does not fit is not understood; a post-quantum one has some 1,800 bytes.
const LARGEST: usize = 16 * 1024;
/// Who has connected in advance may be silent this long before its preface,
const SILENCE: Duration = Duration::from_secs(300);
/// and in all take this long once it has begun.
const HESITATION: Duration = Duration::from_secs(10);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HANDSHAKE: u8 = 0x16;

/// Looks at the first bytes.
pub(super) async fn hello(mut stream: Stream) -> (Hello, Stream) {
    let mut read = BytesMut::new();
    let looked = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(hello) = understand(&read) {
                return hello;
            }
            if !more(&mut stream, &mut read).await {
                return Hello {
                    transport: Some(transport(&read)),
                    ..Hello::default()
                };
            }
        }
    })
    .await;
    let hello = looked.unwrap_or(Hello {
        transport: Some(TransportProtocol::RawBuffer),
        ..Hello::default()
    });
    (hello, stream.rewound(read.freeze()))
}

/// Whether an HTTP connection begins with the HTTP/2 preface.
pub(super) async fn is_http2(stream: Stream) -> (bool, Stream) {
    is_http2_within(stream, SILENCE, HESITATION).await
}

async fn is_http2_within(
    mut stream: Stream,
    silence: Duration,
    hesitation: Duration,
) -> (bool, Stream) {
    let mut read = BytesMut::new();
    let mut first = None;
    let mut begun = Instant::now();
    let mut limit = silence;
    loop {
        let seen = read.len().min(PREFACE.len());
        if read[..seen] != PREFACE[..seen] {
            return (false, stream.rewound(read.freeze()));
        }
        if seen == PREFACE.len() {
            return (true, stream.rewound(read.freeze()));
        }
        if !read.is_empty() {
            let hesitates = *first.get_or_insert_with(Instant::now);
            (begun, limit) = (hesitates, hesitation);
        }
        let rest = limit.saturating_sub(begun.elapsed());
        let next = tokio::time::timeout(rest, more(&mut stream, &mut read)).await;
        // Whoever falls silent is no HTTP/2 caller: HTTP/1.1's limit on a request head takes it from here.
        if !next.unwrap_or(false) {
            return (false, stream.rewound(read.freeze()));
        }
    }
}

async fn more(stream: &mut Stream, read: &mut BytesMut) -> bool {
    if read.len() >= LARGEST {
        return false;
    }
    read.reserve(4096);
    matches!(stream.read_buf(read).await, Ok(number) if number > 0)
}

fn transport(read: &[u8]) -> TransportProtocol {
    if read.first() == Some(&HANDSHAKE) {
        TransportProtocol::Tls
    } else {
        TransportProtocol::RawBuffer
    }
}

/// `None` while more bytes are needed.
fn understand(read: &[u8]) -> Option<Hello> {
    let first = *read.first()?;
    if first != HANDSHAKE {
        let seen = read.len().min(PREFACE.len());
        let protocol = if read[..seen] != PREFACE[..seen] {
            first.is_ascii_uppercase().then(|| Box::from("http/1.1"))
        } else if seen < PREFACE.len() {
            return None;
        } else {
            Some(Box::from("h2c"))
        };
        let protocols = protocol.into_iter().collect();
        return Some(Hello {
            transport: Some(TransportProtocol::RawBuffer),
            protocols,
            ..Hello::default()
        });
    }
    let tls = Hello {
        transport: Some(TransportProtocol::Tls),
        ..Hello::default()
    };
    let mut acceptor = rustls::server::Acceptor::default();
    let mut bytes = read;
    while !bytes.is_empty() {
        if acceptor.read_tls(&mut bytes).is_err() {
            return Some(tls);
        }
    }
    match acceptor.accept() {
        Ok(None) => None,
        // TLS it claims to be, and whoever terminates it will tell it what is wrong.
        Err(_) => Some(tls),
        Ok(Some(accepted)) => {
            let hello = accepted.client_hello();
            let server_name = hello
                .server_name()
                .map(|name| name.to_ascii_lowercase().into_boxed_str());
            let offered = hello.alpn().into_iter().flatten();
            let protocols = offered
                .filter_map(|name| std::str::from_utf8(name).ok().map(Box::from))
                .collect();
            Some(Hello {
                server_name,
                protocols,
                ..tls
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncWriteExt;

    use super::*;

    fn client_hello() -> Vec<u8> {
        let mut config = rustls::ClientConfig::builder_with_provider(crate::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let mut client =
            rustls::ClientConnection::new(Arc::new(config), "Shop.Local".try_into().unwrap())
                .unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    async fn looked_at(pieces: &[&[u8]]) -> (Hello, Vec<u8>) {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        for piece in pieces {
            client.write_all(piece).await.unwrap();
        }
        client.shutdown().await.unwrap();
        let (hello, mut stream) = hello(Stream::Memory(server)).await;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        (hello, rest)
    }

    #[tokio::test]
    async fn a_client_hello_tells_its_server_name_and_protocols_and_stays_readable() {
        let bytes = client_hello();
        let (hello, rest) = looked_at(&[&bytes]).await;
        assert_eq!(hello.transport, Some(TransportProtocol::Tls));
        assert_eq!(hello.server_name.as_deref(), Some("shop.local"));
        assert_eq!(hello.protocols, [Box::from("h2")]);
        assert_eq!(rest, bytes);
    }

    #[test]
    fn half_a_client_hello_is_not_enough() {
        let bytes = client_hello();
        assert_eq!(understand(&bytes[..bytes.len() / 2]), None);
    }

    #[tokio::test]
    async fn plain_http_and_the_http2_preface_are_told_apart() {
        let (one, rest) = looked_at(&[b"GET / HTTP/1.1\r\n"]).await;
        assert_eq!(
            (one.transport, rest.as_slice()),
            (
                Some(TransportProtocol::RawBuffer),
                &b"GET / HTTP/1.1\r\n"[..]
            )
        );
        assert_eq!(one.protocols, [Box::from("http/1.1")]);
        let (two, _) = looked_at(&[PREFACE]).await;
        assert_eq!(two.protocols, [Box::from("h2c")]);
    }

    #[tokio::test]
    async fn a_method_that_begins_like_the_preface_is_no_preface() {
        let (mut client, server) = tokio::io::duplex(1024);
        client.write_all(b"PROPFIND / HTTP/1.1\r\n").await.unwrap();
        let (http2, _) = is_http2(Stream::Memory(server)).await;
        assert!(!http2);
    }

    #[tokio::test]
    async fn half_a_preface_is_not_waited_for_without_end() {
        let (mut client, server) = tokio::io::duplex(1024);
        client.write_all(b"PRI * HT").await.unwrap();
        let server = Stream::Memory(server);
        let looked = is_http2_within(server, SILENCE, Duration::from_millis(20));
        let (http2, mut stream) = tokio::time::timeout(HESITATION, looked).await.unwrap();
        drop(client);
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!((http2, rest.as_slice()), (false, &b"PRI * HT"[..]));
    }

    #[tokio::test]
    async fn garbage_is_raw_bytes() {
        let (hello, rest) = looked_at(&[&[0, 1, 2]]).await;
        assert_eq!(
            (hello.transport, rest),
            (Some(TransportProtocol::RawBuffer), vec![0, 1, 2])
        );
    }
}
