//! Reading: records, one record, the tail, the tags; and the aux data of a record.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use boki_log::op::{Consistency, Direction, Read, SetAux, Tags, Tail};
use boki_log::{BookId, LogError, Seq, Tag};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::Problem;
use super::render::RecordJson;
use super::request::{PathOf, Query, accepts, read_body};
use super::schema::RawBytes;
use super::session::{position_of, set_position};
use super::subscribe::subscribe;
use super::{App, json_response};

/// How many records or tags are returned unless the request says otherwise.
const DEFAULT_LIMIT: u32 = 100;

/// What a tag in a header must not contain as it is.
const IN_HEADER: &AsciiSet = &CONTROLS.add(b',').add(b'=').add(b'%').add(b' ');

const A_SEQ: &str = "a whole number from 0 to 9007199254740991";

/// Records that a read found.
#[derive(Serialize, ToSchema)]
pub(crate) struct RecordsJson<'a> {
    /// In reading order.
    records: Vec<RecordJson<'a>>,
    /// Where to read on: the `from` of the next request. Null: nothing lies further that way.
    next: Option<u64>,
    /// What this read has seen.
    position: u64,
}

/// The last seq.
#[derive(Serialize, ToSchema)]
pub(crate) struct TailJson {
    /// 0 if there is no record.
    seq: u64,
    /// What this read has seen.
    position: u64,
}

/// A page of tags.
#[derive(Serialize, ToSchema)]
pub(crate) struct TagsJson {
    /// In byte order.
    tags: Vec<TagJson>,
    /// There are more: ask again with `after` = the last of these.
    more: bool,
    /// What this read has seen.
    position: u64,
}

/// A tag.
#[derive(Serialize, ToSchema)]
pub(crate) struct TagJson {
    tag: String,
    /// Seq of its last record.
    seq: u64,
}

/// The consistency that a request asks for.
fn consistency_of(query: &Query<'_>, parts: &Parts) -> Result<Consistency, Problem> {
    match query.get("consistency")? {
        None | Some("session") => Ok(Consistency::Session(position_of(&parts.headers)?)),
        Some("linearizable") => Ok(Consistency::Linearizable),
        Some("any") => Ok(Consistency::Any),
        Some(other) => {
            let detail = format!("consistency={other:?} must be session, linearizable or any");
            Err(Problem::invalid_query(Some("consistency"), detail))
        }
    }
}

fn tag_of(query: &Query<'_>, book: &str) -> Result<Option<Tag>, Problem> {
    query.get("tag")?.map(Tag::new).transpose().map_err(|error| Problem::of_log(&error, book))
}

fn seq_of(query: &Query<'_>, name: &str) -> Result<Option<Seq>, Problem> {
    let seq: Option<u64> = query.parsed(name, A_SEQ)?;
    match seq {
        Some(seq) if seq > Seq::MAX.0 => {
            Err(Problem::invalid_query(Some(name), format!("{name}={seq} must be {A_SEQ}")))
        }
        seq => Ok(seq.map(Seq)),
    }
}

