// SPDX-License-Identifier: Apache-2.0
//! Every statement on resources, tokens and values. Called by [`super::SqlStore`], which owns the connections and turns
//! errors into ours; nothing here decides anything but whether a commit is stale. Both dialects take all of it as it is.

use sqlx::AnyConnection;
use sqlx::FromRow;

use super::dialect::Dialect;
use super::history;
use super::row;
use super::row::COLUMNS;
use crate::store::Answered;
use crate::store::Change;
use crate::store::Commit;
use crate::store::Contents;
use crate::store::Record;

/// Where a store stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Commits so far.
    pub(super) revision: u64,
    /// Changes of values so far.
    pub(super) touched: u64,
}

/// The latest revision.
pub(super) async fn head(connection: &mut AnyConnection) -> Result<Head, sqlx::Error> {
    let (revision, touched): (i64, i64) = sqlx::query_as("SELECT revision, touched FROM head")
        .fetch_one(&mut *connection)
        .await?;
    Ok(Head {
        revision: revision.cast_unsigned(),
        touched: touched.cast_unsigned(),
    })
}

/// Everything as read, not yet understood.
pub(super) struct Rows {
    revision: u64,
    rows: Vec<row::Row>,
}

impl Rows {
    /// An error names the row that makes no sense.
    pub(super) fn into_contents(self) -> Result<Contents, String> {
        let records: Result<Vec<Record>, String> =
            self.rows.into_iter().map(row::Row::into_record).collect();
        Ok(Contents {
            revision: self.revision,
            records: records?,
        })
    }
}

/// Both reads see one state.
pub(super) async fn contents(
    connection: &mut AnyConnection,
    dialect: &Dialect,
) -> Result<Rows, sqlx::Error> {
    sqlx::raw_sql(dialect.begin_reading())
        .execute(&mut *connection)
        .await?;
    let read = read(connection).await;
    finish(connection, read).await
}

async fn read(connection: &mut AnyConnection) -> Result<Rows, sqlx::Error> {
    let revision = head(connection).await?.revision;
    let text = format!("SELECT {} FROM resource", COLUMNS.join(", "));
    let rows = sqlx::query(sqlx::AssertSqlSafe(text))
        .fetch_all(&mut *connection)
        .await?;
    let rows: Result<Vec<row::Row>, sqlx::Error> = rows.iter().map(row::Row::from_row).collect();
    Ok(Rows {
        revision,
        rows: rows?,
    })
}

/// Commits what went well; rolls everything else back.
async fn finish<T>(
    connection: &mut AnyConnection,
    outcome: Result<T, sqlx::Error>,
) -> Result<T, sqlx::Error> {
    let Err(error) = outcome else {
        sqlx::raw_sql("COMMIT").execute(&mut *connection).await?;
        return outcome;
    };
    roll_back(connection).await;
    Err(error)
}

async fn roll_back(connection: &mut AnyConnection) {
    if let Err(error) = sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await {
        // SQLite itself rolls back after some errors (full, I/O); then there is nothing left to roll back.
        tracing::debug!(%error, "transaction was already rolled back");
    }
}

/// How a commit went.
pub(super) enum Outcome {
    /// Durable, as that revision.
    Stored(u64),
    /// Not done: the store is at that revision.
    Stale(u64),
    /// The connection broke while the store was told to commit.
    Unknown(sqlx::Error),
}

/// One transaction, rolled back unless everything in it worked.
pub(super) async fn commit(
    connection: &mut AnyConnection,
    dialect: &Dialect,
    commit: &Commit,
) -> Result<Outcome, sqlx::Error> {
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
    let written = write(connection, dialect, commit).await;
    if let Ok(Outcome::Stored(revision)) = written {
        return match sqlx::raw_sql("COMMIT").execute(&mut *connection).await {
            Ok(_) => Ok(Outcome::Stored(revision)),
            Err(error) if error.as_database_error().is_none() => Ok(Outcome::Unknown(error)),
            Err(error) => {
                roll_back(connection).await;
                Err(error)
            }
        };
    }
    roll_back(connection).await;
    written
}

async fn write(
    connection: &mut AnyConnection,
    dialect: &Dialect,
    commit: &Commit,
) -> Result<Outcome, sqlx::Error> {
    // First of all, since it is also the lock that has other writers wait: they find the next revision, or this one.
    let next = commit.based_on + 1;
    let taken = sqlx::query("UPDATE head SET revision = $1 WHERE revision = $2")
        .bind(next.cast_signed())
        .bind(commit.based_on.cast_signed())
        .execute(&mut *connection)
        .await?;
    if taken.rows_affected() == 0 {
        return Ok(Outcome::Stale(head(connection).await?.revision));
    }
    for change in &commit.changes {
        match change {
            Change::Put(record) => put(connection, record).await?,
            Change::Remove(record) => remove(connection, record).await?,
        }
    }
    history::remember(connection, commit, next).await?;
    if let Some(answered) = &commit.answered {
        remember(connection, answered, commit.now_ms).await?;
    }
    announce(connection, dialect).await?;
    Ok(Outcome::Stored(next))
}

