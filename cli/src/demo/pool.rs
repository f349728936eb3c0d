// SPDX-License-Identifier: Apache-2.0
//! How a demo application calls another: through its sidecar's explicit egress, by `Host`, over kept-open connections.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longer than App Mesh's own 15 seconds, so that the sidecar's answer is the one that is seen.
const LIMIT: Duration = Duration::from_secs(20);
const MAX_BODY: usize = 1 << 20;
const MAX_IDLE: usize = 256;

#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("connect to the sidecar at {proxy}")]
    Connect {
        proxy: SocketAddr,
        source: std::io::Error,
    },
    #[error("call {host}")]
    Exchange {
        host: &'static str,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("call {host}: no answer within {LIMIT:?}")]
    TimedOut { host: &'static str },
}

type Connection = SendRequest<Empty<Bytes>>;

pub(crate) struct Pool {
    proxy: SocketAddr,
    idle: Mutex<Vec<Connection>>,
}

impl Pool {
    pub(crate) fn new(proxy: SocketAddr) -> Self {
        Self {
            proxy,
            idle: Mutex::new(Vec::new()),
        }
    }

    /// GET `path` of the virtual service `host`, with `headers` of the request being served.
    pub(crate) async fn get(
        &self,
        host: &'static str,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<(StatusCode, Bytes), CallError> {
        tokio::time::timeout(LIMIT, self.exchange(host, path, headers))
            .await
            .unwrap_or(Err(CallError::TimedOut { host }))
    }

    async fn exchange(
        &self,
        host: &'static str,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let failed = |source| CallError::Exchange { host, source };
        let mut request = Request::builder()
            .uri(path)
            .header(header::HOST, HeaderValue::from_static(host))
            .body(Empty::new())
            .map_err(|cause| failed(cause.into()))?;
        request.headers_mut().extend(headers.clone());
        loop {
            let (mut connection, fresh) = match self.take_idle() {
                Some(connection) => (connection, false),
                None => (self.connect(host).await?, true),
            };
            let answer = match connection.try_send_request(request).await {
                Ok(answer) => answer,
                Err(mut refused) => match refused.take_message() {
                    // Closed while idle, nothing was sent: the next one, or a new one.
                    Some(unsent) if !fresh => {
                        request = unsent;
                        continue;
                    }
                    _ => return Err(failed(refused.into_error().into())),
                },
            };
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_BODY)
                .collect()
                .await
                .map_err(failed)?;
            self.give_back(connection).await;
            return Ok((status, body.to_bytes()));
        }
    }

    async fn connect(&self, host: &'static str) -> Result<Connection, CallError> {
        let connect = |source| CallError::Connect {
            proxy: self.proxy,
            source,
        };
        let stream = TcpStream::connect(self.proxy).await.map_err(connect)?;
        stream.set_nodelay(true).map_err(connect)?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|cause| CallError::Exchange {
                    host,
                    source: cause.into(),
                })?;
        // Ends when its sender is dropped; what went wrong is told there.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(connection) = idle.pop() {
            if connection.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    async fn give_back(&self, mut connection: Connection) {
        // An answer is read a moment before its connection is free for the next.
        if connection.ready().await.is_ok() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < MAX_IDLE {
                idle.push(connection);
            }
        }
    }
}
