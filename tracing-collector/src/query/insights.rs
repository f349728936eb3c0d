// SPDX-License-Identifier: Apache-2.0
//! Insights as the X-Ray API shows them: GetInsight, GetInsightEvents, GetInsightImpactGraph, GetInsightSummaries. What
//! [`crate::insight`] finds in a group's minutes is named by group, first root cause and start, and kept by that name,
//! so that it is told once and found again. Of groups without InsightsEnabled nothing is found.

use serde_json::Value;
use serde_json::json;
use sha2::Digest;
use sha2::Sha256;

use crate::filter::Filter;
use crate::graph::Key;
use crate::graph::Tally;
use crate::insight::Detector;
use crate::insight::Event;
use crate::insight::EventKind;
use crate::insight::Insight;
use crate::query::groups;
use crate::query::kept::Kept;
use crate::query::token;
use crate::query::window::window;
use crate::query::xray_api::ACCOUNT;
use crate::query::xray_api::ApiError;
use crate::query::xray_api::time;
use crate::span::Node;
use crate::store::Store;
use crate::store::StoreError;
use crate::summary::Summary;

const KIND: &str = "insight";
/// What is usual is learnt from this long before a window.
const WARM_UP: u32 = 360;
/// Minutes read at once.
const CHUNK: u32 = 360;
/// Longer windows show what was found before, and look anew only at their end.
const LONGEST: u32 = 7 * 1440;
/// After this much silence nothing is open any more.
const SILENCE: u32 = 6;
const MOST_KEPT: usize = 2000;
const IMPACT_HOURS: f64 = 6.0;
const DEFAULT_PAGE: usize = 50;

/// A group whose insights are wanted.
pub(crate) struct Watched {
    name: String,
    arn: String,
    filter: Option<Filter>,
    pub(crate) notified: bool,
}

impl Watched {
    fn of(group: &Value) -> Option<Watched> {
        let flag = |name: &str| group["InsightsConfiguration"][name] == true;
        let text = |name: &str| group[name].as_str().unwrap_or_default().to_owned();
        flag("InsightsEnabled").then(|| Watched {
            name: text("GroupName"),
            arn: text("GroupARN"),
            filter: groups::group_filter(group).filter,
            notified: flag("NotificationsEnabled"),
        })
    }

    /// All of them.
    pub(crate) fn all(kept: &Kept) -> Result<Vec<Watched>, StoreError> {
        Ok(groups::all(kept)?.iter().filter_map(Watched::of).collect())
    }
}

/// Follows a group's minutes from long before `first` to `last`, and on while something is open, before `now`.
pub(crate) fn detect(
    store: &dyn Store,
    filter: Option<&Filter>,
    (first, last): (u32, u32),
    now: u32,
) -> Result<Detector, StoreError> {
    let wanted = |one: &Summary| filter.is_none_or(|filter| filter.matches(one, &[]));
    let wanted: Option<&dyn Fn(&Summary) -> bool> = filter.is_some().then_some(&wanted);
    let mut detector = Detector::default();
    let mut fed: Option<u32> = None;
    let mut from = first.saturating_sub(WARM_UP);
    while from < now && (from <= last || detector.is_open()) {
        let to = from.saturating_add(CHUNK - 1).min(now - 1);
        for (minute, tallies) in store.tallies((from, to), wanted)? {
            quiet(&mut detector, fed, minute);
            detector.minute(minute, tallies);
            fed = Some(minute);
        }
        quiet(&mut detector, fed, to.saturating_add(1));
        from = to.saturating_add(1);
    }
    Ok(detector)
}

/// Minutes in which nothing ended, as many as matter.
fn quiet(detector: &mut Detector, fed: Option<u32>, before: u32) {
    let Some(fed) = fed else { return };
    for minute in (fed + 1..before).take(SILENCE as usize) {
        detector.minute(minute, Default::default());
    }
}

