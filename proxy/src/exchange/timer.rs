// SPDX-License-Identifier: Apache-2.0
//! The one timer of an exchange: the route's deadline, which runs from the request's last byte as Envoy's does, and the
//! idle limit, which any byte in either direction puts off. Progress only notes the time; the timer is re-armed when it
//! fires too early, so a busy stream costs no timer operation per frame. What an exchange leaves behind, armed as it is,
//! the next one takes over: a request that is answered in time costs no timer operation either.

use std::cell::Cell;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

use tokio::time::Sleep;

use super::Event;

/// Timers kept for later exchanges, on each thread.
const SPARE: usize = 1024;

thread_local! {
    static LEFT: RefCell<Vec<Pin<Box<Sleep>>>> = const { RefCell::new(Vec::new()) };
}

/// A timer that fires at `next` or earlier; whoever waits for it looks at the clock.
fn take(next: Instant) -> Pin<Box<Sleep>> {
    let left = LEFT.with_borrow_mut(Vec::pop);
    left.unwrap_or_else(|| Box::pin(tokio::time::sleep_until(next.into())))
}

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// The route's deadline.
    Deadline,
    /// No byte for the idle limit.
    Idle,
}

/// Deadline and idle limit of an exchange.
#[derive(Debug)]
pub struct Timer {
    limit: Cell<Option<Duration>>,
    idle: Cell<Option<Duration>>,
    begun: Cell<Option<Instant>>,
    progress: Cell<Instant>,
    sleep: RefCell<Option<Pin<Box<Sleep>>>>,
}

impl Timer {
    pub(super) fn new(now: Instant) -> Timer {
        Timer {
            limit: Cell::new(None),
            idle: Cell::new(None),
            begun: Cell::new(None),
            progress: Cell::new(now),
            sleep: RefCell::new(None),
        }
    }

    /// Sets the limits; `None` is no limit.
    pub fn set(&self, deadline: Option<Duration>, idle: Option<Duration>) {
        self.limit.set(deadline);
        self.idle.set(idle);
    }

    /// A byte has moved.
    pub fn progress(&self) {
        if self.idle.get().is_some() {
            self.progress.set(Instant::now());
        }
    }

    /// Ready when a limit is reached. `request_done` begins the deadline.
    pub fn poll(&self, request_done: &Event, cx: &mut Context<'_>) -> Poll<Expired> {
        if self.limit.get().is_some()
            && self.begun.get().is_none()
            && request_done.poll(cx).is_ready()
        {
            self.begun.set(Some(Instant::now()));
        }
        loop {
            let deadline = self
                .limit
                .get()
                .zip(self.begun.get())
                .and_then(|(limit, begun)| begun.checked_add(limit));
            let idle = self
                .idle
                .get()
                .and_then(|idle| self.progress.get().checked_add(idle));
            let Some(next) = [deadline, idle].into_iter().flatten().min() else {
                return Poll::Pending;
            };
            let mut slot = self.sleep.borrow_mut();
            let sleep = slot.get_or_insert_with(|| take(next));
            // Later is left alone until it fires: re-arming on every frame is what this avoids.
            if sleep.deadline().into_std() > next {
                sleep.as_mut().reset(next.into());
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Poll::Ready(Expired::Deadline);
            }
            if idle.is_some_and(|idle| now >= idle) {
                return Poll::Ready(Expired::Idle);
            }
            sleep.as_mut().reset(next.into());
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let Some(sleep) = self.sleep.take() else {
            return;
        };
        // With its thread goes what is left; the timer then just ends.
        let kept = LEFT.try_with(|left| {
            let mut left = left.borrow_mut();
            if left.len() < SPARE {
                left.push(sleep);
            }
        });
        debug_assert!(kept.is_ok() || std::thread::panicking());
    }
}
