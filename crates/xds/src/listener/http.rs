// SPDX-License-Identifier: Apache-2.0
//! The HTTP connection manager. Called by the filter chain's encode and decode.

use prost::Name;

use super::Codec;
use super::HttpConnectionManager;
use super::RouteSource;
use super::access_log;
use crate::field;
use crate::field::Checked;
use crate::field::Holds;
use crate::field::Refusal;
use crate::field::Under;
use crate::field::refuse;
use crate::proto::http as proto;
use crate::proto::http::http_connection_manager::CodecType;
use crate::proto::http::http_connection_manager::RouteSpecifier;
use crate::proto::http::http_connection_manager::StripPortMode;
use crate::proto::http::http_connection_manager::UpgradeConfig;
use crate::proto::http::http_filter::ConfigType;
use crate::proto::router::Router;
use crate::route::RouteConfiguration;

impl HttpConnectionManager {
    pub(super) fn encode(&self) -> proto::HttpConnectionManager {
        let codec = match self.codec {
            Codec::Auto => CodecType::Auto,
            Codec::Http1 => CodecType::Http1,
            Codec::Http2 => CodecType::Http2,
        };
        let routes = match &self.routes {
            RouteSource::Rds(name) => RouteSpecifier::Rds(proto::Rds {
                config_source: Some(field::ads()),
                route_config_name: name.clone(),
            }),
            RouteSource::Inline(table) => RouteSpecifier::RouteConfig(table.encode()),
        };
        let upgrade = |name: &String| UpgradeConfig {
            upgrade_type: name.clone(),
            ..Default::default()
        };
        proto::HttpConnectionManager {
            stat_prefix: self.stat_prefix.clone(),
            codec_type: codec.into(),
            route_specifier: Some(routes),
            http_filters: vec![router()],
            access_log: self.access_logs.iter().map(access_log::encode).collect(),
            use_remote_address: Some(field::flag(self.use_remote_address)),
            normalize_path: Some(field::flag(self.normalize_path)),
            merge_slashes: self.merge_slashes,
            upgrade_configs: self.upgrades.iter().map(upgrade).collect(),
            // An upgrade over HTTP/2 is an extended CONNECT, which Envoy takes only where it is told to.
            http2_protocol_options: (!self.upgrades.is_empty()).then(field::extended_connect),
            stream_idle_timeout: self.stream_idle_timeout.map(field::encode_duration),
            strip_port_mode: self
                .strip_port
                .then_some(StripPortMode::StripAnyHostPort(true)),
            ..Default::default()
        }
    }

    /// Ignored: how long a closing connection lingers, spans' detail, and which callers Envoy calls internal (headers
    /// that only internal callers may send are never honoured).
    #[expect(
        clippy::too_many_lines,
        reason = "a line for each of the message's fields"
    )]
    pub(super) fn check(manager: proto::HttpConnectionManager) -> Checked<HttpConnectionManager> {
        let proto::HttpConnectionManager {
            codec_type,
            stat_prefix,
            http_filters,
            add_user_agent,
            tracing,
            common_http_protocol_options,
            http1_safe_max_connection_duration: _, // says nothing without a duration
            http_protocol_options,
            http2_protocol_options,
            http3_protocol_options,
            server_name,
            server_header_transformation,
            scheme_header_transformation,
            max_request_headers_kb,
            stream_idle_timeout,
            stream_flush_timeout: _,
            request_timeout,
            request_headers_timeout,
            drain_timeout: _,
            drain_timeout_jitter: _,
            delayed_close_timeout: _,
            access_log,
            access_log_flush_interval,
            flush_access_log_on_new_request,
            access_log_options,
            use_remote_address,
            xff_num_trusted_hops,
            original_ip_detection_extensions,
            early_header_mutation_extensions,
            internal_address_config: _,
            skip_xff_append,
            via,
            generate_request_id,
            preserve_external_request_id,
            always_set_request_id_in_response,
            forward_client_cert_details,
            set_current_client_cert_details,
            forward_client_cert_matcher,
            proxy_100_continue,
            represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
            upgrade_configs,
            normalize_path,
            merge_slashes,
            path_with_escaped_slashes_action,
            request_id_extension,
            local_reply_config,
            strip_matching_host_port,
            stream_error_on_invalid_http_message: _,
            path_normalization_options,
            strip_trailing_host_dot,
            proxy_status_config,
            typed_header_validation_config,
            append_x_forwarded_port,
            append_local_overload,
            add_proxy_protocol_connection_state: _,
            forward_proto_config,
            route_specifier,
            strip_port_mode,
        } = manager;
        let http2_protocol_options = field::beyond_extended_connect(http2_protocol_options);
        refuse!(
            add_user_agent,
            tracing,
            common_http_protocol_options,
            http_protocol_options,
            http2_protocol_options,
            http3_protocol_options,
            server_name,
            server_header_transformation,
            scheme_header_transformation,
            max_request_headers_kb,
            request_timeout,
            request_headers_timeout,
            access_log_flush_interval,
            flush_access_log_on_new_request,
            access_log_options,
            xff_num_trusted_hops,
            original_ip_detection_extensions,
            early_header_mutation_extensions,
            skip_xff_append,
            via,
            preserve_external_request_id,
            always_set_request_id_in_response,
            forward_client_cert_details,
            set_current_client_cert_details,
            forward_client_cert_matcher,
            proxy_100_continue,
            represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
            path_with_escaped_slashes_action,
            request_id_extension,
            local_reply_config,
            strip_matching_host_port,
            path_normalization_options,
            strip_trailing_host_dot,
            proxy_status_config,
            typed_header_validation_config,
            append_x_forwarded_port,
            append_local_overload,
            forward_proto_config,
        );
        field::only("generate_request_id", generate_request_id, Holds::True)?;
        check_filters(http_filters)?;
        Ok(HttpConnectionManager {
            stat_prefix: field::not_empty("stat_prefix", stat_prefix)?,
            codec: check_codec(codec_type)?,
            routes: check_routes(route_specifier)?,
            access_logs: field::each("access_log", access_log, access_log::check)?,
            use_remote_address: field::truth(use_remote_address).unwrap_or(false),
            normalize_path: field::truth(normalize_path).unwrap_or(false),
            merge_slashes,
            upgrades: field::each("upgrade_configs", upgrade_configs, check_upgrade)?,
            stream_idle_timeout: field::duration("stream_idle_timeout", stream_idle_timeout)?,
            strip_port: strip_port_mode == Some(StripPortMode::StripAnyHostPort(true)),
        })
    }
}