async fn announce(connection: &mut AnyConnection, dialect: &Dialect) -> Result<(), sqlx::Error> {
    if let Some(announcement) = dialect.announcement() {
        sqlx::raw_sql(sqlx::AssertSqlSafe(announcement))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn put(connection: &mut AnyConnection, record: &Record) -> Result<(), sqlx::Error> {
    let text = format!(
        "{} ON CONFLICT (mesh_owner, kind, mesh, parent, name) DO UPDATE SET \
         resource_owner = excluded.resource_owner, uid = excluded.uid, version = excluded.version, \
         created_ms = excluded.created_ms, updated_ms = excluded.updated_ms, spec = excluded.spec, \
         tags = excluded.tags",
        row::insert_into("resource", &[])
    );
    row::bind(sqlx::query(sqlx::AssertSqlSafe(text)), record)?
        .execute(&mut *connection)
        .await?;
    Ok(())
}

async fn remove(connection: &mut AnyConnection, record: &Record) -> Result<(), sqlx::Error> {
    let query = sqlx::query(
        "DELETE FROM resource WHERE mesh_owner = $1 AND kind = $2 AND mesh = $3 AND parent = $4 AND name = $5",
    );
    row::bind_key(query.bind(&record.mesh_owner), &record.key)
        .execute(&mut *connection)
        .await?;
    Ok(())
}

async fn remember(
    connection: &mut AnyConnection,
    answered: &Answered,
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM answered WHERE expires_ms <= $1")
        .bind(now_ms)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO answered (scope, token, fingerprint, answer, expires_ms) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(&answered.scope)
    .bind(&answered.token)
    .bind(answered.fingerprint.as_slice())
    .bind(answered.answer.to_string())
    .bind(answered.expires_ms)
    .execute(&mut *connection)
    .await?;
    Ok(())
}

/// What was answered under a token that has not expired.
pub(super) async fn answered(
    connection: &mut AnyConnection,
    scope: &str,
    token: &str,
    now_ms: i64,
) -> Result<Option<Answered>, sqlx::Error> {
    let row: Option<(Vec<u8>, String, i64)> = sqlx::query_as(
        "SELECT fingerprint, answer, expires_ms FROM answered WHERE scope = $1 AND token = $2 AND expires_ms > $3",
    )
    .bind(scope)
    .bind(token)
    .bind(now_ms)
    .fetch_optional(&mut *connection)
    .await?;
    let Some((fingerprint, answer, expires_ms)) = row else {
        return Ok(None);
    };
    let fingerprint = <[u8; 32]>::try_from(fingerprint)
        .map_err(|_| sqlx::Error::Decode("a fingerprint is not 32 bytes".into()))?;
    Ok(Some(Answered {
        scope: scope.to_owned(),
        token: token.to_owned(),
        fingerprint,
        answer: serde_json::from_str(&answer).map_err(|error| sqlx::Error::Decode(error.into()))?,
        expires_ms,
    }))
}

/// A small value by name.
pub(super) async fn value(
    connection: &mut AnyConnection,
    name: &str,
) -> Result<Option<Vec<u8>>, sqlx::Error> {
    sqlx::query_scalar("SELECT value FROM value WHERE name = $1")
        .bind(name)
        .fetch_optional(&mut *connection)
        .await
}

/// What is to become of a value.
pub(super) struct Swap<'a> {
    pub(super) name: &'a str,
    /// What must stand there for it to be done.
    pub(super) before: Option<&'a [u8]>,
    /// What will; nothing removes it.
    pub(super) after: Option<&'a [u8]>,
}

/// Changes a value unless somebody else has; where values stand afterwards, or `None` if nothing was done.
pub(super) async fn swap(
    connection: &mut AnyConnection,
    dialect: &Dialect,
    swap: Swap<'_>,
) -> Result<Option<Head>, sqlx::Error> {
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
    let done = swapped(connection, dialect, swap).await;
    if let Ok(None) = done {
        roll_back(connection).await;
        return done;
    }
    finish(connection, done).await
}

async fn swapped(
    connection: &mut AnyConnection,
    dialect: &Dialect,
    Swap {
        name,
        before,
        after,
    }: Swap<'_>,
) -> Result<Option<Head>, sqlx::Error> {
    // The lock, as in `write`.
    sqlx::query("UPDATE head SET touched = touched + 1")
        .execute(&mut *connection)
        .await?;
    if value(connection, name).await?.as_deref() != before {
        return Ok(None);
    }
    let statement = match after {
        Some(after) => sqlx::query(
            "INSERT INTO value (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(name)
        .bind(after),
        None => sqlx::query("DELETE FROM value WHERE name = $1").bind(name),
    };
    statement.execute(&mut *connection).await?;
    announce(connection, dialect).await?;
    head(connection).await.map(Some)
}
