//! What a request gets that cannot be served: an RFC 9457 problem with a stable code, what happened to
//! which thing, and the next command to run.
//!
//! This is the one place where an error of the log or of a call becomes an HTTP status.

use std::fmt::Write as _;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use boki_functions::{CallError, LimitError};
use boki_log::error::Retry;
use boki_log::{LogError, Position};
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use serde_json::{Map, Value, json};

use super::session::POSITION;
use crate::codes;

/// A request that cannot be served, and why.
#[derive(Debug)]
pub(crate) struct Problem(Box<Parts>);

#[derive(Debug)]
struct Parts {
    code: &'static str,
    status: StatusCode,
    detail: String,
    next: String,
    retry: Retry,
    fields: Map<String, Value>,
    position: Option<Position>,
}

impl Problem {
    pub(crate) fn new(code: &'static str, status: StatusCode, detail: String, next: impl Into<String>) -> Problem {
        Problem(Box::new(Parts {
            code,
            status,
            detail,
            next: next.into(),
            retry: Retry::Never,
            fields: Map::new(),
            position: None,
        }))
    }

    /// Adds a field that a program can read.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Problem {
        self.0.fields.insert(name.to_owned(), value.into());
        self
    }

    fn retry(mut self, retry: Retry) -> Problem {
        self.0.retry = retry;
        self
    }

    /// What the caller has seen although its request failed.
    pub(crate) fn at(mut self, position: Option<Position>) -> Problem {
        self.0.position = position;
        self
    }

    // Of the gateway itself.

    pub(crate) fn no_route(path: &str) -> Problem {
        let detail = format!("there is nothing at {path}");
        Problem::new(codes::NO_ROUTE, StatusCode::NOT_FOUND, detail, "GET /openapi.json lists what there is")
            .with("path", path)
    }

    pub(crate) fn method_not_allowed(method: &str, path: &str) -> Problem {
        let detail = format!("{path} does not take {method}");
        Problem::new(
            codes::METHOD_NOT_ALLOWED,
            StatusCode::METHOD_NOT_ALLOWED,
            detail,
            "the header Allow lists the methods it takes",
        )
        .with("method", method)
        .with("path", path)
    }

    pub(crate) fn invalid_body(detail: String) -> Problem {
        let next = "send JSON as in /openapi.json, or raw bytes with Content-Type: application/octet-stream";
        Problem::new(codes::INVALID_BODY, StatusCode::BAD_REQUEST, detail, next)
    }

    pub(crate) fn invalid_query(parameter: Option<&str>, detail: String) -> Problem {
        let problem = Problem::new(
            codes::INVALID_QUERY,
            StatusCode::BAD_REQUEST,
            detail,
            "GET /openapi.json lists the parameters",
        );
        match parameter {
            Some(parameter) => problem.with("parameter", parameter),
            None => problem,
        }
    }

    pub(crate) fn invalid_header(header: &str, expected: &str) -> Problem {
        let detail = format!("the header {header} must be {expected}");
        Problem::new(
            codes::INVALID_HEADER,
            StatusCode::BAD_REQUEST,
            detail,
            format!("send {header} as {expected}, or leave it out"),
        )
        .with("header", header)
    }

    pub(crate) fn body_too_large(limit: usize) -> Problem {
        let detail = format!("the request's body is larger than the limit of {limit} bytes");
        let next = "send less, or raise limits.http_body in boki.toml";
        Problem::new(codes::BODY_TOO_LARGE, StatusCode::PAYLOAD_TOO_LARGE, detail, next).with("limit", limit)
    }

    pub(crate) fn body_cut_short() -> Problem {
        let detail = "the request's body ended before it was complete".to_owned();
        Problem::new(codes::INVALID_BODY, StatusCode::BAD_REQUEST, detail, "send it again")
    }

    pub(crate) fn too_many_connections(limit: u32) -> Problem {
        let detail = format!("{limit} connections are open, as many as are allowed");
        let next = "use fewer connections, or raise limits.connections in boki.toml";
        Problem::new(codes::TOO_MANY_CONNECTIONS, StatusCode::SERVICE_UNAVAILABLE, detail, next)
            .with("limit", limit)
            .retry(Retry::Later)
    }

    pub(crate) fn not_ready(detail: String) -> Problem {
        Problem::new(codes::NOT_READY, StatusCode::SERVICE_UNAVAILABLE, detail, "GET /v1/status says more")
            .retry(Retry::Later)
    }

    pub(crate) fn other_origin(origin: &str) -> Problem {
        let detail = format!("a web page of {origin} may not use this server");
        let next = "call it from a program, or from a page that this server serves";
        Problem::new(codes::OTHER_ORIGIN, StatusCode::FORBIDDEN, detail, next).with("origin", origin)
    }

    pub(crate) fn bad_response(what: &str) -> Problem {
        let detail = format!("the function's response is not HTTP: {what}");
        let next = "look at the function: what it gives as status and headers is sent as it is";
        Problem::new(codes::BAD_RESPONSE, StatusCode::BAD_GATEWAY, detail, next)
    }

    pub(crate) fn no_such_code(code: &str) -> Problem {
        let detail = format!("there is no error code {code}");
        Problem::new(codes::NO_ROUTE, StatusCode::NOT_FOUND, detail, "look at the `code` of the problem that you got")
    }

    /// Of the log, about `book`.
    pub(crate) fn of_log(error: &LogError, book: &str) -> Problem {
        let status = match error {
            LogError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            LogError::BookNotFound { .. } | LogError::NoSuchRecord { .. } => StatusCode::NOT_FOUND,
            LogError::BookExists { .. } | LogError::ConditionFailed { .. } | LogError::Fenced { .. } => {
                StatusCode::CONFLICT
            }
            LogError::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
            LogError::Overloaded { .. } | LogError::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            LogError::WriteFailed { .. }
            | LogError::ReadFailed { .. }
            | LogError::IndexUnreadable { .. }
            | LogError::IndexFailed { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        let next = match error {
            LogError::BookNotFound { name } => format!("boki books new {}", shell_word(name)),
            LogError::BookExists { .. } => "boki books ls".to_owned(),
            LogError::ConditionFailed { tag, .. } => {
                format!("boki log read --book {} --tag {}", shell_word(book), shell_word(tag.as_str()))
            }
            LogError::Fenced { .. } => {
                "stop: a later owner has taken over; take a higher epoch only as the new owner".to_owned()
            }
            LogError::TooLarge { .. } => "boki config show".to_owned(),
            LogError::DiskFull => "df -h, make room, then repeat the request".to_owned(),
            LogError::WriteFailed { .. } | LogError::IndexFailed { .. } => {
                "restart the server, then repeat the request with the same id".to_owned()
            }
            LogError::ReadFailed { .. } | LogError::NoSuchRecord { .. } => {
                format!("boki log tail --book {}", shell_word(book))
            }
            LogError::Overloaded { .. } => "repeat the request after a pause".to_owned(),
            LogError::ShuttingDown => "repeat the request with the same id once the server is back".to_owned(),
            LogError::InvalidRetention { .. } => "boki retention set --help".to_owned(),
            LogError::DurableWithConditions => "leave out ack, or the conditions".to_owned(),
            _ => format!("GET /errors/{}", error.code()),
        };
        let mut problem = Problem::new(error.code(), status, error.to_string(), next).retry(error.retry());
        let fields = &mut problem.0.fields;
        let mut add = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        match error {
            LogError::ConditionFailed { tag, expected, actual } => {
                add("tag", tag.as_str().into());
                add("expected", expected.0.into());
                add("actual", actual.0.into());
            }
            LogError::Fenced { tag, epoch, fence } => {
                add("tag", tag.as_str().into());
                add("epoch", (*epoch).into());
                add("fence", (*fence).into());
            }
            LogError::TooLarge { what, actual, limit } => {
                add("what", (*what).into());
                add("actual", (*actual).into());
                add("limit", (*limit).into());
            }
            LogError::BookNotFound { name }
            | LogError::BookExists { name }
            | LogError::InvalidBookName { name, .. } => {
                add("book", name.as_str().into());
            }
            LogError::ReservedTag { tag } => {
                add("tag", tag.as_str().into());
            }
            LogError::NoSuchRecord { seq } | LogError::ReadFailed { seq, .. } => {
                add("seq", seq.0.into());
            }
            LogError::InvalidRetention { of, reason } => {
                add("of", of.as_str().into());
                add("reason", (*reason).into());
            }
            LogError::InvalidArgument { argument, .. } => {
                add("argument", (*argument).into());
            }
            _ => {}
        }
        problem
    }

    /// Of a call, made in `book`.
    /// A limit that was not set or removed.
    pub(crate) fn of_limit(error: &LimitError) -> Problem {
        if let LimitError::Log(error) = error {
            return Problem::of_log(error, "");
        }
        let (status, next) = match error {
            LimitError::NotFound { .. } => (StatusCode::NOT_FOUND, "boki limits ls"),
            LimitError::Configured { .. } => (StatusCode::CONFLICT, "edit boki.toml, or set another in its place"),
            LimitError::TooMany { .. } => (StatusCode::CONFLICT, "boki limits rm one that is not needed"),
            _ => (StatusCode::BAD_REQUEST, "boki limits set --help"),
        };
        let mut problem = Problem::new(error.code(), status, error.to_string(), next).retry(error.retry());
        problem.0.fields.extend(error.details());
        problem
    }

    pub(crate) fn of_call(error: &CallError, book: &str) -> Problem {
        if let CallError::Log(error) = error {
            return Problem::of_log(error, book);
        }
        let (status, next) = match error {
            CallError::FunctionNotFound { .. } => (StatusCode::NOT_FOUND, "boki functions ls".to_owned()),
            CallError::FunctionFailed { .. } => {
                (StatusCode::INTERNAL_SERVER_ERROR, "look at the function's message and at its logs".to_owned())
            }
            CallError::WorkerLost { .. } => (
                StatusCode::BAD_GATEWAY,
                "look at the worker's output, then repeat the call with an Idempotency-Key".to_owned(),
            ),
            CallError::DeadlineExceeded { .. } => {
                (StatusCode::GATEWAY_TIMEOUT, "repeat the call with a longer Boki-Timeout, or send it".to_owned())
            }
            CallError::PoolFailing { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "look at the worker's last lines, and at its command".to_owned())
            }
            CallError::Overloaded { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "repeat the call after a pause".to_owned())
            }
            CallError::LimitReached { .. } => {
                (StatusCode::TOO_MANY_REQUESTS, "boki limits ls; repeat the call after a pause".to_owned())
            }
            CallError::NestedTooDeep { .. } => {
                (StatusCode::LOOP_DETECTED, "look at the chain of functions: one calls itself without end".to_owned())
            }
            CallError::WaitsForItself { .. } => (StatusCode::LOOP_DETECTED, "boki limits ls".to_owned()),
            CallError::Cancelled { .. } => (StatusCode::CONFLICT, "call it again".to_owned()),
            CallError::KeyReused { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "use another Idempotency-Key".to_owned()),
            CallError::PayloadTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "boki config show".to_owned()),
            CallError::PayloadDamaged { .. } => {
                (StatusCode::INTERNAL_SERVER_ERROR, "check the disk, then call it again with another key".to_owned())
            }
            CallError::PayloadUnavailable { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "look at the server's log, then repeat the call".to_owned())
            }
            CallError::BodyCutShort { what: "input" } => (StatusCode::BAD_REQUEST, "send it again".to_owned()),
            CallError::BodyCutShort { .. } => (StatusCode::BAD_GATEWAY, "call it again".to_owned()),
            CallError::InputGone { .. } => {
                (StatusCode::BAD_GATEWAY, "look at the worker's output, then send it again".to_owned())
            }
            CallError::InputTooSlow { .. } => {
                (StatusCode::REQUEST_TIMEOUT, "send it faster, or with a longer Boki-Timeout".to_owned())
            }
            CallError::CallNotFound { .. } => {
                (StatusCode::NOT_FOUND, "ask with ?book= for the book that the call was sent in".to_owned())
            }
            CallError::ShuttingDown => {
                (StatusCode::SERVICE_UNAVAILABLE, "repeat the call once the server is back".to_owned())
            }
            _ => (StatusCode::BAD_REQUEST, format!("GET /errors/{}", error.code())),
        };
        let mut problem =
            Problem::new(error.code(), status, error.to_string(), next).retry(error.retry()).at(error.position());
        let fields = &mut problem.0.fields;
        let mut add = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        match error {
            CallError::FunctionFailed { function, code, message, retryable, attempts, .. } => {
                add("function", (**function).into());
                if !code.is_empty() {
                    add("function_code", (**code).into());
                }
                add("message", (**message).into());
                add("retryable", (*retryable).into());
                add("attempts", (*attempts).into());
            }
            CallError::FunctionNotFound { function }
            | CallError::InputGone { function }
            | CallError::InputTooSlow { function } => {
                add("function", (**function).into());
            }
            CallError::LimitReached { limit, queue } => {
                add("limit", (**limit).into());
                add("queue", (*queue).into());
            }
            CallError::NestedTooDeep { function, limit, chain } => {
                add("function", (**function).into());
                add("limit", (*limit).into());
                add("chain", (**chain).into());
            }
            CallError::WaitsForItself { function, what } => {
                add("function", (**function).into());
                add("what", (**what).into());
            }
            CallError::PoolFailing { function, why } => {
                add("function", (**function).into());
                add("pool", (*why.pool).into());
                add("lines", why.lines.iter().map(|line| &**line).collect());
            }
            CallError::WorkerLost { function, attempts, reason } => {
                add("function", (**function).into());
                if !reason.is_empty() {
                    add("reason", (**reason).into());
                }
                add("attempts", (*attempts).into());
            }
            CallError::DeadlineExceeded { function, id } => {
                add("function", (**function).into());
                add("call", id.to_string().into());
            }
            CallError::Cancelled { id } | CallError::CallNotFound { id } => {
                add("call", id.to_string().into());
            }
            CallError::KeyReused { function, key } => {
                add("function", (**function).into());
                add("key", (**key).into());
            }
            CallError::PayloadDamaged { what, reason } | CallError::PayloadUnavailable { what, reason } => {
                add("what", (*what).into());
                add("reason", (**reason).into());
            }
            CallError::PayloadTooLarge { what, actual, limit } => {
                add("what", (*what).into());
                add("actual", (*actual).into());
                add("limit", (*limit).into());
            }
            CallError::BodyCutShort { what } => {
                add("what", (*what).into());
            }
            CallError::Overloaded { limit, .. } => {
                add("limit", (*limit).into());
            }
            _ => {}
        }
        problem
    }

    /// The body.
    pub(crate) fn to_json(&self) -> Value {
        let parts = &*self.0;
        let mut body = json!({
            "type": format!("/errors/{}", parts.code),
            "title": codes::title(parts.code),
            "status": parts.status.as_u16(),
            "detail": parts.detail,
            "code": parts.code,
            "next": parts.next,
            "retry": match parts.retry {
                Retry::Never => "never",
                Retry::Later => "later",
                Retry::WithSameId => "with_same_id",
            },
        });
        if let Value::Object(body) = &mut body {
            // A field of an error never replaces one of the standard's.
            for (name, value) in &parts.fields {
                body.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        body
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_json().to_string()));
        let parts = *self.0;
        *response.status_mut() = parts.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(position) = parts.position {
            headers.insert(POSITION, HeaderValue::from(position.0.0));
        }
        if parts.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// `text` as one word of a shell command.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut word = String::with_capacity(text.len() + 2);
    // Writing to a string cannot fail.
    let _ = write!(word, "'{}'", text.replace('\'', r"'\''"));
    word
}

#[cfg(test)]
mod tests {
    use boki_log::{Seq, Tag};

    use super::*;

    #[test]
    fn a_failed_condition_says_what_the_tail_is() {
        let error = LogError::ConditionFailed { tag: Tag::new("it's").unwrap(), expected: Seq(7), actual: Seq(9) };
        let body = Problem::of_log(&error, "shop").to_json();
        assert_eq!(body["code"], "BK0201");
        assert_eq!(body["type"], "/errors/BK0201");
        assert_eq!(body["status"], 409);
        assert_eq!((&body["tag"], &body["expected"], &body["actual"]), (&json!("it's"), &json!(7), &json!(9)));
        assert_eq!(body["next"], r"boki log read --book shop --tag 'it'\''s'");
        assert_eq!(body["retry"], "never");
    }
}
