// SPDX-License-Identifier: Apache-2.0
//! Tries again as the route's policy says: Envoy's conditions, its backoff, its cluster-wide limit. The cluster stays;
//! another endpoint is taken where there is one. A request body that has passed its bound is not sent twice.

use std::rc::Rc;
use std::time::Duration;
use std::time::Instant;

use http::HeaderMap;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http_body::Body as _;
use http_body_util::BodyExt;
use pillion_xds::route::RetryOn;
use pillion_xds::route::RetryPolicy;
use tower::Layer;
use tower::Service;
use tower::layer::layer_fn;

use super::deadline::DeadlineError;
use super::deadline::EXPECTED;
use super::ready_as_inner;
use crate::cluster::Cluster;
use crate::error::Flags;
use crate::error::Retry as Break;
use crate::exchange::Call;
use crate::exchange::Exchange;
use crate::http::body::Body;
use crate::http::executor::spawn;
use crate::http::replay::Replay;
use crate::http::stack::Answer;
use crate::http::stack::Answering;
use crate::http::stack::HttpService;
use crate::metrics::ClusterShard;
use crate::route::Action;

/// Envoy's: the n-th wait is drawn from (2^n - 1) times 25 ms, at most from ten times that.
const BASE: Duration = Duration::from_millis(25);
const MOST: Duration = Duration::from_millis(250);

/// A rest of an unwanted answer larger than this is not worth a connection.
const REST: u64 = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(1);

/// The layer.
pub fn layer<S>() -> impl Layer<S, Service = Retry<S>> + Clone {
    layer_fn(|inner| Retry { inner })
}

/// The service.
#[derive(Clone)]
pub struct Retry<S> {
    inner: S,
}

impl<S: HttpService> Service<Call> for Retry<S> {
    ready_as_inner!();

    fn call(&mut self, call: Call) -> Answering {
        let exchange = &call.exchange;
        let policy = match exchange.rule.get().map(|rule| &rule.action) {
            Some(Action::Forward(forward)) => forward.config.retry.as_ref(),
            _ => None,
        };
        // An upgrade is a conversation, not a request that could be repeated.
        if policy.is_none() || exchange.asked.upgrade.is_some() {
            exchange.attempts.set(1);
            return self.inner.call(call);
        }
        Box::pin(tries(self.inner.clone(), call))
    }
}

async fn tries<S: HttpService>(mut inner: S, call: Call) -> Answer {
    let Call { request, exchange } = call;
    let rule = Rc::new(exchange.rule.get().cloned());
    let policy = match rule.as_ref().as_ref().map(|rule| &rule.action) {
        Some(Action::Forward(forward)) => forward.config.retry.as_ref(),
        _ => None,
    }
    .expect("only called with a policy");
    let (head, body) = request.into_parts();
    let replay = Replay::new(body);
    let mut retry_guard = None;
    for tried in 0.. {
        exchange.attempts.set(tried + 1);
        let mut request = http::Request::from_parts(head.clone(), replay.reader());
        if tried > 0 {
            expect(request.headers_mut(), &exchange, policy.per_try_timeout);
        }
        let call = Call {
            request,
            exchange: Rc::clone(&exchange),
        };
        let answer = one(inner.call(call), &exchange, policy.per_try_timeout).await;
        drop(retry_guard.take());
        if !is_wanted(policy, &answer) {
            if tried > 0
                && answer
                    .as_ref()
                    .is_ok_and(|answer| !answer.status().is_server_error())
            {
                count(&exchange, |counts| counts.rq_retry_success.inc());
            }
            return answer;
        }
        if tried >= policy.max_retries {
            exchange.flag(Flags::RETRY_LIMIT);
            count(&exchange, |counts| counts.rq_retry_limit_exceeded.inc());
            return answer;
        }
        if !replay.is_whole() {
            return answer;
        }
        let Some(guard) = RetryGuard::enter(&exchange, never_arrived(&answer)) else {
            return answer;
        };
        retry_guard = Some(guard);
        discard(answer, &exchange);
        tokio::time::sleep(backoff(tried, exchange.worker.random())).await;
        count(&exchange, |counts| counts.rq_retry.inc());
    }
    unreachable!("the loop ends at the policy's last try")
}

