// SPDX-License-Identifier: Apache-2.0
//! Several control planes on one PostgreSQL: any takes any write, all know it, one may be killed, and the database may
//! be away for a while.

use std::collections::BTreeSet;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::control_plane::BINARY;
use crate::control_plane::ControlPlane;
use crate::control_plane::command;
use crate::envoy::eventually;
use crate::postgres::Postgres;

/// A replica and where its log is.
pub(crate) fn replica(postgres: &Postgres) -> (ControlPlane, TempDir) {
    let folder = TempDir::new().expect("a folder for the log");
    let mut command = command(BINARY);
    command.args(["--store", &postgres.url()]);
    for name in ["--api-addr", "--xds-addr", "--admin-addr"] {
        command.args([name, "127.0.0.1:0"]);
    }
    (ControlPlane::spawn(command, folder.path()), folder)
}

fn node(name: &str) -> Value {
    json!({"virtualNodeName": name, "spec": {}})
}

fn names(control_plane: &ControlPlane) -> BTreeSet<String> {
    let list = control_plane.get("/meshes/shop/virtualNodes").ok();
    let items = list["virtualNodes"].as_array().expect("a list");
    items
        .iter()
        .map(|item| item["virtualNodeName"].as_str().expect("a name").to_owned())
        .collect()
}

#[test]
fn any_replica_takes_any_write_and_every_other_reads_it_at_once() {
    let postgres = Postgres::start();
    let replicas = [replica(&postgres), replica(&postgres), replica(&postgres)];
    let at = |index: usize| &replicas[index % 3].0;
    at(0).put("/meshes", &json!({"meshName": "shop"})).ok();
    for round in 0..12 {
        let (name, item) = (
            format!("n{round}"),
            format!("/meshes/shop/virtualNodes/n{round}"),
        );
        at(round)
            .put("/meshes/shop/virtualNodes", &node(&name))
            .ok();
        let read = at(round + 1).get(&item).ok();
        assert_eq!(read["metadata"]["version"], 1);
        at(round + 2).put(&item, &json!({"spec": {}})).ok();
        assert_eq!(at(round).get(&item).ok()["metadata"]["version"], 2);
    }
    // A name is taken everywhere the moment it is taken anywhere, and free again likewise.
    at(0).delete("/meshes/shop/virtualNodes/n0").ok();
    at(1).put("/meshes/shop/virtualNodes", &node("n0")).ok();
    at(2)
        .put("/meshes/shop/virtualNodes", &node("n0"))
        .refused(409, "ConflictException");

    std::thread::scope(|scope| {
        for (writer, (control_plane, _)) in replicas.iter().enumerate() {
            scope.spawn(move || {
                for number in 0..20 {
                    let name = format!("w{writer}-{number}");
                    control_plane
                        .put("/meshes/shop/virtualNodes", &node(&name))
                        .ok();
                }
            });
        }
    });
    let all = names(at(0));
    assert_eq!(all.len(), 12 + 60);
    assert_eq!((names(at(1)), names(at(2))), (all.clone(), all));
}

#[test]
fn a_join_token_of_one_replica_is_known_to_every_other() {
    let postgres = Postgres::start();
    let (one, _log) = replica(&postgres);
    let (other, _log) = replica(&postgres);
    one.put("/meshes", &json!({"meshName": "m"})).ok();
    one.put(
        "/meshes/m/virtualNodes",
        &json!({"virtualNodeName": "web", "spec": {}}),
    )
    .ok();
    let tokens = |control_plane: &ControlPlane| {
        let answer = crate::http::request(control_plane.api, "GET", "/pillion/v1/tokens", &[], b"");
        let list = answer.expect("an answer").ok()["tokens"]
            .as_array()
            .expect("a list")
            .clone();
        list.into_iter()
            .map(|token| token["id"].as_str().expect("an id").to_owned())
            .collect::<BTreeSet<String>>()
    };
    let arn = "arn:aws:appmesh:us-east-1:000000000000:mesh/m/virtualNode/web";
    // Both at once, over and over: none is lost to the other.
    let body = json!({"resourceArn": arn, "lifetimeSeconds": 600}).to_string();
    std::thread::scope(|scope| {
        for control_plane in [&one, &other] {
            let body = &body;
            scope.spawn(move || {
                for _ in 0..10 {
                    crate::http::request(
                        control_plane.api,
                        "POST",
                        "/pillion/v1/tokens",
                        &[],
                        body.as_bytes(),
                    )
                    .expect("an answer")
                    .ok();
                }
            });
        }
    });
    eventually("both know all tokens", || {
        (tokens(&one).len() == 20 && tokens(&one) == tokens(&other)).then_some(())
    });
}

#[test]
fn a_database_that_is_away_stops_writes_with_503_and_nothing_else() {
    let mut postgres = Postgres::start();
    let (one, _log) = replica(&postgres);
    let (other, _log) = replica(&postgres);
    one.put("/meshes", &json!({"meshName": "shop"})).ok();
    one.put("/meshes/shop/virtualNodes", &node("before")).ok();
    eventually("the other knows", || {
        (names(&other).len() == 1).then_some(())
    });

    postgres.stop();
    for control_plane in [&one, &other] {
        let began = Instant::now();
        assert_eq!(names(control_plane), ["before".to_owned()].into());
        let refused = control_plane.put("/meshes/shop/virtualNodes", &node("lost"));
        let message = refused.refused(503, "ServiceUnavailableException");
        assert!(
            message.contains("PostgreSQL cannot be reached"),
            "{message}"
        );
        assert_eq!(refused.header("retry-after"), Some("5"));
        let rest = control_plane.put("/meshes/shop/virtualNodes", &node("lost"));
        rest.refused(503, "ServiceUnavailableException");
        assert!(began.elapsed() < Duration::from_secs(2), "told at once");
        assert_eq!(control_plane.admin("/ready").status, 200);
    }
    postgres.resume();
    eventually("writes go on", || {
        let answer = one.put("/meshes/shop/virtualNodes", &node("after"));
        (answer.status == 200).then_some(())
    });
    let expected: BTreeSet<String> = ["after".to_owned(), "before".to_owned()].into();
    eventually("the other follows again", || {
        (names(&other) == expected).then_some(())
    });
    assert_eq!(names(&one), expected, "nothing was half written");
}

#[test]
fn a_server_that_does_not_let_us_in_is_named_with_the_remedy_and_no_password() {
    let postgres = Postgres::start();
    let role = "CREATE ROLE careful LOGIN PASSWORD 'right'; CREATE ROLE poor LOGIN";
    assert!(postgres.psql(role).status.success());
    let right = postgres.url_of("careful:right", "postgres");
    for (url, part) in [
        (
            postgres.url_of("careful:wrong", "postgres"),
            "refused the user or password",
        ),
        (postgres.url_of("pillion", "nowhere"), "createdb"),
        (
            postgres.url_of("poor", "postgres"),
            "GRANT CREATE ON DATABASE",
        ),
        // No server listens on port 1.
        (
            "postgres://pillion:wrong@127.0.0.1:1/db".to_owned(),
            "check that it runs",
        ),
        (right, "GRANT CREATE ON DATABASE"),
    ] {
        let mut command = command(BINARY);
        command.args(["--store", &url]);
        for name in ["--api-addr", "--xds-addr", "--admin-addr"] {
            command.args([name, "127.0.0.1:0"]);
        }
        let output = command.output().expect("the binary is built");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(part), "{part} in {error}");
        assert!(
            !error.contains("wrong") && !error.contains("right"),
            "{error}"
        );
    }
}
