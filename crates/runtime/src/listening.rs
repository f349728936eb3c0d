// SPDX-License-Identifier: Apache-2.0
//! Binding sockets with errors a person can act on, and the readiness line of every program.

use std::io;
use std::io::Write;
use std::net::SocketAddr;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use socket2::Domain;
use socket2::Protocol;
use socket2::Socket;
use socket2::Type;
use tokio::net::TcpListener;

/// Accept backlog of every listener: a burst of connects must not be refused while the loop is busy.
const BACKLOG: i32 = 4096;

/// A socket that could not be bound: which setting, which address, what to do.
#[derive(Debug, thiserror::Error)]
#[error("bind {setting} {addr}: {}", remedy(.source, .setting))]
pub struct BindError {
    setting: &'static str,
    addr: SocketAddr,
    source: io::Error,
}

impl BindError {
    /// Why, for callers whose remedy is another than changing the setting.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

fn remedy(source: &io::Error, setting: &str) -> String {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "another process holds this port; stop it, or give {setting} a free one (port 0 picks one)"
            )
        }
        io::ErrorKind::PermissionDenied => {
            format!(
                "not permitted; ports below 1024 need CAP_NET_BIND_SERVICE, or give {setting} a higher one"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("this machine has no such address; give {setting} one of its own")
        }
        _ => source.to_string(),
    }
}

/// A program told to listen where strangers can reach it, without any authentication.
#[derive(Debug, thiserror::Error)]
#[error(
    "{setting} {addr} is reachable from other machines and nothing would authenticate them; \
     use a loopback address, or give --insecure if the network itself is trusted"
)]
pub struct ExposedError {
    setting: &'static str,
    addr: SocketAddr,
}

/// Who else may have a socket on the address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Nobody,
    /// Other sockets of this process.
    Workers,
    /// Those, and sockets for the same port of IPv4.
    WorkersBesideV4,
}

/// Binds a TCP listener. `setting` is the flag a person would change, such as `--api-addr`.
pub fn bind(setting: &'static str, addr: SocketAddr) -> Result<TcpListener, BindError> {
    listen(addr, Sharing::Nobody).map_err(|source| BindError {
        setting,
        addr,
        source,
    })
}

/// Like [`bind`], with `SO_REUSEPORT`, so that several workers can hold a socket each on one address.
pub fn bind_shared(setting: &'static str, addr: SocketAddr) -> Result<TcpListener, BindError> {
    listen(addr, Sharing::Workers).map_err(|source| BindError {
        setting,
        addr,
        source,
    })
}

/// Like [`bind_shared`], for an IPv6 wildcard that leaves the same port of IPv4 to another socket.
pub fn bind_shared_beside_v4(
    setting: &'static str,
    addr: SocketAddr,
) -> Result<TcpListener, BindError> {
    listen(addr, Sharing::WorkersBesideV4).map_err(|source| BindError {
        setting,
        addr,
        source,
    })
}

fn listen(addr: SocketAddr, sharing: Sharing) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if sharing != Sharing::Nobody {
        socket.set_reuse_port(true)?;
    }
    if sharing == Sharing::WorkersBesideV4 {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Refuses an address beyond loopback unless it may be `exposed`: callers are authenticated, or the user insists
/// with `--insecure`.
pub fn require_loopback(
    setting: &'static str,
    addr: SocketAddr,
    exposed: bool,
) -> Result<(), ExposedError> {
    if addr.ip().to_canonical().is_loopback() || exposed {
        return Ok(());
    }
    Err(ExposedError { setting, addr })
}

/// Prints the readiness line: one JSON object on stdout, addresses keyed by the names of `docs/operating.md`.
pub fn announce(addresses: &[(String, SocketAddr)]) {
    let addresses: Map<String, Value> = addresses
        .iter()
        .map(|(name, addr)| (name.clone(), json!(addr.to_string())))
        .collect();
    let line = json!({"event": "listening", "addresses": addresses});
    let mut out = io::stdout().lock();
    // A closed stdout must not end a server: whoever wanted the line is gone.
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        tracing::warn!("stdout is closed; the readiness line was not read");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("a literal address")
    }

    #[tokio::test]
    async fn a_taken_port_names_the_setting_and_the_way_out() {
        let first = bind("--api-addr", addr("127.0.0.1:0")).expect("a free port");
        let taken = first.local_addr().expect("a bound socket");
        let error = bind("--api-addr", taken)
            .expect_err("the port is taken")
            .to_string();
        assert!(
            error.contains("--api-addr") && error.contains(&taken.to_string()),
            "{error}"
        );
        assert!(error.contains("port 0"), "{error}");
    }

    #[test]
    fn beyond_loopback_needs_authentication_or_insistence() {
        let open = addr("0.0.0.0:8700");
        assert!(require_loopback("--api-addr", open, false).is_err());
        assert!(require_loopback("--api-addr", open, true).is_ok());
    }

    #[test]
    fn loopback_in_both_families_and_mapped_is_fine() {
        for text in [
            "127.0.0.1:1",
            "127.9.9.9:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(
                require_loopback("--api-addr", addr(text), false).is_ok(),
                "{text}"
            );
        }
    }
}
