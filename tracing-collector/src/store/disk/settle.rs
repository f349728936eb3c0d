// SPDX-License-Identifier: Apache-2.0
//! Settling: a trace's row made anew, what it added to the map replaced, its spans gathered in the newest of its days;
//! all of it, for many traces, in one atomic batch.

use std::collections::HashMap;
use std::sync::Arc;

use fjall::OwnedWriteBatch;
use fjall::PersistMode;

use crate::graph::Contribution;
use crate::graph::counters::Counters;
use crate::span::TraceId;
use crate::store::Settled;
use crate::store::StoreError;
use crate::store::disk::engine::Day;
use crate::store::disk::engine::DayKeyspaces;
use crate::store::disk::engine::Engine;
use crate::store::disk::engine::reading;
use crate::store::disk::engine::writing;
use crate::store::places;
use crate::store::record;
use crate::summary::Evaluated;
use crate::summary::evaluate;
use crate::trace::Trace;

pub(super) fn settle(engine: &Engine, traces: &[TraceId]) -> Result<Vec<Settled>, StoreError> {
    let mut work = Settling {
        engine,
        days: engine.all_days(),
        batch: engine
            .database
            .batch()
            .durability(Some(PersistMode::Buffer)),
        graph: HashMap::new(),
        settled: Vec::with_capacity(traces.len()),
    };
    for id in traces {
        work.one(*id)?;
    }
    work.write_graph();
    work.batch.commit().map_err(writing)?;
    Ok(work.settled)
}

struct Settling<'d> {
    engine: &'d Engine,
    days: Vec<(Day, Arc<DayKeyspaces>)>,
    batch: OwnedWriteBatch,
    /// Rows of `g` as they will be; each is read once, however many traces touch it.
    graph: HashMap<(Day, Vec<u8>), Counters>,
    settled: Vec<Settled>,
}

impl Settling<'_> {
    fn one(&mut self, id: TraceId) -> Result<(), StoreError> {
        let mut spans = Vec::new();
        let mut truncated = false;
        let mut held = Vec::new();
        let mut old: Option<(Day, Evaluated)> = None;
        for (day, keyspaces) in &self.days {
            let before = spans.len();
            truncated |= !keyspaces.read_spans(id, &mut spans)?;
            if spans.len() > before {
                held.push((*day, Arc::clone(keyspaces)));
            }
            if let Some(row) = keyspaces.row(id)? {
                old = Some((*day, row));
            }
            self.batch
                .remove(&keyspaces.unsettled, &id.0.to_be_bytes()[..]);
        }
        let Some((newest, home)) = held.pop() else {
            return Ok(());
        };
        let revision = old
            .as_ref()
            .map_or(1, |(_, row)| row.summary.revision.saturating_add(1));
        if let Some((day, row)) = &old {
            self.take_back(*day, row)?;
        }
        for (_, keyspaces) in &held {
            self.move_spans(id, keyspaces, &home)?;
        }
        let evaluated = evaluate(&Trace::assemble(id, spans), revision, truncated);
        self.put(newest, &home, &evaluated)?;
        self.settled.push(Settled {
            before: old.map(|(_, row)| row.contributions).unwrap_or_default(),
            now: evaluated,
        });
        Ok(())
    }

    /// Retention removes days, so a trace that spans midnight goes as a whole to the later one.
    fn move_spans(
        &mut self,
        id: TraceId,
        from: &DayKeyspaces,
        to: &DayKeyspaces,
    ) -> Result<(), StoreError> {
        for pair in from.spans.prefix(id.0.to_be_bytes()) {
            let (key, value) = pair.into_inner().map_err(reading)?;
            if !to.spans.contains_key(&key).map_err(reading)? {
                self.batch.insert(&to.spans, key.clone(), value);
            }
            self.batch.remove(&from.spans, key);
        }
        Ok(())
    }

    fn take_back(&mut self, day: Day, row: &Evaluated) -> Result<(), StoreError> {
        let Some(keyspaces) = self.keyspaces(day) else {
            return Ok(());
        };
        for contribution in &row.contributions {
            self.counters(day, &keyspaces, contribution)?
                .take_back(contribution);
        }
        for (key, _) in places::places(row, self.engine.retention) {
            self.batch.remove(&keyspaces.places, key);
        }
        self.batch
            .remove(&keyspaces.rows, &row.summary.id.0.to_be_bytes()[..]);
        Ok(())
    }

    fn put(
        &mut self,
        day: Day,
        keyspaces: &DayKeyspaces,
        row: &Evaluated,
    ) -> Result<(), StoreError> {
        for contribution in &row.contributions {
            self.counters(day, keyspaces, contribution)?
                .add(contribution);
        }
        for (key, value) in places::places(row, self.engine.retention) {
            self.batch.insert(&keyspaces.places, key, value);
        }
        self.batch.insert(
            &keyspaces.rows,
            &row.summary.id.0.to_be_bytes()[..],
            record::encode_trace(row),
        );
        Ok(())
    }

    fn keyspaces(&self, day: Day) -> Option<Arc<DayKeyspaces>> {
        self.days
            .iter()
            .find(|(other, _)| *other == day)
            .map(|(_, keyspaces)| Arc::clone(keyspaces))
    }

    fn counters(
        &mut self,
        day: Day,
        keyspaces: &DayKeyspaces,
        one: &Contribution,
    ) -> Result<&mut Counters, StoreError> {
        let mut key = one.minute().to_be_bytes().to_vec();
        key.extend(record::encode_key(&one.key));
        match self.graph.entry((day, key)) {
            std::collections::hash_map::Entry::Occupied(slot) => Ok(slot.into_mut()),
            std::collections::hash_map::Entry::Vacant(slot) => {
                let stored = keyspaces.graph.get(&slot.key().1).map_err(reading)?;
                let counters = match stored {
                    None => Counters::default(),
                    Some(bytes) => record::decode_counters(&bytes).ok_or(StoreError::Record {
                        what: "a minute's counts",
                    })?,
                };
                Ok(slot.insert(counters))
            }
        }
    }

    fn write_graph(&mut self) {
        for ((day, key), counters) in std::mem::take(&mut self.graph) {
            let Some(keyspaces) = self.keyspaces(day) else {
                continue;
            };
            if counters.is_empty() {
                self.batch.remove(&keyspaces.graph, key);
            } else {
                self.batch
                    .insert(&keyspaces.graph, key, record::encode_counters(&counters));
            }
        }
    }
}
