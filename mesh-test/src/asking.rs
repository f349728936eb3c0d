// SPDX-License-Identifier: Apache-2.0
//! One request as a case writes it, and its answer as it stood on the wire, over HTTP/1.1 or HTTP/2 with prior
//! knowledge. What goes wrong is an answer as well: a closed connection is something a proxy says.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::scripted::collect;
use crate::scripted::lines;
use crate::scripted::map;
use crate::scripted::split;
use crate::wire::Framing;
use crate::wire::Wire;

/// Nothing here takes longer that works.
const LIMIT: Duration = Duration::from_secs(8);
/// So long a connection is watched after its answer.
const WATCHED: Duration = Duration::from_millis(80);

/// A request to send.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// HTTP/1.1: the bytes. HTTP/2: unused.
    pub bytes: Vec<u8>,
    /// HTTP/1.1: sent once the first answer's head has come.
    pub then: Option<Vec<u8>>,
    /// HTTP/1.1: answers that are awaited.
    pub answers: usize,
    /// HTTP/2: `METHOD target authority`.
    pub line: String,
    /// HTTP/2: `name: value`.
    pub headers: Vec<String>,
    /// HTTP/2: body.
    pub body: String,
    /// HTTP/2: `name: value` after the body.
    pub trailers: Vec<String>,
}

/// One answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// `HTTP/1.1 200`, without the reason, which is free text.
    pub status: String,
    /// Interim answers before it.
    pub interim: Vec<String>,
    /// Sorted `name: value`.
    pub headers: Vec<String>,
    pub body: String,
    pub trailers: Vec<String>,
    /// What became of the connection or stream.
    pub fate: String,
}

/// Sends the bytes of `ask` on a new connection and reads its answers.
pub async fn http1(to: SocketAddr, ask: &Ask) -> Vec<Answer> {
    let mut answers = Vec::new();
    let asked = tokio::time::timeout(LIMIT, conversation(to, ask, &mut answers)).await;
    let fate = match asked {
        Ok(Ok(fate)) => fate,
        Ok(Err(error)) => format!("broke off: {}", plain(&error)),
        Err(_) => "silent".to_owned(),
    };
    match answers.last_mut() {
        Some(last) => last.fate = fate,
        None => answers.push(Answer {
            status: "none".to_owned(),
            fate,
            ..Answer::default()
        }),
    }
    answers
}

/// A reset and a close that cuts an answer short are one thing to the caller.
fn plain(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    if text.contains("reset by peer") {
        "reset".to_owned()
    } else {
        text
    }
}

async fn conversation(
    to: SocketAddr,
    ask: &Ask,
    answers: &mut Vec<Answer>,
) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.split();
    let mut wire = Wire::new(read);
    // An answer may come, and the connection close, before a long request is through: that is no error.
    let sending = async {
        drop(write.write_all(&ask.bytes).await);
        std::future::pending::<()>().await;
    };
    let reading = async {
        for number in 0..ask.answers.max(1) {
            if !read_one(&mut wire, ask, number, answers).await? {
                return Ok("closed".to_owned());
            }
            if answers
                .last()
                .is_some_and(|answer| answer.status.ends_with(" 101"))
            {
                break;
            }
        }
        anyhow::Ok(String::new())
    };
    let ended = tokio::select! {
        ended = reading => ended?,
        () = sending => unreachable!("sending never ends the race"),
    };
    if !ended.is_empty() {
        return Ok(ended);
    }
    if let (Some(then), Some(last)) = (&ask.then, answers.last_mut()) {
        write.write_all(then).await?;
        let mut back = wire.rest();
        while back.len() < then.len() && wire.stream.read_buf(&mut back).await? > 0 {}
        last.trailers
            .push(format!("after: {}", String::from_utf8_lossy(&back)));
    }
    Ok(fate(&mut wire, answers.last()).await)
}

