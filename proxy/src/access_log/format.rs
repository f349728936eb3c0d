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

use super::operator::Operator;
use crate::error::Flags;
use crate::tls::session::Session;

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
    /// What the caller's handshake said.
    pub tls: Option<&'a Session>,
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
pub(super) struct Names {
    pub(super) request: Vec<HeaderName>,
    pub(super) response: Vec<HeaderName>,
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
            tls: None,
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
    fn grpc_codes_have_three_spellings() {
        let of = |text: &str| {
            let mut out = Vec::new();
            let line = Line {
                grpc_status: Some("4"),
                ..line(&[], &[])
            };
            let log = compiled(xds::AccessLogFormat::Text(text.to_owned())).unwrap();
            log.format(&line, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(of("%GRPC_STATUS%"), "DeadlineExceeded");
        assert_eq!(of("%GRPC_STATUS(SNAKE_STRING)%"), "DEADLINE_EXCEEDED");
        assert_eq!(of("%GRPC_STATUS(NUMBER)% %GRPC_STATUS_NUMBER%"), "4 4");
    }

    #[test]
    fn what_never_has_a_value_here_is_printed_as_absent_not_refused() {
        let text = "%DYNAMIC_METADATA(a:b)% %UPSTREAM_REMOTE_PORT% %DOWNSTREAM_TLS_VERSION% %RESPONSE_TX_DURATION%";
        let text = written(xds::AccessLogFormat::Text(text.to_owned()), &[]);
        assert_eq!(text, "- 80 - 3");
        let why = compiled(xds::AccessLogFormat::Text("%NO_SUCH%".to_owned()));
        assert!(why.unwrap_err().contains("NO_SUCH"));
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
