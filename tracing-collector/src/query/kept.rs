// SPDX-License-Identifier: Apache-2.0
//! What operators configure through the API, as JSON by kind and name in the store. Read anew on every call, so that a
//! restart and a second reader see the same. Changes come one at a time.

use std::sync::Arc;

use parking_lot::Mutex;
use parking_lot::MutexGuard;
use serde_json::Value;

use crate::store::Store;
use crate::store::StoreError;

#[derive(Clone)]
pub(crate) struct Kept {
    store: Arc<dyn Store>,
    turn: Arc<Mutex<()>>,
}

impl Kept {
    pub(crate) fn new(store: Arc<dyn Store>) -> Kept {
        Kept {
            store,
            turn: Arc::default(),
        }
    }

    /// Held from reading to writing by whoever changes something.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock()
    }

    /// By name.
    pub(super) fn all(&self, kind: &str) -> Result<Vec<Value>, StoreError> {
        let found = self.store.kept(kind)?;
        found.iter().map(|(_, bytes)| parse(bytes)).collect()
    }

    pub(super) fn one(&self, kind: &str, name: &str) -> Result<Option<Value>, StoreError> {
        let found = self.store.kept(kind)?;
        found
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, bytes)| parse(bytes))
            .transpose()
    }

    pub(super) fn put(&self, kind: &str, name: &str, value: &Value) -> Result<(), StoreError> {
        self.store
            .keep(kind, &[(name, Some(value.to_string().as_bytes()))])
    }

    pub(super) fn remove(&self, kind: &str, name: &str) -> Result<(), StoreError> {
        self.store.keep(kind, &[(name, None)])
    }
}

fn parse(bytes: &[u8]) -> Result<Value, StoreError> {
    serde_json::from_slice(bytes).map_err(|_| StoreError::Record {
        what: "a kept setting",
    })
}
