// SPDX-License-Identifier: Apache-2.0
//! Compiled listeners and filter chains, and the pure choice of a chain by what is known of a connection. Envoy's order:
//! destination port, destination address, server name, transport, application protocol; at each step the most specific
//! condition that holds wins and the others are out.

use std::net::IpAddr;
use std::sync::Arc;

use foldhash::HashMap;
use pillion_xds::listener as xds;
use pillion_xds::listener::TransportProtocol;

use crate::access_log::Log;
use crate::metrics::HttpStats;
use crate::metrics::ListenerStats;
use crate::metrics::Metrics;
use crate::metrics::TcpStats;
use crate::route::RouteTable;
use crate::tls;
use crate::tls::Material;
use crate::tls::ServerTls;

/// A compiled listener.
#[derive(Debug)]
pub struct Listener {
    /// As configured.
    pub source: Arc<xds::Listener>,
    /// Counts.
    pub stats: Arc<ListenerStats>,
    chains: Vec<Arc<Chain>>,
    default: Option<Arc<Chain>>,
}

/// A compiled filter chain.
#[derive(Debug)]
pub struct Chain {
    /// Name for logs.
    pub name: Box<str>,
    /// When it is taken.
    pub matching: xds::FilterChainMatch,
    /// TLS terminated here.
    pub tls: Option<Arc<ServerTls>>,
    /// What is done with the bytes.
    pub filter: Filter,
}

/// What a chain does with bytes.
#[derive(Debug)]
pub enum Filter {
    /// HTTP, routed per request.
    Http(Http),
    /// Opaque bytes.
    Tcp(Tcp),
}

/// A compiled connection manager.
#[derive(Debug)]
pub struct Http {
    /// As configured.
    pub manager: xds::HttpConnectionManager,
    /// Its routes; `None` until they have come.
    pub table: Option<Arc<RouteTable>>,
    /// Access logs.
    pub logs: Vec<Arc<Log>>,
    /// Counts.
    pub stats: Arc<HttpStats>,
}

/// A compiled TCP proxy.
#[derive(Debug)]
pub struct Tcp {
    /// As configured.
    pub proxy: xds::TcpProxy,
    /// Access logs.
    pub logs: Vec<Arc<Log>>,
    /// Counts.
    pub stats: Arc<TcpStats>,
}

/// What is known of a connection before a chain is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// What the first bytes are; `None` where nobody looked.
    pub transport: Option<TransportProtocol>,
    /// SNI, lower case.
    pub server_name: Option<Box<str>>,
    /// ALPN offered, or what was sniffed.
    pub protocols: Vec<Box<str>>,
}

/// What listeners are compiled against.
pub(super) struct Room<'a> {
    pub(super) routes: &'a HashMap<String, Arc<RouteTable>>,
    pub(super) material: Material<'a>,
    pub(super) metrics: &'a Metrics,
}

impl Listener {
    pub(super) fn compile(
        source: &Arc<xds::Listener>,
        before: Option<&Listener>,
        room: &Room<'_>,
    ) -> Result<Listener, String> {
        let one = |chain: &xds::FilterChain, field: &str| {
            let kept =
                before.and_then(|before| before.chains().find(|kept| *kept.name == *chain.name));
            Chain::compile(chain, kept, room)
                .map(Arc::new)
                .map_err(|why| format!("{field}[{}].{why}", chain.name))
        };
        let chains = source
            .filter_chains
            .iter()
            .map(|chain| one(chain, "filter_chains"))
            .collect::<Result<_, String>>()?;
        let default = source
            .default_filter_chain
            .as_ref()
            .map(|chain| one(chain, "default_filter_chain"))
            .transpose()?;
        let stats = room.metrics.listener(source.address);
        Ok(Listener {
            source: Arc::clone(source),
            stats,
            chains,
            default,
        })
    }

    /// Whether every route table it names has come: before that it would answer 404 to what it is about to know.
    pub fn is_warm(&self) -> bool {
        self.chains().all(|chain| match &chain.filter {
            Filter::Http(http) => http.table.is_some(),
            Filter::Tcp(_) => true,
        })
    }

    /// Name.
    pub fn name(&self) -> &str {
        &self.source.name
    }

    /// All chains, the default one last.
    pub fn chains(&self) -> impl Iterator<Item = &Arc<Chain>> {
        self.chains.iter().chain(&self.default)
    }

    /// The chain for a connection to this destination that began so.
    pub fn choose(&self, ip: IpAddr, port: u16, hello: &Hello) -> Option<&Arc<Chain>> {
        let at_destination = by_destination(&self.chains, ip, port);
        let by_name = narrow(at_destination, |chain| {
            server_name_rank(&chain.matching.server_names, hello)
        });
        let by_transport = narrow(by_name, |chain| {
            match (chain.matching.transport, hello.transport) {
                (None, _) => Some(0),
                (Some(wanted), found) => {
                    (found.unwrap_or(TransportProtocol::RawBuffer) == wanted).then_some(1)
                }
            }
        });
        let by_protocol = narrow(by_transport, |chain| {
            let wanted = &chain.matching.application_protocols;
            if wanted.is_empty() {
                return Some(0);
            }
            let offered = |name: &String| hello.protocols.iter().any(|found| **found == **name);
            wanted.iter().any(offered).then_some(1)
        });
        by_protocol.first().copied().or(self.default.as_ref())
    }

