//! Limits on calls: what is in force and how much of it is used, setting and removing.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use boki_functions::{KeyState, LimitError, LimitState, LimitTerms};
use hyper::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::Problem;
use super::request::{PathOf, Query, from_json, read_body};
use super::{App, json_response};

/// What a limit says.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitTermsJson {
    /// Calls of which functions: `call:checkout`, `call:report-*`, `call:*`.
    r#match: String,
    /// Only calls whose limit key is such: `acme`, `acme/*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// Each limit key is counted by itself; else all calls are counted together.
    #[serde(default)]
    per_key: bool,
    /// How many may run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    concurrency: Option<u32>,
    /// How many may begin in a time: `100/s`, `5/m`, `3/10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate: Option<String>,
    /// How many of these may begin at once after a pause; as many as come in a second unless set, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    burst: Option<u32>,
    /// The share of each key it matches among the keys of a function; without `key` and `per_key`, of each function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
    /// How many may wait before further ones are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    queue: Option<u32>,
}

impl From<LimitTerms> for LimitTermsJson {
    fn from(terms: LimitTerms) -> LimitTermsJson {
        let LimitTerms { matches, key, per_key, concurrency, rate, burst, weight, queue } = terms;
        LimitTermsJson { r#match: matches, key, per_key, concurrency, rate, burst, weight, queue }
    }
}

impl From<LimitTermsJson> for LimitTerms {
    fn from(terms: LimitTermsJson) -> LimitTerms {
        let LimitTermsJson { r#match, key, per_key, concurrency, rate, burst, weight, queue } = terms;
        LimitTerms { matches: r#match, key, per_key, concurrency, rate, burst, weight, queue }
    }
}

/// A limit and how much of it is used.
#[derive(Serialize, ToSchema)]
pub(crate) struct LimitJson {
    name: String,
    /// `set`: it was set while the server ran; `config`: it is one of `boki.toml`.
    source: &'static str,
    limit: LimitTermsJson,
    /// Its calls that run; those that were given up count until their worker has answered.
    running: u64,
    /// Its calls that wait, for whatever.
    waiting: u64,
    /// Calls that found it used up when they came, since the start.
    throttled: u64,
    /// How many may begin at once now, if it has a rate for all calls together.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<u32>,
    /// With `per_key`: the keys with the most calls that wait and run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keys: Vec<LimitKeyJson>,
}

/// How much of a limit one key uses.
#[derive(Serialize, ToSchema)]
pub(crate) struct LimitKeyJson {
    /// `null`: calls without a key.
    key: Option<String>,
    running: u64,
    waiting: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<u32>,
}

/// All limits.
#[derive(Serialize, ToSchema)]
pub(crate) struct LimitsJson {
    /// By name.
    limits: Vec<LimitJson>,
}

impl From<LimitState> for LimitJson {
    fn from(state: LimitState) -> LimitJson {
        let key = |key: KeyState| LimitKeyJson {
            key: key.key.map(|key| key.to_string()),
            running: key.running,
            waiting: key.waiting,
            tokens: key.tokens,
        };
        LimitJson {
            name: state.limit.name.to_string(),
            source: if state.is_stored { "set" } else { "config" },
            limit: LimitTerms::from(&*state.limit).into(),
            running: state.running,
            waiting: state.waiting,
            throttled: state.throttled,
            tokens: state.tokens,
            keys: state.keys.into_iter().map(key).collect(),
        }
    }
}

/// List limits
#[utoipa::path(
    get, path = "/v1/limits", operation_id = "list_limits", tag = "limits",
    responses((status = 200, description = "All limits, and how much of each is used", body = LimitsJson))
)]
pub(crate) async fn list(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, Problem> {
    Query::parse(request.uri().query(), &[])?;
    let limits = app.functions.limits().into_iter().map(LimitJson::from).collect();
    Ok(json_response(StatusCode::OK, &LimitsJson { limits }))
}

/// One limit
#[utoipa::path(
    get, path = "/v1/limits/{name}", operation_id = "get_limit", tag = "limits",
    params(("name" = String, Path, description = "Name of the limit")),
    responses(
        (status = 200, description = "The limit, and how much of it is used", body = LimitJson),
        (status = 404, description = "There is none of that name (BK0441)"),
    )
)]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    PathOf(name): PathOf<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    Query::parse(request.uri().query(), &[])?;
    found(&app, &name)
}

fn found(app: &App, name: &str) -> Result<Response, Problem> {
    match app.functions.limits().into_iter().find(|state| *state.limit.name == *name) {
        Some(state) => Ok(json_response(StatusCode::OK, &LimitJson::from(state))),
        None => Err(Problem::of_limit(&LimitError::NotFound { name: name.into() })),
    }
}

/// Set a limit
///
/// New, or in place of that of its name. It is on record and in force when this is answered: calls that run above it run on, calls
/// that wait and may run now, run.
#[utoipa::path(
    put, path = "/v1/limits/{name}", operation_id = "set_limit", tag = "limits",
    params(("name" = String, Path, description = "Name of the limit")),
    request_body = LimitTermsJson,
    responses(
        (status = 200, description = "It is in force", body = LimitJson),
        (status = 400, description = "There can be no such limit (BK0440)"),
    )
)]
pub(crate) async fn set(
    State(app): State<Arc<App>>,
    PathOf(name): PathOf<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    Query::parse(parts.uri.query(), &[])?;
    let body = read_body(body, app.body_limit).await?;
    let terms: LimitTermsJson = from_json(&body)?;
    let rule = LimitTerms::from(terms).rule(&name);
    let rule =
        rule.map_err(|invalid| Problem::of_limit(&LimitError::Invalid { name: name.as_str().into(), invalid }))?;
    app.functions.set_limit(rule).await.map_err(|error| Problem::of_limit(&error))?;
    found(&app, &name)
}

/// Remove a limit
///
/// One of `boki.toml`, which it stood in place of, is in force again.
#[utoipa::path(
    delete, path = "/v1/limits/{name}", operation_id = "remove_limit", tag = "limits",
    params(("name" = String, Path, description = "Name of the limit")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There is none of that name (BK0441)"),
        (status = 409, description = "It is one of boki.toml (BK0442)"),
    )
)]
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    PathOf(name): PathOf<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    Query::parse(request.uri().query(), &[])?;
    app.functions.remove_limit(&name).await.map_err(|error| Problem::of_limit(&error))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
