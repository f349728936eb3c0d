// SPDX-License-Identifier: Apache-2.0
//! The store in SQL: one SQLite file, or one PostgreSQL database that several control planes share. Every commit is
//! durable before it is acknowledged. A file is ours alone, kept so by a lock beside it; a database may change under us,
//! and [`SqlStore::follow`] says when it has. Queries are the same for both; what differs is in [`dialect`].

use std::fs::File;
use std::io;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex as Shut;
use sqlx::AnyConnection;
use sqlx::Connection;
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
use dialect::Dialect;
pub use place::Place;
use place::reach;
use statements::Head;
use statements::Outcome;
use statements::Swap;

pub mod backup;
mod dialect;
mod follow;
mod formats;
mod history;
mod place;
mod row;
mod statements;

const OPEN: &str = "be opened";
const LOAD: &str = "be read";
const SAVE: &str = "save the change";
const LOOK_UP: &str = "look up a clientToken";
const RECALL: &str = "recall its history";
const VALUE: &str = "read or save a value";

/// A server that has just failed is not asked again for so long, and those who would have asked are told at once.
const REST: Duration = Duration::from_secs(1);
/// What a read waits at most to learn whether another replica has written; then it is answered from memory.
const GLANCE: Duration = Duration::from_millis(500);

/// See the module.
pub struct SqlStore {
    dialect: Dialect,
    /// For commits; the only one to a file.
    writing: Mutex<Option<AnyConnection>>,
    /// To a server, so that a read does not stand behind a commit.
    reading: Mutex<Option<AnyConnection>>,
    revision: watch::Sender<u64>,
    touched: watch::Sender<u64>,
    /// Since when the server does not answer, and what it said.
    failure: Shut<Option<(Instant, Trouble, String)>>,
    /// Held until the process ends.
    _lock: Option<File>,
}

impl SqlStore {
    /// Opens the store, making its tables if need be and taking older ones forward.
    pub async fn open(place: &Place) -> Result<SqlStore, StoreError> {
        let (dialect, lock) = reach(place, true).await?;
        let fail = |error| dialect.error(OPEN, error);
        let mut connection = within(&dialect, dialect.connect()).await.map_err(fail)?;
        let format = formats::prepare(&mut connection, &dialect).await?;
        if format != formats::CURRENT && format != 0 {
            let to = formats::CURRENT;
            tracing::info!(
                store = dialect.location,
                from = format,
                to,
                "store taken to a newer format"
            );
        }
        let head = statements::head(&mut connection).await.map_err(fail)?;
        Ok(SqlStore {
            dialect,
            writing: Mutex::new(Some(connection)),
            reading: Mutex::new(None),
            revision: watch::Sender::new(head.revision),
            touched: watch::Sender::new(head.touched),
            failure: Shut::new(None),
            _lock: lock,
        })
    }

    /// Takes a store to another format, back as well as forward; returns the one it had.
    pub async fn migrate(place: &Place, wanted: i64) -> Result<i64, StoreError> {
        let (dialect, _lock) = reach(place, true).await?;
        if !(1..=formats::CURRENT).contains(&wanted) {
            let detail = format!(
                "there is no format {wanted}; this version knows 1 to {}",
                formats::CURRENT
            );
            return Err(
                StoreError::new(&dialect.location, OPEN, Trouble::Newer).with_detail(detail)
            );
        }
        let mut connection = within(&dialect, dialect.connect())
            .await
            .map_err(|error| dialect.error(OPEN, error))?;
        formats::migrate(&mut connection, &dialect, wanted).await
    }

    /// Hears of what other processes do to the store, for as long as it is polled; a file has no others.
    pub async fn follow(self: std::sync::Arc<Self>) {
        match self.dialect.server.clone() {
            Some(server) => follow::follow(&self, server).await,
            None => std::future::pending().await,
        }
    }

    /// Checkpoints a file's log into it and says goodbye; the next use would connect again.
    pub async fn close(&self) {
        for slot in [&self.writing, &self.reading] {
            if let Some(connection) = slot.lock().await.take()
                && let Err(error) = connection.close().await
            {
                tracing::warn!(%error, store = self.dialect.location, "store did not close cleanly");
            }
        }
    }

    fn moved(&self, head: Head) {
        raise(&self.revision, head.revision);
        raise(&self.touched, head.touched);
    }

    fn reader(&self) -> &Mutex<Option<AnyConnection>> {
        if self.dialect.is_shared() {
            &self.reading
        } else {
            &self.writing
        }
    }

    async fn held<'a>(
        &'a self,
        slot: &'a Mutex<Option<AnyConnection>>,
        attempt: &'static str,
    ) -> Result<Held<'a>, StoreError> {
        let mut slot = slot.lock().await;
        if let Some((since, trouble, detail)) = &*self.failure.lock()
            && since.elapsed() < REST
        {
            return Err(StoreError::new(&self.dialect.location, attempt, *trouble)
                .with_detail(detail.clone()));
        }
        if slot.is_none() {
            match within(&self.dialect, self.dialect.connect()).await {
                Ok(connection) => *slot = Some(connection),
                Err(error) => return Err(self.failed(attempt, error)),
            }
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
        match outcome {
            Ok(value) => {
                *self.failure.lock() = None;
                Ok(value)
            }
            Err(error) => {
                let broken = !matches!(
                    error,
                    sqlx::Error::Database(_)
                        | sqlx::Error::ColumnDecode { .. }
                        | sqlx::Error::Decode(_)
                );
                let error = self.failed(attempt, error);
                if broken || error.trouble() == Trouble::NoServer {
                    *held.slot = None;
                }
                Err(error)
            }
        }
    }

    fn failed(&self, attempt: &'static str, error: sqlx::Error) -> StoreError {
        let error = self.dialect.error(attempt, error);
        if self.dialect.is_shared() && error.trouble() == Trouble::NoServer {
            let detail = error.detail().unwrap_or_default().to_owned();
            *self.failure.lock() = Some((Instant::now(), Trouble::NoServer, detail));
        }
        error
    }

    async fn swap(&self, swap: Swap<'_>) -> Result<bool, StoreError> {
        let mut held = self.held(&self.writing, VALUE).await?;
        let done = statements::swap(held.connection(), &self.dialect, swap);
        let done = within(&self.dialect, done).await;
        let head = self.settle(held, VALUE, done)?;
        if let Some(head) = head {
            self.moved(head);
        }
        Ok(head.is_some())
    }
}

