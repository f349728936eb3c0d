// SPDX-License-Identifier: Apache-2.0
//! Copies of a store as text, one JSON document a line: taken while the control plane runs, from either kind of store,
//! and put back into either, so this is also the way from SQLite to PostgreSQL. Called by `main.rs` for `backup`,
//! `restore`.

use std::io::BufRead;
use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use sqlx::AnyConnection;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::Place;
use super::dialect::Dialect;
use super::dialect::Found;
use super::formats;
use super::place::reach;
use super::row;
use super::within;
use crate::store::StoreError;
use crate::store::Trouble;

const COPY: &str = "be backed up";
const RESTORE: &str = "be restored";

/// A column as text: what the dialects have in common.
#[derive(Clone, Copy)]
enum Column {
    Text(&'static str),
    Number(&'static str),
    Bytes(&'static str),
}

use Column::Bytes;
use Column::Number;
use Column::Text;

/// Every table but `head`, whose one row is the first line.
const TABLES: [(&str, &[Column]); 4] = [
    ("resource", &RECORD),
    (
        "answered",
        &[
            Text("scope"),
            Text("token"),
            Bytes("fingerprint"),
            Text("answer"),
            Number("expires_ms"),
        ],
    ),
    ("value", &[Text("name"), Bytes("value")]),
    (
        "history",
        &[
            Number("revision"),
            Number("sequence"),
            Number("at_ms"),
            Text("who"),
            Text("operation"),
            Number("removed"),
            RECORD[0],
            RECORD[1],
            RECORD[2],
            RECORD[3],
            RECORD[4],
            RECORD[5],
            RECORD[6],
            RECORD[7],
            RECORD[8],
            RECORD[9],
            RECORD[10],
            RECORD[11],
        ],
    ),
];

const RECORD: [Column; row::COLUMNS.len()] = [
    Text("mesh_owner"),
    Text("kind"),
    Text("mesh"),
    Text("parent"),
    Text("name"),
    Text("resource_owner"),
    Text("uid"),
    Number("version"),
    Number("created_ms"),
    Number("updated_ms"),
    Text("spec"),
    Text("tags"),
];

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    pillion_backup: u32,
    format: i64,
    revision: i64,
    touched: i64,
}

/// The last line: a copy that ends without it was cut off.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Foot {
    rows: u64,
}

/// What was copied or put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The revision of the copy.
    pub revision: u64,
    /// Rows of all tables.
    pub rows: u64,
}

/// A copy that was not made, or not put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file.
    #[error("write the backup")]
    Write(#[source] std::io::Error),
    /// The file.
    #[error("read the backup")]
    Read(#[source] std::io::Error),
    /// What is in it.
    #[error("line {line} of the backup is not as it was written ({detail}); use another copy")]
    Damaged {
        /// From 1.
        line: u64,
        /// What is wrong.
        detail: String,
    },
    /// It would be lost.
    #[error(
        "store {0} is not empty (revision {1}); restore into an empty one, or give --replace to put the backup in its place"
    )]
    NotEmpty(String, i64),
}

/// Writes everything, as of one moment, while others read and write.
pub async fn back_up(place: &Place, out: &mut dyn Write) -> Result<Copied, BackupError> {
    let (dialect, _) = reach(place, false).await?;
    let fail = |error| dialect.error(COPY, error);
    let mut connection = within(&dialect, dialect.connect()).await.map_err(fail)?;
    raw(&mut connection, dialect.begin_reading().to_owned())
        .await
        .map_err(fail)?;
    match dialect.found(&mut connection).await.map_err(fail)? {
        Found::Format(formats::CURRENT) => {}
        other => {
            let detail = format!(
                "found {other:?}, expected format {}; open it once with this version",
                formats::CURRENT
            );
            let error = StoreError::new(&dialect.location, COPY, Trouble::Corrupt);
            return Err(error.with_detail(detail).into());
        }
    }
    let head = super::statements::head(&mut connection)
        .await
        .map_err(fail)?;
    let line = Head {
        pillion_backup: 1,
        format: formats::CURRENT,
        revision: head.revision.cast_signed(),
        touched: head.touched.cast_signed(),
    };
    write_line(out, &line)?;
    let mut rows = 0;
    for (table, columns) in TABLES {
        let text = format!("SELECT {} FROM {table}", names(columns));
        let found = sqlx::query(sqlx::AssertSqlSafe(text)).fetch_all(&mut connection);
        for row in found.await.map_err(fail)? {
            let values: Result<Vec<Value>, sqlx::Error> =
                columns.iter().map(|column| column.read(&row)).collect();
            write_line(out, &(table, values.map_err(fail)?))?;
            rows += 1;
        }
    }
    write_line(out, &Foot { rows })?;
    out.flush().map_err(BackupError::Write)?;
    Ok(Copied {
        revision: head.revision,
        rows,
    })
}

/// Puts a copy into a store: all of it or nothing. Replicas that run on it take it up, since its revision is new.
pub async fn restore(
    place: &Place,
    from: &mut dyn BufRead,
    replace: bool,
) -> Result<Copied, BackupError> {
    let (dialect, _lock) = reach(place, true).await?;
    let fail = |error| dialect.error(RESTORE, error);
    let mut connection = within(&dialect, dialect.connect()).await.map_err(fail)?;
    formats::prepare(&mut connection, &dialect).await?;
    raw(&mut connection, "BEGIN".to_owned())
        .await
        .map_err(fail)?;
    // Dropping the connection rolls back whatever was not committed.
    let copied = put_back(&mut connection, &dialect, from, replace).await?;
    if let Some(announcement) = dialect.announcement() {
        raw(&mut connection, announcement).await.map_err(fail)?;
    }
    raw(&mut connection, "COMMIT".to_owned())
        .await
        .map_err(fail)?;
    sqlx::Connection::close(connection).await.map_err(fail)?;
    Ok(copied)
}

