// SPDX-License-Identifier: Apache-2.0
//! A scripted application's HTTP/2 end.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::RecvStream;
use h2::server::SendResponse;
use http::HeaderMap;
use http::Request;
use http::Response;
use tokio::net::TcpStream;

use super::Act;
use super::Book;
use super::Seen;
use super::case_of;
use super::split;
use crate::wire::sorted;

pub(super) async fn serve(stream: TcpStream, name: &str, book: &Book) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        let (name, book) = (name.to_owned(), book.clone());
        tokio::spawn(async move {
            // A stream that its peer resets is the case's business.
            drop(exchange(request, respond, &name, &book).await);
        });
    }
    Ok(())
}

/// `name: value` lines of a header map.
pub(crate) fn lines(headers: &HeaderMap) -> Vec<String> {
    let all: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    sorted(all.iter().map(String::as_str))
}

/// The header map of `name: value` lines.
pub(crate) fn map(lines: &[String]) -> anyhow::Result<HeaderMap> {
    let mut map = HeaderMap::new();
    for line in lines {
        let (name, value) = split(line);
        map.append(http::HeaderName::try_from(name)?, value.parse()?);
    }
    Ok(map)
}

/// A body to its end, with its trailers.
pub(crate) async fn collect(body: &mut RecvStream) -> anyhow::Result<(String, Vec<String>)> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?.map(|trailers| lines(&trailers));
    Ok((
        String::from_utf8_lossy(&bytes).into_owned(),
        trailers.unwrap_or_default(),
    ))
}

async fn exchange(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    name: &str,
    book: &Book,
) -> anyhow::Result<()> {
    let (parts, mut body) = request.into_parts();
    let mut headers = lines(&parts.headers);
    if let Some(authority) = parts.uri.authority() {
        headers.insert(0, format!(":authority: {authority}"));
    }
    if let Some(scheme) = parts.uri.scheme_str() {
        headers.insert(0, format!(":scheme: {scheme}"));
    }
    let case = case_of(&headers);
    let act = book.next_act(&case);
    if act.early {
        answer(&mut respond, name, &act).await?;
    }
    let collected = collect(&mut body).await;
    let (body, trailers) = match &collected {
        Ok((body, trailers)) => (body.clone(), trailers.clone()),
        Err(_) => ("(broke off)".to_owned(), Vec::new()),
    };
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let line = format!("{} {path}", parts.method);
    book.remember(
        &case,
        Seen {
            app: name.to_owned(),
            line,
            headers,
            body,
            trailers,
        },
    );
    if collected.is_ok() && !act.early {
        answer(&mut respond, name, &act).await?;
    }
    Ok(())
}

async fn answer(respond: &mut SendResponse<Bytes>, name: &str, act: &Act) -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_millis(act.after)).await;
    match act.then.as_deref() {
        Some("refused") => {
            respond.send_reset(Reason::REFUSED_STREAM);
            return Ok(());
        }
        Some("reset") => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        }
        _ => {}
    }
    let mut response = Response::builder()
        .status(act.status.unwrap_or(200))
        .body(())?;
    *response.headers_mut() = map(&act.headers)?;
    response.headers_mut().insert("x-app", name.parse()?);
    let body = act.body.as_deref().unwrap_or(name).to_owned();
    let last = body.is_empty() && act.trailers.is_empty();
    let mut stream = respond.send_response(response, last)?;
    if last {
        return Ok(());
    }
    tokio::time::sleep(Duration::from_millis(act.between)).await;
    stream.send_data(Bytes::from(body), act.trailers.is_empty())?;
    if !act.trailers.is_empty() {
        stream.send_trailers(map(&act.trailers)?)?;
    }
    Ok(())
}
