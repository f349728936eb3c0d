// SPDX-License-Identifier: Apache-2.0
//! Hostile HTTP/1.1, both ways, as tables. Requests go over raw sockets to an app that parses strictly and keeps what it
//! hears: of each case it may hear at most one clean request, of those that are to be refused none. Answers come from
//! raw apps: whatever they say, the next request gets its own answer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use pillion_proxy::snapshot::Resources;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

use crate::plane::*;

/// What may come of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// An error, or a closed connection, and the app hears nothing whole.
    Refused,
    /// The app hears exactly one request.
    Passed,
    /// Both are right; two requests never are.
    Safe,
}

use Want::Passed;
use Want::Refused;
use Want::Safe;

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: shop\r\n\r\n";

/// Further header lines, body. All are POSTs of HTTP/1.1 with a good `Host`.
const FRAMING: &[(Want, &str, &str)] = &[
    // Content-Length and Transfer-Encoding together.
    (
        Refused,
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n@",
    ),
    (
        Refused,
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "0\r\n\r\n@",
    ),
    (
        Refused,
        "content-length: 0\r\ntransfer-encoding: chunked\r\n",
        "0\r\n\r\n@",
    ),
    (
        Refused,
        "CONTENT-LENGTH: 30\r\nTRANSFER-ENCODING: CHUNKED\r\n",
        "0\r\n\r\n@",
    ),
    (
        Refused,
        "Content-Length:5\r\nTransfer-Encoding:chunked\r\n",
        "0\r\n\r\n@",
    ),
    (
        Refused,
        "Content-Length: 5\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n@",
    ),
    (
        Refused,
        "Content-Length: 5\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n@",
    ),
    (
        Refused,
        "Content-Length: 5\r\nTransfer-Encoding:\tchunked\r\n",
        "0\r\n\r\n@",
    ),
    (
        Refused,
        "Content-Length: 5\r\nTransfer-Encoding: chunked \r\n",
        "0\r\n\r\n@",
    ),
    (
        Refused,
        "Content-Length: 5\r\nTransfer-Encoding: gzip, chunked\r\n",
        "0\r\n\r\n@",
    ),
    (
        Refused,
        "Content-Length: 5\r\nTransfer-Encoding: identity\r\n",
        "12345@",
    ),
    (
        Refused,
        "Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n",
        "12345@",
    ),
    (
        Refused,
        "Content-Length: 5\r\nTransfer-Encoding:\r\n",
        "12345@",
    ),
    (
        Refused,
        "Content-Length: 5\r\nTransfer-Encoding : chunked\r\n",
        "12345@",
    ),
    (
        Refused,
        "Content-Length: 5\r\nTransfer-Encoding\r\n : chunked\r\n",
        "12345@",
    ),
    (
        Refused,
        "Content-Length: 5\r\nX: y\nTransfer-Encoding: chunked\r\n",
        "12345@",
    ),
    (
        Refused,
        "Content-Length: 5\r\nX: y\rTransfer-Encoding: chunked\r\n",
        "12345@",
    ),
    (
        Safe,
        "Content-Length: 5\r\nTransfer_Encoding: chunked\r\n",
        "12345@",
    ),
    (
        Refused,
        "Content-Length: 5\r\n Transfer-Encoding: chunked\r\n",
        "12345@",
    ),
    (
        Refused,
        "Content-Length: 5\r\nTransfer-Encoding: chunked, identity\r\n",
        "12345@",
    ),
    // Transfer-Encoding alone.
    (Passed, "Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    (Passed, "Transfer-Encoding: Chunked\r\n", "0\r\n\r\n"),
    (
        Refused,
        "Transfer-Encoding: gzip, chunked\r\n",
        "0\r\n\r\n@",
    ),
    (
        Refused,
        "Transfer-Encoding: chunked, gzip\r\n",
        "0\r\n\r\n@",
    ),
    (
        Refused,
        "Transfer-Encoding: chunked, chunked\r\n",
        "0\r\n\r\n@",
    ),
    (Refused, "Transfer-Encoding: ,chunked\r\n", "0\r\n\r\n@"),
    (Refused, "Transfer-Encoding: chunked,\r\n", "0\r\n\r\n@"),
    (Refused, "Transfer-Encoding: identity\r\n", "@"),
    (
        Refused,
        "Transfer-Encoding: identity, chunked\r\n",
        "0\r\n\r\n@",
    ),
    (Refused, "Transfer-Encoding: gzip\r\n", "@"),
    (Refused, "Transfer-Encoding: compress\r\n", "@"),
    (Refused, "Transfer-Encoding: deflate\r\n", "@"),
    (Refused, "Transfer-Encoding: trailers\r\n", "@"),
    (Refused, "Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n@"),
    (Refused, "Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n@"),
    (Refused, "Transfer-Encoding: chunked;\r\n", "0\r\n\r\n@"),
    (Refused, "Transfer-Encoding: chun ked\r\n", "0\r\n\r\n@"),
    (Refused, "Transfer-Encoding: chunke\r\n", "0\r\n\r\n@"),
    (Refused, "Transfer-Encoding: chunkedd\r\n", "0\r\n\r\n@"),
    (Refused, "Transfer-Encoding: x chunked\r\n", "0\r\n\r\n@"),
    (Refused, "Transfer-Encoding: \u{b}chunked\r\n", "0\r\n\r\n@"),
    (Refused, "Transfer-Encoding: chunked\u{b}\r\n", "0\r\n\r\n@"),
    (
        Refused,
        "Transfer-Encoding: chunked\u{a0}\r\n",
        "0\r\n\r\n@",
    ),
    (Refused, "Transfer-Encoding: \0chunked\r\n", "0\r\n\r\n@"),
    (Refused, "Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n@"),
    (Refused, "Transfer-Encoding:\n chunked\r\n", "0\r\n\r\n@"),
    (
        Refused,
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n@",
    ),
    (
        Refused,
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "0\r\n\r\n@",
    ),
    (
        Refused,
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n@",
    ),
    (
        Refused,
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n@",
    ),
    (Refused, "Transfer-Encoding : chunked\r\n", "0\r\n\r\n@"),
    (Refused, "Transfer-Encoding\t: chunked\r\n", "0\r\n\r\n@"),
    (Refused, "\tTransfer-Encoding: chunked\r\n", "0\r\n\r\n@"),
    // Content-Length.
    (Passed, "Content-Length: 5\r\n", "12345"),
    (
        Passed,
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "12345",
    ),
    (Passed, "Content-Length: 005\r\n", "12345"),
    (Passed, "Content-Length: \t5 \r\n", "12345"),
    (
        Refused,
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "12345@",
    ),
    (
        Refused,
        "Content-Length: 0\r\nContent-Length: 5\r\n",
        "12345@",
    ),
    (Refused, "Content-Length: 5, 6\r\n", "12345@"),
    (Safe, "Content-Length: 5, 5\r\n", "12345"),
    (Refused, "Content-Length: 5,\r\n", "12345@"),
    (Refused, "Content-Length: +5\r\n", "12345@"),
    (Refused, "Content-Length: -5\r\n", "12345@"),
    (Refused, "Content-Length: -0\r\n", "@"),
    (Refused, "Content-Length: 0x5\r\n", "12345@"),
    (Refused, "Content-Length: 5a\r\n", "12345@"),
    (Refused, "Content-Length: a5\r\n", "12345@"),
    (Refused, "Content-Length: 5.0\r\n", "12345@"),
    (Refused, "Content-Length: 5e0\r\n", "12345@"),
    (Refused, "Content-Length: 1 2\r\n", "12345@"),
    (Refused, "Content-Length: 5;\r\n", "12345@"),
    (Refused, "Content-Length: \"5\"\r\n", "12345@"),
    (Refused, "Content-Length: \r\n", "@"),
    (Refused, "Content-Length:\r\n", "@"),
    (Refused, "Content-Length: 5\u{a0}\r\n", "12345@"),
    (Refused, "Content-Length: \u{b}5\r\n", "12345@"),
    (Refused, "Content-Length: \u{665}\r\n", "12345@"),
    (Refused, "Content-Length: 18446744073709551616\r\n", "@"),
    (
        Refused,
        "Content-Length: 18446744073709551621\r\n",
        "12345@",
    ),
    (Refused, "Content-Length: 99999999999999999999999\r\n", "@"),
    (Refused, "Content-Length : 5\r\n", "12345@"),
    (Refused, "Content-Length\t: 5\r\n", "12345@"),
    (Refused, " Content-Length: 5\r\n", "12345@"),
    (Refused, "Content-Length:\r\n 5\r\n", "12345@"),
    (Refused, "Content-Length: 5\r\n\t6\r\n", "12345@"),
    (Refused, "Content-Length: 5\0\r\n", "12345@"),
    (Safe, "Content_Length: 5\r\n", "@"),
    (Safe, "X-Content-Length: 5\r\n", ""),
    // Lines and names.
    (Refused, "X-A: b\n", ""),
    (Refused, "X-A: b\nX-B: c\r\n", ""),
    (Refused, "X-A: b\rX-B: c\r\n", ""),
    (Refused, "X-A: b\r\r\n", ""),
    (Refused, "X-A: b\r\n c\r\n", ""),
    (Refused, "X-A: b\r\n\tc\r\n", ""),
    (Refused, "X-A: b\r\n \r\n", ""),
    (Refused, " X-A: b\r\n", ""),
    (Refused, "\tX-A: b\r\n", ""),
    (Refused, "X-A : b\r\n", ""),
    (Refused, "X-A\t: b\r\n", ""),
    (Refused, "X A: b\r\n", ""),
    (Refused, ": b\r\n", ""),
    (Refused, " : b\r\n", ""),
    (Refused, "X-A\r\n", ""),
    (Refused, "X-A b\r\n", ""),
    (Refused, "X-\0A: b\r\n", ""),
    (Refused, "X-A: b\0c\r\n", ""),
    (Refused, "X-A: b\u{1}c\r\n", ""),
    (Refused, "X-A: b\u{7f}c\r\n", ""),
    (Refused, "X-\u{e9}: b\r\n", ""),
    (Refused, "X(A): b\r\n", ""),
    (Refused, "X[A]: b\r\n", ""),
    (Refused, "X{A}: b\r\n", ""),
    (Refused, "X@A: b\r\n", ""),
    (Refused, "X/A: b\r\n", ""),
    (Refused, "X\"A\": b\r\n", ""),
    (Refused, "X,A: b\r\n", ""),
    (Refused, "X;A: b\r\n", ""),
    (Refused, "X<A>: b\r\n", ""),
    (Refused, "X=A: b\r\n", ""),
    (Refused, "X\\A: b\r\n", ""),
    (Refused, ":path: /smuggled\r\n", ""),
    (Passed, "X-A:\r\n", ""),
    (Passed, "X-A: \u{e9}\r\n", ""),
    (Passed, "X.A!#$%&'*+-^_`|~: b\r\n", ""),
    // Expectations and upgrades.
    (Refused, "Expect: 100\r\n", ""),
    (Refused, "Expect: 100-continue, x\r\n", ""),
    (Refused, "Expect: magic\r\nContent-Length: 5\r\n", "12345@"),
    (
        Refused,
        "Expect: 200-ok\r\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n@",
    ),
    (
        Passed,
        "Expect: 100-Continue\r\nContent-Length: 2\r\n",
        "hi",
    ),
    (
        Passed,
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "",
    ),
    (Refused, "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n", "@"),
    (
        Safe,
        "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n",
        "12345@",
    ),
    (
        Passed,
        "Connection: Content-Length\r\nContent-Length: 3\r\n",
        "abc",
    ),
    (
        Passed,
        "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n",
        "3\r\nabc\r\n0\r\n\r\n",
    ),
    (Passed, "Connection: Host, Cookie\r\n", ""),
];

/// Bodies under `Transfer-Encoding: chunked`.
const CHUNKS: &[(Want, &str)] = &[
    (Passed, "3\r\nabc\r\n0\r\n\r\n"),
    (Passed, "03\r\nabc\r\n00\r\n\r\n"),
    (Passed, "A\r\n0123456789\r\n0\r\n\r\n"),
    (Passed, "a\r\n0123456789\r\n0\r\n\r\n"),
    (Passed, "3;ext=1\r\nabc\r\n0;last\r\n\r\n"),
    (Passed, "3;a=\"b;c\"\r\nabc\r\n0\r\n\r\n"),
    (Passed, "3\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\n"),
    (Refused, "0x3\r\nabc\r\n0\r\n\r\n@"),
    (Refused, "+3\r\nabc\r\n0\r\n\r\n@"),
    (Refused, "-3\r\nabc\r\n0\r\n\r\n@"),
    (Refused, "3_0\r\nabc\r\n0\r\n\r\n@"),
    (Refused, " 3\r\nabc\r\n0\r\n\r\n@"),
    (Refused, "\t3\r\nabc\r\n0\r\n\r\n@"),
    (Refused, "g\r\nabc\r\n0\r\n\r\n@"),
    (Refused, "\r\nabc\r\n0\r\n\r\n@"),
    (Refused, ";x\r\nabc\r\n0\r\n\r\n@"),
    (Refused, "3\nabc\r\n0\r\n\r\n@"),
    (Refused, "3\rabc\r\n0\r\n\r\n@"),
    (Refused, "3\r\nabc\n0\r\n\r\n@"),
    (Refused, "3\r\nabc0\r\n\r\n@"),
    (Refused, "3\r\nabcd\r\n0\r\n\r\n@"),
    (Refused, "3\r\nab\r\n0\r\n\r\n@"),
    (Refused, "3\r\nabcX\r\n0\r\n\r\n@"),
    (Refused, "3;a\nb\r\nabc\r\n0\r\n\r\n@"),
    (Refused, "3;a\rb\r\nabc\r\n0\r\n\r\n@"),
    (Refused, "3;\n\r\nabc\r\n0\r\n\r\n@"),
    (Refused, "3,0\r\nabc\r\n0\r\n\r\n@"),
    (Refused, "3.0\r\nabc\r\n0\r\n\r\n@"),
    (Refused, "ffffffffffffffff\r\nabc\r\n0\r\n\r\n@"),
    (Refused, "10000000000000003\r\nabc\r\n0\r\n\r\n@"),
    (
        Refused,
        "00000000000000000000000000000003\r\nabc\r\n0\r\n\r\n@",
    ),
    (Refused, "fffffffffffffffff\r\nabc\r\n0\r\n\r\n@"),
    (Refused, "3\r\nabc\r\n0\n\n@"),
    (Refused, "3\r\nabc\r\n0\r\n\n@"),
    (Refused, "3\r\nabc\r\n0\r\nX: y\n\r\n@"),
    (Refused, "3\r\nabc\r\n-0\r\n\r\n@"),
    (Refused, "3\r\nabc\r\n0x0\r\n\r\n@"),
    (Safe, "3\r\nabc\r\n0\r\nContent-Length: 50\r\n\r\n"),
    (Safe, "3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    (Safe, "3\r\nabc\r\n0\r\nHost: evil\r\n\r\n"),
    (Refused, "3\r\nabc\r\n0\r\nbad line\r\n\r\n@"),
    (Refused, "3\r\nabc\r\n0\r\n: x\r\n\r\n@"),
    (Refused, "3\r\nabc\r\n0\r\nA\0: x\r\n\r\n@"),
    (Refused, "5\r\nabc"),
    (Refused, "3\r\nabc\r\n"),
    (Refused, "3\r\nabc\r\n0\r\n"),
];

/// Request lines; of those that pass, the target the app must hear.
const LINES: &[(Want, &str, &str)] = &[
    (Passed, "GET / HTTP/1.1", "/"),
    (Passed, "GET /a?b=c HTTP/1.1", "/a?b=c"),
    (
        Passed,
        "GET /<a>`\"?q=<\">` HTTP/1.1",
        "/%3Ca%3E%60%22?q=%3C%22%3E%60",
    ),
    (Passed, "GET /{a}|b^c[d] HTTP/1.1", "/{a}|b^c[d]"),
    (Passed, "GET /a/./b HTTP/1.1", "/a/b"),
    (Passed, "GET /a/../b HTTP/1.1", "/b"),
    (Passed, "GET /a//b HTTP/1.1", "/a/b"),
    (Passed, "GET ///a HTTP/1.1", "/a"),
    (Passed, "GET /a/%2e%2e/b HTTP/1.1", "/b"),
    (Passed, "GET /a/.%2E/b HTTP/1.1", "/b"),
    (Passed, "GET http://shop/x HTTP/1.1", "/x"),
    (Passed, "GET HTTP://SHOP/x HTTP/1.1", "/x"),
    (Passed, "GET http://shop HTTP/1.1", "/"),
    (Passed, "GET http://shop?q HTTP/1.1", "/?q"),
    (Passed, "OPTIONS * HTTP/1.1", "*"),
    (Passed, "PROPFIND /a HTTP/1.1", "/a"),
    (Passed, "GET / HTTP/1.0", "/"),
    (Refused, "GET /../a HTTP/1.1", ""),
    (Refused, "GET /a/../../b HTTP/1.1", ""),
    (Refused, "GET /%2e%2e/b HTTP/1.1", ""),
    (Refused, "GET /a%00b HTTP/1.1", ""),
    (Refused, "GET /a\0b HTTP/1.1", ""),
    (Refused, "GET /a#b HTTP/1.1", ""),
    (Refused, "GET /#/../admin HTTP/1.1", ""),
    (Refused, "GET /?a#b HTTP/1.1", ""),
    (Refused, "GET http://shop/#a HTTP/1.1", ""),
    (Refused, "GET a HTTP/1.1", ""),
    (Refused, "GET a/b HTTP/1.1", ""),
    (Refused, "GET * HTTP/1.1", ""),
    (Refused, "GET shop:80 HTTP/1.1", ""),
    (Refused, "GET ftp://shop/ HTTP/1.1", ""),
    (Refused, "GET file:///etc/passwd HTTP/1.1", ""),
    (Refused, "GET http://user@shop/ HTTP/1.1", ""),
    (Refused, "GET http://user:pass@shop/ HTTP/1.1", ""),
    (Refused, "GET http:///a HTTP/1.1", ""),
    (Refused, "GET http://sh op/ HTTP/1.1", ""),
    (Refused, "GET http://shop:80a/ HTTP/1.1", ""),
    (Refused, "GET /a b HTTP/1.1", ""),
    (Refused, "GET  /a HTTP/1.1", ""),
    (Refused, "GET /a  HTTP/1.1", ""),
    (Refused, "GET\t/a\tHTTP/1.1", ""),
    (Refused, " GET /a HTTP/1.1", ""),
    (Refused, "GET /a HTTP/1.1 ", ""),
    (Refused, "GET /a\u{b} HTTP/1.1", ""),
    (Refused, "GET /a", ""),
    (Refused, "GET", ""),
    (Refused, "GET /a HTTP/0.9", ""),
    (Refused, "GET /a HTTP/1.2", ""),
    (Refused, "GET /a HTTP/2.0", ""),
    (Refused, "GET /a HTTP/3", ""),
    (Refused, "GET /a HTTP/1.", ""),
    (Refused, "GET /a HTTP/11", ""),
    (Refused, "GET /a HTTP/1.10", ""),
    (Refused, "GET /a http/1.1", ""),
    (Refused, "GET /a HTTP /1.1", ""),
    (Refused, "GET /a XTTP/1.1", ""),
    (Refused, "G<T /a HTTP/1.1", ""),
    (Refused, "GE\0T /a HTTP/1.1", ""),
    (Refused, "GE(T) /a HTTP/1.1", ""),
    (Refused, "\u{e9} /a HTTP/1.1", ""),
    (Refused, ": /a HTTP/1.1", ""),
    (Refused, "CONNECT shop HTTP/1.1", ""),
    (Refused, "CONNECT /a HTTP/1.1", ""),
    (Refused, "CONNECT shop:80a HTTP/1.1", ""),
    (Refused, "CONNECT shop:0 HTTP/1.1", ""),
    (Refused, "CONNECT http://shop:80/ HTTP/1.1", ""),
    (Refused, "CONNECT user@shop:80 HTTP/1.1", ""),
];

/// `Host` lines of an origin-form request.
const HOSTS: &[(Want, &str)] = &[
    (Passed, "Host: shop\r\n"),
    (Passed, "HOST:shop\r\n"),
    (Passed, "Host: SHOP\r\n"),
    (Passed, "Host: shop:80\r\n"),
    (Passed, "Host: shop \r\n"),
    (Refused, ""),
    (Refused, "Host:\r\n"),
    (Refused, "Host: \r\n"),
    (Refused, "Host: shop\r\nHost: shop\r\n"),
    (Refused, "Host: shop\r\nHost: evil\r\n"),
    (Refused, "Host: shop\r\nhost: evil\r\n"),
    (Refused, "Host: shop, evil\r\n"),
    (Refused, "Host: shop,evil\r\n"),
    (Refused, "Host: shop evil\r\n"),
    (Refused, "Host: sh\top\r\n"),
    (Refused, "Host: user@shop\r\n"),
    (Refused, "Host: shop@evil\r\n"),
    (Refused, "Host: shop/\r\n"),
    (Refused, "Host: shop/a\r\n"),
    (Refused, "Host: shop?a\r\n"),
    (Refused, "Host: shop#a\r\n"),
    (Refused, "Host: shop\\a\r\n"),
    (Refused, "Host: shop:\r\n"),
    (Refused, "Host: shop:80a\r\n"),
    (Refused, "Host: shop:-1\r\n"),
    (Refused, "Host: shop:99999\r\n"),
    (Refused, "Host: shop:80:80\r\n"),
    (Refused, "Host: [::1\r\n"),
    (Refused, "Host: ::1\r\n"),
    (Refused, "Host: [zz]\r\n"),
    (Refused, "Host: [::1]x\r\n"),
    (Refused, "Host: http://shop\r\n"),
    (Refused, "Host: shop\0\r\n"),
    (Refused, "Host: <shop>\r\n"),
    (Refused, "Host: \"shop\"\r\n"),
    (Refused, "Host: sh%6fp\r\n"),
    (Refused, "Host : shop\r\n"),
    (Refused, "Host\r\n"),
    (Refused, "Host: shop\r\n evil\r\n"),
    (Refused, "Host: \u{e9}\r\n"),
];

struct Case {
    want: Want,
    bytes: String,
    target: &'static str,
}

/// What fits no table, whole.
fn odd() -> Vec<(Want, String)> {
    let get = "GET / HTTP/1.1";
    let rest = "Host: shop\r\nX-Case: *";
    let old = format!("POST / HTTP/1.0\r\n{rest}");
    let chunked = format!("POST / HTTP/1.1\r\n{rest}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let long = "b".repeat(70_000);
    vec![
        (
            Refused,
            format!("{old}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n@"),
        ),
        (
            Refused,
            format!("{old}\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n@"),
        ),
        (Passed, format!("{old}\r\nContent-Length: 3\r\n\r\nabc")),
        (Refused, format!("{get}\n{rest}\r\n\r\n")),
        (Refused, format!("{get}\r\n{rest}\r\n\n@")),
        (Refused, format!("{get}\r\n{rest}\n\n@")),
        (Refused, format!("\n{get}\r\n{rest}\r\n\r\n")),
        (Refused, format!("{get}\r\n {rest}\r\n\r\n")),
        (Passed, format!("\r\n{get}\r\n{rest}\r\n\r\n")),
        (
            Refused,
            format!("{get}\r\n{rest}\r\n{}\r\n", "X-A: b\r\n".repeat(300)),
        ),
        (Refused, format!("{get}\r\n{rest}\r\nX-A: {long}\r\n\r\n")),
        (Refused, format!("GET /{long} HTTP/1.1\r\n{rest}\r\n\r\n")),
        (
            Refused,
            format!("{chunked}1;{}\r\na\r\n0\r\n\r\n@", &long[..5000]),
        ),
        (
            Refused,
            "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}".to_owned(),
        ),
    ]
}

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let mut add = |want, head: String, body: &str, target| {
        let bytes = head + &body.replace('@', SMUGGLED);
        all.push(Case {
            want,
            bytes,
            target,
        });
    };
    for (want, headers, body) in FRAMING {
        let head = format!("POST / HTTP/1.1\r\nHost: shop\r\nX-Case: *\r\n{headers}\r\n");
        add(*want, head, body, "");
    }
    for (want, body) in CHUNKS {
        let head =
            "POST / HTTP/1.1\r\nHost: shop\r\nX-Case: *\r\nTransfer-Encoding: chunked\r\n\r\n";
        add(*want, head.to_owned(), body, "");
    }
    for (want, line, target) in LINES {
        add(
            *want,
            format!("{line}\r\nHost: shop\r\nX-Case: *\r\n\r\n"),
            "",
            target,
        );
    }
    for (want, host) in HOSTS {
        add(
            *want,
            format!("GET / HTTP/1.1\r\n{host}X-Case: *\r\n\r\n"),
            "",
            "",
        );
    }
    for (want, bytes) in odd() {
        add(want, bytes.replace('@', SMUGGLED), "", "");
    }
    all
}

/// A whole request as a strict parser reads it: target, the case's number, body.
type Heard = (String, String, Vec<u8>);

/// Reads one request; `None` at the end, or at anything that is not exactly a request.
async fn strict(stream: &mut BufReader<TcpStream>) -> Option<Heard> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    assert_eq!(
        head.matches('\n').count(),
        head.matches("\r\n").count(),
        "{head:?}"
    );
    let mut lines = head.trim_end().split("\r\n");
    let target = lines.next()?.split(' ').nth(1)?.to_owned();
    let mut fields: HashMap<String, String> = HashMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").or(line.split_once(':'))?;
        let name = name.to_ascii_lowercase();
        let framing = ["host", "content-length", "transfer-encoding"].contains(&&*name);
        let before = fields.insert(name, value.to_owned());
        assert!(before.is_none() || !framing, "{head:?}");
    }
    let (length, coding) = (
        fields.get("content-length"),
        fields.get("transfer-encoding"),
    );
    assert!(length.is_none() || coding.is_none(), "{head:?}");
    assert!(
        !head.to_ascii_lowercase().contains("http2-settings"),
        "{head:?}"
    );
    let mut body = Vec::new();
    if let Some(length) = length {
        body.resize(length.parse().ok()?, 0);
        stream.read_exact(&mut body).await.ok()?;
    } else if let Some(coding) = coding {
        assert_eq!(coding, "chunked", "{head:?}");
        while !(body == b"0\r\n\r\n" || body.ends_with(b"\r\n0\r\n\r\n")) {
            body.push(stream.read_u8().await.ok()?);
        }
    }
    let case = fields.get("x-case").cloned().unwrap_or_default();
    Some((target, case, body))
}

