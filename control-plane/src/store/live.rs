// SPDX-License-Identifier: Apache-2.0
//! The resources in memory and the one way to change them. Readers take the current [`Model`], never the store; writers
//! hand in a decision, and one task makes them all, in order: decide on the model, commit on its revision, replace the
//! model, answer. So no two writes can break a reference between them, a caller that hangs up leaves nothing half
//! done, and reads go on when the disk does not.

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use arc_swap::ArcSwap;
use pillion_runtime::tasks::Tasks;
use serde_json::Value;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;

use super::Answered;
use super::Author;
use super::Change;
use super::Commit;
use super::CommitError;
use super::Model;
use super::Recall;
use super::Remembered;
use super::Store;
use super::StoreError;

/// Writes that may wait at once; more are told to come back. At a millisecond or so each, none waits long.
const QUEUE: usize = 256;

/// Changes that are followed one by one; after more than these the store is read anew.
const MOST_FOLLOWED: u32 = 1000;
/// What a read waits at most for another replica's write to arrive here.
const SETTLED: Duration = Duration::from_secs(1);

/// How long an answer is kept under its `clientToken`.
const TOKEN_LIFE_MS: i64 = 24 * 60 * 60 * 1000;

/// Why the rules do not allow a write, in words for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The document or what it refers to is wrong.
    BadRequest(String),
    /// The resource, or its mesh, router or gateway, does not exist.
    NotFound(String),
    /// The name is taken, or the token was used for another request.
    Conflict(String),
    /// Others still refer to it.
    InUse(String),
    /// More tags than a resource may carry.
    TooManyTags(String),
    /// It belongs to somebody else.
    Forbidden(String),
    /// A quota of the installation.
    LimitExceeded(String),
}

/// What a decision comes to.
#[derive(Clone, Debug)]
pub struct Plan {
    /// None: nothing to change, the answer is true already. Several are made together or not at all.
    pub changes: Vec<Change>,
    /// The body of the answer, sent once the change is durable.
    pub answer: Value,
}

/// Decides on the model and the time (milliseconds since the epoch). Pure: it may run again on a later model.
pub type Decide = Box<dyn Fn(&Model, i64) -> Result<Plan, Refusal> + Send + Sync>;

/// Makes a repeated request harmless.
#[derive(Clone, Debug)]
pub struct Token {
    /// Operation and account.
    pub scope: String,
    /// `clientToken` as sent.
    pub token: String,
    /// Hash of the rest of the request.
    pub fingerprint: [u8; 32],
}

/// A write that did not happen.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// By the rules.
    #[error("refused: {0:?}")]
    Refused(Refusal),
    /// The store failed; nothing changed.
    #[error(transparent)]
    Failed(#[from] StoreError),
    /// Too many writes are waiting.
    #[error("{QUEUE} writes are waiting already")]
    Overloaded,
    /// The process is ending.
    #[error("the control plane is stopping")]
    Stopping,
}

/// A store whose contents this process cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error(transparent)]
    Failed(#[from] StoreError),
    /// It was filled under another `--account`.
    #[error(
        "store {location} holds resources of account {found}, but --account is {account}; \
         start with --account {found}, or name another --store"
    )]
    OtherAccount {
        /// The store.
        location: String,
        /// Whose resources it holds.
        found: String,
        /// Who we are.
        account: String,
    },
}

/// One thing to do, by someone.
pub struct Write {
    /// See [`Decide`].
    pub decide: Decide,
    /// Who asks.
    pub author: Author,
    /// Of a request that may be repeated.
    pub token: Option<Token>,
}

struct Job {
    author: Author,
    decide: Decide,
    token: Option<Token>,
    reply: oneshot::Sender<Result<Value, WriteError>>,
}

/// See the module.
pub struct Live {
    store: Arc<dyn Store>,
    current: ArcSwap<Model>,
    revision: watch::Sender<u64>,
    queue: mpsc::Sender<Job>,
}

