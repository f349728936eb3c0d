// SPDX-License-Identifier: Apache-2.0
//! A plain HTTP/1.1 client: one request, one connection, the whole answer. Not a pool, not clever, shares no code with
//! what it tests.

use std::net::SocketAddr;

use anyhow::Context;
use bytes::Bytes;
use http::HeaderMap;
use http::Method;
use http::Request;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("{} {}", self.status, self.text()))
    }
}

/// Sends `request` over a new connection to `to`.
pub async fn send(to: SocketAddr, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
    let stream = TcpStream::connect(to)
        .await
        .with_context(|| format!("connect {to}"))?;
    send_over(stream, request).await
}

/// Sends `request` over a connection that is there already.
pub async fn send_over(stream: TcpStream, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    driver.abort();
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
    })
}

/// `GET path` with a `Host`.
pub async fn get(to: SocketAddr, host: &str, path: &str) -> anyhow::Result<Answer> {
    send(to, asking(host, path)?).await
}

/// The request of [`get`].
pub fn asking(host: &str, path: &str) -> anyhow::Result<Request<Full<Bytes>>> {
    Ok(Request::get(path)
        .header("host", host)
        .body(Full::default())?)
}

/// A JSON request, such as an API call.
pub async fn json(
    to: SocketAddr,
    method: Method,
    path: &str,
    body: &Value,
) -> anyhow::Result<Answer> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", to.to_string())
        .header("content-type", "application/json")
        .body(Full::from(body.to_string()))?;
    send(to, request).await
}
