// SPDX-License-Identifier: Apache-2.0
//! Root causes: the way from the root of a trace to what failed or took the time, by service and within each by
//! operation. Pure; part of a trace's row. Failures are walked up from the deepest that carry the flag, also when the
//! root does not; time is walked down along the greatest share.

use serde_json::Value;
use serde_json::json;

use crate::span::ACCOUNT;
use crate::span::Flags;
use crate::span::Node;
use crate::span::Span;
use crate::trace::Trace;

/// A trace that failed in more places than this has been told enough.
const MAX_CAUSES: usize = 10;
/// Strangers decide how deep spans nest.
const MAX_PATH: usize = 100;
const MAX_EXCEPTIONS: usize = 5;
const MAX_MESSAGE: usize = 500;
/// A part that took less of the root's time is not followed.
const LEAST_COVERAGE: f64 = 0.2;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Causes {
    pub(crate) fault: Vec<Cause>,
    pub(crate) error: Vec<Cause>,
    pub(crate) response_time: Vec<Cause>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cause {
    /// Whether the failure reached whoever called.
    pub(crate) client_impacting: bool,
    /// Outermost first.
    pub(crate) services: Vec<CauseService>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CauseService {
    pub(crate) node: Node,
    pub(crate) inferred: bool,
    /// The service's own work first; never empty.
    pub(crate) entities: Vec<CauseEntity>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CauseEntity {
    pub(crate) name: String,
    /// Whether it is a call.
    pub(crate) remote: bool,
    /// Its share of the root's time; of response time causes.
    pub(crate) coverage: Option<f64>,
    pub(crate) exceptions: Vec<CauseException>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CauseException {
    pub(crate) name: String,
    pub(crate) message: String,
    pub(crate) remote: bool,
}

pub(super) fn causes(trace: &Trace) -> Causes {
    Causes {
        fault: failures(trace, |flags| flags.fault),
        error: failures(trace, |flags| flags.error),
        response_time: slowest(trace).into_iter().collect(),
    }
}

fn failures(trace: &Trace, carries: impl Fn(Flags) -> bool) -> Vec<Cause> {
    let flagged: Vec<usize> = (0..trace.spans.len())
        .filter(|at| carries(trace.spans[*at].flags))
        .collect();
    let mut above = vec![false; trace.spans.len()];
    for at in &flagged {
        let mut next = trace.parent(*at);
        while let Some(parent) = next.filter(|parent| !above[*parent]) {
            above[parent] = true;
            next = trace.parent(parent);
        }
    }
    let deepest = flagged.into_iter().filter(|at| !above[*at]);
    deepest
        .take(MAX_CAUSES)
        .filter_map(|at| {
            let path = path_to(trace, at);
            let client_impacting = trace.root().is_some_and(|root| path.first() == Some(&root))
                && path.iter().all(|at| carries(trace.spans[*at].flags));
            let services = services(trace, &path, None);
            (!services.is_empty()).then_some(Cause {
                client_impacting,
                services,
            })
        })
        .collect()
}

/// From the outermost span above `at` down to it, less the outermost when it is too long.
fn path_to(trace: &Trace, at: usize) -> Vec<usize> {
    let mut path = vec![at];
    let mut next = trace.parent(at);
    while let Some(parent) = next.filter(|_| path.len() < MAX_PATH) {
        if path.contains(&parent) {
            break;
        }
        path.push(parent);
        next = trace.parent(parent);
    }
    path.reverse();
    path
}

fn slowest(trace: &Trace) -> Option<Cause> {
    let root = trace.root()?;
    let whole_us = trace.spans[root].duration_us().filter(|us| *us > 0)?;
    let mut path = vec![root];
    let mut at = root;
    while path.len() < MAX_PATH {
        let next = trace
            .children(at)
            .iter()
            .copied()
            .filter(|child| !path.contains(child))
            .max_by_key(|child| trace.spans[*child].duration_us().unwrap_or(0));
        let Some(child) =
            next.filter(|child| coverage(&trace.spans[*child], whole_us) >= LEAST_COVERAGE)
        else {
            break;
        };
        path.push(child);
        at = child;
    }
    let services = services(trace, &path, Some(whole_us));
    (!services.is_empty()).then_some(Cause {
        client_impacting: true,
        services,
    })
}

fn coverage(span: &Span, whole_us: u64) -> f64 {
    span.duration_us().unwrap_or(0) as f64 / whole_us as f64
}

/// A path of spans as services, each with its part of the path. A call into silence ends at the inferred service.
fn services(trace: &Trace, path: &[usize], whole_us: Option<u64>) -> Vec<CauseService> {
    let mut found: Vec<CauseService> = Vec::new();
    for at in path {
        let Some(node) = trace.node(*at) else {
            continue;
        };
        let span = &trace.spans[*at];
        let entry = trace.is_entry(*at);
        let entity = CauseEntity {
            name: if entry { &node.name } else { &span.name }.clone(),
            remote: span.calls.is_some(),
            coverage: whole_us.map(|whole| coverage(span, whole)),
            exceptions: exceptions(span),
        };
        match found.last_mut().filter(|last| !entry && last.node == *node) {
            Some(last) => last.entities.push(entity),
            None => found.push(CauseService {
                node: node.clone(),
                inferred: false,
                entities: vec![entity],
            }),
        }
    }
    let silent = path
        .last()
        .and_then(|at| Some((trace.inferred(*at)?, &trace.spans[*at])));
    if let Some((node, span)) = silent {
        let entity = CauseEntity {
            name: node.name.clone(),
            remote: false,
            coverage: whole_us.map(|whole| coverage(span, whole)),
            exceptions: Vec::new(),
        };
        found.push(CauseService {
            node: node.clone(),
            inferred: true,
            entities: vec![entity],
        });
    }
    found
}

fn exceptions(span: &Span) -> Vec<CauseException> {
    let text = |one: &Value, name: &str| {
        let text = one.get(name).and_then(Value::as_str).unwrap_or_default();
        text.chars().take(MAX_MESSAGE).collect::<String>()
    };
    let listed = span
        .document
        .get("cause")
        .and_then(|cause| cause.get("exceptions"))
        .and_then(Value::as_array);
    listed
        .into_iter()
        .flatten()
        .take(MAX_EXCEPTIONS)
        .map(|one| CauseException {
            name: text(one, "type"),
            message: text(one, "message"),
            remote: one.get("remote").and_then(Value::as_bool) == Some(true),
        })
        .collect()
}

impl Cause {
    /// As FaultRootCauses and ErrorRootCauses list it, and as `rootcause.json` compares it.
    pub(crate) fn failed_json(&self) -> Value {
        self.json(|entity| {
            let exceptions: Vec<Value> = entity
                .exceptions
                .iter()
                .map(|one| json!({"Name": one.name, "Message": one.message}))
                .collect();
            json!({"Name": entity.name, "Exceptions": exceptions, "Remote": entity.remote})
        })
    }

    /// As ResponseTimeRootCauses lists it.
    pub(crate) fn timed_json(&self) -> Value {
        self.json(|entity| {
            let coverage = entity.coverage.unwrap_or(0.0);
            json!({"Name": entity.name, "Coverage": coverage, "Remote": entity.remote})
        })
    }

    fn json(&self, entity: impl Fn(&CauseEntity) -> Value) -> Value {
        let services: Vec<Value> = self
            .services
            .iter()
            .map(|service| {
                json!({
                    "Name": service.node.name, "Names": [service.node.name], "Type": service.node.kind,
                    "AccountId": ACCOUNT, "Inferred": service.inferred,
                    "EntityPath": service.entities.iter().map(&entity).collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({"ClientImpacting": self.client_impacting, "Services": services})
    }
}