/// Read
///
/// With `Accept: text/event-stream`, an endless subscription instead: one event per record, whose id is where
/// to resume from (`Last-Event-ID`).
#[utoipa::path(
    get, path = "/v1/books/{book}/records", tag = "log",
    params(
        ("book" = String, Path, description = "Name of the book"),
        ("tag" = Option<String>, Query, description = "Only records with this tag"),
        ("from" = Option<u64>, Query, description = "Where from, inclusive; the first (next) or the last (prev) unless given"),
        ("dir" = Option<String>, Query, description = "next or prev"),
        ("limit" = Option<u32>, Query, description = "At most this many records; 100 unless given"),
        ("wait" = Option<String>, Query, description = "If there is none, wait this long for one: 30s"),
        ("consistency" = Option<String>, Query, description = "session, linearizable or any"),
        ("Boki-Position" = Option<u64>, Header, description = "Position of the session"),
        ("Last-Event-ID" = Option<u64>, Header, description = "Where a subscription resumes"),
    ),
    responses((status = 200, description = "The records", content(
        (RecordsJson = "application/json"),
        (String = "text/event-stream"),
    )))
)]
pub(crate) async fn read(
    State(app): State<Arc<App>>,
    PathOf(book): PathOf<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let query = Query::parse(parts.uri.query(), &["tag", "from", "dir", "limit", "wait", "consistency"])?;
    let direction = match query.get("dir")? {
        None | Some("next") => Direction::Next,
        Some("prev") => Direction::Prev,
        Some(other) => {
            let detail = format!("dir={other:?} must be next or prev");
            return Err(Problem::invalid_query(Some("dir"), detail));
        }
    };
    let from = seq_of(&query, "from")?;
    let limit = query.parsed("limit", "a whole number")?.unwrap_or(DEFAULT_LIMIT);
    let wait = query.wait()?;
    if wait.is_some() && direction == Direction::Prev {
        return Err(Problem::invalid_query(Some("wait"), "wait goes with dir=next only".to_owned()));
    }
    let read = Read {
        book: app.book(&book)?.id,
        tag: tag_of(&query, &book)?,
        from: from.unwrap_or(if direction == Direction::Next { Seq::FIRST } else { Seq::MAX }),
        direction,
        limit,
        consistency: consistency_of(&query, &parts)?,
        wait,
    };
    if accepts(&parts.headers, "text/event-stream") {
        if direction == Direction::Prev {
            return Err(Problem::invalid_query(Some("dir"), "a subscription goes with dir=next only".to_owned()));
        }
        return subscribe(app, book, read, &parts.headers);
    }
    let before = position_of(&parts.headers)?;
    let found = tokio::select! {
        biased;
        found = app.node.read(read.clone()) => found,
        // A reader that waits does not hold up the end of the server.
        () = app.stopping.cancelled(), if wait.is_some() => Err(LogError::ShuttingDown),
    };
    let found = found.map_err(|error| Problem::of_log(&error, &book))?;
    let next = match (direction, found.records.last()) {
        (Direction::Next, last) => Some(last.map_or(read.from.0, |last| last.seq.0 + 1)),
        (Direction::Prev, last) => last.map(|last| last.seq.0 - 1).filter(|next| *next > 0),
    };
    let body =
        RecordsJson { records: found.records.iter().map(RecordJson::of).collect(), next, position: found.position.0.0 };
    let mut response = json_response(StatusCode::OK, &body);
    set_position(&mut response, before, found.position);
    Ok(response)
}

/// Read one record
///
/// As JSON, or, with `Accept: application/octet-stream`, its payload as it is, with `Boki-Seq`, `Boki-Time-Us`
/// and `Boki-Tags` in headers.
#[utoipa::path(
    get, path = "/v1/books/{book}/records/{seq}", tag = "log",
    params(
        ("book" = String, Path, description = "Name of the book"),
        ("seq" = u64, Path, description = "The record"),
        ("consistency" = Option<String>, Query, description = "session, linearizable or any"),
    ),
    responses(
        (status = 200, description = "The record", content(
            (RecordJson<'_> = "application/json"),
            (RawBytes = "application/octet-stream"),
        )),
        (status = 404, description = "There is none, or no longer (BK0113)"),
    )
)]
pub(crate) async fn read_one(
    State(app): State<Arc<App>>,
    PathOf((book, seq)): PathOf<(String, u64)>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let query = Query::parse(parts.uri.query(), &["consistency"])?;
    let before = position_of(&parts.headers)?;
    let seq = Seq(seq);
    let read = Read {
        book: app.book(&book)?.id,
        tag: None,
        from: seq,
        direction: Direction::Next,
        limit: 1,
        consistency: consistency_of(&query, &parts)?,
        wait: None,
    };
    let of_log = |error: LogError| Problem::of_log(&error, &book);
    let found = app.node.read(read).await.map_err(of_log)?;
    let Some(record) = found.records.first().filter(|record| record.seq == seq) else {
        return Err(of_log(LogError::NoSuchRecord { seq }).at(Some(before.max(found.position))));
    };
    let mut response = if accepts(&parts.headers, "application/octet-stream") {
        let mut response = Response::new(Body::from(record.body.payload_bytes()));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert("boki-seq", HeaderValue::from(seq.0));
        headers.insert("boki-time-us", HeaderValue::from(record.time_us));
        let tags: Vec<String> = record.body.tags().map(|tag| utf8_percent_encode(tag, IN_HEADER).to_string()).collect();
        if let Ok(tags) = HeaderValue::try_from(tags.join(", ")) {
            headers.insert("boki-tags", tags);
        }
        response
    } else {
        json_response(StatusCode::OK, &RecordJson::of(record))
    };
    set_position(&mut response, before, found.position);
    Ok(response)
}

