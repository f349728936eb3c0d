// SPDX-License-Identifier: Apache-2.0
//! Where resources live: the contract every store keeps ([`Store`]), what passes through it, and the error a person
//! can act on. Implemented by [`sql`]; used through [`live`], which holds the rules and the copy in memory. A store
//! knows no rule of the mesh API: it keeps records, numbers the changes, and says honestly whether it could.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use pillion_config::ResourceKey;
use pillion_config::Spec;
use serde_json::Value;
use tokio::sync::watch;

pub mod difference;
pub mod live;
pub mod model;
pub mod shared;
pub mod sql;

pub use live::Live;
pub use model::Model;
pub use shared::Shared;

/// Tags of one resource, by key.
pub type Tags = BTreeMap<String, String>;

/// One resource as it is kept: what was written, and what the control plane adds.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What it is, and where.
    pub key: ResourceKey,
    /// Serialises to exactly what the caller wrote: answers echo it, defaults are never filled in.
    pub spec: Arc<Spec>,
    /// New for every creation, so that a name used twice is told apart.
    pub uid: String,
    /// 1 at creation, one more at every update.
    pub version: u64,
    /// Milliseconds since the epoch.
    pub created_ms: i64,
    /// Milliseconds since the epoch; equal to `created_ms` until the first update.
    pub updated_ms: i64,
    /// The account that owns the mesh, 12 digits.
    pub mesh_owner: String,
    /// The account that owns the resource, 12 digits.
    pub resource_owner: String,
    /// Tags change neither `version` nor `updated_ms`.
    pub tags: Tags,
}

/// What one write does to the set of resources.
#[derive(Clone, Debug)]
pub enum Change {
    /// Create or replace.
    Put(Arc<Record>),
    /// Remove; the record as it last was.
    Remove(Arc<Record>),
}

/// The answer once given to a request that carried a `clientToken`.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// Which operation of which account the token belongs to.
    pub scope: String,
    /// As the caller sent it.
    pub token: String,
    /// Hash of everything else in the request.
    pub fingerprint: [u8; 32],
    /// The body of the answer.
    pub answer: Value,
    /// Forgotten from then on; milliseconds since the epoch.
    pub expires_ms: i64,
}

impl Change {
    /// The record put, or as it last was.
    pub fn record(&self) -> &Arc<Record> {
        match self {
            Change::Put(record) | Change::Remove(record) => record,
        }
    }
}

/// Who writes, for history and audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// An access key id, or `anonymous`.
    pub who: String,
    /// The operation: `UpdateRoute`, `Rollback`, `Apply`.
    pub operation: String,
}

/// One change as it is remembered.
#[derive(Clone, Debug, PartialEq)]
pub struct Remembered {
    /// Of the commit it was part of.
    pub revision: u64,
    /// Place within that commit.
    pub sequence: u32,
    /// Milliseconds since the epoch.
    pub at_ms: i64,
    /// By whom, through what.
    pub author: Author,
    /// Whether the resource was removed then.
    pub removed: bool,
    /// As it was put, or as it last was.
    pub record: Arc<Record>,
}

/// Which changes to recall, newest first unless `oldest_first`.
#[derive(Clone, Debug, Default)]
pub struct Recall {
    /// Only of this resource.
    pub key: Option<ResourceKey>,
    /// Only with a revision above this.
    pub after: u64,
    /// Only with a revision below this.
    pub before: Option<u64>,
    /// Order.
    pub oldest_first: bool,
    /// How many at most.
    pub limit: u32,
}

/// One atomic write.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The revision the decision to write was based on.
    pub based_on: u64,
    /// What changes, in this order.
    pub changes: Vec<Change>,
    /// By whom.
    pub author: Author,
    /// Kept with the change or not at all.
    pub answered: Option<Answered>,
    /// The writer's clock, for forgetting old tokens; milliseconds since the epoch.
    pub now_ms: i64,
}

/// Versions of one resource that history keeps.
pub const KEPT_OF_EACH: u32 = 100;
/// Revisions that history keeps of all resources together.
pub const KEPT_REVISIONS: u64 = 100_000;

