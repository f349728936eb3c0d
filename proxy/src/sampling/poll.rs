// SPDX-License-Identifier: Apache-2.0
//! Asks a collector's X-Ray door for sampling rules every five minutes, and every ten seconds for targets of the rules
//! that matched something, as SDKs do. Run by `app` beside the data path; a door that does not answer costs nothing but
//! that the last rules, and after an hour local ones, decide.

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use http::Request;
use http::Uri;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::Limited;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::Sampler;
use super::central::CentralRules;

const TARGETS_EVERY: Duration = Duration::from_secs(10);
const RULES_EVERY: Duration = Duration::from_secs(300);
/// While no rules have come yet.
const FIRST_EVERY: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);
const MOST_BYTES: usize = 1024 * 1024;
const MOST_DOCUMENTS: usize = 25;

/// Until `stop`; `service` is the name that rules know this proxy by.
pub async fn keep(sampler: Arc<Sampler>, door: Uri, service: String, stop: CancellationToken) {
    stop.run_until_cancelled(poll(&sampler, &door, &service, TARGETS_EVERY))
        .await;
}

async fn poll(sampler: &Sampler, door: &Uri, service: &str, every: Duration) {
    let client = format!("{:024x}", rand::random::<u128>() >> 32);
    let mut silent = false;
    loop {
        let fetched = rules(sampler, door, service).await;
        match &fetched {
            Ok(()) if silent => tracing::info!(%door, "sampling rules come again"),
            Err(why) if !silent => {
                tracing::warn!(%door, why, "no sampling rules; the last or local ones decide")
            }
            Ok(()) | Err(_) => {}
        }
        silent = fetched.is_err();
        let wait = if silent && sampler.central.load().is_none() {
            FIRST_EVERY
        } else {
            RULES_EVERY
        };
        // A jitter, so that a fleet that starts at once does not ask at once for ever.
        let wait = wait.mul_f64(1.0 + rand::random::<f64>() / 60.0);
        let changed = targets(sampler, door, &client, every);
        tokio::time::timeout(wait, changed)
            .await
            .unwrap_or_default();
    }
}

async fn rules(sampler: &Sampler, door: &Uri, service: &str) -> Result<(), String> {
    let now_s = now_s();
    let answer = ask(door, "/GetSamplingRules", &json!({})).await?;
    let before = sampler.central.load_full();
    let rules = CentralRules::read(&answer, service, before.as_deref(), now_s)?;
    sampler.central.store(Some(Arc::new(rules)));
    Ok(())
}

/// Until the door says that the rules have changed.
async fn targets(sampler: &Sampler, door: &Uri, client: &str, every: Duration) {
    loop {
        tokio::time::sleep(every.mul_f64(1.0 + rand::random::<f64>() / 100.0)).await;
        let Some(rules) = sampler.central.load_full() else {
            continue;
        };
        let documents = rules.report(client, now_s());
        for some in documents.chunks(MOST_DOCUMENTS) {
            let request = json!({"SamplingStatisticsDocuments": some});
            match ask(door, "/SamplingTargets", &request).await {
                Ok(answer) if rules.apply(&answer) => return,
                Ok(_) => {}
                Err(why) => tracing::debug!(%door, why, "no sampling targets"),
            }
        }
    }
}

fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

async fn ask(door: &Uri, path: &str, request: &Value) -> Result<Value, String> {
    tokio::time::timeout(PATIENCE, ask_once(door, path, request))
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
}

async fn ask_once(door: &Uri, path: &str, request: &Value) -> Result<Value, String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let host = door.host().unwrap_or_default().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, door.port_u16().unwrap_or(2000)))
        .await
        .map_err(|error| text(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| text(&error))?;
    let request = Request::post(path)
        .header(
            http::header::HOST,
            door.authority().map_or("", |host| host.as_str()),
        )
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(request.to_string())))
        .map_err(|error| text(&error))?;
    let exchange = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| text(&error))?;
        let status = response.status();
        if !status.is_success() {
            return Err(format!("it answered {status}"));
        }
        let body = Limited::new(response.into_body(), MOST_BYTES)
            .collect()
            .await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| text(&error))
    };
    // The connection is driven beside its one exchange and ends with it; what ends it early, the exchange reports.
    let driven = async {
        connection.await.unwrap_or_default();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = exchange => answer,
        () = driven => Err("the connection ended".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::sampling::Asked;

    /// Answers each request with what stands for its path, and remembers what was asked.
    async fn door(answers: Vec<(&'static str, Value)>) -> (Uri, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut text = String::new();
                let mut buffer = vec![0; 4096];
                while !text.ends_with('}') {
                    let read = stream.read(&mut buffer).await.unwrap();
                    text.push_str(&String::from_utf8_lossy(&buffer[..read]));
                }
                let path = text.split(' ').nth(1).unwrap_or_default();
                let answer = answers.iter().find(|(known, _)| *known == path);
                let body = answer
                    .map_or(Value::Null, |(_, answer)| answer.clone())
                    .to_string();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                heard.lock().unwrap().push(text);
                stream.write_all((head + &body).as_bytes()).await.unwrap();
            }
        });
        (uri.parse().unwrap(), asked)
    }

    #[tokio::test]
    async fn rules_come_counts_go_and_targets_hold() {
        let rule = json!({
            "RuleName": "all", "Priority": 1, "URLPath": "*", "ReservoirSize": 9, "FixedRate": 0.0, "Host": "*",
            "HTTPMethod": "*", "ServiceName": "*", "ServiceType": "*", "ResourceARN": "*", "Version": 1, "Attributes": {},
        });
        let target = json!({"RuleName": "all", "FixedRate": 1.0, "ReservoirQuota": 0, "ReservoirQuotaTTL": 9e9});
        let (uri, heard) = door(vec![
            (
                "/GetSamplingRules",
                json!({"SamplingRuleRecords": [{"SamplingRule": rule}]}),
            ),
            (
                "/SamplingTargets",
                json!({"SamplingTargetDocuments": [target], "LastRuleModification": 0.0}),
            ),
        ])
        .await;
        let sampler = Sampler::new(0, 0.0);
        let asked = Asked {
            host: "h",
            method: "GET",
            path: "/",
        };
        let drawn = std::cell::Cell::new(0.0);
        let ask = || {
            sampler.keeps(asked, 7, |share| {
                drawn.set(share);
                false
            })
        };
        let until = async {
            // The local rule takes nothing, the collector's lends one a second, and its target changes the share.
            while !ask() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            while drawn.get() < 1.0 {
                ask();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = poll(&sampler, &uri, "shop/web", Duration::from_millis(20)) => unreachable!("it goes on"),
            () = until => {}
            () = tokio::time::sleep(Duration::from_secs(10)) => panic!("no rules, or no targets"),
        }
        let heard = heard.lock().unwrap().join("\n");
        assert!(
            heard.contains(r#""BorrowCount":1"#) && heard.contains(r#""RuleName":"all""#),
            "{heard}"
        );
    }
}
