// SPDX-License-Identifier: Apache-2.0
//! The file of keys on disk: private to its owner, read at start, read again when it changes. A change that does not
//! hold is logged and the last good keys stay: half a file must not lock everybody out.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::keys::Keys;

/// Between looks at the file; a revoked key works no longer than this.
const LOOK: Duration = Duration::from_secs(1);
/// Writing for the group and anything for others. Reading for the group is how Kubernetes hands a secret to a process
/// that is not root.
const TOO_OPEN: u32 = 0o037;
/// Some thousands of keys.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Why the keys could not be read.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file.
    #[error("read credentials {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// Its mode.
    #[error("credentials {} may be read by others (mode {:04o}): chmod 600 it", .0.display(), .1)]
    Mode(PathBuf, u32),
    /// Its size.
    #[error("credentials {} are larger than {MAX_BYTES} bytes", .0.display())]
    Large(PathBuf),
    /// Its text.
    #[error("credentials {}: {}", .0.display(), .1.join("; "))]
    Content(PathBuf, Vec<String>),
}

/// See the module.
#[derive(Debug)]
pub struct KeysFile {
    path: PathBuf,
    account: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    keys: Arc<Keys>,
    seen: Option<Stamp>,
}

/// What tells one state of a file from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    mode: u32,
    changed: (i64, i64),
}

impl Stamp {
    fn of(found: &Metadata) -> Stamp {
        Stamp {
            inode: found.ino(),
            size: found.size(),
            mode: found.mode() & 0o7777,
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

impl KeysFile {
    /// Reads it for the first time. `account` is that of keys that name none.
    pub fn open(path: &Path, account: &str) -> Result<Arc<KeysFile>, KeysError> {
        let (keys, seen) = read(path, account)?;
        Ok(Arc::new(KeysFile {
            path: path.to_owned(),
            account: account.to_owned(),
            state: Mutex::new(State {
                keys: Arc::new(keys),
                seen: Some(seen),
            }),
        }))
    }

    /// The keys of now. Take them once per request.
    pub fn current(&self) -> Arc<Keys> {
        Arc::clone(&self.state.lock().keys)
    }

    /// Reads the file again whenever it has changed. Never ends.
    pub async fn follow(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let file = Arc::clone(&self);
            // A file system that hangs must not hold up the runtime.
            if tokio::task::spawn_blocking(move || file.look())
                .await
                .is_err()
            {
                tracing::error!("credentials were not looked at");
            }
        }
    }

    fn look(&self) {
        let stamp = std::fs::metadata(&self.path)
            .ok()
            .map(|found| Stamp::of(&found));
        if stamp == self.state.lock().seen {
            return;
        }
        match read(&self.path, &self.account) {
            Ok((keys, seen)) => {
                tracing::info!(path = %self.path.display(), keys = keys.len(), "credentials reloaded");
                *self.state.lock() = State {
                    keys: Arc::new(keys),
                    seen: Some(seen),
                };
            }
            Err(error) => {
                tracing::error!(%error, "credentials changed and cannot be used; the last good ones stay");
                self.state.lock().seen = stamp;
            }
        }
    }
}

fn read(path: &Path, account: &str) -> Result<(Keys, Stamp), KeysError> {
    let failed = |error| KeysError::Read(path.to_owned(), error);
    let stamp = Stamp::of(&std::fs::metadata(path).map_err(failed)?);
    if stamp.mode & TOO_OPEN != 0 {
        return Err(KeysError::Mode(path.to_owned(), stamp.mode));
    }
    if stamp.size > MAX_BYTES {
        return Err(KeysError::Large(path.to_owned()));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let keys = Keys::parse(&text, account)
        .map_err(|problems| KeysError::Content(path.to_owned(), problems))?;
    Ok((keys, stamp))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn write(path: &Path, id: &str, mode: u32) {
        let text = format!("[[keys]]\naccess_key_id = \"{id}\"\nsecret_access_key = \"s\"\n");
        std::fs::write(path, text).expect("a writable folder");
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, mode).expect("our own file");
    }

    #[test]
    fn a_changed_file_is_taken_up_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys.toml");
        write(&path, "ONE", 0o600);
        let file = KeysFile::open(&path, "000000000000").expect("sound");
        write(&path, "TWOS", 0o600);
        file.look();
        assert!(file.current().get("TWOS").is_some() && file.current().get("ONE").is_none());
        std::fs::write(&path, "[[keys").expect("a writable folder");
        file.look();
        std::fs::remove_file(&path).expect("our own file");
        file.look();
        assert!(file.current().get("TWOS").is_some());
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys.toml");
        write(&path, "ONE", 0o644);
        let error = KeysFile::open(&path, "000000000000").expect_err("too open");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
}
