// SPDX-License-Identifier: Apache-2.0
//! Who calls, and what they may do: signatures against the file of keys, permissions by ARN, accounts with whom a mesh
//! is shared, and how often one may ask. Used by the API and the xDS port. Without a file of keys everybody may do
//! everything, as the one account there is.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;
use std::time::SystemTime;

use http::request::Parts;
use parking_lot::Mutex;
use pillion_sigv4::Claim;
use pillion_sigv4::Key;
use pillion_sigv4::KeysFile;
use pillion_sigv4::Refusal;
use pillion_sigv4::Scope;
use pillion_sigv4::ShareMeshes;

use crate::store::Record;
use crate::store::Shared;
use crate::store::Store;
use crate::store::StoreError;

/// Where the store keeps with whom meshes are shared.
const SHARES: &str = "shares";
/// Signing name of App Mesh, for its API and for the streams of its proxies.
pub const SERVICE: &str = "appmesh";
/// Who writes while nobody has to say who they are.
pub const ANYBODY: &str = "anonymous";

/// Accounts by mesh, as keys spell the mesh.
pub type Shares = BTreeMap<String, BTreeSet<String>>;

/// See the module.
pub struct Access {
    keys: Option<Arc<KeysFile>>,
    /// `--region`.
    pub region: String,
    /// `--account`: whose meshes have plain names.
    pub account: String,
    shares: Arc<Shared<Shares>>,
    rate: Option<Rate>,
}

/// Reading or changing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Describe, list.
    Read,
    /// Everything else.
    Write,
}

/// Somebody who was let in.
#[derive(Clone, Debug)]
pub struct Caller {
    key: Option<Arc<Key>>,
    account: String,
    all_shared: bool,
}

impl Caller {
    /// For history and audit.
    pub fn who(&self) -> &str {
        self.key.as_ref().map_or(ANYBODY, |key| key.id())
    }

    /// 12 digits.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// Whether its key allows this on the resource of that ARN.
    pub fn may(&self, wish: Wish, arn: &str) -> bool {
        self.key.as_ref().is_none_or(|key| {
            let permitted = match wish {
                Wish::Read => key.can_read(),
                Wish::Write => key.can_write(),
            };
            permitted && key.covers(arn)
        })
    }
}

/// A claim that waits for its payload; `None` where nobody has to prove anything.
pub struct Knock(Option<Claim>, bool);

impl Access {
    /// Reads the shares; `keys` is `--credentials`, `rate` `--rate-limit`.
    pub async fn open(
        store: Arc<dyn Store>,
        keys: Option<Arc<KeysFile>>,
        home: (String, String),
        rate: Option<u32>,
    ) -> Result<Access, StoreError> {
        Ok(Access {
            keys,
            region: home.0,
            account: home.1,
            shares: Arc::new(Shared::open(store, SHARES).await?),
            rate: rate.map(Rate::new),
        })
    }

    /// Whether callers must prove who they are.
    pub fn is_closed(&self) -> bool {
        self.keys.is_some()
    }

    /// Looks at the head of a request.
    pub fn knock(&self, head: &Parts) -> Result<Knock, Refusal> {
        let Some(file) = &self.keys else {
            return Ok(Knock(None, false));
        };
        let keys = file.current();
        let scope = Scope {
            service: SERVICE,
            region: &self.region,
        };
        let claim = Claim::read(head, &keys, &scope, SystemTime::now())?;
        Ok(Knock(Some(claim), keys.share_meshes == ShareMeshes::All))
    }

    /// Lets in who signed exactly this.
    pub fn enter(
        &self,
        Knock(claim, all_shared): Knock,
        payload: pillion_sigv4::Payload<'_>,
    ) -> Result<Caller, Refusal> {
        let key = claim.map(|claim| claim.prove(payload)).transpose()?;
        let account = key
            .as_ref()
            .map_or(self.account.as_str(), |key| key.account());
        Ok(Caller {
            account: account.to_owned(),
            key,
            all_shared,
        })
    }

    /// Whether this caller has asked too often of late.
    pub fn is_hurried(&self, caller: &Caller) -> bool {
        self.rate
            .as_ref()
            .is_some_and(|rate| !rate.take(caller.who(), Instant::now()))
    }

    /// The mesh as keys spell it: plain for our own account, `M@<owner>` for another, as proxies write it.
    pub fn spell(&self, mesh: &str, owner: &str) -> String {
        if owner == self.account || mesh.is_empty() {
            mesh.to_owned()
        } else {
            format!("{mesh}@{owner}")
        }
    }

    /// Whether the mesh of this record is the caller's, or shared with them.
    pub fn sees(&self, caller: &Caller, record: &Record) -> bool {
        record.mesh_owner == caller.account
            || caller.all_shared
            || self
                .shares
                .current()
                .get(&record.key.mesh)
                .is_some_and(|accounts| accounts.contains(&caller.account))
    }

    /// With whom a mesh is shared.
    pub fn shares_of(&self, mesh: &str) -> BTreeSet<String> {
        self.shares.current().get(mesh).cloned().unwrap_or_default()
    }

    /// Takes over what other replicas share, for as long as it is polled.
    pub async fn follow(self: Arc<Self>) {
        Arc::clone(&self.shares).follow().await;
    }

    /// Shares a mesh with these accounts and no others.
    pub async fn share(&self, mesh: &str, accounts: BTreeSet<String>) -> Result<(), StoreError> {
        let change = |shares: &Shares| {
            let mut next = shares.clone();
            if accounts.is_empty() {
                next.remove(mesh);
            } else {
                next.insert(mesh.to_owned(), accounts.clone());
            }
            Ok::<_, StoreError>((next, ()))
        };
        self.shares.change(change).await
    }
}

/// A bucket of requests per principal, refilled at a steady rate and one second deep. As many as there are keys.
struct Rate {
    per_second: f64,
    buckets: Mutex<BTreeMap<String, (f64, Instant)>>,
}

impl Rate {
    fn new(per_second: u32) -> Rate {
        Rate {
            per_second: per_second.into(),
            buckets: Mutex::default(),
        }
    }

    fn take(&self, who: &str, now: Instant) -> bool {
        let mut buckets = self.buckets.lock();
        let (left, at) = buckets
            .entry(who.to_owned())
            .or_insert((self.per_second, now));
        *left =
            (*left + now.duration_since(*at).as_secs_f64() * self.per_second).min(self.per_second);
        *at = now;
        let enough = *left >= 1.0;
        if enough {
            *left -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_gives_a_second_of_requests_at_once_and_then_the_rate() {
        let rate = Rate::new(5);
        let now = Instant::now();
        let given = (0..20).filter(|_| rate.take("a", now)).count();
        assert_eq!(given, 5);
        assert!(rate.take("b", now), "each for themselves");
        let later = now + Duration::from_millis(400);
        assert_eq!((0..20).filter(|_| rate.take("a", later)).count(), 2);
    }
}