/// Looks anew at a group's minutes and keeps what is found; returns what has news that nobody was told.
pub(crate) fn refresh(
    store: &dyn Store,
    kept: &Kept,
    group: &Watched,
    (first, last): (u32, u32),
) -> Result<Vec<Value>, StoreError> {
    let now = crate::graph::minute((crate::query::now_seconds() * 1e6) as u64);
    let first = first.max(last.saturating_sub(LONGEST));
    let detector = detect(store, group.filter.as_ref(), (first, last), now)?;
    let found: Vec<Value> = detector
        .insights()
        .iter()
        .filter(|one| one.last_minute >= first && one.start_minute <= last)
        .map(|one| record(group, one))
        .collect();
    let _turn = kept.turn();
    let before = kept.all(KIND)?;
    forget_replaced(kept, &before, &found, group, (first, last))?;
    let mut news = Vec::new();
    for mut record in found {
        let id = record["Insight"]["InsightId"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let old = before.iter().find(|old| old["Insight"]["InsightId"] == id);
        let told = old.map_or(0, |old| old["Told"].as_u64().unwrap_or(0));
        let events = record["Events"].as_array().map_or(0, Vec::len) as u64;
        record["Told"] = json!(events.max(told));
        if old != Some(&record) {
            kept.put(KIND, &id, &record)?;
        }
        if events > told {
            news.push(record["Insight"].clone());
        }
    }
    Ok(news)
}

/// Late spans may move the start of what was found before, and with it its name.
fn forget_replaced(
    kept: &Kept,
    before: &[Value],
    found: &[Value],
    group: &Watched,
    (first, last): (u32, u32),
) -> Result<(), StoreError> {
    let id = |record: &Value| record["Insight"]["InsightId"].clone();
    let start = |record: &Value| record["Insight"]["StartTime"].as_f64().unwrap_or(0.0);
    let inside = |record: &Value| {
        (f64::from(first) * 60.0..=f64::from(last) * 60.0).contains(&start(record))
    };
    let mut gone: Vec<&Value> = before
        .iter()
        .filter(|old| old["Insight"]["GroupARN"] == group.arn && inside(old))
        .filter(|old| !found.iter().any(|new| id(new) == id(old)))
        .collect();
    if before.len() + found.len() > MOST_KEPT {
        let mut oldest: Vec<&Value> = before.iter().collect();
        oldest.sort_by(|a, b| start(a).total_cmp(&start(b)));
        gone.extend(oldest.into_iter().take(found.len().max(1)));
    }
    for record in gone {
        kept.remove(KIND, id(record).as_str().unwrap_or_default())?;
    }
    Ok(())
}

/// Where something is open still: what the passing of time may close.
pub(crate) fn open_minutes(kept: &Kept) -> Result<Option<(u32, u32)>, StoreError> {
    let minute = |seconds: f64| (seconds / 60.0) as u32;
    let starts = kept
        .all(KIND)?
        .into_iter()
        .filter(|record| record["Insight"]["State"] == "ACTIVE")
        .filter_map(|record| record["Insight"]["StartTime"].as_f64());
    let first = starts.map(minute).min();
    Ok(first.map(|first| (first, minute(crate::query::now_seconds()))))
}

fn record(group: &Watched, insight: &Insight) -> Value {
    let events: Vec<Value> = insight.events.iter().map(event).collect();
    json!({
        "Insight": shape(group, insight), "Events": events, "Told": 0,
        "LastUpdateTime": f64::from(insight.last_minute + 1) * 60.0,
    })
}

fn shape(group: &Watched, insight: &Insight) -> Value {
    let start = f64::from(insight.start_minute) * 60.0;
    let mut shape = json!({
        "InsightId": id(group, insight), "GroupARN": group.arn, "GroupName": group.name,
        "RootCauseServiceId": service_id(&insight.root), "Categories": ["FAULT"],
        "State": if insight.closed { "CLOSED" } else { "ACTIVE" }, "StartTime": start,
        "Summary": summary(&insight.root, insight.root_tally(), insight.nodes.len(), None),
        "ClientRequestImpactStatistics": impact(insight.clients),
        "RootCauseServiceRequestImpactStatistics": impact(insight.root_tally()),
        "TopAnomalousServices": top(&insight.root, insight.nodes.iter()),
    });
    if insight.closed {
        shape["EndTime"] = json!(f64::from(insight.last_minute + 1) * 60.0);
    }
    shape
}

fn event(event: &Event) -> Value {
    let root = event.nodes.get(&event.root).copied().unwrap_or_default();
    json!({
        "Summary": summary(&event.root, root, event.nodes.len(), Some(event.kind)),
        "EventTime": f64::from(event.minute) * 60.0,
        "ClientRequestImpactStatistics": impact(event.clients),
        "RootCauseServiceRequestImpactStatistics": impact(root),
        "TopAnomalousServices": top(&event.root, event.nodes.iter()),
    })
}

/// Two sentences always: Grafana shows the second, cut at the next full stop.
fn summary(root: &Node, tally: Tally, nodes: usize, kind: Option<EventKind>) -> String {
    let what = match kind {
        None => "More faults than expected",
        Some(EventKind::Opened) => "Faults rose above what is expected",
        Some(EventKind::RootMoved) => "The cause was found farther downstream",
        Some(EventKind::Spread) => "More services fail with it",
        Some(EventKind::Closed) => "Faults are back to what is expected",
    };
    let share = 100 * tally.fault / tally.total().max(1);
    let others = match nodes.saturating_sub(1) {
        0 => String::new(),
        1 => " and 1 service above it".to_owned(),
        more => format!(" and {more} services above it"),
    };
    format!(
        "{what}. {share} percent of {} requests failed at {}{others}.",
        tally.total(),
        root.name
    )
}

fn impact(tally: Tally) -> Value {
    json!({"FaultCount": tally.fault, "OkCount": tally.total() - tally.fault, "TotalCount": tally.total()})
}

/// The root cause first, then by faults.
fn top<'n>(root: &Node, nodes: impl Iterator<Item = (&'n Node, &'n Tally)>) -> Value {
    let mut nodes: Vec<(&Node, &Tally)> = nodes.collect();
    nodes.sort_by_key(|(node, tally)| (*node != root, -tally.fault));
    let listed = nodes
        .iter()
        .take(10)
        .map(|(node, _)| json!({"ServiceId": service_id(node)}));
    Value::Array(listed.collect())
}

