// SPDX-License-Identifier: Apache-2.0
//! Access log formats with Envoy's command operators, compiled at configuration time: an unknown operator refuses the
//! listener by name instead of printing nothing. Pure.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use http::HeaderName;
use http::HeaderValue;
use pillion_xds::listener as xds;

use super::time;
use crate::error::Flags;

const DEFAULT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
\"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// A compiled access log.
#[derive(Debug)]
pub struct Log {
    /// Where it goes.
    pub path: Arc<str>,
    layout: Layout,
    /// Request headers that must be kept for the line.
    pub request_names: Vec<HeaderName>,
    /// Response headers that must be kept for the line.
    pub response_names: Vec<HeaderName>,
}

#[derive(Debug)]
enum Layout {
    Text(Vec<Piece>),
    Json(Vec<(String, Vec<Piece>)>),
}

#[derive(Debug)]
enum Piece {
    Literal(String),
    Operator {
        operator: Operator,
        limit: Option<usize>,
    },
}

#[derive(Debug)]
enum Operator {
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
    RemoteAddress { port: bool },
    LocalAddress { port: bool },
    LocalPort,
    ServerName,
    PeerUri,
    RouteName,
    ConnectionId,
    TraceId,
    GrpcStatus,
    Hostname,
}

#[derive(Debug)]
enum Field {
    Method,
    Path,
    Authority,
    Scheme,
    Kept(usize),
}

/// What one line is written from.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// First byte of the request.
    pub start: SystemTime,
    /// Until the last byte.
    pub duration: Duration,
    /// Until the request's last byte.
    pub request_duration: Option<Duration>,
    /// Until the response headers.
    pub response_duration: Option<Duration>,
    /// Method, if HTTP.
    pub method: Option<&'a str>,
    /// Path and query.
    pub path: Option<&'a str>,
    /// Authority.
    pub authority: Option<&'a str>,
    /// Scheme.
    pub scheme: &'a str,
    /// `HTTP/1.1` and so on.
    pub protocol: Option<&'a str>,
    /// 0 if there was no answer.
    pub status: u16,
    /// How it came about.
    pub details: &'a str,
    /// What went wrong.
    pub flags: Flags,
    /// Of the request body.
    pub bytes_received: u64,
    /// Of the response body.
    pub bytes_sent: u64,
    /// Endpoint.
    pub upstream: Option<SocketAddr>,
    /// Cluster.
    pub cluster: Option<&'a str>,
    /// What the transport said.
    pub transport_failure: Option<&'a str>,
    /// Tries.
    pub attempts: u32,
    /// Who called.
    pub remote: SocketAddr,
    /// Where the call came in.
    pub local: SocketAddr,
    /// SNI.
    pub server_name: Option<&'a str>,
    /// URI of the caller's certificate.
    pub peer_uri: Option<&'a str>,
    /// Route.
    pub route: Option<&'a str>,
    /// Number of the connection.
    pub connection: u64,
    /// Trace.
    pub trace_id: Option<u128>,
    /// gRPC status of the answer.
    pub grpc_status: Option<&'a str>,
    /// Values of `request_names`.
    pub request: &'a [Option<HeaderValue>],
    /// Values of `response_names`.
    pub response: &'a [Option<HeaderValue>],
}

impl Log {
    /// Compiles a format; the error names the operator.
    pub fn compile(source: &xds::AccessLog) -> Result<Log, String> {
        let mut names = Names::default();
        let layout = match &source.format {
            xds::AccessLogFormat::Default => Layout::Text(names.pieces(DEFAULT)?),
            xds::AccessLogFormat::Text(text) => Layout::Text(names.pieces(text)?),
            xds::AccessLogFormat::Json(fields) => {
                let one = |(key, text): &(String, String)| Ok((key.clone(), names.pieces(text)?));
                Layout::Json(fields.iter().map(one).collect::<Result<_, String>>()?)
            }
        };
        Ok(Log {
            path: Arc::from(source.path.as_str()),
            layout,
            request_names: names.request,
            response_names: names.response,
        })
    }

