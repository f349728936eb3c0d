// SPDX-License-Identifier: Apache-2.0
//! Exchanges that become byte streams: `CONNECT`, and upgrades after a 101 that was asked for. The exchange ends when
//! the bytes do.

use std::borrow::Cow;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::StatusCode;
use hyper::upgrade::OnUpgrade;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;

use super::client::Endpoints;
use super::client::overflow;
use super::executor::spawn;
use crate::connect;
use crate::connect::Place;
use crate::connect::app_address;
use crate::error::Failure;
use crate::error::Fault;
use crate::error::Flags;
use crate::error::RequestError;
use crate::error::Retry;
use crate::exchange::EndGuard;
use crate::exchange::Exchange;
use crate::layer::route;
use crate::route::Action;
use crate::stream::Stream;
use crate::tcp;

/// Envoy's idle limit of a stream, for tunnels as well.
const DEFAULT_IDLE: Duration = Duration::from_secs(300);

/// A tunnel to a port that nothing here serves.
#[derive(Debug, thiserror::Error)]
#[error("port {port} is not declared")]
pub struct UndeclaredPort {
    port: u16,
}

impl Failure for UndeclaredPort {
    fn fault(&self) -> Fault {
        Fault::Downstream
    }

    fn retry(&self) -> Retry {
        Retry::Never
    }

    fn status(&self) -> StatusCode {
        StatusCode::FORBIDDEN
    }

    fn flag(&self) -> Flags {
        Flags::NO_ROUTE
    }

    fn text(&self) -> Cow<'static, str> {
        Cow::Owned(format!(
            "{self}; add a backend that listens on it, or allow all egress"
        ))
    }

    fn details(&self) -> &'static str {
        "connect_port_not_declared"
    }
}

/// A tunnel to a backend that gives no target any weight.
#[derive(Debug, thiserror::Error)]
#[error("the route has no target")]
pub struct NoTarget;

impl Failure for NoTarget {
    fn fault(&self) -> Fault {
        Fault::Local
    }

    fn retry(&self) -> Retry {
        Retry::Never
    }

    fn status(&self) -> StatusCode {
        StatusCode::SERVICE_UNAVAILABLE
    }

    fn flag(&self) -> Flags {
        Flags::NO_HEALTHY
    }

    fn text(&self) -> Cow<'static, str> {
        Cow::Borrowed("no healthy upstream")
    }

    fn details(&self) -> &'static str {
        "no_healthy_upstream"
    }
}

/// Opens upstream ends of tunnels.
#[derive(Clone)]
pub struct Tunnels {
    endpoints: Endpoints,
}

impl Tunnels {
    /// Over these endpoints.
    pub fn new(endpoints: Endpoints) -> Tunnels {
        Tunnels { endpoints }
    }

    /// A byte stream to where `CONNECT` asks for: the declared host's cluster, or a TCP backend of that port.
    pub async fn open(
        &self,
        exchange: &Rc<Exchange>,
        headers: &HeaderMap,
    ) -> Result<(Stream, Place), RequestError> {
        let chosen = route::choose(exchange, headers).map(|rule| &rule.action);
        match chosen {
            Ok(Action::Forward(_)) => {}
            Ok(Action::Respond { .. }) => return Err(Box::new(NoTarget)),
            Err(error) => self.by_port(exchange, error)?,
        }
        let Some(cluster) = exchange.cluster.get().cloned() else {
            let port = exchange.asked.authority.port_u16().unwrap_or_default();
            return Err(Box::new(UndeclaredPort { port }));
        };
        exchange.attempts.set(1);
        let place = Place::take(&cluster, exchange.worker.index);
        let place = place.ok_or_else(|| overflow(&cluster, "connections"))?;
        let endpoint = self.endpoints.pick(exchange, &cluster).await?;
        exchange.upstream.replace(Some(Arc::clone(&endpoint)));
        let at = app_address(&exchange.connection, &endpoint, &exchange.worker);
        let counts = &cluster.state.stats.parts.at(exchange.worker.index).counts;
        let dialled = connect::dial(&cluster, at, Some(counts)).await;
        match dialled {
            Ok(stream) => Ok((stream, place)),
            Err(error) => Err(Box::new(error)),
        }
    }

    /// No virtual host has it: a TCP chain of that port may.
    fn by_port(&self, exchange: &Rc<Exchange>, error: RequestError) -> Result<(), RequestError> {
        let port = exchange.asked.authority.port_u16().unwrap_or_default();
        let snapshot = &exchange.served.snapshot;
        let listener = snapshot.listener(&exchange.connection.listener);
        let chain = listener.and_then(|listener| {
            listener
                .chains()
                .find(|chain| chain.matching.destination_port == Some(port))
                .cloned()
        });
        if let Some(crate::snapshot::Filter::Tcp(tcp)) = chain.as_ref().map(|chain| &chain.filter) {
            let name = tcp::draw(&tcp.proxy.clusters, exchange.worker.random());
            if let Some(cluster) = name.and_then(|name| snapshot.cluster(name)) {
                exchange.cluster.get_or_init(|| Arc::clone(cluster));
                return Ok(());
            }
        }
        let known = exchange
            .served
            .http()
            .table
            .as_ref()
            .is_some_and(|table| table.knows_port(port));
        if known || chain.is_some() {
            return Err(error);
        }
        Err(Box::new(UndeclaredPort { port }))
    }
}

/// Joins a `CONNECT`ed downstream with its upstream, in a task of its own.
pub fn connect(end: EndGuard, downstream: OnUpgrade, (upstream, place): (Stream, Place)) {
    end.0.place.replace(Some(place));
    run(end, async move {
        let downstream = downstream.await.ok()?;
        Some((TokioIo::new(downstream), upstream))
    });
}

/// Joins both ends of an upgrade, in a task of its own.
pub fn upgrade(end: EndGuard, downstream: OnUpgrade, upstream: OnUpgrade) {
    run(end, async move {
        let (downstream, upstream) = futures_util::future::try_join(downstream, upstream)
            .await
            .ok()?;
        Some((TokioIo::new(downstream), TokioIo::new(upstream)))
    });
}

/// The route's word before the connection manager's; zero is no limit.
fn idle_limit(exchange: &Exchange) -> Duration {
    let route = match exchange.rule.get().map(|rule| &rule.action) {
        Some(Action::Forward(forward)) => forward.config.idle_timeout,
        Some(Action::Respond { .. }) | None => None,
    };
    let manager = exchange.served.http().manager.stream_idle_timeout;
    route.or(manager).unwrap_or(DEFAULT_IDLE)
}

fn run<U>(end: EndGuard, ends: impl Future<Output = Option<(TokioIo<Upgraded>, U)>> + 'static)
where
    U: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let exchange = Rc::clone(&end.0);
    let metrics = exchange.worker.shared.metrics.clone();
    spawn(&metrics, async move {
        let served = Rc::clone(&exchange.served);
        let counts = &served.http().stats.parts.at(exchange.worker.index).counts;
        counts.cx_upgrades_total.inc();
        counts.cx_upgrades_active.inc();
        if let Some((downstream, upstream)) = ends.await {
            let idle = idle_limit(&exchange);
            let passed = tcp::Passed {
                up: &exchange.received,
                down: &exchange.sent,
            };
            let ended =
                tcp::relay(downstream, upstream, Some(idle), passed, &exchange.worker).await;
            if ended == tcp::Ended::Idle {
                exchange.flag(Flags::IDLE_TIMEOUT);
            }
        }
        counts.cx_upgrades_active.dec();
        drop(end);
    });
}
