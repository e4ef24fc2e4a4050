//! What functions and their workers log: the last lines, or all that come, as server-sent events.
//!
//! A follower has a number, not a queue: it asks for what follows it whenever its connection takes more. So a slow one costs no
//! memory; it misses lines, and is told how many (`event: missed`). The id of an event is where to resume.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use boki_functions::{LogFilter, LogLine, LogPage};
use boki_wire::worker::Level;
use bytes::Bytes;
use futures_util::stream::unfold;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Request, StatusCode};
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use super::calls::call_id;
use super::problem::Problem;
use super::read::HEARTBEAT;
use super::request::{PathOf, Query, accepts, text_header};
use super::{App, json_response};
use crate::config::Span;

/// How many lines are returned unless the request says otherwise.
const LINES: usize = 1000;
/// Most lines that are returned at once.
const MAX_LINES: usize = 10_000;
/// Most lines that one write of a follower's stream holds.
const PAGE: usize = 256;
/// What goes out first: how soon to reconnect, in milliseconds. It also gets the headers on their way.
const OPENING: &str = "retry: 1000\n\n";

const PARAMETERS: [&str; 7] = ["function", "call", "worker", "level", "since", "from", "last"];
const LEVELS: [Level; 5] = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];

/// Lines that were logged.
#[derive(Serialize, ToSchema)]
pub(crate) struct LogsJson {
    /// Oldest first, as far as they are still in memory.
    lines: Vec<LineJson>,
    /// The `from` of what follows.
    next: u64,
    /// So many lines after `from` are not in memory any more.
    missed: u64,
}

/// A line.
#[derive(Serialize, ToSchema)]
pub(crate) struct LineJson {
    /// Its place among all lines; grows, also from one start of the server to the next.
    number: u64,
    /// When it came in, in microseconds since 1970.
    time_us: u64,
    worker: String,
    /// Of the code that the worker runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// The call in which it was logged; none for what the worker's process printed.
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<String>,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    level: &'static str,
    line: String,
}

impl LineJson {
    fn of(line: &LogLine) -> LineJson {
        LineJson {
            number: line.number,
            time_us: line.time_us,
            worker: line.worker.to_string(),
            version: Some(line.version.to_string()).filter(|version| !version.is_empty()),
            call: line.call.map(|call| call.to_string()),
            function: line.function.as_ref().map(ToString::to_string),
            level: line.level.as_str(),
            line: line.line.to_string(),
        }
    }
}

impl From<LogPage> for LogsJson {
    fn from(page: LogPage) -> LogsJson {
        LogsJson { lines: page.lines.iter().map(LineJson::of).collect(), next: page.next, missed: page.missed }
    }
}

/// Log lines
///
/// What functions log and what their workers print, as far as it is still in memory: the last lines, or with `from` those that
/// follow a number. With `Accept: text/event-stream` the lines that come are sent as they come; the id of an event, sent back as
/// `Last-Event-ID`, resumes there, and `event: missed` says how many lines went by while the client was too slow.
#[utoipa::path(
    get, path = "/v1/logs", operation_id = "get_logs", tag = "functions",
    params(
        ("function" = Option<String>, Query, description = "Only lines of calls of this function"),
        ("call" = Option<String>, Query, description = "Only lines of this call"),
        ("worker" = Option<String>, Query, description = "Only lines of this worker"),
        ("level" = Option<String>, Query, description = "Only lines as serious as this, or more: error, warn, info, debug, trace"),
        ("since" = Option<String>, Query, description = "Only lines that are not older than this: 10m"),
        ("from" = Option<u64>, Query, description = "Lines from this number on, as `next` of an earlier answer gave it"),
        ("last" = Option<usize>, Query, description = "At most so many lines (of a stream: to begin with); 1000 unless given, 10000 at most"),
        ("Last-Event-ID" = Option<u64>, Header, description = "Of a stream: where to resume; wins over `from`"),
    ),
    responses((status = 200, description = "The lines", content(
        (LogsJson = "application/json"), (String = "text/event-stream"),
    )))
)]
pub(crate) async fn logs(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, Problem> {
    let query = Query::parse(request.uri().query(), &PARAMETERS)?;
    let filter = filter_of(&query, app.node.now_us())?;
    let last = query.parsed("last", "a number up to 10000")?.unwrap_or(LINES);
    if last > MAX_LINES {
        return Err(Problem::invalid_query(Some("last"), format!("last can be at most {MAX_LINES}")));
    }
    let mut from: Option<u64> = query.parsed("from", "the number of a line")?;
    if !accepts(request.headers(), "text/event-stream") {
        let page = match from {
            Some(from) => app.functions.log_lines(from, last, &filter),
            None => app.functions.last_log_lines(last, &filter),
        };
        return Ok(json_response(StatusCode::OK, &LogsJson::from(page)));
    }
    if let Some(id) = text_header(request.headers(), "last-event-id")?.filter(|id| !id.is_empty()) {
        let id =
            id.parse().map_err(|_| Problem::invalid_header("Last-Event-ID", "the id of an event of this stream"))?;
        from = Some(id);
    }
    Ok(follow(app, filter, from, last))
}

/// A call's log lines
#[utoipa::path(
    get, path = "/v1/calls/{id}/logs", operation_id = "get_call_logs", tag = "functions",
    params(("id" = String, Path, description = "The call")),
    responses((status = 200, description = "The lines that are still in memory", body = LogsJson))
)]
pub(crate) async fn of_call(
    State(app): State<Arc<App>>,
    PathOf(id): PathOf<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    Query::parse(request.uri().query(), &[])?;
    let filter = LogFilter { call: Some(call_id("id", &id)?), ..LogFilter::default() };
    Ok(json_response(StatusCode::OK, &LogsJson::from(app.functions.last_log_lines(MAX_LINES, &filter))))
}

