// SPDX-License-Identifier: Apache-2.0
//! GetTraceSummaries: settled traces of a window, newest first.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::query::token;
use crate::query::window::window;
use crate::query::xray_api::ACCOUNT;
use crate::query::xray_api::ApiError;
use crate::query::xray_api::time;
use crate::span::Http;
use crate::span::Node;
use crate::span::seconds;
use crate::store::PlacedBy;
use crate::store::Scan;
use crate::store::Store;
use crate::summary::Summary;

const PAGE: usize = 250;
const OPERATION: &str = "GetTraceSummaries";

pub(super) fn answer(store: &dyn Store, request: &Value) -> Result<Value, ApiError> {
    let window = window(time(request, "StartTime")?, time(request, "EndTime")?)?;
    let filter = request
        .get("FilterExpression")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if !filter.trim().is_empty() {
        let message = "FilterExpression is not supported by this version; leave it out and select from the summaries";
        return Err(ApiError::Invalid(message.to_owned()));
    }
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
    let after = token::redeem(OPERATION, request)?;
    let page = store.summaries(&Scan {
        window,
        by,
        after,
        limit: PAGE,
    })?;
    let scanned_to = page
        .summaries
        .last()
        .map_or(window.start_us, |summary| summary.start_us);
    let mut answer = json!({
        "TraceSummaries": page.summaries.iter().map(summary).collect::<Vec<_>>(),
        "TracesProcessedCount": page.summaries.len(),
        "ApproximateTime": seconds(scanned_to),
    });
    if let Some(next) = &page.next {
        answer["NextToken"] = json!(token::issue(OPERATION, request, next));
    }
    Ok(answer)
}

/// Every member that known readers dereference is there, empty or not.
fn summary(one: &Summary) -> Value {
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
        "FaultRootCauses": [],
        "ErrorRootCauses": [],
        "ResponseTimeRootCauses": [],
        "Revision": one.revision,
    });
    if let Some(response) = one.response_us {
        found["ResponseTime"] = json!(seconds(response));
    }
    if let Some(entry) = &one.entry_point {
        found["EntryPoint"] = service_id(entry);
    }
    found
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