    /// Appends one line.
    pub fn format(&self, line: &Line<'_>, out: &mut Vec<u8>) {
        let mut text = String::with_capacity(256);
        match &self.layout {
            Layout::Text(pieces) => pieces.iter().for_each(|piece| piece.write(line, &mut text)),
            Layout::Json(fields) => {
                text.push('{');
                for (index, (key, pieces)) in fields.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    text.push_str(comma);
                    write_json(&mut text, key, pieces, line);
                }
                text.push_str("}\n");
            }
        }
        out.extend_from_slice(text.as_bytes());
    }
}

/// A value of a single operator that is a number stays one, and one without value is null, as Envoy has it.
fn write_json(text: &mut String, key: &str, pieces: &[Piece], line: &Line<'_>) {
    let mut value = String::new();
    pieces
        .iter()
        .for_each(|piece| piece.write(line, &mut value));
    let json = match pieces {
        [Piece::Operator { .. }] if value == "-" => serde_json::Value::Null,
        [Piece::Operator { operator, .. }] if operator.is_number() => value
            .parse::<u64>()
            .map_or(serde_json::Value::String(value), serde_json::Value::from),
        _ => serde_json::Value::String(value),
    };
    let written = write!(text, "{}:{json}", serde_json::Value::from(key));
    debug_assert!(written.is_ok(), "writing to a String cannot fail");
}

#[derive(Default)]
struct Names {
    request: Vec<HeaderName>,
    response: Vec<HeaderName>,
}

