// SPDX-License-Identifier: Apache-2.0
//! Reading the body of a request: charged to the room byte by byte as it arrives, bounded on the wire and again when
//! inflated. A body that trickles ends at a minimum rate, and sooner when its memory is wanted by others: so slow
//! senders shut no door.

use std::io::Read;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::HeaderMap;
use http::StatusCode;
use http::header::CONTENT_ENCODING;
use http_body::Frame;
use http_body::SizeHint;
use http_body_util::BodyExt;
use tokio::time::Instant;
use tokio::time::Sleep;

use crate::metrics::Reason;
use crate::room::Account;
use crate::room::NoRoom;
use crate::room::Room;

/// On the wire, and again inflated: a batch of an SDK is far below, a bomb is far above.
pub(super) const MAX_BODY: usize = 16 * 1024 * 1024;
/// A slower body is held back on purpose, or comes from so far away that its sender gives up first.
const LEAST_BYTES_PER_SECOND: f64 = 16.0 * 1024.0;
/// Before the rate counts: connections begin slowly.
const GRACE: Duration = Duration::from_secs(5);
/// While others are refused for want of room, a body gets no more than this.
const CROWDED_GRACE: Duration = Duration::from_secs(2);
const CROWDED_MS: u64 = 1000;
const TICK: Duration = Duration::from_millis(250);
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const INFLATE_STEP: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body is larger than {MAX_BODY} bytes")]
    TooLarge,
    #[error("the body is larger than {MAX_BODY} bytes when inflated")]
    TooLargeInflated,
    #[error("the body is not the {0} that content-encoding says: {1}")]
    NotAsEncoded(&'static str, std::io::Error),
    #[error("content-encoding {0:?} is not supported; send gzip, zstd or none")]
    Encoding(String),
    #[error("the body broke off")]
    BrokeOff,
    #[error("the body came too slowly; send at least {LEAST_BYTES_PER_SECOND} bytes a second")]
    TooSlow,
    #[error(transparent)]
    Busy(#[from] NoRoom),
}

impl BodyError {
    /// What a sender is told, and how it is counted.
    pub(super) fn answer(&self) -> (StatusCode, Reason) {
        match self {
            BodyError::TooLarge | BodyError::TooLargeInflated => {
                (StatusCode::PAYLOAD_TOO_LARGE, Reason::TooLarge)
            }
            BodyError::Encoding(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, Reason::Invalid),
            BodyError::NotAsEncoded(..) | BodyError::BrokeOff => {
                (StatusCode::BAD_REQUEST, Reason::Invalid)
            }
            BodyError::TooSlow => (StatusCode::REQUEST_TIMEOUT, Reason::Invalid),
            BodyError::Busy(_) => (StatusCode::TOO_MANY_REQUESTS, Reason::QueueFull),
        }
    }
}

/// A body that pays for what it brings.
pub(super) struct Paying<B> {
    inner: B,
    account: Account,
    seen: usize,
    began: Instant,
    tick: Pin<Box<Sleep>>,
}

impl<B> Paying<B> {
    pub(super) fn new(inner: B, account: Account) -> Paying<B> {
        Paying {
            inner,
            account,
            seen: 0,
            began: Instant::now(),
            tick: Box::pin(tokio::time::sleep(TICK)),
        }
    }

    fn in_time(&self) -> Result<(), BodyError> {
        let age = self.began.elapsed();
        if age > CROWDED_GRACE && self.account.room().crowded(CROWDED_MS) {
            return Err(BodyError::Busy(NoRoom));
        }
        let allowed = GRACE.as_secs_f64() + self.seen as f64 / LEAST_BYTES_PER_SECOND;
        if age.as_secs_f64() > allowed {
            return Err(BodyError::TooSlow);
        }
        Ok(())
    }
}

impl<B> http_body::Body for Paying<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        while self.tick.as_mut().poll(context).is_ready() {
            self.in_time()?;
            self.tick.as_mut().reset(Instant::now() + TICK);
        }
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
            None => return Poll::Ready(None),
            Some(Err(_)) => return Poll::Ready(Some(Err(BodyError::BrokeOff))),
            Some(Ok(frame)) => frame,
        };
        self.seen += frame.data_ref().map_or(0, Bytes::len);
        if self.seen > MAX_BODY {
            return Poll::Ready(Some(Err(BodyError::TooLarge)));
        }
        self.account.cover(self.seen)?;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A whole body, and what it is charged to until it is stored.
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    pub(super) account: Account,
}

/// The bytes as they came.
pub(crate) struct Wire {
    pub(crate) bytes: Bytes,
    account: Account,
}

/// The whole body as it comes.
pub(crate) async fn wire(room: &Room, body: Body) -> Result<Wire, BodyError> {
    let account = room.account();
    let mut body = Paying::new(body, account.clone());
    // Copied together: a slice of a stranger's choosing may hold a buffer many times its size.
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            bytes.extend_from_slice(data);
        }
    }
    Ok(Wire {
        bytes: Bytes::from(bytes),
        account,
    })
}

/// The whole body, inflated.
pub(super) async fn read(room: &Room, headers: &HeaderMap, body: Body) -> Result<Whole, BodyError> {
    let encoding = match headers
        .get(CONTENT_ENCODING)
        .map(|value| value.to_str().unwrap_or("?"))
    {
        None | Some("" | "identity") => Encoding::Plain,
        Some(value) if value.eq_ignore_ascii_case("gzip") => Encoding::Gzip,
        Some(value) if value.eq_ignore_ascii_case("zstd") => Encoding::Zstd,
        Some(other) => return Err(BodyError::Encoding(other.to_owned())),
    };
    let Wire { bytes, account } = wire(room, body).await?;
    let bytes = encoding.inflate(bytes, &account)?;
    Ok(Whole { bytes, account })
}

