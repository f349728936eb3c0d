// SPDX-License-Identifier: Apache-2.0
//! Connections below HTTP: servers that speak first and half-close, and a client of `CONNECT`.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

/// Far above what anything here takes.
pub const LIMIT: Duration = Duration::from_secs(5);

/// A server that speaks first, repeats what it hears, and says `bye` once it has heard all.
pub fn greeter(listener: TcpListener, greeting: &'static str) -> SocketAddr {
    let address = listener.local_addr().expect("a bound socket");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(greeting.as_bytes()).await?;
                echo(&mut stream).await
            });
        }
    });
    address
}

/// Repeats what it hears, and says `bye` at its end.
pub async fn echo<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> std::io::Result<()> {
    let mut heard = vec![0; 1024];
    loop {
        let number = stream.read(&mut heard).await?;
        if number == 0 {
            stream.write_all(b"bye").await?;
            return stream.shutdown().await;
        }
        stream.write_all(&heard[..number]).await?;
        stream.flush().await?;
    }
}

/// Says something, half-closes, and returns all that comes until the end.
pub async fn say<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    words: &str,
) -> anyhow::Result<String> {
    let talking = async {
        stream.write_all(words.as_bytes()).await?;
        stream.flush().await?;
        stream.shutdown().await?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await?;
        Ok(String::from_utf8(all)?)
    };
    tokio::time::timeout(LIMIT, talking)
        .await
        .context("no end")?
}

/// Hears the greeting first, says something, half-closes, and returns all that was said.
pub async fn talk<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> anyhow::Result<String> {
    let mut greeting = [0; 5];
    let greeted = tokio::time::timeout(LIMIT, stream.read_exact(&mut greeting)).await;
    greeted.context("no greeting")?.context("the greeting")?;
    let rest = say(stream, "ping").await?;
    Ok(String::from_utf8_lossy(&greeting).into_owned() + &rest)
}

/// Sends a request head and reads the head of the answer.
pub async fn head(stream: &mut TcpStream, request: &str) -> anyhow::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) => bail!("{error} after {:?}", String::from_utf8_lossy(&head)),
        }
    }
    Ok(String::from_utf8(head)?)
}

/// A byte stream to `target` by `CONNECT`.
pub async fn connect(proxy: SocketAddr, target: &str) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(proxy).await?;
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    let head = head(&mut stream, &request).await?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("CONNECT {target}: {head}");
    }
    Ok(stream)
}
