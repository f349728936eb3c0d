// SPDX-License-Identifier: Apache-2.0
//! Join tokens: what a proxy shows to be let in for the first time. Each is for one virtual node or gateway, ends by
//! itself, and can be revoked; the store keeps a hash, never the token. Made through `/pillion/v1/tokens`, checked by
//! the xDS port.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pillion_config::ResourceKey;
use serde::Deserialize;
use serde::Serialize;
use sha2::Digest;
use sha2::Sha256;
use tokio::sync::watch;

use crate::store::Shared;
use crate::store::Store;
use crate::store::StoreError;

/// Where the store keeps them.
const TOKENS: &str = "join-tokens";
/// Tokens at once; a fleet that joins has one per node, not one per proxy.
const MAX: usize = 10_000;
/// First part of every token, so that scanners for secrets know one.
const PREFIX: &str = "pillion-join";

/// What is kept of a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Names it; no secret.
    pub id: String,
    /// `mesh/M/virtualNode/N` with the mesh as keys spell it.
    pub resource: String,
    /// Milliseconds since the epoch.
    pub created_ms: i64,
    /// Good until then; milliseconds since the epoch.
    pub expires_ms: i64,
    /// Who made it.
    pub by: String,
    /// SHA-256 of the secret part, hex.
    hash: String,
}

/// Why a token was not made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Too many.
    #[error("there are {MAX} join tokens already; revoke some, or let them expire")]
    TooMany,
}

/// By id.
type Book = BTreeMap<String, Kept>;

/// See the module.
pub struct Tokens(Arc<Shared<Book>>);

impl Tokens {
    /// Reads what the store keeps.
    pub async fn open(store: Arc<dyn Store>) -> Result<Arc<Tokens>, StoreError> {
        let book = Shared::open(store, TOKENS).await?;
        Ok(Arc::new(Tokens(Arc::new(book))))
    }

    /// Takes over what other replicas make and revoke, for as long as it is polled.
    pub async fn follow(self: Arc<Self>) {
        Arc::clone(&self.0).follow().await;
    }

    /// Makes one; the text is shown once and never again.
    pub async fn create(
        &self,
        key: &ResourceKey,
        by: &str,
        now_ms: i64,
        life_ms: i64,
    ) -> Result<(Kept, String), TokenError> {
        let id = hex(&rand::random::<[u8; 8]>());
        let secret = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let kept = Kept {
            id: id.clone(),
            resource: key.id(),
            created_ms: now_ms,
            expires_ms: now_ms.saturating_add(life_ms),
            by: by.to_owned(),
            hash: hash(&secret),
        };
        let added = |book: &Book| {
            let mut next = book.clone();
            next.retain(|_, one| one.expires_ms > now_ms);
            if next.len() >= MAX {
                return Err(TokenError::TooMany);
            }
            next.insert(id.clone(), kept.clone());
            Ok((next, ()))
        };
        self.0.change(added).await?;
        Ok((kept, format!("{PREFIX}.{id}.{secret}")))
    }

    /// Ends one; `false` if there is none of that id.
    pub async fn revoke(&self, id: &str) -> Result<bool, TokenError> {
        let removed = |book: &Book| {
            let mut next = book.clone();
            let found = next.remove(id).is_some();
            Ok((next, found))
        };
        self.0.change(removed).await
    }

    /// Those that are good still.
    pub fn list(&self, now_ms: i64) -> Vec<Kept> {
        let kept = self.0.current();
        kept.values()
            .filter(|one| one.expires_ms > now_ms)
            .cloned()
            .collect()
    }

    /// Whose token this is; `None` if it is nobody's, or no longer.
    pub fn check(&self, text: &str, now_ms: i64) -> Option<Kept> {
        let (id, secret) = text
            .strip_prefix(PREFIX)?
            .strip_prefix('.')?
            .split_once('.')?;
        let kept = self.0.current();
        let found = kept.get(id)?;
        // Hashes are compared, so that how long it takes says nothing about the secret.
        (found.hash == hash(secret) && found.expires_ms > now_ms).then(|| found.clone())
    }

    /// Whether a token that was good is so still.
    pub fn holds(&self, id: &str) -> bool {
        self.0.current().contains_key(id)
    }

    /// Wakes whenever one was made or revoked.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changes()
    }
}

impl Kept {
    /// The resource as a key.
    pub fn key(&self) -> Option<ResourceKey> {
        super::key_of(&self.resource)
    }
}

fn hash(secret: &str) -> String {
    hex(&Sha256::digest(secret))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        text.push_str(&format!("{byte:02x}"));
        text
    })
}
