// SPDX-License-Identifier: Apache-2.0
//! Settings of the X-Ray API that are kept and answered and change nothing here: encryption, resource policies,
//! indexing rules, the destination of segments. Clients and infrastructure tools set them and read them back.

use serde_json::Value;
use serde_json::json;

use crate::query::kept::Kept;
use crate::query::now_seconds;
use crate::query::xray_api::ApiError;
use crate::query::xray_api::NOT_FOUND;

const ENCRYPTION: &str = "encryption";
const POLICY: &str = "resource-policy";
const INDEXING: &str = "indexing-rule";
const DESTINATION: &str = "destination";
const MAX_POLICY_BYTES: usize = 5 * 1024;
const MAX_POLICIES: usize = 5;
const DEFAULT_RULE: &str = "Default";

fn text<'r>(request: &'r Value, name: &str) -> Option<&'r str> {
    request.get(name).and_then(Value::as_str)
}

fn refused(kind: &'static str, message: String) -> ApiError {
    ApiError::Refused {
        kind,
        message,
        resource: None,
    }
}

pub(super) fn encryption(kept: &Kept) -> Result<Value, ApiError> {
    let config = kept.one(ENCRYPTION, "")?;
    let config = config.unwrap_or_else(|| json!({"Type": "NONE", "Status": "ACTIVE"}));
    Ok(json!({"EncryptionConfig": config}))
}

/// UPDATING in the answer, ACTIVE ever after, as waiters expect.
pub(super) fn put_encryption(kept: &Kept, request: &Value) -> Result<Value, ApiError> {
    let mut config = match (text(request, "Type"), text(request, "KeyId")) {
        (Some("NONE"), None) => json!({"Type": "NONE"}),
        (Some("NONE"), Some(_)) => {
            let message = "KeyId is given with Type NONE; leave it out, or give Type KMS";
            return Err(ApiError::Invalid(message.to_owned()));
        }
        (Some("KMS"), Some(key)) if (1..=3000).contains(&key.len()) => {
            json!({"Type": "KMS", "KeyId": key})
        }
        (Some("KMS"), _) => {
            let message = "KeyId is required with Type KMS, 1 to 3000 characters";
            return Err(ApiError::Invalid(message.to_owned()));
        }
        (given, _) => {
            return Err(ApiError::Invalid(format!(
                "Type is {given:?}; give NONE or KMS"
            )));
        }
    };
    config["Status"] = json!("ACTIVE");
    kept.put(ENCRYPTION, "", &config)?;
    config["Status"] = json!("UPDATING");
    Ok(json!({"EncryptionConfig": config}))
}

pub(super) fn put_policy(kept: &Kept, request: &Value) -> Result<Value, ApiError> {
    let name = text(request, "PolicyName").unwrap_or_default();
    let fits = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    if name.is_empty() || name.len() > 128 || !name.chars().all(fits) {
        return Err(ApiError::Invalid(format!(
            "PolicyName is {name:?}; give 1 to 128 letters, digits and _+=,.@-"
        )));
    }
    let document = text(request, "PolicyDocument")
        .ok_or_else(|| ApiError::Invalid("PolicyDocument is required".to_owned()))?;
    if document.len() > MAX_POLICY_BYTES {
        return Err(refused(
            "PolicySizeLimitExceededException",
            format!(
                "PolicyDocument has {} bytes; at most {MAX_POLICY_BYTES}",
                document.len()
            ),
        ));
    }
    let parsed: Option<Value> = serde_json::from_str(document).ok();
    if parsed.is_none_or(|policy| policy.get("Statement").is_none()) {
        return Err(refused(
            "MalformedPolicyDocumentException",
            "PolicyDocument is no JSON object with a Statement".to_owned(),
        ));
    }
    let _turn = kept.turn();
    let policies = kept.all(POLICY)?;
    let before = policies.iter().find(|policy| policy["PolicyName"] == name);
    check_revision(before, request)?;
    if before.is_none() && policies.len() >= MAX_POLICIES {
        return Err(refused(
            "PolicyCountLimitExceededException",
            format!("there are {MAX_POLICIES} resource policies already; delete one first"),
        ));
    }
    let revision = before.and_then(revision_of).unwrap_or(0) + 1;
    let policy = json!({
        "PolicyName": name, "PolicyDocument": document, "PolicyRevisionId": revision.to_string(),
        "LastUpdatedTime": now_seconds(),
    });
    kept.put(POLICY, name, &policy)?;
    Ok(json!({"ResourcePolicy": policy}))
}

