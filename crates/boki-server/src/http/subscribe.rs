//! A subscription: an endless read as server-sent events.
//!
//! Each event is one record as JSON; its id is where to resume, so a client that reconnects with
//! `Last-Event-ID` misses nothing and sees nothing twice. Nothing is read ahead of what the client takes: at most one page
//! is in memory. When there is nothing to send, a comment goes out now and then so that both sides notice a dead
//! connection. `event: end` says that the server ends the stream on purpose, `event: error` that it must (its data
//! is a problem).

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use boki_log::op::{Consistency, Read};
use boki_log::{LogError, Record, Seq};
use bytes::Bytes;
use futures_util::stream::unfold;
use hyper::HeaderMap;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};

use super::App;
use super::problem::Problem;
use super::read::HEARTBEAT;
use super::render::RecordJson;
use super::request::text_header;

/// Most records that one page of a subscription holds.
const PAGE: u32 = 256;

/// What goes out first: how soon to reconnect, in milliseconds. It also gets the headers on their way.
const OPENING: &str = "retry: 1000\n\n";

/// Between two polls of the body.
enum State {
    Opening(Cursor),
    Reading(Cursor),
    Ended,
}

struct Cursor {
    app: Arc<App>,
    book: String,
    read: Read,
}

/// Answers with the records from `read.from` (or where `Last-Event-ID` says) on.
pub(crate) fn subscribe(app: Arc<App>, book: String, mut read: Read, headers: &HeaderMap) -> Result<Response, Problem> {
    if let Some(id) = text_header(headers, "last-event-id")?.filter(|id| !id.is_empty()) {
        let from = id.parse().ok().filter(|seq| *seq <= Seq::MAX.0);
        read.from =
            Seq(from.ok_or_else(|| Problem::invalid_header("Last-Event-ID", "the id of an event of this stream"))?);
    }
    read.limit = read.limit.clamp(1, PAGE);
    read.wait = Some(HEARTBEAT);
    let stream = unfold(State::Opening(Cursor { app, book, read }), |state| async {
        let (chunk, state) = match state {
            State::Opening(cursor) => (OPENING.to_owned(), State::Reading(cursor)),
            State::Reading(cursor) => cursor.next().await,
            State::Ended => return None,
        };
        Some((Ok::<_, Infallible>(Bytes::from(chunk)), state))
    });
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

impl Cursor {
    /// Waits for records, and writes them as events.
    async fn next(mut self) -> (String, State) {
        let found = tokio::select! {
            biased;
            () = self.app.stopping.cancelled() => Err(LogError::ShuttingDown),
            found = self.app.node.read(self.read.clone()) => found,
        };
        match found {
            Ok(found) if found.records.is_empty() => (":\n\n".to_owned(), State::Reading(self)),
            Ok(found) => {
                let mut out = String::new();
                for record in &found.records {
                    write_event(&mut out, record);
                    self.read.from = record.seq.next();
                }
                if let Consistency::Session(position) = &mut self.read.consistency {
                    *position = found.position.max(*position);
                }
                (out, State::Reading(self))
            }
            Err(LogError::ShuttingDown) => ("event: end\ndata: {\"reason\":\"shutdown\"}\n\n".to_owned(), State::Ended),
            Err(error) => {
                let problem = Problem::of_log(&error, &self.book).to_json();
                (format!("event: error\ndata: {problem}\n\n"), State::Ended)
            }
        }
    }
}

fn write_event(out: &mut String, record: &Record) {
    // A record always has a JSON form, and writing to a string cannot fail.
    let json = serde_json::to_string(&RecordJson::of(record)).unwrap_or_default();
    let _ = writeln!(out, "id: {}", record.seq.0 + 1);
    // A payload that is JSON may have line breaks between its tokens; an event's line has none.
    for line in json.split(['\n', '\r']) {
        let _ = writeln!(out, "data: {line}");
    }
    out.push('\n');
}
