// SPDX-License-Identifier: Apache-2.0
//! Tables, and every statement that touches them. Called by [`super::SqliteStore`], which owns the connection and
//! turns errors into ours; nothing here decides anything but whether a commit is stale.

use std::sync::Arc;

use pillion_config::Kind;
use pillion_config::ResourceKey;
use sqlx::FromRow;
use sqlx::Row as _;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use crate::store::Answered;
use crate::store::Change;
use crate::store::Commit;
use crate::store::Contents;
use crate::store::Record;
use crate::store::StoreError;
use crate::store::Trouble;

use super::OPEN;
use super::history;
use super::sql_error;

/// Raised with every change of the tables; a step from each earlier one is then added to [`prepare`].
const VERSION: i64 = 2;

/// "PlnM": tells our files from other programs'.
const APPLICATION: i64 = 0x506c_6e4d;

const TABLES: &str = "
CREATE TABLE head (one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL) STRICT;
INSERT INTO head VALUES (1, 0);
CREATE TABLE resource (
    mesh_owner TEXT NOT NULL, kind TEXT NOT NULL, mesh TEXT NOT NULL, parent TEXT NOT NULL, name TEXT NOT NULL,
    resource_owner TEXT NOT NULL, uid TEXT NOT NULL, version INTEGER NOT NULL,
    created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL, spec TEXT NOT NULL, tags TEXT NOT NULL,
    PRIMARY KEY (mesh_owner, kind, mesh, parent, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE answered (
    scope TEXT NOT NULL, token TEXT NOT NULL, fingerprint BLOB NOT NULL, answer TEXT NOT NULL,
    expires_ms INTEGER NOT NULL,
    PRIMARY KEY (scope, token)
) STRICT, WITHOUT ROWID;
CREATE INDEX answered_expiry ON answered (expires_ms);
CREATE TABLE value (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
";

/// Makes the tables in an empty file, accepts our own, refuses what a newer version or another program wrote.
pub(super) async fn prepare(
    connection: &mut SqliteConnection,
    location: &str,
) -> Result<(), StoreError> {
    let failed = |error| sql_error(location, OPEN, error);
    let version = pragma(connection, "PRAGMA user_version")
        .await
        .map_err(failed)?;
    let application = pragma(connection, "PRAGMA application_id")
        .await
        .map_err(failed)?;
    let tables = pragma(connection, "SELECT count(*) FROM sqlite_schema")
        .await
        .map_err(failed)?;
    if (application, version) == (APPLICATION, VERSION) {
        return Ok(());
    }
    if (application, version) == (APPLICATION, 1) {
        // Additions only: an older program that opens the file finds a newer format and says so.
        let step = format!(
            "BEGIN IMMEDIATE; {} PRAGMA user_version = {VERSION}; COMMIT;",
            history::TABLES
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(step))
            .execute(&mut *connection)
            .await
            .map_err(failed)?;
        return Ok(());
    }
    if application == APPLICATION && version > VERSION {
        let detail = format!("its format is {version}, this version knows {VERSION}");
        return Err(StoreError::new(location, OPEN, Trouble::Newer).with_detail(detail));
    }
    if tables > 0 {
        let detail = "an SQLite file of another program";
        return Err(StoreError::new(location, OPEN, Trouble::Corrupt).with_detail(detail));
    }
    let create = format!(
        "BEGIN IMMEDIATE; {TABLES} {} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;",
        history::TABLES
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(create))
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    Ok(())
}

async fn pragma(
    connection: &mut SqliteConnection,
    statement: &'static str,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(statement)
        .fetch_one(&mut *connection)
        .await
}

/// The latest revision.
pub(super) async fn revision(connection: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
    let revision: i64 = sqlx::query_scalar("SELECT revision FROM head")
        .fetch_one(&mut *connection)
        .await?;
    Ok(revision.cast_unsigned())
}

/// Everything as read, not yet understood.
pub(super) struct Rows {
    revision: u64,
    rows: Vec<Row>,
}

pub(super) struct Row {
    mesh_owner: String,
    kind: String,
    mesh: String,
    parent: String,
    name: String,
    resource_owner: String,
    uid: String,
    version: i64,
    created_ms: i64,
    updated_ms: i64,
    spec: String,
    tags: String,
}

impl Rows {
    /// An error names the row that makes no sense.
    pub(super) fn into_contents(self) -> Result<Contents, String> {
        let records: Result<Vec<Record>, String> =
            self.rows.into_iter().map(Row::into_record).collect();
        Ok(Contents {
            revision: self.revision,
            records: records?,
        })
    }
}

impl FromRow<'_, SqliteRow> for Row {
    fn from_row(row: &SqliteRow) -> Result<Row, sqlx::Error> {
        Ok(Row {
            mesh_owner: row.try_get("mesh_owner")?,
            kind: row.try_get("kind")?,
            mesh: row.try_get("mesh")?,
            parent: row.try_get("parent")?,
            name: row.try_get("name")?,
            resource_owner: row.try_get("resource_owner")?,
            uid: row.try_get("uid")?,
            version: row.try_get("version")?,
            created_ms: row.try_get("created_ms")?,
            updated_ms: row.try_get("updated_ms")?,
            spec: row.try_get("spec")?,
            tags: row.try_get("tags")?,
        })
    }
}

impl Row {
    pub(super) fn into_record(self) -> Result<Record, String> {
        let wrong = |what: &str| {
            let Row {
                kind, mesh, name, ..
            } = &self;
            format!("{kind} {name} of mesh {mesh}: {what}")
        };
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.word() == self.kind)
            .ok_or_else(|| wrong("unknown kind"))?;
        let spec =
            serde_json::from_str(&self.spec).map_err(|error| wrong(&format!("spec: {error}")))?;
        let spec = pillion_config::parse_spec(kind, &spec)
            .map_err(|problems| wrong(&pillion_config::problem::sentence(&problems)))?;
        let tags =
            serde_json::from_str(&self.tags).map_err(|error| wrong(&format!("tags: {error}")))?;
        Ok(Record {
            key: ResourceKey {
                kind,
                mesh: self.mesh,
                parent: Some(self.parent).filter(|parent| !parent.is_empty()),
                name: self.name,
            },
            spec: Arc::new(spec),
            uid: self.uid,
            version: self.version.cast_unsigned(),
            created_ms: self.created_ms,
            updated_ms: self.updated_ms,
            mesh_owner: self.mesh_owner,
            resource_owner: self.resource_owner,
            tags,
        })
    }
}

/// Both reads see one state: nobody else holds this connection, and the lock keeps other processes out.
pub(super) async fn contents(connection: &mut SqliteConnection) -> Result<Rows, sqlx::Error> {
    let revision = revision(connection).await?;
    let rows = sqlx::query_as(
        "SELECT mesh_owner, kind, mesh, parent, name, resource_owner, uid, version, created_ms, updated_ms, spec, \
         tags FROM resource",
    )
    .fetch_all(&mut *connection)
    .await?;
    Ok(Rows { revision, rows })
}

/// How a commit went.
pub(super) enum Outcome {
    Stored(u64),
    Stale(u64),
}

/// One transaction, rolled back unless everything in it worked.
pub(super) async fn commit(
    connection: &mut SqliteConnection,
    commit: &Commit,
) -> Result<Outcome, sqlx::Error> {
    sqlx::raw_sql("BEGIN IMMEDIATE")
        .execute(&mut *connection)
        .await?;
    let written = match write(connection, commit).await {
        Ok(Outcome::Stored(revision)) => sqlx::raw_sql("COMMIT")
            .execute(&mut *connection)
            .await
            .map(|_| Outcome::Stored(revision)),
        other => other,
    };
    if !matches!(written, Ok(Outcome::Stored(_)))
        && let Err(error) = sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await
    {
        // SQLite itself rolls back after some errors (full, I/O); then there is nothing left to roll back.
        tracing::debug!(%error, "transaction was already rolled back");
    }
    written
}

async fn write(connection: &mut SqliteConnection, commit: &Commit) -> Result<Outcome, sqlx::Error> {
    let found = revision(connection).await?;
    if found != commit.based_on {
        return Ok(Outcome::Stale(found));
    }
    for change in &commit.changes {
        match change {
            Change::Put(record) => put(connection, record).await?,
            Change::Remove(record) => remove(connection, record).await?,
        }
    }
    history::remember(connection, commit, found + 1).await?;
    if let Some(answered) = &commit.answered {
        remember(connection, answered, commit.now_ms).await?;
    }
    let next = found + 1;
    sqlx::query("UPDATE head SET revision = ?")
        .bind(next.cast_signed())
        .execute(&mut *connection)
        .await?;
    Ok(Outcome::Stored(next))
}

async fn put(connection: &mut SqliteConnection, record: &Arc<Record>) -> Result<(), sqlx::Error> {
    let encoded = |error: serde_json::Error| sqlx::Error::Encode(error.into());
    let tags = serde_json::to_string(&record.tags).map_err(encoded)?;
    let spec = serde_json::to_string(&*record.spec).map_err(encoded)?;
    sqlx::query(
        "INSERT INTO resource (mesh_owner, kind, mesh, parent, name, resource_owner, uid, version, created_ms, \
         updated_ms, spec, tags) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT DO UPDATE SET resource_owner = excluded.resource_owner, uid = excluded.uid, \
         version = excluded.version, created_ms = excluded.created_ms, updated_ms = excluded.updated_ms, \
         spec = excluded.spec, tags = excluded.tags",
    )
    .bind(&record.mesh_owner)
    .bind(record.key.kind.word())
    .bind(&record.key.mesh)
    .bind(record.key.parent.as_deref().unwrap_or_default())
    .bind(&record.key.name)
    .bind(&record.resource_owner)
    .bind(&record.uid)
    .bind(record.version.cast_signed())
    .bind(record.created_ms)
    .bind(record.updated_ms)
    .bind(spec)
    .bind(tags)
    .execute(&mut *connection)
    .await?;
    Ok(())
}

async fn remove(
    connection: &mut SqliteConnection,
    record: &Arc<Record>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM resource WHERE mesh_owner = ? AND kind = ? AND mesh = ? AND parent = ? AND name = ?",
    )
    .bind(&record.mesh_owner)
    .bind(record.key.kind.word())
    .bind(&record.key.mesh)
    .bind(record.key.parent.as_deref().unwrap_or_default())
    .bind(&record.key.name)
    .execute(&mut *connection)
    .await?;
    Ok(())
}

