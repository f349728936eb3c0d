// SPDX-License-Identifier: Apache-2.0
//! `POST /apply`: every resource of a manifest, all or nothing. References are held against the mesh as it would be
//! afterwards, so that changes which belong together (a node's protocol and its routes) can be made at all. With
//! `dryRun=true` the answer is the same and nothing is changed.

use std::sync::Arc;

use pillion_config::Kind;
use pillion_config::Problem;
use pillion_config::ResourceKey;
use pillion_config::Resources;
use pillion_config::Spec;
use pillion_config::manifest::Document;
use pillion_config::manifest::Parameters;
use pillion_config::manifest::in_apply_order;
use pillion_config::manifest::parse_manifest;
use serde_json::Value;
use serde_json::json;

use super::Call;
use super::problem;
use crate::access::Wish;
use crate::api::document;
use crate::api::draft::Creation;
use crate::api::error::ApiError;
use crate::api::error::in_one_message;
use crate::api::write;
use crate::api::write::Owner;
use crate::store::Change;
use crate::store::Model;
use crate::store::Record;
use crate::store::Tags;
use crate::store::difference;
use crate::store::live::Plan;
use crate::store::live::Refusal;

/// Resources of one manifest; the watch reads a commit at once.
pub(super) const MAX_DOCUMENTS: usize = 1000;

/// One resource, asked for.
struct Wanted {
    key: ResourceKey,
    spec: Arc<Spec>,
    tags: Tags,
    origin: String,
}

pub(super) async fn apply(call: &Call) -> Result<Value, ApiError> {
    let dry_run = match call.query.get("dryRun") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(problem("dryRun", "must be true or false")),
    };
    let text =
        std::str::from_utf8(&call.bytes).map_err(|_| problem("", "the manifest is not UTF-8"))?;
    let documents = parse_manifest(text, &Parameters::new())
        .map_err(|problems| ApiError::problems(&problems))?;
    if documents.len() > MAX_DOCUMENTS {
        let found = documents.len();
        return Err(problem(
            "",
            format!("holds {found} resources; one apply takes {MAX_DOCUMENTS}"),
        ));
    }
    let wanted = in_apply_order(documents)
        .into_iter()
        .map(|document| wanted(call, document))
        .collect::<Result<Vec<_>, _>>()?;
    let owner = call.api.owner(&call.asked);
    let decide = move |model: &Model, now| {
        let mut plan = decide(model, &owner, &wanted, now)?;
        plan.answer["dryRun"] = json!(dry_run);
        if dry_run {
            plan.changes.clear();
        }
        Ok(plan)
    };
    call.api.write(&call.asked, Box::new(decide), None).await
}

/// A document under the name it is kept by, if the caller may write it and sees the mesh.
fn wanted(call: &Call, document: Document) -> Result<Wanted, ApiError> {
    let Document {
        key,
        mesh_owner,
        spec,
        tags,
        origin,
    } = document;
    let caller = &call.asked.caller;
    let owner = mesh_owner.as_deref().unwrap_or(caller.account());
    let mesh = call.api.access.spell(&key.mesh, owner);
    let model = call.api.live.current();
    let hidden = model
        .get(&ResourceKey::mesh(&mesh))
        .is_some_and(|record| !call.api.access.sees(caller, record));
    if hidden {
        let why = format!(
            "account {owner} does not share mesh {} with account {}",
            key.mesh,
            caller.account()
        );
        return Err(problem(&origin, why));
    }
    let key = match key.kind {
        Kind::Mesh => ResourceKey::mesh(mesh),
        _ => ResourceKey { mesh, ..key },
    };
    call.api.permit(
        &call.asked,
        Wish::Write,
        &call.api.arn(&model, &key, caller),
    )?;
    Ok(Wanted {
        key,
        spec: Arc::new(spec),
        tags: tags.into_iter().map(|tag| (tag.key, tag.value)).collect(),
        origin,
    })
}

fn decide(model: &Model, owner: &Owner, wanted: &[Wanted], now_ms: i64) -> Result<Plan, Refusal> {
    let mut after = model.resources().clone();
    for one in wanted {
        after.insert(one.key.clone(), Arc::clone(&one.spec));
    }
    check(model.resources(), &after, wanted)?;
    let mut changes = Vec::new();
    let mut told = Vec::new();
    // Quotas and owners are asked of the model as it grows.
    let mut growing = model.clone();
    for one in wanted {
        let before = growing.get(&one.key).cloned();
        let next = next(&growing, owner, one, now_ms)?;
        let action = match (&before, &next) {
            (_, None) => "unchanged",
            (None, Some(_)) => "created",
            (Some(_), Some(_)) => "updated",
        };
        let record = next.clone().or_else(|| before.clone());
        let record = record.expect("what is unchanged was there before");
        told.push(json!({
            "action": action,
            "arn": document::arn(&record, &owner.region),
            "version": record.version,
            "diff": next.as_ref().map(|next| difference::between(before.as_deref(), Some(next))).unwrap_or_default(),
        }));
        if let Some(record) = next {
            let change = Change::Put(record);
            growing = growing.after(std::slice::from_ref(&change), model.revision());
            changes.push(change);
        }
    }
    Ok(Plan {
        changes,
        answer: json!({"changes": told}),
    })
}

/// Every reference of what is asked for, and of the routes that stay, on the mesh as it would be.
fn check(before: &Resources, after: &Resources, wanted: &[Wanted]) -> Result<(), Refusal> {
    let mut problems: Vec<Problem> = Vec::new();
    for one in wanted {
        for found in after.check_references(&one.key, &one.spec) {
            problems.push(found.problem.under(&one.origin));
        }
    }
    let asked: std::collections::BTreeSet<&ResourceKey> =
        wanted.iter().map(|one| &one.key).collect();
    let meshes: std::collections::BTreeSet<&str> =
        wanted.iter().map(|one| one.key.mesh.as_str()).collect();
    let stay = before.iter().filter(|(key, _)| {
        matches!(key.kind, Kind::Route | Kind::GatewayRoute)
            && meshes.contains(key.mesh.as_str())
            && !asked.contains(key)
    });
    for (key, spec) in stay {
        let known = before.check_references(key, spec);
        let found = after.check_references(key, spec);
        let new = found.into_iter().filter(|one| !known.contains(one));
        problems.extend(new.map(|one| one.problem.under(&key.id())));
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Refusal::BadRequest(in_one_message(&problems)))
    }
}

/// The record as it will be; `None` where it is so already. Tags that the manifest does not give are left alone.
fn next(
    model: &Model,
    owner: &Owner,
    wanted: &Wanted,
    now_ms: i64,
) -> Result<Option<Arc<Record>>, Refusal> {
    let Some(before) = model.get(&wanted.key) else {
        let draft = Creation {
            name: wanted.key.name.clone(),
            spec: Arc::clone(&wanted.spec),
            tags: wanted.tags.clone(),
            token: None,
        };
        return write::created(model, owner, &wanted.key, &draft, now_ms)
            .map(|record| Some(Arc::new(record)));
    };
    let same_tags = wanted.tags.is_empty() || wanted.tags == before.tags;
    if before.spec == wanted.spec && same_tags {
        return Ok(None);
    }
    write::check_owner(before, owner)?;
    let mut next = if before.spec == wanted.spec {
        before.as_ref().clone()
    } else {
        write::next(before, Arc::clone(&wanted.spec), now_ms)
    };
    if !same_tags {
        next.tags = wanted.tags.clone();
    }
    Ok(Some(Arc::new(next)))
}