/// An app that keeps every whole request it hears and answers with the case's number.
async fn listening_closely() -> (SocketAddr, Arc<Mutex<Vec<Heard>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
    let kept = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                let mut stream = BufReader::new(socket);
                while let Some(request) = strict(&mut stream).await {
                    let case = request.1.clone();
                    kept.lock().push(request);
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{case}",
                        case.len()
                    );
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (addr, heard)
}

fn to(app: SocketAddr) -> Resources {
    let mut bounded = forward(&[("a", 1)]);
    bounded.timeout = Duration::from_millis(700);
    egress(
        vec![static_cluster("a", &[app])],
        vec![route_to("/", bounded.clone()), star(bounded)],
    )
}

/// `OPTIONS *` goes to the app as well.
fn star(forward: pillion_xds::route::Forward) -> pillion_xds::route::Route {
    let mut route = route_to("/", forward);
    route.matching.path = pillion_xds::route::PathMatch::Exact("*".to_owned());
    route
}

/// Whether the head of an answer has come that is not an interim one.
fn is_answered(all: &[u8]) -> bool {
    let text = String::from_utf8_lossy(all);
    let answer = text.rsplit("HTTP/1.1 100 Continue\r\n\r\n").next();
    answer.is_some_and(|answer| !answer.is_empty())
}

