// SPDX-License-Identifier: Apache-2.0
//! Which port of the demo is what, all counted from one base, and whether they are free. Pure but for the check.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use rand::Rng as _;

/// Every port lies in `base .. base + SPAN`.
const SPAN: u16 = 80;
/// Ranges for `--port-base 0` end below the kernel's own choice of client ports (32768).
const FREE_RANGES: std::ops::Range<u16> = 12_000..32_000;

/// The virtual nodes of the storefront, in the order of their ports.
pub(crate) const NODES: [&str; 5] = ["web", "catalog-v1", "catalog-v2", "cart", "payments"];
pub(crate) const GATEWAY: &str = "gateway";

#[derive(Debug, thiserror::Error)]
pub(crate) enum PortsError {
    #[error("--port-base {base}: must be 0 (find a free range) or 1024 to {}", u16::MAX - SPAN)]
    OutOfRange { base: u16 },
    #[error(
        "{}; stop whoever holds {}, or move the demo with --port-base <first port> (0 finds a free range)",
        .taken.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n       "),
        if .taken.len() == 1 { "it" } else { "them" }
    )]
    Taken { taken: Vec<Taken> },
    #[error("--port-base 0: found no free range of {SPAN} ports")]
    NoRange,
}

#[derive(Debug)]
pub(crate) struct Taken {
    port: u16,
    purpose: String,
    cause: io::Error,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            port,
            purpose,
            cause,
        } = self;
        if cause.kind() == io::ErrorKind::AddrInUse {
            write!(f, "port {port} ({purpose}) is taken")
        } else {
            write!(f, "port {port} ({purpose}) cannot be used: {cause}")
        }
    }
}

/// The demo's ports; the first thirteen are those of the design when the base is 8700.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    base: u16,
}

/// The ports of one proxy and of the application beside it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stand {
    /// The virtual node's or gateway's listener.
    pub(crate) listener: SocketAddr,
    pub(crate) app: SocketAddr,
    pub(crate) egress: SocketAddr,
    pub(crate) ingress: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) agent: SocketAddr,
}

impl Ports {
    /// Checks the range and that every port in it is free now.
    pub(crate) fn claim(base: u16) -> Result<Self, PortsError> {
        if base == 0 {
            return Self::find();
        }
        if !(1024..=u16::MAX - SPAN).contains(&base) {
            return Err(PortsError::OutOfRange { base });
        }
        let ports = Self { base };
        let taken = ports.taken();
        if taken.is_empty() {
            Ok(ports)
        } else {
            Err(PortsError::Taken { taken })
        }
    }

    fn find() -> Result<Self, PortsError> {
        for _ in 0..50 {
            let ports = Self {
                base: rand::rng().random_range(FREE_RANGES),
            };
            if ports.taken().is_empty() {
                return Ok(ports);
            }
        }
        Err(PortsError::NoRange)
    }

