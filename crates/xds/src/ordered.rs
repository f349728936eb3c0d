// SPDX-License-Identifier: Apache-2.0
//! Mirrors of the few messages with a map in them. The generated ones hold a `HashMap`, whose bytes differ from run to
//! run, while a version is a hash of bytes; and the keys of a JSON access log have an order that a map forgets.

use prost::Message;

use crate::field::Checked;
use crate::field::Refusal;
use crate::proto::google::protobuf::Value;
use crate::proto::google::protobuf::value::Kind;

/// `google.protobuf.Struct` as it stands on the wire: entries in order.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Struct {
    #[prost(message, repeated, tag = "1")]
    fields: Vec<Field>,
}

#[derive(Clone, PartialEq, Message)]
struct Field {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Value>,
}

impl Struct {
    pub(crate) fn encode_texts(texts: &[(String, String)]) -> Struct {
        let field = |(key, text): &(String, String)| Field {
            key: key.clone(),
            value: Some(Value {
                kind: Some(Kind::StringValue(text.clone())),
            }),
        };
        Struct {
            fields: texts.iter().map(field).collect(),
        }
    }

    /// The entries, which must be texts with distinct keys.
    pub(crate) fn decode_texts(self, field: &str) -> Checked<Vec<(String, String)>> {
        let mut texts: Vec<(String, String)> = Vec::with_capacity(self.fields.len());
        for Field { key, value } in self.fields {
            let Some(Kind::StringValue(text)) = value.and_then(|value| value.kind) else {
                return Err(Refusal::new(field, format_args!("{key}: must be a string")));
            };
            if texts.iter().any(|(known, _)| *known == key) {
                return Err(Refusal::new(field, format_args!("{key}: appears twice")));
            }
            texts.push((key, text));
        }
        Ok(texts)
    }
}

/// The tail of a cluster: its metadata. Concatenation merges in protobuf, so these bytes may follow the others.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ClusterMetadata {
    #[prost(message, optional, tag = "25")]
    pub(crate) metadata: Option<Metadata>,
}

/// `envoy.config.core.v3.Metadata` with entries in order.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Metadata {
    #[prost(message, repeated, tag = "1")]
    pub(crate) filter_metadata: Vec<MetadataField>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MetadataField {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) value: Option<Struct>,
}

/// `envoy.extensions.access_loggers.file.v3.FileAccessLog`, as far as a JSON format goes.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FileAccessLog {
    #[prost(string, tag = "1")]
    pub(crate) path: String,
    #[prost(message, optional, tag = "5")]
    pub(crate) log_format: Option<LogFormat>,
}

/// The same part of `envoy.extensions.access_loggers.stream.v3.StdoutAccessLog` and its twin.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StreamAccessLog {
    #[prost(message, optional, tag = "1")]
    pub(crate) log_format: Option<LogFormat>,
}

/// `envoy.config.core.v3.SubstitutionFormatString`, as far as a JSON format goes.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct LogFormat {
    #[prost(message, optional, tag = "2")]
    pub(crate) json_format: Option<Struct>,
}
