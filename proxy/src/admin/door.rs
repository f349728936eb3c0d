// SPDX-License-Identifier: Apache-2.0
//! How admin and agent are reached: a TCP port, or a unix socket where App Mesh's `uds` mode asks for one. Called by
//! `app`; knows nothing of the pages.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::path::PathBuf;

use axum::Router;
use pillion_runtime::listening;
use pillion_runtime::listening::BindError;
use pillion_runtime::listening::ExposedError;
use tokio::net::TcpListener;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

/// A bound door.
#[derive(Debug)]
pub enum Door {
    /// A port.
    Tcp(TcpListener),
    /// A socket.
    Unix(UnixListener),
}

/// A door that could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The port.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A port that strangers could reach.
    #[error(transparent)]
    Exposed(#[from] ExposedError),
    /// The socket.
    #[error("bind {}; its directory must be there and writable, and nobody else may serve on it", .path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Door {
    /// The socket if there is one, else the port.
    pub fn bind(
        setting: &'static str,
        addr: SocketAddr,
        socket: Option<&Path>,
        insecure: bool,
    ) -> Result<Door, DoorError> {
        let Some(path) = socket else {
            listening::require_loopback(setting, addr, insecure)?;
            return Ok(Door::Tcp(listening::bind(setting, addr)?));
        };
        // What an earlier life left behind; anything but a socket, and a socket that answers, stays.
        let left = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
        let bound = if left && std::os::unix::net::UnixStream::connect(path).is_err() {
            std::fs::remove_file(path).and_then(|()| UnixListener::bind(path))
        } else {
            UnixListener::bind(path)
        };
        bound.map(Door::Unix).map_err(|source| DoorError::Socket {
            path: path.to_owned(),
            source,
        })
    }

    /// The port's address.
    pub fn addr(&self) -> Option<SocketAddr> {
        match self {
            Door::Tcp(listener) => listener.local_addr().ok(),
            Door::Unix(_) => None,
        }
    }

    /// Serves until the token fires.
    pub async fn serve(self, router: Router, stop: CancellationToken) {
        match self {
            Door::Tcp(listener) => pillion_runtime::admin::serve(listener, router, stop).await,
            Door::Unix(listener) => {
                let served = axum::serve(listener, router)
                    .with_graceful_shutdown(stop.cancelled_owned())
                    .await;
                if let Err(error) = served {
                    tracing::error!(%error, "the admin socket ended");
                }
            }
        }
    }
}