async fn put_back(
    connection: &mut AnyConnection,
    dialect: &Dialect,
    from: &mut dyn BufRead,
    replace: bool,
) -> Result<Copied, BackupError> {
    let fail = |error| BackupError::Store(dialect.error(RESTORE, error));
    let mut lines = Lines { from, line: 0 };
    let head: Head = lines.next()?;
    if head.pillion_backup != 1 || head.format != formats::CURRENT {
        return Err(lines.damaged(format!(
            "it is of format {}, this version restores {}",
            head.format,
            formats::CURRENT
        )));
    }
    // The lock that other writers wait for, and the revision that replicas have.
    raw(
        connection,
        "UPDATE head SET touched = touched + 1".to_owned(),
    )
    .await
    .map_err(fail)?;
    let before = super::statements::head(connection).await.map_err(fail)?;
    let (at, touched) = (before.revision.cast_signed(), before.touched.cast_signed());
    if at > 0 && !replace {
        return Err(BackupError::NotEmpty(dialect.location.clone(), at));
    }
    for (table, _) in TABLES {
        raw(connection, format!("DELETE FROM {table}"))
            .await
            .map_err(fail)?;
    }
    let mut rows = 0;
    let foot: Foot = loop {
        let line: Value = lines.next()?;
        if line.is_object() {
            break serde_json::from_value(line)
                .map_err(|error| lines.damaged(error.to_string()))?;
        }
        insert(connection, &line, &lines, dialect).await?;
        rows += 1;
    };
    if foot.rows != rows {
        return Err(lines.damaged(format!("{rows} rows of {}", foot.rows)));
    }
    // Two beyond what anybody has: replicas see a gap that history cannot fill, and read everything again.
    let revision = if at == 0 {
        head.revision
    } else {
        at.max(head.revision) + 2
    };
    sqlx::query("UPDATE head SET revision = $1, touched = $2")
        .bind(revision)
        .bind(touched.max(head.touched) + 1)
        .execute(&mut *connection)
        .await
        .map_err(fail)?;
    Ok(Copied {
        revision: revision.cast_unsigned(),
        rows,
    })
}

async fn insert(
    connection: &mut AnyConnection,
    line: &Value,
    lines: &Lines<'_>,
    dialect: &Dialect,
) -> Result<(), BackupError> {
    let table = TABLES.iter().find(|(table, _)| line[0] == *table);
    let (Some((table, columns)), Some(values)) = (table, line[1].as_array()) else {
        return Err(lines.damaged("it names no table".to_owned()));
    };
    if values.len() != columns.len() {
        return Err(lines.damaged(format!(
            "{} values for {} columns",
            values.len(),
            columns.len()
        )));
    }
    let places: Vec<String> = (1..=columns.len()).map(|at| format!("${at}")).collect();
    let text = format!(
        "INSERT INTO {table} ({}) VALUES ({})",
        names(columns),
        places.join(", ")
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(text));
    for (column, value) in columns.iter().zip(values) {
        let wrong = || lines.damaged(format!("{} is {value}", column.name()));
        query = match column {
            Text(_) => query.bind(value.as_str().ok_or_else(wrong)?),
            Number(_) => query.bind(value.as_i64().ok_or_else(wrong)?),
            Bytes(_) => {
                let decoded = value.as_str().and_then(|text| STANDARD.decode(text).ok());
                query.bind(decoded.ok_or_else(wrong)?)
            }
        };
    }
    let done = query.execute(&mut *connection).await;
    done.map_err(|error| BackupError::Store(dialect.error(RESTORE, error)))?;
    Ok(())
}

impl Column {
    fn name(self) -> &'static str {
        match self {
            Text(name) | Number(name) | Bytes(name) => name,
        }
    }

    fn read(self, row: &AnyRow) -> Result<Value, sqlx::Error> {
        Ok(match self {
            Text(name) => row.try_get::<String, _>(name)?.into(),
            Number(name) => row.try_get::<i64, _>(name)?.into(),
            Bytes(name) => STANDARD.encode(row.try_get::<Vec<u8>, _>(name)?).into(),
        })
    }
}

fn names(columns: &[Column]) -> String {
    let names: Vec<&str> = columns.iter().map(|column| column.name()).collect();
    names.join(", ")
}

struct Lines<'a> {
    from: &'a mut dyn BufRead,
    line: u64,
}

impl Lines<'_> {
    fn next<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, BackupError> {
        let mut text = String::new();
        self.line += 1;
        let read = self.from.read_line(&mut text).map_err(BackupError::Read)?;
        if read == 0 {
            return Err(self.damaged("it ends here, cut off".to_owned()));
        }
        serde_json::from_str(&text).map_err(|error| self.damaged(error.to_string()))
    }

    fn damaged(&self, detail: String) -> BackupError {
        BackupError::Damaged {
            line: self.line,
            detail,
        }
    }
}

fn write_line(out: &mut dyn Write, line: &impl Serialize) -> Result<(), BackupError> {
    let text = serde_json::to_string(line).expect("strings and numbers always serialize");
    writeln!(out, "{text}").map_err(BackupError::Write)
}

async fn raw(connection: &mut AnyConnection, statement: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
        .execute(&mut *connection)
        .await
        .map(|_| ())
}
