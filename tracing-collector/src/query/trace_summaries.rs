// SPDX-License-Identifier: Apache-2.0
//! GetTraceSummaries: settled traces of a window that satisfy a filter expression, newest first. One call looks at a
//! bounded number of traces; its token goes on from there, so a page may be empty and not the last.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::filter::Filter;
use crate::filter::GroupFilter;

use crate::query::token;
use crate::query::window::window;
use crate::query::xray_api::ACCOUNT;
use crate::query::xray_api::ApiError;
use crate::query::xray_api::time;
use crate::span::Http;
use crate::span::Node;
use crate::span::TraceId;
use crate::span::seconds;
use crate::store::PlacedBy;
use crate::store::Scan;
use crate::store::Store;
use crate::summary::Summary;
use crate::summary::causes::Cause;

const PAGE: usize = 250;
const LEAST_READ: usize = 100;
/// Traces that one call looks at.
const MAX_LOOKED_AT: usize = 20_000;
const OPERATION: &str = "GetTraceSummaries";

pub(super) fn answer(
    store: &dyn Store,
    groups: &[GroupFilter],
    request: &Value,
) -> Result<Value, ApiError> {
    let window = window(time(request, "StartTime")?, time(request, "EndTime")?)?;
    let filter = filter(request, "FilterExpression")?;
    let share = sampled_share(request)?;
    let by = match request.get("TimeRangeType") {
        None | Some(Value::Null) => PlacedBy::IdTime,
        Some(kind) => match kind.as_str() {
            Some("TraceId") => PlacedBy::IdTime,
            Some("Event") => PlacedBy::Activity,
            Some("Service") => PlacedBy::ServiceEnd,
            _ => {
                return Err(ApiError::Invalid(format!(
                    "TimeRangeType is {kind}; give TraceId, Event or Service"
                )));
            }
        },
    };
    let mut scan = Scan {
        window,
        by,
        after: token::redeem(OPERATION, request)?,
        limit: PAGE,
    };
    let selected = |one: &Summary| {
        in_sample(one.id, share)
            && filter
                .as_ref()
                .is_none_or(|filter| filter.matches(one, groups))
    };
    let mut found: Vec<Value> = Vec::new();
    let (mut looked_at, mut scanned_to) = (0, window.start_us);
    loop {
        let page = store.summaries(&scan)?;
        looked_at += page.summaries.len();
        scanned_to = page
            .summaries
            .last()
            .map_or(scanned_to, |last| last.start_us);
        let chosen = page.summaries.iter().filter(|one| selected(one));
        found.extend(chosen.map(|one| summary(one, &scan)));
        scan.after = page.next;
        if scan.after.is_none() || found.len() >= PAGE || looked_at >= MAX_LOOKED_AT {
            break;
        }
        scan.limit = (PAGE - found.len()).max(LEAST_READ);
    }
    let mut answer = json!({
        "TraceSummaries": found,
        "TracesProcessedCount": looked_at,
        "ApproximateTime": seconds(scanned_to),
    });
    if let Some(next) = &scan.after {
        answer["NextToken"] = json!(token::issue(OPERATION, request, next));
    }
    Ok(answer)
}

/// A filter expression in a request; blank is none.
pub(super) fn filter(request: &Value, name: &'static str) -> Result<Option<Filter>, ApiError> {
    let text = match request.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value.as_str().ok_or_else(|| {
            ApiError::Invalid(format!(
                "{name} is {value}; give a filter expression as a string"
            ))
        })?,
    };
    if text.trim().is_empty() {
        return Ok(None);
    }
    Filter::parse(text)
        .map(Some)
        .map_err(|error| ApiError::Invalid(format!("{name} {error}")))
}

/// The share of traces that the caller wants. A partial scan is what every call is already.
fn sampled_share(request: &Value) -> Result<f64, ApiError> {
    let strategy = request.get("SamplingStrategy").unwrap_or(&Value::Null);
    let wanted = request.get("Sampling").and_then(Value::as_bool);
    let name = strategy.get("Name").and_then(Value::as_str);
    let share = strategy.get("Value").and_then(Value::as_f64).unwrap_or(1.0);
    match name {
        None | Some("PartialScan") => Ok(1.0),
        Some("FixedRate") if !(0.0..=1.0).contains(&share) => Err(ApiError::Invalid(format!(
            "SamplingStrategy.Value is {share}; give a share between 0 and 1"
        ))),
        Some("FixedRate") if wanted == Some(false) => Ok(1.0),
        Some("FixedRate") => Ok(share),
        Some(other) => Err(ApiError::Invalid(format!(
            "SamplingStrategy.Name is {other:?}; give PartialScan or FixedRate"
        ))),
    }
}

