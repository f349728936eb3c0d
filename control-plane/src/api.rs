// SPDX-License-Identifier: Apache-2.0
//! The App Mesh API over HTTP: restJson1, all 38 operations, for unmodified SDKs. Here a request becomes an operation and
//! an outcome an answer; rules are in [`write`] and `pillion-config`, the store behind [`Live`]. Never waits for a proxy.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderName;
use http::HeaderValue;
use http::Request;
use http::StatusCode;
use http::Uri;
use http::header;
use pillion_config::Kind;
use pillion_config::ResourceKey;
use pillion_config::name::is_account;
use pillion_sigv4::Payload;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub mod body;
pub mod call;
pub mod document;
pub mod draft;
pub mod error;
pub mod json;
pub mod metrics;
pub mod operations;
pub mod page;
pub mod pillion;
pub mod query;
pub mod quota;
pub mod tags;
pub mod token;
pub mod write;

use crate::access::Access;
use crate::access::Caller;
use crate::access::Wish;
use crate::ads::fleet::Fleet;
use crate::identity::Custody;
use crate::identity::token::Tokens;
use crate::publish::Publisher;
use crate::store::Author;
use crate::store::Live;
use crate::store::Model;
use call::Call;
use error::ApiError;
use error::ErrorType;
use metrics::ApiMetrics;
use query::Query;
use quota::Quotas;
use write::Owner;

/// Watches that may run at once; each is cheap, and they are few.
const WATCHERS: usize = 64;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// What every operation works on.
pub struct Api {
    live: Arc<Live>,
    access: Arc<Access>,
    quotas: Quotas,
    fleet: Arc<Fleet>,
    publisher: Arc<Publisher>,
    tokens: Arc<Tokens>,
    custody: Arc<Custody>,
    metrics: ApiMetrics,
    watchers: Arc<Semaphore>,
    stop: CancellationToken,
}

/// What the API is made of.
pub struct Parts {
    /// The resources.
    pub live: Arc<Live>,
    /// Who may come in.
    pub access: Arc<Access>,
    /// `--quota`.
    pub quotas: Quotas,
    /// Who is connected.
    pub fleet: Arc<Fleet>,
    /// What they are sent.
    pub publisher: Arc<Publisher>,
    /// What proxies join with.
    pub tokens: Arc<Tokens>,
    /// What they prove themselves with.
    pub custody: Arc<Custody>,
    /// Its counters.
    pub metrics: ApiMetrics,
    /// Ends the watches.
    pub stop: CancellationToken,
}

/// Who asks, and what for: history and refusals name both.
pub(crate) struct Asked {
    pub(crate) caller: Caller,
    pub(crate) operation: String,
}

impl Api {
    /// The API of one region.
    pub fn new(parts: Parts) -> Api {
        let Parts {
            live,
            access,
            quotas,
            fleet,
            publisher,
            tokens,
            custody,
            metrics,
            stop,
        } = parts;
        Api {
            live,
            access,
            quotas,
            fleet,
            publisher,
            tokens,
            custody,
            metrics,
            watchers: Arc::new(Semaphore::new(WATCHERS)),
            stop,
        }
    }

    /// Everything on `--api-addr`.
    pub fn router(self) -> Router {
        let api = Arc::new(self);
        Router::new()
            .route("/", axum::routing::get(about))
            .merge(pillion::router())
            .fallback(answer)
            .with_state(api)
            .layer(axum::middleware::map_response(stamp))
    }
}

async fn about() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "Pillion control plane {version}: the AWS App Mesh API (2019-01-25) is under {}/\n",
        call::PREFIX
    )
}

/// SDKs show the id to people who ask what became of a request; where none was logged, a fresh one does.
async fn stamp(mut response: Response) -> Response {
    if !response.headers().contains_key(REQUEST_ID) {
        let id = HeaderValue::from_str(&Uuid::new_v4().to_string());
        response
            .headers_mut()
            .insert(REQUEST_ID, id.expect("a UUID is hex digits and hyphens"));
    }
    response
}

async fn answer(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    let began = Instant::now();
    let call = Call::find(request.method(), request.uri().path());
    let operation = call
        .as_ref()
        .map_or_else(|_| "Unknown".to_owned(), Call::operation);
    let outcome = match call {
        Ok(call) => api.perform(call, &operation, request).await,
        Err(no_call) => {
            // The body is read all the same, so that the client gets to read the answer.
            body::read(request.into_body()).await.ok();
            Err(no_call.into())
        }
    };
    api.reply(outcome, &operation, began)
}

impl Api {
    /// Turns an outcome into an answer, logged and counted.
    fn reply(&self, outcome: Result<Value, ApiError>, operation: &str, began: Instant) -> Response {
        let id = Uuid::new_v4().to_string();
        let mut response = match outcome {
            Ok(document) => json_response(StatusCode::OK, &document),
            Err(error) => {
                log(&error, operation, &id);
                refusal(&error)
            }
        };
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        self.metrics
            .count(operation, response.status(), began.elapsed());
        response
    }