fn service_id(node: &Node) -> Value {
    json!({"Name": node.name, "Names": [node.name], "AccountId": ACCOUNT, "Type": node.kind})
}

/// A UUID that the same minutes give again.
fn id(group: &Watched, insight: &Insight) -> String {
    let first = &insight.first_root;
    let digest = Sha256::digest(format!(
        "{}\n{}\n{}\n{}",
        group.arn, first.name, first.kind, insight.start_minute
    ));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    // Version 8 of RFC 9562: made by a rule of the maker's own.
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(bytes);
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    parts.join("-")
}

pub(super) fn summaries(
    store: &dyn Store,
    kept: &Kept,
    request: &Value,
) -> Result<Value, ApiError> {
    const OPERATION: &str = "GetInsightSummaries";
    let window = window(time(request, "StartTime")?, time(request, "EndTime")?)?;
    let group = groups::named(kept, request)?.ok_or_else(groups::neither)?;
    let states = states(request)?;
    let size = page_size(request, 100)?;
    let from = token::position(token::redeem(OPERATION, request)?)?;
    let (first, last) = (
        crate::graph::minute(window.start_us),
        crate::graph::minute(window.end_us - 1),
    );
    if let Some(watched) = Watched::of(&group) {
        // The watch tells; who only looks must not use news up.
        refresh_quietly(store, kept, &watched, (first, last))?;
    }
    let (start, end) = (f64::from(first) * 60.0, f64::from(last + 1) * 60.0);
    let mut found: Vec<Value> = kept
        .all(KIND)?
        .into_iter()
        .filter(|record| {
            let insight = &record["Insight"];
            insight["GroupARN"] == group["GroupARN"]
                && insight["StartTime"].as_f64().is_some_and(|at| at < end)
                && insight["EndTime"].as_f64().is_none_or(|at| at > start)
                && states
                    .as_ref()
                    .is_none_or(|state| insight["State"] == **state)
        })
        .map(|record| {
            let mut insight = record["Insight"].clone();
            insight["LastUpdateTime"] = record["LastUpdateTime"].clone();
            insight
        })
        .collect();
    let started = |one: &Value| one["StartTime"].as_f64().unwrap_or(0.0);
    found.sort_by(|a, b| started(b).total_cmp(&started(a)));
    let page: Vec<&Value> = found.iter().skip(from).take(size).collect();
    let mut answer = json!({"InsightSummaries": page});
    if from + size < found.len() {
        let next = token::at_position(from + size);
        answer["NextToken"] = json!(token::issue(OPERATION, request, &next));
    }
    Ok(answer)
}

fn refresh_quietly(
    store: &dyn Store,
    kept: &Kept,
    group: &Watched,
    minutes: (u32, u32),
) -> Result<(), StoreError> {
    let told: Vec<(Value, Value)> = kept
        .all(KIND)?
        .into_iter()
        .map(|record| {
            (
                record["Insight"]["InsightId"].clone(),
                record["Told"].clone(),
            )
        })
        .collect();
    for insight in refresh(store, kept, group, minutes)? {
        let id = &insight["InsightId"];
        let before = told.iter().find(|(other, _)| other == id);
        let name = id.as_str().unwrap_or_default();
        let _turn = kept.turn();
        if let Some(mut record) = kept.one(KIND, name)? {
            record["Told"] = before.map_or(json!(0), |(_, told)| told.clone());
            kept.put(KIND, name, &record)?;
        }
    }
    Ok(())
}