/// Attach aux data
///
/// A cache hint beside a record: it may vanish at any time and never changes a result. An empty body removes it.
#[utoipa::path(
    put, path = "/v1/books/{book}/records/{seq}/aux", tag = "log",
    params(
        ("book" = String, Path, description = "Name of the book"),
        ("seq" = u64, Path, description = "The record"),
    ),
    request_body(content((RawBytes = "application/octet-stream"))),
    responses(
        (status = 204, description = "It is attached"),
        (status = 404, description = "There is no such record (BK0113)"),
    )
)]
pub(crate) async fn set_aux(
    State(app): State<Arc<App>>,
    PathOf((book, seq)): PathOf<(String, u64)>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    Query::parse(parts.uri.query(), &[])?;
    let position = position_of(&parts.headers)?;
    let id = app.book(&book)?.id;
    let aux = read_body(body, app.body_limit).await?;
    let set = SetAux { book: id, seq: Seq(seq), aux };
    app.node.set_aux(set).await.map_err(|error| Problem::of_log(&error, &book))?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    set_position(&mut response, position, position);
    Ok(response)
}

/// The tail
///
/// Seq of the last record of the book, or of a tag.
#[utoipa::path(
    get, path = "/v1/books/{book}/tail", tag = "log",
    params(
        ("book" = String, Path, description = "Name of the book"),
        ("tag" = Option<String>, Query, description = "Only this tag"),
        ("consistency" = Option<String>, Query, description = "session, linearizable or any"),
    ),
    responses((status = 200, description = "The tail", body = TailJson))
)]
pub(crate) async fn tail(
    State(app): State<Arc<App>>,
    PathOf(book): PathOf<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let query = Query::parse(parts.uri.query(), &["tag", "consistency"])?;
    let before = position_of(&parts.headers)?;
    let tail =
        Tail { book: app.book(&book)?.id, tag: tag_of(&query, &book)?, consistency: consistency_of(&query, &parts)? };
    let tail = app.node.tail(tail).await.map_err(|error| Problem::of_log(&error, &book))?;
    let mut response = json_response(StatusCode::OK, &TailJson { seq: tail.seq.0, position: tail.position.0.0 });
    set_position(&mut response, before, tail.position);
    Ok(response)
}

/// The tags
///
/// In byte order, by prefix, a page at a time.
#[utoipa::path(
    get, path = "/v1/books/{book}/tags", tag = "log",
    params(
        ("book" = String, Path, description = "Name of the book"),
        ("prefix" = Option<String>, Query, description = "Only tags that begin with this"),
        ("after" = Option<String>, Query, description = "Only tags after this one"),
        ("limit" = Option<u32>, Query, description = "At most this many; 100 unless given"),
        ("consistency" = Option<String>, Query, description = "session, linearizable or any"),
    ),
    responses((status = 200, description = "The tags", body = TagsJson))
)]
pub(crate) async fn tags(
    State(app): State<Arc<App>>,
    PathOf(book): PathOf<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let query = Query::parse(parts.uri.query(), &["prefix", "after", "limit", "consistency"])?;
    let before = position_of(&parts.headers)?;
    let of_log = |error: LogError| Problem::of_log(&error, &book);
    let tags = Tags {
        book: app.book(&book)?.id,
        prefix: query.get("prefix")?.unwrap_or_default().to_owned(),
        after: query.get("after")?.map(Tag::new).transpose().map_err(of_log)?,
        limit: query.parsed("limit", "a whole number")?.unwrap_or(DEFAULT_LIMIT),
        consistency: consistency_of(&query, &parts)?,
    };
    let page = app.node.tags(tags).await.map_err(of_log)?;
    let body = TagsJson {
        tags: page.tags.iter().map(|(tag, seq)| TagJson { tag: tag.as_str().to_owned(), seq: seq.0 }).collect(),
        more: page.more,
        position: page.position.0.0,
    };
    let mut response = json_response(StatusCode::OK, &body);
    set_position(&mut response, before, page.position);
    Ok(response)
}

/// The seq of the last record of `book`.
pub(crate) async fn last_seq(app: &App, book: BookId) -> Result<u64, LogError> {
    let tail = Tail { book, tag: None, consistency: Consistency::Any };
    Ok(app.node.tail(tail).await?.seq.0)
}

/// How long a subscription is silent at most.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(15);
