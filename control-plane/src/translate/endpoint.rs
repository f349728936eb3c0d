// SPDX-License-Identifier: Apache-2.0
//! Endpoints of clusters. Pure. Proxies resolve DNS themselves, so what is known here is names and literals; AWS Cloud
//! Map, whose instances the control plane would have to ask for, has no client yet and yields no endpoints.

use pillion_xds::cluster::Cluster;
use pillion_xds::cluster::Discovery;
use pillion_xds::endpoint::ClusterLoadAssignment;
use pillion_xds::endpoint::Endpoint;
use pillion_xds::endpoint::Health;
use pillion_xds::endpoint::Locality;

/// One endpoint of unknown place.
pub fn single(cluster: &str, host: &str, port: u16) -> ClusterLoadAssignment {
    let endpoint = Endpoint {
        host: host.to_owned(),
        port,
        health: Health::Healthy,
        weight: 1,
    };
    let locality = Locality {
        zone: String::new(),
        priority: 0,
        weight: None,
        endpoints: vec![endpoint],
    };
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        localities: vec![locality],
    }
}

/// No endpoint: requests are answered 503 `no healthy upstream`.
pub fn none(cluster: &str) -> ClusterLoadAssignment {
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        localities: Vec::new(),
    }
}

/// What EDS says of a cluster that asks by EDS.
pub fn of(cluster: &Cluster) -> Option<ClusterLoadAssignment> {
    match &cluster.discovery {
        Discovery::Eds(name) => Some(none(name.as_deref().unwrap_or(&cluster.name))),
        Discovery::Static(_)
        | Discovery::StrictDns(_)
        | Discovery::LogicalDns(_)
        | Discovery::OriginalDestination => None,
    }
}
