// SPDX-License-Identifier: Apache-2.0
//! What settings mean, and that all that is wrong with them is told at once.

use clap::Parser;

use super::node::Kind;
use super::*;

fn args(more: &[&str]) -> Args {
    let given = [
        "pillion-proxy",
        "--resource-arn",
        "mesh/m/virtualNode/web",
        "--xds-endpoint",
        "127.0.0.1:8701",
    ];
    Args::parse_from(given.iter().chain(more))
}

fn nothing(_: &str) -> Option<String> {
    None
}

fn config(more: &[&str]) -> Config {
    args(more).check(&nothing).expect("nothing is wrong")
}

fn problems(more: &[&str]) -> Vec<String> {
    let found = args(more).check(&nothing).expect_err("something is wrong");
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn defaults_are_app_meshs() {
    let config = config(&[]);
    assert_eq!(config.admin.to_string(), "127.0.0.1:9901");
    assert_eq!(config.agent.to_string(), "127.0.0.1:9902");
    assert_eq!(config.ingress.to_string(), "0.0.0.0:15000");
    assert_eq!(config.egress.to_string(), "0.0.0.0:15001");
    assert_eq!(config.drain_wait, Duration::from_secs(20));
    assert!((config.exporters.sampler.rate() - 0.05).abs() < f64::EPSILON);
    assert_eq!(config.service_name, "m/web");
    assert_eq!(config.server_header.as_deref(), Some("envoy"));
}

#[test]
fn every_spelling_of_a_resource_is_understood_and_kept_as_node_id() {
    for (id, mesh, name, kind) in [
        (
            "arn:aws:appmesh:us-east-1:000000000000:mesh/m/virtualNode/web",
            "m",
            "web",
            Kind::VirtualNode,
        ),
        (
            "arn:aws-cn:appmesh:cn-north-1:1:mesh/m@2/virtualGateway/edge",
            "m",
            "edge",
            Kind::VirtualGateway,
        ),
        (
            "mesh/m@123456789012/virtualNode/web",
            "m",
            "web",
            Kind::VirtualNode,
        ),
    ] {
        let node = Args {
            resource_arn: Some(id.to_owned()),
            ..args(&[])
        }
        .check(&nothing)
        .expect(id)
        .node;
        assert_eq!(
            (
                node.id.as_str(),
                node.mesh.as_str(),
                node.name.as_str(),
                node.kind
            ),
            (id, mesh, name, kind)
        );
        assert_eq!(node.cluster, id);
    }
}

#[test]
fn older_names_of_the_resource_still_count() {
    let env = |name: &str| {
        (name == "APPMESH_VIRTUAL_NODE_NAME").then(|| "mesh/m/virtualNode/old".to_owned())
    };
    let config = Args {
        resource_arn: None,
        ..args(&[])
    }
    .check(&env)
    .expect("found by its older name");
    assert_eq!(config.node.name, "old");
}

#[test]
fn all_problems_come_in_one_report_each_with_setting_value_and_way_out() {
    let bad = Args {
        resource_arn: Some("web".into()),
        xds_endpoint: None,
        admin_addr: Some("9901".into()),
        listen: vec!["8080".into()],
        workers: Some("0".into()),
        ..Args::default()
    };
    let found: Vec<String> = bad
        .check(&nothing)
        .expect_err("all wrong")
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(found.len(), 5, "{found:#?}");
    assert!(
        found[0].starts_with("APPMESH_RESOURCE_ARN=\"web\": names no virtual node"),
        "{found:#?}"
    );
    assert!(
        found[1].contains("APPMESH_XDS_ENDPOINT: is required"),
        "{found:#?}"
    );
    assert!(
        found[2].contains("--admin-addr=\"9901\"") && found[2].contains("ip:port"),
        "{found:#?}"
    );
}

#[test]
fn listen_takes_a_port_or_an_address_and_a_list() {
    let config = config(&[
        "--listen",
        "8080=127.0.0.1:9080,127.0.1.2:8081=127.0.0.1:9081",
    ]);
    assert_eq!(config.listen[0].bind.to_string(), "0.0.0.0:8080");
    assert_eq!(config.listen[1].bind.to_string(), "127.0.1.2:8081");
    assert_eq!(config.listen[1].app.to_string(), "127.0.0.1:9081");
}

#[test]
fn a_listen_that_would_forward_to_itself_is_refused() {
    assert!(problems(&["--listen", "8080=127.0.0.1:8080"])[0].contains("forwards to itself"));
}

#[test]
fn an_endpoint_without_scheme_is_plaintext_and_https_needs_roots() {
    assert_eq!(config(&[]).xds.uri, "http://127.0.0.1:8701");
    let tls = Args {
        xds_endpoint: Some("https://cp.internal:8701".into()),
        ..args(&[])
    };
    assert!(
        tls.check(&nothing).expect_err("no roots")[0]
            .why
            .contains("--xds-ca")
    );
    let unix = Args {
        xds_endpoint: Some("unix:///run/xds.sock".into()),
        ..args(&[])
    };
    assert_eq!(
        unix.check(&nothing).expect("a socket").xds.uri,
        "unix:///run/xds.sock"
    );
}

#[test]
fn an_empty_server_header_passes_upstreams_through() {
    let config = Args {
        server_header: Some(String::new()),
        ..args(&[])
    }
    .check(&nothing)
    .expect("fine");
    assert_eq!(config.server_header, None);
}

#[test]
fn variables_of_app_mesh_keep_their_meaning() {
    let env = |name: &str| {
        let value = match name {
            "ENVOY_LOG_LEVEL" => "warning",
            "ENVOY_CONCURRENCY" => "3",
            "ENVOY_ADMIN_ACCESS_PORT" => "9911",
            "XRAY_SAMPLING_RATE" => "1",
            "XRAY_SEGMENT_NAME" => "shop",
            "LISTENER_DRAIN_WAIT_TIME_S" => "7",
            "APPNET_AGENT_HTTP_PORT" => "9912",
            "APPMESH_RESOURCE_CLUSTER" => "c",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let config = args(&[]).check(&env).expect("all valid");
    assert_eq!((config.log_filter.as_str(), config.workers), ("warn", 3));
    assert_eq!((config.admin.port(), config.agent.port()), (9911, 9912));
    assert!((config.exporters.sampler.rate() - 1.0).abs() < f64::EPSILON);
    assert_eq!(
        (config.service_name.as_str(), config.node.cluster.as_str()),
        ("shop", "c")
    );
    assert_eq!(config.drain_wait, Duration::from_secs(7));
}

#[test]
fn a_rate_beyond_one_and_a_misspelt_level_are_told() {
    let env = |name: &str| match name {
        "XRAY_SAMPLING_RATE" => Some("5".to_owned()),
        "ENVOY_LOG_LEVEL" => Some("loud".to_owned()),
        _ => None,
    };
    let found = args(&[]).check(&env).expect_err("two are wrong");
    let settings: Vec<&str> = found.iter().map(|problem| problem.setting).collect();
    assert_eq!(settings, ["XRAY_SAMPLING_RATE", "ENVOY_LOG_LEVEL"]);
}

#[test]
fn a_tracer_that_is_not_here_is_answered_with_what_is() {
    let env = |name: &str| (name == "ENABLE_ENVOY_DATADOG_TRACING").then(|| "1".to_owned());
    let found = warnings(&env);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("ENABLE_ENVOY_DATADOG_TRACING=1") && found[0].contains("--collector"),
        "{found:?}"
    );
}
