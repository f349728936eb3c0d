// SPDX-License-Identifier: Apache-2.0
//! Access loggers: a file (the standard streams included) and the form of its lines. Called by the encodes and decodes
//! of the connection manager and the TCP proxy.

use prost::Message;
use prost::Name;

use super::AccessLog;
use super::AccessLogFormat;
use crate::field;
use crate::field::Checked;
use crate::field::Refusal;
use crate::field::Under;
use crate::field::refuse;
use crate::ordered;
use crate::proto::Any;
use crate::proto::accesslog as proto;
use crate::proto::accesslog::access_log::ConfigType;
use crate::proto::core;
use crate::proto::core::substitution_format_string::Format;
use crate::proto::file_log::FileAccessLog;
use crate::proto::file_log::file_access_log;
use crate::proto::stream_log::StderrAccessLog;
use crate::proto::stream_log::StdoutAccessLog;
use crate::proto::stream_log::stderr_access_log;
use crate::proto::stream_log::stdout_access_log;

pub(super) fn encode(log: &AccessLog) -> proto::AccessLog {
    let plain = |format| {
        field::pack(&FileAccessLog {
            path: log.path.clone(),
            access_log_format: format,
        })
    };
    let config = match &log.format {
        AccessLogFormat::Default => plain(None),
        AccessLogFormat::Text(text) => {
            let format = core::SubstitutionFormatString {
                format: Some(Format::TextFormatSource(field::inline(text))),
                ..Default::default()
            };
            plain(Some(file_access_log::AccessLogFormat::LogFormat(format)))
        }
        AccessLogFormat::Json(members) => Any {
            type_url: FileAccessLog::type_url(),
            value: ordered::FileAccessLog {
                path: log.path.clone(),
                log_format: Some(ordered::LogFormat {
                    json_format: Some(ordered::Struct::encode_texts(members)),
                }),
            }
            .encode_to_vec(),
        },
    };
    proto::AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        filter: None,
        config_type: Some(ConfigType::TypedConfig(config)),
    }
}

pub(super) fn check(log: proto::AccessLog) -> Checked<AccessLog> {
    let proto::AccessLog {
        name,
        filter,
        config_type,
    } = log;
    refuse!(filter);
    let Some(ConfigType::TypedConfig(config)) = config_type else {
        return Err(Refusal::missing("typed_config"));
    };
    if config.type_url == FileAccessLog::type_url() {
        return check_file(&config).under("file");
    }
    if config.type_url == StdoutAccessLog::type_url() {
        let StdoutAccessLog { access_log_format } = field::unpack("typed_config", &config)?;
        let format =
            access_log_format.map(|stdout_access_log::AccessLogFormat::LogFormat(format)| format);
        return check_stream("/dev/stdout", format, &config).under("stdout");
    }
    if config.type_url == StderrAccessLog::type_url() {
        let StderrAccessLog { access_log_format } = field::unpack("typed_config", &config)?;
        let format =
            access_log_format.map(|stderr_access_log::AccessLogFormat::LogFormat(format)| format);
        return check_stream("/dev/stderr", format, &config).under("stderr");
    }
    let why = format_args!("{} is not supported", config.type_url).to_string();
    Err(Refusal::new(name, why))
}

fn check_file(config: &Any) -> Checked<AccessLog> {
    let FileAccessLog {
        path,
        access_log_format,
    } = field::unpack("typed_config", config)?;
    let format = match access_log_format {
        None => None,
        Some(file_access_log::AccessLogFormat::LogFormat(format)) => Some(format),
        Some(_) => {
            return Err(Refusal::new(
                "access_log_format",
                "is a deprecated form; use log_format",
            ));
        }
    };
    let json = || {
        ordered::FileAccessLog::decode(config.value.as_slice())
            .ok()
            .and_then(|log| log.log_format)
    };
    Ok(AccessLog {
        path: field::not_empty("path", path)?,
        format: check_format(format, json)?,
    })
}

fn check_stream(
    path: &str,
    format: Option<core::SubstitutionFormatString>,
    config: &Any,
) -> Checked<AccessLog> {
    let json = || {
        ordered::StreamAccessLog::decode(config.value.as_slice())
            .ok()
            .and_then(|log| log.log_format)
    };
    Ok(AccessLog {
        path: path.to_owned(),
        format: check_format(format, json)?,
    })
}

/// `json` reads the same bytes again, in the order of the wire.
fn check_format(
    format: Option<core::SubstitutionFormatString>,
    json: impl FnOnce() -> Option<ordered::LogFormat>,
) -> Checked<AccessLogFormat> {
    let Some(format) = format else {
        return Ok(AccessLogFormat::Default);
    };
    let core::SubstitutionFormatString {
        omit_empty_values,
        content_type: _, // of local replies
        formatters,
        json_format_options: _, // keys come in the order of the wire
        format,
    } = format;
    refuse!(omit_empty_values, formatters);
    match field::required("log_format", format)? {
        Format::TextFormatSource(source) => {
            field::inline_text("text_format_source", Some(source)).map(AccessLogFormat::Text)
        }
        Format::TextFormat(text) => Ok(AccessLogFormat::Text(text)),
        Format::JsonFormat(_) => {
            let members = json()
                .and_then(|format| format.json_format)
                .unwrap_or_default();
            members
                .decode_texts("json_format")
                .map(AccessLogFormat::Json)
        }
    }
}
