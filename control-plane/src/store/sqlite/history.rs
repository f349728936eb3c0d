// SPDX-License-Identifier: Apache-2.0
//! The table of changes: written in the transaction of each commit, read for history, rollback, audit and watches.
//! Called by [`super::schema`] and [`super::SqliteStore`].

use std::sync::Arc;

use sqlx::FromRow;
use sqlx::QueryBuilder;
use sqlx::Row as _;
use sqlx::Sqlite;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::schema;
use crate::store::Author;
use crate::store::Change;
use crate::store::Commit;
use crate::store::KEPT_OF_EACH;
use crate::store::KEPT_REVISIONS;
use crate::store::Recall;
use crate::store::Remembered;

/// Since format 2.
pub(super) const TABLES: &str = "
CREATE TABLE history (
    revision INTEGER NOT NULL, sequence INTEGER NOT NULL, at_ms INTEGER NOT NULL, who TEXT NOT NULL,
    operation TEXT NOT NULL, removed INTEGER NOT NULL,
    mesh_owner TEXT NOT NULL, kind TEXT NOT NULL, mesh TEXT NOT NULL, parent TEXT NOT NULL, name TEXT NOT NULL,
    resource_owner TEXT NOT NULL, uid TEXT NOT NULL, version INTEGER NOT NULL,
    created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL, spec TEXT NOT NULL, tags TEXT NOT NULL,
    PRIMARY KEY (revision, sequence)
) STRICT, WITHOUT ROWID;
CREATE INDEX history_of_resource ON history (kind, mesh, parent, name, revision);
";

const COLUMNS: &str = "revision, sequence, at_ms, who, operation, removed, mesh_owner, kind, mesh, parent, name, \
                       resource_owner, uid, version, created_ms, updated_ms, spec, tags";

/// Copies what the commit has just written, and forgets what is too old.
pub(super) async fn remember(
    connection: &mut SqliteConnection,
    commit: &Commit,
    revision: u64,
) -> Result<(), sqlx::Error> {
    for (sequence, change) in commit.changes.iter().enumerate() {
        insert(connection, commit, revision, sequence, change).await?;
        let key = &change.record().key;
        sqlx::query(
            "DELETE FROM history WHERE kind = ?1 AND mesh = ?2 AND parent = ?3 AND name = ?4 AND revision <= \
             (SELECT revision FROM history WHERE kind = ?1 AND mesh = ?2 AND parent = ?3 AND name = ?4 \
              ORDER BY revision DESC LIMIT 1 OFFSET ?5)",
        )
        .bind(key.kind.word())
        .bind(&key.mesh)
        .bind(key.parent.as_deref().unwrap_or_default())
        .bind(&key.name)
        .bind(KEPT_OF_EACH)
        .execute(&mut *connection)
        .await?;
    }
    sqlx::query("DELETE FROM history WHERE revision <= ?")
        .bind(revision.saturating_sub(KEPT_REVISIONS).cast_signed())
        .execute(&mut *connection)
        .await?;
    Ok(())
}

async fn insert(
    connection: &mut SqliteConnection,
    commit: &Commit,
    revision: u64,
    sequence: usize,
    change: &Change,
) -> Result<(), sqlx::Error> {
    let encoded = |error: serde_json::Error| sqlx::Error::Encode(error.into());
    let record = change.record();
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "INSERT INTO history ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    )))
    .bind(revision.cast_signed())
    .bind(i64::try_from(sequence).unwrap_or(i64::MAX))
    .bind(commit.now_ms)
    .bind(&commit.author.who)
    .bind(&commit.author.operation)
    .bind(matches!(change, Change::Remove(_)))
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
    .bind(serde_json::to_string(&*record.spec).map_err(encoded)?)
    .bind(serde_json::to_string(&record.tags).map_err(encoded)?)
    .execute(&mut *connection)
    .await?;
    Ok(())
}

/// As read, not yet understood.
pub(super) struct Row {
    revision: i64,
    sequence: u32,
    at_ms: i64,
    who: String,
    operation: String,
    removed: bool,
    record: schema::Row,
}

impl FromRow<'_, SqliteRow> for Row {
    fn from_row(row: &SqliteRow) -> Result<Row, sqlx::Error> {
        Ok(Row {
            revision: row.try_get("revision")?,
            sequence: row.try_get("sequence")?,
            at_ms: row.try_get("at_ms")?,
            who: row.try_get("who")?,
            operation: row.try_get("operation")?,
            removed: row.try_get("removed")?,
            record: schema::Row::from_row(row)?,
        })
    }
}

impl Row {
    /// An error names the row that makes no sense.
    pub(super) fn into_remembered(self) -> Result<Remembered, String> {
        Ok(Remembered {
            revision: self.revision.cast_unsigned(),
            sequence: self.sequence,
            at_ms: self.at_ms,
            author: Author {
                who: self.who,
                operation: self.operation,
            },
            removed: self.removed,
            record: Arc::new(self.record.into_record()?),
        })
    }
}

/// The rows that [`Recall`] describes.
pub(super) async fn recall(
    connection: &mut SqliteConnection,
    which: &Recall,
) -> Result<Vec<Row>, sqlx::Error> {
    let mut query: QueryBuilder<Sqlite> = QueryBuilder::new("SELECT ");
    query.push(COLUMNS).push(" FROM history WHERE revision > ");
    query.push_bind(which.after.cast_signed());
    if let Some(before) = which.before {
        query
            .push(" AND revision < ")
            .push_bind(before.cast_signed());
    }
    if let Some(key) = &which.key {
        query.push(" AND kind = ").push_bind(key.kind.word());
        query.push(" AND mesh = ").push_bind(key.mesh.clone());
        query
            .push(" AND parent = ")
            .push_bind(key.parent.clone().unwrap_or_default());
        query.push(" AND name = ").push_bind(key.name.clone());
    }
    query.push(if which.oldest_first {
        " ORDER BY revision, sequence LIMIT "
    } else {
        " ORDER BY revision DESC, sequence DESC LIMIT "
    });
    query.push_bind(which.limit);
    query.build_query_as().fetch_all(&mut *connection).await
}
