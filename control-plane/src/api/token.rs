// SPDX-License-Identifier: Apache-2.0
//! What makes two requests the same under one `clientToken`: operation, path, and the body as a document, whatever the
//! order of its members or its white space.

use serde_json::Map;
use serde_json::Value;
use sha2::Digest;
use sha2::Sha256;

/// Hashes a request without its token.
pub fn fingerprint(operation: &str, path: &str, body: &Map<String, Value>) -> [u8; 32] {
    let mut hash = Sha256::new();
    text(&mut hash, operation);
    text(&mut hash, path);
    members(
        &mut hash,
        body.iter().filter(|(name, _)| *name != "clientToken"),
    );
    hash.finalize().into()
}

/// Length first, so that no two different sequences of parts are the same bytes.
fn text(hash: &mut Sha256, text: &str) {
    hash.update(text.len().to_le_bytes());
    hash.update(text);
}

fn members<'a>(hash: &mut Sha256, members: impl Iterator<Item = (&'a String, &'a Value)>) {
    let mut members: Vec<_> = members.filter(|(_, value)| !value.is_null()).collect();
    members.sort_unstable_by_key(|(name, _)| *name);
    hash.update(b"{");
    hash.update(members.len().to_le_bytes());
    for (name, member) in members {
        text(hash, name);
        value(hash, member);
    }
}

fn value(hash: &mut Sha256, found: &Value) {
    match found {
        Value::Object(found) => members(hash, found.iter()),
        Value::Array(items) => {
            hash.update(b"[");
            hash.update(items.len().to_le_bytes());
            items.iter().for_each(|item| value(hash, item));
        }
        Value::String(found) => {
            hash.update(b"\"");
            text(hash, found);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => text(hash, &found.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &str) -> [u8; 32] {
        let body: Value = serde_json::from_str(body).expect("JSON");
        fingerprint("CreateMesh", "meshes", body.as_object().expect("an object"))
    }

    #[test]
    fn order_of_members_nulls_and_the_token_do_not_count() {
        let one = of(r#"{"meshName": "m", "spec": {"a": 1, "b": [true]}, "clientToken": "x"}"#);
        let two = of(
            r#"{"clientToken": "y", "spec": {"b": [true], "a": 1, "c": null}, "meshName": "m"}"#,
        );
        assert_eq!(one, two);
    }

    #[test]
    fn values_lists_and_nesting_count() {
        let all = [
            r#"{"a": "1"}"#,
            r#"{"a": 1}"#,
            r#"{"a": [1]}"#,
            r#"{"a": {"b": 1}}"#,
            r#"{"a": {}, "b": 1}"#,
            r#"{"a": ["b", "c"]}"#,
            r#"{"a": ["bc"]}"#,
        ];
        let different: std::collections::BTreeSet<_> = all.iter().map(|body| of(body)).collect();
        assert_eq!(different.len(), all.len());
    }
}
