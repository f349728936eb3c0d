// SPDX-License-Identifier: Apache-2.0
//! Where a cluster's endpoints come from, and that they are balanced as Pillion balances. Called by the cluster's
//! encode and decode.

use super::Discovery;
use crate::endpoint::ClusterLoadAssignment;
use crate::endpoint::Hosts;
use crate::field;
use crate::field::Checked;
use crate::field::Refusal;
use crate::field::Under;
use crate::field::refuse;
use crate::proto::cluster as proto;
use crate::proto::cluster::cluster::ClusterDiscoveryType;
use crate::proto::cluster::cluster::DiscoveryType;
use crate::proto::cluster::cluster::EdsClusterConfig;
use crate::proto::cluster::cluster::LbConfig;
use crate::proto::cluster::cluster::LbPolicy;

pub(super) fn encode(
    discovery: &Discovery,
) -> (
    DiscoveryType,
    Option<crate::proto::endpoint::ClusterLoadAssignment>,
    Option<EdsClusterConfig>,
) {
    match discovery {
        Discovery::Static(hosts) => (DiscoveryType::Static, Some(hosts.encode()), None),
        Discovery::StrictDns(hosts) => (DiscoveryType::StrictDns, Some(hosts.encode()), None),
        Discovery::LogicalDns(hosts) => (DiscoveryType::LogicalDns, Some(hosts.encode()), None),
        Discovery::Eds(name) => {
            let config = EdsClusterConfig {
                eds_config: Some(field::ads()),
                service_name: name.clone().unwrap_or_default(),
            };
            (DiscoveryType::Eds, None, Some(config))
        }
        Discovery::OriginalDestination => (DiscoveryType::OriginalDst, None, None),
    }
}

pub(super) fn check_balancing(
    policy: i32,
    config: Option<LbConfig>,
    common: Option<proto::cluster::CommonLbConfig>,
) -> Checked<()> {
    match field::named("lb_policy", policy)? {
        LbPolicy::RoundRobin | LbPolicy::ClusterProvided => {}
        other => {
            return Err(Refusal::new(
                "lb_policy",
                format_args!("{} is not supported; use ROUND_ROBIN", other.as_str_name()),
            ));
        }
    }
    match config {
        None => {}
        Some(LbConfig::RoundRobinLbConfig(config)) if config == Default::default() => {}
        Some(LbConfig::OriginalDstLbConfig(config)) if config == Default::default() => {}
        Some(_) => return Err(Refusal::unsupported("lb_config")),
    }
    let proto::cluster::CommonLbConfig {
        healthy_panic_threshold,
        update_merge_window: _, // how updates are gathered, not what they do
        ignore_new_hosts_until_first_hc,
        close_connections_on_host_set_change,
        consistent_hashing_lb_config,
        override_host_status,
        locality_config_specifier,
    } = common.unwrap_or_default();
    let check = || {
        refuse!(
            ignore_new_hosts_until_first_hc,
            close_connections_on_host_set_change,
            consistent_hashing_lb_config,
            override_host_status,
            locality_config_specifier,
        );
        match healthy_panic_threshold {
            Some(percent) if percent.value != 50.0 => Err(Refusal::new(
                "healthy_panic_threshold",
                format_args!("{} is not supported; only 50", percent.value),
            )),
            _ => Ok(()),
        }
    };
    check().under("common_lb_config")
}

pub(super) fn check(
    kind: Option<&ClusterDiscoveryType>,
    assignment: Option<&crate::proto::endpoint::ClusterLoadAssignment>,
    eds: Option<EdsClusterConfig>,
) -> Checked<Discovery> {
    let kind: DiscoveryType = match kind {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(kind)) => field::named("type", *kind)?,
        Some(ClusterDiscoveryType::ClusterType(_)) => {
            return Err(Refusal::unsupported("cluster_type"));
        }
    };
    if kind != DiscoveryType::Eds {
        field::unset("eds_cluster_config", &eds)?;
    }
    let hosts = |expected| {
        let assignment = field::required("load_assignment", assignment)?;
        ClusterLoadAssignment::check(assignment.clone(), expected).under("load_assignment")
    };
    match kind {
        DiscoveryType::Static => Ok(Discovery::Static(hosts(Hosts::Addresses)?)),
        DiscoveryType::StrictDns => Ok(Discovery::StrictDns(hosts(Hosts::Names)?)),
        DiscoveryType::LogicalDns => {
            let hosts = hosts(Hosts::Names)?;
            let number: usize = hosts.localities.iter().map(|l| l.endpoints.len()).sum();
            if number != 1 {
                let why = format_args!("has {number} endpoints; LOGICAL_DNS takes exactly one");
                return Err(Refusal::new("load_assignment", why));
            }
            Ok(Discovery::LogicalDns(hosts))
        }
        DiscoveryType::Eds => {
            field::unset("load_assignment", &assignment)?;
            let EdsClusterConfig {
                eds_config,
                service_name,
            } = field::required("eds_cluster_config", eds)?;
            field::from_ads("eds_config", eds_config).under("eds_cluster_config")?;
            Ok(Discovery::Eds(Some(service_name).filter(|n| !n.is_empty())))
        }
        DiscoveryType::OriginalDst => {
            field::unset("load_assignment", &assignment)?;
            Ok(Discovery::OriginalDestination)
        }
    }
}