/// Everything a store holds, at one revision.
#[derive(Debug, Default)]
pub struct Contents {
    /// Number of writes since the store was made.
    pub revision: u64,
    /// In no particular order.
    pub records: Vec<Record>,
}

/// A write that did not happen.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Someone else wrote in between: catch up, decide again.
    #[error("the store moved on to revision {found}")]
    Stale {
        /// Where the store is now.
        found: u64,
    },
    /// The store failed; the caller may repeat the request later.
    #[error(transparent)]
    Failed(#[from] StoreError),
}

/// The contract. One suite (`tests/it/store_contract.rs`) holds every implementation to it.
///
/// - Revisions: every commit takes the next number, without gaps; `load` is a consistent picture of one of them.
/// - Atomic: a commit's change, its revision and its token are stored together or not at all, also when the process is
///   killed in the middle or the disk is full.
/// - Durable: a commit that returned `Ok` survives `kill -9` and power loss.
/// - Optimistic: a commit based on any but the latest revision is refused as [`CommitError::Stale`] and changes
///   nothing. Whoever decides on a model of revision N and commits with `based_on: N` has decided on the truth.
/// - Not cancel-safe: a dropped `commit` may or may not have happened. Only [`live`]'s writer, which is never dropped
///   in the middle, may call it.
/// - Failing is not the end: after an error the next call tries again, and reads work as long as they can.
pub trait Store: Send + Sync + 'static {
    /// The setting that names this store, for messages.
    fn location(&self) -> &str;

    /// Everything, at one revision.
    fn load(&self) -> BoxFuture<'_, Result<Contents, StoreError>>;

    /// Stores one change; returns the new revision once it is durable.
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<u64, CommitError>>;

    /// The latest revision this store knows of, its own commits and (where several processes share a store) others'.
    fn revisions(&self) -> watch::Receiver<u64>;

    /// The latest revision there is. Costs a question where several processes share a store, and nothing elsewhere.
    fn latest(&self) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// The answer given under a token, unless it has expired at `now_ms`.
    fn answered<'a>(
        &'a self,
        scope: &'a str,
        token: &'a str,
        now_ms: i64,
    ) -> BoxFuture<'a, Result<Option<Answered>, StoreError>>;

    /// Changes as they were made. Kept of each resource are the newest [`KEPT_OF_EACH`], and in all the newest
    /// [`KEPT_REVISIONS`] revisions; they are stored with their commit or not at all.
    fn recall(&self, which: Recall) -> BoxFuture<'_, Result<Vec<Remembered>, StoreError>>;

    /// A small value by name: the certificate authority keeps its keys here. Not part of any revision.
    fn value<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>>;

    /// Puts `after` in the place of `before`, where `None` is no value; `false` if something else stands there. Of
    /// several processes that try at once, one succeeds.
    fn swap_value<'a>(
        &'a self,
        name: &'a str,
        before: Option<&'a [u8]>,
        after: Option<&'a [u8]>,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Moves with every change of a value, by this process or another.
    fn touches(&self) -> watch::Receiver<u64>;
}

/// What ails a store, in terms of what a person can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No space, or a quota or file-size limit was reached.
    Full,
    /// The file or its file system does not take writes.
    ReadOnly,
    /// Someone else holds it.
    Busy,
    /// The file or folder is not there or may not be opened.
    Unreachable,
    /// Reading or writing failed underneath.
    Io,
    /// The contents are not what this program wrote.
    Corrupt,
    /// A later version of this program wrote it.
    Newer,
    /// The server does not answer.
    NoServer,
    /// The server is too old.
    OldServer,
    /// Wrong user, wrong password, or not from here.
    Login,
    /// The server has no such database.
    NoDatabase,
    /// The user may not do that there.
    NoRight,
    /// The server is a standby.
    ReadOnlyServer,
    /// The server has no connection to spare.
    TooManyConnections,
    /// The server is out of something, or others were faster.
    BusyServer,
    /// The server did not take a statement.
    Refused,
}

