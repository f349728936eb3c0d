// SPDX-License-Identifier: Apache-2.0
//! Routes behind a virtual router: headers, weights, gRPC methods, retries by every event, timeouts by protocol.

use mesh_test::asking::Answer;
use mesh_test::scripted::Act;
use mesh_test::scripted::Speaks;
use tokio::io::AsyncReadExt;

use super::Walk;
use super::code;
use super::get;
use super::get2;
use super::grpc;
use super::has;
use super::late;
use super::status;

#[tokio::test]
async fn a_header_sends_a_request_to_another_color() -> anyhow::Result<()> {
    let apps = [("red", Speaks::Http1), ("blue", Speaks::Http1)];
    let walk = Walk::start("header-routing", &apps, &[]).await?;
    let (_sidecar, egress) = walk.client().await?;

    let color = async |headers: &[&str]| get(egress, "GET / colors.local", headers).await.body;
    assert_eq!(color(&["x-color: blue"]).await, "blue");
    assert_eq!(color(&["x-color: green"]).await, "red");
    assert_eq!(color(&[]).await, "red");
    Ok(())
}

#[tokio::test]
async fn http2_requests_split_by_weight() -> anyhow::Result<()> {
    let apps = [("red", Speaks::Http2), ("blue", Speaks::Http2)];
    let walk = Walk::start("http2-weights", &apps, &[]).await?;
    let (_sidecar, egress) = walk.client().await?;

    let asked = (0..200).map(|_| get(egress, "GET / colors.local", &["connection: close"]));
    let answers = futures_util::future::join_all(asked).await;

    let of = |color: &str| answers.iter().filter(|answer| answer.body == color).count();
    assert_eq!(of("red") + of("blue"), 200, "every request is answered");
    // Five standard deviations on either side of 150.
    let red = of("red");
    assert!(
        (120..=180).contains(&red),
        "three of four are red, not {red} of 200"
    );
    Ok(())
}

#[tokio::test]
async fn grpc_calls_follow_method_and_metadata() -> anyhow::Result<()> {
    let apps = [("red", Speaks::Http2), ("blue", Speaks::Http2)];
    let walk = Walk::start("grpc-methods", &apps, &[]).await?;
    let (_sidecar, egress) = walk.client().await?;

    let call = async |path: &str, headers: &[&str]| {
        grpc(egress, &format!("{path} colors.local"), headers).await
    };
    assert_eq!(call("/color.Colors/Set", &[]).await.body, "blue");
    assert_eq!(
        call("/color.Colors/Get", &["x-vip: yes"]).await.body,
        "blue"
    );
    assert_eq!(call("/color.Colors/Get", &[]).await.body, "red");
    let unknown = call("/color.Other/Get", &[]).await;
    assert!(has(&unknown, "grpc-status: 12"), "{unknown:?}");
    Ok(())
}

#[tokio::test]
async fn a_flaky_application_is_asked_as_often_as_its_route_says() -> anyhow::Result<()> {
    let walk = Walk::start("http-retries", &[("flaky", Speaks::Http1)], &[]).await?;
    walk.book.script(
        "better",
        &[status(500), status(503), status(502), status(200)],
    );
    walk.book.script("worse", &[status(500)]);
    let (_sidecar, egress) = walk.client().await?;

    let better = get(egress, "GET / flaky.local", &["x-case: better"]).await;
    let worse = get(egress, "GET / flaky.local", &["x-case: worse"]).await;

    assert_eq!((code(&better), walk.tries("better")), ("200", 4));
    assert_eq!((code(&worse), walk.tries("worse")), ("500", 5));
    Ok(())
}

/// Path, what the application does first, and how often it is asked until it answers 200 or the tries are used up.
const EVENTS: [(&str, u16, usize, &str); 10] = [
    ("/server-error", 500, 2, "200"),
    ("/server-error", 504, 2, "200"),
    ("/gateway-error", 502, 2, "200"),
    ("/gateway-error", 500, 1, "500"),
    ("/client-error", 409, 2, "200"),
    ("/client-error", 404, 1, "404"),
    ("/stream-error", 503, 1, "503"),
    ("/never", 503, 1, "503"),
    ("/", 503, 2, "200"),
    ("/", 500, 1, "500"),
];

