//! Calling functions, and looking at calls and functions.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use boki_functions::{Call, CallError, CallId, CallReply};
use boki_log::Position;
use boki_wire::calls::{DEFAULT_PRIORITY, MAX_PRIORITY};
use hyper::header::{HeaderValue, LOCATION};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::forward::{head_of, input_of, respond};
use super::problem::Problem;
use super::request::{PathOf, Query, media_type, text_header};
use super::schema::RawBytes;
use super::session::{position_of, set_position};
use super::{App, json_response};
use crate::config::Span;

/// The book of calls that name none.
pub(crate) const DEFAULT_BOOK: &str = "default";

const JSON: &str = "application/json";

/// A call that is on record.
#[derive(Serialize, ToSchema)]
pub(crate) struct SentJson {
    /// Its id.
    call: String,
    /// Position of one who has seen that it is on record.
    position: u64,
}

/// What is known of a call.
#[derive(Serialize, ToSchema)]
pub(crate) struct CallJson {
    call: String,
    function: String,
    /// When it was put on record, in microseconds since 1970.
    accepted_us: u64,
    /// `pending`, `succeeded` or `failed`.
    state: &'static str,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<serde_json::Value>,
}

/// A call without a result as yet.
#[derive(Serialize, ToSchema)]
pub(crate) struct PendingJson {
    call: String,
    /// `pending`.
    state: &'static str,
}

/// All functions.
#[derive(Serialize, ToSchema)]
pub(crate) struct FunctionsJson {
    functions: Vec<FunctionJson>,
}

/// A function.
#[derive(Serialize, ToSchema)]
pub(crate) struct FunctionJson {
    name: String,
    description: String,
    /// How many connected workers offer it.
    workers: usize,
    /// Calls of it that run now.
    running: usize,
    /// Calls of it that wait for a worker.
    queued: usize,
    /// How long a call may take unless the caller says otherwise, in milliseconds.
    timeout_ms: u64,
    /// How often a call is tried at most.
    attempts: u32,
}

/// Call
///
/// Runs a function and waits for its result. Bytes in, bytes out: the body and its content type go to the function as
/// they are (JSON, if the type is missing or is curl's default), and the function's come back. With an
/// `Idempotency-Key` the call is on record and runs to its end whatever crashes, and the same key always gets the same result.
#[utoipa::path(
    post, path = "/call/{function}", tag = "functions",
    params(
        ("function" = String, Path, description = "Name of the function"),
        ("Idempotency-Key" = Option<String>, Header, description = "Calls with the same key are one call"),
        ("Boki-Book" = Option<String>, Header, description = "The book it works in; `default` unless given"),
        ("Boki-Position" = Option<u64>, Header, description = "Position of the session"),
        ("Boki-Timeout" = Option<String>, Header, description = "How long to wait for the result: 30s"),
        ("Boki-Priority" = Option<u8>, Header, description = "0 to 9, the higher the sooner; 5 unless given"),
        ("Boki-Limit-Key" = Option<String>, Header, description = "For whom it is: limits and fairness hold per such key"),
    ),
    request_body(content((serde_json::Value = "application/json"), (RawBytes = "application/octet-stream"))),
    responses(
        (status = 200, description = "What the function returned", content(
            (serde_json::Value = "application/json"), (RawBytes = "application/octet-stream"),
        )),
        (status = 404, description = "No worker offers the function (BK0401)"),
        (status = 500, description = "The function failed (BK0402)"),
        (status = 502, description = "Its workers were lost (BK0403)"),
        (status = 504, description = "There was no result in time (BK0404)"),
    )
)]
pub(crate) async fn call(
    State(app): State<Arc<App>>,
    PathOf(function): PathOf<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    Query::parse(parts.uri.query(), &[])?;
    let book = book_header(&parts.headers)?;
    let call = call_of(&app, &function, book, &parts, body).await?;
    let before = call.position;
    match app.functions.call(call).await {
        Ok(reply) => respond(reply, before),
        Err(error) => {
            let position = before.max(error.position().unwrap_or(before));
            Err(Problem::of_call(&error, book).at(Some(position)))
        }
    }
}

