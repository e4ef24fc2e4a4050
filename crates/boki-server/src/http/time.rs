//! The server's time, and moving it on where it is virtual.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use boki_log::LogError;
use hyper::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::Problem;
use super::request::{Query, from_json, read_body};
use super::{App, json_response};
use crate::codes;
use crate::config::Span;
use crate::virtual_time::{LONGEST_STEP, advance};

/// The server's time.
#[derive(Serialize, ToSchema)]
pub(crate) struct TimeJson {
    /// Microseconds since 1970, as records show it.
    time_us: u64,
    /// The same, as RFC 3339 writes it.
    time: String,
    /// Whether it stands still until it is moved on.
    #[serde(rename = "virtual")]
    is_virtual: bool,
}

/// How far to move on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdvanceTime {
    /// A duration with its unit: `90s`, `1h`. At most 365 days.
    by: String,
    /// First wait until at least so many calls pause before their next attempt.
    #[serde(default)]
    once_pausing: usize,
}

fn time_of(app: &App) -> TimeJson {
    let clock = app.node.clock();
    let time_us = clock.wall_us();
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(time_us)).unwrap_or(SystemTime::UNIX_EPOCH);
    TimeJson { time_us, time: humantime::format_rfc3339_micros(time).to_string(), is_virtual: clock.is_virtual() }
}

/// The server's time
#[utoipa::path(
    get, path = "/v1/time", operation_id = "get_time", tag = "operation",
    responses((status = 200, description = "The time", body = TimeJson))
)]
pub(crate) async fn get(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, Problem> {
    Query::parse(request.uri().query(), &[])?;
    Ok(json_response(StatusCode::OK, &time_of(&app)))
}

/// Move the time on
///
/// Of a server in virtual time. It jumps: what falls due on the way happens at the new time.
#[utoipa::path(
    post, path = "/v1/time/advance", operation_id = "advance_time", tag = "operation",
    request_body = AdvanceTime,
    responses(
        (status = 200, description = "It has moved", body = TimeJson),
        (status = 400, description = "That is no duration, or too long a one (BK0503)"),
        (status = 409, description = "The server's time is real (BK0428)"),
    )
)]
pub(crate) async fn advance_time(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    Query::parse(parts.uri.query(), &[])?;
    let body = read_body(body, app.body_limit).await?;
    let AdvanceTime { by, once_pausing } = from_json(&body)?;
    let Span(by) =
        by.parse().map_err(|_| Problem::invalid_body(format!("{by:?} is not a duration, such as \"90s\"")))?;
    if by > LONGEST_STEP {
        return Err(Problem::invalid_body("the time moves by at most 365 days at once".to_owned()));
    }
    if !app.node.clock().is_virtual() {
        return Err(real_time());
    }
    let mut pausing = app.functions.pausing();
    tokio::select! {
        // The functions live as long as the server does.
        _ = pausing.wait_for(|pausing| *pausing >= once_pausing) => {}
        () = app.stopping.cancelled() => return Err(Problem::of_log(&LogError::ShuttingDown, "")),
    }
    if !advance(&app.node, by).await {
        return Err(real_time());
    }
    Ok(json_response(StatusCode::OK, &time_of(&app)))
}

fn real_time() -> Problem {
    let detail = "the server's time is real: nobody moves it".to_owned();
    Problem::new(codes::TIME_IS_REAL, StatusCode::CONFLICT, detail, "boki dev --virtual-time")
}