fn states(request: &Value) -> Result<Option<String>, ApiError> {
    let states = request.get("States").and_then(Value::as_array);
    match states.map(Vec::as_slice) {
        None | Some([]) => Ok(None),
        Some([Value::String(state)]) if state == "ACTIVE" || state == "CLOSED" => {
            Ok(Some(state.clone()))
        }
        Some(_) => Err(ApiError::Invalid(
            "States: give one of ACTIVE and CLOSED, or neither".to_owned(),
        )),
    }
}

fn page_size(request: &Value, most: u64) -> Result<usize, ApiError> {
    match request.get("MaxResults") {
        None | Some(Value::Null) => Ok(DEFAULT_PAGE),
        Some(value) => value
            .as_u64()
            .filter(|size| (1..=most).contains(size))
            .map(|size| size as usize)
            .ok_or_else(|| ApiError::Invalid(format!("MaxResults is {value}; give 1 to {most}"))),
    }
}

fn find(kept: &Kept, request: &Value) -> Result<Value, ApiError> {
    let id = request.get("InsightId").and_then(Value::as_str);
    let id = id.ok_or_else(|| ApiError::Invalid("InsightId is required".to_owned()))?;
    kept.one(KIND, id)?.ok_or_else(|| {
        ApiError::Invalid(format!(
            "InsightId {id:?}: there is no such insight; GetInsightSummaries lists what there is"
        ))
    })
}

pub(super) fn get(kept: &Kept, request: &Value) -> Result<Value, ApiError> {
    Ok(json!({"Insight": find(kept, request)?["Insight"]}))
}

pub(super) fn events(kept: &Kept, request: &Value) -> Result<Value, ApiError> {
    const OPERATION: &str = "GetInsightEvents";
    let size = page_size(request, 50)?;
    let from = token::position(token::redeem(OPERATION, request)?)?;
    let record = find(kept, request)?;
    let mut events = record["Events"].as_array().cloned().unwrap_or_default();
    // Newest first.
    events.reverse();
    let page: Vec<&Value> = events.iter().skip(from).take(size).collect();
    let mut answer = json!({"InsightEvents": page});
    if from + size < events.len() {
        let next = token::at_position(from + size);
        answer["NextToken"] = json!(token::issue(OPERATION, request, &next));
    }
    Ok(answer)
}

/// The root cause and everything that depends on it, in a window.
pub(super) fn impact_graph(
    store: &dyn Store,
    kept: &Kept,
    request: &Value,
) -> Result<Value, ApiError> {
    let (start, end) = (time(request, "StartTime")?, time(request, "EndTime")?);
    let window = window(start, end)?;
    if end.1 - start.1 > IMPACT_HOURS * 3600.0 {
        return Err(ApiError::Invalid(
            "EndTime must be at most 6 hours after StartTime".to_owned(),
        ));
    }
    let record = find(kept, request)?;
    let root = &record["Insight"]["RootCauseServiceId"];
    let root = Node::new(
        root["Name"].as_str().unwrap_or_default(),
        root["Type"].as_str().unwrap_or_default(),
    );
    let arn = json!({"GroupARN": record["Insight"]["GroupARN"]});
    let totals = match groups::selected(kept, &arn)? {
        None => store.graph(window)?,
        Some(filter) => store.graph_of(window, &|one| filter.matches(one, &[]))?,
    };
    let calls: Vec<(&Node, &Node)> = totals
        .keys()
        .filter_map(|key| match key {
            Key::Edge { source, target } => Some((source, target)),
            Key::Node(_) | Key::Party(_) | Key::Calls { .. } => None,
        })
        .collect();
    let mut affected: Vec<&Node> = vec![&root];
    let mut at = 0;
    while let Some(target) = affected.get(at).copied() {
        for (source, _) in calls.iter().filter(|(_, other)| *other == target) {
            if !affected.contains(source) {
                affected.push(source);
            }
        }
        at += 1;
    }
    let place = |node: &Node| affected.iter().position(|other| *other == node);
    let service = |(id, node): (usize, &&Node)| {
        let targets = calls.iter().filter(|(source, _)| source == node);
        let edges: Vec<Value> = targets
            .filter_map(|(_, target)| place(target))
            .map(|id| json!({"ReferenceId": id}))
            .collect();
        let mut service = service_id(node);
        service["ReferenceId"] = json!(id);
        service["Edges"] = json!(edges);
        service
    };
    let services: Vec<Value> = affected.iter().enumerate().map(service).collect();
    Ok(json!({
        "InsightId": record["Insight"]["InsightId"], "StartTime": start.1, "EndTime": end.1,
        "ServiceGraphStartTime": start.1, "ServiceGraphEndTime": end.1, "Services": services,
    }))
}
