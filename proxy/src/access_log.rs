// SPDX-License-Identifier: Apache-2.0
//! Access logs: formats compiled once, lines written into a buffer of the worker, buffers handed to one background
//! writer over a bounded queue. A full queue drops and counts; a request never waits for a disk. Formats are compiled
//! by `snapshot`, lines written by `layer::access_log` and `tcp`; `cluster::outlier` sends its events the same way.

pub mod format;
mod operator;
pub mod time;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pillion_runtime::tasks::Tasks;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

pub use format::Line;
pub use format::Log;

/// A worker's buffer leaves when it is this large, or this old.
const BUFFER: usize = 64 * 1024;
const LINGER: Duration = Duration::from_secs(1);
/// After the stop one write may take this long.
const LAST_WRITE: Duration = Duration::from_millis(500);
/// Buffers waiting for the writer: 256 of 64 KiB bound the memory to 16 MiB.
const QUEUE: usize = 256;

struct Chunk {
    path: Arc<str>,
    bytes: Vec<u8>,
    lines: u64,
}

/// The queue to the background writer. Clones share it.
#[derive(Clone)]
pub struct Writer {
    queue: mpsc::Sender<Chunk>,
    metrics: Metrics,
}

impl Writer {
    /// Starts the writer as a task of the calling (control) runtime.
    pub fn start(tasks: &Tasks, metrics: &Metrics) -> Writer {
        let (queue, chunks) = mpsc::channel(QUEUE);
        tasks.spawn("access-log", write(chunks, tasks.stop(), metrics.clone()));
        Writer {
            queue,
            metrics: metrics.clone(),
        }
    }

    /// A line that no request wrote: a cluster's event.
    pub fn say(&self, path: &Arc<str>, line: String) {
        self.send(Chunk {
            path: Arc::clone(path),
            bytes: line.into_bytes(),
            lines: 1,
        });
    }

    fn send(&self, chunk: Chunk) {
        let lines = chunk.lines;
        if self.queue.try_send(chunk).is_err() {
            self.metrics.process().access_log_dropped.add_shared(lines);
        }
    }
}

async fn write(mut chunks: mpsc::Receiver<Chunk>, stop: CancellationToken, metrics: Metrics) {
    let mut files: HashMap<Arc<str>, Output> = HashMap::new();
    loop {
        let chunk = tokio::select! {
            chunk = chunks.recv() => chunk,
            // After the stop what is queued is still written.
            () = stop.cancelled() => chunks.try_recv().ok(),
        };
        let Some(chunk) = chunk else { return };
        let Chunk { path, bytes, lines } = chunk;
        let written = tokio::select! {
            written = write_chunk(&mut files, &path, bytes) => written,
            () = late(&stop) => {
                metrics.process().access_log_dropped.add_shared(lines);
                tracing::warn!(%path, "an access log stalls; its last lines are lost");
                return;
            }
        };
        let process = metrics.process();
        match written {
            Ok(()) => process.access_log_written.add_shared(lines),
            Err(error) => {
                process.access_log_dropped.add_shared(lines);
                files.remove(&path);
                tracing::warn!(%path, %error, lines, "access log lines dropped");
            }
        }
    }
}

/// Some time after the stop: whoever does not read then never will.
async fn late(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(LAST_WRITE).await;
}

enum Output {
    File(tokio::fs::File, Identity),
    Stdout,
    Stderr,
}

async fn write_chunk(
    files: &mut HashMap<Arc<str>, Output>,
    path: &Arc<str>,
    bytes: Vec<u8>,
) -> io::Result<()> {
    // Who rotates a log moves it away: the next lines belong into a new file of its name.
    let moved = match files.get(path) {
        Some(Output::File(_, opened)) => identity(path).await != Some(*opened),
        Some(Output::Stdout | Output::Stderr) => false,
        None => true,
    };
    if moved {
        files.insert(Arc::clone(path), open(path).await?);
    }
    match files.get_mut(path) {
        Some(Output::File(file, _)) => {
            file.write_all(&bytes).await?;
            file.flush().await
        }
        Some(Output::Stdout) => blocking(move || write_all(io::stdout().lock(), &bytes)).await,
        Some(Output::Stderr) => blocking(move || write_all(io::stderr().lock(), &bytes)).await,
        None => Ok(()),
    }
}

fn write_all(mut out: impl io::Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes)?;
    out.flush()
}

async fn blocking(write: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    tokio::task::spawn_blocking(write)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

async fn open(path: &str) -> io::Result<Output> {
    // The standard streams are ours already: opening /dev/stdout anew fails where it is a socket, and truncates files.
    match path {
        "/dev/stdout" => Ok(Output::Stdout),
        "/dev/stderr" => Ok(Output::Stderr),
        _ => {
            let file = tokio::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .await?;
            let meta = file.metadata().await?;
            Ok(Output::File(file, (meta.dev(), meta.ino())))
        }
    }
}

/// Which file a name leads to.
type Identity = (u64, u64);

async fn identity(path: &str) -> Option<Identity> {
    let meta = tokio::fs::metadata(path).await.ok()?;
    Some((meta.dev(), meta.ino()))
}

/// One worker's lines that have not left yet.
pub struct Buffers {
    writer: Writer,
    chunks: RefCell<Vec<Chunk>>,
}

impl Buffers {
    /// None yet.
    pub fn new(writer: Writer) -> Buffers {
        Buffers {
            writer,
            chunks: RefCell::default(),
        }
    }

    /// Writes one line to a log. Runs inside the worker's `LocalSet`.
    pub fn write(self: &Rc<Buffers>, log: &Log, line: &Line<'_>) {
        let mut chunks = self.chunks.borrow_mut();
        if chunks.is_empty() {
            let buffers = Rc::clone(self);
            tokio::task::spawn_local(async move {
                tokio::time::sleep(LINGER).await;
                buffers.flush();
            });
        }
        let at = chunks
            .iter()
            .position(|chunk| chunk.path == log.path)
            .unwrap_or_else(|| {
                chunks.push(Chunk {
                    path: Arc::clone(&log.path),
                    bytes: Vec::with_capacity(BUFFER),
                    lines: 0,
                });
                chunks.len() - 1
            });
        log.format(line, &mut chunks[at].bytes);
        chunks[at].lines += 1;
        if chunks[at].bytes.len() >= BUFFER {
            let full = chunks.swap_remove(at);
            self.writer.send(full);
        }
    }

    /// Hands everything to the writer.
    pub fn flush(&self) {
        for chunk in self.chunks.take() {
            self.writer.send(chunk);
        }
    }
}
