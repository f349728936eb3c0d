// SPDX-License-Identifier: Apache-2.0
//! Insights over replayed hours, read by boto3, told to a webhook.

use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;

use serde_json::Value;
use serde_json::json;

use crate::clients::run;
use crate::collector::Collector;
use crate::collector::eventually;

/// Takes every POST; its address, and the bodies as they come.
pub(crate) fn sink() -> (String, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}/hook", listener.local_addr().expect("an address"));
    let (sender, bodies) = mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut bytes = Vec::new();
            let mut part = [0; 4096];
            let body = loop {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                if let Some((_, body)) = text.split_once("\r\n\r\n")
                    && let Ok(body) = serde_json::from_str::<Value>(body)
                {
                    break body;
                }
                match stream.read(&mut part) {
                    Ok(0) | Err(_) => break Value::Null,
                    Ok(length) => bytes.extend_from_slice(&part[..length]),
                }
            };
            let answered =
                stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
            if answered.is_err() || sender.send(body).is_err() {
                break;
            }
        }
    });
    (address, bodies)
}

#[test]
fn boto3_finds_a_fault_anomaly_of_replayed_hours_and_the_webhook_is_told() {
    let (address, bodies) = sink();
    let collector = Collector::start_with(&["--insight-webhook", &address]);
    run(
        "boto3_insights.py",
        &[format!("http://{}", collector.addr("api"))],
    );
    let closed = eventually("the webhook is told of the end", || {
        bodies
            .try_iter()
            .find(|body| body["detail"]["State"] == "CLOSED")
    });
    assert_eq!(
        (
            &closed["source"],
            &closed["detail-type"],
            &closed["detail"]["Categories"]
        ),
        (
            &json!("aws.xray"),
            &json!("AWS X-Ray Insight Update"),
            &json!(["FAULT"])
        )
    );
    let summary = closed["detail"]["RootCauseServiceId"]["Name"].clone();
    assert_eq!(summary, "orders");
}