#[tokio::test]
async fn each_retry_event_tries_what_it_names_and_nothing_else() -> anyhow::Result<()> {
    let apps = [("flaky", Speaks::Http1), ("calls", Speaks::Http2)];
    let walk = Walk::start("retry-events", &apps, &[]).await?;
    let (_sidecar, egress) = walk.client().await?;

    for (path, first, tries, last) in EVENTS {
        let case = format!("{path}{first}");
        walk.book.script(&case, &[status(first), status(200)]);
        let line = format!("GET {path} flaky.local");
        let answer = get(egress, &line, &[&format!("x-case: {case}")]).await;
        assert_eq!((code(&answer), walk.tries(&case)), (last, tries), "{case}");
    }
    walk.book.script("slow", &[late(5000), status(200)]);
    let slow = get(egress, "GET /server-error flaky.local", &["x-case: slow"]).await;
    assert_eq!(
        (code(&slow), walk.tries("slow")),
        ("200", 2),
        "perRetryTimeout ends the first try"
    );
    for event in [1, 4, 8, 13, 14] {
        let case = format!("grpc{event}");
        walk.book.script(&case, &[grpc_status(event), status(200)]);
        let header = format!("x-case: {case}");
        let answer = grpc(egress, "/color.Colors/Get calls.local", &[&header]).await;
        assert_eq!((code(&answer), walk.tries(&case)), ("200", 2), "{case}");
    }
    walk.book.script("grpc5", &[grpc_status(5), status(200)]);
    grpc(egress, "/color.Colors/Get calls.local", &["x-case: grpc5"]).await;
    assert_eq!(walk.tries("grpc5"), 1, "NOT_FOUND is no event");
    Ok(())
}

/// An answer that is only a status, as servers send it when they fail at once.
fn grpc_status(number: u8) -> Act {
    Act {
        headers: vec![
            "content-type: application/grpc".to_owned(),
            format!("grpc-status: {number}"),
        ],
        body: Some(String::new()),
        ..Act::default()
    }
}

#[tokio::test]
async fn timeouts_end_slow_answers_of_every_protocol() -> anyhow::Result<()> {
    let apps = [
        ("slow", Speaks::Http1),
        ("slow2", Speaks::Http2),
        ("slowgrpc", Speaks::Http2),
    ];
    let walk = Walk::prepare(&apps, &[]).await?;
    let still = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let walk = walk.with("still", still.local_addr()?.port());
    walk.step("timeouts").await?;
    walk.book.script("late", &[late(900)]);
    let (_sidecar, egress) = walk.client().await?;
    let case = ["x-case: late"];

    let ended = |answer: &Answer| (code(answer).to_owned(), answer.body.clone());
    let timed_out = ("504".to_owned(), "upstream request timeout".to_owned());
    let route = get(egress, "GET / slow.local", &case).await;
    assert_eq!(ended(&route), timed_out, "an http route's");
    let http2 = get2(egress, "GET / slow2.local", &case).await;
    assert_eq!(ended(&http2), timed_out, "an http2 route's");
    let node = get(egress, "GET / direct.local", &case).await;
    assert_eq!(
        ended(&node),
        timed_out,
        "the node's, where no route stands before it"
    );
    let call = grpc(egress, "/color.Colors/Get slowgrpc.local", &case).await;
    assert!(has(&call, "grpc-status: 14"), "a grpc route's: {call:?}");
    let unlimited = get(egress, "GET /unlimited slow.local", &case).await;
    assert_eq!(code(&unlimited), "200", "0 is no limit");
    assert_eq!(code(&get(egress, "GET / slow.local", &[]).await), "200");

    let mut idle = mesh_test::raw::connect(
        egress,
        &format!("still.local:{}", still.local_addr()?.port()),
    )
    .await?;
    let (_held, _) = still.accept().await?;
    let ended = tokio::time::timeout(super::SOON, idle.read(&mut [0; 1])).await?;
    assert!(
        !matches!(ended, Ok(1..)),
        "an idle TCP connection ends without a byte"
    );
    Ok(())
}
