// SPDX-License-Identifier: Apache-2.0
//! Something that happens once, on one thread, and can be awaited.

use std::cell::Cell;
use std::cell::RefCell;
use std::future::poll_fn;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

/// Happens once.
#[derive(Debug, Default)]
pub struct Event {
    happened: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Event {
    /// It happens now; again is as once.
    pub fn set(&self) {
        self.happened.set(true);
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// Whether it has happened.
    pub fn is_set(&self) -> bool {
        self.happened.get()
    }

    /// Ready once it has happened.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.happened.get() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Waits for it.
    pub async fn wait(&self) {
        poll_fn(|cx| self.poll(cx)).await;
    }
}
