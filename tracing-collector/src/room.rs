// SPDX-License-Identifier: Apache-2.0
//! How much memory what has arrived and is not stored may take: one account per request or datagram, charged as its
//! bytes arrive and given back when they are stored or refused. Shared by every door; never waits.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Permits are counted in this unit, for a semaphore holds fewer than 2^32.
const UNIT: usize = 1024;
/// Spans in memory take more than their bytes on the wire.
const SPREAD: usize = 3;
/// Of a crowded room this share is left to what is worth most: failures and slow traces.
const RESERVED_SHARE: usize = 4;

#[derive(Clone)]
pub(crate) struct Room {
    free: Arc<Semaphore>,
    capacity: usize,
    pressure: Arc<Pressure>,
}

struct Pressure {
    began: Instant,
    /// Milliseconds after `began` at which somebody was last refused, plus one; 0 for never.
    refused_at: AtomicU64,
    closed: AtomicBool,
}

/// Try again in a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the intake queue is full; try again in a second")]
pub(crate) struct NoRoom;

/// What one request has been charged. Clones share it; the last one gives it back.
#[derive(Clone)]
pub(crate) struct Account {
    room: Room,
    charged: Arc<Mutex<Charged>>,
}

#[derive(Default)]
struct Charged {
    bytes: usize,
    permit: Option<OwnedSemaphorePermit>,
}

impl Room {
    pub(crate) fn new(bytes: usize) -> Room {
        let units = (bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Room {
            free: Arc::new(Semaphore::new(units)),
            capacity: units * UNIT,
            pressure: Arc::new(Pressure {
                began: Instant::now(),
                refused_at: AtomicU64::new(0),
                closed: AtomicBool::new(false),
            }),
        }
    }

    pub(crate) fn account(&self) -> Account {
        Account {
            room: self.clone(),
            charged: Arc::default(),
        }
    }

    pub(crate) fn taken(&self) -> usize {
        self.capacity - self.free.available_permits() * UNIT
    }

    pub(crate) fn half_taken(&self) -> bool {
        self.taken() > self.capacity / 2
    }

    /// Whether nothing more comes in, for the whole process is at its limit.
    pub(crate) fn close(&self, closed: bool) {
        self.pressure.closed.store(closed, Ordering::Relaxed);
    }

    /// Whether somebody was refused within the last `milliseconds`.
    pub(crate) fn crowded(&self, milliseconds: u64) -> bool {
        let at = self.pressure.refused_at.load(Ordering::Relaxed);
        at != 0 && self.now() - at.min(self.now()) <= milliseconds
    }

    fn now(&self) -> u64 {
        u64::try_from(self.pressure.began.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    fn take(&self, units: usize) -> Result<OwnedSemaphorePermit, NoRoom> {
        let closed = self.pressure.closed.load(Ordering::Relaxed);
        let taken = u32::try_from(units)
            .ok()
            .filter(|_| !closed)
            .and_then(|units| Arc::clone(&self.free).try_acquire_many_owned(units).ok());
        taken.ok_or_else(|| {
            self.pressure
                .refused_at
                .store(self.now(), Ordering::Relaxed);
            NoRoom
        })
    }
}

impl Account {
    /// Charges until `bytes` on the wire are covered.
    pub(crate) fn cover(&self, bytes: usize) -> Result<(), NoRoom> {
        let mut charged = self.charged.lock();
        let wanted = bytes.saturating_mul(SPREAD).max(1);
        let units = |bytes: usize| bytes.div_ceil(UNIT);
        let more = units(wanted).saturating_sub(units(charged.bytes));
        if more > 0 {
            let permit = self.room.take(more)?;
            match &mut charged.permit {
                Some(held) => held.merge(permit),
                None => charged.permit = Some(permit),
            }
        }
        charged.bytes = charged.bytes.max(wanted);
        Ok(())
    }

    /// The same for what may be lost first: not from the last quarter of the room.
    pub(crate) fn cover_ordinary(&self, bytes: usize) -> Result<(), NoRoom> {
        let reserved = self.room.capacity / RESERVED_SHARE;
        if self.room.taken() + bytes.saturating_mul(SPREAD) > self.room.capacity - reserved {
            return Err(NoRoom);
        }
        self.cover(bytes)
    }

    pub(crate) fn room(&self) -> &Room {
        &self.room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_account_is_charged_as_it_grows_and_gives_all_back() {
        let room = Room::new(64 * UNIT);
        let account = room.account();
        for bytes in [1, 10 * UNIT, 10 * UNIT, 20 * UNIT] {
            account.cover(bytes).expect("there is room");
        }
        assert_eq!(room.taken(), 60 * UNIT);
        assert_eq!(account.cover(30 * UNIT), Err(NoRoom));
        assert!(room.crowded(1000));
        let second = account.clone();
        drop(account);
        assert_eq!(room.taken(), 60 * UNIT);
        drop(second);
        assert_eq!(room.taken(), 0);
    }

    #[tokio::test]
    async fn the_last_quarter_is_kept_for_what_failed() {
        let room = Room::new(16 * UNIT);
        let all = room.account();
        all.cover_ordinary(4 * UNIT)
            .expect("the first three quarters");
        assert_eq!(room.account().cover_ordinary(1), Err(NoRoom));
        assert_eq!(room.account().cover(1), Ok(()));
    }

    #[tokio::test]
    async fn a_closed_room_takes_nothing() {
        let room = Room::new(16 * UNIT);
        room.close(true);
        assert_eq!(room.account().cover(1), Err(NoRoom));
        room.close(false);
        assert_eq!(room.account().cover(1), Ok(()));
    }
}
