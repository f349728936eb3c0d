// SPDX-License-Identifier: Apache-2.0
//! The store in one SQLite file: write-ahead log, every commit synced to disk before it is acknowledged. One
//! connection serves all, since the control plane reads from memory; a lock beside the file keeps a second process
//! out, whose memory would not hear of our writes.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::ConnectOptions;
use sqlx::Connection;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::sqlite::SqliteJournalMode;
use sqlx::sqlite::SqliteSynchronous;
use tokio::sync::Mutex;
use tokio::sync::MutexGuard;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Answered;
use super::Commit;
use super::CommitError;
use super::Contents;
use super::Recall;
use super::Remembered;
use super::Store;
use super::StoreError;
use super::Trouble;

mod history;
mod schema;

const OPEN: &str = "be opened";
const LOAD: &str = "be read";
const SAVE: &str = "save the change";
const LOOK_UP: &str = "look up a clientToken";
const RECALL: &str = "recall its history";
const VALUE: &str = "read or save a value";

/// How long SQLite waits for another process's lock (a backup, a person with the shell).
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a start waits for the last process to let go of the file, as in a restart by a supervisor.
const HANDOVER: Duration = Duration::from_secs(5);

/// See the module.
pub struct SqliteStore {
    location: String,
    options: SqliteConnectOptions,
    connection: Mutex<Option<SqliteConnection>>,
    revision: watch::Sender<u64>,
    /// Held until the process ends.
    _lock: File,
}

impl SqliteStore {
    /// Opens the file, making it (mode 0600: it holds the authority's key) and its tables if need be.
    pub async fn open(path: &Path) -> Result<SqliteStore, StoreError> {
        let location = format!("sqlite:{}", path.display());
        let fail = |error: io::Error| io_error(&location, &error);
        let lock = take_lock(path, &location).await?;
        private_file(path).map_err(fail)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        let mut connection = options
            .connect()
            .await
            .map_err(|error| sql_error(&location, OPEN, error))?;
        schema::prepare(&mut connection, &location).await?;
        let revision = schema::revision(&mut connection)
            .await
            .map_err(|error| sql_error(&location, OPEN, error))?;
        Ok(SqliteStore {
            location,
            options,
            connection: Mutex::new(Some(connection)),
            revision: watch::Sender::new(revision),
            _lock: lock,
        })
    }

    /// Checkpoints the log into the file and closes it; the store cannot be used afterwards without reopening.
    pub async fn close(&self) {
        if let Some(connection) = self.connection.lock().await.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, store = self.location, "store did not close cleanly; its log is replayed at the next start");
        }
    }

    async fn held(&self, attempt: &'static str) -> Result<Held<'_>, StoreError> {
        let mut slot = self.connection.lock().await;
        if slot.is_none() {
            let connection = self
                .options
                .connect()
                .await
                .map_err(|error| sql_error(&self.location, attempt, error))?;
            *slot = Some(connection);
        }
        Ok(Held { slot })
    }

    /// Turns the outcome of a use into ours; a connection that is beyond answering is dropped and made anew next time.
    fn settle<T>(
        &self,
        mut held: Held<'_>,
        attempt: &'static str,
        outcome: Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        outcome.map_err(|error| {
            if !matches!(
                error,
                sqlx::Error::Database(_) | sqlx::Error::ColumnDecode { .. }
            ) {
                *held.slot = None;
            }
            sql_error(&self.location, attempt, error)
        })
    }
}

/// The one connection, in use.
struct Held<'a> {
    slot: MutexGuard<'a, Option<SqliteConnection>>,
}

impl Held<'_> {
    fn connection(&mut self) -> &mut SqliteConnection {
        self.slot
            .as_mut()
            .expect("held() fills the slot and only settle() empties it")
    }
}

impl Store for SqliteStore {
    fn location(&self) -> &str {
        &self.location
    }