    /// Whether the choice for this destination depends on the first bytes. Where it does not nobody waits for them,
    /// so that protocols in which the server speaks first pass.
    pub fn needs_hello(&self, ip: IpAddr, port: u16) -> bool {
        by_destination(&self.chains, ip, port).iter().any(|chain| {
            let matching = &chain.matching;
            !matching.server_names.is_empty()
                || matching.transport.is_some()
                || !matching.application_protocols.is_empty()
        })
    }
}

fn by_destination(chains: &[Arc<Chain>], ip: IpAddr, port: u16) -> Vec<&Arc<Chain>> {
    let by_port = narrow(chains.iter().collect(), |chain| {
        match chain.matching.destination_port {
            None => Some(0),
            Some(wanted) => (wanted == port).then_some(1),
        }
    });
    narrow(by_port, |chain| {
        let ranges = &chain.matching.prefix_ranges;
        if ranges.is_empty() {
            return Some(0);
        }
        let inside = ranges
            .iter()
            .filter(|(network, bits)| contains(*network, *bits, ip));
        inside.map(|(_, bits)| u32::from(*bits) + 1).max()
    })
}

/// Those that rank highest; `None` is out.
fn narrow(chains: Vec<&Arc<Chain>>, rank: impl Fn(&Chain) -> Option<u32>) -> Vec<&Arc<Chain>> {
    let ranked: Vec<(&Arc<Chain>, u32)> = chains
        .into_iter()
        .filter_map(|chain| Some((chain, rank(chain)?)))
        .collect();
    let best = ranked.iter().map(|(_, rank)| *rank).max();
    ranked
        .into_iter()
        .filter(|(_, rank)| Some(*rank) == best)
        .map(|(chain, _)| chain)
        .collect()
}

fn server_name_rank(wanted: &[String], hello: &Hello) -> Option<u32> {
    if wanted.is_empty() {
        return Some(0);
    }
    let name = hello.server_name.as_deref()?;
    let rank = |pattern: &String| match pattern.strip_prefix('*') {
        Some(suffix) => {
            (name.len() > suffix.len() && name.ends_with(suffix)).then_some(suffix.len())
        }
        None => (**pattern == *name).then_some(1000),
    };
    wanted
        .iter()
        .filter_map(rank)
        .max()
        .and_then(|rank| u32::try_from(rank + 1).ok())
}

fn contains(network: IpAddr, bits: u8, ip: IpAddr) -> bool {
    let same = |a: u128, b: u128, width: u32| {
        let shift = width.saturating_sub(u32::from(bits));
        shift >= 128 || (a >> shift) == (b >> shift)
    };
    match (network, ip.to_canonical()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            same(u128::from(a.to_bits()), u128::from(b.to_bits()), 32)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

impl Chain {
    fn compile(
        source: &xds::FilterChain,
        before: Option<&Arc<Chain>>,
        room: &Room<'_>,
    ) -> Result<Chain, String> {
        let tls = source
            .tls
            .as_ref()
            .map(|tls| server_tls(tls, before, room, &source.name))
            .transpose()?;
        let filter = match &source.filter {
            xds::NetworkFilter::Http(manager) => {
                Filter::Http(Http::compile(manager, before.map(Arc::as_ref), room)?)
            }
            xds::NetworkFilter::Tcp(proxy) => Filter::Tcp(Tcp {
                proxy: proxy.clone(),
                logs: logs(&proxy.access_logs)?,
                stats: room.metrics.tcp(&proxy.stat_prefix),
            }),
        };
        Ok(Chain {
            name: Box::from(source.name.as_str()),
            matching: source.matching.clone(),
            tls,
            filter,
        })
    }
}

fn server_tls(
    source: &xds::DownstreamTls,
    before: Option<&Arc<Chain>>,
    room: &Room<'_>,
    name: &str,
) -> Result<Arc<ServerTls>, String> {
    let before = before.and_then(|before| before.tls.as_ref());
    if let Some(kept) = before.filter(|kept| kept.is_current(source, room.material)) {
        return Ok(Arc::clone(kept));
    }
    let built = tls::server(source, room.material, before.map(Arc::as_ref));
    super::tell_refused(name, built.refused.as_ref(), room.metrics);
    match &built.config {
        Err(error) if !error.is_pending() => Err(format!("transport_socket: {error}")),
        _ => Ok(Arc::new(built)),
    }
}

impl Http {
    fn compile(
        manager: &xds::HttpConnectionManager,
        before: Option<&Chain>,
        room: &Room<'_>,
    ) -> Result<Http, String> {
        let table = match &manager.routes {
            // Until a table that is newly named has come, the one before it serves.
            xds::RouteSource::Rds(name) => {
                room.routes
                    .get(name)
                    .cloned()
                    .or_else(|| match &before?.filter {
                        Filter::Http(http) => http.table.clone(),
                        Filter::Tcp(_) => None,
                    })
            }
            xds::RouteSource::Inline(routes) => {
                let table = RouteTable::compile(Arc::new(routes.clone()))
                    .map_err(|refused| format!("route_config.{}", refused.why))?;
                Some(Arc::new(table))
            }
        };
        let stats = room.metrics.http(&manager.stat_prefix);
        Ok(Http {
            manager: manager.clone(),
            table,
            logs: logs(&manager.access_logs)?,
            stats,
        })
    }
}

fn logs(sources: &[xds::AccessLog]) -> Result<Vec<Arc<Log>>, String> {
    let compile = |source| {
        Log::compile(source)
            .map(Arc::new)
            .map_err(|why| format!("access_log: {why}"))
    };
    sources.iter().map(compile).collect()
}