/// A connection in use.
struct Held<'a> {
    slot: MutexGuard<'a, Option<AnyConnection>>,
}

impl Held<'_> {
    fn connection(&mut self) -> &mut AnyConnection {
        self.slot
            .as_mut()
            .expect("held() fills the slot and only settle() empties it")
    }
}

fn raise(sender: &watch::Sender<u64>, to: u64) {
    sender.send_if_modified(|at| {
        let moved = to > *at;
        *at = to.max(*at);
        moved
    });
}

async fn within<T>(
    dialect: &Dialect,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let limit = dialect.patience();
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(sqlx::Error::Io(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {} s", limit.as_secs()),
        ))),
    }
}

impl Store for SqlStore {
    fn location(&self) -> &str {
        &self.dialect.location
    }

    fn load(&self) -> BoxFuture<'_, Result<Contents, StoreError>> {
        async move {
            let mut held = self.held(self.reader(), LOAD).await?;
            // Not within a limit: a hundred thousand resources take their time.
            let contents = statements::contents(held.connection(), &self.dialect).await;
            let rows = self.settle(held, LOAD, contents)?;
            rows.into_contents().map_err(|detail| {
                StoreError::new(self.location(), LOAD, Trouble::Corrupt).with_detail(detail)
            })
        }
        .boxed()
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<u64, CommitError>> {
        async move {
            let mut held = self.held(&self.writing, SAVE).await?;
            let work = statements::commit(held.connection(), &self.dialect, &commit);
            let unknown = |error| Ok(Outcome::Unknown(error));
            let outcome = match within(&self.dialect, work).await {
                // Cut off, perhaps in the middle of the last word.
                Err(error @ sqlx::Error::Io(_)) if self.dialect.is_shared() => unknown(error),
                outcome => outcome,
            };
            let outcome = match outcome {
                Ok(Outcome::Unknown(error)) => {
                    let error = self.settle::<u64>(held, SAVE, Err(error));
                    return Err(error
                        .expect_err("an error stays one")
                        .with_unknown_outcome()
                        .into());
                }
                outcome => self.settle(held, SAVE, outcome)?,
            };
            match outcome {
                Outcome::Stored(revision) => {
                    raise(&self.revision, revision);
                    Ok(revision)
                }
                Outcome::Stale(found) => Err(CommitError::Stale { found }),
                Outcome::Unknown(_) => unreachable!("answered above"),
            }
        }
        .boxed()
    }

    fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    fn latest(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        async move {
            if !self.dialect.is_shared() {
                return Ok(*self.revision.borrow());
            }
            let mut held = self.held(self.reader(), LOAD).await?;
            let head = statements::head(held.connection());
            let head = match tokio::time::timeout(GLANCE, head).await {
                Ok(head) => head,
                Err(_) => Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into())),
            };
            let head = self.settle(held, LOAD, head)?;
            self.moved(head);
            Ok(head.revision)
        }
        .boxed()
    }

    fn answered<'a>(
        &'a self,
        scope: &'a str,
        token: &'a str,
        now_ms: i64,
    ) -> BoxFuture<'a, Result<Option<Answered>, StoreError>> {
        async move {
            let mut held = self.held(self.reader(), LOOK_UP).await?;
            let found = statements::answered(held.connection(), scope, token, now_ms);
            let found = within(&self.dialect, found).await;
            self.settle(held, LOOK_UP, found)
        }
        .boxed()
    }

    fn recall(&self, which: Recall) -> BoxFuture<'_, Result<Vec<Remembered>, StoreError>> {
        async move {
            let mut held = self.held(self.reader(), RECALL).await?;
            let rows = history::recall(held.connection(), &which);
            let rows = within(&self.dialect, rows).await;
            let rows = self.settle(held, RECALL, rows)?;
            let whole: Result<Vec<Remembered>, String> = rows
                .into_iter()
                .map(history::Row::into_remembered)
                .collect();
            whole.map_err(|detail| {
                StoreError::new(self.location(), RECALL, Trouble::Corrupt).with_detail(detail)
            })
        }
        .boxed()
    }

    fn touches(&self) -> watch::Receiver<u64> {
        self.touched.subscribe()
    }

    fn value<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>> {
        async move {
            let mut held = self.held(self.reader(), VALUE).await?;
            let found = statements::value(held.connection(), name);
            let found = within(&self.dialect, found).await;
            self.settle(held, VALUE, found)
        }
        .boxed()
    }

    fn swap_value<'a>(
        &'a self,
        name: &'a str,
        before: Option<&'a [u8]>,
        after: Option<&'a [u8]>,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let swap = Swap {
            name,
            before,
            after,
        };
        self.swap(swap).boxed()
    }
}
