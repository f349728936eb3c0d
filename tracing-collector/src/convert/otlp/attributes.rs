// SPDX-License-Identifier: Apache-2.0
//! OTLP attribute lists as JSON values by name, with the few ways in which conversion asks for them.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value;
use serde_json::Map;
use serde_json::Value;

#[derive(Debug, Default)]
pub(crate) struct Attributes(Map<String, Value>);

impl Attributes {
    /// A name that comes twice keeps its last value.
    pub(crate) fn of(list: Vec<KeyValue>) -> Attributes {
        Attributes(
            list.into_iter()
                .map(|pair| (pair.key, json(pair.value)))
                .collect(),
        )
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    }

    /// The first of `names` that is set, for conventions that were renamed.
    pub(crate) fn either(&self, names: &[&str]) -> Option<String> {
        names
            .iter()
            .find_map(|name| self.text(name))
            .map(str::to_owned)
    }

    pub(crate) fn number(&self, name: &str) -> Option<i64> {
        let value = self.0.get(name)?;
        value.as_i64().or_else(|| value.as_str()?.parse().ok())
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.0
            .get(name)
            .is_some_and(|value| value == &Value::Bool(true) || value.as_str() == Some("true"))
    }

    pub(crate) fn first_of_list(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_array()?.first()?.as_str()
    }

    /// Scalars that `aws.xray.annotations` names, under keys as X-Ray spells them.
    pub(crate) fn annotations(&self) -> BTreeMap<String, Value> {
        let Some(Value::Array(names)) = self.0.get("aws.xray.annotations") else {
            return BTreeMap::new();
        };
        names
            .iter()
            .filter_map(Value::as_str)
            .filter_map(|name| Some((name, self.0.get(name)?)))
            .filter(|(_, value)| !value.is_array() && !value.is_object() && !value.is_null())
            .map(|(name, value)| (annotation_key(name), value.clone()))
            .collect()
    }

    pub(crate) fn prefixed<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (String, Value)> + 'a {
        self.0
            .iter()
            .map(move |(name, value)| (format!("{prefix}{name}"), value.clone()))
    }

    pub(crate) fn into_map(self) -> Map<String, Value> {
        self.0
    }
}

fn annotation_key(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '_'
            }
        })
        .collect()
}

/// Depth is bounded by the decoders, at 100 (protobuf) and 128 (JSON) levels.
pub(crate) fn json(value: Option<AnyValue>) -> Value {
    match value.and_then(|value| value.value) {
        None => Value::Null,
        Some(any_value::Value::StringValue(text)) => Value::String(text),
        Some(any_value::Value::BoolValue(flag)) => Value::Bool(flag),
        Some(any_value::Value::IntValue(number)) => Value::from(number),
        // JSON has no NaN and no infinity; as text they are at least seen.
        Some(any_value::Value::DoubleValue(number)) => serde_json::Number::from_f64(number)
            .map_or_else(|| Value::String(number.to_string()), Value::Number),
        Some(any_value::Value::ArrayValue(list)) => Value::Array(
            list.values
                .into_iter()
                .map(|value| json(Some(value)))
                .collect(),
        ),
        Some(any_value::Value::KvlistValue(list)) => {
            Value::Object(Attributes::of(list.values).into_map())
        }
        Some(any_value::Value::BytesValue(bytes)) => Value::String(STANDARD.encode(bytes)),
        Some(any_value::Value::StringValueStrindex(_)) => Value::Null,
    }
}
