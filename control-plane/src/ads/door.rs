// SPDX-License-Identifier: Apache-2.0
//! The xDS port's accept loop: TLS and plaintext on one socket, told apart by the first byte. Yields connections to
//! tonic; knows nothing of gRPC.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use pillion_runtime::tasks::Tasks;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use x509_parser::extensions::GeneralName;

use super::ServerTls;

/// From connect to the end of the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections that have not finished it; more wait in the backlog of the socket.
const HANDSHAKES: usize = 1024;
/// Connections that tonic has not taken up.
const QUEUE: usize = 64;
/// RFC 8446, 5.1: the record type of a handshake. HTTP/2 begins with `P`.
const TLS_HANDSHAKE: u8 = 0x16;

/// A connection, encrypted or not.
pub enum Connection {
    /// HTTP/2 as it comes.
    Plain(TcpStream),
    /// Inside TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where they come from.
    pub addr: Option<SocketAddr>,
    /// What their certificate says, which our own authority has signed.
    pub identity: Option<Arc<str>>,
}

/// The one URI name of a certificate; SPIFFE X.509-SVID, section 2: two are none.
fn spiffe_id_in(certificate: &[u8]) -> Option<Arc<str>> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let mut uris = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
    let first = uris.next()?;
    uris.next().is_none().then(|| Arc::from(first))
}

/// Accepts until the tasks are told to stop.
pub fn open(
    listener: TcpListener,
    tls: Arc<ServerTls>,
    tasks: &Tasks,
) -> mpsc::Receiver<io::Result<Connection>> {
    let (out, connections) = mpsc::channel(QUEUE);
    let pending = Arc::new(Semaphore::new(HANDSHAKES));
    let handshakes = tasks.clone();
    tasks.spawn_until_stopped("xds-accept", async move {
        loop {
            let Ok(permit) = Arc::clone(&pending).acquire_owned().await else {
                return;
            };
            let (socket, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, as a rule; at once again would only spin.
                    tracing::warn!(%error, "xDS connection not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (out, tls) = (out.clone(), Arc::clone(&tls));
            handshakes.spawn_until_stopped("xds-handshake", async move {
                match tokio::time::timeout(HANDSHAKE, greet(socket, &tls.acceptor())).await {
                    Ok(Ok(connection)) => {
                        if out.send(Ok(connection)).await.is_err() {
                            tracing::debug!(%peer, "xDS connection came while stopping");
                        }
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(%peer, %error, "xDS connection failed its handshake")
                    }
                    Err(_) => tracing::debug!(%peer, "xDS connection said nothing"),
                }
                drop(permit);
            });
        }
    });
    connections
}

async fn greet(socket: TcpStream, tls: &TlsAcceptor) -> io::Result<Connection> {
    socket.set_nodelay(true)?;
    let mut first = [0];
    if socket.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if first[0] == TLS_HANDSHAKE {
        Ok(Connection::Tls(Box::new(tls.accept(socket).await?)))
    } else {
        Ok(Connection::Plain(socket))
    }
}

impl Connection {
    fn peer(&self) -> Option<SocketAddr> {
        self.socket().peer_addr().ok()
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Connection::Plain(socket) => socket,
            Connection::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        let identity = match self {
            Connection::Plain(_) => None,
            Connection::Tls(stream) => stream
                .get_ref()
                .1
                .peer_certificates()
                .and_then(|chain| spiffe_id_in(chain.first()?)),
        };
        Peer {
            addr: self.peer(),
            identity,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Connection::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connection::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Connection::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Connection::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Connection::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