fn filter_of(query: &Query<'_>, now_us: u64) -> Result<LogFilter, Problem> {
    let call = query.get("call")?.map(|id| call_id("call", id)).transpose()?;
    let level = match query.get("level")? {
        None => None,
        Some(name) => {
            let found = LEVELS.into_iter().find(|level| level.as_str() == name);
            let expected = || format!("level={name:?} must be error, warn, info, debug or trace");
            Some(found.ok_or_else(|| Problem::invalid_query(Some("level"), expected()))?)
        }
    };
    let since_us = match query.parsed("since", "a duration with a unit, such as 10m")? {
        None => None,
        Some(Span(since)) => {
            let since_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
            Some(now_us.saturating_sub(since_us))
        }
    };
    let text = |name| query.get(name).map(|found| found.map(str::to_owned));
    Ok(LogFilter { call, function: text("function")?, worker: text("worker")?, level, since_us })
}

/// Between two polls of the body.
enum Stage {
    Opening(Follower),
    Following(Follower),
    Ended,
}

struct Follower {
    app: Arc<App>,
    filter: LogFilter,
    changes: watch::Receiver<u64>,
    /// What is sent before anything else.
    backlog: Option<LogPage>,
    from: u64,
}

/// Answers with the last lines, or those from `from` on, and with what comes.
fn follow(app: Arc<App>, filter: LogFilter, from: Option<u64>, last: usize) -> Response {
    let changes = app.functions.log_changes();
    let (backlog, from) = match from {
        Some(from) => (None, from),
        None => {
            let page = app.functions.last_log_lines(last, &filter);
            let next = page.next;
            (Some(page), next)
        }
    };
    let follower = Follower { app, filter, changes, backlog, from };
    let stream = unfold(Stage::Opening(follower), |state| async {
        let (chunk, state) = match state {
            Stage::Opening(follower) => (OPENING.to_owned(), Stage::Following(follower)),
            Stage::Following(follower) => follower.next().await,
            Stage::Ended => return None,
        };
        Some((Ok::<_, Infallible>(Bytes::from(chunk)), state))
    });
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Follower {
    /// Waits for lines, and writes them as events.
    async fn next(mut self) -> (String, Stage) {
        loop {
            let page = match self.backlog.take() {
                Some(page) => page,
                None => {
                    self.changes.mark_unchanged();
                    self.app.functions.log_lines(self.from, PAGE, &self.filter)
                }
            };
            self.from = page.next;
            if page.missed > 0 || !page.lines.is_empty() {
                return (events(&page), Stage::Following(self));
            }
            let stopping = self.app.stopping.clone();
            tokio::select! {
                biased;
                () = stopping.cancelled() => {
                    return ("event: end\ndata: {\"reason\":\"shutdown\"}\n\n".to_owned(), Stage::Ended);
                }
                changed = tokio::time::timeout(HEARTBEAT, self.changes.changed()) => match changed {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return (String::new(), Stage::Ended),
                    // A comment, so that both sides notice a dead connection.
                    Err(_) => return (":\n\n".to_owned(), Stage::Following(self)),
                },
            }
        }
    }
}

fn events(page: &LogPage) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail, and every line has a JSON form without line breaks.
    if page.missed > 0 {
        let _ = write!(out, "event: missed\ndata: {{\"lines\":{}}}\n\n", page.missed);
    }
    for line in &page.lines {
        let json = serde_json::to_string(&LineJson::of(line)).unwrap_or_default();
        let _ = write!(out, "id: {}\ndata: {json}\n\n", line.number + 1);
    }
    out
}
