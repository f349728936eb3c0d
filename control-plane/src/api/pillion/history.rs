// SPDX-License-Identifier: Apache-2.0
//! What was changed when, by whom, and back to how it was. Reads the store's history; a rollback is an update like any
//! other, with an old spec.

use std::sync::Arc;

use pillion_config::ResourceKey;
use pillion_config::name::parse_arn;
use serde_json::Value;
use serde_json::json;

use super::Call;
use super::at;
use super::problem;
use super::text;
use crate::access::Wish;
use crate::api::document;
use crate::api::draft::Revision;
use crate::api::error::ApiError;
use crate::api::error::ErrorType;
use crate::api::write;
use crate::store::KEPT_OF_EACH;
use crate::store::Recall;
use crate::store::Remembered;
use crate::store::difference;

/// Entries of one answer.
const PAGE: u64 = 100;

/// `GET /history`: of one resource with differences, or of everything the caller may read.
pub(super) async fn list(call: &Call) -> Result<Value, ApiError> {
    let limit = call.number("limit", PAGE, PAGE)?;
    let before = call.number("before", u64::MAX >> 1, u64::MAX >> 1)?;
    let key = match call.query.get("resourceArn") {
        Some(arn) => Some(key_of(call, arn)?),
        None => None,
    };
    let which = Recall {
        before: Some(before),
        limit: u32::try_from(limit).unwrap_or(u32::MAX).saturating_add(1),
        key: key.clone(),
        ..Recall::default()
    };
    let found = call.api.live.store().recall(which).await?;
    let shown = &found[..found
        .len()
        .min(usize::try_from(limit).unwrap_or(usize::MAX))];
    let entries: Vec<Value> = shown
        .iter()
        .enumerate()
        .filter(|(_, one)| visible(call, one))
        .map(|(index, one)| {
            let mut entry = entry(call, one);
            if key.is_some() {
                entry["diff"] = json!(diff(found.get(index + 1), one));
                entry["spec"] = one.record.spec.to_value();
                entry["tags"] = json!(one.record.tags);
            }
            entry
        })
        .collect();
    let mut answer = json!({"changes": entries});
    if let Some(last) = shown.last().filter(|_| found.len() > shown.len()) {
        answer["before"] = json!(last.revision);
    }
    Ok(answer)
}

/// `POST /rollback`: the spec of version N becomes that of a new version.
pub(super) async fn rollback(call: &Call) -> Result<Value, ApiError> {
    let body = call.body(&["resourceArn", "version"])?;
    let version = body["version"].as_u64();
    let version = version.ok_or_else(|| {
        problem(
            "version",
            "must be a version of the resource, as `history` lists them",
        )
    })?;
    let api = &call.api;
    let key = api.find_arn(
        text(&body, "resourceArn")?,
        "resourceArn",
        &call.asked,
        Wish::Write,
    )?;
    let current = api
        .live
        .current()
        .get(&key)
        .map(|record| record.uid.clone());
    let which = Recall {
        key: Some(key.clone()),
        limit: KEPT_OF_EACH,
        ..Recall::default()
    };
    let found = api.live.store().recall(which).await?;
    let wanted = found
        .iter()
        .filter(|one| Some(&one.record.uid) == current.as_ref() && !one.removed)
        .find(|one| one.record.version == version)
        .ok_or_else(|| {
            ApiError::new(
                ErrorType::NotFound,
                format!("version {version} of {key} is not in its history, which keeps {KEPT_OF_EACH} changes"),
            )
        })?;
    let revision = Revision {
        spec: Some(Arc::clone(&wanted.record.spec)),
        token: None,
    };
    let owner = api.owner(&call.asked);
    let decide = move |model: &_, now| write::update(model, &owner, &key, &revision, now);
    api.write(&call.asked, Box::new(decide), None).await
}

/// Of a resource that is gone there is a history still.
fn key_of(call: &Call, arn: &str) -> Result<ResourceKey, ApiError> {
    match call
        .api
        .find_arn(arn, "resourceArn", &call.asked, Wish::Read)
    {
        Err(error) if error.kind == ErrorType::NotFound => {
            let parsed =
                parse_arn(arn).map_err(|error| problem("resourceArn", error.to_string()))?;
            if parsed.account != call.asked.caller.account() {
                return Err(error);
            }
            let mesh = call.api.access.spell(&parsed.key.mesh, &parsed.account);
            Ok(match parsed.key.kind {
                pillion_config::Kind::Mesh => ResourceKey::mesh(mesh),
                _ => ResourceKey { mesh, ..parsed.key },
            })
        }
        other => other,
    }
}

pub(super) fn visible(call: &Call, one: &Remembered) -> bool {
    let arn = document::arn(&one.record, &call.api.access.region);
    call.api.access.sees(&call.asked.caller, &one.record) && call.may(Wish::Read, &arn)
}

/// One change without what it changed.
pub(super) fn entry(call: &Call, one: &Remembered) -> Value {
    json!({
        "revision": one.revision,
        "at": at(one.at_ms),
        "who": one.author.who,
        "operation": one.author.operation,
        "deleted": one.removed,
        "arn": document::arn(&one.record, &call.api.access.region),
        "version": one.record.version,
        "uid": one.record.uid,
    })
}

fn diff(before: Option<&Remembered>, one: &Remembered) -> Vec<difference::Difference> {
    let before = before.filter(|before| !before.removed && before.record.uid == one.record.uid);
    let before = before.map(|before| before.record.as_ref());
    if one.removed {
        difference::between(Some(&one.record), None)
    } else {
        difference::between(before, Some(&one.record))
    }
}
