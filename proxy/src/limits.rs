// SPDX-License-Identifier: Apache-2.0
//! How much a stranger may ask of this process before it is refused: times, numbers and bytes that no configuration
//! sets per listener. One value for the whole process, in `worker::Policy`; tests bring smaller ones.

use std::time::Duration;

/// The limits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first byte of an HTTP/1.1 head to its last: whoever needs longer drips it on purpose.
    pub head: Duration,
    /// A kept HTTP/1.1 connection may be silent this long at least, and at most twice as long.
    pub idle: Duration,
    /// One with nothing going on for so long, and at most twice as long, gives its buffers back (`http::rest`).
    pub awake: Duration,
    /// A request body is looked at this often while it is waited for; twice in a row below [`Limits::body_rate`] ends it.
    pub body_window: Duration,
    /// Bytes a second.
    pub body_rate: u64,
    /// Bytes of requests and answers under way that the process may hold (`memory`).
    pub memory: usize,
    /// A TLS handshake takes two round trips; who needs longer is stalling.
    pub handshake: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            awake: Duration::from_secs(2),
            body_window: Duration::from_secs(10),
            body_rate: 100,
            memory: 64 << 20,
            handshake: Duration::from_secs(5),
        }
    }
}
