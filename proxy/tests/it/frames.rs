// SPDX-License-Identifier: Apache-2.0
//! HTTP/2 frames by hand, for what no well-meaning client sends.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field that no table keeps; both parts shorter than 127.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).unwrap();
    let mut field = vec![0, length(name)];
    field.extend(name.as_bytes());
    field.push(length(value));
    field.extend(value.as_bytes());
    field
}

/// `GET / http` for a host, as a header block.
pub(crate) fn get(host: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x84];
    block.extend(field(":authority", host));
    block
}

/// A whole GET of its own stream.
pub(crate) fn request(stream: u32, host: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &get(host))
}

/// A connection that has said its preface, with this initial stream window, and a connection window as large as can be.
pub(crate) async fn open(proxy: SocketAddr, window: u32) -> TcpStream {
    let mut socket = TcpStream::connect(proxy).await.unwrap();
    let mut hello = PREFACE.to_vec();
    let setting = [&[0, 4][..], &window.to_be_bytes()].concat();
    hello.extend(frame(SETTINGS, 0, 0, &setting));
    hello.extend(frame(
        WINDOW_UPDATE,
        0,
        0,
        &(0x7fff_ffff_u32 - 65_535).to_be_bytes(),
    ));
    socket.write_all(&hello).await.unwrap();
    socket
}

/// Writes `flood` again and again until the proxy ends the connection, at most `times`; returns how often, and the
/// error code of its GOAWAY if that was heard.
pub(crate) async fn flood(
    socket: TcpStream,
    times: usize,
    mut flood: impl FnMut(usize) -> Vec<u8>,
) -> (usize, Option<u8>) {
    let (mut read, mut write) = socket.into_split();
    let listening = tokio::spawn(async move {
        let mut code = None;
        let mut header = [0; 9];
        while read.read_exact(&mut header).await.is_ok() {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
            let mut payload = vec![0; length as usize];
            if read.read_exact(&mut payload).await.is_err() {
                break;
            }
            if header[3] == GOAWAY && payload[7] != 0 {
                code = Some(payload[7]);
            }
        }
        code
    });
    let mut sent = 0;
    while sent < times && !listening.is_finished() {
        let bytes = flood(sent);
        let writing = tokio::time::timeout(Duration::from_secs(5), write.write_all(&bytes));
        match writing.await {
            Ok(Ok(())) => sent += 1,
            Ok(Err(_)) | Err(_) => break,
        }
    }
    let ended = tokio::time::timeout(Duration::from_secs(5), listening).await;
    let code = ended.map_or(None, |code| code.unwrap());
    drop(write);
    (sent, code)
}
