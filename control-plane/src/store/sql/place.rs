// SPDX-License-Identifier: Apache-2.0
//! Which store `--store` names, and what is done to a file before SQLite sees it: a lock that keeps other processes out,
//! and a mode that keeps other people out. Used by [`super::SqlStore`], [`super::backup`] and the settings.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::OPEN;
use super::dialect::Dialect;
use crate::store::StoreError;
use crate::store::Trouble;

/// How long a start waits for the last process to let go of the file, as in a restart by a supervisor.
const HANDOVER: Duration = Duration::from_secs(5);

/// Which store, as `--store` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `sqlite:<path>`.
    File(PathBuf),
    /// `postgres://…`.
    Server(String),
}

impl Place {
    /// Reads `--store`; the error is for a person.
    pub fn parse(store: &str) -> Result<Place, String> {
        if store.starts_with("postgres://") || store.starts_with("postgresql://") {
            return match Dialect::postgres(store) {
                Ok(_) => Ok(Place::Server(store.to_owned())),
                // The URL may hold a password, and is not repeated.
                Err(error) => Err(format!(
                    "--store postgres://… cannot be read ({error}); give postgres://<user>@<host>:<port>/<database>"
                )),
            };
        }
        // Two slashes after the colon are taken too, since many tools write URLs so.
        let path = store
            .strip_prefix("sqlite:")
            .map(|path| path.strip_prefix("//").unwrap_or(path));
        match path {
            Some(path) if !path.is_empty() => Ok(Place::File(PathBuf::from(path))),
            Some(_) => Err(format!(
                "--store {store:?} names no file; give sqlite:<path>"
            )),
            None => Err(format!(
                "--store {:?} is of no kind this version knows; give sqlite:<path> or postgres://<user>@<host>/<database>",
                store.split_once("://").map_or(store, |(scheme, _)| scheme)
            )),
        }
    }
}

/// Without the password.
impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::File(path) => write!(f, "sqlite:{}", path.display()),
            Place::Server(url) => match Dialect::postgres(url) {
                Ok(dialect) => f.write_str(&dialect.location),
                Err(_) => f.write_str("postgres://"),
            },
        }
    }
}

/// The way to a store, and for a file that is to be written the lock that keeps others out.
pub(super) async fn reach(
    place: &Place,
    alone: bool,
) -> Result<(Dialect, Option<File>), StoreError> {
    let location = place.to_string();
    match place {
        Place::File(path) => {
            let lock = match alone {
                true => Some(take_lock(path, &location).await?),
                false => None,
            };
            // Mode 0600: it holds the authority's key.
            private_file(path, alone).map_err(|error| io_error(&location, &error))?;
            Ok((Dialect::sqlite(path, location)?, lock))
        }
        Place::Server(url) => match Dialect::postgres(url) {
            Ok(dialect) => Ok((dialect, None)),
            Err(error) => Err(StoreError::new(&location, OPEN, Trouble::Unreachable)
                .with_detail(error.to_string())),
        },
    }
}

/// The lock is on a file of its own, since SQLite's locks on the database are let go between transactions.
async fn take_lock(path: &Path, location: &str) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file =
        private_file(&PathBuf::from(name), true).map_err(|error| io_error(location, &error))?;
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

fn private_file(path: &Path, create: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_a_path_with_or_without_slashes_or_a_server() {
        for (store, path) in [
            ("sqlite:a.db", "a.db"),
            ("sqlite:/v/a.db", "/v/a.db"),
            ("sqlite:///v/a.db", "/v/a.db"),
            ("sqlite://a.db", "a.db"),
        ] {
            assert_eq!(Place::parse(store), Ok(Place::File(path.into())));
        }
        assert!(Place::parse("sqlite:").is_err());
        assert!(Place::parse("postgresql://u@h/d").is_ok());
        for store in [
            "mysql://u:secret@h/d",
            "postgres://u:secret@h:port/d",
            "pillion.db",
        ] {
            let error = Place::parse(store).expect_err("no store");
            assert!(
                error.contains("postgres://<user>@<host>") && !error.contains("secret"),
                "{error}"
            );
        }
    }
}
