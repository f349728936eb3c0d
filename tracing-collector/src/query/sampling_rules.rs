// SPDX-License-Identifier: Apache-2.0
//! Sampling rules: CreateSamplingRule, UpdateSamplingRule, DeleteSamplingRule, GetSamplingRules. `Default` is always
//! there, last of all; only its rate and its reservoir change. What the rules grant to clients is in `sampling`.

use serde_json::Value;
use serde_json::json;

use crate::query::kept::Kept;
use crate::query::now_seconds;
use crate::query::tags;
use crate::query::token;
use crate::query::xray_api::ACCOUNT;
use crate::query::xray_api::ApiError;
use crate::query::xray_api::REGION;

const KIND: &str = "sampling-rule";
/// Also moved by a deletion, which leaves no rule behind to say so.
const CHANGED: &str = "sampling-changed";
pub(super) const DEFAULT: &str = "Default";
const DEFAULT_PRIORITY: u64 = 10_000;
const FIXED_RATE: f64 = 0.05;
const RESERVOIR: u64 = 1;
const MAX_RULES: usize = 1000;
const PAGE: usize = 1000;
const MAX_ATTRIBUTES: usize = 5;

/// Members that are patterns, with the longest each may be.
const PATTERNS: [(&str, usize); 6] = [
    ("ResourceARN", 500),
    ("ServiceName", 64),
    ("ServiceType", 64),
    ("Host", 64),
    ("HTTPMethod", 10),
    ("URLPath", 128),
];

pub(super) fn create(kept: &Kept, request: &Value) -> Result<Value, ApiError> {
    let given = member(request, "SamplingRule")?;
    let name = given.get("RuleName").and_then(Value::as_str);
    let name = name.ok_or_else(|| wrong("SamplingRule.RuleName is required"))?;
    if !(1..=32).contains(&name.chars().count()) {
        return Err(wrong(&format!(
            "SamplingRule.RuleName is {name:?}; give 1 to 32 characters"
        )));
    }
    let mut rule = json!({"RuleName": name, "RuleARN": arn(name), "Version": 1, "Attributes": {}});
    if given.get("Version").and_then(Value::as_u64) != Some(1) {
        return Err(wrong("SamplingRule.Version must be 1"));
    }
    for (required, _) in
        PATTERNS
            .iter()
            .chain(&[("Priority", 0), ("FixedRate", 0), ("ReservoirSize", 0)])
    {
        if given.get(*required).is_none_or(Value::is_null) {
            return Err(wrong(&format!("SamplingRule.{required} is required")));
        }
    }
    apply(&mut rule, given, "SamplingRule")?;
    let tags = tags::check(request)?;
    let _turn = kept.turn();
    let records = all(kept)?;
    if records
        .iter()
        .any(|record| record["SamplingRule"]["RuleName"] == name)
    {
        return Err(wrong(&format!(
            "SamplingRule.RuleName {name:?}: there is such a rule already; change it with UpdateSamplingRule"
        )));
    }
    if records.len() > MAX_RULES {
        return Err(ApiError::Refused {
            kind: "RuleLimitExceededException",
            message: format!("there are {MAX_RULES} sampling rules already; delete one first"),
            resource: None,
        });
    }
    let now = now_seconds();
    let record = json!({"SamplingRule": rule, "CreatedAt": now, "ModifiedAt": now});
    put(kept, &record)?;
    tags::put(kept, &arn(name), &tags)?;
    Ok(json!({"SamplingRuleRecord": record}))
}

pub(super) fn update(kept: &Kept, request: &Value) -> Result<Value, ApiError> {
    let given = member(request, "SamplingRuleUpdate")?;
    let _turn = kept.turn();
    let mut record = named(kept, given)?;
    if record["SamplingRule"]["RuleName"] == DEFAULT {
        let fixed = PATTERNS
            .iter()
            .map(|(name, _)| *name)
            .chain(["Priority", "Attributes"])
            .find(|name| {
                given
                    .get(*name)
                    .is_some_and(|value| *value != record["SamplingRule"][*name])
            });
        if let Some(fixed) = fixed {
            return Err(wrong(&format!(
                "SamplingRuleUpdate.{fixed}: of the Default rule only FixedRate and ReservoirSize change"
            )));
        }
        change(&mut record["SamplingRule"], given, "SamplingRuleUpdate")?;
    } else {
        apply(&mut record["SamplingRule"], given, "SamplingRuleUpdate")?;
    }
    record["ModifiedAt"] = json!(now_seconds());
    put(kept, &record)?;
    Ok(json!({"SamplingRuleRecord": record}))
}

pub(super) fn delete(kept: &Kept, request: &Value) -> Result<Value, ApiError> {
    let _turn = kept.turn();
    let record = named(kept, request)?;
    let name = record["SamplingRule"]["RuleName"]
        .as_str()
        .unwrap_or_default();
    if name == DEFAULT {
        return Err(wrong("RuleName: the Default rule cannot be deleted"));
    }
    kept.remove(KIND, name)?;
    kept.put(CHANGED, "", &json!(now_seconds()))?;
    tags::forget(kept, &arn(name))?;
    Ok(json!({"SamplingRuleRecord": record}))
}

pub(super) fn list(kept: &Kept, request: &Value) -> Result<Value, ApiError> {
    let from = token::position(token::redeem("GetSamplingRules", request)?)?;
    let records = all(kept)?;
    let mut answer =
        json!({"SamplingRuleRecords": records.iter().skip(from).take(PAGE).collect::<Vec<_>>()});
    if from + PAGE < records.len() {
        let next = token::issue(
            "GetSamplingRules",
            request,
            &token::at_position(from + PAGE),
        );
        answer["NextToken"] = json!(next);
    }
    Ok(answer)
}

