// SPDX-License-Identifier: Apache-2.0
//! The generator of `compare`: prepared requests over many connections on one thread, in a closed loop (the next request
//! as soon as there is an answer: what does a request cost when the proxy is busy) or an open one (a timetable: how long
//! does a request take). Used by `measure`. It checks every answer, but decodes as little of it as it can.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::{Buf as _, BytesMut};
use hdrhistogram::Histogram;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use rustls_pki_types::ServerName;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::backend::head_end;
use super::duplex;
use super::workload::{Act, Front, Way, Workload};
use crate::args::{Arrivals, Protocol, Trust};
use crate::schedule::Schedule;
use crate::tls;

const OPENING: usize = 64;

/// What came of a load so far.
pub(crate) struct Meter {
    pub(crate) done: Cell<u64>,
    pub(crate) failed: Cell<u64>,
    pub(crate) error: RefCell<Option<String>>,
    latency: RefCell<Histogram<u64>>,
}

impl Meter {
    fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, 60_000_000, 3).expect("these bounds are valid");
        Self {
            done: Cell::new(0),
            failed: Cell::new(0),
            error: RefCell::new(None),
            latency: RefCell::new(latency),
        }
    }

    pub(crate) fn answered(&self, due: Instant) {
        self.done.set(self.done.get() + 1);
        let us = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.latency.borrow_mut().saturating_record(us.max(1));
    }

    fn failed(&self, error: &anyhow::Error) {
        self.failed.set(self.failed.get() + 1);
        self.error.replace(Some(format!("{error:#}")));
    }

    /// Forgets the latencies so far: a measurement begins.
    pub(crate) fn restart(&self) {
        self.latency.borrow_mut().reset();
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a minute in microseconds fits a double"
    )]
    pub(crate) fn quantile_us(&self, quantile: f64) -> f64 {
        self.latency.borrow().value_at_quantile(quantile) as f64
    }
}

/// When the next request leaves.
#[derive(Clone)]
pub(crate) enum Pace {
    /// At once.
    Closed,
    /// When it is due.
    Open(Rc<Due>),
}

impl Pace {
    pub(crate) async fn next(&self) -> Instant {
        match self {
            Pace::Closed => Instant::now(),
            Pace::Open(due) => due.next().await,
        }
    }
}

/// Due times that nobody has taken up yet.
pub(crate) struct Due {
    times: RefCell<VecDeque<Instant>>,
    came: Notify,
}

impl Due {
    async fn next(&self) -> Instant {
        loop {
            if let Some(at) = self.times.borrow_mut().pop_front() {
                return at;
            }
            self.came.notified().await;
        }
    }

    /// Lets requests fall due, for ever. A timer of the kernel's, because tokio's counts whole milliseconds; on the
    /// thread of the generator, because waking another costs more than the proxy adds.
    async fn keep(self: Rc<Self>, rate: f64) -> anyhow::Result<()> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)?;
        // A second handle on the same timer, because only an owned one can be waited for.
        #[expect(
            deprecated,
            reason = "what replaces it is unsafe; an owned descriptor has the safety it lacks"
        )]
        let rings =
            AsyncFd::with_interest(timer.as_fd().try_clone_to_owned()?, Interest::READABLE)?;
        let day = Duration::from_secs(86_400);
        let mut schedule = Schedule::new(Arrivals::Poisson, rate, day, u64::MAX).peekable();
        let start = Instant::now();
        loop {
            let now = start.elapsed();
            while let Some(at) = schedule.next_if(|at| *at <= now) {
                self.times.borrow_mut().push_back(start + at);
                self.came.notify_one();
            }
            let Some(next) = schedule.peek() else {
                return Ok(());
            };
            let wait = next
                .saturating_sub(start.elapsed())
                .max(Duration::from_micros(1));
            timer.set(
                Expiration::OneShot(TimeSpec::from_duration(wait)),
                TimerSetTimeFlags::empty(),
            )?;
            rings.readable().await?.clear_ready();
        }
    }
}

/// Some client's connections at work; dropped, they end.
pub(crate) struct Load {
    pub(crate) meter: Rc<Meter>,
    /// Connections whose first answer has come.
    pub(crate) open: Rc<Cell<usize>>,
    _workers: JoinSet<()>,
}

/// What a worker needs.
#[derive(Clone)]
pub(crate) struct Work {
    pub(crate) target: SocketAddr,
    pub(crate) workload: Workload,
    pub(crate) pace: Pace,
    pub(crate) meter: Rc<Meter>,
    pub(crate) open: Rc<Cell<usize>>,
    /// Connections that may be opened at once: ten thousand callers do not come in one moment.
    opening: Rc<Semaphore>,
    tls: Option<TlsConnector>,
}