/// The answer that is not passed on is read to its end in the background, if that is near: its connection is then of
/// use again.
fn discard(answer: Answer, exchange: &Exchange) {
    let Ok(response) = answer else { return };
    let mut body = response.into_body();
    if body.is_end_stream() || body.size_hint().exact().is_none_or(|size| size > REST) {
        return;
    }
    spawn(&exchange.worker.shared.metrics, async move {
        let rest = async { while let Some(Ok(_)) = body.frame().await {} };
        if tokio::time::timeout(PATIENCE, rest).await.is_err() {
            tracing::trace!("the rest of an answer that is not wanted did not come");
        }
    });
}

async fn one(answering: Answering, exchange: &Exchange, limit: Option<Duration>) -> Answer {
    let Some(limit) = limit.filter(|limit| !limit.is_zero()) else {
        return answering.await;
    };
    // As Envoy's, a try's time runs from the request's last byte.
    let over = async {
        exchange.request_done.wait().await;
        tokio::time::sleep(limit).await;
    };
    tokio::select! {
        biased;
        answer = answering => answer,
        () = over => {
            count(exchange, |counts| counts.rq_per_try_timeout.inc());
            exchange.blame();
            Err(Box::new(DeadlineError::Try))
        }
    }
}

/// A later try is told what is left of the whole.
fn expect(headers: &mut HeaderMap, exchange: &Exchange, per_try: Option<Duration>) {
    let left = match exchange.rule.get().map(|rule| &rule.action) {
        Some(Action::Forward(forward)) if !forward.config.timeout.is_zero() => forward
            .config
            .timeout
            .saturating_sub(exchange.started.elapsed()),
        _ => return,
    };
    let left = per_try.map_or(left, |limit| limit.min(left));
    let ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    headers.insert(EXPECTED.clone(), HeaderValue::from(ms));
}

fn count(exchange: &Exchange, add: impl FnOnce(&ClusterShard)) {
    if let Some(cluster) = exchange.cluster.get() {
        add(&cluster.state.stats.parts.at(exchange.worker.index).counts);
    }
}

/// A full jitter over a growing range.
fn backoff(tried: u32, random: u64) -> Duration {
    let range = BASE.saturating_mul((2 << tried.min(10)) - 1).min(MOST);
    let micros = u64::try_from(range.as_micros()).unwrap_or(1).max(1);
    Duration::from_micros(random % micros)
}

/// A retry in flight, bounded per cluster (by number, and by its budget) so that a failing one is not buried.
struct RetryGuard(std::sync::Arc<Cluster>);

impl RetryGuard {
    /// A try that found nobody has cost the cluster nothing, so its budget is not asked: while one of two instances
    /// restarts, half of all tries are such.
    fn enter(exchange: &Exchange, never_arrived: bool) -> Option<RetryGuard> {
        let cluster = exchange.cluster.get()?;
        let stats = &cluster.state.stats;
        let room = stats.retries.try_enter();
        let beside = stats.retries.now().saturating_sub(1);
        let budget = || {
            let budget = &cluster.state.budget;
            budget.admits(stats.first_tries(), beside, Instant::now())
        };
        if room && !never_arrived && !budget() {
            stats.retries.leave();
        } else if room {
            return Some(RetryGuard(std::sync::Arc::clone(cluster)));
        }
        exchange.flag(Flags::OVERFLOW);
        count(exchange, |counts| counts.rq_retry_overflow.inc());
        None
    }
}

impl Drop for RetryGuard {
    fn drop(&mut self) {
        self.0.state.stats.retries.leave();
    }
}

fn never_arrived(answer: &Answer) -> bool {
    matches!(answer, Err(error) if error.retry() == Break::Connect)
}

fn is_wanted(policy: &RetryPolicy, answer: &Answer) -> bool {
    policy.on.iter().any(|condition| match answer {
        Ok(response) => meets_answer(*condition, policy, response),
        Err(error) => meets_break(*condition, error.retry()),
    })
}