impl Live {
    /// Loads the store and starts the writer among `tasks`. Drain those that write before these.
    pub async fn open(
        store: Arc<dyn Store>,
        account: &str,
        tasks: &Tasks,
    ) -> Result<Arc<Live>, LoadError> {
        let contents = store.load().await?;
        let foreign = contents
            .records
            .iter()
            .find(|record| !is_under(record, account));
        if let Some(record) = foreign {
            return Err(LoadError::OtherAccount {
                location: store.location().to_owned(),
                found: record.mesh_owner.clone(),
                account: account.to_owned(),
            });
        }
        let model = Model::from(contents);
        let (queue, jobs) = mpsc::channel(QUEUE);
        let live = Arc::new(Live {
            store,
            revision: watch::Sender::new(model.revision()),
            current: ArcSwap::from_pointee(model),
            queue,
        });
        let stop = tasks.stop();
        let writer = live.clone();
        tasks.spawn("store-writer", async move {
            writer.serve(jobs, stop).await;
        });
        Ok(live)
    }

    /// The model now. Take it once per request or publication, and use that one throughout.
    pub fn current(&self) -> Arc<Model> {
        self.current.load_full()
    }

    /// Wakes at every new revision; [`Live::current`] is then at least that new.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// The store underneath, for the authority's values.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Decides and, if the rules allow it, changes. Returns the answer once it is durable; safe to drop while waiting.
    pub async fn write(&self, write: Write) -> Result<Value, WriteError> {
        let (reply, answer) = oneshot::channel();
        let Write {
            decide,
            author,
            token,
        } = write;
        let job = Job {
            author,
            decide,
            token,
            reply,
        };
        match self.queue.try_send(job) {
            Ok(()) => answer.await.unwrap_or(Err(WriteError::Stopping)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(WriteError::Overloaded),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(WriteError::Stopping),
        }
    }

    async fn serve(
        &self,
        mut jobs: mpsc::Receiver<Job>,
        stop: tokio_util::sync::CancellationToken,
    ) {
        let mut theirs = self.store.revisions();
        loop {
            tokio::select! {
                biased;
                job = jobs.recv() => match job {
                    Some(job) => self.finish(job).await,
                    None => return,
                },
                Ok(()) = theirs.changed() => {
                    let latest = *theirs.borrow_and_update();
                    self.follow(latest).await;
                }
                // Not cancelled in the middle of a job: what waits in the queue is still done, nothing more is taken.
                () = stop.cancelled(), if !jobs.is_closed() => jobs.close(),
            }
        }
    }

    async fn finish(&self, job: Job) {
        let result = self.change(&job).await;
        if job.reply.send(result).is_err() {
            tracing::debug!("the caller did not wait for the answer");
        }
    }

    async fn change(&self, job: &Job) -> Result<Value, WriteError> {
        let now_ms = now_ms();
        if let Some(answer) = self.answered_before(job.token.as_ref(), now_ms).await? {
            return Ok(answer);
        }
        loop {
            let model = self.current();
            let plan = match (job.decide)(&model, now_ms) {
                Ok(plan) if !plan.changes.is_empty() => plan,
                // What changes nothing is not held against the store by a commit, so the model must be the latest.
                settled => {
                    let found = self.store.latest().await?;
                    if found > model.revision() {
                        self.catch_up(found).await?;
                        continue;
                    }
                    return settled.map(|plan| plan.answer).map_err(WriteError::Refused);
                }
            };
            let commit = Commit {
                based_on: model.revision(),
                changes: plan.changes.clone(),
                author: job.author.clone(),
                answered: job.token.as_ref().map(|token| Answered {
                    scope: token.scope.clone(),
                    token: token.token.clone(),
                    fingerprint: token.fingerprint,
                    answer: plan.answer.clone(),
                    expires_ms: now_ms + TOKEN_LIFE_MS,
                }),
                now_ms,
            };
            match self.store.commit(commit).await {
                Ok(revision) => {
                    audit(&job.author, &model, &plan.changes, revision);
                    self.replace(model.after(&plan.changes, revision));
                    return Ok(plan.answer);
                }
                Err(CommitError::Stale { found }) => self.catch_up(found).await?,
                Err(CommitError::Failed(error)) => return Err(error.into()),
            }
            // Whoever wrote in between may have been this very request, sent twice.
            if let Some(answer) = self.answered_before(job.token.as_ref(), now_ms).await? {
                return Ok(answer);
            }
        }
    }

    async fn answered_before(
        &self,
        token: Option<&Token>,
        now_ms: i64,
    ) -> Result<Option<Value>, WriteError> {
        let Some(token) = token else { return Ok(None) };
        let found = self
            .store
            .answered(&token.scope, &token.token, now_ms)
            .await?;
        match found {
            None => Ok(None),
            Some(before) if before.fingerprint == token.fingerprint => Ok(Some(before.answer)),
            Some(_) => Err(WriteError::Refused(Refusal::Conflict(format!(
                "clientToken {} was used within the last 24 hours for a different request; \
                 send the same request again, or another token",
                token.token
            )))),
        }
    }

    async fn follow(&self, latest: u64) {
        if latest > self.current().revision()
            && let Err(error) = self.catch_up(latest).await
        {
            tracing::warn!(error = %error, "could not read what another process wrote; the next write tries again");
        }
    }

    /// Takes over what others wrote: change by change where history has them all, else everything anew.
    async fn catch_up(&self, found: u64) -> Result<(), StoreError> {
        let model = self.current();
        let from = model.revision();
        let which = Recall {
            after: from,
            oldest_first: true,
            limit: MOST_FOLLOWED,
            ..Recall::default()
        };
        let recalled = self.store.recall(which).await?;
        if let Some((changes, revision)) = without_gaps(&recalled, from)
            && revision >= found
        {
            tracing::debug!(from, to = revision, "followed another process's writes");
            self.replace(model.after(&changes, revision));
            return Ok(());
        }
        let contents = self.store.load().await?;
        tracing::info!(from, to = contents.revision, "the store was read anew");
        self.replace(Model::from(contents));
        Ok(())
    }

    /// Waits until this process knows what any other had committed when it was asked. A store that cannot be asked is
    /// no reason not to answer a read from memory.
    pub async fn settle(&self) {
        let Ok(latest) = self.store.latest().await else {
            return;
        };
        let mut revision = self.revision.subscribe();
        let known = revision.wait_for(|revision| *revision >= latest);
        if tokio::time::timeout(SETTLED, known).await.is_err() {
            tracing::warn!(
                latest,
                "answering a read before another process's write is known here"
            );
        }
    }

    fn replace(&self, model: Model) {
        let revision = model.revision();
        self.current.store(Arc::new(model));
        self.revision.send_replace(revision);
    }
}

/// The changes after revision `from`, and the revision they lead to; `None` if one is missing. Every commit has a change,
/// so revisions without gaps are all of them. A last revision may be cut off by the limit, and is left out then.
fn without_gaps(recalled: &[Remembered], from: u64) -> Option<(Vec<Change>, u64)> {
    let mut last = recalled.last()?.revision;
    if recalled.len() >= MOST_FOLLOWED as usize {
        last -= 1;
    }
    let whole = recalled.iter().take_while(|one| one.revision <= last);
    let (mut changes, mut at) = (Vec::new(), from);
    for one in whole {
        let expected = if one.sequence == 0 { at + 1 } else { at };
        if one.revision != expected {
            return None;
        }
        at = one.revision;
        changes.push(if one.removed {
            Change::Remove(Arc::clone(&one.record))
        } else {
            Change::Put(Arc::clone(&one.record))
        });
    }
    (at > from).then_some((changes, at))
}

/// Meshes of other accounts carry their owner in the name; a plain name is ours.
fn is_under(record: &super::Record, account: &str) -> bool {
    record.mesh_owner == account
        || record
            .key
            .mesh
            .strip_suffix(&record.mesh_owner)
            .is_some_and(|mesh| mesh.ends_with('@'))
}

/// One line per change, whatever the level of other logs: who, what, and how it differs.
fn audit(author: &Author, before: &Model, changes: &[Change], revision: u64) {
    let Author { who, operation } = author;
    for change in changes {
        let record = change.record();
        let (old, new) = match change {
            Change::Put(_) => (
                before.get(&record.key).map(Arc::as_ref),
                Some(record.as_ref()),
            ),
            Change::Remove(_) => (Some(record.as_ref()), None),
        };
        let diff = json!(super::difference::between(old, new));
        tracing::info!(target: "audit", who, operation, revision, resource = %record.key, version = record.version, %diff, "write");
    }
}

/// The wall clock, as records keep it.
pub fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