/// By the id alone, so that repeated calls and two filters agree on the sample.
fn in_sample(id: TraceId, share: f64) -> bool {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let folded = (id.0 as u64) ^ ((id.0 >> 64) as u64);
    let mut hash = folded.wrapping_mul(SPREAD);
    hash = (hash ^ (hash >> 32)).wrapping_mul(SPREAD);
    share >= 1.0 || ((hash >> 11) as f64 / (1u64 << 53) as f64) < share
}

/// Every member that known readers dereference is there, empty or not.
fn summary(one: &Summary, scan: &Scan) -> Value {
    let mut found = json!({
        "Id": one.id.xray(),
        "StartTime": seconds(one.start_us),
        "Duration": seconds(one.end_us - one.start_us),
        "HasFault": one.flags.fault,
        "HasError": one.flags.error,
        "HasThrottle": one.flags.throttle,
        "IsPartial": one.partial,
        "Http": http(one.http.as_ref()),
        "Annotations": annotations(one),
        "Users": one.users.iter().map(|(user, nodes)| json!({"UserName": user, "ServiceIds": ids(nodes)})).collect::<Vec<_>>(),
        "ServiceIds": ids(&one.nodes),
        "ResourceARNs": named("ARN", &one.arns),
        "InstanceIds": named("Id", &one.instances),
        "AvailabilityZones": named("Name", &one.zones),
        "FaultRootCauses": one.causes.fault.iter().map(Cause::failed_json).collect::<Vec<_>>(),
        "ErrorRootCauses": one.causes.error.iter().map(Cause::failed_json).collect::<Vec<_>>(),
        "ResponseTimeRootCauses": one.causes.response_time.iter().map(Cause::timed_json).collect::<Vec<_>>(),
        "Revision": one.revision,
    });
    if let Some(response) = one.response_us {
        found["ResponseTime"] = json!(seconds(response));
    }
    if let Some(entry) = &one.entry_point {
        found["EntryPoint"] = service_id(entry);
    }
    if let Some(at) = matched_at(one, scan) {
        found["MatchedEventTime"] = json!(seconds(at));
    }
    found
}

/// The end for which a trace is listed when services' ends place it.
fn matched_at(one: &Summary, scan: &Scan) -> Option<u64> {
    let own = one
        .parts
        .iter()
        .filter(|part| part.source.is_none() && part.complete && !part.inferred);
    let ends = own
        .map(|part| part.end_us)
        .filter(|end| scan.window.contains(*end));
    ends.max().filter(|_| scan.by == PlacedBy::ServiceEnd)
}

fn http(http: Option<&Http>) -> Value {
    let mut members = Map::new();
    if let Some(http) = http {
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                members.insert(name.to_owned(), value);
            }
        };
        put("HttpURL", http.url.as_ref().map(|url| json!(url)));
        put("HttpStatus", http.status.map(|status| json!(status)));
        put(
            "HttpMethod",
            http.method.as_ref().map(|method| json!(method)),
        );
        put(
            "UserAgent",
            http.user_agent.as_ref().map(|agent| json!(agent)),
        );
        put("ClientIp", http.client_ip.as_ref().map(|ip| json!(ip)));
    }
    Value::Object(members)
}

fn annotations(one: &Summary) -> Value {
    let mut found: Map<String, Value> = Map::new();
    for annotation in &one.annotations {
        let kind = match &annotation.value {
            Value::Bool(_) => "BooleanValue",
            Value::Number(_) => "NumberValue",
            Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => "StringValue",
        };
        let value = json!({"AnnotationValue": {kind: annotation.value}, "ServiceIds": ids(&annotation.nodes)});
        if let Value::Array(values) = found
            .entry(annotation.key.clone())
            .or_insert_with(|| json!([]))
        {
            values.push(value);
        }
    }
    Value::Object(found)
}

fn named(name: &str, values: &[String]) -> Value {
    Value::Array(values.iter().map(|value| json!({name: value})).collect())
}

fn ids(nodes: &[Node]) -> Value {
    Value::Array(nodes.iter().map(service_id).collect())
}

fn service_id(node: &Node) -> Value {
    json!({"Name": node.name, "Names": [node.name], "AccountId": ACCOUNT, "Type": node.kind})
}
