// SPDX-License-Identifier: Apache-2.0
//! Connections to the target: dialling, and one request with its whole answer. Used by `driver`; counts nothing and
//! keeps no clock but the connect timeout.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::args::{Plan, Protocol, Target, Template};
use crate::tls::{self, TrustError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("look up {host}")]
    Lookup { host: String, source: io::Error },
    #[error("{host} has no address")]
    NoAddress { host: String },
    #[error("{host} is not a name a certificate can carry")]
    Name { host: String },
    #[error(transparent)]
    Trust(#[from] TrustError),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("connect to {address}")]
    Dial {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("connect to {address}: no answer within {limit:?}")]
    TimedOut {
        address: SocketAddr,
        limit: Duration,
    },
    #[error("TLS handshake with {address}")]
    Tls {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("begin HTTP with {address}")]
    Http {
        address: SocketAddr,
        source: hyper::Error,
    },
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// Nothing of the request was written: the connection had been closed while idle. It may go on another one.
    #[error("the connection was closed before the request was sent")]
    Unsent,
    #[error("request")]
    Request(#[source] hyper::Error),
    #[error("answered with grpc-status {0}")]
    Grpc(String),
    #[error("read the answer's body")]
    Body(#[source] hyper::Error),
}

/// Knows how to reach the target; names are resolved once, when the run starts.
pub(crate) struct Dialer {
    address: SocketAddr,
    protocol: Protocol,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    limit: Duration,
}

impl Dialer {
    pub(crate) async fn resolve(plan: &Plan) -> Result<Self, TargetError> {
        let Target {
            host, port, trust, ..
        } = &plan.target;
        let address = tokio::net::lookup_host((host.as_str(), *port))
            .await
            .map_err(|source| TargetError::Lookup {
                host: host.clone(),
                source,
            })?
            .next()
            .ok_or_else(|| TargetError::NoAddress { host: host.clone() })?;
        let tls = match trust {
            None => None,
            Some(trust) => {
                let config = tls::client_config(trust, plan.protocol)?;
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| TargetError::Name { host: host.clone() })?;
                Some((TlsConnector::from(Arc::new(config)), name))
            }
        };
        Ok(Self {
            address,
            protocol: plan.protocol,
            tls,
            limit: plan.timeout,
        })
    }

    pub(crate) async fn connect(&self) -> Result<Connection, ConnectError> {
        let (address, limit) = (self.address, self.limit);
        tokio::time::timeout(limit, self.dial())
            .await
            .unwrap_or(Err(ConnectError::TimedOut { address, limit }))
    }

    async fn dial(&self) -> Result<Connection, ConnectError> {
        let address = self.address;
        let dial = |source| ConnectError::Dial { address, source };
        let stream = TcpStream::connect(address).await.map_err(dial)?;
        stream.set_nodelay(true).map_err(dial)?;
        match &self.tls {
            None => self.begin(TokioIo::new(stream)).await,
            Some((connector, name)) => {
                let stream = connector
                    .connect(name.clone(), stream)
                    .await
                    .map_err(|source| ConnectError::Tls { address, source })?;
                self.begin(TokioIo::new(stream)).await
            }
        }
    }

    async fn begin<T>(&self, io: T) -> Result<Connection, ConnectError>
    where
        T: Read + Write + Unpin + Send + 'static,
    {
        let http = |source| ConnectError::Http {
            address: self.address,
            source,
        };
        // The spawned halves end with their sender; what they return is told to the sender as well.
        match self.protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await.map_err(http)?;
                tokio::spawn(async move { drop(connection.await) });
                Ok(Connection::Http1(sender))
            }
            Protocol::Http2 { .. } => {
                let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                    .adaptive_window(true)
                    .handshake(io)
                    .await
                    .map_err(http)?;
                tokio::spawn(async move { drop(connection.await) });
                Ok(Connection::Http2(sender))
            }
        }
    }
}

pub(crate) enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }

    /// A second hold on the same connection, where the protocol has streams.
    pub(crate) fn share(&self) -> Option<Self> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(sender) => Some(Self::Http2(sender.clone())),
        }
    }

    /// Sends one request and reads the answer to its end: status and body bytes.
    pub(crate) async fn exchange(
        &mut self,
        template: &Template,
    ) -> Result<(u16, u64), ExchangeError> {
        let answer = match self {
            Self::Http1(sender) => {
                if sender.ready().await.is_err() {
                    return Err(ExchangeError::Unsent);
                }
                sender
                    .try_send_request(fill(template, Version::HTTP_11))
                    .await
            }
            Self::Http2(sender) => {
                if sender.ready().await.is_err() {
                    return Err(ExchangeError::Unsent);
                }
                sender
                    .try_send_request(fill(template, Version::HTTP_2))
                    .await
            }
        };
        match answer {
            Ok(answer) => read_whole(answer).await,
            Err(refused) if refused.message().is_some() => Err(ExchangeError::Unsent),
            Err(broken) => Err(ExchangeError::Request(broken.into_error())),
        }
    }
}

fn fill(template: &Template, version: Version) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(template.body.clone()));
    *request.method_mut() = template.method.clone();
    *request.uri_mut() = template.uri.clone();
    *request.version_mut() = version;
    *request.headers_mut() = template.headers.clone();
    request
}

async fn read_whole(answer: Response<Incoming>) -> Result<(u16, u64), ExchangeError> {
    let (head, mut body) = answer.into_parts();
    let mut bytes = 0;
    check_grpc(&head.headers)?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(ExchangeError::Body)?;
        if let Some(trailers) = frame.trailers_ref() {
            check_grpc(trailers)?;
        }
        bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok((head.status.as_u16(), bytes))
}

/// gRPC says in a header or trailer of a 200 that a call failed.
fn check_grpc(headers: &HeaderMap) -> Result<(), ExchangeError> {
    match headers.get("grpc-status") {
        Some(status) if status != "0" => {
            let text = String::from_utf8_lossy(status.as_bytes()).into_owned();
            Err(ExchangeError::Grpc(text))
        }
        _ => Ok(()),
    }
}
