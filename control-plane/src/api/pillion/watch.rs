// SPDX-License-Identifier: Apache-2.0
//! `GET /watch?since=<revision>`: every change from there on, one JSON object a line, until the caller hangs up. Read
//! from the store's history, so none is lost between two looks; an empty line now and then shows that we are there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::HeaderValue;
use http::Request;
use http::header;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::watch;

use super::Call;
use super::enter;
use super::history::entry;
use super::history::visible;
use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::error::ErrorType;
use crate::store::Recall;

/// Changes read at once; no commit has so many.
const BATCH: u32 = 2 * crate::api::pillion::apply::MAX_DOCUMENTS as u32;
/// Between signs of life; a caller that is gone is noticed by the write.
const IDLE: Duration = Duration::from_secs(15);

struct Watch {
    call: Call,
    seen: u64,
    revisions: watch::Receiver<u64>,
    ready: VecDeque<Bytes>,
    _place: OwnedSemaphorePermit,
}

pub(super) async fn stream(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    let began = Instant::now();
    match begin(&api, request).await {
        Ok(watch) => {
            let mut response = Response::new(Body::from_stream(stream::unfold(watch, next)));
            let lines = HeaderValue::from_static("application/x-ndjson");
            response.headers_mut().insert(header::CONTENT_TYPE, lines);
            api.metrics
                .count("Watch", response.status(), began.elapsed());
            response
        }
        Err(error) => api.reply(Err(error), "Watch", began),
    }
}

async fn begin(api: &Arc<Api>, request: Request<Body>) -> Result<Watch, ApiError> {
    let call = enter(api, "Watch", request).await?;
    let now = api.live.current().revision();
    let since = call.number("since", now, now)?;
    let place = Arc::clone(&api.watchers).try_acquire_owned().map_err(|_| {
        ApiError::new(
            ErrorType::TooManyRequests,
            "too many watches are running; end one, or poll history",
        )
    })?;
    Ok(Watch {
        seen: since,
        revisions: api.live.subscribe(),
        ready: VecDeque::new(),
        call,
        _place: place,
    })
}

async fn next(mut watch: Watch) -> Option<(Result<Bytes, std::io::Error>, Watch)> {
    loop {
        if let Some(line) = watch.ready.pop_front() {
            return Some((Ok(line), watch));
        }
        watch.revisions.borrow_and_update();
        match watch.read().await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => return Some((Err(std::io::Error::other(error)), watch)),
        }
        let stop = watch.call.api.stop.clone();
        tokio::select! {
            changed = watch.revisions.changed() => changed.ok()?,
            () = tokio::time::sleep(IDLE) => return Some((Ok(Bytes::from_static(b"\n")), watch)),
            () = stop.cancelled() => return None,
        }
    }
}

impl Watch {
    /// Whether anything new was found, visible or not.
    async fn read(&mut self) -> Result<bool, crate::store::StoreError> {
        let which = Recall {
            after: self.seen,
            oldest_first: true,
            limit: BATCH,
            ..Recall::default()
        };
        let mut found = self.call.api.live.store().recall(which).await?;
        // A commit of many changes may be cut by the batch; it is then read whole, the next time.
        if found.len() == BATCH as usize {
            let last = found.last().map(|one| one.revision);
            if found.first().map(|one| one.revision) != last {
                found.retain(|one| Some(one.revision) != last);
            }
        }
        let Some(last) = found.last() else {
            return Ok(false);
        };
        self.seen = last.revision;
        for one in found.iter().filter(|one| visible(&self.call, one)) {
            let mut entry = entry(&self.call, one);
            entry["spec"] = one.record.spec.to_value();
            self.ready.push_back(Bytes::from(format!("{entry}\n")));
        }
        Ok(true)
    }
}
