// SPDX-License-Identifier: Apache-2.0
//! The part of a trace's record that filters read: its parts one by one, and its root causes. Nodes stand in a table
//! once and are named by their place in it, from 1; 0 is none.

use std::collections::BTreeMap;

use prost::Message;

use crate::span::Http;
use crate::span::Node;
use crate::store::record::HttpRecord;
use crate::store::record::NodeRecord;
use crate::store::record::flags_in;
use crate::store::record::flags_out;
use crate::summary::causes::Cause;
use crate::summary::causes::CauseEntity;
use crate::summary::causes::CauseException;
use crate::summary::causes::CauseService;
use crate::summary::causes::Causes;
use crate::summary::parts::Part;

#[derive(Clone, PartialEq, Message)]
struct PartRecord {
    #[prost(uint32, tag = "1")]
    source: u32,
    #[prost(uint32, tag = "2")]
    node: u32,
    #[prost(uint32, tag = "3")]
    flags: u32,
    #[prost(bool, tag = "4")]
    complete: bool,
    #[prost(bool, tag = "5")]
    inferred: bool,
    #[prost(bool, tag = "6")]
    root: bool,
    #[prost(uint64, tag = "7")]
    end_us: u64,
    #[prost(uint64, optional, tag = "8")]
    response_us: Option<u64>,
    #[prost(uint64, optional, tag = "9")]
    duration_us: Option<u64>,
    #[prost(message, optional, tag = "10")]
    http: Option<HttpRecord>,
    #[prost(string, optional, tag = "11")]
    user: Option<String>,
    #[prost(string, optional, tag = "12")]
    instance: Option<String>,
    #[prost(string, optional, tag = "13")]
    zone: Option<String>,
    #[prost(string, optional, tag = "14")]
    arn: Option<String>,
    /// Key, then value as JSON, and so on.
    #[prost(string, repeated, tag = "15")]
    annotations: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct ExceptionRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(bool, tag = "3")]
    remote: bool,
}

#[derive(Clone, PartialEq, Message)]
struct EntityRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bool, tag = "2")]
    remote: bool,
    #[prost(double, optional, tag = "3")]
    coverage: Option<f64>,
    #[prost(message, repeated, tag = "4")]
    exceptions: Vec<ExceptionRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct ServiceRecord {
    #[prost(uint32, tag = "1")]
    node: u32,
    #[prost(bool, tag = "2")]
    inferred: bool,
    #[prost(message, repeated, tag = "3")]
    entities: Vec<EntityRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct CauseRecord {
    #[prost(bool, tag = "1")]
    client_impacting: bool,
    #[prost(message, repeated, tag = "2")]
    services: Vec<ServiceRecord>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PartsRecord {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<NodeRecord>,
    #[prost(message, repeated, tag = "2")]
    parts: Vec<PartRecord>,
    #[prost(message, repeated, tag = "3")]
    fault: Vec<CauseRecord>,
    #[prost(message, repeated, tag = "4")]
    error: Vec<CauseRecord>,
    #[prost(message, repeated, tag = "5")]
    response_time: Vec<CauseRecord>,
}

#[derive(Default)]
struct NodeTable<'n> {
    places: BTreeMap<&'n Node, u32>,
    nodes: Vec<NodeRecord>,
}

impl<'n> NodeTable<'n> {
    fn place(&mut self, node: &'n Node) -> u32 {
        let next = u32::try_from(self.nodes.len() + 1).unwrap_or(0);
        *self.places.entry(node).or_insert_with(|| {
            self.nodes.push(NodeRecord::from(node));
            next
        })
    }
}

pub(super) fn parts_out(parts: &[Part], causes: &Causes) -> PartsRecord {
    let mut table = NodeTable::default();
    let parts = parts
        .iter()
        .map(|part| part_out(part, &mut table))
        .collect();
    let [fault, error, response_time] =
        [&causes.fault, &causes.error, &causes.response_time].map(|causes| {
            causes
                .iter()
                .map(|cause| cause_out(cause, &mut table))
                .collect()
        });
    PartsRecord {
        nodes: table.nodes,
        parts,
        fault,
        error,
        response_time,
    }
}

fn part_out<'n>(part: &'n Part, table: &mut NodeTable<'n>) -> PartRecord {
    PartRecord {
        source: part.source.as_ref().map_or(0, |source| table.place(source)),
        node: table.place(&part.node),
        flags: flags_out(part.flags),
        complete: part.complete,
        inferred: part.inferred,
        root: part.root,
        end_us: part.end_us,
        response_us: part.response_us,
        duration_us: part.duration_us,
        http: part.http.as_ref().map(HttpRecord::from),
        user: part.user.clone(),
        instance: part.instance.clone(),
        zone: part.zone.clone(),
        arn: part.arn.clone(),
        annotations: part
            .annotations
            .iter()
            .flat_map(|(key, value)| [key.clone(), value.to_string()])
            .collect(),
    }
}

