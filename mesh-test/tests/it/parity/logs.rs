// SPDX-License-Identifier: Apache-2.0
//! What the access logs say of each case, from the format of `cases/mesh.json`: the case, then one column for each of
//! [`COLUMNS`]. Requests that were refused before their headers were read name no case and are not compared.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use mesh_test::asking;
use mesh_test::asking::Ask;
use mesh_test::eventually::eventually;

use super::Outcomes;
use super::case::Case;
use super::case::Door;
use super::spec::Apps;

const COLUMNS: [&str; 9] = [
    "request", "code", "flags", "details", "received", "sent", "host", "cluster", "attempts",
];
const WRITTEN_WITHIN: Duration = Duration::from_secs(8);

/// Adds fields `log …` to the outcomes.
pub(crate) async fn add(
    who: &str,
    cases: &[Case],
    doors: &BTreeMap<Door, SocketAddr>,
    apps: &Apps,
    outcomes: &mut Outcomes,
) -> anyhow::Result<()> {
    let mut text = String::new();
    for (file, door) in [("sidecar", Door::Egress), ("edge", Door::Edge)] {
        text.push_str(&whole(who, file, doors[&door], apps).await?);
    }
    let text = apps.named(&text);
    let mut by_case: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in text.lines() {
        if let Some((key, rest)) = line.split_once(" ~ ") {
            by_case.entry(key).or_default().push(rest);
        }
    }
    for case in cases {
        let lines = by_case.get(case.key(who).as_str());
        let shown = outcomes.entry(case.name.clone()).or_default();
        for (number, line) in lines.into_iter().flatten().enumerate() {
            let at = if number == 0 {
                "log".to_owned()
            } else {
                format!("log {number}")
            };
            for (column, value) in COLUMNS.iter().zip(line.split(" ~ ")) {
                shown.insert(format!("{at} {column}"), value.to_owned());
            }
        }
    }
    Ok(())
}

/// A log up to the line of a request of our own.
async fn whole(who: &str, file: &str, door: SocketAddr, apps: &Apps) -> anyhow::Result<String> {
    let last = format!("{who}-last");
    let header = format!("x-case: {last}");
    let ask = Ask {
        bytes: asking::bytes("GET / nobody.example.com", &[header], ""),
        ..Ask::default()
    };
    asking::http1(door, &ask).await;
    let path = apps.logs().join(file);
    eventually(WRITTEN_WITHIN, || async {
        let text = std::fs::read_to_string(&path)?;
        anyhow::ensure!(text.contains(&last), "{} has no {last}", path.display());
        Ok(text)
    })
    .await
}
