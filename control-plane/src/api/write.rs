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
use super::quota::Quotas;
use crate::store::Change;
use crate::store::Model;
use crate::store::Record;
use crate::store::Tags;
use crate::store::live::Plan;
use crate::store::live::Refusal;

/// For whom a write is decided, and within what bounds.
#[derive(Clone, Debug)]
pub struct Owner {
    /// `us-east-1`, for ARNs.
    pub region: String,
    /// The caller's, 12 digits.
    pub account: String,
    /// Of the installation.
    pub quotas: Quotas,
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
    Ok(put(created(model, owner, key, draft, now_ms)?, owner))
}

/// The record of a new resource, if its name is free and its owner may have one more; references are not looked at.
pub fn created(
    model: &Model,
    owner: &Owner,
    key: &ResourceKey,
    draft: &Creation,
    now_ms: i64,
) -> Result<Record, Refusal> {
    if model.get(key).is_some() {
        let Owner { account, .. } = owner;
        return Err(Refusal::Conflict(match key.kind {
            Kind::Mesh => {
                let name = document::bare(key).name;
                format!("Mesh {name} already exists for account {account}")
            }
            kind => format!("{kind} {} already exists in mesh {}", key.name, key.mesh),
        }));
    }
    let mesh_owner = match key.kind {
        Kind::Mesh => owner.account.clone(),
        _ => find(model, &ResourceKey::mesh(&key.mesh))?
            .mesh_owner
            .clone(),
    };
    if matches!(key.kind, Kind::VirtualGateway | Kind::GatewayRoute) && mesh_owner != owner.account
    {
        return Err(Refusal::Forbidden(format!(
            "{} resources can be created by the owner of the mesh alone, account {mesh_owner}",
            key.kind
        )));
    }
    owner.quotas.check(model, key, &mesh_owner)?;
    owner.quotas.check_spec(&draft.spec)?;
    Ok(Record {
        key: key.clone(),
        spec: draft.spec.clone(),
        uid: Uuid::new_v4().to_string(),
        version: 1,
        created_ms: now_ms,
        updated_ms: now_ms,
        mesh_owner,
        resource_owner: owner.account.clone(),
        tags: draft.tags.clone(),
    })
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
    check_owner(before, owner)?;
    let spec = revision.spec.as_ref().unwrap_or(&before.spec);
    owner.quotas.check_spec(spec)?;
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
    if before.mesh_owner != owner.account {
        check_owner(before, owner)?;
    }
    if let Some(blocker) = model.resources().blocker_of_delete(key, &before.mesh_owner) {
        return Err(Refusal::InUse(blocker));
    }
    let last = next(before, before.spec.clone(), now_ms);
    Ok(Plan {
        answer: document::data(&last, &owner.region, document::DELETED),
        changes: vec![Change::Remove(Arc::new(last))],
    })
}

/// Adds tags, or gives those that are there a new value.
pub fn tag(model: &Model, owner: &Owner, key: &ResourceKey, added: &Tags) -> Result<Plan, Refusal> {
    let before = find(model, key)?;
    check_owner(before, owner)?;
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
pub fn untag(
    model: &Model,
    owner: &Owner,
    key: &ResourceKey,
    keys: &[String],
) -> Result<Plan, Refusal> {
    let before = find(model, key)?;
    check_owner(before, owner)?;
    let mut tags = before.tags.clone();
    tags.retain(|known, _| !keys.contains(known));
    Ok(retag(before, tags))
}

/// In a shared mesh everybody changes only their own.
pub fn check_owner(record: &Record, owner: &Owner) -> Result<(), Refusal> {
    if record.resource_owner == owner.account {
        return Ok(());
    }
    Err(Refusal::Forbidden(format!(
        "{} belongs to account {}; account {} may not change it",
        record.key, record.resource_owner, owner.account
    )))
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

/// Whether everything that `spec` refers to is there and fits.
pub fn check_references(model: &Model, key: &ResourceKey, spec: &Spec) -> Result<(), Refusal> {
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

/// The next version of a record.
pub fn next(before: &Record, spec: Arc<Spec>, now_ms: i64) -> Record {
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
        changes: vec![Change::Put(Arc::new(record))],
    }
}

fn retag(before: &Arc<Record>, tags: Tags) -> Plan {
    let changes = if before.tags == tags {
        Vec::new()
    } else {
        vec![Change::Put(Arc::new(Record {
            tags,
            ..before.as_ref().clone()
        }))]
    };
    Plan {
        changes,
        answer: json!({}),
    }
}