impl Names {
    fn pieces(&mut self, format: &str) -> Result<Vec<Piece>, String> {
        let mut pieces = Vec::new();
        let mut rest = format;
        while let Some(at) = rest.find('%') {
            if at > 0 {
                pieces.push(Piece::Literal(rest[..at].to_owned()));
            }
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                pieces.push(Piece::Literal("%".to_owned()));
                rest = after;
                continue;
            }
            let (piece, after) = self.operator(rest)?;
            pieces.push(piece);
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.to_owned()));
        }
        Ok(pieces)
    }

    /// `NAME`, `NAME(argument)`, `NAME(argument):limit`, up to the closing percent sign.
    fn operator<'f>(&mut self, text: &'f str) -> Result<(Piece, &'f str), String> {
        let unclosed = || format!("%{text}: no closing %");
        let name_end = text.find(['(', ':', '%']).ok_or_else(unclosed)?;
        let (name, mut rest) = text.split_at(name_end);
        let mut argument = None;
        if let Some(inside) = rest.strip_prefix('(') {
            let (found, after) = inside.split_once(')').ok_or_else(unclosed)?;
            argument = Some(found);
            rest = after;
        }
        let (limit, after) = rest.split_once('%').ok_or_else(unclosed)?;
        let limit = match limit.strip_prefix(':') {
            Some(number) => Some(
                number
                    .parse()
                    .map_err(|_| format!("%{name}%: {number:?} is no length"))?,
            ),
            None => None,
        };
        Ok((
            Piece::Operator {
                operator: self.named(name, argument)?,
                limit,
            },
            after,
        ))
    }

    fn named(&mut self, name: &str, argument: Option<&str>) -> Result<Operator, String> {
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
            "UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS" => Operator::UpstreamHost,
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
            "DOWNSTREAM_PEER_URI_SAN" => Operator::PeerUri,
            "ROUTE_NAME" => Operator::RouteName,
            "CONNECTION_ID" => Operator::ConnectionId,
            "TRACE_ID" => Operator::TraceId,
            "GRPC_STATUS" | "GRPC_STATUS_NUMBER" => Operator::GrpcStatus,
            "HOSTNAME" => Operator::Hostname,
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

impl Piece {
    fn write(&self, line: &Line<'_>, out: &mut String) {
        match self {
            Piece::Literal(text) => out.push_str(text),
            Piece::Operator {
                operator,
                limit: None,
            } => operator.write(line, out),
            Piece::Operator {
                operator,
                limit: Some(limit),
            } => {
                let mut value = String::new();
                operator.write(line, &mut value);
                out.extend(value.chars().take(*limit));
            }
        }
    }
}

impl Operator {
    fn is_number(&self) -> bool {
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
        )
    }

    fn write(&self, line: &Line<'_>, out: &mut String) {
        let ms = |took: Duration| took.as_millis();
        match self {
            Operator::StartTime(pattern) => time::format(pattern, line.start, out),
            Operator::Request(fields) => header(fields, line, line.request, out),
            Operator::Response(fields) => header(fields, line, line.response, out),
            Operator::Protocol => optional(line.protocol, out),
            Operator::ResponseCode => show(line.status, out),
            Operator::Details => optional(
                Some(line.details).filter(|details| !details.is_empty()),
                out,
            ),
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
            Operator::PeerUri => optional(line.peer_uri, out),
            Operator::RouteName => optional(line.route, out),
            Operator::ConnectionId => show(line.connection, out),
            Operator::TraceId => optional(line.trace_id.map(|id| format!("{id:032x}")), out),
            Operator::GrpcStatus => optional(line.grpc_status, out),
            Operator::Hostname => optional(hostname(), out),
        }
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
    for letter in String::from_utf8_lossy(bytes).chars() {
        if letter.is_control() {
            out.extend(letter.escape_default());
        } else {
            out.push(letter);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn line<'a>(
        request: &'a [Option<HeaderValue>],
        response: &'a [Option<HeaderValue>],
    ) -> Line<'a> {
        Line {
            start: UNIX_EPOCH,
            duration: Duration::from_millis(12),
            request_duration: None,
            response_duration: Some(Duration::from_millis(9)),
            method: Some("GET"),
            path: Some("/a?b"),
            authority: Some("shop"),
            scheme: "http",
            protocol: Some("HTTP/1.1"),
            status: 200,
            details: "via_upstream",
            flags: Flags::NONE,
            bytes_received: 0,
            bytes_sent: 5,
            upstream: Some(SocketAddr::from(([127, 0, 0, 1], 80))),
            cluster: Some("c"),
            transport_failure: None,
            attempts: 1,
            remote: SocketAddr::from(([10, 0, 0, 1], 5)),
            local: SocketAddr::from(([10, 0, 0, 2], 6)),
            server_name: None,
            peer_uri: None,
            route: Some("r"),
            connection: 1,
            trace_id: None,
            grpc_status: None,
            request,
            response,
        }
    }

    fn compiled(format: xds::AccessLogFormat) -> Result<Log, String> {
        Log::compile(&xds::AccessLog {
            path: "/dev/null".to_owned(),
            format,
        })
    }

    fn written(format: xds::AccessLogFormat, request: &[Option<HeaderValue>]) -> String {
        let mut out = Vec::new();
        compiled(format)
            .unwrap()
            .format(&line(request, &[None]), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_default_line_is_envoy_s() {
        let kept = [None, None, Some(HeaderValue::from_static("curl")), None];
        assert_eq!(
            written(xds::AccessLogFormat::Default, &kept),
            "[1970-01-01T00:00:00.000Z] \"GET /a?b HTTP/1.1\" 200 - 0 5 12 - \"-\" \"curl\" \"-\" \"shop\" \"127.0.0.1:80\"\n"
        );
    }

    #[test]
    fn text_gets_no_newline_of_ours_and_operators_may_be_cut() {
        let text = "x %PROTOCOL:4%:%DURATION% 100%%".to_owned();
        assert_eq!(
            written(xds::AccessLogFormat::Text(text), &[]),
            "x HTTP:12 100%"
        );
    }

    #[test]
    fn json_keeps_order_numbers_and_nulls() {
        let field = |key: &str, text: &str| (key.to_owned(), text.to_owned());
        let fields = vec![
            field("z", "%RESPONSE_CODE%"),
            field("a", "%REQ(X-A)%"),
            field("m", "%REQ(:METHOD)% x"),
        ];
        assert_eq!(
            written(xds::AccessLogFormat::Json(fields), &[None]),
            "{\"z\":200,\"a\":null,\"m\":\"GET x\"}\n"
        );
    }

    #[test]
    fn an_unknown_operator_is_named() {
        let error = compiled(xds::AccessLogFormat::Text("%MAGIC%".to_owned())).unwrap_err();
        assert!(error.contains("%MAGIC%"), "{error}");
        assert!(compiled(xds::AccessLogFormat::Text("%REQ(x".to_owned())).is_err());
    }

    #[test]
    fn control_characters_cannot_forge_lines() {
        let kept = [Some(HeaderValue::from_bytes(b"a\tb").unwrap())];
        assert_eq!(
            written(xds::AccessLogFormat::Text("%REQ(X-A)%".to_owned()), &kept),
            "a\\tb"
        );
    }
}