/// What comes back until the proxy closes. How long an answer takes is the machine's business; only after one is a
/// silence taken for the end, and what it may hide is heard by the app as well.
async fn spoken(proxy: SocketAddr, request: &[u8]) -> String {
    let mut socket = TcpStream::connect(proxy).await.unwrap();
    // A refusal may come, and the connection close, before all is written.
    let _written = socket.write_all(request).await.is_ok();
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let answered = is_answered(&all);
        let limit = if answered {
            Duration::from_millis(200)
        } else {
            LIMIT
        };
        match tokio::time::timeout(limit, socket.read(&mut buffer)).await {
            Ok(Ok(number)) if number > 0 => all.extend_from_slice(&buffer[..number]),
            Ok(_) => break,
            Err(_) => {
                assert!(
                    answered,
                    "neither answered nor closed: {:?}",
                    String::from_utf8_lossy(request)
                );
                break;
            }
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn of_a_hostile_request_the_app_hears_one_clean_request_or_none() {
    let (app, heard) = listening_closely().await;
    let plane = Plane::start_with(to(app), None, |settings| {
        // What is never finished is given up in time for a test.
        let limits = &mut settings.policy.limits;
        limits.head = Duration::from_secs(1);
        limits.body_window = Duration::from_millis(400);
    });
    let cases = cases();
    assert!(cases.len() >= 200, "{}", cases.len());
    let proxy = plane.egress();
    let answers: Vec<(usize, String)> = stream::iter(cases.iter().enumerate())
        .map(|(number, case)| async move {
            let bytes = case
                .bytes
                .replacen("X-Case: *", &format!("X-Case: {number}"), 1);
            // Not UTF-8 on the wire: what is above ASCII goes as one byte.
            let bytes: Vec<u8> = bytes
                .chars()
                .map(|letter| u8::try_from(letter).unwrap_or(b'?'))
                .collect();
            (number, spoken(proxy, &bytes).await)
        })
        .buffer_unordered(128)
        .collect()
        .await;
    let heard = heard.lock().clone();
    let mut wrong = Vec::new();
    for (number, answer) in answers {
        let case = &cases[number];
        let of_it: Vec<&Heard> = heard
            .iter()
            .filter(|heard| heard.1 == number.to_string())
            .collect();
        let answered = answer
            .rsplit("HTTP/1.1 100 Continue\r\n\r\n")
            .next()
            .unwrap_or_default();
        let refused = answered.is_empty()
            || answered.starts_with("HTTP/1.1 4")
            || answered.starts_with("HTTP/1.1 5")
            || answered.starts_with("HTTP/1.0 4");
        let right = match case.want {
            Refused => of_it.is_empty() && refused,
            Passed => {
                of_it.len() == 1
                    && !refused
                    && (case.target.is_empty() || of_it[0].0 == case.target)
            }
            Safe => of_it.len() <= 1,
        };
        if !right {
            let shown: String = case.bytes.chars().take(200).collect();
            let answer: String = answer.chars().take(100).collect();
            wrong.push(format!(
                "{:?} {shown:?}\n    heard {of_it:?}\n    answered {answer:?}",
                case.want
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    let smuggled: Vec<&Heard> = heard
        .iter()
        .filter(|heard| heard.0.contains("smuggled") && heard.1.is_empty())
        .collect();
    // Behind a request that is clean and refused to none, a second one is just that: pipelined.
    let clean = cases
        .iter()
        .filter(|case| case.want != Refused && case.bytes.contains(SMUGGLED))
        .count();
    assert!(smuggled.len() <= clean, "{smuggled:?}");
    for number in 0..20 {
        let after = format!(
            "GET / HTTP/1.1\r\nHost: shop\r\nX-Case: after{number}\r\nConnection: close\r\n\r\n"
        );
        let answer = spoken(proxy, after.as_bytes()).await;
        assert!(answer.ends_with(&format!("after{number}")), "{answer}");
    }
}

/// What a caller may make of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Got {
    /// This status, whole.
    Status(u16),
    /// 502 or 503 from us.
    Bad,
    /// A body that breaks off.
    Broken,
}

use Got::Bad;
use Got::Broken;
use Got::Status;

const ANSWERS: &[(Got, &str, &str)] = &[
    (
        Status(200),
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ),
    (
        Status(200),
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ),
    (
        Bad,
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ),
    (
        Bad,
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ),
    (
        Bad,
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    ),
    (
        Status(200),
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    ),
    (
        Bad,
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\nhello",
    ),
    (
        Bad,
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
    ),
    (
        Bad,
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
    ),
    (
        Bad,
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello",
    ),
    (
        Bad,
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello",
    ),
    (
        Bad,
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nhello",
    ),
    (
        Bad,
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        Bad,
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    ),
    (
        Bad,
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        Bad,
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        Bad,
        "GET",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        Bad,
        "GET",
        "HTTP/1.1 200 OK\r\nX-A: a\rb\r\nContent-Length: 2\r\n\r\nok",
    ),
    (
        Bad,
        "GET",
        "HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 2\r\n\r\nok",
    ),
    (
        Bad,
        "GET",
        "HTTP/1.1 200 OK\r\nX A: b\r\nContent-Length: 2\r\n\r\nok",
    ),
    (
        Bad,
        "GET",
        "HTTP/1.1 200 OK\r\nX-A\r\nContent-Length: 2\r\n\r\nok",
    ),
    (
        Bad,
        "GET",
        "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    ),
    (Bad, "GET", "HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nok"),
    (Bad, "GET", "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    (Bad, "GET", "HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    (Bad, "GET", "garbage\r\n\r\n"),
    (Status(504), "GET", "\r\n\r\n"),
    (Bad, "GET", "<html>hello</html>"),
    (
        Bad,
        "GET",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ),
    (Bad, "GET", "HTTP/1.1 101 Switching Protocols\r\n\r\n"),
    (
        Broken,
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n",
    ),
    (
        Broken,
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokX\r\n0\r\n\r\n",
    ),
    (
        Broken,
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nok\r\n0\r\n\r\n",
    ),
    (
        Broken,
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n~",
    ),
    (
        Broken,
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok~",
    ),
    (
        Status(200),
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    ),
    (
        Status(200),
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n\r\n",
    ),
    (
        Status(204),
        "GET",
        "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    ),
    (
        Status(204),
        "GET",
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
    ),
    (
        Status(204),
        "GET",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
    ),
    (
        Status(304),
        "GET",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    ),
    (
        Status(304),
        "GET",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nevil!",
    ),
    (
        Status(200),
        "HEAD",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    ),
    (
        Status(200),
        "HEAD",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nevil!",
    ),
    (
        Status(200),
        "HEAD",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
    ),
    (
        Status(200),
        "GET",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ),
    (Status(200), "GET", "HTTP/1.0 200 OK\r\n\r\nok~"),
    (Bad, "GET", "~"),
    (Bad, "GET", "HTTP/1.1 200 OK\r\nContent-Le~"),
];

/// An app whose first request on its first connection is answered with these bytes (closing at `~`), all others with
/// `second`.
async fn hostile_app(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut first = Some(answer);
        while let Ok((socket, _)) = listener.accept().await {
            let mut answer = first.take();
            tokio::spawn(async move {
                let mut stream = BufReader::new(socket);
                while strict(&mut stream).await.is_some() {
                    let bytes = answer
                        .take()
                        .unwrap_or("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond");
                    let said = stream
                        .write_all(bytes.trim_end_matches('~').as_bytes())
                        .await;
                    if said.is_err() || bytes.ends_with('~') {
                        return;
                    }
                }
            });
        }
    });
    addr
}

#[tokio::test]
async fn whatever_an_app_answers_the_next_request_gets_its_own_answer() {
    assert!(ANSWERS.len() >= 25);
    let wrong: Vec<String> = stream::iter(ANSWERS)
        .map(|(want, method, answer)| async move {
            let plane = Plane::start(to(hostile_app(answer).await), None);
            let mut request = get("/first");
            *request.method_mut() = method.parse().unwrap();
            let Ok(response) = try_send(plane.egress(), request).await else {
                // A body that breaks at once takes the head along.
                return (*want != Broken).then(|| format!("no answer at all: {answer:?}"));
            };
            let status = response.status().as_u16();
            let length = response.headers().get("content-length").cloned();
            let body = response
                .into_body()
                .collect()
                .await
                .map(|body| body.to_bytes());
            let got = match body {
                Err(_) => Broken,
                Ok(_) if matches!(status, 502 | 503) => Bad,
                Ok(ref bytes) if bytes.windows(4).any(|part| part == b"evil") => {
                    panic!("evil got through: {answer:?}")
                }
                Ok(_) => Status(status),
            };
            let mut wrong =
                (got != *want).then(|| format!("{want:?} but {got:?} ({status}): {answer:?}"));
            if status == 204 && length.is_some() {
                wrong = Some(format!("204 with a length: {answer:?}"));
            }
            for _ in 0..3 {
                let next = body_of(send(plane.egress(), get("/next")).await).await;
                if next != "second" {
                    wrong = Some(format!("the next request got {next:?} after {answer:?}"));
                }
            }
            wrong
        })
        .buffer_unordered(16)
        .filter_map(|wrong| async { wrong })
        .collect()
        .await;
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

async fn try_send(
    proxy: SocketAddr,
    request: hyper::Request<http_body_util::Full<bytes::Bytes>>,
) -> hyper::Result<hyper::Response<hyper::body::Incoming>> {
    let io = hyper_util::rt::TokioIo::new(TcpStream::connect(proxy).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    tokio::spawn(connection);
    sender.send_request(request).await
}

async fn body_of(response: hyper::Response<hyper::body::Incoming>) -> String {
    let status = response.status();
    let text = body(response).await;
    if status == 200 {
        text
    } else {
        format!("{status} {text}")
    }
}