/// Send
///
/// Puts a call on record, so that it runs to its end whatever crashes, and does not wait for it.
#[utoipa::path(
    post, path = "/send/{function}", tag = "functions",
    params(
        ("function" = String, Path, description = "Name of the function"),
        ("Idempotency-Key" = Option<String>, Header, description = "Calls with the same key are one call"),
        ("Boki-Book" = Option<String>, Header, description = "The book it works in; `default` unless given"),
        ("Boki-Position" = Option<u64>, Header, description = "Position of the session"),
        ("Boki-Timeout" = Option<String>, Header, description = "How long it may take in all; no limit unless given"),
        ("Boki-Priority" = Option<u8>, Header, description = "0 to 9, the higher the sooner; 5 unless given"),
        ("Boki-Limit-Key" = Option<String>, Header, description = "For whom it is: limits and fairness hold per such key"),
    ),
    request_body(content((serde_json::Value = "application/json"), (RawBytes = "application/octet-stream"))),
    responses((status = 202, description = "It is on record", body = SentJson))
)]
pub(crate) async fn send(
    State(app): State<Arc<App>>,
    PathOf(function): PathOf<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    Query::parse(parts.uri.query(), &[])?;
    let book = book_header(&parts.headers)?;
    let call = call_of(&app, &function, book, &parts, body).await?;
    let before = call.position;
    let sent = app.functions.send(call).await.map_err(|error| Problem::of_call(&error, book))?;
    let body = SentJson { call: sent.id.to_string(), position: sent.position.0.0 };
    let mut response = json_response(StatusCode::ACCEPTED, &body);
    let mut location = format!("/v1/calls/{}", sent.id);
    if book != DEFAULT_BOOK {
        // A name has no character that would have to be encoded.
        location.extend(["?book=", book]);
    }
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    set_position(&mut response, before, sent.position);
    Ok(response)
}

fn book_header(headers: &HeaderMap) -> Result<&str, Problem> {
    Ok(text_header(headers, "boki-book")?.unwrap_or(DEFAULT_BOOK))
}

async fn call_of(app: &App, function: &str, book: &str, parts: &Parts, body: Body) -> Result<Call, Problem> {
    let headers = &parts.headers;
    let deadline = match text_header(headers, "boki-timeout")? {
        None => None,
        Some(text) => match text.parse::<Span>() {
            Ok(Span(timeout)) if !timeout.is_zero() => Some(timeout),
            _ => return Err(Problem::invalid_header("Boki-Timeout", "a duration with a unit, such as 30s")),
        },
    };
    let priority = match text_header(headers, "boki-priority")? {
        None => DEFAULT_PRIORITY,
        Some(text) => match text.parse() {
            Ok(priority) if priority <= MAX_PRIORITY => priority,
            _ => return Err(Problem::invalid_header("Boki-Priority", "a number from 0 to 9")),
        },
    };
    let content_type = match &*media_type(headers) {
        "" | "application/x-www-form-urlencoded" => JSON,
        _ => text_header(headers, "content-type")?.unwrap_or(JSON),
    };
    Ok(Call {
        function: function.into(),
        content_type: content_type.into(),
        book: app.book(book)?.id,
        position: position_of(headers)?,
        idempotency_key: text_header(headers, "idempotency-key")?.map(Arc::from),
        deadline,
        priority,
        limit_key: text_header(headers, "boki-limit-key")?.map(Arc::from),
        parent: None,
        input: input_of(body, app.stream_limit).await?,
        http: Some(head_of(parts, "/")),
    })
}

/// The call that `parameter` names.
pub(crate) fn call_id(parameter: &str, id: &str) -> Result<CallId, Problem> {
    id.parse().map_err(|_| {
        Problem::invalid_query(Some(parameter), format!("{id:?} is not a call's id, which has 32 hexadecimal digits"))
    })
}

/// The call and the book that a request about a call names.
fn call_and_book(id: &str, query: &Query<'_>) -> Result<(CallId, String), Problem> {
    Ok((call_id("id", id)?, query.get("book")?.unwrap_or(DEFAULT_BOOK).to_owned()))
}

