// SPDX-License-Identifier: Apache-2.0
//! A plain HTTP/1.1 client for JSON over loopback: one connection per call. Used by the demo and `apply` to talk to the
//! public APIs, signed where the environment has keys; no TLS, no redirects, no pool.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pillion_sigv4::Identity;
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
    let body = body.map_or_else(String::new, Value::to_string);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", authority)
        .header("content-type", "application/json")
        .body(())
        .map_err(|cause| failed(cause.into()))?;
    let (mut head, ()) = request.into_parts();
    if let Some(identity) = identity() {
        identity.sign(&mut head, body.as_bytes(), SystemTime::now());
    }
    let request = Request::from_parts(head, Full::from(body));
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

/// The keys of the environment, by the names that every AWS client reads.
fn identity() -> Option<Identity> {
    let read = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    Some(Identity {
        access_key_id: read("AWS_ACCESS_KEY_ID")?,
        secret_access_key: read("AWS_SECRET_ACCESS_KEY")?,
        session_token: read("AWS_SESSION_TOKEN"),
        region: read("AWS_REGION")
            .or_else(|| read("AWS_DEFAULT_REGION"))
            .unwrap_or_else(|| "us-east-1".to_owned()),
        service: "appmesh",
    })
}