impl Trouble {
    fn remedy(self) -> &'static str {
        match self {
            Trouble::Full => {
                "its disk is full, or a quota or file-size limit was reached; free space or raise the limit"
            }
            Trouble::ReadOnly => {
                "it is read-only; make the file and its folder writable for this process"
            }
            Trouble::Busy => {
                "another process has it open; run one control plane per SQLite file, or end the other one"
            }
            Trouble::Unreachable => {
                "it cannot be opened; check that the folder exists and that this process may write there"
            }
            Trouble::Io => {
                "reading or writing failed (disk, quota or file-size limit); check the disk and the system log"
            }
            Trouble::Corrupt => {
                "its contents are damaged or not Pillion's; restore a copy, or name another file with --store"
            }
            Trouble::Newer => {
                "it was written by a newer Pillion; start that version, or take the store back with its \
                 `pillion-control-plane migrate`"
            }
            Trouble::NoServer => {
                "PostgreSQL cannot be reached; check that it runs, the host and port of --store, and the network between"
            }
            Trouble::OldServer => "PostgreSQL is too old; upgrade the server",
            Trouble::Login => {
                "PostgreSQL refused the user or password; check both in --store (or PGPASSWORD) and the server's pg_hba.conf"
            }
            Trouble::NoDatabase => {
                "there is no such database; make it with `createdb`, or name another in --store"
            }
            Trouble::NoRight => {
                "the user may not do that; GRANT CREATE ON DATABASE to it, or make it the owner of schema pillion"
            }
            Trouble::ReadOnlyServer => {
                "PostgreSQL is read-only, a standby perhaps; name the primary in --store"
            }
            Trouble::TooManyConnections => {
                "PostgreSQL has no connection left; raise max_connections, each control plane takes three"
            }
            Trouble::BusyServer => "PostgreSQL is busy or short of memory; try again",
            Trouble::Refused => {
                "PostgreSQL did not take a statement; was its schema pillion changed by hand, or taken to another format?"
            }
        }
    }

    /// A word for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Trouble::Full => "full",
            Trouble::ReadOnly => "read_only",
            Trouble::Busy => "busy",
            Trouble::Unreachable => "unreachable",
            Trouble::Io => "io",
            Trouble::Corrupt => "corrupt",
            Trouble::Newer => "newer",
            Trouble::NoServer => "no_server",
            Trouble::OldServer => "old_server",
            Trouble::Login => "login",
            Trouble::NoDatabase => "no_database",
            Trouble::NoRight => "no_right",
            Trouble::ReadOnlyServer => "read_only_server",
            Trouble::TooManyConnections => "too_many_connections",
            Trouble::BusyServer => "busy_server",
            Trouble::Refused => "refused",
        }
    }
}

/// A store that could not do what it was asked: which one, what, and the way out.
#[derive(Debug, thiserror::Error)]
#[error("store {location} could not {attempt}: {}{}", .trouble.remedy(), in_brackets(.detail))]
pub struct StoreError {
    location: String,
    attempt: &'static str,
    trouble: Trouble,
    detail: Option<String>,
    unknown: bool,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

fn in_brackets(detail: &Option<String>) -> String {
    detail
        .as_ref()
        .map(|text| format!(" ({text})"))
        .unwrap_or_default()
}

impl StoreError {
    /// `attempt` completes "store X could not …".
    pub fn new(location: &str, attempt: &'static str, trouble: Trouble) -> StoreError {
        StoreError {
            location: location.to_owned(),
            attempt,
            trouble,
            detail: None,
            unknown: false,
            source: None,
        }
    }

    /// Adds what exactly was found.
    pub fn with_detail(mut self, detail: impl Into<String>) -> StoreError {
        self.detail = Some(detail.into());
        self
    }

    /// Adds the cause, for the log.
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> StoreError {
        self.source = Some(source.into());
        self
    }

    /// The change may have been made all the same.
    pub fn with_unknown_outcome(mut self) -> StoreError {
        self.unknown = true;
        self
    }

    /// Whether the change may have been made all the same.
    pub fn outcome_is_unknown(&self) -> bool {
        self.unknown
    }

    /// What exactly was found.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// What ails it.
    pub fn trouble(&self) -> Trouble {
        self.trouble
    }
}
