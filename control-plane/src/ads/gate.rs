// SPDX-License-Identifier: Apache-2.0
//! Who may speak to the xDS port, and as whom. Before any gRPC method runs, a request's proof is looked at: a
//! signature (the AWS agent's call credentials), a join token, or a certificate of our own authority. What it proves is
//! kept with the request; the methods ask it about the one resource a client names. Without `--credentials` all is open.

use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use futures_util::future::Either;
use futures_util::future::Ready;
use futures_util::future::ready;
use http::header;
use http::request::Parts;
use pillion_config::ResourceKey;
use pillion_sigv4::Payload;
use tonic::Status;
use tower::Layer;
use tower::Service;

use super::door::Peer;
use crate::access::Access;
use crate::access::Caller;
use crate::access::Wish;
use crate::api::document;
use crate::identity::token::Kept;
use crate::identity::token::Tokens;
use crate::store::Model;
use crate::store::live::now_ms;
use crate::translate::spiffe_id;

/// gRPC's health service answers everybody: a load balancer has no identity.
const OPEN_PATH: &str = "/grpc.health.v1.Health/";

/// What a request proved.
#[derive(Clone, Debug)]
pub enum Proof {
    /// Nobody has to prove anything.
    Open,
    /// Nothing.
    None,
    /// That it has this key.
    Key(Caller),
    /// That it was given this token.
    Token(Kept),
    /// That it holds the certificate of this identity.
    Certificate(Arc<str>),
}

impl Proof {
    /// Whether it proves to be a proxy of `key`.
    pub fn covers(
        &self,
        model: &Model,
        key: &ResourceKey,
        region: &str,
        trust_domain: &str,
    ) -> Result<(), Status> {
        let refuse = |who: &str| {
            Err(Status::permission_denied(format!(
                "{who} may not be a proxy of {key}"
            )))
        };
        match self {
            Proof::Open => Ok(()),
            Proof::None => Err(Status::unauthenticated("Missing Authentication Token")),
            Proof::Key(caller) => match model.get(key) {
                Some(record)
                    if record.resource_owner == caller.account()
                        && caller.may(Wish::Read, &document::arn(record, region)) =>
                {
                    Ok(())
                }
                _ => refuse(caller.who()),
            },
            Proof::Token(kept) if kept.key().as_ref() == Some(key) => Ok(()),
            Proof::Token(kept) => refuse(&format!("join token {}", kept.id)),
            Proof::Certificate(identity) if **identity == *spiffe_id(trust_domain, key) => Ok(()),
            Proof::Certificate(identity) => refuse(identity),
        }
    }
}

/// What proofs are held against.
pub struct Gate {
    /// Keys, if there are any.
    pub access: Arc<Access>,
    /// Join tokens.
    pub tokens: Arc<Tokens>,
}

impl Gate {
    fn proof(&self, head: &Parts) -> Result<Proof, Status> {
        if !self.access.is_closed() || head.uri.path().starts_with(OPEN_PATH) {
            return Ok(Proof::Open);
        }
        if let Some(token) = bearer(head) {
            return match self.tokens.check(token, now_ms()) {
                Some(kept) => Ok(Proof::Token(kept)),
                None => Err(Status::unauthenticated(
                    "the join token is unknown, expired or revoked; make another with `pillion token create`",
                )),
            };
        }
        let certificate = head
            .extensions
            .get::<Peer>()
            .and_then(|peer| peer.identity.clone());
        if let Some(identity) =
            certificate.filter(|_| !head.headers.contains_key(header::AUTHORIZATION))
        {
            return Ok(Proof::Certificate(identity));
        }
        let entered = self
            .access
            .knock(head)
            .and_then(|knock| self.access.enter(knock, Payload::Stream));
        match entered {
            Ok(caller) => Ok(Proof::Key(caller)),
            Err(refusal) => Err(Status::unauthenticated(refusal.to_string())),
        }
    }
}

fn bearer(head: &Parts) -> Option<&str> {
    let value = head.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Puts the gate before every service of the port.
#[derive(Clone)]
pub struct GateLayer(pub Arc<Gate>);

impl<S> Layer<S> for GateLayer {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated {
            inner,
            gate: Arc::clone(&self.0),
        }
    }
}

/// A service behind the gate.
#[derive(Clone)]
pub struct Gated<S> {
    inner: S,
    gate: Arc<Gate>,
}

impl<S, B, R> Service<http::Request<B>> for Gated<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    R: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        match self.gate.proof(&head) {
            Ok(proof) => {
                head.extensions.insert(proof);
                Either::Left(self.inner.call(http::Request::from_parts(head, body)))
            }
            Err(status) => {
                let peer = head.extensions.get::<Peer>().and_then(|peer| peer.addr);
                tracing::warn!(
                    ?peer,
                    path = head.uri.path(),
                    reason = status.message(),
                    "not let in"
                );
                Either::Right(ready(Ok(status.into_http())))
            }
        }
    }
}