fn meets_break(condition: RetryOn, broke: Break) -> bool {
    match broke {
        Break::Never => false,
        Break::Connect => {
            matches!(
                condition,
                RetryOn::ConnectFailure
                    | RetryOn::Reset
                    | RetryOn::ServerError
                    | RetryOn::GatewayError
            )
        }
        Break::Refused => {
            matches!(
                condition,
                RetryOn::RefusedStream
                    | RetryOn::Reset
                    | RetryOn::ServerError
                    | RetryOn::GatewayError
            )
        }
        Break::Reset => matches!(
            condition,
            RetryOn::Reset | RetryOn::ServerError | RetryOn::GatewayError
        ),
    }
}

fn meets_answer(condition: RetryOn, policy: &RetryPolicy, response: &Response<Body>) -> bool {
    let status = response.status();
    let grpc = |code: u16| grpc_status(response.headers()) == Some(code);
    match condition {
        RetryOn::ServerError => status.is_server_error(),
        RetryOn::GatewayError => matches!(status.as_u16(), 502..=504),
        RetryOn::Retriable4xx => status == StatusCode::CONFLICT,
        RetryOn::ConnectFailure | RetryOn::RefusedStream | RetryOn::Reset => false,
        RetryOn::Cancelled => grpc(1),
        RetryOn::DeadlineExceeded => grpc(4),
        RetryOn::ResourceExhausted => grpc(8),
        RetryOn::Internal => grpc(13),
        RetryOn::Unavailable => grpc(14),
        RetryOn::StatusCodes => policy.status_codes.contains(&status.as_u16()),
    }
}

/// In the head only: trailers come after the answer has begun.
fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(on: &[RetryOn]) -> RetryPolicy {
        RetryPolicy {
            on: on.to_vec(),
            status_codes: vec![503],
            max_retries: 2,
            per_try_timeout: None,
        }
    }

    fn answer(status: u16, grpc: Option<&'static str>) -> Answer {
        let mut response = Response::builder().status(status);
        if let Some(grpc) = grpc {
            response = response.header("grpc-status", grpc);
        }
        Ok(response.body(Body::Empty).unwrap())
    }

    #[test]
    fn each_condition_meets_its_statuses_and_no_others() {
        for (condition, wanted, other) in [
            (RetryOn::ServerError, 507, 404),
            (RetryOn::GatewayError, 502, 500),
            (RetryOn::Retriable4xx, 409, 429),
            (RetryOn::StatusCodes, 503, 502),
        ] {
            assert!(
                is_wanted(&policy(&[condition]), &answer(wanted, None)),
                "{condition:?} {wanted}"
            );
            assert!(
                !is_wanted(&policy(&[condition]), &answer(other, None)),
                "{condition:?} {other}"
            );
        }
    }

    #[test]
    fn each_grpc_condition_meets_its_code_in_the_head() {
        for (condition, code) in [
            (RetryOn::Cancelled, "1"),
            (RetryOn::DeadlineExceeded, "4"),
            (RetryOn::ResourceExhausted, "8"),
            (RetryOn::Internal, "13"),
            (RetryOn::Unavailable, "14"),
        ] {
            assert!(
                is_wanted(&policy(&[condition]), &answer(200, Some(code))),
                "{condition:?}"
            );
            assert!(
                !is_wanted(&policy(&[condition]), &answer(200, Some("2"))),
                "{condition:?}"
            );
            assert!(
                !is_wanted(&policy(&[condition]), &answer(200, None)),
                "{condition:?}"
            );
        }
    }

    #[test]
    fn a_try_s_timeout_is_a_reset_and_the_route_s_is_final() {
        let reset = policy(&[RetryOn::Reset]);
        assert!(is_wanted(&reset, &Err(Box::new(DeadlineError::Try))));
        assert!(!is_wanted(&reset, &Err(Box::new(DeadlineError::Route))));
        assert!(!is_wanted(
            &policy(&[RetryOn::ConnectFailure]),
            &Err(Box::new(DeadlineError::Try))
        ));
    }

    #[test]
    fn waits_grow_within_their_bound() {
        assert!(backoff(0, u64::MAX) < BASE);
        assert!(backoff(1, 74_999) == Duration::from_micros(74_999));
        assert!(backoff(30, u64::MAX) < MOST);
    }
}
