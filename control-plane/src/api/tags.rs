// SPDX-License-Identifier: Apache-2.0
//! The three tag operations. A resource is named by its ARN in the query, never in the path.

use pillion_config::Kind;
use pillion_config::Problem;
use pillion_config::ResourceKey;
use pillion_config::name::parse_arn;
use pillion_config::tags::LimitOf;
use pillion_config::tags::parse_tag_keys;
use pillion_config::tags::parse_tags;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Api;
use super::Asked;
use super::body;
use super::document;
use super::error::ApiError;
use super::error::ErrorType;
use super::page::Page;
use super::query::Query;
use super::write;
use crate::access::Wish;
use crate::store::Tags;

impl Api {
    pub(super) fn list_tags(&self, query: &Query, asked: &Asked) -> Result<Value, ApiError> {
        let key = self.resource(query, asked, Wish::Read)?;
        let page = Page::parse(query, LimitOf::Tags, format!("tags of {key}"))?;
        let model = self.live.current();
        let tags = &write::find(&model, &key)?.tags;
        let rest = tags
            .iter()
            .filter(|(name, _)| page.after().is_none_or(|after| name.as_str() > after));
        let (items, next) = page.take(rest, |(name, _)| name);
        let items: Vec<Value> = items
            .into_iter()
            .map(|(key, value)| json!({"key": key, "value": value}))
            .collect();
        let mut answer = json!({"tags": items});
        if let Some(next) = next {
            answer["nextToken"] = json!(next);
        }
        Ok(answer)
    }

    pub(super) async fn tag(
        &self,
        query: &Query,
        asked: &Asked,
        bytes: &[u8],
    ) -> Result<Value, ApiError> {
        let key = self.resource(query, asked, Wish::Write)?;
        let tags = list(bytes, "tags", parse_tags)?;
        let tags: Tags = tags.into_iter().map(|tag| (tag.key, tag.value)).collect();
        let owner = self.owner(asked);
        let decide = move |model: &_, _| write::tag(model, &owner, &key, &tags);
        self.write(asked, Box::new(decide), None).await
    }

    pub(super) async fn untag(
        &self,
        query: &Query,
        asked: &Asked,
        bytes: &[u8],
    ) -> Result<Value, ApiError> {
        let key = self.resource(query, asked, Wish::Write)?;
        let keys = list(bytes, "tagKeys", parse_tag_keys)?;
        let owner = self.owner(asked);
        let decide = move |model: &_, _| write::untag(model, &owner, &key, &keys);
        self.write(asked, Box::new(decide), None).await
    }

    fn resource(&self, query: &Query, asked: &Asked, wish: Wish) -> Result<ResourceKey, ApiError> {
        let text = query.get("resourceArn").unwrap_or_default();
        self.find_arn(text, "resourceArn", asked, wish)
    }

    /// The resource of an ARN, if the caller sees it and may do what they wish. The account in an ARN is the resource's
    /// owner; its mesh may be anybody's.
    pub(super) fn find_arn(
        &self,
        text: &str,
        member: &str,
        asked: &Asked,
        wish: Wish,
    ) -> Result<ResourceKey, ApiError> {
        let refuse = |message: String| Err(ApiError::problems(&[Problem::new(member, message)]));
        if text.is_empty() {
            return refuse("is required".to_owned());
        }
        let arn = match parse_arn(text) {
            Ok(arn) => arn,
            Err(error) => return refuse(error.to_string()),
        };
        self.permit(asked, wish, text)?;
        let model = self.live.current();
        let own = self.access.spell(&arn.key.mesh, &arn.account);
        let home = arn.key.mesh.clone();
        let others = model
            .records()
            .take_while(|record| record.key.kind == Kind::Mesh)
            .filter(|record| document::shown(record).mesh == arn.key.mesh)
            .map(|record| record.key.mesh.clone());
        let found = [own, home].into_iter().chain(others).find_map(|mesh| {
            let key = match arn.key.kind {
                Kind::Mesh => ResourceKey::mesh(mesh),
                _ => ResourceKey {
                    mesh,
                    ..arn.key.clone()
                },
            };
            let record = model.get(&key)?;
            let seen =
                record.resource_owner == arn.account && self.access.sees(&asked.caller, record);
            seen.then_some(key)
        });
        if let Some(key) = found.filter(|_| arn.region == self.access.region) {
            return Ok(key);
        }
        if arn.region == self.access.region && arn.account == asked.caller.account() {
            // The rules say which part of it is missing.
            write::find(&model, &arn.key)?;
        }
        Err(ApiError::new(
            ErrorType::NotFound,
            format!(
                "{text} does not exist here; this control plane serves account {} in {}",
                self.access.account, self.access.region
            ),
        ))
    }
}

/// The one list a tag request carries.
fn list<T>(
    bytes: &[u8],
    member: &'static str,
    parse: fn(&Value) -> Result<Vec<T>, Vec<Problem>>,
) -> Result<Vec<T>, ApiError> {
    let body: Map<String, Value> = body::parse(bytes)?;
    let mut problems = body::unknown_members(&body, &[member]);
    let parsed = match body.get(member) {
        None => Err(vec![Problem::new(member, "is required")]),
        Some(document) => parse(document),
    };
    match parsed {
        Ok(list) if problems.is_empty() => Ok(list),
        Ok(_) => Err(ApiError::problems(&problems)),
        Err(found) => {
            problems.extend(found);
            Err(ApiError::problems(&problems))
        }
    }
}
