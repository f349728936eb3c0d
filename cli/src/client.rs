// SPDX-License-Identifier: Apache-2.0
//! A plain HTTP/1.1 client for JSON over loopback: one connection per call. Used by the demo and `apply` to talk to the
//! public APIs; no TLS, no redirects, no pool.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// No answer of ours is larger; a stranger on the port must not fill the memory.
const MAX_ANSWER: usize = 64 << 20;
const LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("connect to {authority}")]
    Connect {
        authority: String,
        source: std::io::Error,
    },
    #[error("{method} http://{authority}{path}")]
    Exchange {
        method: Method,
        authority: String,
        path: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{method} http://{authority}{path}: no answer within {LIMIT:?}")]
    TimedOut {
        method: Method,
        authority: String,
        path: String,
    },
}

/// An answer of any status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Result<Value> {
        serde_json::from_slice(&self.body)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }
}

/// One request to `authority` (`host:port`).
pub(crate) async fn call(
    method: Method,
    authority: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<Answer, CallError> {
    tokio::time::timeout(LIMIT, exchange(&method, authority, path, body))
        .await
        .unwrap_or_else(|_| {
            Err(CallError::TimedOut {
                method,
                authority: authority.to_owned(),
                path: path.to_owned(),
            })
        })
}

async fn exchange(
    method: &Method,
    authority: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<Answer, CallError> {
    let stream = TcpStream::connect(authority)
        .await
        .map_err(|source| CallError::Connect {
            authority: authority.to_owned(),
            source,
        })?;
    let failed = |source| CallError::Exchange {
        method: method.clone(),
        authority: authority.to_owned(),
        path: path.to_owned(),
        source,
    };
    let (mut sender, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(|cause| failed(cause.into()))?;
    let mut connection = std::pin::pin!(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", authority)
        .header("content-type", "application/json")
        .body(Full::from(body.map_or_else(String::new, Value::to_string)))
        .map_err(|cause| failed(cause.into()))?;
    let answer = async {
        let answer = sender
            .send_request(request)
            .await
            .map_err(|cause| failed(cause.into()))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(failed)?;
        Ok(Answer {
            status,
            body: body.to_bytes(),
        })
    };
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        done = &mut answer => done,
        // The connection may end first, with the answer already read.
        _ = &mut connection => answer.await,
    }
}
