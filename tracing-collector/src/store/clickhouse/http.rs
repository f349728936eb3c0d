// SPDX-License-Identifier: Apache-2.0
//! ClickHouse's HTTP interface, blocking: a statement out, rows back, with a few connections kept open. Every statement
//! of this store may be repeated, so one whose kept connection turned out closed is sent again on a new one.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::StatusCode;
use http::header::HOST;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::runtime::Runtime;

use crate::outward;
use crate::outward::Peer;
use crate::store::clickhouse::ClickHouseError;
use crate::store::clickhouse::address::Address;
use crate::store::clickhouse::row_binary::Chunks;
use crate::store::clickhouse::row_binary::Reader;

const CONNECT: Duration = Duration::from_secs(5);
/// For one statement; the server stops it somewhat earlier by itself.
const PATIENCE: Duration = Duration::from_secs(70);
const SERVER_PATIENCE_SECONDS: u32 = 60;
const MOST_IDLE: usize = 4;
/// Of an error's text.
const MOST_TEXT: usize = 600;
const AUTHENTICATION_FAILED: &str = "516";
const ACCESS_DENIED: &str = "497";
const UNKNOWN_DATABASE: &str = "81";

type Connection = SendRequest<Full<Bytes>>;

pub(super) struct Http {
    address: Address,
    peer: Peer,
    idle: Mutex<Vec<Connection>>,
    /// Its own, for callers block and some of them stand on no runtime. `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl Drop for Http {
    fn drop(&mut self) {
        // Dropping it outright would block, which a runtime's own thread must not.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What an answer's body brings, piece by piece.
pub(super) struct Answer<'h> {
    http: &'h Http,
    body: Incoming,
    connection: Option<Connection>,
}

impl Chunks for Answer<'_> {
    type Error = ClickHouseError;