async fn read_one(
    wire: &mut Wire<tokio::net::tcp::ReadHalf<'_>>,
    ask: &Ask,
    number: usize,
    answers: &mut Vec<Answer>,
) -> anyhow::Result<bool> {
    let mut interim = Vec::new();
    let head = loop {
        let Some(head) = wire.head().await? else {
            return Ok(false);
        };
        let status: String = head.start.chars().take("HTTP/1.1 200".len()).collect();
        if !status.contains(" 1") || status.ends_with(" 101") {
            break head;
        }
        interim.push(status);
    };
    let status: String = head.start.chars().take("HTTP/1.1 200".len()).collect();
    let bodiless = (number == 0 && ask.bytes.starts_with(b"HEAD "))
        || [" 101", " 204", " 304"]
            .iter()
            .any(|end| status.ends_with(end));
    let framing = if bodiless {
        Framing::None
    } else {
        head.framing(Framing::UntilClose)
    };
    answers.push(Answer {
        status,
        interim,
        headers: head.headers.clone(),
        ..Answer::default()
    });
    let (body, trailers) = wire.body(framing).await?;
    let last = answers.last_mut().expect("pushed above");
    last.body = String::from_utf8_lossy(&body).into_owned();
    last.trailers = trailers;
    Ok(true)
}

/// A proxy that announces the close may take its time with it.
async fn fate(wire: &mut Wire<tokio::net::tcp::ReadHalf<'_>>, last: Option<&Answer>) -> String {
    if last.is_some_and(|answer| {
        answer
            .headers
            .iter()
            .any(|line| line == "connection: close")
    }) {
        return "closed".to_owned();
    }
    if !wire.rest().is_empty() {
        return "more came".to_owned();
    }
    let mut byte = [0];
    match tokio::time::timeout(WATCHED, wire.stream.read(&mut byte)).await {
        Err(_) => "open".to_owned(),
        Ok(Ok(0) | Err(_)) => "closed".to_owned(),
        Ok(Ok(_)) => "more came".to_owned(),
    }
}

/// Sends `ask` as one stream on a new connection.
pub async fn http2(to: SocketAddr, ask: &Ask) -> Answer {
    let mut answer = Answer {
        status: "none".to_owned(),
        ..Answer::default()
    };
    let asked = tokio::time::timeout(LIMIT, stream(to, ask, &mut answer)).await;
    answer.fate = match asked {
        Ok(Ok(())) => "ended".to_owned(),
        Ok(Err(error)) => match error
            .downcast_ref::<h2::Error>()
            .and_then(h2::Error::reason)
        {
            Some(reason) => format!("{reason:?}"),
            None => "connection lost".to_owned(),
        },
        Err(_) => "silent".to_owned(),
    };
    answer
}

async fn stream(to: SocketAddr, ask: &Ask, answer: &mut Answer) -> anyhow::Result<()> {
    let socket = TcpStream::connect(to).await?;
    socket.set_nodelay(true)?;
    let (sender, connection) = h2::client::handshake(socket).await?;
    let driver = tokio::spawn(connection);
    let mut parts = ask.line.split(' ');
    let mut next = || parts.next().unwrap_or_default();
    let (method, path, authority) = (next(), next(), next());
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://{authority}{path}"))
        .body(())?;
    *request.headers_mut() = map(&ask.headers)?;
    let empty = ask.body.is_empty() && ask.trailers.is_empty();
    let mut sender = sender.ready().await?;
    let (response, mut body) = sender.send_request(request, empty)?;
    if !empty {
        body.send_data(Bytes::from(ask.body.clone()), ask.trailers.is_empty())?;
        if !ask.trailers.is_empty() {
            body.send_trailers(map(&ask.trailers)?)?;
        }
    }
    let (head, mut body) = response.await?.into_parts();
    answer.status = format!("HTTP/2 {}", head.status.as_u16());
    answer.headers = lines(&head.headers);
    (answer.body, answer.trailers) = collect(&mut body).await?;
    driver.abort();
    Ok(())
}

/// HTTP/1.1 bytes of `METHOD target host`, headers and body.
pub fn bytes(line: &str, headers: &[String], body: &str) -> Vec<u8> {
    let mut parts = line.splitn(3, ' ');
    let mut next = || parts.next().unwrap_or_default();
    let (method, target, host) = (next(), next(), next());
    let mut text = format!("{method} {target} HTTP/1.1\r\n");
    if !host.is_empty() {
        text.push_str(&format!("host: {host}\r\n"));
    }
    let framed = headers.iter().any(|line| {
        matches!(
            split(line).0.to_ascii_lowercase().as_str(),
            "content-length" | "transfer-encoding"
        )
    });
    for line in headers {
        text.push_str(line);
        text.push_str("\r\n");
    }
    if !body.is_empty() && !framed {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    text.push_str(body);
    text.into_bytes()
}
