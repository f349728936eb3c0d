// SPDX-License-Identifier: Apache-2.0
//! Who may ask and send, when there is a file of keys: AWS signatures (service `xray`, any region: here regions are not
//! told apart), or HTTP Basic with a key's id and secret, which browsers, Grafana and OTLP exporters can send. Doors
//! wrap their routers in it; without a file it lets everybody through.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::extract::State;
use axum::middleware::Next;
use axum::response::IntoResponse;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::header::AUTHORIZATION;
use http::header::WWW_AUTHENTICATE;
use http::request::Parts;
use pillion_sigv4::Claim;
use pillion_sigv4::Key;
use pillion_sigv4::KeysFile;
use pillion_sigv4::Payload;
use pillion_sigv4::Refusal;
use pillion_sigv4::Scope;
use serde_json::json;

use crate::query::xray_api;
use crate::receive::whole_body;
use crate::room::Room;
use crate::span::ACCOUNT;
use crate::span::REGION;

const SERVICE: &str = "xray";

/// The keys of one door.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) keys: Option<Arc<KeysFile>>,
    pub(crate) room: Room,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Denied {
    #[error("{0}")]
    Signature(#[from] Refusal),
    #[error(
        "this collector has credentials: sign with AWS Signature Version 4, or send HTTP Basic with access key id and secret"
    )]
    Unsigned,
    #[error(
        "User: {key} is not authorized to {what}; give it the permission in the credentials file"
    )]
    Forbidden { key: String, what: &'static str },
    #[error("the body could not be read: {0}")]
    Body(String),
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        let (status, kind) = match &self {
            Denied::Signature(refusal) => (StatusCode::FORBIDDEN, refusal.name()),
            Denied::Unsigned => (
                StatusCode::UNAUTHORIZED,
                "MissingAuthenticationTokenException",
            ),
            Denied::Forbidden { .. } => (StatusCode::FORBIDDEN, "AccessDeniedException"),
            Denied::Body(_) => (StatusCode::BAD_REQUEST, "InvalidRequestException"),
        };
        let body = json!({"Message": self.to_string(), "message": self.to_string()});
        let mut response = (status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        if let Ok(kind) = HeaderValue::from_str(kind) {
            headers.insert("x-amzn-errortype", kind);
        }
        if status == StatusCode::UNAUTHORIZED {
            let realm =
                HeaderValue::from_static("Basic realm=\"Pillion: access key id and secret\"");
            headers.insert(WWW_AUTHENTICATE, realm);
        }
        response
    }
}

impl Gate {
    pub(crate) fn guard(&self, router: Router) -> Router {
        if self.keys.is_none() {
            return router;
        }
        router.layer(axum::middleware::from_fn_with_state(
            self.clone(),
            authenticate,
        ))
    }

    /// Basic alone, for doors that are streams. `Ok` without a file of keys.
    pub(crate) fn admit_sender(&self, headers: &HeaderMap) -> Result<(), Denied> {
        let Some(keys) = &self.keys else {
            return Ok(());
        };
        let key = basic(keys, headers).ok_or(Denied::Unsigned)?;
        permitted(&key, true)
    }
}

async fn authenticate(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let Some(keys) = &gate.keys else {
        return next.run(request).await;
    };
    let (head, body) = request.into_parts();
    let changes = changes(&head);
    if head.headers.contains_key(AUTHORIZATION)
        && let Some(key) = basic(keys, &head.headers)
    {
        return match permitted(&key, changes) {
            Ok(()) => next.run(Request::from_parts(head, body)).await,
            Err(denied) => denied.into_response(),
        };
    }
    match signed(&gate, keys, &head, body).await {
        Ok((key, whole)) => match permitted(&key, changes) {
            // Charged until it is answered.
            Ok(()) => {
                let request = Request::from_parts(head, Body::from(whole.bytes.clone()));
                next.run(request).await
            }
            Err(denied) => denied.into_response(),
        },
        Err(denied) => denied.into_response(),
    }
}

async fn signed(
    gate: &Gate,
    keys: &KeysFile,
    head: &Parts,
    body: Body,
) -> Result<(Arc<Key>, whole_body::Wire), Denied> {
    let region = region(head).unwrap_or_else(|| REGION.to_owned());
    let scope = Scope {
        service: SERVICE,
        region: &region,
    };
    let claim = Claim::read(head, &keys.current(), &scope, SystemTime::now());
    let claim = claim.map_err(|refusal| match refusal {
        Refusal::Missing if head.method == Method::GET => Denied::Unsigned,
        other => Denied::Signature(other),
    })?;
    let whole = whole_body::wire(&gate.room, body)
        .await
        .map_err(|error| Denied::Body(error.to_string()))?;
    let key = claim.prove(Payload::Body(&whole.bytes))?;
    Ok((key, whole))
}

/// The region that a credential names: `<id>/<date>/<region>/…`, in a header or, percent-encoded, in the query.
fn region(head: &Parts) -> Option<String> {
    let header = head
        .headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let text = header
        .or(head.uri.query())?
        .replace("%2F", "/")
        .replace("%2f", "/");
    let credential = text.split("Credential=").nth(1)?;
    credential.split('/').nth(2).map(str::to_owned)
}

fn basic(keys: &KeysFile, headers: &HeaderMap) -> Option<Arc<Key>> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let keys = keys.current();
    keys.get(id).filter(|key| key.has_secret(secret)).cloned()
}

fn permitted(key: &Key, changes: bool) -> Result<(), Denied> {
    let (allowed, what) = if changes {
        (key.can_write(), "write")
    } else {
        (key.can_read(), "read")
    };
    // A key that is limited to meshes has no business with traces.
    let ours = key.covers(&format!("arn:aws:xray:{REGION}:{ACCOUNT}:*"));
    if allowed && ours {
        return Ok(());
    }
    Err(Denied::Forbidden {
        key: key.id().to_owned(),
        what: if ours { what } else { "use arn:aws:xray:*" },
    })
}

/// Whether a request is more than a question.
fn changes(head: &Parts) -> bool {
    if matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return false;
    }
    let target = head
        .headers
        .get("x-amz-target")
        .and_then(|value| value.to_str().ok());
    xray_api::changes(head.uri.path(), target.unwrap_or_default())
}
