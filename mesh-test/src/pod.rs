// SPDX-License-Identifier: Apache-2.0
//! A network of its own for one case: the *pod*, in which the test, the control plane and the sidecar run, and the
//! *world* beyond a virtual cable, in which servers and strangers are. Both are network namespaces without a name: they
//! end with the last thread, process or file that holds them, so nothing is left behind however a case ends.

use std::fs::File;
use std::future::Future;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;

use anyhow::Context;
use anyhow::bail;
use nix::sched::CloneFlags;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

/// The pod's address.
pub const POD: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The world's address.
pub const WORLD: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Another of the world's addresses.
pub const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
/// The pod's IPv6 address.
pub const POD_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
/// The world's IPv6 address.
pub const WORLD_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);

/// The user that sidecars run as, App Mesh's.
pub const PROXY_UID: u32 = 1337;

/// A pod and its world.
#[derive(Clone)]
pub struct Pod {
    world: Arc<File>,
}

/// Runs a case inside a new pod, on a thread of its own.
pub fn in_pod<C, F>(case: C) -> anyhow::Result<()>
where
    C: FnOnce(Pod) -> F + Send + 'static,
    F: Future<Output = anyhow::Result<()>>,
{
    let thread = std::thread::spawn(move || {
        let pod = Pod::enter()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(case(pod))
    });
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl Pod {
    /// Takes this thread, and whatever it starts from now on, into a new pod.
    fn enter() -> anyhow::Result<Pod> {
        new_namespace()?;
        let world = std::thread::spawn(|| -> anyhow::Result<File> {
            new_namespace()?;
            File::open("/proc/thread-self/ns/net").context("open the world")
        });
        let world = world.join().expect("nothing in it panics")?;
        let pod = Pod {
            world: Arc::new(world),
        };
        let path = format!("/proc/{}/fd/{}", std::process::id(), pod.world.as_raw_fd());
        ip("link set lo up")?;
        ip(&format!(
            "link add cable type veth peer name cable netns {path}"
        ))?;
        plug(&[(POD.to_string(), 24)], POD_V6)?;
        pod.in_world(|| {
            ip("link set lo up")?;
            plug(
                &[(WORLD.to_string(), 24), (ELSEWHERE.to_string(), 24)],
                WORLD_V6,
            )
        })??;
        Ok(pod)
    }

    /// Runs something in the world; sockets made there stay there.
    pub fn in_world<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                nix::sched::setns(&*self.world, CloneFlags::CLONE_NEWNET)
                    .context("enter the world")?;
                Ok(work())
            });
            thread.join().expect("nothing in it panics")
        })
    }

    /// Listens in the world.
    pub fn listen(&self, at: impl Into<SocketAddr>) -> anyhow::Result<TcpListener> {
        let at = at.into();
        let listener = self.in_world(|| std::net::TcpListener::bind(at))?;
        let listener = listener.with_context(|| format!("listen on {at} in the world"))?;
        listener.set_nonblocking(true)?;
        Ok(TcpListener::from_std(listener)?)
    }

    /// Connects from the world, as a stranger does.
    pub fn connect(&self, to: impl Into<SocketAddr>) -> anyhow::Result<TcpStream> {
        let to = to.into();
        let stream = self.in_world(|| std::net::TcpStream::connect(to))?;
        let stream = stream.with_context(|| format!("connect to {to} from the world"))?;
        stream.set_nonblocking(true)?;
        Ok(TcpStream::from_std(stream)?)
    }
}

fn new_namespace() -> anyhow::Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNET).context(
        "make a network namespace: this test needs root (or CAP_SYS_ADMIN), and `apt-get install iptables iproute2`",
    )
}

fn plug(addresses: &[(String, u8)], v6: Ipv6Addr) -> anyhow::Result<()> {
    for (address, bits) in addresses {
        ip(&format!("addr add {address}/{bits} dev cable"))?;
    }
    ip(&format!("-6 addr add {v6}/64 dev cable nodad"))?;
    ip("link set cable up")
}

fn ip(words: &str) -> anyhow::Result<()> {
    tool("ip", &words.split(' ').collect::<Vec<_>>()).map(drop)
}

/// Runs a system program in the pod and returns what it printed.
pub fn tool(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| {
        format!("run {program}: if it is missing, `apt-get install iptables iproute2`")
    })?;
    if !output.status.success() {
        bail!(
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
