// SPDX-License-Identifier: Apache-2.0
//! What the built proxy says of its settings, before it does anything.

use crate::xds_proxy::Proxy;
use crate::xds_proxy::command;
use crate::xds_server::Ads;

#[tokio::test]
async fn every_problem_is_told_at_once_and_the_exit_code_is_2() {
    let output = command("nowhere", &["--listen", "8080"])
        .env("XRAY_SAMPLING_RATE", "7")
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    for part in [
        "APPMESH_XDS_ENDPOINT=\"nowhere\"",
        "--listen=\"8080\"",
        "XRAY_SAMPLING_RATE=\"7\"",
        "--help",
    ] {
        assert!(told.contains(part), "{part} in\n{told}");
    }
    assert!(output.stdout.is_empty());
}

#[tokio::test]
async fn help_names_flags_variables_and_defaults() {
    let output = command("127.0.0.1:1", &["--help"]).output().await.unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for part in [
        "--admin-addr",
        "PILLION_ADMIN_ADDR",
        "127.0.0.1:9901",
        "APPMESH_RESOURCE_ARN",
        "LISTENER_DRAIN_WAIT_TIME_S",
    ] {
        assert!(help.contains(part), "{part} in\n{help}");
    }
}

#[tokio::test]
async fn check_shows_what_holds_and_stops() {
    let output = command("127.0.0.1:8701", &["--check"])
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["node"]["id"], "mesh/m/virtualNode/web");
    assert_eq!(shown["xds"], "http://127.0.0.1:8701");
}

#[tokio::test]
async fn a_taken_port_fails_with_the_setting_and_the_way_out() {
    let ads = Ads::start().await;
    let taken = ads.addr.to_string();
    let output = command(&taken, &["--agent-addr", &taken])
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("--agent-addr") && told.contains("port 0"),
        "{told}"
    );
}

#[tokio::test]
async fn an_admin_port_for_strangers_needs_insistence() {
    let output = command("127.0.0.1:1", &["--admin-addr", "0.0.0.0:0"])
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("--admin-addr") && told.contains("--insecure"),
        "{told}"
    );
    let mut insisting = command("127.0.0.1:1", &["--admin-addr", "0.0.0.0:0"]);
    insisting.env("PILLION_INSECURE", "true");
    Proxy::spawn(insisting).await;
}

#[tokio::test]
async fn a_tracer_that_is_not_here_is_a_warning_that_names_what_is() {
    let mut with_datadog = command("127.0.0.1:1", &[]);
    with_datadog.env("ENABLE_ENVOY_DATADOG_TRACING", "1");
    let proxy = Proxy::spawn(with_datadog).await;
    crate::plane::eventually("it warns", || async {
        proxy.log().contains("ENABLE_ENVOY_DATADOG_TRACING=1")
            && proxy.log().contains("--collector")
    })
    .await;
}
