// SPDX-License-Identifier: Apache-2.0
//! Groups: named filter expressions. CreateGroup, GetGroup, GetGroups, UpdateGroup, DeleteGroup, and the group that
//! other operations ask for. Traces are held against a group's filter when somebody asks, so a changed filter speaks
//! of old traces too. `Default` is always there and holds every trace.

use serde_json::Value;
use serde_json::json;
use sha2::Digest;
use sha2::Sha256;

use crate::filter::Filter;
use crate::filter::GroupFilter;
use crate::query::kept::Kept;
use crate::query::now_seconds;
use crate::query::tags;
use crate::query::token;
use crate::query::trace_summaries::filter;
use crate::query::xray_api::ACCOUNT;
use crate::query::xray_api::ApiError;
use crate::query::xray_api::REGION;
use crate::store::StoreError;

const KIND: &str = "group";
const DEFAULT: &str = "Default";
const MAX_GROUPS: usize = 1000;
const MAX_NAME: usize = 32;
const PAGE: usize = 100;

pub(super) fn create(kept: &Kept, request: &Value) -> Result<Value, ApiError> {
    let name = check_name(request)?;
    let expression = check_filter(request)?;
    let insights = insights(request, &json!({}))?;
    let tags = tags::check(request)?;
    let _turn = kept.turn();
    let groups = all(kept)?;
    if groups.iter().any(|group| group["GroupName"] == name) {
        return Err(ApiError::Invalid(format!(
            "GroupName {name:?}: there is such a group already; change it with UpdateGroup"
        )));
    }
    if groups.len() >= MAX_GROUPS {
        return Err(ApiError::Invalid(format!(
            "there are {MAX_GROUPS} groups already; delete one first"
        )));
    }
    let mut group = json!({
        "GroupName": name, "GroupARN": arn(&name), "InsightsConfiguration": insights,
    });
    if let Some(expression) = expression {
        group["FilterExpression"] = json!(expression);
    }
    kept.put(KIND, &name, &group)?;
    tags::put(kept, &arn_of(&group), &tags)?;
    Ok(json!({"Group": group}))
}

pub(super) fn get(kept: &Kept, request: &Value) -> Result<Value, ApiError> {
    named(kept, request)?
        .map(|group| json!({"Group": group}))
        .ok_or_else(neither)
}

pub(super) fn list(kept: &Kept, request: &Value) -> Result<Value, ApiError> {
    let from = token::position(token::redeem("GetGroups", request)?)?;
    let groups = all(kept)?;
    let mut answer = json!({"Groups": groups.iter().skip(from).take(PAGE).collect::<Vec<_>>()});
    if from + PAGE < groups.len() {
        let next = token::issue("GetGroups", request, &token::at_position(from + PAGE));
        answer["NextToken"] = json!(next);
    }
    Ok(answer)
}

pub(super) fn update(kept: &Kept, request: &Value) -> Result<Value, ApiError> {
    let _turn = kept.turn();
    let mut group = named(kept, request)?.ok_or_else(neither)?;
    if request.get("FilterExpression").is_some() {
        if group["GroupName"] == DEFAULT {
            let message =
                "FilterExpression: the Default group holds every trace; create a group of your own";
            return Err(ApiError::Invalid(message.to_owned()));
        }
        match check_filter(request)? {
            Some(expression) => group["FilterExpression"] = json!(expression),
            None => {
                group
                    .as_object_mut()
                    .map(|group| group.remove("FilterExpression"));
            }
        }
    }
    group["InsightsConfiguration"] = insights(request, &group["InsightsConfiguration"])?;
    let name = group["GroupName"].as_str().unwrap_or_default().to_owned();
    kept.put(KIND, &name, &group)?;
    Ok(json!({"Group": group}))
}

pub(super) fn delete(kept: &Kept, request: &Value) -> Result<Value, ApiError> {
    let _turn = kept.turn();
    let group = named(kept, request)?.ok_or_else(neither)?;
    let name = group["GroupName"].as_str().unwrap_or_default();
    if name == DEFAULT {
        return Err(ApiError::Invalid(
            "GroupName: the Default group cannot be deleted".to_owned(),
        ));
    }
    kept.remove(KIND, name)?;
    tags::forget(kept, &arn_of(&group))?;
    Ok(json!({}))
}

/// Every group with its filter, for `group.name` in expressions.
pub(super) fn filters(kept: &Kept) -> Result<Vec<GroupFilter>, StoreError> {
    let groups = all(kept)?;
    Ok(groups.iter().map(group_filter).collect())
}

