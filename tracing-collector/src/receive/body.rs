// SPDX-License-Identifier: Apache-2.0
//! Reading the body of an HTTP request: bounded on the wire, bounded again when inflated, and only so many at once.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use http_body_util::BodyExt;
use http_body_util::LengthLimitError;
use http_body_util::Limited;
use tokio::sync::Semaphore;
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

/// On the wire, and again inflated: a batch of an SDK is far below, a bomb is far above.
pub(super) const MAX_BODY: usize = 16 * 1024 * 1024;
/// Bodies being read at once, per door, and how long another waits for its turn.
const AT_ONCE: usize = 32;
const TURN: Duration = Duration::from_secs(1);
/// A body that takes longer is held back on purpose, or will be sent again anyway.
const WHOLE_BODY: Duration = Duration::from_secs(30);
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the body is larger than {MAX_BODY} bytes")]
    TooLarge,
    #[error("the body is larger than {MAX_BODY} bytes when inflated")]
    TooLargeInflated,
    #[error("the body is not the gzip that content-encoding says: {0}")]
    NotGzip(std::io::Error),
    #[error("content-encoding {0:?} is not supported; send gzip or none")]
    Encoding(String),
    #[error("the body broke off, or took longer than {} seconds", WHOLE_BODY.as_secs())]
    BrokeOff,
    #[error("too many requests are being read; try again in a second")]
    Busy,
}

/// How many bodies one door reads at once.
#[derive(Clone)]
pub(super) struct Reading(Arc<Semaphore>);

impl Reading {
    pub(super) fn new() -> Reading {
        Reading(Arc::new(Semaphore::new(AT_ONCE)))
    }

    async fn enter(&self) -> Result<SemaphorePermit<'_>, BodyError> {
        match timeout(TURN, self.0.acquire()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(BodyError::Busy),
        }
    }

    /// The whole body, inflated.
    pub(super) async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Bytes, BodyError> {
        let _place = self.enter().await?;
        let gzip = match headers
            .get(CONTENT_ENCODING)
            .map(|value| value.to_str().unwrap_or("?"))
        {
            None | Some("" | "identity") => false,
            Some(value) if value.eq_ignore_ascii_case("gzip") => true,
            Some(other) => return Err(BodyError::Encoding(other.to_owned())),
        };
        let collected = timeout(WHOLE_BODY, Limited::new(body, MAX_BODY).collect()).await;
        let collected = collected.map_err(|_| BodyError::BrokeOff)?;
        let bytes = collected.map_err(|error| {
            if error.downcast_ref::<LengthLimitError>().is_some() {
                BodyError::TooLarge
            } else {
                BodyError::BrokeOff
            }
        })?;
        let bytes = bytes.to_bytes();
        // Some exporters announce gzip and send plain bytes.
        if gzip && bytes.starts_with(&GZIP_MAGIC) {
            inflate(&bytes)
        } else {
            Ok(bytes)
        }
    }
}

fn inflate(bytes: &[u8]) -> Result<Bytes, BodyError> {
    let mut inflated = Vec::with_capacity(bytes.len() * 3);
    let limit = MAX_BODY as u64 + 1;
    MultiGzDecoder::new(bytes)
        .take(limit)
        .read_to_end(&mut inflated)
        .map_err(BodyError::NotGzip)?;
    if inflated.len() > MAX_BODY {
        Err(BodyError::TooLargeInflated)
    } else {
        Ok(Bytes::from(inflated))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).expect("writing to memory");
        encoder.finish().expect("writing to memory")
    }

    fn headers(encoding: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_ENCODING, http::HeaderValue::from_static(encoding))])
    }

    #[tokio::test]
    async fn a_bomb_is_stopped_at_the_limit() {
        let bomb = gzip(&vec![0; MAX_BODY + 1]);
        assert!(bomb.len() < MAX_BODY / 100);
        let read = Reading::new()
            .read(&headers("gzip"), Body::from(bomb))
            .await;
        assert!(matches!(read, Err(BodyError::TooLargeInflated)), "{read:?}");
    }

    #[tokio::test]
    async fn gzip_is_inflated_and_announced_gzip_that_is_plain_is_taken_as_it_is() {
        for sent in [gzip(b"{}"), b"{}".to_vec()] {
            let read = Reading::new()
                .read(&headers("gzip"), Body::from(sent))
                .await;
            assert_eq!(read.expect("readable"), "{}");
        }
    }

    #[tokio::test]
    async fn damaged_gzip_and_other_encodings_are_refused() {
        let mut cut = gzip(b"{\"resourceSpans\":[]}");
        cut.truncate(12);
        let read = Reading::new().read(&headers("gzip"), Body::from(cut)).await;
        assert!(matches!(read, Err(BodyError::NotGzip(_))), "{read:?}");
        let read = Reading::new().read(&headers("br"), Body::from("x")).await;
        assert!(matches!(read, Err(BodyError::Encoding(_))), "{read:?}");
    }
}
