// SPDX-License-Identifier: Apache-2.0
//! The HTTP version a cluster speaks, and how long a pooled connection may rest: Envoy's `HttpProtocolOptions`
//! extension. Called by the cluster's encode and decode.

use std::collections::HashMap;
use std::time::Duration;

use super::UpstreamProtocol;
use crate::field;
use crate::field::Checked;
use crate::field::Refusal;
use crate::field::Under;
use crate::field::refuse;
use crate::proto::Any;
use crate::proto::core;
use crate::proto::upstream_http as proto;
use crate::proto::upstream_http::http_protocol_options::ExplicitHttpConfig;
use crate::proto::upstream_http::http_protocol_options::UpstreamProtocolOptions;
use crate::proto::upstream_http::http_protocol_options::UseDownstreamHttpConfig;
use crate::proto::upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig;

/// The extension's name, by which Envoy finds it.
const NAME: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

pub(super) fn encode(
    protocol: UpstreamProtocol,
    idle_timeout: Option<Duration>,
) -> HashMap<String, Any> {
    let explicit = |config| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(config),
        })
    };
    let chosen = match protocol {
        UpstreamProtocol::Http1 => {
            explicit(ProtocolConfig::HttpProtocolOptions(Default::default()))
        }
        UpstreamProtocol::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(
            field::extended_connect(),
        )),
        UpstreamProtocol::UseDownstream => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(Default::default()),
                http2_protocol_options: Some(field::extended_connect()),
                http3_protocol_options: None,
            })
        }
    };
    let options = proto::HttpProtocolOptions {
        common_http_protocol_options: idle_timeout.map(|limit| core::HttpProtocolOptions {
            idle_timeout: Some(field::encode_duration(limit)),
            ..Default::default()
        }),
        upstream_protocol_options: Some(chosen),
        ..Default::default()
    };
    [(NAME.to_owned(), field::pack(&options))].into()
}

pub(super) fn decode(
    mut extensions: HashMap<String, Any>,
) -> Checked<(UpstreamProtocol, Option<Duration>)> {
    let options = extensions.remove(NAME);
    if let Some(other) = extensions.into_keys().min() {
        return Err(Refusal::unsupported(other));
    }
    let Some(options) = options else {
        return Ok((UpstreamProtocol::Http1, None));
    };
    check(field::unpack(NAME, &options)?).under("HttpProtocolOptions")
}

fn check(options: proto::HttpProtocolOptions) -> Checked<(UpstreamProtocol, Option<Duration>)> {
    let proto::HttpProtocolOptions {
        common_http_protocol_options,
        upstream_http_protocol_options,
        http_filters,
        header_validation_config,
        outlier_detection,
        request_mirror_policies,
        hash_policy,
        retry_policy,
        upstream_protocol_options,
    } = options;
    refuse!(
        upstream_http_protocol_options,
        http_filters,
        header_validation_config,
        outlier_detection,
        request_mirror_policies,
        hash_policy,
        retry_policy,
    );
    let idle_timeout =
        check_common(common_http_protocol_options).under("common_http_protocol_options")?;
    let protocol = match upstream_protocol_options {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(config)) => {
            check_explicit(config.protocol_config).under("explicit_http_config")?
        }
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(config)) => {
            check_downstream(config).under("use_downstream_protocol_config")?
        }
        Some(UpstreamProtocolOptions::AutoConfig(_)) => {
            return Err(Refusal::new(
                "auto_config",
                "is not supported; use explicit_http_config or use_downstream_protocol_config",
            ));
        }
        None => return Err(Refusal::missing("explicit_http_config")),
    };
    Ok((protocol, idle_timeout))
}

fn check_common(options: Option<core::HttpProtocolOptions>) -> Checked<Option<Duration>> {
    let core::HttpProtocolOptions {
        idle_timeout,
        max_connection_duration,
        max_connection_duration_jitter,
        max_headers_count,
        max_response_headers_kb,
        max_stream_duration,
        headers_with_underscores_action,
        max_requests_per_connection,
    } = options.unwrap_or_default();
    refuse!(
        max_connection_duration,
        max_connection_duration_jitter,
        max_headers_count,
        max_response_headers_kb,
        max_stream_duration,
        headers_with_underscores_action,
        max_requests_per_connection,
    );
    field::duration("idle_timeout", idle_timeout)
}

fn check_explicit(config: Option<ProtocolConfig>) -> Checked<UpstreamProtocol> {
    match config {
        Some(ProtocolConfig::HttpProtocolOptions(http_protocol_options)) => {
            refuse!(http_protocol_options);
            Ok(UpstreamProtocol::Http1)
        }
        Some(ProtocolConfig::Http2ProtocolOptions(http2_protocol_options)) => {
            let http2_protocol_options =
                field::beyond_extended_connect(Some(http2_protocol_options));
            refuse!(http2_protocol_options);
            Ok(UpstreamProtocol::Http2)
        }
        Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
            Err(Refusal::unsupported("http3_protocol_options"))
        }
        None => Err(Refusal::missing("http_protocol_options")),
    }
}

fn check_downstream(config: UseDownstreamHttpConfig) -> Checked<UpstreamProtocol> {
    let UseDownstreamHttpConfig {
        http_protocol_options,
        http2_protocol_options,
        http3_protocol_options,
    } = config;
    let http_protocol_options = http_protocol_options.unwrap_or_default();
    let http2_protocol_options = field::beyond_extended_connect(http2_protocol_options);
    refuse!(
        http_protocol_options,
        http2_protocol_options,
        http3_protocol_options
    );
    Ok(UpstreamProtocol::UseDownstream)
}
