// SPDX-License-Identifier: Apache-2.0
//! `kill -9` at random moments under writes, over and over on one store: every acknowledged write is there, whole, and
//! of a write that was not acknowledged there is all or nothing. `PILLION_KILLS=1000` has more of it.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::control_plane::BINARY;
use crate::control_plane::ControlPlane;
use crate::control_plane::command;
use crate::control_plane::signal;
use crate::http::request;
use crate::postgres::Postgres;

const KILLS: usize = 8;
const WRITERS: usize = 2;
/// Pairs that come and go; the store stays small however often it is killed.
const PAIRS: usize = 20;

fn kills() -> usize {
    let wanted = std::env::var("PILLION_KILLS").ok();
    wanted.map_or(KILLS, |text| {
        text.parse().expect("PILLION_KILLS is a number")
    })
}

fn program(store: &str) -> Command {
    let mut command = command(BINARY);
    command.args(["--store", store]);
    for name in ["--api-addr", "--xds-addr", "--admin-addr"] {
        command.args([name, "127.0.0.1:0"]);
    }
    command
}

/// Two nodes that are written together, each with the number of the write.
fn pair(pair: usize, number: usize) -> Value {
    let node = |half: &str| {
        json!({"meshName": "m", "virtualNodeName": format!("p{pair:03}-{half}"), "spec": {
            "backends": [{"virtualService": {"virtualServiceName": format!("s{number}.local")}}]
        }})
    };
    json!([node("a"), node("b")])
}

/// The number each pair holds; panics where the halves differ.
fn stands(control_plane: &ControlPlane) -> BTreeMap<usize, usize> {
    let number = |name: String| {
        let answer = control_plane.get(&format!("/meshes/m/virtualNodes/{name}"));
        (answer.status == 200).then(|| {
            let service =
                &answer.json()["spec"]["backends"][0]["virtualService"]["virtualServiceName"];
            let digits = service
                .as_str()
                .expect("a name")
                .trim_matches(|c: char| !c.is_ascii_digit());
            digits.parse::<usize>().expect("the number of the write")
        })
    };
    (0..PAIRS)
        .filter_map(|pair| {
            let halves = (
                number(format!("p{pair:03}-a")),
                number(format!("p{pair:03}-b")),
            );
            assert_eq!(halves.0, halves.1, "pair {pair} was written by halves");
            halves.0.map(|number| (pair, number))
        })
        .collect()
}

fn survives(store: &str) {
    let folder = TempDir::new().expect("a folder for the log");
    let start = || ControlPlane::spawn(program(store), folder.path());
    start().put("/meshes", &json!({"meshName": "m"})).ok();
    // Of each pair, the last write that is known to stand and the last that was sent.
    let book: Mutex<BTreeMap<usize, (usize, usize)>> = Mutex::default();
    let mut next = 1;
    for round in 0..=kills() {
        let control_plane = start();
        let standing = stands(&control_plane);
        for (pair, (known, sent)) in book.lock().expect("no panic").iter_mut() {
            let found = standing.get(pair).copied().unwrap_or(0);
            assert!(
                found == *known || found == *sent,
                "round {round}, pair {pair}: {found} stands, {known} was acknowledged, {sent} was sent"
            );
            (*known, *sent) = (found, found);
        }
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (book, api) = (&book, control_plane.api);
                scope.spawn(move || {
                    for at in (writer..).step_by(WRITERS) {
                        let (of, number) = (at % PAIRS, next + at);
                        let last = book
                            .lock()
                            .expect("no panic")
                            .get(&of)
                            .map_or(0, |kept| kept.0);
                        book.lock().expect("no panic").insert(of, (last, number));
                        let body = pair(of, number).to_string();
                        match request(api, "POST", "/pillion/v1/apply", &[], body.as_bytes()) {
                            Ok(answer) if answer.status == 200 => {
                                book.lock().expect("no panic").insert(of, (number, number));
                            }
                            _ => return,
                        }
                    }
                });
            }
            std::thread::sleep(Duration::from_micros(rand_micros(round)));
            signal(&control_plane.pid(), "-KILL");
        });
        let book = book.lock().expect("no panic");
        next = book.values().map(|kept| kept.1 + 1).max().unwrap_or(next);
    }
}

/// Between 5 and 105 ms, spread by a multiplicative hash so that no two runs need the same clock.
fn rand_micros(round: usize) -> u64 {
    let seed = u64::from(std::process::id()) + round as u64;
    5_000 + seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 100_000
}

#[test]
fn a_file_keeps_what_was_acknowledged_whenever_the_process_is_killed() {
    let folder = TempDir::new().expect("a folder");
    survives(&format!(
        "sqlite:{}",
        folder.path().join("pillion.db").display()
    ));
}

#[test]
fn a_database_keeps_what_was_acknowledged_whenever_the_process_is_killed() {
    survives(&Postgres::start().url());
}
