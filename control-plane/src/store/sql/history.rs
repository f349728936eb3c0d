// SPDX-License-Identifier: Apache-2.0
//! The table of changes: written in the transaction of each commit, read for history, rollback, audit, watches, and by
//! replicas that catch up. Called by [`super::statements`] and [`super::SqlStore`].

use std::sync::Arc;

use sqlx::AnyConnection;
use sqlx::FromRow;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::row;
use super::row::COLUMNS;
use crate::store::Author;
use crate::store::Change;
use crate::store::Commit;
use crate::store::KEPT_OF_EACH;
use crate::store::KEPT_REVISIONS;
use crate::store::Recall;
use crate::store::Remembered;

/// Before those of the record.
const FIRST: [&str; 6] = [
    "revision",
    "sequence",
    "at_ms",
    "who",
    "operation",
    "removed",
];

/// Copies what the commit has just written, and forgets what is too old.
pub(super) async fn remember(
    connection: &mut AnyConnection,
    commit: &Commit,
    revision: u64,
) -> Result<(), sqlx::Error> {
    let insert = row::insert_into("history", &FIRST);
    for (sequence, change) in (0i64..).zip(&commit.changes) {
        let first = sqlx::query(sqlx::AssertSqlSafe(insert.as_str()))
            .bind(revision.cast_signed())
            .bind(sequence)
            .bind(commit.now_ms)
            .bind(&commit.author.who)
            .bind(&commit.author.operation)
            .bind(i64::from(matches!(change, Change::Remove(_))));
        row::bind(first, change.record())?
            .execute(&mut *connection)
            .await?;
        let forget = sqlx::query(
            "DELETE FROM history WHERE kind = $1 AND mesh = $2 AND parent = $3 AND name = $4 AND revision <= \
             (SELECT revision FROM history WHERE kind = $1 AND mesh = $2 AND parent = $3 AND name = $4 \
              ORDER BY revision DESC LIMIT 1 OFFSET $5)",
        );
        row::bind_key(forget, &change.record().key)
            .bind(i64::from(KEPT_OF_EACH))
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query("DELETE FROM history WHERE revision <= $1")
        .bind(revision.saturating_sub(KEPT_REVISIONS).cast_signed())
        .execute(&mut *connection)
        .await?;
    Ok(())
}

/// As read, not yet understood.
pub(super) struct Row {
    revision: i64,
    sequence: i64,
    at_ms: i64,
    who: String,
    operation: String,
    removed: i64,
    record: row::Row,
}

impl FromRow<'_, AnyRow> for Row {
    fn from_row(row: &AnyRow) -> Result<Row, sqlx::Error> {
        Ok(Row {
            revision: row.try_get("revision")?,
            sequence: row.try_get("sequence")?,
            at_ms: row.try_get("at_ms")?,
            who: row.try_get("who")?,
            operation: row.try_get("operation")?,
            removed: row.try_get("removed")?,
            record: row::Row::from_row(row)?,
        })
    }
}

impl Row {
    /// An error names the row that makes no sense.
    pub(super) fn into_remembered(self) -> Result<Remembered, String> {
        Ok(Remembered {
            revision: self.revision.cast_unsigned(),
            sequence: u32::try_from(self.sequence).unwrap_or(u32::MAX),
            at_ms: self.at_ms,
            author: Author {
                who: self.who,
                operation: self.operation,
            },
            removed: self.removed != 0,
            record: Arc::new(self.record.into_record()?),
        })
    }
}

/// The rows that [`Recall`] describes.
pub(super) async fn recall(
    connection: &mut AnyConnection,
    which: &Recall,
) -> Result<Vec<Row>, sqlx::Error> {
    let columns = [FIRST.as_slice(), COLUMNS.as_slice()].concat().join(", ");
    let mut text = format!("SELECT {columns} FROM history WHERE revision > $1 AND revision < $2");
    if which.key.is_some() {
        text.push_str(" AND kind = $4 AND mesh = $5 AND parent = $6 AND name = $7");
    }
    text.push_str(if which.oldest_first {
        " ORDER BY revision, sequence LIMIT $3"
    } else {
        " ORDER BY revision DESC, sequence DESC LIMIT $3"
    });
    let before = which
        .before
        .map_or(i64::MAX, |before| before.min(i64::MAX as u64).cast_signed());
    let mut query = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(which.after.min(i64::MAX as u64).cast_signed())
        .bind(before)
        .bind(i64::from(which.limit));
    if let Some(key) = &which.key {
        query = row::bind_key(query, key);
    }
    let rows = query.fetch_all(&mut *connection).await?;
    rows.iter().map(Row::from_row).collect()
}
