// SPDX-License-Identifier: Apache-2.0
//! The one place that names the generated protobuf crate; everything else says `proto::…`.

pub use envoy_types::pb::envoy;
pub use envoy_types::pb::google;

pub use envoy::config::accesslog::v3 as accesslog;
pub use envoy::config::cluster::v3 as cluster;
pub use envoy::config::core::v3 as core;
pub use envoy::config::endpoint::v3 as endpoint;
pub use envoy::config::listener::v3 as listener;
pub use envoy::config::route::v3 as route;
pub use envoy::extensions::access_loggers::file::v3 as file_log;
pub use envoy::extensions::access_loggers::stream::v3 as stream_log;
pub use envoy::extensions::filters::http::router::v3 as router;
pub use envoy::extensions::filters::listener as listener_filter;
pub use envoy::extensions::filters::network::http_connection_manager::v3 as http;
pub use envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
pub use envoy::extensions::transport_sockets::tls::v3 as tls;
pub use envoy::extensions::upstreams::http::v3 as upstream_http;
pub use envoy::service::discovery::v3 as discovery;
pub use envoy::r#type::matcher::v3 as matcher;
pub use envoy::r#type::v3 as kind;
pub use google::protobuf::Any;
