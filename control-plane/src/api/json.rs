// SPDX-License-Identifier: Apache-2.0
//! JSON as it is read from strangers: a member that stands twice is an error. Two readers would take two different ones
//! of them, and what was checked would not be what is applied. Called by [`super::body`].

use std::fmt;

use serde::de::Deserialize;
use serde::de::Deserializer;
use serde::de::Error;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde_json::Map;
use serde_json::Value;

/// Longest name that a message quotes.
const QUOTED: usize = 60;

/// Any document whose objects have each member once.
pub struct Unique(pub Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unique, D::Error> {
        deserializer.deserialize_any(Reader).map(Unique)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                let name: String = name.chars().take(QUOTED).collect();
                return Err(A::Error::custom(format!(
                    "member `{name}` stands twice in one object"
                )));
            }
            let Unique(value) = members.next_value()?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_are_read_as_they_are() {
        let text = r#"{"a": [1, -2, 2.5, "x", true, null, {"b": {}}], "c": "\u00fc"}"#;
        let Unique(read) = serde_json::from_str(text).expect("JSON");
        let expected: Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(read, expected);
        assert_eq!(read["a"][0], json!(1));
    }

    #[test]
    fn a_member_that_stands_twice_is_told_by_name_and_place() {
        let error = serde_json::from_str::<Unique>("{\"a\": {\"b\": 1,\n \"b\": 2}}");
        let error = error.err().expect("twice").to_string();
        assert!(
            error.contains("`b` stands twice") && error.contains("line 2"),
            "{error}"
        );
    }
}
