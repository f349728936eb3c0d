// SPDX-License-Identifier: Apache-2.0
//! `/pillion/v1/alerts`: rules set by `PUT …/{name}`, taken away by `DELETE`, listed with their states by `GET`.

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::extract::Path;
use axum::extract::State;
use axum::routing::get;
use axum::routing::put;
use http::StatusCode;
use serde_json::Value;
use serde_json::json;

use crate::alerts::Alerts;
use crate::alerts::MOST_RULES;
use crate::alerts::Rule;
use crate::query::pillion_api::AskError;
use crate::query::pillion_api::blocking;

const MAX_RULE: usize = 64 * 1024;

pub(super) fn router(alerts: Alerts) -> Router {
    Router::new()
        .route("/pillion/v1/alerts", get(list))
        .route("/pillion/v1/alerts/{name}", put(set).delete(remove))
        .layer(DefaultBodyLimit::max(MAX_RULE))
        .with_state(alerts)
}

async fn list(State(alerts): State<Alerts>) -> Result<Json<Value>, AskError> {
    let listed = blocking(move || alerts.list()).await?;
    Ok(Json(json!({"alerts": listed})))
}

async fn set(
    State(alerts): State<Alerts>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, AskError> {
    let rule: Rule = serde_json::from_slice(&body)
        .map_err(|error| AskError::Invalid(format!("the body is no alert rule: {error}")))?;
    let problems = rule.problems(&name);
    if !problems.is_empty() {
        return Err(AskError::Invalid(problems.join("; ")));
    }
    let kept = rule.clone();
    let fits = blocking(move || {
        let rules = alerts.rules()?;
        let fits = rules.len() < MOST_RULES || rules.iter().any(|(other, _)| *other == name);
        if fits {
            alerts.put(&name, &kept)?;
        }
        Ok(fits)
    });
    if fits.await? {
        Ok(Json(json!(rule)))
    } else {
        let message = format!("there are {MOST_RULES} alert rules already; delete one first");
        Err(AskError::Invalid(message))
    }
}

async fn remove(
    State(alerts): State<Alerts>,
    Path(name): Path<String>,
) -> Result<StatusCode, AskError> {
    blocking(move || alerts.delete(&name)).await?;
    Ok(StatusCode::NO_CONTENT)
}
