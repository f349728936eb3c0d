// SPDX-License-Identifier: Apache-2.0
//! `pillion`: reads the command line, runs one verb, and turns its outcome into an exit code (0 well, 1 findings or
//! failure, 2 bad usage). Decides nothing else.

mod args;
mod client;
mod demo;
mod manifests;
mod mesh_api;
mod operate;
mod tether;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use crate::args::{Cli, Demo, Output, Verb};

fn main() -> ExitCode {
    let verb = Cli::parse().verb;
    if let Some(problem) = misused(&verb) {
        complain(&format!("error: {problem}"));
        return ExitCode::from(2);
    }
    match perform(verb) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            complain(&format!("error: {error:#}"));
            ExitCode::from(1)
        }
    }
}

fn misused(verb: &Verb) -> Option<String> {
    let Verb::Demo(Demo {
        length,
        output,
        rate,
        ..
    }) = verb
    else {
        return None;
    };
    if *output == Output::Json && length.is_none() {
        return Some(
            "--output json needs --for <time>: without an end there is no result to print".into(),
        );
    }
    if !(*rate > 0.0 && *rate <= 10_000.0) {
        return Some(format!(
            "--rate {rate}: must be above 0 and at most 10000 requests per second"
        ));
    }
    None
}

fn perform(verb: Verb) -> anyhow::Result<bool> {
    match verb {
        Verb::Demo(settings) => block_on(demo::run(settings)),
        Verb::DemoApp(settings) => block_on(demo::app::serve(settings)).map(|()| true),
        Verb::DemoTether(tether) => tether::become_program(&tether).map(|()| true),
        Verb::Validate(settings) => manifests::validate(&settings),
        Verb::Apply(settings) => block_on(async move { manifests::apply(&settings).await }),
        Verb::Explain(settings) => block_on(async move { operate::explain(&settings).await }),
        Verb::History(settings) => block_on(async move { operate::history(&settings).await }),
        Verb::Rollback(settings) => block_on(async move { operate::rollback(&settings).await }),
        Verb::Fleet(settings) => block_on(async move { operate::fleet(&settings).await }),
        Verb::Token(settings) => block_on(async move { operate::token(&settings).await }),
    }
}

/// One thread: the demo's children count the thread that started them as their parent, and this one lives longest.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.context("start the runtime")?.block_on(work)
}

/// Standard error may be closed by whoever reads us; there is then nobody left to tell.
fn complain(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}
