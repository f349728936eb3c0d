// SPDX-License-Identifier: Apache-2.0
//! The demo as a new user runs it, headless: it must find its own map true, and so must we.

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::Context;
use mesh_test::program::built;
use serde_json::Value;
use tokio::process::Command;

#[tokio::test]
async fn the_demo_runs_headless_and_its_map_is_what_the_traffic_was() -> anyhow::Result<()> {
    let output = Command::new(built("pillion")?)
        .args([
            "demo",
            "--for",
            "8s",
            "--rate",
            "25",
            "--port-base",
            "21700",
            "--output",
            "json",
        ])
        .stdin(Stdio::null())
        .output()
        .await?;
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{log}", output.status);
    let report: Value =
        serde_json::from_slice(&output.stdout).context("one JSON object on stdout")?;

    let requests = report["requests"].as_u64().context("requests")?;
    assert!(requests > 100, "{report}");
    assert_eq!(report["failures"], 0, "{report}");
    let mut totals: BTreeMap<String, u64> = BTreeMap::new();
    let mut faults: BTreeMap<String, u64> = BTreeMap::new();
    for edge in report["edges"].as_array().context("edges")? {
        let name = format!(
            "{}>{}",
            edge["source"].as_str().unwrap_or("?"),
            edge["target"].as_str().unwrap_or("?")
        );
        totals.insert(name.clone(), edge["total"].as_u64().context("total")?);
        faults.insert(name, edge["fault"].as_u64().context("fault")?);
    }
    for edge in ["client>gateway", "gateway>web", "web>cart", "web>payments"] {
        assert_eq!(totals.get(edge), Some(&requests), "{edge} in {report}");
    }
    let catalog = totals.get("web>catalog-v1").copied().unwrap_or(0)
        + totals.get("web>catalog-v2").copied().unwrap_or(0);
    assert_eq!(catalog, requests, "{report}");
    let faulty: Vec<&String> = faults
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(edge, _)| edge)
        .collect();
    assert_eq!(faulty, ["web>payments"], "{report}");
    Ok(())
}