    fn at(self, offset: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.base + offset).into()
    }

    pub(crate) fn api(self) -> SocketAddr {
        self.at(0)
    }

    pub(crate) fn xds(self) -> SocketAddr {
        self.at(1)
    }

    pub(crate) fn control_admin(self) -> SocketAddr {
        self.at(2)
    }

    /// X-Ray API, map and dashboard.
    pub(crate) fn collector(self) -> SocketAddr {
        self.at(10)
    }

    pub(crate) fn collector_admin(self) -> SocketAddr {
        self.at(12)
    }

    pub(crate) fn otlp_grpc(self) -> SocketAddr {
        self.at(14)
    }

    pub(crate) fn otlp_http(self) -> SocketAddr {
        self.at(15)
    }

    /// The X-Ray daemon's port, UDP and TCP alike.
    pub(crate) fn xray(self) -> SocketAddr {
        self.at(16)
    }

    pub(crate) fn zipkin(self) -> SocketAddr {
        self.at(17)
    }

    pub(crate) fn gateway(self) -> Stand {
        self.stand(20)
    }

    /// The ports of the node at this place in [`NODES`].
    pub(crate) fn node(self, place: usize) -> Stand {
        self.stand(30 + 10 * u16::try_from(place).expect("there are five nodes"))
    }

    fn stand(self, offset: u16) -> Stand {
        Stand {
            listener: self.at(offset),
            app: self.at(offset + 1),
            egress: self.at(offset + 2),
            ingress: self.at(offset + 3),
            admin: self.at(offset + 4),
            agent: self.at(offset + 5),
        }
    }

    fn taken(self) -> Vec<Taken> {
        let xray = UdpSocket::bind(self.xray()).err().map(|cause| Taken {
            port: self.xray().port(),
            purpose: "collector, X-Ray segments by UDP".into(),
            cause,
        });
        let tcp = self
            .purposes()
            .into_iter()
            .filter_map(|(address, purpose)| {
                let cause = TcpListener::bind(address).err()?;
                Some(Taken {
                    port: address.port(),
                    purpose,
                    cause,
                })
            });
        xray.into_iter().chain(tcp).collect()
    }

    fn purposes(self) -> Vec<(SocketAddr, String)> {
        let mut all: Vec<(SocketAddr, String)> = [
            (self.api(), "control plane, mesh API"),
            (self.xds(), "control plane, xDS"),
            (self.control_admin(), "control plane, admin"),
            (self.collector(), "collector, X-Ray API and dashboard"),
            (self.collector_admin(), "collector, admin"),
            (self.otlp_grpc(), "collector, OTLP gRPC"),
            (self.otlp_http(), "collector, OTLP HTTP"),
            (self.xray(), "collector, X-Ray daemon by TCP"),
            (self.zipkin(), "collector, Zipkin"),
        ]
        .map(|(address, purpose)| (address, purpose.to_owned()))
        .into();
        let stands = NODES
            .iter()
            .enumerate()
            .map(|(place, name)| (*name, self.node(place)));
        for (name, stand) in std::iter::once((GATEWAY, self.gateway())).chain(stands) {
            let parts = [
                (stand.listener, "listener"),
                (stand.app, "application"),
                (stand.egress, "egress"),
                (stand.ingress, "ingress"),
                (stand.admin, "admin"),
                (stand.agent, "agent"),
            ];
            all.extend(parts.map(|(address, part)| (address, format!("{name}, {part}"))));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_port_serves_two_purposes_and_all_lie_in_the_range() {
        let purposes = Ports { base: 8700 }.purposes();
        let distinct: BTreeSet<_> = purposes.iter().map(|(address, _)| address.port()).collect();
        assert_eq!(distinct.len(), purposes.len());
        assert!(
            distinct
                .iter()
                .all(|port| (8700..8700 + SPAN).contains(port))
        );
    }

    #[test]
    fn the_default_base_gives_the_ports_of_the_design() {
        let ports = Ports { base: 8700 };
        let named = [
            ports.api(),
            ports.xds(),
            ports.control_admin(),
            ports.collector(),
            ports.collector_admin(),
        ];
        assert_eq!(
            named.map(|address| address.port()),
            [8700, 8701, 8702, 8710, 8712]
        );
    }

    #[test]
    fn a_taken_port_is_named_with_its_purpose_and_the_way_out() {
        let ports = Ports::claim(0).unwrap();
        let _held = TcpListener::bind(ports.collector()).unwrap();
        let text = Ports::claim(ports.base).unwrap_err().to_string();
        let port = ports.collector().port();
        assert!(
            text.contains(&format!(
                "port {port} (collector, X-Ray API and dashboard) is taken"
            )),
            "{text}"
        );
        assert!(text.contains("--port-base"), "{text}");
    }

    #[test]
    fn a_base_without_room_is_refused() {
        for base in [80, 65_500] {
            assert!(matches!(
                Ports::claim(base),
                Err(PortsError::OutOfRange { .. })
            ));
        }
    }
}
