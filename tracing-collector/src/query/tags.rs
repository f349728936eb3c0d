// SPDX-License-Identifier: Apache-2.0
//! Tags of groups and sampling rules: TagResource, UntagResource, ListTagsForResource, and those given at creation.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::json;

use crate::query::groups;
use crate::query::kept::Kept;
use crate::query::sampling_rules;
use crate::query::xray_api::ApiError;

const KIND: &str = "tags";
const MAX_TAGS: usize = 50;
const MAX_KEY: usize = 128;
const MAX_VALUE: usize = 256;

type Tags = BTreeMap<String, String>;

/// The `Tags` of a request, none when it has none.
pub(super) fn check(request: &Value) -> Result<Tags, ApiError> {
    let listed = match request.get("Tags") {
        None | Some(Value::Null) => return Ok(Tags::new()),
        Some(value) => value.as_array().ok_or_else(|| {
            ApiError::Invalid("Tags is no list; give [{\"Key\", \"Value\"}]".to_owned())
        })?,
    };
    let mut tags = Tags::new();
    for tag in listed {
        let text = |name: &str| tag.get(name).and_then(Value::as_str);
        let (Some(key), Some(value)) = (text("Key"), text("Value")) else {
            return Err(ApiError::Invalid(format!(
                "Tags: {tag} needs Key and Value"
            )));
        };
        let fits = (1..=MAX_KEY).contains(&key.chars().count())
            && value.chars().count() <= MAX_VALUE
            && !key.starts_with("aws:");
        if !fits {
            return Err(ApiError::Invalid(format!(
                "Tags: key {key:?} is not 1 to {MAX_KEY} characters without aws: before them, or its value has more than {MAX_VALUE}"
            )));
        }
        tags.insert(key.to_owned(), value.to_owned());
    }
    Ok(tags)
}

pub(super) fn put(kept: &Kept, arn: &str, tags: &Tags) -> Result<(), ApiError> {
    if tags.is_empty() {
        return Ok(kept.remove(KIND, arn)?);
    }
    if tags.len() > MAX_TAGS {
        return Err(ApiError::Refused {
            kind: "TooManyTagsException",
            message: format!("{} tags; at most {MAX_TAGS}", tags.len()),
            resource: Some(arn.to_owned()),
        });
    }
    Ok(kept.put(KIND, arn, &json!(tags))?)
}

pub(super) fn forget(kept: &Kept, arn: &str) -> Result<(), ApiError> {
    Ok(kept.remove(KIND, arn)?)
}

fn stored(kept: &Kept, arn: &str) -> Result<Tags, ApiError> {
    let found = kept.one(KIND, arn)?.unwrap_or_default();
    let members = found.as_object().into_iter().flatten();
    Ok(members
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect())
}

/// An ARN that is somebody's.
fn resource<'r>(kept: &Kept, request: &'r Value) -> Result<&'r str, ApiError> {
    let arn = request.get("ResourceARN").and_then(Value::as_str);
    let arn = arn.ok_or_else(|| ApiError::Invalid("ResourceARN is required".to_owned()))?;
    let group = groups::all(kept)?
        .iter()
        .any(|group| group["GroupARN"] == arn);
    if group || sampling_rules::has_arn(kept, arn)? {
        return Ok(arn);
    }
    Err(ApiError::Refused {
        kind: "ResourceNotFoundException",
        message: format!("ResourceARN {arn:?}: there is no such group or sampling rule"),
        resource: Some(arn.to_owned()),
    })
}

pub(super) fn tag(kept: &Kept, request: &Value) -> Result<Value, ApiError> {
    let _turn = kept.turn();
    let arn = resource(kept, request)?;
    let mut tags = stored(kept, arn)?;
    tags.extend(check(request)?);
    put(kept, arn, &tags)?;
    Ok(json!({}))
}

pub(super) fn untag(kept: &Kept, request: &Value) -> Result<Value, ApiError> {
    let keys = request.get("TagKeys").and_then(Value::as_array);
    let keys = keys.ok_or_else(|| ApiError::Invalid("TagKeys is required, a list".to_owned()))?;
    let _turn = kept.turn();
    let arn = resource(kept, request)?;
    let mut tags = stored(kept, arn)?;
    tags.retain(|key, _| !keys.iter().any(|other| other == key));
    put(kept, arn, &tags)?;
    Ok(json!({}))
}

pub(super) fn list(kept: &Kept, request: &Value) -> Result<Value, ApiError> {
    let tags = stored(kept, resource(kept, request)?)?;
    let tags: Vec<Value> = tags
        .iter()
        .map(|(key, value)| json!({"Key": key, "Value": value}))
        .collect();
    Ok(json!({"Tags": tags}))
}