fn cause_out<'n>(cause: &'n Cause, table: &mut NodeTable<'n>) -> CauseRecord {
    let entity = |one: &CauseEntity| EntityRecord {
        name: one.name.clone(),
        remote: one.remote,
        coverage: one.coverage,
        exceptions: one
            .exceptions
            .iter()
            .map(|one| ExceptionRecord {
                name: one.name.clone(),
                message: one.message.clone(),
                remote: one.remote,
            })
            .collect(),
    };
    let services = cause.services.iter().map(|service| ServiceRecord {
        node: table.place(&service.node),
        inferred: service.inferred,
        entities: service.entities.iter().map(entity).collect(),
    });
    CauseRecord {
        services: services.collect(),
        client_impacting: cause.client_impacting,
    }
}

pub(super) fn parts_in(record: PartsRecord) -> Option<(Vec<Part>, Causes)> {
    let nodes: Vec<Node> = record.nodes.into_iter().map(Node::from).collect();
    let parts: Option<Vec<Part>> = record
        .parts
        .into_iter()
        .map(|part| part_in(part, &nodes))
        .collect();
    let causes = |records: Vec<CauseRecord>| -> Option<Vec<Cause>> {
        records
            .into_iter()
            .map(|cause| cause_in(cause, &nodes))
            .collect()
    };
    let causes = Causes {
        fault: causes(record.fault)?,
        error: causes(record.error)?,
        response_time: causes(record.response_time)?,
    };
    Some((parts?, causes))
}

fn node_at(nodes: &[Node], place: u32) -> Option<Node> {
    nodes.get((place as usize).checked_sub(1)?).cloned()
}

fn part_in(record: PartRecord, nodes: &[Node]) -> Option<Part> {
    let annotation = |pair: &[String]| {
        let [key, value] = pair else { return None };
        Some((key.clone(), serde_json::from_str(value).ok()?))
    };
    Some(Part {
        source: node_at(nodes, record.source),
        node: node_at(nodes, record.node)?,
        flags: flags_in(record.flags),
        complete: record.complete,
        inferred: record.inferred,
        root: record.root,
        end_us: record.end_us,
        response_us: record.response_us,
        duration_us: record.duration_us,
        http: record.http.map(Http::from),
        user: record.user,
        instance: record.instance,
        zone: record.zone,
        arn: record.arn,
        annotations: record
            .annotations
            .chunks(2)
            .map(annotation)
            .collect::<Option<_>>()?,
    })
}

fn cause_in(record: CauseRecord, nodes: &[Node]) -> Option<Cause> {
    let entity = |one: EntityRecord| CauseEntity {
        name: one.name,
        remote: one.remote,
        coverage: one.coverage,
        exceptions: one
            .exceptions
            .into_iter()
            .map(|one| CauseException {
                name: one.name,
                message: one.message,
                remote: one.remote,
            })
            .collect(),
    };
    let service = |one: ServiceRecord| {
        Some(CauseService {
            node: node_at(nodes, one.node)?,
            inferred: one.inferred,
            entities: one.entities.into_iter().map(entity).collect(),
        })
    };
    Some(Cause {
        client_impacting: record.client_impacting,
        services: record
            .services
            .into_iter()
            .map(service)
            .collect::<Option<_>>()?,
    })
}
