// SPDX-License-Identifier: Apache-2.0
//! Who is there and who may come: the fleet of proxies, join tokens, and accounts with whom a mesh is shared.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use pillion_config::Kind;
use pillion_config::name::is_account;
use serde_json::Value;
use serde_json::json;

use super::Call;
use super::at;
use super::problem;
use super::text;
use crate::access::Wish;
use crate::api::document;
use crate::api::error::ApiError;
use crate::api::error::ErrorType;
use crate::identity::token::Kept;
use crate::identity::token::TokenError;
use crate::store::live::now_ms;

/// A day, and no more than a year: a token is for joining, certificates are for staying.
const LIFE_S: u64 = 24 * 3600;
const MAX_LIFE_S: u64 = 365 * 24 * 3600;

/// `GET /fleet`: every proxy that is connected or was refused something, with what it was sent and what it runs.
pub(super) fn fleet(call: &Call) -> Value {
    let mut proxies: BTreeMap<String, Value> = BTreeMap::new();
    for stream in call.api.fleet.report() {
        let entry = proxies
            .entry(stream.proxy.clone())
            .or_insert_with(|| json!({"proxy": stream.proxy, "streams": []}));
        if let Some(streams) = entry["streams"].as_array_mut() {
            streams.push(json!(stream));
        }
    }
    for report in call.api.publisher.report() {
        let entry = proxies
            .entry(report.proxy.clone())
            .or_insert_with(|| json!({"proxy": report.proxy, "streams": []}));
        entry["published"] = json!(report);
    }
    for (proxy, refused) in call.api.fleet.refusals() {
        let entry = proxies
            .entry(proxy.clone())
            .or_insert_with(|| json!({"proxy": proxy, "streams": []}));
        entry["refused"] = json!(refused);
    }
    let model = call.api.live.current();
    let wanted = call.query.get("mesh");
    let shown: Vec<Value> = proxies
        .into_iter()
        .filter(|(proxy, _)| {
            let Some(key) = crate::identity::key_of(proxy) else {
                return false;
            };
            let mesh = model.get(&pillion_config::ResourceKey::mesh(&key.mesh));
            mesh.is_some_and(|mesh| {
                call.api.access.sees(&call.asked.caller, mesh)
                    && call.may(Wish::Read, &call.api.arn(&model, &key, &call.asked.caller))
                    && wanted.is_none_or(|wanted| document::shown(mesh).mesh == wanted)
            })
        })
        .map(|(_, entry)| entry)
        .collect();
    json!({"revision": model.revision(), "proxies": shown})
}

/// `GET /tokens`.
pub(super) fn tokens(call: &Call) -> Value {
    let model = call.api.live.current();
    let kept = call.api.tokens.list(now_ms());
    let mine = kept.iter().filter(|one| {
        one.key().is_some_and(|key| {
            let arn = call.api.arn(&model, &key, &call.asked.caller);
            owner_of(&arn) == call.asked.caller.account() && call.may(Wish::Read, &arn)
        })
    });
    let mine: Vec<Value> = mine.map(|one| shown(call, one)).collect();
    json!({"tokens": mine})
}

/// `POST /tokens`.
pub(super) async fn create_token(call: &Call) -> Result<Value, ApiError> {
    let body = call.body(&["resourceArn", "lifetimeSeconds"])?;
    let arn = text(&body, "resourceArn")?;
    let key = call
        .api
        .find_arn(arn, "resourceArn", &call.asked, Wish::Write)?;
    if !matches!(key.kind, Kind::VirtualNode | Kind::VirtualGateway) {
        return Err(problem(
            "resourceArn",
            "must be that of a virtual node or gateway: only they have proxies",
        ));
    }
    if owner_of(arn) != call.asked.caller.account() {
        return Err(ApiError::new(
            ErrorType::Forbidden,
            format!("{arn} belongs to another account"),
        ));
    }
    let life = match body.get("lifetimeSeconds") {
        None => LIFE_S,
        Some(life) => life
            .as_u64()
            .filter(|life| (1..=MAX_LIFE_S).contains(life))
            .ok_or_else(|| {
                problem(
                    "lifetimeSeconds",
                    format!("must be a whole number from 1 to {MAX_LIFE_S}"),
                )
            })?,
    };
    let life_ms = i64::try_from(life * 1000).unwrap_or(i64::MAX);
    let made = call
        .api
        .tokens
        .create(&key, call.asked.caller.who(), now_ms(), life_ms)
        .await;
    let (kept, token) = made.map_err(refused)?;
    tracing::info!(target: "audit", who = call.asked.caller.who(), operation = "CreateToken", id = kept.id, resource = %key, "write");
    let mut answer = shown(call, &kept);
    answer["token"] = json!(token);
    Ok(answer)
}