impl Load {
    /// Must be called within a `LocalSet`. `rate` makes an open loop.
    pub(crate) fn start(
        target: SocketAddr,
        workload: Workload,
        rate: Option<f64>,
    ) -> anyhow::Result<Load> {
        let (meter, open) = (Rc::new(Meter::new()), Rc::new(Cell::new(0)));
        let mut workers = JoinSet::new();
        let pace = match rate {
            None => Pace::Closed,
            Some(rate) => {
                let due = Rc::new(Due {
                    times: RefCell::default(),
                    came: Notify::new(),
                });
                let (keeper, meter) = (Rc::clone(&due), Rc::clone(&meter));
                workers.spawn_local(async move {
                    if let Err(error) = keeper.keep(rate).await {
                        meter.failed(&error);
                    }
                });
                Pace::Open(due)
            }
        };
        let tls = match workload.way {
            Way::TlsEdge => Some(Arc::new(tls::client_config(
                &Trust::Anything,
                Protocol::Http1,
            )?)),
            Way::OneHop | Way::Mesh { .. } => None,
        };
        let work = Work {
            target,
            workload,
            pace,
            meter: Rc::clone(&meter),
            open: Rc::clone(&open),
            opening: Rc::new(Semaphore::new(OPENING)),
            tls: tls.map(TlsConnector::from),
        };
        let workers_wanted = if workload.act == Act::Churn {
            workload.connections.min(16)
        } else {
            workload.connections
        };
        for _ in 0..workers_wanted {
            workers.spawn_local(keep_at_it(work.clone()));
        }
        Ok(Load {
            meter,
            open,
            _workers: workers,
        })
    }
}

/// One connection's work; a connection that breaks counts as a failure and is replaced.
async fn keep_at_it(work: Work) {
    loop {
        let ended = match (work.workload.act, work.workload.front) {
            (Act::Churn, _) => churn(&work).await,
            (Act::Load | Act::Swap | Act::Idle, Front::Http1) => kept(&work).await,
            (Act::Load | Act::Swap | Act::Idle, _) => duplex::talk(&work).await,
        };
        if let Err(error) = ended {
            work.meter.failed(&error);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn dial(target: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(target)
        .await
        .with_context(|| format!("connect to {target}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn request(workload: &Workload) -> Vec<u8> {
    let close = if workload.act == Act::Churn {
        "connection: close\r\n"
    } else {
        ""
    };
    format!(
        "GET {} HTTP/1.1\r\nhost: app.bench.local\r\nuser-agent: pillion-loadtest\r\naccept: */*\r\nx-tier: gold\r\n{close}\r\n",
        workload.path
    )
    .into_bytes()
}

async fn kept(work: &Work) -> anyhow::Result<()> {
    let mut opening = match work.workload.act {
        Act::Idle => Some(work.opening.acquire().await?),
        Act::Load | Act::Churn | Act::Swap => None,
    };
    let mut stream = dial(work.target).await?;
    let request = request(&work.workload);
    let mut read = BytesMut::with_capacity(16 * 1024);
    let mut first = true;
    loop {
        let due = work.pace.next().await;
        stream.write_all(&request).await?;
        read_answer(&mut stream, &mut read).await?;
        work.meter.answered(due);
        if std::mem::take(&mut first) {
            work.open.set(work.open.get() + 1);
            drop(opening.take());
        }
        if work.workload.act == Act::Idle {
            // Whoever holds the load lets go of all of them at once.
            std::future::pending::<()>().await;
        }
    }
}

async fn churn(work: &Work) -> anyhow::Result<()> {
    let request = request(&work.workload);
    let mut read = BytesMut::with_capacity(4 * 1024);
    loop {
        let due = work.pace.next().await;
        let mut stream = dial(work.target).await?;
        match &work.tls {
            None => {
                stream.write_all(&request).await?;
                read_answer(&mut stream, &mut read).await?;
            }
            Some(tls) => {
                let name = ServerName::try_from("app.bench.local").context("a name")?;
                let mut secure = tls.connect(name, stream).await.context("TLS handshake")?;
                secure.write_all(&request).await?;
                secure.flush().await?;
                read_answer(&mut secure, &mut read).await?;
            }
        }
        work.meter.answered(due);
    }
}

/// Reads one whole answer; anything but 200 with a length is an error.
async fn read_answer(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    read: &mut BytesMut,
) -> anyhow::Result<()> {
    let end = loop {
        if let Some(end) = head_end(read) {
            break end;
        }
        read.reserve(16 * 1024);
        ensure!(stream.read_buf(read).await? > 0, "closed before an answer");
    };
    let length = body_length(&read[..end])?;
    read.advance(end);
    let mut missing = length.saturating_sub(read.len());
    if missing == 0 {
        read.advance(length);
        return Ok(());
    }
    read.clear();
    while missing > 0 {
        read.reserve(64 * 1024);
        let came = stream.read_buf(read).await?;
        ensure!(came > 0, "closed within an answer");
        missing = missing.saturating_sub(came);
        read.clear();
    }
    Ok(())
}

fn body_length(head: &[u8]) -> anyhow::Result<usize> {
    let text = std::str::from_utf8(head).context("a head that is text")?;
    let mut lines = text.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 200") {
        bail!("answered {status:?}");
    }
    for line in lines {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            return value
                .trim()
                .parse()
                .with_context(|| format!("content-length {value:?}"));
        }
    }
    bail!("answered without content-length: {text:?}")
}

/// One exchange, to see whether the way is open.
pub(crate) async fn check(target: SocketAddr, workload: Workload) -> anyhow::Result<()> {
    let load = Load::start(
        target,
        Workload {
            connections: 1,
            act: Act::Churn,
            ..workload
        }
        .checking(),
        None,
    )?;
    for _ in 0..200 {
        if load.meter.done.get() > 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let error = load
        .meter
        .error
        .borrow()
        .clone()
        .unwrap_or_else(|| "no answer in 2 s".into());
    bail!(error)
}

impl Workload {
    /// HTTP/2 has no exchange per connection here; its kept one serves as well.
    fn checking(self) -> Workload {
        if self.is_http2() {
            Workload {
                act: Act::Load,
                ..self
            }
        } else {
            self
        }
    }
}
