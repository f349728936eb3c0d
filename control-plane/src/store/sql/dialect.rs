// SPDX-License-Identifier: Apache-2.0
//! What differs between SQLite and PostgreSQL, all of it: how one connects, the words of tables, transactions, where the
//! format is noted, how others hear of a change, and what the error codes mean. Every query is the same for both and
//! stands elsewhere in this folder.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::AsciiSet;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::percent_encode;
use sqlx::AnyConnection;
use sqlx::ConnectOptions;
use sqlx::any::AnyConnectOptions;
use sqlx::postgres::PgConnectOptions;
use std::os::unix::ffi::OsStrExt;

use super::OPEN;
use crate::store::StoreError;
use crate::store::Trouble;

/// "PlnM": tells our SQLite files from other programs', and our advisory locks from theirs.
const APPLICATION: i64 = 0x506c_6e4d;
/// PostgreSQL older than this is refused; the project of that name has given 12 up.
const OLDEST_SERVER: i64 = 130_000;
/// In a path that is to stand in a URL.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.');
/// The channel on which replicas tell each other of changes.
pub(super) const CHANNEL: &str = "pillion";
/// How long a server may take to answer before it counts as away. A file answers when it can.
const SERVER_PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Dialect {
    /// For messages; holds no password.
    pub(super) location: String,
    options: AnyConnectOptions,
    /// As `options` has them, for what only PostgreSQL can.
    pub(super) server: Option<PgConnectOptions>,
}

/// What stands in the place that `--store` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing of anybody's.
    Nothing,
    /// Tables of another program.
    Foreign,
    /// Ours, in that format.
    Format(i64),
}

impl Dialect {
    /// An SQLite file that exists.
    pub(super) fn sqlite(path: &Path, location: String) -> Result<Dialect, StoreError> {
        sqlx::any::install_default_drivers();
        let fail = |error: String| {
            StoreError::new(&location, OPEN, Trouble::Unreachable).with_detail(error)
        };
        let whole = path
            .canonicalize()
            .map_err(|error| fail(error.to_string()))?;
        let encoded = percent_encode(whole.as_os_str().as_bytes(), ESCAPED);
        let options = AnyConnectOptions::from_str(&format!("sqlite://{encoded}"))
            .map_err(|error| fail(error.to_string()))?;
        Ok(Dialect {
            location,
            options: options.disable_statement_logging(),
            server: None,
        })
    }

