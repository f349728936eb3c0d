// SPDX-License-Identifier: Apache-2.0
//! One row of the table: what is sent through which door, what the application does, and what must come of it.

use std::net::SocketAddr;

use anyhow::Context;
use mesh_test::asking;
use mesh_test::asking::Ask;
use mesh_test::scripted::Act;
use mesh_test::scripted::Book;
use serde::Deserialize;

use super::compare;
use super::compare::Fields;
use super::folder;

/// Where a request goes in.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Door {
    /// The sidecar, from its app.
    Egress,
    /// The sidecar, to its app.
    Ingress,
    /// The gateway's `http` listener.
    Edge,
    /// Its `http2` listener.
    Edge2,
    /// Its `grpc` listener.
    EdgeGrpc,
}

/// A row.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// The promise.
    pub(crate) name: String,
    /// The file it stands in.
    #[serde(skip)]
    pub(crate) group: String,
    pub(crate) to: Door,
    /// `METHOD target host`.
    #[serde(default)]
    ask: String,
    /// `name: value` after the host.
    #[serde(default)]
    with: Vec<String>,
    /// The whole head by lines instead.
    #[serde(default)]
    raw: Vec<String>,
    #[serde(default)]
    body: String,
    /// A body of so many bytes.
    #[serde(default)]
    size: usize,
    /// A header with a value of so many bytes.
    #[serde(default)]
    long: usize,
    /// So many more header fields.
    #[serde(default)]
    many: usize,
    /// HTTP/2 instead of HTTP/1.1, and its trailers.
    #[serde(default)]
    h2: bool,
    #[serde(default)]
    trailers: Vec<String>,
    /// Sent after the answer, and expected back.
    #[serde(default)]
    then: Option<String>,
    /// Answers awaited on the connection.
    #[serde(default)]
    answers: usize,
    #[serde(default)]
    acts: Vec<Act>,
    /// Status, and the application that answered or `-`.
    pub(crate) want: String,
    /// Requests that reach applications, where that is not one for an application's answer and none otherwise.
    pub(crate) tries: Option<usize>,
}

/// Every row of every file.
pub(crate) fn load() -> anyhow::Result<Vec<Case>> {
    let mut files: Vec<_> = std::fs::read_dir(folder("cases"))?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    let mut all: Vec<Case> = Vec::new();
    for file in files {
        let group = file
            .file_stem()
            .and_then(|stem| stem.to_str())
            .context("a file name")?
            .to_owned();
        if group == "mesh" || group == "differences" {
            continue;
        }
        let text = std::fs::read_to_string(&file)?;
        let cases: Vec<Case> =
            serde_json::from_str(&text).with_context(|| file.display().to_string())?;
        for case in cases {
            anyhow::ensure!(
                all.iter().all(|other| other.name != case.name),
                "two cases are called {:?}",
                case.name
            );
            all.push(Case {
                group: group.clone(),
                ..case
            });
        }
    }
    Ok(all)
}

impl Case {
    /// What the caller and the applications saw, with `who` answering.
    pub(crate) async fn run(&self, who: &str, door: SocketAddr, book: &Book) -> Fields {
        let key = self.key(who);
        book.script(&key, &self.acts);
        let ask = self.request(&key);
        let answers = if self.h2 {
            vec![asking::http2(door, &ask).await]
        } else {
            asking::http1(door, &ask).await
        };
        let sent: Vec<&str> = self
            .with
            .iter()
            .chain(&self.raw)
            .map(String::as_str)
            .collect();
        compare::fields(&answers, &book.seen(&key), &sent)
    }

    /// What its requests are told by.
    pub(crate) fn key(&self, who: &str) -> String {
        let dashed = |letter: char| !letter.is_ascii_alphanumeric();
        format!("{who}-{}", self.name.replace(dashed, "-"))
    }

    fn request(&self, key: &str) -> Ask {
        let body = if self.size > 0 {
            "x".repeat(self.size)
        } else {
            self.body.clone()
        };
        let mut headers = self.with.clone();
        headers.push(format!("x-case: {key}"));
        if self.long > 0 {
            headers.push(format!("x-long: {}", "l".repeat(self.long)));
        }
        headers.extend((0..self.many).map(|number| format!("x-many-{number}: m")));
        let bytes = if self.raw.is_empty() {
            asking::bytes(&self.ask, &headers, &body)
        } else {
            let mut lines = self.raw.clone();
            // A raw head that ends in an empty line is meant as it stands.
            if lines.last().is_some_and(String::is_empty) {
                lines.pop();
            } else {
                lines.extend(headers.iter().cloned());
            }
            format!("{}\r\n\r\n{body}", lines.join("\r\n")).into_bytes()
        };
        let bytes = String::from_utf8_lossy(&bytes)
            .replace("{case}", key)
            .into_bytes();
        Ask {
            bytes,
            then: self.then.clone().map(String::into_bytes),
            answers: self.answers,
            line: self.ask.clone(),
            headers,
            body,
            trailers: self.trailers.clone(),
        }
    }
}
