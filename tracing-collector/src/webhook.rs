// SPDX-License-Identifier: Apache-2.0
//! Posts JSON to one address over HTTP or HTTPS. Used by `watch` and `alerts`; tries a few times, then says why not.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::Uri;
use http::header::CONTENT_TYPE;
use http::header::HOST;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::outward;
use crate::outward::Peer;
use crate::outward::ROOTS;

const TRIES: u32 = 3;
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(500);

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.host())
    }
}

#[derive(Clone)]
pub(crate) struct Webhook {
    uri: Uri,
    peer: Peer,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum WebhookAddressError {
    #[error("{setting} {url:?} is no address; give http://host:port/path or https://…")]
    Url { setting: &'static str, url: String },
    #[error(
        "{setting}: read the trusted roots from {ROOTS}; install ca-certificates or give an http:// address"
    )]
    Roots { setting: &'static str },
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PostError {
    #[error("connect to {0}")]
    Connect(String, #[source] std::io::Error),
    #[error("speak HTTP to {0}")]
    Http(String, #[source] hyper::Error),
    #[error("{0} answered {1}")]
    Status(String, u16),
    #[error("{0} did not answer within {limit} seconds", limit = PATIENCE.as_secs())]
    Late(String),
}

impl Webhook {
    pub(crate) fn parse(setting: &'static str, url: &str) -> Result<Webhook, WebhookAddressError> {
        let wrong = || WebhookAddressError::Url {
            setting,
            url: url.to_owned(),
        };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let host = uri.host().ok_or_else(wrong)?.to_owned();
        let (port, tls) = match uri.scheme_str() {
            Some("http") => (80, None),
            Some("https") => (
                443,
                Some(outward::tls().ok_or(WebhookAddressError::Roots { setting })?),
            ),
            _ => return Err(wrong()),
        };
        Ok(Webhook {
            peer: Peer {
                port: uri.port_u16().unwrap_or(port),
                host: host.trim_matches(['[', ']']).to_owned(),
                tls,
            },
            uri,
        })
    }

    /// For `/config`; its path may be a secret.
    pub(crate) fn host(&self) -> &str {
        &self.peer.host
    }

    /// Until it is taken with a 2xx, a few times.
    pub(crate) async fn post(&self, body: &Value) -> Result<(), PostError> {
        let body = Bytes::from(body.to_string());
        let mut tried = 0;
        loop {
            tried += 1;
            let once = tokio::time::timeout(PATIENCE, self.once(body.clone())).await;
            let once = once.unwrap_or_else(|_| Err(PostError::Late(self.uri.to_string())));
            if once.is_ok() || tried == TRIES {
                return once;
            }
            tokio::time::sleep(PAUSE * tried).await;
        }
    }

    async fn once(&self, body: Bytes) -> Result<(), PostError> {
        let name = || self.uri.to_string();
        let http = |error| PostError::Http(name(), error);
        let stream = self
            .peer
            .connect()
            .await
            .map_err(|error| PostError::Connect(name(), error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(http)?;
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::post(path)
            .header(HOST, self.uri.authority().map_or("", |host| host.as_str()))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .expect("its parts were parsed before");
        tokio::select! {
            answer = sender.send_request(request) => {
                let status = answer.map_err(http)?.status();
                if status.is_success() { Ok(()) } else { Err(PostError::Status(name(), status.as_u16())) }
            }
            ended = connection => {
                ended.map_err(http)?;
                Err(PostError::Late(name()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_cannot_be_posted_to_is_refused_by_setting() {
        assert!(Webhook::parse("--insight-webhook", "http://127.0.0.1:9/x?y=1").is_ok());
        for wrong in ["", "127.0.0.1:9", "ftp://x/", "http://"] {
            let error = Webhook::parse("--insight-webhook", wrong)
                .err()
                .map(|error| error.to_string());
            assert!(
                error.is_some_and(|text| text.contains("--insight-webhook")),
                "{wrong}"
            );
        }
    }
}