/// The filter of the group that a request names; `None` for every trace.
pub(super) fn selected(kept: &Kept, request: &Value) -> Result<Option<Filter>, ApiError> {
    Ok(named(kept, request)?.and_then(|group| group_filter(&group).filter))
}

pub(super) fn group_filter(group: &Value) -> GroupFilter {
    let text = |name: &str| group[name].as_str().unwrap_or_default();
    GroupFilter {
        name: text("GroupName").to_owned(),
        arn: text("GroupARN").to_owned(),
        // Checked before it was kept.
        filter: Filter::parse(text("FilterExpression")).ok(),
    }
}

pub(super) fn all(kept: &Kept) -> Result<Vec<Value>, StoreError> {
    let mut groups = kept.all(KIND)?;
    if !groups.iter().any(|group| group["GroupName"] == DEFAULT) {
        let default = json!({
            "GroupName": DEFAULT, "GroupARN": arn(DEFAULT),
            "InsightsConfiguration": {"InsightsEnabled": false, "NotificationsEnabled": false},
        });
        groups.insert(0, default);
    }
    Ok(groups)
}

/// The group that GroupName or GroupARN names; `None` when neither is given.
pub(super) fn named(kept: &Kept, request: &Value) -> Result<Option<Value>, ApiError> {
    let given = |name: &str| request.get(name).and_then(Value::as_str);
    let (member, value) = match (given("GroupName"), given("GroupARN")) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(ApiError::Invalid(
                "GroupName and GroupARN are both given; give one".to_owned(),
            ));
        }
        (Some(name), None) => ("GroupName", name),
        (None, Some(arn)) => ("GroupARN", arn),
    };
    let groups = all(kept)?;
    let names: Vec<&str> = groups
        .iter()
        .filter_map(|group| group["GroupName"].as_str())
        .collect();
    let message = format!(
        "{member} {value:?}: there is no such group; there are {}",
        names.join(", ")
    );
    groups
        .iter()
        .find(|group| group[member] == value)
        .cloned()
        .map(Some)
        .ok_or(ApiError::Invalid(message))
}

pub(super) fn neither() -> ApiError {
    ApiError::Invalid("GroupName or GroupARN is required".to_owned())
}

fn check_name(request: &Value) -> Result<String, ApiError> {
    let name = request.get("GroupName").and_then(Value::as_str);
    let name = name.ok_or_else(|| ApiError::Invalid("GroupName is required".to_owned()))?;
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(fits) {
        return Err(ApiError::Invalid(format!(
            "GroupName is {name:?}; give 1 to {MAX_NAME} letters, digits and dashes"
        )));
    }
    Ok(name.to_owned())
}

/// As written, once it is known to parse.
fn check_filter(request: &Value) -> Result<Option<&str>, ApiError> {
    let Some(parsed) = filter(request, "FilterExpression")? else {
        return Ok(None);
    };
    if parsed.names_a_group() {
        let message =
            "FilterExpression of a group names a group; write that group's own expression instead";
        return Err(ApiError::Invalid(message.to_owned()));
    }
    Ok(request.get("FilterExpression").and_then(Value::as_str))
}

fn insights(request: &Value, before: &Value) -> Result<Value, ApiError> {
    let given = request.get("InsightsConfiguration").unwrap_or(&Value::Null);
    let member = |name: &str| -> Result<bool, ApiError> {
        match given.get(name).or(before.get(name)) {
            None | Some(Value::Null) => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| {
                ApiError::Invalid(format!(
                    "InsightsConfiguration.{name} is {value}; give true or false"
                ))
            }),
        }
    };
    let (enabled, notified) = (member("InsightsEnabled")?, member("NotificationsEnabled")?);
    if notified && !enabled {
        let message = "InsightsConfiguration.NotificationsEnabled needs InsightsEnabled";
        return Err(ApiError::Invalid(message.to_owned()));
    }
    Ok(json!({"InsightsEnabled": enabled, "NotificationsEnabled": notified}))
}

fn arn(name: &str) -> String {
    let base = format!("arn:aws:xray:{REGION}:{ACCOUNT}:group/{name}");
    if name == DEFAULT {
        return base;
    }
    let digest = Sha256::digest(format!("{name} {}", now_seconds()));
    format!("{base}/{}", hex::encode_upper(&digest[..16]))
}

fn arn_of(group: &Value) -> String {
    group["GroupARN"].as_str().unwrap_or_default().to_owned()
}
