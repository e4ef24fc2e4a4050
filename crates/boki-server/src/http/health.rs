//! How the server is: for load balancers, for scrapers, for people.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use boki_functions::{LATENCY_BOUNDS_US, LimitState, PoolState};
use boki_node::{Durability, Writable};
use bytesize::ByteSize;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::Problem;
use super::request::Query;
use super::{App, json_response};

/// How the server is.
#[derive(Serialize, ToSchema)]
pub(crate) struct StatusJson {
    version: &'static str,
    uptime_ms: u64,
    /// `fsync` or `memory`.
    durability: &'static str,
    /// What an operator should know; empty if all is well.
    warnings: Vec<String>,
    log: LogStatusJson,
    functions: FunctionsStatusJson,
    http: HttpStatusJson,
}

/// How the log is.
#[derive(Serialize, ToSchema)]
pub(crate) struct LogStatusJson {
    /// Whether appends are accepted: `yes`, `disk_full` or `failed`.
    writable: &'static str,
    last_seq: u64,
    books: u64,
    records: u64,
    /// Records appended since this start.
    appended: u64,
    /// Batches made void by a condition, a repeated id or a removed book since this start.
    voided: u64,
    written_bytes: u64,
    /// Groups written since this start: as many disk syncs, with durability `fsync`.
    groups: u64,
    /// Appends that wait for the disk.
    pending: u64,
    /// Reads that wait for a record.
    waiting: u64,
    segments: u64,
    disk_bytes: u64,
    cache_bytes: u64,
    /// Bytes of memory that the index takes.
    index_bytes: u64,
    /// Tables of the index.
    index_tables: u64,
    /// Bytes of them on disk.
    index_table_bytes: u64,
    cache_hits: u64,
    cache_misses: u64,
}

/// How the functions are.
#[derive(Serialize, ToSchema)]
pub(crate) struct FunctionsStatusJson {
    workers: usize,
    running: usize,
    queued: usize,
    /// Calls on record that wait for their turn, in the log.
    backlog: usize,
    calls: u64,
    failures: u64,
    retries: u64,
    /// Worker processes that were started again.
    restarts: u64,
}

/// How the gateway is.
#[derive(Serialize, ToSchema)]
pub(crate) struct HttpStatusJson {
    /// Requests answered since this start.
    requests: u64,
    /// Connections that are open, of both protocols.
    connections: usize,
    connections_limit: usize,
}

impl StatusJson {
    pub(crate) fn version(&self) -> &'static str {
        self.version
    }

    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// In one line, for people.
    pub(crate) fn summary(&self) -> String {
        format!(
            "durability {} · {} records in {} books, last seq {} · {} on disk · {} connections",
            self.durability,
            self.log.records,
            self.log.books,
            self.log.last_seq,
            ByteSize(self.log.disk_bytes),
            self.http.connections
        )
    }
}

fn text(status: StatusCode, body: String, content_type: &'static str) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Alive?
#[utoipa::path(
    get, path = "/healthz", tag = "operation",
    responses((status = 200, description = "The process answers", body = String, content_type = "text/plain"))
)]
pub(crate) async fn healthz() -> Response {
    text(StatusCode::OK, "ok\n".to_owned(), "text/plain; charset=utf-8")
}

/// Ready?
#[utoipa::path(
    get, path = "/readyz", tag = "operation",
    responses(
        (status = 200, description = "Appends and calls are accepted", body = String, content_type = "text/plain"),
        (status = 503, description = "They are not (BK0508)"),
    )
)]
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    if app.stopping.is_cancelled() {
        return Err(Problem::not_ready("the server is shutting down".to_owned()));
    }
    match app.node.status().writable {
        Writable::Yes => Ok(text(StatusCode::OK, "ready\n".to_owned(), "text/plain; charset=utf-8")),
        Writable::DiskFull => Err(Problem::not_ready("the disk is full: appends are refused".to_owned())),
        Writable::Failed { reason } => Err(Problem::not_ready(format!("the log cannot be written: {reason}"))),
    }
}

