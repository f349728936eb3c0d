// SPDX-License-Identifier: Apache-2.0
//! Thresholds, one rule per test.

use pillion_xds::cluster as xds;

use super::*;
use crate::metrics::Metrics;

fn cluster() -> Cluster {
    let config = xds::Cluster {
        name: "c".to_owned(),
        discovery: xds::Discovery::OriginalDestination,
        connect_timeout: Duration::from_secs(1),
        protocol: xds::UpstreamProtocol::Http1,
        tls: None,
        limits: xds::CircuitBreakers::default(),
        outlier_detection: None,
        health_checks: Vec::new(),
        dns_family: xds::DnsFamily::Auto,
        idle_timeout: None,
        labels: Vec::new(),
    };
    Cluster::new(
        Arc::new(config),
        None,
        None,
        None,
        &Metrics::new(1, Vec::new()),
    )
}

/// Whether the endpoint is in after each of these answers, beginning out.
fn after(answers: &[bool]) -> Vec<bool> {
    let second = Duration::from_secs(1);
    let check = HealthCheck {
        probe: Probe::Tcp,
        interval: second,
        timeout: second,
        healthy_threshold: 2,
        unhealthy_threshold: 3,
    };
    let (cluster, mut row) = (cluster(), Row::default());
    let endpoint = Endpoint::at(([127, 0, 0, 1], 1).into(), "");
    endpoint.set_unhealthy(true);
    answers
        .iter()
        .map(|passed| {
            settle(&cluster, &endpoint, &mut row, *passed, &check);
            !endpoint.is_unhealthy()
        })
        .collect()
}

#[test]
fn the_first_pass_brings_an_endpoint_in_at_once() {
    assert_eq!(after(&[true]), [true]);
}

#[test]
fn only_failures_in_a_row_take_an_endpoint_out() {
    assert_eq!(
        after(&[true, false, false, true, false, false, false]),
        [true, true, true, true, true, true, false]
    );
}

#[test]
fn passes_in_a_row_bring_it_back() {
    let answers = [true, false, false, false, true, false, true, true];
    assert_eq!(
        after(&answers),
        [true, true, true, false, false, false, false, true]
    );
}

#[test]
fn an_endpoint_that_never_passes_stays_out() {
    assert_eq!(after(&[false, false]), [false, false]);
}