/// `DELETE /tokens/{id}`.
pub(super) async fn revoke_token(call: &Call, id: &str) -> Result<Value, ApiError> {
    let model = call.api.live.current();
    let kept = call
        .api
        .tokens
        .list(now_ms())
        .into_iter()
        .find(|one| one.id == id);
    let mine = kept.and_then(|one| one.key()).is_some_and(|key| {
        let arn = call.api.arn(&model, &key, &call.asked.caller);
        owner_of(&arn) == call.asked.caller.account() && call.may(Wish::Write, &arn)
    });
    if mine && call.api.tokens.revoke(id).await.map_err(refused)? {
        tracing::info!(target: "audit", who = call.asked.caller.who(), operation = "RevokeToken", id, "write");
        return Ok(json!({}));
    }
    Err(ApiError::new(
        ErrorType::NotFound,
        format!("there is no join token {id:.40}"),
    ))
}

fn refused(error: TokenError) -> ApiError {
    match error {
        TokenError::Store(error) => error.into(),
        TokenError::TooMany => ApiError::new(ErrorType::LimitExceeded, error.to_string()),
    }
}

fn shown(call: &Call, kept: &Kept) -> Value {
    let model = call.api.live.current();
    let arn = kept
        .key()
        .map(|key| call.api.arn(&model, &key, &call.asked.caller));
    json!({
        "id": kept.id,
        "resourceArn": arn,
        "createdAt": at(kept.created_ms),
        "expiresAt": at(kept.expires_ms),
        "createdBy": kept.by,
    })
}

fn owner_of(arn: &str) -> &str {
    arn.split(':').nth(4).unwrap_or_default()
}

/// `GET /meshes/{mesh}/shares`.
pub(super) fn shares(call: &Call, mesh: &str) -> Result<Value, ApiError> {
    let mesh = own_mesh(call, mesh, Wish::Read)?;
    Ok(json!({"accounts": call.api.access.shares_of(&mesh)}))
}

/// `PUT /meshes/{mesh}/shares`: these accounts and no others.
pub(super) async fn share(call: &Call, mesh: &str) -> Result<Value, ApiError> {
    let body = call.body(&["accounts"])?;
    let accounts: Option<BTreeSet<String>> = body["accounts"].as_array().and_then(|list| {
        let account = |one: &Value| {
            one.as_str()
                .filter(|one| is_account(one))
                .map(str::to_owned)
        };
        list.iter().map(account).collect()
    });
    let accounts = accounts
        .ok_or_else(|| problem("accounts", "must be a list of accounts, 12 digits each"))?;
    let mesh = own_mesh(call, mesh, Wish::Write)?;
    call.api.access.share(&mesh, accounts.clone()).await?;
    tracing::info!(target: "audit", who = call.asked.caller.who(), operation = "PutShares", mesh, ?accounts, "write");
    Ok(json!({"accounts": accounts}))
}

fn own_mesh(call: &Call, mesh: &str, wish: Wish) -> Result<String, ApiError> {
    let caller = &call.asked.caller;
    let key = pillion_config::ResourceKey::mesh(call.api.access.spell(mesh, caller.account()));
    let model = call.api.live.current();
    call.api
        .permit(&call.asked, wish, &call.api.arn(&model, &key, caller))?;
    crate::api::write::find(&model, &key)
        .ok()
        .filter(|record| record.mesh_owner == caller.account())
        .ok_or_else(|| ApiError::new(ErrorType::NotFound, format!("Mesh {mesh} does not exist")))?;
    Ok(key.mesh)
}