    /// A PostgreSQL database by its URL.
    pub(super) fn postgres(url: &str) -> Result<Dialect, sqlx::Error> {
        sqlx::any::install_default_drivers();
        let server = PgConnectOptions::from_str(url)?;
        let options = AnyConnectOptions::from_str(url)?.disable_statement_logging();
        let place = match server.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", server.get_host(), server.get_port()),
        };
        let user = server.get_username();
        let database = server.get_database().unwrap_or(user);
        Ok(Dialect {
            location: format!("postgres://{user}@{place}/{database}"),
            options,
            server: Some(server.disable_statement_logging()),
        })
    }

    /// Whether other processes may work on the same store at the same time.
    pub(super) fn is_shared(&self) -> bool {
        self.server.is_some()
    }

    /// After this long a statement counts as failed.
    pub(super) fn patience(&self) -> Duration {
        match self.server {
            Some(_) => SERVER_PATIENCE,
            None => Duration::MAX,
        }
    }

    /// A connection on which every later statement finds our tables and is durable once committed.
    pub(super) async fn connect(&self) -> Result<AnyConnection, sqlx::Error> {
        let mut connection = self.options.connect().await?;
        let settings = match self.server {
            // `synchronous = FULL` is what "acknowledged means durable" rests on in WAL mode.
            None => "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;",
            // A server that is configured to lose acknowledged commits does not lose ours.
            Some(_) => "SET search_path TO pillion; SET synchronous_commit TO on;",
        };
        sqlx::raw_sql(settings).execute(&mut connection).await?;
        Ok(connection)
    }

    /// Begins a transaction that may change tables, alone.
    pub(super) fn begin_alone(&self) -> String {
        match self.server {
            None => "BEGIN IMMEDIATE".to_owned(),
            Some(_) => format!("BEGIN; SELECT pg_advisory_xact_lock({APPLICATION})"),
        }
    }

    /// Begins a transaction that sees one state.
    pub(super) fn begin_reading(&self) -> &'static str {
        match self.server {
            None => "BEGIN",
            Some(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }

    /// A table definition with the words of this dialect in the places of `{int}`, `{bytes}` and `{table}`.
    pub(super) fn spell(&self, definition: &str) -> String {
        let (int, bytes, table) = match self.server {
            None => ("INTEGER", "BLOB", "STRICT, WITHOUT ROWID"),
            Some(_) => ("BIGINT", "BYTEA", ""),
        };
        definition
            .replace("{int}", int)
            .replace("{bytes}", bytes)
            .replace("{table}", table)
    }

    /// What there is, seen from inside [`Dialect::begin_alone`].
    pub(super) async fn found(&self, connection: &mut AnyConnection) -> Result<Found, sqlx::Error> {
        if self.server.is_some() {
            let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'pillion'";
            if number(connection, schemas).await? == 0 {
                return Ok(Found::Nothing);
            }
            let ours = "SELECT count(*) FROM pg_tables WHERE schemaname = 'pillion' AND tablename = 'format'";
            if number(connection, ours).await? == 0 {
                return Ok(Found::Foreign);
            }
            return Ok(Found::Format(
                number(connection, "SELECT version FROM format").await?,
            ));
        }
        let application = number(connection, "PRAGMA application_id").await?;
        if application == APPLICATION {
            return Ok(Found::Format(
                number(connection, "PRAGMA user_version").await?,
            ));
        }
        match number(connection, "SELECT count(*) FROM sqlite_schema").await? {
            0 => Ok(Found::Nothing),
            _ => Ok(Found::Foreign),
        }
    }

    /// Makes room for the first tables.
    pub(super) fn found_first(&self) -> String {
        match self.server {
            None => format!("PRAGMA application_id = {APPLICATION};"),
            Some(_) => "CREATE SCHEMA pillion; SET LOCAL search_path TO pillion; \
                        CREATE TABLE format (version BIGINT NOT NULL); INSERT INTO format VALUES (0);"
                .to_owned(),
        }
    }

    /// Notes the format.
    pub(super) fn stamp(&self, version: i64) -> String {
        match self.server {
            None => format!("PRAGMA user_version = {version};"),
            Some(_) => format!("UPDATE format SET version = {version};"),
        }
    }

    /// Tells the other replicas, once the transaction is committed.
    pub(super) fn announcement(&self) -> Option<String> {
        self.server
            .as_ref()
            .map(|_| format!("SELECT pg_notify('{CHANNEL}', '')"))
    }

    /// Refuses a server this was never tried on.
    pub(super) async fn check_server(
        &self,
        connection: &mut AnyConnection,
    ) -> Result<(), StoreError> {
        if self.server.is_none() {
            return Ok(());
        }
        let version = "SELECT current_setting('server_version_num')::BIGINT";
        let found = number(connection, version)
            .await
            .map_err(|error| self.error(OPEN, error))?;
        check_version(&self.location, found)
    }

    /// What an error of the driver means for a person.
    pub(super) fn error(&self, attempt: &'static str, error: sqlx::Error) -> StoreError {
        let code = error
            .as_database_error()
            .and_then(|error| Some(error.code()?.into_owned()));
        let trouble = match (&self.server, code) {
            (None, code) => sqlite_trouble(code.as_deref()),
            (Some(_), Some(code)) => postgres_trouble(&code),
            (Some(_), None) => match &error {
                sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Trouble::Corrupt,
                _ => Trouble::NoServer,
            },
        };
        let detail = match error.as_database_error() {
            Some(error) => error.message().to_owned(),
            None => error.to_string(),
        };
        StoreError::new(&self.location, attempt, trouble)
            .with_detail(detail)
            .with_source(error)
    }
}

async fn number(
    connection: &mut AnyConnection,
    statement: &'static str,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(statement)
        .fetch_one(&mut *connection)
        .await
}

fn check_version(location: &str, found: i64) -> Result<(), StoreError> {
    if found >= OLDEST_SERVER {
        return Ok(());
    }
    let detail = format!(
        "it is version {}, {} or newer is needed",
        found / 10_000,
        OLDEST_SERVER / 10_000
    );
    Err(StoreError::new(location, OPEN, Trouble::OldServer).with_detail(detail))
}

/// Result codes: <https://www.sqlite.org/rescode.html>; the low byte is the class.
fn sqlite_trouble(code: Option<&str>) -> Trouble {
    match code
        .and_then(|code| code.parse::<u32>().ok())
        .map(|code| code & 0xff)
    {
        Some(13) => Trouble::Full,
        Some(8) => Trouble::ReadOnly,
        Some(5 | 6) => Trouble::Busy,
        Some(14) => Trouble::Unreachable,
        Some(11 | 26) => Trouble::Corrupt,
        _ => Trouble::Io,
    }
}

/// SQLSTATE: <https://www.postgresql.org/docs/15/errcodes-appendix.html>; the first two characters are the class.
fn postgres_trouble(code: &str) -> Trouble {
    match code {
        "3D000" => Trouble::NoDatabase,
        "42501" => Trouble::NoRight,
        "25006" => Trouble::ReadOnlyServer,
        "53100" => Trouble::Full,
        "53300" => Trouble::TooManyConnections,
        _ => match code.get(..2) {
            Some("28") => Trouble::Login,
            Some("08" | "57") => Trouble::NoServer,
            Some("XX") => Trouble::Corrupt,
            Some("53" | "55" | "40") => Trouble::BusyServer,
            _ => Trouble::Refused,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_server_is_refused_with_both_versions() {
        assert!(check_version("postgres://db", 150_004).is_ok());
        let error = check_version("postgres://db", 90_624).expect_err("too old");
        let text = error.to_string();
        assert!(text.contains("version 9, 13 or newer"), "{text}");
    }

    #[test]
    fn a_location_never_shows_the_password() {
        let dialect = Dialect::postgres("postgres://me:hunter2@db.internal:5433/mesh").unwrap();
        assert_eq!(dialect.location, "postgres://me@db.internal:5433/mesh");
    }
}
