// SPDX-License-Identifier: Apache-2.0
//! The timer of an answer that nobody reads. hyper asks a body for its next frame only when it has room to write, so a
//! body cannot time out by itself while its reader stands still: here the task that carries it polls the timer too.
//! Used by `http::server` for HTTP/1.1 connections and HTTP/2 streams; `http::body::Tracked` says what is passing.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;

use crate::exchange::Exchange;

thread_local! {
    /// The exchange whose answer the task that is polled now carries.
    static PASSING: RefCell<Option<Rc<Exchange>>> = const { RefCell::new(None) };
}

/// The answer of `exchange` is passing in this task from now on.
pub(super) fn begin(exchange: &Rc<Exchange>) {
    PASSING.set(Some(Rc::clone(exchange)));
}

/// The answer of `exchange` has passed, or will not.
pub(super) fn end(exchange: &Rc<Exchange>) {
    // A body may be dropped with its thread.
    let told = PASSING.try_with(|passing| {
        let mut passing = passing.borrow_mut();
        if passing
            .as_ref()
            .is_some_and(|passing| Rc::ptr_eq(passing, exchange))
        {
            passing.take();
        }
    });
    debug_assert!(told.is_ok() || std::thread::panicking());
}

/// Watches what passes in one task.
#[derive(Default)]
pub(super) struct Watch {
    passing: Option<Rc<Exchange>>,
}

impl Watch {
    /// Polls `task`; ready with nothing when the exchange that passes in it has timed out: then `task` is to be dropped.
    pub(super) fn poll<F: Future>(
        &mut self,
        task: Pin<&mut F>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<F::Output>> {
        PASSING.set(self.passing.take());
        let polled = task.poll(cx);
        self.passing = PASSING.take();
        if let Poll::Ready(output) = polled {
            return Poll::Ready(Some(output));
        }
        let Some(exchange) = &self.passing else {
            return Poll::Pending;
        };
        match exchange.timer.poll(&exchange.request_done, cx) {
            Poll::Ready(expired) => {
                exchange.expire(expired);
                self.passing = None;
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}
