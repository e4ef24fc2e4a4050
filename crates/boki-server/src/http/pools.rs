//! Worker pools, as they are now.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use boki_functions::{PoolFailure, PoolInfo, ProcessInfo};
use hyper::{Request, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::Problem;
use super::request::Query;
use super::{App, json_response};

/// All pools.
#[derive(Serialize, ToSchema)]
pub(crate) struct PoolsJson {
    pools: Vec<PoolJson>,
}

/// A pool of worker processes.
#[derive(Serialize, ToSchema)]
pub(crate) struct PoolJson {
    name: String,
    /// Of the code that it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// `starting`, `serving`, `asleep`, `failing` or `draining`.
    state: &'static str,
    /// How many processes there are at least,
    min: usize,
    /// and at most.
    max: usize,
    processes: Vec<ProcessJson>,
    /// What it offers, as far as that is known.
    functions: Vec<String>,
    /// Calls of its functions that wait for a place in a worker.
    waiting: usize,
    /// What each process may use as far as it is in force, and by what: `memory 256 MiB (cgroup), 1.5 cores`; none if nothing is
    /// limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<String>,
    /// Which limit is not in force, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    limits_not_in_force: Option<String>,
    /// What became of the latest process that ended without having been asked to.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<FailureJson>,
}

/// A worker process.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProcessJson {
    /// What its lines in the log say.
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    /// `starting`, `serving` or `leaving`.
    state: &'static str,
    age_ms: u64,
    /// Calls that it has now.
    running: usize,
    /// Calls that it has been given in all.
    calls: u64,
}

/// Why a process ended.
#[derive(Serialize, ToSchema)]
pub(crate) struct FailureJson {
    reason: String,
    /// The last lines that it printed.
    lines: Vec<String>,
}

impl From<PoolInfo> for PoolJson {
    fn from(pool: PoolInfo) -> PoolJson {
        let filled = |text: String| Some(text).filter(|text| !text.is_empty());
        PoolJson {
            name: pool.name.to_string(),
            version: filled(pool.version.to_string()),
            state: pool.state.as_str(),
            min: pool.min,
            max: pool.max,
            processes: pool.processes.into_iter().map(ProcessJson::from).collect(),
            functions: pool.functions.iter().map(ToString::to_string).collect(),
            waiting: pool.waiting,
            limits: filled(pool.limits),
            limits_not_in_force: pool.limits_not_in_force,
            last_failure: pool.last_failure.as_deref().map(FailureJson::from),
        }
    }
}

impl From<ProcessInfo> for ProcessJson {
    fn from(process: ProcessInfo) -> ProcessJson {
        ProcessJson {
            name: process.name.to_string(),
            pid: process.pid,
            state: process.state.as_str(),
            age_ms: u64::try_from(process.age.as_millis()).unwrap_or(u64::MAX),
            running: process.running,
            calls: process.given,
        }
    }
}

impl From<&PoolFailure> for FailureJson {
    fn from(failure: &PoolFailure) -> FailureJson {
        FailureJson {
            reason: failure.reason.to_string(),
            lines: failure.lines.iter().map(ToString::to_string).collect(),
        }
    }
}

/// List worker pools
///
/// The pools of worker processes that the server runs, with their processes. Workers that connect by themselves are not
/// among them.
#[utoipa::path(
    get, path = "/v1/pools", operation_id = "list_pools", tag = "functions",
    responses((status = 200, description = "The pools", body = PoolsJson))
)]
pub(crate) async fn list(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, Problem> {
    Query::parse(request.uri().query(), &[])?;
    let pools = app.functions.pools().into_iter().map(PoolJson::from).collect();
    Ok(json_response(StatusCode::OK, &PoolsJson { pools }))
}