/// Status
#[utoipa::path(get, path = "/v1/status", operation_id = "get_status", tag = "operation", responses((status = 200, description = "How the server is", body = StatusJson)))]
pub(crate) async fn status(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, Problem> {
    Query::parse(request.uri().query(), &[])?;
    Ok(json_response(StatusCode::OK, &status_of(&app)))
}

pub(crate) fn status_of(app: &App) -> StatusJson {
    let log = app.node.status();
    let functions = app.functions.status();
    let mut warnings = Vec::new();
    if log.durability == Durability::Memory {
        warnings.push("durability is memory: a power cut loses acknowledged records".to_owned());
    }
    let writable = match &log.writable {
        Writable::Yes => "yes",
        Writable::DiskFull => {
            warnings.push("the disk is full: appends are refused".to_owned());
            "disk_full"
        }
        Writable::Failed { reason } => {
            warnings.push(format!("the log cannot be written until a restart: {reason}"));
            "failed"
        }
    };
    warnings.extend(app.versions.warnings());
    StatusJson {
        version: env!("CARGO_PKG_VERSION"),
        uptime_ms: u64::try_from(app.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        durability: match log.durability {
            Durability::Fsync => "fsync",
            Durability::Memory => "memory",
        },
        warnings,
        log: LogStatusJson {
            writable,
            last_seq: log.last_seq,
            books: log.books,
            records: log.records,
            appended: log.appended,
            voided: log.voided,
            written_bytes: log.written_bytes,
            groups: log.groups,
            pending: log.pending,
            waiting: log.waiting,
            segments: log.segments,
            disk_bytes: log.disk_bytes,
            cache_bytes: log.cache_bytes,
            index_bytes: log.index_bytes,
            index_tables: log.index_tables,
            index_table_bytes: log.index_table_bytes,
            cache_hits: log.cache_hits,
            cache_misses: log.cache_misses,
        },
        functions: FunctionsStatusJson {
            workers: functions.workers,
            running: functions.running,
            queued: functions.queued,
            backlog: functions.backlog,
            calls: functions.calls,
            failures: functions.failures,
            retries: functions.retries,
            restarts: functions.restarts,
        },
        http: HttpStatusJson {
            requests: app.counters.requests.iter().map(|count| count.load(Ordering::Relaxed)).sum(),
            connections: app.door.open(),
            connections_limit: app.door.limit(),
        },
    }
}

/// Metrics
///
/// In Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", operation_id = "get_metrics", tag = "operation",
    responses((status = 200, description = "The metrics", body = String, content_type = "text/plain"))
)]
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    text(StatusCode::OK, metrics_of(&app), "text/plain; version=0.0.4; charset=utf-8")
}

