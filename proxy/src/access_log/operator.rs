// SPDX-License-Identifier: Apache-2.0
//! Envoy's command operators: their names, and what each writes of a line. Pure; called by `format`.

use std::fmt::Write;
use std::time::Duration;

use http::HeaderName;
use http::HeaderValue;

use super::format::Line;
use super::format::Names;
use super::time;
use crate::tls::session::Fact;
use crate::tls::session::Session;

#[derive(Debug)]
pub(super) enum Operator {
    StartTime(String),
    Request(Vec<Field>),
    Response(Vec<Field>),
    Protocol,
    ResponseCode,
    Details,
    Flags,
    BytesReceived,
    BytesSent,
    Duration,
    RequestDuration,
    ResponseDuration,
    UpstreamHost,
    UpstreamCluster,
    TransportFailure,
    Attempts,
    RemoteAddress {
        port: bool,
    },
    LocalAddress {
        port: bool,
    },
    LocalPort,
    ServerName,
    TlsVersion,
    TlsCipher,
    Caller(Fact),
    RouteName,
    ConnectionId,
    TraceId,
    GrpcStatus(GrpcForm),
    Hostname,
    TransferDuration,
    UpstreamIp,
    UpstreamPort,
    RemotePort,
    Environment(Option<String>),
    /// What Envoy knows and this proxy never has: printed as absent, as there.
    Absent,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum GrpcForm {
    Camel,
    Snake,
    Number,
}

/// gRPC's codes, by number.
const GRPC: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

/// Operators of Envoy whose value never exists here: no filter writes metadata or filter state, and the rest is not kept.
/// A format that names them must not cost the listener.
const ABSENT: [&str; 35] = [
    "CONNECTION_TERMINATION_DETAILS",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS",
    "DOWNSTREAM_HANDSHAKE_DURATION",
    "DOWNSTREAM_HEADER_BYTES_RECEIVED",
    "DOWNSTREAM_HEADER_BYTES_SENT",
    "DOWNSTREAM_LOCAL_DNS_SAN",
    "DOWNSTREAM_LOCAL_IP_SAN",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_PEER_CERT_V_END",
    "DOWNSTREAM_PEER_CERT_V_START",
    "DOWNSTREAM_TLS_SESSION_ID",
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    "DOWNSTREAM_WIRE_BYTES_RECEIVED",
    "DOWNSTREAM_WIRE_BYTES_SENT",
    "DYNAMIC_METADATA",
    "FILTER_CHAIN_NAME",
    "FILTER_STATE",
    "METADATA",
    "STREAM_ID",
    "TRAILER",
    "UPSTREAM_CONNECTION_ID",
    "UPSTREAM_CLUSTER_RAW",
    "UPSTREAM_FILTER_STATE",
    "UPSTREAM_HEADER_BYTES_RECEIVED",
    "UPSTREAM_HEADER_BYTES_SENT",
    "UPSTREAM_LOCAL_ADDRESS",
    "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_LOCAL_PORT",
    "UPSTREAM_METADATA",
    "UPSTREAM_PEER_SUBJECT",
    "UPSTREAM_PROTOCOL",
    "UPSTREAM_WIRE_BYTES_RECEIVED",
    "UPSTREAM_WIRE_BYTES_SENT",
];

#[derive(Debug)]
pub(super) enum Field {
    Method,
    Path,
    Authority,
    Scheme,
    Kept(usize),
}

impl Names {
    /// The operator of this name.
    pub(super) fn named(&mut self, name: &str, argument: Option<&str>) -> Result<Operator, String> {
        Ok(match name {
            "START_TIME" => Operator::StartTime(argument.unwrap_or(time::DEFAULT).to_owned()),
            "REQ" => Operator::Request(fields(argument, name, &mut self.request)?),
            "RESP" => Operator::Response(fields(argument, name, &mut self.response)?),
            "PROTOCOL" => Operator::Protocol,
            "RESPONSE_CODE" => Operator::ResponseCode,
            "RESPONSE_CODE_DETAILS" => Operator::Details,
            "RESPONSE_FLAGS" => Operator::Flags,
            "BYTES_RECEIVED" => Operator::BytesReceived,
            "BYTES_SENT" => Operator::BytesSent,
            "DURATION" => Operator::Duration,
            "REQUEST_DURATION" => Operator::RequestDuration,
            "RESPONSE_DURATION" => Operator::ResponseDuration,
            "UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS" | "UPSTREAM_HOST_NAME" => {
                Operator::UpstreamHost
            }
            "UPSTREAM_CLUSTER" => Operator::UpstreamCluster,
            "UPSTREAM_TRANSPORT_FAILURE_REASON" => Operator::TransportFailure,
            "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Operator::Attempts,
            "DOWNSTREAM_REMOTE_ADDRESS" | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => {
                Operator::RemoteAddress { port: true }
            }
            "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT"
            | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => {
                Operator::RemoteAddress { port: false }
            }
            "DOWNSTREAM_LOCAL_ADDRESS" => Operator::LocalAddress { port: true },
            "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Operator::LocalAddress { port: false },
            "DOWNSTREAM_LOCAL_PORT" => Operator::LocalPort,
            "REQUESTED_SERVER_NAME" => Operator::ServerName,
            "DOWNSTREAM_TLS_VERSION" => Operator::TlsVersion,
            "DOWNSTREAM_TLS_CIPHER" => Operator::TlsCipher,
            "DOWNSTREAM_PEER_URI_SAN" => Operator::Caller(Fact::Uris),
            "DOWNSTREAM_PEER_DNS_SAN" => Operator::Caller(Fact::Names),
            "DOWNSTREAM_PEER_IP_SAN" => Operator::Caller(Fact::Addresses),
            "DOWNSTREAM_PEER_SUBJECT" => Operator::Caller(Fact::Subject),
            "DOWNSTREAM_PEER_ISSUER" => Operator::Caller(Fact::Issuer),
            "DOWNSTREAM_PEER_SERIAL" => Operator::Caller(Fact::Serial),
            "DOWNSTREAM_PEER_FINGERPRINT_256" => Operator::Caller(Fact::Fingerprint256),
            "DOWNSTREAM_PEER_FINGERPRINT_1" => Operator::Caller(Fact::Fingerprint1),
            "ROUTE_NAME" => Operator::RouteName,
            "CONNECTION_ID" => Operator::ConnectionId,
            "TRACE_ID" => Operator::TraceId,
            "GRPC_STATUS_NUMBER" => Operator::GrpcStatus(GrpcForm::Number),
            "GRPC_STATUS" => Operator::GrpcStatus(match argument {
                None | Some("CAMEL_STRING") => GrpcForm::Camel,
                Some("SNAKE_STRING") => GrpcForm::Snake,
                Some("NUMBER") => GrpcForm::Number,
                Some(other) => {
                    return Err(format!(
                        "%GRPC_STATUS({other})%: the form is CAMEL_STRING, SNAKE_STRING or NUMBER"
                    ));
                }
            }),
            "HOSTNAME" => Operator::Hostname,
            "RESPONSE_TX_DURATION" => Operator::TransferDuration,
            "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Operator::UpstreamIp,
            "UPSTREAM_REMOTE_PORT" => Operator::UpstreamPort,
            "DOWNSTREAM_REMOTE_PORT" | "DOWNSTREAM_DIRECT_REMOTE_PORT" => Operator::RemotePort,
            "ENVIRONMENT" => {
                let name = argument.filter(|name| !name.is_empty());
                let name = name.ok_or("%ENVIRONMENT% needs a variable in parentheses")?;
                Operator::Environment(std::env::var(name).ok())
            }
            absent if ABSENT.contains(&absent) => Operator::Absent,
            other => {
                return Err(format!(
                    "operator %{other}% is not supported; leave it out of the format"
                ));
            }
        })
    }
}

/// `A?B`: the first that is present.
fn fields(
    argument: Option<&str>,
    operator: &str,
    names: &mut Vec<HeaderName>,
) -> Result<Vec<Field>, String> {
    let argument =
        argument.ok_or_else(|| format!("%{operator}% needs a header name in parentheses"))?;
    let one = |name: &str| match name.to_ascii_lowercase().as_str() {
        ":method" => Ok(Field::Method),
        ":path" => Ok(Field::Path),
        ":authority" | "host" => Ok(Field::Authority),
        ":scheme" => Ok(Field::Scheme),
        other => {
            let name: HeaderName = other
                .parse()
                .map_err(|_| format!("%{operator}({name})%: not a header name"))?;
            let at = names
                .iter()
                .position(|known| *known == name)
                .unwrap_or_else(|| {
                    names.push(name);
                    names.len() - 1
                });
            Ok(Field::Kept(at))
        }
    };
    argument.split('?').map(one).collect()
}

impl Operator {
    pub(super) fn is_number(&self) -> bool {
        matches!(
            self,
            Operator::ResponseCode
                | Operator::BytesReceived
                | Operator::BytesSent
                | Operator::Duration
                | Operator::RequestDuration
                | Operator::ResponseDuration
                | Operator::Attempts
                | Operator::LocalPort
                | Operator::ConnectionId
                | Operator::TransferDuration
                | Operator::UpstreamPort
                | Operator::RemotePort
                | Operator::GrpcStatus(GrpcForm::Number)
        )
    }

