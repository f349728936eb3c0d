// SPDX-License-Identifier: Apache-2.0
//! HTTP/1.1 messages read by hand, for both ends of a case: what stands on the wire, not what a library makes of it.

use anyhow::Context;
use anyhow::bail;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;

use crate::scripted::split;

/// A byte stream with what has been read of it but not used.
pub struct Wire<R> {
    pub stream: R,
    unread: Vec<u8>,
}

/// Start line and headers.
#[derive(Clone, Debug)]
pub struct Head {
    pub start: String,
    /// Lower-case `name: value`, sorted.
    pub headers: Vec<String>,
}

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(usize),
    Chunked,
    UntilClose,
}

impl Head {
    /// First value of a header.
    pub fn get(&self, wanted: &str) -> Option<&str> {
        self.headers
            .iter()
            .map(|line| split(line))
            .find(|(name, _)| *name == wanted)
            .map(|(_, value)| value)
    }

    /// As the headers declare it; `open` is what holds without a word.
    pub fn framing(&self, open: Framing) -> Framing {
        if self
            .get("transfer-encoding")
            .is_some_and(|value| value.ends_with("chunked"))
        {
            return Framing::Chunked;
        }
        match self
            .get("content-length")
            .and_then(|value| value.parse().ok())
        {
            Some(0) => Framing::None,
            Some(length) => Framing::Length(length),
            None => open,
        }
    }
}

impl<R: AsyncRead + Unpin> Wire<R> {
    pub fn new(stream: R) -> Wire<R> {
        Wire {
            stream,
            unread: Vec::new(),
        }
    }

    /// Reads more; `false` at the end.
    async fn more(&mut self) -> anyhow::Result<bool> {
        Ok(self.stream.read_buf(&mut self.unread).await? > 0)
    }

    /// What was read and not used.
    pub fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.unread)
    }

    /// The next head; `None` where the stream ends before one begins.
    pub async fn head(&mut self) -> anyhow::Result<Option<Head>> {
        let end = loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                break at;
            }
            if !self.more().await? {
                if self.unread.is_empty() {
                    return Ok(None);
                }
                bail!(
                    "the stream ended within a head: {:?}",
                    String::from_utf8_lossy(&self.unread)
                );
            }
        };
        let text = String::from_utf8_lossy(&self.unread[..end]).into_owned();
        self.unread.drain(..end + 4);
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        Ok(Some(Head {
            start,
            headers: sorted(lines),
        }))
    }

    async fn exactly(&mut self, length: usize) -> anyhow::Result<Vec<u8>> {
        while self.unread.len() < length {
            if !self.more().await? {
                bail!(
                    "the stream ended {} of {length} bytes into a body",
                    self.unread.len()
                );
            }
        }
        Ok(self.unread.drain(..length).collect())
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        loop {
            if let Some(at) = find(&self.unread, b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if !self.more().await? {
                bail!("the stream ended within a line");
            }
        }
    }

    /// The body and its trailers.
    pub async fn body(&mut self, framing: Framing) -> anyhow::Result<(Vec<u8>, Vec<String>)> {
        match framing {
            Framing::None => Ok((Vec::new(), Vec::new())),
            Framing::Length(length) => Ok((self.exactly(length).await?, Vec::new())),
            Framing::UntilClose => {
                while self.more().await? {}
                Ok((self.rest(), Vec::new()))
            }
            Framing::Chunked => self.chunks().await,
        }
    }

    async fn chunks(&mut self) -> anyhow::Result<(Vec<u8>, Vec<String>)> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size =
                usize::from_str_radix(size, 16).with_context(|| format!("chunk size {line:?}"))?;
            if size == 0 {
                break;
            }
            body.extend(self.exactly(size).await?);
            self.line().await?;
        }
        let mut trailers = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok((body, sorted(trailers.iter().map(String::as_str))));
            }
            trailers.push(line);
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

/// Header lines with lower-case names, in order of name and value.
pub fn sorted<'l>(lines: impl Iterator<Item = &'l str>) -> Vec<String> {
    let mut all: Vec<String> = lines
        .map(|line| {
            let (name, value) = split(line);
            format!("{}: {value}", name.to_ascii_lowercase())
        })
        .collect();
    all.sort();
    all
}
