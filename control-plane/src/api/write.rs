// SPDX-License-Identifier: Apache-2.0
//! The rules of writing, as decisions on one model: create, update, delete, tag, untag. Pure; `store::live` runs them one
//! after another and commits what they plan, so what they saw still holds when it is stored.

use std::sync::Arc;

use pillion_config::Kind;
use pillion_config::ResourceKey;
use pillion_config::Spec;
use pillion_config::graph::ReferenceFault;
use pillion_config::graph::ReferenceProblem;
use pillion_config::tags::MAX_TAGS;
use serde_json::json;
use uuid::Uuid;

use super::document;
use super::draft::Creation;
use super::draft::Revision;
use super::error::in_one_message;
use crate::store::Change;
use crate::store::Model;
use crate::store::Record;
use crate::store::Tags;
use crate::store::live::Plan;
use crate::store::live::Refusal;

/// Who we are in ARNs.
#[derive(Clone, Debug)]
pub struct Owner {
    /// `us-east-1`.
    pub region: String,
    /// 12 digits.
    pub account: String,
}

/// Create: the name is free and everything referred to exists.
pub fn create(
    model: &Model,
    owner: &Owner,
    key: &ResourceKey,
    draft: &Creation,
    now_ms: i64,
) -> Result<Plan, Refusal> {
    check_references(model, key, &draft.spec)?;
    if model.get(key).is_some() {
        let Owner { account, .. } = owner;
        return Err(Refusal::Conflict(match key.kind {
            Kind::Mesh => format!("Mesh {} already exists for account {account}", key.name),
            kind => format!("{kind} {} already exists in mesh {}", key.name, key.mesh),
        }));
    }
    let record = Record {
        key: key.clone(),
        spec: draft.spec.clone(),
        uid: Uuid::new_v4().to_string(),
        version: 1,
        created_ms: now_ms,
        updated_ms: now_ms,
        mesh_owner: owner.account.clone(),
        resource_owner: owner.account.clone(),
        tags: draft.tags.clone(),
    };
    Ok(put(record, owner))
}

/// Update: replaces the spec whole, keeps uid and tags.
pub fn update(
    model: &Model,
    owner: &Owner,
    key: &ResourceKey,
    revision: &Revision,
    now_ms: i64,
) -> Result<Plan, Refusal> {
    let before = find(model, key)?;
    let spec = revision.spec.as_ref().unwrap_or(&before.spec);
    check_references(model, key, spec)?;
    let broken = model.resources().broken_by(key, spec);
    if !broken.is_empty() {
        return Err(Refusal::BadRequest(format!(
            "{key} cannot change so: what refers to it would no longer hold; change that first: {}",
            in_one_message(&broken)
        )));
    }
    Ok(put(next(before, spec.clone(), now_ms), owner))
}

/// Delete: nobody refers to it any more. The answer shows one version more, as App Mesh did.
pub fn delete(
    model: &Model,
    owner: &Owner,
    key: &ResourceKey,
    now_ms: i64,
) -> Result<Plan, Refusal> {
    let before = find(model, key)?;
    if let Some(blocker) = model.resources().blocker_of_delete(key, &before.mesh_owner) {
        return Err(Refusal::InUse(blocker));
    }
    let last = next(before, before.spec.clone(), now_ms);
    Ok(Plan {
        answer: document::data(&last, &owner.region, document::DELETED),
        change: Some(Change::Remove(before.clone())),
    })
}

/// Adds tags, or gives those that are there a new value.
pub fn tag(model: &Model, key: &ResourceKey, added: &Tags) -> Result<Plan, Refusal> {
    let before = find(model, key)?;
    let mut tags = before.tags.clone();
    tags.extend(added.clone());
    if tags.len() > MAX_TAGS {
        let (has, would) = (before.tags.len(), tags.len());
        return Err(Refusal::TooManyTags(format!(
            "{key} has {has} tags and would have {would}; a resource may have {MAX_TAGS}"
        )));
    }
    Ok(retag(before, tags))
}

/// Removes tags; keys that are not there are none.
pub fn untag(model: &Model, key: &ResourceKey, keys: &[String]) -> Result<Plan, Refusal> {
    let before = find(model, key)?;
    let mut tags = before.tags.clone();
    tags.retain(|known, _| !keys.contains(known));
    Ok(retag(before, tags))
}

/// The resource, or the outermost thing on the way to it that is missing.
pub fn find<'m>(model: &'m Model, key: &ResourceKey) -> Result<&'m Arc<Record>, Refusal> {
    let above = [Some(ResourceKey::mesh(&key.mesh)), key.parent_key()];
    if let Some(missing) = above
        .into_iter()
        .flatten()
        .find(|key| model.get(key).is_none())
    {
        return Err(not_found(&missing));
    }
    model.get(key).ok_or_else(|| not_found(key))
}

fn not_found(key: &ResourceKey) -> Refusal {
    let ResourceKey {
        kind, mesh, name, ..
    } = key;
    Refusal::NotFound(match (kind, kind.parent(), &key.parent) {
        (Kind::Mesh, ..) => format!("Mesh {name} does not exist"),
        (_, Some(above), Some(parent)) => {
            format!("{kind} {name} does not exist in {above} {parent} of mesh {mesh}")
        }
        _ => format!("{kind} {name} does not exist in mesh {mesh}"),
    })
}

fn check_references(model: &Model, key: &ResourceKey, spec: &Spec) -> Result<(), Refusal> {
    let found = model.resources().check_references(key, spec);
    let missing = |found: &&ReferenceProblem| found.fault == ReferenceFault::NotFound;
    if let Some(first) = found.iter().find(missing) {
        return Err(Refusal::NotFound(first.problem.to_string()));
    }
    if found.is_empty() {
        return Ok(());
    }
    let problems: Vec<_> = found.into_iter().map(|found| found.problem).collect();
    Err(Refusal::BadRequest(in_one_message(&problems)))
}

fn next(before: &Record, spec: Arc<Spec>, now_ms: i64) -> Record {
    Record {
        spec,
        version: before.version + 1,
        // A clock set back must not make an update older than the creation.
        updated_ms: now_ms.max(before.updated_ms),
        ..before.clone()
    }
}

fn put(record: Record, owner: &Owner) -> Plan {
    Plan {
        answer: document::data(&record, &owner.region, document::ACTIVE),
        change: Some(Change::Put(Arc::new(record))),
    }
}

fn retag(before: &Arc<Record>, tags: Tags) -> Plan {
    let change = (before.tags != tags).then(|| {
        Change::Put(Arc::new(Record {
            tags,
            ..before.as_ref().clone()
        }))
    });
    Plan {
        change,
        answer: json!({}),
    }
}
