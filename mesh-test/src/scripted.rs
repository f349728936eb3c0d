// SPDX-License-Identifier: Apache-2.0
//! An application that does what a case tells it, byte for byte where it matters, and remembers what it received. Cases
//! are told apart by the header `x-case`; the n-th request of a case gets the n-th act of its script, and the last act
//! from then on. HTTP/1.1 is read and written by hand (`http1`), HTTP/2 through `h2` (`http2`).

mod http1;
mod http2;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use serde::Deserialize;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) use http2::collect;
pub(crate) use http2::lines;
pub(crate) use http2::map;

/// What one request is answered with.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Act {
    /// Status, 200 if nothing else is said.
    pub status: Option<u16>,
    /// `name: value`, in order.
    pub headers: Vec<String>,
    /// Body; the application's name if nothing is said.
    pub body: Option<String>,
    /// `name: value`, after the body.
    pub trailers: Vec<String>,
    /// Milliseconds before the answer.
    pub after: u64,
    /// Milliseconds between head and body.
    pub between: u64,
    /// HTTP/1.1 only: these bytes instead of an answer made of the above.
    pub raw: Option<String>,
    /// HTTP/1.1 only: `close` or `reset` the connection afterwards. HTTP/2: `refused`, `reset` or `goaway` instead of
    /// an answer. `echo`: whatever comes after the answer comes back.
    pub then: Option<String>,
    /// Answers before the request's body has been read.
    pub early: bool,
}

/// A request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Name of the application.
    pub app: String,
    /// `METHOD target`.
    pub line: String,
    /// Lower-case `name: value`, sorted.
    pub headers: Vec<String>,
    /// Body.
    pub body: String,
    /// As headers.
    pub trailers: Vec<String>,
}

/// Scripts and memories of all applications of a test.
#[derive(Clone, Default)]
pub struct Book(Arc<Mutex<BTreeMap<String, Entry>>>);

#[derive(Default)]
struct Entry {
    acts: Vec<Act>,
    seen: Vec<Seen>,
    asked: usize,
}

impl Book {
    /// What `case` is to be answered with.
    pub fn script(&self, case: &str, acts: &[Act]) {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.entry(case.to_owned()).or_default().acts = acts.to_vec();
    }

    /// What arrived for `case`, in order.
    pub fn seen(&self, case: &str) -> Vec<Seen> {
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.get(case)
            .map(|entry| entry.seen.clone())
            .unwrap_or_default()
    }

    fn next_act(&self, case: &str) -> Act {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = book.entry(case.to_owned()).or_default();
        let act = entry.acts.get(entry.asked).or(entry.acts.last()).cloned();
        entry.asked += 1;
        act.unwrap_or_default()
    }

    fn remember(&self, case: &str, seen: Seen) {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.entry(case.to_owned()).or_default().seen.push(seen);
    }
}

/// What a scripted application speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Http1,
    Http2,
}

/// A scripted application; it ends with the value.
pub struct Scripted {
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Scripted {
    /// Serves on `listener` under `name`.
    pub fn serve(
        name: &str,
        speaks: Speaks,
        listener: TcpListener,
        book: &Book,
    ) -> anyhow::Result<Scripted> {
        let (name, book) = (name.to_owned(), book.clone());
        let address = listener.local_addr()?;
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (name, book) = (name.clone(), book.clone());
                tokio::spawn(async move {
                    // A peer that goes away mid-request is the case's business, not the application's.
                    drop(match speaks {
                        Speaks::Http1 => http1::serve(stream, &name, &book).await,
                        Speaks::Http2 => http2::serve(stream, &name, &book).await,
                    });
                });
            }
        });
        Ok(Scripted { address, server })
    }

    /// On a free port.
    pub async fn start(name: &str, speaks: Speaks, book: &Book) -> anyhow::Result<Scripted> {
        Scripted::serve(name, speaks, TcpListener::bind("127.0.0.1:0").await?, book)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// `name: value` in its two parts.
pub fn split(line: &str) -> (&str, &str) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name, value.trim())
}

fn case_of(headers: &[String]) -> String {
    let found = headers
        .iter()
        .map(|line| split(line))
        .find(|(name, _)| *name == "x-case");
    found.map_or_else(String::new, |(_, value)| value.to_owned())
}
