// SPDX-License-Identifier: Apache-2.0
//! The query string of a request. Parameters the model does not know are ignored, as AWS does.

use super::call::percent_decode;
use super::error::ApiError;
use super::error::ErrorType;

/// Decoded parameters, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    parameters: Vec<(String, String)>,
}

impl Query {
    /// `None` where the URI has no query.
    pub fn parse(text: Option<&str>) -> Result<Query, ApiError> {
        let parameters: Option<Vec<(String, String)>> = text
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Some((decode(name)?, decode(value)?))
            })
            .collect();
        let parameters = parameters.ok_or_else(|| {
            ApiError::new(
                ErrorType::BadRequest,
                "the query string is not percent-encoded UTF-8",
            )
        })?;
        Ok(Query { parameters })
    }

    /// All of them.
    pub fn into_pairs(self) -> Vec<(String, String)> {
        self.parameters
    }

    /// The first parameter of that name; an empty value is as good as none.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(known, value)| known == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }
}

/// Form encoding writes a space as `+`; a literal plus comes as `%2B`.
fn decode(text: &str) -> Option<String> {
    percent_decode(&text.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_the_first_of_a_name_counts() {
        let query = Query::parse(Some("resourceArn=arn%3Aaws%3Ax+y&limit=5&limit=6&flag"))
            .expect("well-formed");
        assert_eq!(query.get("resourceArn"), Some("arn:aws:x y"));
        assert_eq!(query.get("limit"), Some("5"));
        assert_eq!(query.get("flag"), None);
    }

    #[test]
    fn a_broken_escape_is_refused() {
        assert!(Query::parse(Some("limit=%4")).is_err());
    }
}
