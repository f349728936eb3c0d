// SPDX-License-Identifier: Apache-2.0
//! `pillion demo`: the one place that wires the storefront together. Starts every process, describes the mesh through
//! the mesh API, lets traffic run, and holds the map against it.

pub(crate) mod app;
mod child;
mod load;
mod map;
mod pool;
mod ports;
mod programs;
mod screen;
mod segment;
mod stage;
mod storefront;
mod verdict;

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Demo, Output};
use crate::demo::child::Family;
use crate::demo::ports::Ports;
use crate::demo::programs::Programs;
use crate::demo::screen::Screen;
use crate::demo::stage::Stagehand;
use crate::demo::verdict::{Beginning, Report};

/// How long a child may drain before it is killed.
const PATIENCE: Duration = Duration::from_secs(8);

/// True when all went well: until Ctrl-C, or with a map that is what the traffic was.
pub(crate) async fn run(settings: Demo) -> anyhow::Result<bool> {
    let ports = Ports::claim(settings.port_base)?;
    let programs = Programs::find()?;
    let scratch = match &settings.data_dir {
        Some(_) => None,
        None => Some(
            tempfile::Builder::new()
                .prefix("pillion-demo-")
                .tempdir()
                .context("make a temporary folder")?,
        ),
    };
    let data = settings
        .data_dir
        .clone()
        .or_else(|| Some(scratch.as_ref()?.path().to_owned()));
    let data = std::path::absolute(data.context("no folder for data")?)?;
    let logs = data.join("logs");
    std::fs::create_dir_all(&logs)
        .with_context(|| format!("make the folder {}", logs.display()))?;

    let (family, mut deaths) = Family::new(programs.own().to_owned(), logs);
    let mut stagehand = Stagehand {
        family,
        programs,
        ports,
        data,
        screen: Screen::new(settings.output),
    };
    let outcome = tokio::select! {
        outcome = perform(&mut stagehand, &settings) => outcome.map(Some),
        Some(death) = deaths.recv() => Err(death.into()),
        () = told_to_stop() => Ok(None),
    };
    let Stagehand { family, screen, .. } = stagehand;
    screen.step("stopping every process");
    tokio::select! {
        () = family.stop(PATIENCE) => {}
        // A second Ctrl-C: whoever is left is killed when the family is dropped.
        () = told_to_stop() => {}
    }
    screen.clear();
    match outcome? {
        Some(report) => conclude(&report, &settings, &screen),
        None if settings.length.is_none() => Ok(true),
        None => bail!("stopped before the time of --for was over"),
    }
}

/// Without `--for` this never returns.
async fn perform(stagehand: &mut Stagehand, settings: &Demo) -> anyhow::Result<Report> {
    stagehand.start_backstage().await?;
    stagehand.describe_mesh().await?;
    stagehand.start_storefront().await?;
    stagehand.screen.welcome(stagehand.ports)?;
    loop {
        let began = Beginning::now(stagehand.ports).await?;
        let measured = stagehand
            .drive_traffic(settings.rate, settings.length)
            .await?;
        if settings.length.is_some() {
            return verdict::settle(stagehand.ports, &stagehand.screen, measured, &began).await;
        }
        // The generator ends after a day at the most; the demo does not.
    }
}

fn conclude(report: &Report, settings: &Demo, screen: &Screen) -> anyhow::Result<bool> {
    match settings.output {
        Output::Json => writeln!(std::io::stdout(), "{}", serde_json::to_string(report)?)?,
        Output::Text => {
            screen.table(&report.edges)?;
            screen.print(&report.sentence())?;
        }
    }
    for difference in &report.differences {
        screen.note(&format!(
            "the map is not what the traffic was: {difference}"
        ));
    }
    Ok(report.differences.is_empty())
}

async fn told_to_stop() {
    let any = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = any(SignalKind::interrupt()) => {}
        () = any(SignalKind::terminate()) => {}
        () = any(SignalKind::hangup()) => {}
    }
}