async fn remember(
    connection: &mut SqliteConnection,
    answered: &Answered,
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM answered WHERE expires_ms <= ?")
        .bind(now_ms)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO answered (scope, token, fingerprint, answer, expires_ms) VALUES (?, ?, ?, ?, ?)",
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
    connection: &mut SqliteConnection,
    scope: &str,
    token: &str,
    now_ms: i64,
) -> Result<Option<Answered>, sqlx::Error> {
    let row: Option<(Vec<u8>, String, i64)> = sqlx::query_as(
        "SELECT fingerprint, answer, expires_ms FROM answered WHERE scope = ? AND token = ? AND expires_ms > ?",
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
    connection: &mut SqliteConnection,
    name: &str,
) -> Result<Option<Vec<u8>>, sqlx::Error> {
    sqlx::query_scalar("SELECT value FROM value WHERE name = ?")
        .bind(name)
        .fetch_optional(&mut *connection)
        .await
}

/// Stores a small value, or removes it.
pub(super) async fn set_value(
    connection: &mut SqliteConnection,
    name: &str,
    content: Option<&[u8]>,
) -> Result<(), sqlx::Error> {
    let statement = match content {
        Some(content) => sqlx::query(
            "INSERT INTO value (name, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
        )
        .bind(name)
        .bind(content),
        None => sqlx::query("DELETE FROM value WHERE name = ?").bind(name),
    };
    statement.execute(&mut *connection).await?;
    Ok(())
}

/// Two statements, one outcome: whoever inserted first, both read the same.
pub(super) async fn put_value_once(
    connection: &mut SqliteConnection,
    name: &str,
    content: &[u8],
) -> Result<Vec<u8>, sqlx::Error> {
    sqlx::query("INSERT INTO value (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING")
        .bind(name)
        .bind(content)
        .execute(&mut *connection)
        .await?;
    value(connection, name)
        .await?
        .ok_or(sqlx::Error::RowNotFound)
}
