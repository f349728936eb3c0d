// SPDX-License-Identifier: Apache-2.0
//! The workloads, by name: what the client speaks, which way a request takes, what is measured. A table and nothing
//! else; `mesh` and `plain` turn a way into configuration, `measure` turns an act into figures.

/// What the generator speaks with the first proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    Http1,
    Http2,
    /// Unary: one message of 100 bytes each way.
    Grpc,
    /// Both ways on one stream, a message answered by a message.
    GrpcStream,
}

/// The way from the client to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    OneHop,
    /// Client, proxy, mTLS, proxy, backend; between the proxies HTTP/1.1 or HTTP/2.
    Mesh {
        http2: bool,
    },
    /// One hop that ends the client's TLS.
    TlsEdge,
}

/// What is done along the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Requests over kept connections.
    Load,
    /// A connection for each request.
    Churn,
    /// Connections that asked once and then keep still.
    Idle,
    /// Requests while a route changes twenty times a second.
    Swap,
}

/// One workload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// What is counted.
    pub(crate) unit: &'static str,
    pub(crate) front: Front,
    pub(crate) way: Way,
    pub(crate) act: Act,
    pub(crate) connections: usize,
    pub(crate) streams: usize,
    pub(crate) path: &'static str,
    /// Requests per second of the open loop, where latency is measured.
    pub(crate) rate: Option<f64>,
    /// Route rules, of which the request meets the 901st if there are so many.
    pub(crate) routes: usize,
    /// Access log for each request and, where the peer can, spans for 5 % of them.
    pub(crate) observed: bool,
    /// System calls and, if asked for, instructions are counted.
    pub(crate) counted: bool,
}

/// The plainest workload: what others of our own figures are held against.
pub(crate) const SMALL: Workload = Workload {
    name: "h1-16",
    about: "small HTTP/1.1 requests, 256 bytes answered, 16 connections",
    unit: "request",
    front: Front::Http1,
    way: Way::OneHop,
    act: Act::Load,
    connections: 16,
    streams: 1,
    path: "/",
    rate: Some(4000.0),
    routes: 1,
    observed: false,
    counted: true,
};

pub(crate) const ROUTES: usize = 1000;

/// All of them, in the order they are run.
pub(crate) const WORKLOADS: [Workload; 14] = [
    SMALL,
    Workload {
        name: "h1-64",
        about: "small HTTP/1.1 requests, 64 connections",
        connections: 64,
        rate: None,
        counted: false,
        ..SMALL
    },
    Workload {
        name: "h2",
        about: "small requests, HTTP/2 from the client (4 connections of 8 streams), HTTP/1.1 to the backend",
        front: Front::Http2,
        connections: 4,
        streams: 8,
        counted: false,
        ..SMALL
    },
    Workload {
        name: "grpc",
        about: "gRPC unary, 100 bytes each way, 4 connections of 8 streams, HTTP/2 to the backend",
        front: Front::Grpc,
        connections: 4,
        streams: 8,
        path: "/bench.Echo/Say",
        ..SMALL
    },
    Workload {
        name: "grpc-stream",
        about: "gRPC streams of 1,000 messages both ways, message by message, 4 connections of 8 streams",
        unit: "message",
        front: Front::GrpcStream,
        connections: 4,
        streams: 8,
        path: "/bench.Echo/Talk",
        rate: None,
        counted: false,
        ..SMALL
    },
    Workload {
        name: "mesh-h1",
        about: "two proxies with mutual TLS 1.3 and HTTP/1.1 between them, 16 connections; CPU of both",
        way: Way::Mesh { http2: false },
        rate: Some(2000.0),
        ..SMALL
    },
    Workload {
        name: "mesh-h2",
        about: "two proxies with mutual TLS 1.3 and HTTP/2 between them, 16 connections; CPU of both",
        way: Way::Mesh { http2: true },
        rate: Some(2000.0),
        ..SMALL
    },
    Workload {
        name: "large",
        about: "answers of 1 MiB over HTTP/1.1, 4 connections",
        unit: "MiB",
        connections: 4,
        path: "/large",
        rate: None,
        counted: false,
        ..SMALL
    },
    Workload {
        name: "routes-1000",
        about: "small HTTP/1.1 requests under 1,000 prefix routes with a header condition each; the 901st matches",
        path: "/r0900/item",
        routes: ROUTES,
        rate: None,
        ..SMALL
    },
    Workload {
        name: "observed",
        about: "small HTTP/1.1 requests with an access log line each and, where the peer traces by itself, 5 % spans",
        observed: true,
        ..SMALL
    },
    Workload {
        name: "handshakes",
        about: "a full TLS 1.3 handshake (ECDSA P-256) and one request per connection, 16 at a time",
        unit: "handshake",
        way: Way::TlsEdge,
        act: Act::Churn,
        rate: None,
        counted: false,
        ..SMALL
    },
    Workload {
        name: "churn",
        about: "a connection per request, 16 at a time",
        unit: "connection",
        act: Act::Churn,
        rate: None,
        counted: false,
        ..SMALL
    },
    Workload {
        name: "idle-10000",
        about: "memory at rest, of 10,000 connections that asked once, and CPU with nothing to do",
        unit: "connection",
        act: Act::Idle,
        connections: 10_000,
        rate: None,
        counted: false,
        ..SMALL
    },
    Workload {
        name: "swaps",
        about: "small HTTP/1.1 requests, 16 connections, while a route's weights change 20 times a second",
        act: Act::Swap,
        rate: None,
        counted: false,
        ..SMALL
    },
];

impl Workload {
    pub(crate) fn named(name: &str) -> Option<Workload> {
        WORKLOADS.into_iter().find(|workload| workload.name == name)
    }

    /// Whether it is the plain one with something on top, whose price is looked for.
    pub(crate) fn adds_to_plain(&self) -> bool {
        self.routes > 1 || self.observed
    }

    pub(crate) fn is_grpc(&self) -> bool {
        matches!(self.front, Front::Grpc | Front::GrpcStream)
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.front != Front::Http1
    }
}
