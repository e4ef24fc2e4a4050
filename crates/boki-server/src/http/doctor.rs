//! A running server looks for damage in its files, in the background and at a bounded rate.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use boki_doctor::{Report, Scope};
use boki_node::DataKeys;
use bytesize::ByteSize;
use hyper::{Request, StatusCode};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::problem::Problem;
use super::request::Query;
use super::{App, json_response};

/// Read in a second, unless said otherwise.
const DEFAULT_RATE: u64 = 64 << 20;
/// Read without a pause.
const STRETCH_BYTES: u64 = 256 << 10;

/// The examinations of a server's files: one at a time.
pub(crate) struct Doctor {
    data: PathBuf,
    keys: Option<DataKeys>,
    now: watch::Sender<Arc<Examination>>,
}

/// An examination, as it is now.
#[derive(Clone, Debug, Default)]
struct Examination {
    state: Phase,
    error: Option<String>,
    report: Option<Report>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Never,
    Running,
    Done,
}

/// An examination of the server's files.
#[derive(Serialize, ToSchema)]
pub(crate) struct ExaminationJson<'a> {
    /// `never`, `running` or `done`.
    state: &'static str,
    /// Why it could not be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    /// What was found by the last one that is done: `findings`, each with `code`, `severity`, `file`, `what`, `means`, `remedy` and
    /// the records that are `lost`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    report: Option<&'a Report>,
}

impl Doctor {
    pub(crate) fn new(data: PathBuf, keys: Option<DataKeys>) -> Doctor {
        Doctor { data, keys, now: watch::Sender::new(Arc::default()) }
    }

    /// Starts an examination, unless one runs.
    fn start(&self, bytes_per_second: u64, stopping: CancellationToken) -> Result<(), std::io::Error> {
        let starts = self.now.send_if_modified(|now| {
            let starts = now.state != Phase::Running;
            if starts {
                *now = Arc::new(Examination { state: Phase::Running, error: None, report: now.report.clone() });
            }
            starts
        });
        if !starts {
            return Ok(());
        }
        let (data, keys, now) = (self.data.clone(), self.keys.clone(), self.now.clone());
        let spawned = std::thread::Builder::new().name("boki-doctor".into()).spawn(move || {
            let mut pace = pace(bytes_per_second, stopping);
            let (report, error) = match boki_doctor::examine(&data, keys.as_ref(), Scope::Settled, &mut pace) {
                Ok(Some(report)) => (Some(report), None),
                Ok(None) => (None, Some("the server is shutting down".to_owned())),
                Err(error) => (None, Some(error.to_string())),
            };
            if let Some(report) = report.as_ref().filter(|report| !report.is_sound()) {
                let first = report.findings.first().map(|finding| format!("{}: {}", finding.file, finding.what));
                tracing::error!(findings = report.findings.len(), first, "files of the data directory are damaged");
            }
            now.send_replace(Arc::new(Examination { state: Phase::Done, error, report }));
        });
        if let Err(error) = spawned {
            self.now.send_replace(Arc::new(Examination { error: Some(error.to_string()), ..Examination::default() }));
            return Err(error);
        }
        Ok(())
    }
}

/// Pauses so often that no more is read in a second.
fn pace(bytes_per_second: u64, stopping: CancellationToken) -> impl FnMut(u64) -> ControlFlow<()> {
    let mut ahead = 0;
    move |bytes| {
        ahead += bytes;
        if ahead >= STRETCH_BYTES {
            std::thread::sleep(Duration::from_secs_f64(ahead as f64 / bytes_per_second.max(1) as f64));
            ahead = 0;
        }
        if stopping.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn answer(status: StatusCode, now: &Examination) -> Response {
    let Examination { state, error, report } = now;
    let state = match state {
        Phase::Never => "never",
        Phase::Running => "running",
        Phase::Done => "done",
    };
    json_response(status, &ExaminationJson { state, error: error.as_deref(), report: report.as_ref() })
}

/// Examine the files
///
/// Starts to read every file of the data directory that does not change any more, in the background, and compares it with its
/// checksums. If an examination is running already, that is the answer.
#[utoipa::path(
    post, path = "/v1/doctor", operation_id = "start_examination", tag = "operation",
    params(("rate" = Option<String>, Query, description = "Read at most so much a second; 64MiB unless given")),
    responses((status = 202, description = "It runs", body = ExaminationJson))
)]
pub(crate) async fn start(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, Problem> {
    let query = Query::parse(request.uri().query(), &["rate"])?;
    let rate = query.parsed::<ByteSize>("rate", "a size, such as 64MiB")?.map_or(DEFAULT_RATE, |rate| rate.as_u64());
    if rate == 0 {
        return Err(Problem::invalid_query(Some("rate"), "rate must be more than 0".to_owned()));
    }
    app.doctor
        .start(rate, app.stopping.clone())
        .map_err(|error| Problem::not_ready(format!("no thread can be started: {error}")))?;
    let now = Arc::clone(&app.doctor.now.borrow());
    Ok(answer(StatusCode::ACCEPTED, &now))
}

/// What was found
///
/// The examination that runs, or the last one.
#[utoipa::path(
    get, path = "/v1/doctor", operation_id = "get_examination", tag = "operation",
    params(("wait" = Option<String>, Query, description = "Wait so long for the end of one that runs, such as 30s")),
    responses((status = 200, description = "The examination", body = ExaminationJson))
)]
pub(crate) async fn get(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, Problem> {
    let wait = Query::parse(request.uri().query(), &["wait"])?.wait()?;
    let mut changes = app.doctor.now.subscribe();
    if let Some(wait) = wait {
        let ended = changes.wait_for(|now| now.state != Phase::Running);
        tokio::select! {
            _ = tokio::time::timeout(wait, ended) => {}
            () = app.stopping.cancelled() => {}
        }
    }
    let now = Arc::clone(&app.doctor.now.borrow());
    Ok(answer(StatusCode::OK, &now))
}