/// One call
#[utoipa::path(
    get, path = "/v1/calls/{id}", operation_id = "get_call", tag = "functions",
    params(
        ("id" = String, Path, description = "The call"),
        ("book" = Option<String>, Query, description = "The book it was sent in; `default` unless given"),
    ),
    responses(
        (status = 200, description = "What is known of it", body = CallJson),
        (status = 404, description = "It is not on record, or no longer (BK0409)"),
    )
)]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    PathOf(id): PathOf<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let query = Query::parse(request.uri().query(), &["book"])?;
    let (id, book) = call_and_book(&id, &query)?;
    let status =
        app.functions.call_status(app.book(&book)?.id, id).await.map_err(|error| Problem::of_call(&error, &book))?;
    let (state, problem) = match &status.result {
        None => ("pending", None),
        Some(Ok(_)) => ("succeeded", None),
        Some(Err(error)) => ("failed", Some(Problem::of_call(error, &book).to_json())),
    };
    let body = CallJson {
        call: status.id.to_string(),
        function: status.function.to_string(),
        accepted_us: status.accepted_us,
        state,
        problem,
    };
    Ok(json_response(StatusCode::OK, &body))
}

/// A call's result
///
/// As `/call` would have answered.
#[utoipa::path(
    get, path = "/v1/calls/{id}/result", operation_id = "get_call_result", tag = "functions",
    params(
        ("id" = String, Path, description = "The call"),
        ("book" = Option<String>, Query, description = "The book it was sent in; `default` unless given"),
        ("wait" = Option<String>, Query, description = "If there is none yet, wait this long for it: 30s"),
    ),
    responses(
        (status = 200, description = "What the function returned", content(
            (serde_json::Value = "application/json"), (RawBytes = "application/octet-stream"),
        )),
        (status = 202, description = "There is none yet", body = PendingJson),
        (status = 404, description = "It is not on record, or no longer (BK0409)"),
    )
)]
pub(crate) async fn result(
    State(app): State<Arc<App>>,
    PathOf(id): PathOf<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let query = Query::parse(parts.uri.query(), &["book", "wait"])?;
    let before = position_of(&parts.headers)?;
    let (id, book) = call_and_book(&id, &query)?;
    let found = app.functions.result(app.book(&book)?.id, id, query.wait()?).await;
    answer_of(found, id, &book, before)
}

fn answer_of(
    found: Result<Option<CallReply>, CallError>,
    id: CallId,
    book: &str,
    before: Position,
) -> Result<Response, Problem> {
    match found {
        Ok(Some(reply)) => respond(reply, before),
        Ok(None) => Ok(json_response(StatusCode::ACCEPTED, &PendingJson { call: id.to_string(), state: "pending" })),
        Err(error) => Err(Problem::of_call(&error, book)),
    }
}

/// Cancel a call
///
/// Ends it unless it has a result already, which is then returned. The cancellation is on record before this is answered.
#[utoipa::path(
    post, path = "/v1/calls/{id}/cancel", operation_id = "cancel_call", tag = "functions",
    params(
        ("id" = String, Path, description = "The call"),
        ("book" = Option<String>, Query, description = "The book it was sent in; `default` unless given"),
    ),
    responses(
        (status = 200, description = "It had returned this already", content(
            (serde_json::Value = "application/json"), (RawBytes = "application/octet-stream"),
        )),
        (status = 204, description = "It is cancelled"),
        (status = 404, description = "It is not on record, or no longer (BK0409)"),
    )
)]
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    PathOf(id): PathOf<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let query = Query::parse(parts.uri.query(), &["book"])?;
    let before = position_of(&parts.headers)?;
    let (id, book) = call_and_book(&id, &query)?;
    match app.functions.cancel(app.book(&book)?.id, id).await {
        Ok(None) => Ok(StatusCode::NO_CONTENT.into_response()),
        found => answer_of(found, id, &book, before),
    }
}

/// List functions
#[utoipa::path(
    get, path = "/v1/functions", operation_id = "list_functions", tag = "functions",
    responses((status = 200, description = "Those that connected workers offer", body = FunctionsJson))
)]
pub(crate) async fn list(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, Problem> {
    Query::parse(request.uri().query(), &[])?;
    let functions = app
        .functions
        .list()
        .into_iter()
        .map(|function| FunctionJson {
            name: function.name.to_string(),
            description: function.description.to_string(),
            workers: function.workers,
            running: function.running,
            queued: function.queued,
            timeout_ms: u64::try_from(function.timeout.as_millis()).unwrap_or(u64::MAX),
            attempts: function.max_attempts,
        })
        .collect();
    Ok(json_response(StatusCode::OK, &FunctionsJson { functions }))
}
