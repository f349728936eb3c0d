// SPDX-License-Identifier: Apache-2.0
//! Paging tokens of the X-Ray API: where to go on, bound to the request it belongs to.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use sha2::Digest;
use sha2::Sha256;

const BINDING: usize = 8;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("NextToken belongs to another request, or is damaged; start again without it")]
pub(super) struct TokenError;

/// The first bytes of a hash over the request without its token.
fn binding(operation: &str, request: &Value) -> [u8; BINDING] {
    let mut request = request.clone();
    if let Some(members) = request.as_object_mut() {
        members.remove("NextToken");
    }
    let mut hash = Sha256::new();
    hash.update(operation.as_bytes());
    // Members are sorted: a map of serde_json is a BTreeMap unless a feature says otherwise.
    hash.update(request.to_string().as_bytes());
    let mut binding = [0; BINDING];
    binding.copy_from_slice(&hash.finalize()[..BINDING]);
    binding
}

pub(super) fn issue(operation: &str, request: &Value, place: &[u8]) -> String {
    let mut bytes = binding(operation, request).to_vec();
    bytes.extend(place);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Where the request says to go on, if it does.
pub(super) fn redeem(operation: &str, request: &Value) -> Result<Option<Vec<u8>>, TokenError> {
    let text = match request.get("NextToken") {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value.as_str().ok_or(TokenError)?,
    };
    if text.is_empty() {
        return Ok(None);
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError)?;
    let (bound, place) = bytes.split_at_checked(BINDING).ok_or(TokenError)?;
    if bound != binding(operation, request) {
        return Err(TokenError);
    }
    Ok(Some(place.to_vec()))
}

/// A place that is a position in a list.
pub(super) fn position(place: Option<Vec<u8>>) -> Result<usize, TokenError> {
    let Some(place) = place else { return Ok(0) };
    let bytes: [u8; 4] = place.as_slice().try_into().map_err(|_| TokenError)?;
    Ok(u32::from_be_bytes(bytes) as usize)
}

pub(super) fn at_position(position: usize) -> [u8; 4] {
    u32::try_from(position).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_goes_on_where_it_was_issued_and_only_for_the_same_request() {
        let request = json!({"StartTime": 1, "EndTime": 2});
        let token = issue("GetServiceGraph", &request, &at_position(7));
        let with = |start: i32| json!({"StartTime": start, "EndTime": 2, "NextToken": token});
        assert_eq!(
            redeem("GetServiceGraph", &with(1)).and_then(position),
            Ok(7)
        );
        assert_eq!(redeem("GetServiceGraph", &with(0)), Err(TokenError));
        assert_eq!(redeem("GetTraceSummaries", &with(1)), Err(TokenError));
        assert_eq!(
            redeem("GetServiceGraph", &json!({"NextToken": "!"})),
            Err(TokenError)
        );
        assert_eq!(redeem("GetServiceGraph", &request), Ok(None));
    }
}