    /// Reads a request whole and finds out who sent it.
    async fn admit(&self, request: Request<Body>) -> Result<(Caller, Uri, Bytes), ApiError> {
        let (head, body) = request.into_parts();
        let knock = self.access.knock(&head);
        // The body of who is not let in is read all the same, so that the client gets to read the answer.
        let bytes = body::read(body).await?;
        let caller = self.access.enter(knock?, Payload::Body(&bytes))?;
        if self.access.is_hurried(&caller) {
            return Err(ApiError::new(
                ErrorType::TooManyRequests,
                format!("{} asks too often; wait a second", caller.who()),
            ));
        }
        // Read-after-write holds across replicas too: whoever was answered by another finds it here.
        self.live.settle().await;
        Ok((caller, head.uri, bytes))
    }

    async fn perform(
        &self,
        call: Call,
        operation: &str,
        request: Request<Body>,
    ) -> Result<Value, ApiError> {
        let (caller, uri, bytes) = self.admit(request).await?;
        let query = Query::parse(uri.query())?;
        let call = self.place(call, &query, &caller)?;
        let asked = Asked {
            caller,
            operation: operation.to_owned(),
        };
        match &call {
            Call::Create(of) => self.create(of, &asked, &bytes).await,
            Call::List(of) => self.list(of, &asked, &query),
            Call::Describe(key) => self.describe(key, &asked),
            Call::Update(key) => self.update(key, &asked, &bytes).await,
            Call::Delete(key) => self.delete(key, &asked).await,
            Call::ListTagsForResource => self.list_tags(&query, &asked),
            Call::TagResource => self.tag(&query, &asked, &bytes).await,
            Call::UntagResource => self.untag(&query, &asked, &bytes).await,
        }
    }

    /// Finds out whose mesh is meant. One that the caller does not see is as good as none.
    fn place(&self, call: Call, query: &Query, caller: &Caller) -> Result<Call, ApiError> {
        let owner = match query.get("meshOwner").filter(|_| call.takes_mesh_owner()) {
            Some(owner) => {
                pillion_config::tags::check_mesh_owner(owner)
                    .map_err(|problem| ApiError::problems(&[problem]))?;
                owner
            }
            None => caller.account(),
        };
        let mesh = call.mesh().to_owned();
        let (spelled, creates) = (
            self.access.spell(&mesh, owner),
            matches!(&call, Call::Create(of) if of.kind == Kind::Mesh),
        );
        let model = self.live.current();
        let seen = match model.get(&ResourceKey::mesh(&spelled)) {
            Some(record) => self.access.sees(caller, record),
            // The rules say what is missing; only a mesh of nobody we know is told here.
            None => owner == caller.account(),
        };
        let looks_shared = mesh
            .rsplit_once('@')
            .is_some_and(|(_, end)| is_account(end));
        if !mesh.is_empty() && !creates && (!seen || looks_shared) {
            return Err(ApiError::new(
                ErrorType::NotFound,
                format!(
                    "Mesh {mesh} of account {owner} does not exist here, or is not shared with account {}",
                    caller.account()
                ),
            ));
        }
        Ok(call.in_mesh(|mesh| self.access.spell(mesh, owner)))
    }

    /// Whether the caller's key allows this.
    fn permit(&self, asked: &Asked, wish: Wish, arn: &str) -> Result<(), ApiError> {
        if asked.caller.may(wish, arn) {
            return Ok(());
        }
        let (who, operation) = (asked.caller.who(), &asked.operation);
        Err(ApiError::new(
            ErrorType::Forbidden,
            format!(
                "User: {who} is not authorized to perform: appmesh:{operation} on resource: {arn}"
            ),
        ))
    }

    /// The ARN of what is there, or would be.
    fn arn(&self, model: &Model, key: &ResourceKey, caller: &Caller) -> String {
        match model.get(key) {
            Some(record) => document::arn(record, &self.access.region),
            None => document::bare(key).arn(&self.access.region, caller.account()),
        }
    }

    /// For whom a write is decided.
    fn owner(&self, asked: &Asked) -> Owner {
        Owner {
            region: self.access.region.clone(),
            account: asked.caller.account().to_owned(),
            quotas: self.quotas.clone(),
        }
    }
}

impl Asked {
    pub(crate) fn author(&self) -> Author {
        Author {
            who: self.caller.who().to_owned(),
            operation: self.operation.clone(),
        }
    }
}

fn json_response(status: StatusCode, document: &Value) -> Response {
    let mut response = Response::new(Body::from(document.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

fn refusal(error: &ApiError) -> Response {
    let mut response = json_response(error.kind.status(), &error.document());
    let headers = response.headers_mut();
    headers.insert(ERROR_TYPE, HeaderValue::from_static(error.kind.name()));
    if let Some(seconds) = error.kind.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(allow) = error.allow {
        headers.insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    response
}

fn log(error: &ApiError, operation: &str, id: &str) {
    let (kind, message) = (error.kind.name(), &error.message);
    if error.kind.status().is_server_error() {
        let inner = error.inner.as_deref().map(chain).unwrap_or_default();
        tracing::error!(operation, id, kind, message, inner, "request failed");
    } else {
        tracing::debug!(operation, id, kind, message, "request refused");
    }
}

fn chain(error: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
