// SPDX-License-Identifier: Apache-2.0
//! Listeners of virtual nodes and gateways: port and protocol, pools, health checks, outliers, timeouts.

use serde::{Deserialize, Serialize};

use crate::tls::ListenerTls;

/// A listener's protocol; gateways know no `tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Protocol {
    Http,
    Tcp,
    Http2,
    Grpc,
}

impl Protocol {
    /// As written in specs and cluster names.
    pub fn word(self) -> &'static str {
        match self {
            Protocol::Http => "http",
            Protocol::Tcp => "tcp",
            Protocol::Http2 => "http2",
            Protocol::Grpc => "grpc",
        }
    }

    /// True for what carries requests, that is all but `tcp`.
    pub fn is_http(self) -> bool {
        self != Protocol::Tcp
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    pub port: u16,
    pub protocol: Protocol,
}

/// A span of time as the API writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duration {
    pub unit: DurationUnit,
    pub value: u64,
}

impl Duration {
    /// The same as a standard duration; zero means "no limit" wherever the API takes one.
    pub fn to_std(self) -> std::time::Duration {
        match self.unit {
            DurationUnit::Seconds => std::time::Duration::from_secs(self.value),
            DurationUnit::Milliseconds => std::time::Duration::from_millis(self.value),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DurationUnit {
    #[serde(rename = "s")]
    Seconds,
    #[serde(rename = "ms")]
    Milliseconds,
}

/// A listener of a virtual node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_pool: Option<ConnectionPool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetection>,
    pub port_mapping: PortMapping,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<ListenerTimeout>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
}

/// Limits before the app; the key equals the listener's protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ConnectionPool {
    Tcp(TcpConnectionPool),
    Http(HttpConnectionPool),
    Http2(RequestPool),
    Grpc(RequestPool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpConnectionPool {
    pub max_connections: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpConnectionPool {
    pub max_connections: u32,
    /// 2147483647 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pending_requests: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestPool {
    pub max_requests: u32,
}

/// Active checks that every client makes of every endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    pub healthy_threshold: u32,
    pub interval_millis: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Equals the listener's port when given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    pub protocol: Protocol,
    pub timeout_millis: u64,
    pub unhealthy_threshold: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutlierDetection {
    pub base_ejection_duration: Duration,
    pub interval: Duration,
    pub max_ejection_percent: u8,
    /// A long of the model, hence the width.
    pub max_server_errors: u64,
}

/// Timeouts at the server; the key equals the listener's protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ListenerTimeout {
    Tcp(TcpTimeout),
    Http(HttpTimeout),
    Http2(HttpTimeout),
    Grpc(HttpTimeout),
}

impl ListenerTimeout {
    /// The limit on a whole exchange, if set; never for tcp.
    pub fn per_request(&self) -> Option<std::time::Duration> {
        match self {
            Self::Tcp(_) => None,
            Self::Http(t) | Self::Http2(t) | Self::Grpc(t) => t.per_request.map(Duration::to_std),
        }
    }

    /// The limit on silence, if set.
    pub fn idle(&self) -> Option<std::time::Duration> {
        match self {
            Self::Tcp(t) => t.idle.map(Duration::to_std),
            Self::Http(t) | Self::Http2(t) | Self::Grpc(t) => t.idle.map(Duration::to_std),
        }
    }
}

/// `HttpTimeout` and `GrpcTimeout` of the model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpTimeout {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_request: Option<Duration>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpTimeout {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Duration>,
}
