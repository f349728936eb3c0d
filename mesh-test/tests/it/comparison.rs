// SPDX-License-Identifier: Apache-2.0
//! `pillion-loadtest compare` starts what it measures and comes back with figures. Which figures is nothing a test can say
//! on a machine it shares.

use anyhow::Context;
use mesh_test::program::built;
use serde_json::Value;
use tokio::process::Command;

#[tokio::test]
async fn a_comparison_starts_everything_itself_and_comes_back_with_figures() -> anyhow::Result<()> {
    let page = tempfile::NamedTempFile::new()?;
    let output = Command::new(built("pillion-loadtest")?)
        .args([
            "compare",
            "--workload",
            "h1-16",
            "--peers",
            "pillion",
            "--quick",
        ])
        .args(["--output", "json", "--report"])
        .arg(page.path())
        .kill_on_drop(true)
        .output()
        .await?;

    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{complaints}");
    let report: Value = serde_json::from_slice(&output.stdout).context("a report")?;
    let peer = &report["workloads"][0]["peers"][0];
    assert_eq!(peer["peer"], "pillion");
    let sample = |metric: &str| peer["samples"][metric][0].as_f64();
    for metric in ["cpu", "throughput", "open_cpu"] {
        assert!(
            sample(metric).is_some_and(|value| value > 0.0),
            "{metric} in {peer}"
        );
    }
    assert_eq!(sample("failed"), Some(0.0), "{complaints}");
    let page = std::fs::read_to_string(page.path())?;
    assert!(
        page.contains("<svg") && !page.contains("http://"),
        "a page with plots that loads nothing"
    );
    Ok(())
}