    pub(super) fn write(&self, line: &Line<'_>, out: &mut String) {
        let ms = |took: Duration| took.as_millis();
        match self {
            Operator::StartTime(pattern) => time::format(pattern, line.start, out),
            Operator::Request(fields) => header(fields, line, line.request, out),
            Operator::Response(fields) => header(fields, line, line.response, out),
            Operator::Protocol => optional(line.protocol, out),
            Operator::ResponseCode => show(line.status, out),
            Operator::Details => details(line, out),
            Operator::Flags => out.push_str(&line.flags.text()),
            Operator::BytesReceived => show(line.bytes_received, out),
            Operator::BytesSent => show(line.bytes_sent, out),
            Operator::Duration => show(ms(line.duration), out),
            Operator::RequestDuration => optional(line.request_duration.map(ms), out),
            Operator::ResponseDuration => optional(line.response_duration.map(ms), out),
            Operator::UpstreamHost => optional(line.upstream, out),
            Operator::UpstreamCluster => optional(line.cluster, out),
            Operator::TransportFailure => optional(line.transport_failure, out),
            Operator::Attempts => show(line.attempts, out),
            Operator::RemoteAddress { port: true } => show(line.remote, out),
            Operator::RemoteAddress { port: false } => show(line.remote.ip(), out),
            Operator::LocalAddress { port: true } => show(line.local, out),
            Operator::LocalAddress { port: false } => show(line.local.ip(), out),
            Operator::LocalPort => show(line.local.port(), out),
            Operator::ServerName => optional(line.server_name, out),
            Operator::TlsVersion => optional(line.tls.and_then(Session::version), out),
            Operator::TlsCipher => optional(line.tls.and_then(Session::cipher), out),
            Operator::Caller(fact) => {
                let said = line.tls.and_then(|session| session.caller(*fact));
                match said {
                    Some(said) => escape(&said, out),
                    None => out.push('-'),
                }
            }
            Operator::RouteName => optional(line.route, out),
            Operator::ConnectionId => show(line.connection, out),
            Operator::TraceId => optional(line.trace_id.map(|id| format!("{id:032x}")), out),
            Operator::GrpcStatus(form) => {
                optional(line.grpc_status.map(|status| grpc_text(status, *form)), out)
            }
            Operator::TransferDuration => {
                let sent = line.response_duration;
                optional(sent.map(|head| ms(line.duration.saturating_sub(head))), out);
            }
            Operator::UpstreamIp => optional(line.upstream.map(|addr| addr.ip()), out),
            Operator::UpstreamPort => optional(line.upstream.map(|addr| addr.port()), out),
            Operator::RemotePort => show(line.remote.port(), out),
            Operator::Environment(value) => optional(value.as_deref(), out),
            Operator::Absent => out.push('-'),
            Operator::Hostname => optional(hostname(), out),
        }
    }
}

/// A code that gRPC does not have stays a number, as in Envoy.
fn grpc_text(status: &str, form: GrpcForm) -> &str {
    let named = status.parse::<usize>().ok().and_then(|code| GRPC.get(code));
    match (form, named) {
        (GrpcForm::Number, _) | (_, None) => status,
        (GrpcForm::Camel, Some((camel, _))) => camel,
        (GrpcForm::Snake, Some((_, snake))) => snake,
    }
}

fn hostname() -> Option<&'static str> {
    static NAME: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let read = || {
        std::fs::read_to_string("/proc/sys/kernel/hostname")
            .ok()
            .map(|name| name.trim().to_owned())
    };
    NAME.get_or_init(read).as_deref()
}