/// By priority, then name, as clients try them; Default last.
pub(super) fn all(kept: &Kept) -> Result<Vec<Value>, ApiError> {
    let mut records = kept.all(KIND)?;
    if !records
        .iter()
        .any(|record| record["SamplingRule"]["RuleName"] == DEFAULT)
    {
        records.push(default_rule());
    }
    let order = |record: &Value| {
        let rule = &record["SamplingRule"];
        let name = rule["RuleName"].as_str().unwrap_or_default().to_owned();
        (rule["Priority"].as_u64(), name)
    };
    records.sort_by_key(order);
    Ok(records)
}

/// When any rule last changed; clients that see it move ask for the rules again.
pub(super) fn last_change(kept: &Kept) -> Result<f64, ApiError> {
    let changed = kept.one(CHANGED, "")?;
    Ok(changed.and_then(|time| time.as_f64()).unwrap_or(0.0))
}

pub(super) fn has_arn(kept: &Kept, arn: &str) -> Result<bool, ApiError> {
    let records = all(kept)?;
    Ok(records
        .iter()
        .any(|record| record["SamplingRule"]["RuleARN"] == arn))
}

fn default_rule() -> Value {
    json!({
        "SamplingRule": {
            "RuleName": DEFAULT, "RuleARN": arn(DEFAULT),
            "ResourceARN": "*", "Priority": DEFAULT_PRIORITY, "FixedRate": FIXED_RATE, "ReservoirSize": RESERVOIR,
            "ServiceName": "*", "ServiceType": "*", "Host": "*", "HTTPMethod": "*", "URLPath": "*",
            "Version": 1, "Attributes": {},
        },
        "CreatedAt": 0.0, "ModifiedAt": 0.0,
    })
}

fn put(kept: &Kept, record: &Value) -> Result<(), ApiError> {
    let name = record["SamplingRule"]["RuleName"]
        .as_str()
        .unwrap_or_default();
    kept.put(KIND, name, record)?;
    kept.put(CHANGED, "", &record["ModifiedAt"])?;
    Ok(())
}

fn named(kept: &Kept, request: &Value) -> Result<Value, ApiError> {
    let given = |name: &str| request.get(name).and_then(Value::as_str);
    let (member, value) = match (given("RuleName"), given("RuleARN")) {
        (Some(name), None) => ("RuleName", name),
        (None, Some(arn)) => ("RuleARN", arn),
        _ => return Err(wrong("give either RuleName or RuleARN")),
    };
    all(kept)?
        .into_iter()
        .find(|record| record["SamplingRule"][member] == value)
        .ok_or_else(|| {
            wrong(&format!(
                "{member} {value:?}: there is no such sampling rule"
            ))
        })
}

/// Every member that is given, checked.
fn apply(rule: &mut Value, given: &Value, what: &str) -> Result<(), ApiError> {
    for (name, longest) in PATTERNS {
        if let Some(value) = given.get(name).filter(|value| !value.is_null()) {
            let fits = value
                .as_str()
                .is_some_and(|text| text.chars().count() <= longest);
            if !fits {
                return Err(wrong(&format!(
                    "{what}.{name} is {value}; give at most {longest} characters"
                )));
            }
            rule[name] = value.clone();
        }
    }
    if let Some(value) = given.get("Priority").filter(|value| !value.is_null()) {
        if !value
            .as_u64()
            .is_some_and(|priority| (1..=9999).contains(&priority))
        {
            return Err(wrong(&format!(
                "{what}.Priority is {value}; give a whole number from 1 to 9999"
            )));
        }
        rule["Priority"] = value.clone();
    }
    if let Some(value) = given.get("Attributes").filter(|value| !value.is_null()) {
        let fits = value
            .as_object()
            .is_some_and(|all| all.len() <= MAX_ATTRIBUTES && all.values().all(Value::is_string));
        if !fits {
            return Err(wrong(&format!(
                "{what}.Attributes is {value}; give at most {MAX_ATTRIBUTES} names with strings"
            )));
        }
        rule["Attributes"] = value.clone();
    }
    if let Some(value) = given
        .get("SamplingRateBoost")
        .filter(|value| !value.is_null())
    {
        rule["SamplingRateBoost"] = value.clone();
    }
    change(rule, given, what)
}

/// The members that change for Default too.
fn change(rule: &mut Value, given: &Value, what: &str) -> Result<(), ApiError> {
    if let Some(value) = given.get("FixedRate").filter(|value| !value.is_null()) {
        if !value
            .as_f64()
            .is_some_and(|rate| (0.0..=1.0).contains(&rate))
        {
            return Err(wrong(&format!(
                "{what}.FixedRate is {value}; give a share from 0 to 1"
            )));
        }
        rule["FixedRate"] = value.clone();
    }
    if let Some(value) = given.get("ReservoirSize").filter(|value| !value.is_null()) {
        if value.as_u64().is_none_or(|size| size > u64::from(u32::MAX)) {
            return Err(wrong(&format!(
                "{what}.ReservoirSize is {value}; give a whole number from 0"
            )));
        }
        rule["ReservoirSize"] = value.clone();
    }
    Ok(())
}

fn member<'r>(request: &'r Value, name: &str) -> Result<&'r Value, ApiError> {
    request
        .get(name)
        .filter(|value| value.is_object())
        .ok_or_else(|| wrong(&format!("{name} is required")))
}

fn wrong(message: &str) -> ApiError {
    ApiError::Invalid(message.to_owned())
}

fn arn(name: &str) -> String {
    format!("arn:aws:xray:{REGION}:{ACCOUNT}:sampling-rule/{name}")
}