fn revision_of(policy: &Value) -> Option<u64> {
    policy["PolicyRevisionId"].as_str()?.parse().ok()
}

/// A revision that is given must be the one there is; `0` is for none.
fn check_revision(before: Option<&Value>, request: &Value) -> Result<(), ApiError> {
    let Some(given) = text(request, "PolicyRevisionId") else {
        return Ok(());
    };
    let there = before.and_then(revision_of).unwrap_or(0).to_string();
    if given == there {
        return Ok(());
    }
    Err(refused(
        "InvalidPolicyRevisionIdException",
        format!("PolicyRevisionId is {given:?}; the policy is at {there}"),
    ))
}

pub(super) fn delete_policy(kept: &Kept, request: &Value) -> Result<Value, ApiError> {
    let name = text(request, "PolicyName")
        .ok_or_else(|| ApiError::Invalid("PolicyName is required".to_owned()))?;
    let _turn = kept.turn();
    let before = kept.one(POLICY, name)?;
    check_revision(before.as_ref(), request)?;
    kept.remove(POLICY, name)?;
    Ok(json!({}))
}

pub(super) fn policies(kept: &Kept) -> Result<Value, ApiError> {
    Ok(json!({"ResourcePolicies": kept.all(POLICY)?}))
}

/// Everything is indexed here, whatever is desired.
pub(super) fn indexing_rules(kept: &Kept) -> Result<Value, ApiError> {
    let rule = kept.one(INDEXING, DEFAULT_RULE)?;
    let rule = rule.unwrap_or_else(|| indexing_rule(100.0, 0.0));
    Ok(json!({"IndexingRules": [rule]}))
}

fn indexing_rule(desired: f64, modified: f64) -> Value {
    json!({
        "Name": DEFAULT_RULE, "ModifiedAt": modified,
        "Rule": {"Probabilistic": {"DesiredSamplingPercentage": desired, "ActualSamplingPercentage": 100.0}},
    })
}

pub(super) fn update_indexing_rule(kept: &Kept, request: &Value) -> Result<Value, ApiError> {
    let name = text(request, "Name").unwrap_or_default();
    if name != DEFAULT_RULE {
        return Err(ApiError::Refused {
            kind: NOT_FOUND,
            message: format!("Name {name:?}: there is no such indexing rule; there is Default"),
            resource: Some(name.to_owned()),
        });
    }
    let desired = request
        .pointer("/Rule/Probabilistic/DesiredSamplingPercentage")
        .and_then(Value::as_f64)
        .filter(|share| (0.0..=100.0).contains(share));
    let desired = desired.ok_or_else(|| {
        let message =
            "Rule.Probabilistic.DesiredSamplingPercentage is required, a number from 0 to 100";
        ApiError::Invalid(message.to_owned())
    })?;
    let rule = indexing_rule(desired, now_seconds());
    kept.put(INDEXING, DEFAULT_RULE, &rule)?;
    Ok(json!({"IndexingRule": rule}))
}

pub(super) fn destination(kept: &Kept) -> Result<Value, ApiError> {
    let destination = kept.one(DESTINATION, "")?.unwrap_or_else(|| json!("XRay"));
    Ok(json!({"Destination": destination, "Status": "ACTIVE"}))
}

pub(super) fn update_destination(kept: &Kept, request: &Value) -> Result<Value, ApiError> {
    match text(request, "Destination") {
        Some(name @ ("XRay" | "CloudWatchLogs")) => {
            kept.put(DESTINATION, "", &json!(name))?;
            destination(kept)
        }
        given => Err(ApiError::Invalid(format!(
            "Destination is {given:?}; give XRay or CloudWatchLogs"
        ))),
    }
}