fn show(value: impl std::fmt::Display, out: &mut String) {
    let written = write!(out, "{value}");
    debug_assert!(written.is_ok(), "writing to a String cannot fail");
}

/// A failed connection's transport has a word to say, in which Envoy leaves no spaces.
fn details(line: &Line<'_>, out: &mut String) {
    match (
        line.details.strip_suffix("connection_failure}"),
        line.transport_failure,
    ) {
        (Some(start), Some(why)) => {
            out.push_str(start);
            out.push_str("connection_failure|");
            out.extend(
                why.chars()
                    .map(|letter| if letter == ' ' { '_' } else { letter }),
            );
            out.push('}');
        }
        _ => optional(
            Some(line.details).filter(|details| !details.is_empty()),
            out,
        ),
    }
}

fn optional(value: Option<impl std::fmt::Display>, out: &mut String) {
    match value {
        Some(value) => show(value, out),
        None => out.push('-'),
    }
}

/// Bytes that would break the line (quotes aside) are escaped: a caller must not write lines of its own.
fn header(fields: &[Field], line: &Line<'_>, kept: &[Option<HeaderValue>], out: &mut String) {
    let found = fields.iter().find_map(|field| match field {
        Field::Method => line.method.map(str::as_bytes),
        Field::Path => line.path.map(str::as_bytes),
        Field::Authority => line.authority.map(str::as_bytes),
        Field::Scheme => Some(line.scheme.as_bytes()),
        Field::Kept(at) => kept.get(*at)?.as_ref().map(HeaderValue::as_bytes),
    });
    let Some(bytes) = found else {
        out.push('-');
        return;
    };
    escape(&String::from_utf8_lossy(bytes), out);
}

fn escape(text: &str, out: &mut String) {
    for letter in text.chars() {
        if letter.is_control() {
            out.extend(letter.escape_default());
        } else {
            out.push(letter);
        }
    }
}