    fn load(&self) -> BoxFuture<'_, Result<Contents, StoreError>> {
        async move {
            let mut held = self.held(LOAD).await?;
            let contents = schema::contents(held.connection()).await;
            let rows = self.settle(held, LOAD, contents)?;
            rows.into_contents().map_err(|detail| {
                StoreError::new(&self.location, LOAD, Trouble::Corrupt).with_detail(detail)
            })
        }
        .boxed()
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<u64, CommitError>> {
        async move {
            let mut held = self.held(SAVE).await?;
            let outcome = schema::commit(held.connection(), &commit).await;
            match self.settle(held, SAVE, outcome)? {
                schema::Outcome::Stored(revision) => {
                    self.revision.send_replace(revision);
                    Ok(revision)
                }
                schema::Outcome::Stale(found) => Err(CommitError::Stale { found }),
            }
        }
        .boxed()
    }

    fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    fn answered<'a>(
        &'a self,
        scope: &'a str,
        token: &'a str,
        now_ms: i64,
    ) -> BoxFuture<'a, Result<Option<Answered>, StoreError>> {
        async move {
            let mut held = self.held(LOOK_UP).await?;
            let found = schema::answered(held.connection(), scope, token, now_ms).await;
            self.settle(held, LOOK_UP, found)
        }
        .boxed()
    }

    fn value<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>> {
        async move {
            let mut held = self.held(VALUE).await?;
            let found = schema::value(held.connection(), name).await;
            self.settle(held, VALUE, found)
        }
        .boxed()
    }

    fn recall(&self, which: Recall) -> BoxFuture<'_, Result<Vec<Remembered>, StoreError>> {
        async move {
            let mut held = self.held(RECALL).await?;
            let rows = history::recall(held.connection(), &which).await;
            let rows = self.settle(held, RECALL, rows)?;
            let whole: Result<Vec<Remembered>, String> = rows
                .into_iter()
                .map(history::Row::into_remembered)
                .collect();
            whole.map_err(|detail| {
                StoreError::new(&self.location, RECALL, Trouble::Corrupt).with_detail(detail)
            })
        }
        .boxed()
    }

    fn set_value<'a>(
        &'a self,
        name: &'a str,
        value: Option<&'a [u8]>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            let mut held = self.held(VALUE).await?;
            let done = schema::set_value(held.connection(), name, value).await;
            self.settle(held, VALUE, done)
        }
        .boxed()
    }

    fn put_value_once<'a>(
        &'a self,
        name: &'a str,
        value: &'a [u8],
    ) -> BoxFuture<'a, Result<Vec<u8>, StoreError>> {
        async move {
            let mut held = self.held(VALUE).await?;
            let stands = schema::put_value_once(held.connection(), name, value).await;
            self.settle(held, VALUE, stands)
        }
        .boxed()
    }
}

/// The lock is on a file of its own, since SQLite's locks on the database are let go between transactions.
async fn take_lock(path: &Path, location: &str) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = private_file(&PathBuf::from(name)).map_err(|error| io_error(location, &error))?;
    let deadline = Instant::now() + HANDOVER;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(StoreError::new(location, OPEN, Trouble::Busy));
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(io_error(location, &error)),
        }
    }
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

fn io_error(location: &str, error: &io::Error) -> StoreError {
    let trouble = match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => Trouble::ReadOnly,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Trouble::Full,
        _ => Trouble::Unreachable,
    };
    StoreError::new(location, OPEN, trouble).with_detail(error.to_string())
}

/// Result codes: <https://www.sqlite.org/rescode.html>; the low byte is the class.
fn sql_error(location: &str, attempt: &'static str, error: sqlx::Error) -> StoreError {
    let code = error
        .as_database_error()
        .and_then(|error| error.code()?.parse::<u32>().ok());
    let trouble = match code.map(|code| code & 0xff) {
        Some(13) => Trouble::Full,
        Some(8) => Trouble::ReadOnly,
        Some(5 | 6) => Trouble::Busy,
        Some(14) => Trouble::Unreachable,
        Some(11 | 26) => Trouble::Corrupt,
        _ => Trouble::Io,
    };
    let detail = match error.as_database_error() {
        Some(error) => error.message().to_owned(),
        None => error.to_string(),
    };
    StoreError::new(location, attempt, trouble)
        .with_detail(detail)
        .with_source(error)
}