#[derive(Clone, Copy)]
enum Encoding {
    Plain,
    Gzip,
    Zstd,
}

impl Encoding {
    /// Some exporters announce an encoding and send plain bytes.
    fn inflate(self, bytes: Bytes, account: &Account) -> Result<Bytes, BodyError> {
        match self {
            Encoding::Gzip if bytes.starts_with(&GZIP_MAGIC) => {
                inflate("gzip", MultiGzDecoder::new(bytes.as_ref()), account)
            }
            Encoding::Zstd if bytes.starts_with(&ZSTD_MAGIC) => {
                let reader = zstd::Decoder::with_buffer(bytes.as_ref())
                    .map_err(|error| BodyError::NotAsEncoded("zstd", error))?;
                inflate("zstd", reader, account)
            }
            Encoding::Plain | Encoding::Gzip | Encoding::Zstd => Ok(bytes),
        }
    }
}

fn inflate(
    name: &'static str,
    mut reader: impl Read,
    account: &Account,
) -> Result<Bytes, BodyError> {
    let mut inflated = Vec::new();
    loop {
        let before = inflated.len();
        reader
            .by_ref()
            .take(INFLATE_STEP as u64)
            .read_to_end(&mut inflated)
            .map_err(|error| BodyError::NotAsEncoded(name, error))?;
        if inflated.len() == before {
            return Ok(Bytes::from(inflated));
        }
        if inflated.len() > MAX_BODY {
            return Err(BodyError::TooLargeInflated);
        }
        account.cover(inflated.len())?;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn room() -> Room {
        Room::new(64 * 1024 * 1024)
    }

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).expect("writing to memory");
        encoder.finish().expect("writing to memory")
    }

    fn zstd(plain: &[u8]) -> Vec<u8> {
        zstd::encode_all(plain, 1).expect("writing to memory")
    }

    fn headers(encoding: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_ENCODING, http::HeaderValue::from_static(encoding))])
    }

    #[tokio::test]
    async fn a_bomb_is_stopped_at_the_limit() {
        let plain = vec![0; MAX_BODY + 1];
        for (name, bomb) in [("gzip", gzip(&plain)), ("zstd", zstd(&plain))] {
            assert!(bomb.len() < MAX_BODY / 100);
            let read = read(&room(), &headers(name), Body::from(bomb)).await;
            assert!(
                matches!(read, Err(BodyError::TooLargeInflated)),
                "{:?}",
                read.err()
            );
        }
    }

    #[tokio::test]
    async fn a_bomb_is_stopped_where_the_room_ends() {
        let bomb = gzip(&vec![0; 4 * 1024 * 1024]);
        let room = Room::new(1024 * 1024);
        let read = read(&room, &headers("gzip"), Body::from(bomb)).await;
        assert!(matches!(read, Err(BodyError::Busy(_))), "{:?}", read.err());
        assert_eq!(room.taken(), 0);
    }

    #[tokio::test]
    async fn what_is_announced_is_inflated_and_what_is_plain_all_the_same_is_taken_as_it_is() {
        for (name, sent) in [
            ("gzip", gzip(b"{}")),
            ("gzip", b"{}".to_vec()),
            ("ZSTD", zstd(b"{}")),
            ("zstd", b"{}".to_vec()),
        ] {
            let read = read(&room(), &headers(name), Body::from(sent)).await;
            assert_eq!(read.expect("readable").bytes, "{}");
        }
    }

    #[tokio::test]
    async fn damaged_bodies_and_other_encodings_are_refused() {
        for (name, mut sent) in [
            ("gzip", gzip(b"{\"resourceSpans\":[]}")),
            ("zstd", zstd(b"{\"resourceSpans\":[]}")),
        ] {
            sent.truncate(12);
            let read = read(&room(), &headers(name), Body::from(sent)).await;
            assert!(
                matches!(read, Err(BodyError::NotAsEncoded(..))),
                "{:?}",
                read.err()
            );
        }
        let read = read(&room(), &headers("br"), Body::from("x")).await;
        assert!(
            matches!(read, Err(BodyError::Encoding(_))),
            "{:?}",
            read.err()
        );
    }

    /// Sends a little, then nothing.
    fn stalled() -> Body {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, BodyError>>(1);
        sender
            .try_send(Ok(Bytes::from_static(b"{")))
            .expect("there is a place");
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        // Never dropped, so that the body never ends.
        std::mem::forget(sender);
        Body::from_stream(stream)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_given_up() {
        let began = Instant::now();
        let read = read(&room(), &HeaderMap::new(), stalled()).await;
        assert!(matches!(read, Err(BodyError::TooSlow)), "{:?}", read.err());
        assert!(began.elapsed() < Duration::from_secs(6));
    }

    #[tokio::test(start_paused = true)]
    async fn slow_bodies_make_room_for_others() {
        let room = Room::new(3 * 1024);
        let slow = {
            let room = room.clone();
            tokio::spawn(async move { read(&room, &HeaderMap::new(), stalled()).await })
        };
        tokio::time::sleep(Duration::from_millis(2100)).await;
        let none = HeaderMap::new();
        let large = || read(&room, &none, Body::from(vec![b'x'; 1000]));
        assert!(large().await.is_err(), "the slow body is in the way");
        let slow = slow.await.expect("it ended");
        assert!(matches!(slow, Err(BodyError::Busy(_))), "{:?}", slow.err());
        assert!(large().await.is_ok());
    }
}