    fn next(&mut self) -> Result<Option<Bytes>, ClickHouseError> {
        loop {
            let frame = self.http.block(async { Ok(self.body.frame().await) })?;
            match frame {
                None => {
                    let connection = self.connection.take();
                    self.http.give_back(connection);
                    return Ok(None);
                }
                Some(Err(error)) => return Err(self.http.broken(error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

impl Http {
    pub(super) fn new(address: Address) -> Result<Http, ClickHouseError> {
        let tls = match address.tls {
            false => None,
            true => Some(outward::tls().ok_or(ClickHouseError::Roots)?),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("clickhouse")
            .enable_all()
            .build()
            .map_err(|source| ClickHouseError::Runtime { source })?;
        Ok(Http {
            peer: Peer {
                host: address.host.clone(),
                port: address.port,
                tls,
            },
            address,
            idle: Mutex::default(),
            runtime: Some(runtime),
        })
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn execute(&self, sql: &str) -> Result<(), ClickHouseError> {
        let mut answer = self.send(&[], &Bytes::from(sql.to_owned()), true)?;
        while answer.next()?.is_some() {}
        Ok(())
    }

    /// Whatever the database, which need not be there yet.
    pub(super) fn version(&self) -> Result<String, ClickHouseError> {
        self.scalar("SELECT version()", false)
    }

    pub(super) fn number(&self, sql: &str) -> Result<usize, ClickHouseError> {
        let number = self.scalar(sql, true)?.parse();
        number.map_err(|_| ClickHouseError::Answer { what: "a number" })
    }

    /// The one column of the one row, as text.
    fn scalar(&self, sql: &str, in_database: bool) -> Result<String, ClickHouseError> {
        let sql = format!("{sql} FORMAT TabSeparatedRaw");
        let mut answer = self.send(&[], &Bytes::from(sql), in_database)?;
        let mut text = Vec::new();
        while let Some(chunk) = answer.next()? {
            text.extend_from_slice(&chunk);
        }
        Ok(String::from_utf8_lossy(&text).trim().to_owned())
    }

    pub(super) fn make_database(&self) -> Result<(), ClickHouseError> {
        let sql = format!("CREATE DATABASE IF NOT EXISTS {}", self.address.database);
        let mut answer = self.send(&[], &Bytes::from(sql), false)?;
        while answer.next()?.is_some() {}
        Ok(())
    }

    pub(super) fn rows(&self, sql: &str) -> Result<Reader<Answer<'_>>, ClickHouseError> {
        let sql = format!("{sql} FORMAT RowBinary");
        Ok(Reader::new(self.send(&[], &Bytes::from(sql), true)?))
    }

    /// Returns once the rows are on the server's disk. The server gathers what several senders insert at once, so that
    /// small batches do not become a part each.
    pub(super) fn insert(
        &self,
        table: &str,
        columns: &str,
        rows: Vec<u8>,
    ) -> Result<(), ClickHouseError> {
        if rows.is_empty() {
            return Ok(());
        }
        let statement = format!("INSERT INTO {table} ({columns}) FORMAT RowBinary");
        let settings = [
            ("query", statement.as_str()),
            ("async_insert", "1"),
            ("wait_for_async_insert", "1"),
        ];
        let mut answer = self.send(&settings, &Bytes::from(rows), true)?;
        while answer.next()?.is_some() {}
        Ok(())
    }

    fn send(
        &self,
        settings: &[(&str, &str)],
        body: &Bytes,
        in_database: bool,
    ) -> Result<Answer<'_>, ClickHouseError> {
        let path = path(settings);
        let request = || {
            let mut request = Request::post(&path)
                .header(
                    HOST,
                    format!("{}:{}", bracketed(&self.peer.host), self.peer.port),
                )
                .header("X-ClickHouse-User", &self.address.user)
                .header("X-ClickHouse-Key", &self.address.password);
            if in_database {
                request = request.header("X-ClickHouse-Database", &self.address.database);
            }
            request
                .body(Full::new(body.clone()))
                .map_err(|_| ClickHouseError::Answer {
                    what: "a name that may stand in a header",
                })
        };
        let kept = self.idle.lock().pop();
        if let Some(mut connection) = kept {
            let request = request()?;
            let sent = self.block(async { Ok(connection.send_request(request).await) })?;
            if let Ok(response) = sent {
                return self.check(response, connection);
            }
        }
        let mut connection = self.connect()?;
        let request = request()?;
        let response = self.block(async { Ok(connection.send_request(request).await) })?;
        self.check(response.map_err(|error| self.broken(error))?, connection)
    }

    fn connect(&self) -> Result<Connection, ClickHouseError> {
        let address = || self.address.to_string();
        self.block(async {
            let stream = tokio::time::timeout(CONNECT, self.peer.connect())
                .await
                .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
                .map_err(|source| ClickHouseError::Connect {
                    address: address(),
                    source,
                })?;
            let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|source| ClickHouseError::Broken {
                    address: address(),
                    source,
                })?;
            // Ends when its sender has gone or the server closes it; whoever sends learns why.
            tokio::spawn(async move { connection.await.unwrap_or_default() });
            Ok(sender)
        })
    }

    fn check(
        &self,
        response: http::Response<Incoming>,
        connection: Connection,
    ) -> Result<Answer<'_>, ClickHouseError> {
        let (head, body) = response.into_parts();
        let mut answer = Answer {
            http: self,
            body,
            connection: Some(connection),
        };
        if head.status == StatusCode::OK {
            return Ok(answer);
        }
        let code = head
            .headers
            .get("X-ClickHouse-Exception-Code")
            .and_then(|code| code.to_str().ok())
            .map(str::to_owned);
        let mut text = Vec::new();
        while let Some(chunk) = answer.next()? {
            let room = MOST_TEXT.saturating_sub(text.len());
            text.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        Err(self.refused(head.status, code.as_deref().unwrap_or_default(), text))
    }

    fn refused(&self, status: StatusCode, code: &str, text: String) -> ClickHouseError {
        let address = self.address.to_string();
        let said = |number: &str| code == number || text.contains(&format!("Code: {number}."));
        if said(AUTHENTICATION_FAILED) || status == StatusCode::UNAUTHORIZED {
            return ClickHouseError::Login { address };
        }
        if said(ACCESS_DENIED) {
            return ClickHouseError::Rights { address, text };
        }
        if said(UNKNOWN_DATABASE) {
            return ClickHouseError::Database { address };
        }
        ClickHouseError::Refused {
            address,
            status: status.as_u16(),
            text,
        }
    }

    fn broken(&self, source: hyper::Error) -> ClickHouseError {
        ClickHouseError::Broken {
            address: self.address.to_string(),
            source,
        }
    }

    fn give_back(&self, connection: Option<Connection>) {
        let mut idle = self.idle.lock();
        if let Some(connection) = connection.filter(|one| !one.is_closed())
            && idle.len() < MOST_IDLE
        {
            idle.push(connection);
        }
    }

    fn block<T>(
        &self,
        work: impl Future<Output = Result<T, ClickHouseError>>,
    ) -> Result<T, ClickHouseError> {
        let runtime = self.runtime.as_ref().expect("taken in drop alone");
        runtime.block_on(async {
            let late = || ClickHouseError::Late {
                address: self.address.to_string(),
                seconds: PATIENCE.as_secs(),
            };
            tokio::time::timeout(PATIENCE, work)
                .await
                .unwrap_or_else(|_| Err(late()))
        })
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

/// With `wait_end_of_query` an error in the middle of the work is a status, not text after half of the rows.
fn path(settings: &[(&str, &str)]) -> String {
    let patience = SERVER_PATIENCE_SECONDS.to_string();
    let always = [
        ("wait_end_of_query", "1"),
        ("max_execution_time", patience.as_str()),
    ];
    let pairs: Vec<String> = settings
        .iter()
        .chain(&always)
        .map(|(name, value)| format!("{name}={}", escape(value)))
        .collect();
    format!("/?{}", pairs.join("&"))
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}
