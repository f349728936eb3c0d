// SPDX-License-Identifier: Apache-2.0
//! A small document that the store keeps by name, held in memory and changed by compare-and-swap, so that replicas that
//! change it at once lose nothing of each other's. Used for join tokens, shares and the authority's keys.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::Store;
use super::StoreError;
use super::Trouble;

/// How often a change is tried again because others were faster; each time one of them got through.
const ROUNDS: usize = 100;

/// See the module.
pub struct Shared<T> {
    store: Arc<dyn Store>,
    name: &'static str,
    /// The bytes in the store, and what they say.
    current: ArcSwap<(Option<Vec<u8>>, Arc<T>)>,
    changed: watch::Sender<()>,
}

impl<T: Default + Serialize + DeserializeOwned + Send + Sync> Shared<T> {
    /// Reads it; what is not there is the default.
    pub async fn open(store: Arc<dyn Store>, name: &'static str) -> Result<Shared<T>, StoreError> {
        let found = read(store.as_ref(), name).await?;
        Ok(Shared {
            store,
            name,
            current: ArcSwap::from_pointee(found),
            changed: watch::Sender::new(()),
        })
    }

    /// As it is known here.
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.current.load().1)
    }

    /// Wakes whenever it changes, by whomever.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Changes it and returns what `decide` made of it; an error of `decide` changes nothing. It may run again on a
    /// later state.
    pub async fn change<R, E: From<StoreError>>(
        &self,
        decide: impl Fn(&T) -> Result<(T, R), E> + Send + Sync,
    ) -> Result<R, E> {
        for _ in 0..ROUNDS {
            let before = self.current.load_full();
            let (next, result) = decide(&before.1)?;
            let text = serde_json::to_vec(&next).expect("our own documents always serialize");
            if before.0.as_ref() == Some(&text) {
                return Ok(result);
            }
            let done = self
                .store
                .swap_value(self.name, before.0.as_deref(), Some(&text));
            if done.await? {
                self.replace((Some(text), Arc::new(next)));
                return Ok(result);
            }
            self.refresh().await?;
        }
        Err(StoreError::new(self.store.location(), "save a value", Trouble::BusyServer).into())
    }

    /// Reads it again whenever the store says that something has changed, for as long as it is polled.
    pub async fn follow(self: Arc<Self>) {
        let mut touches = self.store.touches();
        while touches.changed().await.is_ok() {
            if let Err(error) = self.refresh().await {
                tracing::warn!(%error, name = self.name, "what another process changed could not be read; trying again");
                touches.mark_changed();
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }

    async fn refresh(&self) -> Result<(), StoreError> {
        let found = read(self.store.as_ref(), self.name).await?;
        if found.0 != self.current.load().0 {
            self.replace(found);
        }
        Ok(())
    }

    fn replace(&self, next: (Option<Vec<u8>>, Arc<T>)) {
        self.current.store(Arc::new(next));
        self.changed.send_replace(());
    }
}

async fn read<T: Default + DeserializeOwned>(
    store: &dyn Store,
    name: &'static str,
) -> Result<(Option<Vec<u8>>, Arc<T>), StoreError> {
    let bytes = store.value(name).await?;
    let Some(text) = &bytes else {
        return Ok((None, Arc::default()));
    };
    match serde_json::from_slice(text) {
        Ok(document) => Ok((bytes, Arc::new(document))),
        Err(error) => Err(
            StoreError::new(store.location(), "read a value", Trouble::Corrupt)
                .with_detail(format!("{name}: {error}")),
        ),
    }
}
