// SPDX-License-Identifier: Apache-2.0
//! The formats that stores have had, each a step from the one before with the way back. A newer program takes an older
//! store forward when it opens it, in one transaction, while other replicas go on: steps only add. Back goes
//! `pillion-control-plane migrate --to N`, run with the newer program before the older one starts.

use sqlx::AnyConnection;

use super::OPEN;
use super::dialect::Dialect;
use super::dialect::Found;
use crate::store::StoreError;
use crate::store::Trouble;

/// One format, seen from the one before.
struct Step {
    forward: &'static str,
    back: &'static str,
}

/// `STEPS[n]` leads from format n to n + 1. Never changed once released; a new format is a new line.
const STEPS: [Step; 3] = [
    Step {
        forward: "
CREATE TABLE head (one {int} PRIMARY KEY CHECK (one = 1), revision {int} NOT NULL);
INSERT INTO head VALUES (1, 0);
CREATE TABLE resource (
    mesh_owner TEXT NOT NULL, kind TEXT NOT NULL, mesh TEXT NOT NULL, parent TEXT NOT NULL, name TEXT NOT NULL,
    resource_owner TEXT NOT NULL, uid TEXT NOT NULL, version {int} NOT NULL,
    created_ms {int} NOT NULL, updated_ms {int} NOT NULL, spec TEXT NOT NULL, tags TEXT NOT NULL,
    PRIMARY KEY (mesh_owner, kind, mesh, parent, name)
) {table};
CREATE TABLE answered (
    scope TEXT NOT NULL, token TEXT NOT NULL, fingerprint {bytes} NOT NULL, answer TEXT NOT NULL,
    expires_ms {int} NOT NULL,
    PRIMARY KEY (scope, token)
) {table};
CREATE INDEX answered_expiry ON answered (expires_ms);
CREATE TABLE value (name TEXT PRIMARY KEY, value {bytes} NOT NULL) {table};
",
        back: "DROP TABLE value; DROP TABLE answered; DROP TABLE resource; DROP TABLE head;",
    },
    // Every change as it was made.
    Step {
        forward: "
CREATE TABLE history (
    revision {int} NOT NULL, sequence {int} NOT NULL, at_ms {int} NOT NULL, who TEXT NOT NULL,
    operation TEXT NOT NULL, removed {int} NOT NULL,
    mesh_owner TEXT NOT NULL, kind TEXT NOT NULL, mesh TEXT NOT NULL, parent TEXT NOT NULL, name TEXT NOT NULL,
    resource_owner TEXT NOT NULL, uid TEXT NOT NULL, version {int} NOT NULL,
    created_ms {int} NOT NULL, updated_ms {int} NOT NULL, spec TEXT NOT NULL, tags TEXT NOT NULL,
    PRIMARY KEY (revision, sequence)
) {table};
CREATE INDEX history_of_resource ON history (kind, mesh, parent, name, revision);
",
        back: "DROP TABLE history;",
    },
    // Moves with every value, so that replicas know when to read theirs again.
    Step {
        forward: "ALTER TABLE head ADD COLUMN touched {int} NOT NULL DEFAULT 0;",
        back: "ALTER TABLE head DROP COLUMN touched;",
    },
];

/// The format this program reads and writes.
pub(super) const CURRENT: i64 = STEPS.len() as i64;

/// Brings the store to the current format, from nothing if need be; returns the format it had.
pub(super) async fn prepare(
    connection: &mut AnyConnection,
    dialect: &Dialect,
) -> Result<i64, StoreError> {
    dialect.check_server(connection).await?;
    alone(connection, dialect, CURRENT, true).await
}

/// Takes an existing store to `wanted`, forward or back; returns the format it had.
pub(super) async fn migrate(
    connection: &mut AnyConnection,
    dialect: &Dialect,
    wanted: i64,
) -> Result<i64, StoreError> {
    dialect.check_server(connection).await?;
    alone(connection, dialect, wanted, false).await
}

async fn alone(
    connection: &mut AnyConnection,
    dialect: &Dialect,
    wanted: i64,
    from_nothing: bool,
) -> Result<i64, StoreError> {
    run(connection, dialect.begin_alone())
        .await
        .map_err(|error| dialect.error(OPEN, error))?;
    let outcome = match dialect.found(connection).await {
        Err(error) => Err(dialect.error(OPEN, error)),
        Ok(found) => match plan(dialect, found, wanted, from_nothing) {
            Err(error) => Err(error),
            Ok((from, statements)) => run(connection, format!("{statements} COMMIT"))
                .await
                .map(|()| from)
                .map_err(|error| dialect.error(OPEN, error)),
        },
    };
    if outcome.is_err()
        && let Err(error) = run(connection, "ROLLBACK".to_owned()).await
    {
        tracing::debug!(%error, "nothing was left to roll back");
    }
    outcome
}

/// The statements that lead there. Pure.
fn plan(
    dialect: &Dialect,
    found: Found,
    wanted: i64,
    from_nothing: bool,
) -> Result<(i64, String), StoreError> {
    let (location, mut statements) = (&dialect.location, String::new());
    let from = match found {
        Found::Format(format) if format > CURRENT => {
            let detail = format!("its format is {format}, this version knows {CURRENT}");
            return Err(StoreError::new(location, OPEN, Trouble::Newer).with_detail(detail));
        }
        Found::Format(format) => format,
        Found::Nothing if from_nothing => {
            statements.push_str(&dialect.found_first());
            0
        }
        Found::Nothing => {
            return Err(StoreError::new(location, OPEN, Trouble::Corrupt)
                .with_detail("there is nothing in it"));
        }
        Found::Foreign => {
            return Err(StoreError::new(location, OPEN, Trouble::Corrupt)
                .with_detail("it has tables of another program"));
        }
    };
    for (at, step) in (0..CURRENT).zip(&STEPS) {
        if (from..wanted).contains(&at) {
            statements.push_str(&dialect.spell(step.forward));
        }
    }
    for (step, at) in STEPS.iter().rev().zip((0..CURRENT).rev()) {
        if (wanted..from).contains(&at) {
            statements.push_str(step.back);
        }
    }
    if from != wanted {
        statements.push_str(&dialect.stamp(wanted));
    }
    Ok((from, statements))
}

async fn run(connection: &mut AnyConnection, statements: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(statements))
        .execute(&mut *connection)
        .await
        .map(|_| ())
}
