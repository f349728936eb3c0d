// SPDX-License-Identifier: Apache-2.0
//! Documents generated from the table: what the table allows, the types hold and give back unchanged.
//! And strangers' documents: whatever they are, an answer and no crash.

use pillion_config::gateway_route::GatewayRouteSpec;
use pillion_config::manifest::{Parameters, parse_manifest};
use pillion_config::mesh::MeshSpec;
use pillion_config::name::{Kind, parse_resource_id};
use pillion_config::route::RouteSpec;
use pillion_config::shapes::{Constraint, Member, Shape, spec_of};
use pillion_config::virtual_gateway::VirtualGatewaySpec;
use pillion_config::virtual_node::VirtualNodeSpec;
use pillion_config::virtual_router::VirtualRouterSpec;
use pillion_config::virtual_service::VirtualServiceSpec;
use pillion_config::{check, parse_spec};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// Documents of a shape. Durations are whole, since the types (like the rules) know no other.
fn documents(shape: &'static Shape) -> BoxedStrategy<Value> {
    match &shape.constraint {
        Constraint::Structure { members } => structures(members, shape.name == "Duration"),
        Constraint::Union { members } => {
            let choices: Vec<_> = members
                .iter()
                .map(|member| {
                    documents(member.of).prop_map(|value| {
                        Value::Object(Map::from_iter([(member.name.to_owned(), value)]))
                    })
                })
                .collect();
            proptest::strategy::Union::new(choices).boxed()
        }
        Constraint::List { of, min, max } => {
            let least = min.unwrap_or(0);
            vec(
                documents(of),
                least..=max.unwrap_or(least + 2).min(least + 2),
            )
            .prop_map(Value::Array)
            .boxed()
        }
        Constraint::Text { min, max, pattern } => {
            let least = min.unwrap_or(0);
            let most = max.unwrap_or(least + 12).min(least + 12);
            let characters = match pattern {
                Some(_) => proptest::char::range('a', 'z').boxed(),
                None => any::<char>().boxed(),
            };
            vec(characters, least..=most)
                .prop_map(|chars| Value::String(chars.into_iter().collect()))
                .boxed()
        }
        Constraint::Choice { words } => proptest::sample::select(*words)
            .prop_map(Value::from)
            .boxed(),
        Constraint::Integer { min, max } => {
            let (min, max) = (
                min.unwrap_or(i32::MIN.into()),
                max.unwrap_or(i32::MAX.into()),
            );
            prop_oneof![Just(min), Just(max), min..=max]
                .prop_map(Value::from)
                .boxed()
        }
        Constraint::Long { min, max } => {
            let (min, max) = (min.unwrap_or(i64::MIN), max.unwrap_or(i64::MAX));
            prop_oneof![Just(min), Just(max), min..=max]
                .prop_map(Value::from)
                .boxed()
        }
        Constraint::Boolean => any::<bool>().prop_map(Value::from).boxed(),
    }
}

fn structures(members: &'static [Member], whole: bool) -> BoxedStrategy<Value> {
    let mut strategy = Just(Map::new()).boxed();
    for member in members {
        let value = documents(member.of);
        let value = if member.required || whole {
            value.prop_map(Some).boxed()
        } else {
            option::of(value).boxed()
        };
        strategy = (strategy, value)
            .prop_map(|(mut object, value)| {
                object.extend(value.map(|value| (member.name.to_owned(), value)));
                object
            })
            .boxed();
    }
    strategy.prop_map(Value::Object).boxed()
}

fn specs() -> BoxedStrategy<(Kind, Value)> {
    let choices: Vec<_> = Kind::ALL
        .into_iter()
        .map(|kind| documents(spec_of(kind)).prop_map(move |value| (kind, value)))
        .collect();
    proptest::strategy::Union::new(choices).boxed()
}

fn back<T: Serialize + DeserializeOwned>(document: &Value) -> Value {
    let typed: T = serde_json::from_value(document.clone())
        .unwrap_or_else(|error| panic!("{error}: {document}"));
    serde_json::to_value(typed).unwrap()
}

/// Any JSON, with a taste for the words of specs so that it gets past the first member.
fn strangers() -> BoxedStrategy<Value> {
    let names = prop_oneof![
        proptest::sample::select(vec![
            "listeners",
            "portMapping",
            "port",
            "protocol",
            "httpRoute",
            "match",
            "headers",
            "name",
            "path",
            "regex",
            "action",
            "weightedTargets",
            "provider",
            "virtualNode",
            "tls",
            "timeout",
            "http",
            "perRequest",
            "prefix",
            "meshName",
            "virtualNodeName",
            "spec",
            "tags",
            "Resources",
            "Type",
            "Properties",
            "Ref",
            "Fn::Sub",
        ])
        .prop_map(str::to_owned),
        ".{0,6}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Array),
            vec((names.clone(), inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
    .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn what_the_table_allows_the_types_hold_and_give_back((kind, document) in specs()) {
        prop_assert_eq!(check::against(spec_of(kind), &document, "spec"), []);
        let returned = match kind {
            Kind::Mesh => back::<MeshSpec>(&document),
            Kind::VirtualNode => back::<VirtualNodeSpec>(&document),
            Kind::VirtualRouter => back::<VirtualRouterSpec>(&document),
            Kind::Route => back::<RouteSpec>(&document),
            Kind::VirtualService => back::<VirtualServiceSpec>(&document),
            Kind::VirtualGateway => back::<VirtualGatewaySpec>(&document),
            Kind::GatewayRoute => back::<GatewayRouteSpec>(&document),
        };
        prop_assert_eq!(returned, document);
    }

    #[test]
    fn a_parsed_spec_is_echoed_as_sent((kind, document) in specs()) {
        match parse_spec(kind, &document) {
            Ok(spec) => prop_assert_eq!(spec.to_value(), document),
            Err(problems) => prop_assert!(problems.iter().all(|problem| problem.path.starts_with("spec"))),
        }
    }

    #[test]
    fn a_strangers_document_gets_an_answer(document in strangers()) {
        for kind in Kind::ALL {
            if let Err(problems) = parse_spec(kind, &document) {
                prop_assert!(!problems.is_empty());
            }
        }
        let _answer = parse_manifest(&document.to_string(), &Parameters::new());
    }

    #[test]
    fn a_strangers_text_gets_an_answer(text in ".{0,80}") {
        let _answer = parse_manifest(&text, &Parameters::new());
        if let Ok(id) = parse_resource_id(&text) {
            prop_assert!(text.ends_with(&id.key.name));
        }
    }
}