/// The router, Envoy's last HTTP filter. Its `x-envoy-*` headers are kept: App Mesh's proxies sent them.
fn router() -> proto::HttpFilter {
    proto::HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(ConfigType::TypedConfig(field::pack(&Router::default()))),
        ..Default::default()
    }
}

fn check_filters(mut filters: Vec<proto::HttpFilter>) -> Checked<()> {
    let last = filters.pop();
    if let Some(other) = filters.first() {
        return Err(Refusal::new(
            "http_filters",
            format_args!("{} is not supported; only the router is", other.name),
        ));
    }
    let last = field::required("http_filters", last)?;
    check_router(last).under("http_filters[0]")
}

fn check_router(filter: proto::HttpFilter) -> Checked<()> {
    let proto::HttpFilter {
        name,
        is_optional: _,
        disabled,
        config_type,
    } = filter;
    refuse!(disabled);
    let Some(ConfigType::TypedConfig(config)) = config_type else {
        return Err(Refusal::missing("typed_config"));
    };
    if config.type_url != Router::type_url() {
        let why = format_args!("{} is not supported; only the router is", config.type_url);
        return Err(Refusal::new(name, why));
    }
    let Router {
        dynamic_stats: _,
        start_child_span: _, // a span per try is always made
        upstream_log,
        upstream_log_options: _,
        suppress_envoy_headers,
        strict_check_headers,
        respect_expected_rq_timeout,
        suppress_grpc_request_failure_code_stats: _,
        upstream_http_filters,
        reject_connect_request_early_data: _,
    } = field::unpack("typed_config", &config)?;
    refuse!(
        upstream_log,
        suppress_envoy_headers,
        strict_check_headers,
        respect_expected_rq_timeout,
        upstream_http_filters,
    );
    Ok(())
}

fn check_codec(codec: i32) -> Checked<Codec> {
    match field::named("codec_type", codec)? {
        CodecType::Auto => Ok(Codec::Auto),
        CodecType::Http1 => Ok(Codec::Http1),
        CodecType::Http2 => Ok(Codec::Http2),
        CodecType::Http3 => Err(Refusal::new("codec_type", "HTTP3 is not supported")),
    }
}

fn check_routes(specifier: Option<RouteSpecifier>) -> Checked<RouteSource> {
    match field::required("route_specifier", specifier)? {
        RouteSpecifier::Rds(proto::Rds {
            config_source,
            route_config_name,
        }) => {
            field::from_ads("rds.config_source", config_source)?;
            field::not_empty("rds.route_config_name", route_config_name).map(RouteSource::Rds)
        }
        RouteSpecifier::RouteConfig(table) => RouteConfiguration::check(table)
            .map(RouteSource::Inline)
            .under("route_config"),
        RouteSpecifier::ScopedRoutes(_) => Err(Refusal::unsupported("scoped_routes")),
    }
}

fn check_upgrade(upgrade: UpgradeConfig) -> Checked<String> {
    let UpgradeConfig {
        upgrade_type,
        filters,
        enabled,
    } = upgrade;
    refuse!(filters);
    field::only("enabled", enabled, Holds::True)?;
    field::not_empty("upgrade_type", upgrade_type)
}
