// SPDX-License-Identifier: Apache-2.0
//! The store on fjall: [`engine`] while it is open, and the way back after a write failed. fjall refuses every write
//! after the first that failed, for it cannot know what reached the disk; opening the folder anew replays what did.

mod engine;
mod scan;
mod settle;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use parking_lot::RwLock;

use crate::graph::Tallies;
use crate::graph::Totals;
use crate::span::Span;
use crate::span::TraceId;
use crate::store::Entry;
use crate::store::Page;
use crate::store::Scan;
use crate::store::Settled;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::StoredTrace;
use crate::store::Window;
use crate::store::disk::engine::Engine;
use crate::store::disk::engine::day_of;
use crate::summary::Summary;

/// Space for this much is tried before the folder is opened anew: opening writes too.
const PROBE_BYTES: usize = 4 * 1024 * 1024;
const PROBE: &str = ".room-to-write";

/// Where the store lies and what it may take.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) path: PathBuf,
    pub(crate) retention: Duration,
    /// For caches and what is not on disk yet.
    pub(crate) memory: u64,
}

pub(crate) struct Disk {
    settings: Settings,
    /// Readers share it; `recover` alone replaces it. `None` while opening it anew fails.
    engine: RwLock<Option<Engine>>,
}

impl Disk {
    /// Opens or creates the store, which one process at a time may hold.
    pub(crate) fn open(settings: Settings) -> Result<Disk, StoreError> {
        let engine = Engine::open(&settings)?;
        Ok(Disk {
            settings,
            engine: RwLock::new(Some(engine)),
        })
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&Engine) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.engine
            .read()
            .as_ref()
            .map_or(Err(StoreError::Closed), work)
    }

    fn probe(&self) -> Result<(), StoreError> {
        let path = self.settings.path.join(PROBE);
        let write = || {
            let mut file = std::fs::File::create(&path)?;
            file.write_all(&vec![0; PROBE_BYTES])?;
            file.sync_all()
        };
        let written = write();
        let removed = std::fs::remove_file(&path);
        written.and(removed).map_err(|source| StoreError::NoRoom {
            path: self.settings.path.display().to_string(),
            source,
        })
    }
}

impl Store for Disk {
    fn append(&self, spans: &[Span], now: SystemTime) -> Result<(), StoreError> {
        self.with(|engine| engine.append_on(day_of(now), spans))
    }

    fn unsettled(&self) -> Result<Vec<TraceId>, StoreError> {
        self.with(Engine::unsettled)
    }

    fn settle(&self, traces: &[TraceId]) -> Result<Vec<Settled>, StoreError> {
        self.with(|engine| settle::settle(engine, traces))
    }

    fn trace(&self, id: TraceId) -> Result<StoredTrace, StoreError> {
        self.with(|engine| engine.trace(id))
    }

    fn graph(&self, window: Window) -> Result<Totals, StoreError> {
        self.with(|engine| scan::graph(engine, window))
    }

    fn graph_of(
        &self,
        window: Window,
        wanted: &dyn Fn(&Summary) -> bool,
    ) -> Result<Totals, StoreError> {
        self.with(|engine| scan::graph_of(engine, window, wanted))
    }

    fn tallies(
        &self,
        minutes: (u32, u32),
        wanted: Option<&dyn Fn(&Summary) -> bool>,
    ) -> Result<BTreeMap<u32, Tallies>, StoreError> {
        self.with(|engine| scan::tallies(engine, minutes, wanted))
    }

    fn summaries(&self, scan: &Scan) -> Result<Page, StoreError> {
        self.with(|engine| scan::summaries(engine, scan))
    }

    fn expire(&self, now: SystemTime) -> Result<usize, StoreError> {
        self.with(|engine| engine.expire(now))
    }

    fn kept(&self, kind: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.with(|engine| engine.kept(kind))
    }

    fn keep(&self, kind: &str, entries: &[Entry<'_>]) -> Result<(), StoreError> {
        let keep = || self.with(|engine| engine.keep(kind, entries));
        // Spans that do not come would not bring the store back.
        keep().or_else(|error| self.recover().map_or(Err(error), |()| keep()))
    }

    fn recover(&self) -> Result<(), StoreError> {
        self.probe()?;
        let mut engine = self.engine.write();
        // The old one holds the folder's lock until it is gone.
        drop(engine.take());
        *engine = Some(Engine::open(&self.settings)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