/// What is told of each limit: name, help, kind and value.
type LimitMetric = (&'static str, &'static str, &'static str, fn(&LimitState) -> u64);

const LIMIT_METRICS: [LimitMetric; 3] = [
    ("boki_limit_running", "Attempts that run, of those a limit matches.", "gauge", |limit| limit.running),
    ("boki_limit_queued", "Attempts that wait, of those a limit matches.", "gauge", |limit| limit.waiting),
    ("boki_limit_throttled_total", "Attempts that found a limit used up.", "counter", |limit| limit.throttled),
];

fn metrics_of(app: &App) -> String {
    let mut out = Exposition(String::with_capacity(4096));
    let log = app.node.status();
    out.counter("boki_log_appended_records_total", "Records appended.", log.appended);
    out.counter(
        "boki_log_voided_batches_total",
        "Batches made void by a condition, an id or a removed book.",
        log.voided,
    );
    out.counter("boki_log_written_bytes_total", "Bytes written to the log.", log.written_bytes);
    out.counter("boki_log_groups_total", "Groups written, each with one disk sync.", log.groups);
    out.counter("boki_log_cache_hits_total", "Records read from memory.", log.cache_hits);
    out.counter("boki_log_cache_misses_total", "Records read from disk.", log.cache_misses);
    out.gauge("boki_log_last_seq", "Seq of the last ordered record.", log.last_seq);
    out.gauge("boki_log_books", "Books.", log.books);
    out.gauge("boki_log_records", "Live records.", log.records);
    out.gauge("boki_log_pending_appends", "Appends that wait for the disk.", log.pending);
    out.gauge("boki_log_waiting_reads", "Reads that wait for a record.", log.waiting);
    out.gauge("boki_retention_books", "Books with rules of retention.", log.retention_books);
    out.counter("boki_retention_trims_total", "Trims that the rules of books asked for.", log.retention_trims);
    out.counter(
        "boki_retention_failed_total",
        "Those that could not be made, and are tried again.",
        log.retention_failed,
    );
    out.gauge("boki_log_segments", "Segment files.", log.segments);
    out.gauge("boki_log_disk_bytes", "Bytes of segment files.", log.disk_bytes);
    out.gauge("boki_log_cache_bytes", "Bytes of records in memory.", log.cache_bytes);
    out.gauge("boki_log_index_bytes", "Bytes of memory that the index takes.", log.index_bytes);
    out.gauge("boki_log_index_tables", "Tables of the index.", log.index_tables);
    out.gauge("boki_log_index_table_bytes", "Bytes of the index's tables on disk.", log.index_table_bytes);
    out.counter("boki_log_index_merges_total", "Merges of the index's tables.", log.index_merges);
    out.gauge("boki_log_writable", "1 if appends are accepted.", u64::from(log.writable == Writable::Yes));
    out.gauge(
        "boki_log_durable",
        "1 if nothing is acknowledged before it is on disk.",
        u64::from(log.durability == Durability::Fsync),
    );

    let functions = app.functions.status();
    out.counter("boki_calls_failed_total", "Calls that ended with an error.", functions.failures);
    out.counter("boki_calls_recorded_total", "Calls put on record.", functions.recorded);
    out.counter("boki_call_retries_total", "Attempts after a call's first.", functions.retries);
    out.counter("boki_call_stray_answers_total", "Answers for which nobody waited.", functions.stray_answers);
    out.counter("boki_worker_restarts_total", "Worker processes that ended unasked.", functions.restarts);
    out.counter("boki_worker_recycled_total", "Worker processes replaced for their calls or age.", functions.recycled);
    out.counter("boki_worker_stuck_total", "Workers that left a given-up call unanswered.", functions.stuck);
    out.counter("boki_worker_oom_kills_total", "Worker processes killed for their memory.", functions.oom_kills);
    out.counter("boki_worker_dropped_lines_total", "Lines of workers that log too much.", functions.dropped_lines);
    let pools = app.functions.pools();
    let processes = pools.iter().map(|pool| pool.processes.len()).sum::<usize>();
    let failing = pools.iter().filter(|pool| pool.state == PoolState::Failing).count();
    out.gauge("boki_worker_processes", "Processes of all worker pools.", processes as u64);
    out.gauge("boki_worker_pools_failing", "Worker pools that start no process that serves.", failing as u64);
    out.gauge("boki_workers", "Connected workers.", functions.workers as u64);
    out.gauge("boki_calls_running", "Attempts that run.", functions.running as u64);
    out.gauge("boki_calls_queued", "Attempts that wait for a worker.", functions.queued as u64);
    out.gauge("boki_streams", "Outputs that are being passed on piece by piece.", functions.streams);
    out.gauge(
        "boki_stream_peak_bytes",
        "Most bytes of any one output that ever waited for its reader.",
        functions.stream_peak_bytes,
    );
    out.gauge("boki_calls_backlog", "Calls on record that wait for their turn.", functions.backlog as u64);
    let limits = app.functions.limits();
    for (name, help, kind, value) in LIMIT_METRICS {
        if !limits.is_empty() {
            out.head(name, help, kind);
        }
        for limit in &limits {
            // A name has no character that would have to be escaped.
            out.line(&format!("{name}{{limit=\"{}\"}}", limit.limit.name), value(limit));
        }
    }
    out.head("boki_call_duration_seconds", "How long calls took.", "histogram");
    let mut below = 0;
    for (at, count) in functions.latencies.buckets.iter().enumerate() {
        below += count;
        let bound = LATENCY_BOUNDS_US.get(at).map_or("+Inf".to_owned(), |us| (*us as f64 / 1e6).to_string());
        out.line(&format!("boki_call_duration_seconds_bucket{{le=\"{bound}\"}}"), below);
    }
    out.line("boki_call_duration_seconds_sum", functions.latencies.sum_us as f64 / 1e6);
    out.line("boki_call_duration_seconds_count", below);

    let (done, failed) = app.versions.counts();
    out.counter("boki_deploys_total", "Versions that became active.", done);
    out.counter("boki_deploys_failed_total", "Deploys after which the old version went on.", failed);
    out.head("boki_app_version", "The active version of an app.", "gauge");
    for picture in app.versions.apps() {
        if let Some(version) = picture.active {
            out.line(&format!("boki_app_version{{app=\"{}\"}}", picture.app), version);
        }
    }

    out.head("boki_http_requests_total", "Requests answered.", "counter");
    for (class, count) in app.counters.requests.iter().enumerate() {
        out.line(&format!("boki_http_requests_total{{status=\"{}xx\"}}", class + 1), count.load(Ordering::Relaxed));
    }
    out.counter("boki_connections_refused_total", "Connections above the limit.", app.door.refused());
    out.gauge("boki_connections", "Open connections of both protocols.", app.door.open() as u64);
    out.line_with_head("boki_uptime_seconds", "Since the start.", "gauge", app.started.elapsed().as_secs_f64());
    out.head("boki_build_info", "The version.", "gauge");
    out.line(concat!("boki_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1);
    out.0
}

/// Prometheus' text format. Writing to a string cannot fail.
struct Exposition(String);

impl Exposition {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn line_with_head(&mut self, name: &str, help: &str, kind: &str, value: impl std::fmt::Display) {
        self.head(name, help, kind);
        self.line(name, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.line_with_head(name, help, "counter", value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.line_with_head(name, help, "gauge", value);
    }
}
