// SPDX-License-Identifier: Apache-2.0
//! A scripted application's HTTP/1.1 end.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::Act;
use super::Book;
use super::Seen;
use super::case_of;
use crate::wire::Framing;
use crate::wire::Head;
use crate::wire::Wire;

pub(super) async fn serve(stream: TcpStream, name: &str, book: &Book) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut wire = Wire::new(stream);
    while let Some(head) = wire.head().await? {
        let case = case_of(&head.headers);
        let act = book.next_act(&case);
        if act.early {
            answer(&mut wire, name, &act, &head).await?;
        }
        if head.get("expect").is_some() && !act.early {
            wire.stream
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .await?;
        }
        let body = wire.body(head.framing(Framing::None)).await;
        // What broke off is remembered too: how much of it came through is not for a script to fix.
        let (body, trailers) = match &body {
            Ok((body, trailers)) => (String::from_utf8_lossy(body).into_owned(), trailers.clone()),
            Err(_) => ("(broke off)".to_owned(), Vec::new()),
        };
        let broke = body == "(broke off)";
        let line = head.start.clone();
        book.remember(
            &case,
            Seen {
                app: name.to_owned(),
                line,
                headers: head.headers.clone(),
                body,
                trailers,
            },
        );
        if broke {
            return Ok(());
        }
        if !act.early {
            answer(&mut wire, name, &act, &head).await?;
        }
        match act.then.as_deref() {
            Some("close") => return Ok(()),
            Some("reset") => {
                socket2::SockRef::from(&wire.stream).set_linger(Some(Duration::ZERO))?;
                return Ok(());
            }
            Some("echo") => return echo(wire).await,
            _ => {}
        }
    }
    Ok(())
}

async fn echo(mut wire: Wire<TcpStream>) -> anyhow::Result<()> {
    let early = wire.rest();
    wire.stream.write_all(&early).await?;
    let (mut read, mut write) = wire.stream.split();
    tokio::io::copy(&mut read, &mut write).await?;
    Ok(())
}

async fn answer(
    wire: &mut Wire<TcpStream>,
    name: &str,
    act: &Act,
    head: &Head,
) -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_millis(act.after)).await;
    if let Some(raw) = &act.raw {
        wire.stream.write_all(raw.as_bytes()).await?;
        return Ok(());
    }
    if act.status.is_none()
        && act
            .then
            .as_deref()
            .is_some_and(|then| then == "close" || then == "reset")
    {
        return Ok(());
    }
    let status = act.status.unwrap_or(200);
    let body = act.body.as_deref().unwrap_or(name);
    let bodiless = head.start.starts_with("HEAD ") || matches!(status, 101 | 204 | 304);
    let mut text = format!("HTTP/1.1 {status} Scripted\r\nx-app: {name}\r\n");
    for line in &act.headers {
        text.push_str(line);
        text.push_str("\r\n");
    }
    let own = |wanted: &str| {
        act.headers
            .iter()
            .any(|line| line.to_ascii_lowercase().starts_with(wanted))
    };
    let chunked = !act.trailers.is_empty();
    if chunked {
        text.push_str("transfer-encoding: chunked\r\n");
    } else if !own("content-length")
        && !own("transfer-encoding")
        && !matches!(status, 101 | 204 | 304)
    {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    wire.stream.write_all(text.as_bytes()).await?;
    tokio::time::sleep(Duration::from_millis(act.between)).await;
    if bodiless {
        return Ok(());
    }
    if chunked {
        let mut rest = format!("{:x}\r\n{body}\r\n0\r\n", body.len());
        for line in &act.trailers {
            rest.push_str(line);
            rest.push_str("\r\n");
        }
        rest.push_str("\r\n");
        wire.stream.write_all(rest.as_bytes()).await?;
    } else {
        wire.stream.write_all(body.as_bytes()).await?;
    }
    Ok(())
}
