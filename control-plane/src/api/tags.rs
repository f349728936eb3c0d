// SPDX-License-Identifier: Apache-2.0
//! The three tag operations. A resource is named by its ARN in the query, never in the path.

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
use super::body;
use super::error::ApiError;
use super::error::ErrorType;
use super::page::Page;
use super::query::Query;
use super::write;
use crate::store::Tags;

impl Api {
    pub(super) fn list_tags(&self, query: &Query) -> Result<Value, ApiError> {
        let key = self.resource(query)?;
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

    pub(super) async fn tag(&self, query: &Query, bytes: &[u8]) -> Result<Value, ApiError> {
        let key = self.resource(query)?;
        let tags = list(bytes, "tags", parse_tags)?;
        let tags: Tags = tags.into_iter().map(|tag| (tag.key, tag.value)).collect();
        let decide = move |model: &_, _| write::tag(model, &key, &tags);
        Ok(self.live.write(Box::new(decide), None).await?)
    }

    pub(super) async fn untag(&self, query: &Query, bytes: &[u8]) -> Result<Value, ApiError> {
        let key = self.resource(query)?;
        let keys = list(bytes, "tagKeys", parse_tag_keys)?;
        let decide = move |model: &_, _| write::untag(model, &key, &keys);
        Ok(self.live.write(Box::new(decide), None).await?)
    }

    fn resource(&self, query: &Query) -> Result<ResourceKey, ApiError> {
        let refuse =
            |message: String| Err(ApiError::problems(&[Problem::new("resourceArn", message)]));
        let Some(text) = query.get("resourceArn") else {
            return refuse("is required".to_owned());
        };
        let arn = match parse_arn(text) {
            Ok(arn) => arn,
            Err(error) => return refuse(error.to_string()),
        };
        if arn.region == self.owner.region && arn.account == self.owner.account {
            return Ok(arn.key);
        }
        Err(ApiError::new(
            ErrorType::NotFound,
            format!(
                "{text} does not exist here; this control plane serves account {} in {}",
                self.owner.account, self.owner.region
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
