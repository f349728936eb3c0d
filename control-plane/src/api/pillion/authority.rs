// SPDX-License-Identifier: Apache-2.0
//! `/pillion/v1/authority`: which root signs, which are trusted, and the steps from one to the next.

use pillion_config::Problem;
use serde_json::Value;
use serde_json::json;

use super::Call;
use super::problem;
use super::text;
use crate::access::Wish;
use crate::api::error::ApiError;
use crate::api::error::ErrorType;
use crate::identity::RingError;
use crate::identity::RootMaterial;
use crate::identity::keyring::Keyring;
use crate::identity::keyring::StepError;
use crate::store::live::now_ms;

fn permit(call: &Call, wish: Wish) -> Result<(), ApiError> {
    let access = &call.api.access;
    let (region, account) = (&access.region, &access.account);
    let arn = format!("arn:aws:appmesh:{region}:{account}:authority");
    if call.asked.caller.account() == account && call.may(wish, &arn) {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorType::Forbidden,
        format!(
            "{} may not do {} on {arn}",
            call.asked.caller.who(),
            call.asked.operation
        ),
    ))
}

/// `GET /authority`.
pub(super) fn describe(call: &Call) -> Result<Value, ApiError> {
    permit(call, Wish::Read)?;
    Ok(shown(call, &call.api.custody.ring()))
}

/// `POST /authority`: `{"step": "prepare" | "activate" | "retire"}`.
pub(super) async fn step(call: &Call) -> Result<Value, ApiError> {
    permit(call, Wish::Write)?;
    let body = call.body(&["step", "certificate", "key", "anchor", "force"])?;
    let step = text(&body, "step")?;
    let force = match body.get("force") {
        None => false,
        Some(force) => force
            .as_bool()
            .ok_or_else(|| problem("force", "must be true or false"))?,
    };
    let custody = &call.api.custody;
    let changed = match step {
        "prepare" => {
            let next = next(&body, custody.authority.trust_domain())?;
            custody.change(|ring| ring.prepare(next.clone())).await
        }
        "activate" => custody.change(|ring| ring.activate(now_ms())).await,
        "retire" => custody.change(|ring| ring.retire(now_ms(), force)).await,
        other => {
            return Err(problem(
                "step",
                format!("must be prepare, activate or retire, is `{other:.40}`"),
            ));
        }
    };
    let ring = changed.map_err(refused)?;
    tracing::info!(target: "audit", who = call.asked.caller.who(), operation = "RotateAuthority", step, force, "write");
    Ok(shown(call, &ring))
}

/// A root of our own making, or an intermediate under somebody else's.
fn next(body: &Value, trust_domain: &str) -> Result<RootMaterial, ApiError> {
    if body.get("certificate").is_none() && body.get("key").is_none() {
        return RootMaterial::make(trust_domain).map_err(|error| {
            ApiError::new(ErrorType::InternalServerError, crate::ads::chain(&error))
        });
    }
    let anchor = body
        .get("anchor")
        .map(|_| text(body, "anchor"))
        .transpose()?;
    let next = RootMaterial {
        certificate: text(body, "certificate")?.to_owned(),
        key: text(body, "key")?.to_owned(),
        anchor: anchor.map(str::to_owned),
    };
    let problems: Vec<Problem> = next
        .problems()
        .into_iter()
        .map(|(path, what)| Problem::new(path, what))
        .collect();
    if problems.is_empty() {
        Ok(next)
    } else {
        Err(ApiError::problems(&problems))
    }
}

fn refused(error: RingError) -> ApiError {
    match error {
        RingError::Store(error) => error.into(),
        RingError::Step(error @ (StepError::InUse(_) | StepError::Prepared)) => {
            ApiError::new(ErrorType::Conflict, error.to_string())
        }
        RingError::Step(error) => ApiError::new(ErrorType::BadRequest, error.to_string()),
        RingError::Material(error) => ApiError::new(ErrorType::BadRequest, error),
    }
}

fn shown(call: &Call, ring: &Keyring) -> Value {
    let mut document = ring.document();
    document["trustDomain"] = json!(call.api.custody.authority.trust_domain());
    document
}
