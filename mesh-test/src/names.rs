// SPDX-License-Identifier: Apache-2.0
//! A name server for one pod: every name has the addresses the case says, or fails as it says. Speaks as much DNS as a
//! stub resolver asks for.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use nix::sched::CloneFlags;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use crate::pod::tool;

const TTL_S: u32 = 1;
const HEADER: usize = 12;
const A: u16 = 1;
const AAAA: u16 = 28;
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;

/// What is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    /// These addresses, in this order.
    Addresses(Vec<IpAddr>),
    /// In turn: server failure, no such name, no data.
    Trouble,
}

struct State {
    reply: Mutex<Reply>,
    asked: AtomicU64,
}

/// The server; it ends with the value.
pub struct NameServer {
    state: Arc<State>,
    task: JoinHandle<()>,
    _resolv_conf: tempfile::NamedTempFile,
}

impl NameServer {
    /// Becomes the only name server of this pod: programs started from now on ask it. Must be called on the case's thread.
    pub async fn start(addresses: Vec<IpAddr>) -> anyhow::Result<NameServer> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(
            file.path(),
            "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
        )?;
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(file.path(), readable)?;
        // A view of the files of its own; it ends with this thread and its programs.
        nix::sched::unshare(CloneFlags::CLONE_NEWNS)?;
        tool("mount", &["--make-rprivate", "/"])?;
        let path = file.path().display().to_string();
        tool("mount", &["--bind", &path, "/etc/resolv.conf"])?;
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).await?;
        let state = Arc::new(State {
            reply: Mutex::new(Reply::Addresses(addresses)),
            asked: AtomicU64::new(0),
        });
        let task = tokio::spawn(serve(socket, Arc::clone(&state)));
        Ok(NameServer {
            state,
            task,
            _resolv_conf: file,
        })
    }

    /// Answers so from now on.
    pub fn reply(&self, reply: Reply) {
        *self.state.reply.lock().expect("nobody panics with it") = reply;
    }

    /// Questions so far.
    pub fn asked(&self) -> u64 {
        self.state.asked.load(Ordering::SeqCst)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: UdpSocket, state: Arc<State>) {
    let mut query = [0; 1500];
    while let Ok((number, peer)) = socket.recv_from(&mut query).await {
        let turn = state.asked.fetch_add(1, Ordering::SeqCst);
        let reply = state.reply.lock().expect("nobody panics with it").clone();
        if let Some(answer) = answer(&query[..number], &reply, turn) {
            // A resolver that has gone away does not wait.
            drop(socket.send_to(&answer, peer).await);
        }
    }
}

fn answer(query: &[u8], reply: &Reply, turn: u64) -> Option<Vec<u8>> {
    let name_end = HEADER + query.get(HEADER..)?.iter().position(|byte| *byte == 0)?;
    let question = query.get(HEADER..name_end + 5)?;
    let kind = u16::from_be_bytes([*query.get(name_end + 1)?, *query.get(name_end + 2)?]);
    let (code, addresses): (u8, &[IpAddr]) = match reply {
        Reply::Addresses(addresses) => (0, addresses),
        Reply::Trouble if turn.is_multiple_of(3) => (SERVFAIL, &[]),
        Reply::Trouble if turn % 3 == 1 => (NXDOMAIN, &[]),
        Reply::Trouble => (0, &[]),
    };
    let mut records = Vec::new();
    let mut number = 0_u16;
    for address in addresses {
        let (of, data) = match address {
            IpAddr::V4(v4) => (A, v4.octets().to_vec()),
            IpAddr::V6(v6) => (AAAA, v6.octets().to_vec()),
        };
        if of == kind {
            number += 1;
            // A pointer to the name asked for, type, class IN, time to live, length.
            records.extend([0xc0, 12]);
            records.extend(of.to_be_bytes());
            records.extend([0, 1]);
            records.extend(TTL_S.to_be_bytes());
            records.extend([0, u8::try_from(data.len()).ok()?]);
            records.extend(data);
        }
    }
    let mut answer = query.get(..2)?.to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1]);
    answer.extend(number.to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(question);
    answer.extend(records);
    Some(answer)
}
