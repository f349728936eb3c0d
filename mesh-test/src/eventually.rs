// SPDX-License-Identifier: Apache-2.0
//! Waiting for a condition with a deadline, instead of sleeping and hoping.

use std::future::Future;
use std::time::Duration;
use std::time::Instant;

/// Asks again until `probe` answers `Ok`, at most for `limit`; then the last reason is the error.
pub async fn eventually<T, F, P>(limit: Duration, mut probe: P) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
    P: FnMut() -> F,
{
    let deadline = Instant::now() + limit;
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(reason) if Instant::now() >= deadline => {
                return Err(reason.context(format!("still so after {limit:?}")));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
