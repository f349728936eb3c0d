// SPDX-License-Identifier: Apache-2.0
//! `pillion explain`, `history`, `rollback`, `fleet` and `token`: one question each to `/pillion/v1`, and its answer for
//! a person or, with `--output json`, as it came. Decides nothing itself.

use std::io::Write;

use anyhow::{Context as _, bail};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::args::{Api, Explain, Fleet, History, Output, Rollback, Token, TokenVerb};
use crate::client;
use crate::manifests::authority;

/// The body of a 200; anything else is an error in the control plane's words.
pub(crate) async fn ask(
    api: &Api,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> anyhow::Result<Value> {
    let authority = authority(&api.endpoint)?;
    let answer = client::call(method, &authority, path, body).await?;
    let document = answer.json();
    if answer.status == StatusCode::OK {
        return document.with_context(|| format!("{} answered 200 without JSON", api.endpoint));
    }
    let message = match &document {
        Ok(Value::Object(error)) => error
            .get("message")
            .and_then(Value::as_str)
            .map(str::to_owned),
        _ => None,
    };
    bail!(
        "the control plane answered {}: {}",
        answer.status,
        message.unwrap_or_else(|| answer.text())
    )
}

/// Prints the answer as it came if that was asked for.
pub(crate) fn printed(api: &Api, answer: &Value) -> anyhow::Result<bool> {
    if api.output == Output::Json {
        writeln!(std::io::stdout(), "{answer:#}")?;
    }
    Ok(api.output == Output::Json)
}

/// A text of an answer, empty where there is none.
pub(crate) fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// One line per member that differs.
pub(crate) fn write_diff(out: &mut impl Write, diff: &Value) -> std::io::Result<()> {
    for one in diff.as_array().into_iter().flatten() {
        let path = word(&one["path"]);
        match (one.get("before"), one.get("after")) {
            (Some(before), Some(after)) => writeln!(out, "    {path}: {before} -> {after}")?,
            (None, Some(after)) => writeln!(out, "    {path}: + {after}")?,
            (Some(before), None) => writeln!(out, "    {path}: - {before}")?,
            (None, None) => {}
        }
    }
    Ok(())
}

pub(crate) async fn explain(settings: &Explain) -> anyhow::Result<bool> {
    let mut headers = Map::new();
    for header in &settings.headers {
        let (name, value) = header
            .split_once(':')
            .with_context(|| format!("--header {header:?}: must be NAME: VALUE"))?;
        headers.insert(name.trim().to_owned(), json!(value.trim()));
    }
    let body = json!({
        "source": settings.source, "method": settings.method, "url": settings.url, "headers": headers,
    });
    let answer = ask(
        &settings.api,
        Method::POST,
        "/pillion/v1/explain",
        Some(&body),
    )
    .await?;
    if printed(&settings.api, &answer)? {
        return Ok(true);
    }
    let told = &answer["explanation"];
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", word(&told["outcome"]))?;
    for (name, label) in [("table", "route table"), ("virtualHost", "virtual host")] {
        if let Some(text) = told[name].as_str() {
            writeln!(out, "  {label} {text}")?;
        }
    }
    for tried in told["tried"].as_array().into_iter().flatten() {
        let route = word(&tried["route"]);
        match tried["matched"].as_bool() {
            Some(true) => writeln!(out, "  + {route}")?,
            _ => writeln!(out, "  - {route}: {}", word(&tried["why"]))?,
        }
    }
    for route in told["notReached"].as_array().into_iter().flatten() {
        writeln!(out, "    {}: not reached", word(route))?;
    }
    for cluster in told["chosen"]["clusters"].as_array().into_iter().flatten() {
        let share = cluster["share"].as_f64().unwrap_or_default() * 100.0;
        let hosts: Vec<String> = cluster["endpoints"]["hosts"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|host| format!("{}:{}", word(&host["host"]), host["port"]))
            .collect();
        let from = word(&cluster["endpoints"]["from"]);
        writeln!(
            out,
            "  {share:.0} % to {}, {from} {}",
            word(&cluster["cluster"]),
            hosts.join(", ")
        )?;
    }
    Ok(told["outcome"] == "routed")
}

pub(crate) async fn history(settings: &History) -> anyhow::Result<bool> {
    let mut path = format!("/pillion/v1/history?limit={}", settings.limit);
    if let Some(arn) = &settings.arn {
        path.push_str("&resourceArn=");
        path.push_str(&crate::mesh_api::encode(arn));
    }
    let answer = ask(&settings.api, Method::GET, &path, None).await?;
    if printed(&settings.api, &answer)? {
        return Ok(true);
    }
    let mut out = std::io::stdout().lock();
    for change in answer["changes"].as_array().into_iter().flatten() {
        writeln!(
            out,
            "revision {}  version {}  {}  {}  {}",
            change["revision"],
            change["version"],
            word(&change["who"]),
            word(&change["operation"]),
            word(&change["arn"]),
        )?;
        write_diff(&mut out, &change["diff"])?;
    }
    Ok(true)
}

pub(crate) async fn rollback(settings: &Rollback) -> anyhow::Result<bool> {
    let body = json!({"resourceArn": settings.arn, "version": settings.to});
    let answer = ask(
        &settings.api,
        Method::POST,
        "/pillion/v1/rollback",
        Some(&body),
    )
    .await?;
    if !printed(&settings.api, &answer)? {
        let version = &answer["metadata"]["version"];
        writeln!(
            std::io::stdout(),
            "version {} is version {version} now",
            settings.to
        )?;
    }
    Ok(true)
}

pub(crate) async fn fleet(settings: &Fleet) -> anyhow::Result<bool> {
    let mesh = settings.mesh.as_deref().map(crate::mesh_api::encode);
    let path = format!("/pillion/v1/fleet?mesh={}", mesh.unwrap_or_default());
    let answer = ask(&settings.api, Method::GET, &path, None).await?;
    if printed(&settings.api, &answer)? {
        return Ok(true);
    }
    let mut out = std::io::stdout().lock();
    for proxy in answer["proxies"].as_array().into_iter().flatten() {
        let streams = proxy["streams"].as_array().map_or(0, Vec::len);
        let state = if streams == 0 {
            "away".to_owned()
        } else {
            format!("{streams} connected")
        };
        writeln!(out, "{}  {state}", word(&proxy["proxy"]))?;
        for (kind, refused) in proxy["refused"].as_object().into_iter().flatten() {
            writeln!(out, "    refused {kind}: {}", word(&refused["reason"]))?;
        }
        if let Some(error) = proxy["published"]["error"].as_str() {
            writeln!(out, "    not published: {error}")?;
        }
        for finding in proxy["published"]["findings"]
            .as_array()
            .into_iter()
            .flatten()
        {
            writeln!(out, "    without effect: {}", word(finding))?;
        }
    }
    Ok(true)
}

pub(crate) async fn token(settings: &Token) -> anyhow::Result<bool> {
    let api = &settings.api;
    let tokens = "/pillion/v1/tokens";
    let answer = match &settings.what {
        TokenVerb::Create { arn, days } => {
            let body = json!({"resourceArn": arn, "lifetimeSeconds": u64::from(*days) * 24 * 3600});
            ask(api, Method::POST, tokens, Some(&body)).await?
        }
        TokenVerb::List => ask(api, Method::GET, tokens, None).await?,
        TokenVerb::Revoke { id } => {
            let path = format!("{tokens}/{}", crate::mesh_api::encode(id));
            ask(api, Method::DELETE, &path, None).await?
        }
    };
    if printed(api, &answer)? {
        return Ok(true);
    }
    let mut out = std::io::stdout().lock();
    match &settings.what {
        TokenVerb::Create { .. } => writeln!(out, "{}", word(&answer["token"]))?,
        TokenVerb::Revoke { id } => writeln!(out, "{id} is revoked")?,
        TokenVerb::List => {
            for one in answer["tokens"].as_array().into_iter().flatten() {
                writeln!(
                    out,
                    "{}  {}  by {}",
                    word(&one["id"]),
                    word(&one["resourceArn"]),
                    word(&one["createdBy"])
                )?;
            }
        }
    }
    Ok(true)
}
