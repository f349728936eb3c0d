// SPDX-License-Identifier: Apache-2.0
//! A downstream HTTP/1.1 connection, busy and at rest. hyper keeps a read buffer, a write buffer and its state for as long
//! as it serves a connection; most connections of a sidecar say nothing most of the time. One at rest is taken from
//! hyper and kept as a bare stream; when it speaks again, hyper begins anew on it. That costs about what two requests'
//! allocations do, so a caller who asks every few seconds pays nothing that shows. Called by `http::server`.

use std::pin::Pin;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use super::guard::Edge;
use super::guard::Guard;
use super::server::Front;
use super::server::HEADERS;
use super::server::READ_BUFFER;
use super::server::last_look;
use super::server::until_drained;
use super::stack::HttpService;
use crate::exchange::Connection;
use crate::worker::Worker;

/// Serves a connection until it ends, or the drain ends it.
pub(super) async fn serve<S: HttpService>(
    mut guard: Box<Guard>,
    mut front: Front<S>,
    connection: &Connection,
    worker: &Worker,
) -> Result<(), hyper::Error> {
    let (edge, side) = (&*connection.edge, connection.side());
    loop {
        // hyper's own clock runs while a connection is idle, and costs a timer a request: the guard has a better one.
        let mut serving = Box::new(
            http1::Builder::new()
                .header_read_timeout(None)
                .max_header_size(HEADERS)
                .max_buf_size(READ_BUFFER)
                .serve_connection(TokioIo::new(guard), front)
                .with_upgrades(),
        );
        let shut = http1::UpgradeableConnection::graceful_shutdown;
        let drained = until_drained(
            Pin::new(&mut *serving),
            shut,
            last_look(worker, side),
            worker,
        );
        tokio::select! {
            biased;
            ended = drained => return ended,
            () = comes_to_rest(edge, worker.shared.policy.limits.awake) => {}
        }
        // In a function of its own: what it takes apart would have its place in this task for as long as that lives.
        let Some(rest) = take_apart(*serving) else {
            return Ok(());
        };
        (guard, front) = rest;
        let spoke = tokio::select! {
            biased;
            spoke = guard.readable() => spoke,
            () = last_look(worker, side) => false,
        };
        if !spoke {
            let closed = guard.shutdown().await;
            tracing::trace!(?closed, "a connection at rest was closed");
            return Ok(());
        }
    }
}

type Serving<S> = http1::UpgradeableConnection<TokioIo<Box<Guard>>, Front<S>>;

fn take_apart<S: HttpService>(serving: Serving<S>) -> Option<(Box<Guard>, Front<S>)> {
    let parts = serving.into_parts()?;
    debug_assert!(
        parts.read_buf.iter().all(u8::is_ascii_whitespace),
        "at rest there is at most the empty line that some send after a body"
    );
    Some((parts.io.into_inner(), parts.service))
}

async fn comes_to_rest(edge: &Edge, awake: Duration) {
    let mut before = edge.at_rest();
    loop {
        tokio::time::sleep(awake).await;
        let now = edge.at_rest();
        if now.is_some() && now == before {
            return;
        }
        before = now;
    }
}
